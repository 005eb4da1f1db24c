"""What a worker owns: its models, its bounded queue, its clocks."""

from __future__ import annotations

import asyncio
import collections
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tinylens.prediction import Prediction
from tinylens.serving.counters import Counters, Counts
from tinylens.serving.engine import FAILED, Batch, Engine, decode
from tinylens.serving.hosted import Hosted
from tinylens.serving.options import Options
from tinylens.serving.tickets import BUSY, Refused, Reply, Ticket

DECODERS = 2  # threads, for large pictures
LEAST_QUEUE = 4  # pictures in a worker's queue, however many workers share it
MOST_SLOW = 8  # requests that wait for a map or a picture at a time
SMALL_FILE = 65_536  # bytes; what is larger is decoded beside the queue
SMALL_JPEG = 8_192  # bytes: it can't hold more than some 2 million pixels
SMALL_PIXELS = 65_536
SWEEP_SECONDS = 0.05
LATE = Refused(
    504, "the answer took longer than the server's deadline; send fewer pictures at once"
)
LEAVING = Refused(503, "the server is about to end; ask another", ((b"retry-after", b"1"),))


class Service:
    """Models behind one bounded queue; all its methods but `_deliver` run in the event loop.

    Args:
        options: of the server.
        hosted: the models, opened.

    Attributes:
        counters: of what was asked.
        waiting: pictures whose answers are being made.
        buffered: bytes of bodies that are being received.
        draining: whether no new request is taken.
    """

    def __init__(self, options: Options, hosted: Iterable[Hosted]) -> None:
        self.options, self.limits = options, options.limits
        self.counters = Counters()
        self.waiting = self.buffered = self._slow_waiting = 0
        self.draining = False
        self._loop = asyncio.get_running_loop()
        self._engines = {one.name: Engine(one, self.limits, self._deliver) for one in hosted}
        self._first = options.models[0][0]
        self._most_waiting = max(LEAST_QUEUE, self.limits.queue // options.workers)
        self._decoders = ThreadPoolExecutor(DECODERS, "decode")
        self._slow = ThreadPoolExecutor(1, "slow")
        self._outstanding: collections.deque[Ticket] = collections.deque()
        self._sweeping = False

    @property
    def models(self) -> list[Hosted]:
        """The models as they are now, the first first."""
        return [engine.hosted for engine in self._engines.values()]

    def model(self, name: str) -> Hosted:
        """Return a model by its name, the first for "".

        Raises:
            Refused: 404, there is none of that name.
        """
        engine = self._engines.get(name or self._first)
        if engine is None:
            raise Refused(404, f"no model is called {name!r}; there is {', '.join(self._engines)}")
        return engine.hosted

    def stuck_for(self) -> float:
        """Return for how many seconds the slowest engine has been at its present batch."""
        since = [one.busy_since for one in self._engines.values() if one.busy_since is not None]
        return time.monotonic() - min(since) if since else 0.0

    @property
    def is_full(self) -> bool:
        """Whether requests are refused; one of many pictures is taken while any place is free."""
        return self.waiting >= self._most_waiting or self.buffered >= self.limits.buffered

    def submit(self, ticket: Ticket) -> None:
        """Let a ticket wait for its answer, which comes to its `reply_to`.

        Raises:
            Refused: 503, too many wait already.
        """
        if self.waiting >= self._most_waiting:
            raise BUSY.anew()
        if ticket.slow:
            if self._slow_waiting >= MOST_SLOW:
                raise BUSY.anew()
            self._slow_waiting += 1
        self.waiting += len(ticket)
        self._outstanding.append(ticket)
        self._sweep_later()
        engine = self._engines[ticket.model]
        quick = ticket.fix is None and all(is_small(part.content) for part in ticket.parts)
        if ticket.pictures is None and not quick:  # to treat a photo takes 20 ms
            self._decoders.submit(self._decode, ticket, engine)
        else:
            engine.put(ticket)

    async def swap(self, hosted: Hosted) -> None:
        """Let another model answer; returns once the one before answers nothing any more."""
        drained = asyncio.Event()

        def after_the_slow_ones() -> None:
            self._slow.submit(self._loop.call_soon_threadsafe, drained.set)

        self._engines[hosted.name].swap(hosted, after_the_slow_ones)
        await drained.wait()

    def snapshot(self) -> Counts:
        """Return all that was counted, and how things stand."""
        counts = self.counters.snapshot()
        counts |= {"waiting": self.waiting, "slow_waiting": self._slow_waiting, "workers": 1}
        for model in self.models:
            watch = model.watch
            for place, number in enumerate(watch.confidence):
                counts[f"confidence|{model.name}|{place}"] = number
            counts[f"confidence|{model.name}|sum"] = watch.total
            for what, bins in watch.recent().items():
                for place, number in enumerate(bins):
                    counts[f"recent|{model.name}|{what}|{place}"] = number
        return counts

    # --- in other threads

    def _decode(self, ticket: Ticket, engine: Engine) -> None:
        if not ticket.over:
            decode(ticket, engine.hosted)
        engine.put(ticket)

    def _deliver(self, batch: Batch) -> None:
        for ticket, found in batch.slow:
            self._slow.submit(self._finish_slowly, batch.hosted, ticket, found)
        self._loop.call_soon_threadsafe(self._take, batch)

    def _finish_slowly(self, hosted: Hosted, ticket: Ticket, found: list[Prediction]) -> None:
        reply: Reply | None = None
        try:
            if not ticket.over and ticket.slow:
                reply = ticket.slow(hosted, ticket, found)
        except Exception:  # whatever it is, the client is to hear of it
            traceback.print_exc()
            reply = FAILED.reply(ticket.request_id)
        self._loop.call_soon_threadsafe(self._answer, ticket, reply)

    # --- in the event loop again

    def _take(self, batch: Batch) -> None:
        for ticket, reply in batch.answered:
            self._answer(ticket, reply)
        counters = self.counters
        if batch.pictures:
            counters.batches.add(batch.pictures)
        for seconds in batch.waited:
            counters.waited.add(seconds)
        counters.add("decode_seconds", batch.decode_seconds)
        counters.add(f"model_seconds|{batch.model}", batch.model_seconds)
        for outcome, number in zip(("answered", "unknown", "error"), batch.outcomes, strict=True):
            if number:
                counters.add(f"pictures|{batch.model}|{outcome}", number)

    def _answer(self, ticket: Ticket, reply: Reply | None) -> None:
        self.waiting -= len(ticket)
        if ticket.slow:
            self._slow_waiting -= 1
        if reply is not None and not ticket.over:
            ticket.over = True
            self.counters.seconds.add(time.monotonic() - ticket.arrived)
            ticket.reply_to(reply)

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Answer what is late; tickets arrive in order, so the oldest is the first."""
        self._sweeping = False
        latest = time.monotonic() - self.limits.deadline
        while self._outstanding and (
            self._outstanding[0].over or self._outstanding[0].arrived < latest
        ):
            ticket = self._outstanding.popleft()
            if not ticket.over:
                ticket.over = True
                self.counters.add("refused|late")
                ticket.reply_to(LATE.reply(ticket.request_id))
        if self._outstanding:
            self._sweep_later()


def is_small(content: bytes) -> bool:
    """Whether a picture surely takes less than some milliseconds to decode, going by its head.

    A PNG says its size in front. Other formats can hold 25 million pixels in 100 bytes, so they
    count as large, but for short JPEGs.
    """
    if len(content) > SMALL_FILE:
        return False
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = content[16:20], content[20:24]
        return int.from_bytes(width) * int.from_bytes(height) <= SMALL_PIXELS
    return len(content) <= SMALL_JPEG if content.startswith(b"\xff\xd8\xff") else len(content) < 64
