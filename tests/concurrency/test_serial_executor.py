"""Handlers of one executor never overlap, other executors run beside it, and errors stay in a handler."""

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
def executor(pool: ThreadPool) -> SerialExecutor:
    return SerialExecutor(pool, PATIENT)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opens when the test ends, so that no thread waits for ever."""
    gate = threading.Event()
    yield gate
    gate.set()


async def usable(executor: SerialExecutor) -> bool:
    ran: list[int] = []
    await executor.run(ran.append, 1)
    return ran == [1]


async def test_a_coroutine_runs_in_the_loop_and_a_plain_function_in_a_thread(
    executor: SerialExecutor,
) -> None:
    threads: list[int] = []

    async def coroutine(event: str) -> None:
        threads.append(threading.get_ident())

    def plain(event: str) -> None:
        threads.append(threading.get_ident())

    await executor.run(coroutine, "event")
    await executor.run(plain, "event")
    assert threads[0] == threading.get_ident() != threads[1]


# One at a time -----------------------------------------------------------------------------------


class Overlaps:
    """Counts handlers that run at the same time."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.order: list[int] = []

    def enter(self, number: int) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.order.append(number)

    async def coroutine(self, number: int) -> None:
        self.enter(number)
        for _ in range(3):
            await asyncio.sleep(0)
        self.running -= 1

    def plain(self, number: int) -> None:
        self.enter(number)
        self.running -= 1


class ConcurrentExecutor(SerialExecutor):
    """Broken: runs all handlers at once."""

    async def run(self, handler: Callable[..., Any], *arguments: Any) -> None:
        await self._call(handler, arguments)


async def check_that_nothing_overlaps(executor: SerialExecutor) -> None:
    seen = Overlaps()
    handlers = [seen.plain if number % 3 == 0 else seen.coroutine for number in range(12)]
    await asyncio.gather(*(executor.run(handler, number) for number, handler in enumerate(handlers)))
    assert seen.order == list(range(12))
    assert seen.most == 1


async def test_handlers_of_one_executor_never_overlap_and_keep_their_order(
    executor: SerialExecutor, pool: ThreadPool
) -> None:
    await check_that_nothing_overlaps(executor)
    with pytest.raises(AssertionError):
        await check_that_nothing_overlaps(ConcurrentExecutor(pool, PATIENT))


async def test_different_executors_run_side_by_side(pool: ThreadPool) -> None:
    together = asyncio.Barrier(3)

    async def handler() -> None:
        await together.wait()

    async with asyncio.timeout(PATIENT):
        await asyncio.gather(*(SerialExecutor(pool, PATIENT).run(handler) for _ in range(3)))


async def test_a_busy_executor_is_unavailable(pool: ThreadPool) -> None:
    executor, release = SerialExecutor(pool, HASTY), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    with pytest.raises(HandlerFailed) as failed:
        await executor.run(stubborn)
    assert isinstance(failed.value.cause, TimeoutError)
    # It timed out, but has not ended: no other handler starts.
    with pytest.raises(Unavailable):
        await executor.run(int)
    release.set()
    await SerialExecutor.run(patient(executor), int)


def patient(executor: SerialExecutor) -> SerialExecutor:
    executor.seconds = PATIENT
    return executor


# Errors ------------------------------------------------------------------------------------------

UNEXPECTED: list[type[BaseException]] = [
    *(ValueError, RecursionError, MemoryError, TimeoutError, SystemExit, KeyboardInterrupt, GeneratorExit),
    *(asyncio.CancelledError, CancelledError, StopIteration, StopAsyncIteration),
]


@pytest.mark.parametrize("error", UNEXPECTED)
@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_an_unexpected_error_is_an_internal_error(
    executor: SerialExecutor, kind: str, error: type[BaseException]
) -> None:
    async def coroutine() -> None:
        raise error("secret")

    def plain() -> None:
        raise error("secret")

    with pytest.raises(HandlerFailed) as failed:
        await executor.run(coroutine if kind == "coroutine" else plain)
    assert failed.value.code == "internal_error"
    assert "secret" not in failed.value.message
    causes = (failed.value.cause, failed.value.cause.__cause__)
    assert any(isinstance(cause, error | asyncio.CancelledError) for cause in causes)
    assert await usable(executor)


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_an_exit_ends_only_the_handler(executor: SerialExecutor, kind: str) -> None:
    async def coroutine() -> None:
        sys.exit()

    def plain() -> None:
        sys.exit()

    with pytest.raises(HandlerFailed):
        await executor.run(coroutine if kind == "coroutine" else plain)
    assert await usable(executor)


async def test_endless_recursion_fails_only_the_handler(executor: SerialExecutor) -> None:
    async def coroutine() -> None:
        await coroutine()

    def plain() -> None:
        plain()

    for handler in (coroutine, plain):
        with pytest.raises(HandlerFailed) as failed:
            await executor.run(handler)
        assert isinstance(failed.value.cause, RecursionError)
    assert await usable(executor)


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_a_rooms_error_is_raised_unchanged(executor: SerialExecutor, kind: str) -> None:
    async def coroutine() -> None:
        raise Rejected("Mind your language.")

    def plain() -> None:
        raise Rejected("Mind your language.")

    with pytest.raises(Rejected, match="Mind your language"):
        await executor.run(coroutine if kind == "coroutine" else plain)
    assert await usable(executor)


async def test_a_handler_that_cancels_itself_fails(executor: SerialExecutor) -> None:
    async def handler() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    with pytest.raises(HandlerFailed):
        await executor.run(handler)
    assert await usable(executor)


async def test_a_handler_that_times_out_is_cancelled(pool: ThreadPool) -> None:
    ended: list[str] = []
    executor = SerialExecutor(pool, HASTY)

    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    with pytest.raises(HandlerFailed):
        await executor.run(handler)
    assert await usable(patient(executor))
    assert ended == ["cleaned up"]


async def test_a_thread_that_times_out_holds_the_executor_until_it_ends(
    pool: ThreadPool, gate: threading.Event
) -> None:
    executor = SerialExecutor(pool, HASTY)
    with pytest.raises(HandlerFailed) as failed:
        await executor.run(gate.wait)
    assert isinstance(failed.value.cause, TimeoutError)
    with pytest.raises(Unavailable):
        await executor.run(int)
    gate.set()
    assert await usable(patient(executor))


async def test_a_cancelled_caller_does_not_release_the_executor(executor: SerialExecutor) -> None:
    started, release, order = asyncio.Event(), asyncio.Event(), list[str]()

    async def first() -> None:
        started.set()
        await release.wait()
        order.append("first")

    async def second() -> None:
        order.append("second")

    waiting = asyncio.ensure_future(executor.run(first))
    await started.wait()
    waiting.cancel()
    await asyncio.wait({waiting})
    following = asyncio.ensure_future(executor.run(second))
    await asyncio.sleep(0)
    release.set()
    await following
    assert order == ["first", "second"]
