"""The bounded pool: what it runs, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from unittest import mock

import pytest
from django.db import InterfaceError, OperationalError

from rooms.concurrency import thread_pool
from rooms.concurrency.thread_pool import ThreadPool, check_wanted
from rooms.protocol.errors import Unavailable


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opens at the latest when the test is over, so that no job waits for ever."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(2, 1, "test", patience=0)
    yield pool
    pool.close()


async def test_a_job_runs_in_a_thread_and_its_result_comes_back(pool: ThreadPool) -> None:
    def job(number: int) -> tuple[int, int]:
        return number * 2, threading.get_ident()

    result, thread = await pool.run(job, 21)
    assert result == 42
    assert thread != threading.get_ident()


async def test_what_a_job_raises_comes_back(pool: ThreadPool) -> None:
    def job() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await pool.run(job)


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
async def test_a_database_that_is_down_is_unavailable(pool: ThreadPool, error: type[Exception]) -> None:
    def job() -> None:
        raise error("connection refused to 10.0.0.1")

    with pytest.raises(Unavailable) as raised:
        await pool.run(job)
    assert raised.value.retry
    assert "10.0.0.1" not in raised.value.message


async def test_a_crowd_waits_for_its_turn(gate: threading.Event) -> None:
    pool = ThreadPool(2, 1, "test")
    waiting = [asyncio.ensure_future(pool.run(gate.wait)) for _ in range(100)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 100
    pool.close()


async def test_a_queue_that_stays_full_refuses_and_takes_jobs_again_when_there_is_room(
    pool: ThreadPool, gate: threading.Event
) -> None:
    waiting = [asyncio.ensure_future(pool.run(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await pool.run(int)
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert await pool.run(int) == 0


async def test_a_job_counts_until_it_ends_even_when_nobody_waits_for_it(gate: threading.Event) -> None:
    pool = ThreadPool(1, 0, patience=0)
    waiting = asyncio.ensure_future(pool.run(gate.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(Unavailable):
        await pool.run(int)
    gate.set()
    await asyncio.to_thread(pool.close)


async def test_an_answer_that_takes_too_long_is_not_waited_for(gate: threading.Event) -> None:
    pool = ThreadPool(1, 1, patience=0, answer_seconds=0.05)
    for _ in range(2):
        with pytest.raises(Unavailable) as raised:
            await pool.run(gate.wait)
        assert raised.value.retry
    # Both places are taken until the jobs end.
    with pytest.raises(Unavailable, match="busy"):
        await pool.run(int)
    gate.set()
    await asyncio.to_thread(pool.close)
    assert await pool.run(int) == 0
    await asyncio.to_thread(pool.close)


async def test_a_job_may_find_out_that_nobody_waits_for_it(gate: threading.Event) -> None:
    pool = ThreadPool(1, 1, patience=0)
    done: list[str] = []

    def job(name: str) -> None:
        gate.wait()
        check_wanted()
        done.append(name)

    given_up, waiting = (asyncio.ensure_future(pool.run(job, name)) for name in ("given up", "wanted"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait({given_up})
    gate.set()
    await waiting
    assert done == ["wanted"]
    # Whoever is in no pool is not asked.
    check_wanted()
    await asyncio.to_thread(pool.close)


async def test_a_job_may_raise_a_timeout_of_its_own(pool: ThreadPool) -> None:
    def job() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await pool.run(job)


async def test_the_error_of_an_abandoned_job_is_seen_by_nobody(gate: threading.Event) -> None:
    pool = ThreadPool(1, 0)

    def job() -> None:
        gate.wait()
        raise LookupError

    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context))
    waiting = asyncio.ensure_future(pool.run(job))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    gate.set()
    await asyncio.to_thread(pool.close)
    await asyncio.sleep(0)
    assert seen == []


async def test_no_more_threads_than_it_may_have(gate: threading.Event) -> None:
    pool = ThreadPool(2, 8)
    running: list[int] = []
    both = threading.Barrier(3)

    def job() -> None:
        running.append(threading.get_ident())
        if len(running) <= 2:
            both.wait(timeout=10)
        gate.wait()

    waiting = [asyncio.ensure_future(pool.run(job)) for _ in range(6)]
    await asyncio.to_thread(both.wait, 10)
    assert len(running) == 2
    gate.set()
    await asyncio.gather(*waiting)
    assert len(set(running)) == 2
    await asyncio.to_thread(pool.close)


async def test_a_job_has_a_usable_connection_and_leaves_no_stale_one(pool: ThreadPool) -> None:
    called: list[str] = []
    with mock.patch.object(thread_pool, "close_old_connections", partial(called.append, "close")):
        await pool.run(called.append, "job")
    assert called == ["close", "job", "close"]


async def test_closing_ends_every_thread_and_its_connections() -> None:
    pool = ThreadPool(3, 8)
    barrier = threading.Barrier(3)
    closed: list[int] = []
    threads_used = set(
        await asyncio.gather(
            *(pool.run(lambda: (barrier.wait(timeout=10), threading.get_ident())[1]) for _ in range(3))
        )
    )

    def close() -> None:
        closed.append(threading.get_ident())

    with mock.patch.object(thread_pool.connections, "close_all", close):
        await asyncio.to_thread(pool.close)
    assert set(closed) == threads_used
    assert len(closed) == 3


async def test_a_thread_that_is_just_done_is_not_forgotten() -> None:
    """The executor may begin another thread for the closing job of one that is not idle yet."""
    pool = ThreadPool(4, 8)
    used = await pool.run(threading.get_ident)
    assert pool._executor is not None
    # As long as it has not reported back, it does not count as idle.
    assert pool._executor._idle_semaphore.acquire(timeout=10)
    closed: list[int] = []

    def close() -> None:
        closed.append(threading.get_ident())

    with mock.patch.object(thread_pool.connections, "close_all", close):
        await asyncio.to_thread(pool.close)
    assert used in closed


def test_a_pool_that_was_never_used_has_nothing_to_close() -> None:
    ThreadPool(1, 1).close()


async def test_a_closed_pool_may_be_used_again(pool: ThreadPool) -> None:
    await pool.run(int)
    await asyncio.to_thread(pool.close)
    assert await pool.run(int) == 0


class Cursor:
    """Something that is better not let go of in the event loop."""


async def test_an_error_brings_nothing_along_that_its_thread_had_open(pool: ThreadPool) -> None:
    opened: list[weakref.ref[Cursor]] = []

    def asked() -> None:
        cursor = Cursor()
        opened.append(weakref.ref(cursor))
        raise LookupError("inner")

    def job() -> None:
        try:
            asked()
        except LookupError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as raised:
        await pool.run(job)
    assert raised.value.__cause__ is not None
    assert opened[0]() is None
