"""Comparison of runs on the same test images, with paired intervals.

Two networks of one recipe that differ in their seed alone answer some images differently, each as
if by the throw of a coin (Jordan 2023, arXiv:2304.01910). McNemar's test asks whether the images
that only one of two networks gets right are split more unevenly than such coins would.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens import metrics
from tinylens.display import data_frame
from tinylens.errors import RunError
from tinylens.evaluation import bootstrap
from tinylens.metrics import Labels, Probabilities
from tinylens.results import Difference, Record
from tinylens.run import Run

SHOWN_LINES = 8  # of a short text
SIGNIFICANT = 0.05  # a difference as large comes by chance in less than 1 comparison of 20


@dataclass(frozen=True)
class ClassDifference(Record):
    """How the runs differ on the test images of one class.

    Attributes:
        name: of the class.
        support: its images.
        recall: the difference in the share of them that is answered right.
        p_value: McNemar's, adjusted for the number of classes (Holm 1979).
    """

    name: str
    support: int
    recall: Difference
    p_value: float


@dataclass(frozen=True)
class Pair(Record):
    """Two runs on the same test images; every difference is the second minus the first.

    Attributes:
        first: name of a run.
        second: name of the other.
        n: test images.
        only_first: rows of those that the first alone answers right, in ascending order.
        only_second: rows of those that the second alone answers right.
        both_wrong: how many neither answers right.
        accuracy: the difference.
        f1_macro: the difference.
        log_loss: the difference; below 0 the second run's probabilities are the better ones.
        p_value: McNemar's, adjusted for the number of pairs (Holm 1979).
        classes: class by class.
    """

    first: str
    second: str
    n: int
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]
    both_wrong: int
    accuracy: Difference
    f1_macro: Difference
    log_loss: Difference
    p_value: float
    classes: tuple[ClassDifference, ...]

    @property
    def better(self) -> str | None:
        """The name of the better run, or None where the difference may be chance."""
        low, high = self.accuracy.ci95
        if self.p_value >= SIGNIFICANT or low <= 0 <= high:
            return None
        return self.second if low > 0 else self.first

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        value, (low, high) = self.accuracy.value, self.accuracy.ci95
        if self.better is None:
            return (
                f"no difference that {self.n:,} images can show: accuracy of {self.second} minus "
                f"{self.first} is {_points(value)} points ({_points(low)} to {_points(high)})"
            )
        if self.better == self.first:
            value, low, high = -value, -high, -low
        other = self.first if self.better == self.second else self.second
        return (
            f"{self.better} is better than {other} by {100 * value:.1f} points of accuracy "
            f"({100 * low:.1f} to {100 * high:.1f}) on {self.n:,} test images"
        )


@dataclass(frozen=True)
class Comparison(Record):
    """Every two of some runs that were judged on the same test images.

    Attributes:
        runs: their names, in the order in which they were given.
        accuracies: of each, on test.
        pairs: each two of them.
    """

    runs: tuple[str, ...]
    accuracies: tuple[float, ...]
    pairs: tuple[Pair, ...]

    def __repr__(self) -> str:
        names = zip(self.runs, self.accuracies, strict=True)
        lines = [
            *(f"  {name}: accuracy {accuracy:.4f}" for name, accuracy in names),
            *(f"  {pair.words}" for pair in self.pairs),
        ]
        more = len(lines) - SHOWN_LINES
        hidden = [f"  and {more:,} lines more in to_pandas()"] if more > 0 else []
        return "\n".join(["Comparison", *lines[:SHOWN_LINES], *hidden])

    def to_pandas(self) -> Any:
        """Return the pairs as a pandas DataFrame, a row per pair.

        The columns are first, second, n, the differences accuracy, f1_macro and log_loss, each with
        its _low and _high of the 95 % interval, p_value and better.

        Raises:
            MissingExtra: pandas is not installed.
        """
        figures = ("accuracy", "f1_macro", "log_loss")
        columns = [f"{name}{end}" for name in figures for end in ("", "_low", "_high")]
        rows = []
        for pair in self.pairs:
            row: dict[str, Any] = {"first": pair.first, "second": pair.second, "n": pair.n}
            for name in figures:
                difference: Difference = getattr(pair, name)
                low, high = difference.ci95
                row |= {name: difference.value, f"{name}_low": low, f"{name}_high": high}
            rows.append(row | {"p_value": pair.p_value, "better": pair.better})
        return data_frame(rows, ["first", "second", "n", *columns, "p_value", "better"])

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers; every pair with its verdict."""
        tree = super().to_json()
        for row, pair in zip(tree["pairs"], self.pairs, strict=True):
            row |= {"better": pair.better, "words": pair.words}
        return tree


