"""Which mistakes are explained, for which classes, and beside which training images."""

from __future__ import annotations

import numpy as np
import pytest

from tinylens.data.dataset import Dataset
from tinylens.explaining import explain
from tinylens.explaining.explain import (
    NearestImages,
    confused_pairs,
    explain_images,
    explain_mistakes,
)

NAMES = ("cat", "dog", "owl")


def answers_of(rows):
    """Rows of (answer, confidence) as probabilities; the rest goes to the others in halves."""
    answers = np.zeros((len(rows), 3), np.float32)
    for row, (answer, confidence) in enumerate(rows):
        answers[row] = (1 - confidence) / 2
        answers[row, answer] = confidence
    return answers


@pytest.fixture
def test_part():
    """Eight images, each of its row's brightness; four dogs are called cats, one owl a dog."""
    images = np.repeat(np.arange(8, dtype=np.uint8), 64).reshape(8, 8, 8, 1)
    return Dataset(images, [0, 1, 1, 1, 1, 2, 2, 0], NAMES, source="made")


ANSWERS = answers_of(
    [(0, 0.9), (0, 0.5), (0, 0.8), (0, 0.6), (0, 0.7), (1, 0.9), (2, 0.9), (0, 0.9)]
)


def look(images, labels):
    """A map that holds the image's brightness, twice as much at one place, less 10 a class."""
    maps = images[..., 0] - np.float32(10) * labels[:, None, None].astype(np.float32)
    maps[:, 2, 3] += images[:, 0, 0, 0]
    return maps


@pytest.fixture
def find():
    """Features are an angle in the plane, a tenth a step of brightness."""
    images = np.repeat(np.arange(6, dtype=np.uint8), 64).reshape(6, 8, 8, 1)
    train = Dataset(images, [0, 0, 1, 1, 2, 2], NAMES, source="made")

    def embed(images):
        angle = images[:, 0, 0, 0] / 10
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    return NearestImages(embed, train)


def test_pairs_come_by_how_often_and_their_images_by_how_sure(test_part):
    first, second = confused_pairs(ANSWERS, test_part.labels, 9)
    assert (first.label, first.answer, first.rows.tolist()) == (1, 0, [2, 4, 3, 1])
    assert (second.label, second.answer, second.rows.tolist()) == (2, 1, [5])
    assert len(confused_pairs(ANSWERS, test_part.labels, 1)) == 1
    right = answers_of([(label, 0.9) for label in test_part.labels])
    assert confused_pairs(right, test_part.labels, 9) == []


def test_a_mistake_is_explained_for_its_class_and_for_its_answer(test_part, find, monkeypatch):
    monkeypatch.setattr(explain, "MISTAKES", 3)
    dogs, owls = explain_mistakes(test_part, ANSWERS, look, find)
    assert (dogs.title, dogs.count, owls.title, owls.count) == ("dog → cat", 4, "owl → dog", 1)
    assert [each.index for each in dogs.images] == [2, 4, 3]
    image = dogs.images[1]
    assert (image.label, image.answer, image.path) == ("dog", "cat", "")
    assert image.confidence == pytest.approx(0.7) and (image.image == 4).all()
    label, answer = image.heats
    assert (label.class_name, answer.class_name) == ("dog", "cat")
    assert label.probability == pytest.approx(0.15) and answer.probability == pytest.approx(0.7)
    assert (label.largest, answer.largest) == (0, 8) and not label.map.any()
    assert (answer.map[2, 3], answer.map[0, 0]) == (1, 0.5) and answer.map.sum() == 32.5
    assert [heat.largest for heat in owls.images[0].heats] == [0, 0]
    assert explain_mistakes(test_part, ANSWERS, look, find, pairs=1)[0].count == 4


def test_the_nearest_training_images_stand_beside_it(test_part, find):
    _, owls = explain_mistakes(test_part, ANSWERS, look, find)
    near = owls.images[0].neighbours
    assert [each.index for each in near] == [5, 4, 3, 2]
    assert [each.label for each in near] == ["owl", "owl", "dog", "dog"]
    assert near[1].distance == pytest.approx(2 * np.sin(0.05), abs=1e-3)
    assert (near[1].image == 4).all()


def test_no_mistakes_are_no_sheets(test_part, find):
    right = answers_of([(label, 0.9) for label in test_part.labels])
    assert explain_mistakes(test_part, right, look, find) == ()


def test_named_images_are_explained_for_their_answer_or_for_one_class(test_part, monkeypatch):
    monkeypatch.setattr(explain, "IMAGES_A_SHEET", 5)
    paths = [f"{row}.png" for row in range(8)]
    first, second = explain_images(test_part.images, paths, ANSWERS, NAMES, look)
    assert (first.title, first.count, second.title, second.count) == (
        "Images, sheet 1", 5, "Images, sheet 2", 3,
    )  # fmt: skip
    image = second.images[0]
    assert (image.name, image.label, image.answer) == ("5.png", None, "dog")
    assert image.neighbours == () and image.index is None
    [heat] = image.heats
    assert heat.class_name == "dog" and heat.largest == 0
    assert second.images[1].heats[0].class_name == "owl"
    assert first.images[4].heats[0].largest == 8
    [sheet] = explain_images(test_part.images[:1], paths, ANSWERS, NAMES, look, requested=2)
    [heat] = sheet.images[0].heats
    assert sheet.title == "Images" and heat.class_name == "owl"
    assert heat.probability == pytest.approx(0.05)


def test_embedding_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr(explain, "STRETCH", 4)
    train = Dataset(np.zeros((10, 8, 8, 1), np.uint8), [0] * 10, NAMES, source="made")
    described = []
    NearestImages(
        lambda images: np.ones((len(images), 2), np.float32),
        train,
        lambda *done: described.append(done),
    )
    assert described == [(4, 10), (8, 10), (10, 10)]
