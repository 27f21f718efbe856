"""Threads for what must not run in the event loop: the ORM and synchronous handlers.

Channels gives all its database work one thread per process, so that one slow query stalls every
socket. This pool has several and a bounded queue: when that stays full, the caller is told to come
back rather than kept waiting.
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


# After these nobody knows what has become of a transaction: PostgreSQL says InternalError of one that was
# idle for too long.
OUTAGES = (OperationalError, InterfaceError, InternalError)
# A crowd that comes at once is served one after the other; only what takes longer is too much.
PATIENCE_SECONDS = 5.0
# A question to the site's tables is not waited for longer; ``concurrency/timeouts.py`` bounds our own ones more closely.
QUERY_TIMEOUT = 10.0
DATABASE_UNAVAILABLE = "The database does not answer; try again in a moment."


class Cancelled(Exception):
    """Nobody waits for the job any more, so it is not done."""


class _Asked:
    """A job, for as long as somebody waits for it."""

    given_up = False


_thread = local()


def check_wanted() -> None:
    """Called last in a transaction whose job must not be done late, when the contrary may have been asked
    for since. Raises Cancelled when nobody waits for this thread's job any more."""
    asked: _Asked | None = getattr(_thread, "asked", None)
    if asked is not None and asked.given_up:
        raise Cancelled


class ThreadPool:
    """At most ``threads`` jobs at a time and ``queue`` more at hand. Belongs to one event loop; there, for a
    place among them, others wait at most ``patience`` seconds, and for an answer ``answer_seconds``."""

    def __init__(
        self,
        threads: int,
        queue: int,
        name: str = "rooms",
        *,
        patience: float = PATIENCE_SECONDS,
        answer_seconds: float | None = None,
    ) -> None:
        self._threads = threads
        self._places = asyncio.Semaphore(threads + queue)
        self._patience = patience
        self._answer_seconds = answer_seconds
        self._name = name
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, job: Callable[..., T], *arguments: Any) -> T:
        """The job's result, computed in a thread with a usable database connection.

        Raises Unavailable when the queue stays full, the database is down or the answer takes too long, else
        what the job raises.
        """
        try:
            await asyncio.wait_for(self._places.acquire(), self._patience if self._places.locked() else None)
        except TimeoutError:
            raise Unavailable("The server is busy; try again in a moment.") from None
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, self._name)
        # Its place is taken until the job ends, even when the caller stops waiting for it.
        asked = _Asked()
        future = asyncio.get_running_loop().run_in_executor(
            self._executor, _with_database, asked, job, arguments
        )
        future.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._answer_seconds) as waiting:
                return await asyncio.shield(future)
        except (*OUTAGES, TimeoutError) as error:
            if isinstance(error, TimeoutError) and not waiting.expired():
                raise
            raise _unavailable(error) from error
        finally:
            asked.given_up = True

    def close(self) -> None:
        """End the threads and their database connections."""
        if self._executor is None:
            return
        executor, self._executor = self._executor, None
        # Every thread has a connection of its own: the barrier keeps each for one closing job. There is
        # one for every thread there may be, since the executor may begin another when it is given them.
        barrier = Barrier(self._threads)
        for _ in range(self._threads):
            executor.submit(_close_connections, barrier)
        executor.shutdown(wait=True)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._places.release()
        if not future.cancelled():
            # Somebody may have stopped waiting; the error is then seen by nobody else.
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
        """Finish the jobs that are queued, then end the thread and its database connection."""
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
    """Run a job; return its result, or None and its error as other threads may have it."""
    try:
        return job(), None
    except Exception as error:
        let_go(error)
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


def _with_database(asked: _Asked, job: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    close_old_connections()
    _thread.asked = asked
    try:
        return job(*arguments)
    except BaseException as error:
        let_go(error)
        raise
    finally:
        _thread.asked = None
        close_old_connections()
        # With DEBUG on Django notes every query, and only the end of an HTTP request lets go of them.
        reset_queries()


def let_go(error: BaseException) -> None:
    """Take from an error that goes to another thread what its frames hold, cursors above all.

    A cursor of SQLite that ends in the event loop, while its connection waits for a lock in its own thread,
    waits for that connection and lets nobody else run: the whole process would stand still.
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        for frame, _ in traceback.walk_tb(each.__traceback__):
            # A coroutine's frame is of the event loop, and it may go on.
            if not frame.f_code.co_flags & inspect.CO_COROUTINE:
                with suppress(RuntimeError):
                    frame.clear()
        each = each.__cause__ or each.__context__


def _close_connections(barrier: Barrier) -> None:
    barrier.wait(timeout=5)
    connections.close_all()
