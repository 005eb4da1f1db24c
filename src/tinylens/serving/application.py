"""What stands around every request that goes through ASGI: checks, headers, errors, counts."""

from __future__ import annotations

import time
import traceback
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinylens.serving import gate
from tinylens.serving.connection import ALWAYS
from tinylens.serving.gate import Gate
from tinylens.serving.log import RequestLog
from tinylens.serving.service import Service
from tinylens.serving.tickets import Refused, Reply

# The pages load nothing from elsewhere, and no other page may show them in a frame.
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    b"connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'"
)
_PAGE = (
    (b"content-security-policy", POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_BROKEN = Refused(500, "the server made a mistake; its log says which")


class Application:
    """An ASGI application within the bounds of a server.

    Args:
        inner: that answers.
        service: whose limits hold, and that counts.
        checks: of a request's head.
        log: of requests, or None.
    """

    def __init__(
        self, inner: ASGIApp, service: Service, checks: Gate, log: RequestLog | None
    ) -> None:
        self._inner, self._service, self._gate, self._log = inner, service, checks, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        begun = time.monotonic()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        name = gate.request_id(headers.get(b"x-request-id"))
        scope["state"] = {"request_id": name}
        status = 0

        async def count_and_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _with_ours(message, name)}
            await send(message)

        try:
            self._gate.check(scope["path"], headers)
            await self._inner(scope, receive, count_and_send)
        except ClientDisconnect:  # it left, or was refused by its connection
            status = 499
        except Refused as refused:
            if not status:
                await _send(refused.reply(name), count_and_send)
        except Exception:  # whatever it is, the client gets an answer and nobody a traceback
            traceback.print_exc()
            if not status:
                await _send(_BROKEN.reply(name), count_and_send)
        route = _route(scope)
        self._service.counters.add(f"requests|{route}|{status}")
        if self._log is not None:
            taken = time.monotonic() - begun
            self._log.write(name, scope["method"], scope["path"], status, taken)


async def _send(reply: Reply, send: Any) -> None:
    length = str(len(reply.body)).encode()
    kind = ((b"content-type", reply.content_type), (b"content-length", length))
    headers = [*kind, *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def _with_ours(message: Message, name: str) -> list[tuple[bytes, bytes]]:
    own = {header for header, _ in message["headers"]}
    added = ((b"x-request-id", name.encode()), *ALWAYS, *_PAGE)
    return [*message["headers"], *(pair for pair in added if pair[0] not in own)]


def _route(scope: Scope) -> str:
    """Return the pattern that a request matched, so that no client can invent names of counts."""
    route = scope.get("route")
    return getattr(route, "path", "") or "other"
