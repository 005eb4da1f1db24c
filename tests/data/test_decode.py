"""Many images are read and decoded in processes that may die, and that nobody outlives."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from builders_data import encoded, noise
from tinylens.data import decode as decoding
from tinylens.data.decode import MAX_FILE_BYTES, Found, Item, Pool, Target, open_pool
from tinylens.data.images import ImageRule, decode
from tinylens.errors import DataError

RULE = ImageRule(8, 8, 3)


def items_in(folder: Path, count: int) -> list[Item]:
    """Images one after the other in one file."""
    items, position = [], 0
    with (folder / "heap.bin").open("wb") as heap:
        for number in range(count):
            content = encoded(noise(8, 8, 3, seed=number))
            items.append(Item(str(folder / "heap.bin"), position, len(content)))
            position += heap.write(content)
    return items


def target(folder: Path, count: int, *, any_size: bool = True, plain: bool = True) -> Target:
    np.save(folder / "images.npy", np.zeros((count, *RULE.shape), np.uint8))
    return Target(RULE, any_size, plain, str(folder / "images.npy"))


def examined(
    pool: Pool, items: list[Item], wanted: Target | None = None, stretch: int = 7
) -> list[Found]:
    pool.expect(len(items))
    return list(pool.examine(items, range(0, len(items), stretch), stretch, wanted))


@pytest.mark.parametrize("workers", [1, 3])
def test_every_row_is_decoded_where_it_belongs(tmp_path, workers):
    items = items_in(tmp_path, 50)
    with open_pool(workers) as pool:
        found = examined(pool, items, target(tmp_path, 50))
    expected = np.stack([decode(item.content(), RULE).image for item in items])
    assert np.array_equal(np.load(tmp_path / "images.npy"), expected)
    assert np.array_equal(expected, [noise(8, 8, 3, seed=n) for n in range(50)])
    assert [len(each.digests) for each in found] == [7] * 7 + [1]
    assert [digest for each in found for digest in each.digests] == [
        hashlib.sha256(item.content()).hexdigest() for item in items
    ]
    assert all(not (each.broken or each.notes or each.left) for each in found)
    assert sum(each.sizes[8, 8, False] for each in found) == 50


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_images_are_told_with_their_row_and_the_rest_is_decoded(tmp_path, workers):
    items = items_in(tmp_path, 4)
    items[1] = Item(str(tmp_path / "nowhere.png"))
    items[2] = Item(items[2].path, items[2].offset, 20)
    with open_pool(workers) as pool:
        (found,) = examined(pool, items, target(tmp_path, 4))
    assert found.broken[0] == (1, "cannot be read: No such file or directory")
    assert found.broken[1][0] == 2 and found.broken[1][1].startswith("broken PNG")
    rows = np.load(tmp_path / "images.npy")
    assert np.array_equal(rows[[0, 3]], [noise(8, 8, 3, seed=n) for n in (0, 3)])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("plain", [True, False])
def test_what_does_not_fit_is_left_where_no_other_size_is_wanted(tmp_path, workers, plain):
    items = items_in(tmp_path, 5)
    image = tmp_path / "jpeg.jpg"
    image.write_bytes(encoded(noise(8, 8, 3, seed=9), "JPEG"))
    items[1:3] = [Item(str(image)), Item(str(image), 0, 300)]
    other_size = tmp_path / "other.png"
    other_size.write_bytes(encoded(noise(8, 9, 3)))
    items[3] = Item(str(other_size))
    with open_pool(workers) as pool:
        (found,) = examined(pool, items, target(tmp_path, 5, any_size=False, plain=plain))
    assert found.left == [3] and [row for row, _ in found.broken] == [2]
    assert found.sizes == {(8, 8, False): 3, (9, 8, False): 1}
    decoded = np.load(tmp_path / "images.npy")
    assert np.array_equal(decoded[1], decode(items[1].content(), RULE).image)
    assert np.array_equal(decoded[4], noise(8, 8, 3, seed=4))


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="Linux has such files")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_with_more_bytes_than_it_says_has_no_stamp(workers):
    with open_pool(workers) as pool:
        (found,) = examined(pool, [Item("/proc/version"), Item(__file__), Item("/nowhere")])
    status = Path(__file__).stat()
    assert found.stamps == [(-1, -1), (status.st_size, status.st_mtime_ns), (-1, -1)]
    assert [bool(digest) for digest in found.digests] == [True, True, False]


def test_a_file_too_large_for_an_image_is_not_read_whole(tmp_path):
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 10)  # takes no space
    with pytest.raises(DataError, match="larger than 256,000,000 bytes"):
        Item(str(large)).content()


@contextlib.contextmanager
def killing(times: int, first: Callable[[], object] = list) -> Iterator[list[int]]:
    """Kill decoding processes after a while, as a system without memory does."""
    killed: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.3) and len(killed) < times:
            for process in multiprocessing.active_children()[:1]:
                first()
                process.kill()
                killed.append(process.pid or 0)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def never(tmp_path) -> Path:
    """A file that is waited for: whoever opens it is there until someone writes to it."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes with names")
    os.mkfifo(tmp_path / "never.png")
    return tmp_path / "never.png"


