"""The gap from train to test in parts: what was never learnt, which classes, leaks, wrong labels.

Every sum here is exact: its parts add up to the whole, whatever the pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.bootstrap import PERCENTILES, RESAMPLES
from tinylens.metrics import Floats, Interval, difference_interval, wilson_interval
from tinylens.results import Audit, Evaluation, Score, SplitScores

Arrays = Mapping[str, NDArray[Any]]
Counts = NDArray[np.int64]

UNLEARNT, TO_TEST = "wrong on train, too", "from train to test"
DOUBTED, BELIEVED = "on labels that are probably wrong", "on other labels"
OTHER_MIX = "other shares of the classes"


@dataclass(frozen=True)
class Part:
    """One part of a sum.

    Attributes:
        name: what it is, in words, or a class.
        size: as a share of pictures; 0.01 is a point. Negative where it takes off the whole.
        share: of the whole; not defined where the whole may be none.
    """

    name: str
    size: Score
    share: Score


@dataclass(frozen=True)
class Sum:
    """A figure and the parts that add up to it."""

    whole: Score
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Leaks:
    """What test pictures that were trained on do to the accuracy on test.

    Attributes:
        pictures: how many of test occur in train or val.
        lift: accuracy with them minus without them.
        without: accuracy without them.
    """

    pictures: int
    lift: Score
    without: Score


@dataclass(frozen=True)
class GapParts:
    """The gap from train to test and the error on test, taken apart.

    Attributes:
        test_error: what is wrong on train, too, and the gap.
        gap: train accuracy minus test accuracy, by class.
        test_labels: the error on test by whether the label is doubted; None where an audit has not
            looked at them.
        train_labels: the error on train likewise.
        gap_labels: the gap likewise; None unless both parts were looked at.
        leaks: None before an audit.
    """

    test_error: Sum
    gap: Sum
    test_labels: Sum | None
    train_labels: Sum | None
    gap_labels: Sum | None
    leaks: Leaks | None

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return asdict(self)


def take_apart(
    evaluation: Evaluation, predictions: Arrays | None = None, audit: Audit | None = None
) -> GapParts | None:
    """Return the gap in parts; None where train or test was not judged.

    Args:
        evaluation: figures of a run.
        predictions: what `Run.predictions` gives; only an audit needs it.
        audit: faults of the data set, where they were looked for.
    """
    splits = evaluation.splits
    if "train" not in splits or "test" not in splits:
        return None
    train, test = splits["train"], splits["test"]
    labels: dict[str, Counts] = {}
    leaks = None
    if audit is not None and predictions is not None:
        labels = {
            name: _mistakes_by_doubt(predictions, audit, name)
            for name in ("train", "test")
            if name in audit.doubted
        }
        leaks = _leaks(predictions, audit)
    return GapParts(
        test_error=_test_error(train, test),
        gap=_by_class(train, test),
        test_labels=_by_doubt(labels["test"], test.n) if "test" in labels else None,
        train_labels=_by_doubt(labels["train"], train.n) if "train" in labels else None,
        gap_labels=_gap_by_doubt(labels, train.n, test.n) if len(labels) == 2 else None,
        leaks=leaks,
    )


# --- what was never learnt


def _test_error(train: SplitScores, test: SplitScores) -> Sum:
    """Test error = train error + gap; the train figure is that of inference mode."""
    missed, test_missed = _mistakes(train), _mistakes(test)
    sizes = [
        _proportion(int(missed.sum()), train.n),
        _difference(int(test_missed.sum()), test.n, int(missed.sum()), train.n),
    ]
    drawn_train = _drawn(missed, _support(train), 0).sum(axis=1) / train.n
    drawn_test = _drawn(test_missed, _support(test), 1).sum(axis=1) / test.n
    drawn = np.stack([drawn_train, drawn_test - drawn_train], axis=1)
    whole = _proportion(int(test_missed.sum()), test.n)
    return _summed(whole, (UNLEARNT, TO_TEST), sizes, drawn)


# --- classes


def _by_class(train: SplitScores, test: SplitScores) -> Sum:
    """Return each class's recall on train minus on test, times its share of test.

    Where the classes have other shares of train than of test, what that makes is a part, too. A
    class without a judged picture of train counts as if all of them were right.
    """
    missed, test_missed = _mistakes(train), _mistakes(test)
    support, test_support = _support(train), _support(test)
    shares = test_support / test.n
    sizes = []
    for label, share in enumerate(shares):
        counts = (test_missed[label], test_support[label], missed[label], support[label])
        difference = _difference(*map(int, counts)) if test_support[label] else Score(0.0, (0, 0))
        sizes.append(_scaled(difference, float(share)))
    drawn_train = _drawn(missed, support, 0)
    drawn = shares * (
        _rate(_drawn(test_missed, test_support, 1), test_support) - _rate(drawn_train, support)
    )
    mixed = shares - support / train.n
    by_mix = _rate(drawn_train, support) @ mixed
    low, high = np.percentile(by_mix, PERCENTILES)
    sizes.append(Score(float(_rate(missed, support) @ mixed), (float(low), float(high))))
    whole = _difference(int(test_missed.sum()), test.n, int(missed.sum()), train.n)
    names = [*(scores.name for scores in test.per_class), OTHER_MIX]
    return _summed(whole, names, sizes, np.column_stack([drawn, by_mix]))


# --- labels


def _mistakes_by_doubt(predictions: Arrays, audit: Audit, name: str) -> Counts:
    """Return mistakes on doubted and on other labels, int64, shape (2,)."""
    doubted = {issue.index for issue in audit.label_issues if issue.split == name}
    rows = np.isin(predictions[f"{name}_indices"], sorted(doubted))
    wrong = _wrong(predictions, name)
    return np.array([(wrong & rows).sum(), (wrong & ~rows).sum()], np.int64)


def _by_doubt(missed: Counts, n: int) -> Sum:
    sizes = [_proportion(int(count), n) for count in missed]
    whole = _proportion(int(missed.sum()), n)
    return _summed(whole, (DOUBTED, BELIEVED), sizes, _drawn_cells(missed, n, 0))


def _gap_by_doubt(missed: Mapping[str, Counts], n_train: int, n_test: int) -> Sum:
    pairs = list(zip(missed["test"], missed["train"], strict=True))
    sizes = [_difference(int(test), n_test, int(train), n_train) for test, train in pairs]
    whole = _difference(int(missed["test"].sum()), n_test, int(missed["train"].sum()), n_train)
    drawn = _drawn_cells(missed["test"], n_test, 1) - _drawn_cells(missed["train"], n_train, 0)
    return _summed(whole, (DOUBTED, BELIEVED), sizes, drawn)


# --- leaks


def _leaks(predictions: Arrays, audit: Audit) -> Leaks:
    """Accuracy on all pictures minus on those that did not leak.

    It is the share of leaked pictures times how much more often they are right, whose interval is
    Newcombe's.
    """
    rows = np.isin(predictions["test_indices"], sorted(audit.leaked))
    right = ~_wrong(predictions, "test")
    leaked, kept = int(rows.sum()), int((~rows).sum())
    leaked_right, kept_right = int((right & rows).sum()), int((right & ~rows).sum())
    if not leaked or not kept:
        lift = Score(0.0, (0.0, 0.0)) if kept else Score(None, None)
    else:
        more_often = _difference(leaked_right, leaked, kept_right, kept)
        lift = _scaled(more_often, leaked / len(rows))
    without = _proportion(kept_right, kept) if kept else Score(None, None)
    return Leaks(pictures=leaked, lift=lift, without=without)


# --- sums


def _summed(whole: Score, names: Sequence[str], sizes: Sequence[Score], drawn: Floats) -> Sum:
    """Return a sum with the share of each part, and its interval by the bootstrap.

    Args:
        whole: what the parts add up to.
        names: of the parts.
        sizes: of the parts.
        drawn: resampled sizes, float64, shape (resamples, parts).
    """
    value, (low, high) = whole.value or 0.0, whole.ci95 or (0.0, 0.0)
    wholes = drawn.sum(axis=1)
    shares = [Score(None, None)] * len(names)
    if (low > 0 or high < 0) and (wholes != 0).all():
        ends = np.percentile(drawn / wholes[:, None], PERCENTILES, axis=0).T
        shares = [
            Score((size.value or 0.0) / value, (float(start), float(end)))
            for size, (start, end) in zip(sizes, ends, strict=True)
        ]
    return Sum(whole, tuple(map(Part, names, sizes, shares)))


def _mistakes(scores: SplitScores) -> Counts:
    """Return the pictures of each class that were answered wrong, int64, shape (classes,)."""
    confusion = np.array(scores.confusion, np.int64)
    missed: Counts = confusion.sum(axis=1) - np.diag(confusion)
    return missed


def _support(scores: SplitScores) -> Counts:
    support: Counts = np.array(scores.confusion, np.int64).sum(axis=1)
    return support


def _wrong(predictions: Arrays, name: str) -> NDArray[np.bool_]:
    answers = predictions[f"{name}_probabilities"].argmax(axis=1)
    wrong: NDArray[np.bool_] = answers != predictions[f"{name}_labels"]
    return wrong


def _rate(missed: NDArray[Any], support: Counts) -> Floats:
    """Divide, with 0 for a class without pictures."""
    rate: Floats = missed / np.maximum(support, 1)
    return rate


def _drawn(missed: Counts, support: Counts, seed: int) -> Counts:
    """Return mistakes of each class in resamples, int64, shape (resamples, classes)."""
    random = np.random.default_rng(seed)
    drawn: Counts = random.binomial(support, _rate(missed, support), (RESAMPLES, len(support)))
    return drawn


def _drawn_cells(missed: Counts, n: int, seed: int) -> Floats:
    """Return the rates of kinds of mistakes in resamples, float64, shape (resamples, kinds)."""
    cells = np.append(missed, n - missed.sum())
    drawn = np.random.default_rng(seed).multinomial(n, cells / n, RESAMPLES)
    rates: Floats = drawn[:, :-1] / n
    return rates


def _proportion(count: int, n: int) -> Score:
    return Score(count / n, wilson_interval(count, n))


def _difference(count: int, n: int, other: int, other_n: int) -> Score:
    """Return one proportion minus another; the other one is 0 where there is nothing of it."""
    if not other_n:
        return _proportion(count, n)
    return Score(count / n - other / other_n, difference_interval(count, n, other, other_n))


def _scaled(score: Score, factor: float) -> Score:
    low, high = score.ci95 or (0.0, 0.0)
    interval: Interval = (factor * low, factor * high)
    return Score(factor * (score.value or 0.0), interval)
