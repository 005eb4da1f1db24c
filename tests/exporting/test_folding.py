"""Norms into convolutions, pools last: fewer nodes, the same answers."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tinylens.exporting.int8 import folded


def network(scale: float, behind: tuple[str, ...]) -> onnx.ModelProto:
    """Convolution, then the nodes named, then a ReLU that is not in the way of any."""
    random = np.random.default_rng(3)
    constants = {
        "kernel": random.normal(0, 0.4, (4, 3, 3, 3)),
        "scale": scale * random.uniform(0.5, 1.5, 4),
        "shift": random.normal(0, 0.3, 4),
        "mean": random.normal(0, 0.3, 4),
        "variance": random.uniform(0.5, 1.5, 4),
    }
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["c"], name="Conv", pads=[1, 1, 1, 1])]
    for kind in behind:
        taken = {"BatchNormalization": ["scale", "shift", "mean", "variance"]}.get(kind, [])
        options = {
            "MaxPool": {"kernel_shape": [2, 2], "strides": [2, 2]},
            "BatchNormalization": {"epsilon": 1e-3},
        }.get(kind, {})
        last = nodes[-1].output[0]
        nodes.append(helper.make_node(kind, [last, *taken], [kind[0]], name=kind, **options))
    nodes[-1].output[0] = "y"
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    weights = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answers(proto: onnx.ModelProto) -> np.ndarray:
    images = np.random.default_rng(5).normal(size=(2, 3, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": images})[0]


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        (("BatchNormalization", "Relu"), ["Conv", "Relu"]),
        (("MaxPool", "BatchNormalization", "Relu"), ["Conv", "Relu", "MaxPool"]),
        (("MaxPool", "BatchNormalization", "Sigmoid"), ["Conv", "MaxPool", "Sigmoid"]),
    ],
)
def test_a_norm_goes_into_the_convolution_and_a_pool_comes_last(behind, expected):
    proto = network(1.0, behind)
    before = proto.SerializeToString()
    found = folded(proto)
    assert kinds(found) == expected
    np.testing.assert_allclose(answers(found), answers(proto), atol=1e-5)
    assert proto.SerializeToString() == before
    assert len(found.graph.initializer) == 2  # weights and bias


def test_a_norm_that_turns_the_order_round_stays_behind_its_pool():
    proto = network(-1.0, ("MaxPool", "BatchNormalization", "Relu"))
    found = folded(proto)
    assert kinds(found) == ["Conv", "MaxPool", "BatchNormalization", "Relu"]
    np.testing.assert_array_equal(answers(found), answers(proto))


def test_a_value_that_is_used_twice_is_left_alone():
    proto = network(1.0, ("BatchNormalization", "Relu"))
    extra = helper.make_tensor_value_info("c", TensorProto.FLOAT, None)
    proto.graph.output.append(extra)
    assert kinds(folded(proto)) == ["Conv", "BatchNormalization", "Relu"]
