"""The history in the database, beyond the interface that all histories share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from rooms import models
from rooms.concurrency import timeouts
from rooms.histories import database
from rooms.histories.database import DatabaseHistory
from rooms.hub.config import RoomConfig
from rooms.protocol.errors import RoomNotFound, Unavailable
from rooms.protocol.events import Message
from rooms.protocol.types import Position, User
from tests.histories.messages import RoomMaker, append_and_wait, message

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]


@pytest.fixture
async def histories() -> AsyncIterator[tuple[DatabaseHistory, DatabaseHistory]]:
    """The histories of two processes."""
    both = DatabaseHistory(), DatabaseHistory()
    yield both
    for history in both:
        await history.close()


@pytest.fixture
def history(histories: tuple[DatabaseHistory, DatabaseHistory]) -> DatabaseHistory:
    return histories[0]


append_all = database._append_all


class Commits:
    """Counts the transactions of the writer, and can block the next one."""

    def __init__(self) -> None:
        self.count = 0
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def write(self, appends: Any) -> Any:
        self.entered.set()
        self.gate.wait(timeout=60)
        self.count += 1
        return append_all(appends)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    commits = Commits()
    monkeypatch.setattr(database, "_append_all", commits.write)
    return commits


async def blocked(history: DatabaseHistory, room: RoomConfig, commits: Commits) -> asyncio.Task[Any]:
    """Start one append, which blocks those that follow."""
    commits.gate.clear()
    first = asyncio.ensure_future(append_and_wait(history, room, message()))
    await asyncio.to_thread(commits.entered.wait, 10)
    return first


class Copied:
    """A router of a site that reads from a replica, which lags behind."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        self.asked.add(model.__name__)
        return "default"

    def db_for_write(self, model: type[Model], **hints: Any) -> str:
        return "default"


async def test_reads_use_the_database_that_is_written(
    history: DatabaseHistory, room: RoomConfig, settings: Any
) -> None:
    copied = Copied()
    settings.DATABASE_ROUTERS = [copied]
    await history.snapshot(room, None, 5)
    for state in (False, True):
        await append_and_wait(history, room, message(state=state), "key")
    await history.page(room, before=None, after=None, limit=5)
    await history.messages_after(room, 0)
    await history.positions([room.id])
    await history.find(room, "guest-1", "key")
    await history.prune()
    assert copied.asked == set()


class OneByOne(Commits):
    """Broken: uses a transaction for each message."""

    def write(self, appends: Any) -> Any:
        self.entered.set()
        self.gate.wait(timeout=60)
        self.count += len(appends)
        return [result for each in appends for result in append_all([each])]


async def check_that_a_commit_is_shared(history: DatabaseHistory, room: RoomConfig, commits: Commits) -> None:
    first = await blocked(history, room, commits)
    others = [asyncio.ensure_future(append_and_wait(history, room, message())) for _ in range(40)]
    await asyncio.sleep(0)
    commits.gate.set()
    await asyncio.gather(first, *others)
    assert commits.count == 2


