from __future__ import annotations

import gzip
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from builders_data import idx_bytes, idx_folder, noise
from tinylens.data.dataset import Dataset
from tinylens.data.readers import idx
from tinylens.errors import DataError


def test_a_folder_of_four_files_is_train_and_test(tmp_path):
    splits = idx.read(idx_folder(tmp_path / "set"))
    assert [(name, len(part)) for name, part in splits.items()] == [("train", 20), ("test", 10)]
    assert splits.class_names == ("0", "1", "2", "3", "4")
    assert np.array_equal(splits.train.images[..., 0], noise(20, 8, 8, seed=0))
    assert splits.test.labels.tolist() == [0, 1, 2, 3, 4] * 2


def test_train_alone_is_a_dataset(tmp_path):
    root = idx_folder(tmp_path)
    for file in root.glob("t10k*"):
        file.unlink()
    assert isinstance(idx.read(root), Dataset)


def test_files_unzipped_and_with_a_dot_in_their_name_are_found(tmp_path):
    root = idx_folder(tmp_path)
    before = idx.read(root).fingerprint
    for file in root.glob("*.gz"):
        name = file.name.removesuffix(".gz").replace("-idx", ".idx")
        (root / name).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    assert idx.read(root).fingerprint == before


def test_class_names_and_contents_can_be_asked_for(tmp_path):
    root = idx_folder(tmp_path)
    payloads = {
        file.name.removesuffix(".gz"): hashlib.sha256(
            gzip.decompress(file.read_bytes())
        ).hexdigest()
        for file in root.glob("*.gz")
    }
    parts = idx.read_parts(root, ("a", "b", "c", "d", "e"), payloads)
    assert parts.train.class_names == ("a", "b", "c", "d", "e")
    payloads["train-labels-idx1-ubyte"] = "0" * 64
    with pytest.raises(
        DataError, match=r"train-labels.*hash mismatch: expected 0{64}, got [0-9a-f]{64}"
    ):
        idx.read_parts(root, (), payloads)


@settings(max_examples=40, deadline=None)
@given(array=arrays(np.uint8, array_shapes(max_dims=4, max_side=6)), zipped=st.booleans())
def test_what_is_written_is_read_back(tmp_path_factory, array, zipped):
    path = tmp_path_factory.mktemp("idx") / ("x.gz" if zipped else "x")
    idx.write_file(path, array)
    assert np.array_equal(idx.read_file(path), array)
    assert idx.read_file(path).shape == array.shape


GOOD = idx_bytes(noise(4, 3, 3))

DAMAGED = {
    "empty": (b"", "byte 0: the file ends, expected a magic number"),
    "cut in the magic number": (GOOD[:3], "byte 3: the file ends"),
    "cut in the sizes": (GOOD[:10], "byte 10: the file ends within its sizes"),
    "cut in the values": (GOOD[:-1], "the file ends at byte 51, expected 36 values"),
    "no values": (GOOD[:16], "the file ends at byte 16"),
    "one byte more": (GOOD + b"\0", "the file goes on, expected 36 values"),
    "wrong magic": (b"\1" + GOOD[1:], "byte 0: starts with 01000803, expected an IDX magic number"),
    "unknown type": (idx_bytes(noise(4, 3, 3), kind=7), "byte 0: starts with 00000703"),
    "floats": (
        idx_bytes(noise(4, 3, 3), kind=0x0D),
        r"byte 2: values of type float, expected uint8",
    ),
    "no dimensions": (b"\0\0\x08\0", "byte 0: starts with 00000800"),
    "nine dimensions": (b"\0\0\x08\x09" + bytes(64), "byte 0: starts with 00000809"),
    "no images": (idx_bytes(noise(0, 3, 3)), r"byte 4: sizes \(0, 3, 3\), expected from 1"),
    "a terabyte": (
        b"\0\0\x08\x03" + b"\xff" * 12,
        "byte 4: sizes .*expected from 1 to 8,000,000,000",
    ),
    "labels for images": (idx_bytes(noise(4)), "byte 3: 1 dimensions, expected 3"),
    "text": (b"hello, world", "byte 0: starts with 68656c6c"),
    "html": (b"<!DOCTYPE html>", "byte 0: starts with 3c21444f"),
    "gzip cut": (gzip.compress(GOOD)[:-9], "cannot be read: Compressed file ended"),
    "gzip check wrong": (gzip.compress(GOOD)[:-8] + bytes(8), "cannot be read: CRC check failed"),
    "gzip broken inside": (
        gzip.compress(GOOD)[:10] + b"\x07" * 9,
        "cannot be read: .*invalid block type",
    ),
    "gzip of nothing": (gzip.compress(b""), "byte 0: the file ends"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named_with_file_and_byte(tmp_path, name):
    content, reason = DAMAGED[name]
    root = idx_folder(tmp_path)
    (root / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte\.gz: {reason}"):
        idx.read(root)


def test_a_zipped_file_is_not_unzipped_beyond_what_it_declares(tmp_path):
    bomb = gzip.compress(idx_bytes(noise(1, 2, 2)) + bytes(50_000_000))
    (tmp_path / "x.gz").write_bytes(bomb)
    with pytest.raises(DataError, match="the file goes on, expected 4 values"):
        idx.read_file(tmp_path / "x.gz")


def test_images_without_labels_and_the_other_way_round_are_named(tmp_path):
    root = idx_folder(tmp_path)
    (root / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"found .*train-images.* but no labels of train"):
        idx.read(root)


def test_counts_that_differ_are_refused(tmp_path):
    root = idx_folder(tmp_path)
    idx.write_file(root / "train-labels-idx1-ubyte.gz", np.zeros(19, np.uint8))
    with pytest.raises(DataError, match="20 images but 19 labels"):
        idx.read(root)


def test_labels_beyond_the_class_names_are_listed(tmp_path):
    with pytest.raises(DataError, match=r"8 labels outside 0…2 \(row 3: 3, row 4: 4, row 8: 3"):
        idx.read_parts(idx_folder(tmp_path), ("a", "b", "c"))


def test_one_class_alone_is_refused(tmp_path):
    root = idx_folder(tmp_path)
    for prefix, count in (("train", 20), ("t10k", 10)):
        idx.write_file(root / f"{prefix}-labels-idx1-ubyte.gz", np.zeros(count, np.uint8))
    with pytest.raises(DataError, match="found 1 class"):
        idx.read(root)


def test_a_folder_without_any_is_told_what_was_expected(tmp_path):
    with pytest.raises(DataError, match="no IDX files; expected train-images-idx3-ubyte"):
        idx.read(tmp_path)


def test_a_directory_by_the_name_of_a_file_is_not_one(tmp_path):
    root = idx_folder(tmp_path)
    (root / "train-images-idx3-ubyte.gz").unlink()
    (root / "train-images-idx3-ubyte.gz").mkdir()
    with pytest.raises(DataError, match="no images of train"):
        idx.read(root)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=64), position=st.integers(0, 40))
def test_no_bytes_raise_anything_but_bad_data(tmp_path_factory, content, position):
    path = tmp_path_factory.mktemp("idx") / "x"
    path.write_bytes(GOOD[:position] + content)
    try:
        assert idx.read_file(path).dtype == np.uint8
    except DataError:
        assert path.read_bytes() != GOOD
