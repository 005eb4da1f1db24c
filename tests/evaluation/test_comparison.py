"""Comparing runs: the verdicts are right as often as they claim, and unlike runs are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tinylens.errors import RunError
from tinylens.evaluation import compare as comparison
from tinylens.evaluation.compare import compare, holm, mcnemar, paired_difference
from tinylens.run import Run, RunInfo

NAMES = ("cat", "dog", "hen")


def run(folder, right, seed=0, sha256="a", names=NAMES):
    """A finished run that answers the given images right, of labels that repeat 0, 1, 2."""
    labels = np.arange(len(right)) % 3
    answers = np.where(right, labels, (labels + 1) % 3)
    probabilities = np.full((len(right), 3), 0.1, np.float32)
    probabilities[np.arange(len(right)), answers] = 0.8
    order = np.random.default_rng(seed).permutation(len(right))  # a run may keep any order
    made = Run(folder)
    made.write_predictions(
        {
            "test_probabilities": probabilities[order],
            "test_labels": labels[order],
            "test_indices": order,
        }
    )
    splits = {"test": {"size": len(right), "sha256": sha256}}
    made.write_info(RunInfo(state="done", class_names=list(names), splits=splits, dataset="pets"))
    return made


def two(tmp_path, first, second, **options):
    return run(tmp_path / "a", np.array(first), 1), run(tmp_path / "b", np.array(second), **options)


# --- the tests of chance


def test_mcnemar_is_half_way_between_the_exact_tails():
    exact = scipy.stats.binomtest(3, 15).pvalue
    next_one = scipy.stats.binomtest(2, 15).pvalue
    assert mcnemar(3, 12) == pytest.approx((exact + next_one) / 2)
    assert mcnemar(12, 3) == mcnemar(3, 12)


@given(st.integers(0, 300), st.integers(0, 300))
def test_p_values_are_probabilities_and_even_splits_are_chance(only_first, only_second):
    value = mcnemar(only_first, only_second)
    assert 0 < value <= 1
    assert mcnemar(only_first, only_first) > 0.9


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_raises_p_values_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert all(after >= before for after, before in zip(adjusted, p_values, strict=True))
    assert adjusted[int(np.argmin(p_values))] == min(len(p_values) * min(p_values), 1)
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_paired_intervals_cover_the_true_difference():
    random = np.random.default_rng(0)
    covered = 0
    for only_first, only_second, *_ in random.multinomial(200, [0.04, 0.08, 0.88], size=2_000):
        low, high = paired_difference(int(only_first), int(only_second), 200).ci95
        covered += low <= 0.04 <= high
    assert 0.935 <= covered / 2_000 <= 0.975


def test_two_networks_that_are_alike_are_called_so_19_times_of_20(tmp_path):
    random = np.random.default_rng(1)
    called_better = 0
    for _ in range(300):
        right = random.random((2, 1_000)) < 0.9
        first, second = (each.astype(np.int64) for each in right)
        labels = np.ones(1_000, np.int64)
        pair = comparison._pair(
            ("a", "b"),
            tuple(np.stack([1.0 - each, each], axis=1) for each in (first, second)),
            labels,
            ("wrong", "right"),
        )
        called_better += pair.better is not None
    assert called_better <= 0.08 * 300


# --- runs


def test_a_better_run_is_named_with_its_lead(tmp_path):
    first = np.arange(1_200) % 10 != 0  # 90 %
    second = first | (np.arange(1_200) % 20 == 0)  # 95 %, right wherever the first is
    found = compare(two(tmp_path, first, second))
    (pair,) = found.pairs
    assert found.accuracies == (0.9, 0.95)
    assert pair.better == "b"
    assert pair.accuracy.value == pytest.approx(0.05)
    assert pair.accuracy.ci95 == pytest.approx((0.0375, 0.0625), abs=0.003)
    assert pair.p_value < 1e-15
    assert pair.only_first == () and pair.only_second == tuple(range(0, 1_200, 20))
    assert pair.both_wrong == 60
    assert pair.f1_macro.value == pytest.approx(0.05, abs=0.005)
    assert pair.log_loss.value < 0
    assert pair.words.startswith("b is better than a by 5.0 points of accuracy (3.")
    assert pair.words.endswith("on 1,200 test images")
    assert compare(two(tmp_path, second, first)).pairs[0].words.startswith("a is better than b by")


def test_runs_that_differ_by_chance_are_not_told_apart(tmp_path):
    random = np.random.default_rng(0)
    first, second = random.random((2, 600)) < 0.9
    (pair,) = compare(two(tmp_path, first, second)).pairs
    assert pair.better is None
    assert pair.words.startswith("no difference that 600 images can show: accuracy of b minus a")
    json.dumps(compare(two(tmp_path, first, second)).to_json())


def test_classes_are_compared_each_by_itself(tmp_path):
    labels = np.arange(900) % 3
    first = np.ones(900, bool)
    second = ~((labels == 1) & (np.arange(900) % 6 == 1))  # half of the dogs
    (pair,) = compare(two(tmp_path, first, second)).pairs
    assert [each.name for each in pair.classes] == list(NAMES)
    assert [each.recall.value for each in pair.classes] == [0, -0.5, 0]
    assert [each.support for each in pair.classes] == [300, 300, 300]
    assert pair.classes[1].p_value < 1e-9 and pair.classes[0].p_value == 1


def test_of_three_runs_each_two_are_compared_and_chance_shared(tmp_path):
    random = np.random.default_rng(0)
    runs = [run(tmp_path / name, random.random(300) < 0.9) for name in "abc"]
    found = compare(runs)
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    alone = [compare([runs[0], runs[1]]), compare([runs[0], runs[2]]), compare(runs[1:])]
    raw = [each.pairs[0].p_value for each in alone]
    assert [pair.p_value for pair in found.pairs] == holm(raw)


def test_runs_of_other_images_or_classes_or_one_run_alone_are_refused(tmp_path):
    right = np.ones(6, bool)
    with pytest.raises(RunError, match="they are not the same ones; expected one test split"):
        compare(two(tmp_path, right, right, sha256="b"))
    with pytest.raises(RunError, match="not the same ones"):
        compare(two(tmp_path, right, right, names=("cat", "dog", "cow")))
    with pytest.raises(RunError, match="1 run given, expected two or more"):
        compare([Run(tmp_path / "a")])
    with pytest.raises(RunError, match="was given twice"):
        compare([Run(tmp_path / "a"), Run(tmp_path / "a")])


def test_two_folders_of_one_name_are_told_apart_by_their_paths(tmp_path):
    right = np.ones(6, bool)
    found = compare([run(tmp_path / "x" / "a", right), run(tmp_path / "y" / "a", right)])
    assert found.runs == (str(tmp_path / "x" / "a"), str(tmp_path / "y" / "a"))
