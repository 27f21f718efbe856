"""State messages survive restarts and are sent to clients that join.

Native and rtbroadcaster clients receive state; the other protocols have none.
"""

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

#: The state by event name, in this order, as native clients receive it.
STATE = {"title": "Protocols, all five", "slide": ["2", "x"], "size": {"x": 1}}

#: Storage does not depend on the kind of server, so one kind is enough.
one_kind = pytest.mark.parametrize("server", KINDS[-1:], indirect=True)

#: The same as rtbroadcaster clients receive it.
REPLAYED = [("title", ["Protocols, all five"]), ("slide", ["2", "x"]), ("size", ['{"x": 1}'])]


async def send_state(clients: Clients, room: str) -> None:
    """Send the state from a native client, with replaced and deleted values."""
    sender = await clients.connect("native", room)
    first = [("title", "Protocols"), ("deleted", 1), ("slide", ["1"])]
    last = [("slide", STATE["slide"]), ("deleted", None), ("title", STATE["title"]), ("size", STATE["size"])]
    for event, data in first + last:
        answer = await sender.request("message", room=room, event=event, data=data, state=True)
        assert answer["type"] == "reply", answer
    await sender.request("message", room=room, event="title", data="not state")


async def replayed(client: Rtbroadcaster) -> list[tuple[str, Any]]:
    """Return the state that a client received after its join."""
    messages = [each for each in await client.drain() if client.is_message(each)]
    assert all(each["stateMessage"] is True for each in messages)
    return [(each["funcKey"], each["funcParams"]) for each in messages]


async def check_all_protocols(clients: Clients, room: str) -> None:
    """Native and rtbroadcaster clients receive the state on join, others nothing."""
    joined = (await (await clients.connect("native")).join(room))["data"]
    assert [(each["event"], each["data"]) for each in joined["state"]] == list(STATE.items())
    assert all(each["state"] is True for each in joined["state"])
    assert await replayed(await clients.connect("rtbroadcaster", room)) == REPLAYED
    for protocol in PROTOCOLS.keys() - {"native", "rtbroadcaster"}:
        client = await clients.connect(protocol, room)
        assert [each for each in await client.drain() if client.is_message(each)] == []


@one_kind
@pytest.mark.parametrize("how", ["restart", "kill"])
@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_state_survives_a_restart(server: Server, how: str, application: str) -> None:
    room = str(uuid.uuid4())
    async with Clients(server, application) as clients:
        await send_state(clients, room)
        await check_all_protocols(clients, room)
        if how == "kill":
            await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)
    async with Clients(server, application) as clients:
        await check_all_protocols(clients, room)
        # New names are appended; known names keep their position.
        sender = await clients.connect("native", room)
        for event, data in (("new", 1), ("title", "Replaced")):
            await sender.request("message", room=room, event=event, data=data, state=True)
        joined = (await (await clients.connect("native")).join(room))["data"]
        state = [(each["event"], each["data"]) for each in joined["state"]]
        assert state == [*({**STATE, "title": "Replaced"}).items(), ("new", 1)]


@one_kind
async def test_state_of_an_rtbroadcaster_owner_survives_a_crash(server: Server) -> None:
    async with Clients(server, "durable") as clients:
        owner = await clients.connect("rtbroadcaster")
        room = await owner.create_room()
        await owner.send_message(room, ["1"], "zoom", state=True)
        await owner.send_message(room, None, "stop", state=True)
        custom = {"status": {"value": 3, "text": "custom"}, "funcKey": "own", "funcParams": ["x"]}
        await owner.send(owner.message(3, room, stateMessage=True, more=9, **custom))
        await owner.send_message(room, ["2"], "zoom", state=True)
        assert await owner.drain() == []
        await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)
    async with Clients(server, "durable") as clients:
        joined = (await (await clients.connect("native")).join(room))["data"]
        expected = [("zoom", ["2"]), ("stop", []), ("own", ["x"])]
        assert [(each["event"], each["data"]) for each in joined["state"]] == expected
        listener = await clients.connect("rtbroadcaster", room)
        received = [await listener.receive() for _ in range(3)]
        assert [(each["funcKey"], each["funcParams"]) for each in received] == [
            ("zoom", ["2"]),
            ("stop", None),
            ("own", ["x"]),
        ]
        assert received[2]["status"]["text"] == "custom"
        assert await listener.drain() == []


@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_state_is_available_in_another_process_at_once(
    redis_pair: tuple[Server, Server], application: str
) -> None:
    room = str(uuid.uuid4())
    here, there = redis_pair
    async with Clients(here, application) as clients, Clients(there, application) as others:
        await send_state(clients, room)
        await check_all_protocols(others, room)
        await check_all_protocols(clients, room)


async def test_state_sent_during_joins_reaches_every_joining_client_once(
    redis_pair: tuple[Server, Server],
) -> None:
    """Values are in the reply or follow it, each once and in order."""
    room = str(uuid.uuid4())
    here, there = redis_pair
    async with Clients(here, "durable") as clients, Clients(there, "durable") as others:
        sender = await clients.connect("native", room)
        joining = [await others.connect("native") for _ in range(10)]

        async def values(client: Native) -> list[int]:
            joined = (await client.join(room))["data"]
            seen = [each["data"] for each in joined["state"]]
            while not seen or seen[-1] != 99:
                seen.append((await client.receive_message())["data"])
            return seen

        tasks = []
        for number in range(100):
            await sender.request("message", room=room, event="slide", data=number, state=True, echo=False)
            if number % 10 == 0:
                tasks.append(asyncio.create_task(values(joining.pop())))
        for seen in await asyncio.gather(*tasks):
            assert seen == [*range(seen[0], 100)]