def test_a_process_that_dies_is_replaced_and_its_work_done_again(tmp_path, never):
    items = [*items_in(tmp_path, 3), Item(str(never)), *items_in(tmp_path, 20)]
    image = tmp_path / "image.png"
    image.write_bytes(encoded(noise(8, 8, 3, seed=99)))
    with killing(1, first=lambda: image.replace(never)) as killed, open_pool(workers=2) as pool:
        found = examined(pool, items, target(tmp_path, len(items)), stretch=2)
    assert len(killed) == 1
    assert [len(each.digests) for each in found] == [2] * 12
    seeds = [0, 1, 2, 99, *range(20)]
    assert np.array_equal(
        np.load(never.with_name("images.npy")), [noise(8, 8, 3, seed=n) for n in seeds]
    )


def test_processes_that_die_twice_are_an_error_and_no_hang(never):
    with (
        killing(9),
        open_pool(workers=2) as pool,
        pytest.raises(DataError, match=r"a decoding process died, twice, at \S+never.png"),
    ):
        examined(pool, [Item(str(never))] * 2, stretch=1)
    assert not multiprocessing.active_children()


def test_no_process_outlives_the_pool(tmp_path):
    with open_pool(workers=2) as pool:
        examined(pool, items_in(tmp_path, 14))
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()


SCRIPT = """
from tinylens.data.decode import Item, open_pool
items = [Item(*each) for each in {items}]
with open_pool({workers}) as pool:
    pool.expect(len(items))
    for found in pool.examine(items, range(len(items)), 1, None):
        print(len(found.digests), flush=True)
"""


def script(folder: Path, items: list[Item]) -> list[str]:
    path = folder / "script.py"
    path.write_text(SCRIPT.format(items=[tuple(item) for item in items], workers=2))
    return [sys.executable, str(path)]


def test_a_script_without_a_main_guard_can_decode_with_many_processes(tmp_path):
    command = script(tmp_path, items_in(tmp_path, 4))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("1\n" * 4, "")


def test_a_module_in_the_current_folder_is_not_taken_for_one_of_pythons(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "selectors.py").write_text("raise SystemExit(5)")
    command = script(tmp_path, items_in(tmp_path, 2))
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path / "here"
    )
    assert (done.stdout, done.stderr) == ("1\n" * 2, "")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Linux says who is whose child")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_one_that_started_them(tmp_path, never, how):
    items = [*items_in(tmp_path, 1), *[Item(str(never))] * 8]
    with subprocess.Popen(
        script(tmp_path, items),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout and parent.stdout.readline() == "1\n"
        time.sleep(0.3)
        before = members_of(parent.pid)
        os.kill(parent.pid, how) if how == signal.SIGKILL else os.killpg(parent.pid, how)
        _, said = parent.communicate(timeout=20)
    assert len(before) >= 4  # it, what forks the others, and these
    assert said.count("Traceback") == (how == signal.SIGINT)
    for _ in range(200):
        if not members_of(parent.pid):
            return
        time.sleep(0.05)
    raise AssertionError(f"{members_of(parent.pid)} of {before} are left")


def members_of(session: int) -> list[int]:
    """The processes of a session, but for dead ones."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize(("count", "many"), [(decoding.SMALL_SET - 1, False), (10_000, True)])
def test_processes_are_started_where_many_images_are_expected(monkeypatch, count, many):
    monkeypatch.setattr(decoding, "available_cores", lambda: 3)
    with open_pool() as pool:
        pool.expect(count)
        pool.expect(count)
        examined(pool, [Item(__file__)])
        assert bool(multiprocessing.active_children()) == many
