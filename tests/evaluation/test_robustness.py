"""Robustness: what is judged, its intervals, and a classifier that only looks at brightness."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tinylens.data.dataset import Dataset
from tinylens.errors import RecipeError
from tinylens.evaluation.robustness import CORRUPTIONS, measure, shifted, turned
from tinylens.results import Robustness


@pytest.fixture(scope="module")
def halves():
    """Dark and bright images, a mark in the left or the right half of some."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 60)
    images = np.full((60, 16, 16, 1), 60, np.uint8) + (labels * 130)[:, None, None, None]
    return Dataset(images.astype(np.uint8), labels, ("dark", "bright"), source="made")


def by_brightness(images):
    bright = images.mean(axis=(1, 2, 3)) > 125
    return np.stack([~bright, bright], axis=1).astype(np.float32)


def test_every_change_is_judged_on_the_same_images(halves):
    described = []
    found = measure(
        by_brightness, halves, progress=lambda done, total: described.append((done, total))
    )
    assert found.images == 60 and found.clean.value == 1
    assert list(found.corruptions) == list(CORRUPTIONS)
    assert found.mirrored.value == 1 and found.shifts[4].value == 1 and found.turns[20].value == 1
    assert found.corruptions["gaussian_noise"][0].value == 1
    assert found.corruptions["contrast"][4].value == 1  # keeps the mean
    assert found.corruptions["brightness"][4].value < 0.7  # 0.3 more makes all bright
    errors = [1 - score.value for scores in found.corruptions.values() for score in scores]
    assert found.mean_corruption_error.value == pytest.approx(np.mean(errors))
    low, high = found.mean_corruption_error.ci95
    assert 0 <= low <= np.mean(errors) <= high
    assert (
        described[-1] == (len(described), len(described))
        and len(described) == 1 + 75 + 32 + 8 + 1 + 5
    )


def test_it_survives_json(halves):
    found = measure(by_brightness, halves, images=20)
    assert found.images == 20
    assert Robustness.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_same_seed_draws_the_same_images(halves):
    first, again = (measure(by_brightness, halves, images=25, seed=3) for _ in range(2))
    assert first == again


def test_no_images_are_refused(halves):
    with pytest.raises(RecipeError, match="--images 0: expected at least 1"):
        measure(by_brightness, halves, images=0)


def test_shifting_repeats_the_border():
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
    assert shifted(image, 1, 0)[0, :, :, 0].tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert shifted(image, 0, -1)[0, :, :, 0].tolist() == [[1, 2, 2], [4, 5, 5], [7, 8, 8]]


def test_turning_is_about_the_middle_and_exact_by_right_angles():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (1, 17, 17, 3), np.uint8)
    assert np.array_equal(turned(image, 90)[0], np.rot90(image[0]))
    assert np.array_equal(turned(image, 0), image)
