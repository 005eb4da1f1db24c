"""The report: one HTML file that shows a run, asks nothing of the network and hides no figure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.metrics import calibration_bins, wilson_interval
from tinylens.reporting import charts
from tinylens.reporting.contents import Confusion, Contents, Mistake
from tinylens.reporting.document import document
from tinylens.reporting.wording import (
    SPLIT_ORDER,
    groups,
    interval_text,
    leak_words,
    shown_figures,
    small_change_rows,
    value_text,
)
from tinylens.results import (
    LearningCurve,
    LevelScores,
    Robustness,
    Score,
    SetScores,
    StrangerScores,
    percent,
)

MOST_NUMBERED = 25  # classes of which a confusion matrix has room for the counts
SHOWN_CONFUSIONS = 12
THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.99)


def render(contents: Contents) -> str:
    """Return the report as HTML. Whatever comes from the run is escaped."""
    return document(
        "report.html.jinja",
        ("report.js", "matrix.js"),
        contents=contents,
        parts=[name for name in SPLIT_ORDER if name in contents.evaluation.splits],
        figure_rows=_figure_rows(contents),
        part_whiskers=_part_whiskers(contents),
        class_rows=_class_rows(contents),
        matrix=matrix(contents),
        numbered=len(contents.class_names) <= MOST_NUMBERED,
        kinds=frequent(contents),
        opened=opened(contents),
        reliability=_reliability(contents),
        thresholds=_thresholds(contents),
        levels=[_level(level) for level in contents.evaluation.calibration.levels],
        sets=[_set(each) for each in contents.evaluation.calibration.sets],
        strangers=[_stranger(each) for each in contents.evaluation.strangers],
        robustness=_robustness(contents.robustness),
        audited=_audited(contents),
        groups=groups(contents.parts) if contents.parts else [],
        leaks=leak_words(contents.parts) if contents.parts else "",
        learning_curve=_learning_curve(contents.learning_curve),
        curves=_curves(contents),
        recipe_sections=_recipe_sections(contents),
    )


# --- figures


@dataclass(frozen=True)
class Whisker:
    """A share and its interval on an axis, as percentages of the axis's length."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """A figure as text, with a whisker where it is drawn as well."""

    value: str
    interval: str
    number: float
    whisker: Whisker | None = None


def _figure_rows(contents: Contents) -> list[dict[str, Any]]:
    splits = contents.evaluation.splits
    return [
        {
            "figure": figure,
            "cells": {
                name: Cell(
                    value_text(figure, getattr(scores, figure.field)),
                    interval_text(figure, getattr(scores, figure.field)),
                    getattr(scores, figure.field).value or 0,
                )
                for name, scores in splits.items()
            },
        }
        for figure in shown_figures(len(contents.class_names))
    ]


def _part_whiskers(contents: Contents) -> dict[str, Any]:
    """Return the accuracy of each part on one axis that ends at 100 %."""
    scores = {name: part.accuracy for name, part in contents.evaluation.splits.items()}
    start = _axis_start(list(scores.values()), step=0.05)
    return {
        "start": start,
        "rows": {name: _share_cell(score, start) for name, score in scores.items()},
    }


def _class_rows(contents: Contents) -> list[dict[str, Any]]:
    rows = contents.test.per_class
    start = _axis_start([score for row in rows for score in (row.precision, row.recall)], step=0.1)
    taken_for = {confusion.label: confusion for confusion in reversed(contents.confusions)}
    return [
        {
            "name": row.name,
            "cells": [_share_cell(score, start) for score in (row.precision, row.recall, row.f1)],
            "support": row.support,
            "taken_for": taken_for.get(row.name),
        }
        for row in rows
    ]


def _axis_start(scores: list[Score], step: float) -> float:
    """Return the largest multiple of `step` under all intervals, and under 100 %."""
    lowest = min(score.ci95[0] if score.ci95 else 1.0 for score in scores)
    return min(math.floor(lowest / step + 1e-9), round(1 / step) - 1) * step


def _share_cell(score: Score, start: float) -> Cell:
    value, (low, high) = score.value or 0.0, score.ci95 or (0.0, 1.0)

    def place(share: float) -> float:
        return round(100 * max(share - start, 0) / (1 - start), 1)

    texts = percent(value), f"{100 * low:.1f}–{100 * high:.1f}"
    return Cell(*texts, value, Whisker(place(value), place(low), place(high)))


# --- confusions


@dataclass(frozen=True)
class Kind:
    """A confusion, and the id of what opens to show its pictures, or "" where there are none."""

    confusion: Confusion
    target: str


