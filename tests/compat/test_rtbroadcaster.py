"""The rtbroadcaster codec, with messages written by hand."""

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
    parsed: dict[str, Any] = json.loads(message(value, uuid))
    parsed["status"]["text"] = text
    return parsed


def stored(event: str, data: bytes, *, original: str | None = None, state: bool = False) -> Message:
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


def parsed(frame: bytes | None) -> Any:
    assert frame is not None
    assert b"\n" not in frame
    return json.loads(frame)


class Client:
    """A codec with a node whose commands succeed, unless ``answer`` returns an error."""

    def __init__(self, answer: Answer = lambda command: None, state: tuple[Message, ...] = ()) -> None:
        self.codec = Rtbroadcaster()
        self.answer = answer
        self.state = state
        self.frames: list[Any] = []

    def send(self, frame: str | bytes) -> list[Any]:
        """Execute a frame and return its commands; the answers are added to ``frames``."""
        commands = []
        for command in self.codec.decode(frame):
            if isinstance(command, Error):
                self.encode(command)
                continue
            commands.append(command)
            if (refusal := self.answer(command)) is not None:
                self.encode(error_event(command.id, refusal))
            elif not isinstance(command, Disconnect):
                self.encode(Reply(id=command.id, data=self._reply_data(command)))
        return commands

    def encode(self, event: Event) -> None:
        self.frames += map(parsed, self.codec.encode_all(event))

    def take(self) -> list[Any]:
        """Return the frames since the last call."""
        frames, self.frames = self.frames, []
        return frames

    def _reply_data(self, command: Command) -> object:
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
            messages=[stored("old", b'["1"]')],
            recovered=False,
            position=None,
        )


def owner() -> tuple[Client, str]:
    """Return a client that has created a room, and the room's uuid."""
    client = Client()
    created, _ = client.send(message(1))
    client.take()
    return client, created.room


def listener(**options: Any) -> Client:
    client = Client(**options)
    client.send(message(2, ROOM))
    client.take()
    return client


def refusing(kind: type[Command], error: RoomsError) -> Answer:
    return lambda command: error if isinstance(command, kind) else None


# Joins -------------------------------------------------------------------------------------------


def test_creating_a_room_joins_it() -> None:
    client = Client()
    created, joined = client.send(message(1, OTHER))
    assert isinstance(created, CreateOwnedRoom)
    assert isinstance(joined, CompatJoin)
    assert created.room == joined.room != OTHER
    assert UUID(created.room).version == 4
    assert str(UUID(created.room)) == created.room
    assert (created.mode, created.leave_grace, joined.create) == ("broadcast", 0, "never")


def test_the_answer_to_a_join_repeats_the_uuid_as_it_was_sent() -> None:
    client, other = Client(), Client()
    created, _ = client.send(message(1))
    assert client.take()[0]["status"] == {"value": 3, "text": "connected"}
    (joined,) = other.send(message(2, created.room.upper()))
    assert joined.room == created.room
    assert other.take() == [status(3, "connected", created.room.upper())]


def test_the_owner_receives_the_uuid_of_its_room() -> None:
    client = Client()
    created, _ = client.send(message(1))
    assert client.take() == [status(3, "connected", created.room)]


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
def test_all_spellings_of_a_uuid_name_the_same_room(spelling: str) -> None:
    (joined,) = Client().send(message(2, spelling))
    assert joined.room == ROOM


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
def test_a_text_that_is_no_uuid_is_a_room_name(name: str) -> None:
    (joined,) = Client().send(message(2, name))
    assert (joined.room, joined.create) == (name, "never")


@pytest.mark.parametrize("name", ["", "a\nb", "\0", "x" * 129, "a\x9f"])
def test_an_invalid_room_name_is_not_connected(name: str) -> None:
    client = Client()
    assert client.send(message(2, name)) == []
    assert client.take() == [status(0, "not connected", name)]


def test_a_missing_room_is_not_connected() -> None:
    client = Client(refusing(CompatJoin, RoomNotFound("There is no room.")))
    client.send(message(2, ROOM.upper()))
    assert client.take() == [status(0, "not connected", ROOM.upper())]


