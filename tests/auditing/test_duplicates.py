"""Duplicates: planted ones of every kind are found among images that are only alike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tinylens.auditing.duplicates import Duplicate, find_duplicates
from tinylens.data.readers.synthetic import shapes
from tinylens.evaluation.robustness import shifted, through_jpeg


@pytest.fixture(scope="module")
def images():
    """600 soft textures, all different, with edges of JPEG's kind nowhere."""
    noise = np.random.default_rng(0).normal(size=(600, 32, 32, 3))
    soft = ndimage.gaussian_filter(noise, (0, 2, 2, 0), mode="wrap")
    return np.clip(128 + 60 * soft / soft.std(), 0, 255).astype(np.uint8)


def test_drawn_shapes_that_are_much_alike_are_hardly_ever_taken_for_one():
    assert len(find_duplicates(shapes().train.images[:1_500])) <= 15


def pairs(images):
    return {(found.a, found.b) for found in find_duplicates(images)}


def test_images_that_are_only_alike_are_none(images):
    assert find_duplicates(images) == []


def test_equal_images_make_a_chain(images):
    others = np.concatenate([images[:50], images[[3, 7, 3]]])
    assert find_duplicates(others) == [
        Duplicate(3, 50, 0.0),
        Duplicate(7, 51, 0.0),
        Duplicate(50, 52, 0.0),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: through_jpeg(x, 75),
        lambda x: shifted(x, 2, -1),
        lambda x: shifted(x, -2, -2),
        lambda x: np.clip(x * 0.85 + 20, 0, 255).astype(np.uint8),
        lambda x: np.clip(x.astype(int) + 12, 0, 255).astype(np.uint8),
    ],
    ids=["jpeg", "moved", "moved back", "paler", "brighter"],
)
def test_a_changed_copy_is_found(images, change):
    rows = np.arange(0, 600, 20)
    found = pairs(np.concatenate([images, change(images[rows])]))
    planted = {(int(row), 600 + place) for place, row in enumerate(rows)}
    assert len(found & planted) >= 29
    assert len(found - planted) <= 1


def test_grey_images_are_compared_as_well(images):
    grey = images[..., :1]
    found = pairs(np.concatenate([grey, shifted(grey[[5, 9]], 1, 1)]))
    assert {(5, 600), (9, 601)} <= found


def test_a_image_turned_or_inverted_is_another_one(images):
    rows = [1, 2, 3]
    others = [np.rot90(images[rows], axes=(1, 2)), 255 - images[rows]]
    assert find_duplicates(np.concatenate([images, *others])) == []


def test_plain_images_are_duplicates_only_where_they_are_equal():
    plain = np.stack([np.full((16, 16, 1), level, np.uint8) for level in (10, 20, 20, 200)])
    assert find_duplicates(plain) == [Duplicate(1, 2, 0.0)]


def test_few_images_or_one_are_no_trouble(images):
    assert find_duplicates(images[:1]) == []
    assert find_duplicates(images[:2]) == []
    copies = np.concatenate([images[:2], through_jpeg(images[:1], 90)])
    assert pairs(copies) == {(0, 2)}


def test_progress_ends_with_all_images(images):
    described = []
    find_duplicates(images, lambda done, total: described.append((done, total)))
    assert described[-1] == (600, 600)
