"""Mistakes of simulated trainings on more and more images, and images for real ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import norm

from tinylens.data.dataset import Splits
from tinylens.data.readers.synthetic import shapes
from tinylens.results import LearningCurve, Score

SIZES = (6_750, 13_500, 27_000, 54_000)


def errors_of(exponent, floor, last):
    """Errors at SIZES on a power law that ends in `last`, of which `floor` never goes away."""
    sizes = np.array(SIZES) / SIZES[-1]
    return last * ((1 - floor) * sizes**-exponent + floor)


def simulated(errors, random, *, evaluated=6_000, seeds=3, spread=0.02, alike=0.9):
    """Mistakes at these errors, bool (sizes, seeds, judged); hard images are hard for all.

    Each training's own error is off by `spread` of it; `alike` is how much of what makes an image
    hard all trainings share.
    """
    shape = (len(errors), seeds)
    own = np.array(errors)[:, None] * np.exp(random.normal(0, spread, shape))
    hard = random.standard_normal(evaluated, dtype=np.float32)
    noise = random.standard_normal((*shape, evaluated), dtype=np.float32)
    return alike**0.5 * hard + (1 - alike) ** 0.5 * noise < norm.ppf(own)[:, :, None]


def curve_of(low, high):
    """A learning curve of which only the interval of the gain from twice the data counts."""
    doubled = Score((low + high) / 2, (low, high))
    return LearningCurve("fast", 6_000, (), (), doubled, "Twice the data.")


def few_shapes():
    """Three shapes in grey, 16 pixels wide: 480 to train on, 120 of val and 30 of test."""
    drawn = shapes(n_train=2_100, n_test=20, size=16).train
    chosen = drawn.subset(np.flatnonzero(drawn.labels < 3))
    images = chosen.images.mean(axis=3).astype(np.uint8)[..., None]
    grey = replace(chosen, images=images, class_names=chosen.class_names[:3])
    rows = np.arange(630)
    return Splits(**grey.split({"train": rows[:480], "val": rows[480:600], "test": rows[600:]}))