def compare(runs: Sequence[Run | str | Path]) -> Comparison:
    """Compare runs by what they answered on one test split.

    Args:
        runs: two or more, finished, of one test split and the same classes; each a `Run` or the
            path of its folder.

    Raises:
        RunError: fewer than two, one is not finished, or they were judged on different images.
    """
    opened = [run if isinstance(run, Run) else Run(run) for run in runs]
    names = _names(opened)
    answers = [test_answers(run) for run in opened]
    _check_same_test(opened, names)
    labels = answers[0][1]
    class_names = opened[0].info.class_names
    pairs = [
        _pair((names[a], names[b]), (answers[a][0], answers[b][0]), labels, class_names)
        for a, b in itertools.combinations(range(len(runs)), 2)
    ]
    return Comparison(
        runs=tuple(names),
        accuracies=tuple(float((each.argmax(axis=1) == labels).mean()) for each, _ in answers),
        pairs=tuple(_adjusted(pairs)),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test with the mid-p correction.

    The exact test alone keeps under its 5 % by a good way; with half the probability of what was
    seen taken off it comes near (Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology
    13:91).

    Args:
        only_first: images that the first alone answers right.
        only_second: images that the second alone answers right.

    >>> round(mcnemar(1, 9), 4)
    0.0117
    >>> mcnemar(0, 0)
    1.0
    """
    count = only_first + only_second
    if count == 0:
        return 1.0
    import scipy.stats  # `verify` needs this module, and not SciPy

    seen = min(only_first, only_second)
    coins = scipy.stats.binom(count, 0.5)
    return min(float(2 * coins.cdf(seen) - coins.pmf(seen)), 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for there being many (Holm 1979, Scandinavian J. of Statistics 6).

    >>> [round(value, 3) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min((len(p_values) - rank) * p_values[place], 1.0))
        adjusted[place] = highest
    return adjusted


# --- one pair


def _pair(
    names: tuple[str, str],
    probabilities: tuple[Probabilities, Probabilities],
    labels: Labels,
    class_names: Sequence[str],
) -> Pair:
    first, second = (each.argmax(axis=1) for each in probabilities)
    right = first == labels, second == labels
    only_first = np.flatnonzero(right[0] & ~right[1])
    only_second = np.flatnonzero(right[1] & ~right[0])
    accuracy, f1_macro = _paired_bootstrap(first, second, labels, len(class_names))
    return Pair(
        first=names[0],
        second=names[1],
        n=len(labels),
        only_first=tuple(only_first.tolist()),
        only_second=tuple(only_second.tolist()),
        both_wrong=int((~right[0] & ~right[1]).sum()),
        accuracy=accuracy,
        f1_macro=f1_macro,
        log_loss=_loss_difference(probabilities, labels),
        p_value=mcnemar(len(only_first), len(only_second)),
        classes=_class_differences(right, labels, class_names),
    )


def _paired_bootstrap(
    first: Labels, second: Labels, labels: Labels, classes: int, *, seed: int = 0
) -> tuple[Difference, Difference]:
    """Return the differences in accuracy and macro F1.

    Images alike in label and both answers are one cell of a table, and drawing images with
    replacement is drawing from a multinomial distribution over its cells, as in
    `bootstrap.confusion_intervals`; both runs are judged on the same draws.
    """
    table, counts = np.unique(np.stack([labels, first, second]), axis=1, return_counts=True)
    random = np.random.default_rng(seed)
    shares = counts / counts.sum()
    draws = random.multinomial(counts.sum(), shares, size=bootstrap.RESAMPLES).astype(np.float64)
    cells = np.concatenate([counts[None].astype(np.float64), draws])  # the images come first
    figures = [_figures(cells, table[0], answered, classes) for answered in table[1:]]
    accuracy, f1_macro = (after - before for before, after in zip(*figures, strict=True))
    return _difference(accuracy), _difference(f1_macro)


def _figures(
    cells: NDArray[np.float64], labels: Labels, answers: Labels, classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return accuracy and macro F1 of each row of `cells`, float64, shape (rows,)."""
    one_hot = np.eye(classes)
    right = cells @ (one_hot[labels] * (labels == answers)[:, None])
    support, answered = cells @ one_hot[labels], cells @ one_hot[answers]
    found = bootstrap.confusion_figures(right, support, answered)
    return right.sum(axis=1) / cells.sum(axis=1), found.macro["f1"]


def _difference(values: NDArray[np.float64]) -> Difference:
    """Return the first of `values` with the interval that the others make."""
    low, high = np.percentile(values[1:], bootstrap.PERCENTILES)
    return Difference(float(values[0]), (float(low), float(high)))


def _loss_difference(
    probabilities: tuple[Probabilities, Probabilities], labels: Labels
) -> Difference:
    """Return the difference in log loss; the mean of so many differences is normal enough."""
    first, second = (metrics.losses(each, labels) for each in probabilities)
    differences = second - first
    mean = float(differences.mean())
    spread = float(differences.std(ddof=1)) if len(labels) > 1 else 0.0
    half = metrics.NORMAL_975 * spread / len(labels) ** 0.5
    return Difference(mean, (mean - half, mean + half))


def _class_differences(
    right: tuple[NDArray[np.bool_], NDArray[np.bool_]], labels: Labels, class_names: Sequence[str]
) -> tuple[ClassDifference, ...]:
    counts = [
        (
            int(((labels == number) & right[0] & ~right[1]).sum()),
            int(((labels == number) & right[1] & ~right[0]).sum()),
            int((labels == number).sum()),
        )
        for number in range(len(class_names))
    ]
    p_values = holm([mcnemar(only_first, only_second) for only_first, only_second, _ in counts])
    return tuple(
        ClassDifference(name, n, paired_difference(only_first, only_second, n), p_value)
        for name, (only_first, only_second, n), p_value in zip(
            class_names, counts, p_values, strict=True
        )
    )


def paired_difference(only_first: int, only_second: int, n: int) -> Difference:
    """Return the difference of two shares of the same images, with its interval.

    Bonett and Price's adjusted Wald interval (2012, Statistics in Medicine 31): one image more on
    either side, of two in all, keeps it honest where few images differ.

    >>> found = paired_difference(1, 9, 100)
    >>> found.value, [round(end, 3) for end in found.ci95]
    (0.08, [0.014, 0.143])
    """
    if n == 0:
        return Difference(0.0, (-1.0, 1.0))
    less, more = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = metrics.NORMAL_975 * ((more + less - (more - less) ** 2) / (n + 2)) ** 0.5
    low, high = max(more - less - half, -1.0), min(more - less + half, 1.0)
    return Difference((only_second - only_first) / n, (low, high))


def _adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs with p-values adjusted for how many there are."""
    p_values = holm([pair.p_value for pair in pairs])
    return [replace(pair, p_value=value) for pair, value in zip(pairs, p_values, strict=True)]


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


# --- runs


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the runs' folder names, or their paths where two folders have one name."""
    if len(runs) < 2:
        raise RunError(f"{len(runs)} run given, expected two or more: tinylens compare RUN RUN")
    names = [run.path.name for run in runs]
    names = names if len(set(names)) == len(names) else [str(run.path) for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RunError(f"{twice[0]} was given twice; expected two different runs")
    return names


def test_answers(run: Run) -> tuple[Probabilities, Labels]:
    """Return a run's probabilities and labels of test, in the order of the test split.

    Raises:
        RunError: it has none, or they cannot be read.
    """
    arrays = run.predictions
    order = np.argsort(arrays["test_indices"], kind="stable")
    return arrays["test_probabilities"][order], arrays["test_labels"][order]


def _check_same_test(runs: Sequence[Run], names: Sequence[str]) -> None:
    """Raise a RunError where two runs were judged on different images or classes."""
    infos = [run.info for run in runs]
    for name, info in zip(names[1:], infos[1:], strict=True):
        ours, theirs = infos[0].splits["test"], info.splits["test"]
        if ours != theirs or info.class_names != infos[0].class_names:
            raise RunError(
                f"{names[0]} was judged on {ours['size']:,} test images of {infos[0].dataset}, "
                f"{name} on {theirs['size']:,} of {info.dataset}, and they are not the same ones; "
                "expected one test split: train both on the same data, with one data.split_seed "
                "and one data.size"
            )
