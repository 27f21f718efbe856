"""SIGTERM closes every connection with 4000 on each kind of server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from tests.integration.native import Visitors
from tests.servers import KINDS, STOP_SECONDS, Server, running

pytestmark = pytest.mark.any_database


@pytest.fixture(params=KINDS)
def stopping(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the test stops."""
    server = Server.start(request.param)
    with running(server):
        yield server


async def test_sigterm_closes_every_connection_and_ends_the_process(stopping: Server) -> None:
    process = stopping.process
    assert process is not None
    async with Visitors(stopping) as visitors:
        clients = [await visitors.guest() for _ in range(5)]
        for client in clients:
            await client.join("lobby")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.gather(*(client.closed() for client in clients)) == [4000] * 5
        assert all(0 <= client.log[-1]["retry_in"] <= 5 for client in clients)
        # uvicorn raises the signal again at its end.
        assert await asyncio.to_thread(process.wait, STOP_SECONDS) in (0, -signal.SIGTERM)
    assert "Traceback" not in stopping.tail()
