"""Which mistakes to keep pictures of: some of every confusion, under a budget of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinylens.metrics import Labels, Probabilities

PICTURES_A_CONFUSION = 6  # at most: a row of them on a desktop, two on a phone
PIXEL_BYTES = 3_000_000  # of all: as base64 in a report 4 MB where no picture can be compressed
SHOWN_SIDE = 128  # pixels; a larger picture is shown smaller, and costs a report no more than that


def confused(
    probabilities: Probabilities, labels: Labels, image_shape: tuple[int, int, int]
) -> NDArray[np.int64]:
    """Return rows of mistakes, some of every confusion, the most confident of each first.

    Where the budget does not hold all, confusions get their pictures in proportion to how often
    they occur, as parties do their seats (D'Hondt 1882).

    Args:
        probabilities: float, shape (n, classes).
        labels: int64, shape (n,).
        image_shape: height, width and channels of the pictures.

    >>> answers = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]], np.float32)
    >>> confused(answers, np.array([1, 1, 0, 1]), (28, 28, 1)).tolist()
    [0, 3, 2, 1]
    """
    classes = probabilities.shape[1]
    answers = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(answers != labels)
    wrong = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
    pairs = labels[wrong] * classes + answers[wrong]
    rank = _rank_among_equals(pairs)
    quotient = np.bincount(pairs, minlength=classes**2)[pairs] / (rank + 1)
    order = np.argsort(-quotient, kind="stable")
    kept = order[rank[order] < PICTURES_A_CONFUSION][: _affordable(image_shape)]
    return wrong[kept].astype(np.int64)


def _affordable(image_shape: tuple[int, int, int]) -> int:
    height, width, channels = image_shape
    return PIXEL_BYTES // (min(height, SHOWN_SIDE) * min(width, SHOWN_SIDE) * channels)


def _rank_among_equals(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many equal values come before each."""
    order = np.argsort(values, kind="stable")
    _, starts, counts = np.unique(values[order], return_index=True, return_counts=True)
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values)) - np.repeat(starts, counts)
    return rank
