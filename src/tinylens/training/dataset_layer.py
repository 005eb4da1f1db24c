"""The data set as a Keras layer, and the order of its batches.

The order is a pure function of (seed, epoch, step), and of the losses that hard images are chosen
by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from tinylens.data.prefetch import Stream
from tinylens.models import augment
from tinylens.models.layers import requested_of_host, rows_on_host
from tinylens.recipe import AugmentSection
from tinylens.training import imbalance

UNSEEN = 1e9  # the loss of an image that was not seen yet: it comes before all others


@dataclass(frozen=True)
class Order:
    """The order in which images are seen.

    Batch k of epoch e depends on (seed, e, k), the share of images and their losses alone.

    Attributes:
        count: images to choose from.
        batch_size: images a step; fewer than `count` are left over each epoch, others each time.
        seed: of the order and of the draws.
        flip: whether the draws that mirror alternate from epoch to epoch.
        labels: int64, shape (count,), where rare classes are shown more often than they occur, as
            `tinylens.training.imbalance.quotas` says; None shows images as they come.

    >>> order = Order(count=10, batch_size=4, seed=0)
    >>> order.steps(), order.indices(epoch=0).shape
    (2, (8,))
    """

    count: int
    batch_size: int
    seed: int
    flip: Literal["none", "random", "alternating"] = "none"
    labels: NDArray[np.int64] | None = field(default=None, compare=False)

    def steps(self, share: float = 1.0) -> int:
        """Return the steps of an epoch that takes a share of the images.

        Full batches only, or one smaller batch where that is all there is.
        """
        return max(int(self.count * share) // self.batch_size, 1)

    def indices(
        self, epoch: int, share: float = 1.0, losses: NDArray[np.float32] | None = None
    ) -> NDArray[np.int32]:
        """Return the images of an epoch in order, int32, shape (steps · batch_size,).

        Args:
            epoch: counted from 0.
            share: of the images that the epoch takes.
            losses: float32, shape (count,): those with the largest ones are taken. None takes
                others each time.
        """
        size = self.steps(share) * self.batch_size
        if self.labels is not None:
            return self._balanced(self.labels, epoch, size, losses)
        order = self._random(epoch, 0).permutation(self.count)
        if losses is not None:
            hardest = np.argsort(-losses[order], kind="stable")[:size]
            order = order[np.sort(hardest)]
        return order[:size].astype(np.int32)

    def _balanced(
        self,
        labels: NDArray[np.int64],
        epoch: int,
        size: int,
        losses: NDArray[np.float32] | None,
    ) -> NDArray[np.int32]:
        """Return as many images of each class as its quota says, all of them in any order.

        A class with fewer images than that shows each of them equally often, or once more; those
        with the largest losses are the ones that a class shows, or shows once more.
        """
        random = self._random(epoch, 0)
        chosen = []
        for label, quota in enumerate(imbalance.quotas(np.bincount(labels), size)):
            rows = random.permutation(np.flatnonzero(labels == label))
            if losses is not None:
                rows = rows[np.argsort(-losses[rows], kind="stable")]
            chosen.append(np.resize(rows, quota))  # from the start again, where it is too short
        return random.permutation(np.concatenate(chosen)).astype(np.int32)

    def draws(self, epoch: int, indices: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return random numbers for augmentation, float32 in [0, 1), a row an image."""
        draws = self._random(epoch, 1).random((len(indices), augment.NUM_DRAWS), np.float32)
        if self.flip == "alternating":
            first_side = self._random(0, 2).random(self.count, np.float32)[indices]
            draws[:, augment.FLIP] = (first_side + 0.5 * (epoch % 2)) % 1
        return draws

    def _random(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, purpose])


@keras.saving.register_keras_serializable(package="tinylens")
class ResidentImages(keras.layers.Layer):
    """A data set as a layer: takes indices, gives images.

    A small set fits in the device's memory whole, so a step receives 4 bytes an image. Where the
    device is the processor the images stay in the array that they came in, memory-mapped or not.
    A stream's are brought batch by batch on every device.

    Args:
        images: uint8, shape (n, height, width, channels), or a stream of them.
    """

    def __init__(self, images: NDArray[np.uint8] | Stream, **options: Any) -> None:
        super().__init__(dtype="float32", autocast=False, trainable=False, **options)
        self.rows_on_host: Callable[[Any], Any] | None
        if isinstance(images, Stream):
            self.image_shape = images.image_shape
            self.rows_on_host = requested_of_host(images.rows, images.image_shape, np.uint8)
            return
        self.image_shape = images.shape[1:]
        self.rows_on_host = rows_on_host(images)
        if self.rows_on_host is not None:
            return
        self.images = self.add_weight(
            name="images",
            shape=images.shape,
            dtype="uint8",
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(images, dtype="uint8"),
            trainable=False,
        )

    def call(self, indices: Any) -> Any:
        """Return uint8 images, shape (batch, height, width, channels), for int32 `indices`."""
        if self.rows_on_host is not None:
            return self.rows_on_host(indices)
        return ops.take(self.images, indices, axis=0)

    def compute_output_spec(self, indices: Any) -> keras.KerasTensor:
        """Return the shape and type of the images."""
        return keras.KerasTensor((*indices.shape, *self.image_shape), dtype="uint8")


