"""Many steps in one call come to what Keras's `fit` comes to, on JAX."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from conformance import tiny_splits
from tinylens.errors import TrainingDiverged
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.training import trainer as compiling
from tinylens.training.loop import fit

if keras.backend.backend() != "jax":
    pytest.skip("JAX alone takes many steps in a call", allow_module_level=True)

import jax

from tinylens.training import many_steps

pytestmark = pytest.mark.backend

CLASSIC = Recipe(name="test").override(
    {
        "model.options": {"widths": [4], "dense": [8], "dropout": 0.2},
        "train.epochs": 2,
        "train.batch_size": 16,
        "train.ema": 0.8,
        "train.balance": "weights",
        "optimizer.warmup": 0.3,
        "augment.flip": "alternating",
        "augment.shift": 2,
    }
)
FAST = Recipe.load("fast").override(
    {
        "model.options": {"grey_widths": [], "widths": [8, 8]},
        "train.epochs": 4,
        "train.batch_size": 16,
        "optimizer.learning_rate": 0.02,
        "train.balance": "logits",
    }
)
RECIPES = {"classic": (CLASSIC, (12, 12, 1)), "fast": (FAST, (32, 32, 1))}
STEPS = 4  # an epoch of all 64 images


class Calls(ProgressReporter):
    """Notes after how many steps of an epoch it was told."""

    def __init__(self):
        self.described = []

    def step(self, progress):
        self.described.append((progress.epoch, progress.step))


def trained(recipe, shape, folder, reporter=None, should_stop=lambda: False):
    trainer = compiling.build(tiny_splits(shape), recipe, "float32")
    state = fit(trainer, Run(folder), reporter or ProgressReporter(), should_stop)
    return trainer, state


@pytest.fixture
def _in_few_calls(monkeypatch):
    monkeypatch.setattr(many_steps, "pay", lambda: True)
    monkeypatch.setattr(many_steps, "keep_compiled", lambda folder: None)


@pytest.fixture(scope="module", params=RECIPES)
def by_steps(request, tmp_path_factory):
    """A recipe, a shape, and what `fit` made of them."""
    recipe, shape = RECIPES[request.param]
    trainer, state = trained(recipe, shape, tmp_path_factory.mktemp("run"))
    assert not trainer.loops
    return recipe, shape, trainer.network.get_weights(), state.history


def assert_the_same(trainer, state, by_steps):
    *_, weights, history = by_steps
    for found, expected in zip(trainer.network.get_weights(), weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-4)
    for row, expected in zip(state.history, history, strict=True):
        same = {name: value for name, value in expected.items() if "second" not in name}
        assert {name: row[name] for name in same} == pytest.approx(same, abs=2e-3)


@pytest.mark.usefixtures("_in_few_calls")
def test_weights_and_history_are_those_of_fit(by_steps, tmp_path):
    trainer, state = trained(*by_steps[:2], tmp_path)
    assert trainer.loops
    assert_the_same(trainer, state, by_steps)


@pytest.mark.usefixtures("_in_few_calls")
def test_stopped_within_an_epoch_it_goes_on_to_the_same_weights(by_steps, tmp_path, monkeypatch):
    monkeypatch.setattr(many_steps, "SECONDS_A_CALL", 0)
    left = iter(range(STEPS + 1))  # in the second epoch
    _, state = trained(*by_steps[:2], tmp_path, should_stop=lambda: next(left, None) is None)
    assert (state.epoch, state.step, state.finished) == (1, 2, False)
    trainer, state = trained(*by_steps[:2], tmp_path)
    assert_the_same(trainer, state, by_steps)


@pytest.mark.usefixtures("_in_few_calls")
def test_after_two_calls_of_a_step_the_rest_of_an_epoch_is_one_call(tmp_path):
    reporter = Calls()
    trained(CLASSIC, (12, 12, 1), tmp_path, reporter)
    assert reporter.described == [(0, 1), (0, 2), (0, STEPS), (1, STEPS)]


@pytest.mark.usefixtures("_in_few_calls")
def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    changes = {"optimizer.name": "sgd", "optimizer.learning_rate": 10, "train.ema": 0}
    recipe = CLASSIC.override({**changes, "optimizer.weight_decay": 0.99, "train.epochs": 60})
    with pytest.raises(TrainingDiverged, match=r"by step \d+ \(epoch \d+, learning rate"):
        trained(recipe, (12, 12, 1), tmp_path)


def test_on_a_processor_fit_takes_the_steps():
    assert not many_steps.pay()


def test_what_was_compiled_is_kept_where_nobody_said_another_place(tmp_path):
    try:
        many_steps.keep_compiled(tmp_path / "first")
        many_steps.keep_compiled(tmp_path / "second")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "first")
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
