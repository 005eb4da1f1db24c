"""Evaluation: probabilities and labels to metrics with intervals (evaluation.json)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens import metrics
from tinylens.data.dataset import SPLIT_NAMES, Dataset, Images, Labels, Splits
from tinylens.data.images import ImageRule
from tinylens.data.load import load_by
from tinylens.errors import DataError, MissingExtra, RecipeError, RunError
from tinylens.evaluation import bootstrap
from tinylens.evaluation.diagnosis import measure_gap
from tinylens.inference.classifier import Classifier
from tinylens.inference.selective_prediction import Level, SelectivePrediction, SetLevel, in_set
from tinylens.recipe import DataSection
from tinylens.results import (
    Calibration,
    ClassScores,
    Evaluation,
    LevelScores,
    Score,
    SetScores,
    SplitScores,
)
from tinylens.run import Run
from tinylens.system import now

Probabilities = NDArray[np.float32]
Confusion = NDArray[np.int64]

WORST_MISTAKES = 24  # on test, whose images the report shows
_SUM_TOLERANCE = 1e-5  # scikit-learn's own, for rows that should sum to 1


def score(
    probabilities: Probabilities, labels: Labels, class_names: Sequence[str], *, seed: int = 0
) -> SplitScores:
    """Return the figures of one part, each with its 95 % interval.

    scikit-learn computes the figures, but for the calibration error. The intervals are Wilson's
    for accuracy, top-5 and each class's precision and recall, and the bootstrap's for the rest. A
    share of nothing, such as the recall of a class without images, is 0 with the interval (0, 1).
    The ROC AUC is not defined when a class has no image or all of them. With fewer than 6 classes
    top-5 is 1.

    Args:
        probabilities: float32, shape (n, classes), rows summing to 1.
        labels: int64, shape (n,).
        class_names: one name a class.
        seed: of the bootstrap.

    Raises:
        DataError: the arrays do not fit together, or are not probabilities.
        MissingExtra: scikit-learn is not installed.

    >>> sure = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], np.float32)
    >>> scores = score(sure, np.array([0, 1, 1]), ("cat", "dog"))
    >>> print(scores.accuracy)
    0.6667 (0.2077–0.9385)
    """
    _check(probabilities, labels, class_names)
    sklearn_metrics = _sklearn_metrics()
    answers = probabilities.argmax(axis=1)
    confusion = sklearn_metrics.confusion_matrix(labels, answers, labels=range(len(class_names)))
    drawn = bootstrap.confusion_intervals(confusion, seed=seed)
    ranges = bootstrap.probability_intervals(probabilities, labels, seed=seed)
    accuracy = sklearn_metrics.accuracy_score(labels, answers)
    return SplitScores(
        n=len(labels),
        accuracy=_proportion(accuracy, len(labels)),
        top5=_proportion(_top5(sklearn_metrics, probabilities, labels), len(labels)),
        log_loss=Score(
            float(sklearn_metrics.log_loss(labels, probabilities, labels=range(len(class_names)))),
            ranges.log_loss,
        ),
        brier=Score(float(metrics.brier_scores(probabilities, labels).mean()), ranges.brier),
        ece=Score(metrics.expected_calibration_error(probabilities, labels), ranges.ece),
        mcc=_between(_matthews(sklearn_metrics, labels, answers), drawn.mcc),
        roc_auc_macro=Score(
            _roc_auc(sklearn_metrics, probabilities, labels) if ranges.roc_auc_macro else None,
            ranges.roc_auc_macro,
        ),
        **_averages(sklearn_metrics, labels, answers, "macro", drawn.macro),
        **_averages(sklearn_metrics, labels, answers, "weighted", drawn.weighted),
        per_class=_per_class(sklearn_metrics, labels, answers, class_names, drawn.f1),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def assemble(
    parts: Mapping[str, tuple[Probabilities, Labels]],
    class_names: Sequence[str],
    calibration: Calibration,
    selective: SelectivePrediction | None = None,
    *,
    seed: int = 0,
) -> Evaluation:
    """Return the evaluation of a run: the figures of every part, and the gap from train to test.

    Args:
        parts: (probabilities, labels) by part, "train", "val" and "test", as `score` takes them.
        class_names: one name a class.
        calibration: how the probabilities were calibrated.
        selective: when not to answer, computed on val; it is judged on test.
        seed: of the bootstrap.

    Raises:
        DataError, MissingExtra: as `score` does.
    """
    splits = {
        name: score(probabilities, labels, class_names, seed=seed)
        for name, (probabilities, labels) in parts.items()
    }
    both = "train" in splits and "test" in splits
    gap = measure_gap(splits["train"], splits["test"], splits.get("val")) if both else None
    if selective and "test" in parts:
        levels = tuple(evaluate_level(*parts["test"], level) for level in selective.levels)
        sets = tuple(evaluate_set(*parts["test"], level) for level in selective.sets)
        calibration = replace(calibration, levels=levels, sets=sets)
    return Evaluation(splits=splits, gap=gap, calibration=calibration)


def evaluate(
    model: Classifier | Run | str | Path,
    data: str | Path | Dataset | Splits | None = None,
    *,
    split: str = "test",
    data_dir: str | Path | None = None,
    command: str = "tinylens.evaluate()",
) -> Evaluation:
    """Evaluate a model on a data set, every figure with its 95 % interval.

    A look at the test split is recorded in the run that the model lies in.

    Args:
        model: a model.onnx, the folder of a run, a `Run`, or a `Classifier`.
        data: a known set's name or a path; `Splits`; or a `Dataset`, all of which is taken. None
            gives the figures of a run as they were measured after its training.
        split: "train", "val" or "test".
        data_dir: where files are looked for first.
        command: recorded in a run as what opened its test split.

    Raises:
        DataError: the data set cannot be used, lacks the split, or has other classes than the
            model.
        MissingExtra: scikit-learn is not installed.
        ModelError: the model file is missing or damaged.
        RecipeError: `split` is none of the three, or data are needed and not given.
        RunError: the run is not finished, or cannot be written.

    >>> evaluate("runs/fast-1").splits["test"].accuracy.value  # doctest: +SKIP
    0.9241
    """
    if split not in SPLIT_NAMES:
        raise RecipeError(f"--split {split}: expected {', '.join(SPLIT_NAMES)}")
    if data is None:
        if isinstance(model, Classifier):
            raise RecipeError("a Classifier has no figures of its own; name a data set")
        return _run_of(Path(model)).evaluation
    found, _ = evaluate_on(model, data, split=split, data_dir=data_dir, command=command)
    return found


def evaluate_on(
    model: Classifier | Run | str | Path,
    data: str | Path | Dataset | Splits,
    *,
    split: str = "test",
    data_dir: str | Path | None = None,
    command: str = "tinylens.evaluate()",
) -> tuple[Evaluation, Dataset]:
    """Return the evaluation of a model on a data set, and what was evaluated on; see `evaluate`."""
    run = None if isinstance(model, Classifier) else _run_of(Path(model))
    classifier = model if isinstance(model, Classifier) else Classifier.open(model)
    if isinstance(data, Dataset):
        part = data
    elif isinstance(data, Splits):
        part = _of_splits(data, split)
    else:
        folder = None if data_dir is None else Path(data_dir)
        part = load_part(str(data), split, run, classifier.rule, folder)
    evaluated = in_order_of(classifier.class_names, part)
    if split == "test" and run is not None and run.started:
        record_look(run, command)
    scores = score_classifier(classifier.probabilities, evaluated)
    card = classifier.card
    calibration = Calibration(card.temperature, card.chosen_on or "none", curvature=card.curvature)
    return Evaluation({split: scores}, gap=None, calibration=calibration), part


def _run_of(model: Path) -> Run:
    """Return the run that a model file lies in, whether or not one was started there."""
    return Run(model if model.is_dir() else model.parent)


def _of_splits(data: Splits, split: str) -> Dataset:
    found = dict(data.items())
    if split not in found:
        raise DataError(f"{data.source} has no split {split}; it has {', '.join(found)}")
    return found[split]


def score_classifier(
    classify: Callable[[Images], Probabilities],
    data: Dataset,
    *,
    batch_size: int = 1000,
    seed: int = 0,
) -> SplitScores:
    """Return the figures of a classifier on a data set.

    Args:
        classify: uint8 images, shape (m, height, width, channels) → probabilities float32, shape
            (m, classes), classes in the order of `data.class_names`; see `in_order_of`.
        data: what it is judged on.
        batch_size: images a call of `classify`.
        seed: of the bootstrap.

    Raises:
        DataError, MissingExtra: as `score` does.
    """
    starts = range(0, len(data), batch_size)
    probabilities = [classify(data.images[start : start + batch_size]) for start in starts]
    return score(np.concatenate(probabilities), data.labels, data.class_names, seed=seed)


def load_part(
    dataset: str, split: str, run: Run | None, rule: ImageRule, data_dir: Path | None = None
) -> Dataset:
    """Return one part of a data set, its images as a model takes them.

    They are brought to its size at once, since going by way of another one blurs them.

    Args:
        dataset: a known set's name or a path.
        split: "train", "val" or "test".
        run: where one stands at its path, its recipe says how missing parts are carved out.
        rule: the model's.
        data_dir: where files are looked for first.

    Raises:
        DataError: the data set cannot be used, or has no such part.
    """
    carving = run.recipe.data if run and run.started else DataSection()
    splits = load_by(carving, dataset, rule=rule, data_dir=data_dir)
    parts = dict(splits.items())
    if split not in parts:
        raise DataError(f"{dataset} has no part {split}; --split takes {', '.join(parts)}")
    return parts[split]


def in_order_of(class_names: Sequence[str], data: Dataset) -> Dataset:
    """Return `data` with its labels renumbered to the order of a model's class names.

    Raises:
        DataError: the two do not have the same names.

    >>> data = Dataset(np.zeros((2, 8, 8, 1), np.uint8), [0, 1], ("cat", "dog"), source="example")
    >>> in_order_of(["dog", "cat"], data).labels.tolist()
    [1, 0]
    """
    theirs, ours = set(class_names), set(data.class_names)
    if theirs != ours:
        raise DataError(
            f"the model and {data.source} do not have the same classes: "
            f"only the model has {_listed(theirs - ours)}; only the data have "
            f"{_listed(ours - theirs)}; expected the same names on both sides, in any order: "
            "rename the folders, or evaluate on data with the model's classes"
        )
    number = {name: label for label, name in enumerate(class_names)}
    renumbered = np.array([number[name] for name in data.class_names])
    return replace(data, labels=renumbered[data.labels], class_names=tuple(class_names))


def worst_mistakes(
    probabilities: Probabilities, labels: Labels, count: int = WORST_MISTAKES
) -> NDArray[np.int64]:
    """Return the rows of the most confident mistakes, the most confident first, at most `count`.

    >>> sure = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], np.float32)
    >>> worst_mistakes(sure, np.array([1, 1, 1])).tolist()
    [0, 1]
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    confidence = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")[:count]].astype(np.int64)


