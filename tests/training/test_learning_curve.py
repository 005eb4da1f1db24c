"""The learning curve: which images, for how long, and going on; its words and its figures."""

from __future__ import annotations

import numpy as np
import pytest

from builders_curve import errors_of, few_shapes, simulated
from builders_run import make_run
from conformance import tiny_splits
from tinylens.data.dataset import Splits
from tinylens.errors import DataError
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.training import learning_curve
from tinylens.training.learning_curve import (
    SEEDS,
    Size,
    assemble,
    choose_sizes,
    nested_rows,
    train_sizes,
)

LABELS = np.repeat(np.arange(4), (4000, 2000, 1000, 80))
SIZES = [Size(n, n / 64, 3 / (n / 64) ** 0.5) for n in (8, 16, 32, 64)]


def test_sizes_are_an_eighth_to_all_and_passes_grow_as_the_root_of_what_is_left_out():
    labels = np.repeat(np.arange(10), 5_400)
    sizes = choose_sizes(labels, batch_size=500)
    assert [size.images for size in sizes] == [6_750, 13_500, 27_000, 54_000]
    assert [size.passes for size in sizes] == pytest.approx([8.485, 6, 4.243, 3], abs=1e-3)


def test_a_small_set_is_passed_over_until_there_are_enough_steps():
    sizes = choose_sizes(np.repeat([0, 1], 400), batch_size=100)
    assert sizes[-1].passes * 800 / 100 == pytest.approx(100)


def test_a_class_that_is_too_small_is_named():
    with pytest.raises(DataError, match=r"a class of 79 images.*expected at least 80 of every"):
        choose_sizes(LABELS[:-1], batch_size=500)


@pytest.mark.parametrize("seed", range(3))
def test_parts_are_nested_and_hold_each_class_in_its_share(seed):
    before = set()
    for share in (1 / 8, 1 / 4, 1 / 2, 1.0):
        rows = nested_rows(LABELS, share, seed)
        counts = np.bincount(LABELS[rows]).tolist()
        assert counts == [share * 4000, share * 2000, share * 1000, share * 80]
        assert before <= set(rows.tolist())
        assert (np.diff(rows) > 0).all()
        before = set(rows.tolist())
    assert len(before) == len(LABELS)


def test_other_seeds_take_other_images():
    first, second = (set(nested_rows(LABELS, 0.5, seed).tolist()) for seed in (0, 1))
    assert 0.4 < len(first & second) / len(first) < 0.6


class Trained:
    """Trains nothing: val is answered the worse the fewer images there are."""

    def __init__(self, stop_after=100):
        self.calls, self.left = [], stop_after

    def __call__(self, part, recipe, folder):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.calls.append((part, recipe, folder))
        return np.arange(100) < 80 // len(part) + recipe.train.seed


class Told(ProgressReporter):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def trained(run, train, trainer, reporter=None, settings=None):
    recipe, reporter = Recipe.load("fast"), reporter or ProgressReporter()
    return train_sizes(run, train, recipe, SIZES, settings or {"data": "a"}, trainer, reporter)


def test_every_size_is_trained_with_every_seed_on_parts_of_train(tmp_path):
    run, train, trainer, described = (
        make_run(tmp_path),
        tiny_splits((12, 12, 1)).train,
        Trained(),
        Told(),
    )
    wrong = trained(run, train, trainer, described)
    assert wrong.shape == (4, SEEDS, 100)
    assert wrong.sum(axis=2).tolist() == [[10, 11, 12], [5, 6, 7], [2, 3, 4], [1, 2, 3]]
    assert [len(part) for part, _, _ in trainer.calls] == [8] * 3 + [16] * 3 + [32] * 3 + [64] * 3
    recipes = [recipe.train for _, recipe, _ in trainer.calls]
    assert [each.seed for each in recipes] == [0, 1, 2] * 4
    assert [each.epochs for each in recipes[::3]] == [9, 6, 5, 3]
    assert recipes[0].epochs * recipes[0].epoch_share == pytest.approx(3 * 8**0.5)
    assert described.lines[3] == "training 4 of 12: 16 images, seed 0: 5.00 % wrong on val"


def test_a_curve_that_was_stopped_goes_on_and_comes_to_the_same(tmp_path):
    run, train = make_run(tmp_path), tiny_splits((12, 12, 1)).train
    with pytest.raises(KeyboardInterrupt):
        trained(run, train, Trained(stop_after=5))
    second = Trained()
    wrong = trained(run, train, second)
    assert len(second.calls) == 7
    third = Trained()
    other = trained(run, train, third, settings={"data": "b"})  # nothing of "a" is taken over
    assert len(third.calls) == 12
    assert np.array_equal(wrong, other)


def test_the_curve_holds_what_was_measured_and_says_what_twice_the_data_would_give():
    sizes = [Size(n, 0, 3) for n in (6_750, 13_500, 27_000, 54_000)]
    wrong = simulated(errors_of(0.3, 0.2, 0.08), np.random.default_rng(0))
    curve = assemble(sizes, wrong)
    assert [point.images for point in curve.points] == [6_750, 13_500, 27_000, 54_000]
    for point, errors in zip(curve.points, wrong.mean(axis=2), strict=True):
        assert point.by_seed == tuple(errors)
        assert point.error.value == pytest.approx(errors.mean())
        assert point.error.ci95[0] < point.error.value < point.error.ci95[1]
    assert curve.fitted[0].images == 6_750
    assert curve.fitted[-1].images == 108_000
    assert curve.fitted[-1].error.value < curve.fitted[-5].error.value == pytest.approx(0.08, 0.1)
    low, high = curve.doubled.ci95
    truth = 0.08 * 0.8 * (1 - 2**-0.3)
    assert low < truth < high
    said = f"Twice the data: +{50 * (low + high):.1f} ± {50 * (high - low):.1f} points, trained"
    assert curve.words.startswith(said)
    assert "small" not in curve.words


def test_errors_that_are_no_power_law_and_a_small_val_are_owned_up_to():
    sizes = [Size(n, 0, 3) for n in (100, 200, 400, 800)]
    wrong = simulated((0.05, 0.08, 0.15, 0.25), np.random.default_rng(0), evaluated=900)
    curve = assemble(sizes, wrong)
    assert curve.doubled.value is None
    assert curve.fitted == ()
    assert "do not fall along a power law (p = 0.000)" in curve.words
    assert "Val, 900 images, is small" in curve.words


def test_without_val_there_is_nothing_to_judge_on(tmp_path):
    splits = tiny_splits((12, 12, 1))
    with pytest.raises(
        DataError, match=r"test stays sealed, and there is no val split; train with"
    ):
        learning_curve.measure(make_run(tmp_path), Splits(splits.train, None, splits.test))


@pytest.mark.slow
def test_a_real_curve_falls_and_is_left_in_the_run_s_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_curve, "LEAST_STEPS", 40)  # enough for three shapes
    monkeypatch.setattr(learning_curve, "SEEDS", 2)
    data = few_shapes()
    run = make_run(tmp_path / "run", class_names=data.class_names)
    curve = learning_curve.measure(run, data)
    assert run.learning_curve == curve
    assert not run.curve_runs.exists()
    assert [len(point.by_seed) for point in curve.points] == [2] * 4
    errors = [point.error.value for point in curve.points]
    assert errors[-1] < 0.8 * errors[0]
    assert errors[-1] < 0.4  # guessing is wrong on 2 of 3
    assert len(run.info.test_opened) == 1
