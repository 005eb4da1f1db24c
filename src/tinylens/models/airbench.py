"""Fast-training CNN after airbench94: whitened input, few wide convolutions, early pooling."""

from __future__ import annotations

from typing import Annotated, Any

import keras
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tinylens.models.layers import FusedBatchNorm, HostHeUniform, IdentityLike, SmallMapConv2D
from tinylens.models.spec import NetworkShape, normalized_input

Width = Annotated[int, Field(ge=1, le=4096)]

HEAD_STD = 1 / 256  # of the head's starting weights: probabilities start even, and stay so for long
SMALLEST_VARIANCE = 5e-4  # added to each: directions that hold only noise are not blown up
REFERENCE = 32  # height and width of the images that this shape of network was made for
STRETCH = 250  # images whose patches are in memory at a time


def whitened(
    shape: NetworkShape,
    *,
    widths: Annotated[list[Width], Field(min_length=1, max_length=5)] = [64, 128, 256],  # noqa: B006
    grey_widths: Annotated[list[Width], Field(max_length=5)] = [32, 64, 128],  # noqa: B006
    depth: Annotated[int, Field(ge=1, le=4)] = 2,
    smooth_from: Annotated[int, Field(ge=0)] = 1,
    residual: bool = False,
) -> keras.Model:
    """Build a CPU-friendly variant of airbench94 (Jordan 2024, arXiv:2404.00498).

    A frozen patch-whitening convolution; groups of convolutions, the first pooled before its norm,
    so norm and ReLU touch a quarter of the values; global max pooling; a dense layer. Kernels start
    as the identity. The paper uses GELU; ReLU on large maps makes a training step a quarter
    faster, with SiLU (Elfwing et al. 2018) after.

    Args:
        shape: Network shape.
        widths: Channels per group; every group halves height and width.
        grey_widths: Channels for grey images, which need fewer: on Fashion-MNIST twice as many
            add 0.8 points in 10 epochs, at 2.7 times the time. Empty: `widths`.
        depth: Convolutions per group.
        smooth_from: First group with SiLU instead of ReLU, from 0.
        residual: Whether to add a group's pooled convolution to its last one.
    """
    if grey_widths and shape.image_shape[2] == 1:
        widths = grey_widths
    numbers = iter(range(1_000))
    pixels, x = normalized_input(shape)
    x = keras.layers.ReLU()(_whitening(x, shape))
    for group, width in enumerate(widths):
        activation = "silu" if group >= smooth_from else "relu"
        x = _convolved(x, width, (shape.seed, next(numbers)), pool=min(x.shape[1:3]) > 1)
        x = pooled = keras.layers.Activation(activation)(x)
        for number in range(1, depth):
            x = _convolved(x, width, (shape.seed, next(numbers)))
            if residual and number == depth - 1:
                x = keras.layers.Add()([x, pooled])
            x = keras.layers.Activation(activation)(x)
    x = keras.layers.GlobalMaxPooling2D()(x)
    head = keras.layers.Dense(
        shape.num_classes,
        use_bias=False,
        kernel_initializer=HostHeUniform(
            (shape.seed, next(numbers)), gain=HEAD_STD * widths[-1] ** 0.5
        ),
        dtype="float32",
        name="logits",
    )
    return keras.Model(pixels, head(x), name="whitened")


def whitening_kernel(images: NDArray[np.floating], side: int) -> NDArray[np.float32]:
    """Compute patch-whitening filters of `images`, each with its negative.

    The eigenvectors of the patches' second moments, divided by the root of their eigenvalues
    (Page 2019, "How to train your ResNet 8"); the sign of each is set, so that it is the same on
    every machine.

    Args:
        images: float, normalized, shape (n, height, width, channels).
        side: Patch side in pixels.

    Returns:
        A kernel of shape (side, side, channels, 2 · side² · channels).
    """
    values, vectors = np.linalg.eigh(_second_moments(images, side))
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(values))])
    filters = (vectors / np.sqrt(values + SMALLEST_VARIANCE))[:, ::-1]
    kernel = filters.reshape(side, side, images.shape[3], -1)
    return np.concatenate([kernel, -kernel], axis=-1).astype(np.float32)


def _second_moments(images: NDArray[np.floating], side: int) -> NDArray[np.float64]:
    """Compute the second-moment matrix of all patches."""
    size = side * side * images.shape[3]
    moments, count = np.zeros((size, size)), 0
    for start in range(0, len(images), STRETCH):
        stretch = images[start : start + STRETCH]
        windows = np.lib.stride_tricks.sliding_window_view(stretch, (side, side), axis=(1, 2))
        patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size)
        moments += patches.T @ patches
        count += len(patches)
    return moments / count


def _whitening(x: Any, shape: NetworkShape) -> Any:
    """Apply the whitening layer; output is about REFERENCE pixels wide for any input."""
    if shape.sample is None:
        raise ValueError("the network whitened needs NetworkShape.sample: some training images")
    strides = max(min(shape.image_shape[:2]) // REFERENCE, 1)
    mean, std = np.asarray([shape.mean, shape.std], np.float32)
    sample = (shape.sample.astype(np.float32) - mean) / std
    kernel = whitening_kernel(sample, strides + 1)
    return keras.layers.Conv2D(
        kernel.shape[-1],
        strides + 1,
        strides=strides,
        use_bias=False,
        kernel_initializer=keras.initializers.Constant(kernel),
        trainable=False,
        name="whitening",
    )(x)


def _convolved(x: Any, width: int, seed: tuple[int, ...], *, pool: bool = False) -> Any:
    x = SmallMapConv2D(
        width, 3, padding="same", use_bias=False, kernel_initializer=IdentityLike(seed)
    )(x)
    if pool:
        x = keras.layers.MaxPooling2D()(x)
    return FusedBatchNorm(momentum=0.6, epsilon=1e-5, scale=False)(x)
