"""An ASGI application under uvicorn in the event loop of the test.

    async with serve(application) as site:
        client = await site.connect_websocket()
        client.send(client_frame(TEXT, b"hello"))

A client writes bytes and parses the answers with the websockets library.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import uvicorn
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

from rooms.server.http_upgrade import Http
from rooms.server.websocket import EXTENSION, WebSocket
from tests.protocol.test_frame_protocol import sent as client_frame

#: Seconds to wait for what must happen. No assertion is about time.
PATIENCE = 60

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


@contextlib.asynccontextmanager
async def serve(app: Any, **options: Any) -> AsyncIterator[Site]:
    """Serve the application on a free port until the end of the block."""
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
    """A running server and its clients."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port
        self.clients: list[Client] = []

    @property
    def websockets(self) -> list[WebSocket]:
        """The server's side of each WebSocket."""
        return [each for each in self.server.server_state.connections if isinstance(each, WebSocket)]

    async def connect(self, **options: Any) -> Client:
        """Open a TCP connection without sending anything."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    async def connect_websocket(self, path: str = "/", headers: dict[str, str] | None = None) -> Client:
        """Open a WebSocket that the application accepts."""
        client = await self.connect()
        client.request(path, headers)
        status, _, _ = await client.response()
        assert status == 101
        return client


class Client:
    """The client's side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._parser = Protocol(Side.CLIENT, state=OPEN, max_size=None)
        self._received: list[object] = []

    def request(self, path: str = "/", headers: dict[str, str] | None = None, *, method: str = "GET") -> None:
        """Send a handshake request; a header with an empty value is left out."""
        given = {name: value for name, value in {**HEADERS, **(headers or {})}.items() if value}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode("latin-1"))

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Read the status, headers and body of an HTTP response."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body

    def send(self, *frames: bytes) -> Self:
        self.writer.write(b"".join(frames))
        return self

    async def next(self) -> object:
        """Read the next frame; None at the end.

        A frame is text, bytes, a pair of opcode and payload, or a close code.
        """
        async with asyncio.timeout(PATIENCE):
            while not self._received:
                data = await self.reader.read(1 << 16)
                if not data:
                    return None
                self._parser.receive_data(data)
                self._received += [_plain(each) for each in self._parser.events_received()]
        return self._received.pop(0)

    async def read_all(self) -> list[object]:
        """Read every frame up to the end of the connection."""
        received = []
        while (each := await self.next()) is not None:
            received.append(each)
        return received


def _plain(frame: Any) -> object:
    assert isinstance(frame, Frame)
    if frame.opcode is Opcode.CLOSE:
        return Close.parse(frame.data).code
    if frame.opcode is Opcode.TEXT:
        return bytes(frame.data).decode()
    return bytes(frame.data) if frame.opcode is Opcode.BINARY else (frame.opcode.name, bytes(frame.data))


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that sends back every message."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class Application:
    """An ASGI application that the test drives, one connection at a time."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[dict[str, Any], Any, Any]] = asyncio.Queue()
        self.done = asyncio.Event()
        self.error: BaseException | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.done.clear()
        self.calls.put_nowait((scope, receive, send))
        await self.done.wait()
        if self.error is not None:
            raise self.error

    async def connecting(self) -> tuple[dict[str, Any], Any, Any]:
        """Wait for the next connection; its scope, receive and send."""
        async with asyncio.timeout(PATIENCE):
            scope, receive, send = await self.calls.get()
            assert await receive() == {"type": "websocket.connect"}
        return scope, receive, send

    async def accept(self) -> tuple[Any, Any, Any]:
        """Wait for the next connection and accept it."""
        scope, receive, send = await self.connecting()
        await send({"type": "websocket.accept"})
        return scope, receive, send


async def connect(site: Site, application: Application) -> tuple[Client, Any, Any, Any]:
    """Open a WebSocket; the client, and the application's scope, receive and send."""
    client = await site.connect()
    client.request()
    scope, receive, send = await application.accept()
    assert (await client.response())[0] == 101
    return client, scope, receive, send


async def connect_without_reading(site: Site, application: Application) -> tuple[Client, Any, Any]:
    """Open a WebSocket whose client stops reading.

    Returns the client, its frame transport and the application's receive.
    """
    own = socket.socket()
    # A small buffer, so that it is soon full.
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.setblocking(False)
    await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", site.port))
    reader, writer = await asyncio.open_connection(sock=own, limit=4096)
    client = Client(reader, writer)
    site.clients.append(client)
    client.request()
    scope, receive, _ = await application.accept()
    assert (await client.response())[0] == 101
    writer.transport.pause_reading()
    return client, scope["extensions"][EXTENSION], receive


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition is true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


__all__ = [
    "Application",
    "Client",
    "Site",
    "client_frame",
    "connect",
    "connect_without_reading",
    "echo",
    "serve",
    "until",
]
