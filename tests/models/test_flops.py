"""The operations of a network against counts made by hand."""

from __future__ import annotations

import keras
import pytest

from tinylens.errors import ModelError
from tinylens.models.build import build_network
from tinylens.models.flops import forward_flops, training_flops
from tinylens.models.layers import FusedBatchNorm
from tinylens.models.spec import NetworkShape

FIRST = 2 * 3 * 3 * 3 * 4 * 8 * 8  # 3×3 from 3 to 4 channels, at 8×8 places
SECOND = 2 * 3 * 3 * 4 * 6 * 4 * 4  # 3×3 from 4 to 6 channels, at 4×4 places
LOGITS = 2 * 96 * 10  # 4·4·6 numbers to 10


def small_network() -> keras.Model:
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="first")(pixels)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", name="second")(x)
    x = FusedBatchNorm(name="norm")(x)
    return keras.Model(pixels, keras.layers.Dense(10, name="logits")(keras.layers.Flatten()(x)))


def test_forward_counts_convolutions_with_strides_and_dense_layers():
    assert forward_flops(small_network()) == FIRST + SECOND + LOGITS


def test_training_costs_three_forwards_less_the_gradient_of_the_images():
    assert training_flops(small_network()) == 2 * FIRST + 3 * (SECOND + LOGITS)


def test_a_frozen_first_layer_costs_its_forward_and_leaves_the_second_without_input_gradient():
    network = small_network()
    network.get_layer("first").trainable = False
    assert training_flops(network) == FIRST + 2 * SECOND + 3 * LOGITS


def test_a_frozen_layer_in_the_middle_still_passes_the_gradient_on():
    network = small_network()
    network.get_layer("second").trainable = False
    assert training_flops(network) == 2 * FIRST + 2 * SECOND + 3 * LOGITS


def test_a_frozen_kernel_with_a_trained_bias_costs_no_gradient_of_its_own():
    network = small_network()
    network.get_layer("second").kernel.trainable = False
    network.get_layer("first").trainable = False
    assert training_flops(network) == FIRST + SECOND + 3 * LOGITS


def test_branches_from_the_images_both_go_without_the_gradient_of_the_images():
    pixels = keras.Input((8, 8, 3))
    left, right = (keras.layers.Conv2D(4, 3, padding="same")(pixels) for _ in range(2))
    network = keras.Model(pixels, keras.layers.Add()([left, right]))
    assert training_flops(network) == 2 * FIRST + 2 * FIRST


def test_the_same_layers_on_smaller_images_are_counted_there_and_here():
    pixels = keras.Input((8, 8, 3))
    layer = keras.layers.Conv2D(4, 3, padding="same")
    whole = keras.Model(pixels, layer(pixels))
    small = keras.Input((4, 4, 3))
    quarter = keras.Model(small, layer(small))
    assert (forward_flops(whole), forward_flops(quarter)) == (FIRST, FIRST // 4)


def test_groups_divide_the_work_and_depthwise_layers_count_each_channel_once():
    pixels = keras.Input((8, 8, 4))
    grouped = keras.layers.Conv2D(6, 3, padding="same", groups=2)(pixels)
    network = keras.Model(pixels, keras.layers.DepthwiseConv2D(3, padding="valid")(grouped))
    assert forward_flops(network) == 2 * 9 * 2 * 6 * 64 + 2 * 9 * 6 * 36


def test_a_layer_whose_work_is_not_known_is_an_error_and_not_left_out():
    pixels = keras.Input((8, 8, 3))
    network = keras.Model(pixels, keras.layers.Conv2DTranspose(4, 3, name="up")(pixels))
    with pytest.raises(ModelError, match=r"'up' \(Conv2DTranspose\) has weights up/kernel"):
        forward_flops(network)


def test_the_textbook_network_on_grey_28_pixels_takes_what_its_layers_add_up_to():
    shape = NetworkShape((28, 28, 1), 10, (120.0,), (60.0,))
    network = build_network("classic", shape, {"widths": [16, 32, 64], "dense": [256]})
    blocks = 9 * (28 * 28 * (16 + 256) + 14 * 14 * (512 + 1024) + 7 * 7 * (2048 + 4096))
    forward = 2 * (blocks + 4 * 4 * 64 * 256 + 256 * 10)
    assert forward_flops(network) == forward
    assert training_flops(network) == 3 * forward - 2 * 9 * 28 * 28 * 16
