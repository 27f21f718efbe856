"""What several ask of one group at once is done in one transaction: they share its lock and its commit.

While a group's changes are under way, those that come wait, and then go together (group commit). So the
changes that a process makes to a group take effect in the order in which they were asked for, also those
for which nobody waits any more. What is written is in ``changes.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rooms.concurrency.thread_pool import OUTAGES
from rooms.concurrency.timeouts import STATEMENT_TIMEOUT
from rooms.protocol.errors import Unavailable

Change = TypeVar("Change")

# So many share a transaction: nobody else has the group's lock meanwhile.
MOST_AT_ONCE = 200
# More would wait longer than anybody has patience for.
MOST_WAITING = 8192


@dataclass(slots=True)
class Entry(Generic[Change]):
    """A change, and who waits for it."""

    change: Change
    future: asyncio.Future[Any]

    @property
    def given_up(self) -> bool:
        """Nobody waits for it any more, so it need not be made."""
        return self.future.done()


@dataclass(slots=True)
class _Line(Generic[Change]):
    """Those who wait for one group, those whose changes are under way, and since when these are."""

    waiting: list[Entry[Change]] = field(default_factory=list)
    under_way: list[Entry[Change]] = field(default_factory=list)
    since: float | None = None


class GroupCommit(Generic[Change]):
    """``write`` gets a group and entries for it, and returns one result or exception for each; when it
    raises, none of them may have been made, unless it raises Unavailable. At most ``groups`` are written at
    a time. Belongs to one event loop."""

    def __init__(
        self, write: Callable[[str, Sequence[Entry[Change]]], Awaitable[Sequence[Any]]], groups: int
    ) -> None:
        self._write = write
        self._turns = asyncio.Semaphore(groups)
        self._lines: dict[str, _Line[Change]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0
        # When changes of any group came to their end.
        self._moved = 0.0

    def submit(self, group: str, change: Change) -> asyncio.Future[Any]:
        """The result to come. It raises what ``write`` returned or raised, and Unavailable when nothing goes
        on for ``STATEMENT_TIMEOUT``. Raises Unavailable when too many wait."""
        if self._count >= MOST_WAITING:
            raise Unavailable("The server is busy; try again in a moment.")
        self._count += 1
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(self._answered)
        line = self._lines.get(group)
        if line is None:
            line = self._lines[group] = _Line()
            task = asyncio.create_task(self._work(group, line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        line.waiting.append(Entry(change, future))
        return future

    async def settle(self) -> None:
        """Wait until everything is done."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _answered(self, future: asyncio.Future[Any]) -> None:
        self._count -= 1
        if not future.cancelled():
            # Somebody may have stopped waiting; the error is then seen by nobody else.
            future.exception()

    async def _work(self, group: str, line: _Line[Change]) -> None:
        while line.waiting:
            await self._watch(line, asyncio.create_task(self._commit(group, line)))
        del self._lines[group]

    async def _watch(self, line: _Line[Change], committing: asyncio.Task[None]) -> None:
        """Wait for the end of it. Those who wait for the group are told when nothing goes on; what follows
        waits all the same, since the end may yet come."""
        begun = time.monotonic()
        while not committing.done():
            # Before they have a thread, others may be served.
            since = max(begun, self._moved) if line.since is None else max(begun, line.since)
            left = since + STATEMENT_TIMEOUT - time.monotonic()
            if left > 0:
                await asyncio.wait({committing}, timeout=left)
                continue
            error = Unavailable("The database does not answer; try again in a moment.")
            _answer([*line.under_way, *line.waiting], error)
            begun = time.monotonic()

    async def _commit(self, group: str, line: _Line[Change]) -> None:
        async with self._turns:
            line.under_way = [entry for entry in line.waiting[:MOST_AT_ONCE] if not entry.given_up]
            del line.waiting[:MOST_AT_ONCE]
            line.since = time.monotonic()
            try:
                await self._write_together(group, line.under_way)
            finally:
                line.under_way, line.since, self._moved = [], None, time.monotonic()

    async def _write_together(self, group: str, entries: Sequence[Entry[Change]]) -> None:
        if not entries:
            return
        try:
            results = await self._write(group, entries)
        except Exception as error:
            if len(entries) > 1 and not isinstance(error, (*OUTAGES, Unavailable)):
                # One of them is at fault and all was rolled back: alone it harms nobody else.
                for entry in entries:
                    await self._write_together(group, [entry])
                return
            _answer(entries, error)
            return
        for entry, result in zip(entries, results, strict=True):
            _answer([entry], result)


def _answer(entries: Sequence[Entry[Any]], result: Any) -> None:
    for entry in entries:
        if entry.given_up:
            continue
        if isinstance(result, BaseException):
            entry.future.set_exception(result)
        else:
            entry.future.set_result(result)
