"""Which class and which part a picture is of, by the names of folders and by a manifest in them.

Folders on the disk and archives come here alike, as a `Listing`. Where a manifest lies at the top
or at the top of each part, it says the classes; else the folders do: `root/CLASS/*` or
`root/{train,val,test}/CLASS/*`, with one folder around all of it allowed. A class is the folder
directly under the root or the part, and whatever lies deeper is of that class too: what stands
higher is the coarser thing, as in `shoes/model-17/front.jpg`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tinylens.data.checking import (
    check_class_names,
    check_part_names,
    check_same_classes,
    empty_part,
    listed,
)
from tinylens.data.decode import Item
from tinylens.data.manifest_rows import (
    MANIFEST_NAMES,
    Manifest,
    Rows,
    joined,
    parse_manifest,
    rows_of,
)
from tinylens.data.parts import (
    CLASS_NAME_FILES,
    PART_NAMES,
    Columns,
    ordered_names,
    parse_class_names,
    shown,
)
from tinylens.errors import DataError

PICTURE_SUFFIXES = frozenset({"png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "gif"})
MOST_PARTS = 6  # folders that may be parts by names such as train_images
TEXT_NAMES = MANIFEST_NAMES | CLASS_NAME_FILES


@dataclass(frozen=True)
class Listing:
    """What lies in a folder or an archive.

    Attributes:
        source: its path, for messages.
        folders: the names of the pictures in each folder within it, sorted; "" is the top, and
            every folder is there, those without pictures too.
        texts: the names within it of files that may say the classes.
        item: where the bytes of the file of a name lie; None where there is no such file.
    """

    source: str
    folders: Mapping[str, Sequence[str]]
    texts: Sequence[str]
    item: Callable[[str], Item | None]


class Group(NamedTuple):
    """The pictures of one class in one part: their folder, their paths in it."""

    part: str
    class_name: str
    folder: str
    files: list[str]


def lay_out(listing: Listing, columns: Columns) -> tuple[Rows, list[str]]:
    """Return the pictures with their parts and classes, and notes.

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
    """Return the manifest at the top of a listing, or those of its parts in one.

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
        part = PART_NAMES.get(folder.removeprefix(before).lower(), "")
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
    """Return the folder that holds the classes or parts: "", or the one around all of it.

    >>> top_of({"": [], "pets": [], "pets/cat": ["1.png"], "pets/dog": ["1.png"]})
    'pets'
    """
    first = [folder for folder in folders if folder and "/" not in folder]
    if len(first) != 1 or folders.get("") or first[0].lower() in PART_NAMES:
        return ""
    (around,) = first
    holds_folders = any(folder.startswith(f"{around}/") for folder in folders)
    return around if holds_folders and not folders[around] else ""


def by_folders(listing: Listing, top: str, names: tuple[str, ...]) -> Rows:
    """Return the pictures by the names of their folders."""
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
    """Return the pictures of each class in each part, part after part and class after class.

    Raises:
        DataError: the names of the folders do not say which parts there are, a class to train on
            has no pictures, or the parts are inside the classes.
    """
    inner = _Folders(listing.folders)
    parts = _parts_of(listing.source, inner, top)
    groups = []
    for part in ("train", "val", "test"):
        if part not in parts:
            continue
        for name in sorted(inner.under(parts[part])):
            folder = f"{parts[part]}/{name}" if parts[part] else name
            groups.append(Group(part, name, folder, _pictures(listing, inner, part, name, folder)))
        if part != "train" and not any(each.files for each in groups if each.part == part):
            raise empty_part(listing.source, part)
    return groups


def class_names_of(
    groups: Sequence[Group], source: str, given: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the classes of train, having checked that val and test bring no other.

    Raises:
        DataError: there are fewer than two, or parts or `given` differ from train.
    """
    by_part: dict[str, set[str]] = {}
    for group in groups:
        by_part.setdefault(group.part, set()).add(group.class_name)
    found = by_part.get("train", set())
    names = ordered_names(found)
    if len(names) < 2:
        root = source.rpartition("/")[2]
        raise DataError(
            f"{source}: found {len(names)} class folders{': ' if names else ''}"
            f"{listed(map(shown, names))}; expected at least 2, as in {root}/CLASS/PICTURE "
            f"or {root}/train/CLASS/PICTURE"
        )
    check_class_names(names, source)
    for part, classes in by_part.items():
        check_same_classes(part, map(shown, classes), list(map(shown, names)), source)
    if given and set(given) != found:
        odd = ", ".join(map(shown, sorted(set(given) ^ found)))
        raise DataError(
            f"{source}: the folders of the classes and the file of class names differ by {odd}; "
            "expected the same names: mend or remove the file"
        )
    return given or names


class _Folders:
    """Which folders lie in which."""

    def __init__(self, folders: Mapping[str, Sequence[str]]) -> None:
        self._children: dict[str, list[str]] = {}
        for folder in folders:
            if folder:
                parent, _, name = folder.rpartition("/")
                self._children.setdefault(parent, []).append(name)

    def under(self, folder: str) -> list[str]:
        """Return the names of the folders directly in `folder`."""
        return self._children.get(folder, [])

    def all_within(self, folder: str) -> list[str]:
        """Return the paths of all folders in `folder`, from there, sorted."""
        found: list[str] = []
        left = list(self.under(folder))
        while left:  # no recursion: an archive may name folders as deep as it likes
            name = left.pop()
            found.append(name)
            left += [f"{name}/{deeper}" for deeper in self.under(f"{folder}/{name}")]
        return sorted(found)


def _parts_of(source: str, inner: _Folders, top: str) -> dict[str, str]:
    """Return the folder of each part; `top` itself is train where there are no parts."""
    names = inner.under(top)
    aliases = {name: PART_NAMES[name.lower()] for name in names if name.lower() in PART_NAMES}
    joined = {name: f"{top}/{name}" if top else name for name in names}
    if aliases or len(names) <= MOST_PARTS:  # else they are classes, and not to be looked into
        held = {shown(name): bool(inner.under(joined[name])) for name in names}
        check_part_names(Path(source) / top, held, PART_NAMES)
    if not any(inner.under(joined[name]) for name, part in aliases.items() if part == "train"):
        return {"train": top}
    return {part: joined[name] for name, part in aliases.items()}


def _pictures(
    listing: Listing, inner: _Folders, part: str, class_name: str, folder: str
) -> list[str]:
    """Return the paths of a class's pictures within its folder."""
    deeper = inner.all_within(folder)
    parted = {
        PART_NAMES[name.lower()] for name in inner.under(folder) if name.lower() in PART_NAMES
    }
    if "train" in parted and len(parted) > 1:
        raise DataError(
            f"{listing.source}/{folder}: the class {shown(class_name)} holds the parts "
            f"{', '.join(sorted(parted))}; expected the parts first, as in train/"
            f"{shown(class_name)}/PICTURE and test/{shown(class_name)}/PICTURE: move the folders"
        )
    found = list(listing.folders[folder])
    for name in deeper:
        found += [f"{name}/{file}" for file in listing.folders[f"{folder}/{name}"]]
    if not found and part == "train":
        raise DataError(
            f"{listing.source}/{folder}: no pictures of class {shown(class_name)}; expected at "
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
