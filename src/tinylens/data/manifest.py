"""Lists of pictures and their classes: .csv, .tsv and .jsonl files that lie beside the pictures.

A row names a picture's file, relative to the manifest, and its class in words or as a number; a
column may say the part. The columns are known by their usual names, or are named by the user.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinylens.data.dataset import Dataset, Splits
from tinylens.data.decode import Item, stamp_of
from tinylens.data.encoded import DEFAULTS, Encoded, Options, Seen, Source, read_encoded
from tinylens.data.manifest_rows import SUFFIXES, Rows, column_of, parse_manifest, rows_of
from tinylens.data.parts import CLASS_NAME_FILES, Columns, Parts, parse_class_names, shown
from tinylens.errors import DataError

MAX_BYTES = 1_000_000_000  # of a manifest: ten million rows of a hundred bytes


def read(path: str | Path, options: Options = DEFAULTS) -> Dataset | Splits:
    """Return the pictures that a manifest lists, Splits where there is a test part.

    Raises:
        DataError: a column is missing, a path leads out of the manifest's folder, a picture is
            listed twice, or none can be read.
    """
    return read_parts(path, options).published()


def read_parts(path: str | Path, options: Options = DEFAULTS) -> Parts:
    """Return the parts that a manifest lists as they are given; see `read`."""
    return read_encoded(source(Path(path), options), options)


def source(path: Path, options: Options = DEFAULTS) -> Source:
    """Return where the pictures of a manifest are."""
    return Source(
        name=str(path),
        prefix=f"{path.parent}{os.sep}",
        look=lambda: Seen(_seen(path, _listed(path, options.columns))),
        collect=lambda _, expect: _collect(path, options.columns, expect),
    )


def read_column(
    path: Path, column: str, options: Options = DEFAULTS
) -> Mapping[str, str | None] | None:
    """Return a column's cells by the paths of their pictures; None where there is no such column.

    Raises:
        DataError: the manifest cannot be read.
    """
    manifest = parse_manifest(str(path), read_text(path))
    return column_of(manifest, column, f"{path.parent}{os.sep}", options.columns)


def is_manifest(path: Path) -> bool:
    """Return whether a path is a file that is called as manifests are."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read_text(path: Path) -> bytes:
    """Return what is in a manifest.

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
    """Return the class names that a classnames.txt in the folder lists, or ()."""
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
    """Refuse links that lead out of the folder.

    Raises:
        DataError: naming the first.
    """
    for name in _linked(folder, names):
        real, root = os.path.realpath(f"{folder}/{name}"), os.path.realpath(folder)
        if os.path.commonpath([real, root]) != root:
            raise DataError(
                f"{where}: {shown(name)} is a link that leads out of the folder; expected pictures "
                "beneath the manifest: copy them there"
            )


def _linked(folder: str, names: Sequence[str]) -> Iterator[str]:
    """Yield the names that are links, or lie in a folder that may be reached by one."""
    direct: dict[str, bool] = {}
    root = os.path.realpath(folder)
    for name in names:
        parent = name.rpartition("/")[0]
        if parent not in direct:
            here = f"{root}{os.sep}{parent}".rstrip(os.sep)
            direct[parent] = os.path.realpath(here) == here
        if not direct[parent] or Path(folder, name).is_symlink():
            yield name
