from __future__ import annotations

import numpy as np

from builders_input_checks import make_images
from tinylens.inference.input_checks import background


def looks(images: np.ndarray) -> np.ndarray:
    return np.stack(
        [background.looks(each[..., 0].astype(float), each[..., 0] > 0) for each in images]
    )


def test_brightness_is_counted_within_and_along_the_outline():
    grey = np.full((28, 28), 90.0)
    grey[6:22, 6:22] = 200
    where = np.zeros((28, 28), bool)
    where[4:24, 4:24] = True
    found = background.looks(grey, where)
    inner, rim = found[: background.LEVELS], found[background.LEVELS : 2 * background.LEVELS]
    assert inner[200 // 16] == 1 and rim[90 // 16] == 1 and found[-1] == 1
    assert inner.sum() == rim.sum() == 1


def test_the_edge_of_the_image_is_no_outline():
    everything = np.ones((28, 28), bool)
    found = background.looks(np.full((28, 28), 90.0), everything)
    assert found[background.LEVELS : 2 * background.LEVELS].sum() == 0


def test_images_are_told_from_their_negatives():
    as_they_are = make_images(100, seed=3)
    negatives = np.where(as_they_are > 0, 255 - as_they_are, 0)
    weights = background.learn(looks(as_they_are), looks(negatives))
    assert (looks(make_images(50, seed=4)) @ weights > 0).all()
    unseen = make_images(50, seed=5)
    assert (looks(np.where(unseen > 0, 255 - unseen, 0)) @ weights < 0).all()


def test_what_cannot_be_told_apart_is_not_and_stays_finite():
    rows = looks(make_images(20))
    weights = background.learn(rows, rows)
    assert np.abs(rows @ weights).max() < 1e-6
