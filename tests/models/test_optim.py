"""Schedules against their closed forms, and the optimizers that a recipe can ask for."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from tinylens.models.optimizers import Schedule, build
from tinylens.recipe import OptimizerSection

pytestmark = pytest.mark.backend

STEPS = 40


def rates(**options):
    schedule = Schedule(OptimizerSection(learning_rate=0.5, **options), STEPS)
    steps = ops.convert_to_tensor(np.arange(STEPS + 1, dtype=np.int32))
    return np.array([float(ops.convert_to_numpy(schedule(step))) for step in steps])


def progress(warmup=0.0):
    return np.clip((np.arange(STEPS + 1) / STEPS - warmup) / (1 - warmup), 0, 1)


def test_a_constant_rate_stays():
    np.testing.assert_allclose(rates(schedule="constant"), 0.5, rtol=1e-6)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_falls_from_the_highest_rate_to_the_final_share_of_it(final):
    falling = (1 + np.cos(np.pi * progress())) / 2
    expected = 0.5 * (final + (1 - final) * falling)
    np.testing.assert_allclose(rates(schedule="cosine", final_rate=final), expected, atol=1e-7)


def test_linear_falls_evenly():
    expected = 0.5 * (1 - 0.8 * progress())
    np.testing.assert_allclose(rates(schedule="linear", final_rate=0.2), expected, atol=1e-7)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_a_warm_up_rises_from_a_tenth_and_then_the_whole_schedule_follows(schedule):
    found = rates(schedule=schedule, warmup=0.25)
    rising = np.arange(10) / 10
    np.testing.assert_allclose(found[:10], 0.5 * (0.1 + 0.9 * rising), rtol=1e-5)
    assert found[10] == pytest.approx(0.5)
    falling = {
        "constant": np.ones(STEPS + 1),
        "cosine": (1 + np.cos(np.pi * progress(0.25))) / 2,
        "linear": 1 - progress(0.25),
    }[schedule]
    np.testing.assert_allclose(found[10:], 0.5 * falling[10:], atol=1e-6)


def test_beyond_its_end_a_schedule_stays_where_it_ended():
    schedule = Schedule(OptimizerSection(final_rate=0.1, learning_rate=1.0), STEPS)
    assert float(schedule(ops.convert_to_tensor(10 * STEPS))) == pytest.approx(0.1)


def test_a_schedule_survives_its_config():
    schedule = Schedule(OptimizerSection(schedule="linear", warmup=0.1, learning_rate=0.3), 7)
    again = Schedule.from_config(schedule.get_config())
    assert (again.spec, again.steps) == (schedule.spec, 7)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "NesterovSGD"), ("muon", "Muon")],
)
def test_every_optimizer_can_be_built_with_its_defaults(name, expected):
    optimizer = build(OptimizerSection(name=name), steps=10)
    assert type(optimizer).__name__ == expected  # each backend has its own of that name
    assert not optimizer.use_ema
    assert optimizer.global_clipnorm is None


def test_momentum_clipping_and_decay_arrive():
    spec = OptimizerSection(name="sgd", momentum=0.7, weight_decay=0.01, clip_norm=2.0)
    optimizer = build(spec, steps=10)
    assert optimizer.momentum == 0.7
    assert (optimizer.weight_decay, optimizer.global_clipnorm) == (0.01, 2.0)


def test_decay_is_decoupled_from_the_gradient():
    """A step without a gradient shrinks the weight by rate · decay, whatever the moments say."""
    for name in ("adamw", "sgd"):
        spec = OptimizerSection(name=name, learning_rate=0.5, weight_decay=0.1, schedule="constant")
        optimizer = build(spec, steps=10)
        weight = keras.Variable(np.array([2.0], np.float32))
        optimizer.apply([ops.zeros(1)], [weight])
        np.testing.assert_allclose(weight.numpy(), [2.0 * (1 - 0.5 * 0.1)], rtol=1e-6)


def test_the_running_mean_follows_its_formula():
    spec = OptimizerSection(name="sgd", learning_rate=1.0, momentum=0.0, schedule="constant")
    optimizer = build(spec, steps=10, ema=0.9)
    weight = keras.Variable(np.array([0.0], np.float32))
    optimizer.build([weight])
    expected = None
    for _ in range(5):
        optimizer.apply([ops.convert_to_tensor([-1.0])], [weight])
        value = weight.numpy()[0]
        expected = value if expected is None else 0.9 * expected + 0.1 * value
    (mean,) = optimizer._model_variables_moving_average
    assert weight.numpy()[0] == pytest.approx(5.0)
    assert mean.numpy()[0] == pytest.approx(expected)


def test_the_end_of_fit_leaves_the_weights_beside_their_means():
    optimizer = build(OptimizerSection(), steps=10, ema=0.5)
    weight = keras.Variable(np.array([1.0], np.float32))
    optimizer.build([weight])
    weight.assign([3.0])
    optimizer.finalize_variable_values([weight])
    assert weight.numpy().tolist() == [3.0]
