"""A classifier that tells out-of-distribution images, from the graph to the answer."""

from __future__ import annotations

import numpy as np
import pytest

from shipped import RULE, card, linear_graph, some_images, weights
from tinylens.evaluation import out_of_distribution
from tinylens.inference.classifier import Classifier
from tinylens.inference.model_file import seal
from tinylens.inference.selective_prediction import SelectivePrediction

pytest.importorskip("keras")

from onnx import helper

from tinylens.exporting.ood_output import add_ood_score


def logits_of(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float32)
    return flat @ weights(RULE)


ORDINARY = logits_of(some_images(500, RULE, seed=7))
KNOWN = out_of_distribution.fit(ORDINARY, ORDINARY.argmax(axis=1), ORDINARY)


def telling(refused: float | None = None) -> Classifier:
    assert KNOWN is not None
    graph = linear_graph(RULE)
    assert add_ood_score(graph, KNOWN)
    selective = SelectivePrediction(
        ordinary=out_of_distribution.quantiles(KNOWN.of(ORDINARY)), refused=refused
    )
    content = seal(card(RULE, selective=selective), graph.SerializeToString())
    return Classifier.from_bytes(content, "telling", threads=1)


def test_a_image_that_is_too_strange_is_unknown_and_says_why():
    classifier = telling()
    images = some_images(300, RULE, seed=8)
    figures = KNOWN.of(logits_of(images))
    refused = figures > classifier.card.selective.ood_limit(0.05)
    found = classifier.predict(images, refused=0.05)
    assert 0 < refused.sum() < 60
    assert [prediction.unknown for prediction in found] == refused.tolist()
    ood_limit = found[int(figures.argmax())]
    assert ood_limit.reason == (
        "it is unlike what the model was trained on: more unusual than "
        f"{100 * ood_limit.ood_score:.1f} % of ordinary images"
    )
    shares = [prediction.ood_score for prediction in found]
    assert np.argsort(shares, kind="stable")[0] == figures.argmin() and min(shares) < 0.02
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)  # as ordinary as those of the fit
    assert not any(prediction.unknown for prediction in classifier.predict(images))
    assert telling(0.05).predict(images) == found


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_the_graph_says_what_the_formula_says_in_every_version_of_the_operators(opset):
    graph = linear_graph(RULE)
    del graph.opset_import[:]
    graph.opset_import.append(helper.make_opsetid("", opset))
    graph.ir_version = 10
    add_ood_score(graph, KNOWN)
    selective = SelectivePrediction(ordinary=out_of_distribution.quantiles(KNOWN.of(ORDINARY)))
    content = seal(card(RULE, selective=selective), graph.SerializeToString())
    images = some_images(100, RULE, seed=9)
    _, given = Classifier.from_bytes(content, "other", threads=1).evaluated(images)
    np.testing.assert_allclose(given, KNOWN.of(logits_of(images)), rtol=1e-3, atol=1e-3)


def test_a_graph_without_a_softmax_at_its_end_is_left_alone():
    graph = linear_graph(RULE)
    graph.graph.node[-1].op_type = "LogSoftmax"
    before = graph.SerializeToString()
    assert not add_ood_score(graph, KNOWN)
    assert graph.SerializeToString() == before
