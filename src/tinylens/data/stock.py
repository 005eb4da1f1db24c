"""Encoded pictures of any data set, one by one, ready to be written in another form."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from tinylens.data import arrays, kinds
from tinylens.data.canonical import canonical_rows
from tinylens.data.dataset import SPLIT_NAMES, Images
from tinylens.data.decode import Item
from tinylens.data.encoded import DEFAULTS, Encoded, Options
from tinylens.data.groups import groups_of
from tinylens.data.image_headers import sniff
from tinylens.data.parts import Parts, Progress
from tinylens.errors import DataError

GROUP_COLUMN = "group"  # what groups are called in what is written
SUFFIX_OF = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "GIF": "gif"}

_PLAIN_STEM = re.compile(r"[^\w-]+")


class Picture(NamedTuple):
    """An encoded picture.

    Attributes:
        item: where its bytes lie.
        digest: their SHA-256.
        label: the number of its class.
        stem: what it was called, fit for any disk; not the same for each picture.
        suffix: of files of its format, by its content.
        group: what it belongs to, or "".
    """

    item: Item
    digest: str
    label: int
    stem: str
    suffix: str
    group: str

    def content(self) -> bytes:
        """Return the bytes.

        Raises:
            DataError: they cannot be read, or are not what they were.
        """
        content = self.item.content()
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise DataError(
                f"{self.item.path}: changed while it was read; expected it to stay as it is: run "
                "the command again"
            )
        return content


@dataclass(frozen=True)
class Stock:
    """The pictures of a data set.

    Attributes:
        source: where they came from, in words.
        class_names: one name a class.
        parts: the pictures of each part in canonical order, by the part's name.
        skipped: (name, reason) of what is no picture.
    """

    source: str
    class_names: tuple[str, ...]
    parts: Mapping[str, list[Picture]]
    skipped: tuple[tuple[str, str], ...]

    @cached_property
    def grouped(self) -> bool:
        """Whether the pictures have groups."""
        return any(picture.group for _, picture in self.items())

    def class_lines(self) -> bytes:
        """Return the class names as the lines of a classnames.txt.

        Raises:
            DataError: one cannot stand in a line.
        """
        odd = [name for name in self.class_names if not name.isprintable() or not name]
        if odd:
            raise DataError(
                f"{self.source}: the class {odd[0]!a} cannot stand in a line of its own; expected "
                "names that can be printed: convert to parquet or huggingface, which take any"
            )
        return "".join(f"{name}\n" for name in self.class_names).encode()

    def items(self) -> Iterator[tuple[str, Picture]]:
        """Yield each picture with its part."""
        for part, pictures in self.parts.items():
            for picture in pictures:
                yield part, picture


def stock_of_path(path: Path, options: Options, groups: str, workspace: Path) -> Stock:
    """Return the pictures of the data set at a path, as they are encoded there.

    Args:
        path: of any kind of data set.
        options: how it is read.
        groups: a column, an array or a pattern; "" takes the column `group` where there is one.
        workspace: a folder for the bytes of pictures that cannot be read where they lie; it must
            stay while the pictures are used.

    Raises:
        DataError: as readers do.
    """
    kind = kinds.find_kind(path)
    if isinstance(kind, kinds.ArrayKind):
        parts = kind.read(path, options)
        found = _array_groups(path, groups)
        return stock_of_arrays(parts, found, workspace, options.progress)
    source = kind.source(path, options)
    encoded = source.collect(workspace, lambda _: None)
    by_row = _groups_by_row(path, encoded, source.prefix, groups, options)
    return _stock(source.name, encoded, by_row, options)


def stock_of_arrays(
    parts: Parts,
    groups: Mapping[str, list[str]],
    workspace: Path,
    progress: Progress | None = None,
) -> Stock:
    """Return pictures from arrays, each as a PNG, which keeps every pixel."""
    heap = workspace / "arrays.bin"
    items: list[Item] = []
    labels: list[int] = []
    by_row: list[str] = []
    bounds: dict[str, tuple[int, int]] = {}
    with heap.open("wb") as file:
        for name, part in parts.items():
            start = len(items)
            for image in part.images:
                content = _png(image)
                items.append(Item(str(heap), file.tell(), len(content)))
                file.write(content)
            labels += part.labels.tolist()
            by_row += groups.get(name) or list(part.groups) or [""] * len(part)
            bounds[name] = (start, len(items))
    names = [f"{row}.png" for start, stop in bounds.values() for row in range(stop - start)]
    source, class_names = parts.train.source, parts.train.class_names
    encoded = Encoded(bounds, items, labels, names, class_names, lambda _: None, lambda: True)
    return _stock(source, encoded, by_row, Options(progress=progress))


def _png(image: Images) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def _array_groups(path: Path, groups: str) -> dict[str, list[str]]:
    if path.suffix.lower() != ".npz":
        return {}
    if groups:
        return arrays.read_groups(path, groups)
    with zipfile.ZipFile(path) as archive:
        grouped = any(name.startswith("groups") for name in archive.namelist())
    return arrays.read_groups(path, "groups") if grouped else {}  # as `data apply` writes them


def _groups_by_row(
    path: Path, encoded: Encoded, prefix: str, groups: str, options: Options
) -> list[str]:
    """Return the group of every picture, "" where there are none."""
    paths = {"all": [prefix + name for name in encoded.names]}
    if not groups:
        kind = kinds.find_kind(path)
        try:
            cells = kind.read_column(path, GROUP_COLUMN, options)
        except DataError:  # a table without it
            cells = None
        return [str((cells or {}).get(name) or "") for name in paths["all"]]
    found = groups_of(path, groups, paths, options)["all"]
    lacking = [name for name, group in zip(paths["all"], found, strict=True) if not group]
    if lacking:
        raise DataError(
            f"{path}: {len(lacking):,} pictures have no group by {groups!r}, the first is "
            f"{lacking[0]}; expected one each"
        )
    return [str(group) for group in found]


def _stock(name: str, encoded: Encoded, groups: list[str], options: Options = DEFAULTS) -> Stock:
    """Look at every picture once, and put them into canonical order."""
    count = len(encoded.items)
    digests, suffixes = [""] * count, [""] * count
    skipped = [(each, reason) for _, each, reason in encoded.skipped]
    broken: set[int] = set()
    step = options.progress or (lambda _done, _total: None)
    for row, item in enumerate(encoded.items):
        try:
            content = item.content()
            suffixes[row] = SUFFIX_OF[sniff(content)]
            digests[row] = hashlib.sha256(content).hexdigest()
        except DataError as error:
            broken.add(row)
            skipped.append((encoded.names[row], str(error)))
        step(row + 1, 2 * count)
    _check(name, encoded, broken, skipped, strict=options.strict)
    names = [f"{group}\0{each}" for group, each in zip(groups, encoded.names, strict=True)]
    rows, bounds = canonical_rows(encoded.parts, broken, digests, encoded.labels, names)
    pictures = [
        Picture(
            encoded.items[row],
            digests[row],
            encoded.labels[row],
            _stem(encoded.names[row]),
            suffixes[row],
            groups[row],
        )
        for row in rows
    ]
    parts = {part: pictures[slice(*bounds[part])] for part in SPLIT_NAMES if part in bounds}
    return Stock(name, encoded.class_names, parts, tuple(skipped))


def _check(
    name: str,
    encoded: Encoded,
    broken: set[int],
    skipped: list[tuple[str, str]],
    *,
    strict: bool,
) -> None:
    if strict and skipped:
        shown = "; ".join(f"{each}: {reason}" for each, reason in skipped[:5])
        raise DataError(
            f"{name}: {len(skipped):,} pictures cannot be used: {shown}; mend or remove them, or "
            "leave --strict out to leave them behind"
        )
    start, stop = encoded.parts.get("train", (0, 0))
    there = {encoded.labels[row] for row in range(start, stop) if row not in broken}
    empty = [each for number, each in enumerate(encoded.class_names) if number not in there]
    if empty:
        raise DataError(
            f"{name}: no picture to train on of class {', '.join(empty)}; expected at least one"
        )
    if not encoded.unchanged():
        raise DataError(
            f"{name}: files changed while they were read; expected them to stay as they are: run "
            "the command again"
        )


def _stem(name: str) -> str:
    """Return the last part of a picture's name, in letters that any disk takes.

    >>> _stem("cat/photo 1.jpg"), _stem("train.parquet:7")
    ('photo_1', '000007')
    """
    table, colon, row = name.rpartition(":")
    if colon and row.isdecimal() and table.endswith(".parquet"):
        return f"{int(row):06}"
    file = name.rpartition("/")[2]
    stem = _PLAIN_STEM.sub("_", file.rpartition(".")[0] or file).strip("_")[:60]
    return f"{int(stem):06}" if stem.isdecimal() else stem or "picture"
