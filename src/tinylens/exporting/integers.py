"""A network in 8-bit integers: onnxruntime's static quantization, calibrated on train.

What was measured to choose the settings is in docs/decisions/integers.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import quantization

from tinylens import strangers
from tinylens.classifier import BATCH
from tinylens.data.dataset import Images, Splits
from tinylens.deciding import decide
from tinylens.exporting import choose_golden
from tinylens.exporting.folding import folded
from tinylens.modelfile import INTEGERS, ModelCard, seal
from tinylens.quiet import quiet

Judged = Callable[[Images], list[NDArray[np.float32]]]

CALIBRATED_ON = 256  # pictures of train; 512 gave nothing more
CALIBRATION_BATCH = 64  # divides them: onnxruntime wants batches of one size
PERCENTILE = 99.999  # of the values of a layer are to be representable
QUANTIZED = frozenset(
    {
        *("Add", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
        *("Mul", "Relu", "Reshape", "Sigmoid", "Transpose"),
    }
)
OUTPUTS = ("LogSoftmax", "Softmax")  # from here on in floats: calibration and strangeness


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


def integer_card(card: ModelCard, judged: Judged, data: Splits) -> ModelCard:
    """Return what a network in integers says about itself: its own answers, not the floats'.

    When not to answer is worked out anew on val. Golden samples are pictures of val, or of train.

    Args:
        card: of the network in floats.
        judged: a batch of uint8 pictures → the integers' probabilities and, where they tell it,
            their strangeness.
        data: the parts that it was trained, chosen and judged on; test is not looked at.
    """
    pictures = some((data.val or data.train).images)
    golden = choose_golden(pictures, _in_batches(judged, pictures)[0])
    known = card.deciding
    if data.val is not None:
        probabilities, *strange = _in_batches(judged, data.val.images)
        known = decide(probabilities, data.val.labels, card.deciding.max_error)
        if card.deciding.ordinary and strange:
            ordinary = strangers.quantiles(strange[0].astype(np.float64))
            known = replace(known, ordinary=ordinary, refused=card.deciding.refused)
    return replace(card, precision=INTEGERS, deciding=known, golden=golden)


def _in_batches(judged: Judged, images: Images) -> list[NDArray[np.float32]]:
    starts = range(0, len(images), BATCH)
    answers = [judged(np.asarray(images[at : at + BATCH])) for at in starts]
    return [np.concatenate(parts) for parts in zip(*answers, strict=True)]


def some(images: Images) -> Images:
    """Return pictures from all over a part, in its order, the same ones each time."""
    count = min(CALIBRATED_ON, len(images))
    rows = np.random.default_rng(0).choice(len(images), count, replace=False)
    return np.asarray(images[np.sort(rows)])


def _quantized(proto: onnx.ModelProto, pictures: Images) -> onnx.ModelProto:
    names = _names_to_quantize(proto)
    with tempfile.TemporaryDirectory() as name, quiet():
        before, after = Path(name) / "before.onnx", Path(name) / "after.onnx"
        onnx.save(proto, before)
        quantization.quantize_static(
            before,
            after,
            _Pictures(pictures),
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
    weights = dense[-1].input[1] if dense else ""  # several views of a picture share them
    found: list[str] = []
    in_floats: set[str] = set()
    for node in nodes[first + 1 :]:
        gives_logits = node.op_type == "Gemm" and node.input[1] == weights
        if gives_logits or node.op_type in OUTPUTS or in_floats & set(node.input):
            in_floats |= set(node.output)
        elif node.op_type in QUANTIZED:
            found.append(node.name)
    return found


class _Pictures(quantization.CalibrationDataReader):
    """What onnxruntime calibrates with: batches of one size."""

    def __init__(self, pictures: Images) -> None:
        size = min(CALIBRATION_BATCH, len(pictures))
        starts = range(0, len(pictures) - size + 1, size)
        self._batches: Iterator[Images] = iter([pictures[at : at + size] for at in starts])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}
