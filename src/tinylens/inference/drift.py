"""Data drift detection by the population stability index.

A model file stores decile histograms of confidence, brightness and contrast over val. The server
fills the same bins with its images and computes the population stability index (Siddiqi, Credit
Risk Scorecards, 2006). The usual threshold of 0.25 ignores sampling noise, so the 95 % quantile
without drift is reported too (Yurdakul & Naranjo 2020, Journal of Risk Model Validation 14:
without drift, the index is distributed as χ² times the sum of both reciprocal counts).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.errors import DataError

WATCHED = ("confidence", "brightness", "contrast")
TENTHS = tuple(tenth / 10 for tenth in range(1, 10))
MOST_IMAGES = 10_000  # that a reference is made of: its shares are then right to 0.003


@dataclass(frozen=True)
class Spread:
    """Reference histogram of one statistic.

    Attributes:
        edges: Inner bin edges, ascending; a value at an edge belongs to the upper bin.
        shares: Share of images per bin, one more than edges; sums to 1.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        edges, shares = self.edges, self.shares
        if len(shares) != len(edges) + 1 or any(np.diff(edges) <= 0):
            raise DataError(f"a spread has the edges {edges} and the shares {shares}")
        if not math.isclose(sum(shares), 1, abs_tol=1e-6) or min(shares) < 0:
            raise DataError(f"the shares of a spread are {shares}, expected a sum of 1")


@dataclass(frozen=True)
class Reference:
    """Reference histograms for drift detection.

    Attributes:
        part: Split, such as "val".
        images: Number of images.
        spreads: Histograms by statistic.
    """

    part: str
    images: int
    spreads: Mapping[str, Spread]

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        spreads = {
            name: {"edges": list(spread.edges), "shares": list(spread.shares)}
            for name, spread in self.spreads.items()
        }
        return {"part": self.part, "images": self.images, "spreads": spreads}

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> Reference:
        """Return what `to_json` gave.

        Raises:
            DataError: a spread that cannot be.
        """
        spreads = {
            str(name): Spread(tuple(map(float, row["edges"])), tuple(map(float, row["shares"])))
            for name, row in tree["spreads"].items()
        }
        return Reference(str(tree["part"]), int(tree["images"]), spreads)


def measure(
    images: NDArray[np.uint8], confidence: NDArray[np.floating[Any]]
) -> dict[str, NDArray[np.floating[Any]]]:
    """Compute the monitored statistics by name, each of shape (n,).

    Brightness is the mean over all pixels and channels and contrast their standard deviation, in
    levels from 0 to 255.

    Args:
        images: uint8, shape (n, height, width, channels), preprocessed.
        confidence: Highest class probability, shape (n,).
    """
    flat = images.reshape(len(images), -1).astype(np.float32)
    return {"confidence": confidence, "brightness": flat.mean(axis=1), "contrast": flat.std(axis=1)}


def reference(
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    confidence: NDArray[np.floating[Any]],
    part: str,
) -> Reference:
    """Compute the decile histograms of the monitored statistics.

    Args:
        images: uint8, shape (n, height, width, channels).
        rows: Rows of classified images, shape (m,); at most 10,000 are used.
        confidence: Calibrated confidence of those rows, shape (m,).
        part: Split name.
    """
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST_IMAGES)).astype(np.int64)
    figures = measure(np.asarray(images[rows[chosen]]), confidence[chosen])
    return Reference(part, len(chosen), {name: _spread(each) for name, each in figures.items()})


def count(values: NDArray[np.floating[Any]], edges: Sequence[float]) -> list[int]:
    """Count the values per bin.

    >>> count(np.array([0.1, 0.5, 0.7]), [0.5])
    [1, 2]
    """
    places = np.searchsorted(np.asarray(edges), values, side="right")
    return [int(number) for number in np.bincount(places, minlength=len(edges) + 1)]


def stability_index(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Compute the population stability index of counts against reference shares.

    Half an image is added to each bin to keep empty bins finite.

    >>> round(stability_index([100, 100], [0.5, 0.5]), 3)
    0.0
    >>> round(stability_index([190, 10], [0.5, 0.5]), 2)
    1.3
    """
    bins = len(counts)
    found = (np.asarray(counts) + 0.5) / (sum(counts) + 0.5 * bins)
    expected = (np.asarray(shares) + 1e-4) / (1 + 1e-4 * bins)
    return float(((found - expected) * np.log(found / expected)).sum())


def by_luck(counts: Sequence[int], images: int) -> float:
    """Return the 95 % quantile of the index without drift.

    The χ² quantile is that of Wilson & Hilferty (1931), accurate to 1 % here.

    Args:
        counts: Compared images per bin.
        images: Number of reference images.
    """
    freedom = len(counts) - 1
    if not sum(counts) or not images or not freedom:
        return math.inf
    share = 2 / (9 * freedom)
    quantile = freedom * (1 - share + 1.6449 * math.sqrt(share)) ** 3
    return float(quantile * (1 / sum(counts) + 1 / images))


def _spread(values: NDArray[np.floating[Any]]) -> Spread:
    """Return a decile histogram, with fewer bins if many values are equal."""
    tenths = np.quantile(values.astype(np.float64), TENTHS)
    edges = tuple(sorted({float(f"{edge:.6g}") for edge in tenths}))
    counts = count(values, edges)
    return Spread(edges, tuple(number / len(values) for number in counts))
