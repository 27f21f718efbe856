"""The session of one socket: read, execute commands, write, clean up.

The socket belongs to an ASGI server (``consumers.py``), or is opened by an extension. One task
reads: frame, commands, one executed after another; only messages need not wait for each other's
acknowledgements (``publish.py``). Frames are written at once where the server allows it
(``hub/write_scheduler.py``), else by a task of the session. Whatever ends either, the connection is
cleaned up.
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
from rooms.hub.shared_frames import FrameWriter
from rooms.hub.write_scheduler import DirectWriter
from rooms.node.connect import Handshake
from rooms.node.node import Node
from rooms.node.publish import reply_error
from rooms.protocol.base import Protocol
from rooms.protocol.commands import Command, Send
from rooms.protocol.errors import CloseCode, ProtocolError, RoomsError
from rooms.protocol.events import Error

logger = logging.getLogger("rooms.node.session")

Operation: TypeAlias = Callable[[Connection, Any], Awaitable[None]]
CommandTable: TypeAlias = Mapping[type[Command], Operation]

# After this many commands in a row other sessions get their turn.
COMMANDS_PER_TURN = 32
# A frame is charged as one command for each of these.
BYTES_PER_COMMAND = 64 * 1024


class Socket(Structural):
    """A WebSocket, wherever it comes from."""

    async def next(self) -> str | bytes | None:
        """Return the next frame; None when the socket has ended."""

    async def send(self, frame: bytes, *, binary: bool) -> None: ...

    async def close(self, code: int, reason: str) -> None: ...


def make_connection(node: Node, id: str, protocol: Protocol, *, application: str, address: str) -> Connection:
    """Return a connection with the limits of the settings."""
    settings = node.context.settings
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
    """From the accepted handshake to the end of the socket."""

    __slots__ = (
        "_aborted",
        "_commands",
        "_connection",
        "_max_frame",
        "_node",
        "_socket",
        "_task",
        "_writer",
    )

    def __init__(
        self,
        node: Node,
        commands: CommandTable,
        connection: Connection,
        socket: Socket,
        writer: FrameWriter | None = None,
        *,
        handshake: Handshake | None = None,
    ) -> None:
        """Create the session of a socket.

        ``writer`` writes frames at once; None: a task of the session writes to the socket. Only a
        session that opens further connections keeps the ``handshake``.
        """
        self._node = node
        self._commands = commands
        self._connection = connection
        self._socket = socket
        self._writer = writer
        self._max_frame = node.context.settings.frame_bytes(connection.protocol.name)
        self._task: asyncio.Task[Any] | None = None
        self._aborted = False

    async def run(self, user: Any) -> None:
        """Serve the socket until it ends.

        ``user`` is the Django user of the handshake, or None.
        """
        self._task = asyncio.current_task()
        end_writing = self._begin_writing()
        try:
            await self._connect(user)
            # It may be large, and the socket open for days.
            del user
            await self._read_frames()
        except asyncio.CancelledError:
            if not self._aborted:
                raise
        finally:
            # Channels does not always call ``disconnect()`` of a consumer.
            self._disconnect()
            end_writing()

    def abort(self) -> None:
        """End the session at once, unless a command is executed.

        In that case the next attempt ends it.
        """
        if self._task is not None and not self._connection.is_busy():
            self._aborted = True
            self._task.cancel()

    # Reading -----------------------------------------------------------------------------------------

    async def _connect(self, user: Any) -> None:
        connection = self._connection
        try:
            await self._node.connect(connection, user, self.abort)
        except RoomsError as error:
            connection.close(CloseCode.OVERLOADED, error.message, retry_in=random.uniform(1, 5))
        for command in connection.protocol.on_connected(connection.id):
            if connection.close_code is None:
                await self._execute(command)

    def _disconnect(self) -> None:
        self._node.disconnect(self._connection)

    async def _read_frames(self) -> None:
        connection = self._connection
        while (frame := await self._socket.next()) is not None:
            connection.last_seen, connection.ping_sent = time.monotonic(), False
            if _is_longer(frame, self._max_frame):
                await connection.wait_idle()
                connection.close(
                    CloseCode.FRAME_TOO_LARGE, f"Expected a frame of at most {self._max_frame} bytes."
                )
            else:
                await self._read(frame)
        # A user leaves after the last message.
        await connection.wait_idle()

    async def _read(self, frame: str | bytes) -> None:
        """Execute the commands of a frame, in order."""
        connection, throttle = self._connection, self._node.throttle
        if connection.in_flight and connection.protocol.options.serial_requests:
            await connection.wait_idle()
        # A large frame is as much work as many small ones.
        command, cost = None, 1 + len(frame) // BYTES_PER_COMMAND
        try:
            for command in connection.protocol.decode(frame):
                if connection.in_flight and not isinstance(command, Send):
                    await connection.wait_idle()
                if connection.close_code is not None:
                    return
                charged = self._charged(command)
                if throttle.allows(charged, command, cost):
                    await self._execute(command)
                else:
                    await self._refuse(charged, command)
                cost = 0 if connection.protocol.options.one_request_per_frame else 1
                connection.requests += 1
                if not connection.requests % COMMANDS_PER_TURN:
                    await asyncio.sleep(0)
        except ProtocolError as error:
            await connection.wait_idle()
            connection.close(error.close_code, error.message)
        if command is None:
            if not throttle.allows(connection, None, cost):
                await self._refuse(connection, None)
            # Frames without commands are work as well.
            await asyncio.sleep(0)

    async def _refuse(self, charged: Connection, command: Command | Error | None) -> None:
        """Refuse a command because of its rate, after the replies to earlier ones."""
        await self._connection.wait_idle()
        self._node.throttle.refuse(charged, command)

    async def _execute(self, command: Command | Error) -> None:
        connection = self._connection
        if isinstance(command, Error):
            connection.send(command)
            return
        connection.busy = True
        try:
            await self._run_operation(command)
        except Exception as error:
            await connection.wait_idle()
            reply_error(connection, command, error)
        finally:
            connection.busy = False

    def _charged(self, command: Command | Error) -> Connection:
        """The connection whose rate limit a command is charged to."""
        return self._connection

    def _run_operation(self, command: Command) -> Awaitable[None]:
        return self._commands[type(command)](self._connection, command)

    # Writing -----------------------------------------------------------------------------------------

    def _begin_writing(self) -> Callable[[], object]:
        """Start writing. Returns the function that ends it."""
        if self._writer is not None:
            return DirectWriter(self._connection, self._writer, self._node.context.hub.scheduler).end
        wanted = asyncio.Event()
        self._connection.on_wake(wanted.set)
        return asyncio.create_task(self._write(wanted)).cancel

    async def _write(self, wanted: asyncio.Event) -> None:
        connection = self._connection
        try:
            while connection.close_code is None:
                await wanted.wait()
                wanted.clear()
                await self._write_pending()
            await self._write_pending()
            # It stays set: the periodic check ends a peer that does not answer the close.
            connection.writing_since = time.monotonic()
            # A close frame holds at most 123 bytes of reason.
            reason = connection.close_reason.encode()[:123].decode(errors="ignore")
            await self._socket.close(int(connection.close_code or CloseCode.INTERNAL_ERROR), reason)
        except asyncio.CancelledError:
            raise
        except OSError as error:
            # The socket is gone, which ends the reading as well.
            logger.debug("Could not write to %r: %r", connection, error)
        except Exception as error:
            # The server refused the frame: the connection must not go on without it.
            logger.warning("Could not write to %r: %r", connection, error)
            connection.close(CloseCode.INTERNAL_ERROR, "Something could not be sent.", discard=True)
            connection.writing_since = time.monotonic()
            with contextlib.suppress(Exception):
                await self._socket.close(CloseCode.INTERNAL_ERROR, connection.close_reason)

    async def _write_pending(self) -> None:
        connection = self._connection
        binary = connection.protocol.binary
        for frame in connection.pop_all():
            connection.writing_since = time.monotonic()
            await self._socket.send(frame, binary=binary)
        connection.writing_since = None


def _is_longer(frame: str | bytes, limit: int) -> bool:
    """Return whether a frame has more than ``limit`` bytes.

    Text is only encoded where that decides.
    """
    # A character has up to four.
    if len(frame) * 4 <= limit:
        return False
    return len(frame if isinstance(frame, bytes) else frame.encode()) > limit
