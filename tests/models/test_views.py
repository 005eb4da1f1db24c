"""The mean over views, against NumPy; and that it ships."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from onnxruntime import InferenceSession

from conformance import tiny_dataset
from tinylens.exporting.onnx_writer import onnx_model
from tinylens.models.averaging import averaged
from tinylens.models.build import build_network, ship
from tinylens.models.spec import NetworkShape

pytestmark = pytest.mark.backend

SHAPE = (20, 16, 3)


@pytest.fixture(scope="module")
def images():
    return tiny_dataset(SHAPE, 4, 8).images


@pytest.fixture(scope="module")
def network(images):
    shape = NetworkShape(SHAPE, 4, (120.0,) * 3, (60.0,) * 3, 0, images)
    built = build_network("whitened", shape, {"widths": [8, 8]})
    head = built.layers[-1]
    head.set_weights([100 * values for values in head.get_weights()])  # answers that differ
    return built


def logits(model, images):
    return keras.ops.convert_to_numpy(model(images.astype(np.float32)))


def expected_logits(network, images, tta_views):
    def both_sides(each):
        return (logits(network, each) + logits(network, each[:, :, ::-1])) / 2

    if tta_views == 2:
        return both_sides(images)
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    moved = both_sides(wide[:, 2:, 2:]) + both_sides(wide[:, :-2, :-2])
    return both_sides(images) / 2 + moved / 4


@pytest.mark.parametrize("tta_views", [2, 6])
def test_the_logits_are_the_weighted_mean_of_those_of_the_views(network, images, tta_views):
    found = logits(averaged(network, tta_views), images)
    expected = expected_logits(network, images, tta_views)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(expected - logits(network, images)).max() > 1e-2  # else nothing was tested


@pytest.mark.parametrize("tta_views", [2, 6])
def test_what_ships_answers_with_the_same_mean(network, images, tta_views):
    values = expected_logits(network, images, tta_views) / 1.5
    expected = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    shipped = ship(network, temperature=1.5, tta_views=tta_views)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(shipped(images)), expected, atol=1e-5)
    session = InferenceSession(onnx_model(shipped, "0").SerializeToString())
    np.testing.assert_allclose(session.run(None, {"image": images})[0], expected, atol=1e-5)


def test_weights_of_several_views_are_kept_once_in_the_file(network):
    sizes = [onnx_model(ship(network, tta_views=tta_views), "0").ByteSize() for tta_views in (1, 6)]
    weights = 4 * network.count_params()
    assert sizes[1] - sizes[0] < weights / 2 + 20_000


def test_other_numbers_of_views_are_refused(network):
    with pytest.raises(ValueError, match="3 views; there are 2 or 6"):
        averaged(network, 3)
