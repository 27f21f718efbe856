"""The one thread of a process that writes messages, many to a transaction.

Everybody who appends waits for a commit; those who come while one is under way share the next
(group commit). The thread answers in the order of the numbers it gives, so a room's messages go on
their way in that order, and a read that must not overtake an append waits its turn in the same queue.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

from django.db import connections, reset_queries

from rooms.concurrency.thread_pool import OUTAGES, let_go
from rooms.concurrency.timeouts import STATEMENT_TIMEOUT
from rooms.histories.waiting import Completion, CompletionQueue, FutureCompletion, Place, complete_alone
from rooms.protocol.errors import Unavailable

logger = logging.getLogger("rooms.histories")
Item = TypeVar("Item")

# A transaction holds at most so many items, so that nobody waits long for its end.
MOST_ITEMS = 512
# More would wait longer than anybody has patience for.
MOST_WAITING = 4096
# A server that ends does not wait longer for a database that does not answer.
CLOSE_SECONDS = 10

_UNAVAILABLE = "The database does not answer; try again in a moment."


class _Read:
    """Something to call, between what is written before and after."""

    def __init__(self, job: Callable[[], Any]) -> None:
        self.job = job


_Answers: TypeAlias = list[tuple[Place[Any], Any]]


class Ledger(Generic[Item]):
    """``write`` gets a batch of items, in a thread, and returns one result or exception for each. When it
    raises, none of them may have been written, unless it raises one of OUTAGES. Belongs to one event loop.

    The answer is Unavailable when the database is down, too many wait, or it takes too long: then it may
    still be written.
    """

    def __init__(self, write: Callable[[Sequence[Item]], list[Any]]) -> None:
        self._write = write
        self._queue: SimpleQueue[list[Place[Item | _Read]] | None] = SimpleQueue()
        self._line: CompletionQueue[Item | _Read] = CompletionQueue(_UNAVAILABLE)
        # What came in this turn of the loop: the thread gets it at once.
        self._coming: list[Place[Item | _Read]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._line)

    def append(self, item: Item | _Read, completion: Completion) -> None:
        """The answer is what ``write`` returned for this item, after the transaction was committed."""
        if len(self._line) >= MOST_WAITING:
            complete_alone(completion, Unavailable("The server is busy; try again in a moment."))
            return
        self._loop = asyncio.get_running_loop()
        if not self._coming:
            self._loop.call_soon(self._hand_over)
        self._coming.append(self._line.add(item, completion, STATEMENT_TIMEOUT))

    async def read(self, job: Callable[[], Any]) -> Any:
        """The job's result, after everything appended before it and before everything after."""
        completion = FutureCompletion()
        self.append(_Read(job), completion)
        return await completion

    def close(self) -> None:
        """Finish what is queued, then end the thread and its database connection."""
        self._hand_over()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=CLOSE_SECONDS)
            self._thread = None

    def _hand_over(self) -> None:
        coming, self._coming = self._coming, []
        if not coming:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rooms-ledger", daemon=True)
            self._thread.start()
        self._queue.put(coming)

    # In the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (waiting := self._queue.get()) is not None:
                ends = False
                while len(waiting) < MOST_ITEMS and not ends:
                    try:
                        another = self._queue.get_nowait()
                    except Empty:
                        break
                    ends = another is None
                    waiting = waiting + (another or [])
                for start in range(0, len(waiting), MOST_ITEMS):
                    self._carry_out(waiting[start : start + MOST_ITEMS])
                # With DEBUG on Django notes every query.
                reset_queries()
                if ends:
                    return
        finally:
            connections.close_all()

    def _carry_out(self, batch: list[Place[Item | _Read]]) -> None:
        """Neighbouring items are written together; a read stands by itself."""
        wanted = [place for place in batch if not place.left]
        for is_read, places in groupby(wanted, lambda place: isinstance(place.item, _Read)):
            if not is_read:
                self._write_together(list(places))
                continue
            for place in places:
                try:
                    result = place.item.job()  # type: ignore[union-attr]
                except Exception as error:
                    result = _failure(error)
                self._answer([(place, result)])

    def _write_together(self, places: list[Place[Any]]) -> None:
        try:
            results = self._write([place.item for place in places])
        except Exception as error:
            failure = _failure(error)
            if len(places) > 1 and not isinstance(error, OUTAGES):
                # One of them is at fault and all was rolled back: alone it harms nobody else.
                for place in places:
                    self._write_together([place])
                return
            results = [failure] * len(places)
        self._answer(list(zip(places, results, strict=True)))

    def _answer(self, answers: _Answers) -> None:
        """Answer those who wait: one call into the event loop, in order."""
        # Whose loop is closed does not wait any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._line.complete, answers)  # type: ignore[union-attr]


def _failure(error: Exception) -> Exception:
    """What is told of an error that was raised in the thread."""
    let_go(error)
    if not isinstance(error, OUTAGES):
        return error
    for connection in connections.all(initialized_only=True):
        connection.close_if_unusable_or_obsolete()
    logger.warning("The database did not answer: %s", error)
    told = Unavailable(_UNAVAILABLE)
    told.__cause__ = error
    return told
