"""The bounded thread pool: what it runs, what it refuses, how it closes."""

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
from rooms.concurrency.thread_pool import ThreadPool, WorkerThread, check_wanted
from rooms.protocol.errors import Unavailable


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opens when the test ends, so that no job waits for ever."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(2, 1, "test", queue_timeout=0)
    yield pool
    pool.close()


async def test_a_job_runs_in_a_thread_and_its_result_is_returned(pool: ThreadPool) -> None:
    def job(number: int) -> tuple[int, int]:
        return number * 2, threading.get_ident()

    result, thread = await pool.run(job, 21)
    assert result == 42
    assert thread != threading.get_ident()


async def test_the_error_of_a_job_is_raised(pool: ThreadPool) -> None:
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


async def test_a_burst_of_jobs_waits_in_the_queue(gate: threading.Event) -> None:
    pool = ThreadPool(2, 1, "test")
    waiting = [asyncio.ensure_future(pool.run(gate.wait)) for _ in range(100)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 100
    pool.close()


async def test_a_full_queue_refuses_jobs_until_it_has_room(pool: ThreadPool, gate: threading.Event) -> None:
    waiting = [asyncio.ensure_future(pool.run(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await pool.run(int)
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert await pool.run(int) == 0


async def test_a_job_holds_its_slot_until_it_ends_though_its_caller_is_gone(gate: threading.Event) -> None:
    pool = ThreadPool(1, 0, queue_timeout=0)
    waiting = asyncio.ensure_future(pool.run(gate.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(Unavailable):
        await pool.run(int)
    gate.set()
    await asyncio.to_thread(pool.close)


async def test_a_job_that_takes_too_long_is_unavailable(gate: threading.Event) -> None:
    pool = ThreadPool(1, 1, queue_timeout=0, timeout=0.05)
    for _ in range(2):
        with pytest.raises(Unavailable) as raised:
            await pool.run(gate.wait)
        assert raised.value.retry
    # Both slots are taken until the jobs end.
    with pytest.raises(Unavailable, match="busy"):
        await pool.run(int)
    gate.set()
    await asyncio.to_thread(pool.close)
    assert await pool.run(int) == 0
    await asyncio.to_thread(pool.close)


async def test_check_wanted_raises_when_the_caller_is_gone(gate: threading.Event) -> None:
    pool = ThreadPool(1, 1, queue_timeout=0)
    done: list[str] = []

    def job(name: str) -> None:
        gate.wait()
        check_wanted()
        done.append(name)

    cancelled, waiting = (asyncio.ensure_future(pool.run(job, name)) for name in ("cancelled", "wanted"))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    gate.set()
    await waiting
    assert done == ["wanted"]
    # Outside a pool it does nothing.
    check_wanted()
    await asyncio.to_thread(pool.close)


async def test_a_timeout_error_of_the_job_itself_is_raised(pool: ThreadPool) -> None:
    def job() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await pool.run(job)


async def test_the_error_of_an_abandoned_job_is_not_reported(gate: threading.Event) -> None:
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


async def test_a_pool_starts_no_more_threads_than_its_maximum(gate: threading.Event) -> None:
    pool = ThreadPool(2, 8)
    running: list[int] = []
    both = threading.Barrier(3)

    def job() -> None:
        running.append(threading.get_ident())
        if len(running) <= 2:
            both.wait(timeout=60)
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


async def test_close_ends_every_thread_and_its_connections() -> None:
    pool = ThreadPool(3, 8)
    barrier = threading.Barrier(3)
    closed: list[int] = []
    threads_used = set(
        await asyncio.gather(
            *(pool.run(lambda: (barrier.wait(timeout=60), threading.get_ident())[1]) for _ in range(3))
        )
    )

    def close() -> None:
        closed.append(threading.get_ident())

    with mock.patch.object(thread_pool.connections, "close_all", close):
        await asyncio.to_thread(pool.close)
    assert set(closed) == threads_used
    assert len(closed) == 3


async def test_close_reaches_a_thread_that_has_just_ended_its_job() -> None:
    """The executor may start another thread while that one does not count as idle."""
    pool = ThreadPool(4, 8)
    used = await pool.run(threading.get_ident)
    assert pool._executor is not None
    # Until it reports back, it does not count as idle.
    assert pool._executor._idle_semaphore.acquire(timeout=60)
    closed: list[int] = []

    def close() -> None:
        closed.append(threading.get_ident())

    with mock.patch.object(thread_pool.connections, "close_all", close):
        await asyncio.to_thread(pool.close)
    assert used in closed


def test_an_unused_pool_has_nothing_to_close() -> None:
    ThreadPool(1, 1).close()


async def test_a_closed_pool_can_be_used_again(pool: ThreadPool) -> None:
    await pool.run(int)
    await asyncio.to_thread(pool.close)
    assert await pool.run(int) == 0


class Cursor:
    """Something that must not be deleted in the event loop."""


async def test_an_error_from_a_thread_keeps_no_frame_alive(pool: ThreadPool) -> None:
    opened: list[weakref.ref[Cursor]] = []

    def inner() -> None:
        cursor = Cursor()
        opened.append(weakref.ref(cursor))
        raise LookupError("inner")

    def job() -> None:
        try:
            inner()
        except LookupError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as raised:
        await pool.run(job)
    assert raised.value.__cause__ is not None
    assert opened[0]() is None


# A worker thread ---------------------------------------------------------------------------------


async def test_a_worker_thread_runs_jobs_in_order_in_one_thread(gate: threading.Event) -> None:
    worker = WorkerThread("test-worker")
    ran: list[int] = []

    def job(number: int) -> int:
        gate.wait()
        ran.append(number)
        return threading.get_ident()

    jobs = [asyncio.ensure_future(worker.run(partial(job, number))) for number in range(5)]
    await asyncio.sleep(0)
    gate.set()
    threads = set(await asyncio.gather(*jobs))
    assert ran == [0, 1, 2, 3, 4]
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    await asyncio.to_thread(worker.close, 10)


async def test_a_worker_thread_raises_what_a_job_raises_and_unavailable_when_the_database_is_down() -> None:
    worker = WorkerThread("test-worker")

    def broken(error: Exception) -> None:
        raise error

    with pytest.raises(LookupError, match="no"):
        await worker.run(partial(broken, LookupError("no")))
    with pytest.raises(Unavailable) as raised:
        await worker.run(partial(broken, OperationalError("connection refused to 10.0.0.1")))
    assert "10.0.0.1" not in raised.value.message
    assert await worker.run(int) == 0
    await asyncio.to_thread(worker.close, 10)


async def test_closing_a_worker_thread_ends_it_with_its_connections_and_it_can_be_used_again(
    gate: threading.Event,
) -> None:
    worker = WorkerThread("test-worker")
    job = asyncio.ensure_future(worker.run(gate.wait))
    await asyncio.sleep(0)
    gate.set()
    closed: list[str] = []

    def close() -> None:
        closed.append(threading.current_thread().name)

    with mock.patch.object(thread_pool.connections, "close_all", close):
        await asyncio.to_thread(worker.close, 10)
    assert await job
    assert closed == ["test-worker"]
    assert await worker.run(int) == 0
    await asyncio.to_thread(worker.close, 10)


async def test_closing_a_worker_thread_does_not_wait_for_a_job_that_hangs(gate: threading.Event) -> None:
    worker = WorkerThread("test-worker")
    job = asyncio.ensure_future(worker.run(gate.wait))
    await asyncio.sleep(0)
    await asyncio.to_thread(worker.close, 0.01)
    assert not job.done()
    gate.set()
    assert await job


def test_an_unused_worker_thread_has_nothing_to_close() -> None:
    WorkerThread("test-worker").close(10)
