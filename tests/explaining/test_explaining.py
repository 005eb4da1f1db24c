"""Grad-CAM is what its paper says, on every backend, for every network that ships."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.signal import correlate

from tinylens.errors import DataError, ModelError
from tinylens.explaining.gradcam import GradCam
from tinylens.heatmaps import Line, highest_one, upsampled
from tinylens.models.build import build_network, ship
from tinylens.models.embedding import open_network
from tinylens.models.spec import NetworkShape

pytestmark = pytest.mark.backend

LABELS = np.array([0, 1, 2, 1, 0])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 12, 12, 1), np.uint8)


def shape_for(images):
    sample = np.random.default_rng(1).integers(0, 256, (60, *images.shape[1:]), np.uint8)
    return NetworkShape(images.shape[1:], 3, (128.0,), (60.0,), seed=3, sample=sample)


def classic(images):
    """Return a small network whose norms and biases are not those that it starts with."""
    network = build_network("classic", shape_for(images), {"widths": [4], "dense": [8]})
    random = np.random.default_rng(2)
    for variable in network.variables:
        if variable.path.endswith(("beta", "moving_mean", "bias")):
            variable.assign(random.normal(0, 0.3, variable.shape))
    return network


# --- the reference: the same network in float64, gradients by differences


def weights(network):
    """Return those of convolutions, norms and dense layers, in their order."""
    kinds = keras.layers.Conv2D, keras.layers.BatchNormalization, keras.layers.Dense
    return [layer.get_weights() for layer in network.layers if isinstance(layer, kinds)]


def reference_maps(kernels, images):
    """Return the pooled maps, float64, shape (n, 6, 6, 4)."""
    x = (images.astype(np.float64) - 128) / 60
    for (kernel,), (gamma, beta, mean, variance) in (kernels[0:2], kernels[2:4]):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = np.stack(
            [
                correlate(padded, kernel[None, ..., out].astype(np.float64), "valid")[..., 0]
                for out in range(kernel.shape[-1])
            ],
            axis=-1,
        )
        x = np.maximum((x - mean) / np.sqrt(variance + np.float64(1e-5)) * gamma + beta, 0)
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def reference_logit(kernels, maps, label):
    (hidden, hidden_bias), (kernel, bias) = kernels[-2:]
    before = maps.reshape(len(maps), -1) @ hidden.astype(np.float64) + hidden_bias
    return (np.maximum(before, 0) @ kernel.astype(np.float64) + bias)[:, label]


def reference_map(kernels, image, label):
    """Return one heatmap, float64, shape (12, 12)."""
    maps = reference_maps(kernels, image[None])
    steps = 1e-6 * np.eye(maps.size).reshape(-1, *maps.shape[1:])
    rise = reference_logit(kernels, maps + steps, label)
    rise -= reference_logit(kernels, maps - steps, label)
    alphas = (rise / 2e-6).reshape(maps.shape[1:]).mean(axis=(0, 1))
    coarse = np.maximum((maps[0] * alphas).sum(axis=2), 0)
    fine = np.empty((12, 12))
    for row in range(12):
        for column in range(12):  # places are 2 pixels wide, their middles at 0.5, 2.5, … 10.5
            down, right = (np.clip((each - 0.5) / 2, 0, 5) for each in (row, column))
            top, left = min(int(down), 4), min(int(right), 4)
            a, b = down - top, right - left
            fine[row, column] = (
                (1 - a) * (1 - b) * coarse[top, left] + (1 - a) * b * coarse[top, left + 1]
                + a * (1 - b) * coarse[top + 1, left] + a * b * coarse[top + 1, left + 1]
            )  # fmt: skip
    return fine / max(fine.max(), 1e-300)


def test_maps_are_those_of_a_float64_reference(images):
    network = classic(images)
    described = []
    found = GradCam(network)(images, LABELS, lambda *done: described.append(done))
    kernels = weights(network)
    expected = [reference_map(kernels, *each) for each in zip(images, LABELS, strict=True)]
    assert found.dtype == np.float32 and described == [(5, 5)]
    assert sum(each.max() > 0 for each in expected) >= 4
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("name", ["resnet20", "whitened"])
def test_before_global_pooling_it_is_the_class_activation_map(name, images):
    # Zhou et al. 2016, arXiv:1512.04150: the kernel of the last layer weighs the channels
    options = {"width": 4, "blocks": 1} if name == "resnet20" else {"grey_widths": [8, 8]}
    network = build_network(name, shape_for(images), options)
    grad_cam = GradCam(network)
    last = network.get_layer(grad_cam.layer)
    maps = keras.ops.convert_to_numpy(keras.Model(network.input, last.output)(images))
    kernel = network.get_layer("logits").get_weights()[0]
    coarse = np.stack([each @ kernel[:, label] for each, label in zip(maps, LABELS, strict=True)])
    expected = highest_one(upsampled(np.maximum(coarse, 0), (12, 12), grad_cam._grid))
    assert grad_cam.places == maps.shape[1:3] and min(grad_cam.places) > 1
    assert not grad_cam.flattened
    assert np.abs(grad_cam(images, LABELS) - expected).max() < 1e-5


@pytest.mark.parametrize("tta_views", [1, 2, 6])
def test_what_ships_has_the_maps_of_the_network_in_it(tta_views, images, tmp_path):
    network = classic(images)
    path = tmp_path / "model.keras"
    ship(network, temperature=1.5, tta_views=tta_views).save(path)
    found = GradCam(open_network(path))(images, LABELS)
    assert np.abs(found - GradCam(network)(images, LABELS)).max() < 1e-5


def test_the_map_lies_on_what_the_network_looks_for():
    inputs = keras.Input((16, 16, 1), name="image")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.AveragePooling2D(3)(x)  # leaves out the last row and column
    x = keras.layers.Conv2D(2, 1, name="bright_and_dark")(x)
    logits = keras.layers.Dense(2, name="logits")(keras.layers.GlobalMaxPooling2D()(x))
    network = keras.Model(inputs, logits)
    network.get_layer("bright_and_dark").set_weights(
        [np.array([[[[1.0, -1.0]]]]), np.array([0.0, 0.0])]
    )
    network.get_layer("logits").set_weights([np.diag([1.0, 1.0]), np.zeros(2)])
    image = np.zeros((2, 16, 16, 1), np.uint8)
    image[:, 9:12, 3:6] = 255  # the place in row 3, column 1: its middle is the pixel (10, 4)
    bright, dark = GradCam(network)(image, np.array([0, 1]))
    assert np.unravel_index(bright.argmax(), bright.shape) == (10, 4)
    assert bright[10, 4] == 1 and bright[10, 7] == 0 and bright[7, 4] == 0
    assert bright[10, 5] == pytest.approx(2 / 3) and bright[9, 4] == pytest.approx(2 / 3)
    assert not dark.any()  # nothing is darker than 0, so nothing speaks for the other class


@pytest.mark.parametrize("size", [17, 20])
def test_places_lie_in_the_middle_of_what_they_look_at(size):
    """Kernels of ones let exactly those pixels through that a place looks at."""
    ones = {"kernel_initializer": "ones", "use_bias": False}
    inputs = keras.Input((size, size, 1))
    x = keras.layers.Conv2D(1, 2, **ones)(inputs)
    x = keras.layers.ZeroPadding2D(((0, 1), (2, 0)))(x)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.ReLU()(keras.layers.Conv2D(1, 3, padding="same", **ones)(x))
    short = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = keras.layers.Multiply()([short, x])
    x = keras.layers.Conv2D(1, 3, strides=2, padding="same", **ones)(x)
    logits = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(x))
    maps = keras.Model(inputs, keras.layers.ReLU()(x))
    lines = GradCam(keras.Model(inputs, logits))._grid
    middle = maps.output.shape[1] // 2
    for axis, line in enumerate(lines):
        dots = np.zeros((size, size, size, 1), np.float32)
        dots[np.arange(size), :, np.arange(size)] = 1  # a column each
        dots = dots.swapaxes(1, 2) if axis == 0 else dots
        seen = keras.ops.convert_to_numpy(maps(dots))[:, middle, middle, 0]
        pixels = np.flatnonzero(seen > 0)
        assert line.first + line.step * middle == (pixels[0] + pixels[-1]) / 2


def test_a_branch_that_passes_by_the_maps_is_held_still(images):
    inputs = keras.Input((12, 12, 1), name="image")
    early = keras.layers.Conv2D(3, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    late = keras.layers.Conv2D(2, 3, strides=2)(early)
    pooled = [keras.layers.GlobalAveragePooling2D()(each) for each in (early, late)]
    head = keras.layers.Dense(3, name="logits", use_bias=False)
    network = keras.Model(inputs, head(keras.layers.Concatenate()(pooled)))
    random = np.random.default_rng(0)
    for variable in network.weights:  # the last convolution's positive, so that something speaks
        values = random.normal(size=variable.shape)
        variable.assign(np.abs(values) if variable.shape[-1] == 2 else values)
    kernel = random.normal(size=(5, 3)).astype(np.float32)
    head.set_weights([kernel])
    grad_cam = GradCam(network)
    maps = keras.ops.convert_to_numpy(keras.Model(inputs, late)(images))
    coarse = np.einsum("nhwc,cn->nhw", maps, kernel[3:, LABELS])
    expected = highest_one(upsampled(np.maximum(coarse, 0), (12, 12), grad_cam._grid))
    assert expected.any() and np.abs(grad_cam(images, LABELS) - expected).max() < 1e-5


def test_a_network_within_a_network_and_a_sequential_one_are_seen_through(images):
    keras.utils.set_random_seed(0)  # one network in some hundred is dead from the start
    inner = keras.Sequential(
        [keras.Input((12, 12, 1)), keras.layers.Conv2D(3, 3, strides=2, activation="relu")]
    )
    inputs = keras.Input((12, 12, 1), name="image")
    pooled = keras.layers.GlobalAveragePooling2D()
    head = keras.layers.Dense(3, name="logits")
    outer = keras.Model(inputs, head(pooled(inner(keras.layers.Rescaling(1 / 255)(inputs)))))
    flat = keras.Sequential(
        [keras.Input((12, 12, 1)), keras.layers.Rescaling(1 / 255), *inner.layers, pooled, head]
    )
    for network in (outer, flat):
        grad_cam = GradCam(network)
        assert grad_cam.places == (5, 5) and grad_cam._grid == (Line(1.0, 2.0), Line(1.0, 2.0))
    found = GradCam(outer)(images, LABELS)
    assert found.any() and np.abs(found - GradCam(flat)(images, LABELS)).max() < 1e-6


def test_what_has_no_places_or_no_logits_is_refused(images):
    inputs = keras.Input((4,))
    flat = keras.Model(inputs, keras.layers.Dense(2, name="logits")(inputs))
    with pytest.raises(ModelError, match="has no layer with places"):
        GradCam(flat)
    with pytest.raises(ModelError, match="has no layer called logits; expected one"):
        GradCam(keras.Model(inputs, keras.layers.Dense(2)(inputs)))
    with pytest.raises(DataError, match=r"5 images, and labels of shape \(4,\) from 0 to 2"):
        GradCam(classic(images))(images, LABELS[:4])
    with pytest.raises(DataError, match="expected one an image, from 0 to 2"):
        GradCam(classic(images))(images, LABELS + 1)
