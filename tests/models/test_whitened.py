"""The fast network: its whitening against NumPy, its shape and its starting weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from conformance import tiny_dataset
from tinylens.models.airbench import SMALLEST_VARIANCE, whitening_kernel
from tinylens.models.build import build_network
from tinylens.models.spec import NetworkShape


def built(image_shape=(32, 32, 3), **options):
    channels = image_shape[2]
    images = tiny_dataset(image_shape, 4, 64).images
    shape = NetworkShape(image_shape, 10, (120.0,) * channels, (60.0,) * channels, 0, images)
    return build_network("whitened", shape, options)


@pytest.mark.parametrize(("channels", "side"), [(1, 2), (3, 2), (3, 3)])
def test_whitened_patches_have_even_second_moments_and_no_others(channels, side):
    random = np.random.default_rng(1)
    mixed = random.normal(size=(400, 9, 9, channels)) @ random.normal(size=(channels, channels))
    smooth = mixed[:, 1:] + mixed[:, :-1]  # neighbours are alike, as in images
    kernel = whitening_kernel(smooth, side)
    filters = kernel.shape[-1] // 2
    assert kernel.shape == (side, side, channels, 2 * side * side * channels)
    np.testing.assert_array_equal(kernel[..., filters:], -kernel[..., :filters])
    windows = np.lib.stride_tricks.sliding_window_view(smooth, (side, side), axis=(1, 2))
    answers = np.einsum("nhwcij,ijcf->nhwf", windows, kernel[..., :filters]).reshape(-1, filters)
    moments = answers.T @ answers / len(answers)
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, filters)
    variances = np.linalg.eigvalsh(patches.T @ patches / len(patches))[::-1]
    expected = np.diag(variances / (variances + SMALLEST_VARIANCE))  # a little less than 1
    np.testing.assert_allclose(moments, expected, atol=1e-4)


def test_the_whitening_is_not_trained_and_all_else_is():
    network = built(widths=[8, 8])
    frozen = [layer.name for layer in network.layers if layer.weights and not layer.trainable]
    assert frozen == ["whitening"]
    kernels = [v for v in network.trainable_variables if len(v.shape) == 4]
    assert [tuple(v.shape) for v in kernels] == [
        (3, 3, 24, 8),
        (3, 3, 8, 8),
        (3, 3, 8, 8),
        (3, 3, 8, 8),
    ]


def test_grey_images_get_the_widths_for_grey():
    options = {"widths": [8, 16], "grey_widths": [4, 8]}
    assert built((28, 28, 1), **options).layers[-1].input.shape[-1] == 8
    assert built((28, 28, 3), **options).layers[-1].input.shape[-1] == 16
    assert built((28, 28, 1), widths=[8, 16], grey_widths=[]).layers[-1].input.shape[-1] == 16


@pytest.mark.parametrize("side", [8, 16, 28, 32, 48, 64, 96])
def test_images_of_all_sizes_are_brought_to_about_32_pixels(side):
    network = built((side, side, 3), widths=[8, 8])
    height = network.get_layer("whitening").output.shape[1]
    assert height == side - 1 if side < 64 else height == 31
    assert network.output.shape == (None, 10)


def test_the_first_outputs_of_a_convolution_are_its_inputs():
    network = built(widths=[32, 16])
    kernels = [
        keras.ops.convert_to_numpy(layer.kernel)
        for layer in network.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.trainable
    ]
    for kernel in kernels:
        passed = min(kernel.shape[2:])
        expected = np.zeros((3, 3, kernel.shape[2], passed), np.float32)
        expected[1, 1, range(passed), range(passed)] = 1
        np.testing.assert_array_equal(kernel[..., :passed], expected)
        drawn = kernel[..., passed:]
        assert np.abs(drawn).max(initial=0) <= (9 * kernel.shape[2]) ** -0.5


def test_it_says_that_it_needs_images():
    shape = NetworkShape((32, 32, 3), 10, (120.0,) * 3, (60.0,) * 3)
    with pytest.raises(ValueError, match=r"needs NetworkShape\.sample"):
        build_network("whitened", shape, {})
