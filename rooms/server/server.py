"""uvicorn on every listening address, in one event loop, until a signal comes.

``manage.py runrooms`` hands in what listens; the clients are taken leave of in ``node/drain.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from rooms.conf import PROTOCOL_NAMES, get_settings
from rooms.consumers import serve_outbound
from rooms.node.drain import CHECK_SECONDS, close_connections
from rooms.node.node import Node
from rooms.node.preload import load_applications
from rooms.server.control_pipe import ControlPipe
from rooms.server.http_upgrade import Http
from rooms.server.websocket import WebSocket

logger = logging.getLogger("rooms.server")

# The end, step by step: the connections (``node/drain.py``, at most 13 seconds), answers to the last
# close frames, what Django still answers, the engine. Whatever hangs then is left behind.
STATEMENT_TIMEOUT = 2.0
GRACEFUL_SECONDS = 5
STOP_SECONDS = 3.5
END_SECONDS = 24.0

# Garbage is looked for after so many; Python's own 700 are those of a few dozen clients who come in.
NEW_OBJECTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Sockets of one address, the ASGI application behind them, and the files for TLS if it is spoken."""

    sockets: list[socket.socket]
    application: Any
    certificate: str | None = None
    key: str | None = None


def run(
    listeners: Sequence[Listener],
    listening: Callable[[], None],
    *,
    verbose: bool,
    lifeline: ControlPipe | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, or until the ``lifeline`` of a worker says so; ``listening`` is called
    when every address accepts. A second signal ends the process at once."""
    servers = [_Server(_config(each, verbose), each.sockets) for each in listeners]
    with asyncio.Runner(loop_factory=servers[0].config.get_loop_factory()) as runner:
        runner.run(_serve(servers, listening, lifeline))


def _spare_the_collector() -> None:
    """Have garbage looked for less often. A connection leaves none, but each pass goes through all that are
    open, and nobody is served meanwhile: 90 ms with 4,000. What is loaded by now is gone through no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 10, 10)


def _config(listener: Listener, verbose: bool) -> uvicorn.Config:
    settings = get_settings()
    return uvicorn.Config(
        listener.application,
        interface="asgi3",
        lifespan="off",
        workers=1,
        http=Http,
        ws=WebSocket,
        # Our own limits come first, and say why a connection ends; this one is for what is far beyond them.
        ws_max_size=2 * max(map(settings.frame_bytes, PROTOCOL_NAMES)),
        ws_ping_interval=20,
        ws_ping_timeout=20,
        # Which proxies are believed, the settings of Django and Rooms say.
        proxy_headers=False,
        server_header=False,
        log_config=None,
        log_level="info" if verbose else "warning",
        access_log=verbose,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        ssl_certfile=listener.certificate,
        ssl_keyfile=listener.key,
    )


class _Server(uvicorn.Server):
    """One address. uvicorn's own ``serve`` minds signals, which concern all addresses together."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config)
        self._sockets = sockets

    async def begin(self) -> asyncio.Task[None]:
        """Accept from now on; the task keeps it alive until ``should_exit``."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(self._sockets)
        return asyncio.create_task(self.main_loop())

    def stop_accepting(self) -> None:
        self.should_exit = True
        for server in self.servers:
            server.close()

    def waits_for_answers(self) -> bool:
        """Whether a client has yet to answer a close frame; cut off earlier, it might not get to read it."""
        return any(isinstance(each, WebSocket) and each.close_sent for each in self.server_state.connections)

    async def end(self) -> None:
        """Let what is still answered be answered, then close everything."""
        await self.shutdown(self._sockets)


async def _serve(
    servers: Sequence[_Server], listening: Callable[[], None], lifeline: ControlPipe | None
) -> None:
    ending = _Ending()
    node = await Node.get_or_start(serve_outbound)
    await load_applications(node.context)
    alive = [await server.begin() for server in servers]
    if lifeline is not None:
        lifeline.listen(partial(_tell_died, node), ending.begin)
        lifeline.accepting(node.id)
    _spare_the_collector()
    listening()
    await ending.begun.wait()
    for server in servers:
        server.stop_accepting()
    await close_connections(node)
    await _hear_answers(servers)
    await asyncio.gather(*alive, *(server.end() for server in servers))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(node.stop(), STOP_SECONDS)


def _tell_died(node: Node, node_id: str) -> None:
    """From the lifeline's thread: another engine's process is gone."""
    with contextlib.suppress(RuntimeError):
        node.loop.call_soon_threadsafe(lambda: node.context.tasks.spawn(node.node_died(node_id)))


async def _hear_answers(servers: Sequence[_Server]) -> None:
    for _ in range(round(STATEMENT_TIMEOUT / CHECK_SECONDS)):
        if not any(server.waits_for_answers() for server in servers):
            return
        await asyncio.sleep(CHECK_SECONDS)


class _Ending:
    """Begins with the first signal, or when somebody calls ``begin``, from whichever thread. A signal after
    the first has its usual effect, and so has too long a time."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._deadline = threading.Timer(END_SECONDS, _end)
        self._deadline.daemon = True
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, self._signalled)

    def begin(self) -> None:
        with self._lock:
            if not self._deadline.is_alive():
                # Threads that hang, in a handler or in a database, would else be waited for without end.
                self._deadline.start()
        # It may be over, too.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.begun.set)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        self.begin()


def _end() -> None:
    logger.error(
        "Something still runs %d seconds after the signal; the process ends without it.", END_SECONDS
    )
    os._exit(1)
