"""Transfer: a trained body under a new head, trained on or kept as it is."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import keras
import numpy as np
import pytest
from PIL import Image

from conformance import tiny_splits
from tinylens.data.dataset import Dataset, Splits
from tinylens.errors import RecipeError, RunError
from tinylens.inference.classifier import Classifier
from tinylens.models import pretrained
from tinylens.models.embedding import Embedding, open_network
from tinylens.models.optimizers import set_apart
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.training.train import train
from tinylens.training.transfer import STRENGTHS, fit, source_of

CHANGES = {"train.epochs": 2, "train.batch_size": 40, "train.precision": "float32"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def other_classes():
    """Return images of three classes, upside down: what the source has not seen."""

    def kept(part):
        rows = np.flatnonzero(part.labels < 3)
        return Dataset(part.images[rows][:, ::-1], part.labels[rows], ("a", "b", "c"), "others")

    return Splits(**{name: kept(part) for name, part in tiny_splits((16, 16, 3), 4, 120).items()})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classic", "resnet20", "whitened"])
def test_the_body_of_every_network_is_kept_by_a_probe(name, tmp_path):
    options = {
        "classic": {"widths": [16]},
        "resnet20": {"width": 8},
        "whitened": {"widths": [8, 16]},
    }
    network = {"model.name": name, "model.options": options[name]}
    loaded = Recipe.load("fast" if name == "whitened" else "classic")
    recipe = loaded.override(CHANGES | network | {"train.hard_example_fraction": 1.0})
    source = train(tiny_splits((16, 16, 3), 4, 120), recipe, out=tmp_path / "s", report=False)
    run = train(
        other_classes(), recipe, source=source, probe=True, out=tmp_path / "p", report=False
    )
    theirs, ours = (open_network(each.keras_model) for each in (source, run))
    for before, after in zip(theirs.weights, ours.weights, strict=True):
        if "logits" not in before.path:
            assert np.array_equal(before.numpy(), after.numpy())
    assert run.recipe.model == source.recipe.model


def test_a_probe_is_a_run_and_answers_as_its_regression(trained, tmp_path, cache):
    data, out = other_classes(), tmp_path / "probe"
    run = train(data, "classic", source=trained, probe=True, out=out, report=False)
    assert run.info.source["sha256"] == hashlib.sha256(trained.keras_model.read_bytes()).hexdigest()
    assert run.info.source["used"] == "probe"
    assert run.recipe.model.name == "whitened"  # the source's, not the recipe's
    head = fit(data, trained.keras_model, run.info.source["sha256"])
    assert head.bias is None and head.kernel.shape == (16, 3)
    expected = (Embedding(trained.keras_model)(data.test.images) @ head.kernel).argmax(axis=1)
    answers = Classifier.open(run.model).probabilities(data.test.images).argmax(axis=1)
    assert np.array_equal(answers, expected)
    assert len(list((cache / "embeddings").glob("*.npy"))) == 2  # train and val; test stays shut
    with pytest.raises(RunError, match=r"source: .* → none"):
        train(data, run.recipe, out=out)


def test_embeddings_are_taken_from_the_cache(trained, cache):
    data, sha256 = other_classes(), "0" * 64
    first = fit(data, trained.keras_model, sha256)
    for kept in (cache / "embeddings").glob("*.npy"):
        np.save(kept, np.load(kept)[:, ::-1])
    again = fit(data, trained.keras_model, sha256)
    assert np.allclose(again.kernel, first.kernel[::-1], atol=1e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_without_val_the_strength_is_cross_validated(trained, classes):
    data = other_classes()
    rows = np.flatnonzero(data.train.labels < classes)
    part = Dataset(data.train.images[rows], data.train.labels[rows], ("a", "b", "c"), "some")
    head = fit(Splits(part, None, data.test), trained.keras_model, "1" * 64)
    assert head.strength in STRENGTHS
    assert head.log_loss < np.log(classes)
    assert (head.kernel[:, classes:] == 0).all()


def test_what_cannot_be_is_refused(trained, tmp_path):
    data = other_classes()
    with pytest.raises(RecipeError, match="none is named; expected --from RUN or --backbone"):
        train(data, probe=True)
    with pytest.raises(RecipeError, match=r"16×16 with 3 channels, those of .* 8×8 with 1 channel"):
        train(tiny_splits((8, 8, 1), 3, 60), source=trained)
    with pytest.raises(RecipeError, match="balance auto, which tries out networks"):
        train(data, overrides={"train.balance": "auto"}, source=trained)
    with pytest.raises(RecipeError, match="--budget chooses the network's widths"):
        train(data, source=trained, budget=60)
    with pytest.raises(RunError, match="no run folder"):
        source_of(tmp_path / "nowhere")
    assert source_of(trained.keras_model) == source_of(trained)


def test_deeper_layers_have_lower_rates(trained):
    network = open_network(trained.keras_model)
    found = pretrained.rates(network, 0.5, 0.1)
    assert len(found) == len(network.trainable_variables)
    assert found[-1] == 1.0 and found[-2] == 0.5
    kernels = [
        rate
        for rate, variable in zip(found, network.trainable_variables, strict=True)
        if len(variable.shape) == 4
    ]
    assert np.allclose(kernels, 0.5 * 0.1 ** np.arange(len(kernels))[::-1])


@pytest.mark.backend
@pytest.mark.parametrize("kind", [keras.optimizers.AdamW, keras.optimizers.SGD])
def test_each_variable_moves_at_its_own_rate(kind):
    def moved(rates):
        variables = [keras.Variable(np.ones(3, np.float32)) for _ in range(3)]
        optimizer = kind(learning_rate=0.1, weight_decay=0.2)
        if rates:
            set_apart(optimizer, variables, rates)
        optimizer.build(variables)
        gradients = [keras.ops.convert_to_tensor(np.float32([1, 2, 3])) for _ in variables]
        optimizer.apply(gradients, variables)
        return [keras.ops.convert_to_numpy(each) for each in variables]

    plain = moved(None)
    assert all(np.allclose(a, b, atol=1e-7) for a, b in zip(moved([1.0] * 3), plain, strict=True))
    still, slow, fast = moved([0.0, 0.5, 1.0])
    assert np.array_equal(still, np.ones(3))
    assert np.allclose(fast, plain[0], atol=1e-7)
    assert ((slow > fast) & (slow < 1)).all()


@pytest.mark.backend
@pytest.mark.slow
def test_a_body_is_trained_on_the_same_after_a_stop(trained, tmp_path):
    data = other_classes()
    changes = CHANGES | {"transfer.rate": 0.5, "train.hard_example_fraction": 1.0}
    whole = train(data, "fast", overrides=changes, source=trained, out=tmp_path / "a", report=False)
    out = tmp_path / "b"

    class Stops:
        def __getattr__(self, name):
            return lambda *args: None

        def epoch(self, row):
            import os
            import signal

            if row["epoch"] == 1:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(
            data, "fast", overrides=changes, source=trained, out=out, report=False, reporter=Stops()
        )
    assert Run(out).info.state == "running"
    again = train(data, "fast", overrides=changes, source=trained, out=out, report=False)
    for one, other in zip(
        open_network(whole.keras_model).get_weights(),
        open_network(again.keras_model).get_weights(),
        strict=True,
    ):
        assert np.array_equal(one, other)
    assert again.info.source["used"] == "trained on"


def test_a_body_of_another_build_is_refused(trained):
    from tinylens.errors import ModelError

    network = open_network(trained.keras_model)
    pixels = keras.Input((16, 16, 3))
    other = keras.Model(pixels, keras.layers.Dense(3, name="logits")(pixels))
    with pytest.raises(ModelError, match="does not fit the network"):
        pretrained.take(other, network, np.zeros((3, 3), np.float32), None)
    assert replace(source_of(trained), name="x").to_json()["name"] == "x"


@pytest.fixture
def folder_of_others(tmp_path):
    """Images of other classes in another size, 24×20, as a folder."""

    def enlarged(part):
        for number, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
            name = f"{part.class_names[label]}/{number}.png"
            yield name, Image.fromarray(image).resize((20, 24))

    data = other_classes()
    for part, images in (("train", data.train), ("test", data.test)):
        for name, sample in enlarged(images):
            path = tmp_path / "others" / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            sample.save(path)
    return tmp_path / "others"


def test_a_folder_is_brought_to_the_size_of_the_body(type_in, trained, folder_of_others, tmp_path):
    words = (
        "train",
        folder_of_others,
        "--from",
        trained.path,
        "--probe",
        "--out",
        tmp_path / "run",
    )
    code, _, err = type_in(*words)
    assert code == 0, err
    rule = Run(tmp_path / "run").info.image
    assert (rule["height"], rule["width"], rule["channels"]) == (16, 16, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("series", "members"), [("--seeds", 2), ("--folds", 3), ("--ensemble", 2)])
def test_every_member_of_a_series_starts_from_the_body(
    type_in, trained, folder_of_others, tmp_path, series, members
):
    words = ("train", folder_of_others, "--from", trained.path, series, members)
    changes = (
        "--epochs",
        1,
        "--set",
        "train.batch_size=40",
        "--set",
        "train.hard_example_fraction=1.0",
    )
    code, _, err = type_in(*words, *changes, "--out", tmp_path / "several")
    assert code == 0, err
    runs = [Run(path.parent) for path in (tmp_path / "several").rglob("*/run.json")]
    assert [run.info.source["name"] for run in runs] == [trained.path.name] * members
