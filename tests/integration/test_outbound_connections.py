"""Extensions on real servers: rejected handshakes and outbound connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from tests.accepting import accept_no_more
from tests.integration.native import PATIENCE, make_application
from tests.servers import Server, running

pytestmark = [pytest.mark.any_database, pytest.mark.smoke]

KEY = "sesame"


@pytest.fixture(scope="module", params=["daphne", "uvicorn", "runrooms"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of each kind with the extensions of tests."""
    server = Server.start(request.param, environment={"DJANGO_SETTINGS_MODULE": "tests.site.settings"})
    with running(server):
        yield server


@pytest.fixture
async def accepted() -> AsyncIterator[tuple[int, asyncio.Queue[ServerConnection]]]:
    """The port of an external service, and the connections that it accepts."""
    connections: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def handle(connection: ServerConnection) -> None:
        connections.put_nowait(connection)
        await connection.wait_closed()

    async with serve(handle, "127.0.0.1", 0) as service:
        yield service.sockets[0].getsockname()[1], connections
        # The server reconnects at any moment.
        await accept_no_more(service)


def bridged_application(server: Server, port: int) -> str:
    """Create an application with the extension; returns its address."""
    name = make_application(
        server,
        extension="tests.site.Bridge",
        extension_settings={"url": f"ws://127.0.0.1:{port}/", "key": KEY},
    )
    return f"{server.ws}/ws/gowsev/{name}/"


def open_websocket(url: str, **headers: str) -> connect:
    return connect(url, additional_headers=headers, proxy=None, compression=None)


async def receive(connection: ClientConnection | ServerConnection) -> object:
    async with asyncio.timeout(PATIENCE):
        return await connection.recv()


async def test_handshake_is_rejected_with_the_status_of_the_extension(
    server: Server, accepted: tuple[int, asyncio.Queue[ServerConnection]]
) -> None:
    url = bridged_application(server, accepted[0])
    for query in ("", "?key=", "?key=other", f"?key={KEY}&key=other"):
        with pytest.raises(InvalidStatus) as refused:
            await open_websocket(url + query)
        # Daphne supports no other status.
        assert refused.value.response.status_code == (403 if server.kind == "daphne" else 401)
        assert (b"Expected the key." in refused.value.response.body) is (server.kind != "daphne")
        if server.kind == "runrooms":
            # uvicorn would log it as an error of the application.
            assert "from 127.0.0.1 is refused: 401" in server.tail()
            assert "without completing handshake" not in server.tail()
    async with open_websocket(f"{url}?key={KEY}", **{"X-Name": "ann"}) as ann:
        assert await receive(ann) == b"hello ann"


async def test_service_exchanges_frames_with_clients_and_is_reconnected(
    server: Server, accepted: tuple[int, asyncio.Queue[ServerConnection]]
) -> None:
    port, connections = accepted
    url = f"{bridged_application(server, port)}?key={KEY}"
    async with open_websocket(url) as ann, open_websocket(url) as ben:
        assert [await receive(each) for each in (ann, ben)] == [b"hello nobody"] * 2
        for _ in range(2):
            async with asyncio.timeout(PATIENCE):
                service = await connections.get()
            # The extension knows the connection once its first frame has arrived.
            await service.send("news")
            assert [await receive(each) for each in (ann, ben)] == [b"news"] * 2
            await ann.send(b"\xff from ann")
            assert await receive(service) == b"\xff from ann"
            await service.close()
