"""Data augmentation as pure functions of images and random draws.

Draws come from the host (`batches.draws`), so batches are identical on every backend and after a
resume.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from tinylens.recipe import AugmentSection

# the columns of `draws`, uniform in [0, 1)
ROW, COLUMN, FLIP, CUTOUT_ROW, CUTOUT_COLUMN, BRIGHTNESS, CONTRAST = range(7)
NUM_DRAWS = 7


def augment(images: Any, draws: Any, spec: AugmentSection) -> Any:
    """Augment a batch of images.

    Args:
        images: float tensor of pixel values 0 to 255, shape (batch, height, width, channels).
        draws: float32, shape (batch, NUM_DRAWS), uniform in [0, 1); for "alternating" flips the
            FLIP column already alternates from epoch to epoch.
        spec: Augmentation settings.
    """
    if spec.shift or spec.flip != "none":
        images = shift_and_flip(images, draws, spec.shift, spec.flip != "none")
    if spec.brightness or spec.contrast:
        images = change_light(images, draws, spec.brightness, spec.contrast)
    if spec.cutout:
        images = cut_out(images, draws, spec.cutout)
    return images


def shift_and_flip(images: Any, draws: Any, largest: int, flip: bool) -> Any:
    """Randomly shift by up to `largest` pixels with reflected borders, and flip horizontally."""
    height, width, channels = images.shape[1:]
    rows = _moved(draws[:, ROW], height, largest)
    columns = _moved(draws[:, COLUMN], width, largest)
    if flip:
        mirrored = (width - 1) - columns
        columns = ops.where(draws[:, FLIP, None] < 0.5, columns, mirrored)
    image = ops.arange(ops.shape(images)[0], dtype="int32")[:, None, None] * (height * width)
    pixel = image + rows[:, :, None] * width + columns[:, None, :]
    return ops.take(ops.reshape(images, (-1, channels)), pixel, axis=0)


def change_light(images: Any, draws: Any, brightness: float, contrast: float) -> Any:
    """Scale each image around its mean by 1 ± contrast and add ± brightness · 255."""
    shape = (-1, 1, 1, 1)
    gain = ops.reshape(1 + contrast * (2 * draws[:, CONTRAST] - 1), shape)
    offset = ops.reshape(255 * brightness * (2 * draws[:, BRIGHTNESS] - 1), shape)
    gain, offset = ops.cast(gain, images.dtype), ops.cast(offset, images.dtype)
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    return (images - mean) * gain + mean + offset


def cut_out(images: Any, draws: Any, side: int) -> Any:
    """Cutout: set a random square of `side` pixels, possibly clipped, to the image's mean."""
    height, width = images.shape[1:3]
    inside = _span(draws[:, CUTOUT_ROW], height, side)[:, :, None]
    inside = ops.logical_and(inside, _span(draws[:, CUTOUT_COLUMN], width, side)[:, None, :])
    mean = ops.mean(images, axis=(1, 2), keepdims=True)
    return ops.where(inside[..., None], mean, images)


def shrink(images: Any, height: int, width: int) -> Any:
    """Downscale with Pillow's antialiased bilinear (triangle) filter.

    Args:
        images: float tensor, shape (batch, height, width, channels).
        height: Output height, at most that of the images.
        width: Output width, likewise.
    """
    rows = ops.convert_to_tensor(_triangles(images.shape[1], height), dtype=images.dtype)
    columns = ops.convert_to_tensor(_triangles(images.shape[2], width), dtype=images.dtype)
    images = ops.einsum("hi,bijc->bhjc", rows, images)
    return ops.einsum("wj,bhjc->bhwc", columns, images)


def _triangles(before: int, after: int) -> NDArray[np.float32]:
    """Return the resampling weights of a shorter row, shape (after, before)."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    distance = np.abs(np.arange(before)[None, :] + 0.5 - centres[:, None]) / scale
    weights = np.maximum(1 - distance, 0)
    shares: NDArray[np.float32] = weights / weights.sum(axis=1, keepdims=True)
    return shares.astype(np.float32)


def _moved(draw: Any, length: int, largest: int) -> Any:
    """Return int32 coordinates (batch, length), shifted by -largest…largest and reflected."""
    offset = ops.cast(ops.floor(draw * (2 * largest + 1)), "int32") - largest
    place = ops.arange(length, dtype="int32")[None, :] + offset[:, None]
    place = ops.mod(place, max(2 * (length - 1), 1))  # a small image is reflected repeatedly
    return (length - 1) - ops.abs((length - 1) - place)


def _span(draw: Any, length: int, side: int) -> Any:
    """Return a bool mask (batch, length) of `side` pixels around a random centre."""
    start = ops.cast(ops.floor(draw * length), "int32")[:, None] - side // 2
    place = ops.arange(length, dtype="int32")[None, :]
    return ops.logical_and(place >= start, place < start + side)
