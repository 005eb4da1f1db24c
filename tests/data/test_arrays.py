from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders_data import noise
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.readers import arrays
from tinylens.errors import DataError


def dataset(count: int, channels: int = 3, seed: int = 0) -> Dataset:
    return Dataset(
        noise(count, 4, 5, channels, seed=seed), np.arange(count) % 2, ("a", "é"), "made"
    )


@settings(max_examples=25, deadline=None)
@given(
    counts=st.tuples(*[st.integers(2, 9)] * 3), channels=st.sampled_from([1, 3]), val=st.booleans()
)
def test_what_is_written_is_read_back(tmp_path_factory, counts, channels, val):
    path = tmp_path_factory.mktemp("npz") / "set.npz"
    parts = [dataset(n, channels, seed) for seed, n in enumerate(counts)]
    splits = Splits(parts[0], parts[1] if val else None, parts[2])
    arrays.write(path, splits)
    again = arrays.read(path)
    assert again.fingerprint == splits.fingerprint
    assert again.class_names == ("a", "é")


def test_a_dataset_alone_is_read_back_as_one(tmp_path):
    arrays.write(tmp_path / "x.npz", dataset(5))
    assert arrays.read(tmp_path / "x.npz").fingerprint == dataset(5).fingerprint


def save(path, **content):
    np.savez(path, **content)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.npz"


def test_keras_mnist_is_read_grey_with_numbers_for_names(path):
    save(path, x_train=noise(4, 3, 3), y_train=[0, 1, 2, 1], x_test=noise(2, 3, 3), y_test=[2, 0])
    splits = arrays.read(path)
    assert splits.train.image_shape == (3, 3, 1)
    assert splits.class_names == ("0", "1", "2")


def test_labels_as_a_column_are_taken_as_keras_gives_cifar(path):
    save(
        path, x_train=noise(2, 3, 3, 3), y_train=[[0], [1]], x_test=noise(1, 3, 3, 3), y_test=[[1]]
    )
    assert arrays.read(path).train.labels.tolist() == [0, 1]


def test_a_word_a_image_says_the_part(path):
    split = np.array(["test", "train", "train", "val", "train"])
    save(path, images=noise(5, 3, 3), labels=[0, 1, 0, 1, 1], split=split, class_names=["a", "b"])
    splits = arrays.read(path)
    assert [(name, part.labels.tolist()) for name, part in splits.items()] == [
        ("train", [1, 0, 1]),
        ("val", [1]),
        ("test", [0]),
    ]


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(array: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, form)
    return buffer.getvalue()


GOOD = {"images": npy(noise(4, 3, 3)), "labels": npy(np.array([0, 1, 0, 1]))}