class LossMemory(keras.layers.Layer):
    """Remembers the loss of every training image, as it was when the image was last seen.

    Args:
        labels: int, shape (n,), of the training images, which come first in the data.
    """

    def __init__(self, labels: NDArray[np.int64], **options: Any) -> None:
        super().__init__(dtype="float32", autocast=False, trainable=False, **options)
        count = len(labels)
        self.labels = self.add_weight(
            name="labels",
            shape=(count,),
            dtype="int32",
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(labels, dtype="int32"),
            trainable=False,
        )
        unseen: dict[str, Any] = {
            "shape": (count,),
            "dtype": "float32",
            "initializer": keras.initializers.Constant(UNSEEN),
            "trainable": False,
        }
        self.latest = self.add_weight(name="latest", **unseen)
        self.at_start = self.add_weight(name="at_start", **unseen)

    def call(self, indices: Any, logits: Any, training: bool | None = None) -> Any:
        """Return `logits`, shape (batch, classes); in training, note what they cost."""
        if training:
            labels = ops.take(self.labels, indices, axis=0)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            losses = ops.cast(ops.stop_gradient(losses), "float32")
            places = ops.expand_dims(indices, 1)
            self.latest.assign(ops.scatter_update(self.latest, places, losses))
        return logits

    def begin_epoch(self) -> NDArray[np.float32]:
        """Set aside and return the losses, float32, shape (n,), by which the epoch is chosen."""
        # a copy on the host: JAX gives one buffer to both, and may then not overwrite either
        self.at_start.assign(np.array(ops.convert_to_numpy(self.latest)))
        return self.of_epoch()

    def of_epoch(self) -> NDArray[np.float32]:
        """Return the losses as they were when the epoch in hand began."""
        losses: NDArray[np.float32] = ops.convert_to_numpy(self.at_start)
        return losses

    def compute_output_spec(self, indices: Any, logits: Any, training: Any = None) -> Any:
        """Return the shape and type of the logits."""
        return keras.KerasTensor(logits.shape, dtype=logits.dtype)


@keras.saving.register_keras_serializable(package="tinylens")
class PriorLogits(keras.layers.Layer):
    """Adds the logarithm of the classes' shares to the logits, in training alone.

    Args:
        priors: float32, shape (classes,), of `tinylens.training.imbalance.priors`.
    """

    def __init__(self, priors: NDArray[np.float32], **options: Any) -> None:
        super().__init__(dtype="float32", trainable=False, **options)
        self.priors = priors

    def call(self, logits: Any, training: bool | None = None) -> Any:
        """Return logits, shape (batch, classes)."""
        # PyTorch adds no NumPy array to a tensor that has a gradient
        return logits + ops.convert_to_tensor(self.priors) if training else logits

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return `input_shape`."""
        return input_shape


class Augment(keras.layers.Layer):
    """Random changes in training, driven by given draws; the images as they are otherwise.

    Args:
        spec: which changes, and how large.
        size: height and width to which the images are made smaller in the end; None leaves them.
    """

    def __init__(
        self, spec: AugmentSection, size: tuple[int, int] | None = None, **options: Any
    ) -> None:
        # autocast would round the draws to bfloat16: 0.999 becomes 1, which shifts too far
        super().__init__(autocast=False, **options)
        self.spec = spec
        self.size = size

    def call(self, images: Any, draws: Any, training: bool | None = None) -> Any:
        """Return float images, pixel values 0 to 255, from uint8 `images`."""
        images = ops.cast(images, self.compute_dtype)
        images = augment.augment(images, draws, self.spec) if training else images
        return images if self.size is None else augment.shrink(images, *self.size)

    def compute_output_spec(self, images: Any, draws: Any, training: Any = None) -> Any:
        """Return the shape of the images and the type of the arithmetic."""
        height, width = self.size or images.shape[1:3]
        shape = (images.shape[0], height, width, images.shape[3])
        return keras.KerasTensor(shape, dtype=self.compute_dtype)
