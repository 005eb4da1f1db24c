"""Reader for manifests: .csv, .tsv and .jsonl files that list images and classes.

A row has an image path relative to the manifest, a class name or number, and optionally a split.
Columns are found by their usual names or named by the user.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinylens.data.dataset import Dataset, Splits
from tinylens.data.decode import Item, stamp_of
from tinylens.data.encoded import DEFAULTS, Encoded, Options, Seen, Source, read_encoded
from tinylens.data.splits import (
    CLASS_NAME_FILES,
    SPLIT_NAMES,
    Columns,
    Parts,
    inner_path,
    ordered_names,
    parse_class_names,
    shown,
)
from tinylens.data.validation import check_class_names
from tinylens.errors import DataError, did_you_mean

SUFFIXES = (".csv", ".tsv", ".jsonl")
MANIFEST_NAMES = frozenset(
    f"{stem}{suffix}" for stem in ("metadata", "manifest", "labels") for suffix in SUFFIXES
)
PATH_COLUMNS = (
    *("path", "file_name", "filename", "file", "filepath", "file_path", "image_path", "img_path"),
    *("image", "img", "image"),
)
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "y", "labels")
SPLIT_COLUMNS = ("split", "part", "set", "subset")

_SHOWN = 3  # rows that an error names


@dataclass(frozen=True)
class Rows:
    """Image names with splits and classes, in parallel lists.

    Attributes:
        parts: Row range by split name.
        names: Image names within the source.
        labels: Label of each image.
        class_names: Class names in label order.
        skipped: (split, name, reason) of unusable rows.
    """

    parts: dict[str, tuple[int, int]]
    names: list[str]
    labels: list[int]
    class_names: tuple[str, ...]
    skipped: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Manifest:
    """Parsed manifest.

    Attributes:
        where: Path for messages.
        columns: Cells by column name; None for a missing cell.
    """

    where: str
    columns: Mapping[str, Sequence[str | None]]

    def has_labels(self, columns: Columns) -> bool:
        """Return whether there is a label column."""
        return all(
            _found(self.columns, name, usual)
            for name, usual in ((columns.image, PATH_COLUMNS), (columns.label, LABEL_COLUMNS))
        )

    def find(self, columns: Columns) -> tuple[str, str]:
        """Return the names of the path and label columns.

        Raises:
            DataError: one is missing; says which there are.
        """
        image = _found(self.columns, columns.image, PATH_COLUMNS)
        label = _found(self.columns, columns.label, LABEL_COLUMNS)
        there = ", ".join(map(shown, self.columns)) or "none"
        for found, requested, what, usual in (
            (image, columns.image, "image", PATH_COLUMNS),
            (label, columns.label, "label", LABEL_COLUMNS),
        ):
            if not found:
                near = did_you_mean(requested, self.columns) if requested else ""
                wanted = requested or f"one of {', '.join(usual)}"
                raise DataError(
                    f"{self.where}: found the columns {there}; expected {wanted}{near}: name the "
                    f"right one with --{what}-column"
                )
        return image, label


def parse_manifest(where: str, content: bytes) -> Manifest:
    r"""Parse a manifest.

    Args:
        where: Path; the suffix selects CSV, TSV or JSON Lines.
        content: UTF-8 text, with or without a byte-order mark.

    Raises:
        DataError: naming the line that cannot be understood.

    >>> parse_manifest("pets.csv", b"path,label\ncat/1.png,cat\n").columns
    {'path': ['cat/1.png'], 'label': ['cat']}
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{where}, line {line}: is not UTF-8 text; expected a manifest in UTF-8: save it so"
        ) from None
    if "\0" in text:
        raise DataError(f"{where}: holds zero bytes; expected a manifest in UTF-8: save it so")
    if where.lower().endswith(".jsonl"):
        return Manifest(where, _json_columns(where, text))
    return Manifest(where, _cell_columns(where, text))


def joined(manifests: Sequence[tuple[str, str, Manifest]], columns: Columns) -> Manifest:
    """Merge the manifests of several splits; paths start at their parent folder.

    Args:
        manifests: Manifests with their split and folder.
        columns: Columns named by the user.

    Raises:
        DataError: one lacks a column.
    """
    shared = set.intersection(*(set(manifest.columns) for _, _, manifest in manifests))
    whole: dict[str, list[str | None]] = {name: [] for name in shared | {"split"}}
    for part, folder, manifest in manifests:
        image, _ = manifest.find(columns)
        count = len(manifest.columns[image])
        for name in shared:
            cells = manifest.columns[name]
            if name == image:
                cells = [path and f"{folder}/{inner_path(path, manifest.where)}" for path in cells]
            whole[name].extend(cells)
        whole["split"] += [part] * count if "split" not in shared else []
    where = manifests[0][2].where
    return Manifest(
        where, {name: whole[name] for name in [*manifests[0][2].columns, "split"] if name in whole}
    )


