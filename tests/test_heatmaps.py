"""Heatmaps are scaled to 1, and lie where their places look."""

from __future__ import annotations

import numpy as np
import pytest

from tinylens.heatmaps import Line, highest_one, upsampled


def test_the_largest_value_is_1_and_what_speaks_against_is_left_out():
    maps = np.array([[[-3.0, 0.5], [2.0, 1.0]], [[0.0, -1.0], [0.0, 0.0]], [[0.5, 0], [0, 0]]])
    scaled = highest_one(maps)
    assert scaled.dtype == np.float32
    assert scaled[0].tolist() == [[0.0, 0.25], [1.0, 0.5]]
    assert scaled[1].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert scaled[2].tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_a_map_of_the_same_size_stays_as_it_is():
    maps = np.random.default_rng(0).normal(size=(2, 5, 7))
    assert np.array_equal(upsampled(maps, (5, 7)), maps)


def test_even_places_are_mirrored_with_the_image_and_keep_a_plane():
    maps = np.random.default_rng(0).normal(size=(1, 3, 4))
    mirrored = upsampled(maps[:, ::-1, ::-1], (12, 9))
    assert np.allclose(mirrored, upsampled(maps, (12, 9))[:, ::-1, ::-1], atol=1e-12)
    assert np.allclose(upsampled(np.full((1, 3, 3), 7.0), (28, 31)), 7)


def test_between_the_middles_it_is_linear_and_beyond_them_it_stays():
    lines = (Line(0.0, 1.0), Line(2.0, 4.0))
    found = upsampled(np.array([[[1.0, 3.0, 0.0]]]), (1, 13), lines)[0, 0]
    expected = [1, 1, 1, 1.5, 2, 2.5, 3, 2.25, 1.5, 0.75, 0, 0, 0]
    assert found == pytest.approx(expected)
