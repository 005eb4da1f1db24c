"""Where files are put by name: a folder, a .zip, a .tar. What is put there is there as it is.

Members of archives say no time and no user, so the same files make the same archive.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a .zip can say
_MODE = 0o644


class Shelf(Protocol):
    """Where files are put by name."""

    def put(self, name: str, content: bytes) -> None:
        """Put a file of this name there."""


class FolderShelf:
    """Files in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: set[str] = set()

    def put(self, name: str, content: bytes) -> None:
        """Write a file, and make its folders."""
        folder = name.rpartition("/")[0]
        if folder not in self._made:
            (self._root / folder).mkdir(parents=True, exist_ok=True)
            self._made.add(folder)
        (self._root / name).write_bytes(content)


class ZipShelf:
    """Members of a .zip, as they are: pictures are packed already."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def put(self, name: str, content: bytes) -> None:
        """Add a member."""
        info = zipfile.ZipInfo(name, _EPOCH)
        info.create_system, info.external_attr = 3, _MODE << 16
        self._archive.writestr(info, content)


class TarShelf:
    """Members of a .tar."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def put(self, name: str, content: bytes) -> None:
        """Add a member."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), _MODE
        self._archive.addfile(info, io.BytesIO(content))


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[ZipShelf]:
    """Yield a new .zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        yield ZipShelf(archive)


@contextlib.contextmanager
def open_tar(path: Path, *, packed: bool = False) -> Iterator[TarShelf]:
    """Yield a new .tar, or what a .tar.gz unpacks to."""
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))
        if packed:
            file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
        archive = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        yield TarShelf(stack.enter_context(archive))
