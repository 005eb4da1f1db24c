"""What lies in a .zip or .tar, told without unpacking anything to the disk under its own name.

Pictures stay where they are: a member is remembered by its place in the archive, and those of a
.zip are inflated by whoever decodes them. A .tar.gz can be read from its start alone; its pictures
are copied into one nameless file beside the cache, which is gone when they are decoded.

An archive comes from someone else. One that names a path outside itself, links, devices, a file
twice, or that unpacks to far more than it is, is refused whole: none of these comes about by chance
in a set of pictures.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from tinylens.data.decode import MAX_FILE_BYTES, Item
from tinylens.data.layout import PICTURE_SUFFIXES, TEXT_NAMES
from tinylens.data.parts import inner_path, shown
from tinylens.errors import DataError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
ARCHIVE_SUFFIXES = (".zip", *TAR_SUFFIXES)
MAX_MEMBERS = 10_000_000
HARMLESS_BYTES = 1_000_000_000  # an archive may unpack to so much whatever its own size is
MAX_RATIO = (
    200  # beyond that: of white bitmaps, deflate makes a thousandth; of photographs, nothing
)

_LABEL_SUFFIXES = frozenset({"cls", "json"})  # beside pictures in WebDataset shards
_ARCHIVE_WORDS = frozenset({"zip", "tar", "gz", "tgz", "7z", "rar", "bz2", "xz"})
_LOCAL_HEADER = struct.Struct("<4s22sHH")  # of a .zip's member; two lengths follow 26 bytes
_BLOCK = 512  # bytes a header of a .tar takes


class Member(NamedTuple):
    """A file in an archive: its path there, and where its bytes lie."""

    name: str
    item: Item


class Members(NamedTuple):
    """What lies in an archive: the files that can matter, and how many cannot."""

    files: list[Member]
    ignored: int


def is_archive(path: Path) -> bool:
    """Return whether a path is a file that is called as archives are."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file()


