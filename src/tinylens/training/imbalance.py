"""Class imbalance: loss weights, sampling quotas, priors and macro-F1.

Three ways, each of which leaves the network and its answers as they are: the loss of rare classes
weighs more, their images are shown more often, or their logits are made smaller in training by
how rare they are, so that the network learns to make them larger.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

EVEN = 1.5  # times as many images in the largest class as in the smallest: nothing to make up for
SAMPLED = 0.5  # the power of a class's size that it is drawn by: 1 as it comes, 0 all alike
BETA = 0.9999  # how much a further image of a class adds: see `loss_weights`

Counts = NDArray[np.int64]
Probabilities = NDArray[np.floating[Any]]


def imbalance(counts: Counts) -> float:
    """Return how many times as many images the largest class has as the smallest.

    A class without any is left out.

    >>> imbalance(np.array([6000, 600, 60, 0]))
    100.0
    """
    present = counts[counts > 0]
    return float(present.max() / present.min())


def loss_weights(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Return a weight an image, float32, shape (n,), mean 1: the rarer its class, the larger.

    One over the effective number of a class's images, (1 - BETAⁿ) / (1 - BETA) for n (Cui et al.
    2019, "Class-Balanced Loss Based on Effective Number of Samples", CVPR). For classes of fewer
    than some thousand images that is one over their number.

    >>> print(loss_weights(np.array([0, 0, 0, 1]), 2).round(2))
    [0.67 0.67 0.67 2.  ]
    """
    counts = np.bincount(labels, minlength=classes)
    per_class = (1 - BETA) / (1 - BETA ** np.maximum(counts, 1))
    weights: NDArray[np.float64] = per_class[labels]
    weights /= weights.mean()
    return weights.astype(np.float32)


def priors(counts: Counts) -> NDArray[np.float32]:
    """Return the logarithm of each class's share, float32, shape (classes,).

    Added to the logits in training, and in training alone, they make the network's own logits fit
    a world in which all classes are as frequent (Menon et al. 2021, "Long-Tail Learning via Logit
    Adjustment", ICLR, with τ = 1). A class without images counts as one with a single one.

    >>> print(priors(np.array([90, 10])).round(2))
    [-0.11 -2.3 ]
    """
    shown = np.maximum(counts, 1)
    shares: NDArray[np.float64] = shown / shown.sum()
    return np.log(shares).astype(np.float32)


def quotas(counts: Counts, size: int, power: float = SAMPLED) -> Counts:
    """Return how many images of each class an epoch of `size` draws, int64, shape (classes,).

    In proportion to the classes' sizes to some power: 0.5 is square-root sampling (Mahajan et al.
    2018; Kang et al. 2020, "Decoupling Representation and Classifier for Long-Tailed Recognition",
    ICLR), 0 shows all classes alike. What is left after rounding down goes to the largest rests.

    >>> quotas(np.array([900, 100, 0]), 100).tolist()
    [75, 25, 0]
    """
    shares = np.where(counts > 0, np.maximum(counts, 1) ** power, 0.0)
    wanted = size * shares / shares.sum()
    found: Counts = np.floor(wanted).astype(np.int64)
    short = np.argsort(found - wanted, kind="stable")[: size - int(found.sum())]
    found[short] += 1
    return found


def even_macro_f1(
    answers: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> tuple[float, float]:
    """Return the macro-F1 that there would be with all classes as frequent, and its uncertainty.

    On images as uneven as those of training the plain macro-F1 counts every frequent image that
    is taken for a rare one many times over, and prefers networks that hardly ever name the rare
    classes: see docs/decisions/uneven-classes.md. So every image counts as one over the images
    of its class here.

    Args:
        answers: int, shape (n,), the class that each image was taken for.
        labels: int, shape (n,), the class that it is of.
        classes: how many there are; one without images is left out.

    Returns:
        The macro-F1, 0 to 1, and the standard error of the mean recall, which is that of the
        macro-F1 about.

    >>> labels = np.array([0, 0, 0, 0, 1])
    >>> score, error = even_macro_f1(np.array([0, 0, 0, 1, 1]), labels, 2)
    >>> round(score, 3), round(error, 3)
    (0.873, 0.264)
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = 1 / np.maximum(counts, 1)
    right = np.bincount(labels[answers == labels], minlength=classes) * weights
    named = np.bincount(answers, weights[labels], minlength=classes)
    score = (2 * right / (1 + named))[present].mean()
    # one more right and one more wrong: a class of a few images is not known to be all right
    likely = (right * counts + 1) / (counts + 2)
    variance = (likely * (1 - likely) * weights)[present].sum() / present.sum() ** 2
    return float(score), float(variance**0.5)
