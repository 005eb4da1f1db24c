"""The gap in parts: they add up, and they are what the images say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders_gap import audit_of, confusion_of, evaluation_of, predictions_of
from tinylens.evaluation.diagnosis import DOUBTED, OTHER_MIX, take_apart
from tinylens.results import Evaluation

COUNT = st.integers(0, 40)


def total(found):
    return sum(part.size.value for part in found.parts)


@settings(max_examples=40)
@given(*[st.lists(st.lists(COUNT, min_size=3, max_size=3), min_size=3, max_size=3)] * 2)
def test_the_parts_of_every_sum_add_up_to_it(train, test):
    train[0][0] += 1
    test[0][0] += 1
    found = take_apart(evaluation_of(train, test))
    error = 1 - np.trace(test) / np.sum(test)
    gap = error - (1 - np.trace(train) / np.sum(train))
    assert found.test_error.whole.value == pytest.approx(error)
    assert total(found.test_error) == pytest.approx(error)
    assert found.gap.whole.value == pytest.approx(gap)
    assert total(found.gap) == pytest.approx(gap, abs=1e-12)
    for part in found.gap.parts:
        assert part.size.ci95[0] <= part.size.value + 1e-12
        assert part.size.value <= part.size.ci95[1] + 1e-12


def test_what_was_never_learnt_and_the_gap_make_the_error_on_test():
    found = take_apart(evaluation_of([[950, 50], [10, 990]], [[400, 100], [20, 480]]))
    unlearnt, to_test = found.test_error.parts
    assert (unlearnt.size.value, to_test.size.value) == pytest.approx((0.03, 0.09))
    assert unlearnt.size.ci95 == pytest.approx((0.0234, 0.0384), abs=1e-4)  # Wilson's, of 2,000
    assert unlearnt.share.value == pytest.approx(0.25)
    low, high = unlearnt.share.ci95
    assert 0.16 < low < 0.22
    assert 0.28 < high < 0.35


def test_each_class_carries_its_share_of_the_gap():
    found = take_apart(evaluation_of([[950, 50], [10, 990]], [[400, 100], [20, 480]]))
    cat, dog, mix = found.gap.parts
    assert (cat.name, dog.name, mix.name) == ("cat", "dog", OTHER_MIX)
    assert cat.size.value == pytest.approx(0.5 * (0.95 - 0.80))
    assert dog.size.value == pytest.approx(0.5 * (0.99 - 0.96))
    assert mix.size.value == pytest.approx(0)
    assert cat.share.value == pytest.approx(0.075 / 0.09)
    low, high = cat.share.ci95
    assert 0.70 < low < cat.share.value < high < 0.95


def test_other_shares_of_the_classes_are_a_part_of_their_own():
    """Nothing is overfitted: test only has more of the class that is hard on train, too."""
    found = take_apart(evaluation_of([[50, 50], [0, 900]], [[250, 250], [0, 500]]))
    cat, dog, mix = (part.size.value for part in found.gap.parts)
    assert (cat, dog) == pytest.approx((0, 0))
    assert mix == pytest.approx(0.4 * 0.5)
    assert found.gap.whole.value == pytest.approx(0.2)


def test_a_class_that_is_not_in_train_or_not_in_test_does_no_harm():
    found = take_apart(evaluation_of([[90, 10], [0, 0]], [[80, 10], [10, 0]]))
    cat, dog, mix = (part.size.value for part in found.gap.parts)
    assert dog == pytest.approx(0.1)
    assert cat + dog + mix == pytest.approx(0.1)
    found = take_apart(evaluation_of([[90, 0], [10, 100]], [[80, 20], [0, 0]]))
    assert found.gap.parts[1].size.value == 0
    assert total(found.gap) == pytest.approx(found.gap.whole.value)


def test_a_gap_that_may_be_none_has_no_shares():
    found = take_apart(evaluation_of([[95, 5], [5, 95]], [[94, 6], [5, 95]]))
    assert all(part.share.value is None for part in found.gap.parts)


def test_mistakes_on_doubted_labels_are_told_apart_on_both_parts():
    labels = [0] * 50 + [1] * 50
    train, test = list(labels), list(labels)
    train[:2] = [1, 1]
    test[:10] = [1] * 10
    issues = [("train", 0), ("train", 99), *(("test", row) for row in range(4)), ("test", 60)]
    evaluation = evaluation_of(confusion_of(train, labels), confusion_of(test, labels))
    predictions = predictions_of(train=(train, labels), test=(test, labels))
    found = take_apart(evaluation, predictions, audit_of(issues=issues))
    assert [part.size.value for part in found.test_labels.parts] == pytest.approx([0.04, 0.06])
    assert [part.size.value for part in found.train_labels.parts] == pytest.approx([0.01, 0.01])
    assert [part.size.value for part in found.gap_labels.parts] == pytest.approx([0.03, 0.05])
    for each in (found.test_labels, found.train_labels, found.gap_labels):
        assert total(each) == pytest.approx(each.whole.value)
        assert each.parts[0].name == DOUBTED
    assert found.test_labels.parts[0].share.value == pytest.approx(0.4)
    only_test = take_apart(evaluation, predictions, audit_of(issues=issues, doubted=("test",)))
    assert only_test.train_labels is None
    assert only_test.gap_labels is None
    assert only_test.test_labels == found.test_labels


def test_labels_are_found_by_the_rows_that_were_judged():
    """Train may be judged on some of its images only: row 7 of it is the second one here."""
    predictions = predictions_of(train=([1, 1], [0, 0]), test=([0, 1], [0, 1]))
    predictions["train_indices"] = np.array([3, 7])
    evaluation = evaluation_of([[0, 2], [0, 0]], [[1, 0], [0, 1]])
    found = take_apart(evaluation, predictions, audit_of(issues=[("train", 7), ("train", 1)]))
    assert [part.size.value for part in found.train_labels.parts] == [0.5, 0.5]


def test_leaks_lift_the_accuracy_by_what_it_loses_without_them():
    labels = [0] * 100
    answers = [0] * 20 + [1] * 20 + [0] * 60  # the first 20 leaked, and are right
    evaluation = evaluation_of([[100, 0], [0, 1]], confusion_of(answers, labels))
    predictions = predictions_of(train=([0], [0]), test=(answers, labels))
    twins = [(row, row) for row in range(20)]
    leaks = take_apart(evaluation, predictions, audit_of(twins=twins)).leaks
    assert leaks.images == 20
    assert leaks.without.value == pytest.approx(0.75)
    assert leaks.lift.value == pytest.approx(0.80 - 0.75)
    assert 0 < leaks.lift.ci95[0] < 0.05 < leaks.lift.ci95[1]
    none = take_apart(evaluation, predictions, audit_of()).leaks
    assert (none.images, none.lift.value) == (0, 0.0)


def test_without_train_or_test_there_is_nothing_to_take_apart():
    whole = evaluation_of([[1, 0], [0, 1]], [[1, 0], [0, 1]])
    assert take_apart(Evaluation({"test": whole.splits["test"]}, None, whole.calibration)) is None
