"""The table of networks: their sizes, what their options may be, and what ships of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tinylens.errors import RecipeError
from tinylens.models.build import build_network, ship
from tinylens.models.spec import NetworkShape


def shape(image_shape=(32, 32, 3), num_classes=10):
    channels = image_shape[2]
    return NetworkShape(image_shape, num_classes, (120.0,) * channels, (60.0,) * channels)


def mistakes_of(name, options):
    with pytest.raises(RecipeError) as caught:
        build_network(name, shape(), options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "image_shape", "trainable"),
    [
        # convolutions 3·3·(1·32 + 32·32 + 32·64 + 64·64 + 64·128 + 128·128), two values a channel
        # of 2·(32 + 64 + 128) norms, dense 4·4·128·128 + 128, logits 128·10 + 10
        ("classic", {}, (28, 28, 1), 285_984 + 896 + 262_272 + 1_290),
        ("classic", {"widths": [8], "dense": []}, (16, 16, 3), 9 * (24 + 64) + 32 + 5_130),
        # He et al. count 0.27 and 0.85 million, with shortcuts that have no weights
        ("resnet20", {}, (32, 32, 3), 269_722 + 16 * 32 + 32 * 64 + 2 * 96),
        ("resnet20", {"blocks": 9}, (32, 32, 3), 853_018 + 16 * 32 + 32 * 64 + 2 * 96),
    ],
)
def test_trainable_weights_are_counted(name, options, image_shape, trainable):
    network = build_network(name, shape(image_shape), options)
    assert sum(np.prod(weight.shape) for weight in network.trainable_variables) == trainable


@pytest.mark.parametrize("blocks", [1, 3, 5])
def test_a_residual_network_has_6_layers_a_block_and_2_more(blocks):
    network = build_network("resnet20", shape(), {"blocks": blocks})
    weighted = [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.Dense)
        or (isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3))
    ]
    assert len(weighted) == 6 * blocks + 2


def test_pixels_are_brought_to_mean_0_and_deviation_1_by_channel():
    spec = NetworkShape((8, 8, 3), 2, mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0))
    normalize = build_network("resnet20", spec, {"width": 1, "blocks": 1}).get_layer("normalize")
    pixels = np.array([[[[12.0, 16.0, 46.0]]]], np.float32)
    found = keras.ops.convert_to_numpy(normalize(pixels))
    np.testing.assert_allclose(found, [[[[1.0, -1.0, 2.0]]]], atol=1e-6)


def test_an_unknown_network_is_refused_with_the_near_name():
    assert mistakes_of("resnet2O", {}) == (
        "model.name: no network 'resnet2O', did you mean resnet20?; choose from "
        "backbone, classic, resnet20, whitened"
    )


def test_all_mistakes_in_options_are_told_at_once():
    described = mistakes_of("classic", {"width": 3, "dropout": 1.0, "dense": ["16"], "widths": []})
    assert described == (
        "the recipe has mistakes:\n"
        "  model.options.dense: expected a valid integer, got ['16']\n"
        "  model.options.dropout: expected less than 1, got 1.0\n"
        "  model.options.width: classic has no such option, did you mean widths?; "
        "it has widths, dense, dropout\n"
        "  model.options.widths: List should have at least 1 item after validation, not 0, got []"
    ).replace("widths: List", "widths: expected List")


@pytest.mark.parametrize("value", ["16", True, 16.0])
def test_an_option_is_not_converted_since_the_builder_gets_it_as_it_is(value):
    assert f"got {value!r}" in mistakes_of("resnet20", {"width": value})


def test_what_ships_carries_the_weights_of_each_layer():
    network = build_network("classic", shape(), {"widths": [4], "dense": [8]})
    random = np.random.default_rng(0)
    for variable in network.variables:
        if variable.dtype == "float32":
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
    shipped = ship(network)
    ours = {variable.path: variable.numpy() for variable in network.variables}
    theirs = {variable.path: variable.numpy() for variable in shipped.weights}
    counters = {path for path in ours if path.endswith("counter")}
    assert theirs.keys() == ours.keys() - counters
    for path, values in theirs.items():
        assert np.array_equal(values, ours[path]), path


def test_what_ships_is_float32_whatever_the_network_computes_in():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build_network("resnet20", shape(), {"width": 2, "blocks": 1})
        shipped = ship(network)
    finally:
        keras.config.set_dtype_policy(before)
    computing = [layer for layer in shipped.layers if layer.name != "image"]
    assert {layer.compute_dtype for layer in computing} == {"float32"}
