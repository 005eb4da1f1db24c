"""Who may ask: what is decided from a request's head alone."""

from __future__ import annotations

import hmac
import itertools
import os
import secrets
from collections.abc import Mapping

from tinylens.serving.options import NAME, Options, is_loopback
from tinylens.serving.tickets import Refused

GUARDED = ("/predict", "/models", "/v2", "/metrics", "/docs", "/openapi.json")
PROBES = ("/v2/health/live", "/v2/health/ready")
LONGEST_HEAD = 65_536  # bytes of a request's line and headers
_CHALLENGE = ((b"www-authenticate", b"Bearer"),)

_prefix = f"{secrets.token_hex(4)}-{os.getpid():x}"
_numbers = itertools.count(1)


def request_id(given: bytes | None) -> str:
    """Return the client's name of a request where it is a plain one, else a new one."""
    if given is not None:
        text = given.decode("latin-1")
        if NAME.fullmatch(text):
            return text
    return f"{_prefix}-{next(_numbers):x}"


class Gate:
    """The checks of a request's head, for a server's options."""

    def __init__(self, options: Options) -> None:
        self._token = None if options.token is None else options.token.encode()
        self._hosts: frozenset[bytes] | None = None
        if is_loopback(options.host):  # elsewhere the token keeps out-of-distribution images out
            own = ("localhost", "127.0.0.1", "[::1]", options.host)
            self._hosts = frozenset(name.lower().encode() for name in own + options.allowed_hosts)

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Let a request pass.

        Raises:
            Refused: 401, 403 or 415.
        """
        host = headers.get(b"host", b"").lower()
        if self._hosts is not None and _without_port(host) not in self._hosts:
            raise Refused(
                403,
                "the request is for another host; expected localhost, or a name that the server "
                "was given by --allow-host",
            )
        origin = headers.get(b"origin")
        if origin is not None and origin.lower().partition(b"://")[2] != host:
            raise Refused(403, "the request comes from a page of another origin")
        if self._token is not None and is_guarded(path):
            self._check_token(headers.get(b"authorization", b""))
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refused(415, "the body is compressed, expected it as it is")

    def _check_token(self, given: bytes) -> None:
        kind, _, token = given.partition(b" ")
        if kind.lower() != b"bearer":
            raise Refused(401, "expected the header Authorization: Bearer TOKEN", _CHALLENGE)
        if not hmac.compare_digest(token.strip(), self._token or b""):
            raise Refused(401, "the token is not the server's", _CHALLENGE)


def is_guarded(path: str) -> bool:
    """Whether a path needs the token; the page itself and the probes of an orchestrator do not."""
    if path in PROBES:
        return False
    return any(path == start or path.startswith(f"{start}/") for start in GUARDED)


def too_large(most: int) -> Refused:
    """Return the refusal of a body over the limit."""
    return Refused(413, f"the body is too large, expected at most {most} bytes")


def _without_port(host: bytes) -> bytes:
    if host.startswith(b"["):
        return host.partition(b"]")[0] + b"]"
    return host.partition(b":")[0]
