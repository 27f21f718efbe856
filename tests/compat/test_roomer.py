"""The roomer codec, with frames written by hand."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from rooms.compat.roomer import MAX_ID_LENGTH, RESERVED, Roomer
from rooms.protocol.commands import Command, Leave, Ping, Pong
from rooms.protocol.compat_commands import CompatJoin, SendDirect, SendToRoomOrApplication
from rooms.protocol.errors import CloseCode, ProtocolError
from rooms.protocol.events import (
    Closing,
    Connected,
    Direct,
    Error,
    Event,
    Joined,
    Left,
    Members,
    Message,
    Rejoined,
    Removed,
    Reply,
    RoomAdded,
    RoomInfo,
    RoomRemoved,
)
from rooms.protocol.payload import to_bytes
from rooms.protocol.results import JoinData, RoomDetails, SentData, You
from rooms.protocol.types import User

ID = "6b1f6f0e-6c4b-4d3f-9a53-2f6f0c7d8e11"
SELF = User(name=ID, id=f"guest-{ID}", guest=True)
ANN = User(name="ann", id="1", guest=False)

Field = str | bytes


def frame(*fields: Field) -> bytes:
    """Return fields, each after its length."""
    texts = [field.encode() if isinstance(field, str) else field for field in fields]
    return b"".join(struct.pack(">I", len(text)) + text for text in texts)


def decode(frame: str | bytes) -> list[Command | Error]:
    return list(Roomer().decode(frame))


def connected() -> tuple[Roomer, CompatJoin]:
    """Return a codec and its first command, the join of ``root``."""
    roomer = Roomer()
    (command,) = roomer.on_connected(ID)
    assert isinstance(command, CompatJoin)
    return roomer, command


def decode_one(roomer: Roomer, event: str, room: str) -> Any:
    """Return the command of a client's join or leave; its answer has the same id."""
    (command,) = roomer.decode(frame(room, event, ID, ID, ID))
    assert isinstance(command, CompatJoin | Leave)
    assert command.id is not None
    return command


def join_data(room: str, *members: User, earlier: Message | None = None) -> JoinData:
    messages = [earlier] if earlier else []
    you = You(send=True, moderate=False)
    return JoinData(
        room=RoomDetails(name=room, title="", mode="open", owner=None, max_members=None, you=you),
        members=list(members),
        count=len(members),
        state=messages,
        messages=messages,
        recovered=False,
        position=None,
    )


def joined(room: str) -> Roomer:
    """Return the codec of a client that has joined a room."""
    roomer, _ = connected()
    command = decode_one(roomer, "join", room)
    assert roomer.encode(Reply(id=command.id, data=join_data(room, SELF))) is not None
    return roomer


def error_for(command: Command, code: str, *, retry: bool = False) -> Error:
    assert command.id is not None
    return Error(id=command.id, code=code, message="No.", retry=retry)


def message(**fields: Any) -> Message:
    usual: dict[str, Any] = {"room": "lobby", "event": "chat", "sender": ANN, "data": Raw(b'"Hello"')}
    return Message(**{**usual, "seq": 1, "time": "t", **fields})


# Decoding ----------------------------------------------------------------------------------------


def test_the_example_of_the_specification_is_decoded() -> None:
    data = bytes.fromhex("000000056c6f6262790000000463686174" + "00000000" + "00000024") + ID.encode()
    data += bytes.fromhex("0000000b") + b"Hello room!"
    assert decode(data) == [
        SendToRoomOrApplication(room="lobby", event="chat", data=Raw(b'"Hello room!"'), echo=False)
    ]


def test_a_new_connection_joins_root() -> None:
    _, command = connected()
    assert (command.room, command.create, command.if_member) == ("root", "always", "announce")
    assert command.id is not None


@pytest.mark.parametrize("rest", [("", "", ""), (ID, ID, ID), ("ann", "", "{}")])
def test_join_and_leave_ignore_the_other_fields(rest: tuple[str, str, str]) -> None:
    (join,) = decode(frame("lobby", "join", *rest))
    assert isinstance(join, CompatJoin)
    assert (join.room, join.create, join.if_member) == ("lobby", "on_demand", "announce")
    (leave,) = decode(frame("lobby", "leave", *rest))
    assert isinstance(leave, Leave)
    assert leave.room == "lobby"


