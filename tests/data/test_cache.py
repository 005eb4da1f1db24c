from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest

from tinylens.data.cache import (
    LEFTOVER_SECONDS,
    cache_root,
    find,
    find_by_key,
    key_of,
    point,
    store,
)
from tinylens.errors import DataError

KEY = key_of("a set")
ROOT_MAY_WRITE = os.name == "posix" and os.geteuid() == 0


def put(root, value=7):
    def write(folder):
        np.save(folder / "images.npy", np.full((3, 2, 2, 1), value, np.uint8))
        np.save(folder / "labels.npy", np.array([0, 1, 0]))
        return {"told": "once"}

    store(root, KEY, write)


def test_what_is_stored_is_found_mapped_and_whole(tmp_path):
    put(tmp_path)
    point(tmp_path, "5" * 64, KEY)
    stored = find(tmp_path, "5" * 64)
    assert isinstance(stored.images, np.memmap) and not stored.images.flags.writeable
    assert stored.images.max() == 7 and stored.labels.tolist() == [0, 1, 0]
    assert stored.meta["told"] == "once"


def test_an_unknown_signature_finds_nothing(tmp_path):
    assert find(tmp_path, "5" * 64) is None


@pytest.mark.parametrize("key", ["", "../../elsewhere", "z" * 64, "\xff"])
def test_a_pointer_that_is_no_key_finds_nothing(tmp_path, key):
    (tmp_path / "signatures").mkdir()
    (tmp_path / "signatures" / "s").write_text(key, "latin1")
    assert find(tmp_path, "s") is None


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "empty"])
def test_a_damaged_set_is_removed_and_not_used(tmp_path, name, damage):
    put(tmp_path)
    file = tmp_path / "decoded" / KEY / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-5] if damage == "cut" else b"")
    assert find_by_key(tmp_path, KEY) is None
    assert not (tmp_path / "decoded" / KEY).exists()
    put(tmp_path, 9)
    assert find_by_key(tmp_path, KEY).images.max() == 9


def test_a_set_of_another_type_is_not_used(tmp_path):
    put(tmp_path)
    folder = tmp_path / "decoded" / KEY
    np.save(folder / "images.npy", np.zeros((3, 2, 2, 1), np.int8))  # as many bytes
    assert find_by_key(tmp_path, KEY) is None


def test_an_error_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        store(tmp_path, KEY, lambda folder: (_ for _ in ()).throw(RuntimeError))
    assert list((tmp_path / "decoded").iterdir()) == []


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path):
    def write(folder):
        (folder / "images.npy").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"No space left on device; .*--data-dir FOLDER"):
        store(tmp_path, KEY, write)
    assert list((tmp_path / "decoded").iterdir()) == []


def test_leftovers_of_killed_processes_go_after_a_day_and_not_before(tmp_path):
    old, young = tmp_path / "decoded" / ".tmp-old", tmp_path / "decoded" / ".tmp-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "images.npy").write_bytes(b"x")
    a_day_ago = time.time() - LEFTOVER_SECONDS - 10
    os.utime(old, (a_day_ago, a_day_ago))
    put(tmp_path)
    assert not old.exists() and young.exists()


def test_keys_tell_values_apart():
    assert key_of("ab", "c") != key_of("a", "bc")
    assert json.dumps(key_of(1)) == json.dumps(key_of(1))


# --- where it is


def test_the_folder_named_goes_before_the_environment_and_that_before_the_users(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("TINYLENS_CACHE", raising=False)
    assert cache_root().parent.parent == tmp_path or cache_root().name == "tinylens"
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "environment"))
    assert cache_root() == tmp_path / "environment"
    assert cache_root(tmp_path / "named") == tmp_path / "named"
    assert (tmp_path / "named").is_dir()


def test_a_file_in_the_way_is_a_sentence_that_names_the_option(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot keep data in .*--data-dir .*TINYLENS_CACHE"):
        cache_root(tmp_path / "file" / "cache")


@pytest.mark.skipif(ROOT_MAY_WRITE, reason="root may write everywhere")
def test_a_read_only_folder_is_a_sentence_that_names_the_option(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=r"not writable; .*--data-dir"):
        cache_root(tmp_path)


def test_without_a_home_there_is_no_temporary_folder_instead(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "TINYLENS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user unknown to it
    with pytest.raises(
        DataError, match=r"cannot keep data in the user's cache: .*HOME.*--data-dir"
    ):
        cache_root()
