import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from builders_run import simulated_probabilities
from tinylens import metrics
from tinylens.errors import DataError


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, 857–872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_equals_the_published_ones(successes, trials, low, high):
    assert metrics.wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_ends_exactly_at_zero_and_one():
    assert metrics.wilson_interval(0, 1000)[0] == 0.0
    assert metrics.wilson_interval(1000, 1000)[1] == 1.0


def test_wilson_interval_of_no_trial_says_nothing():
    assert metrics.wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 10_000), st.data())
def test_wilson_interval_holds_the_share_and_mirrors_with_it(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = metrics.wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    mirrored = metrics.wilson_interval(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_interval_holds_the_truth_in_95_of_100_samples():
    right = np.random.default_rng(0).binomial(200, 0.92, size=2000)
    intervals = np.array([metrics.wilson_interval(count, 200) for count in right])
    covered = np.mean((intervals[:, 0] <= 0.92) & (intervals[:, 1] >= 0.92))
    assert 0.93 < covered < 0.97


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, 873–890, table II, method 10
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((6, 7, 2, 7), 0.0582, 0.8062),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((10, 10, 0, 10), 0.6075, 1.0000),
    ],
)
def test_difference_interval_equals_the_published_ones(counts, low, high):
    assert metrics.difference_interval(*counts) == pytest.approx((low, high), abs=5e-5)


def test_calibration_error_by_hand():
    # two bins of two: confidence 0.65 with 1 of 2 right, confidence 0.9 with 2 of 2 right
    confidence = np.array([0.6, 0.7, 0.85, 0.95])
    probabilities = np.column_stack([confidence, 1 - confidence])
    labels = np.array([0, 1, 0, 0])
    bins = metrics.calibration_bins(probabilities, labels, bins=2)
    assert bins.count.tolist() == [2, 2]
    assert bins.confidence == pytest.approx([0.65, 0.9])
    assert bins.accuracy == pytest.approx([0.5, 1.0])
    error = metrics.expected_calibration_error(probabilities, labels, bins=2)
    assert error == pytest.approx((2 * 0.15 + 2 * 0.1) / 4)


def test_calibration_bins_have_equal_mass():
    labels = np.zeros(1000, np.int64)
    bins = metrics.calibration_bins(simulated_probabilities(labels, 5), labels)
    assert len(bins.count) == 15
    assert set(bins.count.tolist()) <= {66, 67}


def test_images_of_equal_confidence_share_a_bin():
    probabilities = np.array([[1.0, 0.0]] * 90 + [[0.6, 0.4]] * 10)
    bins = metrics.calibration_bins(probabilities, np.zeros(100, np.int64))
    assert bins.count.tolist() == [10, 90]


@given(st.integers(1, 60), st.integers(0, 1000))
@settings(max_examples=50)
def test_calibration_error_knows_neither_order_nor_repetition(n, seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    probabilities = simulated_probabilities(labels, 3, seed=seed, strength=1).round(1)
    error = metrics.expected_calibration_error(probabilities, labels)
    order = random.permutation(n)
    shuffled = metrics.expected_calibration_error(probabilities[order], labels[order])
    doubled = metrics.expected_calibration_error(
        np.repeat(probabilities, 2, axis=0), np.repeat(labels, 2)
    )
    assert shuffled == pytest.approx(error, abs=1e-12)
    assert doubled == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 4.0])
def test_fit_temperature_finds_the_one_that_was_applied(temperature):
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 4)) * 2
    weights = np.exp(logits)
    shares = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    labels = (random.random((20_000, 1)) > shares).sum(axis=1)
    assert metrics.fit_temperature(logits * temperature, labels) == pytest.approx(
        temperature, rel=0.03
    )


def test_fit_temperature_is_where_the_log_loss_is_least():
    labels = np.arange(300) % 3
    logits = np.log(simulated_probabilities(labels, 3, strength=1.0).astype(np.float64)) * 3
    best = metrics.fit_temperature(logits, labels)

    def loss(temperature):
        weights = np.exp(logits / temperature)
        return metrics.log_loss(weights / weights.sum(axis=1, keepdims=True), labels)

    assert loss(best) < min(loss(best * 1.01), loss(best / 1.01))