def test_commands_that_are_answered_have_different_ids() -> None:
    roomer, root = connected()
    ids = [
        root.id,
        decode_one(roomer, "join", "a").id,
        decode_one(roomer, "join", "a").id,
        decode_one(roomer, "leave", "a").id,
    ]
    assert len(set(ids)) == 4


def test_a_recipient_makes_a_message_direct() -> None:
    assert decode(frame("lobby", "chat", "ann", "forged", b"\xff")) == [
        SendDirect(room="lobby", event="chat", data=Raw(b'{"base64":"/w=="}'), to="ann")
    ]


def test_a_message_is_not_sent_back_to_its_sender() -> None:
    (command,) = decode(frame("lobby", "cursor-moved", "", "", b'{"x":1}'))
    assert command == SendToRoomOrApplication(
        room="lobby", event="cursor-moved", data=Raw(b'{"x":1}'), echo=False
    )


def test_an_event_may_have_an_empty_name() -> None:
    assert decode(frame("lobby", "", "", "", "")) == [
        SendToRoomOrApplication(room="lobby", event="", data=Raw(b'""'), echo=False)
    ]


@pytest.mark.parametrize("to", ["", ID])
@pytest.mark.parametrize("event", sorted(RESERVED))
def test_reserved_events_are_dropped(event: str, to: str) -> None:
    assert decode(frame("lobby", event, to, "", ID)) == []


def test_the_reserved_names_are_those_of_the_specification() -> None:
    assert RESERVED | {"join", "leave"} == {
        *("close", "join", "join_ack", "leave", "leave_ack", "member_left", "new_member", "open")
    }


@pytest.mark.parametrize("room", ["", "x" * 129, "a\nb", "a\0", "\x7f", "a\x85"])
@pytest.mark.parametrize(("event", "to"), [("join", ID), ("leave", ID), ("chat", ""), ("chat", "ann")])
def test_a_frame_with_an_invalid_room_name_is_dropped(room: str, event: str, to: str) -> None:
    assert decode(frame(room, event, to, "", "")) == []


@pytest.mark.parametrize(
    "room", [" ", " v-Case", "x" * 128, "🦊" * 70, "Zürich – 東京", "cafe\u0301", "\u200b"]
)
def test_room_names_are_unchanged(room: str) -> None:
    (command,) = decode(frame(room, "join", "", "", ""))
    assert isinstance(command, CompatJoin)
    assert command.room == room


@pytest.mark.parametrize("event", ["e" * 65, "a\0b"])
def test_a_frame_with_an_invalid_event_name_is_dropped(event: str) -> None:
    assert decode(frame("lobby", event, "", "", "")) == []


@pytest.mark.parametrize("event", ["e" * 1024, "a\0b"])
def test_direct_messages_may_have_longer_event_names(event: str) -> None:
    (command,) = decode(frame("lobby", event, "ann", "", "x"))
    assert command == SendDirect(room="lobby", event=event, data=Raw(b'"x"'), to="ann")
    assert decode(frame("lobby", event + "e" * 1023, "ann", "", "")) == []


def test_a_recipient_with_a_name_that_is_too_long_is_dropped() -> None:
    assert decode(frame("lobby", "chat", "n" * (MAX_ID_LENGTH + 1), "", "")) == []
    assert len(decode(frame("lobby", "chat", "n" * MAX_ID_LENGTH, "", ""))) == 1


VALID = frame("root", "note", "", "", "x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 19,
        b"\x80" + b"\0" * 19,
        b"\0\0\0\xffroot\0\0\0\x04note" + b"\0" * 8 + b"\0\0\0\x01x",
        VALID + b"\0",
        VALID + VALID,
        VALID[:-1],
        b"\xff\xff\xff\xff" * 5,
        frame("root", "note", "", ""),
        frame(b"\xff", "note", "", "", ""),
        frame("root", b"\xed\xa0\x80", "", "", ""),
        frame("root", "note", b"\xc3", "", ""),
        frame("root", "note", "", b"\xc3", ""),
        "hello, this is not a frame at all",
        "",
    ],
)
def test_a_malformed_frame_is_a_protocol_error(data: str | bytes) -> None:
    with pytest.raises(ProtocolError) as raised:
        decode(data)
    assert raised.value.close_code is CloseCode.BAD_FRAME


def test_a_text_frame_is_decoded_like_its_bytes() -> None:
    binary = frame("Zürich", "note", "", "", "ü")
    assert decode(binary.decode()) == decode(binary)
    assert decode(binary) == [
        SendToRoomOrApplication(room="Zürich", event="note", data=Raw('"ü"'.encode()), echo=False)
    ]


