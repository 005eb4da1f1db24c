"""One connection: uvicorn's, with clocks, bounds, and a short way for POST /predict.

uvicorn times nothing but idle connections and bounds no header, so a client that sends a byte now
and then would be served for ever. And a request through ASGI costs a task, an event and three
awaits: 30 of 82 µs of an empty request (uvloop, 16 connections). So the
one path that is asked thousands of times a second is answered right here, and everything else, and
that path where requests are pipelined, goes through ASGI as usual. Both end in `predict.ticket`.
"""

from __future__ import annotations

import asyncio
import http
import math
import time
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tinylens.serving import gate, glance, predict
from tinylens.serving.gate import Gate
from tinylens.serving.log import RequestLog
from tinylens.serving.options import SLOWEST_UPLOAD
from tinylens.serving.service import Service
from tinylens.serving.tickets import BUSY, Refused, Reply, Ticket

LINGER_SECONDS = 1.0  # for a request that was already on its way when the server began to end
DISCARD_SECONDS = 2.0  # for the rest of a body that was refused, so that the refusal can be read
SMALL_REST = 65_536  # bytes of a refused body that are worth reading to keep the connection
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)
_LINES = {
    status: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus
}
_ALWAYS = b"".join(b"%b: %b\r\n" % header for header in ALWAYS)


class _Here:
    """Stands where uvicorn keeps its request, while one is answered without ASGI."""

    disconnected = False
    keep_alive = True
    response_complete = True
    message_event = asyncio.Event()


