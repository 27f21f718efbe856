"""rtbroadcaster's door over real sockets: what becomes of a room and those in it when somebody goes, and of
what its owner said when somebody comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.integration.sites import Guests

if TYPE_CHECKING:
    from tests.integration.protocols import Rtbroadcaster
    from tests.servers import Server


@pytest.fixture
async def guests(server: Server) -> AsyncIterator[Guests]:
    async with Guests(server, "durable") as everyone:
        yield everyone


async def room_with(guests: Guests, listeners: int = 2) -> tuple[str, Rtbroadcaster, list[Rtbroadcaster]]:
    """A new room, its owner and so many listeners."""
    owner = await guests.come("rtbroadcaster")
    room = await owner.make()
    return room, owner, [await guests.come("rtbroadcaster", room) for _ in range(listeners)]


async def last_word(client: Rtbroadcaster) -> Any:
    """The one message that comes before the server closes."""
    word = await client.hear()
    with pytest.raises(ConnectionClosed):
        await client.hear()
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


async def test_an_owner_who_closes_ends_the_room_for_everybody(guests: Guests) -> None:
    room, owner, listeners = await room_with(guests)
    await owner.send(owner.message(4, room))
    for client in (owner, *listeners):
        assert await last_word(client) == not_connected(room)
    late = await guests.come("rtbroadcaster")
    assert await late.enter(room) == not_connected(room)


@pytest.mark.parametrize("how", ["close", "drop"])
async def test_an_owner_who_goes_ends_the_room_for_everybody(guests: Guests, how: str) -> None:
    room, owner, listeners = await room_with(guests)
    native = await guests.come("native", room)
    if how == "drop":
        owner.drop()
    else:
        await owner.socket.close()
    for client in listeners:
        assert await last_word(client) == not_connected(room)
    while (heard := await native.hear())["type"] != "removed":
        assert heard["type"] == "left"
    assert (heard["room"], heard["reason"]) == (room, "closed")
    # Whose protocol knows more than one room stays.
    assert (await native.ask("ping"))["type"] == "pong"


async def test_a_listener_who_closes_goes_alone(guests: Guests) -> None:
    room, owner, (leaving, staying) = await room_with(guests)
    native = await guests.come("native", room)
    await leaving.send(leaving.message(4, room))
    assert await last_word(leaving) == not_connected(room)
    left = await native.hear()
    assert (left["type"], left["reason"]) == ("left", "left")
    await owner.say(room, ["1"], "move")
    assert (await staying.hear())["funcParams"] == ["1"]


async def test_a_listener_is_not_heard_and_hears_why(guests: Guests) -> None:
    room, owner, (speaking, other) = await room_with(guests)
    await speaking.say(room, ["1"], "move")
    assert (await speaking.hear())["status"] == {"value": 3, "text": "only the owner can broadcast"}
    await owner.say(room, ["2"], "move")
    for listener in (speaking, other):
        assert (await listener.hear())["funcParams"] == ["2"]
    assert await owner.answers() == []


async def test_who_comes_late_gets_the_state_in_the_order_in_which_it_was_first_kept(guests: Guests) -> None:
    room, owner, _ = await room_with(guests, 0)
    for key, params in (("zoom", ["1"]), ("angle", None), ("zoom", ["2"])):
        await owner.say(room, params, key, state=True)
    await owner.say(room, ["3"], "zoom")
    own_way = {"uuid": "x", "status": {"value": 3, "text": "my way"}, "funcKey": "slide", "funcParams": ["9"]}
    await owner.send(owner.message(3, stateMessage=True, more=[1], **own_way))
    await owner.answers()
    late = await guests.come("rtbroadcaster", room)
    replayed = [await late.hear() for _ in range(3)]
    assert [(each["funcKey"], each["funcParams"]) for each in replayed] == [
        ("zoom", ["2"]),
        ("angle", None),
        ("slide", ["9"]),
    ]
    assert replayed[2] == {**own_way, "stateMessage": True}
    assert await late.answers() == []


async def test_state_that_is_too_long_is_heard_but_not_kept_and_its_owner_hears_why(guests: Guests) -> None:
    room, owner, (listener,) = await room_with(guests, 1)
    await owner.say(room, ["x" * 20_000], "page", state=True)
    heard = await listener.hear()
    assert (heard["funcParams"], heard["stateMessage"]) == (["x" * 20_000], True)
    told = await owner.hear()
    assert told["status"]["value"] == 3
    assert "State has at most 16384 bytes" in told["status"]["text"]
    await owner.say(room, ["1"], "page", state=True)
    assert (await listener.hear())["funcParams"] == ["1"]
    assert await owner.answers() == []


async def test_no_more_state_than_a_room_keeps_is_heard_all_the_same(guests: Guests) -> None:
    room, owner, (listener,) = await room_with(guests, 1)
    for number in range(101):
        await owner.say(room, ["1"], f"key{number}", state=True)
    for number in range(101):
        assert (await listener.hear())["funcKey"] == f"key{number}"
    (told,) = await owner.answers()
    assert "at most 100" in told["status"]["text"]


async def test_much_state_comes_in_frames_that_every_server_lets_through(guests: Guests) -> None:
    room, owner, _ = await room_with(guests, 0)
    for number in range(20):
        await owner.say(room, ["x" * 10_000], f"key{number}", state=True)
    await owner.answers()
    late = await guests.come("rtbroadcaster")
    await late.send(late.message(2, room))
    frames = []
    while len([line for frame in frames for line in frame.split("\n")]) < 21:
        frames.append(await asyncio.wait_for(late.socket.recv(), 10))
    assert max(map(len, frames)) <= 64 * 1024 + 256
    assert len(frames) > 2


@pytest.mark.parametrize("more", ["[" * 40 + "]" * 40, "9" * 30, "1e999", '"\\ud800"'])
async def test_members_that_nobody_knows_hold_whatever_json_can_say(guests: Guests, more: str) -> None:
    room, owner, (listener,) = await room_with(guests, 1)
    sent = f'{{"more":{more},' + owner.message(3, room, funcKey="move", funcParams=["1"])[1:]
    await owner.send(sent)
    assert await asyncio.wait_for(listener.socket.recv(), 10) == sent
    assert await owner.answers() == []


async def test_a_burst_arrives_in_order(guests: Guests) -> None:
    room, owner, listeners = await room_with(guests)
    for number in range(200):
        await owner.say(room, [str(number)], "n")
    for listener in listeners:
        assert [(await listener.hear())["funcParams"] for _ in range(200)] == [[str(n)] for n in range(200)]


async def test_an_owner_is_heard_at_other_doors_and_alone_may_speak_there_too(guests: Guests) -> None:
    room, owner, (listener,) = await room_with(guests, 1)
    native = await guests.come("native", room)
    await owner.say(room, ["1", "2"], "move", state=True)
    heard = await native.told()
    assert (heard["event"], heard["data"], heard["state"]) == ("move", ["1", "2"], True)
    assert "original" not in heard
    assert (await native.ask("message", room=room, data=1))["code"] == "not_sender"
    assert (await listener.hear())["funcKey"] == "move"
    assert await listener.answers() == []


async def test_a_room_that_was_made_so_is_not_listed(guests: Guests) -> None:
    room, _, _ = await room_with(guests, 0)
    native = await guests.come("native")
    assert (await native.ask("rooms", prefix=room))["data"]["rooms"] == []


async def test_a_room_is_closed_that_somebody_only_just_enters(guests: Guests) -> None:
    """Whoever is told that they are in is told of the end as well."""
    for _ in range(10):
        room, owner, _ = await room_with(guests, 0)
        coming = [await guests.come("rtbroadcaster") for _ in range(3)]
        await owner.send(owner.message(4, room))
        for client in coming:
            await client.send(client.message(2, room))
        for client in coming:
            if (answer := await client.hear())["status"]["value"] == 3:
                answer = await client.hear()
            assert (answer["status"]["value"], answer["uuid"]) == (0, room)
