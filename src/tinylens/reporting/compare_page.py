"""comparison.html and its plot: which run is better, class by class, and on which images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens import files
from tinylens.data.dataset import Dataset
from tinylens.evaluation.compare import SIGNIFICANT, Comparison, Pair, test_answers
from tinylens.metrics import Probabilities
from tinylens.reporting import charts
from tinylens.reporting.document import document
from tinylens.run import Run

SHOWN = 24  # images that one run alone answers right
LEAST_REACH = 0.01  # of the axis of differences, on either side of zero


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A run's answers beside what there is to say of it.

    Attributes:
        recipe: its name.
        probabilities: of test, in the order of the test split, float, shape (n, classes).
    """

    name: str
    recipe: str
    seed: int
    seconds: float
    probabilities: Probabilities


def evaluated(runs: Sequence[Run], comparison: Comparison) -> list[Evaluated]:
    """Return what there is to say of each run, by the names that the comparison gave them.

    Raises:
        RunError: a file of a run cannot be read.
    """
    return [
        Evaluated(
            name=name,
            recipe=run.recipe.name,
            seed=run.info.seed,
            seconds=run.info.seconds.get("train", 0.0),
            probabilities=test_answers(run)[0],
        )
        for name, run in zip(comparison.runs, runs, strict=True)
    ]


def write(
    folder: Path, comparison: Comparison, sides: Sequence[Evaluated], test: Dataset | None
) -> dict[str, Path]:
    """Write comparison.html and one plot a pair into `folder`; return them by name.

    Args:
        folder: made if it is missing.
        comparison: of the runs.
        sides: the runs, in the order of the comparison.
        test: the images that they were judged on; None shows none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = {"report": folder / "comparison.html"}
    by_name = {each.name: each for each in sides}
    for number, pair in enumerate(comparison.pairs, start=1):
        name = "comparison" if len(comparison.pairs) == 1 else f"comparison-{number}"
        written[name] = folder / f"{name}.png"
        files.write_bytes(written[name], charts.as_png(charts.differences(pair)))
    page = document(
        "comparison.html.jinja",
        comparison=comparison,
        evaluated=sides,
        pairs=[_pair(pair, by_name, test) for pair in comparison.pairs],
    )
    files.write_text(written["report"], page)
    return written


# --- the page


def _pair(pair: Pair, evaluated: Mapping[str, Evaluated], test: Dataset | None) -> dict[str, Any]:
    rows = [("all classes", pair.n, pair.accuracy, pair.p_value)]
    rows += [(each.name, each.support, each.recall, each.p_value) for each in pair.classes]
    reach = max([LEAST_REACH, *(abs(end) for _, _, found, _ in rows for end in found.ci95)])
    return {
        "pair": pair,
        "reach": reach,
        "rows": [
            {
                "name": name,
                "support": support,
                "value": f"{100 * found.value:+.1f}",
                "interval": f"{100 * found.ci95[0]:+.1f} to {100 * found.ci95[1]:+.1f}",
                "number": found.value,
                "whisker": {
                    "value": _place(found.value, reach),
                    "low": _place(found.ci95[0], reach),
                    "high": _place(found.ci95[1], reach),
                },
                "p_value": _p_text(p_value),
                "sure": p_value < SIGNIFICANT,
            }
            for name, support, found, p_value in rows
        ],
        "p_value": _p_text(pair.p_value),
        "both_right": pair.n - pair.both_wrong - len(pair.only_first) - len(pair.only_second),
        "sides": [] if test is None else _sides(pair, evaluated, test),
    }


def _place(value: float, reach: float) -> float:
    return round(50 + 50 * value / reach, 1)


def _p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _sides(pair: Pair, evaluated: Mapping[str, Evaluated], test: Dataset) -> list[dict[str, Any]]:
    """Return for each run the images that it alone answers right, the surest mistakes first."""
    order = (
        (pair.first, pair.second, pair.only_first),
        (pair.second, pair.first, pair.only_second),
    )
    return [
        {
            "right": right,
            "wrong": wrong,
            "count": len(rows),
            "images": _images(np.array(rows, np.int64), evaluated[wrong].probabilities, test),
        }
        for right, wrong, rows in order
    ]


def _images(rows: NDArray[np.int64], wrong: Probabilities, test: Dataset) -> list[dict[str, Any]]:
    confidence = wrong[rows].max(axis=1) if len(rows) else np.zeros(0)
    chosen = rows[np.argsort(-confidence, kind="stable")[:SHOWN]]
    return [
        {
            "image": np.asarray(test.images[row]),
            "row": int(row),
            "label": test.class_names[test.labels[row]],
            "answer": test.class_names[int(wrong[row].argmax())],
            "confidence": float(wrong[row].max()),
        }
        for row in chosen
    ]
