"""The mean of several networks' probabilities, against NumPy; and that it ships."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from onnxruntime import InferenceSession

from conformance import tiny_dataset
from tinylens.evaluation import out_of_distribution
from tinylens.exporting.onnx_writer import onnx_model
from tinylens.exporting.ood_output import add_ood_score
from tinylens.metrics import calibrated
from tinylens.models.build import build_network, ship, ship_ensemble
from tinylens.models.spec import NetworkShape

pytestmark = pytest.mark.backend

SHAPE = (16, 16, 3)


@pytest.fixture(scope="module")
def images():
    return tiny_dataset(SHAPE, 4, 16).images


@pytest.fixture(scope="module")
def members(images):
    """One network that ships with a bend and one without."""
    found = []
    for seed, curvature in enumerate((0.3, 0.0)):
        shape = NetworkShape(SHAPE, 4, (120.0,) * 3, (60.0,) * 3, seed, images)
        built = build_network("whitened", shape, {"widths": [8, 8]})
        head = built.layers[-1]
        head.set_weights([300 * values for values in head.get_weights()])  # answers that differ
        found.append(ship(built, 1.2, curvature=curvature))
    return found


def answers(model, images):
    return keras.ops.convert_to_numpy(model(images))


@pytest.mark.parametrize("curvature", [0.0, 0.4])
def test_an_ensemble_answers_with_the_calibrated_mean(members, images, curvature, tmp_path):
    mean = np.mean([answers(member, images) for member in members], axis=0)
    expected = calibrated(np.log(mean), 0.7, curvature)
    assert np.abs(expected - answers(members[0], images)).max() > 0.01  # else nothing was tested
    ensemble = ship_ensemble(members, 0.7, curvature)
    np.testing.assert_allclose(answers(ensemble, images), expected, atol=1e-5)
    proto = onnx_model(ensemble, "0")
    known = out_of_distribution.fit(np.log(mean), mean.argmax(axis=1), np.log(mean))
    assert known is None or add_ood_score(proto, known, curved=curvature > 0)
    session = InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(["probabilities"], {"image": images})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    ensemble.save(tmp_path / "ensemble.keras")
    again = keras.saving.load_model(tmp_path / "ensemble.keras", compile=False)
    np.testing.assert_allclose(answers(again, images), expected, atol=1e-5)


def test_a_class_that_all_rule_out_has_a_number(images):
    pixels = keras.Input(SHAPE, dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(0.0)(pixels))
    sure = keras.layers.Dense(2, bias_initializer=keras.initializers.Constant(0), name="logits")
    values = sure(flat)
    kernel, _ = sure.get_weights()
    sure.set_weights([kernel, np.array([0.0, -200.0], np.float32)])
    model = keras.Model(pixels, keras.layers.Softmax()(values))
    found = answers(ship_ensemble([model, model]), images)
    assert np.isfinite(found).all() and (found[:, 0] == 1).all()
