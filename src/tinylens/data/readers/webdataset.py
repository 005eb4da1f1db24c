"""Reader for WebDataset shards: .tar files of `key.jpg` with `key.cls` or `key.json`.

The class is the number or word in key.cls, or the entry of key.json named label, class or by the
user. The split comes from folder or name: `train/0.tar`, `train-0000.tar`. A classnames.txt beside
the shards names numeric classes.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinylens.data.dataset import Dataset, Splits
from tinylens.data.decode import Item, Stamp, stamp_of
from tinylens.data.encoded import DEFAULTS, Encoded, Options, Seen, Source, read_encoded
from tinylens.data.readers.folder import IMAGE_SUFFIXES
from tinylens.data.readers.manifest import LABEL_COLUMNS, cell_of, class_names_beside
from tinylens.data.readers.members import TAR_SUFFIXES, Member, unpack
from tinylens.data.splits import SPLIT_NAMES, Columns, Parts, ordered_names, shown
from tinylens.data.validation import check_class_names
from tinylens.errors import DataError

MAX_CLASSES = 10_000


def read(path: str | Path, options: Options = DEFAULTS) -> Dataset | Splits:
    """Read a shard or a folder of shards.

    Raises:
        DataError: a shard is damaged, an image has no class, or no image can be read.
    """
    return read_parts(path, options).published()


def read_parts(path: str | Path, options: Options = DEFAULTS) -> Parts:
    """Read the splits of shards as stored; see `read`."""
    return read_encoded(source(Path(path), options), options)


def source(path: Path, options: Options = DEFAULTS) -> Source:
    """Return the image source of a shard or a folder of shards."""
    root = path if path.is_dir() else path.parent
    return Source(
        name=str(path),
        prefix=f"{root}/",
        look=lambda: Seen(_seen(path, options.columns)),
        collect=lambda workspace, expect: _collect(path, options.columns, workspace, expect),
    )


def has_shards(path: Path) -> bool:
    """Return whether a folder has .tar files, at its top or in split folders.

    A .tar beside class folders, such as a backup, does not count.
    """
    if not path.is_dir():
        return False
    with os.scandir(path) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
    folders = [entry for entry in found if entry.is_dir()]
    if any(_is_shard_name(entry.name) for entry in found):
        return all(entry.name.lower() in SPLIT_NAMES for entry in folders)
    return any(_begins_with_shard(e.path) for e in folders if e.name.lower() in SPLIT_NAMES)


def _begins_with_shard(folder: str) -> bool:
    """Return whether a shard comes before any image; stops early."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.rpartition(".")[2].lower() in IMAGE_SUFFIXES:
                return False
            if _is_shard_name(entry.name):
                return True
    return False


def _is_shard_name(name: str) -> bool:
    return name.lower().endswith(TAR_SUFFIXES) and not name.startswith(".")


def is_shard(members: Sequence[Member]) -> bool:
    """Return whether an archive has .cls or .json files beside its images."""
    stems = {_stem(each.name) for each in members if _suffix(each.name) in IMAGE_SUFFIXES}
    return any(
        _suffix(each.name) in ("cls", "json") and _stem(each.name) in stems for each in members
    )


def read_column(path: Path, column: str, workspace: Path) -> Mapping[str, str | None] | None:
    """Read an entry of each key.json by image name; None if none has it.

    Raises:
        DataError: a shard is damaged.
    """
    root = path if path.is_dir() else path.parent
    cells: dict[str, str | None] = {}
    for shard in (shard for shards in find_shards(path).values() for shard in shards):
        members = {each.name: each.item for each in unpack(shard, workspace).files}
        prefix = f"{root}/{shard.relative_to(root).as_posix()}/"
        for name in members:
            beside = f"{_stem(name)}.json"
            if _suffix(name) in IMAGE_SUFFIXES and beside in members:
                entry = _entries(f"{prefix}{beside}", members[beside]).get(column)
                cells[prefix + shown(name)] = cell_of(entry)
    return cells if any(cell is not None for cell in cells.values()) else None


def find_shards(path: Path) -> dict[str, list[Path]]:
    """Return the shards of each split, sorted by name.

    Raises:
        DataError: their names say parts of some of them alone.
    """
    if not path.is_dir():
        return {"train": [path]}
    by_split: dict[str, list[Path]] = {}
    for shard in _shards(path):
        by_split.setdefault(_part_of(path, shard), []).append(shard)
    if "" in by_split and len(by_split) > 1:
        raise DataError(
            f"{path}: {by_split[''][0].name} says no part, and others do; expected shards named "
            "train-0000.tar, val-0000.tar and test-0000.tar, or folders of these names"
        )
    return {part or "train": shards for part, shards in by_split.items()}


