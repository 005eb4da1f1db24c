"""Export of a run's network to any format, checked against Keras before it is kept."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from tinylens import files
from tinylens.backend import activate
from tinylens.data.dataset import Splits
from tinylens.errors import ModelError, RunError, TinylensError
from tinylens.exporting import tensorflow
from tinylens.exporting.formats import Format, check_installed, requested
from tinylens.exporting.int8 import integer_card, integer_model, some
from tinylens.exporting.runtimes import (
    CARD,
    OPENVINO_CARD,
    OPENVINO_MODEL,
    Opened,
    open_model,
    openvino_module,
)
from tinylens.exporting.verify import BATCH, Limits, Reference, evaluate, reference, time_together
from tinylens.inference.classifier import Classifier
from tinylens.inference.model_file import INTEGERS, ModelCard
from tinylens.results import FormatRow, Scorecard
from tinylens.run import Run
from tinylens.system import core_count

SECONDS = 1.0  # of timing for each file


@dataclass(frozen=True, eq=False)
class Source:
    """What a run is exported from; each part is read when it is first needed.

    Attributes:
        run: finished.
        data: what it was trained, chosen and judged on.
    """

    run: Run
    data: Splits

    @functools.cached_property
    def card(self) -> ModelCard:
        """What model.onnx says of itself, after a check that nothing was changed in it."""
        return Classifier.open(self.run.model).card

    @functools.cached_property
    def plain_card(self) -> ModelCard:
        """The same for files that do not tell OOD score, as Keras's network does not."""
        return replace(self.card, selective=self.card.selective.without_ood_score())

    @functools.cached_property
    def network(self) -> keras.Model:
        """The network of model.keras."""
        try:
            return keras.models.load_model(self.run.keras_model)
        except (OSError, ValueError) as error:  # no such file, no zip, other layers
            words = " ".join(str(error).split())[:200]
            raise RunError(f"{self.run.keras_model} cannot be opened: {words}") from error


@dataclass(frozen=True)
class Exported:
    """What came of one format.

    Attributes:
        format: its name.
        path: of the file or folder, or None where it was not kept.
        row: how it compares with Keras, or None where it could not even be run.
        error: why it was not kept, or "".
    """

    format: str
    path: Path | None
    row: FormatRow | None
    error: str = ""


Exporter = Callable[[Source, Path], None]


def export(
    run: Run | str | Path,
    formats: Sequence[str],
    *,
    out: Path | None = None,
    data: Splits | None = None,
    limits: Limits | None = None,
    seconds: float = SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Exported], Scorecard]:
    """Write a run's network in some formats; one that answers otherwise than Keras is not kept.

    Answers are compared on the images of test, without their labels. How accurate integers are is
    judged on val, or on train where there is no val: the seal of test stays as it is.

    Args:
        run: finished.
        formats: names, see `tinylens.exporting.formats`, or "all".
        out: the folder for the files; None takes the run's own.
        data: what the run was trained on; None opens it anew.
        limits: how far a file may be from Keras.
        seconds: of timing, for each file.
        progress: called with formats done and formats in all.

    Returns:
        What came of each format, and the scorecard of those that were kept.

    Raises:
        RecipeError: there is no such format, or Keras runs on another backend than it needs.
        MissingExtra: what a format needs is not installed; nothing is written then.
        DataError, RunError, ModelError: data set, run or its model.onnx cannot be used.
    """
    from tinylens.data.load import reopen

    run = run if isinstance(run, Run) else Run(run)
    wanted = requested(formats)
    check_installed(wanted, writing=True)
    if any("tensorflow" in each.writes_with for each in wanted):
        activate("tensorflow")
    source = Source(run, data or reopen(run))
    found, opened = [], []
    with run.lock() if out is None else contextlib.nullcontext():
        for done, each in enumerate(wanted):
            came, model = _export_one(source, each, out, limits or Limits())
            found.append(came)
            opened += [] if model is None else [model]
            if progress:
                progress(done + 1, len(wanted))
    speeds = time_together([model.answer for model in opened], source.data.test.images, seconds)
    rows = (each.row for each in found if each.path is not None and each.row is not None)
    timed = [replace(row, speed=speed) for row, speed in zip(rows, speeds, strict=True)]
    return found, Scorecard(core_count(), BATCH, tuple(timed))


