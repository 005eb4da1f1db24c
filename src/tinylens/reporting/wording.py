"""How figures are called and written, in the terminal and in the report alike."""

from __future__ import annotations

from dataclasses import dataclass

from tinylens.evaluation.diagnosis import OTHER_MIX
from tinylens.results import GapParts, Part, Robustness, Score, Sum, percent, points

METHODS = {"grad-cam": "Grad-CAM", "occlusion": "Occlusion"}
SHOWN_CLASSES = 10
SPLIT_ORDER = ("train", "val", "test")


@dataclass(frozen=True)
class Figure:
    """A figure of `SplitScores` as a reader sees it.

    Attributes:
        field: the attribute's name.
        short: what it is called in the terminal; "" where it is not shown there.
        title: what it is called in the report.
        meaning: what it says, in one line.
        decimals: places after the point; of the percentage where `percent`.
        percent: whether it is a share.
    """

    field: str
    short: str
    title: str
    meaning: str
    decimals: int = 1
    percent: bool = True


FIGURES = (
    Figure("accuracy", "Accuracy", "Accuracy", "share of images answered right"),
    Figure("top5", "Top-5", "Top-5 accuracy", "the right class is among the five most probable"),
    Figure(
        "log_loss", "Log loss", "Log loss", "mean −log of the true class's probability", 3, False
    ),
    Figure("brier", "Brier", "Brier score", "squared distance from the right answer", 3, False),
    Figure("ece", "ECE", "Calibration error", "how far confidence is from accuracy, on average"),
    Figure("precision_macro", "Precision", "Precision, macro", "right among a class's answers"),
    Figure("recall_macro", "Recall", "Recall, macro", "right among a class's images"),
    Figure("f1_macro", "F1", "F1, macro", "harmonic mean of precision and recall"),
    Figure("precision_weighted", "", "Precision, weighted", "classes weighed by their images"),
    Figure("recall_weighted", "", "Recall, weighted", "the same as accuracy"),
    Figure("f1_weighted", "", "F1, weighted", "classes weighed by their images"),
    Figure("mcc", "MCC", "Matthews correlation", "0 is guessing, 1 is perfect", 3, False),
    Figure("roc_auc_macro", "ROC AUC", "ROC AUC, macro", "own images rank above others", 3, False),
)


def shown_figures(classes: int) -> list[Figure]:
    """Return the figures worth a row: top-5 says nothing of fewer than 6 classes."""
    return [figure for figure in FIGURES if classes >= 6 or figure.field != "top5"]


def share_text(score: Score, decimals: int = 1) -> str:
    """Return a share in percent, such as "92.4", or "–" where it is not defined."""
    return "–" if score.value is None else percent(score.value, decimals)


def span_text(score: Score, decimals: int = 1) -> str:
    """Return the interval of a share in percent, such as "91.9–92.9", or ""."""
    return "–".join(f"{100 * end:.{decimals}f}" for end in score.ci95 or ())


def value_text(figure: Figure, score: Score) -> str:
    """Return the value, such as "92.4" of a share, or "–" where it is not defined."""
    if figure.percent or score.value is None:
        return share_text(score, figure.decimals)
    return f"{score.value:.{figure.decimals}f}"


def interval_text(figure: Figure, score: Score) -> str:
    """Return the interval, such as "91.9–92.9" of a share, or "" where it is not defined."""
    scale = 100 if figure.percent else 1
    return "–".join(f"{scale * end:.{figure.decimals}f}" for end in score.ci95 or ())


def small_change_rows(found: Robustness) -> list[tuple[str, Score]]:
    """Return small changes in words, each with the accuracy on images changed so."""
    rows = [(f"moved by {n} pixel{'s' * (n > 1)}", score) for n, score in found.shifts.items()]
    rows += [(f"turned by {n}°", score) for n, score in found.turns.items()]
    rows += [("mirrored", found.mirrored)]
    return rows + [(f"JPEG of quality {n}", score) for n, score in found.jpeg.items()]


def shortened(text: str, length: int) -> str:
    """Return `text` in at most `length` characters.

    >>> shortened("hydrogen peroxide", 9)
    'hydrogen…'
    """
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


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
    if not leaks.images:
        return "No image of test occurs in train or val."
    low, high = leaks.lift.ci95 or (0.0, 0.0)
    number = "image of test occurs" if leaks.images == 1 else "images of test occur"
    return (
        f"{leaks.images:,} {number} in train or val, too; they lift the accuracy on test by "
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
    """Return a share of images as points or as percent, and its interval."""
    if score.value is None or score.ci95 is None:
        return "–", ""

    def text(share: float) -> str:
        return points(share) if decimals else f"{100 * share:.0f}".replace("-", "−")

    return text(score.value), f"{text(score.ci95[0])} to {text(score.ci95[1])}"
