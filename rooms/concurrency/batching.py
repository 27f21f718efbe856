"""Batching: items that queue during a write share the next write.

The histories, presence and look-ups share a commit, a round trip or a query in this way. Every item of a
batch is completed before the first of them is finished: a room gets its messages in a few writes, and the
reply to a sender precedes the sender's own copy. Both happen in one turn of the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from rooms.protocol.errors import Unavailable

logger = logging.getLogger("rooms.concurrency")

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
Query = TypeVar("Query")
Result = TypeVar("Result")

# A look-up reads at most this number of keys at once: a query has bounds.
LOOKUP_MAX_KEYS = 100
# Look-ups gather for this time after each read: one by one, a join burst would take a thread each.
LOOKUP_PAUSE = 0.005

_BUSY = "The server is busy; try again in a moment."


class Completion(ABC):
    """Receives the result of one item. Both methods are called once, in this order."""

    __slots__ = ()

    @abstractmethod
    def complete(self, result: Any) -> None:
        """Take the result: an exception where the item failed."""

    @abstractmethod
    def finish(self) -> None:
        """Called once, after all completions of the same batch are complete."""


class FutureCompletion(Completion):
    """A completion to await: it returns the result, or raises it."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, Any]:
        return self.future.__await__()

    def complete(self, result: Any) -> None:
        if self.future.done():
            # It was cancelled.
            return
        if isinstance(result, BaseException):
            self.future.set_exception(result)
            # The awaiting task may be gone: asyncio is not to report the error as lost.
            self.future.exception()
        else:
            self.future.set_result(result)

    def finish(self) -> None:
        pass


@dataclass(slots=True, eq=False)
class Entry(Generic[Item]):
    """An item of a batcher. ``done``: it is complete, or its caller was cancelled."""

    item: Item
    completion: Completion
    added: float
    alone: bool = False
    done: bool = False


