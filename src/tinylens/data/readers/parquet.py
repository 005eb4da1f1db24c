"""Reader for Parquet files of encoded images, in Hugging Face's layout.

Columns `image` or `img` ({bytes, path}, or plain bytes) and `label`, or as named by the user. A
label is a number or a word; class names of numbers come from the schema's metadata or a README.md.
Splits come from file names (train*, validation*, test*) or a column `split`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinylens.data.dataset import Dataset, Splits
from tinylens.data.decode import MAX_FILE_BYTES, Item, stamp_of
from tinylens.data.encoded import DEFAULTS, Encoded, Options, Seen, Source, read_encoded
from tinylens.data.readers.manifest import SPLIT_COLUMNS, parts_of
from tinylens.data.splits import SPLIT_NAMES, Columns, Parts, numbered_names, ordered_names
from tinylens.data.validation import check_class_names
from tinylens.errors import DataError, MissingExtra

MAX_BYTES = 10_000_000

_NAMES = re.compile(r"^ +class_label:\n +names:\n((?: +'?[0-9]+'?: .*\n)+)", re.MULTILINE)
_NAME = re.compile(r"^ +'?([0-9]+)'?: (.*)$", re.MULTILINE)


def names_in_card(path: Path) -> tuple[str, ...]:
    """Read class names from a dataset's README.md; () if there are none.

    Raises:
        DataError: it names different classes in several places, or some twice.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", "replace").replace("\r\n", "\n")
    except OSError:
        return ()
    head = text.split("\n---", 1)[0] + "\n" if text.startswith("---\n") else ""
    found = {_listed(block) for block in _NAMES.findall(head)}
    if len(found) > 1:
        raise DataError(
            f"{path}: dataset_info names different classes in several places; expected one set of "
            "names: leave the others out"
        )
    names = found.pop() if found else ()
    if len(set(names)) < len(names):
        raise DataError(f"{path}: dataset_info names a class twice; expected each once")
    check_class_names(names, str(path))
    return names


def _listed(block: str) -> tuple[str, ...]:
    numbered = {int(number): _unquoted(text.strip()) for number, text in _NAME.findall(block)}
    return tuple(numbered[number] for number in sorted(numbered))


