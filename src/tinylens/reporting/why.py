"""The report's block on the gap from train to test: its parts, the learning curve, and advice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinylens.gap_parts import OTHER_MIX
from tinylens.reporting.charts import Chart, Series, line_chart
from tinylens.reporting.contents import Contents
from tinylens.results import GapParts, LearningCurve, Part, Score, Sum, points

SHOWN_CLASSES = 10


@dataclass(frozen=True)
class Row:
    """A part as text: its size in points, and its share of the whole in percent."""

    name: str
    size: str
    interval: str
    share: str
    share_interval: str


@dataclass(frozen=True)
class Group:
    """A figure and its parts as text."""

    title: str
    whole: str
    interval: str
    rows: tuple[Row, ...]


def block(contents: Contents) -> dict[str, Any] | None:
    """Return what the block shows; None where train or test was not judged."""
    parts, curve = contents.parts, contents.learning_curve
    if parts is None:
        return None
    return {
        "groups": groups(parts),
        "leaks": leak_words(parts),
        "curve": None if curve is None else {"chart": _chart(curve), "words": curve.words},
    }


def groups(parts: GapParts) -> list[Group]:
    """Return every sum of which the parts say something, the parts of classes largest first."""
    shown = [_group("Error on test", parts.test_error)]
    classes = sorted(
        (part for part in parts.gap.parts if part.name != OTHER_MIX),
        key=lambda part: -(part.size.value or 0.0),
    )
    mix = [part for part in parts.gap.parts if part.name == OTHER_MIX and _counts(part)]
    by_class = Sum(parts.gap.whole, (*classes[:SHOWN_CLASSES], *mix))
    largest = len(classes) > SHOWN_CLASSES
    title = f"Gap, its {SHOWN_CLASSES} largest classes" if largest else "Gap, by class"
    shown.append(_group(title, by_class))
    labels = (
        ("Error on test, by label", parts.test_labels),
        ("Error on train, by label", parts.train_labels),
        ("Gap, by label", parts.gap_labels),
    )
    return shown + [_group(title, found) for title, found in labels if found is not None]


def leak_words(parts: GapParts) -> str:
    """Return what leaks do to the accuracy on test, or "" before an audit."""
    leaks = parts.leaks
    if leaks is None:
        return ""
    if not leaks.pictures:
        return "No picture of test occurs in train or val."
    low, high = leaks.lift.ci95 or (0.0, 0.0)
    number = "picture of test occurs" if leaks.pictures == 1 else "pictures of test occur"
    return (
        f"{leaks.pictures:,} {number} in train or val, too; they lift the accuracy on test by "
        f"{points(leaks.lift.value or 0.0)} points ({points(low)} to {points(high)})."
    )


def _counts(part: Part) -> bool:
    return points(part.size.value or 0.0) != "0.0"


def _group(title: str, found: Sum) -> Group:
    rows = (
        Row(part.name, *_texts(part.size), *_texts(part.share, decimals=0)) for part in found.parts
    )
    return Group(title, *_texts(found.whole), tuple(rows))


def _texts(score: Score, decimals: int = 1) -> tuple[str, str]:
    """Return a share of pictures as points or as percent, and its interval."""
    if score.value is None or score.ci95 is None:
        return "–", ""

    def text(share: float) -> str:
        return points(share) if decimals else f"{100 * share:.0f}".replace("-", "−")

    return text(score.value), f"{text(score.ci95[0])} to {text(score.ci95[1])}"


def _chart(curve: LearningCurve) -> Chart:
    """Return the accuracy by training pictures, measured and expected, up to twice as many.

    What is expected has its interval drawn where nothing was measured.
    """
    most = curve.points[-1].pictures
    unit, of_unit = (1000, " in thousands") if most >= 10 * 1000 else (1, "")
    measured = [(point.pictures, point.error.complement()) for point in curve.points]
    expected = [(point.pictures, point.error.complement()) for point in curve.fitted]

    def series(rows: list[tuple[int, Score]], drawn_from: int) -> Series:
        values = [100 * (right.value or 0.0) for _, right in rows]
        ends = [right.ci95 or (0.0, 1.0) for _, right in rows]
        reach = [
            (100 * low, 100 * high) if pictures >= drawn_from else (value, value)
            for (pictures, _), value, (low, high) in zip(rows, values, ends, strict=True)
        ]
        return Series([pictures / unit for pictures, _ in rows], values, reach)

    drawn = {"expected": series(expected, most + 1)} if expected else {}
    drawn["val"] = series(measured, 0)  # on top
    return line_chart(
        "Right answers by training pictures, %",
        drawn,
        x_label=f"training pictures{of_unit}",
        description=f"Accuracy on val by the number of training pictures. {curve.words}",
    )
