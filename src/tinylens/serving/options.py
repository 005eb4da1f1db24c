"""What a server is told: models, address, limits."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinylens.errors import RecipeError

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)  # of a model, and of a request
SHORTEST_TOKEN = 16  # characters
SLOWEST_UPLOAD = 50_000  # bytes a second, beside `Limits.read_seconds`


@dataclass(frozen=True)
class Limits:
    """How much a server takes on; each worker has its share of the queue, and the rest of its own.

    Attributes:
        body: bytes of a request.
        images: in a request.
        queue: requests that stand in line at a time; where more do, those who have waited longest
            are refused. No more images than these are worked on at a time.
        patience: seconds that a request stands in line before it is refused. It is short on
            purpose: what waits longer is answered later, not more often.
        batch: images in one call of the network.
        batch_seconds: how long a batch is filled while others are decoded, at the longest.
        deadline: seconds from a request's arrival to its answer.
        read_seconds: for a request's head, and for its body beside the time that 50 kB/s give.
        idle_seconds: that a connection may be kept without a request.
        connections: open at a time; the longest idle is closed for a new one.
        buffered: bytes of bodies that are being received at a time.
        drain_seconds: for the last answers after SIGTERM.
    """

    body: int = 10 * 2**20
    images: int = 32
    queue: int = 256
    patience: float = 0.05
    batch: int = 32
    batch_seconds: float = 0.005
    deadline: float = 10.0
    read_seconds: float = 10.0
    idle_seconds: float = 60.0
    connections: int = 2048
    buffered: int = 256 * 2**20
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value <= 0:
                raise RecipeError(f"--{name.replace('_', '-')} {value}: expected more than 0")


@dataclass(frozen=True)
class Options:
    """What a server is told.

    Attributes:
        models: name and path of each; the first answers where a request names none.
        host: the address to listen on.
        port: 0 for any that is free.
        workers: processes that answer.
        token: that a request must bear; None where none is needed.
        allowed_hosts: names that the server may be called by, besides its address.
        log_requests: whether to write a line a request on stderr.
        limits: how much it takes on.
    """

    models: tuple[tuple[str, str], ...]
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    token: str | None = dataclasses.field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    log_requests: bool = False
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise RecipeError(
                f"--host {self.host} can be reached from other machines, and there is no token: "
                "write one to a file and name it by --token-file, or set TINYLENS_TOKEN; "
                "or listen on 127.0.0.1"
            )
        if self.token is not None and not re.fullmatch(r"[!-~]{16,512}", self.token):
            raise RecipeError(
                f"the token has {len(self.token)} characters; expected {SHORTEST_TOKEN} to 512 "
                'printable ones without spaces, such as `python -c "import secrets; '
                'print(secrets.token_urlsafe())"` prints'
            )
        if self.workers < 1:
            raise RecipeError(f"--workers {self.workers}: expected at least 1")

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for another process."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(tree: dict[str, Any]) -> Options:
        """Return what `to_json` gave, also after a way through JSON."""
        models = tuple((name, path) for name, path in tree["models"])
        limits = Limits(**tree["limits"])
        hosts = tuple(tree["allowed_hosts"])
        return Options(**{**tree, "models": models, "limits": limits, "allowed_hosts": hosts})


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def name_models(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the names and paths that are meant by paths and by NAME=PATH.

    A model is called as its run's folder is, or as its file.

    Raises:
        RecipeError: a name that cannot stand in an address, or is given twice.

    >>> name_models(["runs/boots/model.onnx", "small=other.onnx"])
    (('boots', 'runs/boots/model.onnx'), ('small', 'other.onnx'))
    """
    named = [_named(word) for word in words]
    for name, path in named:
        if not NAME.fullmatch(name):
            raise RecipeError(
                f"{path}: a model cannot be called {name!r}; expected up to 64 letters, digits, "
                "dots, _ and -; give it a name: NAME=PATH"
            )
    names = [name for name, _ in named]
    if twins := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"two models are called {', '.join(twins)}; give them names: NAME=PATH")
    return tuple(named)


def _named(word: str) -> tuple[str, str]:
    name, equals, path = word.partition("=")
    if equals and NAME.fullmatch(name):
        return name, path
    file = Path(word)
    if file.name == "model.onnx":
        return file.absolute().parent.name, word
    return file.stem if file.suffix == ".onnx" else file.absolute().name, word
