"""An ASGI application served by uvicorn with our WebSocket class, in the test's own event loop, and a client
that writes bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, Self

import uvicorn
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

from rooms.server.http_upgrade import Http
from rooms.server.websocket import WebSocket
from tests.protocol.test_frame_protocol import sent

PATIENCE = 20

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


@contextlib.asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[Site]:
    """The application on a free port, until the end of the block."""
    options = {"http": Http, "ws": WebSocket, "lifespan": "off", "log_config": None, **options}
    options = {"ws_ping_interval": None, "timeout_graceful_shutdown": 1, **options}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await server.startup([listening])
        site = Site(server, listening.getsockname()[1])
        try:
            yield site
        finally:
            for client in site.clients:
                client.writer.close()
            async with asyncio.timeout(PATIENCE):
                await server.shutdown([listening])


class Site:
    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port
        self.clients: list[Client] = []

    @property
    def sockets(self) -> list[WebSocket]:
        """The server's ends."""
        return [each for each in self.server.server_state.connections if isinstance(each, WebSocket)]

    async def dial(self, **options: Any) -> Client:
        """A connection on which nothing has been said."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    async def open(self, path: str = "/", headers: dict[str, str] | None = None) -> Client:
        """A client that was accepted."""
        client = await self.dial()
        client.ask(path, headers)
        status, _, _ = await client.answer()
        assert status == 101
        return client


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._parser = Protocol(Side.CLIENT, state=OPEN, max_size=None)
        self._heard: list[object] = []

    def ask(self, path: str = "/", headers: dict[str, str] | None = None, *, method: str = "GET") -> None:
        """Send a request; a header that is empty is left out."""
        given = {name: value for name, value in {**REQUEST, **(headers or {})}.items() if value}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode("latin-1"))

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of what a request is answered with."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body

    def say(self, *frames: bytes) -> Self:
        self.writer.write(b"".join(frames))
        return self

    async def next(self) -> object:
        """Text, bytes, a pair of opcode and payload, a close code, or None at the end."""
        async with asyncio.timeout(PATIENCE):
            while not self._heard:
                data = await self.reader.read(1 << 16)
                if not data:
                    return None
                self._parser.receive_data(data)
                self._heard += [_plain(each) for each in self._parser.events_received()]
        return self._heard.pop(0)

    async def rest(self) -> list[object]:
        """Everything up to the end of the connection."""
        heard = []
        while (each := await self.next()) is not None:
            heard.append(each)
        return heard


def _plain(frame: Any) -> object:
    assert isinstance(frame, Frame)
    if frame.opcode is Opcode.CLOSE:
        return Close.parse(frame.data).code
    if frame.opcode is Opcode.TEXT:
        return bytes(frame.data).decode()
    return bytes(frame.data) if frame.opcode is Opcode.BINARY else (frame.opcode.name, bytes(frame.data))


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that says what it is told."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


__all__ = ["Client", "Site", "echo", "sent", "served"]
