"""What a worker owns: its models, its places and the line for them, its clocks."""

from __future__ import annotations

import asyncio
import collections
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tinylens.inference.classifier import Prediction
from tinylens.serving.counters import Counters, Counts
from tinylens.serving.engine import FAILED, Batch, Engine, decode
from tinylens.serving.hosted import Hosted
from tinylens.serving.line import Line
from tinylens.serving.options import Options
from tinylens.serving.tickets import BUSY, Refused, Reply, Ticket

DECODERS = 2  # threads, for large images
# Images that are worked on or next: as many as keep the network busy. All that one more would do
# is to wait behind the others, and those who are answered under overload would wait as long.
PLACES, LEAST_PLACES = 16, 8  # of all workers, of each
LEAST_LINE = 4  # requests in a worker's line, however many workers share it
MOST_SLOW = 8  # requests that wait for a map or an image at a time
SMALL_FILE = 65_536  # bytes; what is larger is decoded beside the queue
SMALL_JPEG = 8_192  # bytes: it can't hold more than some 2 million pixels
SMALL_PIXELS = 65_536
SWEEP_SECONDS = 0.05
LATE = Refused(504, "the answer took longer than the server's deadline; send fewer images at once")


class Service:
    """Models behind one bounded line; all its methods but `_deliver` run in the event loop.

    Args:
        options: of the server.
        hosted: the models, opened.

    Attributes:
        counters: of what was asked.
        waiting: images whose answers are being made.
        buffered: bytes of bodies that are being received.
        draining: whether the server is about to end; what still comes is answered.
        line: who waits for a place.
    """

    def __init__(self, options: Options, hosted: Iterable[Hosted]) -> None:
        self.options, self.limits = options, options.limits
        self.counters = Counters()
        self.waiting = self.buffered = self._slow_waiting = 0
        self.draining = False
        self._loop = asyncio.get_running_loop()
        self._engines = {one.name: Engine(one, self.limits, self._deliver) for one in hosted}
        self._first = options.models[0][0]
        share = max(LEAST_LINE, self.limits.queue // options.workers)
        self._places = min(max(LEAST_PLACES, PLACES // options.workers), share)
        self.line = Line(share, self.limits.patience)
        self._decoders = ThreadPoolExecutor(DECODERS, "decode")
        self._slow = ThreadPoolExecutor(1, "slow")
        self._finished: collections.deque[Batch] = collections.deque()
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
    def has_place(self) -> bool:
        """Whether nobody has to wait; one of many images is taken while any place is free."""
        return self.waiting < self._places

    @property
    def is_full(self) -> bool:
        """Whether requests are refused from their heads alone: too much is being received."""
        return self.buffered >= self.limits.buffered

    def submit(self, ticket: Ticket) -> None:
        """Let a ticket wait for its answer, which comes to its `reply_to`.

        Raises:
            Refused: 503, too many wait for a map already.
        """
        if ticket.slow and self._slow_waiting >= MOST_SLOW:
            raise BUSY.anew()
        if self.has_place:
            self.take_on(ticket)
        else:
            self.line.join(_InLine(self, ticket))

    def take_on(self, ticket: Ticket) -> None:
        """Give a ticket a place."""
        if ticket.slow:
            self._slow_waiting += 1
        self.waiting += len(ticket)
        self._outstanding.append(ticket)
        self._sweep_later()
        engine = self._engines[ticket.model]
        quick = ticket.fix is None and all(is_small(part.content) for part in ticket.parts)
        if ticket.images is None and not quick:  # to treat a photo takes 20 ms
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
        counts |= {
            "waiting": self.waiting + len(self.line),
            "slow_waiting": self._slow_waiting,
            "workers": 1,
        }
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
        self._finished.append(batch)
        self._loop.call_soon_threadsafe(self.take_finished)

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

    def take_finished(self) -> None:
        """Answer what has been computed, and give the places that it frees to others.

        It is also called between two requests: under overload a turn of the event loop reads and
        refuses many, and the answers would wait for its end.
        """
        while self._finished:
            self._take(self._finished.popleft())

    def _take(self, batch: Batch) -> None:
        for ticket, reply in batch.answered:
            self._answer(ticket, reply)
        counters = self.counters
        if batch.images:
            counters.batches.add(batch.images)
        for seconds in batch.waited:
            counters.waited.add(seconds)
        counters.add("decode_seconds", batch.decode_seconds)
        counters.add(f"model_seconds|{batch.model}", batch.model_seconds)
        for outcome, number in zip(("answered", "unknown", "error"), batch.outcomes, strict=True):
            if number:
                counters.add(f"images|{batch.model}|{outcome}", number)

    def _answer(self, ticket: Ticket, reply: Reply | None) -> None:
        self.waiting -= len(ticket)
        if ticket.slow:
            self._slow_waiting -= 1
        if reply is not None and not ticket.over:
            ticket.over = True
            self.counters.seconds.add(time.monotonic() - ticket.arrived)
            ticket.reply_to(reply)
        while self.has_place and self.line.call():
            pass

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Answer what is late; tickets are in order, but for the moment that some wait in line."""
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


class _InLine(NamedTuple):
    """A ticket that waits for a place."""

    service: Service
    ticket: Ticket

    def proceed(self) -> None:
        """Take a place."""
        if not self.ticket.over:
            self.service.take_on(self.ticket)

    def turn_away(self) -> None:
        """Be refused."""
        if not self.ticket.over:
            self.ticket.over = True
            self.service.counters.add("refused|full")
            self.ticket.reply_to(BUSY.reply(self.ticket.request_id))


def is_small(content: bytes) -> bool:
    """Whether an image surely takes less than some milliseconds to decode, going by its head.

    A PNG says its size in front. Other formats can hold 25 million pixels in 100 bytes, so they
    count as large, but for short JPEGs.
    """
    if len(content) > SMALL_FILE:
        return False
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = content[16:20], content[20:24]
        return int.from_bytes(width) * int.from_bytes(height) <= SMALL_PIXELS
    return len(content) <= SMALL_JPEG if content.startswith(b"\xff\xd8\xff") else len(content) < 64
