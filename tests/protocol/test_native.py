"""The native protocol's codec, against sections 1, 4, 6, 8 and 10 of the protocol."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from rooms.protocol import commands, events, types, validators
from rooms.protocol.commands import Command, Ping, Send
from rooms.protocol.errors import BadRequest, CloseCode, ProtocolError
from rooms.protocol.events import Error, Event, Message, Reply
from rooms.protocol.native import RESERVED, Native
from rooms.protocol.types import User

ANN = User(name="ann", id="1", guest=False)


def read(frame: str) -> list[Command | Error]:
    return list(Native().decode(frame))


def one(**fields: Any) -> Command | Error:
    (found,) = read(json.dumps(fields))
    return found


def refused(**fields: Any) -> Error:
    found = one(**fields)
    assert isinstance(found, Error), found
    return found


# Reading -----------------------------------------------------------------------------------------


def test_one_request_to_a_line() -> None:
    frame = '{"type":"ping","id":1}\n\n  \n{"type":"leave","room":"a"}\r\n'
    assert read(frame) == [Ping(id=1), commands.Leave(room="a")]


def test_the_good_part_of_a_frame_is_carried_out_before_it_breaks() -> None:
    reading = iter(Native().decode('{"type":"ping"}\nnonsense\n{"type":"ping"}'))
    assert next(reading) == Ping()
    with pytest.raises(ProtocolError) as raised:
        next(reading)
    assert raised.value.close_code is CloseCode.BAD_FRAME


@pytest.mark.parametrize(
    "frame", ["nonsense", "[]", "1", '"ping"', "null", "{", '{"type":"ping"} {}', "\x00"]
)
def test_what_is_no_json_object_ends_the_connection(frame: str) -> None:
    with pytest.raises(ProtocolError):
        read(frame)


def test_a_binary_frame_ends_the_connection() -> None:
    with pytest.raises(ProtocolError):
        list(Native().decode(b'{"type":"ping"}'))


def test_unknown_fields_are_ignored_and_null_counts_as_absent() -> None:
    assert one(
        type="join", room="a", id=None, password=None, since=None, limit=None, shoe=7
    ) == commands.Join(room="a")


def test_null_is_data_like_any_other() -> None:
    found = one(type="message", room="a", data=None)
    assert isinstance(found, Send)
    assert bytes(found.data) == b"null"


def test_data_stays_as_it_was_written() -> None:
    (found,) = read('{"type":"message","room":"a","data": {"b" : 1.0,  "a":"\\u00e9\\u0000"} }')
    assert isinstance(found, Send)
    assert bytes(found.data) == b'{"b" : 1.0,  "a":"\\u00e9\\u0000"}'


@pytest.mark.parametrize("id", [0, -(2**63), 2**63 - 1, "a", "", "x" * 64])
def test_lawful_ids_come_back(id: int | str) -> None:
    assert one(type="ping", id=id) == Ping(id=id)
    assert refused(type="nonsense", id=id).id == id


@pytest.mark.parametrize("id", [1.5, True, [], {}, "x" * 65])
def test_unlawful_ids_are_a_bad_request_without_id(id: Any) -> None:
    found = refused(type="ping", id=id)
    assert (found.code, found.id) == ("bad_request", UNSET)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "join"},
        {"type": "join", "room": 7},
        {"type": "join", "room": None},
        {"type": "join", "room": "a", "since": {"epoch": "e"}},
        {"type": "join", "room": "a", "since": {"epoch": "e", "seq": -1}},
        {"type": "join", "room": "a", "limit": -1},
        {"type": "join", "room": "a", "limit": 1.5},
        {"type": "message", "room": "a"},
        {"type": "message", "room": "a", "data": 1, "event": ""},
        {"type": "message", "room": "a", "data": 1, "event": "x" * 65},
        {"type": "message", "room": "a", "data": 1, "key": "x" * 65},
        {"type": "message", "room": "a", "data": 1, "to": 7},
        {"type": "message", "room": "a", "data": 1, "to": [7]},
        {"type": "message", "room": "a", "data": 1, "echo": "no"},
        {"type": "create", "room": "a", "mode": "secret"},
        {"type": "create", "room": "a", "max_members": 0},
        {"type": "login", "name": 7},
        {"type": "history", "room": "a", "before": "x"},
        {"type": "join", "room": " a"},
        {"type": "join", "room": ""},
        {"type": "join", "room": "x" * 65},
        {"type": "leave", "room": "a\x00"},
        {"type": "message", "room": "a", "data": 1, "event": "a\0b"},
        {"type": "message", "room": "a", "data": 1, "key": "\0"},
        {"type": "create", "room": "a", "title": "\0"},
        {"type": "rooms", "prefix": "\0"},
        {"type": 7},
        {"type": None},
        {"type": ["join"]},
        {},
    ],
)
def test_fields_that_are_wrong_are_a_bad_request(fields: dict[str, Any]) -> None:
    found = refused(id=7, **fields)
    assert (found.code, found.id, found.retry) == ("bad_request", 7, False)
    assert "`" not in found.message
    assert found.message.endswith(".")


def test_a_wrong_field_is_named() -> None:
    assert refused(type="join", room=7).message == "room: expected str, got int."


def test_an_unknown_type_is_told_what_is_lawful() -> None:
    found = refused(type="jion", id=7)
    assert (found.code, found.id) == ("unknown_type", 7)
    assert "join, leave" in found.message


def test_an_endless_type_is_not_repeated_whole() -> None:
    assert len(refused(type="x" * 10_000).message) < 400


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_events_are_not_called_as_the_protocols_own_types(name: str) -> None:
    found = refused(type="message", id=7, room="a", data=1, event=name)
    assert (found.code, found.id) == ("reserved_event", 7)


def test_the_protocols_own_types_are_reserved_but_for_message() -> None:
    own = {
        *("login", "logout", "rooms", "create", "close", "join", "leave", "history", "members", "subscribe"),
        *("unsubscribe", "kick", "ban", "unban", "mute", "ping", "pong", "reply", "error", "connected"),
        *("joined", "left", "room_added", "room_removed", "removed", "closing"),
    }
    assert own == RESERVED
    assert isinstance(one(type="message", room="a", data=1, event="message"), Send)


@pytest.mark.parametrize(
    "data",
    [
        *("[" * 16 + "]" * 16, "9223372036854775808", "-9223372036854775809", "9" * 5000, "1e309", "-1e999"),
        *("NaN", "Infinity", "-Infinity", '"\\ud800"', '{"\\udc00":1}', '["\\ud800\\ud800"]'),
    ],
)
def test_data_against_section_10_is_a_bad_request_and_the_socket_stays(data: str) -> None:
    found = read('{"type":"message","id":7,"room":"a","data":' + data + '}\n{"type":"ping"}')
    assert isinstance(found[0], Error)
    assert (found[0].code, found[0].id) == ("bad_request", 7)
    assert found[1] == Ping()


@pytest.mark.parametrize(
    "data", ["[" * 15 + "]" * 15, "9223372036854775807", "1e308", '"' + "[" * 99 + '"', '"\\ud83d\\ude00"']
)
def test_data_at_the_edge_of_section_10_passes(data: str) -> None:
    (found,) = read('{"type":"message","room":"a","data":' + data + "}")
    assert isinstance(found, Send)
    assert bytes(found.data).decode() == data


def test_a_refused_request_can_always_be_answered() -> None:
    """An id with a lone surrogate cannot be written again, and must not break the answer."""
    for line in (
        '{"type":"ping","id":"\\ud800"}',
        '{"type":"\\ud800","id":7}',
        '{"type":"ping","id":"\ud800"}',
    ):
        (found,) = read(line)
        assert isinstance(found, Error)
        frame = Native().encode(found)
        assert frame is not None
        assert json.loads(frame)["code"] == "bad_request"


# Arbitrary frames --------------------------------------------------------------------------------

FIELDS = st.sampled_from(
    [
        "type",
        "id",
        "room",
        "data",
        "event",
        "to",
        "since",
        "seq",
        "epoch",
        "limit",
        "name",
        "key",
        "max_members",
    ]
)
TYPES = st.sampled_from(
    ["join", "message", "login", "create", "history", "ping", "rooms", "kick", "nonsense"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | TYPES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(), inner, max_size=3),
    max_leaves=12,
)
REQUESTS = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    TYPES,
    st.dictionaries(FIELDS | st.text(), VALUES, max_size=6),
)


def check_reading(frame: str | bytes) -> None:
    """Nothing but ProtocolError is raised, every answer can be written, and data is JSON."""
    try:
        for found in Native().decode(frame):
            if isinstance(found, Error):
                assert Native().encode(found)
            elif isinstance(found, Send):
                json.loads(bytes(found.data))
                validators.room_name(found.room)
    except ProtocolError:
        pass


@given(st.text() | st.binary() | st.text(st.characters(codec=None)))
def test_arbitrary_frames_raise_nothing_but_protocol_errors(frame: str | bytes) -> None:
    check_reading(frame)


@given(st.lists(REQUESTS.map(json.dumps) | st.text(), max_size=3), st.data())
def test_requests_gone_wrong_raise_nothing_but_protocol_errors(lines: list[str], data: st.DataObject) -> None:
    frame = "\n".join(lines)
    check_reading(frame)
    if frame:
        cut = data.draw(st.integers(0, len(frame) - 1))
        check_reading(frame[:cut] + data.draw(st.text(max_size=3)) + frame[cut + 1 :])


# Round trips -------------------------------------------------------------------------------------


def lawful(room: str) -> bool:
    try:
        return validators.room_name(room) == room
    except BadRequest:
        return False


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=64)
WORDS = TEXTS.filter(lambda text: "\0" not in text)
ROOMS = WORDS.filter(lawful)
IDS = maybe(st.integers(-(2**63), 2**63 - 1) | WORDS)
COUNTS = st.integers(0, 2**63 - 1)
POSITIONS = st.builds(types.Position, epoch=WORDS, seq=COUNTS)
DATA = st.builds(
    lambda value: Raw(json.dumps(value).encode()),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=6,
    ),
)
USERS = st.builds(User, name=WORDS, id=WORDS, guest=st.booleans())
EVENTS = WORDS.filter(lambda name: name not in RESERVED)
FLAGS = maybe(st.booleans())
ENTERING: dict[str, Any] = {
    "room": ROOMS,
    "password": maybe(WORDS),
    "since": maybe(POSITIONS),
    "limit": maybe(COUNTS),
}

EVERY_REQUEST = st.one_of(
    st.builds(commands.Login, id=IDS, name=maybe(WORDS), token=maybe(WORDS)),
    st.builds(commands.Logout, id=IDS),
    st.builds(commands.ListRooms, id=IDS, prefix=maybe(WORDS), limit=maybe(COUNTS)),
    st.builds(
        commands.CreateRoom,
        id=IDS,
        room=ROOMS,
        title=maybe(WORDS),
        mode=maybe(st.sampled_from(["open", "broadcast"])),
        max_members=maybe(st.integers(1, 2**31 - 1)),
        password=maybe(WORDS),
    ),
    st.builds(commands.CloseRoom, id=IDS, room=ROOMS),
    st.builds(commands.Join, id=IDS, **ENTERING),
    st.builds(commands.Leave, id=IDS, room=ROOMS),
    st.builds(commands.Subscribe, id=IDS, **ENTERING),
    st.builds(commands.Unsubscribe, id=IDS, room=ROOMS),
    st.builds(
        Send,
        id=IDS,
        room=ROOMS,
        data=DATA,
        event=maybe(EVENTS),
        key=maybe(WORDS),
        to=maybe(WORDS | st.lists(WORDS, max_size=3)),
        state=FLAGS,
        volatile=FLAGS,
        echo=FLAGS,
    ),
    st.builds(commands.ReadHistory, id=IDS, room=ROOMS, before=maybe(COUNTS), limit=maybe(COUNTS)),
    st.builds(commands.ListMembers, id=IDS, room=ROOMS, after=maybe(WORDS)),
    st.builds(commands.Ping, id=IDS),
    st.builds(commands.Pong, id=IDS),
)

MESSAGES = st.builds(
    Message,
    room=ROOMS,
    event=EVENTS,
    data=DATA,
    sender=maybe(USERS),
    seq=maybe(COUNTS),
    time=WORDS,
    to=st.just(UNSET) | st.lists(WORDS, max_size=3),
    state=st.just(UNSET) | st.just(True),
)


@given(EVERY_REQUEST)
def test_what_a_client_of_ours_writes_is_read_as_it_was_meant(command: Command) -> None:
    frame = Native().encode(command)
    assert frame is not None
    assert read(frame.decode()) == [command]


@given(MESSAGES)
def test_what_is_told_to_a_room_is_read_as_it_was_meant(message: Message) -> None:
    frame = Native.encode_broadcast(message, "chat")
    assert frame is not None
    assert b"\n" not in frame
    assert msgspec.json.decode(frame, type=Message) == message
    assert Native().encode(message) == frame


# Writing -----------------------------------------------------------------------------------------


def written(event: Event | Command) -> Any:
    frame = Native().encode(event)
    assert frame is not None
    return json.loads(frame)


def test_a_reply() -> None:
    assert written(Reply(id=7, data={"seq": 1})) == {"type": "reply", "id": 7, "data": {"seq": 1}}


def test_without_an_id_success_is_silent_and_failure_is_not() -> None:
    assert Native().encode(Reply(id=None, data={})) is None
    assert written(Error(code="room_full", message="Full.")) == {
        "type": "error",
        "code": "room_full",
        "message": "Full.",
        "retry": False,
    }


def test_ping_and_pong() -> None:
    assert written(Ping()) == {"type": "ping"}
    assert written(commands.Pong(id="a")) == {"type": "pong", "id": "a"}


@pytest.mark.parametrize(
    ("event", "wire"),
    [
        (
            events.Connected(connection="c", application="chat", user=None, ping=25, version=1),
            {
                "type": "connected",
                "connection": "c",
                "application": "chat",
                "user": None,
                "ping": 25,
                "version": 1,
            },
        ),
        (
            events.Joined(room="a", user=ANN),
            {"type": "joined", "room": "a", "user": {"name": "ann", "id": "1", "guest": False}},
        ),
        (
            events.Members(room="a", count=201, joined=[Raw(msgspec.json.encode(ANN))], left=[]),
            {
                "type": "members",
                "room": "a",
                "count": 201,
                "joined": [{"name": "ann", "id": "1", "guest": False}],
                "left": [],
            },
        ),
        (events.RoomRemoved(room="a"), {"type": "room_removed", "room": "a"}),
        (events.Removed(room="a", reason="banned"), {"type": "removed", "room": "a", "reason": "banned"}),
        (events.Closing(code=4000, message="Bye."), {"type": "closing", "code": 4000, "message": "Bye."}),
        (
            events.Closing(code=4006, message="Bye.", retry_in=2.5),
            {"type": "closing", "code": 4006, "message": "Bye.", "retry_in": 2.5},
        ),
    ],
)
def test_pushes_as_the_protocol_writes_them(event: Event, wire: dict[str, Any]) -> None:
    assert written(event) == wire
    frame = Native.encode_broadcast(event, "chat")
    assert frame is not None
    assert json.loads(frame) == wire


def test_absent_options_of_a_message_are_left_out_and_nulls_are_not() -> None:
    message = Message(room="a", event="e", data=Raw(b"null"), sender=None, seq=None, time="t")
    assert written(message) == {
        "type": "message",
        "room": "a",
        "event": "e",
        "data": None,
        "from": None,
        "seq": None,
        "time": "t",
    }
