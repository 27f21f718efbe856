"""State messages outlive the server that took them, and are handed to whoever comes in at a door that tells
of state, in the order in which their names were first kept."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.protocols import PROTOCOLS
from tests.integration.sites import Clients
from tests.servers import KINDS

if TYPE_CHECKING:
    from tests.integration.protocols import Native, Rtbroadcaster
    from tests.servers import Server

pytestmark = pytest.mark.database

#: What both of them say, in this order; by event name and data as native clients are told.
SAID = {"title": "Doors, all five", "slide": ["2", "x"], "size": {"x": 1}}

#: What is stored has nothing to do with who serves, so one kind is enough.
one_kind = pytest.mark.parametrize("server", KINDS[-1:], indirect=True)

#: The same as rtbroadcaster's clients are told.
REPLAYED = [("title", ["Doors, all five"]), ("slide", ["2", "x"]), ("size", ['{"x": 1}'])]


async def keep_state(clients: Clients, room: str) -> None:
    """Have a native client say it, with values that are replaced and one that is taken away."""
    speaker = await clients.connect("native", room)
    first = [("title", "Doors"), ("gone", 1), ("slide", ["1"])]
    last = [("slide", SAID["slide"]), ("gone", None), ("title", SAID["title"]), ("size", SAID["size"])]
    for event, data in first + last:
        answer = await speaker.request("message", room=room, event=event, data=data, state=True)
        assert answer["type"] == "reply", answer
    await speaker.request("message", room=room, event="title", data="not state")


async def replayed(client: Rtbroadcaster) -> list[tuple[str, Any]]:
    """The state that a client is told which is just in."""
    told = [each for each in await client.drain() if client.is_message(each)]
    assert all(each["stateMessage"] is True for each in told)
    return [(each["funcKey"], each["funcParams"]) for each in told]


async def check_at_every_door(clients: Clients, room: str) -> None:
    """Native and rtbroadcaster clients are told the state; the others come in all the same, and hear nothing
    of what was said before."""
    joined = (await (await clients.connect("native")).join(room))["data"]
    assert [(each["event"], each["data"]) for each in joined["state"]] == list(SAID.items())
    assert all(each["state"] is True for each in joined["state"])
    assert await replayed(await clients.connect("rtbroadcaster", room)) == REPLAYED
    for protocol in PROTOCOLS.keys() - {"native", "rtbroadcaster"}:
        client = await clients.connect(protocol, room)
        assert [each for each in await client.drain() if client.is_message(each)] == []


@one_kind
@pytest.mark.parametrize("how", ["restart", "kill"])
@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_state_outlives_its_server(server: Server, how: str, application: str) -> None:
    room = str(uuid.uuid4())
    async with Clients(server, application) as clients:
        await keep_state(clients, room)
        await check_at_every_door(clients, room)
        if how == "kill":
            await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)
    async with Clients(server, application) as clients:
        await check_at_every_door(clients, room)
        # And goes on where it stood: what is new comes last, what is known keeps its place.
        speaker = await clients.connect("native", room)
        for event, data in (("new", 1), ("title", "Replaced")):
            await speaker.request("message", room=room, event=event, data=data, state=True)
        joined = (await (await clients.connect("native")).join(room))["data"]
        told = [(each["event"], each["data"]) for each in joined["state"]]
        assert told == [*({**SAID, "title": "Replaced"}).items(), ("new", 1)]


@one_kind
async def test_state_of_an_rtbroadcaster_owner_outlives_a_crash(server: Server) -> None:
    async with Clients(server, "durable") as clients:
        owner = await clients.connect("rtbroadcaster")
        room = await owner.create_room()
        await owner.send_message(room, ["1"], "zoom", state=True)
        await owner.send_message(room, None, "stop", state=True)
        own_way = {"status": {"value": 3, "text": "my way"}, "funcKey": "own", "funcParams": ["x"]}
        await owner.send(owner.message(3, room, stateMessage=True, more=9, **own_way))
        await owner.send_message(room, ["2"], "zoom", state=True)
        assert await owner.drain() == []
        await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)
    async with Clients(server, "durable") as clients:
        joined = (await (await clients.connect("native")).join(room))["data"]
        told = [("zoom", ["2"]), ("stop", []), ("own", ["x"])]
        assert [(each["event"], each["data"]) for each in joined["state"]] == told
        listener = await clients.connect("rtbroadcaster", room)
        heard = [await listener.receive() for _ in range(3)]
        assert [(each["funcKey"], each["funcParams"]) for each in heard] == [
            ("zoom", ["2"]),
            ("stop", None),
            ("own", ["x"]),
        ]
        assert heard[2]["status"]["text"] == "my way"
        assert await listener.drain() == []


@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_state_is_the_same_at_another_process_at_once(
    redis_pair: tuple[Server, Server], application: str
) -> None:
    room = str(uuid.uuid4())
    here, there = redis_pair
    async with Clients(here, application) as clients, Clients(there, application) as others:
        await keep_state(clients, room)
        await check_at_every_door(others, room)
        await check_at_every_door(clients, room)


async def test_state_that_is_said_while_others_come_in_is_told_to_each_of_them(
    redis_pair: tuple[Server, Server],
) -> None:
    """Either the answer tells a value or it follows; none of those is missing, doubled or out of order."""
    room = str(uuid.uuid4())
    here, there = redis_pair
    async with Clients(here, "durable") as clients, Clients(there, "durable") as others:
        speaker = await clients.connect("native", room)
        coming = [await others.connect("native") for _ in range(10)]

        async def values(client: Native) -> list[int]:
            joined = (await client.join(room))["data"]
            seen = [each["data"] for each in joined["state"]]
            while not seen or seen[-1] != 99:
                seen.append((await client.receive_message())["data"])
            return seen

        listening = []
        for number in range(100):
            await speaker.request("message", room=room, event="slide", data=number, state=True, echo=False)
            if number % 10 == 0:
                listening.append(asyncio.create_task(values(coming.pop())))
        for seen in await asyncio.gather(*listening):
            assert seen == [*range(seen[0], 100)]
