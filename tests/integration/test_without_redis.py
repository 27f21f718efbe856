"""Processes that hear each other without Redis: they die, come, and lose their connections.

On PostgreSQL over its notifications, on SQLite over sockets in a folder. What goes on between two that stay,
`test_two_processes.py` has.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.integration.native import Visitors, unique
from tests.integration.test_redis_down import come_in, everything_goes_on, hear_each_other
from tests.servers import Server, fresh_database, on_postgres, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.integration.test_redis_down import Pair

pytestmark = [pytest.mark.database, pytest.mark.smoke]

ENVIRONMENT = {"ROOMS_WORKERS": "2"}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """Two processes on one database."""
    database_url = fresh_database()
    first = Server.start("uvicorn", database_url, environment=ENVIRONMENT)
    second = Server.start("uvicorn", database_url, environment=ENVIRONMENT)
    with running(first, second):
        yield first, second


@pytest.fixture
async def pair(servers: tuple[Server, Server]) -> AsyncIterator[Pair]:
    """Visitors of the one process and of the other."""
    async with Visitors(servers[0]) as here, Visitors(servers[1]) as there:
        yield here, there


async def test_a_process_that_was_killed_and_comes_again_is_heard_and_hears(pair: Pair) -> None:
    room = unique("room")
    here, there = pair
    stayed, gone = await come_in(pair, room)
    await hear_each_other((stayed, gone), room)
    await asyncio.to_thread(there.server.kill)
    for number in range(10):
        await stayed.say(room, number)
    await asyncio.to_thread(there.server.restart)
    back = await there.again(gone)
    await back.join(room)
    await hear_each_other((stayed, back), room)
    await everything_goes_on((here, there), (stayed, back), room)


async def test_a_process_more_is_heard_and_hears(pair: Pair) -> None:
    room = unique("room")
    first, second = await come_in(pair, room)
    server = await asyncio.to_thread(
        Server.start, "uvicorn", pair[0].server.database_url, environment=ENVIRONMENT
    )
    async with Visitors(server) as visitors:
        third = await visitors.guest()
        await third.join(room)
        for other in (first, second):
            while (await other.push("joined"))["user"] != third.user:
                pass
            await hear_each_other((third, other), room)
    await asyncio.to_thread(server.stop)
    await hear_each_other((first, second), room)


@pytest.mark.skipif(not on_postgres(), reason="there are no connections to lose")
async def test_connections_to_postgresql_that_are_cut_come_back(pair: Pair) -> None:
    room = unique("room")
    clients = await come_in(pair, room)
    await hear_each_other(clients, room)
    with psycopg.connect(pair[0].server.database_url, autocommit=True) as connection:
        cut = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'rooms'"
        ).fetchall()
    assert len(cut) == 4
    await everything_goes_on(pair, clients, room)
    await hear_each_other(clients, room)
