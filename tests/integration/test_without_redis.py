"""Processes without Redis: one is killed, one is added, connections are lost.

They use notifications on PostgreSQL, and Unix sockets on SQLite. `test_two_processes.py` has the tests of two
processes that keep running.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.integration.native import Visitors, unique
from tests.integration.test_redis_down import check_everything_works, exchange_messages, join_both
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
    """Visitors of each process."""
    async with Visitors(servers[0]) as here, Visitors(servers[1]) as there:
        yield here, there


async def test_killed_process_exchanges_messages_after_its_restart(pair: Pair) -> None:
    room = unique("room")
    here, there = pair
    stayed, lost = await join_both(pair, room)
    await exchange_messages((stayed, lost), room)
    await asyncio.to_thread(there.server.kill)
    for number in range(10):
        await stayed.send_message(room, number)
    await asyncio.to_thread(there.server.restart)
    back = await there.again(lost)
    await back.join(room)
    await exchange_messages((stayed, back), room)
    await check_everything_works((here, there), (stayed, back), room)


async def test_additional_process_exchanges_messages(pair: Pair) -> None:
    room = unique("room")
    first, second = await join_both(pair, room)
    server = await asyncio.to_thread(
        Server.start, "uvicorn", pair[0].server.database_url, environment=ENVIRONMENT
    )
    async with Visitors(server) as visitors:
        third = await visitors.guest()
        await third.join(room)
        for other in (first, second):
            while (await other.push("joined"))["user"] != third.user:
                pass
            await exchange_messages((third, other), room)
    await asyncio.to_thread(server.stop)
    await exchange_messages((first, second), room)


@pytest.mark.skipif(not on_postgres(), reason="needs PostgreSQL: SQLite has no connections")
async def test_terminated_connections_to_postgresql_are_restored(pair: Pair) -> None:
    room = unique("room")
    clients = await join_both(pair, room)
    await exchange_messages(clients, room)
    with psycopg.connect(pair[0].server.database_url, autocommit=True) as connection:
        terminated = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'rooms'"
        ).fetchall()
    assert len(terminated) == 4
    await check_everything_works(pair, clients, room)
    await exchange_messages(clients, room)