def _shards(path: Path) -> list[Path]:
    try:
        here = list(path.iterdir())
        parts = [each for each in here if each.name.lower() in SPLIT_NAMES and each.is_dir()]
        inner = [file for part in parts for file in part.iterdir()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return sorted(file for file in [*here, *inner] if _is_shard_name(file.name))


def _part_of(root: Path, shard: Path) -> str:
    word = "".join(itertools.takewhile(str.isalpha, shard.name.lower()))
    folder = shard.parent.name.lower() if shard.parent != root else ""
    return SPLIT_NAMES.get(folder, "") or SPLIT_NAMES.get(word, "")


def _seen(path: Path, columns: Columns) -> list[Any]:
    root = path if path.is_dir() else path.parent
    stamps: list[tuple[str, str, Stamp]] = [
        (part, str(shard), stamp_of(str(shard)))
        for part, shards in find_shards(path).items()
        for shard in shards
    ]
    return [stamps, class_names_beside(root), columns.label]


@dataclass
class _Found:
    """Collected images with their class words."""

    items: list[Item]
    names: list[str]
    words: list[str]
    skipped: list[tuple[str, str, str]]


def _collect(
    path: Path, columns: Columns, workspace: Path, expect: Callable[[int], None]
) -> Encoded:
    root = path if path.is_dir() else path.parent
    seen = _seen(path, columns)
    found = _Found([], [], [], [])
    parts: dict[str, tuple[int, int]] = {}
    for part, shards in find_shards(path).items():
        start = len(found.items)
        for shard in shards:
            members = unpack(shard, workspace).files
            expect(len(found.items) + len(members) // 2)
            _take(part, root, shard.relative_to(root).as_posix(), members, columns, found)
        parts[part] = (start, len(found.items))
    return encoded(path, parts, found, class_names_beside(root), seen, lambda: _seen(path, columns))


def collect_archive(
    path: Path, members: Sequence[Member], columns: Columns, seen: Any, look: Callable[[], Any]
) -> Encoded:
    """Return the images of one unpacked shard."""
    found = _Found([], [], [], [])
    _take("train", path.parent, path.name, members, columns, found)
    names = class_names_beside(path.parent)
    return encoded(path, {"train": (0, len(found.items))}, found, names, seen, look)


def encoded(
    path: Path,
    parts: dict[str, tuple[int, int]],
    found: _Found,
    given: tuple[str, ...],
    seen: Any,
    look: Callable[[], Any],
) -> Encoded:
    """Return the images with class words mapped to labels."""
    names = _class_names(str(path), set(found.words), given)
    number_of = {name: number for number, name in enumerate(names)}
    if given and all(word.isdecimal() for word in found.words):
        number_of = {str(number): number for number in range(len(names))}
    return Encoded(
        parts=parts,
        items=found.items,
        labels=[number_of[word] for word in found.words],
        names=found.names,
        class_names=names,
        seen=lambda _: seen,
        unchanged=lambda: look() == seen,
        skipped=tuple(found.skipped),
    )


def _take(
    part: str, root: Path, shard: str, members: Sequence[Member], columns: Columns, found: _Found
) -> None:
    """Add the images of one shard."""
    by_name = {each.name: each.item for each in members}
    for member in members:
        if _suffix(member.name) not in IMAGE_SUFFIXES:
            continue
        name = f"{shard}/{shown(member.name)}"
        word = _word(f"{root}/{name}", _stem(member.name), by_name, columns)
        if word is None or member.problem:
            found.skipped.append((part, name, member.problem or "no label"))
        else:
            found.items.append(member.item)
            found.names.append(name)
            found.words.append(word)


def _word(where: str, stem: str, members: Mapping[str, Item], columns: Columns) -> str | None:
    """Return the class word of an image, or None."""
    number = members.get(f"{stem}.cls")
    if number is not None and not columns.label:
        word = _text(where, number).strip()
        return (str(int(word)) if word.isdecimal() else word) or None
    beside = members.get(f"{stem}.json")
    if beside is None:
        return None
    entries = _entries(where, beside)
    usual = (columns.label,) if columns.label else LABEL_COLUMNS
    return next((cell for key in usual if (cell := cell_of(entries.get(key)))), None)


def _entries(where: str, item: Item) -> dict[str, Any]:
    try:
        tree = json.loads(_text(where, item))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no JSON beside it: {error}; expected an object") from None
    return tree if isinstance(tree, dict) else {}


def _text(where: str, item: Item) -> str:
    try:
        return item.content().decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{where}: no UTF-8 text beside it; expected a class") from None
    except DataError as error:
        raise DataError(f"{where}: what lies beside it {error}") from None


def _class_names(where: str, words: set[str], given: tuple[str, ...]) -> tuple[str, ...]:
    numbers = all(word.isdecimal() for word in words)
    if numbers and not given:
        highest = max((int(word) for word in words), default=0)
        if highest >= MAX_CLASSES:
            raise DataError(f"{where}: a label {highest}; expected numbers from 0 to {MAX_CLASSES}")
        return tuple(map(str, range(highest + 1)))
    if not given:
        check_class_names(sorted(words), where)
        return ordered_names(words)
    known = {str(number) for number in range(len(given))} if numbers else set(given)
    if odd := sorted(words - known):
        raise DataError(
            f"{where}: the classes {', '.join(map(shown, odd[:5]))} are not in the file of class "
            f"names, which has {len(given)}; expected each image's there"
        )
    return given


def _stem(name: str) -> str:
    """Return a member's key: its path up to the first dot of the file name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _suffix(name: str) -> str:
    """Return the lowercase suffix after the key."""
    return name.rpartition("/")[2].partition(".")[2].lower()
