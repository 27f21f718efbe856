"""Serves every listener with uvicorn in one event loop, until a shutdown signal.

``manage.py runrooms`` passes the listeners; ``node/drain.py`` closes the connections at shutdown.
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
from functools import partial
from types import FrameType

import uvicorn

from rooms.conf import PROTOCOL_NAMES, get_settings
from rooms.consumers import serve_outbound
from rooms.node.drain import CHECK_SECONDS, close_connections
from rooms.node.node import Node
from rooms.node.preload import load_applications
from rooms.server.control_pipe import ControlPipe
from rooms.server.http_upgrade import Http
from rooms.server.listeners import Listener
from rooms.server.websocket import WebSocket

logger = logging.getLogger("rooms.server")

# The steps of a shutdown: connections (``node/drain.py``, at most 13 seconds), the clients' answers to
# close frames, responses of Django, the node. What still runs after SHUTDOWN_TIMEOUT is abandoned.
CLOSE_ANSWER_TIMEOUT = 2.0
GRACEFUL_TIMEOUT = 5
NODE_STOP_TIMEOUT = 3.5
SHUTDOWN_TIMEOUT = 24.0

# New objects between two passes of the garbage collector; Python's 700 are reached by a few dozen joins.
GC_THRESHOLD = 10_000


def run(
    listeners: Sequence[Listener],
    on_listening: Callable[[], None],
    *,
    verbose: bool,
    control_pipe: ControlPipe | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, or until the end of a worker's ``control_pipe``.

    ``on_listening`` is called when every address accepts. A second signal ends the process at once.
    """
    servers = [_Server(_config(each, verbose), each.sockets) for each in listeners]
    with asyncio.Runner(loop_factory=servers[0].config.get_loop_factory()) as runner:
        runner.run(_serve(servers, on_listening, control_pipe))


def _tune_garbage_collection() -> None:
    """Collect garbage less often, and never scan what is loaded by now.

    Connections create no cycles, but each pass scans all that are open and blocks the event loop meanwhile:
    90 ms with 4,000 connections.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 10)


def _config(listener: Listener, verbose: bool) -> uvicorn.Config:
    settings = get_settings()
    return uvicorn.Config(
        listener.application,
        interface="asgi3",
        lifespan="off",
        workers=1,
        http=Http,
        ws=WebSocket,
        # Each protocol's own limit comes first and names the reason; this one stops what is far beyond it.
        ws_max_size=2 * max(map(settings.frame_bytes, PROTOCOL_NAMES)),
        ws_ping_interval=20,
        ws_ping_timeout=20,
        # The settings of Django and Rooms decide which proxies are trusted.
        proxy_headers=False,
        server_header=False,
        log_config=None,
        log_level="info" if verbose else "warning",
        access_log=verbose,
        timeout_graceful_shutdown=GRACEFUL_TIMEOUT,
        ssl_certfile=listener.certificate,
        ssl_keyfile=listener.key,
    )


class _Server(uvicorn.Server):
    """One address.

    Replaces uvicorn's ``serve``, whose signal handlers would act on one address only.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config)
        self._sockets = sockets

    async def begin(self) -> asyncio.Task[None]:
        """Accept connections; the returned task runs until ``should_exit``."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(self._sockets)
        return asyncio.create_task(self.main_loop())

    def stop_accepting(self) -> None:
        self.should_exit = True
        for server in self.servers:
            server.close()

    def awaits_close_frames(self) -> bool:
        """Whether a client has yet to answer a close frame.

        If the socket were closed now, it might not read that frame.
        """
        return any(isinstance(each, WebSocket) and each.close_sent for each in self.server_state.connections)

    async def end(self) -> None:
        """Finish the responses in progress, then close everything."""
        await self.shutdown(self._sockets)


async def _serve(
    servers: Sequence[_Server], on_listening: Callable[[], None], control_pipe: ControlPipe | None
) -> None:
    shutdown = _ShutdownSignal()
    node = await Node.get_or_start(serve_outbound)
    await load_applications(node.context)
    main_loops = [await server.begin() for server in servers]
    if control_pipe is not None:
        control_pipe.listen(partial(_report_node_died, node), shutdown.set)
        control_pipe.send_accepting(node.id)
    _tune_garbage_collection()
    on_listening()
    await shutdown.wait()
    for server in servers:
        server.stop_accepting()
    await close_connections(node)
    await _wait_for_close_frames(servers)
    await asyncio.gather(*main_loops, *(server.end() for server in servers))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(node.stop(), NODE_STOP_TIMEOUT)


def _report_node_died(node: Node, node_id: str) -> None:
    """Pass the death of another process from the control pipe's thread to this node."""
    with contextlib.suppress(RuntimeError):
        node.loop.call_soon_threadsafe(lambda: node.context.tasks.spawn(node.node_died(node_id)))


async def _wait_for_close_frames(servers: Sequence[_Server]) -> None:
    for _ in range(round(CLOSE_ANSWER_TIMEOUT / CHECK_SECONDS)):
        if not any(server.awaits_close_frames() for server in servers):
            return
        await asyncio.sleep(CHECK_SECONDS)


class _ShutdownSignal:
    """Set by the first SIGINT or SIGTERM, or by ``set`` from any thread.

    A second signal has its default effect. SHUTDOWN_TIMEOUT after the first the process exits.
    """

    def __init__(self) -> None:
        self._received = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._timeout = threading.Timer(SHUTDOWN_TIMEOUT, _exit_at_once)
        self._timeout.daemon = True
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, self._handle)

    async def wait(self) -> None:
        await self._received.wait()

    def set(self) -> None:
        with self._lock:
            if not self._timeout.is_alive():
                # The interpreter waits for threads at exit, also for those that hang in a handler or a query.
                self._timeout.start()
        # The event loop may be closed already.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._received.set)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        self.set()


def _exit_at_once() -> None:
    logger.error(
        "Shutdown not complete after %d seconds; the process exits without waiting.", SHUTDOWN_TIMEOUT
    )
    os._exit(1)
