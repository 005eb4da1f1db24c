"""What to do next, in plain words: each advice with the figure behind it, the most to win first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tinylens.gap import no_better_than_one_answer, points
from tinylens.gap_parts import OTHER_MIX, GapParts, Part, take_apart
from tinylens.results import Evaluation, LearningCurve, Score, SplitScores
from tinylens.run import Run

MOST = 4
SMALLEST = 0.0005  # of all pictures: less would be called 0.0 points
UNLEARNT_FROM = 0.005  # of train wrong: what networks that have learnt it all leave, too
STANDS_OUT = 1.5  # times its share of the pictures
LITTLE = 0.003  # what more pictures would give at most, for it not to be worth collecting them


@dataclass(frozen=True)
class Advice:
    """One thing to do.

    Attributes:
        words: what and why, with its figure.
        size: what it is about, as a share of test pictures; 0.01 is a point.
    """

    words: str
    size: float


@dataclass(frozen=True)
class Explained:
    """Why a run is worse on test than on train, and what to do."""

    parts: GapParts
    advice: tuple[Advice, ...]


def explain(run: Run, evaluation: Evaluation | None = None) -> Explained | None:
    """Return the gap of a run in parts, and advice; None where train or test was not judged.

    Args:
        run: finished.
        evaluation: of the run, where the caller has read it.

    Raises:
        RunError: one of the run's files is missing or damaged.
    """
    judged, audit = evaluation or run.evaluation, run.audit
    parts = take_apart(judged, run.predictions if audit else None, audit)
    if parts is None:
        return None
    return Explained(parts, advise(judged, parts, run.learning_curve))


def advise(
    evaluation: Evaluation, parts: GapParts, curve: LearningCurve | None = None
) -> tuple[Advice, ...]:
    """Return at most four things to do, the one with the most to win first.

    Regularising is never advised beside training longer: whichever part of the error on test is the
    larger one, what is wrong on train, too, or the gap, says which.

    Args:
        evaluation: of a run, with train and test.
        parts: of its gap.
        curve: what more pictures would give, where that was measured.
    """
    test = evaluation.splits["test"]
    useless = _about_nothing_learnt(test)
    if useless is not None:
        return (useless,)
    candidates = (
        *_about_learning(parts, curve),
        *_about_pictures(curve),
        *_about_classes(test, parts, curve),
        *_about_labels(parts),
        *_about_leaks(parts),
    )
    found = [advice for advice in candidates if advice.size >= SMALLEST]
    return tuple(sorted(found, key=lambda advice: -advice.size)[:MOST]) or (_nothing(parts),)


def _about_nothing_learnt(test: SplitScores) -> Advice | None:
    """Return what to do first about a network that is no better than its most frequent class."""
    useless = no_better_than_one_answer(test)
    if useless is None:
        return None
    name, share = useless
    right = sum(row[label] for label, row in enumerate(test.confusion))
    return Advice(
        f"Find out why nothing was learnt: {points(right / test.n)} % of test are right, and "
        f"always answering “{name}” would be right on {points(share)} %. Look whether the loss "
        "falls, and whether pictures and labels belong together.",
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
        collect = "" if curve else ", or collect more pictures"
        share = _value(gap) / _value(parts.test_error.whole)
        ask = "" if curve else " See what more would give: tinylens learning-curve RUN."
        yield Advice(
            f"Augment or regularise more{collect}: the gap from train to test is {_points(gap)} "
            f"points, {100 * share:.0f} % of the error on test.{ask}",
            _value(gap),
        )


def _about_pictures(curve: LearningCurve | None) -> Iterator[Advice]:
    """Say what twice as many pictures would give, where a learning curve says so."""
    if curve is None or curve.doubled.value is None or curve.doubled.ci95 is None:
        return
    low, high = curve.doubled.ci95
    gain = f"{points(curve.doubled.value)} ± {points((high - low) / 2)} points"
    where = f"by the learning curve of recipe {curve.recipe} on val"
    if high < LITTLE:
        words = f"Do not collect more pictures of the same kind: twice as many would give {gain}"
        yield Advice(f"{words}, {where}.", curve.doubled.value)
    elif low > 0:
        yield Advice(
            f"Collect more pictures: twice as many would give +{gain}, {where}.",
            curve.doubled.value,
        )


def _about_classes(
    test: SplitScores, parts: GapParts, curve: LearningCurve | None
) -> Iterator[Advice]:
    """Name the class that carries most of the gap, if that is more than its pictures explain.

    Where a learning curve says what more of all would give, more of one is not put above that.
    """
    most = 1.0
    if curve is not None and curve.doubled.value is not None and curve.doubled.ci95 is not None:
        if curve.doubled.ci95[1] < LITTLE:
            return
        most = curve.doubled.value
    pictures = {scores.name: scores.support / test.n for scores in test.per_class}
    by_class = [part for part in parts.gap.parts if part.name != OTHER_MIX]
    worst = max(by_class, key=lambda part: _value(part.size))
    if _low(parts.gap.whole) <= 0 or not _stands_out(worst, pictures[worst.name]):
        return
    low, high = worst.share.ci95 or (0.0, 0.0)
    yield Advice(
        f"Collect more pictures of “{worst.name}”: it carries {100 * _value(worst.share):.0f} % "
        f"({100 * low:.0f} to {100 * high:.0f}) of the gap, {points(_value(worst.size))} of "
        f"{points(_value(parts.gap.whole))} points, with {100 * pictures[worst.name]:.0f} % of the "
        "pictures.",
        min(_value(worst.size), most),
    )


def _stands_out(part: Part, share: float) -> bool:
    return _low(part.share) > share and _value(part.share) >= STANDS_OUT * share


def _about_labels(parts: GapParts) -> Iterator[Advice]:
    """Clean the labels, where mistakes sit on doubted ones."""
    if parts.test_labels is None:
        return
    doubted, whole = parts.test_labels.parts[0].size, parts.test_labels.whole
    if _value(doubted) == 0:
        return
    on_train = ""
    if parts.train_labels is not None:
        mistakes = parts.train_labels
        on_train = (
            f", and {points(_value(mistakes.parts[0].size))} of {points(_value(mistakes.whole))} "
            "on train"
        )
    yield Advice(
        f"Go through the doubted labels in audit.html: {_points(doubted)} of "
        f"{points(_value(whole))} points of the error on test sit on them{on_train}.",
        _value(doubted),
    )


def _about_leaks(parts: GapParts) -> Iterator[Advice]:
    """Take leaked pictures out of test, where they change its figure."""
    leaks = parts.leaks
    if leaks is None or _low(leaks.lift) <= 0:
        return
    number = "picture" if leaks.pictures == 1 else "pictures"
    yield Advice(
        f"Take the {leaks.pictures:,} leaked {number} out of test: the accuracy reads "
        f"{_points(leaks.lift)} points higher for them, and is {points(_value(leaks.without))} % "
        "without.",
        _value(leaks.lift),
    )


def _nothing(parts: GapParts) -> Advice:
    gap = parts.gap.whole
    if (gap.ci95 or (0.0, 0.0))[1] < 0:
        return Advice(
            f"Nothing to mend in the gap: test is better than train by {points(-_value(gap))} "
            "points.",
            0.0,
        )
    return Advice(
        f"Nothing to mend in the gap: {_points(gap)} points are within chance, and "
        f"{points(_value(parts.test_error.parts[0].size))} % of train are wrong.",
        0.0,
    )


def _points(score: Score) -> str:
    """Return "1.5 (1.2 to 1.9)" of a share and its interval."""
    low, high = score.ci95 or (0.0, 0.0)
    return f"{points(_value(score))} ({points(low)} to {points(high)})"


def _value(score: Score) -> float:
    return score.value or 0.0


def _low(score: Score) -> float:
    return score.ci95[0] if score.ci95 else 0.0
