"""ONNX writers for Keras layers and activations.

A layer, or a setting of one, that has no translation here raises `UnknownLayer`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper


class UnknownLayer(Exception):
    """A layer, or a setting of one, that has no translation here."""


@dataclass(frozen=True)
class Tensor:
    """A value in the graph.

    Attributes:
        name: in the ONNX graph.
        shape: as Keras has it, without the batch: (height, width, channels) or (features,).
    """

    name: str
    shape: tuple[int, ...]


@dataclass
class Graph:
    """An ONNX graph in the making."""

    nodes: list[Any] = field(default_factory=list[Any])
    constants: list[Any] = field(default_factory=list[Any])
    _names: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict, repr=False)

    def constant(self, value: ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        """Return the name of a constant, which is added where no equal one is there yet."""
        array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        content = (array.dtype.str, array.shape, array.tobytes())
        if content not in self._names:  # a network that is used several times brings its weights
            self._names[content] = f"constant_{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(array, self._names[content]))
        return self._names[content]

    def node(
        self, operator: str, inputs: Iterable[Tensor | str], shape: tuple[int, ...], **options: Any
    ) -> Tensor:
        """Add a node and return its output, which has `shape`."""
        name = f"{operator}_{len(self.nodes)}"
        names = [item.name if isinstance(item, Tensor) else item for item in inputs]
        self.nodes.append(helper.make_node(operator, names, [name], name=name, **options))
        return Tensor(name, shape)

    def like(self, operator: str, *inputs: Tensor | str, **options: Any) -> Tensor:
        """Add a node whose output has the shape of its first input."""
        first = inputs[0]
        if not isinstance(first, Tensor):
            raise TypeError("the first input must be a Tensor: its shape is the output's")
        return self.node(operator, inputs, first.shape, **options)


def clip(graph: Graph, x: Tensor, largest: float) -> Tensor:
    """Return `x` kept between 0 and a number."""
    return graph.like("Clip", x, graph.constant(0.0), graph.constant(largest))


def _operator(name: str, **options: Any) -> Callable[[Graph, Tensor], Tensor]:
    return lambda graph, x: graph.like(name, x, **options)


def _silu(graph: Graph, x: Tensor) -> Tensor:
    return graph.like("Mul", x, graph.like("Sigmoid", x))


def _gelu(graph: Graph, x: Tensor) -> Tensor:
    """X · Φ(x) (Hendrycks & Gimpel 2016), exact, in the form that onnxruntime fuses."""
    error = graph.like("Erf", graph.like("Div", x, graph.constant(2**0.5)))
    doubled = graph.like("Mul", x, graph.like("Add", error, graph.constant(1.0)))
    return graph.like("Mul", doubled, graph.constant(0.5))


ACTIVATIONS: dict[object, Callable[[Graph, Tensor], Tensor]] = {
    keras.activations.linear: lambda graph, x: x,
    keras.activations.relu: _operator("Relu"),
    keras.activations.relu6: lambda graph, x: clip(graph, x, 6.0),
    keras.activations.leaky_relu: _operator("LeakyRelu", alpha=0.2),
    keras.activations.sigmoid: _operator("Sigmoid"),
    keras.activations.hard_sigmoid: _operator("HardSigmoid", alpha=1 / 6, beta=0.5),
    keras.activations.hard_silu: _operator("HardSwish"),
    keras.activations.silu: _silu,
    keras.activations.gelu: _gelu,
    keras.activations.tanh: _operator("Tanh"),
    keras.activations.softmax: _operator("Softmax", axis=1),
    keras.activations.log_softmax: _operator("LogSoftmax", axis=1),
}


def _array(variable: Any) -> NDArray[Any]:
    array: NDArray[Any] = keras.ops.convert_to_numpy(variable)
    return array


def _output_shape(layer: Any, x: Tensor) -> tuple[int, ...]:
    return tuple(layer.compute_output_shape((None, *x.shape))[1:])


def _expect(fits: bool, layer: Any, what: str) -> None:
    if not fits:
        raise UnknownLayer(f"{layer.name}, a {type(layer).__name__} with {what}")


# --- scaling


def _affine(graph: Graph, x: Tensor, scale: Any, offset: Any) -> Tensor:
    """Return x · scale + offset; both are numbers, or hold one number a channel."""
    factors = []
    for value in (scale, offset):
        array = np.asarray(value, np.float32)
        if array.size not in (1, x.shape[-1]):
            raise UnknownLayer(f"a scale of shape {array.shape} for {x.shape}")
        rank = len(x.shape) - 1  # channels come first, the rest is broadcast
        factors.append(array.reshape(-1, *[1] * rank) if array.size > 1 else array.reshape(()))
    scaled = graph.like("Mul", x, graph.constant(factors[0]))
    return graph.like("Add", scaled, graph.constant(factors[1]))


def _rescaling(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return _affine(graph, x, layer.scale, layer.offset)


def _normalization(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    _expect(not layer.invert, layer, "invert")
    mean, variance = _array(layer.mean).astype(np.float64), _array(layer.variance)
    scale = 1 / np.maximum(np.sqrt(variance, dtype=np.float64), keras.config.epsilon())
    return _affine(graph, x, scale, -mean * scale)


def _batch_normalization(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    _expect(axis in (-1, len(x.shape)), layer, f"axis {axis}")
    width = x.shape[-1]
    values = [
        _array(layer.gamma) if layer.scale else np.ones(width),
        _array(layer.beta) if layer.center else np.zeros(width),
        _array(layer.moving_mean),
        _array(layer.moving_variance),
    ]
    constants = [graph.constant(value) for value in values]
    return graph.like("BatchNormalization", x, *constants, epsilon=layer.epsilon)


# --- convolution, pooling, dense


def _pads(layer: Any, x: Tensor, window: tuple[int, int], strides: tuple[int, int]) -> list[int]:
    """Return zeros to add at top, left, bottom and right; of an odd count most come last."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    _expect(layer.padding == "same", layer, f"padding {layer.padding!r}")
    sides = zip(x.shape, window, strides, strict=False)  # the shape's channels are left over
    totals = [max((-(-size // step) - 1) * step + reach - size, 0) for size, reach, step in sides]
    before = [total // 2 for total in totals]
    return [*before, *(total - first for total, first in zip(totals, before, strict=True))]


ENLARGING: dict[str, dict[str, str]] = {  # Keras's words for it, and those of ONNX
    "nearest": {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    },
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
}


def _bias_of(layer: Any) -> NDArray[Any] | None:
    return _array(layer.bias) if layer.use_bias else None


def _convolve(
    graph: Graph,
    layer: Any,
    x: Tensor,
    kernel: NDArray[Any],
    groups: int,
    bias: NDArray[Any] | None,
) -> Tensor:
    """Return the convolution with `kernel`, shape (outputs, inputs / groups, height, width)."""
    _expect(layer.data_format == "channels_last", layer, layer.data_format)
    rates = layer.dilation_rate
    reach = tuple(
        (side - 1) * rate + 1 for side, rate in zip(layer.kernel_size, rates, strict=True)
    )
    height, width, _ = _output_shape(layer, x)
    constants = [graph.constant(each) for each in (kernel, bias) if each is not None]
    return graph.node(
        "Conv",
        [x, *constants],
        (height, width, len(kernel)),
        kernel_shape=kernel.shape[2:],
        strides=layer.strides,
        dilations=rates,
        group=groups,
        pads=_pads(layer, x, reach, layer.strides),
    )


def _convolution(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    kernel = _array(layer.kernel).transpose(3, 2, 0, 1)
    found = _convolve(graph, layer, x, kernel, layer.groups, _bias_of(layer))
    return _activate(graph, found, layer.activation)


def _depthwise_convolution(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    kernel = _array(layer.kernel).transpose(2, 3, 0, 1)
    kernel = kernel.reshape(-1, 1, *kernel.shape[2:])
    found = _convolve(graph, layer, x, kernel, x.shape[-1], _bias_of(layer))
    return _activate(graph, found, layer.activation)


def _separable_convolution(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    deep = _array(layer.depthwise_kernel).transpose(2, 3, 0, 1)
    deep = deep.reshape(-1, 1, *deep.shape[2:])
    x = _convolve(graph, layer, x, deep, x.shape[-1], bias=None)
    kernel = _array(layer.pointwise_kernel).transpose(3, 2, 0, 1)
    constants = [graph.constant(each) for each in (kernel, _bias_of(layer)) if each is not None]
    mixed = graph.node("Conv", [x, *constants], (*x.shape[:2], len(kernel)), kernel_shape=[1, 1])
    return _activate(graph, mixed, layer.activation)


def _up_sampling(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    _expect(layer.data_format == "channels_last", layer, layer.data_format)
    _expect(layer.interpolation in ENLARGING, layer, layer.interpolation)
    factors = graph.constant([1.0, 1.0, *map(float, layer.size)])
    none = graph.constant(np.zeros(0, np.float32))  # the region, which these modes do not look at
    options = ENLARGING[layer.interpolation]
    return graph.node("Resize", [x, none, factors], _output_shape(layer, x), **options)


def _pooling(operator: str, **options: Any) -> Callable[..., Tensor]:
    def write(graph: Graph, layer: Any, x: Tensor) -> Tensor:
        _expect(layer.data_format == "channels_last", layer, layer.data_format)
        window = layer.pool_size
        pads = _pads(layer, x, window, layer.strides)
        shape = _output_shape(layer, x)
        return graph.node(
            operator, [x], shape, kernel_shape=window, strides=layer.strides, pads=pads, **options
        )

    return write


def _global_pooling(operator: str) -> Callable[..., Tensor]:
    def write(graph: Graph, layer: Any, x: Tensor) -> Tensor:
        _expect(layer.data_format == "channels_last", layer, layer.data_format)
        pooled = graph.node(operator, [x], (1, 1, x.shape[-1]))
        if layer.keepdims:
            return pooled
        return graph.node("Flatten", [pooled], (x.shape[-1],))

    return write


def _zero_padding(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    _expect(layer.data_format == "channels_last", layer, layer.data_format)
    (top, bottom), (left, right) = layer.padding
    pads = graph.constant([0, 0, top, left, 0, 0, bottom, right], np.int64)
    return graph.node("Pad", [x, pads], _output_shape(layer, x))


def _flatten(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return _reshaped(graph, x, (int(np.prod(x.shape)),))


def _reshape(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return _reshaped(graph, x, _output_shape(layer, x))


def _reshaped(graph: Graph, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the numbers of `x`, in Keras's order, in another shape."""
    if len(shape) not in (1, 3):
        raise UnknownLayer(f"a value of shape {shape}")
    if len(x.shape) == 3 and x.shape[:2] != (1, 1):
        x = graph.like("Transpose", x, perm=[0, 2, 3, 1])
    x = graph.node("Reshape", [x, graph.constant([-1, *shape], np.int64)], shape)
    return x if len(shape) == 1 else graph.like("Transpose", x, perm=[0, 3, 1, 2])


def _dense(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    _expect(len(x.shape) == 1, layer, f"inputs of shape {x.shape}")
    constants = [graph.constant(_array(layer.kernel))]
    if layer.use_bias:
        constants.append(graph.constant(_array(layer.bias)))
    return _activate(graph, graph.node("Gemm", [x, *constants], (layer.units,)), layer.activation)


# --- several inputs


def _merge(operator: str) -> Callable[..., Tensor]:
    def write(graph: Graph, layer: Any, inputs: list[Tensor]) -> Tensor:
        ranks = {len(x.shape) for x in inputs}
        _expect(len(ranks) == 1, layer, f"inputs of shapes {[x.shape for x in inputs]}")

        def pair(a: Tensor, b: Tensor) -> Tensor:
            return graph.node(operator, [a, b], tuple(map(max, a.shape, b.shape)))

        return functools.reduce(pair, inputs)

    return write


def _concatenate(graph: Graph, layer: Any, inputs: list[Tensor]) -> Tensor:
    rank = len(inputs[0].shape)
    axis = rank if layer.axis == -1 else layer.axis
    _expect(0 < axis <= rank, layer, f"axis {layer.axis}")
    shape = list(inputs[0].shape)
    shape[axis - 1] = sum(x.shape[axis - 1] for x in inputs)
    return graph.node("Concat", inputs, tuple(shape), axis=_place(axis, rank))


def _with(operator: str) -> Callable[..., Tensor]:
    """Return what writes x + y or x · y of keras.ops, of which y may be a number."""

    def write(graph: Graph, operation: Any, *pair: Any) -> Tensor:
        tensors = [each for each in pair if isinstance(each, Tensor)]
        if len(tensors) == len(pair):
            return _merge(operator)(graph, operation, tensors)
        numbers = [each for each in pair if not isinstance(each, Tensor)]
        fits = len(tensors) == 1 and all(isinstance(each, int | float) for each in numbers)
        _expect(fits, operation, f"operands {pair}")
        return graph.like(operator, tensors[0], graph.constant(float(numbers[0])))

    return write


def _average(graph: Graph, layer: Any, inputs: list[Tensor]) -> Tensor:
    total = _merge("Add")(graph, layer, inputs)
    return graph.like("Mul", total, graph.constant(1 / len(inputs)))


# --- parts and views of an image


def _place(axis: int, rank: int) -> int:
    """Return where ONNX has Keras's `axis`, counted from the batch: channels come first there."""
    return 1 if axis == rank else axis + 1 if rank == 3 else axis


def _cropping(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    _expect(layer.data_format == "channels_last", layer, layer.data_format)
    (top, bottom), (left, right) = layer.cropping
    height, width, channels = x.shape
    ends = [height - bottom, width - right]
    bounds = [graph.constant(each, np.int64) for each in ([top, left], ends, [2, 3])]
    return graph.node("Slice", [x, *bounds], (ends[0] - top, ends[1] - left, channels))


def _flip(graph: Graph, operation: Any, x: Tensor) -> Tensor:
    _expect(isinstance(operation.axis, int), operation, f"axis {operation.axis}")
    axis = _place(operation.axis % (len(x.shape) + 1), len(x.shape))
    backwards = [-1], [np.iinfo(np.int64).min], [axis], [-1]  # start, end, axis, step
    return graph.like("Slice", x, *(graph.constant(each, np.int64) for each in backwards))


def _log(graph: Graph, operation: Any, x: Tensor) -> Tensor:
    return graph.like("Log", x)


def _type_of_operation(result: Any) -> type:
    """Return the class of the node that gave `result`: for functions of keras.ops it is private."""
    return type(result._keras_history.operation)


# --- activations


def _activate(graph: Graph, x: Tensor, function: Any) -> Tensor:
    if isinstance(function, layers.Layer):
        writer = WRITERS.get(type(function))
        if writer is None:
            raise UnknownLayer(f"the activation {type(function).__name__}")
        return writer(graph, function, x)
    if function not in ACTIVATIONS:
        raise UnknownLayer(f"the activation {getattr(function, '__name__', function)}")
    return ACTIVATIONS[function](graph, x)


def _activation(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return _activate(graph, x, layer.activation)


def _relu(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    _expect(not layer.threshold, layer, "a threshold")
    _expect(not layer.negative_slope, layer, "a slope")
    return graph.like("Relu", x) if layer.max_value is None else clip(graph, x, layer.max_value)


def _leaky_relu(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return graph.like("LeakyRelu", x, alpha=float(layer.negative_slope))


def _softmax(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    _expect(layer.axis in (-1, len(x.shape)), layer, f"axis {layer.axis}")
    return graph.like("Softmax", x, axis=1)


def _same(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return x


WRITERS: dict[type, Callable[..., Tensor]] = {
    layers.Rescaling: _rescaling,
    layers.Normalization: _normalization,
    layers.BatchNormalization: _batch_normalization,
    layers.Conv2D: _convolution,
    layers.DepthwiseConv2D: _depthwise_convolution,
    layers.SeparableConv2D: _separable_convolution,
    layers.UpSampling2D: _up_sampling,
    layers.Dense: _dense,
    layers.MaxPooling2D: _pooling("MaxPool"),
    # as TensorFlow and JAX do it; Keras on torch repeats the border where the padding is uneven
    layers.AveragePooling2D: _pooling("AveragePool", count_include_pad=0),
    layers.GlobalAveragePooling2D: _global_pooling("GlobalAveragePool"),
    layers.GlobalMaxPooling2D: _global_pooling("GlobalMaxPool"),
    layers.ZeroPadding2D: _zero_padding,
    layers.Flatten: _flatten,
    layers.Reshape: _reshape,
    layers.Add: _merge("Add"),
    layers.Multiply: _merge("Mul"),
    layers.Concatenate: _concatenate,
    layers.Average: _average,
    layers.Cropping2D: _cropping,
    _type_of_operation(keras.ops.add(keras.KerasTensor((1, 2)), 1.0)): _with("Add"),
    _type_of_operation(keras.ops.multiply(keras.KerasTensor((1, 2)), 1.0)): _with("Mul"),
    _type_of_operation(keras.ops.log(keras.KerasTensor((1, 2)))): _log,
    _type_of_operation(keras.ops.flip(keras.KerasTensor((1, 2)), axis=1)): _flip,
    layers.Activation: _activation,
    layers.ReLU: _relu,
    layers.LeakyReLU: _leaky_relu,
    layers.Softmax: _softmax,
    layers.Identity: _same,
    layers.Dropout: _same,
    layers.SpatialDropout2D: _same,
}
