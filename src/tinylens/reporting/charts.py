"""Line charts as geometry: where the report's template puts ticks, lines and whiskers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 480, 290
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 44

Range = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Values to draw as one line; `intervals` are (low, high) of each, or empty."""

    x: Sequence[float]
    y: Sequence[float]
    intervals: Sequence[Range] = ()


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in units of the drawing."""

    at: float
    text: str


@dataclass(frozen=True)
class Point:
    """A value, in units of the drawing; `low` and `high` are the ends of its whisker."""

    x: float
    y: float
    low: float
    high: float
    words: str


@dataclass(frozen=True)
class Line:
    """A named line."""

    name: str
    points: tuple[Point, ...]

    @property
    def path(self) -> str:
        """The `points` attribute of an SVG polyline."""
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points)


@dataclass(frozen=True)
class Chart:
    """A chart ready to be drawn.

    Attributes:
        diagonal: the ends (x, y, x, y) of a line of equal values, or None.
    """

    title: str
    description: str
    x_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    diagonal: tuple[float, float, float, float] | None = None


def line_chart(
    title: str,
    series: Mapping[str, Series],
    *,
    x_label: str,
    description: str,
    diagonal: bool = False,
) -> Chart:
    """Lay out `series` on axes that hold all their values.

    Args:
        title: above the chart.
        series: by name; at least one, each with at least one value. What is not finite is left out.
        x_label: below the chart.
        description: what a reader who cannot see the chart is told.
        diagonal: draw where x equals y, and use one range for both axes.
    """
    x_values = [x for one in series.values() for x in one.x]
    y_values = [y for one in series.values() for y in one.y]
    y_values += [end for one in series.values() for interval in one.intervals for end in interval]
    if diagonal:
        x_values = y_values = [*x_values, *y_values]
    whole = all(float(x).is_integer() for x in x_values)  # there is no epoch 1.5
    x_steps = nice_ticks(*_ends(x_values), smallest=1 if whole else 0)
    y_steps = nice_ticks(*_ends(y_values))
    x_range = _ends(x_values) if not diagonal else (x_steps[0], x_steps[-1])
    y_range = (y_steps[0], y_steps[-1])
    across = _scale(x_range, (LEFT, WIDTH - RIGHT))
    up = _scale(y_range, (HEIGHT - BOTTOM, TOP))

    def line(name: str, one: Series) -> Line:
        intervals = one.intervals or [(y, y) for y in one.y]
        points = []
        for x, y, (low, high) in zip(one.x, one.y, intervals, strict=True):
            if not math.isfinite(y):
                continue
            words = f"{name}: {y:.4g} at {x_label} {x:.4g}"
            points.append(Point(across(x), up(y), up(low), up(high), words))
        return Line(name, tuple(points))

    start, end = x_steps[0], x_steps[-1]
    return Chart(
        title=title,
        description=description,
        x_label=x_label,
        x_ticks=_labelled(across, [x for x in x_steps if x_range[0] <= x <= x_range[1]]),
        y_ticks=_labelled(up, y_steps),
        lines=tuple(line(name, one) for name, one in series.items()),
        diagonal=(across(start), up(start), across(end), up(end)) if diagonal else None,
    )


def nice_ticks(low: float, high: float, *, smallest: float = 0, count: int = 5) -> list[float]:
    """Return round numbers that enclose low…high, 1, 2 or 5 × 10ⁿ and at least `smallest` apart.

    >>> nice_ticks(0.12, 0.93)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = max((high - low) / count, smallest)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _ends(values: Sequence[float]) -> Range:
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _scale(source: Range, target: Range) -> _Scale:
    return _Scale(source[0], target[0], (target[1] - target[0]) / (source[1] - source[0]))


@dataclass(frozen=True)
class _Scale:
    """A straight map from values to places in the drawing."""

    first: float
    start: float
    factor: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.first) * self.factor, 1)


def _labelled(scale: _Scale, steps: Sequence[float]) -> tuple[Tick, ...]:
    """Return a tick a step, all written with as many decimals as the finest needs."""
    decimals = max(len(f"{step:.10g}".partition(".")[2]) for step in steps)
    return tuple(Tick(scale(step), f"{step:.{decimals}f}") for step in steps)
