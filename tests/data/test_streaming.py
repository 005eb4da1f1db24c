"""What comes through a stream is what lies in the arrays, and trains the same weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import tiny_splits
from tinylens import system
from tinylens.data.prefetch import Stream
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.training import trainer as compiling
from tinylens.training.loop import fit

RECIPE = Recipe(name="test").override(
    {
        "model.options": {"widths": [4], "dense": [8], "dropout": 0.2},
        "train.epochs": 2,
        "train.batch_size": 16,
        "optimizer.learning_rate": 0.01,
        "augment.shift": 2,
    }
)
FAST = Recipe.load("fast").override(
    {
        "model.options": {"grey_widths": [], "widths": [8, 8]},
        "train.epochs": 4,
        "train.batch_size": 16,
        "optimizer.learning_rate": 0.02,
    }
)


def numbered(count):
    return np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    batch_size=st.integers(1, 30),
    skipped=st.sets(st.integers(0, 10)),
    seed=st.integers(0, 99),
)
def test_rows_are_those_asked_for_announced_or_not(sizes, batch_size, skipped, seed):
    """Whatever a backend leaves out, asks for twice or asks for by surprise."""
    whole = numbered(sum(sizes))
    stream = Stream(np.split(whole, np.cumsum(sizes)[:-1]))
    random = np.random.default_rng(seed)
    indices = random.permutation(len(whole)).astype(np.int32)
    with stream.ahead(indices, batch_size):
        for number, start in enumerate(range(0, len(indices), batch_size)):
            batch = indices[start : start + batch_size]
            if number in skipped:
                continue
            assert np.array_equal(stream.rows(batch), whole[batch])
            if number % 3 == 0:
                assert np.array_equal(stream.rows(batch), whole[batch])
    assert np.array_equal(stream.rows(indices), whole[indices])


def test_a_mapped_file_is_read_at_random_within_the_block_and_in_order_after_it(tmp_path):
    np.save(tmp_path / "x.npy", numbered(50))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    stream = Stream([mapped[:30], mapped[30:]])
    with stream.ahead(np.arange(50, dtype=np.int32), 7):
        assert stream.rows(np.arange(7, dtype=np.int32)).ravel().tolist() == list(range(7))
    assert stream.rows(np.array([49], np.int32)).ravel().tolist() == [49]


def test_an_error_while_reading_ahead_reaches_who_asks():
    stream = Stream([numbered(3)])
    wrong = np.array([0, 99], np.int32)
    with stream.ahead(wrong, 2), pytest.raises(IndexError):
        stream.rows(wrong)


@pytest.mark.backend
@pytest.mark.parametrize(
    ("recipe", "shape"),
    [(RECIPE, (12, 12, 1)), pytest.param(FAST, (32, 32, 1), marks=pytest.mark.slow)],
)
def test_streamed_and_resident_images_train_the_same_weights(tmp_path, monkeypatch, recipe, shape):
    splits = tiny_splits(shape)

    def trained(folder, fits):
        keras.utils.set_random_seed(0)
        monkeypatch.setattr(system, "fits", lambda size: fits)
        trainer = compiling.build(splits, recipe, "float32")
        assert (trainer.stream is None) == fits
        state = fit(trainer, Run(folder), ProgressReporter(), lambda: False)
        return trainer.network.get_weights(), state.history

    resident, rows = trained(tmp_path / "resident", fits=True)
    streamed, same_rows = trained(tmp_path / "streamed", fits=False)
    for one, other in zip(resident, streamed, strict=True):
        np.testing.assert_array_equal(one, other)
    for row, same in zip(rows, same_rows, strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert row.get(name) == same.get(name)
