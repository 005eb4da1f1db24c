"""audit.json: a round trip, and which test images count as leaked."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tinylens.results import Audit, Broken, LabelIssue, Oddity, Twin

PARTS = st.sampled_from(["train", "val", "test"])
ROWS = st.integers(0, 99)
WORDS = st.text(max_size=12)
SHARES = st.floats(0, 1)
CLASSES = st.sampled_from(["cat", "dog"])

twins = st.builds(Twin, ROWS, ROWS, SHARES, st.tuples(PARTS, PARTS), st.tuples(CLASSES, CLASSES))
oddities = st.builds(Oddity, PARTS, ROWS, WORDS, CLASSES, WORDS, SHARES)
audits = st.builds(
    Audit,
    source=WORDS,
    class_names=st.just(("cat", "dog")),
    counts=st.fixed_dictionaries({"train": st.tuples(ROWS, ROWS), "test": st.tuples(ROWS, ROWS)}),
    doubted=st.lists(PARTS, unique=True).map(tuple),
    compared=st.booleans(),
    label_issues=st.lists(
        st.builds(LabelIssue, PARTS, ROWS, WORDS, CLASSES, CLASSES, SHARES), max_size=4
    ).map(tuple),
    duplicates=st.lists(twins, max_size=6).map(tuple),
    outliers=st.lists(oddities, max_size=3).map(tuple),
    odd=st.lists(oddities, max_size=3).map(tuple),
    broken=st.lists(st.builds(Broken, WORDS, WORDS), max_size=3).map(tuple),
)


@given(audits)
def test_what_is_written_is_read_back(audit):
    assert Audit.from_json(json.loads(json.dumps(audit.to_json()))) == audit


def made(*duplicates, **changes):
    parts = {"train": (3, 6), "test": (2, 0)}
    fields = {"label_issues": (), "outliers": (), "odd": (), "broken": (), **changes}
    return Audit("pets", ("cat", "dog"), parts, ("test",), False, duplicates=duplicates, **fields)


def twin(a, part_a, b, part_b, labels=("cat", "cat")):
    return Twin(a, b, 0.0, (part_a, part_b), labels)


def test_a_test_image_is_leaked_by_way_of_another_test_image():
    audit = made(
        twin(4, "train", 7, "test"), twin(7, "test", 9, "test"), twin(1, "test", 2, "test")
    )
    assert audit.leaked == {7, 9}
    assert audit.leaks == audit.duplicates[:1]


def test_a_pair_within_train_and_val_is_no_leak():
    audit = made(twin(1, "train", 2, "val"), twin(3, "train", 4, "train", ("cat", "dog")))
    assert audit.leaks == () and audit.leaked == frozenset()
    assert audit.contradictions == audit.duplicates[1:]


def test_suspected_are_the_doubtful_labels_of_test_alone():
    issues = (
        LabelIssue("test", 5, "", "cat", "dog", 0.9),
        LabelIssue("train", 6, "", "cat", "dog", 0.8),
    )
    assert made(label_issues=issues).suspected == {5}


def test_imbalance_is_the_largest_class_over_the_smallest():
    assert made().imbalance("train") == 2
    assert made().imbalance("test") == float("inf")
