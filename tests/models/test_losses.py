"""The loss against a teacher, against NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tinylens.models import losses
from tinylens.recipe import Recipe

pytestmark = pytest.mark.backend

RECIPE = Recipe(name="mine").override(
    {"distil.temperature": 3.0, "distil.share": 0.7, "train.label_smoothing": 0.1}
)
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 2, (6, 4)).astype(np.float32)
ONE_HOT = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]]
SOFT = RANDOM.dirichlet([1, 1, 1, 1], 6).astype(np.float32)


def log_softmax(values):
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def against_labels():
    smooth = 0.9 * ONE_HOT + 0.1 / 4
    return -(smooth * log_softmax(LOGITS)).sum(axis=1)


def test_the_teacher_s_part_is_softened_and_scaled():
    expected = 0.3 * against_labels() - 0.7 * 9 * (SOFT * log_softmax(LOGITS / 3)).sum(axis=1)
    loss = losses.build(RECIPE, distilled=True)
    found = loss.call(np.concatenate([ONE_HOT, SOFT], axis=1), LOGITS)
    assert np.allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-5)


def test_where_the_teacher_was_not_asked_labels_alone_count():
    loss = losses.build(RECIPE, distilled=True)
    found = loss(np.concatenate([ONE_HOT, np.zeros_like(SOFT)], axis=1), LOGITS)
    untaught = losses.build(RECIPE, distilled=False)(ONE_HOT, LOGITS)
    assert np.allclose(keras.ops.convert_to_numpy(found), against_labels().mean(), atol=1e-5)
    assert np.allclose(keras.ops.convert_to_numpy(untaught), against_labels().mean(), atol=1e-5)
