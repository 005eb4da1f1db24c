"""Intervals hold the truth in 95 of 100 samples: simulated from networks whose truth is known."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from sklearn.metrics import f1_score

from tinylens.evaluation.bootstrap import confusion_intervals, probability_intervals
from tinylens.metrics import expected_calibration_error, wilson_interval

CLASSES = 10
SAMPLES = {200: 4_000, 1_000: 2_000, 10_000: 1_000}  # so 95 % is met within 0.7 to 1.4 points
HARD_TO_EASY = np.array([2, 5, 3, 3.5, 3, 6, 1.5, 5, 6, 5])  # as clothes are


def simulated(count, seed, overconfidence):
    """Probabilities of an overconfident network, and labels drawn from what it should have said."""
    random = np.random.default_rng(seed)
    kinds = random.integers(0, CLASSES, count)
    logits = random.normal(size=(count, CLASSES))
    logits[np.arange(count), kinds] += HARD_TO_EASY[kinds]
    honest = softmax(1.3 * logits)
    labels = (honest.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1)
    return softmax(1.3 * overconfidence * logits).astype(np.float32), labels


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def holds(interval, truth):
    return interval[0] <= truth <= interval[1]


CALIBRATED, OVERCONFIDENT = 1.0, 1.15
TOO_WIDE = pytest.mark.xfail(reason="of 200 images the interval of ECE holds the truth in 97 %")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "overconfidence"),
    [
        (200, CALIBRATED),
        pytest.param(200, OVERCONFIDENT, marks=TOO_WIDE),
        *((count, each) for count in (1_000, 10_000) for each in (CALIBRATED, OVERCONFIDENT)),
    ],
)
def test_intervals_hold_the_truth_in_95_of_100_samples(count, overconfidence):
    probabilities, labels = simulated(1_000_000, 99, overconfidence)
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    f1 = f1_score(labels, probabilities.argmax(axis=1), average="macro")
    error = expected_calibration_error(probabilities, labels)
    held = np.zeros(3)
    for sample in range(SAMPLES[count]):
        probabilities, labels = simulated(count, [count, sample], overconfidence)
        answers = probabilities.argmax(axis=1)
        confusion = np.bincount(labels * CLASSES + answers, minlength=CLASSES**2)
        drawn = confusion_intervals(confusion.reshape(CLASSES, CLASSES), seed=sample)
        of_probabilities = probability_intervals(probabilities, labels, seed=sample, resamples=400)
        held += (
            holds(wilson_interval(int((answers == labels).sum()), count), accuracy),
            holds(drawn.macro["f1"], f1),
            holds(of_probabilities.ece, error),
        )
    coverage = dict(
        zip(("accuracy", "F1", "ECE"), (100 * held / SAMPLES[count]).tolist(), strict=True)
    )
    logging.getLogger(__name__).info("%d, %s: %s", count, overconfidence, coverage)
    assert all(93.5 <= share <= 96.5 for share in coverage.values()), coverage
