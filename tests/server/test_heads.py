"""What comes before a WebSocket, and what does not come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rooms.protocol import frame_protocol
from tests.server.served import PATIENCE, REQUEST, echo, sent, served
from tests.server.test_websocket import Application


async def page_or_echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await echo(scope, receive, send)
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


HEAD = "".join(f"{name}: {value}\r\n" for name, value in REQUEST.items()).encode() + b"\r\n"
GET = b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize("first", [b"", b"X: folded,\r\n as it once was\r\n"], ids=["plain", "odd"])
async def test_frames_behind_the_request_are_heard(first: bytes) -> None:
    async with served(echo) as site:
        client = await site.dial()
        client.say(
            GET + first + HEAD + sent(frame_protocol.TEXT, b"one") + sent(frame_protocol.TEXT, b"two")[:4]
        )
        assert (await client.answer())[0] == 101
        client.say(sent(frame_protocol.TEXT, b"two")[4:])
        assert [await client.next(), await client.next()] == ["one", "two"]


@pytest.mark.parametrize(
    ("request_head", "status"),
    [(b"GET / HTTP/1.0\r\n" + HEAD, 400), (GET + b"Content-Length: 3\r\n" + HEAD + b"abc", 400)],
    ids=["an old version", "a body"],
)
async def test_what_is_refused_hears_nothing_more(request_head: bytes, status: int) -> None:
    async with served(echo) as site:
        client = await site.dial()
        client.say(request_head + sent(frame_protocol.TEXT, b"\xff"))
        async with asyncio.timeout(PATIENCE):
            heard = await client.reader.read()
        assert heard.startswith(b"HTTP/1.1 %d " % status)
        assert heard.endswith(b".")


@pytest.mark.parametrize("said", [b"", GET + b"Host: a\r\n"], ids=["nothing", "a beginning"])
@pytest.mark.parametrize("asked_before", [False, True])
async def test_a_head_that_does_not_end_is_not_waited_for(
    said: bytes, asked_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rooms.server.http_upgrade.HEAD_SECONDS", 0.05)
    async with served(page_or_echo, timeout_keep_alive=0.05) as site:
        socket = await site.open()
        # Its own wait begins after that of the socket.
        client = await site.dial()
        if asked_before:
            client.say(GET + b"Host: a\r\n\r\n")
            assert (await client.answer())[2] == b"ok"
        for byte in said:
            client.say(bytes([byte]))
            await client.writer.drain()
        async with asyncio.timeout(PATIENCE):
            assert await client.reader.read() == b""
        assert await socket.say(sent(frame_protocol.TEXT, b"there")).next() == "there"


async def test_who_has_yet_to_read_an_earlier_answer_is_known_not_to_read() -> None:
    application, page = Application(), b"x" * 20_000_000

    async def page_or_socket(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await application(scope, receive, send)
        else:
            length = (b"content-length", b"%d" % len(page))
            await send({"type": "http.response.start", "status": 200, "headers": [length]})
            await send({"type": "http.response.body", "body": page})

    async with served(page_or_socket) as site:
        client = await site.dial()
        client.writer.transport.pause_reading()
        client.say(GET + b"Host: a\r\n\r\n" + GET + HEAD)
        _, _, send = await application.asked()
        accepting = asyncio.create_task(send({"type": "websocket.accept"}))
        await asyncio.sleep(0)
        assert not accepting.done()
        client.writer.transport.resume_reading()
        assert [(await client.answer())[0] for _ in range(2)] == [200, 101]
        await accepting
        application.done.set()