def rows_of(
    manifest: Manifest, columns: Columns, given: tuple[str, ...] = (), prefix: str = ""
) -> Rows:
    """Return the images of a manifest, split by split.

    Args:
        manifest: Parsed manifest.
        columns: Columns named by the user.
        given: Class names from a file beside the manifest, if any.
        prefix: Path prefix of image names.

    Raises:
        DataError: naming rows that cannot be understood.
    """
    image, label = manifest.find(columns)
    words = manifest.columns[label]
    parts = _parts_by_row(manifest)
    paths = [
        inner_path(path, f"{manifest.where}, row {number}") if path else ""
        for number, path in enumerate(manifest.columns[image], start=1)
    ]
    _check_once(manifest.where, paths)
    in_train = {word for word, part in zip(words, parts, strict=True) if word and part == "train"}
    names = _class_names(manifest.where, {w for w in words if w}, in_train, given)
    number_of = {name: number for number, name in enumerate(names)}
    if not set(words) - {None, ""} <= set(number_of):  # they are numbers, and the names are given
        number_of = {str(number): number for number in range(len(names))}
    rows = Rows({}, [], [], names, [])
    for part in ("train", "val", "test"):
        start, any_row = len(rows.names), False
        for row, (path, word) in enumerate(zip(paths, words, strict=True)):
            if parts[row] != part:
                continue
            any_row = True
            if path and word:
                rows.names.append(prefix + path)
                rows.labels.append(number_of[word])
            else:
                lacks = "no label" if path else "no path"
                rows.skipped.append((part, path or f"row {row + 1}", lacks))
        if any_row:
            rows.parts[part] = (start, len(rows.names))
    return rows


def column_of(
    manifest: Manifest, column: str, prefix: str, columns: Columns
) -> Mapping[str, str | None] | None:
    """Return a column's cells by prefixed image name; see `read_column`."""
    if column not in manifest.columns:
        return None
    names, _ = manifest.find(columns)
    paths = manifest.columns[names]
    return {
        f"{prefix}{shown(inner_path(path, manifest.where))}": cell
        for path, cell in zip(paths, manifest.columns[column], strict=True)
        if path
    }


def _found(there: Mapping[str, Any], requested: str, usual: Sequence[str]) -> str:
    """Return the requested column, the first usual one, or ""."""
    if requested:
        return requested if requested in there else ""
    by_name = {name.lower(): name for name in reversed(list(there))}
    return next((by_name[name] for name in usual if name in by_name), "")


def _cell_columns(where: str, text: str) -> dict[str, list[str | None]]:
    head = text.partition("\n")[0]
    delimiter = "\t" if where.lower().endswith(".tsv") else max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader if line]
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num}: {error}; expected a CSV") from None
    if len(lines) < 2:
        raise DataError(f"{where}: {len(lines)} lines; expected one of names, and one an image")
    (_, names), *cells = lines
    if len(set(names)) < len(names):
        raise DataError(f"{where}: a column twice: {', '.join(map(shown, names))}; rename one")
    for number, line in cells:
        if len(line) != len(names):
            raise DataError(
                f"{where}, line {number}: {len(line)} cells, expected {len(names)} as in the first "
                "line: put text that holds a comma into quotes"
            )
    columns = zip(*(line for _, line in cells), strict=True)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def _json_columns(where: str, text: str) -> dict[str, list[str | None]]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    columns: dict[str, list[str | None]] = {}
    for row, (number, line) in enumerate(lines):
        try:
            tree = json.loads(line)
            if not isinstance(tree, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{where}, line {number}: {error}; expected a JSON object a line"
            ) from None
        for name, value in tree.items():
            columns.setdefault(name, [None] * row).append(cell_of(value))
        for column in columns.values():
            column.extend([None] * (row + 1 - len(column)))
    if not columns:
        raise DataError(f"{where}: no lines; expected a JSON object for each image")
    return columns


def cell_of(value: Any) -> str | None:
    """Convert a JSON string or integer to cell text; None for other types."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _parts_by_row(manifest: Manifest) -> list[str]:
    column = _found(manifest.columns, "", SPLIT_COLUMNS)
    count = len(next(iter(manifest.columns.values())))
    words = manifest.columns[column] if column else [None] * count
    return parts_of(manifest.where, column, words)


def parts_of(where: str, column: str, words: Sequence[str | None]) -> list[str]:
    """Return the split named by each cell; train if all are empty.

    Raises:
        DataError: some name none.
    """
    if not any(words):
        return ["train"] * len(words)
    odd = [
        f"row {number}: {shown(word) if word else 'nothing'}"
        for number, word in enumerate(words, start=1)
        if (word or "").lower() not in SPLIT_NAMES
    ]
    if odd:
        raise DataError(
            f"{where}: column {column} of {len(odd):,} rows names no part "
            f"({'; '.join(odd[:_SHOWN])}); expected train, val or test: mend or rename the column"
        )
    return [SPLIT_NAMES[(word or "").lower()] for word in words]


def _check_once(where: str, paths: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for number, path in enumerate(paths, start=1):
        if path and seen.setdefault(path, number) != number:
            raise DataError(
                f"{where}: {shown(path)} is in rows {seen[path]} and {number}; expected each "
                "image once: remove one of them"
            )


def _class_names(
    where: str, words: set[str], in_train: set[str], given: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the class names in label order."""
    if given:
        numbers = {str(number) for number in range(len(given))}
        if words <= numbers:
            return given
        if extra := sorted(words - set(given)):
            raise DataError(
                f"{where}: has classes that the file of class names lacks: "
                f"{', '.join(map(shown, extra[:_SHOWN]))}; expected those of {', '.join(given)}"
            )
        return given
    check_class_names(sorted(words), where)
    if extra := sorted(words - in_train):
        raise DataError(
            f"{where}: has classes that train lacks: {', '.join(map(shown, extra))}; expected "
            "images of every class in train: add some or remove the rows"
        )
    return ordered_names(words)


