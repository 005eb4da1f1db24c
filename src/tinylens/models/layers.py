"""Custom Keras layers and initializers, faster or more reproducible than Keras's.

`plain` converts each layer to its Keras equivalent for inference, so exported models load without
tinylens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

PACKAGE = "tinylens"
SMALL_MAP = 49  # pixels: at 15×15 TensorFlow's own gradient is the faster one


@keras.saving.register_keras_serializable(package=PACKAGE)
class FusedBatchNorm(keras.layers.BatchNormalization):
    """Batch normalization (Ioffe & Szegedy 2015), fused where the backend supports it.

    On TensorFlow Keras's own layer runs mean, variance and scaling as separate operations, which
    costs 39 % more time for a whole training step of a small network (1,331 against 961 images a
    second). Statistics are float32 whatever the arithmetic. On JAX and torch, whose compilers and
    kernels fuse it already, this is Keras's layer.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize `inputs`, shape (batch, height, width, channels)."""
        if keras.backend.backend() != "tensorflow" or len(inputs.shape) != 4 or not training:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        normalized, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            scale=tf.cast(self.gamma, "float32") if self.scale else tf.ones(inputs.shape[-1]),
            offset=tf.cast(self.beta, "float32") if self.center else tf.zeros(inputs.shape[-1]),
            epsilon=self.epsilon,
            is_training=True,
        )
        # the kernel gives the unbiased variance; Keras keeps the biased one
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), "float32")
        variance = variance * (count - 1.0) / count
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, variance)
        return normalized

    def _move(self, average: Any, value: Any) -> None:
        average.assign(
            average * self.momentum + ops.cast(value, average.dtype) * (1 - self.momentum)
        )


@keras.saving.register_keras_serializable(package=PACKAGE)
class SmallMapConv2D(keras.layers.Conv2D):
    """Convolution with a faster kernel gradient on small maps, for TensorFlow on CPU.

    The gradient is computed as a convolution with batch and channels swapped; TensorFlow's own
    takes twice as long on 7×7 maps and three times on 3×3 (256 channels, 500 images, bfloat16).
    Elsewhere, and on larger maps, this is Keras's layer.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve `inputs`, shape (batch, height, width, channels)."""
        _, height, width, channels = inputs.shape
        simple = self.strides == (1, 1) and self.dilation_rate == (1, 1)
        simple = simple and self.padding == "same" and channels == kernel.shape[2]
        small = height is not None and width is not None and height * width <= SMALL_MAP
        if not (simple and small and _tensorflow_on_processor()):
            return super().convolution_op(inputs, kernel)
        return _small_map_convolution()(inputs, kernel)


