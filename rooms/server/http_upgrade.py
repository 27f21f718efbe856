"""The HTTP part of a connection, up to its upgrade to a WebSocket.

A plain WebSocket request goes straight to ``websocket.py``. Every other request is left to uvicorn's HTTP
protocol, with a timeout for the request head, which uvicorn does not have.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from rooms.server import handshake

# From the connection, or from the first byte of a further request, to the end of the request head.
HEAD_TIMEOUT = 20.0


class Http(asyncio.Protocol):
    """A connection until its first bytes.

    For uvicorn's ``http``, with ``websocket.py`` for its ``ws``.
    """

    __slots__ = ("_app_state", "_config", "_loop", "_server_state", "_timeout", "_transport")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._timeout: asyncio.TimerHandle = cast(asyncio.TimerHandle, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(cast(Any, self))
        self._timeout = self._loop.call_later(HEAD_TIMEOUT, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timeout.cancel()
        self._server_state.connections.discard(cast(Any, self))

    def data_received(self, data: bytes) -> None:
        """Replace this protocol by the WebSocket class or by uvicorn's HTTP protocol."""
        self._server_state.connections.discard(cast(Any, self))
        own = self._config, self._server_state, self._app_state
        end = handshake.end_of_request(data)
        if not end:
            requests = _HttpRequests(*own, self._loop)
            requests.take_over(self._transport, self._timeout)
            requests.data_received(data)
            return
        self._timeout.cancel()
        websocket = cast(Any, self._config.ws_protocol_class)(*own, self._loop)
        websocket.connection_made(self._transport)
        self._transport.set_protocol(websocket)
        websocket.data_received(data[:end])
        if len(data) > end and not self._transport.is_closing():
            websocket.data_received(data[end:])

    def shutdown(self) -> None:
        """Close: uvicorn shuts down."""
        self._transport.close()


class _HttpRequests(H11Protocol):
    """A connection with HTTP requests, until one of them upgrades it to a WebSocket."""

    _timeout: asyncio.TimerHandle | None = None

    def take_over(self, transport: asyncio.Transport, timeout: asyncio.TimerHandle) -> None:
        """Continue a connection whose first request is still under its ``timeout``."""
        self._timeout = timeout
        self.connection_made(transport)
        transport.set_protocol(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timeout()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_timeout()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand over, with the bytes behind the request.

        A client may send before the response.
        """
        if event.http_version != b"1.1":
            self.send_400_response("A WebSocket is opened with HTTP/1.1.")
            return
        behind, _ = self.conn.trailing_data
        super().handle_websocket_upgrade(event)
        websocket = cast(asyncio.Protocol, self.transport.get_protocol())
        if self.flow.write_paused:
            # The client has not read an earlier response, and the transport reports that only once.
            websocket.pause_writing()
        if behind and not self.transport.is_closing():
            websocket.data_received(behind)

    def _update_timeout(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._cancel_timeout()
        elif self._timeout is None:
            self._timeout = self.loop.call_later(HEAD_TIMEOUT, self.transport.close)

    def _cancel_timeout(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
