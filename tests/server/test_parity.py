"""The WebSocket class behaves like uvicorn's own class.

Ours reports more: a disconnect always has a reason, a lost connection has 1006 (there: 1005), and the close
frame for an invalid frame names the fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from rooms.protocol import frame_protocol
from rooms.server.http_upgrade import Http
from rooms.server.websocket import EXTENSION, WebSocket
from tests.server.harness import PATIENCE, Client, client_frame, serve

Messages: TypeAlias = list[dict[str, Any]]

ACCEPT = {"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-more", b"1")]}
START = {"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-why", b"no")]}
BODY = {"type": "websocket.http.response.body", "body": b"tea", "more_body": True}
LAST = {"type": "websocket.http.response.body", "body": b"pot"}

#: What the application sends, and what the client then sends.
CASES: dict[str, tuple[Messages, bytes]] = {
    "text and bytes": (
        [ACCEPT, {"type": "websocket.send", "text": "ä"}, {"type": "websocket.send", "bytes": b""}],
        client_frame(frame_protocol.TEXT, b"a")
        + client_frame(frame_protocol.BINARY)
        + client_frame(frame_protocol.CLOSE, b"\x0f\xa1bye"),
    ),
    "a close without a code": (
        [ACCEPT],
        client_frame(frame_protocol.PING, b"x") + client_frame(frame_protocol.CLOSE),
    ),
    "the application closes": (
        [ACCEPT, {"type": "websocket.close", "code": 4000, "reason": "enough"}],
        client_frame(frame_protocol.TEXT, b"late") + client_frame(frame_protocol.CLOSE, b"\x0f\xa0"),
    ),
    "an empty send": ([ACCEPT, {"type": "websocket.send"}], client_frame(frame_protocol.CLOSE)),
    "invalid UTF-8": ([ACCEPT], client_frame(frame_protocol.TEXT, b"\xff")),
    "rejected": ([{"type": "websocket.close"}], b""),
    "rejected with a response": ([START, BODY, LAST], b""),
    "accept after close": ([{"type": "websocket.close"}, ACCEPT], b""),
    "send after close": ([ACCEPT, {"type": "websocket.close"}, {"type": "websocket.send"}], b""),
    "send before accept": ([{"type": "websocket.send", "text": "x"}], b""),
    "invalid status": ([{**START, "status": 600}], b""),
}


class Application:
    """An application that plays the case of its path and records its side."""

    def __init__(self) -> None:
        self.recorded: list[object] = []
        self.ended = asyncio.Event()

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        self.recorded = [{key: scope[key] for key in scope if key not in ("client", "server", "extensions")}]
        self.recorded.append(sorted({*scope["extensions"]} - {EXTENSION}))
        self.recorded.append(await receive())
        try:
            for message in CASES[scope["path"].removeprefix("/root/")][0]:
                await send(message)
            while (message := await receive())["type"] == "websocket.receive":
                self.recorded.append(message)
            self.recorded.append((message["type"], message["code"]))
        except RuntimeError as error:
            self.recorded.append(type(error))
            raise
        finally:
            self.ended.set()


async def record(http: Any, protocol: Any) -> dict[str, list[object]]:
    """Play every case; what the application and the client saw."""
    seen: dict[str, list[object]] = {}
    application = Application()
    options = {"ws": protocol, "http": http, "ws_per_message_deflate": False, "root_path": "/root"}
    async with serve(application, **options) as site:
        for name, (_, data) in CASES.items():
            client = await site.connect()
            application.ended.clear()
            client.request(f"/{name.replace(' ', '%20')}?a=b", {"Sec-WebSocket-Protocol": "a, b"})
            response = await client.response()
            client.send(data)
            async with asyncio.timeout(PATIENCE):
                await application.ended.wait()
            frames = await _read_frames(client, response[0])
            seen[name] = [*application.recorded, *_plain(response), *frames]
            client.writer.close()
    return seen


def _plain(response: tuple[int, dict[str, str], bytes]) -> list[object]:
    status, headers, body = response
    return [status, {name: headers[name] for name in headers if name != "date"}, body]


async def _read_frames(client: Client, status: int) -> list[object]:
    """Read up to the close frame, which uvicorn's class omits after an error."""
    frames: list[object] = []
    while status == 101 and (each := await client.next()) is not None and each != 1011:
        frames.append(each)
        if isinstance(each, int):
            break
    return frames


async def test_application_and_client_see_the_same_as_with_uvicorns_class() -> None:
    ours, theirs = await record(Http, WebSocket), await record("h11", "websockets-sansio")
    assert ours == theirs