def test_the_shortest_valid_frame_has_no_room_and_is_dropped() -> None:
    assert decode(b"\0" * 20) == []


# Encoding ----------------------------------------------------------------------------------------


def test_a_join_is_answered_with_the_members() -> None:
    roomer, root = connected()
    answer = roomer.encode(Reply(id=root.id, data=join_data("root", ANN, SELF)))
    assert answer == frame("root", "join_ack", "", ID, f'["ann","{ID}"]')


def test_the_answer_to_a_join_holds_no_earlier_messages() -> None:
    roomer, _ = connected()
    command = decode_one(roomer, "join", "lobby")
    answer = roomer.encode(Reply(id=command.id, data=join_data("lobby", SELF, earlier=message(state=True))))
    assert answer == frame("lobby", "join_ack", "", ID, f'["{ID}"]')


def test_a_leave_is_answered_with_leave_ack() -> None:
    roomer = joined("lobby")
    command = decode_one(roomer, "leave", "lobby")
    assert roomer.encode(Reply(id=command.id, data={})) == frame("lobby", "leave_ack", "", ID, ID)


def test_a_leave_of_a_client_that_is_no_member_is_answered_with_leave_ack() -> None:
    roomer, _ = connected()
    command = decode_one(roomer, "leave", "lobby")
    assert roomer.encode(error_for(command, "not_member")) == frame("lobby", "leave_ack", "", ID, ID)


@pytest.mark.parametrize("code", ["rejected", "rate_limited", "unavailable", "internal_error"])
def test_a_refused_leave_is_not_answered(code: str) -> None:
    roomer = joined("lobby")
    assert roomer.encode(error_for(decode_one(roomer, "leave", "lobby"), code)) is None


@pytest.mark.parametrize(
    "code",
    ["room_not_found", "room_full", "banned", "bad_password", "rejected", "rate_limited", "unavailable"],
)
def test_a_refused_join_is_answered_with_leave_ack(code: str) -> None:
    roomer, root = connected()
    assert roomer.encode(error_for(root, code)) == frame("root", "leave_ack", "", ID, ID)
    command = decode_one(roomer, "join", "lobby")
    assert roomer.encode(error_for(command, code)) == frame("lobby", "leave_ack", "", ID, ID)


def test_a_refused_second_join_is_not_answered() -> None:
    roomer = joined("lobby")
    assert roomer.encode(error_for(decode_one(roomer, "join", "lobby"), "rate_limited")) is None
    assert roomer.encode(Removed(room="lobby", reason="kicked")) is not None
    assert roomer.encode(error_for(decode_one(roomer, "join", "lobby"), "banned")) is not None


def test_a_refused_join_after_a_leave_is_answered_with_leave_ack() -> None:
    roomer = joined("lobby")
    roomer.encode(Reply(id=decode_one(roomer, "leave", "lobby").id, data={}))
    assert roomer.encode(error_for(decode_one(roomer, "join", "lobby"), "banned")) is not None


def test_each_command_is_answered_once() -> None:
    roomer, _ = connected()
    command = decode_one(roomer, "join", "lobby")
    answer = Reply(id=command.id, data=join_data("lobby", SELF))
    assert roomer.encode(answer) is not None
    assert roomer.encode(answer) is None
    assert roomer.encode(error_for(command, "unavailable")) is None


def test_a_removed_client_receives_leave_ack() -> None:
    roomer = joined("lobby")
    for reason in ("kicked", "banned", "closed", "logged_out"):
        removed = Removed(room="lobby", reason=reason, message="Out.")
        assert roomer.encode(removed) == frame("lobby", "leave_ack", "", ID, ID)


