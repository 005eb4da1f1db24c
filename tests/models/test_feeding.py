"""Arrays in batches: all rows, in order, with what belongs to them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tinylens.models.batching import in_batches


@pytest.mark.backend
@pytest.mark.parametrize("count", [12, 13])
def test_every_row_comes_once_in_order(count):
    pixels = keras.Input((2,))
    other = keras.Input((1,))
    model = keras.Model([pixels, other], keras.layers.Concatenate()([pixels, other]))
    rows = np.arange(count * 2, dtype=np.float32).reshape(count, 2), np.ones((count, 1), np.float32)
    answered = model.predict(**in_batches(rows, batch_size=4), verbose=0)
    assert np.array_equal(answered, np.concatenate(rows, axis=1))
    alone = keras.Model(pixels, keras.layers.Rescaling(2.0)(pixels))
    assert np.array_equal(
        alone.predict(**in_batches(rows[0], batch_size=4), verbose=0), 2 * rows[0]
    )


@pytest.mark.backend
def test_targets_and_weights_come_with_their_rows():
    pixels = keras.Input((1,))
    model = keras.Model(pixels, keras.layers.Rescaling(1.0)(pixels))
    model.compile(loss="mse")
    x = np.array([[1.0], [2.0], [3.0]], np.float32)
    y, weights = np.zeros((3, 1), np.float32), np.array([0.0, 3.0, 0.0], np.float32)
    found = model.evaluate(**in_batches(x, y, weights, batch_size=3), verbose=0)
    assert found == pytest.approx(4.0)  # 3 · 2² over 3 rows
    assert model.evaluate(**in_batches(x, y, batch_size=3), verbose=0) == pytest.approx(14 / 3)


def test_nothing_is_tuned_while_it_runs():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.data is TensorFlow's")
    batches = in_batches(np.zeros((6, 1), np.float32), batch_size=4)["x"]
    assert batches.options().autotune.enabled is False
    assert batches.cardinality() == 2  # so that Keras knows the steps
