"""Checks that every network passes, on the Keras backend that runs."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter

from conformance.datasets import tiny_dataset
from tinylens import metrics
from tinylens.data.dataset import Dataset, Splits
from tinylens.errors import RecipeError
from tinylens.models.build import BUILDERS, build_network, check_options, ship
from tinylens.models.spec import NetworkShape
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.training import trainer as compiling
from tinylens.training.loop import fit

CLASSES = 4
IMAGES = 64
SIZES = ((16, 16, 1), (28, 28, 1), (32, 32, 3))
TOLERANCE = 1e-5  # float32 sums taken in another order
OVERFITTING = {  # 64 images by heart in 60 steps
    "train.epochs": 15,
    "train.batch_size": 16,
    "train.best_weights": False,
    "optimizer.learning_rate": 5e-3,
}

Weights = list[NDArray[Any]]


@dataclass(frozen=True)
class Trained:
    """A network that has learned 64 images by heart, and what was seen on the way."""

    network: keras.Model
    before: Weights
    after_one_step: Weights
    losses: list[float]


@dataclass(frozen=True, eq=False)
class ModelCase:
    """A network to check.

    Attributes:
        name: in `tinylens.models.build.BUILDERS`.
        image_shape: height, width and channels of the images it is trained on.
        options: of its builder; small ones make the checks quick.
    """

    name: str
    image_shape: tuple[int, int, int] = (16, 16, 3)
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def build(
        self, image_shape: tuple[int, int, int] | None = None, *, seed: int = 0
    ) -> keras.Model:
        """Return the network for images of a shape, untrained."""
        shape = image_shape or self.image_shape
        channels = shape[2]
        network_shape = NetworkShape(
            shape,
            CLASSES,
            mean=(120.0,) * channels,
            std=(60.0,) * channels,
            sample=tiny_dataset(shape, CLASSES, IMAGES).images,
            seed=seed,
        )
        return build_network(self.name, network_shape, self.options)

    @cached_property
    def images(self) -> Dataset:
        """64 images to learn."""
        return tiny_dataset(self.image_shape, CLASSES, IMAGES)

    @cached_property
    def trained(self) -> Trained:
        """The network trained in float32, through the path that every training takes."""
        return _train(self, "float32")


def check_builds_for_every_size(case: ModelCase) -> None:
    """It can be built for grey and colour images of several sizes, and gives a row an image."""
    for shape in SIZES:
        network = case.build(shape)
        found = _answers(network, np.zeros((2, *shape), np.float32))
        assert found.shape == (2, CLASSES), f"{shape}: logits have shape {found.shape}"
        assert np.isfinite(found).all(), f"{shape}: logits are not finite"


def check_starting_weights_follow_the_seed(case: ModelCase) -> None:
    """Equal seeds give equal weights, whatever was drawn before; other seeds give others."""
    weights = []
    for global_seed, seed in ((1, 7), (2, 7), (2, 8)):
        keras.utils.set_random_seed(global_seed)
        weights.append(case.build(seed=seed).get_weights())
    assert _same(weights[0], weights[1]), "two networks of one seed start with other weights"
    assert not _same(weights[1], weights[2]), "two seeds start with the same weights"


def check_logits_are_float32_in_any_arithmetic(case: ModelCase) -> None:
    """The last layer computes in float32, since a softmax of bfloat16 has 2 digits."""
    before = keras.config.dtype_policy()
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        try:
            found = case.build().output.dtype
        finally:
            keras.config.set_dtype_policy(before)
        assert found == "float32", f"in {policy} the logits are {found}, expected float32"


def check_options_out_of_range_are_refused(case: ModelCase) -> None:
    """Every option has a range, and a value outside it is refused with the option's name."""
    wrong: dict[str, list[Any]] = {"no_such_option": [1]}
    for name, parameter in _options(case.name).items():
        wrong[name] = _values_out_of_range(parameter)
        assert len(wrong[name]) > 1, f"option {name} has no range: give it a pydantic Field"
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(RecipeError, match=name):
                check_options(case.name, {name: value})


def check_gradients_reach_every_weight(case: ModelCase) -> None:
    """One step of training changes every trainable weight."""
    network = case.trained.network
    trainable = {id(variable) for variable in network.trainable_variables}
    still = [
        variable.path
        for variable, before, after in zip(
            network.weights, case.trained.before, case.trained.after_one_step, strict=True
        )
        if id(variable) in trainable and np.array_equal(before, after)
    ]
    assert not still, f"one step left unchanged: {', '.join(still)}"


def check_overfits_64_images(case: ModelCase) -> None:
    """It learns 64 images by heart."""
    answers = _answers(case.trained.network, case.images.images).argmax(axis=1)
    right = int((answers == case.images.labels).sum())
    assert right == IMAGES, f"got {right} of {IMAGES} right, losses {case.trained.losses}"


def check_both_precisions_train(case: ModelCase) -> None:
    """The loss falls in float32 and in bfloat16, and to about the same."""
    losses = case.trained.losses
    coarse = _train(case, "bfloat16").losses
    for name, found in (("float32", losses), ("bfloat16", coarse)):
        assert found[-1] < 0.5 * found[0], f"in {name} the loss goes from {found[0]} to {found[-1]}"
    apart = abs(losses[-1] - coarse[-1]) / losses[0]
    assert apart < 0.1, f"the last losses, {losses[-1]} and {coarse[-1]}, lie far apart"


def check_batch_size_does_not_matter(case: ModelCase) -> None:
    """Images one by one get the logits that they get together."""
    images = case.images.images[:8]
    together = _answers(case.trained.network, images)
    alone = np.concatenate([_answers(case.trained.network, row[None]) for row in images])
    _require_close(alone, together)


