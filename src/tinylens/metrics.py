"""What scikit-learn does not have: 95 % intervals of proportions, calibration, temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.errors import DataError

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Probabilities = NDArray[np.floating[Any]]
Interval = tuple[float, float]

NORMAL_975 = 1.959963984540054  # the standard normal's 97.5 % quantile
CALIBRATION_BINS = 15  # as in Guo et al. 2017
TEMPERATURE_BOUNDS = (0.05, 20.0)


# --- intervals in closed form


def wilson_interval(successes: float, trials: float) -> Interval:
    """Return Wilson's score interval for a proportion (Wilson 1927, JASA 22).

    It stays inside 0…1 and holds its 95 % near the ends, where the textbook interval collapses.
    Without a trial nothing is known, and the interval is (0, 1).

    >>> low, high = wilson_interval(81, 263)
    >>> round(low, 4), round(high, 4)
    (0.2553, 0.3662)
    """
    if trials == 0:
        return 0.0, 1.0
    z2 = NORMAL_975**2
    centre = (successes + z2 / 2) / (trials + z2)
    spread = successes * (trials - successes) / trials + z2 / 4
    half = NORMAL_975 * float(np.sqrt(spread)) / (trials + z2)
    # at the ends the formula gives exactly 0 or 1 but for rounding
    low = 0.0 if successes == 0 else max(centre - half, 0.0)
    high = 1.0 if successes == trials else min(centre + half, 1.0)
    return float(low), float(high)


def difference_interval(
    successes: float, trials: float, other_successes: float, other_trials: float
) -> Interval:
    """Return the interval of one proportion minus another one of other images.

    Newcombe's method 10, which joins two Wilson intervals (Newcombe 1998, Statistics in Medicine
    17, 873–890).

    >>> low, high = difference_interval(56, 70, 48, 80)
    >>> round(low, 4), round(high, 4)
    (0.0524, 0.3339)
    """
    first, second = successes / trials, other_successes / other_trials
    first_low, first_high = wilson_interval(successes, trials)
    second_low, second_high = wilson_interval(other_successes, other_trials)
    difference = first - second
    low = difference - np.hypot(first - first_low, second_high - second)
    high = difference + np.hypot(first_high - first, second - second_low)
    return float(low), float(high)


# --- calibration


@dataclass(frozen=True)
class CalibrationBins:
    """Images in order of confidence, cut into bins of equal size.

    Attributes:
        number: the bin of each image, int64, shape (n,).
        count: images in each bin, int64, shape (bins,); never 0.
        confidence: their mean confidence, float64, shape (bins,).
        accuracy: the share of them that is right, float64, shape (bins,).
    """

    number: NDArray[np.int64]
    count: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """The expected calibration error."""
        distance = np.abs(self.confidence - self.accuracy)
        return float(np.sum(distance * self.count) / np.sum(self.count))


def calibration_bins(
    probabilities: Probabilities, labels: Labels, bins: int = CALIBRATION_BINS
) -> CalibrationBins:
    """Return equal-mass bins of the highest probability (Roelofs et al. 2022, AISTATS).

    Bins of equal width would put nearly every image of a good network into the last one. Images
    of equal confidence share a bin, so the result depends neither on the order of the images nor
    on every image being given twice; where many share one, there are fewer bins.

    Args:
        probabilities: float, shape (n, classes).
        labels: int64, shape (n,).
        bins: how many bins at most.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    n = len(labels)
    last_rank = -(-n * np.arange(1, bins) // bins) - 1  # of each bin but the last: ⌈n·b/bins⌉ − 1
    edges = np.unique(np.sort(confidence)[np.maximum(last_rank, 0)])
    _, number = np.unique(np.searchsorted(edges, confidence, side="left"), return_inverse=True)
    count = np.bincount(number)
    return CalibrationBins(
        number=number.astype(np.int64),
        count=count,
        confidence=np.bincount(number, confidence) / count,
        accuracy=np.bincount(number, right) / count,
    )


def expected_calibration_error(
    probabilities: Probabilities, labels: Labels, bins: int = CALIBRATION_BINS
) -> float:
    """Return how far confidence is from accuracy, on average (Naeini et al. 2015, AAAI).

    Over equal-mass bins; see `calibration_bins`.

    >>> sure = np.array([[0.9, 0.1]] * 10)
    >>> round(expected_calibration_error(sure, np.array([0] * 7 + [1] * 3)), 4)
    0.2
    """
    return calibration_bins(probabilities, labels, bins).error


def fit_temperature(logits: Probabilities, labels: Labels) -> float:
    """Return the temperature T with the least log loss of softmax(logits / T).

    Guo et al. 2017 (ICML), "On Calibration of Modern Neural Networks". In 1 / T the loss is convex,
    so its slope is halved towards zero. Where no minimum exists, as when every image is right
    whatever T is, the answer is an end of `TEMPERATURE_BOUNDS`.

    Args:
        logits: float, shape (n, classes), before softmax.
        labels: int64, shape (n,).

    Raises:
        DataError: no image, or logits that are not finite.

    >>> fit_temperature(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    0.05
    """
    if not len(labels) or not np.isfinite(logits).all():
        raise DataError(
            f"a temperature cannot be fitted on {len(labels)} images whose logits have "
            f"{int((~np.isfinite(logits)).sum())} values that are not finite; expected at least "
            "one image and none such: look for the epoch in which training diverged"
        )
    relative = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    of_label = relative[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        """Return the derivative of the log loss by 1 / T."""
        weights = np.exp(relative * inverse)
        expected = (weights * relative).sum(axis=1) / weights.sum(axis=1)
        return float(np.mean(expected - of_label))

    coldest, hottest = TEMPERATURE_BOUNDS
    low, high = 1 / hottest, 1 / coldest
    if slope(low) >= 0:
        return hottest
    if slope(high) <= 0:
        return coldest
    while high - low > 1e-6 * low:  # about 25 times: each halves the bracket
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def fit_curvature(logits: Probabilities, labels: Labels) -> tuple[float, float]:
    """Return the temperature and the bend of `calibrated` with the least log loss.

    A temperature moves all confidences alike. A network trained on smoothed labels needs more: it
    is too modest where it is sure and too sure where it is not. A function of each log probability
    that rises, the same for all classes, changes no answer (Rahimi et al. 2020, arXiv:2003.06820,
    "diagonal" functions); here it is a parabola. In its two coefficients the loss is convex.

    Args:
        logits: float, shape (n, classes), before softmax.
        labels: int64, shape (n,).

    Returns:
        The temperature and the bend, from 0 (a temperature alone) to just under 1.
    """
    import scipy.optimize
    import scipy.special

    straight = scipy.special.log_softmax(logits.astype(np.float64), axis=1)
    terms = np.stack([straight, -(straight**2)])
    rows = np.arange(len(labels))

    def loss(weights: Floats) -> tuple[float, Floats]:
        curved = scipy.special.log_softmax(np.tensordot(weights, terms, 1), axis=1)
        expected = (np.exp(curved) * terms).sum(axis=2)
        slope = (expected - terms[:, rows, labels]).mean(axis=1)
        return float(-curved[rows, labels].mean()), slope

    low, high = (1 / bound for bound in reversed(TEMPERATURE_BOUNDS))
    found = scipy.optimize.minimize(
        loss,
        [1.0, 0.0],
        jac=True,
        bounds=[(low, high), (0.0, high)],
        method="L-BFGS-B",
        options={"ftol": 1e-12, "gtol": 1e-8},
    )
    first, second = (float(weight) for weight in found.x)
    return 1 / (first + second), second / (first + second)


def calibrated(
    logits: Probabilities, temperature: float, curvature: float = 0.0
) -> NDArray[np.float64]:
    """Return probabilities, float64, shape (n, classes), of logits that are calibrated.

    With the log probabilities u of the logits they are the softmax of
    u · (1 - bend - bend · u) / temperature; without a bend that of logits / temperature.
    """
    import scipy.special

    straight = scipy.special.log_softmax(logits.astype(np.float64), axis=1)
    curved = straight * (1 - curvature - curvature * straight) / temperature
    probabilities: NDArray[np.float64] = scipy.special.softmax(curved, axis=1)
    return probabilities


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean of `losses`.

    >>> round(log_loss(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 1])), 4)
    0.4904
    """
    return float(np.mean(losses(probabilities, labels)))


def brier_scores(probabilities: Probabilities, labels: Labels) -> Floats:
    """Return each image's squared distance from the right answer, float64, shape (n,).

    Summed over the classes, 0 to 2 (Brier 1950, Monthly Weather Review 78).

    >>> brier_scores(np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]]), np.array([0, 0, 1])).tolist()
    [0.0, 0.5, 2.0]
    """
    missed = probabilities.astype(np.float64)
    missed[np.arange(len(labels)), labels] -= 1
    distances: Floats = (missed**2).sum(axis=1)
    return distances


def losses(probabilities: Probabilities, labels: Labels) -> Floats:
    """Return the negative logarithm of each true class's probability, float64, shape (n,).

    Clipped as scikit-learn does: away from 0 and 1 by the precision of the array's type.
    """
    of_label = probabilities[np.arange(len(labels)), labels]
    precision = np.finfo(of_label.dtype).eps
    return -np.log(np.clip(of_label, precision, 1 - precision).astype(np.float64))
