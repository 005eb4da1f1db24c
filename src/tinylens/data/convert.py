"""Data set conversion: to a folder of classes, or to Parquet in Hugging Face's layout.

Encoded images keep their bytes; those from arrays become PNG files, which keep every pixel. What is
written depends on the images, their classes, splits, groups and names alone, so the same data give
the same bytes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from tinylens import files
from tinylens.data import kinds
from tinylens.data.cache import cache_root
from tinylens.data.dataset import SPLIT_NAMES, Dataset, Images, Splits
from tinylens.data.encoded import Options
from tinylens.data.groups import groups_of
from tinylens.data.images import sniff
from tinylens.data.load import KNOWN_NAMES, kind_of, load_parts
from tinylens.data.readers import arrays
from tinylens.data.readers.parquet import write
from tinylens.data.splits import Columns, Parts, Progress, as_parts, ordered_names
from tinylens.errors import DataError, RecipeError

FORMS = ("folder", "parquet")
SHARD_BYTES = 500_000_000
_FILE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".parquet", ".csv", ".tsv", ".jsonl")
_SUFFIX_OF = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "GIF": "gif"}
_HUGGING_FACE_NAMES = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Converted:
    """Summary of a conversion.

    Attributes:
        destination: the new folder.
        class_names: in label order.
        images: the number of images per split.
        groups: the number of groups; 0 where no image has one.
        skipped: (name, reason) of each file left out because it is no image.
    """

    destination: str
    class_names: tuple[str, ...]
    images: dict[str, int]
    groups: int
    skipped: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; skipped files as {"path", "reason"}."""
        skipped = [{"path": path, "reason": reason} for path, reason in self.skipped]
        return asdict(self) | {"skipped": skipped}


class _Entry(NamedTuple):
    """An encoded image; sorted, entries are in the order of `canonical`."""

    place: int  # of its split in SPLIT_NAMES
    digest: str
    label: int
    group: str
    name: str
    row: int
    suffix: str
    size: int
    read: Callable[[], bytes]

    @property
    def split(self) -> str:
        return SPLIT_NAMES[self.place]


class _Found(NamedTuple):
    source: str
    class_names: tuple[str, ...]
    skipped: list[tuple[str, str]]
    entries: list[_Entry]

    @property
    def grouped(self) -> bool:
        return any(entry.group for entry in self.entries)


