"""The one writing thread: many to a transaction, one at fault harms nobody else, reads keep their turn."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.db import InternalError, OperationalError

from rooms.histories import ledger
from rooms.histories.ledger import MOST_ITEMS, Ledger
from rooms.histories.waiting import FutureCompletion
from rooms.protocol.errors import Unavailable


class Book:
    """What a ledger writes to: batches of numbers. Stops at ``gate``; a 13 poisons its batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.attempts = 0
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.error: Exception | None = None
        self.ledger: Ledger[int] = Ledger(self.write)

    def write(self, items: Sequence[int]) -> list[Any]:
        self.entered.set()
        self.gate.wait(timeout=10)
        self.attempts += 1
        if self.error is not None:
            raise self.error
        if 13 in items:
            raise ValueError("poison")
        self.batches.append(list(items))
        return [LookupError("refused") if item < 0 else item * 10 for item in items]

    async def append(self, number: int) -> Any:
        waiting = FutureCompletion()
        self.ledger.append(number, waiting)
        return await waiting

    async def stopped(self) -> asyncio.Future[Any]:
        """One append under way, which holds up those that follow."""
        first = asyncio.ensure_future(self.append(0))
        await asyncio.to_thread(self.entered.wait, 10)
        return first


@pytest.fixture
def book() -> Iterator[Book]:
    book = Book()
    yield book
    book.gate.set()
    book.ledger.close()


async def queued(*work: Any) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.ensure_future(each) for each in work]
    await asyncio.sleep(0)
    return tasks


async def test_those_who_come_while_one_is_written_share_the_next_write(book: Book) -> None:
    first = await book.stopped()
    others = await queued(*(book.append(number) for number in range(1, 9)))
    book.gate.set()
    assert await first == 0
    assert await asyncio.gather(*others) == [number * 10 for number in range(1, 9)]
    assert book.batches == [[0], list(range(1, 9))]


async def test_a_write_has_a_most(book: Book) -> None:
    first = await book.stopped()
    others = await queued(*(book.append(number + 100) for number in range(MOST_ITEMS + 5)))
    book.gate.set()
    await asyncio.gather(first, *others)
    assert [len(batch) for batch in book.batches] == [1, MOST_ITEMS, 5]


async def test_one_at_fault_fails_alone(book: Book) -> None:
    first = await book.stopped()
    good, bad, also_good = await queued(*(book.append(number) for number in (12, 13, 14)))
    book.gate.set()
    assert (await first, await good, await also_good) == (0, 120, 140)
    with pytest.raises(ValueError, match="poison"):
        await bad
    assert book.batches == [[0], [12], [14]]


async def test_a_result_may_be_an_error_for_one(book: Book) -> None:
    book.gate.set()
    with pytest.raises(LookupError, match="refused"):
        await book.append(-1)
    assert await book.append(1) == 10


async def test_when_the_database_is_down_it_is_not_tried_for_each(book: Book) -> None:
    first = await book.stopped()
    others = await queued(*(book.append(number) for number in range(1, 6)))
    book.error = OperationalError("down")
    book.gate.set()
    for each in (first, *others):
        with pytest.raises(Unavailable):
            await each
    assert book.attempts == 2
    book.error = None
    assert await book.append(1) == 10


async def test_a_read_comes_after_what_was_appended_before_it_and_before_what_came_after(book: Book) -> None:
    first = await book.stopped()
    seen = await queued(
        book.append(1),
        book.ledger.read(lambda: [number for batch in book.batches for number in batch]),
        book.append(2),
    )
    book.gate.set()
    await first
    assert await asyncio.gather(*seen) == [10, [0, 1], 20]
    assert book.batches == [[0], [1], [2]]


async def test_a_read_that_fails_fails_alone(book: Book) -> None:
    def broken() -> None:
        raise LookupError("no")

    book.gate.set()
    with pytest.raises(LookupError, match="no"):
        await book.ledger.read(broken)
    assert await book.append(1) == 10


async def test_answers_come_in_the_order_of_the_numbers(book: Book) -> None:
    answered: list[int] = []

    async def append(number: int) -> None:
        answered.append(await book.append(number))

    first = await book.stopped()
    tasks = await queued(*(append(number) for number in range(20, 40)))
    book.gate.set()
    await asyncio.gather(first, *tasks)
    assert answered == [number * 10 for number in range(20, 40)]


async def test_one_who_stopped_waiting_is_passed_over(book: Book) -> None:
    first = await book.stopped()
    gone, stays = await queued(book.append(1), book.append(2))
    gone.cancel()
    book.gate.set()
    assert await first == 0
    assert await stays == 20
    assert book.batches == [[0], [1, 2]]


async def test_closing_finishes_what_is_queued(book: Book) -> None:
    first = await book.stopped()
    others = await queued(*(book.append(number) for number in range(1, 4)))
    closing = asyncio.ensure_future(asyncio.to_thread(book.ledger.close))
    book.gate.set()
    await closing
    assert await asyncio.gather(first, *others) == [0, 10, 20, 30]
    assert not [thread for thread in threading.enumerate() if thread.name == "rooms-ledger"]


def test_a_ledger_that_was_never_used_has_nothing_to_close() -> None:
    Ledger[int](lambda items: []).close()


async def test_when_too_many_wait_others_are_told_to_come_again(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MOST_WAITING", 4)
    first = await book.stopped()
    others = await queued(*(book.append(number) for number in range(1, 4)))
    with pytest.raises(Unavailable) as raised:
        await book.append(4)
    assert raised.value.retry
    book.gate.set()
    assert await asyncio.gather(first, *others) == [0, 10, 20, 30]
    assert await book.append(5) == 50


async def test_one_who_was_told_to_come_again_is_not_written_later(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "STATEMENT_TIMEOUT", 0.05)
    first = await book.stopped()
    (late,) = await queued(book.append(1))
    for each in (first, late):
        with pytest.raises(Unavailable) as raised:
            await each
        assert raised.value.retry
    monkeypatch.undo()
    last = await queued(book.append(2))
    book.gate.set()
    assert await asyncio.gather(*last) == [20]
    # What was being written may have been; what only waited has not.
    assert book.batches == [[0], [2]]


async def test_after_an_outage_whose_end_nobody_knows_nothing_is_written_again(book: Book) -> None:
    first = await book.stopped()
    others = await queued(*(book.append(number) for number in (1, 2)))
    book.error = InternalError("terminating connection due to idle-in-transaction timeout")
    book.gate.set()
    for each in (first, *others):
        with pytest.raises(Unavailable):
            await each
    assert book.attempts == 2


class Cursor:
    """Something that is better not let go of in the event loop."""


async def test_an_error_brings_nothing_along_that_the_thread_had_open() -> None:
    opened: list[weakref.ref[Cursor]] = []

    def fail(*_: object) -> list[Any]:
        cursor = Cursor()
        opened.append(weakref.ref(cursor))
        raise OperationalError("locked")

    ledger: Ledger[int] = Ledger(fail)
    waiting = FutureCompletion()
    try:
        ledger.append(1, waiting)
        errors = await asyncio.gather(waiting, ledger.read(fail), return_exceptions=True)
    finally:
        ledger.close()
    assert [str(error.__cause__) for error in errors if isinstance(error, Unavailable)] == [
        "locked",
        "locked",
    ]
    assert [each() for each in opened] == [None, None]
