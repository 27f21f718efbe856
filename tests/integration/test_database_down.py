"""A database that is locked, or stopped: what is sent is refused for now and never acknowledged, nobody is
put out, and when it is back everything that is sent again is kept once."""

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
from tests.integration.native import HandshakeRejected, Visitors, unique
from tests.servers import Server, fresh_database, manage, on_postgres, running, site_environment

if TYPE_CHECKING:
    from tests.integration.native import Client

pytestmark = pytest.mark.database

SENDERS = 3


@contextlib.contextmanager
def locked(database_url: str) -> Iterator[None]:
    """Somebody else is writing to the database and does not come to an end."""
    if on_postgres():
        with psycopg.connect(database_url) as connection:
            connection.execute("SELECT * FROM rooms_sequence FOR UPDATE")
            yield
            connection.rollback()
    else:
        path = urlsplit(database_url).path
        # Begun in one thread and ended in another.
        opened = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        with contextlib.closing(opened) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")


@contextlib.contextmanager
def stopped(postgres: services.Postgres) -> Iterator[None]:
    postgres.stop()
    yield
    postgres.start_again()


async def sends_until_it_is_refused(client: Client, room: str, number: int) -> None:
    """What is sent while the database does not answer is refused for now, and the heart goes on beating."""
    for _ in range(2):
        with pytest.raises(HandshakeRejected) as refused:
            await client.say(room, number, key=f"key {number}")
        assert (refused.value.code, refused.value.retry) == ("unavailable", True)
        assert await client.before_pong() == []


async def sends_until_it_is_kept(client: Client, room: str, number: int) -> int:
    while True:
        try:
            return int((await client.say(room, number, key=f"key {number}"))["seq"])
        except HandshakeRejected as refused:
            if refused.code != "unavailable":
                raise


async def check_an_outage(server: Server, outage: contextlib.AbstractContextManager[None]) -> None:
    room = unique("room")
    async with Visitors(server) as visitors:
        senders = [await visitors.guest() for _ in range(SENDERS)]
        listener = await visitors.guest()
        for client in (*senders, listener):
            await client.join(room)
        assert (await senders[0].say(room, "before"))["seq"] == 1
        for client in senders:
            await client.push("message")
        await asyncio.to_thread(outage.__enter__)
        try:
            await asyncio.gather(
                *(sends_until_it_is_refused(client, room, n) for n, client in enumerate(senders))
            )
        finally:
            await asyncio.to_thread(outage.__exit__, None, None, None)
        seqs = await asyncio.gather(
            *(sends_until_it_is_kept(client, room, n) for n, client in enumerate(senders))
        )
        assert sorted(seqs) == list(range(2, SENDERS + 2))
        told = [(each["seq"], each["data"]) for each in await listener.messages(SENDERS + 1)]
        assert told == [(1, "before"), *sorted((seq, n) for n, seq in enumerate(seqs))]
        # The same connections as before, and each is where it was.
        page = await listener.request("history", room=room)
        assert [(each["seq"], each["data"]) for each in page["messages"]] == told
        assert (await listener.request("members", room=room))["count"] == SENDERS + 1


async def test_a_database_that_is_locked() -> None:
    database_url = await asyncio.to_thread(fresh_database)
    server = await asyncio.to_thread(Server.start, "uvicorn", database_url)
    with running(server):
        await check_an_outage(server, locked(database_url))


@pytest.mark.skipif(not on_postgres(), reason="there is no server to stop")
@pytest.mark.skipif("ROOMS_TEST_DATABASE_URL" in os.environ, reason="the server is not ours to stop")
async def test_a_database_that_is_stopped_and_started_again() -> None:
    postgres = await asyncio.to_thread(services.Postgres)
    database_url = await asyncio.to_thread(postgres.create)
    await asyncio.to_thread(manage, site_environment(database_url), "rooms_demo", "--no-serve", "--bench")
    server = await asyncio.to_thread(Server.start, "uvicorn", database_url)
    with running(server):
        await check_an_outage(server, stopped(postgres))
