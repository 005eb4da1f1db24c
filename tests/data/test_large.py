"""Images that do not fit into memory are the same on the disk, which nothing stays on."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from builders_data import noise
from tinylens import system
from tinylens.data import cache
from tinylens.data.dataset import Dataset, joined
from tinylens.data.load import load
from tinylens.data.readers import arrays
from tinylens.errors import DataError

COUNT = 40


@pytest.fixture
def short(monkeypatch):
    """Let nothing fit into memory, and blocks hold three images."""
    monkeypatch.setattr(system, "fits", lambda size: False)
    monkeypatch.setattr(cache, "BLOCK", 3 * 8 * 8 * 3)


def left_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_gathered_images_are_those_asked_for_and_their_file_has_no_name(tmp_path, short):
    images, rows = noise(COUNT, 8, 8, 3), np.random.default_rng(0).permutation(COUNT)[:31]
    found = cache.gathered(images, rows, tmp_path)
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, images[rows])
    assert left_in(tmp_path) == []


def test_what_fits_is_gathered_in_memory(tmp_path):
    found = cache.gathered(noise(COUNT, 8, 8, 3), np.arange(5), tmp_path)
    assert not isinstance(found, np.memmap)


def test_changed_images_are_the_same_block_by_block(tmp_path, short):
    images = noise(COUNT, 8, 8, 3)
    found = cache.changed(images, lambda some: 255 - some[:, ::2], (4, 8, 3), tmp_path)
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, 255 - images[:, ::2])


def test_a_full_disk_is_told(tmp_path, short, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="No space left on device; expected a folder"):
        cache.gathered(noise(COUNT, 8, 8, 3), np.arange(5), tmp_path)


@pytest.mark.parametrize("size", [None, 4])
def test_a_set_larger_than_memory_is_loaded_as_one_that_fits(tmp_path, monkeypatch, size):
    folder = tmp_path / "set"
    folder.mkdir()
    np.save(folder / "x_train.npy", noise(COUNT, 8, 8, 3))
    np.save(folder / "y_train.npy", np.arange(COUNT) % 2)
    fitting = load(folder, size=size, data_dir=tmp_path / "cache")
    monkeypatch.setattr(system, "fits", lambda size: False)
    mapped = load(folder, size=size, data_dir=tmp_path / "cache")
    assert mapped.fingerprint == fitting.fingerprint
    assert mapped.notes == fitting.notes
    parts = [mapped.train.images, mapped.val.images]
    assert np.shares_memory(joined(parts), mapped.train.images)


def test_a_folder_of_arrays_is_mapped_with_its_parts_and_names(tmp_path):
    for part, count in (("train", 6), ("test", 4)):
        np.save(tmp_path / f"x_{part}.npy", noise(count, 8, 8, 1, seed=count))
        np.save(tmp_path / f"y_{part}.npy", np.arange(count) % 2)
    np.save(tmp_path / "class_names.npy", np.array(["cat", "dog"]))
    found = arrays.read(tmp_path)
    assert isinstance(found.train.images, np.memmap)
    assert found.class_names == ("cat", "dog")
    whole = Dataset(noise(4, 8, 8, 1, seed=4), np.arange(4) % 2, ("cat", "dog"), "made")
    assert found.test.fingerprint == whole.fingerprint
