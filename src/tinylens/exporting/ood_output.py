"""The OOD score as a second output of an ONNX classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from tinylens.evaluation.out_of_distribution import OodScore
from tinylens.exporting.onnx_writer import OUTPUT

OOD_SCORE = "ood_score"
# operators' versions from which on their axes are an input: ONNX's changelog
_AXES_ARE_INPUT = {"ReduceSum": 13, "ReduceMin": 18, "ReduceLogSumExp": 18}


def add_ood_score(proto: onnx.ModelProto, known: OodScore, *, curved: bool = False) -> bool:
    """Add the output "OOD score", float32 (batch,), computed from the logits.

    Args:
        proto: a classifier whose output "probabilities" is a softmax of its logits, or, where it is
            bent, whose last LogSoftmax is of them (the networks of an ensemble have their own,
            before it); it is changed.
        known: the figure.
        curved: whether calibration has bent the log probabilities.

    Returns:
        False where there is no such node to take the logits from: then nothing is changed.
    """
    graph = proto.graph
    if curved:
        takers = [node for node in graph.node if node.op_type == "LogSoftmax"]
    else:
        takers = [n for n in graph.node if OUTPUT in n.output and n.op_type == "Softmax"]
    if not takers:
        return False
    opset = max(item.version for item in proto.opset_import if item.domain in ("", "ai.onnx"))
    _write(_Formula(graph, opset), known, logits=takers[-1].input[0])
    graph.output.append(helper.make_tensor_value_info(OOD_SCORE, TensorProto.FLOAT, ["batch"]))
    return True


def _write(formula: _Formula, known: OodScore, logits: str) -> None:
    """Write down what `OodScore.of` computes."""
    x = formula.node("Sub", logits, formula.constant(known.centre))
    slope = formula.node("MatMul", x, formula.constant(known.quadratic))
    curved = formula.reduce("ReduceSum", formula.node("Mul", x, slope))
    towards = formula.node("MatMul", x, formula.constant(known.towards))
    towards = formula.node("Add", towards, formula.constant(known.offsets))
    distance = formula.node("Add", curved, formula.reduce("ReduceMin", towards))
    energy = formula.reduce("ReduceLogSumExp", logits)
    energy = formula.node("Mul", energy, formula.constant(-known.coldness))
    total = formula.node("Add", distance, energy)
    formula.node("Add", total, formula.constant(known.constant), name=OOD_SCORE)


class _Formula:
    """Nodes that are added to a graph, with names of their own."""

    def __init__(self, graph: Any, opset: int) -> None:
        self._graph, self._opset, self._count = graph, opset, 0

    def _name(self) -> str:
        self._count += 1
        return f"{OOD_SCORE}_{self._count}"

    def constant(self, value: ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, operator: str, *inputs: str, name: str = "", **options: Any) -> str:
        name = name or self._name()
        self._graph.node.append(helper.make_node(operator, inputs, [name], name=name, **options))
        return name

    def reduce(self, operator: str, value: str) -> str:
        """Reduce the last axis, which goes away."""
        if self._opset >= _AXES_ARE_INPUT[operator]:
            return self.node(operator, value, self.constant([-1], np.int64), keepdims=0)
        return self.node(operator, value, axes=[-1], keepdims=0)
