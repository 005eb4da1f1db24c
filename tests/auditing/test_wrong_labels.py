"""Flipped labels are found in answers that are mostly right; of right labels few are doubted."""

from __future__ import annotations

import numpy as np
import pytest

from builders_run import simulated_probabilities
from tinylens.auditing.label_errors import doubted_labels


@pytest.fixture
def flipped():
    """4,000 labels of five classes, of which 200 are wrong, and answers that do not know it."""
    rng = np.random.default_rng(0)
    true = np.arange(4_000) % 5
    rows = rng.choice(4_000, 200, replace=False)
    given = true.copy()
    given[rows] = (true[rows] + rng.integers(1, 5, 200)) % 5
    return simulated_probabilities(true, 5, strength=5.0), given, true, set(rows.tolist())


def test_flipped_labels_are_found(flipped):
    probabilities, given, _, rows = flipped
    found = {doubt.row for doubt in doubted_labels(probabilities, given)}
    assert len(found & rows) >= 0.9 * len(rows)
    assert len(found & rows) >= 0.9 * len(found)


def test_the_true_class_is_proposed_and_the_surest_comes_first(flipped):
    probabilities, given, true, rows = flipped
    doubts = [doubt for doubt in doubted_labels(probabilities, given) if doubt.row in rows]
    right = [doubt.proposed == true[doubt.row] for doubt in doubts]
    assert np.mean(right) > 0.97
    assert all(doubt.given == given[doubt.row] != doubt.proposed for doubt in doubts)
    first = doubts[0]
    assert first.score == pytest.approx(1 - probabilities[first.row, first.given], abs=1e-6)
    margins = [
        probabilities[doubt.row, doubt.given] - probabilities[doubt.row, doubt.proposed]
        for doubt in doubts
    ]
    assert margins == sorted(margins)


def test_labels_that_all_answers_agree_with_are_not_doubted():
    labels = np.arange(500) % 4
    assert doubted_labels(simulated_probabilities(labels, 4, strength=14.0), labels) == []


def test_a_class_without_a_image_is_no_obstacle(flipped):
    probabilities, given, _, rows = flipped
    wider = np.concatenate([probabilities, np.zeros((len(given), 1), np.float32)], axis=1)
    found = {doubt.row for doubt in doubted_labels(wider, given)}
    assert len(found & rows) >= 0.9 * len(rows)
