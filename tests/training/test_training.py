"""`train` from end to end, on a small set, on every backend."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

import tinylens as tl
from conformance import tiny_splits
from tinylens.errors import RecipeError, RunError
from tinylens.evaluation import out_of_distribution
from tinylens.inference.input_checks.study import study
from tinylens.results import OVERALL_FIGURES

SMALL = {
    "train.epochs": 2,
    "train.batch_size": 16,
    "model.options.widths": [4],
    "model.options.dense": [8],
}


@pytest.fixture(scope="module")
def splits() -> tl.Splits:
    return tiny_splits()


@pytest.fixture(scope="module")
def run(splits: tl.Splits, tmp_path_factory: pytest.TempPathFactory) -> tl.Run:
    return tl.train(splits, out=tmp_path_factory.mktemp("runs") / "one", overrides=SMALL)


def figures_of_scikit_learn(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    answers = probabilities.argmax(axis=1)
    classes = range(probabilities.shape[1])
    averages = {
        f"{name}_{average}": score(labels, answers, average=average, zero_division=0)
        for name, score in (
            ("precision", sk.precision_score),
            ("recall", sk.recall_score),
            ("f1", sk.f1_score),
        )
        for average in ("macro", "weighted")
    }
    return averages | {
        "accuracy": sk.accuracy_score(labels, answers),
        "log_loss": sk.log_loss(labels, probabilities, labels=classes),
        "brier": sk.brier_score_loss(
            np.eye(len(classes))[labels], probabilities, scale_by_half=False
        ),
        "mcc": sk.matthews_corrcoef(labels, answers),
        "roc_auc_macro": sk.roc_auc_score(labels, probabilities, multi_class="ovr", labels=classes),
    }


def test_the_file_knows_what_its_training_images_are_like(run: tl.Run, splits: tl.Splits) -> None:
    assert tl.Classifier.open(run.model).card.input_checks == study(splits.train.images)


@pytest.mark.backend
def test_every_figure_is_scikit_learns_on_the_saved_predictions(run: tl.Run) -> None:
    saved = run.predictions
    for name, scores in run.evaluation.splits.items():
        probabilities, labels = saved[f"{name}_probabilities"], saved[f"{name}_labels"]
        expected = figures_of_scikit_learn(probabilities, labels)
        for figure, value in expected.items():
            off = 1e-7 if figure == "brier" else 1e-12  # scikit-learn adds up in float32
            assert getattr(scores, figure).value == pytest.approx(value, abs=off), figure
        assert set(OVERALL_FIGURES) - expected.keys() == {"top5", "ece"}
        answers = probabilities.argmax(axis=1)
        rows = sk.precision_recall_fscore_support(labels, answers, zero_division=0)
        for row, expected_row in zip(scores.per_class, zip(*rows, strict=True), strict=True):
            found = (row.precision.value, row.recall.value, row.f1.value, row.support)
            assert found == pytest.approx(expected_row)
        assert np.array_equal(scores.confusion, sk.confusion_matrix(labels, answers))


@pytest.mark.backend
def test_the_shipped_file_answers_as_keras_did(run: tl.Run, splits: tl.Splits) -> None:
    classifier = tl.Classifier.open(run.model)
    probabilities = classifier.probabilities(splits.test.images)
    assert np.abs(probabilities - run.predictions["test_probabilities"]).max() < 1e-5
    assert classifier.class_names == splits.class_names


def test_the_file_keeps_what_ordinary_images_look_like(run: tl.Run, splits: tl.Splits) -> None:
    reference = tl.Classifier.open(run.model).card.reference
    assert (reference.part, reference.images) == ("val", len(splits.val))
    brightness = splits.val.images.reshape(len(splits.val), -1).mean(axis=1)
    np.testing.assert_allclose(
        reference.spreads["brightness"].edges[4], np.median(brightness), rtol=1e-4
    )


def test_strangers_are_judged_and_the_file_tells_them(run: tl.Run, splits: tl.Splits) -> None:
    evaluated = run.evaluation.ood
    assert [kind.name for kind in evaluated][:2] == [
        "noise",
        "its own images, cut up and scrambled",
    ]
    classifier = tl.Classifier.open(run.model)
    known = classifier.card.selective
    assert known.ordinary == tuple(sorted(known.ordinary)) and known.refused is None
    noise = dict(out_of_distribution.ood(splits.test.images, splits.class_names))["noise"]
    _, theirs = classifier.evaluated(noise)
    _, ours = classifier.evaluated(splits.test.images)
    area = out_of_distribution.area(ours.astype(np.float64), theirs.astype(np.float64))
    assert evaluated[0].roc_auc.value == pytest.approx(area.value, abs=1e-3)
    refused = (theirs > known.ood_limit(0.01)).mean()
    assert evaluated[0].refused.value == pytest.approx(refused, abs=4e-3)


def test_a_model_that_is_to_refuse_strangers_needs_a_val_part(splits, tmp_path) -> None:
    without = tl.Splits(splits.train, None, splits.test)
    with pytest.raises(RecipeError, match=r"answer\.refused 0\.01.*--val 0\.1"):
        tl.train(without, out=tmp_path / "r", overrides={**SMALL, "answer.refused": 0.01})


def test_the_run_says_where_it_came_from(run: tl.Run, splits: tl.Splits) -> None:
    info = run.info
    assert info.state == "done"
    assert info.fingerprint == splits.fingerprint
    assert info.splits["train"] == {"size": len(splits.train), "sha256": splits.train.fingerprint}
    assert len(info.test_opened) == 1
    assert info.versions["keras"] >= "3.15.1"
    assert run.recipe.train.precision in ("float32", "bfloat16")
    assert not (run.path / "checkpoints").exists()


def test_training_again_into_a_done_run_changes_nothing(run: tl.Run, splits: tl.Splits) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    again = tl.train(splits, out=run.path, overrides=SMALL)
    after = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    assert again == run
    assert after == before


def test_another_recipe_is_refused_with_the_difference(run: tl.Run, splits: tl.Splits) -> None:
    with pytest.raises(RunError, match=r"(?s)train\.epochs: 2 → 3.*another --out"):
        tl.train(splits, out=run.path, overrides={**SMALL, "train.epochs": 3})


def test_other_data_are_refused(run: tl.Run, splits: tl.Splits) -> None:
    other = tl.Splits(splits.train.subset(range(10)), splits.val, splits.test)
    with pytest.raises(RunError, match="data: "):
        tl.train(other, out=run.path, overrides=SMALL)


def test_the_recipe_of_a_run_gives_the_same_weights(
    run: tl.Run, splits: tl.Splits, tmp_path: Path
) -> None:
    again = tl.train(splits, run.path / "recipe.toml", out=tmp_path / "again")
    first, second = run.predictions, again.predictions
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_without_a_val_part_nothing_is_chosen(splits: tl.Splits, tmp_path: Path) -> None:
    bare = tl.Splits(splits.train, None, splits.test)
    run = tl.train(bare, out=tmp_path / "bare", overrides={**SMALL, "train.ema": 0.9})
    assert set(run.evaluation.splits) == {"train", "test"}
    assert run.evaluation.calibration.temperature == 1.0
    assert run.evaluation.calibration.chosen_on == "none"
    assert any("nothing was chosen" in note for note in run.info.notes)
    assert "val_loss" not in run.history[0]


@pytest.mark.slow
def test_a_rate_of_errors_is_kept_by_what_ships(tmp_path: Path) -> None:
    large = tiny_splits(count=600)
    changes = {**SMALL, "train.epochs": 12, "answer.max_error": 0.15}
    run = tl.train(large, out=tmp_path / "run", overrides=changes)
    known = tl.Classifier.open(run.model).card.selective
    assert known.max_error == 0.15
    levels = {level.max_error: level for level in run.evaluation.calibration.levels}
    sure = run.predictions["test_probabilities"].max(axis=1) >= known.level().threshold
    assert levels[0.15].answered.value == pytest.approx(sure.mean())
    assert [each.coverage for each in run.evaluation.calibration.sets] == [0.9, 0.95, 0.99]
    page = run.report.read_text("utf-8")
    assert "When only sure answers are given" in page and "Right one named" in page


def test_a_rate_of_errors_that_cannot_be_kept_is_told(splits: tl.Splits, tmp_path: Path) -> None:
    run = tl.train(splits, out=tmp_path / "run", overrides={**SMALL, "answer.max_error": 0.001})
    assert any("keeps the error at 0.1 %" in note for note in run.info.notes)
    assert tl.Classifier.open(run.model).card.selective.max_error is None
    bare = tl.Splits(splits.train, None, splits.test)
    with pytest.raises(RecipeError, match="there is no val split; train with --val"):
        tl.train(bare, out=tmp_path / "bare", overrides={**SMALL, "answer.max_error": 0.1})


def test_a_folder_of_someone_else_is_not_taken_over(splits: tl.Splits, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"state": "done"}))
    with pytest.raises(RunError, match=r"recipe\.toml"):
        tl.train(splits, out=tmp_path, overrides=SMALL)


def test_views_a_part_of_train_and_fewer_looks_at_val_are_as_the_recipe_says(
    splits: tl.Splits, tmp_path: Path
) -> None:
    changes = {
        "model.name": "whitened",
        "model.options": {"widths": [8, 8]},
        "model.tta_views": 2,
        "train.score_train": 20,
        "train.val_every": 2,
        "train.epochs": 3,
        "train.batch_size": 16,
    }
    run = tl.train(splits, "classic", out=tmp_path / "run", overrides=changes)
    predictions = run.predictions
    rows = predictions["train_indices"]
    assert len(set(rows.tolist())) == 20
    assert rows.tolist() == sorted(rows.tolist())
    np.testing.assert_array_equal(predictions["train_labels"], splits.train.labels[rows])
    assert ["val_accuracy" in row for row in run.history] == [False, True, True]
    assert any("20 of its" in note for note in run.info.notes)
    assert any("mean over 2 views" in note for note in run.info.notes)
    classifier = tl.Classifier.open(run.model)
    mirrored = np.ascontiguousarray(splits.test.images[:, :, ::-1])
    np.testing.assert_allclose(  # a mean over both sides does not know left from right
        classifier.probabilities(mirrored), predictions["test_probabilities"], atol=1e-5
    )
