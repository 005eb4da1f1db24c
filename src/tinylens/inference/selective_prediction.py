"""When not to answer: thresholds for a wanted rate of errors, sets for a wanted coverage.

Both are computed on val, on calibrated probabilities, and hold for images like val's. Which
images are not like those is told by their OOD score (see
`tinylens.evaluation.out_of_distribution`).
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
    """From which confidence on at most so many answers are wrong.

    Attributes:
        max_error: share of answers that may be wrong.
        threshold: the lowest confidence that is answered with; 0 answers always.
        answered: share of val that is.
    """

    max_error: float
    threshold: float
    answered: float


@dataclass(frozen=True)
class SetLevel:
    """Which classes to name so that the right one is among them so often.

    Attributes:
        coverage: share of images whose class is to be in the set.
        threshold: the lowest probability of a class in the set; the likeliest is always in it.
    """

    coverage: float
    threshold: float


@dataclass(frozen=True)
class SelectivePrediction:
    """What a model file knows of when not to answer.

    Attributes:
        levels: for some rates of errors, those that can be kept at all.
        sets: for some coverages.
        max_error: the rate that is kept where nobody asks for another; None answers always.
        ordinary: how out of distribution val's images are: quantiles of their OOD score at SHARES,
            ascending; empty where that is not known.
        refused: share of ordinary images that may be refused as out-of-distribution images, where
            nobody asks for another; None refuses none.
    """

    levels: tuple[Level, ...] = ()
    sets: tuple[SetLevel, ...] = ()
    max_error: float | None = None
    ordinary: tuple[float, ...] = ()
    refused: float | None = None

    def level(self, max_error: float | None = None) -> Level | None:
        """Return what keeps that rate of errors, or the model's own; None where it answers always.

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
        """Return what names sets of that coverage.

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
        """Return the OOD score above which images are refused; None where none are.

        Args:
            refused: share of ordinary images that may be; None takes the model's own.

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
        """Return the same for a model that cannot tell out-of-distribution images."""
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
    """Return when not to answer, going by what was answered on val.

    Args:
        probabilities: calibrated, shape (n, classes).
        labels: int64, shape (n,).
        max_error: a rate of errors that is to be kept without being asked for; where none of the
            levels keeps it, the result has none.
    """
    wanted = sorted({*MAX_ERRORS, *([] if max_error is None else [max_error])})
    levels = [level for rate in wanted if (level := error_level(probabilities, labels, rate))]
    sets = tuple(set_level(probabilities, labels, coverage) for coverage in COVERAGES)
    kept = any(level.max_error == max_error for level in levels)
    return SelectivePrediction(tuple(levels), sets, max_error if kept else None)


def error_level(probabilities: Probabilities, labels: Labels, max_error: float) -> Level | None:
    """Return the lowest confidence above which at most `max_error` is wrong; None for none.

    Confidences are tried from high to low until the upper bound of Clopper and Pearson for the
    error among what is answered passes `max_error`: tried in that fixed order, all that went before
    hold together at the risk of one (Angelopoulos et al. 2021, "Learn then test",
    arXiv:2110.01052; the rate is that of Geifman & El-Yaniv 2017).
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
    """Return how many images are answered at each threshold that is tried, ascending."""
    shares = np.arange(LEAST_ANSWERED, 1 + STEP / 2, STEP)
    return np.unique(np.clip(np.rint(shares * count), 1, count)).astype(np.int64)


def _upper_bound(errors: int, trials: int) -> float:
    """Return what the rate of errors is below, but for the RISK (Clopper & Pearson 1934)."""
    import scipy.stats

    if errors == trials:
        return 1.0
    return float(scipy.stats.beta.ppf(1 - RISK, errors + 1, trials - errors))


def set_level(probabilities: Probabilities, labels: Labels, coverage: float) -> SetLevel:
    """Return the probability from which on a class belongs to the set, by split conformal sets.

    On average the smallest sets that hold the right class so often (Sadinle, Lei & Wasserman 2019,
    JASA 114), for images like those that the threshold was computed on.
    """
    own = np.sort(probabilities[np.arange(len(labels)), labels])
    left_out = len(labels) - math.ceil((len(labels) + 1) * coverage)
    return SetLevel(coverage, float(own[left_out]) if left_out >= 0 else 0.0)


def in_set(probabilities: Probabilities, level: SetLevel) -> NDArray[np.bool_]:
    """Return which classes are in the set of each image, shape (n, classes).

    >>> in_set(np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]]), SetLevel(0.9, 0.3)).tolist()
    [[True, False, False], [True, True, False]]
    """
    chosen: NDArray[np.bool_] = probabilities >= level.threshold
    chosen[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = True
    return chosen
