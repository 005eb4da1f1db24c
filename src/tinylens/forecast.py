"""What accuracy a plan can be expected to reach: that of such plans on two known sets.

Error falls with the operations of a training along a curve that is nearly straight on two
logarithmic scales (Hestness et al. 2017, arXiv:1712.00409); between the points that were measured
it is read off, beyond them the curve goes on flat.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

# operations of a training and accuracy on test: recipe fast with more and fewer epochs, narrower on
# CIFAR-10, wider on Fashion-MNIST, and accurate; means of 3 seeds: benchmarks/time_to_accuracy.py
MEASURED: dict[str, tuple[tuple[float, float], ...]] = {
    "Fashion-MNIST": (
        (4.0e12, 0.907),
        (1.39e13, 0.933),
        (2.38e13, 0.936),
        (9.02e13, 0.943),
        (1.8e14, 0.947),
    ),
    "CIFAR-10 (JPEG)": (
        (3.67e12, 0.716),
        (5.57e12, 0.780),
        (1.38e13, 0.838),
        (1.79e14, 0.892),
        (3.58e14, 0.898),
    ),
}


@dataclass(frozen=True)
class Forecast:
    """Accuracy that plans of this size reached on each of the sets in MEASURED."""

    by_set: dict[str, float]

    @property
    def band(self) -> tuple[float, float]:
        """The lowest and the highest of them."""
        return min(self.by_set.values()), max(self.by_set.values())

    @property
    def words(self) -> str:
        """The forecast in one line."""
        each = (f"{accuracy:.2f} on pictures like {name}" for name, accuracy in self.by_set.items())
        return "expect an accuracy of about " + ", ".join(each)


def forecast(operations: float) -> Forecast:
    """Return what a training of so many floating-point operations can be expected to reach.

    >>> low, high = forecast(5e13).band
    >>> 0.83 < low < 0.89 < high < 0.95
    True
    """
    return Forecast(
        {name: round(_read_off(points, operations), 4) for name, points in MEASURED.items()}
    )


def _read_off(points: tuple[tuple[float, float], ...], operations: float) -> float:
    """Return the accuracy at `operations`, between two points straight on logarithmic scales."""
    if operations <= points[0][0]:
        return points[0][1]
    for (low, before), (high, after) in itertools.pairwise(points):
        if operations <= high:
            share = math.log(operations / low) / math.log(high / low)
            return 1 - (1 - before) * float(((1 - after) / (1 - before)) ** share)
    return points[-1][1]
