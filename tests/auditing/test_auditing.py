"""Planted faults of every kind are found where they were planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from builders_run import simulated_probabilities
from tinylens.auditing.audit import audit
from tinylens.data.dataset import Dataset, Skipped
from tinylens.evaluation.robustness import through_jpeg
from tinylens.results import Broken, Twin

NAMES = ("stripe", "spot", "plain")


@pytest.fixture(scope="module")
def parts():
    """Soft coloured textures, all different, in three parts."""
    noise = np.random.default_rng(0).normal(size=(660, 32, 32, 3))
    soft = ndimage.gaussian_filter(noise, (0, 2, 2, 0), mode="wrap")
    images = np.clip(128 + 60 * soft / soft.std(), 0, 255).astype(np.uint8)
    labels = np.arange(660) % 3
    ends = {"train": (0, 420), "val": (420, 500), "test": (500, 660)}
    return {
        name: Dataset(images[start:end], labels[start:end], NAMES, source="textures")
        for name, (start, end) in ends.items()
    }


def changed(parts, **rows):
    """The parts, in which some images (part → row → image) are others."""
    result = dict(parts)
    for name, samples in rows.items():
        images = parts[name].images.copy()
        for row, image in samples.items():
            images[row] = image
        result[name] = replace(parts[name], images=images)
    return result


def test_a_clean_set_is_clean(parts):
    found = audit(parts)
    assert found.duplicates == found.odd == found.broken == found.label_issues == ()
    assert found.doubted == () and not found.compared
    assert found.counts["train"] == (140, 140, 140)


def test_copies_are_named_by_part_row_and_label(parts):
    train, val = parts["train"].images, parts["val"].images
    copies = {3: train[17], 90: through_jpeg(train[40:41], 75)[0], 91: val[5]}
    found = audit(changed(parts, test=copies, val={60: train[17]}))
    places = {(twin.splits, twin.a, twin.b) for twin in found.duplicates}
    assert places == {
        (("train", "val"), 17, 60),
        (("val", "test"), 60, 3),
        (("train", "test"), 40, 90),
        (("val", "test"), 5, 91),
    }
    assert found.leaked == {3, 90, 91}
    exact = next(twin for twin in found.duplicates if twin.b == 60)
    assert exact == Twin(17, 60, 0.0, ("train", "val"), (NAMES[17 % 3], NAMES[(420 + 60) % 3]))


def test_labels_are_doubted_where_there_are_answers(parts):
    train = parts["train"]
    rows = np.random.default_rng(0).choice(420, 20, replace=False)
    labels = train.labels.copy()
    labels[rows] = (labels[rows] + 1) % 3
    answers = {"train": simulated_probabilities(train.labels, 3, strength=6.0)}
    paths = tuple(f"{row}.png" for row in range(420))
    wrong = parts | {"train": replace(train, labels=labels, paths=paths)}
    found = audit(wrong, answers)
    assert found.doubted == ("train",)
    planted = [issue for issue in found.label_issues if issue.index in rows]
    assert len(planted) >= 18 and len(found.label_issues) <= len(planted) + 2
    first = planted[0]
    assert first.given == NAMES[labels[first.index]] and first.path == f"{first.index}.png"
    assert first.proposed == NAMES[train.labels[first.index]]
    scores = [issue.score for issue in found.label_issues]
    assert scores == sorted(scores, reverse=True)


def test_strangers_are_outliers(parts):
    ood_scores = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)

    def embed(images):  # how rough an image is, in both directions
        across = np.abs(np.diff(images.astype(np.float32), axis=2)).mean(axis=(1, 2, 3))
        down = np.abs(np.diff(images.astype(np.float32), axis=1)).mean(axis=(1, 2, 3))
        return np.stack([across, down, np.full(len(images), 10)], axis=1)

    found = audit(changed(parts, test={8: ood_scores[0]}, train={9: ood_scores[1]}), embed=embed)
    assert found.compared
    assert {("test", 8), ("train", 9)} <= {(each.split, each.index) for each in found.outliers}
    assert len(found.outliers) <= 5
    assert all(each.score > 1 for each in found.outliers)


def test_empty_grey_and_broken_images_are_named(parts):
    odd = changed(parts, train={4: 255, 6: parts["train"].images[6, :, :, :1]})
    odd["val"] = replace(odd["val"], skipped=(Skipped("a.png", "cut short"),))
    found = audit(odd)
    assert [(each.split, each.index) for each in found.odd] == [
        ("train", 4),
        ("train", 4),
        ("train", 6),
    ]
    assert "nearly one colour" in found.odd[0].reason and "grey" in found.odd[2].reason
    assert found.broken == (Broken("a.png", "cut short"),)
