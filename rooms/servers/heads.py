"""The requests that come before a WebSocket: uvicorn's HTTP protocol, where it is too patient for strangers.

Next in the flow: ``websocket.py``, which a request for a WebSocket is handed to.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# From the connection, or the first byte of a further request, to the end of its head. uvicorn waits for good.
HEAD_SECONDS = 20.0


class Http(H11Protocol):
    """One client's, until it is a WebSocket. To be given to uvicorn with the class of ``websocket.py``."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._mind_deadline()

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
        if behind and not self.transport.is_closing():
            self.transport.get_protocol().data_received(behind)  # type: ignore[attr-defined]

    def _mind_deadline(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._no_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _no_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