def check_what_ships_answers_as_what_was_trained(case: ModelCase) -> None:
    """The shipped network gives the softmax of the trained network's logits."""
    images = case.images.images
    expected = _softmax(_answers(case.trained.network, images))
    _require_close(_answers(ship(case.trained.network), images), expected)


def check_temperature_divides_the_logits(case: ModelCase) -> None:
    """A temperature is in the shipped weights: probabilities are softmax(logits / temperature)."""
    images = case.images.images
    expected = _softmax(_answers(case.trained.network, images) / 2.5)
    shipped = ship(case.trained.network, temperature=2.5)
    _require_close(_answers(shipped, images), expected)


def check_curvature_changes_no_answer(case: ModelCase) -> None:
    """Bent probabilities are those of `metrics.calibrated`, in the same order as the logits."""
    images = case.images.images
    logits = _answers(case.trained.network, images)
    # images known by heart get answers of 0 and 1 alone, in which no fault shows: divide further
    heat = float(np.ptp(logits, axis=1).max())
    found = _answers(ship(case.trained.network, temperature=heat, curvature=0.3), images)
    _require_close(found, metrics.calibrated(logits, heat, 0.3))
    same = bool(np.array_equal(found.argmax(axis=1), logits.argmax(axis=1)))
    assert same, "some answers are other ones"


def check_what_ships_is_plain_keras(case: ModelCase) -> None:
    """What ships takes uint8, gives probabilities, and has no layer that Keras does not bring."""
    shipped = ship(case.trained.network, curvature=0.1)
    foreign = [layer.name for layer in shipped.layers if not _is_keras(layer)]
    assert not foreign, f"not layers of Keras: {', '.join(foreign)}"
    assert shipped.inputs[0].dtype == "uint8", f"the input is {shipped.inputs[0].dtype}"
    policies = {layer.dtype_policy.name for layer in shipped.layers} - {"float32", "uint8"}
    assert not policies, f"layers compute in {policies}, expected float32"
    sums = _answers(shipped, case.images.images).sum(axis=1)
    assert np.allclose(sums, 1, atol=TOLERANCE), f"probabilities sum to {sums}"


def check_saved_and_loaded_is_equal(case: ModelCase) -> None:
    """The shipped network, saved as .keras and loaded, gives the same answers, bit for bit."""
    shipped = ship(case.trained.network)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        shipped.save(path)
        loaded = keras.saving.load_model(path)
    images = case.images.images
    assert _same(shipped.get_weights(), loaded.get_weights()), "the weights differ"
    found, expected = _answers(loaded, images), _answers(shipped, images)
    assert np.array_equal(found, expected), "the answers differ"


MODEL_CHECKS: tuple[Callable[[ModelCase], None], ...] = (
    check_builds_for_every_size,
    check_starting_weights_follow_the_seed,
    check_logits_are_float32_in_any_arithmetic,
    check_options_out_of_range_are_refused,
    check_gradients_reach_every_weight,
    check_overfits_64_images,
    check_both_precisions_train,
    check_batch_size_does_not_matter,
    check_what_ships_answers_as_what_was_trained,
    check_temperature_divides_the_logits,
    check_curvature_changes_no_answer,
    check_what_ships_is_plain_keras,
    check_saved_and_loaded_is_equal,
)


def _train(case: ModelCase, precision: str) -> Trained:
    """Stop after the first step to look at the weights, then go on as any resumed run does."""
    recipe = Recipe(name="check").override(
        {"model.name": case.name, "model.options": dict(case.options), **OVERFITTING}
    )
    splits = Splits(case.images, None, case.images)
    trainer = compiling.build(splits, recipe, precision)
    before: Weights = trainer.network.get_weights()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        fit(trainer, run, ProgressReporter(), lambda: True)
        after_one_step: Weights = trainer.network.get_weights()
        state = fit(trainer, run, ProgressReporter(), lambda: False)
    losses = [row["loss"] for row in state.history]
    return Trained(trainer.network, before, after_one_step, losses)


def _options(name: str) -> dict[str, Any]:
    """Return the JSON schema of every option of a builder."""
    parameters = inspect.signature(BUILDERS[name], eval_str=True).parameters
    return {
        key: TypeAdapter(parameter.annotation).json_schema()
        for key, parameter in parameters.items()
        if key != "shape"
    }


def _values_out_of_range(schema: Mapping[str, Any]) -> list[Any]:
    """Return values that the schema of an option rules out, the first one of a wrong type."""
    values: list[Any] = [{"a": "table"}]
    if "minimum" in schema:
        values.append(schema["minimum"] - 1)
    if "exclusiveMinimum" in schema:
        values.append(schema["exclusiveMinimum"])
    if "maximum" in schema:
        values.append(schema["maximum"] + 1)
    if "exclusiveMaximum" in schema:
        values.append(schema["exclusiveMaximum"])
    if "enum" in schema:
        values.append("none of them")
    if schema.get("type") == "boolean":
        values.append("true")
    if "items" in schema:
        values += [[value] for value in _values_out_of_range(schema["items"])]
    return values


def _answers(network: keras.Model, images: NDArray[Any]) -> NDArray[np.float32]:
    tensor = keras.ops.convert_to_tensor(images, dtype=network.inputs[0].dtype)
    answers: NDArray[np.float32] = keras.ops.convert_to_numpy(network(tensor, training=False))
    return answers


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _require_close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    apart = float(np.abs(found - expected).max())
    assert apart <= TOLERANCE, f"the answers lie {apart:.2g} apart, expected {TOLERANCE} at most"


def _same(one: Weights, other: Weights) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def _is_keras(layer: keras.layers.Layer) -> bool:
    return type(layer).__module__.partition(".")[0] == "keras"
