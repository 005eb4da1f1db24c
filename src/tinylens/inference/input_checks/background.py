"""Foreground segmentation on a smooth background, with NumPy and Pillow.

The background colour is fitted to the image border and may vary smoothly, as lighting does. Pixels
that deviate from it by more than its own noise are the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEVELS = 16  # of brightness, in each histogram
RIM = 14  # of the image's side: how far in an outline reaches
RIDGE = 1e-3  # of the regression, for each image
NEWTON_ROUNDS = 25  # of Newton's method


def looks(grey: Floats, thing: Mask) -> Floats:
    """Compute brightness features of an object's inside and outline, shape (2 · LEVELS + 1,).

    Args:
        grey: Brightness from 0 to 255, shape (height, width).
        thing: Object mask, same shape.
    """
    rim = max(1, round(min(thing.shape) / RIM))
    inner = thing.copy()
    for _ in range(rim):
        inner = _eroded(inner)
    shares = [_histogram(grey[where]) for where in (inner, thing & ~inner)]
    return np.concatenate([*shares, [1.0]])


def learn(as_they_are: Floats, negatives: Floats) -> Floats:
    """Fit weights that separate images (positive) from their negatives (negative).

    Args:
        as_they_are: Features of `looks`, shape (n, features).
        negatives: Features of the inverted images, same shape.
    """
    rows = np.concatenate([as_they_are, negatives])
    wanted = np.repeat([1.0, 0.0], [len(as_they_are), len(negatives)])
    weights = np.zeros(rows.shape[1])
    ridge = RIDGE * len(rows) * np.eye(rows.shape[1])
    ridge[-1, -1] = 0.0  # the constant is free
    for _ in range(NEWTON_ROUNDS):
        answers = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        slope = rows.T @ (wanted - answers) - ridge @ weights
        curve = (rows * (answers * (1 - answers))[:, None]).T @ rows + ridge
        weights = weights + np.linalg.solve(curve + 1e-9 * np.eye(len(curve)), slope)
    return weights


def _histogram(levels: Floats) -> Floats:
    bins = np.clip(levels * (LEVELS / 256), 0, LEVELS - 1).astype(np.int64)
    counts: Floats = np.bincount(bins, minlength=LEVELS) / max(len(levels), 1)
    return counts


def _eroded(mask: Mask) -> Mask:
    """Erode a mask by one pixel; outside the image counts as inside the mask."""
    around = np.pad(mask, 1, constant_values=True)
    smaller: Mask = (
        mask & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    )
    return smaller


Pixels = NDArray[np.uint8]

LEAST_CONTRAST = 20.0  # grey levels by which a thing differs from its ground at least
SIGMAS = 3.5  # of the ground's own roughness, likewise
FIT_ROUNDS = 8  # of the robust fit: coefficients have settled by then
SMALL_PART = 0.05  # of the largest connected part: smaller ones are specks
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Window:
    """Image window in relative coordinates; may extend beyond the image."""

    top: float
    left: float
    height: float
    width: float

    @property
    def middle(self) -> tuple[float, float]:
        """Center, (down, right)."""
        return self.top + self.height / 2, self.left + self.width / 2


WHOLE = Window(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Ground:
    """Background model: a quadratic colour surface and its noise.

    Attributes:
        coefficients: Of 1, x, y, x², xy and y² with x and y from -1 to 1, shape (6, channels).
        roughness: Standard deviation of the border residuals in grey levels, without outliers.
    """

    coefficients: Floats
    roughness: float

    @staticmethod
    def flat(level: Sequence[float]) -> Ground:
        """Return a uniform, noise-free background."""
        coefficients = np.zeros((6, len(level)))
        coefficients[0] = level
        return Ground(coefficients, 0.0)

    @property
    def middle(self) -> Floats:
        """Colour at the image center, shape (channels,)."""
        colour: Floats = np.clip(self.coefficients[0], 0, 255)
        return colour

    def at(self, height: int, width: int, window: Window = WHOLE) -> Floats:
        """Evaluate the background over a window, float64 (height, width, channels).

        Args:
            height: Output rows.
            width: Output columns.
            window: Image window.
        """
        rows = window.top + window.height * (_places(height) + 1) / 2
        columns = window.left + window.width * (_places(width) + 1) / 2
        basis = _basis(*np.broadcast_arrays(2 * columns[None, :] - 1, 2 * rows[:, None] - 1))
        field: Floats = np.clip(basis @ self.coefficients, 0, 255)
        return field

    @property
    def contrast(self) -> float:
        """Threshold in grey levels above which a pixel is foreground."""
        return _contrast(self.roughness)


def reduced(pixels: Pixels, longest: int) -> Pixels:
    """Downscale an image to a maximum side by block means."""
    height, width = pixels.shape[:2]
    if max(height, width) <= longest:
        return pixels
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return resized(pixels, size, Image.Resampling.BOX)


def resized(
    pixels: Pixels,
    size: tuple[int, int],
    by: Image.Resampling,
    box: tuple[float, float, float, float] | None = None,
) -> Pixels:
    """Resize an image, or a window of it, to (width, height)."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize(size, by, box)).reshape(size[1], size[0], pixels.shape[2])


