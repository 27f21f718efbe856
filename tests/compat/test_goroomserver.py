"""The goroomserver codec: the commands of frames, and the frames of events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from msgspec import Raw, structs

from rooms.compat.goroomserver import Goroomserver
from rooms.protocol.base import error_event
from rooms.protocol.commands import Leave, Login, Logout, Unsubscribe
from rooms.protocol.compat_commands import (
    ApplicationCommand,
    CompatJoin,
    CompatSubscribe,
    SendToApplication,
    SendToRoomOrApplication,
)
from rooms.protocol.errors import BadRequest, Muted, NotMember, Rejected, RoomFull, RoomNotFound, RoomsError
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
    Removed,
    Reply,
    RoomAdded,
    RoomEdited,
    RoomInfo,
    RoomRemoved,
)
from rooms.protocol.results import SentData
from rooms.protocol.types import User

ANN = User(name="ann", id="guest-1", guest=True)
BOB = User(name="bob", id="guest-2", guest=True)
NO_ERROR = {"code": 0, "message": ""}
LOBBY = RoomInfo(name="lobby", title="Lobby", members=0, max_members=None, mode="open")

texts = some.text(some.characters(), max_size=20)  # lone surrogates included: JSON escapes them
values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | texts,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
frames = some.builds(
    json.dumps,
    some.fixed_dictionaries(
        {},
        optional={
            "appName": some.sampled_from(["chat", "test"]) | values,
            "roomName": some.sampled_from(["lobby", ""]) | values,
            "eventType": some.integers(-1, 14) | values,
            "data": some.dictionaries(some.sampled_from(["username", "roomName", "k"]), values)
            | some.just({"roomName": "lobby", "username": "ann"})
            | values,
        },
    ),
)


def frame(event: object = 11, data: object = None, *, room: str = "", app: str = "test") -> str:
    sent = {} if data is None else data
    return json.dumps({"appName": app, "roomName": room, "eventType": event, "data": sent})


def decode(codec: Goroomserver, text: str | bytes) -> Any:
    """Return the command inside the ``ApplicationCommand`` of a frame."""
    (wrapped,) = codec.decode(text)
    assert isinstance(wrapped, ApplicationCommand)
    assert wrapped.application == "test"
    return wrapped.command


def encoded(codec: Goroomserver, event: Event) -> Any:
    written = codec.encode(event)
    return None if written is None else json.loads(written)


def answered(event: int, data: object = None, *, answer: object, room: str = "") -> Any:
    """Return the frame for a command that the node answers with ``answer``."""
    codec = Goroomserver()
    (command,) = codec.decode(frame(event, data, room=room))
    return encoded(codec, Reply(id=command.id, data=answer))  # type: ignore[arg-type]


def refused(event: int, error: RoomsError, data: object = None, *, room: str = "") -> Any:
    codec = Goroomserver()
    (command,) = codec.decode(frame(event, data, room=room))
    return encoded(codec, error_event(command.id, error))  # type: ignore[arg-type]


def broadcast(event: Event) -> Any:
    written = Goroomserver.encode_broadcast(event, "test")
    return None if written is None else json.loads(written)


def message(data: object, *, event: str = "message", sender: User | None = ANN) -> Message:
    raw = Raw(json.dumps(data).encode())
    return Message(room="lobby", event=event, data=raw, sender=sender, seq=1, time="t")


# Decoding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "data", "command"),
    [
        (6, {"username": "ann", "password": "x"}, Login(id=1, name="ann")),
        (7, {}, Logout(id=1)),
        (4, {"roomName": "lobby"}, CompatJoin(id=1, room="lobby", create="never", if_member="refuse")),
        (5, {"roomName": "lobby"}, Leave(id=1, room="lobby")),
        (9, {"roomName": "lobby"}, CompatSubscribe(id=1, room="lobby", create="never", if_member="refuse")),
        (10, {"roomName": "lobby"}, Unsubscribe(id=1, room="lobby")),
        (11, {"text": "hi"}, SendToApplication(id=1, data=Raw(b'{"text":"hi"}'))),
        (3, {}, None),
    ],
)
def test_each_event_is_a_command(event: int, data: object, command: object) -> None:
    assert decode(Goroomserver(), frame(event, data)) == command


def test_a_message_with_a_room_name_is_for_that_room() -> None:
    command = decode(Goroomserver(), frame(11, {"text": "hi", "roomName": "other"}, room="lobby"))
    assert command == SendToRoomOrApplication(
        id=1, room="lobby", data=Raw(b'{"text":"hi","roomName":"other"}')
    )


def test_a_name_in_the_data_is_the_name_of_the_event() -> None:
    command = decode(Goroomserver(), frame(11, {"eventName": "start"}, room="lobby"))
    assert command == SendToRoomOrApplication(
        id=1, room="lobby", event="start", data=Raw(b'{"eventName":"start"}')
    )
    assert decode(Goroomserver(), frame(11, {"eventName": "start"})).event == "start"


@pytest.mark.parametrize("name", ["", None, 5, ["start"]])
def test_an_event_name_that_is_no_text_is_only_data(name: object) -> None:
    assert decode(Goroomserver(), frame(11, {"eventName": name}, room="lobby")).event is None


@pytest.mark.parametrize("name", ["x" * 65, "a\0"])
def test_an_invalid_event_name_is_error_10(name: str) -> None:
    codec = Goroomserver()
    answer = encoded(codec, decode(codec, frame(11, {"eventName": name}, room="lobby")))
    assert (answer["eventType"], answer["error"]["code"]) == (11, 10)
    assert answer["data"]["eventName"] == name


def test_a_binary_frame_is_decoded_like_its_text() -> None:
    assert decode(Goroomserver(), frame(7).encode()) == Logout(id=1)


def test_unknown_members_and_the_order_of_members_are_ignored() -> None:
    text = '{"data":{"username":"ann"},"eventType":6,"unknown":[1,{"x":2}],"appName":"test"}'
    assert decode(Goroomserver(), text) == Login(id=1, name="ann")


def test_member_names_are_matched_exactly() -> None:
    (command,) = Goroomserver().decode('{"AppName":"test","EventType":6,"eventtype":6}')
    assert isinstance(command, ApplicationCommand)
    assert command.application == ""
    assert isinstance(command.command, Error)


@pytest.mark.parametrize("name", [None, 7, {"a": 1}, ["ann"], True])
def test_a_login_without_a_name_has_an_empty_name(name: object) -> None:
    assert decode(Goroomserver(), frame(6, {"username": name})) == Login(id=1, name="")


@pytest.mark.parametrize("event", [4, 5, 9, 10])
@pytest.mark.parametrize("name", [None, "", 7, "a\nb", "x" * 129, "\ud800", "a\x00"])
def test_an_invalid_room_name_is_error_6(event: int, name: object) -> None:
    codec = Goroomserver()
    error = decode(codec, frame(event, {"roomName": name}, room="outer"))
    answer = encoded(codec, error)
    assert answer["error"] == {"code": 6, "message": "Room name provided is invalid"}
    assert (answer["eventType"], answer["code"]) == (event, 500)
    assert answer["data"] == {"roomName": "outer", "appName": "test"}


def test_an_invalid_room_name_of_a_message_is_error_6() -> None:
    codec = Goroomserver()
    answer = encoded(codec, decode(codec, frame(11, {"text": "hi"}, room="a\tb")))
    assert answer["error"]["code"] == 6
    assert answer["data"] == {"text": "hi", "roomName": "a\tb", "appName": "test"}


@pytest.mark.parametrize("name", [" blank ", "x" * 128, "ünï", "zero\u200bwidth"])
def test_room_names_are_unchanged(name: str) -> None:
    assert decode(Goroomserver(), frame(4, {"roomName": name})).room == name


@pytest.mark.parametrize("event", [1, 2, 8, 12, 13, 99, 0, -1, 2**62])
def test_an_event_that_clients_cannot_send_is_error_10_with_the_data(event: int) -> None:
    codec = Goroomserver()
    answer = encoded(codec, decode(codec, frame(event, {"k": "v", "roomName": "x"}, room="r")))
    assert answer == {
        "eventType": event,
        "data": {"k": "v", "roomName": "r", "appName": "test"},
        "code": 500,
        "error": {"code": 10, "message": "Invalid event provided"},
    }


@pytest.mark.parametrize("text", ['{"appName":"test"}', '{"appName":"test","eventType":null,"data":null}'])
def test_missing_and_null_members_are_empty(text: str) -> None:
    codec = Goroomserver()
    answer = encoded(codec, decode(codec, text))
    assert (answer["eventType"], answer["error"]["code"]) == (0, 10)
    assert answer["data"] == {"roomName": "", "appName": "test"}


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ("", 0),
        ("hello", 0),
        ("[1,2", 0),
        ("[]", 0),
        ('{"eventType":11,"data":{', 0),
        ('{"eventType":11,"data":[]}', 11),
        ('{"eventType":11,"data":"x"}', 11),
        ('{"eventType":11,"appName":5}', 11),
        ('{"eventType":11,"roomName":[]}', 11),
        ('{"eventType":"11","data":{}}', 0),
        ('{"eventType":true,"data":{}}', 0),
        ('{"eventType":' + "9" * 40 + "}", 0),
        ('{"eventType":11,"data":{"x":NaN}}', 0),
        ('{"eventType":1e999,"data":{}}', 0),
        ('{"eventType":11,"data":{"x":1e999}}', 11),
        ('{"data":[-1E+400],"eventType":11}', 11),
        ('{"eventType":11,"data":{"x":' + "9" * 5000 + "}}", 11),
        ('{"eventType":11,"data":' + '{"x":' * 20 + "1" + "}" * 21, 11),
        ("[" * 60_000, 0),
        ('{"a":' * 10_000, 0),
        (b"\xff\xfe", 0),
        (b'{"eventType":11}\x00', 0),
    ],
)
def test_a_malformed_frame_is_error_10_with_its_event(text: str | bytes, event: int) -> None:
    codec = Goroomserver()
    (error,) = codec.decode(text)
    assert isinstance(error, Error)
    answer = encoded(codec, error)
    assert (answer["eventType"], answer["code"], answer["error"]["code"]) == (event, 500, 10)
    assert answer["data"] == {"roomName": "", "appName": ""}


def test_the_error_for_a_malformed_frame_repeats_what_could_be_parsed() -> None:
    codec = Goroomserver()
    (error,) = codec.decode('{"appName":"test","roomName":"r","eventType":4,"data":5}')
    assert encoded(codec, error)["data"] == {"roomName": "r", "appName": "test"}  # type: ignore[arg-type]


def test_numbers_beyond_64_bits_are_doubles() -> None:
    numbers = f'{{"appName":"test","eventType":11,"data":{{"n":[9007199254740993,1e21,-0.0,{10**30}]}}}}'
    numbers_read = json.loads(bytes(decode(Goroomserver(), numbers).data))["n"]
    assert numbers_read == [9007199254740993, 1e21, -0.0, 1e30]
    assert isinstance(numbers_read[3], float)


def test_a_message_with_a_lone_surrogate_is_refused_and_repeated() -> None:
    codec = Goroomserver()
    answer = encoded(codec, decode(codec, frame(11, {"text": "\ud800"}, room="lobby")))
    assert answer["error"]["code"] == 10
    assert answer["data"]["text"] == "\ud800"


@given(some.one_of(frames, texts, some.binary()))
def test_every_frame_can_be_answered(sent: str | bytes) -> None:
    codec = Goroomserver()
    (command,) = codec.decode(sent)
    error = command if isinstance(command, Error) else error_event(command.id, NotMember("No."))
    answer = encoded(codec, error)
    assert set(answer) == {"eventType", "data", "code", "error"}
    assert type(answer["eventType"]) is int
    assert {"roomName", "appName"} <= set(answer["data"])


# Answers ---------------------------------------------------------------------------------------------


def test_a_login_is_answered_with_name_and_application() -> None:
    assert answered(6, {"username": "ann", "x": 1}, answer={"user": ANN, "token": "t"}) == {
        "eventType": 6,
        "data": {"userName": "ann", "appName": "test"},
        "code": 200,
        "error": NO_ERROR,
    }


def test_a_logout_is_answered_with_the_user_name_in_its_application() -> None:
    parent = Goroomserver()
    children = {"test": parent.for_application("test"), "other": parent.for_application("other")}
    for user, (application, child) in zip((ANN, BOB), children.items(), strict=True):
        (command,) = parent.decode(frame(6, app=application))
        encoded(child, Reply(id=command.id, data={"user": user, "token": "t"}))  # type: ignore[arg-type]
    (command,) = parent.decode(frame(7))
    answer = encoded(children["test"], Reply(id=command.id, data={}))  # type: ignore[arg-type]
    assert answer["eventType"] == 7
    assert answer["data"] == {"userName": "ann", "appName": "test"}


@pytest.mark.parametrize("event", [4, 5, 9, 10])
def test_joins_and_leaves_are_answered_with_room_and_application(event: int) -> None:
    answer = answered(event, {"roomName": "lobby", "k": 1}, answer={}, room="outer")
    assert answer == {
        "eventType": event,
        "data": {"roomName": "lobby", "appName": "test"},
        "code": 200,
        "error": NO_ERROR,
    }


def test_the_question_for_an_application_is_answered_with_its_name() -> None:
    assert answered(3, answer={})["data"] == {"appName": "test"}


@pytest.mark.parametrize("answer", [SentData(seq=1, time="t"), {"seq": None, "time": "t"}])
def test_a_message_to_a_room_is_not_answered(answer: object) -> None:
    assert answered(11, {"text": "hi"}, answer=answer, room="lobby") is None


def test_a_message_without_a_handler_is_not_answered() -> None:
    assert answered(11, {"text": "hi"}, answer={}) is None


def test_the_answer_of_a_handler_is_sent_to_the_sender() -> None:
    answer = answered(11, {"q": 1}, answer={"seq": None, "time": "t", "right": True}, room="lobby")
    assert answer["data"] == {"right": True, "roomName": "lobby", "appName": "test"}
    assert (answer["eventType"], answer["code"], answer["error"]) == (11, 200, NO_ERROR)


def test_the_answer_of_an_application_handler_is_complete() -> None:
    answer = answered(11, {"q": 1}, answer={"time": "noon", "seq": 5})
    assert answer["data"] == {"time": "noon", "seq": 5, "roomName": "", "appName": "test"}


def errors(code: str) -> Error:
    return Error(id=1, code=code, message="What went wrong.")


@pytest.mark.parametrize(
    ("event", "code", "number"),
    [
        (6, "no_such_application", 1),
        (11, "no_such_application", 1),
        (4, "not_logged_in", 2),
        (99, "not_logged_in", 2),
        (6, "bad_request", 3),
        (6, "login_refused", 3),
        (6, "banned", 3),
        (6, "application_full", 3),
        (6, "name_taken", 4),
        (7, "room_not_found", 5),
        (4, "room_not_found", 7),
        (4, "already_member", 8),
        (9, "already_member", 8),
        (4, "bad_password", 12),
        (9, "banned", 12),
        (4, "too_many_rooms", 12),
        (5, "room_not_found", 7),
        (5, "not_member", 9),
        (10, "not_member", 9),
        (5, "room_closed", 13),
        (11, "not_member", 9),
        (11, "room_not_found", 7),
        (4, "unavailable", 500),
        (6, "rate_limited", 500),
        (0, "rate_limited", 500),
        (5, "internal_error", 500),
    ],
)
def test_each_error_has_a_code_of_this_protocol(event: int, code: str, number: int) -> None:
    codec = Goroomserver()
    list(codec.decode(frame(event, {"roomName": "lobby"})))
    answer = encoded(codec, errors(code))
    assert (answer["eventType"], answer["code"], answer["error"]["code"]) == (event, 500, number)
    assert answer["error"]["message"] != "What went wrong."


@pytest.mark.parametrize(("event", "number"), [(6, 3), (4, 12), (9, 12), (5, 13), (11, 500)])
def test_the_text_of_an_extension_reaches_the_client(event: int, number: int) -> None:
    answer = refused(event, Rejected("Not on Sundays."), {"roomName": "lobby"})
    assert answer["error"] == {"code": number, "message": "Not on Sundays."}


def test_a_join_of_a_full_room_has_a_text_of_its_own() -> None:
    answer = refused(4, RoomFull("Room lobby is full (2 of 2)."), {"roomName": "lobby"})
    assert answer["error"] == {"code": 12, "message": "room is full"}


def test_the_reason_for_a_refused_message_is_sent() -> None:
    answer = refused(11, Muted("You are muted here."), {"text": "hi"}, room="lobby")
    assert answer["error"] == {"code": 500, "message": "You are muted here."}


def test_an_error_repeats_the_data_under_the_outer_names() -> None:
    data = {"roomName": "inner", "appName": "mine", "k": [1, {"x": None}]}
    answer = refused(4, RoomNotFound("No."), data, room="outer")
    assert answer["data"] == {"roomName": "outer", "appName": "test", "k": [1, {"x": None}]}


def test_a_bad_request_is_a_login_error_for_logins_only() -> None:
    assert refused(4, BadRequest("No."), {"roomName": "x"})["error"]["code"] == 6
    assert refused(6, BadRequest("No."))["error"]["code"] == 3


# Events ----------------------------------------------------------------------------------------------


def test_a_message_has_room_application_and_sender() -> None:
    assert broadcast(message({"text": "hi", "roomName": "fake", "userName": "fake"})) == {
        "eventType": 11,
        "data": {"text": "hi", "roomName": "lobby", "appName": "test", "userName": "ann"},
        "code": 200,
        "error": NO_ERROR,
    }


def test_a_message_of_the_server_has_an_empty_sender() -> None:
    assert broadcast(message({}, sender=None))["data"]["userName"] == ""


@pytest.mark.parametrize("value", ["hi", 5, None, [1, 2], True])
def test_data_that_is_no_object_becomes_a_member(value: object) -> None:
    assert broadcast(message(value))["data"]["data"] == value


def test_an_event_name_is_added_unless_the_data_has_one() -> None:
    assert broadcast(message({"a": 1}, event="score"))["data"]["eventName"] == "score"
    assert broadcast(message({"eventName": "mine"}, event="score"))["data"]["eventName"] == "mine"
    assert "eventName" not in broadcast(message({"a": 1}))["data"]


def test_members_of_the_data_keep_their_text() -> None:
    deep = "[" * 100 + "]" * 100
    raw = Raw(f' {{"a":{deep},"b":1e999,"c":1.10}}'.encode())
    written = Goroomserver.encode_broadcast(structs.replace(message({}), data=raw), "test")
    assert written is not None
    assert f'"data":{{"a":{deep},"b":1e999,"c":1.10,"roomName":"lobby"'.encode() in written


def test_added_and_removed_rooms_are_encoded() -> None:
    about = {"roomName": "lobby", "appName": "test"}
    assert broadcast(RoomAdded(room=LOBBY)) == {
        "eventType": 12,
        "data": about,
        "code": 200,
        "error": NO_ERROR,
    }
    gone = broadcast(RoomRemoved(room="lobby"))
    assert (gone["eventType"], gone["data"]) == (13, about)


@pytest.mark.parametrize(("sender", "name"), [(None, ""), (BOB, "bob")])
def test_a_direct_message_is_encoded_like_a_message(sender: User | None, name: str) -> None:
    event = Direct(room="r", event="message", data=Raw(b'{"a":1}'), sender=sender, to="ann")
    data = {"a": 1, "roomName": "r", "appName": "test", "userName": name}
    assert broadcast(event)["data"] == data
    assert encoded(Goroomserver().for_application("test"), event)["data"] == data
    outside = structs.replace(event, outside=True)
    assert Goroomserver.encode_broadcast(outside, "test") is None


@pytest.mark.parametrize(
    "event",
    [
        Connected(connection="c", application="test", user=None, ping=25, version=1),
        Joined(room="lobby", user=ANN),
        Left(room="lobby", user=ANN, reason="left"),
        Members(room="lobby", count=201, joined=[], left=[]),
        Removed(room="lobby", reason="kicked"),
        Closing(code=4500, message="Bye."),
        RoomEdited(room=LOBBY),
    ],
)
def test_other_events_have_no_frame(event: Event) -> None:
    assert Goroomserver().encode(event) is None
    assert broadcast(event) is None