class Connection(HttpToolsProtocol):
    """A connection.

    Args:
        config: uvicorn's.
        state: uvicorn's, which holds all connections.
        service: that answers.
        checks: of a request's head.
        log: of requests, or None.
        ended: called once the connection is no more.

    Attributes:
        read_by: when the next byte must have come, on the monotonic clock.
        idle: whether no request has begun.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        service: Service,
        checks: Gate,
        log: RequestLog | None,
        ended: Callable[[], None],
    ) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self.service, self.limits = service, service.limits
        self.idle = True
        self.read_by = time.monotonic() + self.limits.read_seconds
        self._gate, self._log, self._ended = checks, log, ended
        self._ticket: Ticket | None = None
        self._here = _Here()
        self._held: bytes | None = None  # that waits unread
        self._held_id, self._held_size = b"", 0
        self._came = 0.0  # when what waited came
        self._body: list[bytes] | None = None  # of a request that is answered here
        self._size = self._head_size = 0
        self._in_head = self._receiving = False
        self._ignoring = self._discarding = self._closing = False

    # --- what the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, in the place of the longest idle connection where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            idle = [one for one in self.connections if one.idle and one is not self]  # type: ignore[union-attr]
            if idle:
                min(idle, key=lambda one: one.read_by).transport.close()  # type: ignore[union-attr]
            else:
                self.service.counters.add("refused|connections")
                self._refuse(BUSY, gate.request_id(None), close=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; nobody waits for what is still being computed."""
        if self._ticket is not None and not self._ticket.over:
            self._ticket.over = True
            self.service.counters.add("left")
        self._held = None
        self._forget_body()
        super().connection_lost(exc)
        self._ended()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head without end is refused."""
        if self._discarding or self.transport.is_closing():
            return
        if self._held is not None:  # it does not wait for answers: all of it has its turn later
            self._held += data
            return
        self.service.take_finished()
        if self.idle and not self._closing and not self.service.has_place and self._hold(data):
            return
        self._read(data)

    def _read(self, data: bytes) -> None:
        before = self._in_head
        super().data_received(data)
        if before and self._in_head and not self.transport.is_closing():
            self._head_size += len(data)
            if self._head_size > gate.LONGEST_HEAD:
                self._refuse(_LONG_HEAD, gate.request_id(None), close=True)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self.service.counters.add("refused|malformed")
        self._refuse(Refused(400, "not a request of HTTP/1.1"), gate.request_id(None), close=True)

    def overdue(self) -> None:
        """End a connection whose time to send is over."""
        if self.idle or self._discarding or self.transport.is_closing():
            self.transport.close()
            return
        self.service.counters.add("refused|slow")
        self._refuse(_SLOW, gate.request_id(None), close=True)

    def shutdown(self) -> None:
        """Answer what is asked, and what is on its way, then end."""
        self._closing = True
        if self.idle:
            self.read_by = min(self.read_by, time.monotonic() + LINGER_SECONDS)
        elif isinstance(self.cycle, _Here) or self.cycle is None:
            pass  # `_write` closes
        else:
            self.cycle.keep_alive = False

    # --- what the parser calls

    def on_message_begin(self) -> None:
        """Start the clock of a request's head."""
        super().on_message_begin()
        self.idle, self._in_head, self._head_size = False, True, 0
        self.read_by = time.monotonic() + self.limits.read_seconds

    def on_headers_complete(self) -> None:
        """Choose the way that a request goes."""
        self._in_head, self._receiving = False, True
        here = self.cycle is None or (self.cycle.response_complete and not self.pipeline)
        if here and self.url[:8] == b"/predict" and self.url[8:9] in (b"", b"?"):
            here = self.parser.get_method() == b"POST"
        else:
            here = False
        headers = dict(self.headers)
        self._set_clock(headers)
        self._size = 0
        length = headers.get(b"content-length", b"0")
        if int(length[:20] or b"0") > self.limits.body:
            name = gate.request_id(headers.get(b"x-request-id"))
            self._refuse(gate.too_large(self.limits.body), name, close=True)
        elif here:
            self._begin(headers)
        else:
            super().on_headers_complete()
            self.cycle.keep_alive = self.cycle.keep_alive and not self._closing

    def on_body(self, body: bytes) -> None:
        """Keep a piece of a body, within its bound."""
        if self._ignoring or self._discarding:
            return
        self._size += len(body)
        if self._body is not None:
            self.service.buffered += len(body)
            self._body.append(body)
        if self._size > self.limits.body:
            name = gate.request_id(dict(self.headers).get(b"x-request-id"))
            self._refuse(gate.too_large(self.limits.body), name, close=True)
        elif self._body is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Ask for the answer of a request that is whole."""
        self._receiving = False
        self.read_by = math.inf
        if self._body is not None:
            body = b"".join(self._body)
            self._forget_body()
            self._submit(body)
        elif self._ignoring:
            self._ignoring = False
            self._end()
        elif not self._discarding:
            super().on_message_complete()
            if self.cycle.response_complete and not self.pipeline:
                self._rest()

    def on_response_complete(self) -> None:
        """Wait for the next request, without the timer of uvicorn: `read_by` is looked at."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif not self._in_head and not self._receiving:  # else another has begun already
            self._rest()

    # --- unread, in line

    def _hold(self, data: bytes) -> bool:
        """Let a plain request wait unread; return whether it does."""
        name = glance.request_id(data)
        if name is None:
            return False
        self._held, self._held_id, self._came = data, name, time.monotonic()
        self._held_size = len(data)
        self.idle = False
        self.service.line.join(self)
        return True

    def proceed(self) -> None:
        """Read what waited."""
        held, self._held = self._held, None
        if held is not None and not self.transport.is_closing():
            self._read(held)
        self._came = 0.0

    def turn_away(self) -> None:
        """Refuse what waited, unread."""
        held, self._held = self._held, None
        if held is None or self.transport.is_closing():
            return
        self._here, self._begun, self._came = _Here(), self._came, 0.0
        self._here.response_complete = False
        self._count_refusal(BUSY)
        name = gate.request_id(self._held_id or None)
        self._write(BUSY.reply(name), name, close=self._closing)
        self._here.response_complete = True
        self.server_state.total_requests += 1
        self._rest()
        if len(held) > self._held_size:
            self.data_received(held[self._held_size :])

    # --- the short way

    def _set_clock(self, headers: dict[bytes, bytes]) -> None:
        length = headers.get(b"content-length", b"0")
        most = self.limits.body if b"transfer-encoding" in headers else int(length[:20])
        seconds = min(most, self.limits.body) / SLOWEST_UPLOAD
        self.read_by = time.monotonic() + self.limits.read_seconds + seconds

    def _begin(self, headers: dict[bytes, bytes]) -> None:
        """Decide from the head whether a request of /predict is taken."""
        self._id = gate.request_id(headers.get(b"x-request-id"))
        self._type = headers.get(b"content-type", b"")
        self._keep = self.parser.should_keep_alive() and not self._closing
        self._begun = time.monotonic()
        self._here = _Here()
        self._here.response_complete = False
        self.cycle = self._here  # type: ignore[assignment]
        try:
            self._gate.check("/predict", headers)
            if self.service.is_full:
                raise BUSY.anew()
        except Refused as refused:
            length = headers.get(b"content-length", b"")
            known = b"transfer-encoding" not in headers
            small = known and int(length[:20] or b"0") <= SMALL_REST
            self._refuse(refused, self._id, close=not small or self.expect_100_continue)
            self._ignoring = not self._discarding
            return
        if self.expect_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body = []

    def _submit(self, body: bytes) -> None:
        query = self.url.partition(b"?")[2]
        try:
            self._ticket = predict.ticket(
                self.service, query, self._type, body, self._id, self._answer
            )
            if self._came:
                self._ticket.arrived = self._came
            self.service.submit(self._ticket)
        except Refused as refused:
            self._ticket = None
            self._count_refusal(refused)
            self._answer(refused.reply(self._id))

    def _answer(self, reply: Reply) -> None:
        self._ticket = None
        self._write(reply, self._id, close=not self._keep or self._closing)
        self._end()

    def _refuse(self, refused: Refused, request_id: str, *, close: bool) -> None:
        """Answer before a request is whole; read on for a while where the connection ends."""
        self._forget_body()
        self._count_refusal(refused)
        asgi = self.cycle is not None and not isinstance(self.cycle, _Here)
        if asgi and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()  # an answer is on its way already, and can't be taken back
            return
        if asgi:  # it is answered here, and hears that nobody listens any more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._write(refused.reply(request_id), request_id, close=False, last=close)
        if close:
            self._discarding = True
            self.read_by = time.monotonic() + DISCARD_SECONDS
            if self.transport.can_write_eof():
                self.transport.write_eof()

    def _write(self, reply: Reply, request_id: str, *, close: bool, last: bool = False) -> None:
        if self.transport.is_closing():
            return
        extra = b"".join([b"%b: %b\r\n" % header for header in reply.headers])
        if close or last:
            extra += b"connection: close\r\n"
        for header in self.server_state.default_headers:
            extra += b"%b: %b\r\n" % header
        self.transport.write(
            b"%bcontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b%b\r\n%b"
            % (
                _LINES[reply.status],  # type: ignore[index]
                reply.content_type,
                len(reply.body),
                request_id.encode(),
                _ALWAYS,
                extra,
                reply.body,
            )
        )
        self._count(reply.status, request_id)
        if close:
            self.transport.close()

    def _end(self) -> None:
        """Go on to the next request."""
        self._here.response_complete = True  # `cycle` may be that of the next already
        self.on_response_complete()

    def _rest(self) -> None:
        self.idle = True
        wait = LINGER_SECONDS if self._closing else self.limits.idle_seconds
        self.read_by = time.monotonic() + wait

    def _forget_body(self) -> None:
        if self._body is not None:
            self.service.buffered -= self._size
            self._body = None

    def _count_refusal(self, refused: Refused) -> None:
        if refused.sentence == BUSY.sentence:
            self.service.counters.add("refused|full")

    def _count(self, status: int, request_id: str) -> None:
        here = not self._here.response_complete
        self.service.counters.add(f"requests|{'/predict' if here else 'other'}|{status}")
        if self._log is not None and here:
            self._log.write(request_id, "POST", "/predict", status, time.monotonic() - self._begun)


_LONG_HEAD = Refused(431, f"the request's head is too long, expected {gate.LONGEST_HEAD} bytes")
_SLOW = Refused(408, "the request did not come in time")


def sweep(state: ServerState) -> None:
    """End the connections whose time to send is over."""
    now = time.monotonic()
    for one in list(state.connections):
        if one.read_by < now:  # type: ignore[union-attr]
            one.overdue()  # type: ignore[union-attr]
