"""What --budget plans, on real trainings of small data."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from conformance import tiny_splits
from tinylens.cli.train import parse_seconds
from tinylens.errors import RecipeError
from tinylens.evaluation import out_of_distribution
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.training import time_budget
from tinylens.training import trainer as compiling
from tinylens.training.loop import fit
from tinylens.training.time_budget import Pace
from tinylens.training.train import train

FAST = Recipe.load("fast")
PLAIN = FAST.override({"train.hard_example_fraction": 1.0})  # every epoch sees every image


class Listener(ProgressReporter):
    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


@pytest.fixture(scope="module")
def splits():
    return tiny_splits((16, 16, 1), count=600)


PACE = Pace(train=1e-3, answer=1e-4, start=1.0, busy=1.5)


def fitted(splits, seconds):
    return time_budget._fitted(PLAIN, splits, PACE, seconds)


def test_a_plan_fills_the_time_that_is_left(splits):
    made = fitted(splits, 20.0)
    # 600 images of val, 600 of train, test twice, out-of-distribution images, at 0.1 ms; then two
    # compilations
    finish = (2400 + out_of_distribution.MOST_SHOWN) * 1e-4 + 1.5 * time_budget.REPORT_SECONDS
    assert made.finish_seconds == pytest.approx(finish)
    assert made.seconds == pytest.approx(20.0)
    a_pass = 600 * 1e-3 + 600 * 1e-4 / FAST.train.val_every  # 16 pixels are not made smaller
    assert made.passes == pytest.approx((20.0 - finish - 2.0) / a_pass)
    spec = made.recipe.train
    assert spec.epochs == math.ceil(made.passes)
    assert spec.epochs * spec.epoch_share == pytest.approx(made.passes)


def test_more_time_than_can_be_used_is_left_over(splits):
    made = fitted(splits, 1e6)
    assert (made.passes, made.recipe.train.epochs) == (time_budget.MOST_EPOCHS, 40)
    assert made.seconds < 100


def test_long_trainings_cut_squares_out_and_short_ones_do_not(splits):
    seconds = {passes: 15.44 + 2.0 + passes * 0.612 for passes in (17.9, 18.1)}
    assert fitted(splits, seconds[17.9]).recipe.augment.cutout == 0
    long = fitted(splits, seconds[18.1])
    assert long.passes == pytest.approx(18.1)
    assert long.recipe.augment.cutout == 5  # of 16 pixels
    assert ", squares of 5 pixels cut out ·" in long.words
    own = PLAIN.override({"augment.cutout": 3})
    assert time_budget._fitted(own, splits, PACE, 60.0).recipe.augment.cutout == 3


@pytest.mark.parametrize(("passes", "widest"), [(3, 0.25), (10, 0.5), (30, 1.0), (100, 2.0)])
def test_the_widest_network_with_enough_passes_left_is_taken(splits, monkeypatch, passes, widest):
    """`passes` fit for the narrowest; twice the widths take twice as long."""
    tried = []

    def paced(data, recipe, precision):
        tried.append(recipe.model.options["widths"][0] / 64)
        return Pace(train=tried[-1] / 0.25 * 1e-3, answer=1e-9, start=0, busy=0)

    monkeypatch.setattr(time_budget, "probe", paced)
    seconds = passes * 600 * 1e-3 / (1 - time_budget.RESERVE)
    recipe = PLAIN.override({"model.options": {"widths": [64, 128], "grey_widths": []}})
    made = time_budget.plan(splits, recipe, seconds, "float32", ProgressReporter())
    assert made.recipe.model.options["widths"][0] == 64 * widest
    assert tried == sorted(tried)


def test_too_little_time_has_no_plan(splits):
    assert fitted(splits, 1.5 * time_budget.REPORT_SECONDS + 2.0) is None
    with pytest.raises(RecipeError, match="5 s are too few for 600 images"):
        time_budget.plan(splits, FAST, 5.0, "float32", ProgressReporter())


def test_other_networks_are_refused(splits):
    with pytest.raises(RecipeError, match=r"recipe classic has classic: take --recipe fast"):
        time_budget.plan(splits, Recipe.load("classic"), 60.0, "float32", ProgressReporter())


@pytest.mark.parametrize(
    ("channels", "share", "widths"),
    [(3, 1.0, [64, 192, 256]), (3, 0.5, [32, 96, 128]), (1, 0.5, [16, 32, 64])],
)
def test_widths_are_scaled_by_whole_steps(channels, share, widths):
    recipe = FAST.override(
        {"model.options": {"widths": [64, 192, 256], "grey_widths": [32, 64, 128]}}
    )
    scaled = time_budget._scaled(recipe, channels, share)
    assert scaled.model.options == {"widths": widths, "grey_widths": []}


# --- epochs that are dropped to keep a deadline

SMALL = FAST.override(
    {
        "model.options": {"widths": [8, 8], "grey_widths": []},
        "train.epochs": 6,
        "train.batch_size": 20,
        "train.val_every": 1,
        "train.hard_example_fraction": 1.0,
    }
)


class Slow(ProgressReporter):
    """A reporter that makes every step take longer than it should."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.said = []

    def step(self, progress):
        time.sleep(self.seconds)

    def say(self, line):
        self.said.append(line)


