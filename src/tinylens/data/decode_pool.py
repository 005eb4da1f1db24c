"""Decoding with all cores, in processes started as any program is.

Not through `multiprocessing`: its fork is unsafe once TensorFlow runs, and its spawn asks a main
guard of every user's script. On Linux one such process, in which nothing else has run, forks the
others: NumPy is then imported once, and not once for each of them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple, cast

from tinylens.data import decode_worker
from tinylens.data.decode_worker import (
    Answer,
    Command,
    CountedSize,
    Guess,
    Item,
    Outcome,
    Size,
    Survey,
)
from tinylens.data.images import ImageRule
from tinylens.errors import DataError

SMALL_SET = 3_000  # below it, decoding here is done before the processes have started
FORKS = sys.platform == "linux"  # macOS has it too, and libraries that do not bear it
STRETCH = 512  # pictures a command: about 15 ms of work at 32×32


def available_cores() -> int:
    """Return how many processors this process may use, at most 16: the disk is then the limit."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 16)
    return min(os.cpu_count() or 1, 16)


class Pool:
    """Looks at and decodes pictures, in processes once many are expected; made by `open_pool`."""

    def __init__(self, crew: _Crew, workers: int | None) -> None:
        self._crew = crew
        self._workers = workers

    def expect(self, count: int) -> None:
        """Start the processes if `count` pictures are worth it: called as early as they are known.

        A process takes a tenth of a second to start, in which 3,000 pictures can be decoded here.
        """
        workers = self._workers
        if workers is None:
            workers = available_cores() if count >= SMALL_SET else 1
        if workers > 1 and not self._crew.members:
            self._crew.hire(workers)

    def survey(
        self,
        items: Sequence[Item],
        progress: Callable[[int], None],
        guess: Guess | None = None,
    ) -> Survey:
        """Return what the bytes and headers of `items` say; decode those that `guess` fits.

        Raises:
            DataError: when a decoding process dies, and dies again on the same pictures.
        """
        told = tuple(guess) if guess else None
        commands: list[Command] = [
            {"do": "survey", "guess": told, "start": start, "items": _columns(items[start:stop])}
            for start, stop in _stretches(len(items))
        ]
        found = Survey([], [], [], [], [], [])
        for answer in self._answers(commands):
            for name, values in answer.items():
                getattr(found, name).extend(values)
            progress(len(found.digests) + len(found.digests) - len(found.left))
        return found._replace(sizes=_summed(found.sizes))

    def decode(
        self,
        items: Sequence[Item],
        numbers: Sequence[int],
        rule: ImageRule,
        images: Path,
        progress: Callable[[int], None],
    ) -> Outcome:
        """Decode the items of the rows `numbers` into the .npy file `images`.

        The rows of broken pictures stay as they are.

        Raises:
            DataError: when a decoding process dies, and dies again on the same pictures.
        """
        order = {"do": "decode", "rule": rule.to_json(), "images": str(images)}
        commands: list[Command] = [
            {**order, "numbers": some, "items": _columns([items[number] for number in some])}
            for start, stop in _stretches(len(numbers))
            for some in [list(numbers[start:stop])]
        ]
        outcome, done = Outcome([], []), 0
        for command, answer in zip(commands, self._answers(commands), strict=True):
            outcome.broken.extend(answer["broken"])
            outcome.notes.extend(answer["notes"])
            done += len(command["numbers"])
            progress(done)
        return outcome

    def _answers(self, commands: list[Command]) -> Iterator[Answer]:
        if self._crew.members:
            return self._crew.answers(commands)
        return map(decode_worker.answer, commands)


def _stretches(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, STRETCH):
        yield start, min(start + STRETCH, count)


def _summed(sizes: Iterable[CountedSize]) -> list[CountedSize]:
    """Return each size once, with how many pictures have it in all."""
    times: Counter[Size] = Counter()
    for width, height, grey, count in sizes:
        times[width, height, grey] += count
    return [(*size, count) for size, count in sorted(times.items())]


