"""The forms that `tinylens data convert` writes: what each is called, and what lies in it.

What is written depends on the pictures, their classes, parts, groups and names alone, and not on
the time, the user or the order in which they came: the same data give the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinylens import files
from tinylens.data.parts import ordered_names
from tinylens.data.shards import Step, write_hugging_face, write_shards, write_table, write_tables
from tinylens.data.shelves import FolderShelf, Shelf, open_tar, open_zip
from tinylens.data.stock import GROUP_COLUMN, Picture, Stock
from tinylens.errors import DataError, RecipeError

_LONGEST_NAME = 200  # bytes; disks take 255

Entry = tuple[str, bytes]


@dataclass(frozen=True)
class Form:
    """A form that data sets are written in.

    Attributes:
        is_file: whether it is one file; else it is a folder.
        write: writes pictures to a path that is not there yet, calling its step for each.
    """

    is_file: bool
    write: Callable[[Stock, Path, Step], None]


def form_of(destination: Path, asked: str) -> Form:
    """Return the form that was asked for, or that the name of the destination says.

    Raises:
        RecipeError: neither says one, or one that does not go with the name.
    """
    name = destination.name.lower()
    by_name = next((form for suffix, form in BY_SUFFIX.items() if name.endswith(suffix)), "")
    chosen = asked or by_name
    if chosen not in FORMS:
        what = f"--format {asked}" if asked else f"{destination}: the name says no form"
        raise RecipeError(f"{what}; expected --format with one of {', '.join(FORMS)}")
    form = FORMS[chosen]
    if chosen == "parquet" and by_name != "parquet":
        form = PARQUET_FOLDER
    if form.is_file and by_name != chosen:
        suffix = next(suffix for suffix, each in BY_SUFFIX.items() if each == chosen)
        raise RecipeError(f"{destination}: expected a name that ends in {suffix} for {chosen}")
    if not form.is_file and destination.suffix.lower() in (*BY_SUFFIX, ".csv", ".tsv", ".jsonl"):
        raise RecipeError(
            f"{destination}: {chosen} is a folder; expected a name without {destination.suffix}"
        )
    return form


def folder_entries(stock: Stock) -> Iterator[Entry | tuple[str, Picture]]:
    """Yield the files of a folder of classes; see `tinylens.data.layout`.

    A metadata.csv says what folders cannot: groups, and classes that are no names of folders.
    """
    plain = all(map(is_folder_name, stock.class_names))
    names = [
        each if plain else f"class-{number:04}" for number, each in enumerate(stock.class_names)
    ]
    parted = len(stock.parts) > 1
    placed = _placed(
        stock,
        lambda part, picture: f"{part}/{names[picture.label]}" if parted else names[picture.label],
    )
    yield from _class_name_entry(stock)
    if stock.grouped or not plain:
        yield "metadata.csv", _cells(stock, placed, ",", "file_name")
    yield from ((name, picture) for _, name, picture in placed)


def manifest_entries(stock: Stock, suffix: str) -> Iterator[Entry | tuple[str, Picture]]:
    """Yield a manifest, and pictures in one folder for each part."""
    placed = _placed(stock, lambda part, _: f"pictures/{part}")
    yield from _class_name_entry(stock)
    if suffix == "jsonl":
        rows = _rows(stock, placed, "path")
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        yield "manifest.jsonl", "".join(lines).encode()
    else:
        yield f"manifest.{suffix}", _cells(stock, placed, "\t" if suffix == "tsv" else ",", "path")
    yield from ((name, picture) for _, name, picture in placed)


def is_folder_name(name: str) -> bool:
    """Return whether a class name is the name of a folder on any disk and in any archive.

    >>> is_folder_name("T-shirt"), is_folder_name("T-shirt/top"), is_folder_name(".git")
    (True, False, False)
    """
    return (
        name.isprintable()
        and name == name.strip()
        and not name.startswith((".", "__MACOSX"))
        and not set(name) & set("/\\:")
        and 0 < len(name.encode("utf-8")) <= _LONGEST_NAME
    )


def _placed(
    stock: Stock, folder_of: Callable[[str, Picture], str]
) -> list[tuple[str, str, Picture]]:
    """Return (part, name, picture), each name once, on disks that know no case as well."""
    taken: set[str] = set()
    placed = []
    for part, picture in stock.items():
        place = f"{folder_of(part, picture)}/{picture.stem}"
        name, number = f"{place}.{picture.suffix}", 1
        while name.casefold() in taken:
            number += 1
            name = f"{place}-{number}.{picture.suffix}"
        taken.add(name.casefold())
        placed.append((part, name, picture))
    return sorted(placed, key=lambda each: each[1])


def _class_name_entry(stock: Stock) -> Iterator[Entry]:
    """Yield a classnames.txt where the order of the classes is not that of their names."""
    if ordered_names(stock.class_names) != stock.class_names:
        yield "classnames.txt", stock.class_lines()


def _rows(
    stock: Stock, placed: Iterable[tuple[str, str, Picture]], path_column: str
) -> Iterator[dict[str, str]]:
    """Yield the rows of a manifest."""
    odd = [name for name in stock.class_names if name != name.strip() or "\0" in name]
    if odd:
        raise DataError(
            f"{stock.source}: the class {odd[0]!a} begins or ends with a space, which a list of "
            "pictures does not keep: convert to parquet or huggingface, which do"
        )
    parted, grouped = len(stock.parts) > 1, stock.grouped
    for part, name, picture in placed:
        row = {path_column: name, "label": stock.class_names[picture.label]}
        row |= {"split": part} if parted else {}
        row |= {GROUP_COLUMN: picture.group} if grouped else {}
        yield row


def _cells(
    stock: Stock,
    placed: Sequence[tuple[str, str, Picture]],
    delimiter: str,
    path_column: str,
) -> bytes:
    rows = list(_rows(stock, placed, path_column))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _fill(shelf: Shelf, entries: Iterable[Entry | tuple[str, Picture]], step: Step) -> None:
    for name, content in entries:
        if isinstance(content, bytes):
            shelf.put(name, content)
        else:
            shelf.put(name, content.content())
            step()


def _write_folder(stock: Stock, path: Path, step: Step) -> None:
    _fill(FolderShelf(path), folder_entries(stock), step)


def _manifest_writer(suffix: str) -> Callable[[Stock, Path, Step], None]:
    def write(stock: Stock, path: Path, step: Step) -> None:
        _fill(FolderShelf(path), manifest_entries(stock, suffix), step)

    return write


def _write_zip(stock: Stock, path: Path, step: Step) -> None:
    with open_zip(path) as shelf:
        _fill(shelf, folder_entries(stock), step)


def _write_tar(stock: Stock, path: Path, step: Step) -> None:
    with open_tar(path) as shelf:
        _fill(shelf, folder_entries(stock), step)


def _write_tgz(stock: Stock, path: Path, step: Step) -> None:
    with open_tar(path, packed=True) as shelf:
        _fill(shelf, folder_entries(stock), step)


FORMS: Mapping[str, Form] = {
    "folder": Form(False, _write_folder),
    "zip": Form(True, _write_zip),
    "tar": Form(True, _write_tar),
    "tgz": Form(True, _write_tgz),
    "csv": Form(False, _manifest_writer("csv")),
    "tsv": Form(False, _manifest_writer("tsv")),
    "jsonl": Form(False, _manifest_writer("jsonl")),
    "parquet": Form(True, write_table),
    "webdataset": Form(False, write_shards),
    "huggingface": Form(False, write_hugging_face),
}
PARQUET_FOLDER = Form(False, write_tables)
BY_SUFFIX: Mapping[str, str] = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tgz",
    ".tgz": "tgz",
    ".parquet": "parquet",
}


def write(stock: Stock, form: Form, destination: Path, step: Step) -> None:
    """Write pictures in a form: all of it appears at once, or nothing does.

    Raises:
        DataError: the pictures cannot be read any more, or cannot be kept in this form.
        RecipeError: they have parts, and the form has none.
    """
    if form.is_file:
        temporary = files.temporary_beside(destination)
        try:
            form.write(stock, temporary, step)
            files.replace(temporary, destination)
        finally:
            files.remove(temporary)
    else:
        with files.new_folder(destination) as folder:
            form.write(stock, folder, step)
