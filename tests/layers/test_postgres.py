"""The layer on PostgreSQL: its connections, and what happens when they are lost."""

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
    """The layers of two processes."""
    from rooms.layers.postgres import PostgresLayer

    layers = PostgresLayer(using=postgres_alias), PostgresLayer(using=postgres_alias)
    yield layers
    for layer in layers:
        await layer.flush()


async def listener(layer: PostgresLayer) -> str:
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    return channel


async def received(layer: PostgresLayer, channel: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        return (await layer.receive(channel))["text"]


def query(statement: Any, *arguments: Any) -> list[Any]:
    """Query the server as an administrator."""
    settings = connections["layer"].settings_dict
    url = f"postgres://{settings['USER']}:{settings['PASSWORD']}@{settings['HOST']}:{settings['PORT']}"
    with psycopg.connect(f"{url}/{settings['NAME']}", autocommit=True) as connection:
        return connection.execute(statement, arguments).fetchall()


def connected() -> list[tuple[int, str]]:
    """List the connections of layers: process and last statement."""
    return query(
        "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'rooms' ORDER BY pid"
    )


def listens_again(before: set[int]) -> bool:
    """Return whether a new connection listens."""
    return any(pid not in before and "LISTEN" in query for pid, query in connected())


@contextmanager
def frozen() -> Iterator[None]:
    """Freeze the server's processes that serve layers."""
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
        await received(there, channel)
    # One sends, one listens.
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


async def test_layers_of_different_prefixes_are_separate(pair: Pair, postgres_alias: str) -> None:
    from rooms.layers.postgres import PostgresLayer

    here, there = pair
    other = PostgresLayer(using=postgres_alias, prefix="other; DROP")
    channel, apart = await listener(there), await listener(other)
    await other.group_send("room", {"text": "theirs"})
    await here.group_send("room", {"text": "ours"})
    assert await received(there, channel) == "ours"
    assert await received(other, apart) == "theirs"
    await other.flush()


async def test_foreign_notifications_are_ignored(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    here, there = pair
    channel = await listener(there)
    for payload in ("", "nonsense", "AAAA" * 10):
        query("SELECT pg_notify(%s, %s)", there.name, payload)
    await here.group_send("room", {"text": "a"})
    assert await received(there, channel) == "a"
    assert caplog.text.count("Ignored an invalid notification") == 3


async def test_lost_connections_are_replaced(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    here, there = pair
    channel = await listener(there)
    await here.group_send("room", {"text": "before"})
    assert await received(there, channel) == "before"
    before = {pid for pid, _ in connected()}
    query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rooms'")
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(listens_again, before):
            pass
    # The sender notices when it sends; that message is lost, as a hint may be.
    with pytest.raises(psycopg.OperationalError):
        await here.group_send("room", {"text": "lost"})
    await here.group_send("room", {"text": "after"})
    assert await received(there, channel) == "after"
    assert caplog.text.count("Cannot receive messages over PostgreSQL") == 1
    assert "Receiving messages over PostgreSQL again" in caplog.text


async def test_a_server_that_is_down_is_not_tried_for_every_message(
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
        with pytest.raises(ConnectionError, match="did not accept the last connection"):
            await layer.group_send("room", {"text": "lost"})
    assert attempts == 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(layer.new_channel(), 0.1)
    await layer.flush()


async def test_a_server_that_hangs_blocks_only_the_senders(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rooms.layers import postgres as module

    monkeypatch.setattr(module, "MAX_PENDING", 3)
    here, there = pair
    channel = await listener(there)
    await here.group_send("room", {"text": "before"})
    assert await received(there, channel) == "before"
    with frozen():
        hanging = asyncio.create_task(here.group_send("room", {"text": "first"}))
        # The sending task has taken it.
        for _ in range(2):
            await asyncio.sleep(0)
        cancelled = [asyncio.create_task(here.group_send("room", {"text": "cancelled"})) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ChannelFull):
            await here.group_send("room", {"text": "too much"})
        for task in cancelled:
            task.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)
    await hanging
    await here.group_send("room", {"text": "after"})
    assert [await received(there, channel) for _ in range(2)] == ["first", "after"]


def test_another_database_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from rooms.layers.postgres import PostgresLayer

    monkeypatch.setattr(connections["default"], "vendor", "sqlite", raising=False)
    with pytest.raises(ImproperlyConfigured, match="expected a postgresql database, got sqlite"):
        PostgresLayer()


def test_the_options_of_the_database_override_the_defaults(
    postgres_alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rooms.layers.postgres import PostgresLayer

    options = {**dj_database_url.parse("postgres://host/name").get("OPTIONS", {}), "application_name": "site"}
    monkeypatch.setitem(connections.settings[postgres_alias], "OPTIONS", options)

    async def named() -> str:
        async with await PostgresLayer(using=postgres_alias).connect() as connection:
            return connection.info.get_parameters()["application_name"]

    assert asyncio.run(named()) == "site"