def test_fit_temperature_stays_in_bounds_when_no_minimum_exists():
    logits = np.array([[9.0, 0.0], [0.0, 9.0]])
    assert metrics.fit_temperature(logits, np.array([0, 1])) == 0.05  # all right
    assert metrics.fit_temperature(logits, np.array([1, 0])) == 20.0  # all wrong
    assert metrics.fit_temperature(np.zeros((2, 2)), np.array([0, 1])) == 20.0  # says nothing


def test_fit_temperature_survives_huge_logits():
    logits = np.array([[1e4, 0.0], [0.0, 1e4], [1e4, 0.0]], np.float32)
    assert metrics.fit_temperature(logits, np.array([0, 1, 1])) == 20.0


def test_fit_temperature_refuses_logits_that_are_not_finite():
    with pytest.raises(DataError, match="2 images whose logits have 1 values that are"):
        metrics.fit_temperature(np.array([[np.nan, 0.0], [0.0, 1.0]]), np.array([0, 1]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_is_clipped_as_scikit_learn_does(dtype):
    probabilities = np.array([[1, 0], [1, 0], [0.3, 0.7]], dtype)
    labels = np.array([0, 1, 1])
    expected = sklearn.metrics.log_loss(labels, probabilities)
    assert metrics.log_loss(probabilities, labels) == pytest.approx(expected, rel=1e-6)


def answers_bent_by(curvature, temperature=1.3, n=60_000, seed=0):
    """Return logits that have to be bent by so much, and labels drawn from what they then say."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, 4)) * 2
    shares = np.cumsum(metrics.calibrated(logits, temperature, curvature), axis=1)
    return logits, (random.random((n, 1)) > shares).sum(axis=1)


@pytest.mark.parametrize("curvature", [0.05, 0.2, 0.5, 0.9])
def test_fit_bend_finds_what_was_applied(curvature):
    logits, labels = answers_bent_by(curvature)
    found, true = metrics.fit_curvature(logits, labels), (1.3, curvature)
    # both numbers trade off, so what they say is compared
    fitted, drawn_from = (metrics.calibrated(logits, *each) for each in (found, true))
    assert np.abs(fitted - drawn_from).max() < 0.02
    assert metrics.log_loss(fitted, labels) <= metrics.log_loss(drawn_from, labels)
    assert found[1] == pytest.approx(curvature, abs=0.2)


def test_without_need_the_bend_is_near_0_and_the_temperature_that_of_fit_temperature():
    logits, labels = answers_bent_by(0.0)
    temperature, curvature = metrics.fit_curvature(logits, labels)
    assert curvature < 0.05
    assert temperature == pytest.approx(metrics.fit_temperature(logits, labels), rel=0.05)


@given(st.floats(0.1, 5), st.floats(0, 0.99), st.integers(0, 100))
def test_bending_keeps_the_order_of_the_classes(temperature, curvature, seed):
    logits = np.random.default_rng(seed).normal(size=(20, 5)) * 4
    probabilities = metrics.calibrated(logits, temperature, curvature)
    order = np.argsort(logits, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    assert (np.diff(ranked, axis=1) >= 0).all()
    assert probabilities.sum(axis=1) == pytest.approx(1)


def test_without_a_bend_it_is_the_softmax_of_divided_logits():
    logits = np.array([[1.0, 3.0, -2.0]])
    weights = np.exp(logits / 1.7)
    np.testing.assert_allclose(metrics.calibrated(logits, 1.7), weights / weights.sum())


def test_fit_bend_stays_in_bounds_when_no_minimum_exists():
    logits = np.array([[9.0, 0.0], [0.0, 9.0]])
    temperature, curvature = metrics.fit_curvature(logits, np.array([0, 1]))  # all right
    assert 0.02 <= temperature <= 20 and 0 <= curvature <= 1
    temperature, curvature = metrics.fit_curvature(logits, np.array([1, 0]))  # all wrong
    assert temperature == pytest.approx(20, rel=0.01) and curvature == pytest.approx(0, abs=1e-6)
