"""The verbs `export` and `verify`, on a run that was trained in earnest."""

from __future__ import annotations

import importlib.util
import json
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from builders_export import NAMES, copy_of
from tinylens.exporting.formats import FORMATS
from tinylens.exporting.runtimes import open_model
from tinylens.inference.classifier import Classifier
from tinylens.run import Run

# not importorskip: a plain import of OpenVINO reports itself to its makers
absent = [name for name in ("ai_edge_litert", "openvino") if not importlib.util.find_spec(name)]
pytestmark = pytest.mark.skipif(bool(absent), reason=f"needs {' and '.join(absent)}")

untimed = ("--seconds", "0")
quick = (*untimed, "--format", "onnx", "--format", "onnx-int8", "--format", "openvino")
# TensorFlow's converter calibrates with an interpreter that it has announced to part with
calibrates = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """A run with some exports, for tests that do not change them."""
    from tinylens.exporting.export import export

    run = copy_of(trained, tmp_path_factory.mktemp("exported"))
    found, _ = export(run, ["onnx", "onnx-int8", "openvino", "keras"], seconds=0)
    assert [each.error for each in found] == [""] * 4
    return run


def looks(run: Run) -> int:
    return len(run.info.test_opened)


def test_export_writes_files_that_answer_and_leaves_the_seal_alone(type_in, trained, tmp_path):
    run = copy_of(trained, tmp_path)
    before = looks(run)
    code, out, err = type_in("export", run.path, *quick, "--json")
    assert (code, err) == (0, "")
    tree = json.loads(out)
    assert tree["passed"] and [each["format"] for each in tree["formats"]] == [
        "onnx",
        "onnx-int8",
        "openvino",
    ]
    rows = {row["format"]: row for row in tree["scorecard"]["rows"]}
    assert rows["onnx"]["path"] == str(run.model)
    assert (rows["onnx"]["part"], rows["onnx"]["accuracy"]) == ("test", None)
    assert rows["onnx-int8"]["part"] == "val" and rows["onnx-int8"]["accuracy"] > 0.5
    assert rows["openvino"]["largest_difference"] < 1e-4
    assert sorted(path.name for path in run.exports.iterdir()) == ["model-int8.onnx", "openvino"]
    assert looks(run) == before
    image = tmp_path / "image.png"
    Image.new("RGB", (16, 16), (200, 30, 30)).save(image)
    [answer] = Classifier.open(run.exports / "model-int8.onnx").predict(image)
    assert answer.label in NAMES


def test_export_again_replaces_what_was_there(type_in, exported, tmp_path):
    run = copy_of(exported, tmp_path)
    (run.exports / "openvino" / "old").touch()
    (run.exports / ".tmp-0123-left").mkdir()
    code, out, _ = type_in("export", run.path, "--format", "openvino", *untimed)
    assert code == 0 and str(run.exports / "openvino") in out
    assert not (run.exports / "openvino" / "old").exists()
    assert [path.name for path in run.exports.iterdir() if path.name.startswith(".")] == []


def test_a_file_elsewhere_is_verified_against_its_run(type_in, exported, tmp_path):
    code, _, _ = type_in("export", exported.path, "--format", "onnx", "--out", tmp_path, *untimed)
    assert code == 0
    model = tmp_path / "model.onnx"
    assert model.read_bytes() == exported.model.read_bytes()
    code, _, err = type_in("verify", model, *untimed)
    assert code == 2 and "not in the folder of one run" in err and "--against RUN" in err
    run = copy_of(exported, tmp_path)
    code, out, _ = type_in(
        "verify", model, "--against", run.path, "--split", "val", "--json", *untimed
    )
    [row] = json.loads(out)["scorecard"]["rows"]
    assert code == 0 and (row["path"], row["part"], row["agreement"]) == (str(model), "val", 1)


