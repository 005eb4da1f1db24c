"""ONNX graph of a Keras network, written layer by layer on any backend.

Keras's own export goes through another converter on each backend (tf2onnx, jax2onnx, torch.onnx),
takes seconds and gives three different files. The layers that small networks are made of have an
ONNX operator each, so the graph can be written directly: the same file on every backend, within
milliseconds.

Keras keeps images as (batch, height, width, channels), ONNX as (batch, channels, height, width):
the image is turned once at the input and back where it is flattened.
"""

from __future__ import annotations

from typing import Any

import keras
import onnx
from onnx import TensorProto, helper

from tinylens.exporting.onnx_layers import WRITERS, Graph, Tensor, UnknownLayer

OPSET = 17  # of 2022: has all that is needed, and the inference engines in use read it
IR_VERSION = 8  # the file layout that came with it

INPUT, OUTPUT = "image", "probabilities"


def onnx_model(network: keras.Model, version: str) -> onnx.ModelProto:
    """Return `network` as an ONNX model.

    Args:
        network: float32, Functional or Sequential, from uint8 images (batch, height, width,
            channels) to probabilities (batch, classes).
        version: of tinylens, recorded as the producer's.

    Raises:
        UnknownLayer: a layer has no translation here.
    """
    height, width, channels = network.input_shape[1:]
    graph = Graph()
    turned = graph.node("Transpose", [INPUT], (height, width, channels), perm=[0, 3, 1, 2])
    pixels = graph.like("Cast", turned, to=TensorProto.FLOAT)
    output = _write_network(graph, network, pixels)
    if len(output.shape) != 1:
        raise UnknownLayer(f"an output of shape {output.shape}")
    for node in graph.nodes:
        node.output[:] = [OUTPUT if name == output.name else name for name in node.output]
        node.input[:] = [OUTPUT if name == output.name else name for name in node.input]
    image = ["batch", height, width, channels]
    proto = helper.make_graph(
        graph.nodes,
        network.name,
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, image)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", *output.shape])],
        graph.constants,
    )
    return helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tinylens",
        producer_version=version,
    )


def _write_network(graph: Graph, network: Any, x: Tensor) -> Tensor:
    def write(layer: Any, *inputs: Any, **_: Any) -> Any:
        if isinstance(layer, keras.Model):
            return _write_network(graph, layer, *inputs)
        if getattr(layer, "compute_dtype", "float32") != "float32":
            raise UnknownLayer(f"{layer.name} in {layer.compute_dtype}, not in float32")
        writer = WRITERS.get(type(layer))  # not of a base class: a subclass may do anything
        if writer is None:
            raise UnknownLayer(f"{layer.name}, a {type(layer).__name__}")
        return writer(graph, layer, *inputs)

    functional = getattr(network, "_functional", network)  # inside a Sequential
    if not hasattr(functional, "_run_through_graph"):
        raise UnknownLayer(f"{network.name}, which is neither Functional nor Sequential")
    outputs = keras.tree.flatten(functional._run_through_graph([x], call_fn=write))
    if len(outputs) != 1:
        raise UnknownLayer(f"{network.name} with {len(outputs)} outputs")
    output: Tensor = outputs[0]
    return output
