"""Serial execution of handlers: one at a time in a room, rooms side by side.

A handler has a timeout and a task of its own: an exception, an exit, a cancellation or an endless sleep
affects that handler only, and is an ``internal_error`` for the client whose request it handles.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from rooms.concurrency.thread_pool import ThreadPool
from rooms.protocol.errors import InternalError, RoomsError, Unavailable

logger = logging.getLogger("rooms.extensions")

# Handlers that timed out but have not ended: a reference keeps them from the garbage collector.
_running: set[asyncio.Task[Any]] = set()


class SerialExecutor:
    """Runs one handler at a time, in the order of the calls."""

    def __init__(self, pool: ThreadPool, seconds: float) -> None:
        self._lock = asyncio.Lock()
        self.pool = pool
        self.seconds = seconds

    async def run(self, handler: Callable[..., Any], *arguments: Any, wait: float | None = None) -> None:
        """Run a handler: a coroutine function in the loop, a plain function in a thread.

        It waits at most ``wait`` seconds for those before it, by default its own timeout. Raises Unavailable
        when it cannot start in time, a RoomsError that the handler raises, HandlerFailed for other errors.
        """
        try:
            await asyncio.wait_for(self._lock.acquire(), self.seconds if wait is None else wait)
        except TimeoutError:
            raise Unavailable("This room is busy; try again in a moment.") from None
        task = asyncio.create_task(_outcome(self._call(handler, arguments)))
        _running.add(task)
        # The lock is released when the handler has ended, which may be after its timeout.
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=self.seconds)
        if not done:
            task.cancel()
            raise HandlerFailed(TimeoutError(f"the handler took more than {self.seconds} s"))
        error = task.result()
        if isinstance(error, RoomsError):
            raise error
        if error is not None:
            raise HandlerFailed(error)

    async def _call(self, handler: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if inspect.iscoroutinefunction(handler):
            await handler(*arguments)
            return
        thread = asyncio.ensure_future(self.pool.run(_contained, handler, *arguments))
        try:
            await asyncio.shield(thread)
        except asyncio.CancelledError:
            # A thread cannot be stopped: the executor waits for it, so that handlers never overlap.
            await asyncio.wait({thread})
            raise

    def _ended(self, task: asyncio.Task[Any]) -> None:
        _running.discard(task)
        self._lock.release()


class AdmissionQueue:
    """Admits requests to an executor one by one.

    Requests of other kinds run in between, also during a burst. At most ``max_waiting`` wait, each as long
    as for the executor itself.
    """

    def __init__(self, executor: SerialExecutor, max_waiting: int) -> None:
        self._lock = asyncio.Lock()
        self._seconds = executor.seconds
        self._max_waiting = max_waiting
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for admission. Raises Unavailable if too many wait, or for too long."""
        if self._waiting >= self._max_waiting:
            raise Unavailable("Too many requests are waiting; try again in a moment.")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._lock.acquire()
        except TimeoutError:
            raise Unavailable("Many requests are waiting; try again in a moment.") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._lock.release()


class HandlerFailed(InternalError):
    """A handler raised an error that is not for clients.

    ``cause`` is for the log and ``on_error``.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__("Something went wrong on the server.")
        self.cause = cause


def _contained(handler: Callable[..., Any], *arguments: Any) -> None:
    """Run a plain handler in a thread. Raises only what a future can hold."""
    try:
        handler(*arguments)
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            raise
        # A future cannot hold StopIteration, and an exit would end the event loop.
        raise RuntimeError(f"the handler raised {error!r}") from error


async def _outcome(work: Any) -> BaseException | None:
    """Return the exception of the work, if any: even an exit stays in the task."""
    try:
        await work
    except BaseException as error:
        return error
    return None
