from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import builders_data as build
from tinylens.data.readers import cifar
from tinylens.errors import DataError

MAKERS = {
    "cifar-10 python": build.cifar10_python,
    "cifar-10 binary": build.cifar10_binary,
    "cifar-100 python": build.cifar100_python,
    "cifar-100 binary": build.cifar100_binary,
}


@pytest.mark.parametrize("name", MAKERS)
def test_folder_the_folder_around_it_and_archive_are_the_same_set(tmp_path, name):
    place = MAKERS[name](tmp_path / "around")
    packed = build.archive(place, tmp_path / "set.tar.gz")
    read = [cifar.read(path, trusted=True) for path in (place, tmp_path / "around", packed)]
    assert len({splits.fingerprint for splits in read}) == 1
    splits = read[0]
    assert splits.train.image_shape == (32, 32, 3)
    if name.startswith("cifar-100"):
        assert len(splits.class_names) == 100 and splits.class_names[7] == "fine07"
        assert (len(splits.train), len(splits.test)) == (200, 200)
        assert splits.train.labels[7] == 7
    else:
        assert splits.class_names == build.CIFAR10_NAMES
        assert (len(splits.train), len(splits.test)) == (50, 10)


def test_the_binary_version_gives_planes_as_colours_in_the_order_of_the_batches(tmp_path):
    place = build.cifar10_binary(tmp_path)
    splits = cifar.read(place)
    record = (place / "data_batch_2.bin").read_bytes()[3073:6146]
    row = 11  # the second record of the second batch
    assert splits.train.labels[row] == record[0]
    planes = np.frombuffer(record[1:], np.uint8).reshape(3, 32, 32)
    assert np.array_equal(splits.train.images[row], planes.transpose(1, 2, 0))


def test_the_python_version_gives_planes_as_colours(tmp_path):
    splits = cifar.read(build.cifar10_python(tmp_path), trusted=True)
    planes = build.noise(10, 3072, seed=5)[3].reshape(3, 32, 32)
    assert np.array_equal(splits.test.images[3], planes.transpose(1, 2, 0))
    assert splits.test.labels[3] == 3


def test_of_cifar_100_binary_the_fine_label_is_read(tmp_path):
    place = build.cifar100_binary(tmp_path)
    records = bytearray((place / "train.bin").read_bytes())
    records[0], records[1] = 3, 42
    (place / "train.bin").write_bytes(bytes(records))
    assert cifar.read(place).train.labels[0] == 42


def test_without_the_file_of_names_classes_are_numbers(tmp_path):
    place = build.cifar10_binary(tmp_path)
    (place / "batches.meta.txt").unlink()
    assert cifar.read(place).class_names[:2] == ("0", "1")


def test_without_a_test_batch_there_is_train_alone(tmp_path):
    place = build.cifar10_binary(tmp_path)
    (place / "test_batch.bin").unlink()
    assert len(cifar.read(place)) == 50


# --- pickles


@pytest.mark.parametrize("maker", [build.cifar10_python, build.cifar100_python])
def test_a_pickle_that_is_not_the_published_one_is_not_opened(tmp_path, maker):
    with pytest.raises(DataError, match=r"hash mismatch: expected [0-9a-f]{64}, got .*not opened"):
        cifar.read(maker(tmp_path))