def _export_one(
    source: Source, wanted: Format, out: Path | None, limits: Limits
) -> tuple[Exported, Opened | None]:
    """Write one format, judge it, and give it its name if it is good."""
    path = (out or source.run.exports) / wanted.file
    if wanted.name == "onnx" and out is None:
        path = temporary = source.run.model  # training wrote it
    else:
        temporary = files.temporary_beside(path)
    row = None
    try:
        if temporary != path:
            _write(source, wanted, temporary)
        model = open_model(temporary, core_count())
        row = replace(evaluate(model, _reference(source, wanted), limits), path=str(path))
        if row.failures:
            raise ModelError("; ".join(row.failures))
        if temporary != path:
            files.replace(temporary, path)
    except TinylensError as error:
        words = str(error).replace(str(temporary), str(path))
        return Exported(wanted.name, None, row, f"{wanted.name} was not kept: {words}"), None
    finally:
        if temporary != path:
            files.remove(temporary)
    return Exported(wanted.name, path, row), model


def _write(source: Source, wanted: Format, path: Path) -> None:
    try:
        EXPORTERS[wanted.name](source, path)
    except (TinylensError, OSError):  # said well enough, and the disk is not the format's fault
        raise
    except Exception as error:  # writers raise dozens of types that share no base
        words = " ".join(str(error).split())[:300]
        raise ModelError(f"it cannot be written: {type(error).__name__}: {words}") from error


def _reference(source: Source, wanted: Format) -> Reference:
    if not wanted.integers:
        return reference(source.run, source.data, "test", labels=False)
    part = "train" if source.data.val is None else "val"
    return reference(source.run, source.data, part, labels=True)


# --- one function a format


def _onnx(source: Source, path: Path) -> None:
    shutil.copyfile(source.run.model, path)  # it is checked as it is opened


def _onnx_int8(source: Source, path: Path) -> None:
    content = source.run.model.read_bytes()
    path.write_bytes(integer_model(content, source.card, source.data))


def _litert(source: Source, path: Path) -> None:
    content = tensorflow.litert_model(source.network)
    path.write_bytes(tensorflow.with_card(content, source.plain_card))


def _litert_int8(source: Source, path: Path) -> None:
    samples = some(source.data.train.images)
    content = tensorflow.litert_model(source.network, samples)
    first = replace(source.plain_card, precision=INTEGERS)
    path.write_bytes(tensorflow.with_card(content, first))
    answer = open_model(path, core_count()).answer
    card = integer_card(first, lambda images: [answer(images)], source.data)
    path.write_bytes(tensorflow.with_card(content, card))


def _saved_model(source: Source, path: Path) -> None:
    tensorflow.write_saved_model(source.network, source.plain_card, path)


def _openvino(source: Source, path: Path) -> None:
    openvino = openvino_module()
    network = openvino.Core().read_model(source.run.model)
    network.set_rt_info(json.dumps(source.card.to_json()), OPENVINO_CARD)
    path.mkdir()
    # save_model() would make float16 of the weights
    openvino.serialize(network, path / OPENVINO_MODEL, (path / OPENVINO_MODEL).with_suffix(".bin"))


def _keras(source: Source, path: Path) -> None:
    shutil.copyfile(source.run.keras_model, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(CARD, json.dumps(source.plain_card.to_json()))


EXPORTERS: dict[str, Exporter] = {
    "onnx": _onnx,
    "onnx-int8": _onnx_int8,
    "litert": _litert,
    "litert-int8": _litert_int8,
    "saved-model": _saved_model,
    "openvino": _openvino,
    "keras": _keras,
}