def test_a_refused_join_may_be_repeated() -> None:
    client = Client(refusing(CompatJoin, RoomFull("Room x is full (2 of 2).")))
    client.send(message(2, ROOM))
    assert client.take() == [status(0, "Room x is full (2 of 2).", ROOM)]
    client.answer = lambda command: None
    client.send(message(2, ROOM))
    assert client.take() == [status(3, "connected", ROOM)]


def test_a_client_that_may_not_create_rooms_receives_the_reason() -> None:
    client = Client(refusing(CreateOwnedRoom, PermissionDenied("Rooms are made by the staff here.")))
    assert [type(each) for each in client.send(message(1))] == [CreateOwnedRoom]
    assert client.take() == [status(0, "Rooms are made by the staff here.")]


def test_a_room_that_its_owner_cannot_join_is_closed() -> None:
    client = Client(refusing(CompatJoin, Rejected("Not today.")))
    created, _, closed = client.send(message(1))
    assert isinstance(closed, CloseRoom)
    assert closed.room == created.room
    assert client.take() == [status(0, "Not today.")]
    client.answer = lambda command: Rejected("No.")
    client.send(message(1))
    assert client.take() == [status(0, "No.")]


def test_the_failed_close_of_such_a_room_is_not_answered() -> None:
    client = Client(
        lambda command: None if isinstance(command, CreateOwnedRoom) else Rejected(type(command).__name__)
    )
    client.send(message(1))
    assert client.take() == [status(0, "CompatJoin")]


@pytest.mark.parametrize("value", [1, 2])
def test_a_client_in_a_room_cannot_join_another(value: int) -> None:
    for client in (owner()[0], listener()):
        assert client.send(message(value, OTHER)) == []
        assert client.take() == [status(0, "already in a room", OTHER)]


