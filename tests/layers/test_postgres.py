"""The layer on PostgreSQL: its connections, and what becomes of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dj_database_url
import psycopg
import pytest
from channels.exceptions import ChannelFull
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from tests import services
from tests.node.clients import PATIENCE

if TYPE_CHECKING:
    from rooms.layers.postgres import PostgresLayer

pytestmark = pytest.mark.database

Pair = tuple["PostgresLayer", "PostgresLayer"]


@pytest.fixture
async def pair(postgres_alias: str) -> AsyncIterator[Pair]:
    """Two processes."""
    from rooms.layers.postgres import PostgresLayer

    layers = PostgresLayer(using=postgres_alias), PostgresLayer(using=postgres_alias)
    yield layers
    for layer in layers:
        await layer.flush()


async def listener(layer: PostgresLayer) -> str:
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    return channel


async def heard(layer: PostgresLayer, channel: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        return (await layer.receive(channel))["text"]


def ask(statement: Any, *arguments: Any) -> list[Any]:
    """Ask the server as an administrator."""
    settings = connections["layer"].settings_dict
    url = f"postgres://{settings['USER']}:{settings['PASSWORD']}@{settings['HOST']}:{settings['PORT']}"
    with psycopg.connect(f"{url}/{settings['NAME']}", autocommit=True) as connection:
        return connection.execute(statement, arguments).fetchall()


def connected() -> list[tuple[int, str]]:
    """The connections of layers: process and last statement."""
    return ask(
        "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'rooms' ORDER BY pid"
    )


def listens_again(before: set[int]) -> bool:
    """Whether a connection is there that was not, and listens."""
    return any(pid not in before and "LISTEN" in query for pid, query in connected())


@contextmanager
def frozen() -> Iterator[None]:
    """The server's processes that serve layers do nothing."""
    if services.postgres().process is None:
        pytest.skip("this PostgreSQL is not ours to stop")
    pids = [pid for pid, _ in connected()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def test_two_connections_serve_a_process(pair: Pair) -> None:
    here, there = pair
    channels = [await listener(there) for _ in range(20)]
    for _ in range(3):
        await asyncio.gather(*(here.group_send("room", {"text": "a"}) for _ in range(20)))
    for channel in channels:
        await heard(there, channel)
    # One that sends, one that hears.
    assert len(connected()) == 2
    await there.group_send("room", {"text": "b"})
    assert len(connected()) == 3


async def test_a_flush_closes_the_connections(pair: Pair) -> None:
    here, there = pair
    await listener(there)
    await here.group_send("room", {"text": "a"})
    for layer in pair:
        await layer.flush()
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(connected):
            pass


async def test_layers_of_different_prefixes_do_not_hear_each_other(pair: Pair, postgres_alias: str) -> None:
    from rooms.layers.postgres import PostgresLayer

    here, there = pair
    other = PostgresLayer(using=postgres_alias, prefix="other; DROP")
    channel, apart = await listener(there), await listener(other)
    await other.group_send("room", {"text": "theirs"})
    await here.group_send("room", {"text": "ours"})
    assert await heard(there, channel) == "ours"
    assert await heard(other, apart) == "theirs"
    await other.flush()


async def test_what_nobody_of_ours_notified_is_passed_over(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = pair
    channel = await listener(there)
    for payload in ("", "nonsense", "AAAA" * 10):
        ask("SELECT pg_notify(%s, %s)", there.name, payload)
    await here.group_send("room", {"text": "a"})
    assert await heard(there, channel) == "a"
    assert caplog.text.count("A notification could not be used") == 3


async def test_lost_connections_are_made_anew(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    here, there = pair
    channel = await listener(there)
    await here.group_send("room", {"text": "before"})
    assert await heard(there, channel) == "before"
    before = {pid for pid, _ in connected()}
    ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rooms'")
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(listens_again, before):
            pass
    # The sender finds out when it sends; what it was to send is lost, as a hint may be.
    with pytest.raises(psycopg.OperationalError):
        await here.group_send("room", {"text": "lost"})
    await here.group_send("room", {"text": "after"})
    assert await heard(there, channel) == "after"
    assert caplog.text.count("Nothing is heard from other processes") == 1
    assert "heard over PostgreSQL again" in caplog.text


async def test_a_server_that_is_away_is_not_asked_for_every_message(
    postgres_alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rooms.layers.postgres import PostgresLayer

    monkeypatch.setitem(connections.settings[postgres_alias], "PORT", services.free_port())
    layer = PostgresLayer(using=postgres_alias)
    attempts = 0
    connect = layer.connect

    async def counted() -> Any:
        nonlocal attempts
        attempts += 1
        return await connect()

    monkeypatch.setattr(layer, "connect", counted)
    with pytest.raises(psycopg.OperationalError):
        await layer.group_send("room", {"text": "lost"})
    for _ in range(5):
        with pytest.raises(ConnectionError, match="not there a moment ago"):
            await layer.group_send("room", {"text": "lost"})
    assert attempts == 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(layer.new_channel(), 0.1)
    await layer.flush()


async def test_a_server_that_hangs_holds_up_only_who_waits(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rooms.layers import postgres as module

    monkeypatch.setattr(module, "MOST_WAITING", 3)
    here, there = pair
    channel = await listener(there)
    await here.group_send("room", {"text": "before"})
    assert await heard(there, channel) == "before"
    with frozen():
        hanging = asyncio.create_task(here.group_send("room", {"text": "first"}))
        # It is begun, and taken by the task that sends.
        for _ in range(2):
            await asyncio.sleep(0)
        given_up = [asyncio.create_task(here.group_send("room", {"text": "given up"})) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ChannelFull):
            await here.group_send("room", {"text": "too much"})
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
    await hanging
    await here.group_send("room", {"text": "after"})
    assert [await heard(there, channel) for _ in range(2)] == ["first", "after"]


def test_it_needs_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    from rooms.layers.postgres import PostgresLayer

    monkeypatch.setattr(connections["default"], "vendor", "sqlite", raising=False)
    with pytest.raises(ImproperlyConfigured, match=r"is on a database of sqlite. Lawful: postgresql"):
        PostgresLayer()


def test_the_databases_own_options_come_first(postgres_alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rooms.layers.postgres import PostgresLayer

    options = {**dj_database_url.parse("postgres://host/name").get("OPTIONS", {}), "application_name": "site"}
    monkeypatch.setitem(connections.settings[postgres_alias], "OPTIONS", options)

    async def named() -> str:
        async with await PostgresLayer(using=postgres_alias).connect() as connection:
            return connection.info.get_parameters()["application_name"]

    assert asyncio.run(named()) == "site"
