"""Taking leave of the clients when the server ends."""

from __future__ import annotations

import asyncio

import pytest

from rooms.engine import closing
from rooms.engine.closing import close_connections
from rooms.engine.engine import Engine
from tests.engine.clients import PATIENCE, Client


async def test_a_request_under_way_is_answered_before_its_connection_is_closed(engine: Engine) -> None:
    ann, ben = await Client.named(engine, "ann", "lobby"), await Client.named(engine, "ben", "lobby")
    ann.connection.busy = True
    closed = asyncio.create_task(close_connections(engine))
    await ben.until(lambda: ben.closed)
    assert ben.told("closing")[-1]["code"] == 4000
    assert ann.closed is None
    ann.connection.busy = False
    await ann.until(lambda: ann.closed)
    assert ann.closed == 4000
    assert not closed.done()
    ann.disconnect()
    ben.disconnect()
    await asyncio.wait_for(closed, PATIENCE)


async def test_one_that_takes_too_long_is_closed_all_the_same(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "FINISH_SECONDS", 0.0)
    ann = await Client.named(engine, "ann")
    ann.connection.busy = True
    closed = asyncio.create_task(close_connections(engine))
    await ann.until(lambda: ann.closed)
    ann.disconnect()
    await asyncio.wait_for(closed, PATIENCE)


async def test_one_that_does_not_go_is_not_waited_for_without_end(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FINISH_SECONDS", "HEAR_SECONDS"):
        monkeypatch.setattr(closing, name, closing.LOOK_SECONDS)
    ann = await Client.named(engine, "ann")
    await asyncio.wait_for(close_connections(engine), PATIENCE)
    assert ann.closed == 4000
    assert list(engine.connections) == [ann.connection]