@pytest.mark.slow
def test_epochs_without_time_are_dropped_and_the_rate_still_falls_to_its_end(tmp_path):
    splits = tiny_splits((16, 16, 1), count=200)
    trainer = compiling.build(splits, SMALL, "float32")
    fit(trainer, Run(tmp_path / "warm"), ProgressReporter(), lambda: False)  # nothing to compile
    trainer.model.optimizer.iterations.assign(0)
    reporter = Slow(0.2)  # 10 steps an epoch: 2 seconds and a little more
    deadline = time.monotonic() + 8.5
    state = fit(trainer, Run(tmp_path / "cut"), reporter, lambda: False, deadline)
    assert time.monotonic() < deadline + 3  # the last look at val, on a busy machine
    assert state.finished
    assert state.epoch + state.dropped == 6
    assert 2 <= state.dropped <= 5
    assert len(state.history) == state.epoch
    assert "epochs left are dropped" in reporter.said[0]
    assert state.history[-1]["learning_rate"] == pytest.approx(0.0, abs=1e-6)


def test_an_epoch_amid_which_the_deadline_comes_is_cut_short(tmp_path):
    splits = tiny_splits((16, 16, 1), count=200)
    trainer = compiling.build(splits, SMALL, "float32")
    steps = -(-len(splits.train) // SMALL.train.batch_size)
    deadline = time.monotonic() + 3
    state = fit(trainer, Run(tmp_path / "run"), Slow(2), lambda: False, deadline)
    assert state.finished
    assert time.monotonic() < deadline - 3 + 0.75 * 2 * steps  # one epoch alone sleeps for longer
    assert state.history and np.isfinite(state.history[-1]["val_accuracy"])


@pytest.mark.slow
def test_a_training_with_a_budget_ends_within_it(tmp_path):
    splits = tiny_splits((16, 16, 1), count=2_000)
    listener = Listener()
    begun = time.monotonic()
    run = train(splits, "fast", out=tmp_path / "run", budget=60, reporter=listener)
    assert time.monotonic() - begun < 60
    assert run.info.plan["budget"] == 60
    assert run.info.plan["seconds"] <= 60
    assert any(line.startswith("plan: widths") for line in listener.said)
    assert run.evaluation.splits["test"].accuracy.value > 0.9


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1.5h", 5400)])
def test_a_time_is_read_with_its_unit(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "five", "45", "-3s", "0s", "nan", "inf", "5 min"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(RecipeError, match="expected a time such as 90s, 5m or 1h"):
        parse_seconds(text)
