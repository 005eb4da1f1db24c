from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from tinylens.inference.input_checks.background import (
    LEAST_CONTRAST,
    Ground,
    Window,
    box_of,
    difference,
    filled,
    fit_ground,
    reduced,
    spread,
    thing,
    without_specks,
)

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=3, max_side=9))


def lit(height: int = 60, width: int = 80) -> np.ndarray:
    """Return a coloured ground that gets brighter from left to right and a little downwards."""
    x, y = np.linspace(-1, 1, width)[None, :, None], np.linspace(-1, 1, height)[:, None, None]
    return np.array([180.0, 120.0, 60.0]) * (1 + 0.2 * x + 0.05 * y)


def test_a_lit_ground_is_found_to_a_grey_level():
    found = fit_ground(np.rint(lit()).astype(np.uint8))
    assert np.abs(found.at(60, 80) - lit()).max() < 1
    assert found.roughness < 1
    assert found.contrast == LEAST_CONTRAST


def test_what_touches_the_border_does_not_pull_the_ground():
    image = np.rint(lit()).astype(np.uint8)
    image[:40, 20:60] = 10  # half of the upper edge
    assert np.abs(fit_ground(image).at(60, 80) - lit()).max() < 4


def test_a_rough_ground_asks_for_more_contrast():
    noise = np.random.default_rng(0).normal(0, 12, (60, 80, 3))
    found = fit_ground(np.clip(lit() + noise, 0, 255).astype(np.uint8))
    assert found.roughness == pytest.approx(19, abs=4)  # the worst of three channels
    assert found.contrast == pytest.approx(3.5 * found.roughness)


def test_a_window_of_a_ground_is_that_part_of_it():
    whole = fit_ground(np.rint(lit(64, 64)).astype(np.uint8))
    part = whole.at(32, 16, Window(0.5, 0.25, 0.5, 0.25))
    np.testing.assert_allclose(part, whole.at(64, 64)[32:, 16:32], atol=1e-9)


def test_a_thing_is_what_differs_without_specks_and_with_no_holes():
    image = np.zeros((40, 40, 1), np.uint8)
    image[10:30, 10:25] = 200
    image[15:20, 12:20] = 0  # a dark print
    image[2, 2] = 255  # a speck
    where = thing(difference(image, Ground.flat([0])) > 20)
    expected = np.zeros((40, 40), bool)
    expected[10:30, 10:25] = True
    assert (where == expected).all()
    assert box_of(where) == Window(0.25, 0.25, 0.5, 0.375)


def test_parts_of_a_thing_that_hang_apart_are_kept():
    apart = np.zeros((20, 20), bool)
    apart[2:18, 2:8] = apart[2:18, 12:18] = True
    assert (thing(apart) == apart).all()


def test_values_spread_round_corners_and_not_through_walls():
    inside = np.array([[1, 1, 1, 0, 1], [0, 0, 1, 0, 1], [1, 1, 1, 0, 0], [1, 0, 0, 1, 1]], bool)
    values = np.arange(20).reshape(4, 5)
    assert spread(values, inside).tolist() == [
        [15, 15, 15, 0, 9],
        [0, 0, 15, 0, 9],
        [15, 15, 15, 0, 0],
        [15, 0, 0, 19, 19],
    ]


@given(MASKS)
def test_filling_adds_only_what_is_enclosed_and_happens_once(mask):
    closed = filled(mask)
    assert (closed >= mask).all()
    assert (filled(closed) == closed).all()
    assert (closed[0] == mask[0]).all() and (closed[:, -1] == mask[:, -1]).all()


@given(MASKS)
def test_specks_are_taken_away_and_nothing_is_added(mask):
    kept = without_specks(mask)
    assert (kept <= mask).all()
    assert kept.any() == mask.any()


def test_a_small_image_is_not_made_smaller():
    image = np.zeros((20, 30, 1), np.uint8)
    assert reduced(image, 30) is image
    assert reduced(image, 15).shape == (10, 15, 1)
