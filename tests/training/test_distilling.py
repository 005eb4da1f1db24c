"""Teachers: what they say is asked once, and only of who knows the same classes."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import shipped
from builders_export import NAMES, RECIPE
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.load import load_by
from tinylens.errors import ModelError, RecipeError, RunError
from tinylens.inference.classifier import Classifier
from tinylens.run import Run
from tinylens.training.distillation import lesson, notes, softened
from tinylens.training.train import train


def splits(class_names=shipped.CLASS_NAMES):
    images = shipped.some_images(30, shipped.RULE)
    whole = Dataset(images, np.arange(30) % 4, class_names, source="noise")
    parts = whole.split({"train": range(16), "val": range(16, 23), "test": range(23, 30)})
    return Splits(**parts)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "teacher").mkdir()
    path = tmp_path / "teacher" / "model.onnx"
    path.write_bytes(shipped.model_bytes())
    return path


def test_a_lesson_is_what_the_file_answers_on_train(file):
    data, said = splits(), []
    found = lesson(file, data, said.append)
    expected = shipped.linear_answers(data.train.images, shipped.RULE)
    assert np.allclose(found.probabilities, expected, atol=1e-5)
    assert said == ["asking the teacher: 0 of 16 images"]
    assert found.teacher.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (found.teacher.name, found.teacher.network) == ("teacher", "linear")


def test_a_teacher_is_asked_once(file, tmp_path):
    data, said = splits(), []
    first = lesson(file, data, said.append)
    again = lesson(file.parent, data, said.append)
    assert len(said) == 1
    assert np.array_equal(first.probabilities, again.probabilities)
    [kept] = (tmp_path / "cache" / "lessons").iterdir()
    kept.write_bytes(kept.read_bytes()[:-3])
    assert np.array_equal(lesson(file, data, said.append).probabilities, first.probabilities)
    assert len(said) == 2
    file.write_bytes(shipped.model_bytes(dataset="other noise"))
    lesson(file, data, said.append)  # another file may say something else
    assert len(said) == 3


def test_a_teacher_of_other_classes_is_refused(file):
    other = splits(("ankle boot", "bag", "coat", "shirt"))
    with pytest.raises(RecipeError, match="it lacks shirt and adds dress; expected the same ones"):
        lesson(file, other, print)
    turned = splits(shipped.CLASS_NAMES[::-1])
    with pytest.raises(RecipeError, match="it has them in another order: ankle boot, bag"):
        lesson(file, turned, print)


def test_a_teacher_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match="no model file"):
        lesson(tmp_path / "nowhere", splits(), print)


def test_notes_warn_of_a_teacher_that_may_have_seen_test(file):
    data = splits()
    teacher = lesson(file, data, print).teacher
    assert (
        "may flatter" in notes(teacher, data)[1] or "flatter the student" in notes(teacher, data)[1]
    )
    same = dataclasses.replace(teacher, fingerprint=data.fingerprint)
    assert len(notes(same, data)) == 1


PROBABILITIES = arrays(np.float32, (5, 4), elements=st.floats(0, 1, width=32)).map(
    lambda rows: (rows + np.float32(1e-3)) / (rows + np.float32(1e-3)).sum(axis=1, keepdims=True)
)


@given(PROBABILITIES, st.floats(1, 50))
def test_softening_keeps_the_order_and_evens_out(probabilities, temperature):
    soft = softened(probabilities, temperature)
    assert np.allclose(soft.sum(axis=1), 1, atol=1e-5)
    assert (soft.max(axis=1) <= probabilities.max(axis=1) + 1e-5).all()
    for before, after in zip(probabilities, soft, strict=True):
        assert (np.diff(after[np.argsort(before)]) >= -1e-6).all()


@given(PROBABILITIES)
def test_a_temperature_of_1_changes_nothing(probabilities):
    assert np.allclose(softened(probabilities, 1.0), probabilities, atol=1e-6)


@pytest.mark.slow
def test_a_student_learns_from_its_teacher_alone(trained, tmp_path, monkeypatch):
    """Every label of its own is wrong; what it knows, it has from the teacher."""
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    data = load_by(RECIPE.data, trained.path.parent / "images.npz")
    assert data.class_names == NAMES
    wrong = dataclasses.replace(data.train, labels=(data.train.labels + 1) % 4)
    misled = Splits(wrong, data.val, data.test)
    recipe = RECIPE.override(
        {"distil.share": 1.0, "train.hard_example_fraction": 1.0, "train.epochs": 6}
    )
    out = tmp_path / "student"
    run = train(misled, recipe, teacher=trained, out=out)
    answers = Classifier.open(run.model).probabilities(data.test.images).argmax(axis=1)
    assert (answers == data.test.labels).mean() > 0.7  # by its own labels it would be 0
    assert run.info.teacher["sha256"] == hashlib.sha256(trained.model.read_bytes()).hexdigest()
    with pytest.raises(RunError, match=r"teacher: .* → none"):
        train(misled, recipe, out=out)
    assert train(misled, recipe, teacher=trained, out=out).info.state == "done"
    assert Run(out).recipe.distil.share == 1.0
