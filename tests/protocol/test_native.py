"""The native codec: sections 1, 4, 6, 8 and 10 of the native protocol."""

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


def decode(frame: str) -> list[Command | Error]:
    return list(Native().decode(frame))


def decode_one(**fields: Any) -> Command | Error:
    (found,) = decode(json.dumps(fields))
    return found


def refused(**fields: Any) -> Error:
    found = decode_one(**fields)
    assert isinstance(found, Error), found
    return found


# Decoding ----------------------------------------------------------------------------------------


def test_each_line_is_a_command() -> None:
    frame = '{"type":"ping","id":1}\n\n  \n{"type":"leave","room":"a"}\r\n'
    assert decode(frame) == [Ping(id=1), commands.Leave(room="a")]


def test_the_lines_before_an_invalid_one_are_decoded() -> None:
    reading = iter(Native().decode('{"type":"ping"}\nnonsense\n{"type":"ping"}'))
    assert next(reading) == Ping()
    with pytest.raises(ProtocolError) as raised:
        next(reading)
    assert raised.value.close_code is CloseCode.BAD_FRAME


@pytest.mark.parametrize(
    "frame", ["nonsense", "[]", "1", '"ping"', "null", "{", '{"type":"ping"} {}', "\x00"]
)
def test_a_line_that_is_not_a_json_object_is_a_protocol_error(frame: str) -> None:
    with pytest.raises(ProtocolError):
        decode(frame)


def test_a_binary_frame_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        list(Native().decode(b'{"type":"ping"}'))


def test_unknown_fields_are_ignored_and_null_counts_as_absent() -> None:
    assert decode_one(
        type="join", room="a", id=None, password=None, since=None, limit=None, shoe=7
    ) == commands.Join(room="a")


def test_null_is_valid_data() -> None:
    found = decode_one(type="message", room="a", data=None)
    assert isinstance(found, Send)
    assert bytes(found.data) == b"null"


def test_data_keeps_its_text() -> None:
    (found,) = decode('{"type":"message","room":"a","data": {"b" : 1.0,  "a":"\\u00e9\\u0000"} }')
    assert isinstance(found, Send)
    assert bytes(found.data) == b'{"b" : 1.0,  "a":"\\u00e9\\u0000"}'


@pytest.mark.parametrize("id", [0, -(2**63), 2**63 - 1, "a", "", "x" * 64])
def test_valid_ids_are_kept(id: int | str) -> None:
    assert decode_one(type="ping", id=id) == Ping(id=id)
    assert refused(type="nonsense", id=id).id == id


@pytest.mark.parametrize("id", [1.5, True, [], {}, "x" * 65])
def test_invalid_ids_are_a_bad_request_without_id(id: Any) -> None:
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
def test_invalid_fields_are_a_bad_request(fields: dict[str, Any]) -> None:
    found = refused(id=7, **fields)
    assert (found.code, found.id, found.retry) == ("bad_request", 7, False)
    assert "`" not in found.message
    assert found.message.endswith(".")


def test_an_invalid_field_is_named() -> None:
    assert refused(type="join", room=7).message == "room: expected str, got int."


def test_the_error_for_an_unknown_type_lists_the_known_ones() -> None:
    found = refused(type="jion", id=7)
    assert (found.code, found.id) == ("unknown_type", 7)
    assert "join, leave" in found.message


def test_a_long_type_is_cut_in_the_error() -> None:
    assert len(refused(type="x" * 10_000).message) < 400


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_an_event_named_like_a_type_of_the_protocol_is_refused(name: str) -> None:
    found = refused(type="message", id=7, room="a", data=1, event=name)
    assert (found.code, found.id) == ("reserved_event", 7)


def test_all_types_of_the_protocol_except_message_are_reserved() -> None:
    own = {
        *("login", "logout", "rooms", "create", "close", "join", "leave", "history", "members", "subscribe"),
        *("unsubscribe", "kick", "ban", "unban", "mute", "ping", "pong", "reply", "error", "connected"),
        *("joined", "left", "room_added", "room_removed", "removed", "closing"),
    }
    assert own == RESERVED
    assert isinstance(decode_one(type="message", room="a", data=1, event="message"), Send)


@pytest.mark.parametrize(
    "data",
    [
        *("[" * 16 + "]" * 16, "9223372036854775808", "-9223372036854775809", "9" * 5000, "1e309", "-1e999"),
        *("NaN", "Infinity", "-Infinity", '"\\ud800"', '{"\\udc00":1}', '["\\ud800\\ud800"]'),
    ],
)
def test_data_that_breaks_section_10_is_a_bad_request(data: str) -> None:
    found = decode('{"type":"message","id":7,"room":"a","data":' + data + '}\n{"type":"ping"}')
    assert isinstance(found[0], Error)
    assert (found[0].code, found[0].id) == ("bad_request", 7)
    assert found[1] == Ping()


@pytest.mark.parametrize(
    "data", ["[" * 15 + "]" * 15, "9223372036854775807", "1e308", '"' + "[" * 99 + '"', '"\\ud83d\\ude00"']
)
def test_data_at_the_limits_of_section_10_is_decoded(data: str) -> None:
    (found,) = decode('{"type":"message","room":"a","data":' + data + "}")
    assert isinstance(found, Send)
    assert bytes(found.data).decode() == data


def test_the_error_for_a_lone_surrogate_can_be_encoded() -> None:
    """An id with a lone surrogate cannot be encoded, and must not break the answer."""
    for line in (
        '{"type":"ping","id":"\\ud800"}',
        '{"type":"\\ud800","id":7}',
        '{"type":"ping","id":"\ud800"}',
    ):
        (found,) = decode(line)
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
COMMANDS = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    TYPES,
    st.dictionaries(FIELDS | st.text(), VALUES, max_size=6),
)


