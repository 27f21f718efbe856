"""Handlers of one lane never overlap, other lanes go on, and whatever a handler does stays its own."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from rooms.concurrency.serial_executor import HandlerFailed, SerialExecutor
from rooms.concurrency.thread_pool import ThreadPool
from rooms.protocol.errors import Rejected, Unavailable

PATIENT = 20.0
HASTY = 0.02


@pytest.fixture
async def pool() -> AsyncIterator[ThreadPool]:
    pool = ThreadPool(2, 8, "test")
    yield pool
    await asyncio.to_thread(pool.close)


@pytest.fixture
def lane(pool: ThreadPool) -> SerialExecutor:
    return SerialExecutor(pool, PATIENT)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opens at the latest when the test is over, so that no thread waits for ever."""
    gate = threading.Event()
    yield gate
    gate.set()


async def usable(lane: SerialExecutor) -> bool:
    ran: list[int] = []
    await lane.run(ran.append, 1)
    return ran == [1]


async def test_a_coroutine_runs_in_the_loop_and_a_plain_function_in_a_thread(lane: SerialExecutor) -> None:
    threads: list[int] = []

    async def coroutine(event: str) -> None:
        threads.append(threading.get_ident())

    def plain(event: str) -> None:
        threads.append(threading.get_ident())

    await lane.run(coroutine, "event")
    await lane.run(plain, "event")
    assert threads[0] == threading.get_ident() != threads[1]


# One at a time -----------------------------------------------------------------------------------


class Overlaps:
    """Counts handlers that are inside at the same time."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.order: list[int] = []

    def enter(self, number: int) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.order.append(number)

    async def coroutine(self, number: int) -> None:
        self.enter(number)
        for _ in range(3):
            await asyncio.sleep(0)
        self.inside -= 1

    def plain(self, number: int) -> None:
        self.enter(number)
        self.inside -= 1


class WideLane(SerialExecutor):
    """Broken: lets everybody in at once."""

    async def run(self, handler: Callable[..., Any], *arguments: Any) -> None:
        await self._call(handler, arguments)


async def check_that_nothing_overlaps(lane: SerialExecutor) -> None:
    seen = Overlaps()
    handlers = [seen.plain if number % 3 == 0 else seen.coroutine for number in range(12)]
    await asyncio.gather(*(lane.run(handler, number) for number, handler in enumerate(handlers)))
    assert seen.order == list(range(12))
    assert seen.most == 1


async def test_handlers_of_one_lane_never_overlap_and_keep_their_order(
    lane: SerialExecutor, pool: ThreadPool
) -> None:
    await check_that_nothing_overlaps(lane)
    with pytest.raises(AssertionError):
        await check_that_nothing_overlaps(WideLane(pool, PATIENT))


async def test_different_lanes_run_side_by_side(pool: ThreadPool) -> None:
    together = asyncio.Barrier(3)

    async def handler() -> None:
        await together.wait()

    async with asyncio.timeout(PATIENT):
        await asyncio.gather(*(SerialExecutor(pool, PATIENT).run(handler) for _ in range(3)))


async def test_a_busy_lane_says_so(pool: ThreadPool) -> None:
    lane, release = SerialExecutor(pool, HASTY), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    with pytest.raises(HandlerFailed) as failed:
        await lane.run(stubborn)
    assert isinstance(failed.value.cause, TimeoutError)
    # It ran into its limit, but has not ended: nobody else comes in.
    with pytest.raises(Unavailable):
        await lane.run(int)
    release.set()
    await SerialExecutor.run(patient(lane), int)


def patient(lane: SerialExecutor) -> SerialExecutor:
    lane._seconds = PATIENT
    return lane


# Whatever it does --------------------------------------------------------------------------------

UNLAWFUL: list[type[BaseException]] = [
    *(ValueError, RecursionError, MemoryError, TimeoutError, SystemExit, KeyboardInterrupt, GeneratorExit),
    *(asyncio.CancelledError, CancelledError, StopIteration, StopAsyncIteration),
]


@pytest.mark.parametrize("error", UNLAWFUL)
@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_what_is_not_for_clients_is_an_internal_error(
    lane: SerialExecutor, kind: str, error: type[BaseException]
) -> None:
    async def coroutine() -> None:
        raise error("secret")

    def plain() -> None:
        raise error("secret")

    with pytest.raises(HandlerFailed) as failed:
        await lane.run(coroutine if kind == "coroutine" else plain)
    assert failed.value.code == "internal_error"
    assert "secret" not in failed.value.message
    causes = (failed.value.cause, failed.value.cause.__cause__)
    assert any(isinstance(cause, error | asyncio.CancelledError) for cause in causes)
    assert await usable(lane)


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_an_exit_ends_nothing_but_the_handler(lane: SerialExecutor, kind: str) -> None:
    async def coroutine() -> None:
        sys.exit()

    def plain() -> None:
        sys.exit()

    with pytest.raises(HandlerFailed):
        await lane.run(coroutine if kind == "coroutine" else plain)
    assert await usable(lane)


async def test_recursion_without_end(lane: SerialExecutor) -> None:
    async def coroutine() -> None:
        await coroutine()

    def plain() -> None:
        plain()

    for handler in (coroutine, plain):
        with pytest.raises(HandlerFailed) as failed:
            await lane.run(handler)
        assert isinstance(failed.value.cause, RecursionError)
    assert await usable(lane)


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_a_refusal_passes_as_it_is(lane: SerialExecutor, kind: str) -> None:
    async def coroutine() -> None:
        raise Rejected("Mind your language.")

    def plain() -> None:
        raise Rejected("Mind your language.")

    with pytest.raises(Rejected, match="Mind your language"):
        await lane.run(coroutine if kind == "coroutine" else plain)
    assert await usable(lane)


async def test_a_handler_that_cancels_itself(lane: SerialExecutor) -> None:
    async def handler() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    with pytest.raises(HandlerFailed):
        await lane.run(handler)
    assert await usable(lane)


async def test_a_handler_without_end_is_ended(pool: ThreadPool) -> None:
    ended: list[str] = []
    lane = SerialExecutor(pool, HASTY)

    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    with pytest.raises(HandlerFailed):
        await lane.run(handler)
    assert await usable(patient(lane))
    assert ended == ["cleaned up"]


async def test_a_thread_that_takes_too_long_keeps_its_lane_until_it_ends(
    pool: ThreadPool, gate: threading.Event
) -> None:
    lane = SerialExecutor(pool, HASTY)
    with pytest.raises(HandlerFailed) as failed:
        await lane.run(gate.wait)
    assert isinstance(failed.value.cause, TimeoutError)
    with pytest.raises(Unavailable):
        await lane.run(int)
    gate.set()
    assert await usable(patient(lane))


async def test_one_who_stops_waiting_does_not_open_the_lane(lane: SerialExecutor) -> None:
    started, release, order = asyncio.Event(), asyncio.Event(), list[str]()

    async def first() -> None:
        started.set()
        await release.wait()
        order.append("first")

    async def second() -> None:
        order.append("second")

    waiting = asyncio.ensure_future(lane.run(first))
    await started.wait()
    waiting.cancel()
    await asyncio.wait({waiting})
    following = asyncio.ensure_future(lane.run(second))
    await asyncio.sleep(0)
    release.set()
    await following
    assert order == ["first", "second"]
