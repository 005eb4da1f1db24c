from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipped import model_bytes, some_images
from tinylens.errors import DataError, ModelError
from tinylens.inference import drift
from tinylens.inference.classifier import Classifier
from tinylens.inference.drift import Reference, Spread

RNG = np.random.default_rng(5)


def reference(count: int = 4000) -> Reference:
    images = RNG.integers(0, 256, (count, 4, 4, 1), np.uint8)
    return drift.reference(images, np.arange(count), RNG.uniform(0.2, 1, count), "val")


def test_figures_are_those_of_numpy():
    images = some_images(7, Classifier.from_bytes(model_bytes(), "x", threads=1).rule)
    found = drift.measure(images, np.ones(7))
    np.testing.assert_allclose(found["brightness"], images.mean(axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found["contrast"], images.std(axis=(1, 2, 3)), rtol=1e-6)


def test_a_reference_has_tenths_and_comes_back_from_json():
    made = reference()
    assert (made.part, made.images) == ("val", 4000)
    for spread in made.spreads.values():
        assert len(spread.edges) == 9
        np.testing.assert_allclose(spread.shares, 0.1, atol=0.01)
    assert Reference.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_many_equal_values_make_fewer_bins():
    confidence = np.concatenate([np.ones(700), np.linspace(0.3, 0.9, 300)])
    made = drift.reference(np.zeros((1000, 2, 2, 1), np.uint8), np.arange(1000), confidence, "val")
    assert made.spreads["confidence"].edges[-1] == 1
    assert made.spreads["confidence"].shares[-1] == 0.7
    assert made.spreads["brightness"] == Spread((0.0,), (0.0, 1.0))


def test_the_index_is_large_where_images_moved_and_within_luck_where_not():
    made = reference()
    same = RNG.integers(0, 256, (2000, 4, 4, 1), np.uint8)
    for images, moved in ((same, False), (same // 2, True)):
        bins = drift.measure(images, np.ones(2000))["brightness"]
        spread = made.spreads["brightness"]
        counts = drift.count(bins, spread.edges)
        index = drift.stability_index(counts, spread.shares)
        assert (index > drift.by_luck(counts, made.images)) is moved
        assert (index > 1) is moved


def test_luck_is_exceeded_in_one_of_twenty():
    shares, exceeded = [0.1] * 10, 0
    for _ in range(2000):
        ours = RNG.multinomial(1000, shares)
        theirs = RNG.multinomial(3000, shares) / 3000
        index = drift.stability_index(ours.tolist(), theirs.tolist())
        exceeded += index > drift.by_luck(ours.tolist(), 3000)
    assert 0.03 < exceeded / 2000 < 0.07


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=10))
def test_the_index_is_finite_and_not_negative(counts):
    shares = [1.0] + [0.0] * (len(counts) - 1)
    assert 0 <= drift.stability_index(counts, shares) < 50


@pytest.mark.parametrize(
    "spread",
    [((1.0, 1.0), (0.2, 0.3, 0.5)), ((1.0,), (1.0,)), ((1.0,), (0.2, 0.2)), ((1.0,), (1.5, -0.5))],
)
def test_a_spread_that_cannot_be_is_refused(spread):
    with pytest.raises(DataError):
        Spread(*spread)


def test_a_model_file_keeps_its_reference_and_an_old_one_has_none():
    made = reference()
    assert Classifier.from_bytes(model_bytes(reference=made), "x", threads=1).card.reference == made
    assert Classifier.from_bytes(model_bytes(), "x", threads=1).card.reference is None
    tree = made.to_json()
    tree["spreads"]["contrast"]["shares"][0] = 7
    broken = type("Broken", (), {"to_json": lambda self: tree, "__bool__": lambda self: True})()
    with pytest.raises(ModelError, match="the model card is wrong: the shares"):
        Classifier.from_bytes(model_bytes(reference=broken), "x", threads=1)
