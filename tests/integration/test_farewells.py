"""With SIGTERM clients are taken leave of under Daphne and uvicorn too, as far as those let us."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from tests.integration.native import PATIENCE, Visitors
from tests.servers import KINDS, Server, running

pytestmark = pytest.mark.any_database


@pytest.fixture(params=KINDS)
def ending(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the test ends."""
    server = Server.start(request.param)
    with running(server):
        yield server


async def test_every_client_is_told_and_the_process_ends(ending: Server) -> None:
    process = ending.process
    assert process is not None
    async with Visitors(ending) as visitors:
        clients = [await visitors.guest() for _ in range(5)]
        for client in clients:
            await client.join("lobby")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.gather(*(client.closed() for client in clients)) == [4000] * 5
        assert all(0 <= client.log[-1]["retry_in"] <= 5 for client in clients)
        # uvicorn lets the signal have its own effect in the end.
        assert await asyncio.to_thread(process.wait, PATIENCE) in (0, -signal.SIGTERM)
    assert "Traceback" not in ending.tail()