def list_members(path: Path, workspace: Path) -> Members:
    """Return the pictures in an archive and the files that say what they show.

    Args:
        path: of the archive.
        workspace: a folder for a file of bytes that lie packed in the archive all in one.

    Raises:
        DataError: it is damaged, encrypted or harmful; see the head of this module.
    """
    try:
        if path.name.lower().endswith(".zip"):
            return _checked(path, _zip_members(path))
        if path.name.lower().endswith(".tar"):
            return _checked(path, _tar_members(path))
        descriptor, heap = tempfile.mkstemp(".bin", dir=workspace)
        os.close(descriptor)
        return _checked(path, _gzip_members(path, Path(heap)))
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, (isinstance(error, OSError) and error.strerror) or error) from error
    except (ValueError, struct.error, NotImplementedError, OverflowError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> DataError:
    words = " ".join(str(reason).split())[:160] or type(reason).__name__
    kind = ".zip" if path.name.lower().endswith(".zip") else ".tar or .tar.gz, as its name says"
    return DataError(
        f"{path}: not a whole archive: {words}; expected a {kind}: fetch or pack it anew"
    )


def _checked(path: Path, members: Iterator[tuple[str, Item | None]]) -> Members:
    """Return members by their paths within the archive, each once."""
    found: dict[str, Item] = {}
    ignored = count = archives = 0
    for given, item in members:
        count += 1
        if count > MAX_MEMBERS:
            raise DataError(
                f"{path}: more than {MAX_MEMBERS:,} members; expected fewer: give them as several "
                "archives, or as Parquet"
            )
        name = inner_path(given, str(path))
        if not _matters(name) or item is None:
            ignored += not _is_litter(name)
            archives += name.lower().rpartition(".")[2] in _ARCHIVE_WORDS
            continue
        if name in found:
            raise DataError(
                f"{path}: holds {shown(name)} twice, so it is not clear which is meant; expected "
                "each name once: pack it anew"
            )
        found[name] = item
    if archives and not found:
        raise DataError(
            f"{path}: holds {archives:,} archives and no pictures, and archives in archives are "
            "not opened; expected pictures: unpack it once, and give what was in it"
        )
    return Members([Member(*each) for each in found.items()], ignored)


def _is_litter(name: str) -> bool:
    """Return whether a file is what macOS puts into archives beside each file of the user's."""
    return name.startswith("__MACOSX/")


def _matters(name: str) -> bool:
    """Return whether a file can be a picture, or say what one shows."""
    if _is_litter(name) or name.startswith(".") or "/." in name:
        return False
    file = name.rpartition("/")[2].lower()
    return file.rpartition(".")[2] in PICTURE_SUFFIXES | _LABEL_SUFFIXES or file in TEXT_NAMES


def _too_much(path: Path, size: int) -> DataError:
    return DataError(
        f"{path}: would unpack to more than {size:,} bytes, over {MAX_RATIO} times its own size, "
        "as archives do that are made to fill a disk; expected pictures: if it is yours, unpack it "
        "and give the folder"
    )


def _most(path: Path) -> int:
    """Return how many bytes an archive may unpack to."""
    return max(HARMLESS_BYTES, MAX_RATIO * path.stat().st_size)


def _no_regular_file(path: Path, name: str, what: str) -> DataError:
    return DataError(
        f"{path}: {shown(name)} is {what}, which could lead anywhere; expected regular files "
        "alone: pack it anew, with tar --dereference --hard-dereference or zip without --symlinks"
    )


# --- .zip


def _zip_members(path: Path) -> Iterator[tuple[str, Item | None]]:
    """Yield names and places; see `_checked` for what is still to be checked."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        infos = archive.infolist()
        most = _most(path)
        if sum(info.file_size for info in infos) > most:
            raise _too_much(path, most)
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            name = _zip_name(path, info)
            _check_zip_member(path, name, info)
            start = _content_offset(path, name, file, info)
            if info.header_offset < end:
                raise _damaged(path, f"{shown(name)} lies upon another member")
            end = start + info.compress_size
            if info.is_dir():
                continue
            yield name, _zip_item(path, info, start)
        if end > path.stat().st_size:
            raise _damaged(path, "it ends before its last member does")


def _zip_item(path: Path, info: zipfile.ZipInfo, start: int) -> Item:
    packed = info.compress_type != zipfile.ZIP_STORED
    size = info.file_size if packed else -1
    return Item(str(path), start, info.compress_size, size, info.CRC)


def _zip_name(path: Path, info: zipfile.ZipInfo) -> str:
    """Return a member's name, having found out which letters its bytes are.

    Without a flag that says UTF-8, zipfile takes them for those of the first IBM PC, and few
    programs of today mean that.
    """
    name = info.orig_filename
    if info.flag_bits & 0x800 or name.isascii():
        return name
    folder, slash, file = name.rpartition("/")
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        pass
    if folder.isascii():  # what the picture itself is called does not matter
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


def _content_offset(path: Path, name: str, file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Return where a member's bytes begin: behind a header whose length only itself says."""
    file.seek(info.header_offset)
    head = file.read(_LOCAL_HEADER.size)
    signature, _, name_length, extra_length = _LOCAL_HEADER.unpack(head)
    if signature != b"PK\x03\x04":
        raise _damaged(path, f"no header of {shown(name)} at byte {info.header_offset:,}")
    return info.header_offset + len(head) + int(name_length) + int(extra_length)


# --- .tar, and that within .gz


def _tar_members(path: Path) -> Iterator[tuple[str, Item | None]]:
    size = path.stat().st_size
    if size % _BLOCK:
        raise _damaged(path, f"{size:,} bytes are no whole number of blocks of {_BLOCK}")
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for info in _regular(path, archive):
            yield info.name, Item(str(path), info.offset_data, info.size)
        file.seek(archive.offset)
        if file.read(_BLOCK) != bytes(_BLOCK):  # which marks the end
            raise _damaged(path, "it ends without the mark of its end")


def _gzip_members(path: Path, heap: Path) -> Iterator[tuple[str, Item | None]]:
    """Yield the members, having copied those that matter into `heap`."""
    with gzip.open(path) as unzipped, heap.open("wb") as file:
        bounded = _Bounded(path, unzipped)
        with tarfile.open(fileobj=bounded, mode="r|", bufsize=1 << 20) as archive:
            for info in _regular(path, archive):
                name = inner_path(info.name, str(path))
                source = archive.extractfile(info) if _matters(name) else None
                if source is None or info.size > MAX_FILE_BYTES:
                    yield info.name, None
                    continue
                item = Item(str(heap), file.tell(), info.size)
                content = source.read()
                if len(content) != info.size:
                    raise _damaged(path, f"it ends within {shown(info.name)}")
                file.write(content)
                yield info.name, item
        while bounded.read(1 << 20):  # to its end, where the checksum stands
            pass


def _regular(path: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files; what is neither that nor a folder is refused."""
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
    """The unpacked bytes of a file, of which there may be so many and no more."""

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
    """Yield the first names in a .tar or .tar.gz, and none where it is damaged."""
    opener: Callable[..., tarfile.TarFile] = tarfile.open
    try:
        with opener(path, "r:*") as archive:
            for _, info in zip(range(most), archive, strict=False):
                yield info.name
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError):
        return
