# ruff: noqa: E402 - most imports need Keras or come with it
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinylens import metrics
from tinylens.data.images import ImageRule
from tinylens.errors import ModelError
from tinylens.evaluation import out_of_distribution
from tinylens.inference.classifier import Classifier
from tinylens.inference.model_file import ModelCard, unseal
from tinylens.inference.selective_prediction import SelectivePrediction

keras = pytest.importorskip("keras")

import onnx
import onnxruntime
from keras import layers

from tinylens.exporting.onnx import (
    _compare,
    choose_golden,
    export_onnx,
)
from tinylens.exporting.onnx_layers import UnknownLayer
from tinylens.exporting.onnx_writer import onnx_model
from tinylens.exporting.verify import TIE
from tinylens.models.build import (
    build_network,
    ship,
)
from tinylens.models.spec import NetworkShape
from tinylens.training import finalize

pytestmark = pytest.mark.backend

CLASSES = 5


def randomized(network: Any) -> Any:
    """Give every weight a value, so that no layer is left that does nothing."""
    random = np.random.default_rng(11)
    for variable in network.weights:
        shape, name = variable.shape, variable.name
        if name in ("gamma", "moving_variance", "variance"):
            value = random.uniform(0.5, 1.5, shape)
        elif name in ("beta", "bias", "moving_mean", "mean"):
            value = random.normal(0, 0.3, shape)
        elif variable.dtype == "float32":
            value = random.normal(0, (2 / max(np.prod(shape[:-1]), 1)) ** 0.5, shape)
        else:
            continue  # a counter or the state of a random generator
        variable.assign(value.astype(np.float32))
    return network


def network(shape: tuple[int, int, int], body: Callable[[Any], Any]) -> Any:
    """Return `body` between pixels and probabilities."""
    image = keras.Input(shape, dtype="uint8", name="image")
    logits = layers.Dense(CLASSES, name="logits")(body(image))
    return randomized(keras.Model(image, layers.Softmax()(logits), name="small"))


def plain(image: Any) -> Any:
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(6, 3, activation="relu")(x)
    x = layers.Dropout(0.5)(layers.MaxPooling2D(padding="same")(x))
    return layers.Dense(16, activation="relu")(layers.Flatten()(x))


def residual(image: Any) -> Any:
    x = layers.Rescaling([0.01, 0.02, 0.015], offset=[-1.0, -2.0, -1.5])(image)
    x = layers.Conv2D(8, 3, padding="same", activation="silu")(x)
    y = layers.BatchNormalization(scale=False)(x)
    y = layers.Conv2D(16, 3, strides=2, padding="same", activation="gelu")(y)
    shortcut = layers.Conv2D(16, 1, strides=2, use_bias=False)(x)
    y = layers.Activation("relu")(layers.Add()([y, shortcut, y]))
    y = layers.SpatialDropout2D(0.1)(layers.AveragePooling2D(3, 1, padding="same")(y))
    return layers.GlobalAveragePooling2D()(y)


def squeeze_and_excite(image: Any) -> Any:
    x = layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[4000.0, 3900.0, 4100.0])(image)
    x = layers.ZeroPadding2D(((0, 1), (2, 0)))(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="hard_silu")(x)
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Reshape((1, 1, 6))(layers.Dense(6, activation="sigmoid")(gate))
    x = layers.Multiply()([x, gate])
    other = layers.LeakyReLU(negative_slope=0.1)(layers.Conv2D(4, 3, padding="same", groups=2)(x))
    x = layers.Concatenate()([x, other])
    return layers.GlobalMaxPooling2D()(layers.ReLU(max_value=6)(x))


def nested(image: Any) -> Any:
    block = keras.Sequential([layers.Conv2D(4, 3, padding="same"), layers.ReLU()], name="block")
    first = layers.Conv2D(4, 5, dilation_rate=2, padding="same", activation="tanh")
    x = block(first(layers.Rescaling(1 / 255)(image)))
    x = layers.Reshape((4, -1, 4))(block(x))  # the same weights twice
    return layers.BatchNormalization()(layers.Flatten()(x))


