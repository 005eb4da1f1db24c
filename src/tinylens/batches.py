"""Which pictures a step sees, a pure function of (seed, epoch, step), and the data as a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from tinylens import augment
from tinylens.recipe import AugmentSection


@dataclass(frozen=True)
class Order:
    """The order in which pictures are seen; batch k of epoch e depends on (seed, e, k) alone.

    Attributes:
        count: pictures to choose from.
        batch_size: pictures a step; fewer than `count` are left over each epoch, others each time.
        seed: of the order and of the draws.
        flip: whether the draws that mirror alternate from epoch to epoch.

    >>> order = Order(count=10, batch_size=4, seed=0)
    >>> order.steps, order.indices(epoch=0).shape
    (2, (8,))
    """

    count: int
    batch_size: int
    seed: int
    flip: Literal["none", "random", "alternating"] = "none"

    @property
    def steps(self) -> int:
        """Steps an epoch: full batches only, or one smaller batch where that is all there is."""
        return max(self.count // self.batch_size, 1)

    def indices(self, epoch: int) -> NDArray[np.int32]:
        """Return the pictures of an epoch in order, int32, shape (steps · batch_size,)."""
        order = self._random(epoch, 0).permutation(self.count)
        return order[: self.steps * self.batch_size].astype(np.int32)

    def draws(self, epoch: int) -> NDArray[np.float32]:
        """Return random numbers for augmentation, float32 in [0, 1), a row a picture in order."""
        indices = self.indices(epoch)
        draws = self._random(epoch, 1).random((len(indices), augment.NUM_DRAWS), np.float32)
        if self.flip == "alternating":
            first_side = self._random(0, 2).random(self.count, np.float32)[indices]
            draws[:, augment.FLIP] = (first_side + 0.5 * (epoch % 2)) % 1
        return draws

    def _random(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, purpose])


@keras.saving.register_keras_serializable(package="tinylens")
class ResidentImages(keras.layers.Layer):
    """A data set as a layer: takes indices, gives pictures.

    A small set fits in the device's memory whole, so a step receives 4 bytes a picture.

    Args:
        images: uint8, shape (n, height, width, channels).
    """

    def __init__(self, images: NDArray[np.uint8], **options: Any) -> None:
        super().__init__(dtype="float32", autocast=False, trainable=False, **options)
        self.images = self.add_weight(
            name="images",
            shape=images.shape,
            dtype="uint8",
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(images, dtype="uint8"),
            trainable=False,
        )

    def call(self, indices: Any) -> Any:
        """Return uint8 pictures, shape (batch, height, width, channels), for int32 `indices`."""
        return ops.take(self.images, indices, axis=0)

    def compute_output_spec(self, indices: Any) -> keras.KerasTensor:
        """Return the shape and type of the pictures."""
        return keras.KerasTensor((*indices.shape, *self.images.shape[1:]), dtype="uint8")


class Augment(keras.layers.Layer):
    """Random changes in training, driven by given draws; the pictures as they are otherwise."""

    def __init__(self, spec: AugmentSection, **options: Any) -> None:
        # autocast would round the draws to bfloat16: 0.999 becomes 1, which shifts too far
        super().__init__(autocast=False, **options)
        self.spec = spec

    def call(self, images: Any, draws: Any, training: bool | None = None) -> Any:
        """Return float pictures, pixel values 0 to 255, from uint8 `images`."""
        images = ops.cast(images, self.compute_dtype)
        return augment.augment(images, draws, self.spec) if training else images

    def compute_output_spec(self, images: Any, draws: Any, training: Any = None) -> Any:
        """Return the shape of the pictures and the type of the arithmetic."""
        return keras.KerasTensor(images.shape, dtype=self.compute_dtype)
