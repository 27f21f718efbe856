"""Messages (section 4, "Message fields"): the push, and the effect of each field."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration import native
from tests.integration.native import unique

if TYPE_CHECKING:
    from tests.integration.native import Message, Visitors

pytestmark = pytest.mark.database

visitors = native.visitors

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|\+00:00)")

DATA: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    0.1,
    1e308,
    2**63 - 1,
    -(2**63),
    "",
    "text",
    "a\nb",
    "a\x00b",
    "\u2028 😀 e\u0301",
]
DATA += [[], {}, [None], {"type": "close", "id": 5}, {"": None}, "<script>", {"a": [{"b": [1, 2.5, "c"]}]}]

RESERVED = (
    "login logout rooms create close join leave history members subscribe unsubscribe kick ban unban mute"
)
RESERVED += " ping pong reply error connected joined left room_added room_removed removed closing"


async def test_a_message_is_pushed_to_members_and_acknowledged(visitors: Visitors) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2)
    reply = await sender.send_message(room, {"text": "hello"})
    assert reply["seq"] == 1
    assert RFC_3339.fullmatch(reply["time"])
    for client in (sender, listener):
        message = await client.push()
        assert {field: value for field, value in message.items() if value is not None} == {
            "type": "message",
            "room": room,
            "event": "message",
            "data": {"text": "hello"},
            "from": sender.user,
            "seq": 1,
            "time": reply["time"],
        }


async def test_data_arrives_as_it_was_sent(visitors: Visitors) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2)
    deepest: Any = "here"
    for _ in range(15):
        deepest = [deepest]
    sent = [*DATA, deepest]
    for value in sent:
        await sender.send_message(room, value, echo=False)
    stored = (await listener.request("history", room=room))["messages"]
    for messages in (await listener.messages(len(sent)), stored):
        assert json.dumps([message["data"] for message in messages]) == json.dumps(sent)


async def test_data_arrives_without_history(visitors: Visitors) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2, application="bench")
    for value in DATA:
        await sender.send_message(room, value)
    for client in (sender, listener):
        assert [message["data"] for message in await client.messages(len(DATA))] == DATA


async def test_the_time_is_the_same_in_reply_push_and_history(visitors: Visitors) -> None:
    client, room = await visitors.guest(), unique("room")
    await client.join(room)
    reply = await client.send_message(room, 1)
    pushed = (await client.messages(1))[0]
    joined = (await client.join(room))["messages"][0]
    stored = (await client.request("history", room=room))["messages"][0]
    assert {reply["time"], pushed["time"], joined["time"], stored["time"]} == {reply["time"]}


@pytest.mark.parametrize(
    "event", ["m", "x" * 64, "typing.now", "Zoë 😀", "LOGIN", "websocket.close", "__init__", "on_join"]
)
async def test_an_event_arrives_with_its_name(visitors: Visitors, event: str) -> None:
    client, room = await visitors.guest(), unique("room")
    await client.join(room)
    await client.send_message(room, 1, event=event)
    assert (await client.push())["event"] == event


@pytest.mark.parametrize("event", RESERVED.split())
async def test_event_names_of_the_protocol_are_reserved(visitors: Visitors, event: str) -> None:
    client, room = await visitors.guest(), unique("room")
    await client.join(room)
    assert await client.refused("message", room=room, data=1, event=event) == "reserved_event"
    assert await client.before_pong() == []


async def test_messages_with_one_key_are_sent_once(visitors: Visitors) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2)
    first = await sender.send_message(room, "once", key="k" * 64)
    assert await sender.send_message(room, "once", key="k" * 64) == first
    back = await visitors.again(sender)
    await back.join(room)
    assert await back.send_message(room, "once", key="k" * 64) == first
    await sender.send_message(room, "marker")
    assert [(message["data"], message["seq"]) for message in await listener.messages(2)] == [
        ("once", 1),
        ("marker", 2),
    ]
    assert [message["data"] for message in await sender.messages(2)] == ["once", "marker"]


async def test_simultaneous_requests_with_one_key_are_sent_once(visitors: Visitors) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2)
    for number in range(20):
        await sender.send("message", id=f"n{number}", room=room, data="once", key="same")
    answers = [await sender.answer(f"n{number}") for number in range(20)]
    assert [answer["data"]["seq"] for answer in answers] == [1] * 20
    await sender.send_message(room, "marker")
    assert [message["data"] for message in await listener.messages(2)] == ["once", "marker"]


@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_a_key_applies_to_messages_that_are_not_stored(visitors: Visitors, application: str) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2, application=application)
    for number, fields in enumerate(({"to": listener.user["name"]}, {"volatile": True})):
        first = await sender.send_message(room, number, key=f"key-{number}", **fields)
        assert await sender.send_message(room, number, key=f"key-{number}", **fields) == first
    await sender.send_message(room, "marker")
    assert [message["data"] for message in await listener.messages(3)] == [0, 1, "marker"]


async def test_a_key_belongs_to_a_user_and_a_room(visitors: Visitors) -> None:
    room, other_room = unique("room"), unique("room")
    first, second = await visitors.members(room, 2)
    await first.join(other_room)
    assert (await first.send_message(room, 1, key="same"))["seq"] == 1
    assert (await second.send_message(room, 2, key="same"))["seq"] == 2
    assert (await first.send_message(other_room, 3, key="same"))["seq"] == 1
    assert [message["data"] for message in await second.messages(2)] == [1, 2]


async def test_to_reaches_the_named_members_only(visitors: Visitors) -> None:
    room = unique("room")
    sender, first, second, other = await visitors.members(room, 4)
    second_phone = await visitors.again(second)
    await second_phone.join(room)
    subscriber = await visitors.guest()
    await subscriber.request("subscribe", room=room)

    assert (await sender.send_message(room, "one", to=first.user["name"]))["seq"] is None
    await sender.send_message(room, "two", to=[first.user["name"], second.user["name"]])
    await sender.send_message(room, "self", to=[sender.user["name"], second.user["name"]])
    assert (await sender.send_message(room, "all"))["seq"] == 1

    for client, expected in (
        (first, ["one", "two", "all"]),
        (second, ["two", "self", "all"]),
        (second_phone, ["two", "self", "all"]),
        (sender, ["self", "all"]),
        (other, ["all"]),
        (subscriber, ["all"]),
    ):
        assert [message["data"] for message in await client.messages(len(expected))] == expected


async def test_a_directed_message_names_its_recipients_and_is_not_stored(visitors: Visitors) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2)
    reply = await sender.send_message(room, "secret", to=listener.user["name"])
    message = await listener.push()
    assert listener.user["name"] in message["to"]
    assert (message["seq"], message["time"], message["from"]) == (None, reply["time"], sender.user)
    assert (await listener.request("history", room=room))["messages"] == []
    assert (await (await visitors.guest()).join(room))["messages"] == []


async def test_a_directed_message_is_not_sent_if_a_recipient_is_missing(visitors: Visitors) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2)
    outsider, subscriber = await visitors.guest(), await visitors.guest()
    await subscriber.request("subscribe", room=room)
    for missing in (unique("missing"), outsider.user["name"], subscriber.user["name"]):
        for to in (missing, [listener.user["name"], missing]):
            assert await sender.refused("message", room=room, data="lost", to=to) == "user_not_found"
    await sender.send_message(room, "marker")
    assert (await listener.push())["data"] == "marker"


@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_state_is_in_the_snapshot_of_later_joins(visitors: Visitors, application: str) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2, application=application)
    for event, value in (("slide", 1), ("slide", 2), ("colour", "red"), ("gone", True)):
        await sender.send_message(room, value, event=event, state=True)
        message = await listener.push()
        assert (message["event"], message["data"], message["state"]) == (event, value, True)
    await sender.send_message(room, "not state", event="slide")
    await sender.send_message(room, None, event="gone", state=True)
    data = await (await visitors.guest(application=application)).join(room)
    state: list[Message] = data["state"]
    assert {message["event"]: message["data"] for message in state} == {"slide": 2, "colour": "red"}
    assert len(state) == 2
    for message in state:
        assert (message["type"], message["room"], message["from"]) == ("message", room, sender.user)


async def test_state_is_part_of_the_history(visitors: Visitors) -> None:
    client, room = await visitors.guest(), unique("room")
    await client.join(room)
    assert (await client.send_message(room, 1, event="slide", state=True))["seq"] == 1
    assert (await client.send_message(room, 2, event="slide", state=True))["seq"] == 2
    data = await (await visitors.guest()).join(room)
    assert [message["data"] for message in data["messages"]] == [1, 2]
    assert [message["data"] for message in data["state"]] == [2]


@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_volatile_messages_have_no_seq_and_are_not_stored(visitors: Visitors, application: str) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2, application=application)
    assert (await sender.send_message(room, "typing", volatile=True))["seq"] is None
    message = await listener.push()
    assert (message["data"], message["seq"]) == ("typing", None)
    data = await (await visitors.guest(application=application)).join(room)
    assert data["messages"] == []
    if application == "durable":
        assert data["position"]["seq"] == 0


async def test_echo_false_excludes_only_the_sending_connection(visitors: Visitors) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2)
    phone = await visitors.again(sender)
    await phone.join(room)
    await sender.send_message(room, "unechoed", echo=False)
    await sender.send_message(room, "echoed", echo=True)
    assert [message["data"] for message in await sender.messages(1)] == ["echoed"]
    for client in (phone, listener):
        assert [message["data"] for message in await client.messages(2)] == ["unechoed", "echoed"]


async def test_only_members_may_send(visitors: Visitors) -> None:
    room = unique("room")
    (member,) = await visitors.members(room, 1)
    outsider, subscriber, leaver = [await visitors.guest() for _ in range(3)]
    await subscriber.request("subscribe", room=room)
    await leaver.join(room)
    assert await leaver.request("leave", room=room) == {}
    for client in (outsider, subscriber, leaver):
        for fields in ({}, {"volatile": True}, {"state": True}, {"to": member.user["name"]}):
            assert await client.refused("message", room=room, data="lost", **fields) == "not_member"
    await member.send_message(room, "marker")
    assert (await member.messages(1))[0]["data"] == "marker"
    assert [message["data"] for message in (await member.request("history", room=room))["messages"]] == [
        "marker"
    ]
