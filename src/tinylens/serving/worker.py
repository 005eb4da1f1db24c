"""A process that answers: `python -m tinylens.serving.worker CONTROL CONNECTIONS ENDED`.

All three are inherited: over the first socket the supervisor says what to do, over the second it
hands over connections, and the file is memory that both share, for the count of those that ended.
The worker ends when it is told to, or when the supervisor is gone; signals that reach the whole
group of processes are the supervisor's to obey.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import itertools
import logging
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from tinylens.errors import TinylensError
from tinylens.serving import connection, hosted
from tinylens.serving.app import make_app
from tinylens.serving.application import Application
from tinylens.serving.channel import Channel, Message
from tinylens.serving.connection import Connection
from tinylens.serving.counters import Counts
from tinylens.serving.gate import Gate
from tinylens.serving.hosted import Hosted
from tinylens.serving.log import RequestLog
from tinylens.serving.options import Options
from tinylens.serving.service import Service
from tinylens.serving.tally import Tally
from tinylens.system import core_count

BEAT_SECONDS = 0.25
# Python lets a thread wait 5 ms for the interpreter's lock. Under overload the event loop refuses
# without a pause, and the thread that answers would wait so long several times a batch: with 0.5 ms
# it answers half as many more then.
SWITCH_SECONDS = 0.0005
AT_ONCE = 64  # connections that are taken over before others are served


class Worker:
    """What answers, and what it is told.

    Args:
        options: of the server.
        models: opened.
        channel: to the supervisor.
        connections: the socket that connections come over.
        ended: counts those that are let go of.
    """

    def __init__(
        self,
        options: Options,
        models: list[Hosted],
        channel: Channel,
        connections: socket.socket,
        ended: Tally,
    ) -> None:
        self._options, self._channel, self._connections = options, channel, connections
        self._loop = asyncio.get_running_loop()
        self._state = ServerState()
        self._gate = Gate(options)
        self._ended = ended
        self._log = RequestLog() if options.log_requests else None
        self.service = Service(options, models)
        inner = make_app(self.service, self._reload, self._collect)
        inner.openapi()  # made once, and before the first who asks
        app = Application(inner, self.service, self._gate, self._log)
        self._config = _settings(app)
        self._requested: dict[int, asyncio.Future[Message]] = {}
        self._numbers = itertools.count()
        self._staged: Hosted | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop.add_reader(connections.fileno(), self._take_connections)

    async def run(self) -> None:
        """Answer until it is told to end, and all that was asked is answered."""
        beat = self._task(self._beat())
        async for message in self._channel.messages():
            if message["do"] == "drain":
                break
            self._task(self._obey(message))
        await self._drain()
        beat.cancel()

    # --- connections

    def _take_connections(self) -> bool:
        """Take over some connections; return whether there may be more."""
        for _ in range(AT_ONCE):
            try:
                word, descriptors, _, _ = socket.recv_fds(self._connections, 1, 1)
            except BlockingIOError:
                return False
            if not word:
                self._loop.remove_reader(self._connections.fileno())
                return False
            for descriptor in descriptors:
                self._task(self._serve(socket.socket(fileno=descriptor)))
        return True

    async def _serve(self, accepted: socket.socket) -> None:
        try:
            accepted.setblocking(False)
            await self._loop.connect_accepted_socket(self._connection, accepted)
        except OSError:  # it has left already
            self._ended.add()

    def _connection(self) -> Connection:
        made = Connection(
            self._config, self._state, self.service, self._gate, self._log, self._ended.add
        )
        if self.service.draining:
            self._loop.call_soon(made.shutdown)
        return made

    async def _drain(self) -> None:
        """Answer what was asked or is on its way, then leave."""
        while self._take_connections():
            pass
        self.service.draining = True
        await asyncio.sleep(0)  # what was just taken becomes a connection
        for one in list(self._state.connections):
            one.shutdown()
        end = time.monotonic() + self.service.limits.drain_seconds
        while (self._state.connections or self._state.tasks) and time.monotonic() < end:
            connection.sweep(self._state)
            await asyncio.sleep(0.02)

    async def _beat(self) -> None:
        """Tell how things stand, and look after the clocks."""
        while True:
            date = email.utils.formatdate(usegmt=True).encode()
            self._state.default_headers = [(b"date", date)]
            connection.sweep(self._state)
            self._channel.send(
                say="beat",
                stuck=self.service.stuck_for(),
                counts=self.service.snapshot(),
            )
            await asyncio.sleep(BEAT_SECONDS)

    # --- what the supervisor says

    async def _obey(self, message: Message) -> None:
        match message["do"]:
            case "counts":
                counts = self.service.snapshot()
                self._channel.send(say="counts", number=message["number"], counts=counts)
            case "stage":
                await self._stage(message)
            case "commit":
                await self._commit(message)
            case "abort":
                self._staged = None
            case "answer":
                requested = self._requested.pop(message["number"], None)
                if requested is not None and not requested.done():
                    requested.set_result(message)

    async def _stage(self, message: Message) -> None:
        """Load the new model beside the old one, and check it, without being asked anything."""
        name = message["name"]
        reply: Message = {"number": message["number"]}
        try:
            self._staged = await asyncio.to_thread(
                hosted.load, name, message["path"], message["shown"], threads(self._options)
            )
        except TinylensError as error:
            reply["error"] = str(error)
        self._channel.send(say="staged", **reply)

    async def _commit(self, message: Message) -> None:
        if self._staged is not None:
            await self.service.swap(self._staged)
            self._staged = None
        self._channel.send(say="swapped", number=message["number"])

    async def _ask(self, what: str, **more: Any) -> Message:
        number = next(self._numbers)
        self._requested[number] = self._loop.create_future()
        self._channel.send(say="ask", what=what, number=number, **more)
        return await self._requested[number]

    async def _reload(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self._ask("reload", name=name))["found"]
        return found

    async def _collect(self) -> Counts:
        counts: Counts = (await self._ask("counts"))["counts"]
        return counts

    def _task(self, coroutine: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _settings(app: Any) -> uvicorn.Config:
    """Return uvicorn's settings: ours are the clocks, the log, the sockets and the headers."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        interface="asgi3",
    )
    config.load()
    return config


def threads(options: Options) -> int:
    """Return how many threads onnxruntime has in a worker: the cores are shared out."""
    return max(1, core_count() // options.workers)


async def main(control: int, connections: int, ended: int) -> int:
    """Open the models and answer; return the exit code."""
    channel = await Channel.over(socket.socket(fileno=control))
    first = await anext(channel.messages(), None)
    if first is None:
        return 0  # the supervisor is gone already
    options = Options.from_json(first["options"])
    try:
        models = [
            hosted.load(name, first["paths"][name], shown, threads(options))
            for name, shown in options.models
        ]
    except TinylensError as error:
        channel.send(say="failed", error=str(error), kind=type(error).__name__)
        await channel.close()
        return error.exit_code
    incoming = socket.socket(fileno=connections)
    incoming.setblocking(False)
    worker = Worker(options, models, channel, incoming, Tally(ended))
    channel.send(say="ready", sha256={model.name: model.sha256 for model in models})
    await worker.run()
    return 0


def start() -> None:
    """Run a worker with the sockets that it inherited."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what went wrong is told by us
    import uvloop

    sys.setswitchinterval(SWITCH_SECONDS)
    code = uvloop.run(main(*map(int, sys.argv[1:])))
    sys.stderr.flush()
    os._exit(code)  # a thread that computes for nobody must not hold the process


if __name__ == "__main__":
    start()
