"""The WebSocket consumer: the only code that knows ASGI messages, and the map of the house.

Each event of a connection is mapped to the group operation that carries it out::

    connect     engine.connect        → the application's group
    login       logins.login          → presence in the application
    join        membership.join       → hub.group_add
    message     messages.send         → history, hub.group_send, bus.publish
    leave       membership.leave      → hub.group_discard, departing
    logout      engine.logout         → out of every room
    disconnect  engine.disconnect     → out of every group, however the socket ended
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeAlias

from channels.consumer import AsyncConsumer

from rooms import events, origins
from rooms.engine.engine import Engine
from rooms.errors import CloseCode, InternalError, ProtocolError, RoomsError
from rooms.events import Error, Request
from rooms.fanout import Connection, OutboxLimits
from rooms.protocols import Native, Protocol, error_answer

logger = logging.getLogger("rooms.consumers")

Operation: TypeAlias = Callable[[Connection, Any], Awaitable[None]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


def operations(engine: Engine) -> dict[type[Request], Operation]:
    """What is done about each thing that a client may ask."""
    return {
        events.Login: engine.logins.login,
        events.Logout: engine.logout,
        events.ListRooms: engine.management.list,
        events.CreateRoom: engine.management.create,
        events.CloseRoom: engine.management.close,
        events.Join: engine.membership.join,
        events.Leave: engine.membership.leave,
        events.Subscribe: engine.membership.subscribe,
        events.Unsubscribe: engine.membership.unsubscribe,
        events.Send: engine.messages.send,
        events.ReadHistory: engine.messages.history,
        events.ListMembers: engine.messages.members,
        events.Ping: engine.ping,
        events.Pong: engine.pong,
    }


# So many requests are carried out in a row before others get their turn.
REQUESTS_A_TURN = 32


class RoomConsumer(AsyncConsumer):
    """One socket. Has its own receive loop: Channels' dispatch costs a thread hop per message, and
    its channel layer membership is not needed, because the process is the member (``engine/bus.py``)."""

    channel_layer_alias = None
    protocol_class: ClassVar[type[Protocol]] = Native

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        headers = scope["headers"]
        if not origins.is_allowed(headers):
            logger.warning(
                "Refused a socket from a page of %.200r: not this site's own, nor in CSRF_TRUSTED_ORIGINS.",
                origins.header(headers, b"origin"),
            )
            await refuse(scope, receive, send)
            return
        await receive()
        offered = self.protocol_class.subprotocol
        accept = {"type": "websocket.accept"}
        await send({**accept, "subprotocol": offered} if offered in scope["subprotocols"] else accept)
        # Without an Origin it is no browser, and cookies say nothing.
        user = scope.get("user") if origins.header(headers, b"origin") is not None else None
        engine = await Engine.serving()
        connection, writer = _connection(scope, self.protocol_class(), engine, send)
        await self._serve(engine, connection, writer, user, receive)

    async def _serve(
        self, engine: Engine, connection: Connection, writer: _Writer, user: Any, receive: Any
    ) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        aborted = False

        def abort() -> None:
            # Not in the middle of a request, which would leave it half done: then the next look is in time.
            nonlocal aborted
            if not connection.busy:
                aborted = True
                serving.cancel()

        writing = asyncio.create_task(writer.run())
        try:
            await _connect(engine, connection, user, abort)
            await self._listen(engine, connection, receive)
        except asyncio.CancelledError:
            if not aborted:
                raise
        finally:
            # ``disconnect()`` of Channels is not always called; this is.
            engine.disconnect(connection)
            writing.cancel()

    async def _listen(self, engine: Engine, connection: Connection, receive: Any) -> None:
        """Take frames until the socket ends; one request after the other, in order."""
        carry_out = operations(engine)
        largest = engine.parts.settings.max_frame_bytes
        while (message := await receive())["type"] == "websocket.receive":
            connection.heard, connection.pinged = time.monotonic(), False
            text = message.get("text")
            frame: str | bytes = text if text is not None else message["bytes"]
            if _size(frame, largest) > largest:
                connection.close(CloseCode.FRAME_TOO_LARGE, f"A frame has at most {largest} bytes.")
            else:
                await self._read(engine, carry_out, connection, frame)

    async def _read(
        self,
        engine: Engine,
        carry_out: dict[type[Request], Operation],
        connection: Connection,
        frame: str | bytes,
    ) -> None:
        try:
            for request in connection.protocol.receive(frame):
                if connection.close_code is not None:
                    return
                await self._carry_out(engine, carry_out, connection, request)
                connection.requests += 1
                if connection.requests % REQUESTS_A_TURN == 0:
                    await asyncio.sleep(0)
        except ProtocolError as error:
            connection.close(error.close_code, error.message)

    async def _carry_out(
        self,
        engine: Engine,
        carry_out: dict[type[Request], Operation],
        connection: Connection,
        request: Request | Error,
    ) -> None:
        if not engine.throttle.allows(connection, request):
            return
        if isinstance(request, Error):
            connection.send(request)
            return
        connection.busy = True
        try:
            await carry_out[type(request)](connection, request)
        except RoomsError as error:
            connection.send(error_answer(request.id, error))
        except Exception:
            logger.exception("%s failed (connection %s)", type(request).__name__, connection.id)
            connection.send(error_answer(request.id, InternalError("Something went wrong on the server.")))
        finally:
            connection.busy = False


async def _connect(engine: Engine, connection: Connection, user: Any, abort: Callable[[], None]) -> None:
    try:
        await engine.connect(connection, user, abort)
    except RoomsError as error:
        connection.close(CloseCode.OVERLOADED, error.message, retry_in=random.uniform(1, 5))


async def refuse(scope: Any, receive: Any, send: Send) -> None:
    """The ASGI application for any other address: closed before it was accepted, so that the
    handshake is answered with 403 rather than with a server error."""
    await receive()
    await send({"type": "websocket.close"})


class _Writer:
    """The one task that writes to a socket: what piled up in a turn of the loop leaves together."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._wanted = asyncio.Event()
        self.connection: Connection | None = None

    def wake(self) -> None:
        self._wanted.set()

    async def run(self) -> None:
        assert self.connection is not None
        try:
            while self.connection.close_code is None:
                await self._wanted.wait()
                self._wanted.clear()
                await self._write(self.connection)
            await self._write(self.connection)
            # Left standing: a peer that does not answer the close is ended by the heartbeat.
            self.connection.writing_since = time.monotonic()
            await self._send({"type": "websocket.close", **_close(self.connection)})
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # The socket is gone; the receive loop hears of it.
            logger.debug("Could not write to %r: %r", self.connection, error)

    async def _write(self, connection: Connection) -> None:
        binary = connection.protocol.binary
        for frame in connection.take():
            connection.writing_since = time.monotonic()
            if binary:
                await self._send({"type": "websocket.send", "bytes": frame})
            else:
                await self._send({"type": "websocket.send", "text": frame.decode()})
        connection.writing_since = None


def _connection(scope: Any, protocol: Protocol, engine: Engine, send: Send) -> tuple[Connection, _Writer]:
    settings = engine.parts.settings
    peer = (scope.get("client") or ("",))[0]
    writer = _Writer(send)
    writer.connection = Connection(
        uuid.uuid4().hex,
        protocol,
        application=scope["url_route"]["kwargs"]["application"],
        address=origins.address(scope["headers"], peer, settings.proxies),
        limits=OutboxLimits(bytes=settings.outbox_bytes, frames=settings.outbox_frames),
        wake=writer.wake,
    )
    return writer.connection, writer


def _close(connection: Connection) -> dict[str, Any]:
    # A close frame holds at most 123 bytes of reason.
    reason = connection.close_reason.encode()[:123].decode(errors="ignore")
    return {"code": int(connection.close_code or CloseCode.INTERNAL_ERROR), "reason": reason}


def _size(frame: str | bytes, interesting: int) -> int:
    """Bytes of a frame; text is only measured exactly where it matters."""
    if isinstance(frame, bytes) or len(frame) * 4 <= interesting or len(frame) > interesting:
        return len(frame)
    return len(frame.encode())
