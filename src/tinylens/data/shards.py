"""Sets of pictures written as Parquet, as a Hugging Face folder and as WebDataset shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinylens.data import card
from tinylens.data.shelves import Shelf, open_tar
from tinylens.data.stock import GROUP_COLUMN, Picture, Stock
from tinylens.errors import RecipeError

SHARD_PICTURES = 10_000
SHARD_BYTES = 500_000_000
ROWS_AT_ONCE = 1_000  # of a table
HUGGING_FACE_NAMES = {"train": "train", "val": "validation", "test": "test"}

Step = Callable[[], None]

# --- WebDataset


def write_shards(stock: Stock, path: Path, step: Step) -> None:
    """Write WebDataset shards into a folder: a .cls beside each picture, a .json for its group."""
    (path / "classnames.txt").write_bytes(stock.class_lines())
    for part, pictures in stock.parts.items():
        for number, some in enumerate(_shards(pictures, SHARD_PICTURES)):
            with open_tar(path / f"{part}-{number:05}.tar") as shelf:
                for row, picture in enumerate(some):
                    _put_sample(shelf, f"{number * SHARD_PICTURES + row:08}", stock, picture)
                    step()


def _put_sample(shelf: Shelf, key: str, stock: Stock, picture: Picture) -> None:
    shelf.put(f"{key}.{picture.suffix}", picture.content())
    shelf.put(f"{key}.cls", str(picture.label).encode())
    if stock.grouped:
        shelf.put(f"{key}.json", json.dumps({GROUP_COLUMN: picture.group}).encode())


def _shards(pictures: Sequence[Picture], most: int) -> Iterator[list[Picture]]:
    """Yield pictures in shards of at most so many, and of about SHARD_BYTES."""
    some: list[Picture] = []
    size = 0
    for picture in pictures:
        length = _length(picture)
        if some and (len(some) == most or size + length > SHARD_BYTES):
            yield some
            some, size = [], 0
        some.append(picture)
        size += length
    yield some


def _length(picture: Picture) -> int:
    """Return about how many bytes a picture has."""
    item = picture.item
    return item.length if item.length >= 0 else Path(item.path).stat().st_size


# --- Parquet


def write_table(stock: Stock, path: Path, step: Step) -> None:
    """Write one Parquet file.

    Raises:
        RecipeError: there are several parts.
    """
    if len(stock.parts) > 1:
        raise RecipeError(
            f"{stock.source}: has the parts {', '.join(stock.parts)}, and one Parquet "
            "file holds one; expected a folder: leave .parquet out, with --format parquet"
        )
    _write_rows(stock, stock.parts["train"], path, step)


def write_tables(stock: Stock, path: Path, step: Step) -> None:
    """Write a Parquet file for each part into a folder."""
    for part, pictures in stock.parts.items():
        _write_rows(stock, pictures, path / f"{HUGGING_FACE_NAMES[part]}.parquet", step)


def write_hugging_face(stock: Stock, path: Path, step: Step) -> None:
    """Write a folder as Hugging Face's hub has it: shards in data/, and a README.md."""
    (path / "data").mkdir()
    for part, pictures in stock.parts.items():
        shards = list(_shards(pictures, len(pictures)))
        for number, some in enumerate(shards):
            name = f"{HUGGING_FACE_NAMES[part]}-{number:05}-of-{len(shards):05}.parquet"
            _write_rows(stock, some, path / "data" / name, step)
    counts = {HUGGING_FACE_NAMES[part]: str(len(each)) for part, each in stock.parts.items()}
    text = card.write(stock.class_names, counts)
    (path / "README.md").write_text(text, encoding="utf-8", newline="\n")


def _write_rows(stock: Stock, pictures: Sequence[Picture], path: Path, step: Step) -> None:
    import pyarrow
    import pyarrow.parquet

    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = [("image", image), ("label", pyarrow.int64())]
    columns += [(GROUP_COLUMN, pyarrow.string())] if stock.grouped else []
    schema = pyarrow.schema(
        columns, {"huggingface": json.dumps({"info": {"features": _features(stock)}})}
    )
    with pyarrow.parquet.ParquetWriter(
        path, schema, compression="none", use_dictionary=False, write_statistics=False
    ) as writer:
        for start in range(0, len(pictures), ROWS_AT_ONCE):
            some = pictures[start : start + ROWS_AT_ONCE]
            cells: dict[str, list[Any]] = {
                "image": [
                    {"bytes": each.content(), "path": f"{each.stem}.{each.suffix}"} for each in some
                ],
                "label": [each.label for each in some],
            }
            if stock.grouped:
                cells[GROUP_COLUMN] = [each.group for each in some]
            writer.write_table(pyarrow.table(cells, schema))
            for _ in some:
                step()


def _features(stock: Stock) -> Mapping[str, Any]:
    """Return the columns as the `datasets` library describes them."""
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(stock.class_names), "_type": "ClassLabel"},
    }
    if stock.grouped:
        features[GROUP_COLUMN] = {"dtype": "string", "_type": "Value"}
    return features
