"""A network in 8-bit integers: onnxruntime's static quantization, calibrated on train.

What was measured to choose the settings is in docs/decisions/integers.md.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import quantization

from tinylens import strangers
from tinylens.classifier import Classifier
from tinylens.data.dataset import Images, Splits
from tinylens.deciding import decide
from tinylens.exporting import choose_golden
from tinylens.exporting.folding import folded
from tinylens.modelfile import INTEGERS, GoldenSamples, ModelCard, seal

CALIBRATED_ON = 256  # pictures of train; 512 gave nothing more
CALIBRATION_BATCH = 64  # divides them: onnxruntime wants batches of one size
PERCENTILE = 99.999  # of the values of a layer are to be representable
QUANTIZED = ("Add", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")
QUANTIZED += ("Mul", "Relu", "Reshape", "Sigmoid", "Transpose")
OUTPUTS = ("LogSoftmax", "Softmax")  # from here on in floats: calibration and strangeness


def integer_model(content: bytes, card: ModelCard, data: Splits) -> bytes:
    """Return a model file that computes in 8-bit integers.

    The first convolution and the layer that gives logits stay in floats: they take little time, and
    rounding costs most there. When not to answer is worked out anew on val, from the integer network's own answers.

    Args:
        content: of model.onnx.
        card: of it.
        data: the parts that it was trained, chosen and judged on; test is not looked at.
    """
    proto = onnx.load_from_string(content)
    del proto.metadata_props[:]
    body = _quantized(folded(proto), _some(data.train.images)).SerializeToString()
    pictures = _some(data.train.images if data.val is None else data.val.images)
    card = replace(card, precision=INTEGERS, golden=_answered(card, body, pictures))
    classifier = Classifier.from_bytes(seal(card, body), "the integer network")
    if data.val is not None:
        answers, strange = classifier.judged(data.val.images)
        old = card.deciding
        known = decide(answers, data.val.labels, old.max_error)
        if old.ordinary and strange is not None:
            ordinary = strangers.quantiles(strange.astype(np.float64))
            known = replace(known, ordinary=ordinary, refused=old.refused)
        card = replace(card, deciding=known)
    return seal(card, body)


def _some(images: Images) -> Images:
    """Return pictures from all over a part, in its order, the same ones each time."""
    count = min(CALIBRATED_ON, len(images))
    rows = np.random.default_rng(0).choice(len(images), count, replace=False)
    return np.asarray(images[np.sort(rows)])


def _answered(card: ModelCard, body: bytes, pictures: Images) -> GoldenSamples:
    """Return golden samples of a network whose answers nobody else has recorded."""
    session = onnxruntime.InferenceSession(body, providers=["CPUExecutionProvider"])
    return choose_golden(pictures, session.run(["probabilities"], {"image": pictures})[0])


def _quantized(proto: onnx.ModelProto, pictures: Images) -> onnx.ModelProto:
    names = _names_to_quantize(proto)
    with tempfile.TemporaryDirectory() as name, _quiet():
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
    last = next((i for i, node in enumerate(nodes) if node.op_type in OUTPUTS), len(nodes))
    inner = [node for node in nodes[first + 1 : last] if node.op_type in QUANTIZED]
    dense = [node for node in inner if node.op_type == "Gemm"]
    return [node.name for node in inner if not dense or node is not dense[-1]]


class _Pictures(quantization.CalibrationDataReader):
    """What onnxruntime calibrates with: batches of one size."""

    def __init__(self, pictures: Images) -> None:
        size = min(CALIBRATION_BATCH, len(pictures))
        starts = range(0, len(pictures) - size + 1, size)
        self._batches: Iterator[Images] = iter([pictures[at : at + size] for at in starts])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what the quantizer says: advice that was followed, and a line a step."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
