"""A request on its way through the server, and what it is answered with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tinylens.inference.classifier import Read
from tinylens.serving.multipart import Part

if TYPE_CHECKING:
    from tinylens.inference.classifier import Prediction
    from tinylens.serving.hosted import Hosted

Headers = tuple[tuple[bytes, bytes], ...]
JSON = b"application/json"


class Reply(NamedTuple):
    """An answer to a request: status, body and headers beside the usual ones."""

    status: int
    body: bytes
    headers: Headers = ()
    content_type: bytes = JSON


class Refused(Exception):
    """A request that is not answered as it asks; `sentence` says why and what was expected."""

    def __init__(self, status: int, sentence: str, headers: Headers = ()) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers

    def anew(self) -> Refused:
        """Return the same, to be raised: one that is raised again keeps every frame it met."""
        return Refused(self.status, self.sentence, self.headers)

    def reply(self, request_id: str) -> Reply:
        """Return it as an answer."""
        tree = {"error": self.sentence, "request_id": request_id}
        return Reply(self.status, json.dumps(tree).encode(), self.headers)


BUSY = Refused(503, "too many images are waiting; try again soon", ((b"retry-after", b"1"),))


class Ticket:
    """Images of one request, from their arrival to their answer.

    Attributes:
        model: the name of the one that is to answer.
        parts: images as they came; empty where they came as arrays.
        top: how many of the likeliest classes are wanted.
        fix: what the input checks may put right, as `Classifier.read` takes it; None: not look.
        images: as the network sees them, or why not; None until they are decoded.
        request_id: that is echoed.
        render: makes the answer; called in the thread that computed it.
        slow: makes an answer that takes long instead, in a thread of its own; or None.
        reply_to: is given the answer, in the event loop.
        arrived: when its last byte came, on the monotonic clock.
        over: whether it needs no answer any more: it has one, or its client has left.
    """

    __slots__ = (
        "arrived",
        "fix",
        "images",
        "model",
        "over",
        "parts",
        "render",
        "reply_to",
        "request_id",
        "slow",
        "top",
    )

    def __init__(
        self,
        model: str,
        parts: Sequence[Part],
        top: int,
        request_id: str,
        *,
        render: Render,
        reply_to: Callable[[Reply], None],
        slow: Render | None = None,
        images: list[Read] | None = None,
    ) -> None:
        self.model, self.parts, self.top, self.request_id = model, parts, top, request_id
        self.render, self.slow, self.reply_to = render, slow, reply_to
        self.images = images
        self.fix: str | None = None
        self.arrived = time.monotonic()
        self.over = False

    def __len__(self) -> int:
        return len(self.parts) if self.images is None else len(self.images)

    def milliseconds(self) -> float:
        """Return how long ago it arrived."""
        return 1e3 * (time.monotonic() - self.arrived)


Render = Callable[["Hosted", Ticket, "list[Prediction]"], Reply]