def test_the_answer_to_a_join_is_followed_by_the_state_in_order() -> None:
    state = (
        stored("zoom", b'["2"]', state=True),
        stored("angle", b'{"x":1}', state=True),
        stored(
            "slide", b"[]", original=message(3, "any", funcKey="slide", funcParams=None, more=[1]), state=True
        ),
        stored("short", b"[]", original='{"stateMessage":true,"funcKey":"short"}', state=True),
    )
    client = Client(state=state)
    client.send(message(2, ROOM))
    shape = {"status": {"value": 3, "text": "connected"}, "uuid": ROOM, "stateMessage": True}
    assert client.take() == [
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


# Messages ----------------------------------------------------------------------------------------


def test_the_usual_message_has_no_original() -> None:
    client, room = owner()
    (command,) = client.send(message(3, room, funcKey="move", funcParams=["1", "ü\n"]))
    assert isinstance(command, SendOriginal)
    assert (command.room, command.event, command.state, command.echo, command.original) == (
        room,
        "move",
        None,
        False,
        None,
    )
    assert json.loads(bytes(command.data)) == ["1", "ü\n"]
    assert client.take() == []


def test_a_state_message_sets_state() -> None:
    client, room = owner()
    (command,) = client.send(message(3, room, funcKey="slide", funcParams=["3"], stateMessage=True))
    assert (command.state, command.original) == (True, None)


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
def test_a_message_in_another_form_keeps_its_original(more: dict[str, Any]) -> None:
    client, room = owner()
    sent = message(3, room, **{"funcKey": "move", "funcParams": ["1"], **more})
    (command,) = client.send(sent)
    assert command.original is not None
    assert bytes(command.original).decode() == sent
    assert json.loads(bytes(command.data)) == (more.get("funcParams", ["1"]) or [])
    broadcast = stored(command.event, bytes(command.data), original=sent)
    assert parsed(Rtbroadcaster.encode_broadcast(broadcast, "")) == json.loads(sent)


def test_a_message_without_all_members_is_passed_on_unchanged() -> None:
    client, _ = owner()
    (command,) = client.send('{"status":{"value":3}}')
    assert (command.event, bytes(command.data), command.state) == ("", b"[]", None)
    assert bytes(command.original) == b'{"status":{"value":3}}'


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
def test_unknown_members_are_passed_on_unchanged(more: str) -> None:
    client, room = owner()
    sent = f'{{"more":{more},' + message(3, room, funcKey="move", funcParams=["1"], stateMessage=True)[1:]
    (command,) = client.send(sent)
    # Between nodes the message is encoded as JSON.
    original = msgspec.json.decode(msgspec.json.encode({"original": command.original}), type=dict[str, Raw])[
        "original"
    ]
    broadcast = msgspec.structs.replace(stored("move", b'["1"]', state=True), original=original)
    assert Rtbroadcaster.encode_broadcast(broadcast, "") == sent.encode()
    late = Client(state=(broadcast,))
    late.send(message(2, room))
    assert late.take()[1:] == [
        json.loads(message(3, room, funcKey="move", funcParams=["1"], stateMessage=True))
    ]


def test_a_message_that_is_nested_too_deep_is_refused() -> None:
    client, room = owner()
    deep = f'{{"more":{"[" * 20_000}{"]" * 20_000},' + message(3, room)[1:]
    assert client.send(deep) == []
    (parsed,) = client.take()
    assert parsed["status"] == {"value": 0, "text": "A message is not nested that deep."}


def test_newlines_become_spaces() -> None:
    client, room = owner()
    sent = message(3, room, funcKey="a b", funcParams=["1"]).replace("a b", "a\nb").replace(", ", ",\n")
    (command,) = client.send(sent)
    assert (command.event, command.original) == ("a b", None)
    (command,) = client.send(sent.replace("{", '{"more":\n1,', 1))
    assert b"\n" not in bytes(command.original)
    assert json.loads(bytes(command.original))["more"] == 1


@pytest.mark.parametrize("error", [MessageTooLarge("State has at most 5 bytes."), BadRequest("100 names.")])
def test_state_that_cannot_be_stored_is_broadcast_all_the_same(error: RoomsError) -> None:
    client, room = owner()
    client.answer = lambda command: error if isinstance(command, SendOriginal) and command.state else None
    sent = message(3, room, funcKey="slide", funcParams=["3"], stateMessage=True)
    stored_command, broadcast = client.send(sent)
    assert (stored_command.state, broadcast.state, broadcast.event, broadcast.data) == (
        True,
        None,
        "slide",
        stored_command.data,
    )
    assert parsed(
        Rtbroadcaster.encode_broadcast(
            stored("slide", b'["3"]', original=bytes(broadcast.original).decode()), ""
        )
    ) == (json.loads(sent))
    assert client.take() == [status(3, error.message, room)]
    client.answer = lambda command: None
    assert len(client.send(sent)) == 1
    assert client.take() == []


def test_a_message_refused_for_another_reason_is_not_sent_again() -> None:
    client, room = owner()
    sent = message(3, room, funcKey="slide", stateMessage=True)
    client.answer = refusing(SendOriginal, Muted("You are muted here."))
    assert len(client.send(sent)) == 1
    assert client.take() == [status(3, "You are muted here.", room)]
    client.answer = refusing(SendOriginal, MessageTooLarge("Too large at all."))
    assert len(client.send(sent)) == 2
    assert client.take() == [status(3, "Too large at all.", room)]
    client.answer = refusing(SendOriginal, MessageTooLarge("Too large at all."))
    assert len(client.send(message(3, room))) == 1
    assert client.take() == [status(3, "Too large at all.", room)]


def test_each_state_message_has_a_frame_of_its_own() -> None:
    state = tuple(stored(f"key{number}", b'["x"]', state=True) for number in range(3))
    client = Client(state=state)
    (joined,) = client.send(message(2, ROOM))
    frames = client.codec.encode_all(Reply(id=joined.id, data=client._reply_data(joined)))
    assert [json.loads(frame)["funcKey"] for frame in frames] == ["", "key0", "key1", "key2"]


def test_null_parameters_of_state_become_an_empty_list() -> None:
    client, room = owner()
    (command,) = client.send(message(3, room, funcKey="stop", funcParams=None, stateMessage=True))
    assert (bytes(command.data), command.state) == (b"[]", True)


def test_a_binary_frame_is_decoded_like_its_text() -> None:
    client, room = owner()
    (command,) = client.send(message(3, room, funcKey="ä").encode())
    assert command.event == "ä"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NotSender("Only its owner speaks in x."), "only the owner can broadcast"),
        (Muted("You are muted here."), "You are muted here."),
        (RateLimited("Too many requests."), "Too many requests."),
        (RoomNotFound("There is no room x."), "There is no room x."),
    ],
)
def test_a_client_that_may_not_send_stays_connected(error: RoomsError, text: str) -> None:
    client = listener(answer=refusing(SendOriginal, error))
    client.send(message(3, ROOM.upper(), funcKey="move", funcParams=["1"]))
    assert client.take() == [status(3, text, ROOM.upper())]


