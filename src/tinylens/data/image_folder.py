"""Folders of pictures: `root/class/*`, or `root/{train,val,test}/class/*`.

The classes are the folders' names, numbered in the order of their code points. Files that are no
pictures by name, hidden ones and those of file browsers are left out and counted; what a picture's
name says about its format is not believed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tinylens.data.checking import (
    check_class_names,
    check_part_names,
    check_same_classes,
    empty_part,
    listed,
)
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.decode_worker import Item, Stamp, stamp_of
from tinylens.data.encoded import DEFAULTS, Encoded, Options, Seen, Source, read_encoded
from tinylens.data.parts import PART_NAMES, Parts
from tinylens.errors import DataError

PICTURE_SUFFIXES = frozenset({"png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "gif"})
MOST_PARTS = 6  # folders that may be parts by misspelt names
IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db"})


def read(root: str | Path, options: Options = DEFAULTS) -> Dataset | Splits:
    """Return the pictures under `root`, Splits where there is a test part.

    Raises:
        DataError: when the folders do not say which classes there are, a class is empty, or no
            picture can be read.
    """
    return read_parts(root, options).published()


def read_parts(root: str | Path, options: Options = DEFAULTS) -> Parts:
    """Return the parts under `root` as they are given; see `read`."""
    root = Path(root)
    source = Source(
        name=str(root),
        prefix=f"{root}{os.sep}",
        look=lambda: _look(root),
        collect=lambda _, expect: _collect(root, expect),
    )
    return read_encoded(source, options)


class _Group(NamedTuple):
    """The pictures of one class in one part: their folder within the root, their names in it."""

    part: str
    class_name: str
    folder: str
    files: list[str]


@dataclass(frozen=True)
class _Listed:
    """The pictures, and what was left out.

    Attributes:
        groups: the pictures, part after part and class after class.
        names: each picture's within the root, group after group.
        class_names: of train, sorted.
        folders: each folder that was looked into, with its stamp before.
        ignored: how many files and folders are no pictures by name.
        links: how many lead out of the root.
    """

    groups: list[_Group]
    names: list[str]
    class_names: tuple[str, ...]
    folders: dict[str, Stamp]
    ignored: int
    links: int


def _look(root: Path) -> Seen:
    listed = _listed(root)
    stamps = [stamp_of(f"{root}{os.sep}{name}") for name in listed.names]
    return Seen(_values(listed, stamps), _notes(listed))


def _values(listed: _Listed, stamps: Sequence[Stamp]) -> list[Any]:
    return [listed.groups, stamps]


def _collect(root: Path, expect: Callable[[int], None]) -> Encoded:
    listed = _listed(root, expect)
    number = {name: index for index, name in enumerate(listed.class_names)}
    parts: dict[str, tuple[int, int]] = {}
    labels: list[int] = []
    for group in listed.groups:
        start, _ = parts.get(group.part, (len(labels), 0))
        labels += [number[group.class_name]] * len(group.files)
        parts[group.part] = (start, len(labels))
    prefix = f"{root}{os.sep}"
    return Encoded(
        parts=parts,
        items=[Item(prefix + name) for name in listed.names],
        labels=labels,
        names=list(map(shown, listed.names)),
        class_names=tuple(map(shown, listed.class_names)),
        seen=lambda stamps: _values(listed, stamps),
        unchanged=lambda: all(stamp_of(path) == stamp for path, stamp in listed.folders.items()),
        notes=_notes(listed),
    )


def _notes(listed: _Listed) -> list[str]:
    notes = []
    if listed.ignored:
        notes.append(f"{listed.ignored:,} files or folders, no pictures by name, were left out")
    if listed.links:
        notes.append(f"{listed.links:,} links that lead out of the folder were not followed")
    return notes


def shown(name: str) -> str:
    r"""Return a file's name fit to be printed: what is not printable is escaped.

    >>> shown("new\nline")
    'new\\nline'
    """
    if name.isprintable():
        return name
    escape = "unicode_escape"
    return "".join(c if c.isprintable() else c.encode(escape).decode("ascii") for c in name)


def _listed(root: Path, expect: Callable[[int], None] = lambda _: None) -> _Listed:
    """Return what is under `root`, having told `expect` early that there is much of it."""
    try:
        walk = _Walk(root, expect)
        by_part = {part: walk.classes(folder) for part, folder in walk.parts().items()}
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror}") from error
    class_names = _class_names(root, by_part)
    groups = [
        _Group(part, class_name, folder, walk.pictures(part, folder, class_name))
        for part in ("train", "val", "test")
        for class_name, folder in sorted(by_part.get(part, {}).items())
    ]
    for part in by_part:
        if not any(group.files for group in groups if group.part == part):
            raise empty_part(str(root), part)
    names = [f"{group.folder}/{file}" for group in groups for file in group.files]
    return _Listed(groups, names, class_names, walk.folders, walk.ignored, walk.links)


def _class_names(root: Path, by_part: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """Return the classes of train, having checked that val and test bring no other."""
    names = tuple(sorted(by_part["train"]))
    if len(names) < 2:
        raise DataError(
            f"{root}: found {len(names)} class folders{': ' if names else ''}"
            f"{listed(map(shown, names))}; expected at least 2, as in {root.name}/CLASS/PICTURE "
            f"or {root.name}/train/CLASS/PICTURE"
        )
    check_class_names(names, str(root))
    for part, classes in by_part.items():
        check_same_classes(part, map(shown, classes), list(map(shown, names)), str(root))
    return names


class _Walk:
    """Looks through the folders once; counts what it leaves out."""

    def __init__(self, root: Path, expect: Callable[[int], None]) -> None:
        self.root = root
        self.real_root = root.resolve()
        self.folders: dict[str, Stamp] = {}
        self.found = 0
        self.expect = expect
        self.ignored = 0
        self.links = 0

    def parts(self) -> dict[str, str]:
        """Return the folder of each part within the root; the root itself is train, "" by name."""
        names = list(self._folders(""))
        aliases = {name: PART_NAMES[name.lower()] for name in names if name.lower() in PART_NAMES}
        if aliases or len(names) <= MOST_PARTS:  # else they are classes, and not to be looked into
            held = {shown(name): bool(self._folders(name)) for name in names}
            check_part_names(self.root, held, PART_NAMES)
        if not any(self._folders(name) for name, part in aliases.items() if part == "train"):
            return {"train": ""}
        return {part: name for name, part in aliases.items()}

    def classes(self, folder: str) -> dict[str, str]:
        """Return the class folders within `folder`, by the class's name."""
        return {name: _joined(folder, name) for name in self._folders(folder)}

    def pictures(self, part: str, folder: str, class_name: str) -> list[str]:
        """Return the names of the pictures in the folder of one class in one part, sorted.

        Raises:
            DataError: when a class to train on has none.
        """
        entries = self._entries(folder)
        self.expect(self.found + len(entries))
        found = [entry.name for entry in entries if self._is_picture(entry)]
        if not found and part == "train":
            inner = len(self._folders(folder))
            why = f"; its {inner} folders are not looked into" if inner else ""
            raise DataError(
                f"{self.root / folder}: no pictures of class {shown(class_name)}{why}; expected "
                "at least one file named .png, .jpg, .webp, .bmp or .gif: add some or remove the "
                "folder"
            )
        self.found += len(found)
        return sorted(found)

    def _is_picture(self, entry: os.DirEntry[str]) -> bool:
        name = entry.name.lower()
        if name.startswith(".") or name in IGNORED_NAMES:
            self.ignored += 1
        elif entry.is_symlink() and not self._stays_inside(entry):
            self.links += 1
        elif not entry.is_file() or name.rpartition(".")[2] not in PICTURE_SUFFIXES:
            self.ignored += 1
        else:
            return True
        return False

    def _folders(self, folder: str) -> list[str]:
        return [
            entry.name
            for entry in self._entries(folder)
            if not entry.name.startswith(".")
            and (not entry.is_symlink() or self._stays_inside(entry))
            and entry.is_dir()
        ]

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        path = self.root / folder
        self.folders.setdefault(str(path), stamp_of(str(path)))
        with os.scandir(path) as entries:
            return list(entries)

    def _stays_inside(self, entry: os.DirEntry[str]) -> bool:
        try:
            return Path(entry.path).resolve(strict=True).is_relative_to(self.real_root)
        except (OSError, RuntimeError):  # a link to nothing, or to itself
            return False


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
