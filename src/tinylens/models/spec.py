"""What every network builder is told about its task, and the layers that all of them share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tinylens.models.layers import FusedBatchNorm, HostHeUniform


@dataclass(frozen=True)
class NetworkShape:
    """What a network is built for.

    Attributes:
        image_shape: height, width, channels.
        num_classes: width of the output.
        mean: of each channel's pixel values, 0 to 255.
        std: of each channel's pixel values.
        seed: of the starting weights and of dropout.
        sample: some training images, uint8, shape (n, height, width, channels), for networks
            whose starting weights are computed from them.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int = 0
    sample: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    def initializers(self) -> Iterator[HostHeUniform]:
        """Yield one initializer a layer, each with a draw of its own."""
        number = 0
        while True:
            yield HostHeUniform((self.seed, number))
            number += 1


def normalized_input(shape: NetworkShape) -> tuple[Any, Any]:
    """Return the input and the images scaled to mean 0 and standard deviation 1 a channel."""
    pixels = keras.Input(shape.image_shape, name="image")
    scale = [1 / std for std in shape.std]
    offset = [-mean / std for mean, std in zip(shape.mean, shape.std, strict=True)]
    if len(scale) == 1:
        return pixels, keras.layers.Rescaling(scale[0], offset[0], name="normalize")(pixels)
    return pixels, keras.layers.Rescaling(scale, offset, name="normalize")(pixels)


def convolution(
    x: Any, width: int, initializer: HostHeUniform, *, kernel: int = 3, strides: int = 1
) -> Any:
    """Return a convolution without bias followed by batch normalization."""
    x = keras.layers.Conv2D(
        width,
        kernel,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer=initializer,
    )(x)
    return FusedBatchNorm(momentum=0.9, epsilon=1e-5)(x)


def logits(x: Any, num_classes: int, initializer: HostHeUniform) -> Any:
    """Return the last dense layer; float32, since a softmax of bfloat16 has 2 digits."""
    small = HostHeUniform(initializer.seed, gain=1.0)
    return keras.layers.Dense(
        num_classes, kernel_initializer=small, dtype="float32", name="logits"
    )(x)
