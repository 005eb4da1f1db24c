"""Diagnosis: the gap in words, findings, and advice of which none contradicts another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builders_curve import curve_of
from builders_gap import audit_of, confusion_of, evaluation_of, predictions_of
from builders_run import make_run
from tinylens.evaluation.diagnosis import advise, diagnose, measure_gap, summarize, take_apart
from tinylens.reporting.contents import Contents
from tinylens.results import (
    OVERALL_FIGURES,
    Calibration,
    ClassScores,
    Evaluation,
    LearningCurve,
    LevelScores,
    Score,
    SplitScores,
)
from tinylens.run import Run

# --- advice

OVERFITTED = (
    [[990, 0, 10], [0, 995, 5], [5, 0, 995]],
    [[400, 50, 50], [10, 480, 10], [5, 5, 490]],
)


def words_of(train, test, curve=None):
    evaluation = evaluation_of(train, test)
    return [each.words for each in advise(evaluation, take_apart(evaluation), curve)]


def test_a_gap_asks_for_regularising_and_for_images_of_the_class_that_carries_it():
    assert words_of(*OVERFITTED) == [
        "Augment or regularise more, or collect more images: the gap from train to test is "
        "8.0 (6.6 to 9.5) points, 92 % of the error on test. See what more would give: "
        "tinylens learning-curve RUN.",
        "Collect more images of “cat”: it carries 79 % (72 to 87) of the gap, 6.3 of 8.0 points, "
        "with 33 % of the images.",
        "Look at “cat” and “dog” side by side, and mend wrong labels: they are taken for each "
        "other in 60 of 130 mistakes, 4.0 of 8.7 points.",
    ]


def test_a_learning_curve_says_what_more_images_would_give():
    words = words_of(*OVERFITTED, curve_of(0.007, 0.015))
    assert words[0].startswith("Augment or regularise more: the gap")
    assert words[1].startswith("Look at “cat” and “dog” side by side")
    assert words[2] == (
        "Collect more images: twice as many would give +1.1 ± 0.4 points, by the learning curve "
        "of recipe fast on val."
    )
    assert words[3].startswith("Collect more images of “cat”: it carries 79 %")


def test_where_more_images_give_little_none_are_asked_for():
    words = words_of(*OVERFITTED, curve_of(0.001, 0.0026))
    assert len(words) == 3
    assert words[2] == (
        "Do not collect more images of the same kind: twice as many would give 0.2 ± 0.1 points, "
        "by the learning curve of recipe fast on val."
    )
    assert not any(each.startswith("Collect") or "or collect" in each for each in words)


def test_a_curve_that_says_nothing_gives_no_advice():
    silent = LearningCurve("fast", 6_000, (), (), Score(None, None), "It cannot be told.")
    assert not any("twice as many" in each for each in words_of(*OVERFITTED, silent))


def test_what_train_itself_gets_wrong_asks_for_more_learning_and_never_for_regularising():
    [words] = words_of([[800, 200], [200, 800]], [[395, 105], [103, 397]])
    assert words == (
        "Train longer or take a larger network: on train itself only 80.0 % are right. "
        "20.0 points are wrong there, of 20.8 on test."
    )


def test_a_gap_within_chance_asks_for_nothing():
    assert words_of([[999, 1], [1, 999]], [[249, 1], [0, 250]]) == [
        "Nothing to mend in the gap: 0.1 (−0.2 to 1.0) points are within chance, and 0.1 % of "
        "train are wrong."
    ]


def test_a_test_part_that_is_easier_asks_for_nothing():
    [words] = words_of([[996, 4], [5, 995]], [[5000, 0], [0, 5000]])
    assert words == "Nothing to mend in the gap: test is better than train by 0.4 points."


def test_a_network_that_learnt_nothing_is_told_only_that():
    [words] = words_of([[900, 100], [900, 100]], [[250, 250], [250, 250]])
    assert words == (
        "Find out why nothing was learnt: 50.0 % of test are right, and always answering “cat” "
        "would be right on 50.0 %. Look whether the loss falls, and whether images and labels "
        "belong together."
    )


def test_doubted_labels_and_leaks_are_told_with_their_figures():
    labels = [0] * 500 + [1] * 500
    train, test = list(labels), list(labels)
    test[:60] = [1] * 60
    train[:10] = [1] * 10
    issues = [*(("test", row) for row in range(40)), *(("train", row) for row in range(8))]
    audit = audit_of(issues=issues, twins=[(row, row) for row in range(600, 900)])
    evaluation = evaluation_of(confusion_of(train, labels), confusion_of(test, labels))
    predictions = predictions_of(train=(train, labels), test=(test, labels))
    found = advise(evaluation, take_apart(evaluation, predictions, audit))
    words = [each.words for each in found]
    assert [each.size for each in found] == sorted((each.size for each in found), reverse=True)
    assert len(found) == 4
    assert words[2] == (
        "Go through the doubted labels in audit.html: 4.0 (3.0 to 5.4) of 6.0 points of the error "
        "on test sit on them, and 0.8 of 1.0 on train."
    )
    assert words[3] == (
        "Take the 300 leaked images out of test: the accuracy reads 2.6 (1.9 to 3.3) points "
        "higher for them, and is 91.4 % without."
    )


@pytest.mark.parametrize("seed", range(5))
def test_at_most_four_and_never_two_that_contradict(seed):
    random = np.random.default_rng(seed)
    for _ in range(20):
        train, test = (random.integers(0, 200, (4, 4)) + 600 * np.eye(4, dtype=int) for _ in "ab")
        words = words_of(train, test, curve_of(*np.sort(random.uniform(0, 0.01, 2))))
        assert 1 <= len(words) <= 4
        starts = " ".join(words)
        assert not ("Augment" in starts and "Train longer" in starts)
        assert not ("Do not collect" in starts and "Collect more" in starts)
        assert ("Nothing" in starts) <= (len(words) == 1)


def test_a_run_explains_itself_with_what_lies_in_its_folder(tmp_path):
    run = make_run(tmp_path / "run")
    explained = diagnose(run)
    assert explained.parts == take_apart(run.evaluation)
    assert explained.advice == advise(run.evaluation, explained.parts)
    run.write_learning_curve(curve_of(0.01, 0.03))
    assert any("twice as many would give +2.0 ± 1.0" in each.words for each in diagnose(run).advice)


# --- the gap in words


def part(right, n, *, classes=10):
    """The figures of a part in which `right` of `n` were answered right, classes equally often."""
    unknown = Score(None, None)
    confusion = np.zeros((classes, classes), np.int64)
    for number in range(n):
        label = number % classes
        confusion[label, label if number < right else (label + 1) % classes] += 1
    names = (f"class {label}" for label in range(classes))
    figures = dict.fromkeys(OVERALL_FIGURES, unknown)
    return SplitScores(
        n=n,
        per_class=tuple(
            ClassScores(name, unknown, unknown, unknown, int(support))
            for name, support in zip(names, confusion.sum(axis=1), strict=True)
        ),
        confusion=tuple(map(tuple, confusion.tolist())),
        **figures,
    )


def test_overfitting_is_measured_and_explained():
    gap = measure_gap(part(52_596, 54_000), part(9240, 10_000), part(5580, 6000))
    assert gap.value == pytest.approx(0.05)
    assert gap.ci95 == pytest.approx((0.0447, 0.0555), abs=1e-4)
    assert gap.words == (
        "Train 0.974, test 0.924: the gap is 5.0 points (4.5 to 5.6). "
        "On new images like the test set expect 92.4 % right (91.9 to 92.9); the train figure "
        "overstates it because the network has seen those images: it makes 2.9 times as many "
        "mistakes on new ones (7.6 % against 2.6 %). "
        "Every choice was made on val, so its own 0.930 may read high; "
        "test was used for nothing but its own figures."
    )


def test_a_gap_that_may_be_none_is_not_called_overfitting():
    words = measure_gap(part(925, 1000), part(921, 1000)).words
    assert words.startswith(
        "Train 0.925, test 0.921: the gap is 0.4 points (−2.0 to 2.8), "
        "which 1,000 test images cannot tell from none. "
        "On new images like the test set expect 92.1 % right (90.3 to 93.6); "
        "no overfitting can be seen."
    )
    assert "overstates" not in words


def test_too_few_images_blame_nothing():
    words = measure_gap(part(1000, 1000), part(38, 40)).words
    assert "cannot tell from none" not in words  # 1,000 of 1,000 against 38 of 40 is a gap
    words = measure_gap(part(30, 30), part(29, 30)).words
    assert words.endswith("no overfitting can be seen.")


def test_a_network_without_a_mistake_on_train_is_told_so():
    words = measure_gap(part(5000, 5000), part(900, 1000)).words
    assert "it makes no mistake on them and 10.0 % on new ones." in words


def test_a_test_part_that_is_easier_than_train_is_not_praised():
    gap = measure_gap(part(45_000, 50_000), part(9240, 10_000))
    assert gap.value == pytest.approx(-0.024)
    assert gap.words.startswith(
        "Train 0.900, test 0.924: test is better by 2.4 points (1.8 to 3.0)"
    )
    assert "the test images are easier than the train images" in gap.words
    assert "overfitting" not in gap.words.lower()


@pytest.mark.parametrize("right", [100, 105])
def test_a_network_no_better_than_one_constant_answer_is_named(right):
    evaluation = Evaluation({"test": part(right, 1000)}, None, Calibration(1.0, "none"))
    [advice] = advise(evaluation, None)
    assert "always answering “class 0” would be right on 10.0 %" in advice.words


def test_a_perfect_run_is_told_what_it_may_be_on_new_images():
    words = measure_gap(part(1000, 1000), part(1000, 1000)).words
    assert words == (
        "Train 1.000, test 1.000: the gap is 0.0 points (−0.4 to 0.4), which 1,000 test images "
        "cannot tell from none. On new images like the test set expect 100.0 % right "
        "(99.6 to 100.0); no overfitting can be seen."
    )


def test_without_a_val_part_nothing_is_said_about_choices():
    assert "Every choice" not in measure_gap(part(95, 100), part(90, 100)).words


# --- findings

NAMES = ("cat", "dog", "owl")


def findings(path, counts, confidence, **changes):
    """The verdict, by section title, on a test split of which `counts` tells the confusion."""
    labels = np.concatenate([np.repeat(row, sum(cells)) for row, cells in enumerate(counts)])
    answers = np.concatenate([np.repeat([0, 1, 2], cells) for cells in counts])
    rest = (1 - confidence) / 2
    probabilities = np.where(answers[:, None] == np.arange(3), confidence, rest)
    test = probabilities.astype(np.float32), labels
    sure = np.eye(3, dtype=np.float32)[labels], labels
    run = make_run(path, class_names=NAMES, parts={"train": sure, "test": test}, **changes)
    return {finding.title: finding for finding in Contents.read(run).findings}


MIXED = ([900, 100, 0], [50, 950, 0], [0, 10, 990])


def test_the_pair_that_is_mixed_up_and_the_weakest_class_are_named(tmp_path):
    found = findings(tmp_path / "run", MIXED, 0.9467)
    weakness = found["What it mixes up"]
    assert "cat and dog: 150 of its 160 mistakes" in weakness.words
    assert "recognises worst is cat" in weakness.words
    assert weakness.figure == "90.0 % of cat recognised (88.0–91.7)"


def test_what_to_do_first_is_the_first_advice(tmp_path):
    first = findings(tmp_path / "run", MIXED, 0.9467)["What to do first"]
    assert first.words == Contents.read(Run(tmp_path / "run")).advice[0].words
    assert first.figure == "about 5.3 points of accuracy"


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
    assert "always answering “cat” would be right on 71.4 %" in found["What to do first"].words


def test_a_perfect_network_has_nothing_to_mend(tmp_path):
    found = findings(tmp_path / "run", ([50, 0, 0], [0, 50, 0], [0, 0, 50]), 1.0)
    assert list(found) == ["Whether to believe it", "What to do first"]
    assert found["What to do first"].words.startswith("Nothing to mend in the gap")


def test_what_can_be_held_back_is_told_with_its_errors(tmp_path):
    level = LevelScores(0.02, 0.8, Score(0.85, (0.8, 0.9)), Score(0.015, (0.01, 0.02)))
    contents = Contents.read(make_run(tmp_path / "run"))
    calibration = Calibration(1.0, "val", levels=(level,))
    evaluation = replace(contents.evaluation, calibration=calibration)
    words = " ".join(each.words for each in summarize(evaluation, contents.probabilities, ()))
    assert "predict with --max-error 2%: it then answers 85.0 % of test, 1.5 % of them" in words
