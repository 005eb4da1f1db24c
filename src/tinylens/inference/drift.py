"""Whether the images that a model is asked about are still like those it was made on.

A model file keeps how confidence, brightness and contrast are spread over val's images, in
tenths. The server counts its own images into the same bins and compares: the population stability
index (Siddiqi, Credit Risk Scorecards, 2006) is 0 where the shares are equal. Its usual reading,
"over 0.25 it has moved", forgets that few images differ by luck alone, so the index that luck
gives in one of 20 times is told with it (Yurdakul & Naranjo 2020, Journal of Risk Model Validation
14: without a change, the index is distributed as χ² times the sum of both reciprocal counts).
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
    """How one figure is spread over the images of a reference.

    Attributes:
        edges: between the bins, ascending; a value at an edge belongs above it.
        shares: of the images, one a bin, one more than edges; they sum to 1.
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
    """What a model's images looked like when it was made.

    Attributes:
        part: of the data, such as "val".
        images: how many it was computed on.
        spreads: by the name of what is watched.
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
    """Return what is watched, by name, each of shape (n,).

    Brightness is the mean over all pixels and channels and contrast their standard deviation, in
    levels from 0 to 255.

    Args:
        images: uint8, shape (n, height, width, channels), as the network sees them.
        confidence: the probability of the likeliest class, shape (n,).
    """
    flat = images.reshape(len(images), -1).astype(np.float32)
    return {"confidence": confidence, "brightness": flat.mean(axis=1), "contrast": flat.std(axis=1)}


def reference(
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    confidence: NDArray[np.floating[Any]],
    part: str,
) -> Reference:
    """Return how what is watched is spread over images, by the tenths of each figure.

    Args:
        images: uint8, shape (n, height, width, channels).
        rows: the images that were answered, shape (m,); at most 10,000 are looked at.
        confidence: of the calibrated answers to those, shape (m,).
        part: the part of the data that they are.
    """
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST_IMAGES)).astype(np.int64)
    figures = measure(np.asarray(images[rows[chosen]]), confidence[chosen])
    return Reference(part, len(chosen), {name: _spread(each) for name, each in figures.items()})


def count(values: NDArray[np.floating[Any]], edges: Sequence[float]) -> list[int]:
    """Return how many values fall into each bin.

    >>> count(np.array([0.1, 0.5, 0.7]), [0.5])
    [1, 2]
    """
    places = np.searchsorted(np.asarray(edges), values, side="right")
    return [int(number) for number in np.bincount(places, minlength=len(edges) + 1)]


def stability_index(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Return the population stability index of counted images against a reference's shares.

    Half an image is added to each bin, so that an empty one does not make it infinite.

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
    """Return the index that an unchanged source exceeds in one of 20 times.

    χ²'s quantile is that of Wilson & Hilferty (1931), good to 1 % here.

    Args:
        counts: of the images that are compared, by bin.
        images: of the reference.
    """
    freedom = len(counts) - 1
    if not sum(counts) or not images or not freedom:
        return math.inf
    share = 2 / (9 * freedom)
    quantile = freedom * (1 - share + 1.6449 * math.sqrt(share)) ** 3
    return float(quantile * (1 / sum(counts) + 1 / images))


def _spread(values: NDArray[np.floating[Any]]) -> Spread:
    """Return tenths; fewer where many values are the same, as confidences of 1 often are."""
    tenths = np.quantile(values.astype(np.float64), TENTHS)
    edges = tuple(sorted({float(f"{edge:.6g}") for edge in tenths}))
    counts = count(values, edges)
    return Spread(edges, tuple(number / len(values) for number in counts))
