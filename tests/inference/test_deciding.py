"""Thresholds keep the rate of errors that they promise, sets the coverage; on other images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders_run import simulated_probabilities
from tinylens.errors import RecipeError
from tinylens.inference.selective_prediction import (
    Level,
    SelectivePrediction,
    SetLevel,
    decide,
    error_level,
    in_set,
    set_level,
)


def answers(count, seed, strength=3.0, classes=10):
    labels = np.random.default_rng([seed, 1]).integers(0, classes, count)
    return simulated_probabilities(labels, classes, strength=strength, seed=seed), labels


def wrong_and_answered(probabilities, labels, level):
    chosen = probabilities.max(axis=1) >= level.threshold
    wrong = probabilities.argmax(axis=1) != labels
    return wrong[chosen].mean(), chosen.mean()


@pytest.mark.parametrize("max_error", [0.01, 0.05])
def test_the_promise_is_kept_on_other_images_in_nine_of_ten_trainings(max_error):
    truth = answers(200_000, seed=10_000)
    rates = []
    for seed in range(60):
        level = error_level(*answers(2_000, seed), max_error)
        rate, answered = wrong_and_answered(*truth, level)
        assert answered == pytest.approx(level.answered, abs=0.05)
        rates.append(rate)
    assert np.mean(np.array(rates) > max_error) <= 0.1 + 0.1  # and what 60 draws may add
    assert np.mean(rates) > 0.5 * max_error  # it does not keep the promise by saying little


def test_a_lower_rate_answers_less():
    levels = decide(*answers(5_000, 0)).levels
    assert len(levels) >= 4
    thresholds = [level.threshold for level in levels]
    assert thresholds == sorted(thresholds, reverse=True)
    assert [level.answered for level in levels] == sorted(level.answered for level in levels)


def test_a_network_that_is_always_right_answers_always():
    labels = np.arange(1_000) % 4
    level = error_level(np.eye(4, dtype=np.float32)[labels], labels, 0.01)
    assert level == Level(0.01, 0.0, 1.0)


def test_what_cannot_be_promised_is_not():
    probabilities, labels = answers(1_000, 0, strength=0.0)
    assert error_level(probabilities, labels, 0.1) is None
    assert decide(probabilities, labels).levels == ()
    assert decide(probabilities, labels, 0.01).max_error is None
    assert decide(*answers(5_000, 0), 0.03).level().max_error == 0.03


@pytest.mark.parametrize("coverage", [0.9, 0.99])
def test_sets_hold_the_right_class_as_often_as_promised(coverage):
    probabilities, labels = answers(100_000, seed=10_000, strength=2.0)
    rows = np.arange(len(labels))
    covered = []
    for seed in range(30):
        level = set_level(*answers(2_000, seed, strength=2.0), coverage)
        covered.append(in_set(probabilities, level)[rows, labels].mean())
    assert np.mean(covered) == pytest.approx(coverage, abs=0.004)


def test_a_few_images_promise_nothing_less_than_all_classes():
    probabilities, labels = answers(20, 0)
    level = set_level(probabilities, labels, 0.99)
    assert level.threshold == 0 and in_set(probabilities, level).all()


def test_the_likeliest_class_is_always_in_the_set():
    sets = in_set(np.array([[0.3, 0.4, 0.3]]), SetLevel(0.9, 0.8))
    assert sets.tolist() == [[False, True, False]]


def test_a_level_is_found_by_its_rate():
    made = SelectivePrediction(
        (Level(0.01, 0.9, 0.7), Level(0.1, 0.2, 0.99)), (SetLevel(0.9, 0.2),), 0.1
    )
    assert made.level().threshold == 0.2 and made.level(0.01).threshold == 0.9
    assert SelectivePrediction().level() is None
    assert made.set_level(0.9).threshold == 0.2
    with pytest.raises(RecipeError, match=r"--max-error 3%: .* it has 1%, 10%; train with"):
        made.level(0.03)
    with pytest.raises(RecipeError, match=r"--coverage 50%: the model knows 90%"):
        made.set_level(0.5)
    with pytest.raises(RecipeError, match="trained without a val split"):
        SelectivePrediction().level(0.01)


@given(st.integers(30, 300), st.integers(0, 99))
def test_what_is_written_is_read_back(count, seed):
    made = decide(*answers(count, seed))
    assert SelectivePrediction.from_json(json.loads(json.dumps(made.to_json()))) == made
