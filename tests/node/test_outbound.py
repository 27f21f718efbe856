"""Outbound connections of extensions to a real WebSocket service."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from rooms.consumers import serve_outbound
from rooms.extensions import Extension
from rooms.node.node import Node
from rooms.node.outbound import MAX_OUTBOUND_CONNECTIONS, OutboundConnection
from rooms.protocol.errors import CloseCode, UnknownConnection
from tests.accepting import accept_no_more
from tests.node.clients import PATIENCE, Client

if TYPE_CHECKING:
    from rooms.models import Application

Put = Callable[[type[Extension]], Awaitable[None]]


class RemoteService:
    """A WebSocket service outside; ``calls`` holds the connections that it accepted."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.port = 0
        self._server: Server | None = None

    async def open(self) -> None:
        self._server = await serve(self._called, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            await accept_no_more(self._server)
            self._server.close()
            await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/feed?secret=1"

    async def call(self) -> ServerConnection:
        """The next accepted connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.calls.get()

    async def _called(self, connection: ServerConnection) -> None:
        self.calls.put_nowait(connection)
        await connection.wait_closed()


@pytest.fixture
async def service() -> AsyncIterator[RemoteService]:
    service = RemoteService()
    await service.open()
    yield service
    await service.close()


@pytest.fixture
async def node(chat: Application, service: RemoteService) -> AsyncIterator[Node]:
    """The node of this process; it stops before the service does."""
    node = await Node.get_or_start(serve_outbound)
    yield node
    await node.stop()


class Upstream(Extension):
    """Opens a connection to ``url`` when it starts, and records its events."""

    url: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    started: ClassVar[Upstream]
    events: ClassVar[asyncio.Queue[Any]]

    async def init(self) -> None:
        type(self).started, type(self).events = self, asyncio.Queue()
        self.source: Any = await self.open_connection(self.url, **self.options)

    async def on_connect(self, event: Any) -> None:
        assert event.user.guest
        self.events.put_nowait(("connect", event.number, self.source.number))

    async def on_receive(self, event: Any) -> None:
        self.events.put_nowait(("receive", event.number, event.data))

    async def on_disconnect(self, event: Any) -> None:
        self.events.put_nowait(("disconnect", event.number, self.source.number))

    async def next(self) -> Any:
        async with asyncio.timeout(PATIENCE):
            return await self.events.get()


@pytest.fixture
def put(chat: Application, install_extension: Any) -> Put:
    """Chooses an extension for the application."""

    async def put(extension: type[Extension]) -> None:
        chat.extension = install_extension(extension)
        await chat.asave()

    return put


@pytest.fixture
async def upstream(node: Node, put: Put, service: RemoteService) -> Upstream:
    """An extension that has opened a connection to the service."""
    return await connect(node, put, service.url)


async def connect(node: Node, put: Put, url: str, **options: Any) -> Upstream:
    Upstream.url, Upstream.options = url, options
    await put(Upstream)
    await node.context.registry.application("chat")
    return Upstream.started


def refused_port() -> int:
    """A port without a listener."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def ended(outbound: OutboundConnection) -> None:
    async with asyncio.timeout(PATIENCE):
        assert outbound.task is not None
        await asyncio.wait({outbound.task})


# Served like a connection that a client opened ----------------------------------------------------------


async def test_an_outbound_connection_is_served_like_any_other(
    upstream: Upstream, service: RemoteService
) -> None:
    call = await service.call()
    assert await upstream.next() == ("connect", 1, 1)
    assert upstream.connections == [1]
    await call.send("text")
    await call.send(b"\xff")
    assert [await upstream.next() for _ in range(2)] == [("receive", 1, b"text"), ("receive", 1, b"\xff")]
    await upstream.write(1, b"\x00bytes")
    assert await call.recv() == b"\x00bytes"


async def test_headers_and_url_are_those_that_the_extension_gave(
    node: Node, put: Put, service: RemoteService
) -> None:
    upstream = await connect(node, put, service.url, headers={"Authorization": "Bearer 1"})
    request = (await service.call()).request
    assert request is not None
    assert (request.path, request.headers["Authorization"]) == ("/feed?secret=1", "Bearer 1")
    assert repr(upstream.source) == f"<OutboundConnection ws://127.0.0.1:{service.port}/feed>"


async def test_without_on_receive_the_gowsev_protocol_is_spoken(
    node: Node, put: Put, service: RemoteService
) -> None:
    class Quiet(Extension):
        async def init(self) -> None:
            await self.open_connection(service.url)

    await put(Quiet)
    ann = await Client.named(node, "ann", "news")
    call = await service.call()
    await call.send("subscribe:news")
    assert await call.recv() == b"OK"
    await ann.send("news", "hello")
    assert await call.recv() == b"hello"
    await call.send("publish:news:from afar")
    assert [await call.recv() for _ in range(2)] == [b"OK", b"from afar"]
    await ann.until(lambda: ann.messages() == ["hello", "from afar"])


async def test_a_frame_that_is_too_long_closes_the_connection_which_reconnects(
    upstream: Upstream, service: RemoteService
) -> None:
    call = await service.call()
    await call.send(b"x" * (64 * 1024 + 1))
    await call.wait_closed()
    assert call.close_code == 1009
    await service.call()
    assert [(await upstream.next())[:2] for _ in range(3)] == [
        ("connect", 1),
        ("disconnect", 1),
        ("connect", 2),
    ]


# Reconnecting until closed -----------------------------------------------------------------------------


async def test_a_lost_connection_is_reopened_with_a_new_number(
    upstream: Upstream, service: RemoteService
) -> None:
    assert await upstream.next() == ("connect", 1, 1)
    await (await service.call()).close()
    assert await upstream.next() == ("disconnect", 1, None)
    assert await upstream.next() == ("connect", 2, 2)
    (await service.call()).transport.abort()
    assert await upstream.next() == ("disconnect", 2, None)
    assert await upstream.next() == ("connect", 3, 3)
    assert upstream.connections == [3]


async def test_a_service_that_is_down_is_connected_once_it_is_up(
    node: Node, put: Put, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = asyncio.Event()
    monkeypatch.setattr("rooms.node.outbound.random.uniform", lambda low, high: tried.set() or 0)
    service = RemoteService()
    service.port = refused_port()
    with caplog.at_level(logging.WARNING):
        upstream = await connect(node, put, service.url)
        await tried.wait()
    # The query may be a secret.
    assert f"<OutboundConnection ws://127.0.0.1:{service.port}/feed> cannot connect: " in caplog.text
    assert "secret" not in caplog.text
    assert (upstream.source.number, upstream.connections) == (None, [])
    await service.open()
    assert await upstream.next() == ("connect", 1, 1)
    upstream.source.close()
    await ended(upstream.source)
    await service.close()


async def test_the_backoff_is_random_up_to_a_limit_that_doubles(
    node: Node, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, float]] = []
    enough = asyncio.Event()

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        if len(asked) == 9:
            enough.set()
        return 0

    monkeypatch.setattr("rooms.node.outbound.random.uniform", uniform)
    upstream = await connect(node, put, f"ws://127.0.0.1:{refused_port()}/")
    async with asyncio.timeout(PATIENCE):
        await enough.wait()
    upstream.source.close()
    await ended(upstream.source)
    assert [low for low, _ in asked[:9]] == [0] * 9
    assert [high for _, high in asked[:9]] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20, 20]