class Gadget:
    """Makes a file when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Bomb:
    """Would claim 16 TiB."""

    def __reduce__(self):
        return np.ndarray, ((2**44,),)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_pickle_that_runs_something_is_refused_and_nothing_runs(tmp_path, trusted):
    place = build.cifar10_python(tmp_path)
    gadget = Gadget(tmp_path / "was here")
    (place / "data_batch_3").write_bytes(build.cifar_pickle({b"data": gadget, b"labels": [1]}))
    with pytest.raises(
        DataError,
        match="data_batch_3: cannot be unpickled: asks for posix.mkdir"
        if trusted
        else "hash mismatch",
    ):
        cifar.read(place, trusted=trusted)
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("name", ["getattr", "eval", "exec", "__import__", "open"])
def test_builtins_are_not_to_be_had(tmp_path, name):
    place = build.cifar10_python(tmp_path)
    (place / "test_batch").write_bytes(f"cbuiltins\n{name}\n.".encode())
    with pytest.raises(DataError, match=f"asks for builtins.{name}"):
        cifar.read(place, trusted=True)


def test_a_pickle_that_claims_terabytes_is_refused_without_taking_them(tmp_path):
    place = build.cifar10_python(tmp_path)
    content = pickle.dumps({b"data": Bomb(), b"labels": [1]}, protocol=2)
    (place / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match="data_batch_1"):
        cifar.read(place, trusted=True)


def of_python(change) -> dict:
    content = {b"data": build.noise(10, 3072), b"labels": list(range(10))}
    change(content)
    return content


PICKLED = {
    "no data": (lambda c: c.pop(b"data"), "no labels or no data"),
    "no labels": (lambda c: c.pop(b"labels"), "no labels or no data"),
    "data that is text": (lambda c: c.update({b"data": "pixels"}), "no labels or no data"),
    "floats": (
        lambda c: c.update({b"data": np.zeros((10, 3072), np.float32)}),
        "data of type f4 .*expected uint8",
    ),
    "another shape": (
        lambda c: c.update({b"data": np.zeros((10, 3000), np.uint8)}),
        r"10 labels and data of shape \(10, 3000\)",
    ),
    "fewer labels": (lambda c: c.update({b"labels": [1] * 9}), "9 labels and data of shape"),
    "labels of text": (lambda c: c.update({b"labels": ["cat"] * 10}), r"labels \['cat', 'cat'"),
    "negative labels": (
        lambda c: c.update({b"labels": [-1] * 10}),
        r"10 labels outside 0…9 \(record 0: -1, ",
    ),
    "labels out of range": (lambda c: c.update({b"labels": [10] * 10}), "10 labels outside 0…9"),
    "an array of objects": (
        lambda c: c.update({b"data": np.array([[1, None]], object)}),
        "data_batch_4: ",
    ),
    "by columns": (
        lambda c: c.update({b"data": np.asfortranarray(build.noise(10, 3072))}),
        "another kind than uint8 rows",
    ),
}


@pytest.mark.parametrize("name", PICKLED)
def test_a_pickle_of_something_else_is_named(tmp_path, name):
    change, reason = PICKLED[name]
    place = build.cifar10_python(tmp_path)
    (place / "data_batch_4").write_bytes(build.cifar_pickle(of_python(change)))
    with pytest.raises(DataError, match=reason):
        cifar.read(place, trusted=True)


@settings(max_examples=80, deadline=None)
@given(content=st.binary(max_size=80))
def test_no_pickle_raises_anything_but_bad_data(content):
    from tinylens.data.readers.cifar import unpickled

    try:
        unpickled("here", content)
    except DataError as error:
        assert str(error).startswith("here: cannot be unpickled")


# --- damage


BATCH = build.cifar_records(4, 10)
DAMAGED = {
    "empty": (b"", "data_batch_3.bin: 0 bytes, expected a whole number of 3073-byte records"),
    "one byte": (b"\1", "the last begins at byte 0"),
    "cut in a record": (BATCH[:-1], "12,291 bytes, .*the last begins at byte 9,219"),
    "one byte more": (BATCH + b"\0", "the last begins at byte 12,292"),
    "half": (BATCH[: len(BATCH) // 2 + 7], "3073-byte records"),
    "label out of range": (
        b"\x0a" + BATCH[1:],
        r"data_batch_3\.bin: 1 labels outside 0…9 \(record 0: 10\)",
    ),
    "label 255": (b"\xff" + BATCH[1:], r"record 0: 255"),
    "text": (b"hello, world", "3073-byte records"),
    "cifar-100 records": (build.cifar_records(4, 10, 2), "3073-byte records"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_to_a_binary_batch_is_named_with_the_byte(tmp_path, name):
    content, reason = DAMAGED[name]
    place = build.cifar10_binary(tmp_path)
    (place / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        cifar.read(place)


def test_missing_batches_are_named(tmp_path):
    place = build.cifar10_binary(tmp_path)
    (place / "data_batch_2.bin").unlink()
    with pytest.raises(DataError, match=r"no data_batch_2.bin; expected data_batch_1.bin, "):
        cifar.read(place)


def test_class_names_twice_or_no_text_are_refused(tmp_path):
    place = build.cifar10_binary(tmp_path)
    (place / "batches.meta.txt").write_text("cat\n" * 10)
    with pytest.raises(DataError, match="class names given twice: cat"):
        cifar.read(place)
    (place / "batches.meta.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="class names that are no text"):
        cifar.read(place)


def test_a_folder_of_something_else_is_told_what_was_expected(tmp_path):
    with pytest.raises(DataError, match="no CIFAR files; expected one of cifar-10-batches-py"):
        cifar.read(tmp_path)


ARCHIVES = {
    "empty": b"",
    "text": b"hello, world",
    "gzip of text": gzip.compress(b"hello, world"),
    "gzip cut": gzip.compress(bytes(100_000))[:50],
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_file_that_is_no_archive_is_named(tmp_path, name):
    path = tmp_path / "cifar.tar.gz"
    path.write_bytes(ARCHIVES[name])
    with pytest.raises(DataError, match=r"cifar.tar.gz: (not a whole archive|no CIFAR files)"):
        cifar.read(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_an_archive_cut_anywhere_is_named(tmp_path, share):
    packed = build.archive(build.cifar10_binary(tmp_path), tmp_path / "cifar.tar.gz")
    content = packed.read_bytes()
    packed.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"cifar.tar.gz: (not a whole archive|no )"):
        cifar.read(packed)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_other_members_are_passed_by_and_nothing_is_unpacked(tmp_path):
    place = build.cifar10_binary(tmp_path / "made")
    good = [(member(f"{place.name}/{f.name}"), f.read_bytes()) for f in sorted(place.iterdir())]
    evil = [
        (member("../evil"), b"!"),
        (member("/tmp/evil-tinylens"), b"!"),
        (member("cifar-10-batches-bin/../../evil"), b"!"),
        (member("link", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (member("hard", tarfile.LNKTYPE, "../evil"), b""),
        (member("device", tarfile.CHRTYPE), b""),
    ]
    packed = build.archive_of(tmp_path / "cifar.tar.gz", [*evil, *good])
    before = sorted(tmp_path.rglob("*"))
    assert len(cifar.read(packed).train) == 50
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_a_batch_that_is_a_link_or_a_device_is_refused(tmp_path, kind):
    batch = member("cifar-10-batches-bin/data_batch_1.bin", kind, "/etc/passwd")
    packed = build.archive_of(tmp_path / "cifar.tar.gz", [(batch, b"")])
    with pytest.raises(DataError, match=r"data_batch_1\.bin is no regular file"):
        cifar.read(packed)


def test_a_batch_twice_is_refused(tmp_path):
    batch = [(member("cifar-10-batches-bin/data_batch_1.bin"), BATCH) for _ in range(2)]
    packed = build.archive_of(tmp_path / "cifar.tar.gz", batch)
    with pytest.raises(DataError, match=r"holds .*data_batch_1\.bin as well"):
        cifar.read(packed)


def test_an_archive_of_endlessly_many_members_is_refused(tmp_path):
    many = [(member(f"file{number}"), b"") for number in range(cifar.MAX_MEMBERS + 1)]
    packed = build.archive_of(tmp_path / "cifar.tar.gz", many)
    with pytest.raises(DataError, match="more than 1,000 members"):
        cifar.read(packed)


def test_a_member_that_claims_gigabytes_is_refused(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = member("cifar-10-batches-bin/data_batch_1.bin")
        info.size = 10_000_000_000
        tar.addfile(info)
    (tmp_path / "cifar.tar").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"data_batch_1\.bin is too large"):
        cifar.read(tmp_path / "cifar.tar")
