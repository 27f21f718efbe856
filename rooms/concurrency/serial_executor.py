"""Who may run when: the handlers of one room one after another, different rooms side by side.

A handler gets a time limit. Whatever it does, it ends up in its own task: an exception, an exit, a
cancellation or a sleep without end is the handler's own affair and an ``internal_error`` for the
one who caused it.
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

# Handlers that ran into their time limit but have not ended yet are kept from the garbage collector.
_running: set[asyncio.Task[Any]] = set()


class SerialExecutor:
    """One handler at a time, in the order of the calls."""

    def __init__(self, pool: ThreadPool, seconds: float) -> None:
        self._lock = asyncio.Lock()
        self.pool = pool
        self.seconds = seconds

    async def run(self, handler: Callable[..., Any], *arguments: Any, wait: float | None = None) -> None:
        """Run a handler, a coroutine function in the loop, a plain one in a thread. It may ``wait`` for its
        turn so many seconds, by default as long as it may take itself.

        Raises what it raises if that is a RoomsError, Unavailable when it could not begin in time,
        HandlerFailed for everything else.
        """
        try:
            await asyncio.wait_for(self._lock.acquire(), self.seconds if wait is None else wait)
        except TimeoutError:
            raise Unavailable("This room is busy; try again in a moment.") from None
        task = asyncio.create_task(_outcome(self._call(handler, arguments)))
        _running.add(task)
        # The lane opens when the handler has really ended, which may be after its time limit.
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
            # A thread cannot be stopped: the lane waits for it, so that handlers never overlap.
            await asyncio.wait({thread})
            raise

    def _ended(self, task: asyncio.Task[Any]) -> None:
        _running.discard(task)
        self._lock.release()


class AdmissionQueue:
    """Before a lane: a crowd goes through it one by one, so that whoever else needs the lane has their turn
    in between. At most ``most`` wait, each as long as for the lane."""

    def __init__(self, lane: SerialExecutor, most: int) -> None:
        self._lock = asyncio.Lock()
        self._seconds = lane.seconds
        self._most = most
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises Unavailable where too many wait, or it took too long."""
        if self._waiting >= self._most:
            raise Unavailable("Too many want to come in at once; try again in a moment.")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._lock.acquire()
        except TimeoutError:
            raise Unavailable("Many want to come in; try again in a moment.") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._lock.release()


class HandlerFailed(InternalError):
    """A handler raised something that is not for clients; ``cause`` is for the log and ``on_error``."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__("Something went wrong on the server.")
        self.cause = cause


def _contained(handler: Callable[..., Any], *arguments: Any) -> None:
    """Run a plain handler in a thread."""
    try:
        handler(*arguments)
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            raise
        # No future can carry the one to the event loop, and the others would end the loop itself.
        raise RuntimeError(f"the handler raised {error!r}") from error


async def _outcome(work: Any) -> BaseException | None:
    """What the work raised, if anything: not even an exit gets out of the task."""
    try:
        await work
    except BaseException as error:
        return error
    return None
