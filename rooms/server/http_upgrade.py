"""The requests that come before a WebSocket. A plain one for a WebSocket is handed on as it is; all others
are left to uvicorn's HTTP protocol, which is slower, and made less patient with strangers here.

Next in the flow: ``websocket.py``, which a request for a WebSocket is handed to.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from rooms.server import handshake

# From the connection, or the first byte of a further request, to the end of its head. uvicorn waits for good.
HEAD_SECONDS = 20.0


class Http(asyncio.Protocol):
    """One client's, until its first bytes are there. To be given to uvicorn with the class of
    ``websocket.py``."""

    __slots__ = ("_app_state", "_config", "_deadline", "_loop", "_server_state", "_transport")

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
        self._deadline: asyncio.TimerHandle = cast(asyncio.TimerHandle, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(cast(Any, self))
        self._deadline = self._loop.call_later(HEAD_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._server_state.connections.discard(cast(Any, self))

    def data_received(self, data: bytes) -> None:
        """Whoever the connection is handed to has it for good."""
        self._server_state.connections.discard(cast(Any, self))
        own = self._config, self._server_state, self._app_state
        end = handshake.end_of_request(data)
        if not end:
            requests = _Requests(*own, self._loop)
            requests.take_over(self._transport, self._deadline)
            requests.data_received(data)
            return
        self._deadline.cancel()
        websocket = cast(Any, self._config.ws_protocol_class)(*own, self._loop)
        websocket.connection_made(self._transport)
        self._transport.set_protocol(websocket)
        websocket.data_received(data[:end])
        if len(data) > end and not self._transport.is_closing():
            websocket.data_received(data[end:])

    def shutdown(self) -> None:
        """uvicorn ends."""
        self._transport.close()


class _Requests(H11Protocol):
    """One client's, until one of its requests makes a WebSocket of the connection."""

    _deadline: asyncio.TimerHandle | None = None

    def take_over(self, transport: asyncio.Transport, deadline: asyncio.TimerHandle) -> None:
        """The first request has to be there by the ``deadline``."""
        self._deadline = deadline
        self.connection_made(transport)
        transport.set_protocol(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._no_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._mind_deadline()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand it over, with what came behind the request: the client may not have waited for the answer."""
        if event.http_version != b"1.1":
            self.send_400_response("A WebSocket is asked for with HTTP/1.1.")
            return
        behind, _ = self.conn.trailing_data
        super().handle_websocket_upgrade(event)
        websocket = cast(asyncio.Protocol, self.transport.get_protocol())
        if self.flow.write_paused:
            # An earlier answer is not read yet, and the transport says so only once.
            websocket.pause_writing()
        if behind and not self.transport.is_closing():
            websocket.data_received(behind)

    def _mind_deadline(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._no_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _no_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
