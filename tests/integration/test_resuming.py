"""Coming back with `since` (section 5): to another process, after restarts and under another kind of server,
and while others go on talking. Either everything that was missed is handed over, or the answer says that it
is not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.native import Visitors, make_application, unique
from tests.servers import Server, fresh_database, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.native import Client, Message
    from tests.servers import Kind

Pair = tuple[Visitors, Visitors]

#: At most so many messages are handed over at once.
MOST = 300


@pytest.fixture
async def pair(redis_pair: tuple[Server, Server]) -> AsyncIterator[Pair]:
    """Visitors of the one process and of the other."""
    async with Visitors(redis_pair[0]) as here, Visitors(redis_pair[1]) as there:
        yield here, there


def seqs(messages: list[Message]) -> list[int]:
    return [message["seq"] for message in messages]


async def say(client: Client, room: str, number: int) -> None:
    """So many messages, of which the client hears nothing itself."""
    for value in range(number):
        await client.send("message", room=room, data=value, echo=False)
    await client.ask("ping")


async def resume(client: Client, room: str, epoch: str, seq: int, **fields: Any) -> Message:
    return await client.join(room, since={"epoch": epoch, "seq": seq}, **fields)


@pytest.mark.parametrize(
    ("seq", "recovered", "first"),
    [
        (MOST + 50, True, MOST + 51),
        (MOST + 49, True, MOST + 50),
        (50, True, 51),
        (49, False, MOST + 1),
        (0, False, MOST + 1),
        (MOST + 51, False, MOST + 1),
    ],
)
async def test_at_another_process(pair: Pair, seq: int, recovered: bool, first: int) -> None:
    room, newest = unique("room"), MOST + 50
    here, there = pair
    speaker = await here.guest()
    epoch = (await speaker.join(room))["position"]["epoch"]
    await say(speaker, room, newest)
    data = await resume(await there.guest(), room, epoch, seq)
    assert (data["recovered"], data["position"]) == (recovered, {"epoch": epoch, "seq": newest})
    assert seqs(data["messages"]) == [*range(first, newest + 1)]


async def test_what_is_kept_no_longer_is_not_recovered(pair: Pair) -> None:
    room = unique("room")
    application = make_application(pair[0].server, rooms_on_demand=True, history_size=10, request_rate=0)
    speaker = await pair[0].guest(application=application)
    epoch = (await speaker.join(room))["position"]["epoch"]
    await say(speaker, room, 30)
    for seq, recovered in ((19, False), (20, True)):
        client = await pair[1].guest(application=application)
        data = await resume(client, room, epoch, seq)
        assert (data["recovered"], seqs(data["messages"])) == (recovered, [*range(21, 31)])


async def test_where_the_room_was_made_anew_nothing_is_recovered(pair: Pair) -> None:
    room = unique("room")
    here, there = pair
    owner = await here.guest()
    await owner.request("create", room=room)
    epoch = (await owner.join(room))["position"]["epoch"]
    await say(owner, room, 5)
    await owner.request("close", room=room)
    assert (await owner.push("removed"))["reason"] == "closed"
    await owner.join(room)
    await say(owner, room, 3)
    data = await resume(await there.guest(), room, epoch, 2)
    assert data["recovered"] is False
    assert data["position"]["epoch"] != epoch
    assert seqs(data["messages"]) == [1, 2, 3]


async def test_to_and_fro_while_others_go_on_talking(pair: Pair) -> None:
    """One who changes processes all the time hears everything once and in order, and no push of the room
    comes before the answer."""
    room = unique("room")
    here, there = pair
    speakers = [await here.guest(), await there.guest()]
    for speaker in speakers:
        await speaker.join(room)
    traveller = await here.guest()
    position = (await traveller.join(room, limit=0))["position"]
    done = asyncio.Event()

    async def talk(speaker: Client) -> None:
        while not done.is_set():
            await speaker.say(room, "on", echo=False)

    talking = [asyncio.create_task(talk(speaker)) for speaker in speakers]
    heard = [position["seq"]]
    for number in range(12):
        heard += seqs(await traveller.messages(5))
        traveller.drop()
        traveller = await pair[number % 2].again(traveller)
        data = await resume(traveller, room, position["epoch"], heard[-1])
        assert data["recovered"] is True
        assert traveller.log[-1]["type"] == "reply", "nothing came before the answer"
        assert "message" not in {frame["type"] for frame in traveller.log}
        heard += seqs(data["messages"])
        assert data["position"] == {"epoch": position["epoch"], "seq": heard[-1]}
    done.set()
    await asyncio.gather(*talking)
    last = (await speakers[0].say(room, "the end", echo=False))["seq"]
    while heard[-1] < last:
        heard += seqs(await traveller.messages(1))
    assert heard == [*range(heard[0], last + 1)]


async def test_joining_again_where_one_is_while_others_talk(pair: Pair) -> None:
    """The answer and the pushes after it are one sequence, each time."""
    room = unique("room")
    here, there = pair
    speaker, listener = await here.guest(), await there.guest()
    await speaker.join(room)
    epoch = (await listener.join(room))["position"]["epoch"]
    done = asyncio.Event()

    async def talk() -> None:
        while not done.is_set():
            await asyncio.gather(*(speaker.send("message", room=room, data=1, echo=False) for _ in range(5)))
            await speaker.ask("ping")

    talking = asyncio.create_task(talk())
    for _ in range(10):
        seq = (await listener.messages(3))[-1]["seq"]
        before = len(listener.log)
        data = await resume(listener, room, epoch, seq)
        # What came until the answer belongs before it.
        early = [frame["seq"] for frame in listener.log[before:] if frame["type"] == "message"]
        pushed = [each["seq"] for each in listener.pushes if each["type"] == "message"]
        listener.pushes.clear()
        assert data["recovered"] is True
        assert seqs(data["messages"]) == [*range(seq + 1, data["position"]["seq"] + 1)]
        assert all(each <= data["position"]["seq"] for each in early)
        following = [each for each in pushed if each > data["position"]["seq"]]
        following += seqs(await listener.messages(3))
        assert following == [*range(data["position"]["seq"] + 1, following[-1] + 1)]
    done.set()
    await talking


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_after_each_restart_under_another_server(how: str) -> None:
    kinds: tuple[Kind, ...] = ("uvicorn", "daphne", "runrooms", "uvicorn")
    database_url, room = fresh_database(), unique("room")
    position: Message = {}
    token = ""
    said = 0
    for kind in kinds:
        server = await asyncio.to_thread(Server.start, kind, database_url)
        with running(server):
            async with Visitors(server) as visitors:
                speaker, client = await visitors.guest(), await visitors.connect()
                await client.login(**({"token": token} if token else {"name": unique("guest")}))
                token = client.token
                if position:
                    data = await resume(client, room, position["epoch"], position["seq"])
                    assert data["recovered"] is True
                    assert seqs(data["messages"]) == [*range(position["seq"] + 1, said + 1)]
                else:
                    data = await client.join(room)
                position = data["position"]
                assert position == {**position, "seq": said}
                # What the client still hears, and what is said when it is gone.
                await speaker.join(room)
                await say(speaker, room, 5)
                position = {**position, "seq": (await client.messages(5))[-1]["seq"]}
                client.drop()
                await say(speaker, room, 20)
                said += 25
                if how == "kill":
                    await asyncio.to_thread(server.kill)
