"""rtbroadcaster over real sockets: ends of rooms, messages, and replayed state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.integration.sites import Clients

if TYPE_CHECKING:
    from tests.integration.protocols import Rtbroadcaster
    from tests.servers import Server

pytestmark = pytest.mark.smoke


@pytest.fixture
async def clients(server: Server) -> AsyncIterator[Clients]:
    async with Clients(server, "durable") as opened:
        yield opened


async def room_with(clients: Clients, listeners: int = 2) -> tuple[str, Rtbroadcaster, list[Rtbroadcaster]]:
    """Return a new room, its owner and its listeners."""
    owner = await clients.connect("rtbroadcaster")
    room = await owner.create_room()
    return room, owner, [await clients.connect("rtbroadcaster", room) for _ in range(listeners)]


async def last_message(client: Rtbroadcaster) -> Any:
    """Return the only message before the server closes the connection."""
    word = await client.receive()
    with pytest.raises(ConnectionClosed):
        await client.receive()
    assert client.socket.close_code == 1000
    return word


def not_connected(room: str) -> Any:
    return {
        "uuid": room,
        "status": {"value": 0, "text": "not connected"},
        "funcKey": "",
        "funcParams": [],
        "stateMessage": False,
    }


async def test_an_owner_that_closes_ends_the_room_for_all_members(clients: Clients) -> None:
    room, owner, listeners = await room_with(clients)
    await owner.send(owner.message(4, room))
    for client in (owner, *listeners):
        assert await last_message(client) == not_connected(room)
    newcomer = await clients.connect("rtbroadcaster")
    assert await newcomer.join(room) == not_connected(room)


@pytest.mark.parametrize("how", ["close", "drop"])
async def test_an_owner_that_disconnects_ends_the_room_for_all_members(clients: Clients, how: str) -> None:
    room, owner, listeners = await room_with(clients)
    native = await clients.connect("native", room)
    if how == "drop":
        owner.drop()
    else:
        await owner.socket.close()
    for client in listeners:
        assert await last_message(client) == not_connected(room)
    while (message := await native.receive())["type"] != "removed":
        assert message["type"] == "left"
    assert (message["room"], message["reason"]) == (room, "closed")
    # A protocol with more than one room per client stays connected.
    assert (await native.request("ping"))["type"] == "pong"


async def test_a_listener_that_closes_leaves_alone(clients: Clients) -> None:
    room, owner, (leaving, staying) = await room_with(clients)
    native = await clients.connect("native", room)
    await leaving.send(leaving.message(4, room))
    assert await last_message(leaving) == not_connected(room)
    left = await native.receive()
    assert (left["type"], left["reason"]) == ("left", "left")
    await owner.send_message(room, ["1"], "move")
    assert (await staying.receive())["funcParams"] == ["1"]


async def test_a_listener_cannot_send_and_receives_the_reason(clients: Clients) -> None:
    room, owner, (sender, other) = await room_with(clients)
    await sender.send_message(room, ["1"], "move")
    assert (await sender.receive())["status"] == {"value": 3, "text": "only the owner can broadcast"}
    await owner.send_message(room, ["2"], "move")
    for listener in (sender, other):
        assert (await listener.receive())["funcParams"] == ["2"]
    assert await owner.drain() == []


async def test_a_new_listener_receives_the_state_in_the_order_of_its_first_storage(clients: Clients) -> None:
    room, owner, _ = await room_with(clients, 0)
    for key, params in (("zoom", ["1"]), ("angle", None), ("zoom", ["2"])):
        await owner.send_message(room, params, key, state=True)
    await owner.send_message(room, ["3"], "zoom")
    own_form = {
        "uuid": "x",
        "status": {"value": 3, "text": "my text"},
        "funcKey": "slide",
        "funcParams": ["9"],
    }
    await owner.send(owner.message(3, stateMessage=True, more=[1], **own_form))
    await owner.drain()
    newcomer = await clients.connect("rtbroadcaster", room)
    replayed = [await newcomer.receive() for _ in range(3)]
    assert [(each["funcKey"], each["funcParams"]) for each in replayed] == [
        ("zoom", ["2"]),
        ("angle", None),
        ("slide", ["9"]),
    ]
    assert replayed[2] == {**own_form, "stateMessage": True}
    assert await newcomer.drain() == []


async def test_state_that_is_too_long_is_broadcast_but_not_stored(clients: Clients) -> None:
    room, owner, (listener,) = await room_with(clients, 1)
    await owner.send_message(room, ["x" * 20_000], "page", state=True)
    message = await listener.receive()
    assert (message["funcParams"], message["stateMessage"]) == (["x" * 20_000], True)
    answer = await owner.receive()
    assert answer["status"]["value"] == 3
    assert "Expected at most 16384 bytes of state" in answer["status"]["text"]
    await owner.send_message(room, ["1"], "page", state=True)
    assert (await listener.receive())["funcParams"] == ["1"]
    assert await owner.drain() == []


async def test_state_above_the_number_of_keys_is_broadcast_but_not_stored(clients: Clients) -> None:
    room, owner, (listener,) = await room_with(clients, 1)
    for number in range(101):
        await owner.send_message(room, ["1"], f"key{number}", state=True)
    for number in range(101):
        assert (await listener.receive())["funcKey"] == f"key{number}"
    (answer,) = await owner.drain()
    assert "at most 100" in answer["status"]["text"]


async def test_much_state_is_sent_in_several_frames(clients: Clients) -> None:
    room, owner, _ = await room_with(clients, 0)
    for number in range(20):
        await owner.send_message(room, ["x" * 10_000], f"key{number}", state=True)
    await owner.drain()
    newcomer = await clients.connect("rtbroadcaster")
    await newcomer.send(newcomer.message(2, room))
    frames = []
    while len([line for frame in frames for line in frame.split("\n")]) < 21:
        frames.append(await asyncio.wait_for(newcomer.socket.recv(), 10))
    assert max(map(len, frames)) <= 64 * 1024 + 256
    assert len(frames) > 2


@pytest.mark.parametrize("more", ["[" * 40 + "]" * 40, "9" * 30, "1e999", '"\\ud800"'])
async def test_unknown_members_are_passed_on_unchanged(clients: Clients, more: str) -> None:
    room, owner, (listener,) = await room_with(clients, 1)
    sent = f'{{"more":{more},' + owner.message(3, room, funcKey="move", funcParams=["1"])[1:]
    await owner.send(sent)
    assert await asyncio.wait_for(listener.socket.recv(), 10) == sent
    assert await owner.drain() == []


async def test_a_burst_arrives_in_order(clients: Clients) -> None:
    room, owner, listeners = await room_with(clients)
    for number in range(200):
        await owner.send_message(room, [str(number)], "n")
    for listener in listeners:
        assert [(await listener.receive())["funcParams"] for _ in range(200)] == [
            [str(n)] for n in range(200)
        ]


async def test_native_clients_receive_an_owners_messages_and_cannot_send(clients: Clients) -> None:
    room, owner, (listener,) = await room_with(clients, 1)
    native = await clients.connect("native", room)
    await owner.send_message(room, ["1", "2"], "move", state=True)
    message = await native.receive_message()
    assert (message["event"], message["data"], message["state"]) == ("move", ["1", "2"], True)
    assert "original" not in message
    assert (await native.request("message", room=room, data=1))["code"] == "not_sender"
    assert (await listener.receive())["funcKey"] == "move"
    assert await listener.drain() == []


async def test_a_room_of_an_owner_is_not_listed(clients: Clients) -> None:
    room, _, _ = await room_with(clients, 0)
    native = await clients.connect("native")
    assert (await native.request("rooms", prefix=room))["data"]["rooms"] == []


async def test_a_room_may_close_while_clients_join(clients: Clients) -> None:
    """A client that receives the answer to its join receives the end as well."""
    for _ in range(10):
        room, owner, _ = await room_with(clients, 0)
        newcomers = [await clients.connect("rtbroadcaster") for _ in range(3)]
        await owner.send(owner.message(4, room))
        for client in newcomers:
            await client.send(client.message(2, room))
        for client in newcomers:
            if (answer := await client.receive())["status"]["value"] == 3:
                answer = await client.receive()
            assert (answer["status"]["value"], answer["uuid"]) == (0, room)
