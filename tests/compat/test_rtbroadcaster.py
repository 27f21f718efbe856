"""rtbroadcaster's codec, against section 2 of the foreign protocols; messages are written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from rooms.compat.rtbroadcaster import Rtbroadcaster
from rooms.protocol.base import error_event
from rooms.protocol.commands import CloseRoom, Command, Leave
from rooms.protocol.compat_commands import CompatJoin, CreateOwnedRoom, Disconnect, SendOriginal
from rooms.protocol.errors import (
    BadRequest,
    MessageTooLarge,
    Muted,
    NotSender,
    PermissionDenied,
    RateLimited,
    Rejected,
    RoomFull,
    RoomNotFound,
    RoomsError,
)
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
)
from rooms.protocol.results import JoinData, RoomDetails, You
from rooms.protocol.types import User

ROOM = "7d2f3f0c-6a57-4d0e-9c53-0d9a3e1b7c11"
OTHER = "11111111-2222-4333-8444-555555555555"
ANN = User(name="ann", id="1", guest=False)

Answer = Callable[[Command], RoomsError | None]


def message(value: int, uuid: str = "", /, **more: Any) -> str:
    fields = {"funcKey": "", "funcParams": [], "stateMessage": False}
    return json.dumps({"uuid": uuid, "status": {"value": value, "text": "connected"}, **fields, **more})


def status(value: int, text: str, uuid: str = "") -> dict[str, Any]:
    told: dict[str, Any] = json.loads(message(value, uuid))
    told["status"]["text"] = text
    return told


def said(event: str, data: bytes, *, original: str | None = None, state: bool = False) -> Message:
    return Message(
        room=ROOM,
        event=event,
        data=Raw(data),
        sender=ANN,
        seq=1,
        time="2026-01-01T00:00:00.000Z",
        state=True if state else UNSET,
        original=UNSET if original is None else Raw(original.encode()),
    )


def told(frame: bytes | None) -> Any:
    assert frame is not None
    assert b"\n" not in frame
    return json.loads(frame)


class Client:
    """A codec whose requests are granted, unless ``answer`` refuses; and all that its client was told."""

    def __init__(self, answer: Answer = lambda command: None, state: tuple[Message, ...] = ()) -> None:
        self.codec = Rtbroadcaster()
        self.answer = answer
        self.state = state
        self.told: list[Any] = []

    def say(self, frame: str | bytes) -> list[Any]:
        """Have a frame carried out; the requests in it. What is told in return is added to ``told``."""
        asked = []
        for command in self.codec.decode(frame):
            if isinstance(command, Error):
                self.tell(command)
                continue
            asked.append(command)
            if (refusal := self.answer(command)) is not None:
                self.tell(error_event(command.id, refusal))
            elif not isinstance(command, Disconnect):
                self.tell(Reply(id=command.id, data=self._granted(command)))
        return asked

    def tell(self, event: Event) -> None:
        self.told += map(told, self.codec.encode_all(event))

    def hear(self) -> list[Any]:
        """What it was told since the last look."""
        new, self.told = self.told, []
        return new

    def _granted(self, command: Command) -> object:
        if not isinstance(command, CompatJoin):
            return {}
        return JoinData(
            room=RoomDetails(
                name=command.room,
                title="",
                mode="broadcast",
                owner=None,
                max_members=None,
                you=You(send=False, moderate=False),
            ),
            members=[ANN],
            count=1,
            state=list(self.state),
            messages=[said("old", b'["1"]')],
            recovered=False,
            position=None,
        )


def owner() -> tuple[Client, str]:
    """One who has made a room, and its uuid."""
    client = Client()
    made, _ = client.say(message(1))
    client.hear()
    return client, made.room


def listener(**options: Any) -> Client:
    client = Client(**options)
    client.say(message(2, ROOM))
    client.hear()
    return client


def refusing(kind: type[Command], error: RoomsError) -> Answer:
    return lambda command: error if isinstance(command, kind) else None


# Coming in ---------------------------------------------------------------------------------------


def test_one_who_makes_a_room_comes_into_it() -> None:
    client = Client()
    made, entered = client.say(message(1, OTHER))
    assert isinstance(made, CreateOwnedRoom)
    assert isinstance(entered, CompatJoin)
    assert made.room == entered.room != OTHER
    assert UUID(made.room).version == 4
    assert str(UUID(made.room)) == made.room
    assert (made.mode, made.leave_grace, entered.create) == ("broadcast", 0, "never")


def test_the_maker_is_told_the_room_and_a_listener_the_uuid_as_it_was_sent() -> None:
    client, listening = Client(), Client()
    made, _ = client.say(message(1))
    assert client.hear()[0]["status"] == {"value": 3, "text": "connected"}
    (entered,) = listening.say(message(2, made.room.upper()))
    assert entered.room == made.room
    assert listening.hear() == [status(3, "connected", made.room.upper())]


def test_the_maker_hears_the_uuid_of_its_room() -> None:
    client = Client()
    made, _ = client.say(message(1))
    assert client.hear() == [status(3, "connected", made.room)]


@pytest.mark.parametrize(
    "spelling",
    [
        ROOM,
        ROOM.upper(),
        ROOM.replace("-", ""),
        ROOM.replace("-", "").upper(),
        f"{{{ROOM}}}",
        f"urn:uuid:{ROOM}",
        f"URN:UUID:{ROOM.upper()}",
    ],
)
def test_whatever_names_a_uuid_names_that_room(spelling: str) -> None:
    (entered,) = Client().say(message(2, spelling))
    assert entered.room == ROOM


@pytest.mark.parametrize(
    "name",
    [
        *(
            "lobby",
            "東京",
            " a ",
            ROOM[:-1],
            ROOM + "0",
            f"{{{ROOM}",
            f"urn:uuid:{{{ROOM}}}",
            f"urn:uu\u0131d:{ROOM}",
        ),
        *(ROOM.replace("-", "_"), "0x" + "a" * 30, "١" * 32, "-" + ROOM[1:], "x" * 128),
    ],
)
def test_what_is_no_uuid_is_tried_as_the_name_of_a_room(name: str) -> None:
    (entered,) = Client().say(message(2, name))
    assert (entered.room, entered.create) == (name, "never")


@pytest.mark.parametrize("name", ["", "a\nb", "\0", "x" * 129, "a\x9f"])
def test_what_no_room_can_be_called_is_not_connected(name: str) -> None:
    client = Client()
    assert client.say(message(2, name)) == []
    assert client.hear() == [status(0, "not connected", name)]


def test_a_room_that_is_not_there_is_not_connected() -> None:
    client = Client(refusing(CompatJoin, RoomNotFound("There is no room.")))
    client.say(message(2, ROOM.upper()))
    assert client.hear() == [status(0, "not connected", ROOM.upper())]


def test_another_refusal_is_told_and_another_try_is_fine() -> None:
    client = Client(refusing(CompatJoin, RoomFull("Room x is full (2 of 2).")))
    client.say(message(2, ROOM))
    assert client.hear() == [status(0, "Room x is full (2 of 2).", ROOM)]
    client.answer = lambda command: None
    client.say(message(2, ROOM))
    assert client.hear() == [status(3, "connected", ROOM)]


def test_who_may_not_make_rooms_is_told_so() -> None:
    client = Client(refusing(CreateOwnedRoom, PermissionDenied("Rooms are made by the staff here.")))
    assert [type(each) for each in client.say(message(1))] == [CreateOwnedRoom]
    assert client.hear() == [status(0, "Rooms are made by the staff here.")]


def test_a_room_into_which_its_maker_may_not_come_does_not_stay() -> None:
    client = Client(refusing(CompatJoin, Rejected("Not today.")))
    made, _, closed = client.say(message(1))
    assert isinstance(closed, CloseRoom)
    assert closed.room == made.room
    assert client.hear() == [status(0, "Not today.")]
    client.answer = lambda command: Rejected("No.")
    client.say(message(1))
    assert client.hear() == [status(0, "No.")]


def test_that_such_a_room_could_not_be_closed_is_nobodys_business() -> None:
    client = Client(
        lambda command: None if isinstance(command, CreateOwnedRoom) else Rejected(type(command).__name__)
    )
    client.say(message(1))
    assert client.hear() == [status(0, "CompatJoin")]


@pytest.mark.parametrize("value", [1, 2])
def test_who_is_in_a_room_stays_there(value: int) -> None:
    for client in (owner()[0], listener()):
        assert client.say(message(value, OTHER)) == []
        assert client.hear() == [status(0, "already in a room", OTHER)]


def test_the_state_follows_the_answer_in_order_and_the_past_does_not() -> None:
    state = (
        said("zoom", b'["2"]', state=True),
        said("angle", b'{"x":1}', state=True),
        said(
            "slide", b"[]", original=message(3, "any", funcKey="slide", funcParams=None, more=[1]), state=True
        ),
        said("short", b"[]", original='{"stateMessage":true,"funcKey":"short"}', state=True),
    )
    client = Client(state=state)
    client.say(message(2, ROOM))
    shape = {"status": {"value": 3, "text": "connected"}, "uuid": ROOM, "stateMessage": True}
    assert client.hear() == [
        status(3, "connected", ROOM),
        {**shape, "funcKey": "zoom", "funcParams": ["2"]},
        {**shape, "funcKey": "angle", "funcParams": ['{"x":1}']},
        {**shape, "uuid": "any", "funcKey": "slide", "funcParams": None, "stateMessage": False},
        {
            "uuid": "",
            "status": {"value": 0, "text": ""},
            "funcKey": "short",
            "funcParams": None,
            "stateMessage": True,
        },
    ]


# Speaking ----------------------------------------------------------------------------------------


def test_the_usual_message_needs_no_words_of_its_own() -> None:
    client, room = owner()
    (say,) = client.say(message(3, room, funcKey="move", funcParams=["1", "ü\n"]))
    assert isinstance(say, SendOriginal)
    assert (say.room, say.event, say.state, say.echo, say.original) == (room, "move", None, False, None)
    assert json.loads(bytes(say.data)) == ["1", "ü\n"]
    assert client.hear() == []


def test_a_state_message_is_state() -> None:
    client, room = owner()
    (say,) = client.say(message(3, room, funcKey="slide", funcParams=["3"], stateMessage=True))
    assert (say.state, say.original) == (True, None)


@pytest.mark.parametrize(
    "more",
    [
        {"extra": {"a": [1]}},
        {"status": {"value": 3, "text": "anything at all"}},
        {"status": {"value": 3, "text": "connected", "more": 1}},
        {"uuid": "another"},
        {"uuid": ROOM.upper()},
        {"funcParams": None},
    ],
)
def test_what_an_owner_says_in_its_own_way_is_kept(more: dict[str, Any]) -> None:
    client, room = owner()
    sent = message(3, room, **{"funcKey": "move", "funcParams": ["1"], **more})
    (say,) = client.say(sent)
    assert say.original is not None
    assert bytes(say.original).decode() == sent
    assert json.loads(bytes(say.data)) == (more.get("funcParams", ["1"]) or [])
    heard = said(say.event, bytes(say.data), original=sent)
    assert told(Rtbroadcaster.encode_broadcast(heard, "")) == json.loads(sent)


def test_a_message_with_members_left_out_is_passed_on_so() -> None:
    client, _ = owner()
    (say,) = client.say('{"status":{"value":3}}')
    assert (say.event, bytes(say.data), say.state) == ("", b"[]", None)
    assert bytes(say.original) == b'{"status":{"value":3}}'


@pytest.mark.parametrize(
    "more",
    [
        '"\\ud800"',
        '{"\\udc00":"\\udc00\\ud800"}',
        "9223372036854775808",
        "9" * 5000,
        "-1e999",
        "[" * 300 + "]" * 300,
    ],
)
def test_members_that_nobody_knows_are_passed_on_whatever_they_hold(more: str) -> None:
    client, room = owner()
    sent = f'{{"more":{more},' + message(3, room, funcKey="move", funcParams=["1"], stateMessage=True)[1:]
    (say,) = client.say(sent)
    # Between processes it is read as JSON.
    original = msgspec.json.decode(msgspec.json.encode({"original": say.original}), type=dict[str, Raw])[
        "original"
    ]
    heard = msgspec.structs.replace(said("move", b'["1"]', state=True), original=original)
    assert Rtbroadcaster.encode_broadcast(heard, "") == sent.encode()
    late = Client(state=(heard,))
    late.say(message(2, room))
    assert late.hear()[1:] == [
        json.loads(message(3, room, funcKey="move", funcParams=["1"], stateMessage=True))
    ]


def test_what_no_reader_follows_is_told() -> None:
    client, room = owner()
    deep = f'{{"more":{"[" * 20_000}{"]" * 20_000},' + message(3, room)[1:]
    assert client.say(deep) == []
    (told,) = client.hear()
    assert told["status"] == {"value": 0, "text": "A message is not nested that deep."}


def test_newlines_are_read_as_spaces() -> None:
    client, room = owner()
    sent = message(3, room, funcKey="a b", funcParams=["1"]).replace("a b", "a\nb").replace(", ", ",\n")
    (say,) = client.say(sent)
    assert (say.event, say.original) == ("a b", None)
    (say,) = client.say(sent.replace("{", '{"more":\n1,', 1))
    assert b"\n" not in bytes(say.original)
    assert json.loads(bytes(say.original))["more"] == 1


@pytest.mark.parametrize("error", [MessageTooLarge("State has at most 5 bytes."), BadRequest("100 names.")])
def test_state_that_cannot_be_kept_is_heard_all_the_same(error: RoomsError) -> None:
    client, room = owner()
    client.answer = lambda command: error if isinstance(command, SendOriginal) and command.state else None
    sent = message(3, room, funcKey="slide", funcParams=["3"], stateMessage=True)
    kept, heard = client.say(sent)
    assert (kept.state, heard.state, heard.event, heard.data) == (True, None, "slide", kept.data)
    assert told(
        Rtbroadcaster.encode_broadcast(said("slide", b'["3"]', original=bytes(heard.original).decode()), "")
    ) == (json.loads(sent))
    assert client.hear() == [status(3, error.message, room)]
    client.answer = lambda command: None
    assert len(client.say(sent)) == 1
    assert client.hear() == []


def test_what_is_refused_for_another_reason_is_not_said_again() -> None:
    client, room = owner()
    sent = message(3, room, funcKey="slide", stateMessage=True)
    client.answer = refusing(SendOriginal, Muted("You are muted here."))
    assert len(client.say(sent)) == 1
    assert client.hear() == [status(3, "You are muted here.", room)]
    client.answer = refusing(SendOriginal, MessageTooLarge("Too large at all."))
    assert len(client.say(sent)) == 2
    assert client.hear() == [status(3, "Too large at all.", room)]
    client.answer = refusing(SendOriginal, MessageTooLarge("Too large at all."))
    assert len(client.say(message(3, room))) == 1
    assert client.hear() == [status(3, "Too large at all.", room)]


def test_much_state_is_told_in_frames_of_their_own() -> None:
    state = tuple(said(f"key{number}", b'["x"]', state=True) for number in range(3))
    client = Client(state=state)
    (entered,) = client.say(message(2, ROOM))
    frames = client.codec.encode_all(Reply(id=entered.id, data=client._granted(entered)))
    assert [json.loads(frame)["funcKey"] for frame in frames] == ["", "key0", "key1", "key2"]


def test_null_would_take_state_away_and_is_said_as_an_empty_list() -> None:
    client, room = owner()
    (say,) = client.say(message(3, room, funcKey="stop", funcParams=None, stateMessage=True))
    assert (bytes(say.data), say.state) == (b"[]", True)


def test_a_binary_frame_is_its_text() -> None:
    client, room = owner()
    (say,) = client.say(message(3, room, funcKey="ä").encode())
    assert say.event == "ä"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NotSender("Only its owner speaks in x."), "only the owner can broadcast"),
        (Muted("You are muted here."), "You are muted here."),
        (RateLimited("Too many requests."), "Too many requests."),
        (RoomNotFound("There is no room x."), "There is no room x."),
    ],
)
def test_who_may_not_speak_stays_connected(error: RoomsError, text: str) -> None:
    client = listener(answer=refusing(SendOriginal, error))
    client.say(message(3, ROOM.upper(), funcKey="move", funcParams=["1"]))
    assert client.hear() == [status(3, text, ROOM.upper())]


# Ends --------------------------------------------------------------------------------------------


def test_an_owner_closes_its_room_and_is_told_with_everybody() -> None:
    client, room = owner()
    (closed,) = client.say(message(4, room))
    assert isinstance(closed, CloseRoom)
    assert closed.room == room
    assert client.hear() == []
    client.tell(Removed(room=room, reason="closed", message="The room was closed."))
    client.tell(Closing(code=1000, message="The room was closed."))
    assert client.hear() == [status(0, "not connected", room)]


def test_an_owner_who_could_not_close_its_room_is_still_in_it() -> None:
    client, room = owner()
    client.answer = refusing(CloseRoom, RateLimited("Later."))
    client.say(message(4, room))
    assert client.hear() == [status(3, "Later.", room)]


def test_a_listener_who_closes_goes_alone() -> None:
    client = listener()
    left, quits = client.say(message(4, ROOM.upper()))
    assert isinstance(left, Leave)
    assert left.room == ROOM
    assert isinstance(quits, Disconnect)
    client.tell(Closing(code=1000, message="Good bye."))
    assert client.hear() == [status(0, "not connected", ROOM)]


def test_a_listener_who_is_not_let_go_stays() -> None:
    client = listener(answer=refusing(Leave, Rejected("Stay.")))
    assert [type(each) for each in client.say(message(4, ROOM))] == [Leave]
    assert client.hear() == [status(3, "Stay.", ROOM)]


@pytest.mark.parametrize("reason", ["kicked", "banned", "closed"])
def test_who_is_put_out_is_not_connected(reason: Any) -> None:
    client = listener()
    client.tell(Removed(room=ROOM, reason=reason, message="Because."))
    client.tell(Closing(code=1000, message="Because."))
    assert client.hear() == [status(0, "not connected", ROOM)]


def test_a_connection_that_ends_otherwise_says_why() -> None:
    for client, room in ((Client(), ""), (listener(), ROOM)):
        client.tell(Closing(code=4000, message="The server restarts.", retry_in=1.5))
        client.tell(Closing(code=4000, message="The server restarts."))
        assert client.hear() == [status(0, "The server restarts.", room)]


# What is wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, 4])
def test_before_a_room_there_is_nothing_to_say(value: int) -> None:
    client = Client()
    assert client.say(message(value, ROOM)) == []
    (told,) = client.hear()
    assert (told["status"]["value"], told["uuid"]) == (0, ROOM)
    assert "status value 1" in told["status"]["text"]


@pytest.mark.parametrize("value", [0, 5, 9, -1, 2**62])
def test_an_unknown_value_is_told_with_the_lawful_ones(value: int) -> None:
    for client in (Client(), listener()):
        assert client.say(message(value, ROOM)) == []
        text = f"Expected a status value of 1 (new), 2 (join), 3 (connected) or 4 (close), got {value}."
        assert client.hear() == [status(0, text, ROOM)]


@pytest.mark.parametrize(
    "frame",
    [
        *(
            "",
            "this is no JSON",
            "[]",
            "null",
            '"x"',
            "{",
            "{} {}",
            "{}\n{}",
            '{"a":"\\q"}',
            '{"a":NaN}',
            "\0",
        ),
        *(b"\xff", '{"a":"b\x01"}', '{"a":"\ud800"}', "[" * 100_000),
    ],
)
def test_what_is_no_object_is_told(frame: str | bytes) -> None:
    client = listener()
    assert client.say(frame) == []
    (told,) = client.hear()
    assert told["status"]["value"] == 0
    assert (told["uuid"], told["funcKey"], told["funcParams"], told["stateMessage"]) == ("", "", [], False)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (
            message(3, ROOM).replace('"value": 3', '"value": "3"'),
            "This is not a valid message: expected int, got str at status.value.",
        ),
        (
            message(3, ROOM, funcParams="x"),
            "This is not a valid message: expected array or null, got str at funcParams.",
        ),
        (message(3, ROOM, funcParams=[1]), "expected str, got int at funcParams[0]."),
        (message(3, ROOM, funcKey=None), "expected str, got null at funcKey."),
        (message(3, ROOM, stateMessage=1), "expected bool, got int at stateMessage."),
        (message(3, ROOM, status=3), "expected object, got int at status."),
        (message(3, ROOM, funcKey="x" * 65), "A funcKey has at most 64 characters, none of them NUL."),
        (message(3, ROOM, funcKey="\0"), "A funcKey has at most 64 characters, none of them NUL."),
        (message(3, ROOM, funcKey="\ud800"), "Text must not hold lone surrogates."),
        (message(3, ROOM, funcParams="\ud800"), "Text must not hold lone surrogates."),
        (message(3, ROOM, status="\ud800"), "Text must not hold lone surrogates."),
        (message(2**63, ROOM), "expected int <= 9223372036854775807 at status.value."),
        (message(3, ROOM, more="\ud800", funcParams=[1]), "expected str, got int at funcParams[0]."),
    ],
)
def test_what_breaks_a_rule_is_told_with_the_uuid(frame: str, text: str) -> None:
    client = listener()
    assert client.say(frame) == []
    (told,) = client.hear()
    assert text in told["status"]["text"]
    assert (told["status"]["value"], told["uuid"]) == (0, ROOM)


def test_a_uuid_that_cannot_be_written_again_is_not_echoed() -> None:
    client = Client()
    client.say('{"uuid":"\\ud800","status":{"value":2}}')
    client.say('{"uuid":7,"status":{"value":2}}')
    assert [each["uuid"] for each in client.hear()] == ["", ""]


def test_after_a_fault_all_goes_on() -> None:
    client, room = owner()
    client.say("nonsense")
    assert [type(each) for each in client.say(message(3, room, funcKey="move"))] == [SendOriginal]


# What others say ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "params"),
    [
        (b'["1","2"]', ["1", "2"]),
        (b"[]", []),
        (b'[\n"1"\n]', ["1"]),
        (b'"hello"', ["hello"]),
        (b'""', [""]),
        (b'{"text":"hi"}', ['{"text":"hi"}']),
        (b"[1]", ["[1]"]),
        (b"null", ["null"]),
        (b"17", ["17"]),
        (b'"17"', ['"17"']),
        (b'{"base64":"/wA="}', ['{"base64":"/wA="}']),
    ],
)
def test_what_other_doors_say_comes_as_parameters(data: bytes, params: list[str]) -> None:
    for state in (False, True):
        heard = told(Rtbroadcaster.encode_broadcast(said("chat", data, state=state), ""))
        assert heard == {
            "uuid": ROOM,
            "status": {"value": 3, "text": "connected"},
            "funcKey": "chat",
            "funcParams": params,
            "stateMessage": state,
        }


def test_what_is_said_to_one_is_told_as_an_owner_says_it_but_not_what_is_said_outside_of_rooms() -> None:
    client = listener()
    direct = Direct(room="", event="move", data=Raw(b'["1"]'), sender=None, to="x")
    client.tell(direct)
    # In roomer's room of all the server says it to clients of every protocol.
    client.tell(msgspec.structs.replace(direct, room="root"))
    client.tell(msgspec.structs.replace(direct, room="lobby", sender=ANN, to="ann"))
    client.tell(msgspec.structs.replace(direct, sender=ANN, outside=True))
    usual = json.loads(message(3, funcKey="move", funcParams=["1"]))
    assert client.hear() == [{**usual, "uuid": ROOM}] * 2 + [{**usual, "uuid": "lobby"}]
    outside = msgspec.structs.replace(direct, outside=True)
    assert Rtbroadcaster.encode_broadcast(outside, "") is None


def test_nothing_is_taken_for_the_answer_to_coming_in() -> None:
    client = Client()
    client.tell(Direct(room="", event="move", data=Raw(b'["1"]'), sender=None, to="x"))
    assert client.hear() == []


@pytest.mark.parametrize(
    "event",
    [
        Connected(connection="c", application="a", user=ANN, ping=25, version=1),
        Joined(room=ROOM, user=ANN),
        Left(room=ROOM, user=ANN, reason="left"),
        Members(room=ROOM, count=201, joined=[], left=[]),
    ],
)
def test_it_is_silent_about_who_comes_and_goes(event: Event) -> None:
    assert listener().codec.encode(event) is None
    assert Rtbroadcaster.encode_broadcast(event, "") is None


# Anything ----------------------------------------------------------------------------------------

texts = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts, lambda each: st.lists(each, max_size=3)
)
nearly_messages = st.fixed_dictionaries(
    {},
    optional={
        "uuid": texts | st.just(ROOM) | values,
        "status": st.fixed_dictionaries(
            {}, optional={"value": st.integers(0, 5) | values, "text": texts | values}
        ),
        "funcKey": texts | values,
        "funcParams": st.lists(texts, max_size=3) | values,
        "stateMessage": st.booleans() | values,
        "more": values,
    },
)


@given(st.lists(st.binary() | st.text() | nearly_messages.map(json.dumps), max_size=8))
def test_whatever_comes_is_asked_or_answered(frames: list[str | bytes]) -> None:
    client = Client()
    for frame in frames:
        asked = client.say(frame)
        # A message that is carried out without a word is one that everybody is told.
        assert client.hear() or isinstance(asked[0], SendOriginal | CloseRoom)


@given(st.text(max_size=64).filter(lambda key: "\0" not in key), st.lists(st.text()), st.booleans(), texts)
def test_what_an_owner_says_is_what_listeners_hear(
    key: str, params: list[str], state: bool, text: str
) -> None:
    client, room = owner()
    sent = message(
        3,
        room,
        funcKey=key,
        funcParams=params,
        stateMessage=state,
        status={"value": 3, "text": text or "connected"},
    )
    (say,) = client.say(sent)
    heard = msgspec.structs.replace(
        said(say.event, bytes(say.data), state=say.state is True),
        room=room,
        original=UNSET if say.original is None else say.original,
    )
    assert told(Rtbroadcaster.encode_broadcast(heard, "")) == json.loads(sent)
    assert (say.original is None) is (text in ("", "connected"))
    late = Client(state=(heard,))
    late.say(message(2, room))
    assert late.hear()[1:] == [json.loads(sent)]