async def test_many_messages_share_a_transaction(
    history: DatabaseHistory, room: RoomConfig, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    await check_that_a_commit_is_shared(history, room, commits)
    broken = OneByOne()
    monkeypatch.setattr(database, "_append_all", broken.write)
    with pytest.raises(AssertionError):
        await check_that_a_commit_is_shared(history, room, broken)


def test_the_number_of_queries_does_not_depend_on_the_number_of_messages(room: RoomConfig) -> None:
    def queries(count: int, key: str | None = None) -> int:
        appends = [database._Append(room, message(), key and f"{key} {n}") for n in range(count)]
        with CaptureQueriesContext(connection) as captured:
            database._append_all(appends)
        return len(captured)

    queries(1)
    assert queries(20) == queries(5) == queries(20, "k") == queries(5, "another")


def test_a_used_key_is_found_among_others(room: RoomConfig) -> None:
    def keyed(*keys: str | None) -> list[Any]:
        return database._append_all([database._Append(room, message(), key) for key in keys])

    keyed("a", "b")
    appended = keyed("c", "a", None, "c", "d")
    assert [each.message.seq for each in appended] == [3, 1, 4, 3, 5]
    assert [each.duplicate for each in appended] == [False, True, False, True, False]
    assert models.Sequence.objects.get(pk=room.id).seq == models.Message.objects.count() == 5


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL reads so few rows without an index")
def test_keys_are_found_by_their_index(room: RoomConfig) -> None:
    """A scan would read all messages of the room, perhaps millions."""
    appends = [
        database._Append(room, message(sender=User(name=name, id=name, guest=True)), "k") for name in "abc"
    ]
    database._append_all(appends)
    with CaptureQueriesContext(connection) as captured:
        assert all(each.duplicate for each in database._append_all(appends))
    table = f'FROM "{models.Message._meta.db_table}"'
    (looked,) = [each["sql"] for each in captured if table in each["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {looked}")
        assert "USING INDEX rooms_message_key" in str(cursor.fetchall())


def test_a_recovery_is_one_query_for_any_number_of_messages(room: RoomConfig) -> None:
    database._append_all([database._Append(room, message(), None) for _ in range(300)])
    epoch = models.Sequence.objects.get(pk=room.id).epoch
    with CaptureQueriesContext(connection) as captured:
        snapshot = database._snapshot(room, Position(epoch=epoch, seq=0), 50)
    assert (snapshot.recovered, len(snapshot.messages)) == (True, 300)
    table = f'FROM "{models.Message._meta.db_table}"'
    assert len([each for each in captured if table in each["sql"]]) == 1


async def test_an_invalid_message_fails_alone_and_takes_no_number(
    history: DatabaseHistory, room: RoomConfig, commits: Commits
) -> None:
    first = await blocked(history, room, commits)
    good, bad, also_good = (
        asyncio.ensure_future(append_and_wait(history, room, each))
        for each in (message(b"1"), message(time="not a time"), message(b"2"))
    )
    await asyncio.sleep(0)
    commits.gate.set()
    await first
    with pytest.raises(ValueError, match="not a time"):
        await bad
    assert [(await good).message.seq, (await also_good).message.seq] == [2, 3]
    assert [each.seq for each in await history.messages_after(room, 0)] == [1, 2, 3]


async def test_an_append_to_a_deleted_room_fails_alone(
    history: DatabaseHistory, make_room: RoomMaker, commits: Commits
) -> None:
    room, gone = await make_room(), await make_room("gone")
    await models.Room.objects.filter(pk=gone.id).adelete()
    first = await blocked(history, room, commits)
    bad = asyncio.ensure_future(append_and_wait(history, gone, message()))
    good = asyncio.ensure_future(append_and_wait(history, room, message()))
    await asyncio.sleep(0)
    commits.gate.set()
    await first
    with pytest.raises(RoomNotFound):
        await bad
    assert (await good).message.seq == 2
    for reading in (history.snapshot(gone, None, 9), history.messages_after(gone, 0)):
        with pytest.raises(RoomNotFound):
            await reading


async def test_the_numbers_of_two_processes_have_no_holes_and_no_duplicates(
    histories: tuple[DatabaseHistory, DatabaseHistory], make_room: RoomMaker
) -> None:
    made = [await make_room(name) for name in ("one", "two")]

    async def append(number: int) -> Message:
        room = made[number // 2 % 2]
        sent = message(b"%d" % number, room=room.name)
        return (await append_and_wait(histories[number % 2], room, sent)).message

    appended = await asyncio.gather(*map(append, range(120)))
    for room in made:
        of_room = [each for each in appended if each.room == room.name]
        # Both processes read the messages as they were appended.
        assert await histories[0].messages_after(room, 0) == sorted(of_room, key=lambda each: each.seq or 0)
        assert sorted(each.seq or 0 for each in of_room) == list(range(1, 61))
        # Within a process, messages are numbered in the order of the appends.
        for process in (0, 1):
            own = [each.seq or 0 for each in of_room if int(bytes(each.data)) % 2 == process]
            assert own == sorted(own)


async def test_a_key_holds_in_every_process(
    histories: tuple[DatabaseHistory, DatabaseHistory], room: RoomConfig
) -> None:
    appended = await asyncio.gather(
        *(append_and_wait(histories[n % 2], room, message(b"%d" % n), "k") for n in range(8))
    )
    assert sorted(each.duplicate for each in appended) == [False] + [True] * 7
    assert {(each.message.seq, bytes(each.message.data)) for each in appended} == {
        (1, bytes(appended[0].message.data))
    }


async def test_the_epoch_survives_restarts_and_ends_with_the_room(
    histories: tuple[DatabaseHistory, DatabaseHistory], make_room: RoomMaker
) -> None:
    room = await make_room()
    await append_and_wait(histories[0], room, message())
    before = (await histories[0].snapshot(room, None, 0)).position
    assert (await histories[1].snapshot(room, None, 0)).position == before
    assert before is not None
    resumed = await histories[1].snapshot(room, Position(epoch=before.epoch, seq=0), 9)
    assert resumed.recovered
    await models.Room.objects.all().adelete()
    after = await histories[1].snapshot(await make_room(), before, 9)
    assert after.position is not None
    assert after.position.epoch != before.epoch
    assert not after.recovered


def test_a_rolled_back_batch_leaves_nothing(room: RoomConfig) -> None:
    with transaction.atomic():
        database._append_all([database._Append(room, message(), None)])
        transaction.set_rollback(True)
    assert not models.Message.objects.exists()
    assert (database._append_all([database._Append(room, message(), None)]))[0].message.seq == 1


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer and no locks of rows")
def test_a_sequence_that_another_process_created_is_locked(room: RoomConfig) -> None:
    models.Sequence.objects.filter(pk=room.id).delete()
    with CaptureQueriesContext(connection) as captured:
        database._append_all([database._Append(room, message(), None)])
    table = f'FROM "{models.Sequence._meta.db_table}"'
    assert [each["sql"] for each in captured if table in each["sql"]][-1].endswith("FOR UPDATE")


async def test_a_room_without_a_sequence_gets_one(history: DatabaseHistory, room: RoomConfig) -> None:
    await models.Sequence.objects.all().adelete()
    assert (await history.snapshot(room, None, 9)).position is not None
    await models.Sequence.objects.all().adelete()
    assert (await append_and_wait(history, room, message())).message.seq == 1


async def test_expired_messages_are_deleted_after_some_appends(
    history: DatabaseHistory, make_room: RoomMaker
) -> None:
    room = await make_room(history_size=3)
    await asyncio.gather(
        *(append_and_wait(history, room, message()) for _ in range(database.PRUNE_EVERY + 1))
    )
    assert await models.Message.objects.acount() < database.PRUNE_EVERY // 2


async def test_a_database_that_is_down_is_unavailable_until_it_is_back(
    history: DatabaseHistory, room: RoomConfig
) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise OperationalError("no connection to 10.0.0.1")

    with mock.patch.object(database, "_sequence", down):
        for asking in (
            append_and_wait(history, room, message()),
            history.snapshot(room, None, 9),
            history.page(room, before=None, after=None, limit=9),
            history.messages_after(room, 0),
        ):
            with pytest.raises(Unavailable) as raised:
                await asking
            assert raised.value.retry
            assert "10.0.0.1" not in raised.value.message
    assert (await append_and_wait(history, room, message())).message.seq == 1


async def test_messages_after_waits_for_the_appends_before_it(
    history: DatabaseHistory, room: RoomConfig, commits: Commits
) -> None:
    """An append completes before a recovery can read its message."""
    order: list[str] = []

    async def append() -> None:
        order.append(f"appended {(await append_and_wait(history, room, message())).message.seq}")

    async def read() -> None:
        order.append(f"read {[each.seq for each in await history.messages_after(room, 0)]}")

    commits.gate.clear()
    appending = asyncio.ensure_future(append())
    await asyncio.to_thread(commits.entered.wait, 10)
    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    commits.gate.set()
    await asyncio.gather(appending, reading)
    assert order == ["appended 1", "read [1]"]


# A database that does not answer -------------------------------------------------------------------


@contextmanager
def locked(room: RoomConfig) -> Iterator[None]:
    """Lock the room's row as another process does; on SQLite, the whole database."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            models.Sequence.objects.select_for_update().get(pk=room.id)
            held.set()
            release.wait(timeout=60)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(timeout=20)
        yield
    finally:
        release.set()
        holder.join()


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "_SQLITE", "PRAGMA busy_timeout = 100")
    monkeypatch.setattr(timeouts, "_POSTGRESQL", "SET LOCAL statement_timeout = '100ms'")


@pytest.mark.usefixtures("short_timeouts")
async def test_a_locked_database_is_unavailable_and_a_repeated_append_is_stored_once(
    history: DatabaseHistory, room: RoomConfig
) -> None:
    await append_and_wait(history, room, message())
    with locked(room):
        for _ in range(2):
            sent = [append_and_wait(history, room, message(b"%d" % n), f"key {n}") for n in range(3)]
            for answer in await asyncio.gather(*sent, return_exceptions=True):
                assert isinstance(answer, Unavailable)
                assert answer.retry
        assert [each.seq for each in (await history.snapshot(room, None, 9)).messages] == [1]
    appended = [await append_and_wait(history, room, message(b"%d" % n), f"key {n}") for n in range(3)]
    assert [(each.duplicate, each.message.seq) for each in appended] == [(False, 2), (False, 3), (False, 4)]


async def test_a_commit_whose_confirmation_was_lost_is_found_by_its_key(
    history: DatabaseHistory, room: RoomConfig, commits: Commits
) -> None:
    commit = BaseDatabaseWrapper._commit
    lost: list[str] = []

    def loses(self: BaseDatabaseWrapper) -> None:
        commit(self)
        if threading.current_thread().name == "rooms-history-writer" and not lost:
            lost.append("answer")
            raise OperationalError("server closed the connection unexpectedly")

    commits.gate.clear()
    with mock.patch.object(BaseDatabaseWrapper, "_commit", loses):
        sent = [
            asyncio.ensure_future(append_and_wait(history, room, message(), f"key {n}")) for n in range(3)
        ]
        await asyncio.sleep(0)
        commits.gate.set()
        answers = await asyncio.gather(*sent, return_exceptions=True)
    assert lost
    unknown = [index for index, each in enumerate(answers) if isinstance(each, Unavailable)]
    assert unknown
    again = [await append_and_wait(history, room, message(), f"key {n}") for n in range(3)]
    assert all(each.duplicate for each in again)
    assert [each.message.seq for each in again] == [1, 2, 3]
    assert [each.seq for each in await history.messages_after(room, 0)] == [1, 2, 3]


async def test_positions_of_more_rooms_than_a_query_can_have(
    history: DatabaseHistory, make_room: RoomMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = [await make_room(name) for name in ("one", "two", "three")]
    for room in rooms:
        await append_and_wait(history, room, message())
    ids = [room.id for room in rooms]
    # SQLite takes 32,766 values.
    far = range(10**9, 10**9 + 40_000)
    assert set(await history.positions([ids[0], *far, *ids[1:]])) == set(ids)
    monkeypatch.setattr(database, "MAX_POSITIONS", 2)
    assert set(await history.positions(ids)) == set(ids)


async def test_state_that_changes_while_it_is_read_is_read_again(
    histories: tuple[DatabaseHistory, DatabaseHistory], room: RoomConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value is neither missing nor newer than the position."""
    here, _ = histories
    await append_and_wait(here, room, message(b"1", event="topic", state=True))
    read = database.read_state
    looks = 0

    def busy(of: RoomConfig) -> list[Message]:
        nonlocal looks
        looks += 1
        if looks == 1:
            new = message(b"2", event="topic", state=True)
            database._append_all([database._Append(room, new, None)])
        return read(of)

    monkeypatch.setattr(database, "read_state", busy)
    snapshot = await here.snapshot(room, None, 10)
    assert snapshot.position is not None
    assert [bytes(each.data) for each in snapshot.state] == [b"2"]
    assert snapshot.position.seq == 2
