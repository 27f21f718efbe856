"""Threads for the ORM and synchronous handlers, off the event loop.

Channels gives all database work one thread per process, so one slow query stalls every socket. A
``ThreadPool`` has several threads and a bounded queue: when the queue stays full, the caller gets
Unavailable. A ``WorkerThread`` runs jobs in order.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from threading import Barrier, Thread, local
from typing import Any, TypeVar

from django.db import (
    InterfaceError,
    InternalError,
    OperationalError,
    close_old_connections,
    connections,
    reset_queries,
)

from rooms.protocol.errors import Unavailable

logger = logging.getLogger("rooms")
T = TypeVar("T")


# After these errors the outcome of a transaction is unknown: PostgreSQL raises InternalError for one that
# was idle for too long.
OUTAGES = (OperationalError, InterfaceError, InternalError)
# A burst of jobs is served one after the other within this time.
QUEUE_TIMEOUT = 5.0
# For queries of the site's own tables; ``concurrency/timeouts.py`` bounds the queries of Rooms more closely.
QUERY_TIMEOUT = 10.0
DATABASE_UNAVAILABLE = "The database does not answer; try again in a moment."


class Cancelled(Exception):
    """The caller of a job stopped waiting, so the job must not take effect."""


class _Call:
    """A job's call: whether its caller stopped waiting."""

    cancelled = False


_thread = local()


def check_wanted() -> None:
    """Raise Cancelled when the caller of this thread's job stopped waiting.

    Called last in a transaction that must not take effect late: a later call may ask for the opposite.
    """
    call: _Call | None = getattr(_thread, "call", None)
    if call is not None and call.cancelled:
        raise Cancelled


class ThreadPool:
    """Runs at most ``threads`` jobs at a time, and queues ``queue`` more.

    Belongs to one event loop. A job waits at most ``queue_timeout`` seconds for a slot in the queue, and
    its caller at most ``timeout`` seconds for the result.
    """

    def __init__(
        self,
        threads: int,
        queue: int,
        name: str = "rooms",
        *,
        queue_timeout: float = QUEUE_TIMEOUT,
        timeout: float | None = None,
    ) -> None:
        self._threads = threads
        self._slots = asyncio.Semaphore(threads + queue)
        self._queue_timeout = queue_timeout
        self._timeout = timeout
        self._name = name
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, job: Callable[..., T], *arguments: Any) -> T:
        """Run a job in a thread with a usable database connection, and return its result.

        Raises Unavailable when the queue stays full, the database is down or the job takes too long, else
        what the job raises.
        """
        try:
            timeout = self._queue_timeout if self._slots.locked() else None
            await asyncio.wait_for(self._slots.acquire(), timeout)
        except TimeoutError:
            raise Unavailable("The server is busy; try again in a moment.") from None
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, self._name)
        # The job holds its slot until it ends, even when its caller stops waiting.
        call = _Call()
        future = asyncio.get_running_loop().run_in_executor(
            self._executor, _with_database, call, job, arguments
        )
        future.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._timeout) as waiting:
                return await asyncio.shield(future)
        except (*OUTAGES, TimeoutError) as error:
            if isinstance(error, TimeoutError) and not waiting.expired():
                raise
            raise _unavailable(error) from error
        finally:
            call.cancelled = True

    def close(self) -> None:
        """End the threads and their database connections."""
        if self._executor is None:
            return
        executor, self._executor = self._executor, None
        # Every thread has its own connection: the barrier holds each thread at one closing job. There is a
        # job for the maximum number of threads, because the executor may start another one for them.
        barrier = Barrier(self._threads)
        for _ in range(self._threads):
            executor.submit(_close_connections, barrier)
        executor.shutdown(wait=True)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._slots.release()
        if not future.cancelled():
            # The caller may be gone: asyncio is not to report the error as lost.
            future.exception()


class WorkerThread:
    """One thread that runs jobs in order, with a database connection of its own.

    It is a daemon: a process that ends does not wait for a database that does not answer.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread: Thread | None = None

    async def run(self, job: Callable[[], T]) -> T:
        """Run a job and return its result.

        Raises Unavailable when the database does not answer, else what the job raises.
        """
        if self._thread is None:
            self._thread = Thread(target=self._run_all, name=self._name, daemon=True)
            self._thread.start()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((job, future))
        return await future

    def close(self, timeout: float) -> None:
        """Finish the queued jobs, then end the thread and its connection."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout)
            self._thread = None

    def _run_all(self) -> None:
        try:
            while (queued := self._jobs.get()) is not None:
                job, future = queued
                outcome = _outcome_of(job)
                # A loop that is closed waits for nothing.
                with suppress(RuntimeError):
                    future.get_loop().call_soon_threadsafe(_resolve, future, *outcome)
                del queued, job, future, outcome
                # With DEBUG on Django records every query.
                reset_queries()
        finally:
            connections.close_all()


def _outcome_of(job: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """Run a job; return its result, or None and its error for other threads."""
    try:
        return job(), None
    except Exception as error:
        _clear_frames(error)
        if not isinstance(error, OUTAGES):
            return None, error
        for connection in connections.all(initialized_only=True):
            connection.close_if_unusable_or_obsolete()
        return None, _unavailable(error)


def _resolve(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _unavailable(error: Exception) -> Unavailable:
    logger.warning("The database did not answer: %s", error or "timeout")
    unavailable = Unavailable(DATABASE_UNAVAILABLE)
    unavailable.__cause__ = error
    return unavailable


def _with_database(call: _Call, job: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    close_old_connections()
    _thread.call = call
    try:
        return job(*arguments)
    except BaseException as error:
        _clear_frames(error)
        raise
    finally:
        _thread.call = None
        close_old_connections()
        # With DEBUG on Django records every query until an HTTP request ends.
        reset_queries()


def _clear_frames(error: BaseException) -> None:
    """Release what the frames of an error hold, cursors above all.

    Called before another thread gets the error. A SQLite cursor that is deleted in the event loop, while
    its connection waits for a lock in its own thread, waits for that connection with the GIL held: the
    process would stop.
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        for frame, _ in traceback.walk_tb(each.__traceback__):
            # The frame of a coroutine belongs to the event loop and may be running.
            if not frame.f_code.co_flags & inspect.CO_COROUTINE:
                with suppress(RuntimeError):
                    frame.clear()
        each = each.__cause__ or each.__context__


def _close_connections(barrier: Barrier) -> None:
    barrier.wait(timeout=5)
    connections.close_all()
