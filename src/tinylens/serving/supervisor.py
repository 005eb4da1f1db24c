"""The process in front: it starts workers, hands them connections, and swaps their models.

It computes nothing, so it answers for the server's health whatever a worker is doing, and a worker
that dies or hangs takes down no more than its own connections.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinylens import errors
from tinylens.serving import process
from tinylens.serving.channel import Message
from tinylens.serving.counters import Counts, merge
from tinylens.serving.door import Door
from tinylens.serving.options import Options
from tinylens.serving.process import Process
from tinylens.serving.shelf import Shelf

HUNG_SECONDS = 10.0  # without a word from a worker, or beyond the deadline at one batch
QUIET_SECONDS = 1.5  # from which on others get the connections
COUNT_SECONDS = 1.0  # to wait for the counts of a worker
LOAD_SECONDS = 120.0  # to wait for a worker that loads a model
FIRST_BACK_OFF, LONGEST_BACK_OFF = 0.1, 30.0  # seconds before a worker is started again
FORGET_SECONDS = 60.0  # after which an end counts no more for the back-off
GAUGES = ("waiting", "slow_waiting", "workers", "recent")  # of the living alone


@dataclass(frozen=True)
class Started:
    """What runs once all workers answer.

    Attributes:
        port: that is listened on.
        models: SHA-256 by name.
        workers: process ids.
    """

    port: int
    models: dict[str, str]
    workers: list[int]


class Supervisor:
    """A server.

    Args:
        options: what it is told.
        shelf: the models' files.
        say: is given a sentence where something happens.
    """

    def __init__(self, options: Options, shelf: Shelf, say: Callable[[str], None]) -> None:
        self._options, self._shelf, self._say = options, shelf, say
        self._workers: list[Process] = []
        self._ends: collections.deque[float] = collections.deque(maxlen=64)
        self._departed: Counts = {}
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._failure: errors.TinylensError | None = None
        self._reloading = asyncio.Lock()
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._draining = False

    async def run(self, started: Callable[[Started], None]) -> int:
        """Serve until a signal; return the exit code.

        Args:
            started: called once all workers answer.

        Raises:
            TinylensError: the address or a model cannot be had.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._task(self._reload_all()))
        door = Door(self._options.host, self._options.port, self._choose)
        try:  # whatever happens, no process is left behind
            for _ in range(self._options.workers):
                self._task(self._keep_one())
            await self._all_ready()
            if not self._ending.is_set():
                pids = [worker.process.pid for worker in self._workers]
                started(Started(door.port, self._shelf.models, pids))
            self._task(self._watch())
            await self._ending.wait()
            return await self._drain(door)
        finally:
            door.close()
            await self._end_all()

    # --- beginning and ending

    def _end(self) -> None:
        if self._ending.is_set():
            self._hurry.set()
        self._ending.set()
        self._changed.set()

    async def _all_ready(self) -> None:
        while sum(one.ready for one in self._workers) < self._options.workers:
            self._changed.clear()
            await self._changed.wait()
            if self._failure is not None:
                raise self._failure
            if self._ending.is_set():
                return

    async def _drain(self, door: Door) -> int:
        """Let all workers answer what they have, then end."""
        self._draining = True
        door.close()
        for worker in self._workers:
            worker.channel.send(do="drain")
        seconds = self._options.limits.drain_seconds + 2
        waiting = [asyncio.ensure_future(one.process.wait()) for one in self._workers]
        hurry = asyncio.ensure_future(self._hurry.wait())
        gone = asyncio.gather(*waiting, door.finish())
        both: list[asyncio.Future[Any]] = [gone, hurry]
        await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        codes = [one.result() if one.done() else None for one in waiting]
        hurry.cancel()
        gone.cancel()
        if self._hurry.is_set():
            return 130
        if all(code == 0 for code in codes):
            return 0
        self._say("a worker did not end in time or not well; what it was asked is not answered")
        return 1

    async def _end_all(self) -> None:
        """Leave no process behind, and no socket open."""
        self._draining = True
        for worker in list(self._workers):
            worker.kill()
            await worker.process.wait()
            await worker.channel.close()
            worker.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- workers

    async def _keep_one(self) -> None:
        """Start a worker, and another whenever it ends."""
        first = True
        while not self._draining:
            models = self._shelf.models
            worker = await process.start(self._options.to_json(), self._shelf.paths(), models)
            self._workers.append(worker)
            await self._listen(worker)
            worker.ready = False
            code = await worker.process.wait()
            self._workers.remove(worker)
            await worker.channel.close()
            worker.close()
            self._bury(worker)
            if self._draining or (first and self._failure is not None):
                return
            first = False
            self._ends.append(time.monotonic())
            wait = self._back_off()
            self._say(f"a worker ended with the code {code}; another is started in {wait:.1f} s")
            merge(self._departed, {"restarts": 1})
            await asyncio.sleep(wait)

    def _back_off(self) -> float:
        """Return how long to wait: twice as long with each end in the last minute."""
        recent = sum(time.monotonic() - end < FORGET_SECONDS for end in self._ends)
        return float(min(FIRST_BACK_OFF * 2 ** (recent - 1), LONGEST_BACK_OFF))

    async def _listen(self, worker: Process) -> None:
        async for message in worker.channel.messages():
            match message["say"]:
                case "beat":
                    worker.heard(message)
                case "ready":
                    self._welcome(worker)
                case "failed":
                    self._fail(message)
                case "ask":
                    self._task(self._answer(worker, message))
                case _:
                    answer = self._answers.get(message["number"])
                    if answer is not None and not answer.done():
                        answer.set_result(message)

    def _welcome(self, worker: Process) -> None:
        if worker.models != self._shelf.models:  # a model was swapped while it was starting
            worker.kill()
            return
        worker.ready, worker.beat = True, time.monotonic()
        self._changed.set()

    def _fail(self, message: Message) -> None:
        self._say(f"a worker cannot start: {message['error']}")
        kind = getattr(errors, message["kind"], errors.ModelError)
        self._failure = kind(message["error"])
        self._changed.set()

    def _bury(self, worker: Process) -> None:
        """Keep what a worker counted."""
        kept = {k: n for k, n in worker.counts.items() if k.partition("|")[0] not in GAUGES}
        merge(self._departed, kept)

    def _choose(self) -> list[Process]:
        now = time.monotonic()
        ready = [one for one in self._workers if one.ready]
        lively = [one for one in ready if now - one.beat < QUIET_SECONDS]
        return sorted(lively or ready, key=Process.load)

    async def _watch(self) -> None:
        """End workers that hang; `_keep_one` starts others."""
        patience = self._options.limits.deadline + HUNG_SECONDS
        while True:
            await asyncio.sleep(0.5)
            for worker in self._workers:
                silent = time.monotonic() - worker.beat
                if worker.ready and (silent > HUNG_SECONDS or worker.stuck > patience):
                    self._say(f"worker {worker.process.pid} hangs, and is ended")
                    worker.kill()

    # --- what workers ask

    async def _answer(self, worker: Process, message: Message) -> None:
        if message["what"] == "counts":
            found: Message = {"counts": await self._counts()}
        else:
            found = {"found": await self._reload(message["name"])}
        worker.channel.send(do="answer", number=message["number"], **found)

    async def _counts(self) -> Counts:
        """Return the counts of all workers, asked for now, and of those that are no more."""
        living = [one for one in self._workers if one.ready]
        fresh = await self._ask_all(living, COUNT_SECONDS, do="counts")
        total = dict(self._departed)
        for worker, answer in zip(living, fresh, strict=True):
            merge(total, answer["counts"] if answer else worker.counts)
        return total

    async def _reload_all(self) -> None:
        for name, _ in self._options.models:
            found = await self._reload(name)
            self._say(f"{name}: {found.get('error') or 'serves ' + found['sha256'][:12]}")

    async def _reload(self, name: str) -> dict[str, Any]:
        """Read a model again: all workers load and check it, then all of them swap, or none."""
        async with self._reloading:
            try:
                book = await asyncio.to_thread(self._shelf.take, name)
            except errors.TinylensError as error:
                return self._reloaded(name, {"status": 409, "error": str(error)})
            previous = self._shelf.models[name]
            wrong = None
            if book.sha256 != previous:
                wrong = await self._swap(name, book.path, book.sha256)
            if wrong is not None:
                self._shelf.drop(book)
                return self._reloaded(name, {"status": 409, "error": wrong})
            return self._reloaded(name, {"sha256": book.sha256, "previous": previous})

    async def _swap(self, name: str, path: str, sha256: str) -> str | None:
        """Swap a model in all workers, or in none; return what is wrong with the new one."""
        shown = Path(dict(self._options.models)[name]).name
        workers = [one for one in self._workers if one.ready]
        staged = await self._ask_all(
            workers, LOAD_SECONDS, do="stage", name=name, path=path, shown=shown
        )
        wrong = [answer["error"] for answer in staged if answer and "error" in answer]
        if wrong or None in staged:
            for worker in workers:
                worker.channel.send(do="abort")
            return str(wrong[0]) if wrong else "a worker did not load the model; try again"
        self._shelf.put(name, sha256)
        await self._ask_all(workers, LOAD_SECONDS, do="commit")
        self._shelf.tidy()
        return None

    def _reloaded(self, name: str, found: dict[str, Any]) -> dict[str, Any]:
        merge(self._departed, {f"reloads|{name}|{'failed' if 'error' in found else 'done'}": 1})
        return found

    async def _ask_all(
        self, workers: list[Process], seconds: float, **message: Any
    ) -> list[Message | None]:
        """Return each worker's answer, or None where none came in time."""
        return list(await asyncio.gather(*(self._ask(one, seconds, message) for one in workers)))

    async def _ask(self, worker: Process, seconds: float, message: Message) -> Message | None:
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        worker.channel.send(**message, number=number)
        gone = asyncio.ensure_future(worker.process.wait())
        try:
            answer = self._answers[number]
            both: list[asyncio.Future[Any]] = [answer, gone]
            await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else None
        finally:
            gone.cancel()
            del self._answers[number]

    def _task(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        with contextlib.suppress(asyncio.CancelledError):
            if error := task.exception():
                self._say(f"the supervisor failed: {error!r}")
                self._end()
