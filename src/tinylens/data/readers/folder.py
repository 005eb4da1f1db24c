"""Reader for image folders: `root/class/*` or `root/{train,val,test}/class/*`.

The classes are the folders' names, in the order of their code points or, where all are whole
numbers, of their values; a manifest at the top goes before them. Files that are no images by
name, hidden ones and those of file browsers are left out and counted; what an image's name says
about its format is not believed. See `tinylens.data.readers.folder`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tinylens.data.dataset import Dataset, Splits
from tinylens.data.decode import Item, Stamp, stamp_of
from tinylens.data.encoded import DEFAULTS, Encoded, Options, Seen, Source, read_encoded
from tinylens.data.readers.manifest import (
    MANIFEST_NAMES,
    Manifest,
    Rows,
    check_stays_inside,
    column_of,
    joined,
    parse_manifest,
    rows_of,
)
from tinylens.data.splits import (
    CLASS_NAME_FILES,
    SPLIT_NAMES,
    Columns,
    Parts,
    ordered_names,
    parse_class_names,
    shown,
)
from tinylens.data.validation import (
    check_class_names,
    check_part_names,
    check_same_classes,
    empty_part,
    listed,
)
from tinylens.errors import DataError

IMAGE_SUFFIXES = frozenset({"png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "gif"})
MOST_PARTS = 6  # folders that may be parts by names such as train_images
TEXT_NAMES = MANIFEST_NAMES | CLASS_NAME_FILES


@dataclass(frozen=True)
class Listing:
    """Listing of a folder or an archive.

    Attributes:
        source: Path for messages.
        folders: the names of the images in each folder within it, sorted; "" is the top, and
            every folder is there, those without images too.
        texts: the names within it of files that may say the classes.
        item: where the bytes of the file of a name lie; None where there is no such file.
    """

    source: str
    folders: Mapping[str, Sequence[str]]
    texts: Sequence[str]
    item: Callable[[str], Item | None]


class Group(NamedTuple):
    """Images of one class in one split: folder and paths within it."""

    part: str
    class_name: str
    folder: str
    files: list[str]


def lay_out(listing: Listing, columns: Columns) -> tuple[Rows, list[str]]:
    """Assign splits and classes to the images; return them with notes.

    Raises:
        DataError: neither a manifest nor the folders say which classes there are.
    """
    top = top_of(listing.folders)
    names = _given_class_names(listing, top)
    found = manifest_in(listing, columns)
    if found is not None:
        manifest, prefix = found
        return rows_of(manifest, columns, names, prefix), [
            f"the classes are those of {shown(manifest.where.removeprefix(listing.source)[1:])}"
        ]
    return by_folders(listing, top, names), []


def manifest_in(listing: Listing, columns: Columns) -> tuple[Manifest, str] | None:
    """Return the top-level manifest of a listing, or the merged manifests of its splits.

    Returns:
        The manifest, and what is put before its paths; None where there is none that says the
        classes, and the folders do.

    Raises:
        DataError: it cannot be understood, or lacks a column that the user named.
    """
    top = top_of(listing.folders)
    before = f"{top}/" if top else ""
    inside: dict[str, tuple[str, str, Manifest]] = {}
    for name in listing.texts:
        folder, _, file = name.rpartition("/")
        part = SPLIT_NAMES.get(folder.removeprefix(before).lower(), "")
        if file.lower() not in MANIFEST_NAMES or not (part or folder in ("", top)):
            continue
        manifest = parse_manifest(f"{listing.source}/{name}", _content(listing, name))
        if not manifest.has_labels(columns):
            if columns.image or columns.label:
                manifest.find(columns)  # which says what is missing
        elif part:
            inside[part] = (part, folder.removeprefix(before), manifest)
        else:
            return manifest, f"{folder}/" if folder else ""
    ordered = [inside[part] for part in ("train", "val", "test") if part in inside]
    return (joined(ordered, columns), before) if ordered else None


def top_of(folders: Mapping[str, Sequence[str]]) -> str:
    """Return the folder that holds the classes or splits: "" or a single wrapper folder.

    >>> top_of({"": [], "pets": [], "pets/cat": ["1.png"], "pets/dog": ["1.png"]})
    'pets'
    """
    first = [folder for folder in folders if folder and "/" not in folder]
    if len(first) != 1 or folders.get("") or first[0].lower() in SPLIT_NAMES:
        return ""
    (around,) = first
    holds_folders = any(folder.startswith(f"{around}/") for folder in folders)
    return around if holds_folders and not folders[around] else ""


def by_folders(listing: Listing, top: str, names: tuple[str, ...]) -> Rows:
    """Assign images by folder name."""
    groups = groups_of(listing, top)
    found = class_names_of(groups, listing.source, names)
    number = {name: index for index, name in enumerate(found)}
    rows = Rows({}, [], [], found, [])
    for group in groups:
        start, _ = rows.parts.get(group.part, (len(rows.labels), 0))
        rows.names.extend(f"{group.folder}/{file}" for file in group.files)
        rows.labels.extend([number[group.class_name]] * len(group.files))
        rows.parts[group.part] = (start, len(rows.labels))
    return rows


def groups_of(listing: Listing, top: str) -> list[Group]:
    """Return the images of each split and class, in that order.

    Raises:
        DataError: the names of the folders do not say which parts there are, a class to train on
            has no images, or the parts are inside the classes.
    """
    inner = _Folders(listing.folders)
    parts = _parts_of(listing.source, inner, top)
    groups = []
    for part in ("train", "val", "test"):
        if part not in parts:
            continue
        for name in sorted(inner.under(parts[part])):
            folder = f"{parts[part]}/{name}" if parts[part] else name
            groups.append(Group(part, name, folder, _images(listing, inner, part, name, folder)))
        if part != "train" and not any(each.files for each in groups if each.part == part):
            raise empty_part(listing.source, part)
    return groups


def class_names_of(
    groups: Sequence[Group], source: str, given: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the train classes after checking that val and test add none.

    Raises:
        DataError: there are fewer than two, or parts or `given` differ from train.
    """
    by_split: dict[str, set[str]] = {}
    for group in groups:
        by_split.setdefault(group.part, set()).add(group.class_name)
    found = by_split.get("train", set())
    names = ordered_names(found)
    if len(names) < 2:
        root = source.rpartition("/")[2]
        raise DataError(
            f"{source}: found {len(names)} class folders{': ' if names else ''}"
            f"{listed(map(shown, names))}; expected at least 2, as in {root}/CLASS/IMAGE "
            f"or {root}/train/CLASS/IMAGE"
        )
    check_class_names(names, source)
    for part, classes in by_split.items():
        check_same_classes(part, map(shown, classes), list(map(shown, names)), source)
    if given and set(given) != found:
        odd = ", ".join(map(shown, sorted(set(given) ^ found)))
        raise DataError(
            f"{source}: the folders of the classes and the file of class names differ by {odd}; "
            "expected the same names: mend or remove the file"
        )
    return given or names


