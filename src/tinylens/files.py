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
    name = re.sub(r"\.(npz|parquet|tar|tgz|tar\.gz)$", "", Path(source).name.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:40] or "data"


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
    """Remove temporary files of a killed process from folders, of which some may not be there."""
    for folder in folders:
        for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
            if leftover.is_file():
                leftover.unlink(missing_ok=True)
