"""Decoding with all cores, in processes started as any program is.

Not through `multiprocessing`: its fork is unsafe once TensorFlow runs, and its spawn asks a main
guard of every user's script.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinylens import files
from tinylens.data import decode_worker
from tinylens.data.decode_worker import Item, Outcome, Surveyed
from tinylens.data.images import ImageRule
from tinylens.errors import DataError

SMALL_SET = 3_000  # below it, decoding here is done before the processes have started
STRETCH = 256  # pictures a command: about 20 ms of work at 32×32

Command = dict[str, Any]
Answer = dict[str, Any]


def available_cores() -> int:
    """Return how many processors this process may use, at most 16: the disk is then the limit."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 16)
    return min(os.cpu_count() or 1, 16)


@dataclass(frozen=True)
class Pool:
    """Looks at and decodes the pictures `items`; made by `open_pool`."""

    items: Sequence[Item]
    answers: Callable[[list[Command]], Iterator[Answer]]

    def survey(self, progress: Callable[[int], None]) -> list[Surveyed]:
        """Return what the bytes and headers say, in the order of the items.

        Raises:
            DataError: when a decoding process dies, and dies again on the same pictures.
        """
        commands: list[Command] = [{"do": "survey", **each} for each in self._stretches()]
        surveyed: list[Surveyed] = []
        for answer in self.answers(commands):
            surveyed.extend(Surveyed(*values) for values in answer["surveyed"])
            progress(len(surveyed))
        return surveyed

    def decode(self, rule: ImageRule, images: Path, progress: Callable[[int], None]) -> Outcome:
        """Decode every item into its row of the .npy file `images`; broken ones stay black.

        Raises:
            DataError: when a decoding process dies, and dies again on the same pictures.
        """
        order = {"do": "decode", "rule": rule.to_json(), "images": str(images)}
        commands: list[Command] = [{**order, **each} for each in self._stretches()]
        outcome = Outcome()
        for command, answer in zip(commands, self.answers(commands), strict=True):
            outcome.broken.extend((row, words) for row, words in answer["broken"])
            outcome.notes.extend((row, words) for row, words in answer["notes"])
            progress(command["stop"])
        return outcome

    def _stretches(self) -> Iterator[dict[str, int]]:
        for start in range(0, len(self.items), STRETCH):
            yield {"start": start, "stop": min(start + STRETCH, len(self.items))}


@contextlib.contextmanager
def open_pool(items: Sequence[Item], folder: Path, workers: int | None = None) -> Iterator[Pool]:
    """Yield a pool over `items`.

    Args:
        items: where the pictures lie.
        folder: an existing one to put the list of items in.
        workers: how many processes; 1 decodes in this one. None: as many as there are cores, or 1
            for a small set.
    """
    if workers is None:
        workers = available_cores() if len(items) >= SMALL_SET else 1
    if workers == 1:
        yield Pool(items, lambda commands: (decode_worker.answer(items, c) for c in commands))
        return
    listed = folder / "items.json"
    files.write_text(listed, json.dumps([[i.path, i.offset, i.length] for i in items]))
    crew = _Crew(_command_line(listed), workers)
    try:
        yield Pool(items, crew.answers)
    finally:
        crew.dismiss()


class _Crew:
    """Decoding processes; one that dies is replaced, once a command."""

    def __init__(self, command_line: Sequence[str], count: int) -> None:
        self._command_line = command_line
        self._members: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(self._hire())

    def answers(self, commands: list[Command]) -> Iterator[Answer]:
        """Yield the answers in the order of the commands."""
        with ThreadPoolExecutor(len(self._members)) as threads:  # each waits for one process
            yield from threads.map(self._ask, commands)

    def dismiss(self) -> None:
        """End all processes."""
        for member in self._members:
            member.kill()  # what it was at has been written, or is not wanted any more
            member.wait()
            for stream in (member.stdin, member.stdout):
                with contextlib.suppress(OSError):  # a pipe to a dead process may hold a line
                    stream and stream.close()

    def _hire(self) -> subprocess.Popen[bytes]:
        member = subprocess.Popen(
            self._command_line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        self._members.append(member)
        return member

    def _ask(self, command: Command) -> Answer:
        member = self._idle.get()
        try:
            answer = _exchange(member, command)
            if answer is None:
                member = self._hire()
                answer = _exchange(member, command)
            if answer is None:
                raise DataError(
                    f"the decoding process ended with code {member.wait()}, twice, between "
                    f"pictures {command['start']} and {command['stop']}; expected it to answer: "
                    "look for too little memory or disk space, or take these pictures out"
                )
        finally:
            self._idle.put(member)
        return answer


def _exchange(member: subprocess.Popen[bytes], command: Command) -> Answer | None:
    """Return the answer to `command`, or None when the process is gone."""
    if member.stdin is None or member.stdout is None:
        return None
    try:
        member.stdin.write(json.dumps(command).encode() + b"\n")
        member.stdin.flush()
    except OSError:
        return None
    line = member.stdout.readline()
    return json.loads(line) if line.endswith(b"\n") else None


def _command_line(listed: Path) -> list[str]:
    # -P: no file of the current folder may stand in for a module
    return [sys.executable, "-P", "-m", decode_worker.__name__, str(listed)]


def _environment() -> dict[str, str]:
    package_root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([package_root, *([inherited] if inherited else [])])
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
