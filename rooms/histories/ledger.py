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
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from django.db import InterfaceError, OperationalError, connections, reset_queries

Item = TypeVar("Item")

# A transaction holds at most so many items, so that nobody waits long for its end.
MOST_ITEMS = 512


@dataclass(frozen=True, slots=True)
class _Entry(Generic[Item]):
    """Something to write, or (``read``) something to call, and who waits for it."""

    item: Item | None
    read: Callable[[], Any] | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class Ledger(Generic[Item]):
    """``write`` gets a batch of items, in a thread, and returns one result or exception for each."""

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
            self._thread.join(timeout=30)
            self._thread = None

    def _submit(self, item: Item | None, read: Callable[[], Any] | None) -> asyncio.Future[Any]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rooms-ledger", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.put(_Entry(item, read, loop, future))
        return future

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
            if len(entries) > 1 and not isinstance(error, OperationalError | InterfaceError):
                # One of them is at fault: alone it harms nobody else.
                for entry in entries:
                    self._write_together([entry])
                return
            results = [error] * len(entries)
        _answer(list(zip(entries, results, strict=True)))


def _drop_broken_connections(error: Exception) -> None:
    if isinstance(error, OperationalError | InterfaceError):
        for connection in connections.all(initialized_only=True):
            connection.close_if_unusable_or_obsolete()


def _answer(pairs: list[tuple[_Entry[Any], Any]]) -> None:
    """Wake those who wait: one call into each event loop, in order."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = defaultdict(list)
    for entry, result in pairs:
        by_loop[entry.loop].append((entry.future, result))
    for loop, answers in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in answers:
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
