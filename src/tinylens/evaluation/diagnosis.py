"""Diagnosis of a run: the train-test gap, the main weakness, the confidence, what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.evaluation.bootstrap import PERCENTILES, RESAMPLES
from tinylens.metrics import Floats, difference_interval, wilson_interval
from tinylens.results import (
    Advice,
    Audit,
    Diagnosis,
    Evaluation,
    Gap,
    GapParts,
    Leaks,
    LearningCurve,
    Part,
    Score,
    SplitScores,
    Sum,
    percent,
    points,
)
from tinylens.run import Run

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


MOST = 4  # pieces of advice
SMALLEST = 0.0005  # of all images: less would be called 0.0 points
UNLEARNT_FROM = 0.005  # of train wrong: what networks that have learnt it all leave, too
STANDS_OUT = 1.5  # times its share of the images
LITTLE = 0.003  # what more images would give at most, for it not to be worth collecting them
MANY_MIXED = 0.15  # share of all mistakes from which on one pair is the thing to look at
CALIBRATED = 0.02  # calibration error whose interval ends below: nobody acts on 2 points
MISLEADING = 0.05  # and above which a confidence misleads
PROMISED = 0.01  # wrong answers that the advice on holding back aims at, or the next that is kept


@dataclass(frozen=True)
class Finding:
    """A sentence that needs no statistics, and the figure behind it.

    Attributes:
        title: what it is about.
        words: the sentence.
        figure: what it rests on.
        section: id of the report's section that shows more.
    """

    title: str
    words: str
    figure: str
    section: str


def diagnose(run: Run, evaluation: Evaluation | None = None) -> Diagnosis | None:
    """Return the gap of a finished run in parts, and advice; None without both train and test.

    Args:
        run: finished.
        evaluation: of the run, where the caller has read it.

    Raises:
        RunError: one of the run's files is missing or damaged.
    """
    evaluated, audit = evaluation or run.evaluation, run.audit
    parts = take_apart(evaluated, run.predictions if audit else None, audit)
    if parts is None:
        return None
    return Diagnosis(parts, advise(evaluated, parts, run.learning_curve))


# --- the gap


def measure_gap(train: SplitScores, test: SplitScores, val: SplitScores | None = None) -> Gap:
    """Return train accuracy minus test accuracy, and what it says about new images.

    Args:
        train: figures on the images that were learned from, in inference mode.
        test: figures on images that nothing was learned from or chosen on.
        val: figures on the images that everything was chosen on, where there were such.
    """
    right, test_right = _right(train), _right(test)
    value = right / train.n - test_right / test.n
    interval = difference_interval(right, train.n, test_right, test.n)
    words = f"{_gap_words(train, test, value, interval)} {_expected(train, test, interval)}"
    if val is not None:
        words += (
            f" Every choice was made on val, so its own {_right(val) / val.n:.3f} may read high; "
            "test was used for nothing but its own figures."
        )
    return Gap(value, interval, words)


def _gap_words(
    train: SplitScores, test: SplitScores, value: float, interval: tuple[float, float]
) -> str:
    both = f"Train {_right(train) / train.n:.3f}, test {_right(test) / test.n:.3f}"
    low, high = interval
    if high < 0:
        ends = f"{points(-high)} to {points(-low)}"
        return f"{both}: test is better by {points(-value)} points ({ends})."
    gap = f"{both}: the gap is {points(value)} points ({points(low)} to {points(high)})"
    return f"{gap}." if low > 0 else f"{gap}, which {test.n:,} test images cannot tell from none."


def _expected(train: SplitScores, test: SplitScores, interval: tuple[float, float]) -> str:
    """Say what accuracy to expect on new images, and why that of train is no guide to it."""
    low, high = wilson_interval(_right(test), test.n)
    expected = (
        f"On new images like the test set expect {points(_right(test) / test.n)} % right "
        f"({points(low)} to {points(high)})"
    )
    if interval[1] < 0:
        return (
            f"{expected}; the train figure is lower, so the test images are easier than the "
            "train images: expect less on new images as hard as those."
        )
    if interval[0] <= 0:
        return f"{expected}; no overfitting can be seen."
    error, test_error = 1 - _right(train) / train.n, 1 - _right(test) / test.n
    reason = f"{expected}; the train figure overstates it because the network has seen those images"
    if error == 0:
        return f"{reason}: it makes no mistake on them and {points(test_error)} % on new ones."
    return (
        f"{reason}: it makes {test_error / error:.1f} times as many mistakes on new ones "
        f"({points(test_error)} % against {points(error)} %)."
    )


# --- advice


def advise(
    evaluation: Evaluation, parts: GapParts | None, curve: LearningCurve | None = None
) -> tuple[Advice, ...]:
    """Return at most four things to do, the one with the most to win first.

    Regularising is never advised beside training longer: whichever part of the error on test is the
    larger one, what is wrong on train, too, or the gap, says which.

    Args:
        evaluation: of a run, with test.
        parts: of its gap; None where train was not evaluated.
        curve: what more images would give, where that was measured.
    """
    test = evaluation.splits["test"]
    useless = _about_nothing_learnt(test)
    if useless is not None:
        return (useless,)
    candidates = [*_about_images(curve), *_about_pair(test)]
    if parts is not None:
        candidates[:0] = _about_learning(parts, curve)
        candidates += [
            *_about_classes(test, parts, curve),
            *_about_labels(parts),
            *_about_leaks(parts),
        ]
    found = [advice for advice in candidates if advice.size >= SMALLEST]
    found = sorted(found, key=lambda advice: -advice.size)[:MOST]
    return tuple(found or ([_nothing(parts)] if parts else []))


def _about_nothing_learnt(test: SplitScores) -> Advice | None:
    """Return what to do first about a network that is no better than its most frequent class."""
    largest = max(test.per_class, key=lambda scores: scores.support)
    share, right = largest.support / test.n, _right(test)
    if wilson_interval(right, test.n)[0] > share:
        return None
    return Advice(
        f"Find out why nothing was learnt: {points(right / test.n)} % of test are right, and "
        f"always answering “{largest.name}” would be right on {points(share)} %. Look whether the "
        "loss falls, and whether images and labels belong together.",
        1 - right / test.n,
    )


def _about_learning(parts: GapParts, curve: LearningCurve | None) -> Iterator[Advice]:
    """Train longer, or regularise: whichever part of the error on test is the larger one."""
    unlearnt, gap = (part.size for part in parts.test_error.parts)
    missed = parts.train_labels.parts[1].size if parts.train_labels else unlearnt
    whole = points(_value(parts.test_error.whole))
    if _value(missed) >= max(_value(gap), UNLEARNT_FROM):
        believed = " on labels that are not doubted" if parts.train_labels else ""
        yield Advice(
            "Train longer or take a larger network: on train itself only "
            f"{points(1 - _value(unlearnt))} % are right. {points(_value(missed))} points are "
            f"wrong there{believed}, of {whole} on test.",
            _value(missed),
        )
    elif _low(gap) > 0:
        collect = "" if curve else ", or collect more images"
        share = _value(gap) / _value(parts.test_error.whole)
        ask = "" if curve else " See what more would give: tinylens learning-curve RUN."
        yield Advice(
            f"Augment or regularise more{collect}: the gap from train to test is {_points(gap)} "
            f"points, {100 * share:.0f} % of the error on test.{ask}",
            _value(gap),
        )


def _about_images(curve: LearningCurve | None) -> Iterator[Advice]:
    """Say what twice as many images would give, where a learning curve says so."""
    if curve is None or curve.doubled.value is None or curve.doubled.ci95 is None:
        return
    low, high = curve.doubled.ci95
    gain = f"{points(curve.doubled.value)} ± {points((high - low) / 2)} points"
    where = f"by the learning curve of recipe {curve.recipe} on val"
    if high < LITTLE:
        words = f"Do not collect more images of the same kind: twice as many would give {gain}"
        yield Advice(f"{words}, {where}.", curve.doubled.value)
    elif low > 0:
        words = f"Collect more images: twice as many would give +{gain}"
        yield Advice(f"{words}, {where}.", curve.doubled.value)


def _about_classes(
    test: SplitScores, parts: GapParts, curve: LearningCurve | None
) -> Iterator[Advice]:
    """Name the class that carries most of the gap, if that is more than its images explain.

    Where a learning curve says what more of all would give, more of one is not put above that.
    """
    most = 1.0
    if curve is not None and curve.doubled.value is not None and curve.doubled.ci95 is not None:
        if curve.doubled.ci95[1] < LITTLE:
            return
        most = curve.doubled.value
    by_class = [part for part in parts.gap.parts if part.name != OTHER_MIX]
    worst = max(by_class, key=lambda part: _value(part.size))
    images = next(row.support for row in test.per_class if row.name == worst.name) / test.n
    stands_out = _low(worst.share) > images and _value(worst.share) >= STANDS_OUT * images
    if _low(parts.gap.whole) <= 0 or not stands_out:
        return
    low, high = worst.share.ci95 or (0.0, 0.0)
    yield Advice(
        f"Collect more images of “{worst.name}”: it carries {100 * _value(worst.share):.0f} % "
        f"({100 * low:.0f} to {100 * high:.0f}) of the gap, {points(_value(worst.size))} of "
        f"{points(_value(parts.gap.whole))} points, with {100 * images:.0f} % of the images.",
        min(_value(worst.size), most),
    )


def _about_pair(test: SplitScores) -> Iterator[Advice]:
    """Name the two classes that are confused most; of two classes it would say nothing."""
    first, second, count = _most_mixed(test)
    wrong = test.n - _right(test)
    if len(test.per_class) > 2 and wrong and count / wrong >= MANY_MIXED:
        yield Advice(
            f"Look at “{first}” and “{second}” side by side, and mend wrong labels: they are taken "
            f"for each other in {count:,} of {wrong:,} mistakes, {points(count / test.n)} of "
            f"{points(wrong / test.n)} points.",
            count / test.n,
        )


def _about_labels(parts: GapParts) -> Iterator[Advice]:
    """Clean the labels, where mistakes sit on doubted ones."""
    if parts.test_labels is None or not parts.test_labels.parts[0].size.value:
        return
    doubted, whole = parts.test_labels.parts[0].size, parts.test_labels.whole
    on_train = ""
    if parts.train_labels is not None:
        size, of_all = parts.train_labels.parts[0].size, parts.train_labels.whole
        on_train = f", and {points(_value(size))} of {points(_value(of_all))} on train"
    yield Advice(
        f"Go through the doubted labels in audit.html: {_points(doubted)} of "
        f"{points(_value(whole))} points of the error on test sit on them{on_train}.",
        _value(doubted),
    )


def _about_leaks(parts: GapParts) -> Iterator[Advice]:
    """Take leaked images out of test, where they change its figure."""
    leaks = parts.leaks
    if leaks is not None and _low(leaks.lift) > 0:
        number = "image" if leaks.images == 1 else "images"
        yield Advice(
            f"Take the {leaks.images:,} leaked {number} out of test: the accuracy reads "
            f"{_points(leaks.lift)} points higher for them, and is "
            f"{points(_value(leaks.without))} % without.",
            _value(leaks.lift),
        )


def _nothing(parts: GapParts) -> Advice:
    gap = parts.gap.whole
    if (gap.ci95 or (0.0, 0.0))[1] < 0:
        better = points(-_value(gap))
        return Advice(
            f"Nothing to mend in the gap: test is better than train by {better} points.", 0.0
        )
    wrong = points(_value(parts.test_error.parts[0].size))
    return Advice(
        f"Nothing to mend in the gap: {_points(gap)} points are within chance, and {wrong} % of "
        "train are wrong.",
        0.0,
    )


# --- findings


def summarize(
    evaluation: Evaluation, probabilities: NDArray[np.floating[Any]], advice: Sequence[Advice]
) -> tuple[Finding, ...]:
    """Return what it mixes up, whether its confidence can be believed, and what to do first.

    Args:
        evaluation: of a run, with test.
        probabilities: of test, shape (n, classes).
        advice: what `advise` gives.
    """
    test = evaluation.splits["test"]
    found = [_confidence(evaluation, float(probabilities.max(axis=1).mean()))]
    if test.n > _right(test):
        found.insert(0, _weakness(test))
    if advice:
        first = advice[0]
        figure = f"about {points(first.size)} points of accuracy" if first.size else "why"
        found.append(Finding("What to do first", first.words, figure, "advice"))
    return tuple(found)


def _weakness(test: SplitScores) -> Finding:
    first, second, count = _most_mixed(test)
    present = [scores for scores in test.per_class if scores.support]
    weakest = min(present, key=lambda scores: _value(scores.recall))
    low, high = weakest.recall.ci95 or (0.0, 1.0)
    return Finding(
        "What it mixes up",
        f"Most often {first} and {second}: {count:,} of its {test.n - _right(test):,} mistakes. "
        f"The class that it recognises worst is {weakest.name}.",
        f"{percent(_value(weakest.recall))} % of {weakest.name} recognised "
        f"({percent(low)}–{percent(high)})",
        "confusions",
    )


def _confidence(evaluation: Evaluation, stated: float) -> Finding:
    """Judge the confidence by its calibration error, and say how to hold back doubtful answers."""
    test = evaluation.splits["test"]
    right, (low, high) = _value(test.accuracy), test.ece.ci95 or (0.0, 1.0)
    means = f"on average it says {percent(stated)} % and is right {percent(right)} % of the time"
    tendency = "too sure" if stated > right else "too modest"
    if high <= CALIBRATED:
        words = f"Its confidence can be believed: {means}."
    elif low > MISLEADING:
        words = f"Its confidence cannot be believed, it is {tendency}: {means}."
    else:
        words = f"Its confidence is roughly right, rather {tendency}: {means}."
    levels = evaluation.calibration.levels
    kept = [level for level in levels if level.max_error >= PROMISED and level.threshold > 0]
    if kept:
        level = min(kept, key=lambda level: level.max_error)
        words += (
            f" Where a wrong answer is costly, predict with --max-error {100 * level.max_error:g}%:"
            f" it then answers {percent(_value(level.answered))} % of test, "
            f"{percent(_value(level.error))} % of them wrong, and says “unknown” to the rest."
        )
    apart = f"{percent(_value(test.ece))} points apart ({percent(low)}–{percent(high)})"
    return Finding("Whether to believe it", words, f"confidence and accuracy {apart}", "confidence")


def _most_mixed(test: SplitScores) -> tuple[str, str, int]:
    """Return the two classes that are taken for each other most, and how often, both ways."""
    confusion = np.array(test.confusion)
    both = np.triu(confusion + confusion.T, 1)
    first, second = np.unravel_index(both.argmax(), both.shape)
    names = [scores.name for scores in test.per_class]
    return names[first], names[second], int(both.max())


# --- figures


def _points(score: Score) -> str:
    """Return "1.5 (1.2 to 1.9)" of a share and its interval."""
    low, high = score.ci95 or (0.0, 0.0)
    return f"{points(_value(score))} ({points(low)} to {points(high)})"


def _value(score: Score) -> float:
    return score.value or 0.0


def _low(score: Score) -> float:
    return score.ci95[0] if score.ci95 else 0.0


def _right(scores: SplitScores) -> int:
    return sum(row[label] for label, row in enumerate(scores.confusion))