class _Folders:
    """Folder hierarchy."""

    def __init__(self, folders: Mapping[str, Sequence[str]]) -> None:
        self._children: dict[str, list[str]] = {}
        for folder in folders:
            if folder:
                parent, _, name = folder.rpartition("/")
                self._children.setdefault(parent, []).append(name)

    def under(self, folder: str) -> list[str]:
        """Return the names of the direct subfolders."""
        return self._children.get(folder, [])

    def all_within(self, folder: str) -> list[str]:
        """Return the sorted relative paths of all nested folders."""
        found: list[str] = []
        left = list(self.under(folder))
        while left:  # no recursion: an archive may name folders as deep as it likes
            name = left.pop()
            found.append(name)
            left += [f"{name}/{deeper}" for deeper in self.under(f"{folder}/{name}")]
        return sorted(found)


def _parts_of(source: str, inner: _Folders, top: str) -> dict[str, str]:
    """Return the folder of each split; `top` is train if there are no splits."""
    names = inner.under(top)
    aliases = {name: SPLIT_NAMES[name.lower()] for name in names if name.lower() in SPLIT_NAMES}
    joined = {name: f"{top}/{name}" if top else name for name in names}
    if aliases or len(names) <= MOST_PARTS:  # else they are classes, and not to be looked into
        held = {shown(name): bool(inner.under(joined[name])) for name in names}
        check_part_names(Path(source) / top, held, SPLIT_NAMES)
    if not any(inner.under(joined[name]) for name, part in aliases.items() if part == "train"):
        return {"train": top}
    return {part: joined[name] for name, part in aliases.items()}


def _images(
    listing: Listing, inner: _Folders, part: str, class_name: str, folder: str
) -> list[str]:
    """Return the paths of a class's images within its folder."""
    deeper = inner.all_within(folder)
    parted = {
        SPLIT_NAMES[name.lower()] for name in inner.under(folder) if name.lower() in SPLIT_NAMES
    }
    if "train" in parted and len(parted) > 1:
        raise DataError(
            f"{listing.source}/{folder}: the class {shown(class_name)} holds the parts "
            f"{', '.join(sorted(parted))}; expected the parts first, as in train/"
            f"{shown(class_name)}/IMAGE and test/{shown(class_name)}/IMAGE: move the folders"
        )
    found = list(listing.folders[folder])
    for name in deeper:
        found += [f"{name}/{file}" for file in listing.folders[f"{folder}/{name}"]]
    if not found and part == "train":
        raise DataError(
            f"{listing.source}/{folder}: no images of class {shown(class_name)}; expected at "
            "least one file named .png, .jpg, .webp, .bmp or .gif: add some or remove the folder"
        )
    return found


