"""Test-time augmentation and ensembles as part of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

LEAST = 1e-30  # added to the mean: a probability of 0 has no logarithm


def mean_logits(members: Sequence[keras.Model]) -> keras.Model:
    """Build an ensemble that outputs the log of the members' mean probabilities.

    Args:
        members: Models from equal image shapes to probabilities of equal classes; layers are
            shared, not copied.
    """
    first = members[0]
    images = keras.Input(first.input_shape[1:], dtype=first.input.dtype, name="image")
    answers = [
        # a model is a layer here, and layers need names of their own
        keras.Model(member.input, member.output, name=f"member_{number}")(images)
        for number, member in enumerate(members, start=1)
    ]
    mean = keras.layers.Average(dtype="float32", name="mean")(answers)
    positive = keras.layers.Rescaling(1.0, offset=LEAST, dtype="float32", name="positive")(mean)
    return keras.Model(images, keras.ops.log(positive), name="mean_logits")


MIRRORED, SHIFTED = 2, 6  # views that `averaged` knows


def averaged(network: keras.Model, tta_views: int) -> keras.Model:
    """Build a model that averages the logits of `network` over augmented views.

    Args:
        network: Model from pixel values to logits; layers are shared, not copied.
        tta_views: 2 takes the image and its mirror image. 6 adds both, moved by one pixel up and
            left, and down and right; the four moved ones together weigh as much as the two unmoved
            (Jordan 2024, arXiv:2404.00498, section 3.5).

    Raises:
        ValueError: another number of views.
    """
    if tta_views not in (MIRRORED, SHIFTED):
        raise ValueError(f"{tta_views} views; there are {MIRRORED} or {SHIFTED}")
    images = keras.Input(network.input_shape[1:], dtype=network.input.dtype, name="image")
    mean = _with_mirrored(network, images)
    if tta_views == SHIFTED:
        moved = [_with_mirrored(network, _moved(images, start=side)) for side in (True, False)]
        mean = keras.layers.Average(dtype="float32")(
            [mean, keras.layers.Average(dtype="float32")(moved)]
        )
    return keras.Model(images, mean, name=f"{network.name}_{tta_views}_views")


def _with_mirrored(network: keras.Model, images: Any) -> Any:
    """Average the logits of images and their horizontal flips."""
    mirrored = network(keras.ops.flip(images, axis=2))
    return keras.layers.Average(dtype="float32")([network(images), mirrored])


def _moved(images: Any, *, start: bool) -> Any:
    """Shift by one pixel along both axes with reflected borders."""
    for axis in (1, 2):
        size = images.shape[axis]
        if start:
            parts = [_cut(images, axis, 1, 0), _cut(images, axis, size - 2, 1)]
        else:
            parts = [_cut(images, axis, 1, size - 2), _cut(images, axis, 0, 1)]
        images = keras.layers.Concatenate(axis=axis)(parts)
    return images


def _cut(images: Any, axis: int, before: int, after: int) -> Any:
    """Crop `before` and `after` rows (axis 1) or columns (axis 2)."""
    off = [(0, 0), (0, 0)]
    off[axis - 1] = (before, after)
    return keras.layers.Cropping2D(tuple(off))(images)
