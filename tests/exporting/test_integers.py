"""A network in 8-bit integers: what it computes in, what it says of itself, and what it keeps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from tinylens.data.load import reopen
from tinylens.exporting.int8 import integer_model, some
from tinylens.inference.classifier import Classifier
from tinylens.inference.model_file import INTEGER_TOLERANCE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxruntime")


@pytest.fixture(scope="module")
def made(trained):
    floats = Classifier.open(trained)
    data = reopen(trained)
    return floats, integer_model(trained.model.read_bytes(), floats.card, data), data


def test_all_convolutions_but_the_first_are_in_integers(made):
    nodes = onnx.load_from_string(made[1]).graph.node
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    makers = {node.output[0]: node.op_type for node in nodes}
    quantized = [makers.get(node.input[0]) == "DequantizeLinear" for node in convolutions]
    assert quantized == [False] + [True] * (len(convolutions) - 1) and len(convolutions) == 7
    kinds = Counter(node.op_type for node in nodes)
    assert kinds["BatchNormalization"] == 0  # all folded, also those behind pools
    [dense] = [node for node in nodes if node.op_type == "Gemm"]
    assert makers[dense.input[0]] != "DequantizeLinear" or dense.output[0] not in {
        node.input[0] for node in nodes if node.op_type == "QuantizeLinear"
    }


def test_it_answers_nearly_as_the_floats_do_and_says_what_it_is(made):
    floats, content, data = made
    integers = Classifier.from_bytes(content, "int8")
    assert integers.card.precision == "int8"
    assert integers.card.tolerance == INTEGER_TOLERANCE
    assert integers.class_names == floats.class_names
    assert (
        len(content)
        < 0.6
        * 4
        * sum(  # a byte a weight, and what the file says of itself
            int(np.prod(item.dims)) for item in onnx.load_from_string(content).graph.initializer
        )
        + len(content) * 0.9
    )
    images = np.asarray(data.test.images)
    expected, given = floats.probabilities(images), integers.probabilities(images)
    assert (expected.argmax(axis=1) == given.argmax(axis=1)).mean() > 0.97
    assert 1e-4 < np.abs(expected - given).mean() < 0.02


def test_when_not_to_answer_is_its_own(made):
    floats, content, data = made
    integers = Classifier.from_bytes(content, "int8")
    _, ood_scores = integers.evaluated(np.asarray(data.val.images))
    ordinary = integers.card.selective.ordinary
    assert ordinary != floats.card.selective.ordinary
    assert ordinary[-1] == pytest.approx(ood_scores.max())
    assert integers.card.selective.max_error == floats.card.selective.max_error
    golden = integers.card.golden
    np.testing.assert_array_equal(integers.probabilities(golden.images), golden.probabilities)


def test_the_images_to_calibrate_on_are_the_same_each_time():
    images = np.arange(1000, dtype=np.uint8)[:, None, None, None]
    first, second = some(images), some(images)
    np.testing.assert_array_equal(first, second)
    assert len(first) == 256 and len(some(images[:7])) == 7