def enlarged(image: Any) -> Any:
    x = layers.UpSampling2D(3, interpolation="bilinear")(layers.Rescaling(1 / 16)(image))
    x = layers.SeparableConv2D(6, 3, strides=2, depth_multiplier=2, padding="same")(x)
    x = layers.SeparableConv2D(6, 3, use_bias=False, activation="hard_sigmoid")(x)
    gate = layers.ReLU(6.0)(x + 3.0) * (1 / 6)
    x = layers.UpSampling2D((2, 1))(x * gate + 0.5 * x)
    return layers.Flatten()(x)


def foreign(image: Any) -> Any:
    x = layers.Rescaling(1 / 255)(image)
    x = layers.ELU(alpha=0.7)(layers.Conv2D(6, 3, padding="same")(x))
    return layers.Flatten()(layers.AveragePooling2D(3, 1, padding="same")(x))


NETWORKS = {
    "plain grey": ((9, 7, 1), plain),
    "plain colour": ((12, 12, 3), plain),
    "residual": ((11, 14, 3), residual),
    "squeeze and excite": ((10, 9, 3), squeeze_and_excite),
    "nested": ((8, 8, 3), nested),
    "enlarged": ((9, 8, 3), enlarged),
}


def images_of(model: Any, count: int, seed: int = 0) -> np.ndarray:
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def answers_of(model: Any, images: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict(images, batch_size=len(images), verbose=0))


def card_of(model: Any, **changes: Any) -> ModelCard:
    height, width, channels = model.input_shape[1:]
    fields: dict[str, Any] = {
        "class_names": tuple(f"class {number}" for number in range(CLASSES)),
        "rule": ImageRule(height, width, channels),
        "network": model.name,
        "dataset": "noise",
        "fingerprint": "0123",
        "created": "2026-05-04T03:02:01Z",
        "tinylens": "0.1.0",
        "temperature": 1.25,
        "chosen_on": "val",
    }
    return ModelCard(**{**fields, **changes})


