"""An application notices no difference from uvicorn's own classes, but where ours says more: how a connection
ended always has a reason, a lost one has 1006 (there: 1005), and a refused frame is told its fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from rooms.protocol import frame_protocol
from rooms.server.http_upgrade import Http
from rooms.server.websocket import EXTENSION, WebSocket
from tests.server.served import PATIENCE, Client, sent, served

MessageHandler: TypeAlias = list[dict[str, Any]]

ACCEPT = {"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-more", b"1")]}
START = {"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-why", b"no")]}
BODY = {"type": "websocket.http.response.body", "body": b"tea", "more_body": True}
LAST = {"type": "websocket.http.response.body", "body": b"pot"}

#: What the application says, and what the client says then.
TALKS: dict[str, tuple[MessageHandler, bytes]] = {
    "text and bytes": (
        [ACCEPT, {"type": "websocket.send", "text": "ä"}, {"type": "websocket.send", "bytes": b""}],
        sent(frame_protocol.TEXT, b"a")
        + sent(frame_protocol.BINARY)
        + sent(frame_protocol.CLOSE, b"\x0f\xa1bye"),
    ),
    "a close without a code": ([ACCEPT], sent(frame_protocol.PING, b"x") + sent(frame_protocol.CLOSE)),
    "the application closes": (
        [ACCEPT, {"type": "websocket.close", "code": 4000, "reason": "enough"}],
        sent(frame_protocol.TEXT, b"late") + sent(frame_protocol.CLOSE, b"\x0f\xa0"),
    ),
    "nothing to say": ([ACCEPT, {"type": "websocket.send"}], sent(frame_protocol.CLOSE)),
    "no text": ([ACCEPT], sent(frame_protocol.TEXT, b"\xff")),
    "refused": ([{"type": "websocket.close"}], b""),
    "refused with an answer": ([START, BODY, LAST], b""),
    "twice": ([{"type": "websocket.close"}, ACCEPT], b""),
    "after the last word": ([ACCEPT, {"type": "websocket.close"}, {"type": "websocket.send"}], b""),
    "out of order": ([{"type": "websocket.send", "text": "x"}], b""),
    "no status": ([{**START, "status": 600}], b""),
}


class Talk:
    """An application that does as the path says, and remembers what happened to it."""

    def __init__(self) -> None:
        self.happened: list[object] = []
        self.ended = asyncio.Event()

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        self.happened = [{key: scope[key] for key in scope if key not in ("client", "server", "extensions")}]
        self.happened.append(sorted({*scope["extensions"]} - {EXTENSION}))
        self.happened.append(await receive())
        try:
            for message in TALKS[scope["path"].removeprefix("/root/")][0]:
                await send(message)
            while (heard := await receive())["type"] == "websocket.receive":
                self.happened.append(heard)
            self.happened.append((heard["type"], heard["code"]))
        except RuntimeError as error:
            self.happened.append(type(error))
            raise
        finally:
            self.ended.set()


async def talked(http: Any, protocol: Any) -> dict[str, list[object]]:
    """What each talk was, on both sides."""
    heard: dict[str, list[object]] = {}
    application = Talk()
    options = {"ws": protocol, "http": http, "ws_per_message_deflate": False, "root_path": "/root"}
    async with served(application, **options) as site:
        for name, (_, said) in TALKS.items():
            client = await site.dial()
            application.ended.clear()
            client.ask(f"/{name.replace(' ', '%20')}?a=b", {"Sec-WebSocket-Protocol": "a, b"})
            answer = await client.answer()
            client.say(said)
            async with asyncio.timeout(PATIENCE):
                await application.ended.wait()
            heard[name] = [*application.happened, *_plain(answer), *await _said(client, answer[0])]
            client.writer.close()
    return heard


def _plain(answer: tuple[int, dict[str, str], bytes]) -> list[object]:
    status, headers, body = answer
    return [status, {name: headers[name] for name in headers if name != "date"}, body]


async def _said(client: Client, status: int) -> list[object]:
    """Up to the close: uvicorn's class says none where an application fails."""
    said: list[object] = []
    while status == 101 and (each := await client.next()) is not None and each != 1011:
        said.append(each)
        if isinstance(each, int):
            break
    return said


async def test_an_application_notices_no_difference() -> None:
    ours, theirs = await talked(Http, WebSocket), await talked("h11", "websockets-sansio")
    assert ours == theirs