def check_decoding(frame: str | bytes) -> None:
    """Assert that only ProtocolError is raised, errors can be encoded, data is JSON."""
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
    check_decoding(frame)


@given(st.lists(COMMANDS.map(json.dumps) | st.text(), max_size=3), st.data())
def test_damaged_commands_raise_nothing_but_protocol_errors(lines: list[str], data: st.DataObject) -> None:
    frame = "\n".join(lines)
    check_decoding(frame)
    if frame:
        cut = data.draw(st.integers(0, len(frame) - 1))
        check_decoding(frame[:cut] + data.draw(st.text(max_size=3)) + frame[cut + 1 :])


# Round trips -------------------------------------------------------------------------------------


def is_valid(room: str) -> bool:
    try:
        return validators.room_name(room) == room
    except BadRequest:
        return False


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=64)
STORED_TEXTS = TEXTS.filter(lambda text: "\0" not in text)
ROOMS = STORED_TEXTS.filter(is_valid)
IDS = maybe(st.integers(-(2**63), 2**63 - 1) | STORED_TEXTS)
COUNTS = st.integers(0, 2**63 - 1)
POSITIONS = st.builds(types.Position, epoch=STORED_TEXTS, seq=COUNTS)
DATA = st.builds(
    lambda value: Raw(json.dumps(value).encode()),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=6,
    ),
)
USERS = st.builds(User, name=STORED_TEXTS, id=STORED_TEXTS, guest=st.booleans())
EVENTS = STORED_TEXTS.filter(lambda name: name not in RESERVED)
FLAGS = maybe(st.booleans())
JOINING: dict[str, Any] = {
    "room": ROOMS,
    "password": maybe(STORED_TEXTS),
    "since": maybe(POSITIONS),
    "limit": maybe(COUNTS),
}

EVERY_COMMAND = st.one_of(
    st.builds(commands.Login, id=IDS, name=maybe(STORED_TEXTS), token=maybe(STORED_TEXTS)),
    st.builds(commands.Logout, id=IDS),
    st.builds(commands.ListRooms, id=IDS, prefix=maybe(STORED_TEXTS), limit=maybe(COUNTS)),
    st.builds(
        commands.CreateRoom,
        id=IDS,
        room=ROOMS,
        title=maybe(STORED_TEXTS),
        mode=maybe(st.sampled_from(["open", "broadcast"])),
        max_members=maybe(st.integers(1, 2**31 - 1)),
        password=maybe(STORED_TEXTS),
    ),
    st.builds(commands.CloseRoom, id=IDS, room=ROOMS),
    st.builds(commands.Join, id=IDS, **JOINING),
    st.builds(commands.Leave, id=IDS, room=ROOMS),
    st.builds(commands.Subscribe, id=IDS, **JOINING),
    st.builds(commands.Unsubscribe, id=IDS, room=ROOMS),
    st.builds(
        Send,
        id=IDS,
        room=ROOMS,
        data=DATA,
        event=maybe(EVENTS),
        key=maybe(STORED_TEXTS),
        to=maybe(STORED_TEXTS | st.lists(STORED_TEXTS, max_size=3)),
        state=FLAGS,
        volatile=FLAGS,
        echo=FLAGS,
    ),
    st.builds(commands.ReadHistory, id=IDS, room=ROOMS, before=maybe(COUNTS), limit=maybe(COUNTS)),
    st.builds(commands.ListMembers, id=IDS, room=ROOMS, after=maybe(STORED_TEXTS)),
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
    time=STORED_TEXTS,
    to=st.just(UNSET) | st.lists(STORED_TEXTS, max_size=3),
    state=st.just(UNSET) | st.just(True),
)


@given(EVERY_COMMAND)
def test_encoding_and_decoding_a_command_gives_the_same_command(command: Command) -> None:
    frame = Native().encode(command)
    assert frame is not None
    assert decode(frame.decode()) == [command]


@given(MESSAGES)
def test_encoding_and_decoding_a_message_gives_the_same_message(message: Message) -> None:
    frame = Native.encode_broadcast(message, "chat")
    assert frame is not None
    assert b"\n" not in frame
    assert msgspec.json.decode(frame, type=Message) == message
    assert Native().encode(message) == frame


# Encoding ----------------------------------------------------------------------------------------


def encoded(event: Event | Command) -> Any:
    frame = Native().encode(event)
    assert frame is not None
    return json.loads(frame)


def test_a_reply_has_its_id_and_data() -> None:
    assert encoded(Reply(id=7, data={"seq": 1})) == {"type": "reply", "id": 7, "data": {"seq": 1}}


def test_without_an_id_only_errors_are_encoded() -> None:
    assert Native().encode(Reply(id=None, data={})) is None
    assert encoded(Error(code="room_full", message="Full.")) == {
        "type": "error",
        "code": "room_full",
        "message": "Full.",
        "retry": False,
    }


def test_ping_and_pong_are_encoded() -> None:
    assert encoded(Ping()) == {"type": "ping"}
    assert encoded(commands.Pong(id="a")) == {"type": "pong", "id": "a"}


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
def test_events_are_encoded_as_the_protocol_defines_them(event: Event, wire: dict[str, Any]) -> None:
    assert encoded(event) == wire
    frame = Native.encode_broadcast(event, "chat")
    assert frame is not None
    assert json.loads(frame) == wire


def test_unset_fields_of_a_message_are_left_out_and_nulls_are_not() -> None:
    message = Message(room="a", event="e", data=Raw(b"null"), sender=None, seq=None, time="t")
    assert encoded(message) == {
        "type": "message",
        "room": "a",
        "event": "e",
        "data": None,
        "from": None,
        "seq": None,
        "time": "t",
    }
