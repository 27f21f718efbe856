"""Dialling another service and serving it as if it had come in: a socket from the other side.

The bytes come from the library ``websockets`` here and from an ASGI server in ``consumers.py``; from there
on all is the same (``node/session.py``). Which services are dialled is kept in ``node/outbound_connections.py``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from typing import TYPE_CHECKING

from rooms.conf import load_protocol
from rooms.consumers import operations
from rooms.node.node import Node
from rooms.node.outbound_connections import OutboundConnection
from rooms.node.session import Session, make_connection
from rooms.protocol.errors import FOR_GOOD

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

logger = logging.getLogger("rooms.node.outbound")

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 10.0
# Between one dialling and the next lies a random time, at most the first of these; it doubles with each
# that fails, up to the second. One that stayed connected for as long as that begins anew.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 20.0


async def keep(node: Node, dial: OutboundConnection) -> None:
    """Stay connected until somebody hangs up, or we close the connection and would close the next as well."""
    pause = FIRST_PAUSE
    while not dial.closed:
        began = time.monotonic()
        try:
            await _serve(node, dial)
        except Exception as error:
            # A service that is not there is no fault of ours, and nothing else may end the dialling. Said
            # once, as long as nothing changes.
            level = logging.WARNING if pause == FIRST_PAUSE else logging.DEBUG
            logger.log(level, "%r cannot be reached: %s: %s", dial, type(error).__name__, error)
        if time.monotonic() - began >= LONGEST_PAUSE:
            pause = FIRST_PAUSE
        if not dial.closed:
            await asyncio.sleep(random.uniform(0, pause))
        pause = min(2 * pause, LONGEST_PAUSE)


async def _serve(node: Node, dial: OutboundConnection) -> None:
    """One connection, from dialling to its end."""
    from websockets.asyncio.client import connect

    websocket = await connect(
        dial.url,
        additional_headers=dial.headers,
        compression=None,
        max_size=node.parts.settings.frame_bytes(dial.protocol),
        open_timeout=CONNECT_SECONDS,
        close_timeout=CLOSE_SECONDS,
    )
    try:
        connection = make_connection(
            node,
            str(uuid.uuid4()),
            load_protocol(dial.protocol)(),
            application=dial.owner.application,
            address="",
        )
        connection.dialled = True
        dial.connection = connection
        service = Session(node, operations(node), connection, _DialledSocket(websocket))
        # A task of its own: the heartbeat ends that, and not the dialling.
        await asyncio.create_task(service.run(None))
        if connection.close_code is not None and not dial.closed:
            dial.closed = connection.close_code >= FOR_GOOD
            what = "is not dialled again" if dial.closed else "was closed from here"
            logger.warning("%r %s: %s", dial, what, connection.close_reason)
    finally:
        dial.connection = None
        websocket.transport.abort()


class _DialledSocket:
    """The socket behind a connection of ``websockets``."""

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
            # As ASGI servers say it.
            raise ConnectionError("the service is gone") from error

    async def close(self, code: int, reason: str) -> None:
        await self._websocket.close(code, reason)
