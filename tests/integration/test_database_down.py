"""The database is locked or stopped: messages are refused, connections stay.

Afterwards messages that are sent again are stored once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

from tests import services
from tests.changed_site import SHORT_STATEMENTS, changed_site
from tests.integration.native import RequestRefused, Visitors, unique
from tests.servers import Server, fresh_database, manage, on_postgres, running, site_environment

if TYPE_CHECKING:
    from tests.integration.native import Client

pytestmark = pytest.mark.database

SENDERS = 3


@contextlib.contextmanager
def locked(database_url: str) -> Iterator[None]:
    """Hold a lock on the database, like a writer that does not commit."""
    if on_postgres():
        with psycopg.connect(database_url) as connection:
            connection.execute("SELECT * FROM rooms_sequence FOR UPDATE")
            yield
            connection.rollback()
    else:
        path = urlsplit(database_url).path
        # Opened in one thread and closed in another.
        opened = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        with contextlib.closing(opened) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")


@contextlib.contextmanager
def stopped(postgres: services.Postgres) -> Iterator[None]:
    """Stop PostgreSQL until the end of the block."""
    postgres.stop()
    yield
    postgres.start_again()


async def send_while_refused(client: Client, room: str, number: int) -> None:
    """Send during the outage: messages are refused, the connection still answers."""
    for _ in range(2):
        with pytest.raises(RequestRefused) as refused:
            await client.send_message(room, number, key=f"key {number}")
        assert (refused.value.code, refused.value.retry) == ("unavailable", True)
        assert await client.before_pong() == []


async def send_until_stored(client: Client, room: str, number: int) -> int:
    """Send the message until it is acknowledged; returns its sequence number."""
    while True:
        try:
            return int((await client.send_message(room, number, key=f"key {number}"))["seq"])
        except RequestRefused as refused:
            if refused.code != "unavailable":
                raise


async def check_outage(server: Server, outage: contextlib.AbstractContextManager[None]) -> None:
    room = unique("room")
    async with Visitors(server) as visitors:
        senders = [await visitors.guest() for _ in range(SENDERS)]
        listener = await visitors.guest()
        for client in (*senders, listener):
            await client.join(room)
        assert (await senders[0].send_message(room, "before"))["seq"] == 1
        for client in senders:
            await client.push("message")
        await asyncio.to_thread(outage.__enter__)
        try:
            await asyncio.gather(*(send_while_refused(client, room, n) for n, client in enumerate(senders)))
        finally:
            await asyncio.to_thread(outage.__exit__, None, None, None)
        seqs = await asyncio.gather(*(send_until_stored(client, room, n) for n, client in enumerate(senders)))
        assert sorted(seqs) == list(range(2, SENDERS + 2))
        received = [(each["seq"], each["data"]) for each in await listener.messages(SENDERS + 1)]
        assert received == [(1, "before"), *sorted((seq, n) for n, seq in enumerate(seqs))]
        # The connections are the same as before, and each is in its room.
        page = await listener.request("history", room=room)
        assert [(each["seq"], each["data"]) for each in page["messages"]] == received
        assert (await listener.request("members", room=room))["count"] == SENDERS + 1


async def test_locked_database_refuses_messages_until_it_is_unlocked() -> None:
    database_url = await asyncio.to_thread(fresh_database)
    environment = changed_site(SHORT_STATEMENTS)
    server = await asyncio.to_thread(Server.start, "uvicorn", database_url, environment=environment)
    with running(server):
        await check_outage(server, locked(database_url))


@pytest.mark.skipif(not on_postgres(), reason="needs PostgreSQL: SQLite has no server")
@pytest.mark.skipif(
    "ROOMS_TEST_DATABASE_URL" in os.environ, reason="the server is external and cannot be stopped"
)
async def test_stopped_database_refuses_messages_until_it_is_restarted() -> None:
    postgres = await asyncio.to_thread(services.Postgres)
    database_url = await asyncio.to_thread(postgres.create)
    await asyncio.to_thread(manage, site_environment(database_url), "rooms_demo", "--no-serve", "--bench")
    server = await asyncio.to_thread(Server.start, "uvicorn", database_url)
    with running(server):
        await check_outage(server, stopped(postgres))