DAMAGED = {
    "empty": (b"", "cannot be read: File is not a zip file"),
    "text": (b"hello, world", "cannot be read: File is not a zip file"),
    "a single array": (npy(noise(3, 3)), "cannot be read: File is not a zip file"),
    "cut": (npz(**GOOD)[:-30], "cannot be read"),
    "nothing known": (npz(pixels=GOOD["images"]), "holds pixels; expected x_train and y_train"),
    "no members": (npz(), "holds nothing; expected"),
    "images alone": (npz(images=GOOD["images"]), "holds images; expected both images and labels"),
    "x alone": (npz(x_train=GOOD["images"]), "holds x_train but no y_train"),
    "names alone": (npz(class_names=npy(np.array(["a"]))), "holds class_names alone"),
    "an empty member": (npz(**{**GOOD, "labels": b""}), "cannot be read"),
    "no array in a member": (npz(**{**GOOD, "labels": b"hello"}), "cannot be read"),
    "a cut array": (
        npz(**{**GOOD, "labels": GOOD["labels"][:-3]}),
        r"labels.npy claims shape \(4,\) of int64, 32 bytes, and holds 29",
    ),
    "a longer array": (npz(**{**GOOD, "labels": GOOD["labels"] + b"\0"}), "and holds 33"),
    "16 tebibytes": (
        npz(**{**GOOD, "images": header((2**44, 1, 1))}),
        "images.npy claims .* 17,592,186,044,416 bytes, and holds 0",
    ),
    "objects": (
        npz(**{**GOOD, "labels": npy(np.array([0, None]), allow_pickle=True)}),
        "labels.npy holds Python objects",
    ),
    "an unknown version": (
        npz(**{**GOOD, "images": b"\x93NUMPY\x09\0"}),
        "images.npy is of .npy version",
    ),
    "floats": (npz(**{**GOOD, "images": npy(np.zeros((4, 3, 3)))}), "images are float64"),
    "a flat array": (npz(**{**GOOD, "images": npy(noise(4, 9))}), r"shape \(4, 9\)"),
    "no images": (
        npz(images=npy(noise(0, 3, 3)), labels=npy(np.array([], int))),
        "no images; expected at least one",
    ),
    "fewer labels": (npz(**{**GOOD, "labels": npy(np.array([0, 1]))}), "4 images but 2 labels"),
    "labels that are no numbers": (
        npz(**{**GOOD, "labels": npy(np.array(["a"] * 4))}),
        "labels are <U1",
    ),
    "labels with nan": (
        npz(**{**GOOD, "labels": npy(np.array([0, 1, np.nan, 1]))}),
        "labels are float64",
    ),
    "one-hot labels": (
        npz(**{**GOOD, "labels": npy(np.eye(4, dtype=int))}),
        r"labels\.argmax\(axis=1\)",
    ),
    "negative labels": (npz(**{**GOOD, "labels": npy(np.array([0, 1, -1, 0]))}), r"row 2: -1"),
    "labels far out": (
        npz(**{**GOOD, "labels": npy(np.array([0, 1, 2**62, 0]))}),
        "the highest label is 4611686018427387904, expected under 10,000",
    ),
    "one class": (npz(**{**GOOD, "labels": npy(np.zeros(4, int))}), "found 1 class"),
    "names that are no text": (
        npz(**GOOD, class_names=npy(np.array([1, 2]))),
        "class_names is int64",
    ),
    "a name twice": (npz(**GOOD, class_names=npy(np.array(["a", "a"]))), "given twice: a"),
    "a part unknown": (npz(**GOOD, split=npy(np.array(["train"] * 3 + ["dev"]))), "split says dev"),
    "split of another length": (
        npz(**GOOD, split=npy(np.array(["train"]))),
        "expected one label and",
    ),
    "test without train": (npz(**GOOD, split=npy(np.array(["test"] * 4))), "but no train split"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named(path, name):
    content, reason = DAMAGED[name]
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as raised:
        arrays.read(path)
    assert str(raised.value).startswith(str(path))


def test_a_zip_bomb_is_refused_before_it_is_unzipped(path, monkeypatch):
    monkeypatch.setattr(arrays, "SUSPICIOUS_BYTES", 1_000_000)
    path.write_bytes(
        npz(images=npy(np.zeros((5000, 32, 32), np.uint8)), labels=npy(np.zeros(5000, int)))
    )
    with pytest.raises(
        DataError, match=r"bytes unzip to 5,160,256, expected at most 16,000,000,000"
    ):
        arrays.read(path)


def test_an_encrypted_member_is_named(path):
    content = bytearray(npz(**GOOD))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := content.find(signature, start)) >= 0:
            content[start + offset] |= 1
            start += 4
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"x\.npz: cannot be unzipped: .*encrypted"):
        arrays.read(path)


def test_a_directory_and_a_file_that_is_not_there_are_named(tmp_path):
    with pytest.raises(DataError, match=r"a folder without x_train\.npy"):
        arrays.read(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        arrays.read(tmp_path / "none.npz")


@settings(max_examples=80, deadline=None)
@given(position=st.integers(0, 700), value=st.integers(0, 255), cut=st.integers(0, 700))
def test_no_damage_raises_anything_but_bad_data(tmp_path_factory, position, value, cut):
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    content = bytearray(npz(**GOOD))
    content[position % len(content)] = value
    path.write_bytes(bytes(content[: len(content) - cut % 40]))
    try:
        assert len(arrays.read(path)) == 4
    except DataError as error:
        assert str(error)


def test_how_images_were_brought_to_their_shape_is_kept(tmp_path):
    """Else a padded set, corrected and trained on, would have its questions stretched."""
    data = Dataset(noise(4, 6, 6), [0, 1] * 2, ("a", "b"), source="x", aspect="pad")
    arrays.write(tmp_path / "x.npz", data)
    assert arrays.read(tmp_path / "x.npz").aspect == "pad"
    arrays.write(tmp_path / "y.npz", replace(data, aspect="stretch"))
    assert arrays.read(tmp_path / "y.npz").aspect == "stretch"
    with np.load(tmp_path / "y.npz") as content:
        assert set(content) == {"images", "labels", "class_names"}


@pytest.mark.parametrize("aspect", ["squeeze", 1, ["pad"]])
def test_an_aspect_that_is_none_is_refused(tmp_path, aspect):
    np.savez(tmp_path / "x.npz", images=noise(2, 6, 6), labels=[0, 1], aspect=aspect)
    with pytest.raises(DataError, match="expected one of the words stretch, pad, crop"):
        arrays.read(tmp_path / "x.npz")
