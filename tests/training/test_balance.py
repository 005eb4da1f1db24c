"""Uneven classes: weights, priors, quotas, and the score that they are judged by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from tinylens.training import imbalance

COUNTS = st.lists(st.integers(0, 3000), min_size=2, max_size=12).filter(any)


def labels_of(counts):
    return np.repeat(np.arange(len(counts)), counts)


@given(COUNTS)
def test_loss_weights_are_the_same_within_a_class_mean_1_and_larger_for_rarer_ones(counts):
    labels = labels_of(counts)
    weights = imbalance.loss_weights(labels, len(counts))
    assert weights.dtype == np.float32
    assert weights.mean() == pytest.approx(1, rel=1e-4)
    of_class = {count: weights[labels == c] for c, count in enumerate(counts) if count}
    assert all(np.ptp(each) == 0 for each in of_class.values())
    ordered = [of_class[count][0] for count in sorted(of_class)]
    assert ordered == sorted(ordered, reverse=True)


def test_loss_weights_are_one_over_the_effective_numbers():
    """Cui et al. 2019: (1 - 0.9999ⁿ) / 0.0001 is 59.8 of 60 images, and 4,512 of 6,000."""
    weights = imbalance.loss_weights(labels_of([6000, 60]), 2)
    assert weights[-1] / weights[0] == pytest.approx(4511.9 / 59.82, rel=1e-3)


def test_even_classes_weigh_1_and_have_the_same_priors():
    assert imbalance.loss_weights(labels_of([5, 5]), 2).tolist() == [1.0] * 10
    assert np.exp(imbalance.priors(np.array([5, 5]))).tolist() == pytest.approx([0.5, 0.5])


@given(COUNTS, st.integers(1, 5000), st.sampled_from([0.0, 0.5, 1.0]))
def test_quotas_add_up_and_follow_the_power_of_the_counts(counts, size, power):
    counts = np.array(counts)
    found = imbalance.quotas(counts, size, power)
    assert found.sum() == size
    assert (found[counts == 0] == 0).all()
    shares = np.where(counts > 0, counts.astype(float) ** power, 0)
    assert np.abs(found - size * shares / shares.sum()).max() < 1


@given(st.integers(1, 20), st.integers(2, 6), st.integers(0, 99))
def test_on_even_classes_the_score_is_scikit_learns(per_class, classes, seed):
    labels = labels_of([per_class] * classes)
    random = np.random.default_rng(seed)
    answers = np.where(random.random(len(labels)) < 0.6, labels, random.integers(classes))
    score, _ = imbalance.even_macro_f1(answers, labels, classes)
    wanted = f1_score(
        labels, answers, average="macro", labels=list(range(classes)), zero_division=0
    )
    assert score == pytest.approx(wanted)


@given(st.integers(2, 9))
def test_the_score_does_not_depend_on_how_often_a_class_occurs(times):
    labels, answers = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 1, 2, 2])
    again = np.concatenate([np.repeat(labels[:2], times), labels[2:]])
    answered = np.concatenate([np.repeat(answers[:2], times), answers[2:]])
    score, error = imbalance.even_macro_f1(answers, labels, 3)
    same, smaller = imbalance.even_macro_f1(answered, again, 3)
    assert same == pytest.approx(score)
    assert smaller < error


def test_the_uncertainty_is_the_spread_of_the_mean_recall():
    random = np.random.default_rng(0)
    counts, rates = [400, 20, 40], [0.9, 0.6, 0.7]
    labels = labels_of(counts)
    recalls, errors = [], []
    for _ in range(400):
        right = random.random(len(labels)) < np.array(rates)[labels]
        recalls.append(np.mean([right[labels == c].mean() for c in range(3)]))
        answers = np.where(right, labels, (labels + 1) % 3)
        errors.append(imbalance.even_macro_f1(answers, labels, 3)[1])
    assert np.mean(errors) == pytest.approx(np.std(recalls), rel=0.1)


def test_imbalance_leaves_classes_without_images_out():
    assert imbalance.imbalance(np.array([30, 0, 10])) == 3
