"""Images unlike all others stand out of the distances; flat and grey ones are named."""

from __future__ import annotations

import numpy as np
import pytest

from tinylens.auditing.outliers import NEIGHBOURS, fence, flat, grey_among_coloured, unlikeness


@pytest.fixture
def features():
    """Ordinary features around three directions of a space of 16."""
    rng = np.random.default_rng(0)
    centres = 8 * rng.normal(size=(3, 16))
    return (centres[np.arange(600) % 3] + rng.normal(size=(600, 16))).astype(np.float32)


def test_distances_are_those_of_a_plain_search(features):
    few = features[:40].astype(np.float64)
    few /= np.linalg.norm(few, axis=1, keepdims=True)
    each = np.sort(np.linalg.norm(few[:, None] - few[None], axis=2), axis=1)
    expected = each[:, 1 : 1 + NEIGHBOURS].mean(axis=1)
    found = unlikeness(features[:40], features[:40], same=True)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-4)


def test_strangers_lie_beyond_the_fence_and_hardly_any_ordinary_image_does(features):
    ood = np.random.default_rng(1).normal(size=(50, 16)).astype(np.float32)
    limit = fence(unlikeness(features, features, same=True))
    assert (unlikeness(ood, features, same=False) > limit).mean() > 0.95
    others = features[:300], features[300:]
    assert (unlikeness(*others, same=False) > limit).mean() < 0.02


def test_fewer_images_than_neighbours(features):
    assert unlikeness(features[:3], features[:3], same=True).shape == (3,)


def test_a_image_of_one_colour_is_flat_and_a_soft_one_is_not():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    images[1] = 200
    images[3] = (10, 200, 30)  # coloured, but nothing in it
    images[4, :4, :, :], images[4, 4:, :, :] = 100, 110
    assert flat(images).tolist() == [1, 3]


def test_grey_is_odd_only_among_coloured_images():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    images[7] = images[7, :, :, :1]
    assert grey_among_coloured(images).tolist() == [7]
    images[:20] = images[:20, :, :, :1]
    assert grey_among_coloured(images).tolist() == []
    assert grey_among_coloured(images[..., :1]).tolist() == []
