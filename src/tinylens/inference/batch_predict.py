"""Batch prediction: expand input paths, predict, write tables, JSON, CSV or Parquet.

Each writer is a context manager that yields a function to call per prediction.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tinylens import files
from tinylens.display import data_frame
from tinylens.errors import DataError, MissingExtra
from tinylens.inference.classifier import Classifier, ImageInput, Prediction, each
from tinylens.inference.input_checks.examine import UNEXAMINED
from tinylens.system import core_count

IMAGE_SUFFIXES = frozenset({"png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "gif"})

ROWS_A_GROUP = 8192  # of Parquet: what is in memory before it is written
FEW = 16  # images that are read before a second thread would have started
LEAST_SHOWN = 0.01  # a probability below it is left out of a line for people

Keep = Callable[[Prediction], object]
Writer = contextlib.AbstractContextManager[Keep]


def predict(
    model: Classifier | str | os.PathLike[str],
    images: ImageInput | Sequence[ImageInput],
    *,
    top: int = 5,
    max_error: float | None = None,
    refused: float | None = None,
    coverage: float | None = None,
    fix: str | None = None,
) -> list[Prediction]:
    """Classify images; one that cannot be read has an `error` and no label.

    Args:
        model: a model.onnx, the folder of a run, a `Run`, or a `Classifier`.
        images: a path, a folder, a pattern such as "photos/**/*.png", the content of a file, an
            array, or several of these. An array is uint8, of shape (height, width) or (height,
            width, channels) for one image, else (n, height, width) or (n, height, width, channels).
        top: how many of the most probable classes to give.
        max_error: share of answers that may be wrong, such as 0.01; less sure ones are marked
            unknown. None keeps the model's own setting.
        refused: share of ordinary images that may be marked unknown as out of distribution, such as
            0.01. None keeps the model's own setting.
        coverage: how often the right class is to be in `label_set`, such as 0.95.
        fix: what the input checks may fix before the image is resized: "all", or kinds, separated
            by commas; "" reports what is unlike the training images, None does not look.

    Raises:
        DataError: `images` means no image, or is an array of another type or shape.
        ModelError: the model file is missing or damaged.
        RecipeError: the model has no threshold for `max_error`, `refused` or `coverage`, or `fix`
            names an unknown kind.

    >>> predict("runs/fast-1", "photos/")[0].label  # doctest: +SKIP
    'Ankle boot'
    """
    classifier = model if isinstance(model, Classifier) else Classifier.open(model)
    found = _expanded(each(images))
    workers = core_count() if len(found) > FEW else 1
    predictions = classifier.stream(
        found,
        top=top,
        workers=workers,
        max_error=max_error,
        coverage=coverage,
        refused=refused,
        fix=fix,
    )
    return list(predictions)


def to_pandas(predictions: Iterable[Prediction]) -> Any:
    """Return predictions as a pandas DataFrame, a row per image.

    The columns are path, label, confidence, unknown, ood_score and error.

    Raises:
        MissingExtra: pandas is not installed.
    """
    columns = ("path", "label", "confidence", "unknown", "ood_score", "error")
    return data_frame(
        [{name: getattr(each, name) for name in columns} for each in predictions], columns
    )


def _expanded(items: Sequence[ImageInput]) -> list[ImageInput]:
    """Return the items with folders and patterns replaced by the paths of their images."""
    paths = [os.fspath(item) for item in items if isinstance(item, str | os.PathLike)]
    if paths and len(paths) == len(items):
        return list(expand(paths, io.BytesIO()))  # raises where nothing is an image
    found: list[ImageInput] = []
    for item in items:
        if isinstance(item, str | os.PathLike):
            path = os.fspath(item)
            found += _matches(path) or [path]
        else:
            found.append(item)
    return found


def expand(arguments: Sequence[str], standard_input: IO[bytes]) -> list[str]:
    """Expand the path arguments of `tinylens predict` to image paths.

    A folder means the images in it and in its folders, known by their suffix and sorted by code
    point; hidden ones are left out and links to folders not followed. A pattern such as
    "photos/**/*.png" means what matches it, where no file has that very name. "-" means the paths
    in `standard_input`, one a line. An argument that means nothing stays in the list, and will be
    answered by an error.

    Raises:
        DataError: no argument means any image.
    """
    found: list[str] = []
    missing: list[str] = []
    for argument in arguments:
        meant = _lines(standard_input) if argument == "-" else _matches(argument)
        missing += [] if meant else [argument]
        found += meant or [argument]
    if len(missing) == len(arguments):
        raise DataError(
            f"no images found: {', '.join(map(printable, missing))}; expected files, patterns, "
            f"folders with files named .{', .'.join(sorted(IMAGE_SUFFIXES))}, or - for paths on "
            "the standard input"
        )
    return found


def predict_paths(
    classifier: Classifier,
    paths: Sequence[str],
    *,
    top: int = 5,
    max_error: float | None = None,
    coverage: float | None = None,
    refused: float | None = None,
    fix: str | None = None,
) -> Iterator[Prediction]:
    """Stream predictions for the images at `paths`, in order.

    See `Classifier.predict`.
    """
    workers = core_count() if len(paths) > FEW else 1
    return classifier.stream(
        paths,
        top=top,
        workers=workers,
        max_error=max_error,
        coverage=coverage,
        refused=refused,
        fix=fix,
    )


def write(predictions: Iterable[Prediction], writers: Iterable[Writer]) -> int:
    """Pass every prediction to every writer; return the number of images classified."""
    answered = 0
    with contextlib.ExitStack() as stack:
        keeps = [stack.enter_context(writer) for writer in writers]
        for prediction in predictions:
            for keep in keeps:
                keep(prediction)
            answered += prediction.error is None
    return answered


# --- which images


def _lines(standard_input: IO[bytes]) -> list[str]:
    lines = (line.rstrip(b"\r\n") for line in standard_input)
    return [os.fsdecode(line) for line in lines if line]


def _matches(argument: str) -> list[str]:
    if os.path.lexists(argument):  # Path.exists raises on a name that is too long
        return _in(argument)
    matches = glob.glob(argument, recursive=True)  # noqa: PTH207 - Path.glob starts at a folder
    return [path for match in sorted(matches) for path in _in(match)]


def _in(path: str) -> list[str]:
    """Return the images in a folder, or the path itself if it is a file."""
    if not os.path.isdir(path):  # noqa: PTH112 - as above
        return [path]
    unreadable: list[OSError] = []
    images = []
    for root, folders, names in os.walk(path, onerror=unreadable.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images += [str(Path(root) / name) for name in names if _is_image_name(name)]
    return sorted([*images, *(str(error.filename) for error in unreadable)])


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower()[1:] in IMAGE_SUFFIXES


# --- how they are kept


@contextlib.contextmanager
def lines_for_people(file: IO[bytes], class_names: Iterable[str]) -> Generator[Keep]:
    """Write a text table, one line per image, as predictions arrive.

    The path is the last column, so no width has to be known in advance.
    """
    width = max(map(len, map(printable, ("unknown", *class_names))))
    file.write(f"{'confidence':>10}  {'label':{width}}  path\n".encode())
    yield lambda prediction: file.write(f"{_line(prediction, width)}\n".encode())
    file.flush()


@contextlib.contextmanager
def json_list(file: IO[bytes]) -> Generator[Keep]:
    """Write a JSON list, one line per image, as predictions arrive."""
    separator = "[\n"

    def keep(prediction: Prediction) -> None:
        nonlocal separator
        # a name that is not UTF-8 keeps its bytes as \udcXX, which JSON has an escape for
        row = json.dumps(prediction.to_json(), ensure_ascii=False)
        file.write(f"{separator}{row}".encode(errors="backslashreplace"))
        separator = ",\n"

    yield keep
    file.write(b"[]\n" if separator == "[\n" else b"\n]\n")
    file.flush()


@contextlib.contextmanager
def csv_file(
    path: Path, top: int, *, sets: bool = False, findings: bool = False
) -> Generator[Keep]:
    """Write a CSV file (RFC 4180, UTF-8), complete at the end of the block.

    `sets` adds a column of label sets, `findings` one of input-check findings such as
    "margins: fixed"; both are separated by " | ".
    """
    names = ["path", "label", "confidence", "unknown", "ood_score", "error"]
    names += [*(["set"] if sets else []), *(["findings"] if findings else [])]
    ranks = range(2, top + 1)
    runners_up = [f"{name}_{rank}" for rank in ranks for name in ("label", "probability")]
    with files.new_file(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="", write_through=True)
        writer = csv.writer(text)
        writer.writerow([*names, *runners_up])

        def keep(prediction: Prediction) -> None:
            row = prediction.to_json() | {"set": " | ".join(prediction.label_set)}
            row["findings"] = " | ".join(_findings(prediction))
            others = [value for pair in prediction.top[1:] for value in pair]
            writer.writerow([*(row[name] for name in names), *others])

        yield keep
        text.detach()  # the file is not the wrapper's to close


@contextlib.contextmanager
def parquet_file(path: Path, *, sets: bool = False, findings: bool = False) -> Generator[Keep]:
    """Write a Parquet file of `Prediction.to_json` fields, complete at the end of the block.

    `sets` adds a column of label sets, `findings` one of input-check findings.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("writing Parquet needs pyarrow; type: pip install pyarrow") from None
    schema = _schema(sets=sets, findings=findings)
    rows: list[dict[str, Any]] = []
    with files.new_file(path) as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
            rows.clear()

        def keep(prediction: Prediction) -> None:
            rows.append(_utf8(prediction.to_json()))
            if len(rows) == ROWS_A_GROUP:
                flush()

        yield keep
        flush()


