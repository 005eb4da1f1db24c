"""The verbs `evaluate` and `report`, through the command line's own front door."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import shipped
from builders_run import make_run, simulated_parts

NAMES = shipped.CLASS_NAMES


@pytest.fixture
def images(tmp_path):
    """A folder with train and test splits; the model answers 9 of the 12 test images right."""
    images = shipped.some_images(6000, shipped.RULE)
    answers = shipped.linear_answers(images, shipped.RULE).argmax(axis=1)
    root = tmp_path / "clothes"
    for part, per_class in (("train", 4), ("test", 3)):
        for label, name in enumerate(NAMES):
            folder = root / part / name
            folder.mkdir(parents=True)
            rows = np.flatnonzero(answers == label)[:per_class].tolist()
            if part == "test" and label != 3:
                rows[0] = int(np.flatnonzero(answers == (label + 1) % 4)[5])
            for row in rows:
                Image.fromarray(images[row]).save(folder / f"{row}.png")
    return root


@pytest.fixture
def run(tmp_path):
    made = make_run(tmp_path / "run", class_names=NAMES, parts=simulated_parts(NAMES))
    made.model.write_bytes(shipped.model_bytes())
    return made


def test_evaluate_judges_a_model_on_a_folder(type_in, run, images):
    code, out, _ = type_in("evaluate", run.path, images, "--json")
    assert code == 0
    tree = json.loads(out)
    scores = tree["evaluation"]["splits"]["test"]
    assert scores["n"] == 12
    assert scores["accuracy"]["value"] == 0.75
    assert [row["name"] for row in scores["per_class"]] == list(NAMES)
    assert tree["dataset"] == str(images)
    assert len(tree["fingerprint"]) == 64


def test_evaluate_shows_tables(type_in, run, images):
    code, out, _ = type_in("evaluate", run.model, images)
    assert code == 0
    assert re.search(r"Accuracy % +75\.0 \(46\.8–91\.1\)", out)
    assert "ankle boot" in out


def test_opening_test_is_recorded_and_opening_train_is_not(type_in, run, images):
    type_in("evaluate", run.path, images, "--split", "train")
    assert len(run.info.test_opened) == 1
    type_in("evaluate", run.model, images)  # the model's own run is found beside it
    assert len(run.info.test_opened) == 2
    assert run.info.test_opened[1]["command"] == f"tinylens evaluate {run.model} {images}"


def test_a_model_without_a_run_is_judged_and_leaves_no_trace(type_in, tmp_path, images):
    model = tmp_path / "alone" / "model.onnx"
    model.parent.mkdir()
    model.write_bytes(shipped.model_bytes())
    code, out, _ = type_in("evaluate", model, images, "--json")
    assert (code, json.loads(out)["evaluation"]["splits"]["test"]["n"]) == (0, 12)
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


def test_a_run_alone_shows_its_own_figures_and_opens_nothing(type_in, run):
    code, out, _ = type_in("evaluate", run.path, "--json")
    assert code == 0
    assert json.loads(out)["evaluation"] == json.loads(json.dumps(run.evaluation.to_json()))
    assert len(run.info.test_opened) == 1
    _, out, _ = type_in("evaluate", run.path)
    assert "".join(run.evaluation.gap.words.split()) in "".join(out.split())


def test_other_classes_are_refused_before_test_is_opened(type_in, run, images):
    (images / "test" / "bag").rename(images / "test" / "sack")
    (images / "train" / "bag").rename(images / "train" / "sack")
    code, _, err = type_in("evaluate", run.path, images)
    assert code == 4
    assert "only the model has bag; only the data have sack" in err
    assert len(run.info.test_opened) == 1


def test_a_part_that_there_is_not_is_refused(type_in, run, images):
    assert type_in("evaluate", run.path, images, "--split", "best") == (
        2,
        "",
        "error: --split best: expected train, val, test\n",
    )


def test_evaluate_without_a_data_set_needs_a_run(type_in, tmp_path):
    code, _, err = type_in("evaluate", tmp_path / "model.onnx")
    assert code == 2
    assert "has no evaluation.json" in err


def test_report_writes_it_anew_and_says_where(type_in, tmp_path):
    run = make_run(tmp_path / "run")
    code, out, _ = type_in("report", run.path)
    assert (code, out) == (0, f"{run.report}\n")
    assert "of the test images answered right" in run.report.read_text(encoding="utf-8")
    code, out, _ = type_in("report", run.path, "--json")
    tree = json.loads(out)
    assert tree["report"] == str(run.report)
    assert tree["model_card"] == str(run.model_card) and run.model_card.is_file()
    assert [path.rpartition("/")[2] for path in tree["plots"]] == [
        "confusion_matrix.png", "curves.png", "per_class.png", "reliability.png",
        "worst_mistakes.png",
    ]  # fmt: skip


def test_report_of_no_run_is_a_sentence(type_in, tmp_path):
    code, out, err = type_in("report", tmp_path / "nothing")
    assert (code, out) == (2, "")
    assert (
        err == f"error: no run folder {tmp_path / 'nothing'}; `tinylens train DATASET` makes one\n"
    )
