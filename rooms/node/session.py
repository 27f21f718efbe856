"""Serving one socket, wherever it comes from: an ASGI server (``consumers.py``) or a service that an
extension dialled (``node/outbound.py``).

One task reads: frame → protocol → requests, carried out one after another; only messages need not wait for
each other's answers (``node/publish.py``). What piled up in a turn of the loop is written together: at
once where the server in front lets us (``hub/write_scheduler.py``), elsewhere by a task of the connection's own.
Whatever ends either, the connection is let go of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias
from typing import Protocol as Structural

from rooms.hub.connection import Connection
from rooms.hub.send_queue import SendQueueLimits
from rooms.hub.shared_frames import Wire
from rooms.hub.write_scheduler import DirectWriter
from rooms.node.connect import Handshake
from rooms.node.node import Node
from rooms.node.pending_message import refuse
from rooms.protocol.base import Protocol
from rooms.protocol.commands import Command, Send
from rooms.protocol.errors import CloseCode, ProtocolError, RoomsError
from rooms.protocol.events import Error

logger = logging.getLogger("rooms.node.session")

Operation: TypeAlias = Callable[[Connection, Any], Awaitable[None]]
Operations: TypeAlias = Mapping[type[Command], Operation]

# So many requests are carried out in a row before others get their turn.
REQUESTS_A_TURN = 32
BYTES_A_REQUEST = 64 * 1024


class Socket(Structural):
    """What is left of a WebSocket when its origin is taken away."""

    async def next(self) -> str | bytes | None:
        """The next frame; None when the socket has ended."""

    async def send(self, frame: bytes, *, binary: bool) -> None: ...

    async def close(self, code: int, reason: str) -> None: ...


def make_connection(node: Node, id: str, protocol: Protocol, *, application: str, address: str) -> Connection:
    """A connection with the bounds that the settings say."""
    settings = node.parts.settings
    largest = settings.frame_bytes(protocol.name)
    return Connection(
        id,
        protocol,
        application=application,
        address=address,
        limits=SendQueueLimits(
            bytes=max(settings.send_queue_max_bytes, 4 * largest), frames=settings.send_queue_max_frames
        ),
    )


class Session:
    """One socket and its connection, from the accepted handshake to the end."""

    __slots__ = (
        "_aborted",
        "_connection",
        "_largest",
        "_node",
        "_operations",
        "_serving",
        "_socket",
        "_wire",
    )

    def __init__(
        self,
        node: Node,
        operations: Operations,
        connection: Connection,
        socket: Socket,
        wire: Wire | None = None,
        *,
        handshake: Handshake | None = None,
    ) -> None:
        """``wire``, if there is one, is where frames are read and written at once, and the socket as well.
        Only a session that opens further connections keeps the ``handshake``."""
        self._node = node
        self._operations = operations
        self._connection = connection
        self._socket = socket
        self._wire = wire
        self._largest = node.parts.settings.frame_bytes(connection.protocol.name)
        self._serving: asyncio.Task[Any] | None = None
        self._aborted = False

    async def run(self, user: Any) -> None:
        """Until the socket has ended; ``user`` is the Django user of the handshake or None."""
        self._serving = asyncio.current_task()
        end_writing = self._begin_writing()
        try:
            await self._begin(user)
            # It may be large, and the socket open for days.
            del user
            await self._listen()
        except asyncio.CancelledError:
            if not self._aborted:
                raise
        finally:
            # ``disconnect()`` of Channels is not always called; this is.
            self._end()
            end_writing()

    def abort(self) -> None:
        """End it without a word, but for one in the middle of a request, which would be left half done: then
        the next look is in time."""
        if self._serving is not None and not self._connection.is_busy():
            self._aborted = True
            self._serving.cancel()

    # Reading -----------------------------------------------------------------------------------------

    async def _begin(self, user: Any) -> None:
        connection = self._connection
        try:
            await self._node.connect(connection, user, self.abort)
        except RoomsError as error:
            connection.close(CloseCode.OVERLOADED, error.message, retry_in=random.uniform(1, 5))
        for request in connection.protocol.on_connected(connection.id):
            if connection.close_code is None:
                await self._carry_out(request)

    def _end(self) -> None:
        self._node.disconnect(self._connection)

    async def _listen(self) -> None:
        """Take frames until the socket ends; one request after the other, in order."""
        connection = self._connection
        while (frame := await self._socket.next()) is not None:
            connection.heard, connection.pinged = time.monotonic(), False
            if _is_longer(frame, self._largest):
                await connection.answered()
                connection.close(CloseCode.FRAME_TOO_LARGE, f"A frame has at most {self._largest} bytes.")
            else:
                await self._read(frame)
        # Nobody says anything who is gone already.
        await connection.answered()

    async def _read(self, frame: str | bytes) -> None:
        connection, throttle = self._connection, self._node.throttle
        if connection.unanswered and connection.protocol.options.serial_requests:
            await connection.answered()
        # A large frame is as much work as many small ones.
        request, cost = None, 1 + len(frame) // BYTES_A_REQUEST
        try:
            for request in connection.protocol.decode(frame):
                if connection.unanswered and not isinstance(request, Send):
                    await connection.answered()
                if connection.close_code is not None:
                    return
                asking = self._asking(request)
                if throttle.allows(asking, request, cost):
                    await self._carry_out(request)
                else:
                    await self._refuse(asking, request)
                cost = 0 if connection.protocol.options.one_request_per_frame else 1
                connection.requests += 1
                if not connection.requests % REQUESTS_A_TURN:
                    await asyncio.sleep(0)
        except ProtocolError as error:
            await connection.answered()
            connection.close(error.close_code, error.message)
        if request is None:
            if not throttle.allows(connection, None, cost):
                await self._refuse(connection, None)
            # Many such frames are work as well.
            await asyncio.sleep(0)

    async def _refuse(self, asking: Connection, request: Command | Error | None) -> None:
        """Too many requests: said in its turn, behind the answers to what was said before."""
        await self._connection.answered()
        self._node.throttle.refuse(asking, request)

    async def _carry_out(self, request: Command | Error) -> None:
        connection = self._connection
        if isinstance(request, Error):
            connection.send(request)
            return
        connection.busy = True
        try:
            await self._operate(request)
        except Exception as error:
            await connection.answered()
            refuse(connection, request, error)
        finally:
            connection.busy = False

    def _asking(self, request: Command | Error) -> Connection:
        """Whose request it is."""
        return self._connection

    def _operate(self, request: Command) -> Awaitable[None]:
        return self._operations[type(request)](self._connection, request)

    # Writing -----------------------------------------------------------------------------------------

    def _begin_writing(self) -> Callable[[], object]:
        """Returns how to end it."""
        if self._wire is not None:
            return DirectWriter(self._connection, self._wire, self._node.parts.flusher).end
        wanted = asyncio.Event()
        self._connection.on_wake(wanted.set)
        return asyncio.create_task(self._write(wanted)).cancel

    async def _write(self, wanted: asyncio.Event) -> None:
        connection = self._connection
        try:
            while connection.close_code is None:
                await wanted.wait()
                wanted.clear()
                await self._write_waiting()
            await self._write_waiting()
            # Left standing: a peer that does not answer the close is ended by the heartbeat.
            connection.writing_since = time.monotonic()
            # A close frame holds at most 123 bytes of reason.
            reason = connection.close_reason.encode()[:123].decode(errors="ignore")
            await self._socket.close(int(connection.close_code or CloseCode.INTERNAL_ERROR), reason)
        except asyncio.CancelledError:
            raise
        except OSError as error:
            # The socket is gone; the receive loop hears of it.
            logger.debug("Could not write to %r: %r", connection, error)
        except Exception as error:
            # The server in front would not send this: nobody is to go on half alive.
            logger.warning("Could not write to %r: %r", connection, error)
            connection.close(CloseCode.INTERNAL_ERROR, "Something could not be sent.", discard=True)
            connection.writing_since = time.monotonic()
            with contextlib.suppress(Exception):
                await self._socket.close(CloseCode.INTERNAL_ERROR, connection.close_reason)

    async def _write_waiting(self) -> None:
        connection = self._connection
        binary = connection.protocol.binary
        for frame in connection.take():
            connection.writing_since = time.monotonic()
            await self._socket.send(frame, binary=binary)
        connection.writing_since = None


def _is_longer(frame: str | bytes, most: int) -> bool:
    """Whether a frame has more than so many bytes; text is only encoded where that decides."""
    # A character has up to four.
    if len(frame) * 4 <= most:
        return False
    return len(frame if isinstance(frame, bytes) else frame.encode()) > most
