from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from builders_data import encoded, noise
from tinylens.data import decode_pool
from tinylens.data.decode_pool import Pool, open_pool
from tinylens.data.decode_worker import MAX_FILE_BYTES, Guess, Item
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
    with open_pool(workers) as pool:
        pool.expect(50)
        surveyed = pool.survey(items, done.append)
        outcome = pool.decode(items, range(50), RULE, rows, done.append)
    expected = np.stack([decode(item.content(), RULE).image for item in items])
    assert np.array_equal(np.load(rows), expected)
    assert np.array_equal(expected, [noise(8, 8, 3, seed=n) for n in range(50)])
    assert (surveyed.sizes, surveyed.broken, surveyed.notes) == ([(8, 8, False, 50)], [], [])
    assert surveyed.digests == [hashlib.sha256(item.content()).hexdigest() for item in items]
    assert surveyed.left == list(range(50))
    assert (outcome.broken, outcome.notes) == ([], [])
    assert done == [7, 14, 21, 28, 35, 42, 49, 50] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_pictures_are_told_with_their_row_and_the_rest_is_decoded(tmp_path, workers):
    items = items_in(tmp_path, 4)
    items[1] = Item(str(tmp_path / "nowhere.png"))
    items[2] = Item(items[2].path, items[2].offset, 20)
    rows = blank(tmp_path, 4)
    with open_pool(workers) as pool:
        pool.expect(4)
        outcome = pool.decode(items, range(4), RULE, rows, lambda _: None)
    assert outcome.broken[0] == (1, "cannot be read: No such file or directory")
    assert outcome.broken[1][0] == 2 and outcome.broken[1][1].startswith("broken PNG")
    assert [bool(row.any()) for row in np.load(rows)] == [True, False, False, True]


def workers_of(pool: Pool) -> list[int]:
    """The forked processes, by number, once all are there."""
    (forking,) = pool._crew._forking
    children = Path(f"/proc/{forking.pid}/task/{forking.pid}/children")
    for _ in range(1_000):
        found = children.read_text().split()
        if len(found) == len(pool._crew.members):
            return list(map(int, found))
        time.sleep(0.01)
    raise AssertionError(f"{found} of {len(pool._crew.members)} processes")


def kill_the_workers(pool: Pool) -> None:
    if decode_pool.FORKS:
        for worker in workers_of(pool):
            os.kill(worker, signal.SIGKILL)
    for process in pool._crew._single:
        process.kill()


@pytest.fixture(params=[True, False], ids=["forked", "started"])
def forks(request, monkeypatch):
    if request.param and not decode_pool.FORKS:
        pytest.skip("processes are forked on Linux alone")
    monkeypatch.setattr(decode_pool, "FORKS", request.param)


@pytest.mark.usefixtures("forks")
def test_a_process_that_dies_is_replaced_and_its_stretch_done_again(tmp_path):
    items, rows = items_in(tmp_path, 6), blank(tmp_path, 6)
    with open_pool(workers=2) as pool:
        pool.expect(6)
        kill_the_workers(pool)
        pool.decode(items, range(6), RULE, rows, lambda _: None)
        assert len(pool._crew.members) == 3  # one stretch needed one new process
    assert np.array_equal(np.load(rows)[5], noise(8, 8, 3, seed=5))


@pytest.mark.usefixtures("forks")
def test_a_process_that_dies_twice_is_an_error_and_no_hang(tmp_path, monkeypatch):
    dies = [sys.executable, "-c", "import sys; sys.argv[1:] or sys.stdin.read(1); sys.exit(9)"]
    monkeypatch.setattr(decode_pool, "_command_line", lambda: dies)
    items = items_in(tmp_path, 6)
    with (
        open_pool(workers=2) as pool,
        pytest.raises(DataError, match=r"ended with code 9, twice, between \S+ and \S+heap.bin;"),
    ):
        pool.expect(6)
        pool.survey(items, lambda _: None)


@pytest.mark.usefixtures("forks")
def test_no_process_outlives_the_pool():
    with open_pool(workers=2) as pool:
        pool.expect(2)
        processes = [*pool._crew._forking, *pool._crew._single]
        assert all(process.poll() is None for process in processes)
        workers = workers_of(pool) if decode_pool.FORKS else []
    assert all(process.poll() is not None for process in processes)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


def test_a_worker_ends_when_its_input_does():
    done = subprocess.run(
        decode_pool._command_line(),
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
    with open_pool(workers=2) as pool:
        pool.expect(2)
        assert len(pool.survey(items_in(tmp_path, 2), lambda _: None).digests) == 2


def test_a_script_without_a_main_guard_can_decode_with_many_processes(tmp_path):
    items = items_in(tmp_path, 4)
    script = tmp_path / "script.py"
    script.write_text(
        "from tinylens.data.decode_pool import open_pool\n"
        "from tinylens.data.decode_worker import Item\n"
        f"items = [Item(*each) for each in {[tuple(item) for item in items]}]\n"
        "with open_pool(2) as pool:\n"
        "    pool.expect(4)\n"
        "    print(len(pool.survey(items, lambda done: None).digests))\n"
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


@pytest.mark.parametrize(("count", "processes"), [(decode_pool.SMALL_SET - 1, 0), (10_000, 3)])
def test_processes_are_started_once_many_pictures_are_expected(monkeypatch, count, processes):
    monkeypatch.setattr(decode_pool, "available_cores", lambda: 3)
    with open_pool() as pool:
        pool.expect(count)
        pool.expect(count)
        assert len(pool._crew.members) == processes


def test_a_process_starts_without_pillow_and_what_else_takes_time():
    loaded = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            "import tinylens.data.decode_worker, sys; print(*sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
        env=decode_pool._environment(),
    )
    assert not {"PIL", "pydantic", "rich", "tinylens.data.images"} & set(loaded.stdout.split())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("plain", [True, False])
def test_what_fits_the_guess_is_decoded_in_the_first_pass(tmp_path, workers, plain):
    items, rows = items_in(tmp_path, 5), blank(tmp_path, 5)
    picture = tmp_path / "jpeg.jpg"
    picture.write_bytes(encoded(noise(8, 8, 3, seed=9), "JPEG"))
    items[1:3] = [Item(str(picture)), Item(str(picture), 0, 300)]
    other_size = tmp_path / "other.png"
    other_size.write_bytes(encoded(noise(8, 9, 3)))
    items[3] = Item(str(other_size))
    with open_pool(workers) as pool:
        pool.expect(5)
        guess = Guess(RULE.to_json(), any_size=False, plain=plain, images=str(rows))
        surveyed = pool.survey(items, lambda _: None, guess)
    assert surveyed.left + [row for row, _ in surveyed.broken] == [3, 2]
    assert surveyed.sizes == [(8, 8, False, 3), (9, 8, False, 1)]
    decoded = np.load(rows)
    assert np.array_equal(decoded[1], decode(items[1].content(), RULE).image)
    assert np.array_equal(decoded[4], noise(8, 8, 3, seed=4))
    assert not decoded[2].any() and not decoded[3].any()


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="Linux has such files")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_with_more_bytes_than_it_says_has_no_stamp(workers):
    with open_pool(workers) as pool:
        pool.expect(2)
        items = [Item("/proc/version"), Item(__file__), Item("/nowhere")]
        surveyed = pool.survey(items, lambda _: None)
    status = Path(__file__).stat()
    assert [list(stamp) for stamp in surveyed.stamps] == [
        [-1, -1],
        [status.st_size, status.st_mtime_ns],
        [-1, -1],
    ]
    assert [bool(digest) for digest in surveyed.digests] == [True, True, False]