def record_look(run: Run, command: str) -> None:
    """Write into run.json that its test split was opened, when, and by which command.

    Raises:
        RunError: there is no such run, another process is writing it, or it cannot be written.
    """
    info = run.info
    try:
        with run.lock():
            info.test_opened.append({"time": now(), "command": command})
            run.write_info(info)
    except OSError as error:
        raise RunError(
            f"{run.path} cannot be written ({error.strerror}), and a look at the test split must "
            "be recorded there; make the folder writable, or copy its model.onnx elsewhere"
        ) from None


# --- figures


def _proportion(value: float, trials: int) -> Score:
    return Score(float(value), metrics.wilson_interval(round(value * trials), trials))


def _between(value: float, interval: NDArray[np.float64]) -> Score:
    return Score(float(value), (float(interval[0]), float(interval[1])))


def _top5(sklearn_metrics: ModuleType, probabilities: Probabilities, labels: Labels) -> float:
    classes = probabilities.shape[1]
    if classes < 6:
        return 1.0
    return float(
        sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=range(classes))
    )


def _roc_auc(sklearn_metrics: ModuleType, probabilities: Probabilities, labels: Labels) -> float:
    """Return the macro one-vs-rest area; of two classes both areas are the same one."""
    scores = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
    area = sklearn_metrics.roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    return float(area)


