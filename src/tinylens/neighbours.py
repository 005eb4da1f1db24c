"""The nearest pictures to a picture, by what a network sees in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 1_000  # pictures compared with all at a time

Features = NDArray[np.float32]
Rows = NDArray[np.int64]


def nearest(
    features: Features, reference: Features, count: int, *, same: bool = False
) -> tuple[Rows, NDArray[np.float32]]:
    """Return the nearest neighbours of each picture, the nearest first, and how far they are.

    Distances are between directions: on the unit sphere, from 0 to 2.

    Args:
        features: of the pictures, shape (n, f).
        reference: of those among which neighbours are looked for, shape (m, f).
        count: of neighbours; fewer where there are fewer.
        same: whether `features` are `reference`: then a picture is no neighbour of its own.

    Returns:
        Rows of `reference`, int64, and distances, float32, each of shape (n, count).

    >>> corners = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    >>> rows, distances = nearest(np.array([[2, 1]], np.float32), corners, 2)
    >>> rows.tolist(), distances.astype(float).round(3).tolist()
    ([[0, 1]], [[0.46, 1.051]])
    """
    ours, theirs = _on_the_sphere(features), _on_the_sphere(reference)
    count = min(count, len(theirs) - same)
    rows = np.empty((len(ours), count), np.int64)
    distances = np.empty((len(ours), count), np.float32)
    for start in range(0, len(ours), BLOCK):
        alike = ours[start : start + BLOCK] @ theirs.T
        if same:
            alike[np.arange(len(alike)), start + np.arange(len(alike))] = -np.inf
        found = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(alike, found, axis=1)
        order = np.lexsort((found, -values), axis=1)  # of equally near ones the first
        rows[start : start + BLOCK] = np.take_along_axis(found, order, axis=1)
        values = np.take_along_axis(values, order, axis=1)
        distances[start : start + BLOCK] = np.sqrt(np.maximum(2 - 2 * values, 0))
    return rows, distances


def _on_the_sphere(features: Features) -> Features:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    result: Features = (features / np.maximum(lengths, 1e-12)).astype(np.float32)
    return result
