"""How the error falls with the number of training pictures: a power law, and what more would give.

error(n) = a · n^-b + c with c ≥ 0: Hestness et al. 2017 (arXiv:1712.00409) find b between 0.07 and
0.35 on real data; Viering & Loog 2021 (arXiv:2103.10948) review where the shape holds. Four sizes
cannot tell b from c (Hoiem et al. 2021, arXiv:2010.11029: the three parameters are unstable one by
one, the error at n and its slope are not). So not one curve is believed, but all with b up to 1
that explain what was measured: what they agree on is the forecast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from tinylens.metrics import Floats
from tinylens.results import Score

Wrong = NDArray[np.bool_]

EXPONENTS = np.linspace(0.01, 1.0, 100)
FLOORS = np.linspace(0.0, 0.98, 50)  # c as a share of the error at the most pictures
CONFIDENCE = 0.95
IMPLAUSIBLE = 0.01  # a power law would miss the errors so far less often than this


@dataclass(frozen=True, eq=False)
class Noise:
    """What the measured errors are, and how they vary.

    Attributes:
        errors: the mean over seeds, float64, shape (sizes,).
        covariance: of that, over seeds and over pictures to judge on, shape (sizes, sizes).
        freedom: degrees of freedom of the seeds' part of it.
    """

    errors: Floats
    covariance: Floats
    freedom: int


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """The curves that explain the measured errors not much worse than the nearest one does.

    Attributes:
        most: the largest number of pictures that was measured.
        exponents: b, float64, shape (curves,); the nearest curve comes first.
        floors: c as a share of the error at `most`, shape (curves,).
        errors: at `most`, the middle of what explains the errors, shape (curves,).
        halves: how far to either side it may lie, shape (curves,).
        p_value: how probable it is that the errors lie so far off the nearest power law.
    """

    most: int
    exponents: Floats
    floors: Floats
    errors: Floats
    halves: Floats
    p_value: float

    @property
    def holds(self) -> bool:
        """Whether what was measured may lie on a power law."""
        return self.p_value >= IMPLAUSIBLE

    def error(self, pictures: float) -> Score:
        """Return the error that is to be expected from so many training pictures."""
        return self._range(self._relative(pictures))

    def gain(self, pictures: float) -> Score:
        """Return by how much more accurate so many would make it than `most` do.

        The interval is of the mean over seeds on pictures like those judged, and holds the noise of
        seeds and pictures and that the shape is not known. The value is its middle.
        """
        low, high = self._range(1 - self._relative(pictures)).ci95 or (0.0, 0.0)
        return Score((low + high) / 2, (low, high))

    def _relative(self, pictures: float) -> Floats:
        """Return the error at `pictures` as a share of that at `most`, of every curve."""
        falling: Floats = (1 - self.floors) * (pictures / self.most) ** -self.exponents
        return falling + self.floors

    def _range(self, factors: Floats) -> Score:
        low = float(((self.errors - self.halves) * factors).min())
        high = float(((self.errors + self.halves) * factors).max())
        return Score(float(self.errors[0] * factors[0]), (max(low, 0.0), min(high, 1.0)))


def fit(pictures: Sequence[int], wrong: Wrong) -> PowerLaw:
    """Return the power laws that explain what several sizes of training sets led to.

    A curve belongs to them unless its distance from the errors, squared in units of their noise,
    exceeds the nearest one's by more than noise does 19 times of 20: the profile likelihood.

    Simulated 200 times from each of 24 power laws (b from 0.1 to 0.5, c none, 30 % or 60 % of the
    error; 8 % errors on 6,000 pictures and 20 % on 1,000) the interval of the gain from twice the
    pictures held the true one 97 times of 100, in every case at least 94 times; a power law was
    rejected less than once in 100 times.

    Args:
        pictures: trained on, rising, shape (sizes,).
        wrong: whether each judged picture was answered wrong, bool, shape (sizes, seeds, judged);
            at least 2 seeds, and the same pictures everywhere.
    """
    noise = measure_noise(wrong)
    sizes = np.array(pictures, np.float64) / pictures[-1]
    exponents, floors = (grid.ravel() for grid in np.meshgrid(EXPONENTS, FLOORS))
    shapes = (1 - floors[:, None]) * sizes ** -exponents[:, None] + floors[:, None]
    inverse = np.linalg.inv(noise.covariance)
    precision = np.einsum("ki,ij,kj->k", shapes, inverse, shapes)
    projected = shapes @ inverse @ noise.errors
    distances = noise.errors @ inverse @ noise.errors - projected**2 / precision
    # F's quantile, not the normal's squared: most of the noise is estimated from few seeds
    tolerance = float(scipy.stats.f.ppf(CONFIDENCE, 1, noise.freedom))
    spare = distances.min() + tolerance - distances
    near = np.argsort(distances)[: int((spare >= 0).sum())]
    freedom = max(len(sizes) - 2, 1)
    return PowerLaw(
        most=int(pictures[-1]),
        exponents=exponents[near],
        floors=floors[near],
        errors=(projected / precision)[near],
        halves=np.sqrt(spare[near] / precision[near]),
        p_value=float(scipy.stats.f.sf(max(distances.min(), 0) / freedom, freedom, noise.freedom)),
    )


def measure_noise(wrong: Wrong) -> Noise:
    """Return mean errors and how they vary with seeds and with the pictures judged.

    All sizes are judged on the same pictures, and hard ones are hard for all: what the choice of
    pictures adds to one size's error, it adds to the others', too, and little to their differences.

    Args:
        wrong: bool, shape (sizes, seeds, judged).
    """
    sizes, count, judged = wrong.shape
    by_seed, by_picture = wrong.mean(axis=2), wrong.mean(axis=1)
    errors = by_seed.mean(axis=1)
    relative = by_seed.var(axis=1, ddof=1) / np.maximum(errors, 1 / judged) ** 2
    # seeds differ at least by what their mistakes, made on so many pictures, differ by
    own = (by_picture * (1 - by_picture)).mean(axis=1) * count / (count - 1) / judged
    by_seeds = np.maximum(relative.mean() * errors**2, own)
    # that part is in the covariance over pictures already
    covariance = np.cov(by_picture) / judged + np.diag((by_seeds - own) / count)
    one_mistake = np.eye(sizes) / judged**2  # more or less is always possible
    return Noise(errors, covariance + one_mistake, freedom=sizes * (count - 1))
