"""A WebSocket class for uvicorn, for rooms with many members.

The HTTP protocol hands over the socket with the request. This class validates the handshake
(``handshake.py``) and runs the ASGI application. Beside ASGI's ``send`` the scope has the extension
``rooms.frames``: an application that has encoded frames writes their bytes at once (``transport.py``).
Compression is never negotiated.
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
    LINGER_TIMEOUT,
    LOST,
    NORMAL,
    OPEN,
    RESTART,
    FrameTransport,
)

logger = logging.getLogger("uvicorn.error")

AsgiMessage: TypeAlias = dict[str, Any]

#: The scope extension: an object with ``write``, ``on_drained``, ``close``, ``abort`` and ``go_on``.
EXTENSION = "rooms.frames"


class WebSocket(FrameTransport):
    """One WebSocket connection and the ASGI application that serves it."""

    __slots__ = (
        "_app_state",
        "_closed_by_application",
        "_connect_delivered",
        "_continuation",
        "_early_data",
        "_key",
        "_request_line",
        "_response",
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
        # The key of a valid request; bytes that arrive before it is answered; a response that rejects it.
        self._key = b""
        self._early_data = b""
        self._response: tuple[int, handshake.Headers, bytearray] | None = None
        self._connect_delivered = False
        # Serves the connection after the application has returned.
        self._continuation: Callable[[], Awaitable[None]] | None = None
        self._closed_by_application = False
        # For the log, if it includes requests.
        self._request_line = ""

    def _receive_early(self, data: bytes) -> None:
        if self._key:
            self._early_data += data
            self._pause_reading()
        else:
            self._handle_request(data)

    def shutdown(self) -> None:
        """Close: uvicorn shuts down."""
        if self._state == CONNECTING:
            self._reject(503, [], b"The server restarts.")
        else:
            self.close(RESTART, "")
            self._transport.close()

    # ASGI --------------------------------------------------------------------------------------------

    def go_on(self, continuation: Callable[[], Awaitable[None]]) -> None:
        """Let ``continuation`` serve the connection once the application has returned.

        Otherwise the connection ends then. While it is open, nothing of the request and of the middleware
        stays in memory.
        """
        self._continuation = continuation

    async def receive(self) -> AsgiMessage:
        if not self._connect_delivered:
            self._connect_delivered = True
            return {"type": "websocket.connect"}
        message = await self.next()
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        if message is not None:
            return {"type": "websocket.receive", "bytes": message}
        code, reason = self._end or (LOST, "")
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    async def send(self, message: AsgiMessage) -> None:
        """Send an ASGI message; waits while the client does not read.

        Raises ClientDisconnected, which is an OSError, once the client is gone, and RuntimeError for a
        message that is not allowed in this state.
        """
        while self._writable is not None and self._state != CLOSED:
            await self._writable.wait()
        if self._state == CLOSING and self._closed_by_application:
            raise _unexpected(message, "nothing after the close")
        if self._state >= CLOSING:
            raise ClientDisconnected
        if self._state == OPEN:
            self._send(message)
        elif self._response is None:
            self._answer_request(message)
        else:
            self._send_response_body(self._response, message)

    def _send(self, message: AsgiMessage) -> None:
        if message["type"] == "websocket.send":
            data, text = message.get("bytes"), message.get("text")
            if data is not None:
                self._transport.write(frame_protocol.frame(frame_protocol.BINARY, data))
            elif text is not None:
                self._transport.write(frame_protocol.frame(frame_protocol.TEXT, text.encode()))
        elif message["type"] == "websocket.close":
            self._closed_by_application = True
            self.close(message.get("code") or NORMAL, message.get("reason") or "")
        else:
            raise _unexpected(message, "websocket.send or websocket.close")

    async def _run(self, scope: AsgiMessage) -> None:
        # The code also of a cancelled task.
        code = FAULT
        try:
            await self._config.loaded_app(cast(Any, scope), cast(Any, self.receive), cast(Any, self.send))
            del scope
            if self._continuation is not None:
                continuation, self._continuation = self._continuation(), None
                await continuation
            code = NORMAL
            if self._state == CONNECTING:
                logger.error("ASGI callable returned without completing handshake.")
        except ClientDisconnected:
            pass
        except Exception:
            logger.exception("Exception in ASGI application\n")
        finally:
            if self._state == CONNECTING:
                self._reject(500, [], b"Internal Server Error")
            self.close(code, "")

    # The handshake -----------------------------------------------------------------------------------

    def _handle_request(self, head: bytes) -> None:
        """Validate the request and start the application."""
        if logger.isEnabledFor(logging.INFO):
            address = get_client_addr(cast(Any, {"client": get_remote_addr(self._transport)}))
            self._request_line = f'{address} - "WebSocket {head.split(b" ", 2)[1].decode("latin-1")}"'
        try:
            request = handshake.parse_request(head)
        except handshake.BadHandshake as error:
            self._reject(error.status, error.headers, str(error).encode())
            return
        self._key = request.key
        task = self._loop.create_task(self._run(self._scope(request)))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _scope(self, request: handshake.Request) -> AsgiMessage:
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

    def _answer_request(self, message: AsgiMessage) -> None:
        """Accept or reject the handshake, as the application decides."""
        if message["type"] == "websocket.accept":
            headers = [*self._server_state.default_headers, *message.get("headers", ())]
            self._transport.write(handshake.accept_response(self._key, message.get("subprotocol"), headers))
            logger.info("%s [accepted]", self._request_line)
            self._open()
            early, self._early_data = self._early_data, b""
            self._resume_reading()
            if early:
                self.data_received(early)
        elif message["type"] == "websocket.close":
            self._closed_by_application = True
            self._reject(403, [], b"")
        elif message["type"] == "websocket.http.response.start":
            if not 200 <= message["status"] <= 599:
                raise RuntimeError(
                    f"Expected a status from 200 to 599, got {message['status']!r} from the application."
                )
            self._response = message["status"], list(message.get("headers", ())), bytearray()
        else:
            raise _unexpected(message, "websocket.accept, websocket.close or websocket.http.response.start")

    def _send_response_body(
        self, response: tuple[int, handshake.Headers, bytearray], message: AsgiMessage
    ) -> None:
        if message["type"] != "websocket.http.response.body":
            raise _unexpected(message, "websocket.http.response.body")
        status, headers, body = response
        body += message.get("body", b"")
        if not message.get("more_body", False):
            self._closed_by_application = True
            self._reject(status, headers, bytes(body))

    def _reject(self, status: int, headers: handshake.Headers, body: bytes) -> None:
        """Answer the handshake with an HTTP response and end the connection."""
        self._transport.write(handshake.reject_response(status, headers, body))
        logger.info("%s %d", self._request_line, status)
        self._state = CLOSING
        self._timer = self._loop.call_later(LINGER_TIMEOUT, self.abort)
        self._finish(LOST)
        self._transport.close()


def _unexpected(message: AsgiMessage, expected: str) -> RuntimeError:
    return RuntimeError(f"Expected {expected}, got {message['type']!r} from the application.")
