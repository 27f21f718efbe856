"""A WebSocket class for uvicorn, made for rooms with many members.

uvicorn's HTTP protocol reads the request and hands it over with the socket. Here it is judged
(``handshake.py``), and the application is spoken with in ASGI. Beside ASGI's ``send`` stands the scope
extension ``rooms.frames``: an application that has framed what it says writes the bytes at once
(``wire.py``). Compression is never agreed upon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_local_addr,
    get_remote_addr,
    is_ssl,
)
from uvicorn.server import ServerState

from rooms.protocol import frame_protocol
from rooms.server import handshake
from rooms.server.transport import (
    CLOSED,
    CLOSING,
    CONNECTING,
    FAULT,
    LEAVE_SECONDS,
    LOST,
    NORMAL,
    OPEN,
    RESTART,
    Wire,
)

logger = logging.getLogger("uvicorn.error")

Message: TypeAlias = dict[str, Any]

#: Where the scope names the object with ``write``, ``on_drained``, ``close``, ``abort`` and ``go_on``.
EXTENSION = "rooms.frames"


class WebSocket(Wire):
    """One client's, as ASGI has it."""

    __slots__ = (
        "_app_state",
        "_asked",
        "_connect_told",
        "_dismissed",
        "_early",
        "_key",
        "_response",
        "_rest",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, _loop or asyncio.get_running_loop())
        self._app_state = app_state
        # The key of a lawful request; what the client says before the answer; the answer that refuses it.
        self._key = b""
        self._early = b""
        self._response: tuple[int, handshake.Headers, bytearray] | None = None
        self._connect_told = False
        # What serves on when the application has returned.
        self._rest: Callable[[], Awaitable[None]] | None = None
        # Whether it is the application that has ended it.
        self._dismissed = False
        # For the log, where it is told of requests.
        self._asked = ""

    def _hear_early(self, data: bytes) -> None:
        if self._key:
            self._early += data
            self._pause_reading()
        else:
            self._ask(data)

    def shutdown(self) -> None:
        """uvicorn ends."""
        if self._state == CONNECTING:
            self._refuse(503, [], b"The server restarts.")
        else:
            self.close(RESTART, "")
            self._transport.close()

    # The application ---------------------------------------------------------------------------------

    def go_on(self, rest: Callable[[], Awaitable[None]]) -> None:
        """Have ``rest`` serve on when the application has returned, which else ends the connection. So
        nothing of the request, nor of what stands before the application, is kept while it is open."""
        self._rest = rest

    async def receive(self) -> Message:
        if not self._connect_told:
            self._connect_told = True
            return {"type": "websocket.connect"}
        message = await self.next()
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        if message is not None:
            return {"type": "websocket.receive", "bytes": message}
        code, reason = self._end or (LOST, "")
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    async def send(self, message: Message) -> None:
        """Waits while the client does not read. Raises ClientDisconnected, which is an OSError, when it is
        gone, and RuntimeError for what cannot be said now."""
        while self._writable is not None and self._state != CLOSED:
            await self._writable.wait()
        if self._state == CLOSING and self._dismissed:
            raise _unexpected(message, "nothing, after its last word")
        if self._state >= CLOSING:
            raise ClientDisconnected
        if self._state == OPEN:
            self._send(message)
        elif self._response is None:
            self._answer(message)
        else:
            self._refuse_with(self._response, message)

    def _send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            data, text = message.get("bytes"), message.get("text")
            if data is not None:
                self._transport.write(frame_protocol.frame(frame_protocol.BINARY, data))
            elif text is not None:
                self._transport.write(frame_protocol.frame(frame_protocol.TEXT, text.encode()))
        elif message["type"] == "websocket.close":
            self._dismissed = True
            self.close(message.get("code") or NORMAL, message.get("reason") or "")
        else:
            raise _unexpected(message, "websocket.send, websocket.close")

    async def _run(self, scope: Message) -> None:
        # Also where it is cancelled.
        code = FAULT
        try:
            await self._config.loaded_app(cast(Any, scope), cast(Any, self.receive), cast(Any, self.send))
            del scope
            if self._rest is not None:
                rest, self._rest = self._rest(), None
                await rest
            code = NORMAL
            if self._state == CONNECTING:
                logger.error("ASGI callable returned without completing handshake.")
        except ClientDisconnected:
            pass
        except Exception:
            logger.exception("Exception in ASGI application\n")
        finally:
            if self._state == CONNECTING:
                self._refuse(500, [], b"Internal Server Error")
            self.close(code, "")

    # The handshake -----------------------------------------------------------------------------------

    def _ask(self, head: bytes) -> None:
        """Ask the application whether it accepts."""
        if logger.isEnabledFor(logging.INFO):
            address = get_client_addr(cast(Any, {"client": get_remote_addr(self._transport)}))
            self._asked = f'{address} - "WebSocket {head.split(b" ", 2)[1].decode("latin-1")}"'
        try:
            request = handshake.read(head)
        except handshake.BadHandshake as error:
            self._refuse(error.status, error.headers, str(error).encode())
            return
        self._key = request.key
        task = self._loop.create_task(self._run(self._scope(request)))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _scope(self, request: handshake.Request) -> Message:
        root, config = self._config.root_path, self._config
        return {
            "type": "websocket",
            "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self._transport) else "ws",
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "root_path": root,
            "path": root + unquote(request.path.decode("latin-1")),
            "raw_path": root.encode() + request.path,
            "query_string": request.query,
            "headers": request.headers,
            "subprotocols": request.subprotocols,
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}, EXTENSION: self},
        }

    def _answer(self, message: Message) -> None:
        """What the application says to the request."""
        if message["type"] == "websocket.accept":
            headers = [*self._server_state.default_headers, *message.get("headers", ())]
            self._transport.write(handshake.accepted(self._key, message.get("subprotocol"), headers))
            logger.info("%s [accepted]", self._asked)
            self._open()
            early, self._early = self._early, b""
            self._resume_reading()
            if early:
                self.data_received(early)
        elif message["type"] == "websocket.close":
            self._dismissed = True
            self._refuse(403, [], b"")
        elif message["type"] == "websocket.http.response.start":
            if not 200 <= message["status"] <= 599:
                raise RuntimeError(f"The application said status {message['status']!r}. Lawful: 200 to 599.")
            self._response = message["status"], list(message.get("headers", ())), bytearray()
        else:
            raise _unexpected(message, "websocket.accept, websocket.close, websocket.http.response.start")

    def _refuse_with(self, response: tuple[int, handshake.Headers, bytearray], message: Message) -> None:
        if message["type"] != "websocket.http.response.body":
            raise _unexpected(message, "websocket.http.response.body")
        status, headers, body = response
        body += message.get("body", b"")
        if not message.get("more_body", False):
            self._dismissed = True
            self._refuse(status, headers, bytes(body))

    def _refuse(self, status: int, headers: handshake.Headers, body: bytes) -> None:
        """It stays an HTTP request, with this answer."""
        self._transport.write(handshake.answered(status, headers, body))
        logger.info("%s %d", self._asked, status)
        self._state = CLOSING
        self._timer = self._loop.call_later(LEAVE_SECONDS, self.abort)
        self._finish(LOST)
        self._transport.close()


def _unexpected(message: Message, lawful: str) -> RuntimeError:
    return RuntimeError(f"The application said {message['type']!r} here. Lawful: {lawful}.")
