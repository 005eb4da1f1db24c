"""Network shape specification and layers shared by all builders."""

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
    """Input and output specification of a network.

    Attributes:
        image_shape: Height, width, channels.
        num_classes: Number of classes.
        mean: Mean of each channel, 0 to 255.
        std: Standard deviation of each channel.
        seed: Seed of initial weights and dropout.
        sample: Training images, uint8, shape (n, height, width, channels), for data-dependent
            initialization.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int = 0
    sample: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    def initializers(self) -> Iterator[HostHeUniform]:
        """Yield one independently seeded initializer per layer."""
        number = 0
        while True:
            yield HostHeUniform((self.seed, number))
            number += 1


def normalized_input(shape: NetworkShape) -> tuple[Any, Any]:
    """Return the input layer and its output standardized per channel."""
    pixels = keras.Input(shape.image_shape, name="image")
    scale = [1 / std for std in shape.std]
    offset = [-mean / std for mean, std in zip(shape.mean, shape.std, strict=True)]
    if len(scale) == 1:
        return pixels, keras.layers.Rescaling(scale[0], offset[0], name="normalize")(pixels)
    return pixels, keras.layers.Rescaling(scale, offset, name="normalize")(pixels)


def convolution(
    x: Any, width: int, initializer: HostHeUniform, *, kernel: int = 3, strides: int = 1
) -> Any:
    """Apply a bias-free convolution and batch normalization."""
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
    """Apply the final dense layer in float32: a bfloat16 softmax has only 2 digits."""
    small = HostHeUniform(initializer.seed, gain=1.0)
    return keras.layers.Dense(
        num_classes, kernel_initializer=small, dtype="float32", name="logits"
    )(x)
