"""Telling images from elsewhere: against formulas written the long way, and on real networks."""

import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from tinylens.data.readers import synthetic
from tinylens.errors import RecipeError
from tinylens.evaluation import out_of_distribution
from tinylens.inference.selective_prediction import SHARES, SelectivePrediction

CLASSES = 4


def drawn(n=400, seed=0, spread=1.0):
    """Return logits of a network that knows its classes, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, n)
    logits = 8 * np.eye(CLASSES)[labels] + random.normal(0, spread, (n, CLASSES))
    return logits.astype(np.float32), labels


def the_long_way(logits, labels, ordinary, requested):
    """Return the OOD score by the papers' formulas, image by image."""
    logits, ordinary, requested = (
        each.astype(np.float64) for each in (logits, ordinary, requested)
    )

    ridge = out_of_distribution.RIDGE * logits.var(axis=0).mean()

    def precision(centred):
        covariance = np.cov(centred.T, bias=True)
        return np.linalg.inv(covariance + ridge * np.eye(CLASSES))

    means = [logits[labels == label].mean(axis=0) for label in range(CLASSES)]
    within = precision(logits - np.array(means)[labels])
    overall, centre = precision(logits - logits.mean(axis=0)), logits.mean(axis=0)

    def signs(z):
        near = min((z - mean) @ within @ (z - mean) for mean in means)
        return near - (z - centre) @ overall @ (z - centre), -scipy.special.logsumexp(z)

    ours = np.array([signs(z) for z in ordinary])
    scale = np.subtract(*np.quantile(ours, [0.75, 0.25], axis=0))
    middle = np.median((ours / scale).sum(axis=1))
    return np.array([sum(signs(z) / scale) - middle for z in requested])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 3.0))
def test_strangeness_is_the_papers_formula(seed, spread):
    logits, labels = drawn(seed=seed, spread=spread)
    ordinary, _ = drawn(100, seed + 1, spread)
    requested = np.random.default_rng(seed).normal(0, 5, (20, CLASSES)).astype(np.float32)
    found = out_of_distribution.fit(logits, labels, ordinary)
    expected = the_long_way(logits, labels, ordinary, requested)
    np.testing.assert_allclose(found.of(requested), expected, rtol=1e-6, atol=1e-6)
    assert np.median(found.of(ordinary)) == pytest.approx(0, abs=1e-9)


def test_faint_and_mixed_answers_are_strange():
    logits, labels = drawn()
    found = out_of_distribution.fit(logits, labels, logits)
    known = np.array([[8, 0, 0, 0]], np.float32)
    faint, mixed = np.zeros((1, 4), np.float32), np.array([[8, 8, 8, 0]], np.float32)
    assert found.of(faint) > found.of(known) + 3
    assert found.of(mixed) > found.of(known) + 3


def test_classes_that_lie_far_apart_stay_within_float32():
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, 500)
    logits = (300 * np.eye(CLASSES)[labels] + random.normal(0, 0.01, (500, CLASSES))).astype("f4")
    found = out_of_distribution.fit(logits, labels, logits)
    terms = np.abs([found.quadratic.max(), found.towards.max(), found.offsets.max()])
    largest = np.abs(logits - found.centre).max() ** 2 * terms[0] + 300 * terms[1] + terms[2]
    spread = np.ptp(found.of(logits))
    assert largest * np.finfo(np.float32).eps < 1e-3 * (1 + spread)


def test_a_class_without_images_does_no_harm():
    logits, labels = drawn()
    kept = labels != 2
    found = out_of_distribution.fit(logits[kept], labels[kept], logits[kept])
    assert found.towards.shape == (CLASSES, CLASSES - 1)
    assert np.isfinite(found.of(logits)).all()


def test_a_network_that_answers_all_alike_tells_nothing():
    alike = np.tile(np.array([1, 2, 3, 4], np.float32), (50, 1))
    assert out_of_distribution.fit(alike, np.arange(50) % CLASSES, alike) is None


