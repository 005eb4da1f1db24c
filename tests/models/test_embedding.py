"""Features are the input of the last layer, on every backend and for every network that ships."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tinylens.errors import ModelError
from tinylens.models.build import build_network, ship
from tinylens.models.embedding import Embedding
from tinylens.models.spec import NetworkShape

pytestmark = pytest.mark.backend

OPTIONS = {"widths": [4], "dense": [8]}


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 12, 12, 1), np.uint8)


@pytest.mark.parametrize("tta_views", [1, 2, 6])
def test_features_through_the_last_layer_give_the_answers(images, tta_views, tmp_path):
    network = build_network("classic", NetworkShape((12, 12, 1), 3, (128.0,), (60.0,)), OPTIONS)
    path = tmp_path / "model.keras"
    ship(network, tta_views=tta_views).save(path)
    features = Embedding(path)(images)
    assert features.dtype == np.float32 and features.shape == (7, 8)
    kernel, bias = network.get_layer("logits").get_weights()
    logits = keras.ops.convert_to_numpy(network(images))
    assert np.allclose(features @ kernel + bias, logits, atol=1e-5)


def test_what_is_no_network_of_ours_is_refused(tmp_path):
    other = tmp_path / "model.keras"
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(other)
    with pytest.raises(ModelError, match="no layer called logits"):
        Embedding(other)
    other.write_bytes(b"no zip")
    with pytest.raises(ModelError, match=r"model\.keras cannot be opened by Keras"):
        Embedding(other)
