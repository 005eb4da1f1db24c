"""The processes that try recipes, as the search sees them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinylens.cores import core_count
from tinylens.errors import RecipeError, RunError
from tinylens.recipe import Recipe

SECONDS_TO_LEAVE = 5.0  # a process that is told to end is killed after them
MOST_DEATHS = 3  # of processes in a row, none of which finished a training
MOST_JOBS = 8  # by default; of more the estimator hears too late to learn from them
GPU = Path("/dev/nvidia0")


@dataclass(frozen=True)
class Task:
    """A recipe to be tried.

    Attributes:
        name: of the training, never used twice.
        recipe: what is trained.
        seconds: that it may take, from which its epochs follow; None for the recipe's own.
    """

    name: str
    recipe: Recipe
    seconds: float | None


@dataclass
class Member:
    """A process, and what it is doing."""

    number: int
    processors: list[int]
    process: subprocess.Popen[str]
    task: Task | None = None


@dataclass
class Crew:
    """Processes that share the processors fairly; a dead one is replaced.

    Attributes:
        settings: told to each process: folder, backend, precision.
        shares: the processors of each.
        log: the folder of what they write to stderr.
    """

    settings: Mapping[str, Any]
    shares: Sequence[list[int]]
    log: Path
    members: list[Member] = field(default_factory=list)
    deaths: int = 0
    _heard: queue.SimpleQueue[tuple[Member, dict[str, Any] | None]] = field(
        default_factory=queue.SimpleQueue
    )

    def hire(self) -> None:
        """Start all processes."""
        self.log.mkdir(parents=True, exist_ok=True)
        self.members = [self._start(number) for number in range(len(self.shares))]

    @property
    def idle(self) -> list[Member]:
        """The processes that have nothing to do."""
        return [member for member in self.members if member.task is None]

    @property
    def busy(self) -> list[Member]:
        """The processes that train."""
        return [member for member in self.members if member.task is not None]

    def give(self, member: Member, task: Task) -> None:
        """Let a process train; that it is dead is heard of by `next`."""
        member.task = task
        recipe = task.recipe.model_dump(mode="json")
        command = {"do": "train", "name": task.name, "recipe": recipe, "seconds": task.seconds}
        self._write(member, command)

    def give_up(self, task: Task) -> None:
        """Let whoever trains this end it after the step in hand; it answers "pruned"."""
        for member in self.members:
            if member.task is task:
                self._write(member, {"do": "give up", "name": task.name})

    def next(self, seconds: float) -> tuple[Task, dict[str, Any]] | None:
        """Return what a process has to say of its training; None where nothing came in time.

        A process that died says "died", and another one takes its place.

        Raises:
            RunError: several died, one after the other.
        """
        try:
            member, message = self._heard.get(timeout=seconds)
        except queue.Empty:
            return None
        if member not in self.members:
            return None
        task = member.task
        if message is None:
            self._replace(member)
            return (task, {"event": "died"}) if task else None
        if task is None or message.get("name") != task.name:
            return None
        if message["event"] != "epoch":
            member.task, self.deaths = None, 0
        return task, message

    def dismiss(self) -> None:
        """End all processes: by the end of their stdin, then by force."""
        members, self.members = self.members, []
        for member in members:
            with contextlib.suppress(OSError):
                member.process.stdin.close()  # type: ignore[union-attr]  # a pipe, see _start
        for member in members:
            try:
                member.process.wait(SECONDS_TO_LEAVE)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()

    def _start(self, number: int) -> Member:
        settings = {**self.settings, "processors": self.shares[number]}
        command = [sys.executable, "-m", "tinylens.tuning.worker", json.dumps(settings)]
        with (self.log / f"{number + 1}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the search, which ends them well
            )
        member = Member(number, self.shares[number], process)
        threading.Thread(target=self._listen, args=(member,), daemon=True).start()
        return member

    def _listen(self, member: Member) -> None:
        with member.process.stdout as lines:  # type: ignore[union-attr]  # a pipe, see _start
            for line in lines:
                self._heard.put((member, json.loads(line)))
        self._heard.put((member, None))

    def _replace(self, member: Member) -> None:
        self.deaths += 1
        member.process.wait()
        with contextlib.suppress(OSError):
            member.process.stdin.close()  # type: ignore[union-attr]  # a pipe, see _start
        if self.deaths >= MOST_DEATHS:
            raise RunError(
                f"{self.deaths} processes that try recipes died one after the other, the last with "
                f"exit code {member.process.returncode}: {self._last_words(member)}; is there "
                "enough memory? fewer at a time: --jobs 1"
            )
        self.members[self.members.index(member)] = self._start(member.number)

    def _last_words(self, member: Member) -> str:
        text = (self.log / f"{member.number + 1}.log").read_text("utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else "without a word"

    @staticmethod
    def _write(member: Member, command: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # dead: `next` hears of it
            member.process.stdin.write(json.dumps(command) + "\n")  # type: ignore[union-attr]
            member.process.stdin.flush()  # type: ignore[union-attr]  # a pipe, see _start


@contextlib.contextmanager
def hired(settings: Mapping[str, Any], jobs: int, log: Path) -> Iterator[Crew]:
    """Yield a crew of so many processes, which end with the block."""
    crew = Crew(settings, shares(jobs), log)
    try:
        crew.hire()
        yield crew
    finally:
        crew.dismiss()


def default_jobs() -> int:
    """Return how many trainings at a time make the best of this machine.

    One a core: side by side small networks train on more pictures a second than one after the
    other on all cores (benchmarks/tune_jobs.py). A GPU is for one at a time.
    """
    return 1 if GPU.exists() else max(min(core_count(), MOST_JOBS), 1)


def shares(jobs: int) -> list[list[int]]:
    """Return the processors of each of so many processes: as many for each, neighbours together.

    Raises:
        RecipeError: fewer than 1, or more than there are processors.
    """
    if hasattr(os, "sched_getaffinity"):
        numbers = sorted(os.sched_getaffinity(0))
    else:
        numbers = list(range(os.cpu_count() or 1))
    if not 1 <= jobs <= len(numbers):
        raise RecipeError(f"--jobs {jobs}: expected 1 to {len(numbers)}, a processor for each")
    size = len(numbers) // jobs
    return [numbers[place * size : (place + 1) * size] for place in range(jobs)]
