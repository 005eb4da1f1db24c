"""Data sets for tests, drawn by NumPy in a moment."""

from __future__ import annotations

import numpy as np

from tinylens.data.dataset import Dataset, Splits

GRID = 4  # a class is a pattern of 4 × 4 squares


def tiny_dataset(
    image_shape: tuple[int, int, int] = (28, 28, 1),
    num_classes: int = 4,
    count: int = 64,
    seed: int = 0,
) -> Dataset:
    """Return images that a network can learn: each class is a pattern of squares, with noise.

    The patterns depend on shape and classes alone, so data sets of two seeds are two draws from
    one distribution: train on the one, test on the other.

    Args:
        image_shape: height, width, channels.
        num_classes: as many images of each class as `count` allows.
        count: images.
        seed: of the noise and the order.

    >>> data = tiny_dataset((8, 8, 3), num_classes=2, count=6)
    >>> data.images.shape, data.counts.tolist()
    ((6, 8, 8, 3), [3, 3])
    """
    height, width, channels = image_shape
    patterns = np.random.default_rng([num_classes, channels]).uniform(
        32, 224, (num_classes, GRID, GRID, channels)
    )
    rows, columns = np.arange(height) * GRID // height, np.arange(width) * GRID // width
    random = np.random.default_rng([seed, 0x7E57])
    labels = random.permutation(np.arange(count) % num_classes)
    images = patterns[labels][:, rows][:, :, columns]
    noise = random.normal(0, 24, (count, height, width, channels))
    return Dataset(
        np.clip(images + noise, 0, 255).astype(np.uint8),
        labels,
        tuple(f"pattern {number}" for number in range(num_classes)),
        source="tiny",
    )


def tiny_splits(
    image_shape: tuple[int, int, int] = (28, 28, 1),
    num_classes: int = 4,
    count: int = 64,
    seed: int = 0,
) -> Splits:
    """Return `tiny_dataset` as train, val and test splits of `count` images each.

    >>> [len(part) for _, part in tiny_splits((8, 8, 1), count=8).items()]
    [8, 8, 8]
    """
    train, val, test = (
        tiny_dataset(image_shape, num_classes, count, seed=3 * seed + part) for part in range(3)
    )
    return Splits(train, val, test)