def export(model: Any, path: Path, **changes: Any) -> Any:
    options = {"card": card_of(model), "check_images": images_of(model, 40), **changes}
    if "check_probabilities" not in options:
        options["check_probabilities"] = answers_of(model, images_of(model, 40))
    return export_onnx(model, path, **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_network_answers_as_keras_does(name, tmp_path):
    model = network(*NETWORKS[name])
    check = export(model, tmp_path / "m.onnx")
    assert (check.writer, check.images, check.ties, check.opset) == ("tinylens", 40, 0, 17)
    assert check.largest_difference < 1e-5
    assert check.size == (tmp_path / "m.onnx").stat().st_size

    others = images_of(model, 300, seed=1)
    expected = answers_of(model, others)
    assert np.ptp(expected, axis=0).max() > 0.05  # the images do matter
    given = Classifier.open(tmp_path / "m.onnx", threads=1).probabilities(others)
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_the_file_has_our_names_and_takes_batches_of_any_size(tmp_path):
    model = network(*NETWORKS["plain colour"])
    export(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (image,), (output,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", 12, 12, 3])
    assert (output.name, output.shape) == ("probabilities", ["batch", CLASSES])
    for count in (1, 3, 100):
        images = images_of(model, count)
        (given,) = session.run(None, {"image": images})
        np.testing.assert_allclose(given, answers_of(model, images), atol=1e-5)


def strangeness_of(model: Any) -> Any:
    """Return OOD score fitted on some answers, and the model that gives logits."""
    logits = keras.Model(model.input, model.get_layer("logits").output)
    answers = answers_of(logits, images_of(model, 200, seed=2))
    return out_of_distribution.fit(answers, np.arange(200) % CLASSES, answers), logits


@pytest.mark.parametrize("name", [*NETWORKS, "foreign"])
def test_strangeness_is_a_second_output(name, tmp_path):
    shape, body = NETWORKS.get(name, ((8, 8, 3), foreign))
    model = network(shape, body)
    known, logits = strangeness_of(model)
    of_checked = known.of(answers_of(logits, images_of(model, 40)))
    selective = SelectivePrediction(ordinary=out_of_distribution.quantiles(of_checked))
    export(
        model,
        tmp_path / "m.onnx",
        card=card_of(model, selective=selective),
        ood_score=(known, of_checked),
    )
    classifier = Classifier.open(tmp_path / "m.onnx", threads=1)
    others = images_of(model, 300, seed=1)
    probabilities, given = classifier.evaluated(others)
    np.testing.assert_allclose(probabilities, answers_of(model, others), atol=1e-5)
    np.testing.assert_allclose(given, known.of(answers_of(logits, others)), rtol=1e-3, atol=1e-3)
    ood_limit = classifier.predict(others[int(given.argmax())], refused=0.1)[0]
    assert ood_limit.unknown == (given.max() > selective.ood_limit(0.1))


def test_a_bent_network_is_exported_with_its_strangeness(tmp_path):
    wanted = NetworkShape((16, 16, 3), CLASSES, mean=(120,) * 3, std=(60,) * 3)
    trained = randomized(build_network("classic", wanted, {}))
    shipped = ship(trained, temperature=1.4, curvature=0.3, tta_views=2)
    answering = finalize.with_logits(shipped)
    images = images_of(shipped, 200, seed=3)
    probabilities, logits = answering.predict(images, verbose=0)
    known = out_of_distribution.fit(logits, np.arange(200) % CLASSES, logits)
    selective = SelectivePrediction(ordinary=out_of_distribution.quantiles(known.of(logits)))
    card = card_of(shipped, temperature=1.4, curvature=0.3, selective=selective)
    check = export_onnx(
        shipped,
        tmp_path / "m.onnx",
        card=card,
        check_images=images,
        check_probabilities=probabilities,
        ood_score=(known, known.of(logits)),
    )
    assert check.writer == "tinylens"
    classifier = Classifier.open(tmp_path / "m.onnx", threads=1)
    assert classifier.card.curvature == 0.3
    given, ood_scores = classifier.evaluated(images)
    np.testing.assert_allclose(given, metrics.calibrated(logits, 1.4, 0.3), atol=1e-5)
    np.testing.assert_allclose(ood_scores, known.of(logits), rtol=1e-3, atol=1e-3)


def test_a_strangeness_that_the_file_tells_otherwise_is_left_out(tmp_path):
    model = network(*NETWORKS["plain grey"])
    known, logits = strangeness_of(model)
    of_checked = known.of(answers_of(logits, images_of(model, 40)))
    selective = SelectivePrediction(ordinary=out_of_distribution.quantiles(of_checked))
    check = export(
        model,
        tmp_path / "m.onnx",
        card=card_of(model, selective=selective),
        ood_score=(known, of_checked + 1),
    )
    assert not check.has_ood_score
    classifier = Classifier.open(tmp_path / "m.onnx", threads=1)
    assert classifier.evaluated(images_of(model, 3))[1] is None
    assert classifier.card.selective == SelectivePrediction()


def test_the_file_holds_little_more_than_its_weights(tmp_path):
    def wide(image: Any) -> Any:
        return layers.Dense(1000)(layers.Flatten()(layers.Rescaling(1 / 255)(image)))

    model = network((16, 16, 3), wide)
    check = export(model, tmp_path / "m.onnx")
    golden = 16 * 16 * 16 * 3 * 4 / 3
    assert check.size == pytest.approx(4 * model.count_params() + golden, abs=4000)


def test_the_card_comes_with_golden_samples(tmp_path):
    model = network(*NETWORKS["plain grey"])
    images = images_of(model, 40)
    export(model, tmp_path / "m.onnx")
    card = unseal((tmp_path / "m.onnx").read_bytes(), "m.onnx")
    assert (card.temperature, card.chosen_on, card.network) == (1.25, "val", "small")
    golden = card.golden
    assert golden is not None and len(golden.images) == 16
    np.testing.assert_array_equal(golden.probabilities, answers_of(model, images)[_rows(golden)])


def _rows(golden: Any) -> list[int]:
    """Return which of the 40 images the golden ones are."""
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 7, 1), dtype=np.uint8)
    return [int((images == image).all(axis=(1, 2, 3)).argmax()) for image in golden.images]


def test_golden_samples_show_every_class_that_there_is():
    probabilities = np.full((200, 3), 0.1, np.float32)
    probabilities[:, 0] = 0.8
    probabilities[150], probabilities[199] = [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]
    images = np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1)
    golden = choose_golden(images, probabilities)
    assert golden.images.ravel().tolist() == [0, 150, 199, *range(1, 14)]
    np.testing.assert_array_equal(golden.probabilities, probabilities[golden.images.ravel()])


