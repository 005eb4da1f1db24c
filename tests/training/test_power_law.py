"""Power laws from simulated mistakes: what is found, and how often the interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest

from builders_curve import SIZES, errors_of, simulated
from tinylens.training.learning_curve import fit, measure_noise

LAWS = [(b, floor) for b in (0.1, 0.2, 0.35, 0.5) for floor in (0.0, 0.3, 0.6)]


def exact(errors, evaluated=100_000, seeds=3):
    """Mistakes of which there are as many as the errors say, the same ones for every seed."""
    counts = np.rint(np.array(errors) * evaluated).astype(int)
    wrong = np.arange(evaluated) < counts[:, None]
    return np.repeat(wrong[:, None, :], seeds, axis=1)


def test_a_power_law_without_noise_is_found_again():
    law = fit(SIZES, exact(errors_of(0.3, 0.0, 0.08)))
    assert law.exponents[0] == pytest.approx(0.3, abs=0.03)
    assert law.error(54_000).value == pytest.approx(0.08, abs=1e-3)
    low, high = law.gain(108_000).ci95
    assert low < 0.08 * (1 - 2**-0.3) < high
    assert law.holds
    assert law.p_value > 0.9


def test_the_gain_is_that_of_the_law_and_its_value_the_middle_of_its_interval():
    truth = 0.08 * 0.7 * (1 - 2**-0.35)
    wrong = simulated(errors_of(0.35, 0.3, 0.08), np.random.default_rng(0))
    gain = fit(SIZES, wrong).gain(2 * SIZES[-1])
    assert gain.value == pytest.approx(truth, abs=0.003)
    assert gain.value == pytest.approx(sum(gain.ci95) / 2)
    assert gain.ci95[0] < truth < gain.ci95[1]
    assert 0.004 < gain.ci95[1] - gain.ci95[0] < 0.009  # about 0.6 points: see the slow test


def test_more_images_to_judge_on_say_it_more_exactly():
    widths = []
    for evaluated in (500, 5_000):
        wrong = simulated(errors_of(0.3, 0.2, 0.2), np.random.default_rng(1), evaluated=evaluated)
        low, high = fit(SIZES, wrong).gain(2 * SIZES[-1]).ci95
        widths.append(high - low)
    assert widths[1] < 0.6 * widths[0]


def test_errors_that_rise_with_images_are_no_power_law():
    wrong = simulated((0.05, 0.06, 0.08, 0.12), np.random.default_rng(0))
    law = fit(SIZES, wrong)
    assert not law.holds
    assert law.p_value < 1e-3


def test_without_a_mistake_nothing_is_to_be_gained():
    law = fit(SIZES, np.zeros((4, 3, 500), bool))
    assert law.gain(2 * SIZES[-1]).value == pytest.approx(0, abs=2e-3)


def test_noise_is_what_repeated_series_show():
    """Of 800 series with other seeds and other images: the covariance of their errors."""
    random, errors = np.random.default_rng(0), errors_of(0.3, 0.2, 0.1)
    series = [simulated(errors, random, evaluated=2_000, spread=0.15) for _ in range(800)]
    measured = np.array([measure_noise(wrong).errors for wrong in series])
    described = np.mean([measure_noise(wrong).covariance for wrong in series], axis=0)
    seen = np.cov(measured.T)
    assert np.diag(described) == pytest.approx(np.diag(seen), rel=0.2)
    assert described[0, 3] == pytest.approx(seen[0, 3], rel=0.25)
    assert measure_noise(series[0]).freedom == 8


@pytest.mark.slow
@pytest.mark.parametrize(("last", "evaluated", "spread"), [(0.08, 6_000, 0.02), (0.2, 1_000, 0.03)])
def test_the_interval_of_the_gain_holds_the_truth_95_times_of_100(last, evaluated, spread):
    held, rejected = [], 0
    for exponent, floor in LAWS:
        random = np.random.default_rng(int(100 * exponent + 1000 * floor))
        truth = last * (1 - floor) * (1 - 2**-exponent)
        inside = 0
        for _ in range(200):
            errors = errors_of(exponent, floor, last)
            law = fit(SIZES, simulated(errors, random, evaluated=evaluated, spread=spread))
            low, high = law.gain(2 * SIZES[-1]).ci95
            inside += low <= truth <= high
            rejected += not law.holds
        held.append(inside / 200)
    assert min(held) >= 0.92  # 200 times tell 0.95 from less than that
    assert 0.95 <= np.mean(held) <= 0.99
    assert rejected / (200 * len(LAWS)) < 0.01
