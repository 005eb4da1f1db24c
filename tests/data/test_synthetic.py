from __future__ import annotations

import time

import numpy as np
import pytest

from tinylens.data.readers.synthetic import CLASS_NAMES, shapes


def test_the_same_seed_draws_the_same_images_and_they_are_these():
    data = shapes(n_train=30, n_test=20, seed=7)
    assert data.fingerprint == shapes(n_train=30, n_test=20, seed=7).fingerprint
    assert data.fingerprint == "501ec432728c737d84137e5a2cdf189560636c937c237a4c3774246815a5acc4"


def test_another_seed_draws_others_and_test_is_not_train():
    one, two = shapes(20, 20, seed=0), shapes(20, 20, seed=1)
    assert one.train.fingerprint != two.train.fingerprint
    assert one.train.fingerprint != one.test.fingerprint


@pytest.mark.parametrize("size", [8, 32, 64])
def test_any_size_can_be_drawn(size):
    assert shapes(10, 10, size=size).train.image_shape == (size, size, 3)


def test_classes_are_balanced_and_every_shape_is_seen():
    data = shapes(n_train=40, n_test=10)
    assert data.train.class_names == CLASS_NAMES
    assert data.train.counts.tolist() == [4] * 10
    spread = data.train.images.astype(float).std(axis=(1, 2)).max(axis=1)
    assert spread.min() > 20  # noise alone has 18


@pytest.mark.slow
def test_six_thousand_take_under_three_seconds():
    started = time.perf_counter()
    shapes()
    assert time.perf_counter() - started < 3


@pytest.mark.slow
def test_a_linear_model_fails():
    from sklearn.linear_model import RidgeClassifier

    data = shapes(n_train=3000, n_test=500)
    flat = [part.images.reshape(len(part), -1) / 255 for part in (data.train, data.test)]
    model = RidgeClassifier(alpha=1000).fit(flat[0], data.train.labels)
    assert np.mean(model.predict(flat[1]) == data.test.labels) < 0.3
