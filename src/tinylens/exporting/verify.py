"""Verification of exported files: agreement with Keras, accuracy, size, speed.

The reference is what Keras answered when the run was made, as predictions.npz keeps it. So a file
is judged on any machine without Keras, and Keras's own file is one of those that are judged.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.data.dataset import Images, Labels, Splits
from tinylens.errors import ModelError, RecipeError, RunError
from tinylens.evaluation.compare import paired_difference
from tinylens.exporting.runtimes import Answer, Opened
from tinylens.inference.classifier import Classifier
from tinylens.inference.model_file import model_file, read_model
from tinylens.metrics import Probabilities
from tinylens.results import FormatRow, NetworkSize, Score, Scorecard, Speed
from tinylens.run import Run

TIE = 1e-5  # two probabilities nearer than this are equal as far as float32 can tell
BATCH = 256  # images at once
ROUNDS = 4  # of timing: all files take turns, A B B A, so that a slow moment meets all alike
SECONDS = 2.0  # of timing for each file
LEAST_CALLS = 5  # that are timed a round


@dataclass(frozen=True)
class Limits:
    """How far a file may be from Keras.

    Attributes:
        agreement: least share of images with the same answer; None asks 99.99 % of files that
            compute in floats, and nothing of those in integers.
        difference: most between any two probabilities, of files that compute in floats.
        accuracy_lost: most that a file in integers may be less accurate, as a share of images;
            one image is allowed where there are so few that it is more than that.
    """

    agreement: float | None = None
    difference: float = 1e-4
    accuracy_lost: float = 0.003


FLOATS_AGREE = 0.9999


@dataclass(frozen=True, eq=False)
class Reference:
    """What Keras answered.

    Attributes:
        part: of the data set.
        images: uint8, shape (n, height, width, channels).
        probabilities: float32, shape (n, classes).
        labels: int64, shape (n,), or None where they are not to be looked at.
        class_names: in the order of the probabilities.
    """

    part: str
    images: Images
    probabilities: Probabilities
    labels: Labels | None
    class_names: tuple[str, ...]


def reference(
    run: Run, data: Splits, part: str, *, labels: bool, images: int | None = None
) -> Reference:
    """Return what the run's Keras network answered on a part.

    Args:
        run: finished.
        data: what it was trained, chosen and judged on.
        part: "train", "val" or "test".
        labels: whether they may be looked at.
        images: at most so many, from all over the part; None takes all.

    Raises:
        RecipeError: the run has no such part, or `images` is not positive.
        RunError: it has no answers yet, or they are not of this part.
    """
    if images is not None and images < 1:
        raise RecipeError(f"--images {images}: expected at least 1")
    parts, arrays = dict(data.items()), run.predictions
    if part not in parts or f"{part}_probabilities" not in arrays:
        raise RecipeError(f"{run.path} has no part {part}; expected {', '.join(parts)}")
    rows, probabilities = arrays[f"{part}_indices"], arrays[f"{part}_probabilities"]
    if len(rows) and rows.max() >= len(parts[part]):
        raise RunError(f"{run.path} has answers to images that {part} does not have; train again")
    order = np.argsort(rows, kind="stable")
    if images is not None and images < len(order):
        chosen = np.random.default_rng(0).choice(len(order), images, replace=False)
        order = order[np.sort(chosen)]
    return Reference(
        part=part,
        images=np.asarray(parts[part].images[rows[order]]),
        probabilities=probabilities[order],
        labels=arrays[f"{part}_labels"][order] if labels else None,
        class_names=tuple(run.info.class_names),
    )


def verify(
    models: Sequence[Opened],
    against: Reference,
    limits: Limits,
    *,
    threads: int,
    seconds: float = SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> Scorecard:
    """Judge and time files together.

    Args:
        models: opened.
        against: what Keras answered.
        limits: how far they may be from that.
        threads: that they were opened with, for the record.
        seconds: of timing, for each.
        progress: called with files judged and files in all.

    Raises:
        ModelError: a file has other classes or gives what is no number.
    """
    rows = []
    for done, model in enumerate(models):
        rows.append(evaluate(model, against, limits))
        if progress:
            progress(done + 1, len(models))
    speeds = time_together([model.answer for model in models], against.images, seconds)
    timed = (replace(row, speed=speed) for row, speed in zip(rows, speeds, strict=True))
    return Scorecard(threads, BATCH, tuple(timed))


# --- answers


def evaluate(model: Opened, against: Reference, limits: Limits) -> FormatRow:
    """Compare a file's answers with Keras's.

    Raises:
        ModelError: it has other classes, or gives what is no number.
    """
    if model.card is not None and model.card.class_names != against.class_names:
        raise ModelError(
            f"{model.path} has the classes {', '.join(model.card.class_names)}, expected those of "
            f"the run: {', '.join(against.class_names)}; give the run that it was exported from"
        )
    given = _answers(model, against)
    apart, ties = disagreements(against.probabilities, given)
    count = len(given)
    row = FormatRow(
        format=model.format.name,
        path=str(model.path),
        integers=model.format.integers,
        size=model.size,
        part=against.part,
        images=count,
        agreement=1 - apart / count,
        ties=ties,
        largest_difference=float(np.abs(against.probabilities - given).max()),
        accuracy=None,
        accuracy_difference=None,
    )
    if against.labels is not None:
        row = replace(row, **_accuracies(against.probabilities, given, against.labels))
    return replace(row, failures=tuple(_failures(row, limits)))


def _answers(model: Opened, against: Reference) -> NDArray[np.float32]:
    images = against.images
    starts = range(0, len(images), BATCH)
    try:
        parts = [model.answer(images[at : at + BATCH]) for at in starts]
    except Exception as error:  # runtimes raise dozens of types that share no base
        words = " ".join(str(error).split())[:300]
        raise ModelError(f"{model.path} cannot be run: {words}") from error
    given = np.concatenate(parts)
    if given.shape != against.probabilities.shape or not np.isfinite(given).all():
        raise ModelError(
            f"{model.path} gives answers of shape {given.shape}, expected finite numbers of shape "
            f"{against.probabilities.shape}; export it again"
        )
    return given


def disagreements(expected: Probabilities, given: Probabilities) -> tuple[int, int]:
    """Return how many images get another class, and how many of these are ties and left out.

    A tie is an image whose two classes are equal for `expected`, as far as float32 can tell.

    >>> sure, tied = [[0.9, 0.1], [0.500001, 0.499999]], [[0.1, 0.9], [0.499999, 0.500001]]
    >>> disagreements(np.array(sure), np.array(tied))
    (1, 1)
    """
    rows = np.flatnonzero(expected.argmax(axis=1) != given.argmax(axis=1))
    gaps = expected[rows].max(axis=1) - expected[rows, given[rows].argmax(axis=1)]
    ties = int((gaps <= TIE).sum())
    return len(rows) - ties, ties


def _accuracies(expected: Probabilities, given: Probabilities, labels: Labels) -> dict[str, Any]:
    before, after = (each.argmax(axis=1) == labels for each in (expected, given))
    only_before, only_after = int((before & ~after).sum()), int((after & ~before).sum())
    return {
        "accuracy": float(after.mean()),
        "accuracy_difference": paired_difference(only_before, only_after, len(labels)),
    }


def _failures(row: FormatRow, limits: Limits) -> list[str]:
    least = limits.agreement if row.integers else limits.agreement or FLOATS_AGREE
    found = []
    if least is not None and row.agreement < least:
        found.append(
            f"it answers {100 * row.agreement:.2f} % of {row.images:,} images as Keras did, "
            f"expected at least {100 * least:g} %"
        )
    if not row.integers and not row.largest_difference <= limits.difference:
        found.append(
            f"its probabilities differ by up to {row.largest_difference:.2g} from Keras's, "
            f"expected at most {limits.difference:g}"
        )
    lost = 0.0 if row.accuracy_difference is None else -row.accuracy_difference.value
    if row.integers and lost > limits.accuracy_lost and round(lost * row.images) > 1:
        found.append(
            f"it is less accurate than Keras by {100 * lost:.2f} points on {row.images:,} "
            f"images of {row.part}, expected at most {100 * limits.accuracy_lost:g}"
        )
    return found


# --- time


def time_together(answers: Sequence[Answer], images: Images, seconds: float) -> list[Speed]:
    """Time several files on the same images, in turns.

    Args:
        answers: what is timed.
        images: uint8, shape (n, height, width, channels).
        seconds: for each of them, half with single images and half with batches.
    """
    few, many = images[:1], np.resize(images, (BATCH, *images.shape[1:]))
    single: list[list[float]] = [[] for _ in answers]
    batches: list[list[float]] = [[] for _ in answers]
    for number in range(ROUNDS):
        order = range(len(answers)) if number % 2 == 0 else reversed(range(len(answers)))
        for place in order:
            share = seconds / ROUNDS / 2
            single[place] += _times(answers[place], few, share)
            batches[place] += _times(answers[place], many, share)
    return [
        Speed(
            one_p50_ms=1e3 * float(np.percentile(one, 50)),
            one_p95_ms=1e3 * float(np.percentile(one, 95)),
            many_per_second=BATCH / float(np.median(all_at_once)),
        )
        for one, all_at_once in zip(single, batches, strict=True)
    ]


def _times(answer: Answer, images: Images, seconds: float) -> list[float]:
    """Return the seconds of each call, after one that is not timed, for so long in all."""
    answer(images)
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < LEAST_CALLS or time.perf_counter() < end:
        begun = time.perf_counter()
        answer(images)
        found.append(time.perf_counter() - begun)
    return found


OOD_SCORE = "ood_score"  # so begin the names of all that tells out-of-distribution images
DISTILLED = "distil."  # keys of a recipe in which a network trained alone may differ


def compare(paths: Mapping[str, Path], run: Run, seconds: float = SECONDS) -> list[NetworkSize]:
    """Return the size, accuracy and speed of several networks, timed in turns.

    Args:
        paths: of runs, or of files model.onnx, by the names of the table.
        run: whose test split counts.
        seconds: of timing for each.

    Raises:
        ModelError: a file is missing or damaged.
    """
    files = {name: model_file(path) for name, path in paths.items()}
    contents = {name: read_model(file) for name, file in files.items()}
    opened = [
        Classifier.from_bytes(contents[name], str(file), threads=1) for name, file in files.items()
    ]
    turns = np.zeros((1, 1, 1, 1), np.uint8)  # each answers on its own images instead
    speeds = time_together(list(map(_answer, opened)), turns, seconds)
    return [
        NetworkSize(
            name=name,
            path=str(files[name]),
            parameters=parameters(contents[name]),
            bytes=len(contents[name]),
            accuracy=_accuracy(files[name], run),
            one_p50_ms=speed.one_p50_ms,
        )
        for name, speed in zip(files, speeds, strict=True)
    ]


def alone(run: Run) -> Run | None:
    """Return a finished run beside this one that differs in having had no teacher, if any."""
    for folder in sorted(run.path.absolute().parent.iterdir()):
        other = Run(folder)
        with contextlib.suppress(RunError):
            if other.started and _same_but_distilled(run, other):
                return other
    return None


def parameters(content: bytes) -> int:
    """Return how many numbers the weights in a model file's content have.

    Those that tell out-of-distribution images, and shapes and places in images, are no weights.
    """
    import onnx

    weights = onnx.load_from_string(content).graph.initializer
    return sum(
        int(np.prod(each.dims))
        for each in weights
        if each.data_type == onnx.TensorProto.FLOAT and not each.name.startswith(OOD_SCORE)
    )


def _same_but_distilled(run: Run, other: Run) -> bool:
    info = other.info
    if info.state != "done" or info.teacher or info.fingerprint != run.info.fingerprint:
        return False
    return all(each.startswith(DISTILLED) for each in run.recipe.differences(other.recipe))


def _answer(classifier: Classifier) -> Callable[[Images], NDArray[np.float32]]:
    """Return what answers as many images of the network's own shape as it is given others."""
    golden = classifier.card.golden
    if golden is None:  # `Classifier.from_bytes` refuses such a file
        raise ModelError("a model file without golden samples; export it again")
    own = {count: np.resize(golden.images, (count, *classifier.rule.shape)) for count in (1, BATCH)}

    def answer(images: Images) -> NDArray[np.float32]:
        given = {"image": own[len(images)]}
        probabilities: NDArray[np.float32] = classifier.session.run(None, given)[0]
        return probabilities

    return answer


def _accuracy(file: Path, run: Run) -> Score | None:
    """Return the accuracy of a file's run, where it was judged on the test split of `run`."""
    other = Run(file.parent)
    with contextlib.suppress(RunError):
        if other.info.splits["test"] == run.info.splits["test"]:
            return other.evaluation.splits["test"].accuracy
    return None
