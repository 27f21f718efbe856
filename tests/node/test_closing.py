"""Taking leave of the clients when the server ends."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from rooms.node import drain
from rooms.node.drain import close_connections
from rooms.node.node import Node
from tests.node.clients import PATIENCE, Client


class Chance:
    """Stands for ``random``: remembers what it was asked, and answers in turn with these shares of the
    upper bound."""

    def __init__(self, *shares: float) -> None:
        self.bounds: list[float] = []
        self._shares = itertools.chain(shares, itertools.repeat(0.5))

    def uniform(self, low: float, high: float) -> float:
        assert low == 0
        self.bounds.append(high)
        return next(self._shares) * high


@pytest.mark.parametrize(("each", "spread", "longest"), [(0.01, 0.02, 1.0), (1.5, 3.0, 3.0), (9.0, 5.0, 5.0)])
async def test_the_more_clients_the_longer_the_closes_and_their_returns_are_spread(
    node: Node, monkeypatch: pytest.MonkeyPatch, each: float, spread: float, longest: float
) -> None:
    monkeypatch.setattr(drain, "SPREAD_PER_CONNECTION", each)
    monkeypatch.setattr(drain, "random", chance := Chance(0, 0, 1, 0.25))
    clients = [await Client.named(node, name) for name in ("ann", "ben")]
    closed = asyncio.create_task(close_connections(node))
    for client in clients:
        await client.until(lambda: client.closed)  # noqa: B023
        client.disconnect()
    await asyncio.wait_for(closed, PATIENCE)
    assert chance.bounds == [spread, spread, longest, longest]
    retries = [client.told("closing")[-1]["retry_in"] for client in clients]
    assert sorted(retries) == [longest / 4, longest]


async def test_who_waits_for_the_end_is_served_and_who_comes_is_sent_away(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPREAD_PER_CONNECTION", "MAX_SPREAD"):
        monkeypatch.setattr(drain, name, 1000.0)
    ann, ben, eve = [await Client.named(node, name, "lobby") for name in ("ann", "ben", "eve")]
    shares = {ann.connection: 0.0, ben.connection: 1.0, eve.connection: 1.0}
    monkeypatch.setattr(drain, "random", Chance(*(shares[each] for each in node.connections)))
    closed = asyncio.create_task(close_connections(node))
    await ann.until(lambda: ann.closed)
    dan = Client(node)
    await dan.connect()
    await dan.until(lambda: dan.closed)
    assert dan.closed == 4000
    await ben.say("lobby", "still here")
    await eve.until(eve.messages)
    assert ben.closed is None
    assert eve.closed is None
    closed.cancel()


async def test_a_request_under_way_is_answered_before_its_connection_is_closed(node: Node) -> None:
    ann, ben = await Client.named(node, "ann", "lobby"), await Client.named(node, "ben", "lobby")
    ann.connection.busy = True
    closed = asyncio.create_task(close_connections(node))
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
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "FINISH_SECONDS", 0.0)
    ann = await Client.named(node, "ann")
    ann.connection.busy = True
    closed = asyncio.create_task(close_connections(node))
    await ann.until(lambda: ann.closed)
    ann.disconnect()
    await asyncio.wait_for(closed, PATIENCE)


async def test_one_that_does_not_go_is_not_waited_for_without_end(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FINISH_SECONDS", "RECEIVE_SECONDS"):
        monkeypatch.setattr(drain, name, drain.CHECK_SECONDS)
    ann = await Client.named(node, "ann")
    await asyncio.wait_for(close_connections(node), PATIENCE)
    assert ann.closed == 4000
    assert list(node.connections) == [ann.connection]
