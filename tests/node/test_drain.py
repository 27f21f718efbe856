"""The signals of a server that knows nothing of clients reach it only when they have been taken leave of."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from rooms.node import drain
from rooms.node.node import Node
from tests.node.clients import PATIENCE, Client

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server:
    """A server that minds signals; ``asked`` are those that have reached it."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.ends = asyncio.Event()

    def handle(self, number: int, frame: object) -> None:
        self.asked.append(number)
        self.ends.set()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers of the process are its own again afterwards."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def server() -> Server:
    """One whose handlers are installed."""
    server = Server()
    for number in SIGNALS:
        signal.signal(number, server.handle)
    return server


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_server_hears_of_a_signal_when_its_clients_are_gone(
    node: Node, server: Server, number: signal.Signals
) -> None:
    drain.handle_signals(node)
    ann = await Client.named(node, "ann")
    signal.raise_signal(number)
    await ann.until(lambda: ann.closed)
    assert ann.closed == 4000
    # As `closing.py` does it; the engine's own end says nothing of coming back.
    assert "retry_in" in ann.told("closing")[-1]
    assert server.asked == []
    ann.disconnect()
    await asyncio.wait_for(server.ends.wait(), PATIENCE)
    assert server.asked == [number]
    assert Node.current() is None


async def test_a_second_signal_reaches_the_server_at_once(node: Node, server: Server) -> None:
    drain.handle_signals(node)
    ann = await Client.named(node, "ann")
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert server.asked == [signal.SIGINT]
    await ann.until(lambda: ann.closed)
    ann.disconnect()
    server.ends.clear()
    await asyncio.wait_for(server.ends.wait(), PATIENCE)


async def test_the_effect_that_signals_have_by_themselves_stays(node: Node) -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    drain.handle_signals(node)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


async def test_who_minds_no_sigterm_is_no_server(node: Node, server: Server) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    drain.handle_signals(node)
    assert signal.getsignal(signal.SIGINT) == server.handle


async def test_another_thread_than_the_main_one_leaves_signals_alone(node: Node, server: Server) -> None:
    await asyncio.to_thread(drain.handle_signals, node)
    assert [signal.getsignal(number) for number in SIGNALS] == [server.handle] * 2
