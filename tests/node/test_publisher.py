"""The publisher with a history, a presence and a broker that only record their calls."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, cast

import pytest
from msgspec import UNSET, Raw

from rooms.compat.roomer import Roomer
from rooms.conf import Settings
from rooms.histories import Appended, Completion
from rooms.hub.config import RoomConfig
from rooms.hub.connection import Connection
from rooms.node.publisher import (
    Publisher,
    ServerMessage,
    check_event_name,
    check_size,
    event_name,
)
from rooms.protocol.commands import Send
from rooms.protocol.compat_commands import SendOriginal
from rooms.protocol.errors import (
    BadRequest,
    InternalError,
    MessageTooLarge,
    ReservedEvent,
    Unavailable,
    UserNotFound,
)
from rooms.protocol.events import Event, Message
from rooms.protocol.native import Native
from rooms.protocol.types import User
from tests.node.clients import PATIENCE
from tests.records import application_record, room_record

ANN, BOB = User(name="Ann", id="1", guest=False), User(name="bob", id="guest-2", guest=True)


class RecordingRoom:
    """A target with the names of the events that were broadcast, in one list with those of the broker."""

    def __init__(self, calls: list[tuple[Any, ...]], config: RoomConfig) -> None:
        self.config = config
        self.key = f"room.{config.id}"
        self.broken = False
        self._calls = calls

    @property
    def name(self) -> str:
        return self.config.name

    def broadcast(
        self,
        event: Event,
        *,
        exclude: Connection | None = None,
        only: Collection[str] | None = None,
        volatile: bool = False,
    ) -> None:
        if self.broken:
            raise ValueError("broken")
        self._calls.append(("broadcast", event, exclude, only, volatile))


class RecordingHistory:
    """Keeps each append until a test completes it."""

    def __init__(self) -> None:
        self.appends: list[tuple[RoomConfig, Message, str | None, Completion]] = []
        self.appended = asyncio.Event()

    def append(self, room: RoomConfig, message: Message, key: str | None, completion: Completion) -> None:
        self.appends.append((room, message, key, completion))
        self.appended.set()

    def stored(self, seq: int, index: int = -1) -> Appended:
        return Appended(message_with_seq(self.appends[index][1], seq))


def message_with_seq(message: Message, seq: int) -> Message:
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return Message(**fields | {"seq": seq})


class RecordingPresence:
    def __init__(self, users: Iterable[User]) -> None:
        self._users = {user.name.lower(): user for user in users}

    async def find(self, group: str, names: Collection[str]) -> dict[str, User]:
        return {name: self._users[name.lower()] for name in names if name.lower() in self._users}


class RecordingBroker:
    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        self._calls = calls

    def publish(
        self, key: str, event: Event, *, only: Collection[str] | None = None, volatile: bool = False
    ) -> None:
        self._calls.append(("publish", key, event, only, volatile))


class Site:
    """A publisher, its parts and a room with a history."""

    def __init__(self, max_message_bytes: int | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.history = RecordingHistory()
        config = room_record(
            application=application_record(max_message_bytes=max_message_bytes),
            id=7,
            name="lobby",
            history="memory",
        )
        self.room = RecordingRoom(self.calls, config)
        self.publisher = Publisher(
            Settings(max_message_bytes=20, max_state_bytes=10),
            cast(Any, {"memory": self.history}),
            cast(Any, RecordingPresence([ANN, BOB])),
            cast(Any, RecordingBroker(self.calls)),
        )

    async def start(self, data: Any, **options: Any) -> asyncio.Task[Message]:
        """Begin to publish, as far as the history."""
        self.history.appended.clear()
        task = asyncio.ensure_future(self.publisher.publish(self.room, data, **options))
        async with asyncio.timeout(PATIENCE):
            await self.history.appended.wait()
        return task

    def complete(self, result: Appended | Exception, index: int = -1) -> None:
        completion = self.history.appends[index][3]
        completion.complete(result)
        completion.finish()


@pytest.fixture
def site() -> Site:
    return Site()


# Steps -------------------------------------------------------------------------------------------


async def test_a_message_is_stored_and_then_broadcast_here_and_elsewhere(site: Site) -> None:
    publishing = await site.start({"a": 1}, event="news", sender=ANN)
    ((config, message, key, _),) = site.history.appends
    assert (config, key) == (site.room.config, None)
    assert (message.room, message.event, message.sender) == ("lobby", "news", ANN)
    assert bytes(message.data) == b'{"a":1}'
    assert (message.seq, message.to, message.state) == (None, UNSET, UNSET)
    assert message.time.endswith("Z")
    assert site.calls == []
    assert not publishing.done()
    stored = site.history.stored(3)
    site.complete(stored)
    assert await publishing is stored.message
    assert site.calls == [
        ("broadcast", stored.message, None, None, False),
        ("publish", "room.7", stored.message, None, False),
    ]


async def test_an_error_of_the_history_is_raised_and_nothing_is_broadcast(site: Site) -> None:
    publishing = await site.start(1)
    site.complete(Unavailable("Down."))
    with pytest.raises(Unavailable):
        await publishing
    assert site.calls == []


async def test_a_history_that_is_not_configured_is_an_error(site: Site) -> None:
    site.room.config = replace(site.room.config, history="missing")
    with pytest.raises(KeyError):
        await site.publisher.publish(site.room, 1)


async def test_a_broadcast_that_fails_does_not_fail_the_publish(site: Site) -> None:
    publishing = await site.start(1)
    site.room.broken = True
    with pytest.raises(ValueError, match="broken"):
        site.complete(site.history.stored(1))
    # The message is stored, so that publishing it did not fail.
    assert (await publishing).seq == 1


@pytest.mark.parametrize("options", [{"volatile": True}, {"to": "ann"}])
async def test_volatile_and_direct_messages_are_not_stored(site: Site, options: dict[str, Any]) -> None:
    message = await site.publisher.publish(site.room, 1, **options)
    assert message.seq is None
    assert site.history.appends == []
    assert [call[0] for call in site.calls] == ["broadcast", "publish"]
    volatile = options.get("volatile", False)
    only = {"1"} if "to" in options else None
    assert site.calls[0][2:] == (None, only, volatile)
    assert site.calls[1][3:] == (only, volatile)


async def test_the_senders_connection_is_excluded_here(site: Site) -> None:
    connection = Connection("c", Native())
    await site.publisher.publish(site.room, 1, volatile=True, sender=ANN, exclude=connection)
    assert site.calls[0][2] is connection


async def test_a_duplicate_is_broadcast_again_and_an_expired_one_is_not(site: Site) -> None:
    first, second = await site.start(1), await site.start(2)
    stored = site.history.stored(1, 0)
    site.complete(Appended(stored.message, duplicate=True), 0)
    site.complete(Appended(site.history.stored(2, 1).message, duplicate=True, expired=True), 1)
    assert [(await each).seq for each in (first, second)] == [1, 2]
    assert [call[1] for call in site.calls if call[0] == "broadcast"] == [stored.message]


async def test_a_number_of_the_history_that_the_room_had_before_is_not_broadcast(site: Site) -> None:
    publishing = await site.start(1)
    site.room.config = replace(site.room.config, history="database")
    site.complete(site.history.stored(1))
    assert (await publishing).seq == 1
    assert site.calls == []


async def test_all_of_a_commit_are_complete_before_the_first_is_broadcast(site: Site) -> None:
    messages = [
        ServerMessage(
            broker=site.publisher.broker, room=site.room, recipients=None, exclude=None, volatile=False
        )
        for _ in range(2)
    ]
    for number, pending in enumerate(messages):
        command = Send(room="lobby", data=Raw(b"%d" % number))
        site.publisher.store(command, command.data, None, pending)
    for index, pending in enumerate(messages):
        pending.complete(site.history.stored(index + 1, index))
    assert site.calls == []
    for pending in messages:
        pending.finish()
    assert [(call[0], call[1].seq) for call in site.calls if call[0] == "broadcast"] == [
        ("broadcast", 1),
        ("broadcast", 2),
    ]


# Recipients --------------------------------------------------------------------------------------


async def test_recipients_are_found_by_name_in_any_case_and_once(site: Site) -> None:
    message = await site.publisher.publish(site.room, 1, to=["ANN", "ann", "bob"])
    assert message.to == ["Ann", "bob"]
    assert site.calls[0][3] == {"1", "guest-2"}


async def test_a_missing_recipient_is_an_error_with_a_short_name(site: Site) -> None:
    with pytest.raises(UserNotFound, match="x is not a member of lobby") as raised:
        await site.publisher.publish(site.room, 1, to=["ann", "x" * 1000])
    assert len(raised.value.message) < 100
    assert site.calls == []


# Checks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "protocol", "expected"),
    [
        (None, None, 20),
        (None, Native, 20),
        # Its largest frame is the only limit.
        (None, Roomer, None),
        (9, None, 9),
        (9, Roomer, 9),
    ],
)
async def test_the_largest_message_depends_on_application_and_protocol(
    limit: int | None, protocol: Any, expected: int | None
) -> None:
    site = Site(max_message_bytes=limit)
    connection = None if protocol is None else Connection("c", protocol())
    assert site.publisher.max_bytes(site.room, connection) == expected


async def test_a_message_that_is_too_large_is_refused(site: Site) -> None:
    await site.publisher.publish(site.room, "x" * 18, volatile=True)
    with pytest.raises(MessageTooLarge, match="at most 20 bytes, got 21"):
        await site.publisher.publish(site.room, "x" * 19)
    site = Site(max_message_bytes=3)
    with pytest.raises(MessageTooLarge, match="at most 3 bytes, got 4"):
        await site.publisher.publish(site.room, "é")


def test_the_original_data_counts_too(site: Site) -> None:
    command = SendOriginal(room="lobby", data=Raw(b"1"), original=Raw(b"[" + b"1," * 20 + b"1]"))
    with pytest.raises(MessageTooLarge):
        site.publisher.check(command, 20)
    site.publisher.check(command, 100)
    state = SendOriginal(room="lobby", data=Raw(b"1"), original=Raw(b"12345678901"), state=True)
    with pytest.raises(MessageTooLarge, match="at most 10 bytes of state, got 11"):
        site.publisher.check(state, 20)


async def test_state_is_stored_for_all_and_has_a_limit_of_its_own(site: Site) -> None:
    await site.start("12345678", state=True)
    assert site.history.appends[0][1].state is True
    with pytest.raises(MessageTooLarge, match="at most 10 bytes of state, got 11"):
        await site.publisher.publish(site.room, "123456789", state=True)
    for options in ({"to": "ann"}, {"volatile": True}):
        with pytest.raises(BadRequest):
            await site.publisher.publish(site.room, 1, state=True, **cast(Any, options))
    site.complete(InternalError("End."))


async def test_original_data_is_stored_unless_an_extension_changed_the_data(site: Site) -> None:
    data, original = Raw(b"1"), Raw(b'{"x":1}')
    command = SendOriginal(room="lobby", data=data, original=original)
    for sent, expected in ((data, original), (Raw(b"1"), UNSET)):
        pending = ServerMessage(
            broker=site.publisher.broker, room=site.room, recipients=None, exclude=None, volatile=False
        )
        site.publisher.store(command, sent, ANN, pending)
        assert site.history.appends[-1][1].original is expected


async def test_the_key_and_the_name_of_the_row_are_passed_on(site: Site) -> None:
    pending = ServerMessage(
        broker=site.publisher.broker, room=site.room, recipients=None, exclude=None, volatile=False
    )
    command = Send(room="LOBBY", data=Raw(b"1"), key="k")
    site.publisher.store(command, command.data, ANN, pending)
    assert (site.history.appends[0][1].room, site.history.appends[0][2]) == ("lobby", "k")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("joined", ReservedEvent),
        ("a\0b", BadRequest),
        ("x" * 10_000, BadRequest),
        ("", BadRequest),
    ],
)
async def test_an_event_name_that_is_not_allowed_is_refused(
    site: Site, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await site.publisher.publish(site.room, 1, event=name)


def test_other_protocols_may_have_empty_event_names() -> None:
    check_event_name("")
    with pytest.raises(BadRequest, match="of 1 to"):
        check_event_name("", min_length=1)


def test_size_and_default_event_name() -> None:
    assert check_size(Raw("é".encode()), None) == 2
    assert event_name(Send(room="lobby", data=Raw(b"1"))) == "message"
    assert event_name(Send(room="lobby", data=Raw(b"1"), event="news")) == "news"