def _unquoted(text: str) -> str:
    """Parse a YAML scalar: plain, single-quoted or double-quoted."""
    if text[:1] == "'" and text[-1:] == "'" and len(text) > 1:
        return text[1:-1].replace("''", "'")
    if text[:1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text
    return text


def write(class_names: Sequence[str], parts: Mapping[str, str]) -> str:
    """Return a README.md for shards in data/, with names that `class_names` reads.

    Args:
        class_names: in the order of their numbers.
        parts: the number of examples in each part by Hugging Face's name for it, as text.

    >>> print(write(["cat", "dog"], {"train": "9"}).split("configs:")[0], end="")
    ---
    dataset_info:
      features:
      - name: image
        dtype: image
      - name: label
        dtype:
          class_label:
            names:
              '0': "cat"
              '1': "dog"
      splits:
      - name: train
        num_examples: 9
    """
    lines = ["---", "dataset_info:", "  features:", "  - name: image", "    dtype: image"]
    lines += ["  - name: label", "    dtype:", "      class_label:", "        names:"]
    lines += [
        f"          '{number}': {json.dumps(name)}" for number, name in enumerate(class_names)
    ]
    lines.append("  splits:")
    for part, count in parts.items():
        lines += [f"  - name: {part}", f"    num_examples: {count}"]
    lines += ["configs:", "- config_name: default", "  data_files:"]
    for part in parts:
        lines += [f"  - split: {part}", f"    path: data/{part}-*"]
    return "\n".join([*lines, "task_categories:", "- image-classification", "---", ""])


IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")  # the latter: CIFAR-100, as Hugging Face has it
MAX_ROWS = 50_000_000
MAX_CLASSES = 10_000

_ROWS_AT_ONCE = 1_024
_PARTS = ("train", "val", "test")


def read(path: str | Path, options: Options = DEFAULTS) -> Dataset | Splits:
    """Read a Parquet file or a folder of them.

    Raises:
        DataError: naming the file, when it is damaged or lacks a column; see `read_encoded`.
        MissingExtra: when pyarrow is not installed.
    """
    return read_parts(path, options).published()


def read_parts(path: str | Path, options: Options = DEFAULTS) -> Parts:
    """Read the splits of a Parquet file or folder as stored; see `read`."""
    return read_encoded(source(Path(path), options), options)


def source(path: Path, options: Options = DEFAULTS) -> Source:
    """Return the image source of a Parquet file or folder.

    Raises:
        DataError: the names of the files do not say which part they are of.
    """
    find_files(path)
    root = path if path.is_dir() else path.parent
    return Source(
        name=str(path),
        prefix=f"{root}/",
        look=lambda: Seen(_seen(path, options.columns)),
        collect=lambda workspace, expect: _collect(path, options.columns, workspace, expect),
    )


def find_files(path: Path) -> dict[str, list[Path]]:
    """Return the Parquet files of each split, sorted by name.

    Raises:
        DataError: when there are none, or their names do not say which part they are of.
    """
    if not path.is_dir():
        return {"train": [path]}
    try:
        # at the top, or as in data/ or plain_text/
        found = sorted(path.glob("*.parquet")) or sorted(path.glob("*/*.parquet"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    by_split: dict[str, list[Path]] = {}
    for file in found:
        by_split.setdefault(_part_of(file), []).append(file)
    if not found or ("" in by_split and len(by_split) > 1):
        named = ", ".join(file.name for file in found) or "no .parquet files"
        raise DataError(
            f"{path}: found {named}; expected files named train*.parquet, and validation*.parquet "
            "and test*.parquet where there are such parts"
        )
    return {part or "train": files for part, files in by_split.items()}


def read_column(path: Path, column: str) -> dict[str, Any]:
    """Read a column by row name, as in `Dataset.paths`.

    Raises:
        DataError: a file has no such column, or it holds neither numbers nor text.
    """
    import pyarrow.types

    root = path if path.is_dir() else path.parent
    cells: dict[str, Any] = {}
    for file in (file for files in find_files(path).values() for file in files):
        table = _open(file)
        schema = table.schema_arrow
        kind = schema.field(column).type if column in schema.names else None
        if kind is None or not (pyarrow.types.is_integer(kind) or pyarrow.types.is_string(kind)):
            raise DataError(
                f"{file}: column {column} is {kind or 'missing'}; expected whole numbers or text "
                f"in one of the columns {', '.join(schema.names)}"
            )
        name = f"{root}/{file.relative_to(root).as_posix()}"
        values = table.read(columns=[column]).column(column).to_pylist()
        cells |= {f"{name}:{number}": value for number, value in enumerate(values)}
    return cells


def _part_of(file: Path) -> str:
    """Return the split in a name such as train-00000-of-00002.parquet, or ""."""
    word = "".join(itertools.takewhile(str.isalpha, file.stem.lower()))
    return SPLIT_NAMES.get(word, "")


def _seen(path: Path, columns: Columns) -> list[Any]:
    try:
        files = [
            [part, str(file), file.stat().st_size, file.stat().st_mtime_ns]
            for part, files in find_files(path).items()
            for file in files
        ]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return [files, [columns.image, columns.label], stamp_of(str(path / "README.md"))]


def _collect(
    path: Path, columns: Columns, workspace: Path, expect: Callable[[int], None]
) -> Encoded:
    """Copy the encoded images into one file for the worker processes."""
    root = path if path.is_dir() else path.parent
    seen, by_split = _seen(path, columns), find_files(path)
    rows: list[tuple[str, Item, int | str, str]] = []  # part, image, label, name
    skipped: list[tuple[str, str, str]] = []
    class_names: dict[str, tuple[str, ...]] = {}
    heap = workspace / "images.bin"
    with heap.open("wb") as file:
        for part, source in ((part, each) for part, files in by_split.items() for each in files):
            table = _open(source)
            expect(len(rows) + table.metadata.num_rows)
            found = _columns(source, table, columns)
            class_names[str(source)] = _class_names(source, table, found[1])
            parts = itertools.repeat(part) if len(by_split) > 1 else _splits(source, table, part)
            cells = _cells(source, table, found)
            for (number, cell, label), its_part in zip(cells, parts, strict=False):
                name = f"{source.relative_to(root).as_posix()}:{number}"
                content: Any = cell.get("bytes") if isinstance(cell, dict) else cell
                if reason := _fault(cell, content, label):
                    skipped.append((its_part, name, reason))
                    continue
                rows.append((its_part, Item(str(heap), file.tell(), len(content)), label, name))
                file.write(content)
    counts = {part: sum(row[0] == part for row in rows) for part in _PARTS}
    rows.sort(key=lambda row: _PARTS.index(row[0]))
    described = names_in_card(path / "README.md") if not any(class_names.values()) else ()
    numbers, agreed = _agreed(path, class_names, [row[2] for row in rows], described)
    return Encoded(
        parts=_stretches(counts),
        items=[row[1] for row in rows],
        labels=numbers,
        names=[row[3] for row in rows],
        class_names=agreed,
        seen=lambda _: seen,
        unchanged=lambda: _seen(path, columns) == seen,
        skipped=tuple(skipped),
    )


def _splits(file: Path, table: Any, part: str) -> Iterable[str]:
    """Return the split of each row from a column, if file names give none."""
    schema = table.schema_arrow
    column = next((name for name in SPLIT_COLUMNS if name in schema.names), "")
    if not column or not is_text(schema.field(column).type):
        return itertools.repeat(part)
    words: list[str | None] = table.read(columns=[column]).column(column).to_pylist()
    if column != SPLIT_COLUMNS[0] and not {str(word).lower() for word in words} <= {*SPLIT_NAMES}:
        return itertools.repeat(part)  # a column called "set" may well say something else
    return parts_of(str(file), column, words)


def _stretches(counts: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return the row range of each non-empty split."""
    ends = dict(zip(counts, itertools.accumulate(counts.values()), strict=True))
    return {part: (ends[part] - count, ends[part]) for part, count in counts.items() if count}


def _open(file: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(
            "reading parquet needs pyarrow, which is not installed; "
            "type: pip install 'tinylens[train]'"
        ) from error
    try:
        table = pyarrow.parquet.ParquetFile(file)
    except (OSError, pyarrow.ArrowException) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise DataError(f"{file}: not a whole parquet file: {_short(reason)}") from error
    if not 0 < table.metadata.num_rows <= MAX_ROWS:
        raise DataError(
            f"{file}: {table.metadata.num_rows:,} rows, expected from 1 to {MAX_ROWS:,}"
        )
    return table


def _cells(file: Path, table: Any, columns: tuple[str, str]) -> Iterator[tuple[int, Any, Any]]:
    """Yield (row, image cell, label)."""
    import pyarrow

    image_column, label_column = columns
    number = 0
    try:
        for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[image_column, label_column]):
            labels = batch.column(label_column).to_pylist()
            for cell, label in zip(batch.column(image_column).to_pylist(), labels, strict=True):
                yield number, cell, label
                number += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{file}: damaged after row {number:,}: {_short(str(error))}") from error


def _fault(cell: Any, content: bytes | None, label: int | str | None) -> str:
    """Return why a row is unusable, or ""."""
    if label is None or label == "":
        return "no label"
    if content is None:
        outside = isinstance(cell, dict) and cell.get("path")
        return "a path without bytes" if outside else "no image"
    return "too large for an image" if len(content) > MAX_FILE_BYTES else ""


def _columns(file: Path, table: Any, requested: Columns) -> tuple[str, str]:
    """Return the names of the image and label columns."""
    import pyarrow.types

    schema = table.schema_arrow
    image, label = (
        next((name for name in ((given,) if given else usual) if name in schema.names), None)
        for given, usual in ((requested.image, IMAGE_COLUMNS), (requested.label, LABEL_COLUMNS))
    )
    if image is None or label is None:
        raise DataError(
            f"{file}: columns {', '.join(schema.names) or 'none'}; expected "
            f"{requested.image or 'image or img'}, and {requested.label or 'label'}: name the "
            "right ones with --image-column and --label-column"
        )
    label_type, image_type = schema.field(label).type, schema.field(image).type
    if not (pyarrow.types.is_integer(label_type) or is_text(label_type)):
        raise DataError(
            f"{file}: column {label} is {label_type}, expected whole numbers, with the class names "
            "in the schema's metadata as Hugging Face writes them, or words; measurements are no "
            "classes: cut them into a few ranges"
        )
    if pyarrow.types.is_struct(image_type):
        inner = {field.name: field.type for field in image_type}
        image_type = inner.get("bytes")
    is_bytes = image_type is not None and (
        pyarrow.types.is_binary(image_type) or pyarrow.types.is_large_binary(image_type)
    )
    if not is_bytes:
        raise DataError(
            f"{file}: column {image} is {schema.field(image).type}, expected bytes, or a struct "
            "of bytes and path"
        )
    return image, label


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type is text."""
    import pyarrow.types

    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))


def _class_names(file: Path, table: Any, label: str) -> tuple[str, ...]:
    """Read class names from the schema's metadata, or ().

    Raises:
        DataError: when there is such metadata and it cannot be understood.
    """
    text = (table.schema_arrow.metadata or {}).get(b"huggingface")
    if text is None:
        return ()
    try:
        feature = json.loads(text)["info"]["features"].get(label, {})
        names = feature.get("names", ())
        if isinstance(names, dict):  # older files number them: {"0": "cat", …}
            names = [names[str(number)] for number in range(len(names))]
        if not all(isinstance(name, str) for name in names):
            raise TypeError("names that are no text")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{file}: the class names in the schema's metadata cannot be understood "
            f"({_short(str(error))}); expected info.features.{label}.names"
        ) from error
    check_class_names(names, str(file))
    return tuple(names)


def _agreed(
    path: Path,
    class_names: dict[str, tuple[str, ...]],
    labels: Sequence[int | str],
    described: tuple[str, ...],
) -> tuple[list[int], tuple[str, ...]]:
    """Return integer labels and the class names shared by all files.

    These are the words where the labels are words, else those of `told`, else numbers.
    """
    given = set(class_names.values())
    if len(given) > 1:
        described_by = "; ".join(
            f"{file}: {', '.join(n) or 'none'}" for file, n in class_names.items()
        )
        raise DataError(
            f"{path}: the files name different classes: {described_by}; expected the same"
        )
    names = given.pop() or described
    words = {label for label in labels if isinstance(label, str)}
    if words:
        if len(words) < len(set(labels)):
            raise DataError(f"{path}: labels are words and numbers; expected either")
        names = names if words <= set(names) else ordered_names(words)
        check_class_names(names, str(path))
        number_of = {name: number for number, name in enumerate(names)}
        return [number_of[str(label)] for label in labels], names
    numbers = [int(label) for label in labels]
    limit = len(names) if names else MAX_CLASSES
    wrong = [label for label in numbers if not 0 <= label < limit]
    if wrong:
        raise DataError(
            f"{path}: {len(wrong):,} labels outside 0…{limit - 1} "
            f"({', '.join(map(str, wrong[:5]))}); expected each to number a class"
        )
    return numbers, names or numbered_names(max(numbers, default=0))


def _short(words: str) -> str:
    return " ".join(words.split())[:160]
