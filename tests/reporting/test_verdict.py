"""The verdict: sentences that follow from the figures."""

from __future__ import annotations

import numpy as np

from builders_run import make_run
from tinylens.reporting.contents import Contents
from tinylens.reporting.verdict import reach_verdict
from tinylens.results import Calibration

NAMES = ("cat", "dog", "owl")


def findings(path, counts, confidence, **changes):
    """The verdict, by section title, on a test part of which `counts` tells the confusion."""
    labels = np.concatenate([np.repeat(row, sum(cells)) for row, cells in enumerate(counts)])
    answers = np.concatenate([np.repeat([0, 1, 2], cells) for cells in counts])
    rest = (1 - confidence) / 2
    probabilities = np.where(answers[:, None] == np.arange(3), confidence, rest)
    test = probabilities.astype(np.float32), labels
    sure = np.eye(3, dtype=np.float32)[labels], labels
    run = make_run(path, class_names=NAMES, parts={"train": sure, "test": test}, **changes)
    return {finding.title: finding for finding in reach_verdict(Contents.read(run))}


MIXED = ([900, 100, 0], [50, 950, 0], [0, 10, 990])


def test_the_pair_that_is_mixed_up_and_the_weakest_class_are_named(tmp_path):
    found = findings(tmp_path / "run", MIXED, 0.9467)
    weakness, advice = found["What it mixes up"], found["Where to look first"]
    assert "cat and dog: 150 of its 160 mistakes" in weakness.words
    assert "recognises worst is cat" in weakness.words
    assert weakness.figure == "90.0 % of cat recognised (88.0–91.7)"
    assert "Look at cat and dog first: mend wrong labels" in advice.words
    assert advice.figure == "that pair is 93.8 % of all mistakes"


def test_a_confidence_is_believed_for_its_calibration_error_alone(tmp_path):
    title = "Whether to believe it"
    assert "can be believed" in findings(tmp_path / "a", MIXED, 0.9467)[title].words
    roughly = findings(tmp_path / "b", MIXED, 0.98)[title]
    assert "roughly right, rather too sure: on average it says 98.0 %" in roughly.words
    modest = findings(tmp_path / "c", MIXED, 0.7)[title]
    assert "cannot be believed, it is too modest" in modest.words
    assert modest.figure.startswith("confidence and accuracy 24.7 points apart")


def test_a_network_that_always_answers_one_class_is_not_recommended(tmp_path):
    found = findings(tmp_path / "run", ([100, 0, 0], [20, 0, 0], [20, 0, 0]), 0.7)
    advice = found["What to do next"]
    assert "Do not use it yet. Always answering cat" in advice.words
    assert advice.figure == "cat is 71.4 % of test"


def test_a_perfect_network_has_nothing_to_mend(tmp_path):
    found = findings(tmp_path / "run", ([50, 0, 0], [0, 50, 0], [0, 0, 50]), 1.0)
    assert list(found) == ["Whether to believe it"]


def test_what_can_be_held_back_is_told_with_its_errors(tmp_path):
    from tinylens.results import LevelScores, Score

    level = LevelScores(0.02, 0.8, Score(0.85, (0.8, 0.9)), Score(0.015, (0.01, 0.02)))
    run = make_run(tmp_path / "run")
    evaluation = run.evaluation
    calibration = Calibration(1.0, "val", levels=(level,))
    run.write_evaluation(type(evaluation)(evaluation.splits, evaluation.gap, calibration))
    advice = reach_verdict(Contents.read(run))[-1]
    assert "predict with --max-error 2%" in advice.words
    assert advice.figure == "it then answers 85.0 %, 1.5 % of them wrong"