def test_joins_and_leaves_are_encoded_and_presence_diffs_are_not() -> None:
    for event in (Joined(room="lobby", user=ANN), Rejoined(room="lobby", user=ANN)):
        assert Roomer.encode_broadcast(event, "chat") == frame("lobby", "new_member", "", "", "ann")
    left = Left(room="lobby", user=ANN, reason="kicked")
    assert Roomer.encode_broadcast(left, "chat") == frame("lobby", "member_left", "", "", "ann")
    assert Roomer.encode_broadcast(Members(room="lobby", count=201, joined=[], left=[]), "chat") is None


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (message(), frame("lobby", "chat", "", "ann", "Hello")),
        (message(sender=None), frame("lobby", "chat", "", "", "Hello")),
        (message(to=["ben"]), frame("lobby", "chat", "ben", "ann", "Hello")),
        (message(to=["ben", "ann"]), frame("lobby", "chat", "", "ann", "Hello")),
        (message(to=[]), frame("lobby", "chat", "", "ann", "Hello")),
        (message(event=""), frame("lobby", "", "", "ann", "Hello")),
        (message(room="東京", event="é"), frame("東京", "é", "", "ann", "Hello")),
        (message(data=Raw(b'{"x": 1}')), frame("lobby", "chat", "", "ann", '{"x": 1}')),
        (message(data=Raw(b'{"base64":"AP8="}')), frame("lobby", "chat", "", "ann", b"\x00\xff")),
        (message(data=Raw(b'""')), frame("lobby", "chat", "", "ann", "")),
        (message(original=Raw(b"{}"), state=True), frame("lobby", "chat", "", "ann", "Hello")),
    ],
)
def test_messages_are_encoded_for_members(sent: Message, expected: bytes) -> None:
    assert Roomer.encode_broadcast(sent, "chat") == expected
    assert joined("lobby").encode(sent) == expected


def test_direct_messages_are_encoded_with_their_recipient() -> None:
    direct = Direct(room="lobby", event="whisper", data=Raw(b'"only you"'), sender=ANN, to=ID)
    expected = frame("lobby", "whisper", ID, "ann", "only you")
    assert Roomer.encode_broadcast(direct, "chat") == expected
    assert joined("lobby").encode(direct) == expected
    server = Direct(room="root", event="answer", data=Raw(b"1"), sender=None, to=ID)
    assert Roomer.encode_broadcast(server, "chat") == frame("root", "answer", ID, "", "1")


INFO = RoomInfo(name="lobby", title="", members=1, max_members=None, mode="open")


@pytest.mark.parametrize(
    "event",
    [
        Connected(connection=ID, application="chat", user=SELF, ping=25, version=1),
        Reply(id=None, data=SentData(seq=1, time="t")),
        Reply(id=77, data=join_data("lobby", SELF)),
        Error(id=UNSET, code="not_member", message="No."),
        Error(id=77, code="not_member", message="No."),
        Ping(),
        Pong(),
        RoomAdded(room=INFO),
        RoomRemoved(room="lobby"),
        Closing(code=4000, message="Bye."),
    ],
)
def test_other_events_have_no_frame(event: Event | Command) -> None:
    assert joined("lobby").encode(event) is None


# Arbitrary frames----------------------------------------------------------------------------------

room_names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)
event_names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=64)


@given(st.binary(max_size=60) | st.text(max_size=60))
@example("\ud800")
def test_arbitrary_frames_raise_nothing_but_protocol_errors(data: str | bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(data)


@given(st.lists(st.binary(max_size=8), min_size=5, max_size=5), st.integers(0, 80), st.integers(0, 255))
def test_damaged_frames_raise_nothing_but_protocol_errors(fields: list[bytes], place: int, byte: int) -> None:
    data = bytearray(frame(*fields))
    data[place % len(data)] = byte
    with contextlib.suppress(ProtocolError):
        decode(bytes(data))


@given(room_names, event_names, st.binary(max_size=60))
def test_decoding_and_encoding_a_message_gives_the_same_frame(room: str, event: str, payload: bytes) -> None:
    if event in RESERVED | {"join", "leave"}:
        return
    (command,) = decode(frame(room, event, "", "forged", payload))
    assert isinstance(command, SendToRoomOrApplication)
    sent = message(room=command.room, event=command.event, data=command.data, sender=SELF)
    assert Roomer.encode_broadcast(sent, "chat") == frame(room, event, "", ID, payload)
    assert to_bytes(command.data) == payload


@given(room_names, event_names, st.binary(max_size=60))
def test_decoding_and_encoding_a_direct_message_gives_the_same_frame(
    room: str, event: str, payload: bytes
) -> None:
    if event in RESERVED | {"join", "leave"}:
        return
    (command,) = decode(frame(room, event, "ann", "", payload))
    assert isinstance(command, SendDirect)
    direct = Direct(room=command.room, event=command.event, data=command.data, sender=SELF, to=command.to)
    assert Roomer.encode_broadcast(direct, "chat") == frame(room, event, "ann", ID, payload)
