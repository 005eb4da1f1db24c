from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from builders_data import encoded, noise
from tinylens.data import decode_pool
from tinylens.data.decode_pool import open_pool
from tinylens.data.decode_worker import MAX_FILE_BYTES, Item
from tinylens.data.images import ImageRule, decode
from tinylens.errors import DataError

RULE = ImageRule(8, 8, 3)


def items_in(folder: Path, count: int) -> list[Item]:
    """Pictures one after the other in one file."""
    items, position = [], 0
    with (folder / "heap.bin").open("wb") as heap:
        for number in range(count):
            content = encoded(noise(8, 8, 3, seed=number))
            items.append(Item(str(folder / "heap.bin"), position, len(content)))
            position += heap.write(content)
    return items


def blank(folder: Path, count: int) -> Path:
    path = folder / "images.npy"
    np.save(path, np.zeros((count, *RULE.shape), np.uint8))
    return path


@pytest.mark.parametrize("workers", [1, 3])
def test_every_row_is_decoded_where_it_belongs(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(decode_pool, "STRETCH", 7)
    items, rows, done = items_in(tmp_path, 50), blank(tmp_path, 50), []
    with open_pool(items, tmp_path, workers) as pool:
        surveyed = pool.survey(done.append)
        outcome = pool.decode(RULE, rows, done.append)
    expected = np.stack([decode(item.content(), RULE).image for item in items])
    assert np.array_equal(np.load(rows), expected)
    assert np.array_equal(expected, [noise(8, 8, 3, seed=n) for n in range(50)])
    assert {(s.width, s.height, s.grey, s.reason) for s in surveyed} == {(8, 8, False, "")}
    assert len({s.digest for s in surveyed}) == 50
    assert (outcome.broken, outcome.notes) == ([], [])
    assert done == [7, 14, 21, 28, 35, 42, 49, 50] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_pictures_are_told_with_their_row_and_the_rest_is_decoded(tmp_path, workers):
    items = items_in(tmp_path, 4)
    items[1] = Item(str(tmp_path / "nowhere.png"))
    items[2] = Item(items[2].path, items[2].offset, 20)
    rows = blank(tmp_path, 4)
    with open_pool(items, tmp_path, workers) as pool:
        outcome = pool.decode(RULE, rows, lambda _: None)
    assert outcome.broken[0] == (1, "cannot be read: No such file or directory")
    assert outcome.broken[1][0] == 2 and outcome.broken[1][1].startswith("broken PNG")
    assert [bool(row.any()) for row in np.load(rows)] == [True, False, False, True]


def test_a_process_that_dies_is_replaced_and_its_stretch_done_again(tmp_path):
    items, rows = items_in(tmp_path, 6), blank(tmp_path, 6)
    with open_pool(items, tmp_path, workers=2) as pool:
        crew = pool.answers.__self__
        for member in crew._members:
            member.kill()
        pool.decode(RULE, rows, lambda _: None)
        assert len(crew._members) == 3  # one stretch needed one new process
    assert np.array_equal(np.load(rows)[5], noise(8, 8, 3, seed=5))


def test_a_process_that_dies_twice_is_an_error_and_no_hang(tmp_path, monkeypatch):
    dies = [sys.executable, "-c", "import sys; sys.stdin.readline(); sys.exit(9)"]
    monkeypatch.setattr(decode_pool, "_command_line", lambda _: dies)
    items = items_in(tmp_path, 6)
    with (
        open_pool(items, tmp_path, workers=2) as pool,
        pytest.raises(DataError, match="ended with code 9, twice, between pictures 0 and 6"),
    ):
        pool.survey(lambda _: None)


def test_no_process_outlives_the_pool(tmp_path):
    with open_pool(items_in(tmp_path, 2), tmp_path, workers=2) as pool:
        members = pool.answers.__self__._members
        assert all(member.poll() is None for member in members)
    assert all(member.poll() is not None for member in members)


def test_a_worker_ends_when_its_input_does(tmp_path):
    listed = tmp_path / "items.json"
    listed.write_text(json.dumps([]))
    done = subprocess.run(
        decode_pool._command_line(listed),
        input=b"",
        capture_output=True,
        timeout=30,
        env=decode_pool._environment(),
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_module_in_the_current_folder_is_not_taken_for_one_of_pythons(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit(5)")
    monkeypatch.chdir(tmp_path)
    with open_pool(items_in(tmp_path, 2), tmp_path, workers=2) as pool:
        assert len(pool.survey(lambda _: None)) == 2


def test_a_script_without_a_main_guard_can_decode_with_many_processes(tmp_path):
    items = items_in(tmp_path, 4)
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from tinylens.data.decode_pool import open_pool\n"
        "from tinylens.data.decode_worker import Item\n"
        f"items = [Item(*each) for each in {[(i.path, i.offset, i.length) for i in items]}]\n"
        f"with open_pool(items, Path({str(tmp_path)!r}), 2) as pool:\n"
        "    print(len(pool.survey(lambda done: None)))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env=decode_pool._environment(),
        check=False,
    )
    assert (done.stdout, done.stderr) == ("4\n", "")


def test_a_file_too_large_for_a_picture_is_not_read_whole(tmp_path):
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 10)  # takes no space
    with pytest.raises(DataError, match="larger than 256,000,000 bytes"):
        Item(str(large)).content()
