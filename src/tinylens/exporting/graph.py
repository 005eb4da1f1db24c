"""An ONNX graph in the making."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
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
