"""Occlusion: exact values of a classifier that looks at one corner, and of a model.onnx."""

from __future__ import annotations

import math

import numpy as np
import pytest

import shipped
from tinylens.errors import DataError
from tinylens.inference.classifier import Classifier
from tinylens.inference.occlusion import occlusion


def by_one_corner(images):
    """Nine to one for class 0 while the first pixel is bright, and even otherwise."""
    bright = images[:, 0, 0, 0] > 200
    own = np.where(bright, 0.9, 0.5)
    return np.stack([own, 1 - own], axis=1).astype(np.float32)


def test_each_pixel_has_the_mean_over_the_squares_that_cover_it():
    images = np.zeros((2, 8, 8, 1), np.uint8)
    images[:, 0, 0] = 255  # squares are 2 pixels wide and move by 1: one covers the corner
    described = []
    for_bright, for_other = occlusion(
        by_one_corner, images, np.array([0, 1]), lambda *done: described.append(done)
    )
    expected = np.zeros((8, 8))
    expected[:2, :2] = math.log(9) / np.array([[1, 2], [2, 4]])
    assert for_bright.dtype == np.float32
    assert np.allclose(for_bright, expected, atol=1e-6)
    assert np.allclose(for_other, -expected, atol=1e-6)
    assert described == [(1, 2), (2, 2)]


def test_a_square_has_the_mean_colour_of_the_image():
    image = np.random.default_rng(0).integers(0, 256, (1, 9, 12, 3), np.uint8)
    seen = []

    def keep(images):
        seen.append(images.copy())
        return np.full((len(images), 2), 0.5, np.float32)

    assert not occlusion(keep, image, np.array([0])).any()
    whole, *covered = seen[0]
    assert np.array_equal(whole, image[0])
    assert len(covered) == 8 * 11  # 2 pixels wide, moved by 1
    changed = np.array([(each != whole).any(axis=2) for each in covered])
    assert changed.any(axis=0).all() and changed.sum(axis=(1, 2)).max() == 4
    colour = image[0].mean(axis=(0, 1)).round()
    assert all((each[mask] == colour).all() for each, mask in zip(covered, changed, strict=True))


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (30, 41)])
def test_every_pixel_of_any_image_is_covered(size):
    def by_mean(images):
        own = np.clip(images.mean(axis=(1, 2, 3)) / 255, 0.01, 0.99)
        return np.stack([own, 1 - own], axis=1).astype(np.float32)

    image = np.random.default_rng(0).integers(0, 256, (1, *size, 1), np.uint8)
    assert np.isfinite(occlusion(by_mean, image, np.array([0]))).all()


def test_a_sure_answer_falls_as_its_evidence_goes_though_its_probability_rounds_to_1():
    def sure(images):
        rest = np.where(images[:, 0, 0, 0] > 200, 1e-30, 1e-20).astype(np.float32)
        return np.stack([np.ones_like(rest), rest], axis=1)

    image = np.zeros((1, 8, 8, 1), np.uint8)
    image[0, 0, 0] = 255
    assert occlusion(sure, image, np.array([0]))[0, 0, 0] == pytest.approx(math.log(1e10))


def test_a_model_file_is_asked_and_answers_as_its_weights_say():
    classifier = Classifier.from_bytes(shipped.model_bytes(), "model.onnx")
    sample = shipped.some_images(1, shipped.RULE)
    found = occlusion(classifier.probabilities, sample, np.array([2]))[0]

    def odds(image):
        p = shipped.linear_answers(image[None], shipped.RULE)[0, 2]
        return math.log(p / (1 - p))

    sums, counts = np.zeros((8, 6)), np.zeros((8, 6))
    for top in range(8):  # a square of one pixel
        for left in range(6):
            covered = sample[0].copy()
            covered[top, left] = sample[0].mean(axis=(0, 1)).round()
            sums[top, left] += odds(sample[0]) - odds(covered)
            counts[top, left] += 1
    assert np.abs(sums).max() > 0.1
    assert np.allclose(found, sums / counts, atol=1e-4)


def test_one_label_a_image_is_expected():
    with pytest.raises(DataError, match=r"1 images, and labels of shape \(2,\); expected one"):
        occlusion(by_one_corner, np.zeros((1, 8, 8, 1), np.uint8), np.array([0, 1]))
