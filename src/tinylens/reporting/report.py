"""The report: one HTML file that shows a run, asks nothing of the network and hides no figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.metrics import calibration_bins, wilson_interval
from tinylens.reporting import charts
from tinylens.reporting.contents import Contents
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
from tinylens.results import LearningCurve, Robustness, Score, percent

MOST_NUMBERED = 25  # classes of which a confusion matrix has room for the counts
SHOWN_CONFUSIONS = 12
NOTHING = Score(None, None)
THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.99)


def render(contents: Contents) -> str:
    """Return the report as HTML. Whatever comes from the run is escaped."""
    return document(
        "report.html.jinja",
        ("report.js", "matrix.js"),
        contents=contents,
        parts=[name for name in SPLIT_ORDER if name in contents.evaluation.splits],
        figures=shown_figures(len(contents.class_names)),
        value=value_text,
        interval=interval_text,
        part_whiskers=_part_whiskers(contents),
        class_rows=_class_rows(contents),
        matrix=matrix(contents),
        numbered=len(contents.class_names) <= MOST_NUMBERED,
        frequent=contents.confusions[:SHOWN_CONFUSIONS],
        opened=[each for each in contents.confusions if each.mistakes],
        reliability=_reliability(contents),
        thresholds=_thresholds(contents),
        robustness=_robustness(contents.robustness),
        audited=_audited(contents),
        groups=groups(contents.parts) if contents.parts else [],
        leaks=leak_words(contents.parts) if contents.parts else "",
        learning_curve=_learning_curve(contents.learning_curve),
        curves=_curves(contents),
        recipe_sections=_recipe_sections(contents),
    )


# --- figures


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


def _share_cell(score: Score, start: float) -> dict[str, Any]:
    """Return a share, and its interval as percentages of an axis that starts at `start`."""
    value, (low, high) = score.value or 0.0, score.ci95 or (0.0, 1.0)
    ends = {"value": value, "low": low, "high": high}
    whisker = {
        name: round(100 * max(share - start, 0) / (1 - start), 1) for name, share in ends.items()
    }
    return {"score": score, "number": value, "whisker": whisker}


def matrix(contents: Contents) -> list[dict[str, Any]]:
    """Return a row a class: its cells' counts, shares, what they open, and strength of colour.

    The strength is from 0 to 1. Mistakes are coloured on a scale of their own, by the root of their
    share of the largest one, since beside 95 % right a confusion of 3 % would not be seen.
    """
    counts = np.array(contents.test.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    mistakes = shares * (1 - np.eye(len(counts)))
    strengths = np.sqrt(mistakes / max(mistakes.max(), 1e-12)) + np.diag(np.diag(shares))
    targets = {(each.label, each.answer): each.target for each in contents.confusions}
    return [
        {
            "name": name,
            "label": label,
            "cells": [
                {
                    "answer": answer,
                    "count": int(counts[label, answer]),
                    "share": shares[label, answer],
                    "strength": strengths[label, answer].round(2),
                    "target": targets.get((name, other), ""),
                }
                for answer, other in enumerate(contents.class_names)
            ],
        }
        for label, name in enumerate(contents.class_names)
    ]


# --- calibration


def _reliability(contents: Contents) -> str:
    bins = calibration_bins(contents.probabilities, contents.labels)
    description = (
        f"Share of right answers against confidence on test, in {len(bins.count)} bins of equal "
        f"size; the calibration error is {percent(bins.error)} %."
    )
    return charts.as_svg(charts.reliability(contents), "reliability", description)


def _thresholds(contents: Contents) -> list[dict[str, Any]]:
    """Return what remains, and how right it is, when less confident answers are held back."""
    confidence = contents.probabilities.max(axis=1)
    right = contents.probabilities.argmax(axis=1) == contents.labels
    return [
        {"threshold": threshold, **_accuracy(right[confidence >= threshold], len(right))}
        for threshold in THRESHOLDS
    ]


def _accuracy(right: NDArray[np.bool_], of: int) -> dict[str, Any]:
    """Return how many images there are, their share, and the accuracy on them."""
    count, correct = len(right), int(right.sum())
    found = Score(correct / count, wilson_interval(correct, count)) if count else NOTHING
    return {"images": count, "share": count / of, "accuracy": found}


# --- robustness


def _robustness(found: Robustness | None) -> dict[str, Any] | None:
    """Return rows of accuracies; a cell is coloured by its share of what clean images reach."""
    if found is None:
        return None
    clean = found.clean.value or 1.0
    worst = min(score.value or 0.0 for scores in found.corruptions.values() for score in scores)

    def cell(score: Score) -> dict[str, Any]:
        lost = max(clean - (score.value or 0.0), 0.0) / max(clean - worst, 1e-12)
        return {"score": score, "lost": round(lost, 2)}

    return {
        "rows": [
            {"name": name.replace("_", " "), "cells": [cell(score) for score in scores]}
            for name, scores in found.corruptions.items()
        ],
        "small": [{"name": name, **cell(score)} for name, score in small_change_rows(found)],
    }


# --- faults of the data set


def _audited(contents: Contents) -> dict[str, Any] | None:
    """Return the accuracy on test with and without the images that an audit found at fault."""
    audit = contents.audit
    if audit is None:
        return None
    right = contents.probabilities.argmax(axis=1) == contents.labels
    doubted = "test" in audit.doubted
    without = [("the whole test split", frozenset[int]())]
    without.append(("without images that are trained on", audit.leaked))
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
    return _accuracy(np.delete(right, sorted(rows)), len(right))


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
    description = f"Error on val by the number of training images. {curve.words}"
    return charts.as_svg(charts.learning_curve(curve), "learning", description)


def _recipe_sections(contents: Contents) -> dict[str, Mapping[str, Any]]:
    tree = contents.recipe.model_dump(exclude_none=True)
    sections = {name: part for name, part in tree.items() if isinstance(part, Mapping)}
    options = sections["model"]["options"]
    return sections | {"model": {"name": sections["model"]["name"], **options}}
