"""The thread that answers: it takes what waits, decodes it, and asks the network once for all.

There is no timer. A lone image is answered at once; what comes while the network computes waits
for nothing else and forms the next batch, so batches grow with the load and only with it. One
thread decodes and computes: a small image takes 40 µs to decode, most of them with the
interpreter's lock, and handing it to another thread and back takes 15.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinylens.inference.classifier import Prediction, Read
from tinylens.serving.hosted import Hosted
from tinylens.serving.options import Limits
from tinylens.serving.tickets import Refused, Reply, Ticket

FAILED = Refused(500, "the model failed to answer; the log of the server says why")
REPLACED = Refused(
    503,
    "the model was replaced by one for images of another size; ask for its size and try again",
    ((b"retry-after", b"0"),),
)


class Batch(NamedTuple):
    """What became of a batch.

    Attributes:
        model: its name.
        answered: tickets with their answers; None where nobody waits for it.
        slow: tickets that want more than an answer, with what was predicted.
        hosted: the model that answered.
        images: in the call of the network.
        waited: seconds that each ticket lay in the queue.
        decode_seconds: spent on decoding.
        model_seconds: spent in the network.
        outcomes: images answered, unknown and unreadable.
    """

    model: str
    answered: list[tuple[Ticket, Reply | None]]
    slow: list[tuple[Ticket, list[Prediction]]]
    hosted: Hosted
    images: int
    waited: list[float]
    decode_seconds: float
    model_seconds: float
    outcomes: tuple[int, int, int]


class Engine:
    """A model's queue, and the thread that works it off.

    Args:
        hosted: the model that answers, until `swap`.
        limits: of batches.
        deliver: called in the thread with each batch.
    """

    def __init__(self, hosted: Hosted, limits: Limits, deliver: Callable[[Batch], None]) -> None:
        self.hosted = hosted
        self.busy_since: float | None = None
        self._limits, self._deliver = limits, deliver
        self._queue: queue.SimpleQueue[Ticket | Callable[[], None]] = queue.SimpleQueue()
        thread = threading.Thread(target=self._work, name=f"engine {hosted.name}", daemon=True)
        thread.start()

    def put(self, ticket: Ticket) -> None:
        """Let a ticket wait for its turn."""
        self._queue.put(ticket)

    def swap(self, hosted: Hosted, drained: Callable[[], None]) -> None:
        """Let another model answer from the next batch on.

        `drained` is called in the thread once no batch of the old one is left.
        """
        self.hosted = hosted
        self._queue.put(drained)

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            self.busy_since = time.monotonic()
            after: Callable[[], None] | None = None
            if isinstance(item, Ticket):
                hosted = self.hosted
                tickets, after, decode_seconds = self._gather(item, hosted)
                self._answer(hosted, tickets, decode_seconds)
            else:
                after = item
            if after is not None:
                after()
            self.busy_since = None

    def _gather(
        self, first: Ticket, hosted: Hosted
    ) -> tuple[list[Ticket], Callable[[], None] | None, float]:
        """Return the tickets of a batch, decoded, and what is to be done after it."""
        begun = time.monotonic()
        item: Ticket | Callable[[], None] = first
        tickets, images = [], 0
        while isinstance(item, Ticket):
            tickets.append(item)
            if not item.over:
                decode(item, hosted)
                images += len(item)
            if images >= self._limits.batch:
                return tickets, None, time.monotonic() - begun
            if time.monotonic() - begun > self._limits.batch_seconds:
                return tickets, None, time.monotonic() - begun
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return tickets, None, time.monotonic() - begun
        return tickets, item, time.monotonic() - begun

    def _answer(self, hosted: Hosted, tickets: list[Ticket], decode_seconds: float) -> None:
        left = [ticket for ticket in tickets if ticket.over or ticket.images is None]
        wanted = [ticket for ticket in tickets if ticket not in left]
        try:
            batch = _batch(hosted, wanted, decode_seconds)
        except Exception:  # onnxruntime raises a dozen types that share no base
            traceback.print_exc()
            if len(wanted) > 1:  # one of them may be at fault, and shall fail alone
                for ticket in wanted:
                    self._answer(hosted, [ticket], 0.0)
                wanted = []
            failed = [(ticket, FAILED.reply(ticket.request_id)) for ticket in wanted]
            batch = Batch(hosted.name, [*failed], [], hosted, 0, [], 0.0, 0.0, (0, 0, 0))
        batch.answered.extend((ticket, None) for ticket in left)
        self._deliver(batch)


def decode(ticket: Ticket, hosted: Hosted) -> None:
    """Decode a ticket's images for a model, unless they are already as it wants them."""
    shape = hosted.classifier.rule.shape
    if ticket.images is None or (ticket.parts and not _fit(ticket.images, shape)):
        ticket.images = [hosted.classifier.read(part.content, ticket.fix) for part in ticket.parts]


def _fit(images: list[Read], shape: tuple[int, int, int]) -> bool:
    return all(image.image is None or image.image.shape == shape for image in images)


def _batch(hosted: Hosted, tickets: list[Ticket], decode_seconds: float) -> Batch:
    """Ask the network once for all tickets, and make their answers."""
    begun = time.monotonic()
    waited = [begun - decode_seconds - ticket.arrived for ticket in tickets]
    answered: list[tuple[Ticket, Reply | None]] = []
    shape = hosted.classifier.rule.shape
    fitting = [ticket for ticket in tickets if _fit(ticket.images or [], shape)]
    answered += [(t, REPLACED.reply(t.request_id)) for t in tickets if t not in fitting]
    reads = [image for ticket in fitting for image in ticket.images or []]
    images = [image.image for image in reads if image.image is not None]
    stacked = np.stack(images) if images else np.zeros((0, *shape), np.uint8)
    probabilities, ood_scores = hosted.classifier.evaluated(stacked)
    model_seconds = time.monotonic() - begun
    requested = hosted.requested(max((ticket.top for ticket in fitting), default=1))
    described = hosted.classifier.described(reads, probabilities, ood_scores, requested)
    slow, unknown = [], 0
    for ticket in fitting:
        found = [next(described) for _ in range(len(ticket))]
        unknown += sum(one.unknown for one in found)
        if ticket.slow:
            slow.append((ticket, found))
        else:
            answered.append((ticket, ticket.render(hosted, ticket, found)))
    if images:
        hosted.watch.add(stacked, probabilities.max(axis=1))
    outcomes = len(images) - unknown, unknown, len(reads) - len(images)
    return Batch(
        hosted.name,
        answered,
        slow,
        hosted,
        len(images),
        waited,
        decode_seconds,
        model_seconds,
        outcomes,
    )