# Leaves and closes--------------------------------------------------------------------------------------


def test_an_owner_that_closes_its_room_is_not_connected() -> None:
    client, room = owner()
    (closed,) = client.send(message(4, room))
    assert isinstance(closed, CloseRoom)
    assert closed.room == room
    assert client.take() == []
    client.encode(Removed(room=room, reason="closed", message="The room was closed."))
    client.encode(Closing(code=1000, message="The room was closed."))
    assert client.take() == [status(0, "not connected", room)]


def test_an_owner_that_cannot_close_its_room_stays_in_it() -> None:
    client, room = owner()
    client.answer = refusing(CloseRoom, RateLimited("Later."))
    client.send(message(4, room))
    assert client.take() == [status(3, "Later.", room)]


def test_a_listener_that_closes_leaves_and_is_disconnected() -> None:
    client = listener()
    left, disconnects = client.send(message(4, ROOM.upper()))
    assert isinstance(left, Leave)
    assert left.room == ROOM
    assert isinstance(disconnects, Disconnect)
    client.encode(Closing(code=1000, message="Good bye."))
    assert client.take() == [status(0, "not connected", ROOM)]


def test_a_listener_whose_leave_is_refused_stays() -> None:
    client = listener(answer=refusing(Leave, Rejected("Stay.")))
    assert [type(each) for each in client.send(message(4, ROOM))] == [Leave]
    assert client.take() == [status(3, "Stay.", ROOM)]


@pytest.mark.parametrize("reason", ["kicked", "banned", "closed"])
def test_a_removed_client_is_not_connected(reason: Any) -> None:
    client = listener()
    client.encode(Removed(room=ROOM, reason=reason, message="Because."))
    client.encode(Closing(code=1000, message="Because."))
    assert client.take() == [status(0, "not connected", ROOM)]


def test_a_close_is_encoded_with_its_reason() -> None:
    for client, room in ((Client(), ""), (listener(), ROOM)):
        client.encode(Closing(code=4000, message="The server restarts.", retry_in=1.5))
        client.encode(Closing(code=4000, message="The server restarts."))
        assert client.take() == [status(0, "The server restarts.", room)]


# Invalid messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, 4])
def test_messages_before_a_join_are_refused(value: int) -> None:
    client = Client()
    assert client.send(message(value, ROOM)) == []
    (parsed,) = client.take()
    assert (parsed["status"]["value"], parsed["uuid"]) == (0, ROOM)
    assert "status value 1" in parsed["status"]["text"]


@pytest.mark.parametrize("value", [0, 5, 9, -1, 2**62])
def test_the_error_for_an_unknown_status_value_lists_the_known_ones(value: int) -> None:
    for client in (Client(), listener()):
        assert client.send(message(value, ROOM)) == []
        text = f"Expected a status value of 1 (new), 2 (join), 3 (connected) or 4 (close), got {value}."
        assert client.take() == [status(0, text, ROOM)]


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
def test_a_frame_that_is_no_object_is_refused(frame: str | bytes) -> None:
    client = listener()
    assert client.send(frame) == []
    (parsed,) = client.take()
    assert parsed["status"]["value"] == 0
    assert (parsed["uuid"], parsed["funcKey"], parsed["funcParams"], parsed["stateMessage"]) == (
        "",
        "",
        [],
        False,
    )


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
def test_the_error_for_an_invalid_message_has_its_uuid(frame: str, text: str) -> None:
    client = listener()
    assert client.send(frame) == []
    (parsed,) = client.take()
    assert text in parsed["status"]["text"]
    assert (parsed["status"]["value"], parsed["uuid"]) == (0, ROOM)


