"""Out-of-distribution score of an image, from a network's logits.

Two signs add up: a network that recognises nothing answers faintly (the energy of Liu et al. 2020,
arXiv:2010.03759), and mixes classes in a way that no class does (the relative Mahalanobis distance
of Ren et al. 2021, arXiv:2106.09022, here of logits instead of features). Both are a few products
with small matrices, so they fit into the shipped file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.special
from numpy.typing import NDArray

from tinylens.data.dataset import Images
from tinylens.data.images import ImageRule, convert
from tinylens.data.readers import synthetic
from tinylens.evaluation.bootstrap import mean_rank
from tinylens.inference.selective_prediction import SHARES
from tinylens.metrics import NORMAL_975, Floats, wilson_interval
from tinylens.results import OodScores, Score

# of the logits' mean variance, for the inverse of a covariance: areas under the curve change by
# 0.005 at most from 0.001 to 0.1, and a large one keeps what follows well within float32, also
# where classes lie so far apart that their own variance is next to nothing
RIDGE = 0.1
LEAST_RANGE = 1e-5  # of either sign, from quartile to quartile
EVALUATED = 500  # images of each kind from elsewhere
MOST_SHOWN = 4 * EVALUATED  # of all kinds together
REFUSED = 0.01  # of ordinary images, at the threshold that the report speaks of
TILES = 4  # by 4: what a scrambled image is cut into

Logits = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class OodScore:
    """A figure that is the larger, the less an image is like those trained on; 0 for most.

    With x = logits − centre it is x·(x·quadratic) + min over columns (x·towards + offsets)
    − coldness·logsumexp(logits) + constant.

    Attributes:
        centre: float64, shape (classes,).
        quadratic: float64, shape (classes, classes).
        towards: float64, shape (classes, occurring classes).
        offsets: float64, shape (occurring classes,).
        coldness: weight of the energy.
        constant: what brings the median of ordinary images to 0.
    """

    centre: Floats
    quadratic: Floats
    towards: Floats
    offsets: Floats
    coldness: float
    constant: float

    def of(self, logits: Logits) -> Floats:
        """Return the figure of each image, float64, shape (n,)."""
        wide = logits.astype(np.float64)
        return self._distance(wide) - self.coldness * _lse(wide) + self.constant

    def _distance(self, logits: Floats) -> Floats:
        x = logits - self.centre
        nearest = (x @ self.towards + self.offsets).min(axis=1)
        distance: Floats = (x * (x @ self.quadratic)).sum(axis=1) + nearest
        return distance


def fit(logits: Logits, labels: NDArray[np.int64], ordinary: Logits) -> OodScore | None:
    """Return the figure that tells a network's own images from others; None of one that does not.

    A network that gives all images the same answer tells nothing.

    Args:
        logits: of images trained on, shape (n, classes).
        labels: int64, shape (n,).
        ordinary: logits of images that are not out of distribution, val's where there are such:
            they set the scale of both signs, and 0.
    """
    distance = _relative_distance(logits.astype(np.float64), labels)
    wide = ordinary.astype(np.float64)
    far, cold = distance._distance(wide), -_lse(wide)
    ranges = _quartile_range(far), _quartile_range(cold)
    if min(ranges) < LEAST_RANGE:
        return None
    far_scale, cold_scale = 1 / ranges[0], 1 / ranges[1]
    middle = float(np.median(far * far_scale + cold * cold_scale))
    return replace(
        distance,
        quadratic=distance.quadratic * far_scale,
        towards=distance.towards * far_scale,
        offsets=distance.offsets * far_scale,
        coldness=cold_scale,
        constant=-middle,
    )


def _relative_distance(logits: Floats, labels: NDArray[np.int64]) -> OodScore:
    """Return the squared Mahalanobis distance to the nearest class, less that to all images.

    With a class's mean m and the precision P within classes it is
    (x − m)·P·(x − m) = x·P·x − 2 x·P·m + m·P·m, and x·Q·x around the mean of all is taken off.
    """
    occurring = np.unique(labels)
    centre = logits.mean(axis=0)
    x = logits - centre
    means = np.stack([x[labels == label].mean(axis=0) for label in occurring])
    within = x - means[np.searchsorted(occurring, labels)]
    ridge = max(RIDGE * float((x**2).mean()), 1e-12)
    near, all_of_them = _precision(within, ridge), _precision(x, ridge)
    return OodScore(
        centre=centre,
        quadratic=near - all_of_them,
        towards=-2 * near @ means.T,
        offsets=np.einsum("kc,cd,kd->k", means, near, means),
        coldness=0.0,
        constant=0.0,
    )


def _precision(centred: Floats, ridge: float) -> Floats:
    """Return the inverse of the covariance of rows around 0, `ridge` added to each variance."""
    covariance = centred.T @ centred / len(centred)
    inverse = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
    return inverse.astype(np.float64)


def _lse(logits: Floats) -> Floats:
    total: Floats = scipy.special.logsumexp(logits, axis=1)
    return total


def _quartile_range(values: Floats) -> float:
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high - low)


def quantiles(ood_score: Floats) -> tuple[float, ...]:
    """Return the quantiles of the OOD scores of in-distribution images, at `SHARES`."""
    return tuple(np.quantile(ood_score, SHARES).tolist())


# --- images from elsewhere


def ood(images: Images, class_names: Sequence[str]) -> Iterator[tuple[str, Images]]:
    """Yield kinds of images from elsewhere, each with its name, but for those trained on.

    Noise and scrambled images show nothing, drawn shapes something else, and the digits are
    scikit-learn's 8×8 ones (Alpaydin & Kaynak 1998), enlarged. They are known and easy to have
    anywhere; others may be harder to tell.

    Args:
        images: ordinary ones, uint8, shape (n, height, width, channels): what out-of-distribution
            images have the shape of, and what is scrambled.
        class_names: whoever trained on shapes or digits is not shown those as out-of-distribution
            images.
    """
    random = np.random.default_rng(0)
    height, width, channels = images.shape[1:]
    rule = ImageRule(height, width, 1 if channels == 1 else 3)
    noise = random.integers(0, 256, (EVALUATED, *images.shape[1:]), dtype=np.uint8)
    yield "noise", noise
    chosen = random.choice(len(images), min(EVALUATED, len(images)), replace=False)
    yield "its own images, cut up and scrambled", scrambled(images[np.sort(chosen)], random)
    if not set(synthetic.CLASS_NAMES) <= set(class_names):
        drawn = synthetic.shapes(n_train=len(synthetic.CLASS_NAMES), n_test=EVALUATED).test
        yield "drawn shapes", convert(drawn.images, rule)
    if not {str(digit) for digit in range(10)} <= set(class_names):
        yield "handwritten digits", convert(_digits(), rule)


def scrambled(images: Images, random: np.random.Generator) -> Images:
    """Return images whose tiles, 4 by 4, changed places: each in another order."""
    height, width = (side - side % TILES for side in images.shape[1:3])
    cut = images[:, :height, :width]
    shape = len(cut), TILES, height // TILES, TILES, width // TILES, cut.shape[3]
    tiles = cut.reshape(shape).swapaxes(2, 3)  # image, row of tiles, column of tiles, pixels
    flat = tiles.reshape(len(cut), TILES**2, *tiles.shape[3:])
    order = np.argsort(random.random(flat.shape[:2]), axis=1)
    moved = flat[np.arange(len(cut))[:, None], order].reshape(tiles.shape)
    result = images.copy()
    result[:, :height, :width] = moved.swapaxes(2, 3).reshape(cut.shape)
    return result


def evaluate(name: str, theirs: Floats, ours: Floats, quantiles: Sequence[float]) -> OodScores:
    """Return how images from elsewhere are told from ordinary ones.

    Args:
        name: what they are.
        theirs: OOD score of those from elsewhere, shape (n,).
        ours: OOD score of test's, shape (m,).
        quantiles: of val's, as `quantiles` gives them; they set the threshold.
    """
    limit = float(np.interp(1 - REFUSED, SHARES, quantiles))
    refused = int((theirs > limit).sum())
    return OodScores(
        name=name,
        images=len(theirs),
        roc_auc=area(ours, theirs),
        refused=Score(refused / len(theirs), wilson_interval(refused, len(theirs))),
        at=REFUSED,
    )


def area(low: Floats, high: Floats) -> Score:
    """Return the share of pairs in which the second is larger, a tie counting half.

    That is the area under the ROC curve. The interval is DeLong's (DeLong et al. 1988, Biometrics
    44) on the scale of log odds, so that it stays between 0 and 1 (Qin & Hotilovac 2008,
    Statistical Methods in Medical Research 17); where all pairs are in order, its lower end is
    that of as many images as the smaller group has, all of them in order.

    >>> print(area(np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.5, 3.5, 4.5, 5.5])))
    0.8125 (0.3293–0.9745)
    """
    below = mean_rank(np.sort(low), high) / len(low)
    above = 1 - mean_rank(np.sort(high), low) / len(high)
    value = float(below.mean())
    if value in (0.0, 1.0) or min(len(low), len(high)) < 2:
        few = min(len(low), len(high))
        return Score(value, wilson_interval(value * few, few))
    variance = below.var(ddof=1) / len(high) + above.var(ddof=1) / len(low)
    half = NORMAL_975 * float(np.sqrt(variance)) / (value * (1 - value))
    odds = float(scipy.special.logit(value))
    ends = scipy.special.expit(np.array([odds - half, odds + half]))
    return Score(value, (float(ends[0]), float(ends[1])))


def _digits() -> Images:
    from sklearn.datasets import load_digits

    levels = load_digits().images[:EVALUATED]  # 0 to 16
    images: Images = np.rint(levels * (255 / 16)).astype(np.uint8)[..., None]
    return images
