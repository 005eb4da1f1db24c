"""An ONNX graph with less to compute and the same answers: what integers need to be fast.

onnxruntime folds a norm into the convolution right before it. Between the two may be a pool (Jordan
2024, arXiv:2404.00498): the largest of some values, times a positive number and moved, is the
largest of the values treated so, and a ReLU keeps their order too; so both may go before the pool,
and into the convolution. Floats gain little from this. A norm or a ReLU behind a pool would make an
integer network compute in floats there, between two conversions.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Arrays = dict[str, NDArray[Any]]
EPSILON = 1e-5  # of a BatchNormalization that names none: ONNX's own


def folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that answers as `proto` does, up to rounding.

    Args:
        proto: it is not changed.
    """
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph = _Graph(made)
    graph.pools_last("BatchNormalization")
    graph.fold_norms()
    graph.pools_last("Relu")
    graph.write_back()
    return made


class _Graph:
    """The nodes and constants of a model, while they are changed."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._graph = proto.graph
        self._outputs = {value.name for value in self._graph.output}
        self.constants: Arrays = {
            item.name: numpy_helper.to_array(item) for item in self._graph.initializer
        }
        self.nodes: list[Any] = []
        for node in self._graph.node:
            self.nodes.append(onnx.NodeProto())
            self.nodes[-1].CopyFrom(node)

    def write_back(self) -> None:
        used = {name for node in self.nodes for name in node.input}
        del self._graph.node[:], self._graph.initializer[:], self._graph.value_info[:]
        self._graph.node.extend(self.nodes)
        self._graph.initializer.extend(
            numpy_helper.from_array(array, name)
            for name, array in self.constants.items()
            if name in used
        )

    def pools_last(self, kind: str) -> None:
        """Swap every MaxPool with the node of that kind behind it, which must keep the order."""
        for pool, other in self._pairs("MaxPool", kind):
            if kind == "BatchNormalization" and not (self.constants[other.input[1]] > 0).all():
                continue
            here, there = self._place(pool), self._place(other)
            self.nodes[here], self.nodes[there] = other, pool
            source, between, result = pool.input[0], pool.output[0], other.output[0]
            other.input[0], other.output[0] = source, between
            pool.input[0], pool.output[0] = between, result

    def fold_norms(self) -> None:
        """Multiply the weights of convolutions by the factors of the norms behind them."""
        for convolution, norm in self._pairs("Conv", "BatchNormalization"):
            scale, shift, mean, variance = (self._float64(name) for name in norm.input[1:])
            epsilon = next((item.f for item in norm.attribute if item.name == "epsilon"), EPSILON)
            factor = scale / np.sqrt(variance + epsilon)
            names = "/".join([*convolution.input[1:], *norm.input[1:]])  # views share their weights
            weights, *bias = (self._float64(name) for name in convolution.input[1:])
            moved = (sum(bias) - mean) * factor + shift
            scaled = weights * factor[:, None, None, None]
            self.constants[f"{names}/weights"] = scaled.astype(np.float32)
            self.constants[f"{names}/bias"] = moved.astype(np.float32)
            del convolution.input[1:]
            convolution.input.extend([f"{names}/weights", f"{names}/bias"])
            convolution.output[0] = norm.output[0]
            self._remove(norm)

    def _pairs(self, first: str, then: str) -> list[tuple[Any, Any]]:
        """Return nodes of type `first` whose output goes to one node, of type `then`, alone.

        All that they take besides is constant.
        """
        uses = Counter(name for node in self.nodes for name in node.input)
        makers = {node.output[0]: node for node in self.nodes if node.op_type == first}
        return [
            (makers[node.input[0]], node)
            for node in self.nodes
            if node.op_type == then
            and node.input[0] in makers.keys() - self._outputs
            and uses[node.input[0]] == 1
            and {*makers[node.input[0]].input[1:], *node.input[1:]} <= self.constants.keys()
        ]

    def _place(self, node: Any) -> int:
        return next(place for place, other in enumerate(self.nodes) if other is node)

    def _remove(self, node: Any) -> None:
        del self.nodes[self._place(node)]

    def _float64(self, name: str) -> NDArray[np.float64]:
        return self.constants[name].astype(np.float64)
