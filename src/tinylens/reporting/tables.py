"""The figures of an evaluation as tables for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from tinylens.errors import RunError
from tinylens.evaluation.compare import SIGNIFICANT, Pair
from tinylens.reporting.wording import (
    FIGURES,
    SPLIT_ORDER,
    Figure,
    groups,
    interval_text,
    leak_words,
    share_text,
    shortened,
    shown_figures,
    small_change_rows,
    value_text,
)
from tinylens.results import (
    Audit,
    Evaluation,
    Explanations,
    FormatRow,
    GapParts,
    LearningCurve,
    NetworkSize,
    Robustness,
    Score,
    Scorecard,
    Summary,
    Twin,
    percent,
)

_SHARE = next(figure for figure in FIGURES if figure.field == "accuracy")
_PART_LENGTH = 34
_NAME_LENGTH = 18  # three figures with their intervals leave so much of 80 columns


def plain_table(caption: str | None = None) -> Table:
    """Return an empty table as all of ours look."""
    return Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption=caption,
        caption_justify="left",
    )


def overview(evaluation: Evaluation) -> Table:
    """Return the main figures of each part with their intervals, a column a part."""
    parts = [name for name in SPLIT_ORDER if name in evaluation.splits]
    table = plain_table(
        caption="(…) 95 % interval; precision, recall, F1, ROC AUC: mean over classes"
    )
    table.add_column("", no_wrap=True)
    for name in parts:
        table.add_column(name, justify="right", no_wrap=True)
    splits = [evaluation.splits[name] for name in parts]
    table.add_row("Images", *(f"{scores.n:,}" for scores in splits))
    for figure in shown_figures(max((len(scores.per_class) for scores in splits), default=0)):
        if figure.short:
            cells = [_cell(figure, getattr(scores, figure.field)) for scores in splits]
            table.add_row(f"{figure.short} %" if figure.percent else figure.short, *cells)
    return table


def per_class(evaluation: Evaluation, split: str = "test") -> Table:
    """Return precision, recall and F1 of each class of one part.

    Raises:
        RunError: the evaluation has no such part.
    """
    if split not in evaluation.splits:
        raise RunError(
            f"the evaluation has no part {split!r}; it has {', '.join(evaluation.splits)}"
        )
    table = plain_table()
    table.add_column(Text(f"Class ({split})"))  # the one that gives way where 80 columns are few
    for title in ("Precision %", "Recall %", "F1 %"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("Images", justify="right", no_wrap=True)
    for row in evaluation.splits[split].per_class:
        cells = [_cell(_SHARE, score) for score in (row.precision, row.recall, row.f1)]
        table.add_row(Text(shortened(row.name, _NAME_LENGTH)), *cells, f"{row.support:,}")
    return table


def differences(pair: Pair) -> Table:
    """Return how two runs differ in accuracy, over all classes and in each one's recall."""
    caption = f"points on test, {pair.second} minus {pair.first}; (…) 95 % interval"
    table = plain_table(caption=caption)
    table.add_column(Text("Class"))
    table.add_column("Points", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("Images", justify="right", no_wrap=True)
    rows = [("all classes", pair.accuracy, pair.p_value, pair.n)]
    rows += [(each.name, each.recall, each.p_value, each.support) for each in pair.classes]
    for name, found, p_value, support in rows:
        style = "bold" if p_value < SIGNIFICANT else ""
        points = Text(f"{100 * found.value:+.1f}", style=style)
        low, high = (f"{100 * end:+.1f}" for end in found.ci95)
        points.append(f" ({low} to {high})", style="dim")
        cells = ("<.001" if p_value < 0.001 else f"{p_value:.3f}", f"{support:,}")
        table.add_row(Text(shortened(name, _NAME_LENGTH), style=style), points, *cells)
    return table


def audit(found: Audit) -> Table:
    """Return how many suspects of each kind there are in each part, with the most suspect one."""
    table = plain_table(caption=_audit_caption(found))
    table.add_column("Found")
    for name in found.counts:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Most suspect")
    for title, rows in _suspects(found):
        counts = Counter(split for split, _ in rows)
        cells = [f"{counts[name]:,}" if counts[name] else "–" for name in found.counts]
        table.add_row(title, *cells, Text(rows[0][1]) if rows else "")
    if found.broken:
        blank = [""] * len(found.counts)
        first = found.broken[0]
        about = Text(f"{len(found.broken):,}, such as {first.path}: {first.reason}")
        table.add_row("broken files", *blank, about)
    return table


def _suspects(found: Audit) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return for every kind that was looked for its rows, as (part, words)."""

    def twins(pairs: Sequence[Twin]) -> list[tuple[str, str]]:
        return [(each.splits[1], _twin_words(each)) for each in pairs]

    repeats = [twin for twin in found.duplicates if not twin.leaks]
    kinds = [
        ("leaks: test images trained on", twins(found.leaks)),
        ("images that occur twice", twins(repeats)),
        ("… with two labels", twins(found.contradictions)),
    ]
    if found.doubted:
        words = [
            (each.split, f"{each.split} {each.index}: {each.given}, rather {each.proposed}")
            for each in found.label_issues
        ]
        kinds.append(("labels that are probably wrong", words))
    oddities = [("odd images", found.odd)]
    if found.compared:
        oddities.insert(0, ("images unlike all others", found.outliers))
    for title, rows in oddities:
        words = [(row.split, f"{row.split} {row.index}: {row.given}, {row.reason}") for row in rows]
        kinds.append((title, words))
    return kinds


def _twin_words(twin: Twin) -> str:
    pairs = zip(twin.splits, (twin.a, twin.b), twin.labels, strict=True)
    return " = ".join(f"{split} {row} ({label})" for split, row, label in pairs)


def _audit_caption(found: Audit) -> str:
    if not found.doubted:
        return "labels were not looked at: --folds 5 trains the networks that it takes"
    rest = [name for name in found.counts if name not in found.doubted]
    if rest:
        return f"labels of {', '.join(rest)} were not looked at: --folds 5 does"
    return "labels: confident learning on answers of networks that never saw the image"


def corruptions(found: Robustness) -> Table:
    """Return the accuracy under each corruption, a column a strength."""
    error = found.mean_corruption_error
    low, high = (percent(end) for end in error.ci95 or (0, 1))
    caption = (
        f"accuracy on {found.images:,} test images, %; as they are {share_text(found.clean)}; "
        f"mean corruption error {share_text(error)} ({low}–{high})"
    )
    table = plain_table(caption=caption)
    table.add_column("Corruption", no_wrap=True)
    strengths = max(len(scores) for scores in found.corruptions.values())
    for strength in range(1, strengths + 1):
        table.add_column(f"{strength}", justify="right", no_wrap=True)
    for name, scores in found.corruptions.items():
        table.add_row(name.replace("_", " "), *map(share_text, scores))
    return table


def small_changes(found: Robustness) -> Table:
    """Return the accuracy on images that were moved, turned, mirrored or compressed."""
    table = plain_table()
    table.add_column("Small changes", no_wrap=True)
    table.add_column("Accuracy %", justify="right", no_wrap=True)
    for name, score in small_change_rows(found):
        table.add_row(name, _cell(_SHARE, score))
    return table


def explanations(found: Explanations) -> Table:
    """Return each explained image with its answer and what the nearest training images are."""
    table = plain_table()
    for name in ("Image", "Class", "Answer", "Nearest training images"):
        table.add_column(name, overflow="fold")
    table.add_column("Sure %", justify="right", no_wrap=True)
    for sheet in found.sheets:
        for each in sheet.images:
            near = Counter(neighbour.label for neighbour in each.neighbours)
            table.add_row(
                Text(each.name),
                Text(each.label or "–"),
                Text(each.answer),
                Text(", ".join(f"{count} {label}" for label, count in near.most_common()) or "–"),
                percent(each.confidence),
            )
    for broken in found.broken:
        table.add_row(Text(broken.path), "–", "–", Text(f"error: {broken.reason}"), "–")
    return table


def spread(summary: Summary) -> Table:
    """Return mean, standard deviation and interval of each figure over a series of trainings."""
    evaluated = "test" if summary.kind == "seeds" else "held out"
    table = plain_table(caption=f"{len(summary.runs)} {summary.kind}; (…) 95 % interval")
    table.add_column(f"Figure ({evaluated})", no_wrap=True)
    table.add_column("Mean ± sd", justify="right", no_wrap=True)
    for figure in FIGURES:
        found = summary.figures.get(figure.field)
        if not figure.short or found is None:
            continue
        scale, places = (100, 2) if figure.percent else (1, 4)
        text = Text(f"{scale * found.mean:.{places}f} ± {scale * found.sd:.{places}f}")
        low, high = (f"{scale * end:.{places}f}" for end in found.ci95)
        text.append(f" ({low}–{high})", style="dim")
        table.add_row(f"{figure.short} %" if figure.percent else figure.short, text)
    return table


def sizes(found: Sequence[NetworkSize]) -> Table:
    """Return how large, right and fast networks are, a row each."""
    table = plain_table(caption="on test; (…) 95 % interval; ms: one image, one core, median")
    table.add_column("Network")
    for title in ("Weights", "ONNX kB", "Accuracy %", "ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for each in found:
        score = Text("–") if each.accuracy is None else _cell(_SHARE, each.accuracy)
        kilobytes, speed = f"{each.bytes / 1000:,.0f}", f"{each.one_p50_ms:.3f}"
        table.add_row(Text(each.name), f"{each.parameters:,}", kilobytes, score, speed)
    return table


def gap_parts(parts: GapParts) -> Table:
    """Return the error on test and the gap, with the parts that add up to them."""
    leaks = leak_words(parts)
    table = plain_table(caption=f"points of all images; (…) 95 % interval. {leaks}".rstrip())
    table.add_column("In parts")
    table.add_column("Points", justify="right", no_wrap=True)
    table.add_column("Share %", justify="right", no_wrap=True)
    for group in groups(parts):
        table.add_row(Text(group.title, style="bold"), _aside(group.whole, group.interval))
        for row in group.rows:
            name = Text("  " + shortened(row.name, _PART_LENGTH))
            size, share = _aside(row.size, row.interval), _aside(row.share, row.share_interval)
            table.add_row(name, size, share)
    return table


def learning_curve(curve: LearningCurve) -> Table:
    """Return the error of networks trained on parts of train, a row a size."""
    table = plain_table(caption=f"recipe {curve.recipe}, on {curve.evaluated:,} images of val")
    for title in ("Images", "Passes", "Wrong %", "by seed"):
        table.add_column(title, justify="right", no_wrap=True)
    for point in curve.points:
        by_seed = " ".join(f"{100 * error:.2f}" for error in point.by_seed)
        wrong = _cell(_SHARE, point.error)
        table.add_row(f"{point.images:,}", f"{point.epochs:.1f}", wrong, by_seed)
    return table


def _aside(value: str, interval: str) -> Text:
    text = Text(value)
    if interval:
        text.append(f" ({interval})", style="dim")
    return text


def _cell(figure: Figure, score: Score) -> Text:
    text = Text(value_text(figure, score))
    interval = interval_text(figure, score)
    if interval:
        text.append(f" ({interval})", style="dim")
    return text


def formats(scorecard: Scorecard) -> Table:
    """Return a line a file."""
    parts = {(row.part, row.images) for row in scorecard.rows}
    evaluated = " and ".join(f"{count:,} images of {part}" for part, count in sorted(parts))
    found = plain_table(
        caption=f"against Keras on {evaluated}: same answers, largest difference between "
        "probabilities, points of accuracy with 95 % interval; milliseconds for one image, "
        "median and 95th percentile; images a second, "
        f"{scorecard.batch} at once, {scorecard.threads} threads"
    )
    found.add_column("Format", no_wrap=True)
    for title in ("Same %", "Apart", "Points", "MB", "ms, p95", "A second"):
        found.add_column(title, justify="right", no_wrap=True)
    for row in scorecard.rows:
        mark = " ✗" if row.failures else ""
        found.add_row(Text(row.format + mark), *_format_cells(row))
    return found


def _format_cells(row: FormatRow) -> list[str]:
    points = "–"
    if row.accuracy_difference is not None:
        low, high = row.accuracy_difference.ci95
        value = row.accuracy_difference.value
        points = f"{100 * value:+.2f} ({100 * low:+.2f} {100 * high:+.2f})"
    cells = [f"{100 * row.agreement:.2f}", f"{row.largest_difference:.1g}", points]
    cells.append(f"{row.size / 1e6:.2f}")
    if row.speed is None:
        return [*cells, "–", "–"]
    one = f"{row.speed.one_p50_ms:.2f} {row.speed.one_p95_ms:.2f}"
    return [*cells, one, f"{row.speed.many_per_second:,.0f}"]


def second_looks(looks: Sequence[Mapping[str, Any]], changed: Mapping[str, Any]) -> Table:
    """Return what the second look came to, a row a recipe, the default first.

    Args:
        looks: with "trial", "first", "value" and "seconds".
        changed: what the chosen recipe changes of the default.
    """
    said = ", ".join(f"{key} = {_short(value)}" for key, value in changed.items())
    table = plain_table(caption=said or None)
    for title in ("Trial", "Val % in the search", "again, another seed", "Seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    for place, look in enumerate(looks):
        name = "default" if place == 0 else str(look["trial"])
        values = (f"{100 * look['first']:.2f}", f"{100 * look['value']:.2f}")
        table.add_row(name, *values, f"{look['seconds']:.0f}")
    return table


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
