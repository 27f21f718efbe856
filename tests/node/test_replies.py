"""What a handler sends on behalf of the sender of a message, without an extension."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import Raw

from rooms.compat.goroomserver import Goroomserver
from rooms.extensions import MessageEvent
from rooms.models import Room
from rooms.node.node import Node
from rooms.node.replies import encode_data, message_event, send_to_user
from rooms.protocol.errors import BadRequest, ReservedEvent, RoomNotFound
from rooms.protocol.events import Direct
from rooms.protocol.types import User
from tests.node.clients import Client

SERVER = User(name="server", id="0", guest=False)


@pytest.fixture
async def ann(node: Node) -> Client:
    return await Client.named(node, "ann", "lobby")


@pytest.fixture
async def bob(node: Node, ann: Client) -> AsyncIterator[Client]:
    """A member of another room; its presence is removed at the end."""
    client = await Client.named(node, "bob", "other")
    yield client
    client.disconnect()


async def event_of(client: Client, data: bytes, room: str | None = "lobby") -> MessageEvent:
    """The event that the handler of a message of this client receives."""
    connection, user = client.connection, client.connection.user
    assert user is not None
    return message_event(
        client.node.context,
        client.node.publisher.publish,
        connection,
        user,
        await client.node.context.application_of(connection),
        None if room is None else connection.memberships[room].room,
        "do",
        Raw(data),
        room_name="somewhere",
    )


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ({"a": [1, None]}, b'{"a":[1,null]}'),
        ("text", b'"text"'),
        (b"text", b'"text"'),
        (bytearray(b"[1]"), b"[1]"),
        (memoryview(b"\xff"), b'{"base64":"/w=="}'),
    ],
)
def test_data_is_any_json_value_or_bytes(value: Any, encoded: bytes) -> None:
    assert bytes(encode_data(value)) == encoded


def test_other_values_are_an_error() -> None:
    with pytest.raises(TypeError):
        encode_data(object())


async def test_the_event_describes_the_message_and_its_room(ann: Client) -> None:
    event = await event_of(ann, b'{"a": 1}')
    assert (event.name, event.data, event.user) == ("do", {"a": 1}, ann.connection.user)
    assert event.connection_id == ann.connection.id
    assert event.room is not None
    assert (event.room.name, event.room_name) == ("lobby", "lobby")
    outside = await event_of(ann, b"1", None)
    assert (outside.room, outside.room_name) == (None, "somewhere")


async def test_send_reaches_only_the_senders_connection(node: Node, ann: Client) -> None:
    other = await Client.named(node, "eve", "lobby")
    event = await event_of(ann, b"1")
    assert await event.send("hint", "warm") is True
    (received,) = ann.received("message")
    assert (received["room"], received["event"], received["data"], received["from"]["name"]) == (
        *("lobby", "hint", "warm"),
        "ann",
    )
    assert other.received("message") == []


async def test_send_returns_false_for_a_closed_slow_or_other_client(
    node: Node, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = await event_of(ann, b"1")
    with monkeypatch.context() as patch:
        patch.setattr(type(ann.connection), "is_slow", lambda self: True)
        assert await event.send("hint", 1) is False
    with monkeypatch.context() as patch:
        # It has no event for a message of which the client is no member.
        patch.setattr(ann.connection, "protocol", Goroomserver())
        patch.setattr(Goroomserver, "encode", lambda self, event: None)
        assert await event.send("hint", 1) is False
    assert await event.send("hint", 2) is True
    ann.disconnect()
    ann.connection.user = None
    assert await event.send("hint", 3) is False
    assert ann.messages() == [2]


async def test_send_to_room_publishes_as_the_sender_to_the_others(node: Node, ann: Client) -> None:
    other = await Client.named(node, "eve", "lobby")
    message = await (await event_of(ann, b"1")).send_to_room("news", {"b": 2})
    assert (message.seq, message.sender) == (1, ann.connection.user)
    assert [(each["event"], each["data"]) for each in other.received("message")] == [("news", {"b": 2})]
    assert ann.received("message") == []


async def test_send_to_room_finds_another_room_by_its_name(node: Node, ann: Client, bob: Client) -> None:
    event = await event_of(ann, b"1")
    message = await event.send_to_room("news", 1, room="other")
    assert (message.room, bob.messages()) == ("other", [1])
    await (await event_of(ann, b"1", None)).send_to_room("news", 2, room="other")
    assert bob.messages() == [1, 2]
    with pytest.raises(RoomNotFound):
        await event.send_to_room("news", 1, room="missing")
    assert not await Room.objects.filter(name="missing").aexists()


async def test_unchanged_data_is_passed_on_byte_for_byte(ann: Client) -> None:
    original = b'{"a" : 1.0, "b": "\\u00e9"}'
    event = await event_of(ann, original)
    for data, expected in ((event.data, original), (event.data | {"a": 2}, '{"a":2,"b":"é"}'.encode())):
        message = await event.send_to_room("news", data)
        assert bytes(message.data) == expected


@pytest.mark.parametrize(
    ("name", "error"), [("joined", ReservedEvent), ("a\0b", BadRequest), ("x" * 10_000, BadRequest)]
)
async def test_event_names_are_checked(ann: Client, name: str, error: type[Exception]) -> None:
    event = await event_of(ann, b"1")
    for send in (event.send(name, 1), event.send_to_room(name, 1), event.send_to_user("ann", name, 1)):
        with pytest.raises(error):
            await send
    assert ann.received("message") == []


def direct(to: str) -> Direct:
    return Direct(room="lobby", event="hint", data=Raw(b"1"), sender=SERVER, to=to)


async def test_a_direct_message_reaches_all_connections_of_its_exact_user(
    node: Node, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[tuple[str, Any]] = []
    monkeypatch.setattr(
        node.context.broker, "publish", lambda key, event, *, only: published.append((key, only))
    )
    application = await node.context.application_of(ann.connection)
    for name in ("ANN", "missing"):
        await send_to_user(node.context, application, direct(name))
    assert (ann.messages(), published) == ([], [])
    await send_to_user(node.context, application, direct("ann"))
    assert ann.connection.user is not None
    assert published == [(application.key, [ann.connection.user.id])]
    assert ann.messages() == [1]


async def test_replies_may_be_used_in_another_event_loop(node: Node, ann: Client) -> None:
    other = await Client.named(node, "eve", "lobby")
    event = await event_of(ann, b"1")

    async def use_all() -> tuple[Any, ...]:
        sent = await event.send("hint", 1)
        message = await event.send_to_room("news", 2)
        await event.send_to_user("eve", "psst", 3)
        return sent, message.seq

    assert await asyncio.to_thread(asyncio.run, use_all()) == (True, 1)
    assert ann.messages() == [1]
    assert other.messages()[0] == 2
