"""The checks have teeth: each one fails on a network, reader or recipe made to break it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import keras
import numpy as np
import pytest
from keras import ops
from pydantic import Field

from conformance import MODEL_CHECKS, ModelCase, networks, recipes, tiny_dataset, tiny_splits
from conformance.readers import FILE_DAMAGES, READER_CHECKS, ReaderCase
from tinylens.data.dataset import Splits
from tinylens.data.readers import arrays
from tinylens.errors import DataError, RecipeError
from tinylens.models.build import BUILDERS
from tinylens.models.layers import HostHeUniform
from tinylens.models.spec import logits, normalized_input
from tinylens.recipe import Recipe

Units = Annotated[int, Field(ge=1, le=99)]


def small(shape, *, units: Units = 32):
    """Conforms: the image, one dense layer, the logits."""
    return around(shape, units, lambda x: x)


def around(shape, units, change, last=logits):
    """A network with `change` between its dense layer and its logits."""
    initializers = shape.initializers()
    pixels, x = normalized_input(shape)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(units, activation="relu", kernel_initializer=next(initializers))(x)
    return keras.Model(pixels, last(change(x), shape.num_classes, next(initializers)))


def unseeded(shape, *, units: Units = 32):
    return around(shape, units, keras.layers.Dense(8))


def coarse_logits(shape, *, units: Units = 32):
    return around(shape, units, lambda x: x, last=lambda x, n, _: keras.layers.Dense(n)(x))


def without_range(shape, *, units: int = 32):
    return around(shape, units, lambda x: x)


def dead_branch(shape, *, units: Units = 32):
    def change(x):
        branch = keras.layers.Dense(units, kernel_initializer=HostHeUniform((9,)))(x)
        return keras.layers.Add()([x, keras.layers.Rescaling(0.0)(branch)])

    return around(shape, units, change)


def blind(shape, *, units: Units = 32):
    return around(shape, units, keras.layers.Rescaling(0.0))


class MinusBatchMean(keras.layers.Layer):
    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=0, keepdims=True)


def batch_dependent(shape, *, units: Units = 32):
    return around(shape, units, MinusBatchMean())


def not_dense_at_the_end(shape, *, units: Units = 32):
    return around(
        shape,
        units,
        lambda x: x,
        last=lambda x, n, i: keras.layers.Rescaling(2.0, dtype="float32")(logits(x, n, i)),
    )


@keras.saving.register_keras_serializable(package="test")
class Forgetful(keras.layers.Layer):
    """Leaves out of its config what it was made with."""

    def __init__(self, factor=1.0, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {"name": self.name}


def forgetful(shape, *, units: Units = 32):
    return around(shape, units, Forgetful(3.0))


def for_one_size(shape, *, units: Units = 32):
    if shape.image_shape != (16, 16, 3):
        raise ValueError("made for 16×16 alone")
    return small(shape, units=units)


BROKEN = [
    (for_one_size, networks.check_builds_for_every_size, "made for 16×16 alone"),
    (unseeded, networks.check_starting_weights_follow_the_seed, "start with other weights"),
    (coarse_logits, networks.check_logits_are_float32_in_any_arithmetic, "logits are bfloat16"),
    (without_range, networks.check_options_out_of_range_are_refused, "option units has no range"),
    (dead_branch, networks.check_gradients_reach_every_weight, "one step left unchanged: dense_"),
    (blind, networks.check_overfits_64_images, "of 64 right"),
    (blind, networks.check_both_precisions_train, "the loss goes from"),
    (batch_dependent, networks.check_batch_size_does_not_matter, "the answers lie"),
    (forgetful, networks.check_what_ships_answers_as_what_was_trained, "the answers lie"),
    (not_dense_at_the_end, networks.check_temperature_divides_the_logits, "the answers lie"),
    (forgetful, networks.check_curvature_changes_no_answer, "the answers lie"),
    (forgetful, networks.check_what_ships_is_plain_keras, "not layers of Keras: forgetful"),
    (batch_dependent, networks.check_saved_and_loaded_is_equal, "MinusBatchMean"),
]


@pytest.fixture
def entered(monkeypatch):
    """Puts builders into the table for a test."""

    def enter(build):
        monkeypatch.setitem(BUILDERS, build.__name__, build)
        return ModelCase(build.__name__)

    return enter


def test_every_check_of_networks_is_broken_by_something():
    assert {check for _, check, _ in BROKEN} == set(MODEL_CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "check", "reason"), BROKEN, ids=lambda x: getattr(x, "__name__", "")
)
def test_check_of_networks_fails_on_what_is_broken(entered, build, check, reason):
    with pytest.raises((AssertionError, ValueError, TypeError, AttributeError), match=reason):
        check(entered(build))


@pytest.mark.slow
@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
def test_a_network_that_conforms_passes(entered, check):
    check(entered(small))


# --- readers


def write(folder, data):
    arrays.write(folder / "set.npz", data)
    return folder / "set.npz"


def swapped_labels(path):
    data = arrays.read(path)
    return replace(data, labels=data.labels[::-1])


def other_names(path):
    return replace(arrays.read(path), class_names=("d", "c", "b", "a"))


def never_the_same(path):
    data = arrays.read(path)
    images = data.images.copy()
    images[0] = np.random.default_rng().integers(0, 256, images[0].shape)
    return replace(data, images=images)


def touching(path):
    data = arrays.read(path)
    path.write_bytes(path.read_bytes() + b"\x00")
    return data


def gives_up_oddly(path):
    try:
        return arrays.read(path)
    except DataError as error:
        raise ValueError(str(error)) from None


def names_no_path(path):
    try:
        return arrays.read(path)
    except DataError:
        raise DataError("something is wrong") from None


def makes_do(path):
    try:
        return arrays.read(path)
    except DataError:
        return tiny_dataset((8, 8, 3), count=12)


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (swapped_labels, "the labels differ"),
        (other_names, "found ('d', 'c'"),
        (never_the_same, "the pixels differ"),
        (never_the_same, "two readings differ"),
        (touching, "reading has changed the files"),
        (gives_up_oddly, "make_empty: raised ValueError instead of DataError"),
        (names_no_path, "make_empty: the error names no path: something is wrong"),
        (makes_do, "make_empty: accepted, with 12 images"),
    ],
)
def test_check_of_readers_fails_on_what_is_broken(read, reason):
    case = ReaderCase(read, write, FILE_DAMAGES, tiny_dataset((8, 8, 3), count=12))
    described = []
    for check in READER_CHECKS:
        try:
            check(case)
        except (AssertionError, ValueError) as error:
            described.append(str(error))
    assert reason in "\n".join(described)


# --- recipes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "check", "reason"),
    [
        ({"summary": " "}, recipes.check_says_what_it_is, "the summary is empty"),
        (
            {"model.options": {"width": 3}},
            recipes.check_network_takes_its_options,
            "the recipe has mistakes",
        ),
        (
            {"model.name": "blind"},
            recipes.check_learns_and_resumes_to_the_same_weights,
            "the loss does not fall",
        ),
    ],
)
def test_check_of_recipes_fails_on_what_is_broken(entered, changes, check, reason):
    entered(blind)
    recipe = Recipe(name="broken", summary='"x"').override(
        {"optimizer.name": "sgd", "optimizer.learning_rate": 1e-6, **changes}
    )
    with pytest.raises((AssertionError, RecipeError), match=reason):
        check(recipe)


@pytest.mark.slow
def test_check_of_recipes_notices_a_resume_that_goes_astray(entered):
    """A network that draws its dropout from the backend starts another draw when it is resumed."""

    def drawing(shape, *, units: Units = 32):
        return around(shape, units, keras.layers.Dropout(0.5))

    entered(drawing)
    recipe = Recipe(name="x").override({"model.name": "drawing"})
    with pytest.raises(AssertionError, match="resumed, it ends with other weights"):
        recipes.check_learns_and_resumes_to_the_same_weights(recipe)


# --- the tiny data


def test_tiny_data_are_the_same_from_the_same_seed_and_two_draws_from_two():
    one, again, other = (tiny_dataset(seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert one.class_names == other.class_names


def test_tiny_data_of_another_seed_show_the_same_patterns():
    """The mean image of each class is nearest to that of the same class in another draw."""
    one, other = (tiny_dataset((9, 7, 3), 5, 100, seed) for seed in (0, 1))

    def means(data):
        return np.stack([data.images[data.labels == label].mean(axis=0) for label in range(5)])

    distances = np.abs(means(one)[:, None] - means(other)[None]).mean(axis=(2, 3, 4))
    assert distances.argmin(axis=1).tolist() == [0, 1, 2, 3, 4]


def test_tiny_splits_share_classes_but_no_image():
    splits = tiny_splits((8, 8, 1), count=16)
    assert isinstance(splits, Splits)
    images = [image.tobytes() for _, part in splits.items() for image in part.images]
    assert len(set(images)) == 3 * 16
