from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import builders_data as build
from tinylens.data.dataset import Dataset, joined
from tinylens.data.images import ImageRule, convert, rule_of
from tinylens.data.kinds import KINDS
from tinylens.data.load import _KNOWN, KNOWN_NAMES, load
from tinylens.data.readers import arrays
from tinylens.data.readers.cifar import read
from tinylens.errors import DataError, RecipeError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def npz(path, count=100, classes=2, test=0):
    labels = np.arange(count) % classes
    names = tuple("abcdefgh"[:classes])
    train = Dataset(build.noise(count, 6, 4, 3), labels, names, "made")
    if not test:
        arrays.write(path, train)
        return path
    from tinylens.data.dataset import Splits

    part = Dataset(build.noise(test, 6, 4, 3, seed=1), np.arange(test) % classes, names, "made")
    arrays.write(path, Splits(train, None, part))
    return path


# --- what is carved out


def test_without_parts_15_percent_are_test_and_10_of_the_rest_val(tmp_path):
    splits = load(npz(tmp_path / "x.npz"))
    assert [(name, len(part)) for name, part in splits.items()] == [
        ("train", 76),
        ("val", 8),
        ("test", 16),
    ]
    assert splits.notes == (
        "no test split was given: 15% of train, stratified, seed 0 (16 images), was set aside for "
        "it",
        "val: 10% of train, stratified, seed 0 (8 images)",
    )
    assert splits.test.counts.tolist() == [8, 8] and splits.val.counts.tolist() == [4, 4]


def test_parts_share_no_image_and_lose_none(tmp_path):
    path = npz(tmp_path / "x.npz")
    rows = [image.tobytes() for _, part in load(path).items() for image in part.images]
    assert sorted(rows) == sorted(image.tobytes() for image in arrays.read(path).images)


def test_a_test_part_that_is_given_is_used_whole(tmp_path):
    splits = load(npz(tmp_path / "x.npz", test=10), test=0.5)
    assert [len(part) for _, part in splits.items()] == [90, 10, 10]
    assert splits.notes == ("val: 10% of train, stratified, seed 0 (10 images)",)


def test_val_0_trains_on_everything(tmp_path):
    splits = load(npz(tmp_path / "x.npz", test=10), val=0)
    assert splits.val is None and len(splits.train) == 100 and splits.notes == ()


def test_the_same_seed_carves_the_same_and_another_another(tmp_path):
    path = npz(tmp_path / "x.npz")
    assert load(path).fingerprint == load(path).fingerprint
    assert load(path).fingerprint != load(path, split_seed=1).fingerprint


def test_the_test_part_does_not_depend_on_the_share_of_val(tmp_path):
    path = npz(tmp_path / "x.npz")
    assert load(path, val=0.3).test.fingerprint == load(path, val=0).test.fingerprint


def test_a_class_of_one_image_is_named(tmp_path):
    data = Dataset(build.noise(5, 4, 4, 1), [0, 0, 0, 0, 1], ("cat", "dog"), "made")
    arrays.write(tmp_path / "x.npz", data)
    with pytest.raises(DataError, match="one image alone of class dog, and 15% of each"):
        load(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"val": -0.1}, "val is -0.1, expected a share from 0 to under 1"),
        ({"val": 1}, "val is 1, expected"),
        ({"val": float("nan")}, "val is nan, expected"),
        ({"test": 0}, "test is 0, expected a share over 0"),
        ({"test": 1.5}, "test is 1.5"),
        ({"size": 0}, "size is 0, expected a side from 1 to 4096"),
        ({"size": 5000}, "size is 5000"),
    ],
)
def test_impossible_options_are_refused(options, reason):
    with pytest.raises(RecipeError, match=reason):
        load("shapes", **options)


# --- what is read


def test_shapes_are_always_there():
    splits = load("shapes")
    assert [(name, len(part)) for name, part in splits.items()] == [
        ("train", 4500),
        ("val", 500),
        ("test", 1000),
    ]
    assert splits.source == "shapes"


def test_every_format_is_recognised(tmp_path):
    made = {
        "npz": npz(tmp_path / "x.npz", test=10),
        "image folder": build.two_classes(tmp_path / "pets", 20),
        "image folder in parts": build.two_classes(tmp_path / "parts" / "train", 20).parent,
        "parquet": build.parquet(tmp_path / "x.parquet", [build.plain()] * 40, [0, 1] * 20),
        "parquet folder": tmp_path / "tables",
        "idx": build.idx_folder(tmp_path / "idx", n_train=40),
        "cifar folder": build.cifar10_binary(tmp_path / "cifar"),
        "around a cifar folder": tmp_path / "cifar",
    }
    made["cifar archive"] = build.archive(made["cifar folder"], tmp_path / "cifar.tar.gz")
    build.parquet(tmp_path / "tables" / "train-0.parquet", [build.plain()] * 40, [0, 1] * 20)
    for name, path in made.items():
        splits = load(str(path))
        assert splits.source == str(path), name
        assert splits.test is not None and len(splits.train) >= 16, name


def test_a_cifar_pickle_of_ones_own_is_refused_by_load(tmp_path):
    with pytest.raises(DataError, match="it is a pickle and not the published one"):
        load(build.cifar10_python(tmp_path))
    assert len(read(tmp_path, trusted=True).train) == 50