def _columns(items: Sequence[Item]) -> list[tuple[str | int, ...]]:
    """Return all paths, all offsets and so on: what marshal knows, unlike an Item."""
    return list(zip(*items, strict=True))


@contextlib.contextmanager
def open_pool(workers: int | None = None) -> Iterator[Pool]:
    """Yield a pool.

    Args:
        workers: how many processes; 1 decodes in this one. None: as many as there are cores, or 1
            for a small set.
    """
    crew = _Crew(_command_line())
    try:
        yield Pool(crew, workers)
    finally:
        crew.dismiss()


class _Member(NamedTuple):
    """A decoding process, by the pipes to and from it."""

    commands: IO[bytes]
    answers: IO[bytes]


class _Crew:
    """Decoding processes; one that dies is replaced, once a command."""

    def __init__(self, command_line: Sequence[str]) -> None:
        self.members: list[_Member] = []
        self._command_line = command_line
        self._forking: list[subprocess.Popen[bytes]] = []
        self._single: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[_Member] = queue.SimpleQueue()

    def hire(self, count: int) -> None:
        """Start `count` processes."""
        members = self._fork(count) if FORKS else [self._start()[0] for _ in range(count)]
        for member in members:
            self._idle.put(member)

    def answers(self, commands: list[Command]) -> Iterator[Answer]:
        """Yield the answers in the order of the commands."""
        with ThreadPoolExecutor(len(self.members)) as threads:  # each waits for one process
            yield from threads.map(self._ask, commands)

    def dismiss(self) -> None:
        """End all processes; what they were at has been written, or is not wanted any more."""
        for process in self._single:
            process.kill()
        for process in self._forking:
            process.stdin and process.stdin.close()  # it kills those that it has forked
        for process in (*self._single, *self._forking):
            process.wait()
        for stream in itertools.chain.from_iterable(self.members):
            with contextlib.suppress(OSError):  # a pipe to a dead process may hold a command
                stream.close()

    def _fork(self, count: int) -> list[_Member]:
        """Start a process that forks `count` members and lives as long as they are wanted."""
        commands, answers = ([os.pipe() for _ in range(count)] for _ in range(2))
        theirs = [
            (command[0], answer[1]) for command, answer in zip(commands, answers, strict=True)
        ]
        self._forking.append(
            subprocess.Popen(
                [*self._command_line, *(f"{first},{second}" for first, second in theirs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=list(itertools.chain.from_iterable(theirs)),
                env=_environment(),
            )
        )
        for descriptor in itertools.chain.from_iterable(theirs):
            os.close(descriptor)
        members = [
            _Member(os.fdopen(command[1], "wb"), os.fdopen(answer[0], "rb"))
            for command, answer in zip(commands, answers, strict=True)
        ]
        self.members.extend(members)
        return members

    def _start(self) -> tuple[_Member, subprocess.Popen[bytes]]:
        """Start one member by itself."""
        process = subprocess.Popen(
            self._command_line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        self._single.append(process)
        # both are pipes, which the type of Popen cannot say
        member = _Member(cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout))
        self.members.append(member)
        return member, process

    def _ask(self, command: Command) -> Answer:
        member = self._idle.get()
        try:
            answer = _exchange(member, command)
            if answer is None:
                member, process = self._start()
                answer = _exchange(member, command)
                if answer is None:
                    paths = command["items"][0]
                    raise DataError(
                        f"the decoding process ended with code {process.wait()}, twice, between "
                        f"{paths[0]} and {paths[-1]}; expected it to answer: look for too little "
                        "memory or disk space, or take these pictures out"
                    )
        finally:
            self._idle.put(member)
        return answer


def _exchange(member: _Member, command: Command) -> Answer | None:
    """Return the answer to `command`, or None when the process is gone."""
    try:
        decode_worker.send(command, member.commands)
    except OSError:
        return None
    return decode_worker.receive(member.answers)


def _command_line() -> list[str]:
    # -P: no file of the current folder may stand in for a module
    return [sys.executable, "-P", "-m", decode_worker.__name__]


def _environment() -> dict[str, str]:
    package_root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([package_root, *([inherited] if inherited else [])])
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
