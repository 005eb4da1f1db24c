import numpy as np
import pytest

from tinylens.gap import measure_gap
from tinylens.results import OVERALL_FIGURES, ClassScores, Score, SplitScores


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
        "Overfitting is the larger part of the test error (5.0 of 7.6 points): more pictures, "
        "augmentation or regularisation have the most to win. "
        "Every choice was made on val, so its own 0.930 may read high; "
        "test was used for nothing but its own figures."
    )


def test_a_gap_that_may_be_none_is_not_called_overfitting():
    words = measure_gap(part(925, 1000), part(921, 1000)).words
    assert words.startswith(
        "Train 0.925, test 0.921: the gap is 0.4 points (−2.0 to 2.8), "
        "which 1,000 test pictures cannot tell from none. "
        "On new images like the test set expect 92.1 % right (90.3 to 93.6); "
        "no overfitting can be seen."
    )
    assert "overstates" not in words
    assert "Overfitting is" not in words


def test_too_few_pictures_blame_nothing():
    words = measure_gap(part(1000, 1000), part(38, 40)).words
    assert "cannot tell from none" not in words  # 1,000 of 1,000 against 38 of 40 is a gap
    words = measure_gap(part(30, 30), part(29, 30)).words
    assert words.endswith("no overfitting can be seen.")


def test_a_small_gap_beside_many_mistakes_on_train_is_underfitting():
    words = measure_gap(part(31_000, 50_000), part(6000, 10_000)).words
    assert "the gap is 2.0 points (1.0 to 3.1)." in words
    assert (
        "Most of the test error (38.0 of 40.0 points) is there on train, too, which is underfitting"
    ) in words


def test_a_network_without_a_mistake_on_train_is_told_so():
    words = measure_gap(part(5000, 5000), part(900, 1000)).words
    assert "it makes no mistake on them and 10.0 % on new ones." in words
    assert "Overfitting is all of the test error (10.0 of 10.0 points)" in words


def test_a_test_part_that_is_easier_than_train_is_not_praised():
    gap = measure_gap(part(45_000, 50_000), part(9240, 10_000))
    assert gap.value == pytest.approx(-0.024)
    assert gap.words.startswith(
        "Train 0.900, test 0.924: test is better by 2.4 points (1.8 to 3.0)"
    )
    assert "the test pictures are easier than the train pictures" in gap.words
    assert "overfitting" not in gap.words.lower()


@pytest.mark.parametrize(("train", "test"), [(100, 100), (90, 105)])
def test_a_network_no_better_than_one_constant_answer_is_named(train, test):
    words = measure_gap(part(train, 1000), part(test, 1000)).words
    assert "Always answering “class 0” would be right on 10.0 % of test" in words
    assert "underfitting" not in words


def test_a_perfect_run_gets_no_advice():
    words = measure_gap(part(1000, 1000), part(1000, 1000)).words
    assert words == (
        "Train 1.000, test 1.000: the gap is 0.0 points (−0.4 to 0.4), which 1,000 test pictures "
        "cannot tell from none. On new images like the test set expect 100.0 % right "
        "(99.6 to 100.0); no overfitting can be seen."
    )


def test_without_a_val_part_nothing_is_said_about_choices():
    assert "Every choice" not in measure_gap(part(95, 100), part(90, 100)).words