def test_golden_samples_of_32_by_32_colour_pixels_take_less_than_100_kb():
    images = np.zeros((50, 32, 32, 3), np.uint8)
    golden = choose_golden(images, np.full((50, 100), 0.01, np.float32))
    assert len(golden.images) == 16
    tree = ModelCard(("a", "b"), ImageRule(32, 32, 3), "", "", "", "", "", golden=golden).to_json()
    assert len(json.dumps(tree)) < 100_000
    large = choose_golden(np.zeros((50, 224, 224, 3), np.uint8), np.ones((50, 2), np.float32))
    assert len(large.images) == 1


def test_a_network_with_other_layers_goes_through_keras(tmp_path, capfd):
    model = network((8, 8, 3), foreign)
    capfd.readouterr()
    check = export(model, tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")
    assert check.writer == "keras"
    assert check.largest_difference < 1e-5
    images = images_of(model, 300, seed=1)
    given = Classifier.open(tmp_path / "m.onnx", threads=1).probabilities(images)
    np.testing.assert_allclose(given, answers_of(model, images), atol=1e-5)
    assert check.size > 4 * model.count_params()


def test_exporting_says_nothing(tmp_path, capfd):
    model = network(*NETWORKS["residual"])
    capfd.readouterr()
    export(model, tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.ReLU(threshold=1.0),
        lambda: layers.ReLU(negative_slope=0.1),
        lambda: layers.Softmax(axis=1),
        lambda: layers.BatchNormalization(axis=1),
        lambda: layers.Activation("softsign"),
        lambda: layers.Dense(3),  # of an image: once a pixel
        lambda: layers.Reshape((8, 24)),
        lambda: layers.UpSampling2D(interpolation="bicubic"),
        lambda: layers.Conv2D(2, 3, activation=layers.PReLU()),
    ],
)
def test_a_setting_without_a_translation_is_not_guessed(layer):
    def body(image: Any) -> Any:
        return layers.Flatten()(layer()(layers.Rescaling(1 / 255)(image)))

    with pytest.raises(UnknownLayer):
        onnx_model(network((8, 8, 3), body), "0")


def test_a_subclass_of_a_known_layer_is_not_taken_for_it():
    class Doubling(layers.Dense):
        def call(self, inputs: Any, training: bool | None = None) -> Any:
            return 2 * super().call(inputs)

    def body(image: Any) -> Any:
        return Doubling(4)(layers.Flatten()(layers.Rescaling(1 / 255)(image)))

    with pytest.raises(UnknownLayer, match="a Doubling"):
        onnx_model(network((8, 8, 3), body), "0")


def test_a_layer_that_no_exporter_knows_ends_in_a_sentence(tmp_path, capfd, monkeypatch):
    class Moody(layers.Layer):
        broken = False

        def call(self, inputs: Any) -> Any:
            if self.broken:
                os.write(2, b"as C++ would: past Python's streams")
                raise RuntimeError("not today")
            return inputs

    def body(image: Any) -> Any:
        return Moody(name="moody")(layers.Flatten()(layers.Rescaling(1 / 255)(image)))

    model = network((8, 8, 3), body)
    images = images_of(model, 2)
    answers = answers_of(model, images)
    monkeypatch.setattr(Moody, "broken", True)
    capfd.readouterr()
    with pytest.raises(ModelError) as caught:
        export(model, tmp_path / "m.onnx", check_images=images, check_probabilities=answers)
    message = str(caught.value)
    assert message.startswith(
        "small was not exported: tinylens cannot write moody, a Moody, and Keras's export on "
        f"{keras.backend.backend()} failed: "
    )
    assert "\n" not in message
    assert not (tmp_path / "m.onnx").exists()
    assert capfd.readouterr() == ("", "")


