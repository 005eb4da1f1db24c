"""The nearest pictures are those of a plain search."""

from __future__ import annotations

import numpy as np
import pytest

from tinylens import neighbours
from tinylens.neighbours import nearest


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)


def by_plain_search(features, reference):
    ours, theirs = (
        each / np.linalg.norm(each, axis=1, keepdims=True)
        for each in (features.astype(np.float64), reference.astype(np.float64))
    )
    return np.linalg.norm(ours[:, None] - theirs, axis=2)


def test_rows_and_distances_are_those_of_a_plain_search(features, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    few = features[:20] + 0.1
    every = by_plain_search(few, features)
    rows, distances = nearest(few, features, 4)
    assert rows.dtype == np.int64 and distances.dtype == np.float32
    assert np.array_equal(rows, np.argsort(every, axis=1)[:, :4])
    assert np.allclose(distances, np.sort(every, axis=1)[:, :4], atol=1e-3)


def test_a_picture_is_no_neighbour_of_its_own(features):
    rows, distances = nearest(features, features, 3, same=True)
    assert not (rows == np.arange(50)[:, None]).any() and distances.min() > 0.1
    rows, distances = nearest(features, features, 3)
    assert np.array_equal(rows[:, 0], np.arange(50)) and distances[:, 0].max() < 1e-3


def test_of_equally_near_ones_the_first_comes_first_and_fewer_are_no_fault():
    reference = np.array([[0, 1], [1, 0], [1, 0]], np.float32)
    rows, distances = nearest(np.array([[5, 0]], np.float32), reference, 9)
    assert rows.tolist() == [[1, 2, 0]]
    assert distances[0].tolist() == pytest.approx([0, 0, 2**0.5])