def _matthews(sklearn_metrics: ModuleType, labels: Labels, answers: Labels) -> float:
    with warnings.catch_warnings():
        # where all images are of one class and answered so, it is 0 and scikit-learn warns
        warnings.filterwarnings("ignore", message="A single label was found", category=UserWarning)
        return float(sklearn_metrics.matthews_corrcoef(labels, answers))


def _averages(
    sklearn_metrics: ModuleType,
    labels: Labels,
    answers: Labels,
    average: str,
    intervals: Mapping[str, NDArray[np.float64]],
) -> dict[str, Any]:
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        labels, answers, average=average, zero_division=0
    )
    return {
        f"{name}_{average}": _between(value, intervals[name])
        for name, value in (("precision", precision), ("recall", recall), ("f1", f1))
    }


def _per_class(
    sklearn_metrics: ModuleType,
    labels: Labels,
    answers: Labels,
    class_names: Sequence[str],
    f1_intervals: NDArray[np.float64],
) -> tuple[ClassScores, ...]:
    classes = len(class_names)
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        labels, answers, labels=range(classes), zero_division=0
    )
    answered = np.bincount(answers, minlength=classes)
    return tuple(
        ClassScores(
            name=class_names[label],
            precision=_proportion(precision[label], int(answered[label])),
            recall=_proportion(recall[label], int(support[label])),
            f1=_between(f1[label], f1_intervals[label]),
            support=int(support[label]),
        )
        for label in range(classes)
    )


