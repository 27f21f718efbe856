"""Extensions on real servers: a handshake that is refused, and a service that the server dials."""

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
async def calls() -> AsyncIterator[tuple[int, asyncio.Queue[ServerConnection]]]:
    """The port of another service, and who calls it."""
    calls: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def called(connection: ServerConnection) -> None:
        calls.put_nowait(connection)
        await connection.wait_closed()

    async with serve(called, "127.0.0.1", 0) as service:
        yield service.sockets[0].getsockname()[1], calls
        # It is being dialled again at any moment.
        await accept_no_more(service)


def bridge(server: Server, port: int) -> str:
    """The address of an application with that extension."""
    name = make_application(
        server,
        extension="tests.site.Bridge",
        extension_settings={"url": f"ws://127.0.0.1:{port}/", "key": KEY},
    )
    return f"{server.ws}/ws/gowsev/{name}/"


def knock(url: str, **headers: str) -> connect:
    return connect(url, additional_headers=headers, proxy=None, compression=None)


async def heard(connection: ClientConnection | ServerConnection) -> object:
    async with asyncio.timeout(PATIENCE):
        return await connection.recv()


async def test_a_handshake_is_refused_as_the_extension_says(
    server: Server, calls: tuple[int, asyncio.Queue[ServerConnection]]
) -> None:
    url = bridge(server, calls[0])
    for query in ("", "?key=", "?key=other", f"?key={KEY}&key=other"):
        with pytest.raises(InvalidStatus) as refused:
            await knock(url + query)
        # Daphne can say no other status than this.
        assert refused.value.response.status_code == (403 if server.kind == "daphne" else 401)
        assert (b"Expected the key." in refused.value.response.body) is (server.kind != "daphne")
        if server.kind == "runrooms":
            # uvicorn calls that an error, which it is not.
            assert "from 127.0.0.1 is refused: 401" in server.tail()
            assert "without completing handshake" not in server.tail()
    async with knock(f"{url}?key={KEY}", **{"X-Name": "ann"}) as ann:
        assert await heard(ann) == b"hello ann"


async def test_a_service_that_was_dialled_takes_part_and_is_dialled_again(
    server: Server, calls: tuple[int, asyncio.Queue[ServerConnection]]
) -> None:
    port, waiting = calls
    url = f"{bridge(server, port)}?key={KEY}"
    async with knock(url) as ann, knock(url) as ben:
        assert [await heard(each) for each in (ann, ben)] == [b"hello nobody"] * 2
        for _ in range(2):
            async with asyncio.timeout(PATIENCE):
                service = await waiting.get()
            # It is known to the extension as soon as something of it is.
            await service.send("news")
            assert [await heard(each) for each in (ann, ben)] == [b"news"] * 2
            await ann.send(b"\xff from ann")
            assert await heard(service) == b"\xff from ann"
            await service.close()