@functools.cache
def _small_map_convolution() -> Callable[[Any, Any], Any]:
    import tensorflow as tf

    def kernel_gradient(inputs: Any, upstream: Any, size: tuple[int, int]) -> Any:
        before = [(side - 1) // 2 for side in size]
        after = [side // 2 for side in size]
        margins = [[0, 0], *([a, b] for a, b in zip(before, after, strict=True)), [0, 0]]
        channels_first = tf.pad(tf.transpose(inputs, (3, 1, 2, 0)), margins)
        as_kernel = tf.transpose(upstream, (1, 2, 0, 3))
        found = tf.nn.conv2d(channels_first, as_kernel, 1, "VALID")
        return tf.transpose(found, (1, 2, 0, 3))

    def convolution(inputs: Any, kernel: Any) -> Any:
        def gradients(upstream: Any) -> tuple[Any, Any]:
            to_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs),
                filter=kernel,
                out_backprop=upstream,
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
            return to_inputs, kernel_gradient(inputs, upstream, tuple(kernel.shape[:2]))

        return tf.nn.conv2d(inputs, kernel, 1, "SAME"), gradients

    differentiable = tf.custom_gradient(convolution)

    def of_tensors(inputs: Any, kernel: Any) -> Any:
        # a variable would have to be named to TensorFlow as one
        return differentiable(inputs, tf.identity(ops.convert_to_tensor(kernel)))

    return of_tensors


@keras.saving.register_keras_serializable(package=PACKAGE)
class CountedDropout(keras.layers.Layer):
    """Reproducible dropout (Srivastava et al. 2014), a hash of seed, step and position.

    Identical on every backend; its only state is one counter.

    Args:
        rate: Share of inputs set to 0 in training; the others are scaled by 1 / (1 - rate).
        seed: Integer seed, different for each layer of a network.
    """

    def __init__(self, rate: float, seed: int, **options: Any) -> None:
        super().__init__(**options)
        self.rate = rate
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Create the step counter."""
        self.counter = self.add_weight(
            name="counter", shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Apply dropout in training; identity otherwise."""
        if not training or self.rate == 0:
            return inputs
        shape = ops.shape(inputs)
        size = 1
        for length in shape:
            size = size * length
        keep = uniform_hash(ops.arange(size, dtype="int32"), self.counter.value, self.seed)
        mask = ops.cast(ops.reshape(keep, shape) >= self.rate, inputs.dtype)
        self.counter.assign(self.counter + 1)
        return inputs * mask / (1 - self.rate)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def uniform_hash(position: Any, step: Any, seed: int) -> Any:
    """Hash (position, step, seed) to uniform float32 numbers in [0, 1).

    Two rounds of the 32-bit finalizer of Wellons ("lowbias32", 2018), in int32 arithmetic that
    wraps on every backend.

    Args:
        position: int32 tensor.
        step: int32 scalar tensor.
        seed: Integer seed.
    """
    start = _mix(ops.cast(step, "int32") + np.int32((seed * 0x9E3779B9 + 0x7F4A7C15) % 2**31))
    mixed = _mix(_mix(position) + start)
    return ops.cast(_shift_right(mixed, 8), "float32") * (1.0 / 2**24)


def _mix(x: Any) -> Any:
    x = ops.bitwise_xor(x, _shift_right(x, 16)) * np.int32(0x7FEB352D)
    x = ops.bitwise_xor(x, _shift_right(x, 15)) * np.int32(0x846CA68B - 2**32)
    return ops.bitwise_xor(x, _shift_right(x, 16))


def _shift_right(x: Any, bits: int) -> Any:
    """Logical right shift of int32 (the native shift is arithmetic)."""
    return ops.bitwise_and(ops.right_shift(x, bits), np.int32(2 ** (32 - bits) - 1))


class HostHeUniform(keras.initializers.Initializer):
    """He uniform initializer (He et al. 2015), drawn by NumPy for equality across backends.

    Args:
        seed: Seed integers, such as (run seed, layer number).
        gain: Standard deviation times √fan_in; √2 suits a layer before ReLU.
    """

    def __init__(self, seed: tuple[int, ...], gain: float = 2**0.5) -> None:
        self.seed = seed
        self.gain = gain

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """Return a kernel of `shape`, outputs on the last axis."""
        return ops.convert_to_tensor(self.draw(shape), dtype=dtype)

    def draw(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Draw a kernel of `shape`, outputs on the last axis."""
        limit = self.gain * (3 / np.prod(shape[:-1])) ** 0.5
        values = np.random.default_rng([*self.seed, 0x1417]).uniform(-limit, limit, shape)
        return values.astype(np.float32)


class IdentityLike(HostHeUniform):
    """Identity (Dirac) initializer for convolutions (Jordan 2024, section 3.2).

    The first outputs copy the inputs; the others use PyTorch's default, uniform within
    1 / √fan_in.

    Args:
        seed: Seed integers.
    """

    def __init__(self, seed: tuple[int, ...]) -> None:
        super().__init__(seed, gain=3**-0.5)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """Return a kernel of `shape`: height, width, inputs, outputs."""
        height, width, inputs, outputs = shape
        values = self.draw(shape)
        passed = min(inputs, outputs)
        values[..., :passed] = 0
        values[height // 2, width // 2, range(passed), range(passed)] = 1
        return ops.convert_to_tensor(values, dtype=dtype)


def rows_on_host(array: NDArray[Any]) -> Callable[[Any], Any] | None:
    """Return a function that gathers rows of `array` in a compiled step without copying it.

    Only for TensorFlow on CPU, whose variables are copies; else None, since PyTorch and JAX share
    memory with NumPy and a GPU needs the images in its own memory.

    Args:
        array: Any dtype, shape (n, ...).
    """
    if not _tensorflow_on_processor():
        return None
    return requested_of_host(lambda chosen: array[chosen], array.shape[1:], array.dtype)


def requested_of_host(
    rows: Callable[[NDArray[Any]], NDArray[Any]], row_shape: tuple[int, ...], dtype: Any
) -> Callable[[Any], Any]:
    """Wrap a host callback for use in a compiled step, on any backend.

    Args:
        rows: Function of int32 indices, shape (batch,), to an array of shape (batch, ...).
        row_shape: Shape of one row.
        dtype: NumPy dtype of the result.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def requested(indices: Any) -> Any:
            found = tf.numpy_function(rows, [indices], dtype)
            found.set_shape((*indices.shape, *row_shape))
            return found

    elif keras.backend.backend() == "jax":
        import jax

        def requested(indices: Any) -> Any:
            result = jax.ShapeDtypeStruct((*indices.shape, *row_shape), dtype)
            return jax.pure_callback(lambda chosen: rows(np.asarray(chosen)), result, indices)

    else:
        import torch

        def requested(indices: Any) -> Any:
            found = rows(indices.detach().cpu().numpy())
            return torch.from_numpy(found).to(indices.device)

    return requested


def _tensorflow_on_processor() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def use_weights(layer: keras.layers.Layer) -> None:
    """Apply assigned weights: a Normalization computes with copies."""
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()


def plain(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Return the float32 Keras equivalent of `layer` for inference, without weights."""
    if not isinstance(layer, keras.layers.Layer):  # an operation of keras.ops has no weights
        return layer
    config = layer.get_config()
    config["dtype"] = "float32"
    for key in [key for key in config if key.endswith("_initializer")]:
        del config[key]  # the weights are copied; ours need not be known to the reader
    if isinstance(layer, FusedBatchNorm):
        return keras.layers.BatchNormalization.from_config(config)
    if isinstance(layer, SmallMapConv2D):
        return keras.layers.Conv2D.from_config(config)
    if isinstance(layer, CountedDropout):
        config.pop("seed")
        return keras.layers.Dropout.from_config(config)
    return layer.__class__.from_config(config)