MAX_BYTES = 1_000_000_000  # of a manifest: ten million rows of a hundred bytes


def read(path: str | Path, options: Options = DEFAULTS) -> Dataset | Splits:
    """Read the images of a manifest; returns Splits if there is a test split.

    Raises:
        DataError: a column is missing, a path leads out of the manifest's folder, an image is
            listed twice, or none can be read.
    """
    return read_parts(path, options).published()


def read_parts(path: str | Path, options: Options = DEFAULTS) -> Parts:
    """Read the splits of a manifest as stored; see `read`."""
    return read_encoded(source(Path(path), options), options)


def source(path: Path, options: Options = DEFAULTS) -> Source:
    """Return the image source of a manifest."""
    return Source(
        name=str(path),
        prefix=f"{path.parent}{os.sep}",
        look=lambda: Seen(_seen(path, _listed(path, options.columns))),
        collect=lambda _, expect: _collect(path, options.columns, expect),
    )


def read_column(
    path: Path, column: str, options: Options = DEFAULTS
) -> Mapping[str, str | None] | None:
    """Read a column by image path; None if there is no such column.

    Raises:
        DataError: the manifest cannot be read.
    """
    manifest = parse_manifest(str(path), read_text(path))
    return column_of(manifest, column, f"{path.parent}{os.sep}", options.columns)


def is_manifest(path: Path) -> bool:
    """Return whether a path is a file with a manifest name."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read_text(path: Path) -> bytes:
    """Read the text of a manifest.

    Raises:
        DataError: it cannot be read, or is too large.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: larger than {MAX_BYTES:,} bytes, too large for a manifest")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def class_names_beside(folder: Path) -> tuple[str, ...]:
    """Read class names from the folder's classnames.txt, or ()."""
    for name in sorted(CLASS_NAME_FILES, reverse=True):
        if (folder / name).is_file():
            return parse_class_names(str(folder / name), read_text(folder / name))
    return ()


def _listed(path: Path, columns: Columns) -> Rows:
    manifest = parse_manifest(str(path), read_text(path))
    return rows_of(manifest, columns, class_names_beside(path.parent))


def _seen(path: Path, rows: Rows) -> list[Any]:
    places = [f"{path.parent}{os.sep}{name}" for name in rows.names]
    return [rows.parts, rows.names, rows.labels, rows.class_names, list(map(stamp_of, places))]


def _collect(path: Path, columns: Columns, expect: Callable[[int], None]) -> Encoded:
    before = stamp_of(str(path))
    rows = _listed(path, columns)
    expect(len(rows.names))
    folder = str(path.parent)
    check_stays_inside(folder, str(path), rows.names)
    prefix = f"{folder}{os.sep}"
    return Encoded(
        parts=rows.parts,
        items=[Item(prefix + name) for name in rows.names],
        labels=rows.labels,
        names=list(map(shown, rows.names)),
        class_names=rows.class_names,
        seen=lambda stamps: [rows.parts, rows.names, rows.labels, rows.class_names, stamps],
        unchanged=lambda: stamp_of(str(path)) == before,
        skipped=tuple(rows.skipped),
    )


def check_stays_inside(folder: str, where: str, names: Sequence[str]) -> None:
    """Reject links that leave the folder.

    Raises:
        DataError: naming the first.
    """
    for name in _linked(folder, names):
        real, root = os.path.realpath(f"{folder}/{name}"), os.path.realpath(folder)
        if os.path.commonpath([real, root]) != root:
            raise DataError(
                f"{where}: {shown(name)} is a link that leads out of the folder; expected images "
                "beneath the manifest: copy them there"
            )


def _linked(folder: str, names: Sequence[str]) -> Iterator[str]:
    """Yield the names that are links or may lie below one."""
    direct: dict[str, bool] = {}
    root = os.path.realpath(folder)
    for name in names:
        parent = name.rpartition("/")[0]
        if parent not in direct:
            here = f"{root}{os.sep}{parent}".rstrip(os.sep)
            direct[parent] = os.path.realpath(here) == here
        if not direct[parent] or Path(folder, name).is_symlink():
            yield name
