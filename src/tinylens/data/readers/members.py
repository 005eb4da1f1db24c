"""Safe unpacking of .zip and .tar archives.

Members are unpacked into one unlinked file beside the cache, ten times faster than a file per
image; names, modes and links of the archive are never used. Archives are untrusted: one with
outside paths, links, devices, duplicate files or an extreme compression ratio is rejected.
"""

from __future__ import annotations

import errno
import functools
import gzip
import io
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from tinylens.data.cache import not_kept
from tinylens.data.decode import MAX_FILE_BYTES, Item
from tinylens.data.readers.folder import IMAGE_SUFFIXES, TEXT_NAMES
from tinylens.data.splits import inner_path, shown
from tinylens.errors import DataError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
ARCHIVE_SUFFIXES = (".zip", *TAR_SUFFIXES)
MAX_MEMBERS = 10_000_000
HARMLESS_BYTES = 1_000_000_000  # an archive may unpack to so much whatever its own size is
MAX_RATIO = (
    200  # beyond that: of white bitmaps, deflate makes a thousandth; of photographs, nothing
)

_LABEL_SUFFIXES = frozenset({"cls", "json"})  # beside images in WebDataset shards
_ARCHIVE_WORDS = frozenset({"zip", "tar", "gz", "tgz", "7z", "rar", "bz2", "xz"})
_BLOCK = 512  # bytes a header of a .tar takes


class Member(NamedTuple):
    """Archive member: path, unpacked byte range, problem if any."""

    name: str
    item: Item
    problem: str = ""


class Members(NamedTuple):
    """Relevant members of an archive, and the count of ignored ones."""

    files: list[Member]
    ignored: int


def is_archive(path: Path) -> bool:
    """Return whether a path is a file with an archive suffix."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file()


def unpack(path: Path, workspace: Path) -> Members:
    """Unpack the images, labels and manifests of an archive.

    Args:
        path: Archive path.
        workspace: Folder of the unpacked file.

    Raises:
        DataError: it is damaged, encrypted or harmful; see the head of this module.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=workspace, suffix=".bin", delete=False) as file:
            unpacking = _Unpacking(path, file.name, file)
            (_unpack_zip if _is_zip(path) else _unpack_tar)(unpacking)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise not_kept(workspace.parent, error) from error
        raise _damaged(path, (isinstance(error, OSError) and error.strerror) or error) from error
    except (ValueError, struct.error, NotImplementedError, OverflowError) as error:
        raise _damaged(path, error) from error
    return unpacking.members()


def _is_zip(path: Path) -> bool:
    return path.name.lower().endswith(".zip")


def _damaged(path: Path, reason: object) -> DataError:
    words = " ".join(str(reason).split())[:160] or type(reason).__name__
    kind = ".zip" if _is_zip(path) else ".tar or .tar.gz, as its name says"
    return DataError(
        f"{path}: not a whole archive: {words}; expected a {kind}: fetch or pack it anew"
    )


class _Unpacking:
    """State of an unpacking: archive, output file, members so far."""

    def __init__(self, path: Path, heap: str, file: IO[bytes]) -> None:
        self.path, self._heap, self._file = path, heap, file
        self._found: dict[str, Member] = {}
        self._ignored = self._count = self._archives = 0

    def take(self, given: str, size: int, opened: Callable[[], IO[bytes]]) -> None:
        """Unpack a member if relevant.

        Raises:
            DataError: the name leads out, is there twice, or is one too many.
        """
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise DataError(
                f"{self.path}: more than {MAX_MEMBERS:,} members; expected fewer: give them as "
                "several archives, or as Parquet"
            )
        name = inner_path(given, str(self.path))
        if not _matters(name):
            self._ignored += not _is_litter(name)
            self._archives += name.lower().rpartition(".")[2] in _ARCHIVE_WORDS
            return
        if name in self._found:
            raise DataError(
                f"{self.path}: holds {shown(name)} twice, so it is not clear which is meant; "
                "expected each name once: pack it anew"
            )
        if size > MAX_FILE_BYTES:
            self._found[name] = Member(name, Item(self._heap, 0, 0), "too large for an image")
            return
        start = self._file.tell()
        problem = ""
        try:
            with opened() as content:
                shutil.copyfileobj(content, self._file)
        except (zipfile.BadZipFile, zlib.error) as error:
            if not _is_zip(self.path) or name.lower().rpartition(".")[2] not in IMAGE_SUFFIXES:
                raise
            problem = f"damaged in its archive: {error}"
        item = Item(self._heap, start, self._file.tell() - start)
        self._found[name] = Member(name, item, problem)

    def members(self) -> Members:
        """Return the unpacked members."""
        if self._archives and not self._found:
            raise DataError(
                f"{self.path}: holds {self._archives:,} archives and no images, and archives in "
                "archives are not opened; expected images: unpack it once, and give what was in "
                "it"
            )
        return Members(list(self._found.values()), self._ignored)


def _is_litter(name: str) -> bool:
    """Return whether a file is macOS metadata."""
    return name.startswith("__MACOSX/")


def _matters(name: str) -> bool:
    """Return whether a file can be an image, a label or a manifest."""
    if _is_litter(name) or name.startswith(".") or "/." in name:
        return False
    file = name.rpartition("/")[2].lower()
    return file.rpartition(".")[2] in IMAGE_SUFFIXES | _LABEL_SUFFIXES or file in TEXT_NAMES