async def test_a_connection_that_stayed_open_resets_the_backoff(
    upstream: Upstream, service: RemoteService, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    monkeypatch.setattr("rooms.node.outbound.random.uniform", lambda low, high: limits.append(high) or 0)
    (await service.call()).transport.abort()
    (await service.call()).transport.abort()
    call = await service.call()
    monkeypatch.setattr("rooms.node.outbound.MAX_BACKOFF", 0.0)
    call.transport.abort()
    await service.call()
    assert limits == [0.2, 0.4, 0.2]


async def test_a_connection_closed_here_with_a_code_that_is_not_final_reconnects(
    upstream: Upstream, service: RemoteService, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    await upstream.next()
    next(iter(node.connections)).close(CloseCode.PERMISSIONS_CHANGED, "Come back.")
    assert [(await upstream.next())[:2] for _ in range(2)] == [("disconnect", 1), ("connect", 2)]
    assert "was closed by this server: Come back." in caplog.text
    assert not upstream.source.closed


async def test_a_connection_closed_here_with_a_final_code_does_not_reconnect(
    node: Node, put: Put, service: RemoteService, chat: Application, caplog: pytest.LogCaptureFixture
) -> None:
    chat.entry = "users"
    await chat.asave()
    upstream = await connect(node, put, service.url)
    await ended(upstream.source)
    assert upstream.source.closed
    warnings = [each.getMessage() for each in caplog.records if each.name == "rooms.node.outbound"]
    assert len(warnings) == 1
    assert warnings[0].startswith(
        f"<OutboundConnection ws://127.0.0.1:{service.port}/feed> does not reconnect: "
    )


async def test_an_outbound_connection_has_no_request_rate_limit(
    node: Node, put: Put, service: RemoteService, chat: Application
) -> None:
    chat.request_rate = chat.request_burst = 1
    await chat.asave()
    upstream = await connect(node, put, service.url)
    call = await service.call()
    await upstream.next()
    for number in range(20):
        await call.send(str(number))
    received = [(await upstream.next())[2] for _ in range(20)]
    assert received == [str(number).encode() for number in range(20)]


async def test_a_connection_closed_by_its_number_does_not_reconnect(
    upstream: Upstream, service: RemoteService
) -> None:
    call = await service.call()
    await upstream.next()
    await upstream.write(1, "good bye")
    await upstream.close(1)
    assert await call.recv() == b"good bye"
    await ended(upstream.source)
    await call.wait_closed()
    assert call.close_code == 1000
    assert await upstream.next() == ("disconnect", 1, None)
    assert service.calls.empty()
    with pytest.raises(UnknownConnection):
        await upstream.write(1, "too late")


@pytest.mark.parametrize("in_a_thread", [False, True])
async def test_close_ends_the_connection_from_any_thread(
    upstream: Upstream, service: RemoteService, in_a_thread: bool
) -> None:
    call = await service.call()
    await upstream.next()
    if in_a_thread:
        await asyncio.to_thread(upstream.source.close)
    else:
        upstream.source.close()
    await ended(upstream.source)
    await call.wait_closed()
    assert (call.close_code, upstream.source.number) == (1000, None)
    upstream.source.close()


async def test_close_ends_an_attempt_that_is_under_way(node: Node, put: Put) -> None:
    # It accepts the TCP connection and answers no handshake.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        upstream = await connect(node, put, f"ws://127.0.0.1:{silent.getsockname()[1]}/")
        upstream.source.close()
        await ended(upstream.source)


async def test_a_peer_that_does_not_answer_the_close_is_aborted(
    chat: Application, put: Put, service: RemoteService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rooms.node.outbound.ABORT_TIMEOUT", 0)
    monkeypatch.setattr("rooms.node.outbound.CLOSE_TIMEOUT", 3600)
    node = await Node.get_or_start(serve_outbound)
    upstream = await connect(node, put, service.url)
    call = await service.call()
    await upstream.next()
    call.transport.pause_reading()
    # While the node stops, its heartbeat aborts no connection.
    async with asyncio.timeout(PATIENCE):
        await node.stop()
    assert upstream.source.task.done()
    call.transport.resume_reading()


# Lifetime ------------------------------------------------------------------------------------------------


async def test_outbound_connections_end_with_the_node(
    chat: Application, put: Put, service: RemoteService
) -> None:
    node = await Node.get_or_start(serve_outbound)
    upstream = await connect(node, put, service.url)
    call = await service.call()
    await upstream.next()
    await node.stop()
    assert upstream.source.task.done()
    await call.wait_closed()
    assert call.close_code == 4000


async def test_outbound_connections_end_with_their_extension(
    node: Node, upstream: Upstream, service: RemoteService, chat: Application
) -> None:
    call = await service.call()
    chat.extension = ""
    await chat.asave()
    await node.context.registry.load_application("chat")
    await ended(upstream.source)
    await call.wait_closed()
    with pytest.raises(RuntimeError, match="not running"):
        await upstream.open_connection(service.url)


async def test_outbound_connections_of_an_extension_that_fails_to_start_end(
    node: Node, put: Put, service: RemoteService
) -> None:
    opened: list[Any] = []

    class Hopeless(Extension):
        async def init(self) -> None:
            opened.append(await self.open_connection(service.url))
            raise ValueError

    await put(Hopeless)
    await node.context.registry.application("chat")
    await ended(opened[0])


async def test_an_application_has_a_maximum_of_outbound_connections(
    upstream: Upstream, service: RemoteService
) -> None:
    more = [await upstream.open_connection(service.url) for _ in range(MAX_OUTBOUND_CONNECTIONS - 1)]
    with pytest.raises(
        RuntimeError, match=f"chat has {MAX_OUTBOUND_CONNECTIONS} outbound connections; at most"
    ):
        await upstream.open_connection(service.url)
    more[0].close()
    await ended(more[0])  # type: ignore[arg-type]
    assert (await upstream.open_connection(service.url)).url == service.url


async def test_a_process_that_serves_no_sockets_opens_no_connection(chat: Application, put: Put) -> None:
    async with Node() as node:
        upstream = await connect(node, put, "ws://127.0.0.1:1/")
        assert (upstream.source.task, upstream.source.number) == (None, None)
        upstream.source.close()


# Arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *("http://host/", "file:///etc/passwd", "ws:///path", "ws://", "host:9000", "", "ws://host:99999/"),
        *("ws://host/#part", "ws://host/a b", "ws://host/\r\nHost: other", "ws://[::1/", "ws://host:0/"),
        *(5, None, b"ws://host/"),
    ],
)
async def test_only_websocket_urls_are_allowed(upstream: Upstream, url: Any) -> None:
    with pytest.raises(ValueError, match=r"Expected ws://host:port/path or wss://.*, got "):
        await upstream.open_connection(url)


async def test_only_known_protocols_are_allowed(upstream: Upstream) -> None:
    with pytest.raises(ValueError, match=r"Expected a protocol of native, .*, got 'smtp'"):
        await upstream.open_connection("ws://host/", protocol="smtp")
    # One of its sockets is in several applications.
    with pytest.raises(ValueError, match=r"got 'goroomserver'"):
        await upstream.open_connection("ws://host/", protocol="goroomserver")


async def test_without_the_library_the_error_names_the_package(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rooms.node.outbound.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"pip install \"django-rooms\[server\]\""):
        await upstream.open_connection("ws://host/")