def test_a_name_that_is_nearly_known_is_proposed():
    with pytest.raises(DataError, match=r"cifar1: neither .*, did you mean cifar10\?") as raised:
        load("cifar1")
    assert ", ".join(KNOWN_NAMES) in str(raised.value)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", ""])
def test_a_path_that_cannot_be_is_bad_data(name):
    with pytest.raises(DataError):
        load(name)


def test_a_path_of_something_else_is_told_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("?")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DataError, match=r"no data set that is known here; .*looked") as raised:
            load(path)
        assert all(each.looks_like in str(raised.value) for each in KINDS)


# --- sizes


def test_a_size_asked_for_is_given_and_noted_for_arrays_too(tmp_path):
    splits = load(npz(tmp_path / "x.npz", test=10), size=8)
    assert {part.image_shape for _, part in splits.items()} == {(8, 8, 3)}
    assert splits.notes[0] == "images of 4×6 pixels were stretched to 8×8"


def test_a_size_that_is_there_already_changes_nothing():
    assert load("shapes", size=32).fingerprint == load("shapes").fingerprint


def test_images_and_arrays_are_stretched_by_the_same_rule(tmp_path):
    images = build.noise(40, 10, 10, 3)
    names, labels = ("a", "b"), np.arange(40) % 2
    arrays.write(tmp_path / "x.npz", Dataset(images, labels, names, "made"))
    samples = [build.encoded(image) for image in images]
    build.parquet(tmp_path / "x.parquet", samples, labels.tolist(), names)
    one, two = (load(tmp_path / name, size=7, val=0) for name in ("x.npz", "x.parquet"))

    def rows(splits):
        return sorted(image.tobytes() for _, part in splits.items() for image in part.images)

    assert rows(one) == rows(two)


# --- options reach the readers


@pytest.mark.parametrize("aspect", ["stretch", "pad", "crop"])
def test_arrays_are_brought_to_a_size_by_the_aspect_asked_for(tmp_path, aspect):
    images = build.noise(20, 6, 9, 3)
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1] * 10)
    splits = load(tmp_path / "x.npz", val=0, test=0.5, size=5, aspect=aspect)
    rule = ImageRule(5, 5, 3, aspect=aspect)
    found = np.concatenate([splits.train.images, splits.test.images])
    assert sorted(map(bytes, found)) == sorted(map(bytes, convert(images, rule)))
    assert rule_of(splits.train) == rule_of(splits.test) == rule


def test_an_aspect_of_arrays_is_recorded_for_what_is_asked_later(tmp_path):
    np.savez(tmp_path / "x.npz", images=build.noise(20, 6, 9, 3), labels=[0, 1] * 10)
    assert rule_of(load(tmp_path / "x.npz").train) == ImageRule(6, 9, 3)
    padded = load(tmp_path / "x.npz", aspect="pad")
    assert rule_of(padded.train) == ImageRule(6, 9, 3, aspect="pad")
    assert padded.fingerprint == load(tmp_path / "x.npz").fingerprint


def test_an_aspect_that_is_nearly_known_is_proposed():
    with pytest.raises(RecipeError, match=r"aspect is 'padd', expected .* did you mean pad"):
        load("shapes", aspect="padd")


def test_data_dir_is_where_decoded_images_are_kept(tmp_path, cache):
    load(build.two_classes(tmp_path / "pets", 20), data_dir=tmp_path / "mine")
    assert (tmp_path / "mine" / "decoded").is_dir() and not cache.exists()


def test_strict_and_progress_reach_the_decoder(tmp_path):
    root = build.two_classes(tmp_path / "pets", 20)
    steps = []
    load(root, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (80, 80)
    (root / "cat" / "broken.png").write_bytes(b"?")
    splits = load(root)
    assert [Path(one.path).name for one in splits.train.skipped] == ["broken.png"]
    assert "1 images could not be read and were set aside" in splits.notes
    with pytest.raises(DataError, match="1 images cannot be read"):
        load(root, strict=True)


def test_every_known_name_has_a_reader():
    assert set(KNOWN_NAMES) == {"fashion-mnist", "mnist", "cifar10", "cifar100", "shapes"}
    assert set(_KNOWN) == set(KNOWN_NAMES) - {"shapes"}


# --- how it lies in memory


def test_carved_parts_lie_in_one_array_so_that_training_needs_no_second_copy(tmp_path):
    splits = load(npz(tmp_path / "x.npz"))
    apart = [splits.train.images, splits.val.images]
    together = joined(apart)
    assert all(np.shares_memory(together, part) for part in apart)
    np.testing.assert_array_equal(together, np.concatenate(apart))


def test_parts_that_are_no_neighbours_are_copied_together():
    array, other = build.noise(6, 4, 4, 3), build.noise(2, 4, 4, 3, seed=1)
    for apart in (
        [array[:2], other],  # of two arrays
        [array[2:], array[:2]],  # the wrong way round
        [array[:2], array[3:]],  # with a gap
        [array[:4:2], array[4:]],  # with gaps inside
    ):
        together = joined(apart)
        assert not np.shares_memory(together, array)
        np.testing.assert_array_equal(together, np.concatenate(apart))


def test_one_part_is_joined_to_itself_and_nothing_can_be_written_to_neighbours():
    array = build.noise(6, 4, 4, 3)
    assert joined([array]) is array
    assert not joined([array[:4], array[4:]]).flags.writeable