def convert(  # noqa: PLR0913 - what there is to say of a data set
    source: str | Path | Dataset | Splits,
    destination: str | Path,
    *,
    form: str = "folder",
    groups: str = "",
    image_column: str = "",
    label_column: str = "",
    strict: bool = False,
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Converted:
    """Write a data set in another form; images keep their bytes, classes, splits and groups.

    Args:
        source: a known set's name or a path, as for `tinylens.load`, or what is in memory already.
        destination: a new folder.
        form: "folder", of classes, in splits if there are several; "parquet", as on Hugging Face.
        groups: what tells which images belong together; "" takes a column `group`, if there is one.
        image_column: of a table or manifest, where its name is none of the usual ones.
        label_column: the same.
        strict: an image that cannot be read is an error, not left out.
        data_dir: where files are looked for first and kept; None is the user's cache.
        progress: called with steps done and steps in all.

    Raises:
        DataError: the source cannot be read, the destination exists or cannot be written, or the
            form cannot keep what the source holds.
        RecipeError: the form is unknown, or the destination's name is that of a file; or `groups`
            is given for a data set in memory, which has its own.

    >>> import numpy as np
    >>> data = Dataset(np.zeros((2, 8, 8, 1), np.uint8), [0, 1], ("cat", "dog"), source="example")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     convert(data, f"{folder}/new").images
    {'train': 2}
    """
    destination = Path(destination)
    options = Options(
        strict=strict,
        data_dir=None if data_dir is None else Path(data_dir),
        progress=progress,
        columns=Columns(image_column, label_column),
    )
    if form not in FORMS:
        raise RecipeError(f"--format {form}; expected {' or '.join(FORMS)}")
    if (suffix := destination.suffix).lower() in _FILE_SUFFIXES:
        raise RecipeError(f"{destination}: a folder is written; expected a name without {suffix}")
    if destination.exists() or destination.is_symlink():
        raise DataError(f"{destination}: is there already; expected a new name: give another one")
    root = cache_root(options.data_dir)
    with tempfile.TemporaryDirectory(dir=root, prefix=files.TEMPORARY_PREFIX) as workspace:
        found = _find(source, groups, options, Path(workspace))
        try:
            with files.new_folder(destination) as folder:
                (_write_folder if form == "folder" else _write_parquet)(found, folder, options)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError(f"{destination}: cannot be written: {reason}") from error
    counts = dict(Counter(entry.split for entry in found.entries))
    grouped = len({entry.group for entry in found.entries} - {""})
    skipped = tuple(found.skipped)
    return Converted(str(destination), found.class_names, counts, grouped, skipped)


def _find(
    source: str | Path | Dataset | Splits, groups: str, options: Options, workspace: Path
) -> _Found:
    """Read every image once; `workspace` holds what archives unpack to."""
    if isinstance(source, Dataset | Splits):
        if groups:
            raise RecipeError(
                f"groups is {groups!r}, but {source.source} is in memory; expected its images to "
                "have their groups there: Dataset(…, groups=…)"
            )
        return _find_arrays(as_parts(source), {}, options)
    if isinstance(source, str) and source in KNOWN_NAMES:
        return _find_arrays(load_parts(source, options), {}, options)
    path = Path(source)
    kind_of(path)  # raises where there is none
    kind = kinds.find_kind(path)
    if isinstance(kind, kinds.ArrayKind):
        return _find_arrays(kind.read(path, options), _array_groups(path, groups), options)
    reader = kind.source(path, options)
    encoded = reader.collect(workspace, lambda _: None)
    by_row = _groups(path, [reader.prefix + name for name in encoded.names], groups, options)
    splits = [name for name, bounds in encoded.parts.items() for _ in range(*bounds)]
    reads = [item.content for item in encoded.items]
    rows = zip(splits, encoded.labels, by_row, encoded.names, reads, strict=True)
    skipped = [(name, reason) for _, name, reason in encoded.skipped]
    found = _Found(reader.name, encoded.class_names, skipped, [])
    _survey(found, list(rows), options)
    if not encoded.unchanged():
        raise DataError(
            f"{found.source}: files changed while they were read; expected them to stay as they "
            "are: run the command again"
        )
    return found


def _find_arrays(parts: Parts, groups: dict[str, list[str]], options: Options) -> _Found:
    found = _Found(parts.train.source, parts.train.class_names, [], [])
    rows = []
    for split, part in parts.items():
        by_row = groups.get(split) or part.groups or [""] * len(part)
        for row, image in enumerate(part.images):
            label, read = int(part.labels[row]), partial(_png, image)
            rows.append((split, label, by_row[row], f"{row}.png", read))
    _survey(found, rows, options)
    return found


def _png(image: Images) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def _array_groups(path: Path, groups: str) -> dict[str, list[str]]:
    if path.suffix.lower() != ".npz":
        return {}
    with zipfile.ZipFile(path) as archive:  # `data apply` writes an array "groups"
        grouped = any(name.startswith("groups") for name in archive.namelist())
    return arrays.read_groups(path, groups or "groups") if groups or grouped else {}


def _groups(path: Path, names: list[str], groups: str, options: Options) -> Sequence[str]:
    if not groups:
        try:
            cells = kinds.find_kind(path).read_column(path, "group", options) or {}
        except DataError:  # a table without it
            cells = {}
        return [str(cells.get(name) or "") for name in names]
    found = groups_of(path, groups, {"all": names}, options)["all"]
    lacking = [name for name, group in zip(names, found, strict=True) if not group]
    if lacking:
        raise DataError(
            f"{path}: {len(lacking):,} images have no group by {groups!r}, the first is "
            f"{lacking[0]}; expected one each"
        )
    return [str(group) for group in found]


def _survey(found: _Found, rows: Sequence[Any], options: Options) -> None:
    """Fill in the entries and what is skipped."""
    for number, (split, label, group, name, read) in enumerate(rows):
        try:
            content = read()
            about = _SUFFIX_OF[sniff(content)], len(content), read
            digest = hashlib.sha256(content).hexdigest()
            place = SPLIT_NAMES.index(split)
            found.entries.append(_Entry(place, digest, label, group, name, number, *about))
        except DataError as error:
            found.skipped.append((name, str(error)))
        if options.progress:
            options.progress(number + 1, 2 * len(rows))
    found.entries.sort()
    if options.strict and found.skipped:
        shown = "; ".join(f"{name}: {reason}" for name, reason in found.skipped[:5])
        raise DataError(
            f"{found.source}: {len(found.skipped):,} images cannot be used: {shown}; mend or "
            "remove them, or leave --strict out to leave them behind"
        )
    present = {entry.label for entry in found.entries if entry.split == "train"}
    empty = [name for label, name in enumerate(found.class_names) if label not in present]
    if empty:
        raise DataError(
            f"{found.source}: no image to train on of class {', '.join(empty)}; expected at "
            "least one"
        )


def _stem(name: str) -> str:
    """Return an image's name without folder and suffix, in letters that any file system takes.

    >>> _stem("cat/photo 1.jpg"), _stem("train.parquet:7")
    ('photo_1', '000007')
    """
    table, colon, row = name.rpartition(":")
    if colon and row.isdecimal() and table.endswith(".parquet"):
        return f"{int(row):06}"
    file = name.rpartition("/")[2]
    stem = re.sub(r"[^\w-]+", "_", file.rpartition(".")[0] or file).strip("_")[:60]
    return f"{int(stem):06}" if stem.isdecimal() else stem or "image"


def _write_folder(found: _Found, root: Path, options: Options) -> None:
    """Write a folder of classes; a metadata.csv says what folders cannot."""
    names, entries = found.class_names, found.entries
    odd = [name for name in names if not name.isprintable() or name != name.strip() or not name]
    if odd:
        raise DataError(
            f"{found.source}: the class {odd[0]!a} cannot be kept in a folder; expected names that "
            "can be printed, without spaces around them: convert with --format parquet"
        )
    # whatever the file system, and not hidden from the reader
    plain = all(re.fullmatch(r"(?!\.|__MACOSX)[^/\\:]{1,60}", name) for name in names)
    folders = names if plain else [f"class-{label:04}" for label in range(len(names))]
    if ordered_names(names) != names:
        _write_text(root / "classnames.txt", "".join(f"{name}\n" for name in names))
    parted = len({entry.split for entry in entries}) > 1
    paths = _paths(entries, folders, parted)
    if not plain or found.grouped:
        _write_text(root / "metadata.csv", _table(found, paths, parted))
    for path, content in zip(paths, _contents(paths.values(), options), strict=True):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def _paths(entries: Sequence[_Entry], folders: Sequence[str], parted: bool) -> dict[str, _Entry]:
    """Return a path for each image; no two are the same where case does not count."""
    taken: set[str] = set()
    paths = {}
    for entry in entries:
        stem = f"{folders[entry.label]}/{_stem(entry.name)}"
        stem = f"{entry.split}/{stem}" if parted else stem
        path, number = f"{stem}.{entry.suffix}", 1
        while path.casefold() in taken:
            number += 1
            path = f"{stem}-{number}.{entry.suffix}"
        taken.add(path.casefold())
        paths[path] = entry
    return dict(sorted(paths.items()))


def _table(found: _Found, paths: dict[str, _Entry], parted: bool) -> str:
    text = io.StringIO()
    columns = ["file_name", "label", *["split"] * parted, *["group"] * found.grouped]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for path, entry in paths.items():
        label = found.class_names[entry.label]
        row = {"file_name": path, "label": label, "split": entry.split, "group": entry.group}
        writer.writerow(row)
    return text.getvalue()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _contents(entries: Iterable[_Entry], options: Options) -> Iterator[bytes]:
    entries = list(entries)
    for number, entry in enumerate(entries, 1):
        content = entry.read()
        if hashlib.sha256(content).hexdigest() != entry.digest:
            raise DataError(
                f"{entry.name}: changed while it was read; expected it to stay as it is: run the "
                "command again"
            )
        yield content
        if options.progress:
            options.progress(len(entries) + number, 2 * len(entries))


def _write_parquet(found: _Found, root: Path, options: Options) -> None:
    """Write shards in data/, and a README.md, as Hugging Face's hub has them."""
    (root / "data").mkdir()
    contents = _contents(found.entries, options)
    counts: dict[str, str] = {}
    for split, group in itertools.groupby(found.entries, lambda entry: entry.split):
        entries = list(group)
        ends = itertools.accumulate(entry.size for entry in entries)
        shards: dict[int, list[_Entry]] = {}
        for entry, end in zip(entries, ends, strict=True):
            shards.setdefault(end // SHARD_BYTES, []).append(entry)
        name = _HUGGING_FACE_NAMES[split]
        counts[name] = str(len(entries))
        for number, shard in enumerate(shards.values()):
            file = f"{name}-{number:05}-of-{len(shards):05}.parquet"
            _write_shard(found, shard, contents, root / "data" / file)
    _write_text(root / "README.md", write(found.class_names, counts))


def _write_shard(
    found: _Found, entries: Sequence[_Entry], contents: Iterator[bytes], path: Path
) -> None:
    import pyarrow
    import pyarrow.parquet

    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = {"image": image, "label": pyarrow.int64()}
    features: dict[str, Any] = {  # as the `datasets` library describes columns
        "image": {"_type": "Image"},
        "label": {"names": list(found.class_names), "_type": "ClassLabel"},
    }
    if found.grouped:
        columns["group"] = pyarrow.string()
        features["group"] = {"dtype": "string", "_type": "Value"}
    about = json.dumps({"info": {"features": features}})
    schema = pyarrow.schema(list(columns.items()), {"huggingface": about})
    with pyarrow.parquet.ParquetWriter(
        path, schema, compression="none", use_dictionary=False, write_statistics=False
    ) as writer:
        for start in range(0, len(entries), 1_000):
            rows = [
                {
                    "image": {
                        "bytes": next(contents),
                        "path": f"{_stem(entry.name)}.{entry.suffix}",
                    },
                    "label": entry.label,
                    "group": entry.group,
                }
                for entry in entries[start : start + 1_000]
            ]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
