"""Int8 quantization with onnxruntime, calibrated on the training images.

What was measured to choose the settings is in docs/decisions/integers.md.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime import quantization

from tinylens.backend import quiet
from tinylens.data.dataset import Images, Splits
from tinylens.evaluation import out_of_distribution
from tinylens.exporting.onnx import choose_golden
from tinylens.inference.classifier import BATCH
from tinylens.inference.model_file import INTEGERS, ModelCard, seal
from tinylens.inference.selective_prediction import decide

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


Evaluated = Callable[[Images], list[NDArray[np.float32]]]

CALIBRATED_ON = 256  # images of train; 512 gave nothing more
CALIBRATION_BATCH = 64  # divides them: onnxruntime wants batches of one size
PERCENTILE = 99.999  # of the values of a layer are to be representable
QUANTIZED = frozenset(
    {
        *("Add", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
        *("Mul", "Relu", "Reshape", "Sigmoid", "Transpose"),
    }
)
OUTPUTS = ("LogSoftmax", "Softmax")  # from here on in floats: calibration and OOD score


def integer_model(content: bytes, card: ModelCard, data: Splits) -> bytes:
    """Return a model file that computes in 8-bit integers.

    The first convolution and the layer that gives logits stay in floats: they take little time, and
    rounding costs most there.

    Args:
        content: of model.onnx.
        card: of it.
        data: the parts that it was trained, chosen and judged on; test is not looked at.
    """
    proto = onnx.load_from_string(content)
    del proto.metadata_props[:]
    body = _quantized(folded(proto), some(data.train.images)).SerializeToString()
    session = onnxruntime.InferenceSession(body, providers=["CPUExecutionProvider"])

    return seal(integer_card(card, lambda x: session.run(None, {"image": x}), data), body)


def integer_card(card: ModelCard, evaluated: Evaluated, data: Splits) -> ModelCard:
    """Return what a network in integers says about itself: its own answers, not the floats'.

    When not to answer is worked out anew on val. Golden samples are images of val, or of train.

    Args:
        card: of the network in floats.
        evaluated: a batch of uint8 images → the integers' probabilities and, where they tell it,
            their OOD score.
        data: the parts that it was trained, chosen and judged on; test is not looked at.
    """
    images = some((data.val or data.train).images)
    golden = choose_golden(images, _in_batches(evaluated, images)[0])
    known = card.selective
    if data.val is not None:
        probabilities, *ood_scores = _in_batches(evaluated, data.val.images)
        known = decide(probabilities, data.val.labels, card.selective.max_error)
        if card.selective.ordinary and ood_scores:
            ordinary = out_of_distribution.quantiles(ood_scores[0].astype(np.float64))
            known = replace(known, ordinary=ordinary, refused=card.selective.refused)
    return replace(card, precision=INTEGERS, selective=known, golden=golden)


def _in_batches(evaluated: Evaluated, images: Images) -> list[NDArray[np.float32]]:
    starts = range(0, len(images), BATCH)
    answers = [evaluated(np.asarray(images[at : at + BATCH])) for at in starts]
    return [np.concatenate(parts) for parts in zip(*answers, strict=True)]


def some(images: Images) -> Images:
    """Return images from all over a part, in its order, the same ones each time."""
    count = min(CALIBRATED_ON, len(images))
    rows = np.random.default_rng(0).choice(len(images), count, replace=False)
    return np.asarray(images[np.sort(rows)])


def _quantized(proto: onnx.ModelProto, images: Images) -> onnx.ModelProto:
    names = _names_to_quantize(proto)
    with tempfile.TemporaryDirectory() as name, quiet():
        before, after = Path(name) / "before.onnx", Path(name) / "after.onnx"
        onnx.save(proto, before)
        quantization.quantize_static(
            before,
            after,
            _Images(images),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            calibrate_method=quantization.CalibrationMethod.Percentile,
            nodes_to_quantize=names,
            extra_options={"CalibPercentile": PERCENTILE},
        )
        return onnx.load(after)


def _names_to_quantize(proto: onnx.ModelProto) -> list[str]:
    """Return the nodes behind the first convolution and before the layer that gives logits."""
    nodes = list(proto.graph.node)
    first = next((i for i, node in enumerate(nodes) if node.op_type == "Conv"), -1)
    dense = [node for node in nodes if node.op_type == "Gemm"]
    weights = dense[-1].input[1] if dense else ""  # several views of an image share them
    found: list[str] = []
    in_floats: set[str] = set()
    for node in nodes[first + 1 :]:
        gives_logits = node.op_type == "Gemm" and node.input[1] == weights
        if gives_logits or node.op_type in OUTPUTS or in_floats & set(node.input):
            in_floats |= set(node.output)
        elif node.op_type in QUANTIZED:
            found.append(node.name)
    return found


class _Images(quantization.CalibrationDataReader):
    """What onnxruntime calibrates with: batches of one size."""

    def __init__(self, images: Images) -> None:
        size = min(CALIBRATION_BATCH, len(images))
        starts = range(0, len(images) - size + 1, size)
        self._batches: Iterator[Images] = iter([images[at : at + size] for at in starts])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}