def _given_class_names(listing: Listing, top: str) -> tuple[str, ...]:
    for name in listing.texts:
        folder, _, file = name.rpartition("/")
        if folder in ("", top) and file.lower() in CLASS_NAME_FILES:
            return parse_class_names(f"{listing.source}/{name}", _content(listing, name))
    return ()


def _content(listing: Listing, name: str) -> bytes:
    item = listing.item(name)
    try:
        return item.content() if item else b""
    except DataError as error:
        raise DataError(f"{listing.source}/{name}: {error}") from None


IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db"})
MAX_DEPTH = 16  # of folders in folders


def read(root: str | Path, options: Options = DEFAULTS) -> Dataset | Splits:
    """Read the images under `root`; returns Splits if there is a test split.

    Raises:
        DataError: when the folders do not say which classes there are, a class is empty, or no
            image can be read.
    """
    return read_parts(root, options).published()


def read_parts(root: str | Path, options: Options = DEFAULTS) -> Parts:
    """Read the splits under `root` as stored; see `read`."""
    return read_encoded(source(Path(root), options), options)


def source(root: Path, options: Options = DEFAULTS) -> Source:
    """Return the image source of a folder."""
    return Source(
        name=str(root),
        prefix=f"{root}{os.sep}",
        look=lambda: _look(root, options.columns),
        collect=lambda _, expect: _collect(root, options.columns, expect),
    )


def read_column(
    root: Path, column: str, options: Options = DEFAULTS
) -> Mapping[str, str | None] | None:
    """Read a column of the folder's manifest by image path; None without a manifest.

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
    """Result of a folder walk: images, visited folders, notes."""

    rows: Rows
    folders: dict[str, Stamp]
    notes: list[str]

    def values(self, stamps: Sequence[Stamp]) -> list[Any]:
        """Return the identity of the images as JSON values."""
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
    """List the files under `root`; calls `expect` early for many images."""
    walk = _Walk(root, expect)
    listing = walk.listing()
    rows, notes = lay_out(listing, columns)
    if notes:  # a manifest, which may name any file
        check_stays_inside(str(root), str(root), rows.names)
        return _Listed(rows, walk.stamps, notes)
    return _Listed(rows, walk.stamps, walk.notes({name.rpartition("/")[0] for name in rows.names}))


class _Walk:
    """Single-pass folder walk that counts ignored files."""

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
        """Return the listing.

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
        """Return notes on the files ignored in image folders."""
        ignored = sum(self._ignored[folder] for folder in folders)
        links = sum(self._links[folder] for folder in folders)
        notes = []
        if ignored:
            notes.append(f"{ignored:,} files or folders, no images by name, were left out")
        if links:
            notes.append(f"{links:,} links that lead out of the folder were not followed")
        return notes

    def _visit(self, folder: str, *, linked: bool) -> None:
        """Collect the images of a folder, then of its subfolders.

        Args:
            folder: within the root.
            linked: whether a link led here; within such a folder none is followed, so that links
                cannot lead in circles.
        """
        if folder.count("/") >= MAX_DEPTH:
            raise DataError(
                f"{self.root}/{folder}: more than {MAX_DEPTH} folders in one another; expected "
                "images nearer to the top: move them up"
            )
        path = f"{self.root}{os.sep}{folder}" if folder else str(self.root)
        self.stamps[path] = stamp_of(path)
        with os.scandir(path) as scanned:
            entries = list(scanned)
        self._expect(self._found + len(entries))
        self._ignored[folder] = self._links[folder] = 0
        images: list[str] = []
        inner: list[tuple[str, bool]] = []
        for entry in entries:
            self._take(folder, entry, linked, images, inner)
        self._found += len(images)
        self._folders[folder] = sorted(images)
        for name, by_link in sorted(inner):
            self._visit(_joined(folder, name), linked=by_link)

    def _take(
        self,
        folder: str,
        entry: os.DirEntry[str],
        linked: bool,
        images: list[str],
        inner: list[tuple[str, bool]],
    ) -> None:
        """Classify an entry as image, folder or ignored."""
        name = entry.name.lower()
        if name.startswith(".") or name in IGNORED_NAMES:
            self._ignored[folder] += 1
        elif entry.is_symlink() and not self._may_follow(entry, linked):
            self._links[folder] += 1
        elif name.rpartition(".")[2] in IMAGE_SUFFIXES and entry.is_file():
            images.append(entry.name)
        elif entry.is_dir():
            inner.append((entry.name, linked or entry.is_symlink()))
        else:
            self._ignored[folder] += 1
            if name in TEXT_NAMES and entry.is_file():
                self._texts.append(_joined(folder, entry.name))

    def _may_follow(self, entry: os.DirEntry[str], linked: bool) -> bool:
        """Return whether a link stays inside the root and creates no cycle."""
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