@dataclass(frozen=True, eq=False)
class Opened:
    """What a cell opens: pictures of one confusion, the most confident first."""

    target: str
    confusion: Confusion
    mistakes: tuple[Mistake, ...]


def matrix(contents: Contents) -> list[dict[str, Any]]:
    """Return a row a class: its cells' counts, shares, what they open, and strength of colour.

    The strength is from 0 to 1. Mistakes are coloured on a scale of their own, by the root of their
    share of the largest one, since beside 95 % right a confusion of 3 % would not be seen.
    """
    counts = np.array(contents.test.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    mistakes = shares * (1 - np.eye(len(counts)))
    strengths = np.sqrt(mistakes / max(mistakes.max(), 1e-12)) + np.diag(np.diag(shares))
    shown = {mistake.label: set[str]() for mistake in contents.confused}
    for mistake in contents.confused:
        shown[mistake.label].add(mistake.answer)
    return [
        {
            "name": name,
            "label": label,
            "cells": [
                {
                    "answer": answer,
                    "count": int(count),
                    "share": share,
                    "strength": strength,
                    "target": _target(label, answer) if other in shown.get(name, ()) else "",
                }
                for answer, (other, count, share, strength) in enumerate(
                    zip(
                        contents.class_names,
                        counts[label],
                        shares[label],
                        strengths[label].round(2),
                        strict=True,
                    )
                )
            ],
        }
        for label, name in enumerate(contents.class_names)
    ]


def frequent(contents: Contents) -> list[Kind]:
    """Return the most frequent confusions."""
    targets = {(each.confusion.label, each.confusion.answer): each for each in opened(contents)}
    kinds = []
    for confusion in contents.confusions[:SHOWN_CONFUSIONS]:
        shown = targets.get((confusion.label, confusion.answer))
        kinds.append(Kind(confusion, shown.target if shown else ""))
    return kinds


def opened(contents: Contents) -> list[Opened]:
    """Return the confusions of which there are pictures, the most frequent first."""
    number = {name: label for label, name in enumerate(contents.class_names)}
    mistakes = defaultdict[tuple[str, str], list[Mistake]](list)
    for mistake in contents.confused:
        mistakes[mistake.label, mistake.answer].append(mistake)
    return [
        Opened(
            _target(number[confusion.label], number[confusion.answer]),
            confusion,
            tuple(sorted(shown, key=lambda mistake: -mistake.confidence)),
        )
        for confusion in contents.confusions
        if (shown := mistakes.get((confusion.label, confusion.answer)))
    ]


def _target(label: int, answer: int) -> str:
    return f"taken-{label}-{answer}"


# --- calibration


def _reliability(contents: Contents) -> str:
    bins = calibration_bins(contents.probabilities, contents.labels)
    description = (
        f"Share of right answers against confidence on test, in {len(bins.count)} bins of equal "
        f"size; the calibration error is {percent(bins.error)} %."
    )
    return charts.as_svg(charts.reliability(contents), "reliability", description)


def _level(level: LevelScores) -> dict[str, str]:
    """Return a wanted rate of errors, the confidence that keeps it, and how it held on test."""
    low, high = level.error.ci95 or (0.0, 1.0)
    return {
        "wanted": f"{100 * level.max_error:g}",
        "threshold": f"{level.threshold:.3f}",
        "answered": percent(level.answered.value or 0.0),
        "error": "–" if level.error.value is None else percent(level.error.value, 2),
        "interval": f"{100 * low:.2f}–{100 * high:.2f}" if level.error.ci95 else "",
    }


def _set(found: SetScores) -> dict[str, str]:
    low, high = found.covered.ci95 or (0.0, 1.0)
    return {
        "wanted": f"{100 * found.coverage:g}",
        "covered": percent(found.covered.value or 0.0),
        "interval": f"{100 * low:.1f}–{100 * high:.1f}",
        "size": f"{found.mean_size:.2f}",
        "single": percent(found.single.value or 0.0),
    }


def _stranger(found: StrangerScores) -> dict[str, str]:
    """Return how a kind of pictures from elsewhere is told."""
    low, high = found.roc_auc.ci95 or (0.0, 1.0)
    return {
        "name": found.name,
        "area": f"{found.roc_auc.value or 0.0:.3f}",
        "interval": f"{low:.3f}–{high:.3f}",
        "refused": percent(found.refused.value or 0.0, 0),
        "at": f"{100 * found.at:g}",
    }


def _thresholds(contents: Contents) -> list[dict[str, Any]]:
    """Return what remains, and how right it is, when less confident answers are held back."""
    confidence = contents.probabilities.max(axis=1)
    right = contents.probabilities.argmax(axis=1) == contents.labels
    rows = []
    for threshold in THRESHOLDS:
        answered = confidence >= threshold
        count, correct = int(answered.sum()), int((answered & right).sum())
        low, high = wilson_interval(correct, count)
        rows.append(
            {
                "threshold": threshold,
                "share": count / len(right),
                "accuracy": percent(correct / count) if count else "–",
                "interval": f"{100 * low:.1f}–{100 * high:.1f}" if count else "",
            }
        )
    return rows


# --- robustness


def _robustness(found: Robustness | None) -> dict[str, Any] | None:
    """Return rows of accuracies; a cell is coloured by its share of what clean pictures reach."""
    if found is None:
        return None
    clean = found.clean.value or 1.0
    worst = min(score.value or 0.0 for scores in found.corruptions.values() for score in scores)

    def cell(score: Score) -> dict[str, Any]:
        lost = max(clean - (score.value or 0.0), 0.0) / max(clean - worst, 1e-12)
        low, high = score.ci95 or (0.0, 1.0)
        interval = f"{percent(low)}–{percent(high)}"
        return {"value": percent(score.value or 0.0), "interval": interval, "lost": round(lost, 2)}

    error = found.mean_corruption_error
    return {
        "pictures": found.pictures,
        "clean": cell(found.clean),
        "error": percent(error.value or 0.0),
        "error_interval": "–".join(percent(end) for end in error.ci95 or (0.0, 1.0)),
        "rows": [
            {"name": name.replace("_", " "), "cells": [cell(score) for score in scores]}
            for name, scores in found.corruptions.items()
        ],
        "small": [{"name": name, **cell(score)} for name, score in small_change_rows(found)],
    }


# --- faults of the data set


def _audited(contents: Contents) -> dict[str, Any] | None:
    """Return the accuracy on test with and without the pictures that an audit found at fault."""
    audit = contents.audit
    if audit is None:
        return None
    right = contents.probabilities.argmax(axis=1) == contents.labels
    doubted = "test" in audit.doubted
    without = [("the whole test part", frozenset[int]())]
    without.append(("without pictures that are trained on", audit.leaked))
    if doubted:
        without.append(("without labels that are probably wrong", audit.suspected))
        without.append(("without both", audit.leaked | audit.suspected))
    return {
        "leaked": len(audit.leaked),
        "repeated": sum(not twin.leaks for twin in audit.duplicates),
        "suspected": len(audit.suspected) if doubted else None,
        "doubted": audit.doubted,
        "issues": len(audit.label_issues),
        "outliers": len(audit.outliers) if audit.compared else None,
        "rows": [{"name": name, **_accuracy_without(right, rows)} for name, rows in without],
    }


def _accuracy_without(right: NDArray[np.bool_], rows: frozenset[int]) -> dict[str, Any]:
    kept = np.ones(len(right), bool)
    kept[sorted(rows)] = False
    count, correct = int(kept.sum()), int(right[kept].sum())
    low, high = wilson_interval(correct, count)
    return {
        "pictures": count,
        "accuracy": percent(correct / count, 2) if count else "–",
        "interval": f"{percent(low, 2)}–{percent(high, 2)}" if count else "",
    }


# --- training


def _curves(contents: Contents) -> str:
    """Return the chart of loss and accuracy by epoch; "" where there is no history."""
    if not contents.history:
        return ""
    first, last = contents.history[0], contents.history[-1]
    ends = [
        f"{key.replace('_', ' ')} {first[key]:.3f} to {last[key]:.3f}"
        for key in ("loss", "val_loss", "accuracy", "val_accuracy")
        if key in first and key in last
    ]
    description = f"Loss and accuracy by epoch, from the first to the last: {', '.join(ends)}."
    return charts.as_svg(charts.curves(contents), "curves", description)


def _learning_curve(curve: LearningCurve | None) -> str:
    if curve is None:
        return ""
    description = f"Error on val by the number of training pictures. {curve.words}"
    return charts.as_svg(charts.learning_curve(curve), "learning", description)


def _recipe_sections(contents: Contents) -> dict[str, Mapping[str, Any]]:
    tree = contents.recipe.model_dump(exclude_none=True)
    sections = {name: part for name, part in tree.items() if isinstance(part, Mapping)}
    options = sections["model"]["options"]
    return sections | {"model": {"name": sections["model"]["name"], **options}}
