"""Batching: which items share a write, in which order they complete, and what fails."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from django.db import InternalError, OperationalError

from rooms.concurrency import batching
from rooms.concurrency.batching import Batcher, Completion, Entry, FutureCompletion, Lookups, complete_alone
from rooms.concurrency.thread_pool import WorkerThread
from rooms.protocol.errors import Unavailable

UNAVAILABLE = "The store does not answer."
# Only a test that waits for what never comes takes this long.
PATIENCE = 60


async def queued(*work: Any) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.ensure_future(each) for each in work]
    await asyncio.sleep(0)
    return tasks


# Writing in a thread -----------------------------------------------------------------------------


class Book:
    """Writes batches of numbers in a thread, and calls functions there. Stops at ``gate``; a 13 poisons its
    batch."""

    def __init__(self, **options: Any) -> None:
        self.batches: list[list[int]] = []
        self.attempts = 0
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.error: Exception | None = None
        self.thread = WorkerThread("test-writer")
        self.batcher: Batcher[Any] = Batcher(self.write, **{"max_items": 512, "timeout": PATIENCE, **options})

    async def write(self, entries: Sequence[Entry[Any]]) -> list[Any]:
        items = [entry.item for entry in entries]
        if callable(items[0]):
            return [await self.thread.run(items[0])]
        return await self.thread.run(partial(self.write_numbers, items))

    def write_numbers(self, items: Sequence[int]) -> list[Any]:
        self.entered.set()
        self.gate.wait(timeout=60)
        self.attempts += 1
        if self.error is not None:
            raise self.error
        if 13 in items:
            raise ValueError("poison")
        self.batches.append(list(items))
        return [LookupError("refused") if item < 0 else item * 10 for item in items]

    async def add(self, number: int) -> Any:
        completion = FutureCompletion()
        self.batcher.add(number, completion)
        return await completion

    async def read(self, job: Any) -> Any:
        return await self.batcher.call(job, alone=True)

    async def stopped(self) -> asyncio.Future[Any]:
        """One write under way, which holds up the items that follow."""
        first = asyncio.ensure_future(self.add(0))
        await asyncio.to_thread(self.entered.wait, 10)
        return first

    async def close(self) -> None:
        self.gate.set()
        await self.batcher.drain()
        await asyncio.to_thread(self.thread.close, 10)


@pytest.fixture
async def book() -> AsyncIterator[Book]:
    book = Book()
    yield book
    await book.close()


async def test_items_added_during_a_write_share_the_next_write(book: Book) -> None:
    first = await book.stopped()
    others = await queued(*(book.add(number) for number in range(1, 9)))
    book.gate.set()
    assert await first == 0
    assert await asyncio.gather(*others) == [number * 10 for number in range(1, 9)]
    assert book.batches == [[0], list(range(1, 9))]


async def test_a_batch_has_a_maximum_size(book: Book) -> None:
    first = await book.stopped()
    others = await queued(*(book.add(number + 100) for number in range(512 + 5)))
    book.gate.set()
    await asyncio.gather(first, *others)
    assert [len(batch) for batch in book.batches] == [1, 512, 5]


async def test_the_item_at_fault_fails_alone(book: Book) -> None:
    first = await book.stopped()
    good, bad, also_good = await queued(*(book.add(number) for number in (12, 13, 14)))
    book.gate.set()
    assert (await first, await good, await also_good) == (0, 120, 140)
    with pytest.raises(ValueError, match="poison"):
        await bad
    assert book.batches == [[0], [12], [14]]


async def test_a_result_may_be_an_error_of_one_item(book: Book) -> None:
    book.gate.set()
    with pytest.raises(LookupError, match="refused"):
        await book.add(-1)
    assert await book.add(1) == 10


@pytest.mark.parametrize("error", [OperationalError("down"), InternalError("terminating connection")])
async def test_items_are_not_written_one_by_one_when_the_database_is_down(
    book: Book, error: Exception
) -> None:
    first = await book.stopped()
    others = await queued(*(book.add(number) for number in range(1, 6)))
    book.error = error
    book.gate.set()
    for each in (first, *others):
        with pytest.raises(Unavailable):
            await each
    assert book.attempts == 2
    book.error = None
    assert await book.add(1) == 10


async def test_an_item_alone_is_written_between_those_before_and_after_it(book: Book) -> None:
    first = await book.stopped()
    seen = await queued(
        book.add(1),
        book.read(lambda: [number for batch in book.batches for number in batch]),
        book.add(2),
    )
    book.gate.set()
    await first
    assert await asyncio.gather(*seen) == [10, [0, 1], 20]
    assert book.batches == [[0], [1], [2]]


async def test_an_item_alone_that_fails_fails_no_other(book: Book) -> None:
    def broken() -> None:
        raise LookupError("no")

    book.gate.set()
    with pytest.raises(LookupError, match="no"):
        await book.read(broken)
    assert await book.add(1) == 10


async def test_items_complete_in_the_order_in_which_they_were_added(book: Book) -> None:
    completed: list[int] = []

    async def add(number: int) -> None:
        completed.append(await book.add(number))

    first = await book.stopped()
    tasks = await queued(*(add(number) for number in range(20, 40)))
    book.gate.set()
    await asyncio.gather(first, *tasks)
    assert completed == [number * 10 for number in range(20, 40)]


async def test_an_item_with_a_completion_is_written_though_its_caller_is_gone(book: Book) -> None:
    first = await book.stopped()
    gone, stays = await queued(book.add(1), book.add(2))
    gone.cancel()
    book.gate.set()
    assert await first == 0
    assert await stays == 20
    assert book.batches == [[0], [1, 2]]


async def test_drain_waits_until_all_items_are_complete() -> None:
    book = Book()
    first = await book.stopped()
    others = await queued(*(book.add(number) for number in range(1, 4)))
    await book.close()
    assert await asyncio.gather(first, *others) == [0, 10, 20, 30]
    assert not [thread for thread in threading.enumerate() if thread.name == "test-writer"]


async def test_an_unused_batcher_has_nothing_to_drain() -> None:
    await Book().close()


async def test_an_item_is_unavailable_when_too_many_are_pending() -> None:
    book = Book(max_pending=4)
    first = await book.stopped()
    others = await queued(*(book.add(number) for number in range(1, 4)))
    with pytest.raises(Unavailable) as raised:
        await book.add(4)
    assert raised.value.retry
    book.gate.set()
    assert await asyncio.gather(first, *others) == [0, 10, 20, 30]
    assert await book.add(5) == 50
    await book.close()


async def test_an_item_that_timed_out_in_the_queue_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book(timeout=0.05)
    first = await book.stopped()
    (late,) = await queued(book.add(1))
    for each in (first, late):
        with pytest.raises(Unavailable) as raised:
            await each
        assert raised.value.retry
    monkeypatch.setattr(book.batcher, "_timeout", PATIENCE)
    last = await queued(book.add(2))
    book.gate.set()
    assert await asyncio.gather(*last) == [20]
    # The first was under way and may be written; the late one was only queued.
    assert book.batches == [[0], [2]]
    await book.close()


class Cursor:
    """Something that must not be deleted in the event loop."""


async def test_an_error_from_the_thread_keeps_no_frame_alive() -> None:
    opened: list[weakref.ref[Cursor]] = []

    def fail(*_: object) -> list[Any]:
        cursor = Cursor()
        opened.append(weakref.ref(cursor))
        raise OperationalError("locked")

    book = Book()
    book.write_numbers = fail  # type: ignore[method-assign]
    errors = await asyncio.gather(book.add(1), book.read(fail), return_exceptions=True)
    await book.close()
    assert [str(error.__cause__) for error in errors if isinstance(error, Unavailable)] == [
        "locked",
        "locked",
    ]
    assert [each() for each in opened] == [None, None]


# Completions -------------------------------------------------------------------------------------


class LoggedCompletion(Completion):
    """Writes to a log what happens to it."""

    def __init__(self, name: str, log: list[Any], broken: bool = False) -> None:
        self.name = name
        self.log = log
        self.broken = broken
        self.completed = asyncio.Event()

    def complete(self, result: Any) -> None:
        self.completed.set()
        self.log.append((self.name, result))
        if self.broken:
            raise ValueError("broken")

    def finish(self) -> None:
        self.log.append(self.name)


async def doubled(entries: Sequence[Entry[int]]) -> list[int]:
    await asyncio.sleep(0)
    return [entry.item * 10 for entry in entries]


async def test_all_items_of_a_batch_are_complete_before_the_first_is_finished() -> None:
    log: list[Any] = []
    batcher: Batcher[int] = Batcher(doubled, max_items=2)
    for number in range(3):
        batcher.add(number, LoggedCompletion(str(number), log))
    assert len(batcher) == 3
    await batcher.drain()
    assert len(batcher) == 0
    assert log == [("0", 0), ("1", 10), "0", "1", ("2", 20), "2"]


async def test_a_batch_is_delivered_while_the_next_is_written() -> None:
    log: list[Any] = []
    gate, entered = asyncio.Event(), asyncio.Event()

    async def write(entries: Sequence[Entry[int]]) -> list[int]:
        if entries[0].item:
            entered.set()
            await gate.wait()
        return await doubled(entries)

    batcher: Batcher[int] = Batcher(write, max_items=1)
    first, second = LoggedCompletion("0", log), LoggedCompletion("1", log)
    batcher.add(0, first)
    batcher.add(1, second)
    await entered.wait()
    await first.completed.wait()
    assert log == [("0", 0), "0"]
    gate.set()
    await second.completed.wait()
    assert log[2:] == [("1", 10), "1"]


async def test_a_completion_that_fails_affects_no_other(caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    batcher: Batcher[int] = Batcher(doubled, max_items=2)
    for name in "ab":
        batcher.add(1, LoggedCompletion(name, log, broken=name == "a"))
    with caplog.at_level(logging.ERROR, "rooms.concurrency"):
        await batcher.drain()
    assert log == [("a", 10), ("b", 10), "a", "b"]
    assert "broken" in caplog.text


def test_what_is_in_no_batch_is_completed_and_finished() -> None:
    log: list[Any] = []
    complete_alone(LoggedCompletion("a", log), 1)
    assert log == [("a", 1), "a"]


async def test_an_item_that_timed_out_is_not_completed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []
    gate = asyncio.Event()

    async def write(entries: Sequence[Entry[int]]) -> list[int]:
        await gate.wait()
        return await doubled(entries)

    batcher: Batcher[int] = Batcher(write, max_items=9, timeout=0.01, unavailable=UNAVAILABLE)
    early, late, patient = (LoggedCompletion(name, log) for name in ("early", "late", "patient"))
    batcher.add(0, early)
    batcher.add(0, late)
    async with asyncio.timeout(PATIENCE):
        await late.completed.wait()
        monkeypatch.setattr(batcher, "_timeout", PATIENCE)
        batcher.add(1, patient)
        assert len(batcher) == 1
        gate.set()
        await patient.completed.wait()
    assert [(name, type(error), str(error)) for name, error in log[:2]] == [
        ("early", Unavailable, UNAVAILABLE),
        ("late", Unavailable, UNAVAILABLE),
    ]
    assert log[2:] == ["early", "late", ("patient", 10), "patient"]


# Keys --------------------------------------------------------------------------------------------


class Store:
    """Writes changes, pairs of a group and a name; while the gate is shut, no write ends."""

    def __init__(self) -> None:
        self.written: list[tuple[str, list[str]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.wrong: dict[str, Exception] = {}

    async def write(self, entries: Sequence[Entry[tuple[str, str]]]) -> list[Any]:
        (group,) = {entry.item[0] for entry in entries}
        names = [entry.item[1] for entry in entries]
        self.written.append((group, names))
        await self.gate.wait()
        for name in names:
            if name in self.wrong:
                raise self.wrong[name]
        return [name.upper() for name in names]

    def batcher(self, **options: Any) -> Batcher[tuple[str, str]]:
        return Batcher(
            self.write,
            **{
                "key": lambda item: item[0],
                "max_items": 200,
                "max_writes": 2,
                "timeout": PATIENCE,
                "timeout_per_write": True,
                **options,
            },
        )


@pytest.fixture
async def store() -> Store:
    return Store()


async def test_changes_of_a_group_share_a_write_in_order_and_a_cancelled_one_is_not_written(
    store: Store,
) -> None:
    batcher = store.batcher()
    store.gate.clear()
    first = batcher.call(("g", "a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [batcher.call(("g", name)) for name in "bcd"]
    others[1].cancel()
    store.gate.set()
    assert await first == "A"
    assert [await others[0], await others[2]] == ["B", "D"]
    assert store.written == [("g", ["a"]), ("g", ["b", "d"])]
    assert len(batcher) == 0


async def test_changes_of_a_group_have_a_maximum_number_per_write(store: Store) -> None:
    batcher = store.batcher(max_items=2)
    assert await asyncio.gather(*(batcher.call(("g", name)) for name in "abc")) == ["A", "B", "C"]
    assert store.written == [("g", ["a", "b"]), ("g", ["c"])]


async def test_groups_are_written_side_by_side_up_to_the_maximum(store: Store) -> None:
    batcher = store.batcher()
    store.gate.clear()
    calls = [batcher.call((group, "a")) for group in "ghi"]
    for _ in range(5):
        await asyncio.sleep(0)
    assert [group for group, _ in store.written] == ["g", "h"]
    store.gate.set()
    assert await asyncio.gather(*calls) == ["A"] * 3
    await batcher.drain()
    assert store.written[2:] == [("i", ["a"])]


async def test_the_change_at_fault_fails_alone(store: Store) -> None:
    batcher = store.batcher()
    store.wrong["b"] = LookupError("b")
    results = await asyncio.gather(*(batcher.call(("g", name)) for name in "abc"), return_exceptions=True)
    assert [results[0], results[2]] == ["A", "C"]
    assert isinstance(results[1], LookupError)


async def test_changes_are_not_written_one_by_one_when_the_store_is_unavailable(store: Store) -> None:
    batcher = store.batcher()
    error = store.wrong["b"] = Unavailable("gone")
    results = await asyncio.gather(*(batcher.call(("g", name)) for name in "abc"), return_exceptions=True)
    assert results == [error] * 3
    assert len(store.written) == 1


async def test_when_no_write_ends_all_changes_time_out_and_later_ones_keep_their_turn(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = store.batcher(timeout=0.02)
    store.gate.clear()
    # Two of the three groups are being written.
    calls = [batcher.call((group, "a")) for group in "gghi"]
    async with asyncio.timeout(PATIENCE):
        for each in calls:
            with pytest.raises(Unavailable) as raised:
                await each
            assert raised.value.retry
        later = batcher.call(("g", "b"))
        with pytest.raises(Unavailable):
            await later
        monkeypatch.setattr(batcher, "_timeout", PATIENCE)
        last = batcher.call(("g", "c"))
        store.gate.set()
        assert await last == "C"
        await batcher.drain()
    # The change that undoes one that timed out is written after it.
    assert [each for each in store.written if each[0] == "g"] == [("g", ["a", "a"]), ("g", ["c"])]


async def test_a_long_queue_does_not_time_out_while_writes_end() -> None:
    gates = [asyncio.Event() for _ in range(4)]
    begun: list[str] = []

    async def write(entries: Sequence[Entry[tuple[str, str]]]) -> list[Any]:
        begun.append(entries[0].item[1])
        await gates[len(begun) - 1].wait()
        return [None]

    batcher: Batcher[tuple[str, str]] = Batcher(
        write, key=lambda item: item[0], max_items=1, timeout=10, timeout_per_write=True
    )
    calls = [batcher.call(("g", name)) for name in "abcd"]
    (queue,) = batcher._queues.values()
    await asyncio.sleep(0)
    added = queue.waiting[-1].added
    for number, gate in enumerate(gates[:3]):
        gate.set()
        await calls[number]
    assert len(batcher) == 1
    (entry,) = queue.writing
    assert entry.added == added
    assert queue.begun is not None
    assert batcher._deadline(queue, entry) == queue.begun + 10 > added + 10
    gates[3].set()
    await calls[3]


async def test_a_change_is_unavailable_when_too_many_are_pending_in_all_groups(store: Store) -> None:
    batcher = store.batcher(max_pending=2)
    calls = [batcher.call(("g", name)) for name in "ab"]
    with pytest.raises(Unavailable, match="busy"):
        await batcher.call(("h", "c"))
    assert await asyncio.gather(*calls) == ["A", "B"]
    assert await batcher.call(("h", "c")) == "C"


async def test_a_group_without_changes_leaves_nothing_behind(store: Store) -> None:
    batcher = store.batcher()
    await batcher.call(("g", "a"))
    await batcher.drain()
    assert batcher._queues == {}


# Look-ups ----------------------------------------------------------------------------------------


class Table:
    """Reads while its gate is open; ``reads`` has the keys of every read."""

    def __init__(self) -> None:
        self.reads: list[list[str]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def read(self, queries: dict[str, int]) -> Mapping[str, int]:
        self.reads.append(list(queries))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return {key: number * 2 for key, number in queries.items()}


async def test_look_ups_during_a_read_share_the_next_read() -> None:
    table = Table()
    lookups: Lookups[str, int, int] = Lookups(table.read)
    first = asyncio.create_task(lookups.get("a", 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # The key that is being read is read again: its value may have changed since.
    later = [asyncio.create_task(lookups.get(key, number)) for key, number in (("a", 1), ("b", 2), ("b", 2))]
    await asyncio.sleep(0)
    table.gate.set()
    assert [await each for each in (first, *later)] == [2, 2, 4, 4]
    assert table.reads == [["a"], ["a", "b"]]


async def test_look_ups_gather_after_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "LOOKUP_PAUSE", 0.1)
    table = Table()
    table.gate.set()
    lookups: Lookups[str, int, int] = Lookups(table.read)
    await lookups.get("a", 1)
    later = asyncio.create_task(lookups.get("b", 1))
    for _ in range(5):
        await asyncio.sleep(0)
    await asyncio.gather(later, lookups.get("c", 1))
    assert table.reads == [["a"], ["b", "c"]]


async def test_a_read_has_a_maximum_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "LOOKUP_MAX_KEYS", 2)
    table = Table()
    table.gate.set()
    lookups: Lookups[str, int, int] = Lookups(table.read)
    assert await asyncio.gather(*(lookups.get(key, 1) for key in "abcde")) == [2] * 5
    assert table.reads == [["a", "b"], ["c", "d"], ["e"]]


async def test_any_number_of_look_ups_of_one_key_is_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "LOOKUP_MAX_KEYS", 2)
    table = Table()
    table.gate.set()
    lookups: Lookups[str, int, int] = Lookups(table.read)
    assert await asyncio.gather(*(lookups.get("a", 1) for _ in range(5))) == [2] * 5
    assert table.reads == [["a"]]


async def test_a_read_that_fails_fails_all_its_look_ups_and_no_later_ones() -> None:
    table = Table()
    table.gate.set()
    lookups: Lookups[str, int, int] = Lookups(table.read)
    table.error = ValueError("no")
    errors = await asyncio.gather(lookups.get("a", 1), lookups.get("b", 1), return_exceptions=True)
    assert errors == [table.error, table.error]
    assert table.reads == [["a", "b"]]
    table.error = None
    assert await lookups.get("a", 1) == 2


async def test_a_cancelled_look_up_cancels_no_other_of_its_key() -> None:
    table = Table()
    lookups: Lookups[str, int, int] = Lookups(table.read)
    cancelled, staying = (asyncio.create_task(lookups.get("a", 1)) for _ in range(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    table.gate.set()
    assert await staying == 2
    assert cancelled.cancelled()