def test_verify_judges_all_of_a_runs_files_and_records_the_look(type_in, exported, tmp_path):
    run = copy_of(exported, tmp_path)
    before = looks(run)
    code, out, err = type_in("verify", run.path, *untimed)
    assert (code, err) == (0, "")
    for name in ("onnx", "onnx-int8", "openvino", "keras"):
        assert f"\n{name} " in out
    assert looks(run) == before + 1
    assert run.info.test_opened[-1]["command"] == f"tinylens verify {run.path} --seconds 0"
    with Image.open(run.plots / "formats.png") as plot:
        assert plot.size[0] > 1000
    card = json.loads((run.path / "scorecard.json").read_text("utf-8"))
    assert [row["format"] for row in card["rows"]] == ["onnx", "onnx-int8", "openvino", "keras"]
    code, _, _ = type_in("verify", run.model, "--split", "val", "--images", 20, *untimed)
    assert code == 0 and looks(run) == before + 1


def test_verify_ends_with_5_where_a_file_answers_otherwise(type_in, exported, tmp_path):
    run = copy_of(exported, tmp_path)
    arrays = run.predictions
    probabilities = arrays["test_probabilities"]
    probabilities[0] = np.roll(probabilities[0], 1)
    run.write_predictions(arrays)
    code, out, err = type_in("verify", run.model, "--json", *untimed)
    assert code == 5
    tree = json.loads(out)
    assert not tree["passed"] and len(tree["scorecard"]["rows"][0]["failures"]) == 2
    assert "it answers 99.58 % of 240 images as Keras did, expected at least 99.99 %" in err
    code, _, _ = type_in(
        "verify", run.model, "--min-agreement", 0.99, "--max-difference", 1, *untimed
    )
    assert code == 0
    code, _, err = type_in("verify", run.model, "--min-agreement", 99, *untimed)
    assert code == 2 and "--min-agreement 99: expected a share from 0 to 1" in err


def test_a_format_that_answers_otherwise_is_not_kept(type_in, exported, tmp_path):
    run = copy_of(exported, tmp_path)
    kept = (run.exports / "openvino" / "model.xml").read_bytes()
    arrays = run.predictions
    arrays["test_probabilities"][:3] = arrays["test_probabilities"][3:6]
    run.write_predictions(arrays)
    code, out, err = type_in(
        "export", run.path, "--format", "openvino", "--format", "onnx-int8", "--json", *untimed
    )
    assert code == 5
    tree = json.loads(out)
    assert [each["path"] for each in tree["formats"]] == [
        str(run.exports / "model-int8.onnx"),  # judged on val
        None,
    ]
    assert "error: openvino was not kept: it answers" in err
    assert (run.exports / "openvino" / "model.xml").read_bytes() == kept
    assert sorted(path.name for path in run.exports.iterdir()) == [
        "model-int8.onnx",
        "model.keras",
        "openvino",
    ]


def test_mistakes_are_told_in_a_sentence(type_in, exported, tmp_path):
    code, _, err = type_in("export", exported.path, "--format", "onxx")
    assert code == 2 and "no such format, did you mean onnx?" in err
    code, _, err = type_in("export", tmp_path / "none", "--format", "onnx")
    assert code == 2 and "no run folder" in err
    code, _, err = type_in("verify", exported.path, "--split", "all", *untimed)
    assert code == 2 and "has no part all; expected train, val, test" in err


@calibrates
@pytest.mark.slow
def test_every_format_is_written_judged_and_says_what_it_knows(type_in, trained, tmp_path):
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        pytest.skip("TensorFlow writes some formats, and Keras runs on another backend here")
    run = copy_of(trained, tmp_path)
    code, out, err = type_in("export", run.path, "--json", *untimed)
    assert (code, err) == (0, "")
    rows = json.loads(out)["scorecard"]["rows"]
    assert [row["format"] for row in rows] == list(FORMATS)
    images = np.asarray(np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3)), np.uint8)
    expected = Classifier.open(run).probabilities(images)
    for row in rows:
        assert row["integers"] or row["largest_difference"] < 1e-4
        opened = open_model(type(run.path)(row["path"]), 1)
        assert opened.format.name == row["format"]
        assert opened.card.class_names == NAMES and opened.card.golden is not None
        np.testing.assert_allclose(
            opened.answer(images), expected, atol=0.2 if row["integers"] else 1e-4
        )
    with zipfile.ZipFile(run.exports / "model.tflite") as behind:
        assert behind.read("labels.txt").decode().split() == list(NAMES)
    code, out, _ = type_in("verify", run.path, "--json", *untimed)
    assert code == 0 and len(json.loads(out)["scorecard"]["rows"]) == len(FORMATS)
