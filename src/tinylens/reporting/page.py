"""The report: one HTML file that shows a run, asks nothing of the network and hides no figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.metrics import calibration_bins, wilson_interval
from tinylens.reporting import why
from tinylens.reporting.charts import Chart, Series, line_chart
from tinylens.reporting.confusions import MOST_NUMBERED, frequent, matrix, opened
from tinylens.reporting.contents import Contents
from tinylens.reporting.document import document
from tinylens.reporting.wording import (
    SPLIT_ORDER,
    interval_text,
    shown_figures,
    small_change_rows,
    value_text,
)
from tinylens.results import LevelScores, Robustness, Score, SetScores, StrangerScores, percent

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
        why=why.block(contents),
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


# --- calibration


def _reliability(contents: Contents) -> Chart:
    bins = calibration_bins(contents.probabilities, contents.labels)
    right = np.rint(bins.accuracy * bins.count).astype(int)
    intervals = [wilson_interval(*pair) for pair in zip(right, bins.count, strict=True)]
    points = Series(
        (100 * bins.confidence).tolist(),
        (100 * bins.accuracy).tolist(),
        [(100 * low, 100 * high) for low, high in intervals],
    )
    return line_chart(
        "Right answers by confidence, %",
        {"test": points},
        x_label="confidence, %",
        description=(
            f"Share of right answers against confidence on test, in {len(bins.count)} bins of "
            f"equal size; the calibration error is {percent(bins.error)} %."
        ),
        diagonal=True,
    )


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


def _curves(contents: Contents) -> list[Chart]:
    """Return the charts of loss and accuracy by epoch; none where there is no history."""
    rows = contents.history
    if not rows:
        return []
    charts = []
    for key, title in (("loss", "Loss"), ("accuracy", "Accuracy")):
        columns = {"train": key, "val": f"val_{key}"}
        series = {
            name: Series(*map(list, zip(*points, strict=True)))
            for name, column in columns.items()
            if (points := [(row["epoch"], row[column]) for row in rows if column in row])
        }
        ends = [f"{name} {one.y[0]:.3f} to {one.y[-1]:.3f}" for name, one in series.items()]
        description = f"{title} by epoch, from the first to the last: {', '.join(ends)}."
        charts.append(line_chart(title, series, x_label="epoch", description=description))
    return charts


def _recipe_sections(contents: Contents) -> dict[str, Mapping[str, Any]]:
    tree = contents.recipe.model_dump(exclude_none=True)
    sections = {name: part for name, part in tree.items() if isinstance(part, Mapping)}
    options = sections["model"]["options"]
    return sections | {"model": {"name": sections["model"]["name"], **options}}