def _too_much(path: Path, size: int) -> DataError:
    return DataError(
        f"{path}: would unpack to more than {size:,} bytes, over {MAX_RATIO} times its own size, "
        "as archives do that are made to fill a disk; expected images: if it is yours, unpack it "
        "and give the folder"
    )


def _most(path: Path) -> int:
    """Return the maximum unpacked size of an archive, in bytes."""
    return max(HARMLESS_BYTES, MAX_RATIO * path.stat().st_size)


def _no_regular_file(path: Path, name: str, what: str) -> DataError:
    return DataError(
        f"{path}: {shown(name)} is {what}, which could lead anywhere; expected regular files "
        "alone: pack it anew, with tar --dereference --hard-dereference or zip without --symlinks"
    )


# --- .zip


def _unpack_zip(unpacking: _Unpacking) -> None:
    path = unpacking.path
    with zipfile.ZipFile(path) as archive:
        infos, most = archive.infolist(), _most(path)
        if sum(info.file_size for info in infos) > most:  # and zipfile inflates to no more
            raise _too_much(path, most)
        for info in infos:
            given = _zip_name(path, info)
            _check_zip_member(path, given, info)
            if not info.is_dir():
                unpacking.take(given, info.file_size, functools.partial(archive.open, info))


def _zip_name(path: Path, info: zipfile.ZipInfo) -> str:
    """Decode a zip member's name.

    Without the UTF-8 flag, zipfile assumes code page 437, which few current programs use.
    """
    name = info.orig_filename
    if info.flag_bits & 0x800 or name.isascii():
        return name
    folder, slash, file = name.rpartition("/")
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        pass
    if folder.isascii():  # what the image itself is called does not matter
        return folder + slash + file
    raise DataError(
        f"{path}: the name {shown(name)!a} is in letters of an unknown kind, and its folder is a "
        "class; expected names in UTF-8: pack it anew, for example with zip -r or 7z -mcu"
    )


def _check_zip_member(path: Path, name: str, info: zipfile.ZipInfo) -> None:
    mode = info.external_attr >> 16 if info.create_system == 3 else 0
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if stat.S_ISLNK(mode) else "a device"
        raise _no_regular_file(path, name, what)
    if info.flag_bits & 0x1:
        raise DataError(
            f"{path}: {shown(name)} is encrypted; expected an archive without a password: unpack "
            "it, and give the folder or pack it anew"
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{path}: {shown(name)} is packed by method {info.compress_type}; expected stored or "
            "deflated members, as zip -r and most programs write them: pack it anew"
        )


# --- .tar, and that within .gz


def _unpack_tar(unpacking: _Unpacking) -> None:
    path = unpacking.path
    zipped = not path.name.lower().endswith(".tar")
    if not zipped and (size := path.stat().st_size) % _BLOCK:
        raise _damaged(path, f"{size:,} bytes are no whole number of blocks of {_BLOCK}")
    with gzip.open(path) if zipped else path.open("rb") as source:
        bounded = _Bounded(path, source)
        with tarfile.open(fileobj=bounded, mode="r|", bufsize=1 << 20) as archive:
            for info in _regular(path, archive):
                opened = functools.partial(archive.extractfile, info)
                unpacking.take(info.name, info.size, cast(Callable[[], IO[bytes]], opened))
        while bounded.read(1 << 20):  # to its end, where the checksum stands
            pass
        if not zipped:
            source.seek(archive.offset)
            if source.read(_BLOCK) != bytes(_BLOCK):  # which marks the end
                raise _damaged(path, "it ends without the mark of its end")


def _regular(path: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files; reject anything else except folders."""
    for info in archive:
        archive.members = []  # type: ignore[attr-defined] # tarfile would remember all of them
        kind = (
            ("a symbolic link" if info.issym() else "")
            or ("a hard link" if info.islnk() else "")
            or ("a device" if info.isdev() else "")
            or ("a sparse file" if info.issparse() else "")
        )
        if kind:
            raise _no_regular_file(path, info.name, kind)
        if info.isdir():
            inner_path(f"{info.name}/x", str(path))
        elif info.isreg():
            if not info.name.rpartition("/")[0].isprintable():
                raise DataError(
                    f"{path}: the name {info.name!a} is not in UTF-8, and its folder is a class; "
                    "expected names in UTF-8: rename the folder and pack it anew"
                )
            yield info


class _Bounded(io.RawIOBase):
    """Decompressed stream with a size limit."""

    def __init__(self, path: Path, source: IO[bytes] | gzip.GzipFile) -> None:
        self._path, self._source = path, source
        self._left = self._most = _most(path)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes.

        Raises:
            DataError: there are more than an honest archive of this size holds.
        """
        content = self._source.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise _too_much(self._path, self._most)
        return content


def read_names(path: Path, most: int) -> Iterator[str]:
    """Yield the first member names of a .tar or .tar.gz; none if damaged."""
    opener: Callable[..., tarfile.TarFile] = tarfile.open
    try:
        with opener(path, "r:*") as archive:
            for _, info in zip(range(most), archive, strict=False):
                yield info.name
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError):
        return