def test_a_uuid_that_cannot_be_encoded_is_not_repeated() -> None:
    client = Client()
    client.send('{"uuid":"\\ud800","status":{"value":2}}')
    client.send('{"uuid":7,"status":{"value":2}}')
    assert [each["uuid"] for each in client.take()] == ["", ""]


def test_messages_after_an_invalid_one_are_decoded() -> None:
    client, room = owner()
    client.send("nonsense")
    assert [type(each) for each in client.send(message(3, room, funcKey="move"))] == [SendOriginal]


# Other clients -----------------------------------------------------------------------------------


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
def test_data_of_other_protocols_becomes_parameters(data: bytes, params: list[str]) -> None:
    for state in (False, True):
        broadcast = parsed(Rtbroadcaster.encode_broadcast(stored("chat", data, state=state), ""))
        assert broadcast == {
            "uuid": ROOM,
            "status": {"value": 3, "text": "connected"},
            "funcKey": "chat",
            "funcParams": params,
            "stateMessage": state,
        }


def test_direct_messages_are_encoded_like_messages_except_outside_of_rooms() -> None:
    client = listener()
    direct = Direct(room="", event="move", data=Raw(b'["1"]'), sender=None, to="x")
    client.encode(direct)
    # To clients of all protocols the server sends it in the room of roomer's clients.
    client.encode(msgspec.structs.replace(direct, room="root"))
    client.encode(msgspec.structs.replace(direct, room="lobby", sender=ANN, to="ann"))
    client.encode(msgspec.structs.replace(direct, sender=ANN, outside=True))
    usual = json.loads(message(3, funcKey="move", funcParams=["1"]))
    assert client.take() == [{**usual, "uuid": ROOM}] * 2 + [{**usual, "uuid": "lobby"}]
    outside = msgspec.structs.replace(direct, outside=True)
    assert Rtbroadcaster.encode_broadcast(outside, "") is None


def test_direct_messages_before_a_join_are_not_encoded() -> None:
    client = Client()
    client.encode(Direct(room="", event="move", data=Raw(b'["1"]'), sender=None, to="x"))
    assert client.take() == []


@pytest.mark.parametrize(
    "event",
    [
        Connected(connection="c", application="a", user=ANN, ping=25, version=1),
        Joined(room=ROOM, user=ANN),
        Left(room=ROOM, user=ANN, reason="left"),
        Members(room=ROOM, count=201, joined=[], left=[]),
    ],
)
def test_presence_events_have_no_frame(event: Event) -> None:
    assert listener().codec.encode(event) is None
    assert Rtbroadcaster.encode_broadcast(event, "") is None


# Arbitrary frames----------------------------------------------------------------------------------

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
def test_every_frame_is_executed_or_answered(frames: list[str | bytes]) -> None:
    client = Client()
    for frame in frames:
        commands = client.send(frame)
        # The commands without an answer are those whose broadcast is the answer.
        assert client.take() or isinstance(commands[0], SendOriginal | CloseRoom)


@given(st.text(max_size=64).filter(lambda key: "\0" not in key), st.lists(st.text()), st.booleans(), texts)
def test_listeners_receive_the_messages_of_an_owner_unchanged(
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
    (command,) = client.send(sent)
    broadcast = msgspec.structs.replace(
        stored(command.event, bytes(command.data), state=command.state is True),
        room=room,
        original=UNSET if command.original is None else command.original,
    )
    assert parsed(Rtbroadcaster.encode_broadcast(broadcast, "")) == json.loads(sent)
    assert (command.original is None) is (text in ("", "connected"))
    late = Client(state=(broadcast,))
    late.send(message(2, room))
    assert late.take()[1:] == [json.loads(sent)]
