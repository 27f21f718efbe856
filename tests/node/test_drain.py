"""Orderly shutdown: clients are closed one after the other, and signals reach the server afterwards."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Iterator

import pytest

from rooms.node import drain
from rooms.node.drain import close_connections
from rooms.node.node import Node
from tests.node.clients import PATIENCE, Client

SIGNALS = (signal.SIGTERM, signal.SIGINT)


# Closes ----------------------------------------------------------------------------------------------


class Chance:
    """Stands for the module ``random``: returns these shares of the upper bound, in turn."""

    def __init__(self, *shares: float) -> None:
        self.bounds: list[float] = []
        self._shares = itertools.chain(shares, itertools.repeat(0.5))

    def uniform(self, low: float, high: float) -> float:
        assert low == 0
        self.bounds.append(high)
        return next(self._shares) * high


@pytest.mark.parametrize(
    ("per_connection", "spread", "longest"), [(0.01, 0.02, 1.0), (1.5, 3.0, 3.0), (9.0, 5.0, 5.0)]
)
async def test_closes_and_retries_are_spread_by_the_number_of_clients(
    node: Node, monkeypatch: pytest.MonkeyPatch, per_connection: float, spread: float, longest: float
) -> None:
    monkeypatch.setattr(drain, "SPREAD_PER_CONNECTION", per_connection)
    monkeypatch.setattr(drain, "random", chance := Chance(0, 0, 1, 0.25))
    clients = [await Client.named(node, name) for name in ("ann", "ben")]
    closing = asyncio.create_task(close_connections(node))
    for client in clients:
        await client.until(lambda: client.closed)  # noqa: B023
        client.disconnect()
    await asyncio.wait_for(closing, PATIENCE)
    assert chance.bounds == [spread, spread, longest, longest]
    retries = [client.received("closing")[-1]["retry_in"] for client in clients]
    assert sorted(retries) == [longest / 4, longest]


async def test_clients_are_served_until_their_close_and_new_clients_are_closed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPREAD_PER_CONNECTION", "MAX_SPREAD"):
        monkeypatch.setattr(drain, name, 1000.0)
    ann, ben, eve = [await Client.named(node, name, "lobby") for name in ("ann", "ben", "eve")]
    shares = {ann.connection: 0.0, ben.connection: 1.0, eve.connection: 1.0}
    monkeypatch.setattr(drain, "random", Chance(*(shares[each] for each in node.connections)))
    closing = asyncio.create_task(close_connections(node))
    await ann.until(lambda: ann.closed)
    dan = Client(node)
    await dan.connect()
    await dan.until(lambda: dan.closed)
    assert dan.closed == 4000
    await ben.send("lobby", "still here")
    await eve.until(eve.messages)
    assert ben.closed is None
    assert eve.closed is None
    closing.cancel()


async def test_a_connection_is_closed_after_the_command_under_way(node: Node) -> None:
    ann, ben = await Client.named(node, "ann", "lobby"), await Client.named(node, "ben", "lobby")
    ann.connection.busy = True
    closing = asyncio.create_task(close_connections(node))
    await ben.until(lambda: ben.closed)
    assert ben.received("closing")[-1]["code"] == 4000
    assert ann.closed is None
    ann.connection.busy = False
    await ann.until(lambda: ann.closed)
    assert ann.closed == 4000
    assert not closing.done()
    ann.disconnect()
    ben.disconnect()
    await asyncio.wait_for(closing, PATIENCE)


async def test_a_command_that_takes_too_long_does_not_prevent_the_close(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "FINISH_SECONDS", 0.0)
    ann = await Client.named(node, "ann")
    ann.connection.busy = True
    closing = asyncio.create_task(close_connections(node))
    await ann.until(lambda: ann.closed)
    ann.disconnect()
    await asyncio.wait_for(closing, PATIENCE)


async def test_the_wait_for_a_client_that_stays_is_bounded(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FINISH_SECONDS", "RECEIVE_SECONDS"):
        monkeypatch.setattr(drain, name, drain.CHECK_SECONDS)
    ann = await Client.named(node, "ann")
    await asyncio.wait_for(close_connections(node), PATIENCE)
    assert ann.closed == 4000
    assert list(node.connections) == [ann.connection]


# Signals ---------------------------------------------------------------------------------------------


class Server:
    """A server with signal handlers; ``received`` are the signals that reached it."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.ends = asyncio.Event()

    def handle(self, number: int, frame: object) -> None:
        self.received.append(number)
        self.ends.set()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restore the signal handlers of the process."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def server() -> Server:
    """A server with installed handlers."""
    server = Server()
    for number in SIGNALS:
        signal.signal(number, server.handle)
    return server


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_reaches_the_server_when_its_clients_are_gone(
    node: Node, server: Server, number: signal.Signals
) -> None:
    drain.handle_signals(node)
    ann = await Client.named(node, "ann")
    signal.raise_signal(number)
    await ann.until(lambda: ann.closed)
    assert ann.closed == 4000
    # Sent by ``close_connections``: the node's own stop sends no retry time.
    assert "retry_in" in ann.received("closing")[-1]
    assert server.received == []
    ann.disconnect()
    await asyncio.wait_for(server.ends.wait(), PATIENCE)
    assert server.received == [number]
    assert Node.current() is None


async def test_a_second_signal_reaches_the_server_at_once(node: Node, server: Server) -> None:
    drain.handle_signals(node)
    ann = await Client.named(node, "ann")
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert server.received == [signal.SIGINT]
    await ann.until(lambda: ann.closed)
    ann.disconnect()
    server.ends.clear()
    await asyncio.wait_for(server.ends.wait(), PATIENCE)


async def test_the_default_handler_of_a_signal_stays(node: Node) -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    drain.handle_signals(node)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


async def test_signals_are_left_alone_without_a_handler_of_sigterm(node: Node, server: Server) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    drain.handle_signals(node)
    assert signal.getsignal(signal.SIGINT) == server.handle


async def test_signals_are_left_alone_outside_the_main_thread(node: Node, server: Server) -> None:
    await asyncio.to_thread(drain.handle_signals, node)
    assert [signal.getsignal(number) for number in SIGNALS] == [server.handle] * 2
