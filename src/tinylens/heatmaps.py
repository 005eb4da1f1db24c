"""Heatmaps: what each place of an image says of a class, in numbers from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Heatmaps = NDArray[np.float32]


@dataclass(frozen=True)
class Line:
    """Where the middles of places lie along an axis, in pixels; 0 is the middle of the first pixel.

    Attributes:
        first: the middle of the first place.
        step: from one to the next, larger than 0.
    """

    first: float
    step: float

    def shares(self, count: int, pixels: int) -> NDArray[np.float64]:
        """Return the shares of `count` places in each pixel, shape (pixels, count)."""
        nearest = np.clip((np.arange(pixels) - self.first) / self.step, 0, count - 1)
        shares: NDArray[np.float64] = 1 - np.abs(nearest[:, None] - np.arange(count))
        return np.maximum(shares, 0.0)


Grid = tuple[Line, Line]  # rows and columns


def highest_one(maps: NDArray[Any]) -> Heatmaps:
    """Return maps whose largest value is 1, what is below 0 left out; float32, same shape.

    A map without a value above 0 is 0 everywhere.

    Args:
        maps: shape (n, height, width).

    >>> highest_one(np.array([[[-2.0, 1.0, 4.0]], [[-1.0, -2.0, 0.0]]])).tolist()
    [[[0.0, 0.25, 1.0]], [[0.0, 0.0, 0.0]]]
    """
    above = np.maximum(maps, 0.0)
    highest = above.max(axis=(1, 2), keepdims=True)
    scaled: Heatmaps = (above / np.where(highest > 0, highest, 1)).astype(np.float32)
    return scaled


def upsampled(
    maps: NDArray[Any], size: tuple[int, ...], grid: Grid | None = None
) -> NDArray[np.float64]:
    """Return maps in another size, linear between the middles of their places; float64.

    Beyond the outermost middles the nearest value holds on.

    Args:
        maps: shape (n, h, w).
        size: height and width of the result, in pixels.
        grid: where the middles lie. None lets the places share the image evenly, as pixels of a
            coarser image do ("half-pixel centres").

    >>> upsampled(np.array([[[0.0, 1.0]]]), (1, 4)).tolist()
    [[[0.0, 0.25, 0.75, 1.0]]]
    >>> upsampled(np.array([[[0.0, 1.0]]]), (1, 4), (Line(0, 1), Line(0, 2))).tolist()
    [[[0.0, 0.5, 1.0, 1.0]]]
    """
    even = (
        Line((new / old - 1) / 2, new / old) for old, new in zip(maps.shape[1:], size, strict=True)
    )
    shares = [
        line.shares(old, new)
        for line, old, new in zip(grid or even, maps.shape[1:], size, strict=True)
    ]
    result: NDArray[np.float64] = shares[0] @ maps.astype(np.float64) @ shares[1].T
    return result
