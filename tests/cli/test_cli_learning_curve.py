"""The verb `learning-curve`, `train --learning-curve`, and the advice that both end in."""

from __future__ import annotations

import json

import numpy as np
import pytest

from builders_curve import few_shapes
from builders_run import make_run
from tinylens.evaluation.diagnosis import diagnose
from tinylens.run import Run
from tinylens.training import learning_curve


def test_a_folder_without_a_run_is_refused(type_in, tmp_path):
    code, out, err = type_in("learning-curve", tmp_path / "nothing")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: no run folder {tmp_path / 'nothing'};")


def test_what_no_curve_can_be_made_of_is_refused_before_a_training(type_in, tmp_path):
    words = ("train", "shapes", "--val", "0", "--out", tmp_path / "run", "--learning-curve")
    code, _, err = type_in(*words)
    assert (code, "there is no val split; train with --val 0.1" in err) == (4, True)
    assert not (tmp_path / "run").exists()


def test_a_series_has_no_learning_curve(type_in):
    code, _, err = type_in("train", "shapes", "--learning-curve", "--seeds", "3")
    assert (code, err) == (
        2,
        "error: --learning-curve is made of one training's data; leave out --seeds and --folds\n",
    )


def test_evaluate_ends_in_the_parts_and_in_advice(type_in, tmp_path):
    run = make_run(tmp_path / "run")
    explained = diagnose(run)
    code, out, _ = type_in("evaluate", run.path)
    assert code == 0
    described = "".join(out.split())
    for number, each in enumerate(explained.advice, start=1):
        assert "".join(f"{number}.{each.words}".split()) in described
    assert "wrong on train, too" in out
    tree = json.loads(type_in("evaluate", run.path, "--json")[1])["explained"]
    [first, *_] = explained.advice
    assert tree["advice"][0] == {"words": first.words, "size": pytest.approx(first.size)}
    gap = tree["parts"]["gap"]
    total = sum(part["size"]["value"] for part in gap["parts"])
    assert total == pytest.approx(gap["whole"]["value"])


@pytest.mark.slow
def test_a_training_with_a_learning_curve_leaves_both(type_in, tmp_path, monkeypatch):
    monkeypatch.setattr(learning_curve, "LEAST_STEPS", 2)
    monkeypatch.setattr(learning_curve, "SEEDS", 2)
    data = few_shapes()
    train, test = tmp_path / "train", data.test
    np.savez(
        tmp_path / "shapes.npz",
        x_train=np.concatenate([data.train.images, data.val.images]),
        y_train=np.concatenate([data.train.labels, data.val.labels]),
        x_test=test.images,
        y_test=test.labels,
    )
    code, out, err = type_in(
        *("train", tmp_path / "shapes.npz", "--epochs", "1", "--out", train),
        *("--learning-curve", "--json"),
    )
    assert code == 0, err
    run = Run(json.loads(out)["run"])
    assert run.path == train
    assert 530 <= run.learning_curve.points[-1].images <= 550  # all but a tenth of 600
    assert run.learning_curve.words in run.report.read_text("utf-8")
    code, out, err = type_in("learning-curve", train)  # anew, on the data that the run names
    assert (code, err) == (0, "")
    described = "".join(out.split())
    assert "".join(run.learning_curve.words.split()) in described
    assert "recipefast,on60imagesofval" in described
    assert "Whattodo" in described and str(run.report) in out
