"""Outlier detection by nearest-neighbour distance of features, and blank images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinylens.data.dataset import Images

Features = NDArray[np.float32]

NEIGHBOURS = 10
FENCE = 3.0  # interquartile ranges above the third quartile: Tukey's outer fence
FLAT = 2.0  # grey levels of standard deviation: below it an image shows nothing
MOSTLY = 0.95  # of the images are coloured: then a grey one is odd
BLOCK = 1_000  # images looked at at a time


def unlikeness(features: Features, reference: Features, *, same: bool) -> NDArray[np.float32]:
    """Compute each image's mean k-nearest-neighbour distance, float32, shape (n,).

    On the unit sphere (Sun et al. 2022, "Out-of-distribution detection with deep nearest
    neighbors", arXiv:2204.06507, which uses the k-th distance).

    Args:
        features: Image features, shape (n, f).
        reference: Training-image features, shape (m, f).
        same: Whether `features` are `reference`, which excludes self-matches.
    """
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    count = min(NEIGHBOURS, len(reference) - same)
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(normalize(reference))
    distances, _ = search.kneighbors(None if same else normalize(features))
    return np.asarray(distances.mean(axis=1), np.float32)


def fence(distances: NDArray[np.float32]) -> float:
    """Return the outlier threshold from the distances of normal images.

    Computed on a log scale, since distances are positive with a long upper tail.
    """
    logarithms = np.log(np.maximum(distances, 1e-6))
    low, high = np.quantile(logarithms, [0.25, 0.75])
    return float(np.exp(high + FENCE * (high - low)))


def flat(images: Images) -> NDArray[np.int64]:
    """Return the rows of nearly uniform images, int64."""
    spread = np.empty(len(images))
    for start in range(0, len(images), BLOCK):
        spread[start : start + BLOCK] = images[start : start + BLOCK].std(axis=(1, 2)).max(axis=1)
    return np.flatnonzero(spread < FLAT).astype(np.int64)


def grey_among_coloured(images: Images) -> NDArray[np.int64]:
    """Return the rows of grey images in a colour dataset, int64."""
    if images.shape[3] == 1:
        return np.zeros(0, np.int64)
    grey = np.empty(len(images), bool)
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        grey[start : start + BLOCK] = (block == block[..., :1]).all(axis=(1, 2, 3))
    rows = np.flatnonzero(grey).astype(np.int64)
    return rows if len(rows) <= (1 - MOSTLY) * len(images) else rows[:0]
