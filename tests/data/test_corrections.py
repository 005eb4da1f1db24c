"""fixes.csv: read as written, applied to the images that it is about, and to no others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinylens.data import corrections
from tinylens.data.corrections import Fix, image_mark
from tinylens.data.dataset import Dataset
from tinylens.data.readers import arrays
from tinylens.data.splits import Parts
from tinylens.errors import DataError

NAMES = ("cat", "dog", 'a, "b"')


@pytest.fixture
def parts():
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 1), np.uint8)
    train = Dataset(images[:6], [0, 1, 2, 0, 1, 2], NAMES, source="pets")
    return Parts(train, None, Dataset(images[6:], [0, 1, 2], NAMES, source="pets"))


def fix(parts, split, index, action, label=""):
    part = dict(parts.items())[split]
    mark = image_mark(part.images[index])
    return Fix(split, index, mark, NAMES[part.labels[index]], action, label)


WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=1
)


@given(
    st.lists(
        st.builds(
            Fix,
            WORDS,
            st.integers(0, 10**6),
            WORDS,
            WORDS,
            st.sampled_from(corrections.ACTIONS),
            WORDS,
            WORDS,
        )
    )
)
def test_what_is_written_is_read_back(tmp_path_factory, fixes):
    path = tmp_path_factory.mktemp("fixes") / "fixes.csv"
    corrections.write(path, tuple(fixes))
    assert corrections.read(path) == tuple(fixes)


def test_labels_change_images_go_and_the_rest_stays(parts, tmp_path):
    fixes = (
        fix(parts, "train", 1, "change", 'a, "b"'),
        fix(parts, "train", 4, "drop"),
        fix(parts, "test", 0, "keep"),
        fix(parts, "test", 2, "change", "cat"),
    )
    path = tmp_path / "fixes.csv"
    corrections.write(path, fixes)
    corrected = corrections.apply(parts, corrections.read(path))
    assert corrected.train.labels.tolist() == [0, 2, 2, 0, 2]
    assert np.array_equal(corrected.train.images, parts.train.images[[0, 1, 2, 3, 5]])
    assert corrected.test.labels.tolist() == [0, 1, 0]
    assert "2 labels changed, 1 images dropped, 1 looked at and kept" in corrected.notes[-1]
    assert parts.train.labels.tolist() == [0, 1, 2, 0, 1, 2]  # what was given is as it was


def test_a_corrected_set_is_written_and_read(parts, tmp_path):
    corrected = corrections.apply(parts, (fix(parts, "train", 0, "drop"),))
    arrays.write_parts(tmp_path / "pets.npz", corrected)
    read = arrays.read_parts(tmp_path / "pets.npz")
    assert read.val is None
    assert read.train.fingerprint == corrected.train.fingerprint
    assert read.test.fingerprint == corrected.test.fingerprint


def test_the_same_decision_twice_is_one(parts):
    twice = (fix(parts, "train", 2, "drop"),) * 2
    assert len(corrections.apply(parts, twice).train) == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: fix(p, "train", 0, "change", "owl"), "names the class 'owl'; pets has cat, dog"),
        (lambda p: Fix("val", 0, "x", "cat", "drop", ""), "pets has no val 0"),
        (lambda p: Fix("test", 3, "x", "cat", "drop", ""), r"no test 3.*test of 3"),
        (lambda p: Fix("train", 0, "x", "cat", "drop", ""), "train 0 is another image"),
        (
            lambda p: Fix("train", 0, image_mark(p.train.images[0]), "dog", "drop", ""),
            r"of another class \(cat\) than the fix is about \(dog\)",
        ),
    ],
    ids=["no such class", "no such part", "no such row", "another image", "another label"],
)
def test_a_fix_that_does_not_fit_changes_nothing(parts, make, message):
    with pytest.raises(DataError, match=message):
        corrections.apply(parts, (make(parts),))


def test_two_decisions_that_differ_are_refused(parts):
    both = fix(parts, "train", 1, "drop"), fix(parts, "train", 1, "keep")
    with pytest.raises(DataError, match="two fixes of train 1 differ"):
        corrections.apply(parts, both)


HEAD = "split,index,image,path,given,action,label\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has no column split, index"),
        ("", "has no column split"),
        (HEAD + "train,1,x,,cat,burn,\n", r"line 2: action 'burn', expected keep, change, drop"),
        (HEAD + "train,-1,x,,cat,drop,\n", r"line 2: index '-1'"),
        (HEAD + "train,1,x,,cat,change,\n", r"line 2: says change, but names no label"),
    ],
)
def test_what_is_no_fixes_csv_is_refused(text, message, tmp_path):
    path = tmp_path / "fixes.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        corrections.read(path)


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: cannot be read: No such file"):
        corrections.read(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        corrections.read(tmp_path / "binary.csv")