# --- checks


def _check(probabilities: Probabilities, labels: Labels, class_names: Sequence[str]) -> None:
    n, classes = len(labels), len(class_names)
    if not n or probabilities.shape != (n, classes):
        raise DataError(
            f"{n} labels and {classes} class names, but probabilities of shape "
            f"{probabilities.shape}; expected ({max(n, 1)}, {classes}), and at least one image"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}; expected 0 to {classes - 1}, "
            f"as there are {classes} classes"
        )
    off = np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1)
    wrong = ~(off <= _SUM_TOLERANCE) | (probabilities.min(axis=1) < 0)  # NaN is wrong, too
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{int(wrong.sum())} of {n} rows are not probabilities, the first is row {row}: "
            f"{probabilities[row][:5].tolist()}…; expected numbers from 0 that sum to 1: "
            "take the softmax in float32"
        )


def _sklearn_metrics() -> ModuleType:
    try:
        import sklearn.metrics
    except ImportError:
        raise MissingExtra(
            "evaluation needs scikit-learn, which is not installed; "
            "type: pip install 'tinylens[train]'"
        ) from None
    module: ModuleType = sklearn.metrics
    return module


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def evaluate_level(probabilities: Probabilities, labels: Labels, level: Level) -> LevelScores:
    """Return how a level holds on images that it was not computed on, such as test's."""
    chosen = probabilities.max(axis=1) >= level.threshold
    wrong = chosen & (probabilities.argmax(axis=1) != labels)
    return LevelScores(
        max_error=level.max_error,
        threshold=level.threshold,
        answered=_share(int(chosen.sum()), len(labels)),
        error=_share(int(wrong.sum()), int(chosen.sum())),
    )


def evaluate_set(probabilities: Probabilities, labels: Labels, level: SetLevel) -> SetScores:
    """Return how sets hold on images that their threshold was not computed on."""
    chosen = in_set(probabilities, level)
    sizes = chosen.sum(axis=1)
    return SetScores(
        coverage=level.coverage,
        threshold=level.threshold,
        covered=_share(int(chosen[np.arange(len(labels)), labels].sum()), len(labels)),
        single=_share(int((sizes == 1).sum()), len(labels)),
        mean_size=float(sizes.mean()),
    )


def _share(count: int, of: int) -> Score:
    return Score(count / of if of else None, metrics.wilson_interval(count, of) if of else None)


IMAGES_A_CONFUSION = 6  # at most: a row of them on a desktop, two on a phone
PIXEL_BYTES = 3_000_000  # of all: as base64 in a report 4 MB where no image can be compressed
SHOWN_SIDE = 128  # pixels; a larger image is shown smaller, and costs a report no more than that


def confused(
    probabilities: Probabilities, labels: Labels, image_shape: tuple[int, int, int]
) -> NDArray[np.int64]:
    """Return rows of mistakes, some of every confusion, the most confident of each first.

    Where the budget does not hold all, confusions get their images in proportion to how often
    they occur, as parties do their seats (D'Hondt 1882).

    Args:
        probabilities: float, shape (n, classes).
        labels: int64, shape (n,).
        image_shape: height, width and channels of the images.

    >>> answers = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]], np.float32)
    >>> confused(answers, np.array([1, 1, 0, 1]), (28, 28, 1)).tolist()
    [0, 3, 2, 1]
    """
    classes = probabilities.shape[1]
    answers = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(answers != labels)
    wrong = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
    pairs = labels[wrong] * classes + answers[wrong]
    rank = _rank_among_equals(pairs)
    quotient = np.bincount(pairs, minlength=classes**2)[pairs] / (rank + 1)
    order = np.argsort(-quotient, kind="stable")
    kept = order[rank[order] < IMAGES_A_CONFUSION][: _affordable(image_shape)]
    return wrong[kept].astype(np.int64)


def _affordable(image_shape: tuple[int, int, int]) -> int:
    height, width, channels = image_shape
    return PIXEL_BYTES // (min(height, SHOWN_SIDE) * min(width, SHOWN_SIDE) * channels)


def _rank_among_equals(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many equal values come before each."""
    order = np.argsort(values, kind="stable")
    _, starts, counts = np.unique(values[order], return_index=True, return_counts=True)
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values)) - np.repeat(starts, counts)
    return rank
