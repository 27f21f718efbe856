"""Connections that extensions open to other services, reopened when lost.

This module has the client side of a WebSocket (library ``websockets``); the function ``serve``, from
``consumers.py``, serves the open socket like one that a client opened. A process that serves no sockets
opens none.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from rooms.conf import PROTOCOL_NAMES, Settings, load_protocol
from rooms.extensions.contexts import Owner
from rooms.hub.connection import Connection
from rooms.protocol.errors import FIRST_PERMANENT_CODE, CloseCode

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

logger = logging.getLogger("rooms.node.outbound")

# Per application and process.
MAX_OUTBOUND_CONNECTIONS = 16

OPEN_TIMEOUT = 10.0
# For the close handshake of ``websockets``.
CLOSE_TIMEOUT = 10.0
# A closed connection whose peer does not answer the close is cut after this time.
ABORT_TIMEOUT = 5.0
# Between two attempts lies a random time of at most MIN_BACKOFF; the limit doubles with each attempt up to
# MAX_BACKOFF. A connection that stayed open for MAX_BACKOFF starts again at MIN_BACKOFF.
MIN_BACKOFF = 0.2
MAX_BACKOFF = 20.0


class OutboundConnection:
    """One service that is connected, and reconnected until this is closed.

    ``connection`` is the hub's connection while the socket is open.
    """

    def __init__(self, owner: Owner, url: str, protocol: str, headers: Mapping[str, str]) -> None:
        self.owner = owner
        self.url = url
        self.protocol = protocol
        self.headers = dict(headers)
        self.connection: Connection | None = None
        self.closed = False
        self.task: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        parts = urlsplit(self.url)
        # The user before the host and the query may be secrets.
        return f"<OutboundConnection {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}>"

    @property
    def number(self) -> int | None:
        """The number of the open connection, if any; each reconnect has a new one."""
        return self.connection.number or None if self.connection is not None else None

    def close(self) -> None:
        """Close the connection and stop reconnecting. Thread-safe."""
        self._loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """As ``close``, in the node's event loop."""
        self.closed = True
        if self.task is None or self.task.done():
            return
        if self.connection is None:
            self.task.cancel()
        else:
            self.connection.close(CloseCode.NORMAL, "Good bye.")
            self._loop.call_later(ABORT_TIMEOUT, self.task.cancel)


class ClientSocket:
    """The socket of a session, over a connection of ``websockets``."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket

    async def next(self) -> str | bytes | None:
        from websockets.exceptions import ConnectionClosed

        try:
            return await self._websocket.recv()
        except ConnectionClosed:
            return None

    async def send(self, frame: bytes, *, binary: bool) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._websocket.send(frame, text=not binary)
        except ConnectionClosed as error:
            # ASGI servers raise an OSError, too.
            raise ConnectionError("The connection to the service is closed.") from error

    async def close(self, code: int, reason: str) -> None:
        await self._websocket.close(code, reason)


Serve: TypeAlias = Callable[[OutboundConnection, ClientSocket], Coroutine[Any, Any, None]]


class OutboundConnections:
    """The outbound connections of all extensions of this process."""

    _settings: Settings

    def __init__(self) -> None:
        self._opened: list[OutboundConnection] = []
        self._serve: Serve | None = None

    def start(self, serve: Serve, settings: Settings) -> None:
        """Enable connecting; without it, as in a WSGI worker, ``open`` only validates."""
        self._serve, self._settings = serve, settings

    def open(
        self, owner: Owner, url: str, *, protocol: str, headers: Mapping[str, str]
    ) -> OutboundConnection:
        """Start connecting. Raises the errors of ``Extension.open_connection``."""
        _check(url, protocol)
        self._opened = [each for each in self._opened if not each.closed]
        count = sum(each.owner.application == owner.application for each in self._opened)
        if count >= MAX_OUTBOUND_CONNECTIONS:
            raise RuntimeError(
                f"{owner.application} has {count} outbound connections; at most "
                f"{MAX_OUTBOUND_CONNECTIONS} are allowed."
            )
        outbound = OutboundConnection(owner, url, protocol, headers)
        self._opened.append(outbound)
        if self._serve is not None:
            outbound.task = asyncio.ensure_future(self._keep_connected(outbound, self._serve))
        return outbound

    def stop_connection(self, connection: Connection) -> None:
        """If this connection is an outbound one, it is not reconnected."""
        for outbound in self._opened:
            if outbound.connection is connection:
                outbound.stop()

    def stop_owner(self, owner: Owner) -> None:
        """The extension has stopped, and its outbound connections stop with it."""
        for outbound in self._opened:
            if outbound.owner is owner:
                outbound.stop()

    async def close(self) -> None:
        """Close all connections and wait until their tasks have ended."""
        self._serve = None
        for outbound in self._opened:
            outbound.stop()
        if tasks := [outbound.task for outbound in self._opened if outbound.task is not None]:
            await asyncio.wait(tasks)

    async def _keep_connected(self, outbound: OutboundConnection, serve: Serve) -> None:
        """Reconnect until the connection is closed here with a code that is final."""
        backoff = MIN_BACKOFF
        while not outbound.closed:
            began = time.monotonic()
            try:
                await self._connect(outbound, serve)
            except Exception as error:
                # A service may be down, and no other error may end the reconnecting. Repeated failures are
                # logged at DEBUG.
                level = logging.WARNING if backoff == MIN_BACKOFF else logging.DEBUG
                logger.log(level, "%r cannot connect: %s: %s", outbound, type(error).__name__, error)
            if time.monotonic() - began >= MAX_BACKOFF:
                backoff = MIN_BACKOFF
            if not outbound.closed:
                await asyncio.sleep(random.uniform(0, backoff))
            backoff = min(2 * backoff, MAX_BACKOFF)

    async def _connect(self, outbound: OutboundConnection, serve: Serve) -> None:
        """Open one connection and serve it until it ends."""
        from websockets.asyncio.client import connect

        websocket = await connect(
            outbound.url,
            additional_headers=outbound.headers,
            compression=None,
            max_size=self._settings.frame_bytes(outbound.protocol),
            open_timeout=OPEN_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
        )
        try:
            # A task of its own, because the heartbeat cancels the session and not the reconnecting.
            await asyncio.create_task(serve(outbound, ClientSocket(websocket)))
            connection = outbound.connection
            if connection is not None and connection.close_code is not None and not outbound.closed:
                outbound.closed = connection.close_code >= FIRST_PERMANENT_CODE
                event = "does not reconnect" if outbound.closed else "was closed by this server"
                logger.warning("%r %s: %s", outbound, event, connection.close_reason)
        finally:
            outbound.connection = None
            websocket.transport.abort()


def _check(url: object, protocol: str) -> None:
    # A protocol with several applications per socket cannot belong to one application.
    allowed = [name for name in PROTOCOL_NAMES if not load_protocol(name).options.multiplexes_applications]
    if protocol not in allowed:
        raise ValueError(f"Expected a protocol of {', '.join(allowed)}, got {protocol!r}.")
    if not isinstance(url, str) or not _is_websocket_url(url):
        raise ValueError(f"Expected ws://host:port/path or wss://host:port/path, got {url!r}.")
    if find_spec("websockets") is None:
        raise RuntimeError(
            'Outbound connections need the package websockets: pip install "django-rooms[server]".'
        )


def _is_websocket_url(url: str) -> bool:
    if any(character <= " " or character == "\x7f" for character in url):
        return False
    try:
        parts = urlsplit(url)
        return bool(
            parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0 and not parts.fragment
        )
    except ValueError:
        return False
