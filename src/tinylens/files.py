"""Files and folders that appear whole or not at all, even when the process is killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

TEMPORARY_PREFIX = ".tmp-"


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: temporary name, fsync, rename."""
    write_with(path, lambda file: file.write(content))


def write_text(path: Path, content: str) -> None:
    """Replace `path` by `content`, encoded as UTF-8, in one step."""
    write_bytes(path, content.encode("utf-8"))


def write_with(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace `path` by what `write` puts into a binary file, in one step."""
    with new_file(path) as file:
        write(file)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a binary file that replaces `path` when the block ends without an error."""
    temporary = temporary_beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an error.

    If another process finished the same folder first, its folder stays and ours is dropped: both
    hold the same content, since a folder made this way is named by what is in it.
    """
    temporary = temporary_beside(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                fsync_file(file)
        fsync_folder(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace(temporary: Path, path: Path) -> None:
    """Give a finished file or folder its name; what had that name before is gone then."""
    for file in temporary.rglob("*") if temporary.is_dir() else [temporary]:
        if file.is_file():
            fsync_file(file)
    if path.is_dir():  # a folder that is not empty cannot be renamed over
        old = temporary_beside(path)
        path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.replace(path)
    fsync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """Return a fresh name in the folder of `path`, which is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name[-80:]}"


def fsync_file(path: Path) -> None:
    """Wait until the content of `path` is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fsync_folder(path: Path) -> None:
    """Wait until the names in the folder `path` are on the disk, where the system can say so."""
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def slug(source: str) -> str:
    """Return a data set's source as a short name for files.

    >>> slug("fashion-mnist"), slug("data/My Shop/"), slug("toys.npz")
    ('fashion-mnist', 'my-shop', 'toys')
    """
    suffix = r"\.(npz|parquet|zip|tar|tgz|tar\.gz|csv|tsv|jsonl)$"
    name = re.sub(suffix, "", Path(source).name.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:40] or "data"


def numbered(root: Path, stem: str) -> Iterator[tuple[int, Path]]:
    """Yield N and the path of every folder `root/stem-N`, N from 1, in no order."""
    pattern = re.compile(re.escape(stem) + r"-([1-9][0-9]*)")
    for path in root.iterdir() if root.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match and path.is_dir():
            yield int(match[1]), path


def next_numbered(root: Path, stem: str, finished: Callable[[Path], bool]) -> Path:
    """Return the newest folder `root/stem-N` that is not finished, or the next free one."""
    number, path = max(numbered(root, stem), default=(0, root))
    if number and not finished(path):
        return path
    return root / f"{stem}-{number + 1}"


def lock_descriptor(descriptor: int) -> bool:
    """Take the system's lock on an open file; it is let go when the descriptor is closed."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_leftovers(*folders: Path) -> None:
    """Remove what a killed process left unfinished in folders, of which some may not be there."""
    for folder in folders:
        for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
            remove(leftover)
