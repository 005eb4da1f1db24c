"""Networks side by side."""

from __future__ import annotations

import shipped
from builders_export import copy_of
from tinylens.exporting import verify
from tinylens.inference.classifier import Classifier


def test_weights_are_counted_and_what_tells_strangers_is_not(trained):
    found = verify.parameters(trained.model.read_bytes())
    assert Classifier.open(trained.model).card.selective.ordinary  # there is something to leave out
    # whitening 2·2·3 → 24, twice 3·3 convolutions into 8, 16 and 16 channels with 4 numbers a
    # channel for their norms, and the head; equal constants are written once
    convolutions = 4 * 3 * 24 + 9 * (24 * 8 + 8 * 8 + 8 * 16 + 3 * 16 * 16)
    norms, head = 4 * 2 * (8 + 16 + 16), 16 * 4
    assert convolutions + head < found <= convolutions + norms + head + 6
    weights = shipped.RULE.height * shipped.RULE.width * shipped.RULE.channels * 4
    assert verify.parameters(shipped.model_bytes()) == weights


def test_a_run_without_a_teacher_is_found_beside_a_student_s(trained, tmp_path):
    alone = copy_of(trained, tmp_path)
    (tmp_path / "other").mkdir()
    student = copy_of(trained, tmp_path / "other")
    student.path.rename(tmp_path / "student")
    student = type(student)(tmp_path / "student")
    info = student.info
    info.teacher = {"sha256": "12"}
    student.write_info(info)
    student.write_recipe(student.recipe.override({"distil.share": 0.5}))
    assert verify.alone(student) == alone
    student.write_recipe(student.recipe.override({"train.epochs": 9}))
    assert verify.alone(student) is None


def test_accuracy_is_of_the_same_test_part_or_none(trained, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(trained.model.read_bytes())
    rows = verify.compare({"run": trained.path, "file": file}, trained, seconds=0.02)
    assert rows[0].accuracy == trained.evaluation.splits["test"].accuracy
    assert rows[1].accuracy is None
    file.write_bytes(shipped.model_bytes())  # of another size of images
    other = verify.compare({"run": trained.path, "file": file}, trained, seconds=0.02)[1]
    assert other.one_p50_ms > 0 and other.bytes == file.stat().st_size
    assert rows[0].parameters == rows[1].parameters
