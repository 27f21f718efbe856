"""The one thread of a process that writes messages, many to a transaction.

Everybody who appends waits for a commit; those who come while one is under way share the next
(group commit). The thread answers in the order of the numbers it gives, so a room's messages go on
their way in that order, and a read that must not overtake an append waits its turn in the same queue.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from django.db import InterfaceError, InternalError, OperationalError, connections, reset_queries

from rooms.bounds import ANSWER_SECONDS
from rooms.errors import Unavailable

Item = TypeVar("Item")

# A transaction holds at most so many items, so that nobody waits long for its end.
MOST_ITEMS = 512
# More would wait longer than anybody has patience for.
MOST_WAITING = 4096
# A server that ends does not wait longer for a database that does not answer.
CLOSE_SECONDS = 10
# After these nobody knows what has become of a transaction: PostgreSQL says InternalError of one that was
# idle for too long.
OUTAGES = (OperationalError, InterfaceError, InternalError)


@dataclass(slots=True)
class _Entry(Generic[Item]):
    """Something to write, or (``read``) something to call, and who waits for it."""

    item: Item | None
    read: Callable[[], Any] | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    # Whoever waited has been told that it was not done, as far as we know.
    given_up: bool = False


class Ledger(Generic[Item]):
    """``write`` gets a batch of items, in a thread, and returns one result or exception for each. When it
    raises, none of them may have been written, unless it raises one of OUTAGES.

    Raises Unavailable when too many wait, or the answer takes too long: then it may still be written.
    """

    def __init__(self, write: Callable[[Sequence[Item]], list[Any]]) -> None:
        self._write = write
        self._queue: SimpleQueue[_Entry[Item] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def append(self, item: Item) -> Any:
        """What ``write`` returned for this item, after the transaction was committed."""
        return await self._submit(item, None)

    async def read(self, job: Callable[[], Any]) -> Any:
        """The job's result, after everything appended before it and before everything after."""
        return await self._submit(None, job)

    def close(self) -> None:
        """Finish what is queued, then end the thread and its database connection."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=CLOSE_SECONDS)
            self._thread = None

    async def _submit(self, item: Item | None, read: Callable[[], Any] | None) -> Any:
        if self._queue.qsize() >= MOST_WAITING:
            raise Unavailable("The server is busy; try again in a moment.")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rooms-ledger", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        entry = _Entry(item, read, loop, loop.create_future())
        self._queue.put(entry)
        try:
            # No task of its own: those who wait go on in the order in which they are answered.
            async with asyncio.timeout(ANSWER_SECONDS) as waiting:
                return await entry.future
        except TimeoutError:
            if not waiting.expired():
                raise
            entry.given_up = True
            raise Unavailable("The database does not answer; try again in a moment.") from None

    def _run(self) -> None:
        try:
            while (entry := self._queue.get()) is not None:
                batch = [entry]
                ends = False
                while len(batch) < MOST_ITEMS:
                    try:
                        another = self._queue.get_nowait()
                    except Empty:
                        break
                    if another is None:
                        ends = True
                        break
                    batch.append(another)
                self._carry_out(batch)
                # With DEBUG on Django notes every query.
                reset_queries()
                if ends:
                    return
        finally:
            connections.close_all()

    def _carry_out(self, batch: list[_Entry[Item]]) -> None:
        """Neighbouring items are written together; a read stands by itself."""
        items: list[_Entry[Item]] = []
        for entry in batch:
            if entry.given_up:
                continue
            if entry.read is None:
                items.append(entry)
                continue
            self._write_together(items)
            items = []
            try:
                result = entry.read()
            except Exception as error:
                result = error
                _drop_broken_connections(error)
            _answer([(entry, result)])
        self._write_together(items)

    def _write_together(self, entries: list[_Entry[Item]]) -> None:
        if not entries:
            return
        try:
            results = self._write([entry.item for entry in entries])  # type: ignore[misc]
        except Exception as error:
            _drop_broken_connections(error)
            if len(entries) > 1 and not isinstance(error, OUTAGES):
                # One of them is at fault and all was rolled back: alone it harms nobody else.
                for entry in entries:
                    self._write_together([entry])
                return
            results = [error] * len(entries)
        _answer(list(zip(entries, results, strict=True)))


def _drop_broken_connections(error: Exception) -> None:
    if isinstance(error, OUTAGES):
        for connection in connections.all(initialized_only=True):
            connection.close_if_unusable_or_obsolete()


def _answer(pairs: list[tuple[_Entry[Any], Any]]) -> None:
    """Wake those who wait: one call into each event loop, in order."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = defaultdict(list)
    for entry, result in pairs:
        by_loop[entry.loop].append((entry.future, result))
    for loop, answers in by_loop.items():
        # Whose loop is closed does not wait any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in answers:
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
