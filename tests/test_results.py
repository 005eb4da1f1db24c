"""The figures survive JSON, and print as a table."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import builds

from tinylens.results import (
    OVERALL_FIGURES,
    Calibration,
    ClassScores,
    Evaluation,
    Gap,
    LevelScores,
    OodScores,
    Score,
    SetScores,
    SplitScores,
)

FIGURE = st.floats(allow_nan=False, allow_infinity=False)
PAIR = st.tuples(FIGURE, FIGURE)
SCORE = st.just(Score(None, None)) | builds(Score, FIGURE, PAIR)
CLASS = builds(ClassScores, st.text(), SCORE, SCORE, SCORE, st.integers(0))
SPLIT = builds(
    SplitScores,
    n=st.integers(1),
    **dict.fromkeys(OVERALL_FIGURES, SCORE),
    per_class=st.lists(CLASS, max_size=3).map(tuple),
    confusion=st.lists(st.lists(st.integers(0), max_size=3).map(tuple), max_size=3).map(tuple),
)
EVALUATION = builds(
    Evaluation,
    splits=st.dictionaries(st.sampled_from(["train", "val", "test"]), SPLIT),
    gap=st.none() | builds(Gap, FIGURE, PAIR, st.text()),
    calibration=builds(
        Calibration,
        FIGURE,
        st.sampled_from(["val", "none"]),
        st.none() | FIGURE,
        *[st.none()] * 5,
        st.lists(st.builds(LevelScores, FIGURE, FIGURE, SCORE, SCORE), max_size=2).map(tuple),
        st.lists(st.builds(SetScores, FIGURE, FIGURE, SCORE, SCORE, FIGURE), max_size=2).map(tuple),
        curvature=FIGURE,
    ),
    ood=st.lists(
        st.builds(OodScores, st.text(), st.integers(0), SCORE, SCORE, FIGURE), max_size=2
    ).map(tuple),
)
HALF = Score(0.5, (0.25, 0.75))


def split(*classes):
    return SplitScores(
        n=8, **dict.fromkeys(OVERALL_FIGURES, HALF), per_class=classes, confusion=((4, 0), (4, 0))
    )


@settings(max_examples=30)
@given(EVALUATION)
def test_json_round_trip(evaluation):
    text = json.dumps(evaluation.to_json(), allow_nan=False)
    assert Evaluation.from_json(json.loads(text)) == evaluation


def test_json_has_the_keys_of_the_contract():
    row = ClassScores("cat", HALF, HALF, HALF, support=4)
    tree = Evaluation({"test": split(row)}, None, Calibration(1.0, "none")).to_json()
    assert tree.keys() == {"splits", "gap", "calibration", "ood"}
    part = tree["splits"]["test"]
    assert part.keys() == {"n", *OVERALL_FIGURES, "per_class", "confusion"}
    assert part["accuracy"] == {"value": 0.5, "ci95": [0.25, 0.75]}
    assert part["per_class"][0].keys() == {"name", "precision", "recall", "f1", "support"}


def test_a_key_that_is_missing_or_unknown_is_refused_by_its_name():
    tree = Evaluation({"test": split()}, None, Calibration(1.0, "none")).to_json()
    with pytest.raises(ValueError, match="hue"):
        Evaluation.from_json(tree | {"hue": 1})
    del tree["splits"]["test"]["brier"]
    with pytest.raises(ValueError, match="brier"):
        Evaluation.from_json(tree)


def test_a_score_prints_with_its_interval_or_says_that_it_has_none():
    assert str(HALF) == "0.5000 (0.2500–0.7500)"
    assert str(Score(None, None)) == "not defined"


def test_printing_gives_the_parts_side_by_side_then_the_classes_then_the_gap():
    row = ClassScores("cat", HALF, HALF, Score(None, None), support=4)
    gap = Gap(0.1, (0.0, 0.2), "About 10 points worse on new images.")
    splits = {"train": split(), "test": split(row)}
    lines = str(Evaluation(splits, gap, Calibration(1.0, "none"))).splitlines()
    assert lines[0].split() == ["train", "test"]
    assert lines[1].split() == ["images", "8", "8"]
    assert lines[2] == "accuracy            0.5000 (0.2500–0.7500)  0.5000 (0.2500–0.7500)"
    assert lines[-3].split() == [
        "cat", "0.5000", "(0.2500–0.7500)", "0.5000", "(0.2500–0.7500)", "not", "defined", "4",
    ]  # fmt: skip
    assert lines[-1] == gap.words


def test_without_a_test_part_no_classes_are_printed():
    text = str(Evaluation({"train": split()}, None, Calibration(1.0, "none")))
    assert "class (test)" not in text
    assert not text.endswith("\n")
