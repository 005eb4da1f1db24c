"""Selective prediction: error-rate thresholds and conformal prediction sets.

Both are computed from calibrated probabilities on val and hold for in-distribution images; see
`tinylens.evaluation.out_of_distribution` for the OOD score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.errors import RecipeError
from tinylens.metrics import Labels, Probabilities

MAX_ERRORS = (0.005, 0.01, 0.02, 0.05, 0.1)
COVERAGES = (0.9, 0.95, 0.99)
RISK = 0.1  # that more than the wanted share of all such answers is wrong
LEAST_ANSWERED = 0.2  # of val: fewer images say too little about the errors among them
STEP = 0.005  # of val, from one threshold that is tried to the next
# of ordinary images are less out of distribution than the quantiles that a model keeps: dense at
# the end
SHARES = (*(tenth / 10 for tenth in range(10)), 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)


@dataclass(frozen=True)
class Level:
    """Confidence threshold for a maximum error rate.

    Attributes:
        max_error: Maximum error rate among answers.
        threshold: Minimum confidence to answer; 0 always answers.
        answered: Share of val answered.
    """

    max_error: float
    threshold: float
    answered: float


@dataclass(frozen=True)
class SetLevel:
    """Probability threshold of prediction sets for a coverage.

    Attributes:
        coverage: Share of images whose true class is in the set.
        threshold: Minimum probability of a class in the set; the top class is always in it.
    """

    coverage: float
    threshold: float


@dataclass(frozen=True)
class SelectivePrediction:
    """Selective-prediction settings stored in a model file.

    Attributes:
        levels: Thresholds of the error rates that can be kept.
        sets: Thresholds of prediction sets by coverage.
        max_error: Default error rate; None always answers.
        ordinary: Quantiles of val's OOD scores at SHARES, ascending; empty if unknown.
        refused: Default share of in-distribution images that may be rejected; None rejects none.
    """

    levels: tuple[Level, ...] = ()
    sets: tuple[SetLevel, ...] = ()
    max_error: float | None = None
    ordinary: tuple[float, ...] = ()
    refused: float | None = None

    def level(self, max_error: float | None = None) -> Level | None:
        """Return the level of an error rate, or the default one; None if it always answers.

        Raises:
            RecipeError: the model has none for that rate.
        """
        wanted = self.max_error if max_error is None else max_error
        if wanted is None:
            return None
        for level in self.levels:
            if math.isclose(level.max_error, wanted):
                return level
        known = ", ".join(f"{100 * level.max_error:g}%" for level in self.levels)
        raise RecipeError(
            f"--max-error {100 * wanted:g}%: the model knows no confidence that keeps it; it has "
            f"{known or 'none, since it was trained without a val split'}; train with --max-error "
            f"{100 * wanted:g}%"
        )

    def set_level(self, coverage: float) -> SetLevel:
        """Return the prediction-set threshold of a coverage.

        Raises:
            RecipeError: the model has none for it.
        """
        for level in self.sets:
            if math.isclose(level.coverage, coverage):
                return level
        known = ", ".join(f"{100 * level.coverage:g}%" for level in self.sets)
        raise RecipeError(
            f"--coverage {100 * coverage:g}%: the model knows "
            f"{known or 'none, since it was trained without a val split'}"
        )

    def ood_limit(self, refused: float | None = None) -> float | None:
        """Return the OOD score above which images are rejected; None if none are.

        Args:
            refused: Share of in-distribution images that may be rejected; None: the default.

        Raises:
            RecipeError: the model cannot tell out-of-distribution images.
        """
        wanted = self.refused if refused is None else refused
        if wanted is None:
            return None
        if not self.ordinary:
            raise RecipeError(
                f"--reject-ood {100 * wanted:g}%: the model has no OOD score, since it was "
                "trained without a val split or by an older tinylens; train again with --val 0.1"
            )
        return float(np.interp(1 - wanted, SHARES, self.ordinary))

    def ood_rank(self, ood_score: float) -> float | None:
        """Return the share of in-distribution images with a lower OOD score; None where unknown.

        >>> SelectivePrediction(ordinary=tuple(range(len(SHARES)))).ood_rank(0.5)
        0.05
        """
        if not self.ordinary:
            return None
        return float(np.interp(ood_score, self.ordinary, SHARES))

    def without_ood_score(self) -> SelectivePrediction:
        """Return a copy without OOD settings."""
        return replace(self, ordinary=(), refused=None)

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> SelectivePrediction:
        """Return what `to_json` gave, also after a way through JSON."""
        return SelectivePrediction(
            levels=tuple(Level(**row) for row in tree["levels"]),
            sets=tuple(SetLevel(**row) for row in tree["sets"]),
            max_error=tree["max_error"],
            ordinary=tuple(tree["ordinary"]),
            refused=tree["refused"],
        )


ANSWERS_ALWAYS = SelectivePrediction()


def decide(
    probabilities: Probabilities, labels: Labels, max_error: float | None = None
) -> SelectivePrediction:
    """Compute the selective-prediction settings on val.

    Args:
        probabilities: calibrated, shape (n, classes).
        labels: int64, shape (n,).
        max_error: Default error rate; dropped if no level keeps it.
    """
    wanted = sorted({*MAX_ERRORS, *([] if max_error is None else [max_error])})
    levels = [level for rate in wanted if (level := error_level(probabilities, labels, rate))]
    sets = tuple(set_level(probabilities, labels, coverage) for coverage in COVERAGES)
    kept = any(level.max_error == max_error for level in levels)
    return SelectivePrediction(tuple(levels), sets, max_error if kept else None)


def error_level(probabilities: Probabilities, labels: Labels, max_error: float) -> Level | None:
    """Find the lowest confidence threshold that keeps `max_error`; None if there is none.

    Thresholds are tested from high to low until the Clopper-Pearson upper bound of the selective
    error exceeds `max_error`. The fixed order needs no correction for multiple tests
    (Angelopoulos et al. 2021, "Learn then test", arXiv:2110.01052; selective error as in
    Geifman & El-Yaniv 2017).
    """
    confidence = probabilities.max(axis=1)
    wrong = probabilities.argmax(axis=1) != labels
    ordered, count = np.sort(confidence)[::-1], len(labels)
    found = None
    for answered in _steps(count):
        threshold = ordered[answered - 1]
        chosen = confidence >= threshold
        if _upper_bound(int(wrong[chosen].sum()), int(chosen.sum())) > max_error:
            break
        everything = bool(chosen.all())
        found = Level(max_error, 0.0 if everything else float(threshold), float(chosen.mean()))
    return found


def _steps(count: int) -> NDArray[np.int64]:
    """Return the number of answered images per tested threshold, ascending."""
    shares = np.arange(LEAST_ANSWERED, 1 + STEP / 2, STEP)
    return np.unique(np.clip(np.rint(shares * count), 1, count)).astype(np.int64)


def _upper_bound(errors: int, trials: int) -> float:
    """Return the upper confidence bound of the error rate at RISK (Clopper & Pearson 1934)."""
    import scipy.stats

    if errors == trials:
        return 1.0
    return float(scipy.stats.beta.ppf(1 - RISK, errors + 1, trials - errors))


def set_level(probabilities: Probabilities, labels: Labels, coverage: float) -> SetLevel:
    """Compute the probability threshold of split conformal prediction sets.

    The smallest sets on average with this coverage, in distribution (Sadinle, Lei & Wasserman
    2019, JASA 114).
    """
    own = np.sort(probabilities[np.arange(len(labels)), labels])
    left_out = len(labels) - math.ceil((len(labels) + 1) * coverage)
    return SetLevel(coverage, float(own[left_out]) if left_out >= 0 else 0.0)


def in_set(probabilities: Probabilities, level: SetLevel) -> NDArray[np.bool_]:
    """Return the prediction sets as a mask, shape (n, classes).

    >>> in_set(np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]]), SetLevel(0.9, 0.3)).tolist()
    [[True, False, False], [True, True, False]]
    """
    chosen: NDArray[np.bool_] = probabilities >= level.threshold
    chosen[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = True
    return chosen
