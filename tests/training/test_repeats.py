"""Series of trainings: every image held out once, intervals that hold, and going on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shipped
from builders_run import make_run, simulated_probabilities
from conformance import tiny_splits
from tinylens.data.dataset import Dataset
from tinylens.errors import DataError, RecipeError, RunError
from tinylens.recipe import Recipe
from tinylens.results import Score
from tinylens.training.series import (
    fold_numbers,
    mean_answers,
    out_of_fold,
    pool_of,
    summarize,
    train_folds,
    train_seeds,
)

RECIPE = Recipe(name="classic")


@pytest.fixture
def splits():
    return tiny_splits((12, 12, 1))


class Trained:
    """Trains nothing: leaves the run of a network that is right more often than not."""

    def __init__(self):
        self.calls = []

    def __call__(self, data, recipe, folder):
        self.calls.append((data, recipe, folder))
        parts = {
            name: (
                simulated_probabilities(part.labels, 4, seed=recipe.train.seed),
                part.labels,
            )
            for name, part in data.items()
        }
        run = make_run(folder, class_names=data.class_names, parts=parts)
        run.write_recipe(recipe)
        return run


# --- folds


def pool_with(labels, groups=()):
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    return Dataset(images, labels, tuple("abcd"), source="test", groups=tuple(map(str, groups)))


@given(st.lists(st.integers(0, 3), min_size=20, max_size=120), st.integers(2, 4), st.integers(0, 9))
def test_every_class_is_spread_evenly_over_the_folds(labels, count, seed):
    labels = np.array(labels + [0, 1, 2, 3] * count)
    pool = pool_with(labels)
    numbers = fold_numbers(pool, count, seed)
    assert np.array_equal(numbers, fold_numbers(pool, count, seed))
    for label in range(4):
        sizes = np.bincount(numbers[labels == label], minlength=count)
        assert sizes.max() - sizes.min() <= 1


def test_images_of_one_group_stay_together():
    labels = np.tile([0, 1], 60)
    groups = np.repeat(np.arange(30), 4)
    numbers = fold_numbers(pool_with(labels, groups), 5, 0)
    assert all(len(set(numbers[groups == group])) == 1 for group in range(30))
    assert set(numbers) == set(range(5))


def test_too_many_folds_are_refused():
    labels = np.array([0] * 10 + [1] * 3)
    with pytest.raises(RecipeError, match="--folds 5: a class has 3 images, expected at least 5"):
        fold_numbers(pool_with(labels), 5, 0)
    with pytest.raises(DataError, match="there are 2 groups, and 3 parts are to be made"):
        fold_numbers(pool_with(np.tile([0, 1], 9), ["a", "b"] * 9), 3, 0)


def test_each_image_is_held_out_once_and_answered_by_a_run_that_had_not_seen_it(splits, tmp_path):
    train = Trained()
    found = train_folds(pool_of(splits.train, splits.val), RECIPE, 4, tmp_path / "cv", train)
    pool = np.concatenate([splits.train.images, splits.val.images])
    held_out = np.concatenate([data.test.images for data, _, _ in train.calls])
    assert sorted(map(bytes, held_out)) == sorted(map(bytes, pool))
    for data, _, _ in train.calls:
        seen = {bytes(image) for part in (data.train, data.val) for image in part.images}
        assert not seen & {bytes(image) for image in data.test.images}
        assert not seen & {bytes(image) for image in splits.test.images}
    assert found.runs == ("fold-1", "fold-2", "fold-3", "fold-4") and found.images == len(pool)
    kept = out_of_fold(tmp_path / "cv")
    assert np.array_equal(kept["labels"], np.concatenate([splits.train.labels, splits.val.labels]))
    for number, (data, recipe, _) in enumerate(train.calls):
        expected = simulated_probabilities(data.test.labels, 4, seed=recipe.train.seed)
        assert np.array_equal(kept["probabilities"][kept["fold"] == number], expected)


def test_without_a_val_share_nothing_is_carved(splits, tmp_path):
    train = Trained()
    train_folds(splits.train, RECIPE.override({"data.val": 0}), 2, tmp_path / "cv", train)
    assert all(data.val is None for data, _, _ in train.calls)


def test_parts_become_a_pool_in_their_order(splits):
    pool = pool_of(splits.train, None, splits.val)
    assert np.array_equal(pool.labels, np.r_[splits.train.labels, splits.val.labels])
    assert np.array_equal(pool.images[len(splits.train) :], splits.val.images)
    assert pool.paths == ()


def test_several_networks_answer_by_their_mean(tmp_path, monkeypatch):
    images = shipped.some_images(5, shipped.RULE)
    ordinary, runs, answers = shipped.weights, [], []
    for factor in (1, -1):
        monkeypatch.setattr(
            shipped, "weights", lambda *size, factor=factor: factor * ordinary(*size)
        )
        runs.append(make_run(tmp_path / f"{factor}", class_names=shipped.CLASS_NAMES))
        runs[-1].model.write_bytes(shipped.model_bytes())
        answers.append(shipped.linear_answers(images, shipped.RULE))
    assert np.abs(answers[0] - answers[1]).max() > 0.1
    assert np.allclose(mean_answers(runs, images), np.mean(answers, axis=0), atol=1e-5)


def test_unfinished_folds_have_no_answers(tmp_path):
    with pytest.raises(RunError, match="its folds are not all trained yet"):
        out_of_fold(tmp_path)


# --- seeds


def test_seeds_follow_each_other_on_the_same_parts(splits, tmp_path):
    train = Trained()
    recipe = RECIPE.override({"train.seed": 7})
    found = train_seeds(splits, recipe, 3, tmp_path / "series", train)
    assert [each.train.seed for _, each, _ in train.calls] == [7, 8, 9]
    assert {id(data) for data, _, _ in train.calls} == {id(splits)}
    assert found.runs == ("seed-7", "seed-8", "seed-9")
    tree = json.loads((tmp_path / "series" / "summary.json").read_text())
    accuracies = tree["figures"]["accuracy"]["values"]
    assert tree["figures"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert tree["figures"]["accuracy"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert found.words.startswith("accuracy ") and "3 seeds, each judged on the same" in found.words


def test_a_series_goes_on_and_another_one_does_not_take_its_folder(splits, tmp_path):
    train_seeds(splits, RECIPE, 2, tmp_path / "series", Trained())
    train_seeds(splits, RECIPE, 2, tmp_path / "series", Trained())
    with pytest.raises(RunError, match="holds another series of trainings, of another count;"):
        train_seeds(splits, RECIPE, 3, tmp_path / "series", Trained())
    with pytest.raises(RunError, match="of another kind, fingerprint;"):
        train_folds(splits.train, RECIPE, 2, tmp_path / "series", Trained())


@pytest.mark.parametrize("count", [0, 1, 101])
def test_a_series_has_two_to_a_hundred(splits, tmp_path, count):
    with pytest.raises(RecipeError, match=f"--seeds {count}: expected 2 to 100"):
        train_seeds(splits, RECIPE, count, tmp_path, Trained())


# --- intervals


def test_the_interval_of_seeds_holds_the_recipe_s_accuracy_95_times_of_100():
    """Networks of mean accuracy 0.9 and sd 0.004, judged on one draw of 2,000 images."""
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(2_000):
        luck_of_test = random.normal(0, (0.9 * 0.1 / 2_000) ** 0.5)
        values = 0.9 + luck_of_test + random.normal(0, 0.004, 5)
        half = 1.96 * (0.9 * 0.1 / 2_000) ** 0.5
        spread = summarize("seeds", [Score(v, (v - half, v + half)) for v in values])
        inside += spread.ci95[0] <= 0.9 <= spread.ci95[1]
    assert 0.94 <= inside / 2_000 <= 0.98
