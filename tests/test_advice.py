"""Advice: each with its figure, the most to win first, none against another."""

from __future__ import annotations

import numpy as np
import pytest

from builders_curve import curve_of
from builders_gap import audit_of, confusion_of, evaluation_of, predictions_of
from builders_run import make_run
from tinylens.advice import advise, explain
from tinylens.gap_parts import take_apart
from tinylens.results import LearningCurve, Score

OVERFITTED = (
    [[990, 0, 10], [0, 995, 5], [5, 0, 995]],
    [[400, 50, 50], [10, 480, 10], [5, 5, 490]],
)


def words_of(train, test, curve=None):
    evaluation = evaluation_of(train, test)
    return [each.words for each in advise(evaluation, take_apart(evaluation), curve)]


def test_a_gap_asks_for_regularising_and_for_pictures_of_the_class_that_carries_it():
    assert words_of(*OVERFITTED) == [
        "Augment or regularise more, or collect more pictures: the gap from train to test is "
        "8.0 (6.6 to 9.5) points, 92 % of the error on test. See what more would give: "
        "tinylens learning-curve RUN.",
        "Collect more pictures of “cat”: it carries 79 % (72 to 87) of the gap, 6.3 of 8.0 points, "
        "with 33 % of the pictures.",
    ]


def test_a_learning_curve_says_what_more_pictures_would_give():
    words = words_of(*OVERFITTED, curve_of(0.007, 0.015))
    assert words[0].startswith("Augment or regularise more: the gap")
    assert words[1] == (
        "Collect more pictures: twice as many would give +1.1 ± 0.4 points, by the learning curve "
        "of recipe fast on val."
    )
    assert words[2].startswith("Collect more pictures of “cat”: it carries 79 %")


def test_where_more_pictures_give_little_none_are_asked_for():
    words = words_of(*OVERFITTED, curve_of(0.001, 0.0026))
    assert len(words) == 2
    assert words[1] == (
        "Do not collect more pictures of the same kind: twice as many would give 0.2 ± 0.1 points, "
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
        "would be right on 50.0 %. Look whether the loss falls, and whether pictures and labels "
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
        "Take the 300 leaked pictures out of test: the accuracy reads 2.6 (1.9 to 3.3) points "
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
    explained = explain(run)
    assert explained.parts == take_apart(run.evaluation)
    assert explained.advice == advise(run.evaluation, explained.parts)
    run.write_learning_curve(curve_of(0.01, 0.03))
    assert any("twice as many would give +2.0 ± 1.0" in each.words for each in explain(run).advice)
