"""Pictures whose sides have another ratio than is wanted: their middle, or padding around them.

All in whole numbers, so that the page in the browser comes to the same pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Size = tuple[int, ...]  # height and width in pixels


def cropped(image: Image.Image, height: int, width: int) -> Image.Image:
    """Return the largest part of the ratio height : width, from the middle, at its own size.

    >>> cropped(Image.new("L", (60, 20)), 8, 16).size
    (40, 20)
    """
    across, down = image.size
    if _is_wider((down, across), height, width):
        across = _share(down, width, height)
    else:
        down = _share(across, height, width)
    left, top = (image.width - across) // 2, (image.height - down) // 2
    return image.crop((left, top, left + across, top + down))


def inner_size(size: Size, height: int, width: int) -> tuple[int, int]:
    """Return how high and wide a picture of `size` is within the padding of height × width.

    >>> inner_size((20, 60), 8, 16)
    (5, 16)
    """
    if _is_wider(size, height, width):
        return _share(size[0], width, size[1]), width
    return height, _share(size[1], height, size[0])


def outer_size(size: Size, height: int, width: int) -> tuple[int, int]:
    """Return the size of the ratio height : width around a picture that is left at its own.

    >>> outer_size((20, 60), 8, 16)
    (30, 60)
    """
    if _is_wider(size, height, width):
        return max(_share(size[1], height, width), size[0]), size[1]
    return size[0], max(_share(size[0], width, height), size[1])


def padded(inner: Pixels, height: int, width: int) -> Pixels:
    """Return a picture in the middle of height × width, on the mean of the edges that it shows.

    Args:
        inner: uint8, shape (h, w, channels), as high or as wide as the result.
        height: of the result, in pixels.
        width: likewise.
    """
    down, across, channels = inner.shape
    if (down, across) == (height, width):
        return inner
    edges = inner[[0, -1]] if down < height else inner[:, [0, -1]]
    sums = edges.sum(axis=(0, 1), dtype=np.int64)
    count = edges.shape[0] * edges.shape[1]
    result = np.empty((height, width, channels), np.uint8)
    result[:] = (2 * sums + count) // (2 * count)  # rounded
    top, left = (height - down) // 2, (width - across) // 2
    result[top : top + down, left : left + across] = inner
    return result


def _is_wider(size: Size, height: int, width: int) -> bool:
    return size[1] * height > size[0] * width


def _share(side: int, times: int, of: int) -> int:
    """Return side · times / of, rounded, at least 1."""
    return max((2 * side * times + of) // (2 * of), 1)
