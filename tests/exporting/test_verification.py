"""The scorecard: what is counted, what fails, and what is written down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shipped
from tinylens.data.load import reopen
from tinylens.errors import ModelError, RecipeError
from tinylens.exporting.formats import FORMATS
from tinylens.exporting.runtimes import Opened
from tinylens.exporting.verify import (
    BATCH,
    Limits,
    Reference,
    evaluate,
    reference,
    time_together,
    verify,
)
from tinylens.results import Difference, FormatRow, Scorecard, Speed

COUNT = 10_000
IMAGES = np.zeros((COUNT, 8, 6, 3), np.uint8)
EXPECTED = np.tile(np.array([[0.6, 0.2, 0.1, 0.1]], np.float32), (COUNT, 1))


def answering(probabilities: np.ndarray):
    """Return what gives these, row after row, whatever images come."""
    rows = iter(probabilities)
    return lambda images: np.stack([next(rows) for _ in images])


def model(probabilities: np.ndarray, name: str = "onnx", card=None) -> Opened:
    return Opened(Path(__file__), FORMATS[name], card, answering(probabilities))


def against(labels: np.ndarray | None = None) -> Reference:
    return Reference("test", IMAGES, EXPECTED, labels, shipped.CLASS_NAMES)


def changed(count: int) -> np.ndarray:
    """Return the expected answers with another class for so many images."""
    given = EXPECTED.copy()
    given[:count] = [0.2, 0.6, 0.1, 0.1]
    return given


def test_the_same_answers_pass():
    row = evaluate(model(EXPECTED), against(), Limits())
    assert (row.agreement, row.largest_difference, row.ties, row.failures) == (1, 0, 0, ())
    assert (row.accuracy, row.accuracy_difference) == (None, None)
    assert row.size == Path(__file__).stat().st_size


def test_one_image_of_10_000_may_differ_and_two_may_not():
    limits = Limits(difference=1.0)
    assert evaluate(model(changed(1)), against(), limits).failures == ()
    row = evaluate(model(changed(2)), against(), limits)
    assert row.agreement == pytest.approx(0.9998)
    assert row.failures == (
        "it answers 99.98 % of 10,000 images as Keras did, expected at least 99.99 %",
    )


def test_a_larger_difference_fails_floats_and_not_integers():
    given = EXPECTED.copy()
    given[7] = [0.5998, 0.2002, 0.1, 0.1]
    [words] = evaluate(model(given), against(), Limits()).failures
    assert words == "its probabilities differ by up to 0.0002 from Keras's, expected at most 0.0001"
    assert evaluate(model(given, "onnx-int8"), against(), Limits()).failures == ()


def test_integers_fail_by_the_accuracy_that_they_lose():
    labels = np.zeros(COUNT, np.int64)
    row = evaluate(model(changed(30), "onnx-int8"), against(labels), Limits())
    assert row.accuracy == 0.997 and row.failures == ()
    difference = row.accuracy_difference
    assert difference.value == -0.003 and difference.ci95[0] < -0.003 < difference.ci95[1] < 0
    [words] = evaluate(model(changed(31), "onnx-int8"), against(labels), Limits()).failures
    assert words == (
        "it is less accurate than Keras by 0.31 points on 10,000 images of test, expected at "
        "most 0.3"
    )


def test_one_image_of_few_may_be_lost():
    few = Reference(
        "val", IMAGES[:100], EXPECTED[:100], np.zeros(100, np.int64), shipped.CLASS_NAMES
    )
    found = [evaluate(model(changed(n), "onnx-int8"), few, Limits()).failures for n in (1, 2)]
    assert [len(each) for each in found] == [0, 1]


def test_an_agreement_that_is_asked_for_holds_for_integers_too():
    row = evaluate(model(changed(2), "litert-int8"), against(), Limits(agreement=0.9999))
    assert len(row.failures) == 1


def test_ties_are_told_apart_from_disagreements():
    tied = replace(against(), probabilities=EXPECTED.copy())
    tied.probabilities[0] = [0.400001, 0.399999, 0.1, 0.1]
    given = EXPECTED.copy()
    given[0] = [0.399999, 0.400001, 0.1, 0.1]
    row = evaluate(model(given), tied, Limits())
    assert (row.ties, row.agreement, row.failures) == (1, 1, ())


def test_what_is_no_number_or_of_other_classes_is_refused():
    given = EXPECTED.copy()
    given[3, 1] = np.nan
    with pytest.raises(ModelError, match="expected finite numbers of shape"):
        evaluate(model(given), against(), Limits())
    other = shipped.card(class_names=("a", "b", "c", "d"))
    with pytest.raises(ModelError, match=r"has the classes a, b, c, d, expected those of the run"):
        evaluate(model(EXPECTED, card=other), against(), Limits())


def test_all_files_are_timed_in_turns():
    calls: list[str] = []

    def named(name):
        return lambda images: calls.append(f"{name}{len(images)}") or images

    speeds = time_together([named("a"), named("b")], IMAGES[:3], 0.0)
    assert all(each.one_p50_ms > 0 and each.many_per_second > 0 for each in speeds)
    turns = [calls[place] for place in range(0, len(calls), 6)]  # one that is not timed, and five
    one, many = "1", str(BATCH)
    order = "abbaabba"
    assert turns == [f"{name}{size}" for name in order for size in (one, many)]


def test_a_runs_own_answers_are_the_reference(trained):
    data = reopen(trained)
    found = reference(trained, data, "val", labels=True, images=50)
    assert found.images.shape == (50, 16, 16, 3) and found.class_names == (
        "cat",
        "dog",
        "owl",
        "emu",
    )
    np.testing.assert_array_equal(
        found.labels,
        [
            data.val.labels[np.where((data.val.images == x).all((1, 2, 3)))[0][0]]
            for x in found.images
        ],
    )
    assert reference(trained, data, "test", labels=False).labels is None
    with pytest.raises(RecipeError, match="has no part holdout; expected train, val, test"):
        reference(trained, data, "holdout", labels=True)
    with pytest.raises(RecipeError, match="--images 0: expected at least 1"):
        reference(trained, data, "test", labels=True, images=0)


def test_models_are_judged_and_timed_together():
    models = [model(np.tile(EXPECTED, (3, 1))[:, :]), model(np.tile(changed(5), (3, 1)), "keras")]
    few = replace(against(), images=IMAGES[:COUNT])
    endless = [replace(each, answer=lambda images: EXPECTED[: len(images)]) for each in models]
    found = verify(endless, few, Limits(), threads=2, seconds=0.0)
    assert [row.format for row in found.rows] == ["onnx", "keras"]
    assert found.threads == 2 and found.failures == []
    assert all(row.speed.one_p95_ms >= row.speed.one_p50_ms for row in found.rows)


shares = st.floats(0, 1)


@settings(max_examples=30)
@given(
    st.builds(
        FormatRow,
        format=st.sampled_from(sorted(FORMATS)),
        path=st.text(),
        integers=st.booleans(),
        size=st.integers(0),
        part=st.sampled_from(["train", "val", "test"]),
        images=st.integers(1),
        agreement=shares,
        ties=st.integers(0),
        largest_difference=shares,
        accuracy=st.none() | shares,
        accuracy_difference=st.none() | st.builds(Difference, shares, st.tuples(shares, shares)),
        speed=st.none() | st.builds(Speed, shares, shares, shares),
        failures=st.lists(st.text()).map(tuple),
    )
)
def test_a_scorecard_survives_json(row):
    card = Scorecard(2, BATCH, (row,))
    assert Scorecard.from_json(json.loads(json.dumps(card.to_json()))) == card
