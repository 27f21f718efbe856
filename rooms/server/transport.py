"""One client's socket in the server: its bytes become what was said, and what is written goes out at once.

Frames are read by ``rooms/protocol/frame_protocol.py``. Who does not read is noticed with the first byte that stays behind,
who sends faster than the application takes is read no further, and no connection has a timer of its
own (``keepalive.py``) before it is being closed. The handshake and ASGI: ``websocket.py``.
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

# A client has so long to answer a close frame, and so long to read that its own was the last.
CLOSE_SECONDS = 10.0
LEAVE_SECONDS = 2.0

# So many bytes of a client are read before others get their turn: they may be thousands of pings or
# fragments, which no application holds back.
READ_A_TURN = 32 * 1024
# So many of the pings that came together are answered, the last ones.
PONGS_A_READ = 32

NORMAL, LOST, FAULT, RESTART = 1000, 1006, 1011, 1012

CONNECTING, OPEN, CLOSING, CLOSED = range(4)

_PING_FRAME = frame_protocol.frame(frame_protocol.PING, b"")


class Wire(asyncio.Protocol):
    """From the hand-over by uvicorn's HTTP protocol to the end."""

    __slots__ = (
        "_config",
        "_drained",
        "_end",
        "_end_told",
        "_keepalive",
        "_loop",
        "_missed",
        "_paused",
        "_place",
        "_pong",
        "_reader",
        "_received",
        "_server_state",
        "_state",
        "_timer",
        "_transport",
        "_unread",
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
        # What the application has yet to take, the newest first, and how the connection ended.
        self._received: list[str | bytes] = []
        self._end: tuple[int, str] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        # What came in one piece with what has been read.
        self._unread = b""
        # Only while the client does not read; then also what its last ping asked.
        self._writable: asyncio.Event | None = None
        self._pong: bytes | None = None
        self._drained: Callable[[], None] | None = None
        self._end_told = False
        # Looks in a row at which nothing had been heard since the one before.
        self._missed = 0
        self._keepalive: Keepalive | None = None
        self._place = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def close_sent(self) -> bool:
        """Whether the client has yet to answer a close frame."""
        return self._state == CLOSING

    # The transport -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(cast(Any, self))
        # Not 0: with TLS, that is reached even when everything is written.
        self._transport.set_write_buffer_limits(high=1, low=0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state, self._paused, self._unread = CLOSED, False, b""
        self._server_state.connections.discard(cast(Any, self))
        if self._keepalive is not None:
            self._keepalive.discard(self, self._place)
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
        if self._pong is not None and self._state == OPEN:
            self._transport.write(frame_protocol.frame(frame_protocol.PONG, self._pong))
            self._pong = None
        if self._drained is not None and self._writable is None:
            self._drained()

    def data_received(self, data: bytes) -> None:
        if self._state == CONNECTING:
            self._hear_early(data)
            return
        self._missed = 0
        if len(data) <= READ_A_TURN and not self._unread:
            self._read(data)
            return
        if not self._unread:
            self._loop.call_soon(self._read_on)
        self._unread += data
        self._pause_reading()

    # Reading -----------------------------------------------------------------------------------------

    async def next(self) -> str | bytes | None:
        """What the application takes next; None: the connection has ended, and ``_end`` says how. Raises
        ClientDisconnected when that was told before: whoever asks on and on would hold up everybody."""
        while not self._received:
            if self._end_told:
                raise ClientDisconnected
            if self._end is not None:
                self._end_told = True
                return None
            if self._waiter is not None and not self._waiter.done():
                raise RuntimeError(
                    "The application waits for the client already. Lawful: one receive at a time."
                )
            self._waiter = self._loop.create_future()
            await self._waiter
        message = self._received.pop()
        if self._paused and not self._received:
            self._resume_reading()
        return message

    def _read_on(self) -> None:
        data, self._unread = self._unread[:READ_A_TURN], self._unread[READ_A_TURN:]
        self._read(data)
        if self._unread:
            self._loop.call_soon(self._read_on)
        elif not self._received:
            self._resume_reading()

    def _read(self, data: bytes) -> None:
        heard = self._reader.receive(data)
        if len(heard) == 1 and isinstance(heard[0], (str, bytes)):
            self._hand_over([heard[0]])
            return
        if messages := [said for said in heard if isinstance(said, (str, bytes))]:
            self._hand_over(messages)
        if len(messages) != len(heard):
            self._mind(heard)

    def _hand_over(self, messages: list[str | bytes]) -> None:
        """Messages for the application. Whose earlier ones are not taken yet is read no further."""
        if self._state != OPEN:
            return
        messages.reverse()
        if self._received:
            self._received[:0] = messages
            self._pause_reading()
        else:
            self._received = messages
        self._wake()

    def _mind(self, heard: list[Received]) -> None:
        """What is said to the server itself."""
        if pings := [said.payload for said in heard if isinstance(said, Ping)]:
            self._answer_pings(pings)
        # Behind it nothing is heard.
        if isinstance(last := heard[-1], (Close, Violation)):
            self._end_with(last)

    def _answer_pings(self, pings: list[bytes]) -> None:
        """Of many that came together the RFC lets us answer the last alone."""
        if self._writable is not None:
            self._pong = pings[-1]
        elif self._state == OPEN:
            self._transport.write(
                b"".join(frame_protocol.frame(frame_protocol.PONG, each) for each in pings[-PONGS_A_READ:])
            )

    def _end_with(self, last: Close | Violation) -> None:
        """The client's last word, or what it was that no more is heard for."""
        self._unread = b""
        if isinstance(last, Close):
            self._say_last(last.code, "", LEAVE_SECONDS, heard=last.reason)
            self._transport.close()
            return
        self._say_last(last.code, last.reason, LEAVE_SECONDS)
        # Closed with something unread, the client might not get to read why.
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    # Writing -----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> bool:
        """Write whole frames. False: the client does not read; when it has, ``on_drained`` is called."""
        if self._state != OPEN:
            return True
        self._transport.write(data)
        return self._writable is None

    def on_drained(self, call: Callable[[], None]) -> None:
        """Have it called whenever a client that did not read has read everything."""
        self._drained = call

    def close(self, code: int, reason: str) -> None:
        """Say the last word, behind everything that was written; nothing more is taken."""
        if self._state == OPEN:
            self._received.clear()
            self._say_last(code, reason, CLOSE_SECONDS)

    def abort(self) -> None:
        """End it without a word."""
        self._transport.abort()

    def look(self) -> None:
        """Once a round: is the client there?"""
        if self._state != OPEN or self._paused:
            # Its answer may lie where we do not read.
            return
        interval, timeout = self._config.ws_ping_interval or 0, self._config.ws_ping_timeout
        if timeout is not None and self._missed and self._missed * interval >= timeout:
            self.close(FAULT, "keepalive ping timeout")
            return
        self._missed += 1
        if self._writable is None:
            self._transport.write(_PING_FRAME)

    def _hear_early(self, data: bytes) -> None:
        """What comes before the handshake is done."""
        raise NotImplementedError

    # Inside ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """The handshake is done."""
        self._state = OPEN
        if self._config.ws_ping_interval:
            self._keepalive = Keepalive.of(self._loop, self._config.ws_ping_interval)
            self._place = self._keepalive.add(self)

    def _say_last(self, code: int, reason: str, seconds: float, heard: str = "") -> None:
        """Whoever does not answer in time is let go of. What was heard before is still taken."""
        if self._state != OPEN:
            return
        self._transport.write(frame_protocol.close_frame(code, reason))
        self._state = CLOSING
        self._timer = self._loop.call_later(seconds, self.abort)
        self._finish(code, heard or reason)
        # On to the answer; what comes before it is not kept.
        self._resume_reading()

    def _finish(self, code: int, reason: str = "") -> None:
        """How it ended, if nothing was said of that yet."""
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
        if self._paused and not self._unread and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
