"""FLOP count of a network, from its layers.

Counts convolutions and dense layers, with a multiply-add as two operations; normalization and
activations are omitted, as usual when comparing with matrix-product throughput.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras

from tinylens.errors import ModelError

_COUNTED = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.Dense,
)
_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


def forward_flops(network: keras.Model) -> int:
    """Count the FLOPs of inference per image.

    Args:
        network: Functional model with known sizes.

    Raises:
        ModelError: it has a layer with a matrix of weights that cannot be counted here.

    >>> pixels = keras.Input((8, 8, 3))
    >>> forward_flops(keras.Model(pixels, keras.layers.Conv2D(4, 3, padding="same")(pixels)))
    13824
    """
    return sum(_flops(node) for node in _nodes(network))


def training_flops(network: keras.Model) -> int:
    """Count the FLOPs of a training step per image.

    A layer's forward cost counts again for its weight gradient, unless frozen, and for its input
    gradient, unless nothing before it is trained.

    Args:
        network: as for `forward_flops`.

    Raises:
        ModelError: as `forward_flops`.
    """
    total = 0
    trained: set[int] = set()  # tensors that depend on a weight that is trained
    for node in _nodes(network):
        layer = node.operation
        trained_before = any(id(tensor) in trained for tensor in node.input_tensors)
        total += _flops(node) * (1 + _kernel_is_trained(layer) + trained_before)
        weights: Any = getattr(layer, "trainable_variables", ())
        if trained_before or weights:
            trained |= {id(tensor) for tensor in node.output_tensors}
    return total


def _nodes(network: keras.Model) -> Iterator[Any]:
    """Yield the layer calls of a network, from input to output.

    Needed because a layer may be shared by several networks and sizes.
    """
    by_depth = network._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from by_depth[depth]


def _flops(node: Any) -> int:
    """Return two operations per kernel weight and output position."""
    layer = node.operation
    if not isinstance(layer, _COUNTED):
        _refuse_matrices(layer)
        return 0
    _, *places, _ = node.output_tensors[0].shape
    kernels = [getattr(layer, name) for name in _KERNELS if hasattr(layer, name)]
    weights = sum(int(math.prod(kernel.shape)) for kernel in kernels)
    return 2 * weights * int(math.prod(places))


def _kernel_is_trained(layer: Any) -> bool:
    kernels = [getattr(layer, name, None) for name in _KERNELS]
    trained = getattr(layer, "trainable_variables", ())
    return any(variable is kernel for variable in trained for kernel in kernels)


def _refuse_matrices(layer: Any) -> None:
    weights = getattr(layer, "weights", ())  # an operation of keras.ops has none
    matrices = [variable.path for variable in weights if len(variable.shape) > 1]
    if matrices:
        known = ", ".join(kind.__name__ for kind in _COUNTED)
        raise ModelError(
            f"the layer {layer.name!r} ({type(layer).__name__}) has weights {', '.join(matrices)} "
            f"whose operations are not counted; expected {known}: teach tinylens.models.flops"
        )
