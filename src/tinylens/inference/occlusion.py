"""Occlusion sensitivity maps: gradient-free explanations for any probabilistic classifier."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tinylens.data.dataset import Images, Labels
from tinylens.errors import DataError
from tinylens.heatmaps import Heatmaps

Classify = Callable[[Images], NDArray[np.float32]]
Progress = Callable[[int, int], None]

SQUARES_A_SIDE = 4  # a square is a quarter of the image's shorter side
STEPS_A_SQUARE = 3  # by which it moves on: 100 to 170 squares an image, whatever its size
SMALLEST = np.finfo(np.float32).tiny  # for a probability that has become 0


def occlusion(
    classify: Classify, images: Images, labels: Labels, progress: Progress | None = None
) -> Heatmaps:
    """Compute occlusion maps: the drop in a class's log-odds under a sliding square.

    Each pixel gets the mean drop over the squares that cover it (Zeiler & Fergus 2014,
    arXiv:1311.2901); negative values are evidence against the class. Log-odds, in nats, instead of
    the paper's probability, which saturates: from log-odds 12 to 6 it drops by only 0.0025.

    The square has the image's mean colour: black or white would add a new feature.

    Args:
        classify: Function of uint8 images → probabilities, float32, shape (n, classes).
        images: uint8, shape (n, height, width, channels).
        labels: Class to explain per image, int64, shape (n,).
        progress: Callback of (images done, total images).

    Returns:
        float32, shape (n, height, width), in nats.

    Raises:
        DataError: there is not one label an image.
    """
    if labels.shape != (len(images),):
        raise DataError(
            f"{len(images)} images, and labels of shape {labels.shape}; expected one an image"
        )
    corners, side = _squares(images.shape[1], images.shape[2])
    maps = np.empty(images.shape[:3], np.float32)
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        answers = classify(np.concatenate([image[None], _covered(image, corners, side)]))
        whole, *rest = _log_odds(answers, int(label))
        maps[row] = _mean_over_squares(whole - np.array(rest), corners, side, image.shape[:2])
        if progress:
            progress(row + 1, len(images))
    return maps


def _squares(height: int, width: int) -> tuple[list[tuple[int, int]], int]:
    """Return the top-left corners and side of squares that cover the image."""
    side = max(min(height, width) // SQUARES_A_SIDE, 1)
    step = max(side // STEPS_A_SQUARE, 1)
    rows, columns = (
        sorted({*range(0, length - side, step), length - side}) for length in (height, width)
    )
    return [(top, left) for top in rows for left in columns], side


def _covered(image: NDArray[np.uint8], corners: list[tuple[int, int]], side: int) -> Images:
    """Return one copy of the image per square, with that square occluded."""
    colour = image.mean(axis=(0, 1)).round().astype(np.uint8)
    covered = np.repeat(image[None], len(corners), axis=0)
    for number, (top, left) in enumerate(corners):
        covered[number, top : top + side, left : left + side] = colour
    return covered


def _log_odds(probabilities: NDArray[np.float32], label: int) -> NDArray[np.float64]:
    """Compute log p - log (1 - p), with 1 - p summed over the other classes for precision."""
    others = np.delete(probabilities, label, axis=1).sum(axis=1, dtype=np.float64)
    own = probabilities[:, label].astype(np.float64)
    odds: NDArray[np.float64] = np.log(np.maximum(own, SMALLEST) / np.maximum(others, SMALLEST))
    return odds


def _mean_over_squares(
    falls: NDArray[np.float64],
    corners: list[tuple[int, int]],
    side: int,
    size: tuple[int, ...],
) -> NDArray[np.float64]:
    sums, counts = np.zeros(size), np.zeros(size)
    for fall, (top, left) in zip(falls, corners, strict=True):
        place = slice(top, top + side), slice(left, left + side)
        sums[place] += fall
        counts[place] += 1
    mean: NDArray[np.float64] = sums / counts
    return mean
