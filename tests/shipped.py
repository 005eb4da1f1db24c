"""Model files for tests, written with the onnx package alone and checked against plain NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinylens.data.images import ImageRule
from tinylens.inference.model_file import GoldenSamples, ModelCard, seal

RULE = ImageRule(8, 6, 3)
GREY_RULE = ImageRule(8, 6, 1)
CLASS_NAMES = ("ankle boot", "bag", "coat", "dress")


def weights(rule: ImageRule, classes: int = len(CLASS_NAMES)) -> np.ndarray:
    """Return float32 (height · width · channels, classes), always the same."""
    size = rule.height * rule.width * rule.channels
    deviation = 2 / (150 * size**0.5)  # logits of noise then have a deviation of about 2
    return np.random.default_rng(size).normal(0, deviation, (size, classes)).astype(np.float32)


def linear_answers(images: np.ndarray, rule: ImageRule) -> np.ndarray:
    """Return what the network of `linear_graph` answers, in float64."""
    logits = images.reshape(len(images), -1).astype(np.float64) @ weights(rule)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def linear_graph(rule: ImageRule, classes: int = len(CLASS_NAMES)) -> onnx.ModelProto:
    """Return softmax(pixels · weights)."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *rule.shape])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])
    constants = [numpy_helper.from_array(weights(rule, classes), "weights")]
    graph = helper.make_graph(nodes, "linear", [image], [output], constants)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def some_images(count: int, rule: ImageRule, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *rule.shape), dtype=np.uint8)


def card(rule: ImageRule = RULE, **changes: Any) -> ModelCard:
    images = some_images(5, rule)
    golden = GoldenSamples(images, linear_answers(images, rule).astype(np.float32))
    made = ModelCard(
        class_names=CLASS_NAMES,
        rule=rule,
        network="linear",
        dataset="noise",
        fingerprint="0123",
        created="2026-05-04T03:02:01Z",
        tinylens="0.1.0",
        golden=golden,
    )
    return replace(made, **changes)


def model_bytes(rule: ImageRule = RULE, **changes: Any) -> bytes:
    """Return a whole model file; `changes` are made to its card."""
    return seal(card(rule, **changes), linear_graph(rule).SerializeToString())
