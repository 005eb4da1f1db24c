"""Folders of pictures: `root/class/*`, or `root/{train,val,test}/class/*`.

The classes are the folders' names, in the order of their code points or, where all are whole
numbers, of their values; a manifest at the top goes before them. Files that are no pictures by
name, hidden ones and those of file browsers are left out and counted; what a picture's name says
about its format is not believed. See `tinylens.data.layout`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinylens.data.dataset import Dataset, Splits
from tinylens.data.decode import Item, Stamp, stamp_of
from tinylens.data.encoded import DEFAULTS, Encoded, Options, Seen, Source, read_encoded
from tinylens.data.layout import (
    PICTURE_SUFFIXES,
    TEXT_NAMES,
    Listing,
    lay_out,
    manifest_in,
)
from tinylens.data.manifest import check_stays_inside
from tinylens.data.manifest_rows import Rows, column_of
from tinylens.data.parts import Columns, Parts, shown
from tinylens.errors import DataError

IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db"})
MAX_DEPTH = 16  # of folders in folders


def read(root: str | Path, options: Options = DEFAULTS) -> Dataset | Splits:
    """Return the pictures under `root`, Splits where there is a test part.

    Raises:
        DataError: when the folders do not say which classes there are, a class is empty, or no
            picture can be read.
    """
    return read_parts(root, options).published()


def read_parts(root: str | Path, options: Options = DEFAULTS) -> Parts:
    """Return the parts under `root` as they are given; see `read`."""
    return read_encoded(source(Path(root), options), options)


def source(root: Path, options: Options = DEFAULTS) -> Source:
    """Return where the pictures of a folder are."""
    return Source(
        name=str(root),
        prefix=f"{root}{os.sep}",
        look=lambda: _look(root, options.columns),
        collect=lambda _, expect: _collect(root, options.columns, expect),
    )


def read_column(
    root: Path, column: str, options: Options = DEFAULTS
) -> Mapping[str, str | None] | None:
    """Return a column of the folder's manifest by the paths of the pictures; None without it.

    Raises:
        DataError: the manifest cannot be read.
    """
    found = manifest_in(_Walk(root, lambda _: None).listing(), options.columns)
    if found is None:
        return None
    manifest, prefix = found
    return column_of(manifest, column, f"{root}{os.sep}{prefix}", options.columns)


@dataclass(frozen=True)
class _Listed:
    """The pictures, the folders that were looked into, and what there is to note."""

    rows: Rows
    folders: dict[str, Stamp]
    notes: list[str]

    def values(self, stamps: Sequence[Stamp]) -> list[Any]:
        """Return what tells the pictures from others, as JSON values."""
        rows = self.rows
        return [rows.parts, rows.names, rows.labels, rows.class_names, stamps]


def _look(root: Path, columns: Columns) -> Seen:
    listed = _listed(root, columns)
    stamps = [stamp_of(f"{root}{os.sep}{name}") for name in listed.rows.names]
    return Seen(listed.values(stamps), listed.notes)


def _collect(root: Path, columns: Columns, expect: Callable[[int], None]) -> Encoded:
    listed = _listed(root, columns, expect)
    rows = listed.rows
    prefix = f"{root}{os.sep}"
    return Encoded(
        parts=rows.parts,
        items=[Item(prefix + name) for name in rows.names],
        labels=rows.labels,
        names=list(map(shown, rows.names)),
        class_names=tuple(map(shown, rows.class_names)),
        seen=listed.values,
        unchanged=lambda: all(stamp_of(path) == stamp for path, stamp in listed.folders.items()),
        notes=listed.notes,
        skipped=tuple(rows.skipped),
    )


def _listed(
    root: Path, columns: Columns, expect: Callable[[int], None] = lambda _: None
) -> _Listed:
    """Return what is under `root`, having told `expect` early that there is much of it."""
    walk = _Walk(root, expect)
    listing = walk.listing()
    rows, notes = lay_out(listing, columns)
    if notes:  # a manifest, which may name any file
        check_stays_inside(str(root), str(root), rows.names)
        return _Listed(rows, walk.stamps, notes)
    return _Listed(rows, walk.stamps, walk.notes({name.rpartition("/")[0] for name in rows.names}))


class _Walk:
    """Looks through the folders once; counts what it leaves out."""

    def __init__(self, root: Path, expect: Callable[[int], None]) -> None:
        self.root = root
        self.stamps: dict[str, Stamp] = {}
        self._real_root = root.resolve()
        self._expect = expect
        self._folders: dict[str, list[str]] = {}
        self._texts: list[str] = []
        self._ignored: dict[str, int] = {}
        self._links: dict[str, int] = {}
        self._found = 0

    def listing(self) -> Listing:
        """Return what is there.

        Raises:
            DataError: a folder cannot be read, or folders lie too deep in one another.
        """
        try:
            self._visit("", linked=False)
        except OSError as error:
            raise DataError(f"{self.root}: cannot be read: {error.strerror}") from error
        prefix = f"{self.root}{os.sep}"
        return Listing(str(self.root), self._folders, self._texts, lambda name: Item(prefix + name))

    def notes(self, folders: set[str]) -> list[str]:
        """Return what was left out of the folders that hold pictures."""
        ignored = sum(self._ignored[folder] for folder in folders)
        links = sum(self._links[folder] for folder in folders)
        notes = []
        if ignored:
            notes.append(f"{ignored:,} files or folders, no pictures by name, were left out")
        if links:
            notes.append(f"{links:,} links that lead out of the folder were not followed")
        return notes

    def _visit(self, folder: str, *, linked: bool) -> None:
        """Note the pictures in a folder, then those in its folders.

        Args:
            folder: within the root.
            linked: whether a link led here; within such a folder none is followed, so that links
                cannot lead in circles.
        """
        if folder.count("/") >= MAX_DEPTH:
            raise DataError(
                f"{self.root}/{folder}: more than {MAX_DEPTH} folders in one another; expected "
                "pictures nearer to the top: move them up"
            )
        path = f"{self.root}{os.sep}{folder}" if folder else str(self.root)
        self.stamps[path] = stamp_of(path)
        with os.scandir(path) as scanned:
            entries = list(scanned)
        self._expect(self._found + len(entries))
        self._ignored[folder] = self._links[folder] = 0
        pictures: list[str] = []
        inner: list[tuple[str, bool]] = []
        for entry in entries:
            self._take(folder, entry, linked, pictures, inner)
        self._found += len(pictures)
        self._folders[folder] = sorted(pictures)
        for name, by_link in sorted(inner):
            self._visit(_joined(folder, name), linked=by_link)

    def _take(
        self,
        folder: str,
        entry: os.DirEntry[str],
        linked: bool,
        pictures: list[str],
        inner: list[tuple[str, bool]],
    ) -> None:
        """Put an entry among the pictures, the folders or what is left out."""
        name = entry.name.lower()
        if name.startswith(".") or name in IGNORED_NAMES:
            self._ignored[folder] += 1
        elif entry.is_symlink() and not self._may_follow(entry, linked):
            self._links[folder] += 1
        elif name.rpartition(".")[2] in PICTURE_SUFFIXES and entry.is_file():
            pictures.append(entry.name)
        elif entry.is_dir():
            inner.append((entry.name, linked or entry.is_symlink()))
        else:
            self._ignored[folder] += 1
            if name in TEXT_NAMES and entry.is_file():
                self._texts.append(_joined(folder, entry.name))

    def _may_follow(self, entry: os.DirEntry[str], linked: bool) -> bool:
        """Return whether a link stays inside, and leads to no folder that it lies in."""
        try:
            real = Path(entry.path).resolve(strict=True)
            if not real.is_relative_to(self._real_root):
                return False
            if not real.is_dir():
                return True
            return not linked and not Path(entry.path).parent.resolve().is_relative_to(real)
        except (OSError, RuntimeError):  # a link to nothing, or to itself
            return False


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