def _schema(*, sets: bool, findings: bool) -> Any:
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    ranked = pyarrow.struct([("label", text), ("probability", number)])
    found = pyarrow.struct([("kind", text), ("message", text), ("fixed", pyarrow.bool_())])
    return pyarrow.schema(
        [
            ("path", text),
            ("label", text),
            ("confidence", number),
            ("top", pyarrow.list_(ranked)),
            ("unknown", pyarrow.bool_()),
            ("ood_score", number),
            ("error", text),
            *([("set", pyarrow.list_(text))] if sets else []),
            *([("findings", pyarrow.list_(found))] if findings else []),
        ]
    )


def _utf8(value: Any) -> Any:
    r"""Escape the non-UTF-8 bytes of names in JSON values as literal \udcXX."""
    if isinstance(value, dict):
        return {key: _utf8(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_utf8(item) for item in value]
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def printable(text: str) -> str:
    r"""Return `text` on one line, with control and unprintable characters escaped.

    >>> print(printable("a\nb\x1b[31m"))
    a\nb\x1b[31m
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _findings(prediction: Prediction) -> list[str]:
    return [
        f"{finding.kind}{': fixed' if finding.fixed else ''}"
        for finding in prediction.findings or ()
    ]


def _line(prediction: Prediction, width: int) -> str:
    path = printable(prediction.path or "-")
    if prediction.label is None or prediction.confidence is None:
        return f"{'–':>10}  {'–':{width}}  {path}  error: {printable(prediction.error or '')}"
    others = [
        f"{printable(label)} {probability:.0%}"
        for label, probability in prediction.top[1:]
        if probability >= LEAST_SHOWN
    ]
    remarks = [f"or {', '.join(others)}"] if others else []
    if prediction.unknown:
        remarks.insert(0, f"perhaps {printable(prediction.label)}")
    if prediction.label_set:
        remarks = [f"one of {', '.join(map(printable, prediction.label_set))}"]
    remarks += prediction.notes
    remarks += [
        f"{'fixed: ' if finding.fixed else ''}{finding.message}"
        for finding in prediction.findings or ()
        if finding.kind != UNEXAMINED
    ]
    tail = f"  ({'; '.join(map(printable, remarks))})" if remarks else ""
    label = "unknown" if prediction.unknown else printable(prediction.label)
    return f"{prediction.confidence:>10.1%}  {label:{width}}  {path}{tail}"
