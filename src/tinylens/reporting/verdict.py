"""The verdict of a run in a few sentences that need no statistics, each with its figure."""

from __future__ import annotations

from dataclasses import dataclass

from tinylens.gap import no_better_than_one_answer
from tinylens.reporting.contents import Contents
from tinylens.reporting.wording import percent
from tinylens.results import ClassScores, LevelScores

BELIEVED = 0.02  # calibration error whose interval ends below: nobody acts on 2 points
DOUBTED = 0.05  # and above which a confidence misleads
MANY_MIXED = 0.15  # share of all mistakes from which on one pair is the thing to look at
PROMISED = 0.01  # wrong answers that the advice on holding back aims at, or the next that is kept


@dataclass(frozen=True)
class Finding:
    """A sentence of the verdict.

    Attributes:
        title: what it is about.
        words: the sentence.
        figure: what it rests on.
        section: the id of the section that shows more.
    """

    title: str
    words: str
    figure: str
    section: str


def reach_verdict(contents: Contents) -> tuple[Finding, ...]:
    """Return what it mixes up, whether its confidence can be believed, and what to do next."""
    findings = (_weakness(contents), _confidence(contents), _advice(contents))
    return tuple(finding for finding in findings if finding is not None)


# --- what it mixes up


def _weakness(contents: Contents) -> Finding | None:
    pair = _most_mixed(contents)
    if pair is None:
        return None
    (first, second), count = pair
    wrong = sum(confusion.count for confusion in contents.confusions)
    weakest = _weakest(contents)
    low, high = weakest.recall.ci95 or (0.0, 1.0)
    return Finding(
        "What it mixes up",
        f"Most often {first} and {second}: {count:,} of its {wrong:,} mistakes. The class that it "
        f"recognises worst is {weakest.name}.",
        f"{percent(weakest.recall.value or 0.0)} % of {weakest.name} recognised "
        f"({percent(low)}–{percent(high)})",
        "confusions",
    )


def _most_mixed(contents: Contents) -> tuple[tuple[str, str], int] | None:
    """Return the two classes that are taken for each other most, and how often, both ways."""
    number = {name: label for label, name in enumerate(contents.class_names)}
    counts: dict[tuple[str, str], int] = {}
    for confusion in contents.confusions:
        first, second = sorted((confusion.label, confusion.answer), key=number.__getitem__)
        counts[first, second] = counts.get((first, second), 0) + confusion.count
    return max(counts.items(), key=lambda item: item[1], default=None)


def _weakest(contents: Contents) -> ClassScores:
    present = [scores for scores in contents.test.per_class if scores.support]
    return min(present, key=lambda scores: scores.recall.value or 0.0)


# --- its confidence


def _confidence(contents: Contents) -> Finding:
    error = contents.test.ece
    value, (low, high) = error.value or 0.0, error.ci95 or (0.0, 1.0)
    stated = float(contents.probabilities.max(axis=1).mean())
    right = contents.test.accuracy.value or 0.0
    means = f"on average it says {percent(stated)} % and is right {percent(right)} % of the time"
    tendency = "too sure" if stated > right else "too modest"
    if high <= BELIEVED:
        words = f"Its confidence can be believed: {means}."
    elif low > DOUBTED:
        words = f"Its confidence cannot be believed, it is {tendency}: {means}."
    else:
        words = f"Its confidence is roughly right, rather {tendency}: {means}."
    return Finding(
        "Whether to believe it",
        words,
        f"confidence and accuracy {percent(value)} points apart ({percent(low)}–{percent(high)})",
        "confidence",
    )


# --- what to do


def _advice(contents: Contents) -> Finding | None:
    """Return the step that has most to win; a network that is never wrong needs none."""
    useless = no_better_than_one_answer(contents.test)
    if useless is not None:
        name, share = useless
        return Finding(
            "What to do next",
            f"Do not use it yet. Always answering {name} would do as well, as far as can be told; "
            "train longer or on more pictures.",
            f"{name} is {percent(share)} % of test",
            "training",
        )
    pair = _most_mixed(contents)
    if pair is None:
        return None
    (first, second), count = pair
    mixed = count / sum(confusion.count for confusion in contents.confusions)
    kept = _kept_level(contents)
    words = "Look at its surest mistakes first: mend wrong labels, and add pictures of the rest."
    figure = f"no pair is more than {percent(mixed)} % of all mistakes"
    if mixed >= MANY_MIXED:
        words = (
            f"Look at {first} and {second} first: mend wrong labels, and where those are right, "
            "add pictures of both."
        )
        figure = f"that pair is {percent(mixed)} % of all mistakes"
    if kept is not None:
        answered, wrong = kept.answered.value or 0.0, kept.error.value or 0.0
        words += (
            f" Where a wrong answer is costly, predict with --max-error {100 * kept.max_error:g}%, "
            "and it says “unknown” where it is unsure."
        )
        figure = f"it then answers {percent(answered)} %, {percent(wrong)} % of them wrong"
    return Finding("Where to look first", words, figure, "confusions")


def _kept_level(contents: Contents) -> LevelScores | None:
    levels = [
        level
        for level in contents.evaluation.calibration.levels
        if level.max_error >= PROMISED and level.threshold > 0
    ]
    return min(levels, key=lambda level: level.max_error, default=None)