@dataclass(slots=True, eq=False)
class _KeyQueue(Generic[Item]):
    """The items of one key: waiting, being written, or written but not completed."""

    key: Hashable
    waiting: deque[Entry[Item]] = field(default_factory=deque)
    writing: Sequence[Entry[Item]] = ()
    begun: float | None = None
    results: list[tuple[Entry[Item], Any]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None


class Batcher(Generic[Item]):
    """Collects items and writes them in batches, in order. Belongs to one event loop.

    ``write`` gets entries, oldest first, and returns one result or exception for each. An exception that it
    raises is a fault of one entry: each is written again alone, so ``write`` must be all or nothing. Only
    Unavailable, the fault of no entry, completes them all.

    ``max_items`` bounds a batch and ``max_pending`` what is not complete; beyond it, items are Unavailable.
    So is an item that is not complete after ``timeout`` seconds: it is not written later, but a write that
    is under way may still succeed. With ``timeout_per_write`` the time begins anew with every write.

    Items of different ``key`` are written side by side, in at most ``max_writes`` batches at a time.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Entry[Item]]], Awaitable[Sequence[Any]]],
        *,
        max_items: int,
        max_pending: int | None = None,
        timeout: float | None = None,
        timeout_per_write: bool = False,
        unavailable: str = _BUSY,
        key: Callable[[Item], Hashable] | None = None,
        max_writes: int = 1,
        pause: float = 0,
    ) -> None:
        self._write = write
        self._max_items = max_items
        self._max_pending = max_pending
        self._timeout = timeout
        self._timeout_per_write = timeout_per_write
        self._unavailable = unavailable
        self._key = key
        self._slots = asyncio.Semaphore(max_writes)
        self._pause = pause
        self._queues: dict[Hashable, _KeyQueue[Item]] = {}
        self._pending = 0
        # The end of the last write of any key.
        self._written = 0.0

    def __len__(self) -> int:
        """Return the number of items that are not complete."""
        return self._pending

    def add(self, item: Item, completion: Completion, *, alone: bool = False) -> Entry[Item] | None:
        """Queue an item; return None when too many are pending.

        ``alone``: the batch of the item has no other.
        """
        if self._max_pending is not None and self._pending >= self._max_pending:
            complete_alone(completion, Unavailable(_BUSY))
            return None
        loop = asyncio.get_running_loop()
        key = None if self._key is None else self._key(item)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _KeyQueue(key)
        timeout = self._timeout
        entry = Entry(item, completion, 0.0 if timeout is None else loop.time(), alone)
        queue.waiting.append(entry)
        self._pending += 1
        if queue.task is None:
            queue.task = loop.create_task(self._write_all(queue))
        if timeout is not None and queue.timer is None:
            queue.timer = loop.call_at(entry.added + timeout, self._check_timeouts, queue)
        return entry

    def call(self, item: Item, *, alone: bool = False) -> asyncio.Future[Any]:
        """Queue an item and return a future of its result.

        An item whose future is cancelled before the write is not written.
        """
        completion = FutureCompletion()
        entry = self.add(item, completion, alone=alone)
        if entry is not None:
            completion.future.add_done_callback(partial(self._withdraw, entry))
        return completion.future

    async def drain(self) -> None:
        """Wait until everything is written, or no write ends within the timeout."""
        while tasks := {queue.task for queue in self._queues.values() if queue.task is not None}:
            ended, _ = await asyncio.wait(tasks, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
            if not ended:
                return

    # Writing -----------------------------------------------------------------------------------------

    async def _write_all(self, queue: _KeyQueue[Item]) -> None:
        try:
            while queue.waiting:
                if self._key is None:
                    await self._write_batch(queue)
                else:
                    async with self._slots:
                        await self._write_batch(queue)
                if self._pause:
                    await asyncio.sleep(self._pause)
        finally:
            queue.task = None
            if self._key is not None:
                del self._queues[queue.key]
                if queue.timer is not None:
                    queue.timer.cancel()

    async def _write_batch(self, queue: _KeyQueue[Item]) -> None:
        entries = queue.writing = self._take(queue)
        try:
            if entries:
                await self._write_entries(queue, entries)
        finally:
            queue.writing = ()
            if self._timeout_per_write:
                queue.begun, self._written = None, asyncio.get_running_loop().time()

    def _take(self, queue: _KeyQueue[Item]) -> list[Entry[Item]]:
        """Take the next batch."""
        entries: list[Entry[Item]] = []
        waiting = queue.waiting
        while waiting and len(entries) < self._max_items and not (entries and waiting[0].alone):
            entry = waiting.popleft()
            if not entry.done:
                entries.append(entry)
                if entry.alone:
                    break
        return entries

    async def _write_entries(self, queue: _KeyQueue[Item], entries: Sequence[Entry[Item]]) -> None:
        if self._timeout_per_write:
            queue.begun = asyncio.get_running_loop().time()
        results: Sequence[Any]
        try:
            results = await self._write(entries)
        except Exception as error:
            if len(entries) > 1 and not isinstance(error, Unavailable):
                # Nothing was written. Alone, the entry at fault fails alone.
                for entry in entries:
                    if not entry.done:
                        await self._write_entries(queue, [entry])
                return
            results = [error] * len(entries)
        queue.results.extend(zip(entries, results, strict=True))
        if queue.waiting:
            # Delivering takes time: the next write begins first.
            asyncio.get_running_loop().call_soon(self._deliver, queue)
        else:
            self._deliver(queue)

    # Completing --------------------------------------------------------------------------------------

    def _deliver(self, queue: _KeyQueue[Item]) -> None:
        results, queue.results = queue.results, []
        self._complete(results)

    def _complete(self, results: Iterable[tuple[Entry[Item], Any]]) -> None:
        completed = []
        for entry, result in results:
            if not entry.done:
                entry.done = True
                self._pending -= 1
                completed.append(entry.completion)
                _complete(entry.completion, result)
        for completion in completed:
            _finish(completion)

    def _withdraw(self, entry: Entry[Item], future: asyncio.Future[Any]) -> None:
        """Give up an entry whose caller was cancelled."""
        if not entry.done:
            entry.done = True
            self._pending -= 1

    def _check_timeouts(self, queue: _KeyQueue[Item]) -> None:
        """Complete the items that are late; the others of the queue have more time."""
        loop = asyncio.get_running_loop()
        queue.timer, now, late = None, loop.time(), []
        for entry in (*queue.writing, *queue.waiting):
            if entry.done:
                continue
            if (deadline := self._deadline(queue, entry)) > now:
                queue.timer = loop.call_at(deadline, self._check_timeouts, queue)
                break
            late.append((entry, Unavailable(self._unavailable)))
        self._complete(late)

    def _deadline(self, queue: _KeyQueue[Item], entry: Entry[Item]) -> float:
        since = entry.added
        if self._timeout_per_write:
            # A queue that waits for a slot waits for the writes of other keys.
            since = max(since, self._written if queue.begun is None else queue.begun)
        return since + (self._timeout or 0)


def complete_alone(completion: Completion, result: Any) -> None:
    """Complete and finish what is in no batch."""
    _complete(completion, result)
    _finish(completion)


def _complete(completion: Completion, result: Any) -> None:
    # One completion that fails must not affect the others.
    try:
        completion.complete(result)
    except Exception:
        logger.exception("A result could not be delivered.")


def _finish(completion: Completion) -> None:
    try:
        completion.finish()
    except Exception:
        logger.exception("A completed item could not be finished.")


class _SharedCompletion(Completion):
    """Passes one result on to several callers."""

    __slots__ = ("completions",)

    def __init__(self) -> None:
        self.completions: list[FutureCompletion] = []

    def complete(self, result: Any) -> None:
        for completion in self.completions:
            completion.complete(result)

    def finish(self) -> None:
        pass


class Lookups(Generic[Key, Query, Result]):
    """Coalesces look-ups: those that come while one is under way share the next.

    ``read`` gets queries by key and returns results by key; what it raises, all its callers get. No caller
    gets a result of a read that began before its call.
    """

    def __init__(self, read: Callable[[dict[Key, Query]], Awaitable[Mapping[Key, Result]]]) -> None:
        self._read = read
        # Keys that wait for the next read.
        self._waiting: dict[Key, _SharedCompletion] = {}
        self._batcher: Batcher[tuple[Key, Query]] = Batcher(
            self._read_batch, max_items=LOOKUP_MAX_KEYS, pause=LOOKUP_PAUSE
        )

    async def get(self, key: Key, query: Query) -> Result:
        """Look up a key.

        ``query`` is what ``read`` needs for the key, equal for all its callers.
        """
        shared = self._waiting.get(key)
        if shared is None:
            shared = self._waiting[key] = _SharedCompletion()
            self._batcher.add((key, query), shared)
        # Each caller has its own: one that is cancelled cancels no other.
        completion = FutureCompletion()
        shared.completions.append(completion)
        result: Result = await completion
        return result

    async def _read_batch(self, entries: Sequence[Entry[tuple[Key, Query]]]) -> Sequence[Any]:
        queries = dict(entry.item for entry in entries)
        for key in queries:
            del self._waiting[key]
        try:
            results = await self._read(queries)
            return [results[key] for key in queries]
        except Exception as error:
            return [error] * len(queries)
