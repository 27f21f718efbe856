"""Requests before the upgrade: frames behind them, invalid ones, incomplete ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rooms.protocol import frame_protocol
from tests.server.harness import HEADERS, PATIENCE, Application, client_frame, echo, serve


async def page_or_echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await echo(scope, receive, send)
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


HEAD = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items()).encode() + b"\r\n"
GET = b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize("first", [b"", b"X: folded,\r\n as it once was\r\n"], ids=["plain", "folded"])
async def test_frames_behind_the_request_are_received(first: bytes) -> None:
    async with serve(echo) as site:
        client = await site.connect()
        client.send(
            GET
            + first
            + HEAD
            + client_frame(frame_protocol.TEXT, b"one")
            + client_frame(frame_protocol.TEXT, b"two")[:4]
        )
        assert (await client.response())[0] == 101
        client.send(client_frame(frame_protocol.TEXT, b"two")[4:])
        assert [await client.next(), await client.next()] == ["one", "two"]


@pytest.mark.parametrize(
    ("request_head", "status"),
    [(b"GET / HTTP/1.0\r\n" + HEAD, 400), (GET + b"Content-Length: 3\r\n" + HEAD + b"abc", 400)],
    ids=["HTTP/1.0", "with a body"],
)
async def test_refused_request_ends_the_connection(request_head: bytes, status: int) -> None:
    async with serve(echo) as site:
        client = await site.connect()
        client.send(request_head + client_frame(frame_protocol.TEXT, b"\xff"))
        async with asyncio.timeout(PATIENCE):
            response = await client.reader.read()
        assert response.startswith(b"HTTP/1.1 %d " % status)
        assert response.endswith(b".")


@pytest.mark.parametrize("data", [b"", GET + b"Host: a\r\n"], ids=["nothing", "the beginning"])
@pytest.mark.parametrize("is_second_request", [False, True])
async def test_incomplete_head_is_closed_after_a_timeout(
    data: bytes, is_second_request: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rooms.server.http_upgrade.HEAD_TIMEOUT", 0.5)
    async with serve(page_or_echo, timeout_keep_alive=0.5) as site:
        socket = await site.connect_websocket()
        # Its timeout begins after the one of the WebSocket.
        client = await site.connect()
        if is_second_request:
            client.send(GET + b"Host: a\r\n\r\n")
            assert (await client.response())[2] == b"ok"
        for byte in data:
            client.send(bytes([byte]))
            await client.writer.drain()
        async with asyncio.timeout(PATIENCE):
            assert await client.reader.read() == b""
        assert await socket.send(client_frame(frame_protocol.TEXT, b"there")).next() == "there"


async def test_upgrade_behind_an_unread_response_starts_with_paused_writing() -> None:
    application, page = Application(), b"x" * 20_000_000

    async def page_or_socket(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await application(scope, receive, send)
        else:
            length = (b"content-length", b"%d" % len(page))
            await send({"type": "http.response.start", "status": 200, "headers": [length]})
            await send({"type": "http.response.body", "body": page})

    async with serve(page_or_socket) as site:
        client = await site.connect()
        client.writer.transport.pause_reading()
        client.send(GET + b"Host: a\r\n\r\n" + GET + HEAD)
        _, _, send = await application.connecting()
        accepting = asyncio.create_task(send({"type": "websocket.accept"}))
        await asyncio.sleep(0)
        assert not accepting.done()
        client.writer.transport.resume_reading()
        assert [(await client.response())[0] for _ in range(2)] == [200, 101]
        await accepting
        application.done.set()
