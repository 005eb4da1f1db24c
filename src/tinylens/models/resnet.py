"""ResNet for 32×32 images (He et al. 2016, arXiv:1512.03385, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import keras
from pydantic import Field

from tinylens.models.layers import HostHeUniform
from tinylens.models.spec import NetworkShape, convolution, logits, normalized_input


def resnet20(
    shape: NetworkShape,
    *,
    width: Annotated[int, Field(ge=1, le=512)] = 16,
    blocks: Annotated[int, Field(ge=1, le=32)] = 3,
) -> keras.Model:
    """Build a 3-stage CIFAR ResNet; by default 20 layers and 0.27 million weights.

    Projection shortcuts (1×1 convolution, option B) where the width changes.

    Args:
        shape: Network shape.
        width: Channels of the first stage; the next two have twice and four times as many.
        blocks: Residual blocks per stage; the depth is 6 · blocks + 2.
    """
    initializers = shape.initializers()
    pixels, x = normalized_input(shape)
    x = keras.layers.ReLU()(convolution(x, width, next(initializers)))
    for stage in range(3):
        for block in range(blocks):
            strides = 2 if stage > 0 and block == 0 else 1
            x = _residual(x, width * 2**stage, strides, initializers)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, logits(x, shape.num_classes, next(initializers)), name="resnet20")


def _residual(x: Any, width: int, strides: int, initializers: Iterator[HostHeUniform]) -> Any:
    shortcut = x
    if strides != 1 or x.shape[-1] != width:
        shortcut = convolution(x, width, next(initializers), kernel=1, strides=strides)
    x = keras.layers.ReLU()(convolution(x, width, next(initializers), strides=strides))
    x = convolution(x, width, next(initializers))
    return keras.layers.ReLU()(keras.layers.Add()([x, shortcut]))