# --- what is not kept


def test_a_file_that_answers_differently_is_not_kept(tmp_path):
    model = network(*NETWORKS["plain grey"])
    path = tmp_path / "m.onnx"
    path.write_bytes(b"the model of before")
    wrong = answers_of(model, images_of(model, 40))
    wrong[39] = (wrong[39] + 0.01) / 1.05  # not a golden sample: too late of its class
    with pytest.raises(ModelError, match=r"small was not exported: its probabilities differ by"):
        export(model, path, check_probabilities=wrong)
    wrong[0] = np.roll(wrong[0], 1)  # a golden sample too
    with pytest.raises(ModelError, match=r"small was not exported: m.onnx does not give its"):
        export(model, path, check_probabilities=wrong)
    assert path.read_bytes() == b"the model of before"
    assert list(tmp_path.iterdir()) == [path]


def test_another_class_is_refused_but_for_ties():
    expected = np.array([[0.5, 0.3, 0.2], [0.50001, 0.49999, 0.0]], np.float32)
    given = expected.copy()
    assert _compare(expected, given) == (0, 0.0)
    with pytest.raises(ModelError, match="differ by up to nan"):
        _compare(expected, given * np.float32("nan"))
    given[1] = [0.49999, 0.50001, 0.0]
    with pytest.raises(ModelError, match="another class than Keras for 1 of 2 images"):
        _compare(expected, given)
    near = np.float32(TIE / 4)
    expected[1], given[1] = [0.5 + near, 0.5 - near, 0], [0.5 - near, 0.5 + near, 0]
    ties, difference = _compare(expected, given)
    assert ties == 1
    assert difference == pytest.approx(TIE / 2, rel=0.05)


def test_answers_that_are_no_numbers_are_refused(tmp_path):
    model = network(*NETWORKS["plain grey"])
    model.get_layer("logits").bias.assign(np.full(CLASSES, np.nan, np.float32))
    with pytest.raises(ModelError, match="differ by nan"):
        export(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": ("a", "b")}, "gives 5 probabilities for images of shape (9, 7, 1), but"),
        ({"rule": ImageRule(9, 9, 1)}, "names 5 classes and images of shape (9, 9, 1)"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(changes, words, tmp_path):
    model = network(*NETWORKS["plain grey"])
    with pytest.raises(ModelError) as caught:
        export(model, tmp_path / "m.onnx", card=card_of(model, **changes))
    assert words in str(caught.value)


def test_images_to_compare_on_must_fit(tmp_path):
    model = network(*NETWORKS["plain grey"])
    images = images_of(model, 4)
    for wrong in (images[:0], images[:, :5], images / 255):
        with pytest.raises(ModelError, match="images to compare on are"):
            export(model, tmp_path / "m.onnx", check_images=wrong)
    with pytest.raises(ModelError, match=r"have shape \(40, 5\), expected \(4, 5\)"):
        export(model, tmp_path / "m.onnx", check_images=images)


# --- on every backend

WRITE = """
import hashlib, sys
import test_exporting as here
model = here.network(*here.NETWORKS["residual"])
print(hashlib.sha256(here.onnx_model(model, "0").SerializeToString()).hexdigest())
"""


@pytest.mark.slow
def test_every_backend_writes_the_same_file():
    written = set()
    for backend in ("tensorflow", "jax", "torch"):
        done = subprocess.run(
            [sys.executable, "-c", WRITE],
            cwd=Path(__file__).parent,
            env={**os.environ, "KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
            check=True,
        )
        written.add(done.stdout)
    assert len(written) == 1


def test_other_programs_can_read_the_file(tmp_path):
    export(network(*NETWORKS["residual"]), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert (model.producer_name, model.producer_version) == ("tinylens", "0.1.0")