def border(pixels: Pixels) -> Pixels:
    """Return the border pixels of (…, height, width, channels): (…, count, channels)."""
    return pixels[..., _ring(pixels.shape[-3], pixels.shape[-2], 1), :]


def fit_ground(pixels: Pixels) -> Ground:
    """Fit the background to the border, robust to objects that touch it.

    Least absolute deviations by iteratively reweighted least squares, starting from the median
    colour, without outliers.

    Args:
        pixels: Downscaled image, shape (height, width, channels).
    """
    height, width = pixels.shape[:2]
    ring = _ring(height, width, max(1, min(height, width) // 20))
    rows, columns = np.nonzero(ring)
    basis = _basis(_places(width)[columns], _places(height)[rows])
    seen = pixels[ring].astype(np.float64)
    coefficients = np.zeros((basis.shape[1], seen.shape[1]))
    coefficients[0] = np.median(seen, axis=0)
    ridge = 1e-6 * len(seen) * np.eye(basis.shape[1])
    for _ in range(FIT_ROUNDS):
        residual = np.abs(seen - basis @ coefficients).max(axis=1)
        near = residual <= _contrast(MAD_TO_SIGMA * float(np.median(residual)))
        weighted = basis * (near / np.maximum(residual, 1.0))[:, None]
        coefficients = np.linalg.solve(weighted.T @ basis + ridge, weighted.T @ seen)
    residual = np.abs(seen - np.clip(basis @ coefficients, 0, 255)).max(axis=1)
    roughness = MAD_TO_SIGMA * float(np.median(residual))
    return Ground(coefficients, roughness)


def difference(pixels: Pixels, ground: Ground, window: Window = WHOLE) -> Floats:
    """Return the maximum channel difference from the background per pixel, in grey levels."""
    height, width = pixels.shape[:2]
    most: Floats = np.abs(pixels - ground.at(height, width, window)).max(axis=2)
    return most


def thing(apart: Mask) -> Mask:
    """Return the object mask, without specks and holes."""
    return filled(without_specks(apart)) if apart.any() else apart


def without_specks(mask: Mask) -> Mask:
    """Remove connected components much smaller than the largest."""
    names = spread(np.arange(1, mask.size + 1).reshape(mask.shape), mask)
    sizes = np.bincount(names[mask], minlength=mask.size + 1)
    kept: Mask = mask & (sizes >= SMALL_PART * sizes.max())[names]
    return kept


def filled(mask: Mask) -> Mask:
    """Fill the holes of a mask."""
    height, width = mask.shape
    outside = spread(_ring(height, width, 1).astype(np.int64), ~mask)
    closed: Mask = mask | (outside == 0)
    return closed


def spread(values: NDArray[np.int64], inside: Mask) -> NDArray[np.int64]:
    """Propagate the maximum value within each 4-connected component of `inside`.

    0 outside. Whole pixel runs are processed at once, so the number of rounds is about the number
    of bends in a path.
    """
    found = np.where(inside, values, 0)
    while True:
        before = found
        found = _along_rows(found, inside)
        found = _along_rows(found.T, inside.T).T
        if (found == before).all():
            return found


def box_of(mask: Mask) -> Window:
    """Return the bounding box of a non-empty mask."""
    (top, bottom), (left, right) = (
        np.flatnonzero(mask.any(axis=axis))[[0, -1]] / mask.shape[1 - axis] for axis in (1, 0)
    )
    height, width = mask.shape
    return Window(
        float(top), float(left), float(bottom - top + 1 / height), float(right - left + 1 / width)
    )


def _contrast(roughness: float) -> float:
    return max(LEAST_CONTRAST, SIGMAS * roughness)


def _along_rows(values: NDArray[np.int64], inside: Mask) -> NDArray[np.int64]:
    """Propagate the maximum within each run of pixels in a row."""
    starts = np.ones(inside.shape, bool)
    starts[:, 1:] = inside[:, 1:] != inside[:, :-1]
    first = np.flatnonzero(starts)
    largest = np.maximum.reduceat(values.ravel(), first)
    return np.repeat(largest, np.diff(first, append=values.size)).reshape(values.shape)


def _ring(height: int, width: int, ring: int) -> Mask:
    kept = np.ones((height, width), bool)
    kept[ring:-ring, ring:-ring] = False
    return kept


def _places(side: int) -> Floats:
    return (2 * np.arange(side) + 1) / side - 1


def _basis(x: Floats, y: Floats) -> Floats:
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
