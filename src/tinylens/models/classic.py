"""Textbook CNN: blocks of two convolutions and a pool, then dense layers."""

from __future__ import annotations

from typing import Annotated

import keras
from pydantic import Field

from tinylens.models.layers import CountedDropout
from tinylens.models.spec import NetworkShape, convolution, logits, normalized_input

Width = Annotated[int, Field(ge=1, le=4096)]
Rate = Annotated[float, Field(ge=0, lt=1)]


def classic(
    shape: NetworkShape,
    *,
    widths: Annotated[list[Width], Field(min_length=1, max_length=6)] = [32, 64, 128],  # noqa: B006
    dense: Annotated[list[Width], Field(max_length=4)] = [128],  # noqa: B006
    dropout: Rate = 0.3,
) -> keras.Model:
    """Build a VGG-style CNN: (conv, conv, max-pool) blocks, then dense layers.

    Args:
        shape: Network shape.
        widths: Channels per block; every block halves height and width.
        dense: Units of each dense layer before the logits.
        dropout: Dropout rate before each dense layer and the logits.
    """
    initializers = shape.initializers()
    pixels, x = normalized_input(shape)
    for width in widths:
        x = keras.layers.ReLU()(convolution(x, width, next(initializers)))
        x = keras.layers.ReLU()(convolution(x, width, next(initializers)))
        x = keras.layers.MaxPooling2D(padding="same")(x)
    x = keras.layers.Flatten()(x)
    for number, units in enumerate(dense):
        x = CountedDropout(dropout, seed=1000 * shape.seed + number)(x)
        x = keras.layers.Dense(units, activation="relu", kernel_initializer=next(initializers))(x)
    x = CountedDropout(dropout, seed=1000 * shape.seed + len(dense))(x)
    return keras.Model(pixels, logits(x, shape.num_classes, next(initializers)), name="classic")
