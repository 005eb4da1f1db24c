"""Networks of keras.applications as sources: they must see what their authors made them see."""

from __future__ import annotations

import sys

import keras
import numpy as np
import pytest

from conformance import tiny_splits
from tinylens.data.dataset import Dataset, Splits
from tinylens.errors import ModelError, RecipeError
from tinylens.models.embedding import Embedding
from tinylens.models.pretrained import architectures
from tinylens.training import backbone
from tinylens.training.train import train

TIMES = {"times": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def application(architecture, **options):
    keras.utils.set_random_seed(3)
    chosen = {"include_top": False, "weights": None, "pooling": "avg"} | options
    return seen_images(getattr(keras.applications, architecture)(**chosen), architecture)


def seen_images(network, architecture):
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # the statistics of what is seen next
    pixels = np.random.default_rng(4).uniform(0, 255, (16, 32, 32, 3))
    network(keras.ops.convert_to_tensor(prepared(architecture, pixels)), training=True)
    return network


def prepared(architecture, pixels):
    module = sys.modules[architectures()[architecture].__module__]
    return module.preprocess_input(pixels.astype("float32"))


def as_its_authors_do(network, architecture, images):
    pixels = np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images
    enlarged = keras.layers.UpSampling2D(2, interpolation="bilinear")(pixels.astype("float32"))
    inputs = prepared(architecture, keras.ops.convert_to_numpy(enlarged))
    return keras.ops.convert_to_numpy(network(inputs, training=False))


def require_same(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    "architecture",
    [
        "MobileNetV3Small",  # scales pixels within the network
        "MobileNet",  # from -1 to 1
        pytest.param("DenseNet121", marks=pytest.mark.slow),  # by mean and deviation of ImageNet
        pytest.param("ResNet50", marks=pytest.mark.slow),  # blue first, the means taken off
        pytest.param("EfficientNetV2B0", marks=pytest.mark.slow),
    ],
)
def test_a_source_sees_what_the_application_sees(architecture, tmp_path):
    data = tiny_splits((32, 32, 3), 3, 30)
    network = application(architecture)
    network.save_weights(tmp_path / "some.weights.h5")
    source = backbone.pretrained_source(architecture, tmp_path / "some.weights.h5", data, TIMES)
    images = data.test.images[:4]
    expected = as_its_authors_do(network, architecture, images)
    require_same(Embedding(source.path)(images), expected)
    again = backbone.pretrained_source(architecture, tmp_path / "some.weights.h5", data, TIMES)
    assert again.sha256 == source.sha256 and again.path == source.path


def test_a_head_in_the_file_is_left_out_and_grey_becomes_three_channels(tmp_path):
    data = tiny_splits((16, 16, 1), 3, 30)
    whole = application("MobileNetV3Small", include_top=True, pooling=None, input_shape=(32, 32, 3))
    whole.save_weights(tmp_path / "top.weights.h5")
    pools = (each for each in whole.layers if each.name.startswith("global_average_pooling2d"))
    bare = keras.Model(whole.input, next(pools).output)
    source = backbone.pretrained_source(
        "MobileNetV3Small", tmp_path / "top.weights.h5", data, TIMES
    )
    images = data.test.images[:4]
    expected = as_its_authors_do(bare, "MobileNetV3Small", images)
    require_same(Embedding(source.path)(images), expected.reshape(4, -1))


@pytest.mark.slow
def test_an_efficient_net_scales_as_its_weights_were_trained(tmp_path):
    network = application("EfficientNetB0")
    norm = next(each for each in network.layers if isinstance(each, keras.layers.Normalization))
    std = np.array([0.229, 0.224, 0.225])
    norm.adapt_mean.assign([0.485, 0.456, 0.406])
    norm.adapt_variance.assign(std**2)  # as in the file of ImageNet's weights
    norm.finalize_state()
    seen_images(network, "EfficientNetB0").save_weights(tmp_path / "some.weights.h5")
    data = tiny_splits((16, 16, 3), 3, 30)
    source = backbone.pretrained_source("EfficientNetB0", tmp_path / "some.weights.h5", data, TIMES)
    images = data.test.images[:4]
    found = Embedding(source.path)(images).ravel()

    def likeness(variance):
        norm.adapt_variance.assign(variance)
        norm.finalize_state()
        seen = as_its_authors_do(network, "EfficientNetB0", images).ravel()
        return np.corrcoef(found, seen)[0, 1]

    # drawn weights make a float's last digits grow, so it is not equality that is asked for;
    # Keras's own further layer comes to the third power
    assert likeness(std**3) > 0.999
    assert likeness(std**2) < 0.99


def test_without_the_internet_it_says_which_file_to_bring(monkeypatch, tmp_path):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(
        ModelError, match=r"expected https://\S+v3_small\S+\.h5 to answer"
    ) as described:
        backbone.trained_application("MobileNetV3Small", None)
    assert "--weights weights_mobilenet_v3_small_224_1.0_float_no_top" in str(described.value)


def test_what_cannot_be_is_refused(tmp_path):
    data = tiny_splits((16, 16, 3), 3, 30)
    other = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(other)
    with pytest.raises(ModelError, match="these are not the weights of MobileNetV3Small"):
        train(data, backbone="MobileNetV3Small", weights=other)
    with pytest.raises(ModelError, match="there is no such file"):
        train(data, backbone="MobileNetV3Small", weights=tmp_path / "none")
    with pytest.raises(RecipeError, match="did you mean MobileNetV3Small"):
        train(data, backbone="MobileNetV3Smal", weights=other)
    with pytest.raises(RecipeError, match="whose they are is not said"):
        train(data, weights=other)
    with pytest.raises(RecipeError, match="both name a body"):
        train(data, backbone="MobileNet", source=tmp_path)


@pytest.mark.slow
def test_it_is_probed_and_trained_on(tmp_path):
    bright = tiny_splits((16, 16, 3), 2, 60)

    def told_apart(part):  # by brightness alone, which drawn weights see, too
        images = part.images // 3 + (part.labels[:, None, None, None] * 120).astype(np.uint8)
        return Dataset(images, part.labels, part.class_names, "bright")

    data = Splits(**{name: told_apart(part) for name, part in bright.items()})
    application("MobileNetV3Small").save_weights(tmp_path / "some.weights.h5")
    requested = {"backbone": "MobileNetV3Small", "weights": tmp_path / "some.weights.h5"}
    changes = {"model.options.times": 2, "train.epochs": 2, "train.precision": "float32"}
    probe, run = (
        train(
            data, "backbone", **requested, probe=only, out=tmp_path / name, report=False,
            overrides=changes,
        )
        for name, only in (("probe", True), ("run", False))
    )  # fmt: skip
    assert probe.evaluation.splits["test"].accuracy.value > 0.9
    assert (
        run.info.source["name"] == "MobileNetV3Small" and run.info.source["network"] == "backbone"
    )
    assert run.evaluation.splits["test"].accuracy.value > 0.9
    assert run.recipe.model.options == {"architecture": "MobileNetV3Small", "times": 2}
    assert train(data, "backbone", **requested, out=run.path, overrides=changes).path == run.path
