"""Files appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinylens import files

DIE_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from tinylens import files

def write(file):
    file.write(b"half of the new content")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

files.write_with(Path(sys.argv[1]), write)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@given(content=st.binary(max_size=300))
def test_what_is_written_is_read(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("files") / "deeper" / "x.bin"
    files.write_bytes(path, content)
    assert path.read_bytes() == content
    assert names(path.parent) == ["x.bin"]


def test_text_is_utf_8(tmp_path):
    files.write_text(tmp_path / "x.txt", "ä → ☃\n")
    assert (tmp_path / "x.txt").read_bytes() == "ä → ☃\n".encode()


def test_a_write_that_raises_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    files.write_text(path, "old")

    def write(file):
        file.write(b"new and lon")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        files.write_with(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    files.write_text(path, "old")
    died = subprocess.run([sys.executable, "-c", DIE_WHILE_WRITING, str(path)], check=False)
    assert died.returncode == -9
    assert path.read_text() == "old"
    leftover = [name for name in names(tmp_path) if name != "x.txt"]
    assert len(leftover) == 1
    assert leftover[0].startswith(files.TEMPORARY_PREFIX)


def test_a_new_file_appears_when_its_block_ends(tmp_path):
    with files.new_file(tmp_path / "x.txt") as file:
        file.write(b"whole")
        assert not (tmp_path / "x.txt").exists()
    assert (tmp_path / "x.txt").read_bytes() == b"whole"


def test_a_new_folder_appears_when_its_block_ends(tmp_path):
    with files.new_folder(tmp_path / "set") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "x.txt").write_text("x")
        assert not (tmp_path / "set").exists()
    assert (tmp_path / "set" / "inner" / "x.txt").read_text() == "x"
    assert names(tmp_path) == ["set"]


def test_a_new_folder_whose_block_raises_never_appears(tmp_path):
    with pytest.raises(KeyError), files.new_folder(tmp_path / "set") as folder:
        (folder / "x.txt").write_text("x")
        raise KeyError
    assert names(tmp_path) == []


def test_of_two_folders_of_one_name_the_first_stays(tmp_path):
    with files.new_folder(tmp_path / "set") as second:
        with files.new_folder(tmp_path / "set") as first:
            (first / "first.txt").write_text("")
        (second / "second.txt").write_text("")
    assert names(tmp_path) == ["set"]
    assert names(tmp_path / "set") == ["first.txt"]


def test_a_folder_does_not_replace_a_file_of_its_name(tmp_path):
    (tmp_path / "set").write_text("a file")
    with pytest.raises(OSError, match="set"), files.new_folder(tmp_path / "set"):
        pass
    assert (tmp_path / "set").read_text() == "a file"
    assert names(tmp_path) == ["set"]


def test_readers_see_one_whole_content_or_the_other_while_it_is_replaced(tmp_path):
    path = tmp_path / "x.bin"
    contents = {bytes([value]) * 200_000 for value in range(4)}
    files.write_bytes(path, b"\x00" * 200_000)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for content in contents:
                files.write_bytes(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {path.read_bytes() for _ in range(200)}
    finally:
        stop.set()
        writer.join()
    assert seen <= contents


def test_a_long_name_still_has_a_temporary_one(tmp_path):
    path = tmp_path / ("x" * 250)
    files.write_bytes(path, b"x")
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_finished_takes_the_place_of_what_was_there(kind, tmp_path):
    old, new = tmp_path / "x", tmp_path / ".tmp-x"
    for path, content in ((old, "old"), (new, "new")):
        if kind == "folder":
            path.mkdir()
        (path / content if kind == "folder" else path).write_text(content)
    files.replace(new, old)
    assert names(tmp_path) == ["x"]
    assert (old / "new" if kind == "folder" else old).read_text() == "new"


def test_a_killed_process_s_files_and_folders_are_removed(tmp_path):
    (tmp_path / ".tmp-1-folder").mkdir()
    (tmp_path / ".tmp-1-folder" / "x").touch()
    (tmp_path / ".tmp-2-file").touch()
    (tmp_path / "kept").touch()
    files.remove_leftovers(tmp_path, tmp_path / "not there")
    assert names(tmp_path) == ["kept"]


def test_numbered_folders_are_found_by_their_stem(tmp_path):
    for name in ("run-1", "run-12", "run-012", "run-x", "other-3"):
        (tmp_path / name).mkdir()
    (tmp_path / "run-7").touch()  # no folder
    found = sorted(files.numbered(tmp_path, "run"))
    assert found == [(1, tmp_path / "run-1"), (12, tmp_path / "run-12")]
    assert list(files.numbered(tmp_path / "not there", "run")) == []
