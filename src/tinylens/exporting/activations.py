"""How each activation function is written in ONNX: a table from function to function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tinylens.exporting.graph import Graph, Tensor


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
