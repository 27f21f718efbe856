"""Transports WebSocket frames over a socket: reads messages, writes frames.

Frames are parsed by ``rooms/protocol/frame_protocol.py``. A client that does not read is noticed with the
first byte that stays in the buffer; reading stops while the application has not taken earlier messages;
no connection has its own timer (``keepalive.py``) before it is being closed. The handshake and ASGI are
in ``websocket.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

from rooms.protocol import frame_protocol
from rooms.protocol.frame_protocol import Close, Ping, Reader, Received, Violation
from rooms.server.keepalive import Keepalive

# How long a client may take to answer a close frame, and to read the last bytes after its own.
CLOSE_TIMEOUT = 10.0
LINGER_TIMEOUT = 2.0

# Bytes of one client that are parsed before other connections get their turn: they may be thousands of pings
# or fragments, which back-pressure of the application does not limit.
MAX_BYTES_PER_TURN = 32 * 1024
# Of pings that arrive together the last ones are answered.
MAX_PONGS_PER_READ = 32

NORMAL, LOST, FAULT, RESTART = 1000, 1006, 1011, 1012

CONNECTING, OPEN, CLOSING, CLOSED = range(4)

_PING_FRAME = frame_protocol.frame(frame_protocol.PING, b"")


class FrameTransport(asyncio.Protocol):
    """One connection, from its hand-over by the HTTP protocol to its end."""

    __slots__ = (
        "_config",
        "_drained",
        "_end",
        "_end_delivered",
        "_keepalive",
        "_loop",
        "_paused",
        "_pending_pong",
        "_reader",
        "_received",
        "_server_state",
        "_silent_checks",
        "_slot",
        "_state",
        "_timer",
        "_transport",
        "_unparsed",
        "_waiter",
        "_writable",
    )

    def __init__(self, config: Config, server_state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._server_state = server_state
        self._loop = loop
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._reader = Reader(config.ws_max_size)
        self._state = CONNECTING
        # Messages that the application has not taken, newest first; close code and reason of the end.
        self._received: list[str | bytes] = []
        self._end: tuple[int, str] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        # The rest of a chunk that is parsed over several turns.
        self._unparsed = b""
        # Set only while the client does not read; then the payload of its last ping is kept, too.
        self._writable: asyncio.Event | None = None
        self._pending_pong: bytes | None = None
        self._drained: Callable[[], None] | None = None
        self._end_delivered = False
        # Consecutive keepalive checks without data from the client.
        self._silent_checks = 0
        self._keepalive: Keepalive | None = None
        self._slot = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def close_sent(self) -> bool:
        """Whether the client has yet to answer a close frame."""
        return self._state == CLOSING

    # asyncio.Protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(cast(Any, self))
        # Not 0: with TLS, that mark is reached even when everything is written.
        self._transport.set_write_buffer_limits(high=1, low=0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state, self._paused, self._unparsed = CLOSED, False, b""
        self._server_state.connections.discard(cast(Any, self))
        if self._keepalive is not None:
            self._keepalive.discard(self, self._slot)
        if self._timer is not None:
            self._timer.cancel()
        self._finish(LOST)
        self._drained = None
        if self._writable is not None:
            self._writable.set()

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        if self._pending_pong is not None and self._state == OPEN:
            self._transport.write(frame_protocol.frame(frame_protocol.PONG, self._pending_pong))
            self._pending_pong = None
        if self._drained is not None and self._writable is None:
            self._drained()

    def data_received(self, data: bytes) -> None:
        if self._state == CONNECTING:
            self._receive_early(data)
            return
        self._silent_checks = 0
        if len(data) <= MAX_BYTES_PER_TURN and not self._unparsed:
            self._parse(data)
            return
        if not self._unparsed:
            self._loop.call_soon(self._parse_next_turn)
        self._unparsed += data
        self._pause_reading()

    # Reading -----------------------------------------------------------------------------------------

    async def next(self) -> str | bytes | None:
        """Return the next message; None once the connection has ended, with ``_end`` set.

        Raises ClientDisconnected after that: a caller in a loop would block the event loop.
        """
        while not self._received:
            if self._end_delivered:
                raise ClientDisconnected
            if self._end is not None:
                self._end_delivered = True
                return None
            if self._waiter is not None and not self._waiter.done():
                raise RuntimeError("Expected one receive at a time, got a second one.")
            self._waiter = self._loop.create_future()
            await self._waiter
        message = self._received.pop()
        if self._paused and not self._received:
            self._resume_reading()
        return message

    def _parse_next_turn(self) -> None:
        data, self._unparsed = self._unparsed[:MAX_BYTES_PER_TURN], self._unparsed[MAX_BYTES_PER_TURN:]
        self._parse(data)
        if self._unparsed:
            self._loop.call_soon(self._parse_next_turn)
        elif not self._received:
            self._resume_reading()

    def _parse(self, data: bytes) -> None:
        events = self._reader.receive(data)
        if len(events) == 1 and isinstance(events[0], (str, bytes)):
            self._deliver([events[0]])
            return
        if messages := [event for event in events if isinstance(event, (str, bytes))]:
            self._deliver(messages)
        if len(messages) != len(events):
            self._handle_control_frames(events)

    def _deliver(self, messages: list[str | bytes]) -> None:
        """Queue messages; stop reading if the application has not taken earlier ones."""
        if self._state != OPEN:
            return
        messages.reverse()
        if self._received:
            self._received[:0] = messages
            self._pause_reading()
        else:
            self._received = messages
        self._wake()

    def _handle_control_frames(self, events: list[Received]) -> None:
        if pings := [event.payload for event in events if isinstance(event, Ping)]:
            self._answer_pings(pings)
        # The reader stops at these.
        if isinstance(last := events[-1], (Close, Violation)):
            self._handle_end(last)

    def _answer_pings(self, pings: list[bytes]) -> None:
        """Send pongs; RFC 6455 allows to answer only the last of several pings."""
        if self._writable is not None:
            self._pending_pong = pings[-1]
        elif self._state == OPEN:
            self._transport.write(
                b"".join(
                    frame_protocol.frame(frame_protocol.PONG, each) for each in pings[-MAX_PONGS_PER_READ:]
                )
            )

    def _handle_end(self, last: Close | Violation) -> None:
        """Answer the client's close frame, or close because of a protocol violation."""
        self._unparsed = b""
        if isinstance(last, Close):
            self._send_close(last.code, "", LINGER_TIMEOUT, received_reason=last.reason)
            self._transport.close()
            return
        self._send_close(last.code, last.reason, LINGER_TIMEOUT)
        # A socket closed with unread data is reset, and the client might lose the close frame.
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    # Writing -----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> bool:
        """Write whole frames; returns False if the client does not read.

        The ``on_drained`` callback is called when it has read everything.
        """
        if self._state != OPEN:
            return True
        self._transport.write(data)
        return self._writable is None

    def on_drained(self, call: Callable[[], None]) -> None:
        """Set the callback for a client that has read everything after a pause."""
        self._drained = call

    def close(self, code: int, reason: str) -> None:
        """Send a close frame behind everything written; later writes are ignored."""
        if self._state == OPEN:
            self._received.clear()
            self._send_close(code, reason, CLOSE_TIMEOUT)

    def abort(self) -> None:
        """Close the socket without a close frame."""
        self._transport.abort()

    def check_alive(self) -> None:
        """Ping the client, or close if it has not answered for too long.

        Called once an interval.
        """
        if self._state != OPEN or self._paused:
            # The pong may be among the bytes that are not read.
            return
        interval, timeout = self._config.ws_ping_interval or 0, self._config.ws_ping_timeout
        if timeout is not None and self._silent_checks and self._silent_checks * interval >= timeout:
            self.close(FAULT, "keepalive ping timeout")
            return
        self._silent_checks += 1
        if self._writable is None:
            self._transport.write(_PING_FRAME)

    def _receive_early(self, data: bytes) -> None:
        """Handle bytes that arrive before the handshake is complete."""
        raise NotImplementedError

    # State -------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Enter the OPEN state after the handshake."""
        self._state = OPEN
        if self._config.ws_ping_interval:
            self._keepalive = Keepalive.of(self._loop, self._config.ws_ping_interval)
            self._slot = self._keepalive.add(self)

    def _send_close(self, code: int, reason: str, timeout: float, received_reason: str = "") -> None:
        """Send a close frame, and abort after ``timeout``.

        Messages received before are still delivered.
        """
        if self._state != OPEN:
            return
        self._transport.write(frame_protocol.close_frame(code, reason))
        self._state = CLOSING
        self._timer = self._loop.call_later(timeout, self.abort)
        self._finish(code, received_reason or reason)
        # Read up to the client's close frame; messages before it are dropped.
        self._resume_reading()

    def _finish(self, code: int, reason: str = "") -> None:
        """Record how the connection ended; the first call counts."""
        if self._end is None:
            self._end = code, reason
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused and not self._unparsed and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
