"""Where a classifier sees a class, found by covering an image bit by bit; no gradient is needed.

So it works on a bare model.onnx, or on whatever else answers with probabilities.
"""

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
    """Return by how much the log-odds of a class fall where a square covers the image.

    A square is slid over the image (Zeiler & Fergus 2014, arXiv:1311.2901), and each pixel gets
    the mean fall over the squares that cover it; below 0 the place speaks against the class. The
    paper has the fall of the probability. That of a sure answer hardly falls at all, though the
    evidence goes: from log-odds of 12 to 6 it falls by 0.0025. So here it is log-odds, in nats.

    The square has the image's own mean colour: it takes away what is drawn there and leaves the
    brightness as it was, where black or white would draw something new.

    Args:
        classify: uint8 images → probabilities, float32, shape (n, classes).
        images: uint8, shape (n, height, width, channels).
        labels: the class that is asked about, of each image, int64, shape (n,).
        progress: called with images done and images in all.

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
    """Return the upper left corners of the squares, and their side; together they cover all."""
    side = max(min(height, width) // SQUARES_A_SIDE, 1)
    step = max(side // STEPS_A_SQUARE, 1)
    rows, columns = (
        sorted({*range(0, length - side, step), length - side}) for length in (height, width)
    )
    return [(top, left) for top in rows for left in columns], side


def _covered(image: NDArray[np.uint8], corners: list[tuple[int, int]], side: int) -> Images:
    """Return an image as often as there are squares, each time with one of them covered."""
    colour = image.mean(axis=(0, 1)).round().astype(np.uint8)
    covered = np.repeat(image[None], len(corners), axis=0)
    for number, (top, left) in enumerate(corners):
        covered[number, top : top + side, left : left + side] = colour
    return covered


def _log_odds(probabilities: NDArray[np.float32], label: int) -> NDArray[np.float64]:
    """Return log p - log (1 - p); 1 - p is summed over the others, or it would round to 0."""
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