@settings(max_examples=50)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(0, 100))
def test_the_area_is_scikit_learns_and_lies_in_its_interval(n, m, seed):
    random = np.random.default_rng(seed)
    low, high = random.integers(0, 9, n) * 1.0, random.integers(2, 11, m) * 1.0
    truth = np.concatenate([np.zeros(n), np.ones(m)])
    score = out_of_distribution.area(low, high)
    expected = sklearn.metrics.roc_auc_score(truth, np.concatenate([low, high]))
    assert score.value == pytest.approx(expected)
    assert 0 <= score.ci95[0] <= score.value <= score.ci95[1] <= 1


def test_the_areas_interval_covers_the_true_area():
    """Two normal distributions, 1.2 apart: 200 images against 100, 1,000 times."""
    random = np.random.default_rng(0)
    truth = scipy.special.ndtr(1.2 / np.sqrt(2))
    inside = 0
    for _ in range(1000):
        low, high = out_of_distribution.area(
            random.normal(0, 1, 200), random.normal(1.2, 1, 100)
        ).ci95
        inside += low <= truth <= high
    assert 0.935 <= inside / 1000 <= 0.965


def test_the_threshold_refuses_as_many_ordinary_images_as_said():
    ours = np.arange(10_000) / 100
    known = SelectivePrediction(ordinary=out_of_distribution.quantiles(ours))
    for refused in (0.002, 0.01, 0.05):
        assert (ours > known.ood_limit(refused)).mean() == pytest.approx(refused, abs=2e-4)
    assert known.ood_rank(50.0) == pytest.approx(0.5, abs=1e-3)
    assert known.ood_rank(1e9) == 1.0 and known.ood_rank(-5.0) == 0.0
    scores = out_of_distribution.evaluate("far away", ours + 98.5, ours, known.ordinary)
    assert scores.refused.value == pytest.approx(0.995, abs=1e-3) and scores.at == 0.01


def test_a_model_that_cannot_tell_strangers_says_so():
    assert SelectivePrediction().ood_limit() is None and SelectivePrediction().ood_rank(3.0) is None
    with pytest.raises(RecipeError, match=r"has no OOD score.*train again with --val"):
        SelectivePrediction().ood_limit(0.01)


def test_scrambling_moves_whole_tiles_and_loses_no_pixel():
    images = np.arange(2 * 30 * 28 * 3).reshape(2, 30, 28, 3).astype(np.uint8)
    result = out_of_distribution.scrambled(images, np.random.default_rng(0))
    assert result.shape == images.shape and not np.array_equal(result, images)
    np.testing.assert_array_equal(result[:, 28:], images[:, 28:])  # what makes no whole tile
    tiles = {
        images[0, y : y + 7, x : x + 7].tobytes() for y in range(0, 28, 7) for x in (0, 7, 14, 21)
    }
    moved = {
        result[0, y : y + 7, x : x + 7].tobytes() for y in range(0, 28, 7) for x in (0, 7, 14, 21)
    }
    assert tiles == moved and len(tiles) == 16


@pytest.mark.parametrize("shape", [(28, 28, 1), (33, 40, 3)])
def test_strangers_have_the_shape_of_the_networks_images(shape):
    ours = np.random.default_rng(0).integers(0, 256, (30, *shape), dtype=np.uint8)
    kinds = dict(out_of_distribution.ood(ours, ["cat", "dog"]))
    assert list(kinds) == [
        "noise",
        "its own images, cut up and scrambled",
        "drawn shapes",
        "handwritten digits",
    ]
    assert all(each.shape[1:] == shape and each.dtype == np.uint8 for each in kinds.values())
    assert sum(map(len, kinds.values())) <= out_of_distribution.MOST_SHOWN
    assert kinds["handwritten digits"].max() == 255 and kinds["handwritten digits"].min() == 0


def test_what_was_trained_on_is_no_stranger():
    ours = np.zeros((5, 8, 8, 3), np.uint8)
    names = [name for name, _ in out_of_distribution.ood(ours, [*synthetic.CLASS_NAMES, "cat"])]
    assert "drawn shapes" not in names and "handwritten digits" in names
    names = [name for name, _ in out_of_distribution.ood(ours, list("0123456789"))]
    assert "handwritten digits" not in names and "drawn shapes" in names


def test_shares_ascend_from_0_to_1():
    assert SHARES[0] == 0 and SHARES[-1] == 1 and list(SHARES) == sorted(set(SHARES))
