"""The train-test gap in parts: what was never learnt, which classes, leaks, wrong labels.

Every sum here is exact: its parts add up to the whole, whatever the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.bootstrap import PERCENTILES, RESAMPLES
from tinylens.metrics import Floats, difference_interval, wilson_interval
from tinylens.results import Audit, Evaluation, GapParts, Leaks, Part, Score, SplitScores, Sum

Arrays = Mapping[str, NDArray[Any]]
Counts = NDArray[np.int64]

UNLEARNT, TO_TEST = "wrong on train, too", "from train to test"
DOUBTED, BELIEVED = "on labels that are probably wrong", "on other labels"
OTHER_MIX = "other shares of the classes"


def take_apart(
    evaluation: Evaluation, predictions: Arrays | None = None, audit: Audit | None = None
) -> GapParts | None:
    """Return the gap in parts; None where train or test was not evaluated.

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
        looked_at = [name for name in ("train", "test") if name in audit.doubted]
        labels = {name: _mistakes_by_doubt(predictions, audit, name) for name in looked_at}
        leaks = _leaks(predictions, audit)
    return GapParts(
        test_error=_test_error(train, test),
        gap=_by_class(train, test),
        test_labels=_by_doubt(labels["test"], test.n) if "test" in labels else None,
        train_labels=_by_doubt(labels["train"], train.n) if "train" in labels else None,
        gap_labels=_gap_by_doubt(labels, train.n, test.n) if len(labels) == 2 else None,
        leaks=leaks,
    )


def _test_error(train: SplitScores, test: SplitScores) -> Sum:
    """Test error = train error + gap; the train figure is that of inference mode."""
    (missed, support), (test_missed, test_support) = _mistakes(train), _mistakes(test)
    wrong, test_wrong = int(missed.sum()), int(test_missed.sum())
    sizes = [_proportion(wrong, train.n), _difference(test_wrong, test.n, wrong, train.n)]
    drawn_train = _drawn(missed, support, 0).sum(axis=1) / train.n
    drawn_test = _drawn(test_missed, test_support, 1).sum(axis=1) / test.n
    drawn = np.stack([drawn_train, drawn_test - drawn_train], axis=1)
    return _summed(_proportion(test_wrong, test.n), (UNLEARNT, TO_TEST), sizes, drawn)


def _by_class(train: SplitScores, test: SplitScores) -> Sum:
    """Return each class's recall on train minus on test, times its share of test.

    Where the classes have other shares of train than of test, what that makes is a part, too. A
    class without an image of train counts as if all of them were right.
    """
    (missed, support), (test_missed, test_support) = _mistakes(train), _mistakes(test)
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


def _leaks(predictions: Arrays, audit: Audit) -> Leaks:
    """Accuracy on all images minus on those that did not leak.

    It is the share of leaked images times how much more often they are right, whose interval is
    Newcombe's.
    """
    rows = np.isin(predictions["test_indices"], sorted(audit.leaked))
    right = ~_wrong(predictions, "test")
    leaked, kept = int(rows.sum()), int((~rows).sum())
    leaked_right, kept_right = int((right & rows).sum()), int((right & ~rows).sum())
    if not kept:
        return Leaks(leaked, Score(None, None), Score(None, None))
    lift = Score(0.0, (0.0, 0.0))
    if leaked:
        more_often = _difference(leaked_right, leaked, kept_right, kept)
        lift = _scaled(more_often, leaked / len(rows))
    return Leaks(leaked, lift, _proportion(kept_right, kept))


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


def _mistakes(scores: SplitScores) -> tuple[Counts, Counts]:
    """Return mistakes on and images of each class, int64, shape (classes,) each."""
    confusion = np.array(scores.confusion, np.int64)
    support: Counts = confusion.sum(axis=1)
    return support - np.diag(confusion), support


def _wrong(predictions: Arrays, name: str) -> NDArray[np.bool_]:
    answers = predictions[f"{name}_probabilities"].argmax(axis=1)
    wrong: NDArray[np.bool_] = answers != predictions[f"{name}_labels"]
    return wrong


def _rate(missed: NDArray[Any], support: Counts) -> Floats:
    """Divide, with 0 for a class without images."""
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
    return Score(factor * (score.value or 0.0), (factor * low, factor * high))
