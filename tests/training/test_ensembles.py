"""Ensembles: members that are runs of their own, going on after a stop, and one file that ships."""

from __future__ import annotations

import numpy as np
import pytest

from builders_export import NAMES, RECIPE
from tinylens.data.load import load_by
from tinylens.errors import RecipeError, RunError
from tinylens.exporting.verify import compare
from tinylens.inference.classifier import Classifier
from tinylens.progress import ProgressReporter
from tinylens.run import Run, RunInfo
from tinylens.training import ensemble
from tinylens.training.ensemble import next_folder, train_ensemble
from tinylens.training.train import train


@pytest.fixture
def data(trained):
    return load_by(RECIPE.data, trained.path.parent / "images.npz")


@pytest.mark.slow
def test_an_ensemble_goes_on_and_answers_by_the_mean_of_its_members(data, tmp_path):
    trainings = []

    def train_into(data, recipe, folder):
        if len(trainings) == 1:
            trainings.append("stopped")
            raise KeyboardInterrupt
        if not Run(folder).started:
            trainings.append(recipe.train.seed)
        return train(data, recipe, out=folder)

    recipe = RECIPE.override({"train.seed": 4})
    arguments = (data, recipe, 2, tmp_path / "both", train_into, ProgressReporter())
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(*arguments)
    run = train_ensemble(*arguments)
    assert trainings == [4, "stopped", 5]
    assert [each["name"] for each in run.info.members] == ["seed-4", "seed-5"]
    assert run.info.state == "done" and run.report.is_file()
    classifier = Classifier.open(run.model)
    members = [Run(run.path / "members" / name) for name in ("seed-4", "seed-5")]
    answers = [Classifier.open(each.model).probabilities(data.test.images) for each in members]
    mean = np.mean(answers, axis=0)
    found = classifier.probabilities(data.test.images)
    assert np.array_equal(found.argmax(axis=1), mean.argmax(axis=1))
    assert np.allclose(run.predictions["test_probabilities"], found, atol=1e-4)
    assert classifier.class_names == NAMES and classifier.card.chosen_on == "val"
    assert (
        classifier.card.selective.ordinary
    )  # it tells out-of-distribution images, as its members do
    _check_sizes(run, members)
    changed = run.model.stat().st_mtime_ns
    assert train_ensemble(*arguments).model.stat().st_mtime_ns == changed  # done: nothing is
    with pytest.raises(RunError, match="of another count"):
        train_ensemble(data, recipe, 3, tmp_path / "both", train_into, ProgressReporter())


def _check_sizes(run, members):
    paths = {"ensemble": run.path, **{each.path.name: each.path for each in members}}
    rows = compare(paths, run, seconds=0.05)
    assert [row.name for row in rows] == ["ensemble", "seed-4", "seed-5"]
    assert rows[0].parameters > 1.9 * rows[1].parameters > 0
    assert rows[0].bytes == run.model.stat().st_size
    assert rows[0].accuracy == run.evaluation.splits["test"].accuracy
    assert all(row.one_p50_ms > 0 for row in rows)


def test_a_folder_of_a_single_run_is_not_taken(trained, data):
    with pytest.raises(RunError, match="holds the run of a single network"):
        train_ensemble(data, RECIPE, 2, trained.path, train, ProgressReporter())


@pytest.mark.parametrize("count", [1, 101])
def test_an_ensemble_has_two_to_a_hundred(data, tmp_path, count):
    with pytest.raises(RecipeError, match=f"--ensemble {count}: expected 2 to 100"):
        train_ensemble(data, RECIPE, count, tmp_path / "none", train, ProgressReporter())
    assert not (tmp_path / "none").exists()


def test_the_newest_unfinished_folder_is_gone_on_with(tmp_path):
    assert next_folder(tmp_path, "set-fast-ensemble").name == "set-fast-ensemble-1"
    for number, state in ((1, "done"), (2, "running")):
        folder = tmp_path / f"set-fast-ensemble-{number}"
        folder.mkdir()
        Run(folder).write_info(RunInfo(state=state, members=[{"name": "seed-0"}]))
    assert next_folder(tmp_path, "set-fast-ensemble").name == "set-fast-ensemble-2"
    Run(tmp_path / "set-fast-ensemble-2").write_info(RunInfo(state="done"))
    assert next_folder(tmp_path, "set-fast-ensemble").name == "set-fast-ensemble-3"
    (tmp_path / "set-fast-ensemble-4" / ensemble.MEMBERS).mkdir(parents=True)
    assert next_folder(tmp_path, "set-fast-ensemble").name == "set-fast-ensemble-4"
