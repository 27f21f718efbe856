"""Recovery with `since` (section 5): in another process, after restarts.

Either the reply has every missed message, or it says `recovered: false`.
"""

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

#: RECOVERY_MAX_MESSAGES.
MAX_MESSAGES = 300


@pytest.fixture
async def pair(redis_pair: tuple[Server, Server]) -> AsyncIterator[Pair]:
    """Visitors of each process."""
    async with Visitors(redis_pair[0]) as here, Visitors(redis_pair[1]) as there:
        yield here, there


def seqs(messages: list[Message]) -> list[int]:
    return [message["seq"] for message in messages]


async def send(client: Client, room: str, number: int) -> None:
    """Send messages that are not echoed to the client."""
    for value in range(number):
        await client.send("message", room=room, data=value, echo=False)
    await client.ask("ping")


async def resume(client: Client, room: str, epoch: str, seq: int, **fields: Any) -> Message:
    return await client.join(room, since={"epoch": epoch, "seq": seq}, **fields)


@pytest.mark.parametrize(
    ("seq", "recovered", "first"),
    [
        (MAX_MESSAGES + 50, True, MAX_MESSAGES + 51),
        (MAX_MESSAGES + 49, True, MAX_MESSAGES + 50),
        (50, True, 51),
        (49, False, MAX_MESSAGES + 1),
        (0, False, MAX_MESSAGES + 1),
        (MAX_MESSAGES + 51, False, MAX_MESSAGES + 1),
    ],
)
async def test_another_process_recovers_up_to_the_maximum(
    pair: Pair, seq: int, recovered: bool, first: int
) -> None:
    room, newest = unique("room"), MAX_MESSAGES + 50
    here, there = pair
    sender = await here.guest()
    epoch = (await sender.join(room))["position"]["epoch"]
    await send(sender, room, newest)
    data = await resume(await there.guest(), room, epoch, seq)
    assert (data["recovered"], data["position"]) == (recovered, {"epoch": epoch, "seq": newest})
    assert seqs(data["messages"]) == [*range(first, newest + 1)]


async def test_deleted_messages_are_not_recovered(pair: Pair) -> None:
    room = unique("room")
    application = make_application(pair[0].server, rooms_on_demand=True, history_size=10, request_rate=0)
    sender = await pair[0].guest(application=application)
    epoch = (await sender.join(room))["position"]["epoch"]
    await send(sender, room, 30)
    for seq, recovered in ((19, False), (20, True)):
        client = await pair[1].guest(application=application)
        data = await resume(client, room, epoch, seq)
        assert (data["recovered"], seqs(data["messages"])) == (recovered, [*range(21, 31)])


async def test_recreated_room_recovers_nothing(pair: Pair) -> None:
    room = unique("room")
    here, there = pair
    owner = await here.guest()
    await owner.request("create", room=room)
    epoch = (await owner.join(room))["position"]["epoch"]
    await send(owner, room, 5)
    await owner.request("close", room=room)
    assert (await owner.push("removed"))["reason"] == "closed"
    await owner.join(room)
    await send(owner, room, 3)
    data = await resume(await there.guest(), room, epoch, 2)
    assert data["recovered"] is False
    assert data["position"]["epoch"] != epoch
    assert seqs(data["messages"]) == [1, 2, 3]


async def test_client_that_changes_processes_during_traffic_misses_nothing(pair: Pair) -> None:
    """It receives every message once, in order, and none before the reply."""
    room = unique("room")
    here, there = pair
    senders = [await here.guest(), await there.guest()]
    for sender in senders:
        await sender.join(room)
    client = await here.guest()
    position = (await client.join(room, limit=0))["position"]
    done = asyncio.Event()

    async def send_all(sender: Client) -> None:
        while not done.is_set():
            await sender.send_message(room, "on", echo=False)

    sending = [asyncio.create_task(send_all(sender)) for sender in senders]
    received = [position["seq"]]
    for number in range(12):
        received += seqs(await client.messages(5))
        client.drop()
        client = await pair[number % 2].again(client)
        data = await resume(client, room, position["epoch"], received[-1])
        assert data["recovered"] is True
        assert client.log[-1]["type"] == "reply", "a frame came after the reply"
        assert "message" not in {frame["type"] for frame in client.log}
        received += seqs(data["messages"])
        assert data["position"] == {"epoch": position["epoch"], "seq": received[-1]}
    done.set()
    await asyncio.gather(*sending)
    last = (await senders[0].send_message(room, "the end", echo=False))["seq"]
    while received[-1] < last:
        received += seqs(await client.messages(1))
    assert received == [*range(received[0], last + 1)]


async def test_second_join_during_traffic_misses_nothing(pair: Pair) -> None:
    """The reply and the messages after it are one sequence."""
    room = unique("room")
    here, there = pair
    sender, listener = await here.guest(), await there.guest()
    await sender.join(room)
    epoch = (await listener.join(room))["position"]["epoch"]
    done = asyncio.Event()

    async def send_all() -> None:
        while not done.is_set():
            await asyncio.gather(*(sender.send("message", room=room, data=1, echo=False) for _ in range(5)))
            await sender.ask("ping")

    sending = asyncio.create_task(send_all())
    for _ in range(10):
        seq = (await listener.messages(3))[-1]["seq"]
        before = len(listener.log)
        data = await resume(listener, room, epoch, seq)
        # Messages that arrived before the reply are older than its position.
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
    await sending


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_messages_are_recovered_after_a_restart_under_another_server(how: str) -> None:
    kinds: tuple[Kind, ...] = ("uvicorn", "daphne", "runrooms", "uvicorn")
    database_url, room = fresh_database(), unique("room")
    position: Message = {}
    token = ""
    sent = 0
    for kind in kinds:
        server = await asyncio.to_thread(Server.start, kind, database_url)
        with running(server):
            async with Visitors(server) as visitors:
                sender, client = await visitors.guest(), await visitors.connect()
                await client.login(**({"token": token} if token else {"name": unique("guest")}))
                token = client.token
                if position:
                    data = await resume(client, room, position["epoch"], position["seq"])
                    assert data["recovered"] is True
                    assert seqs(data["messages"]) == [*range(position["seq"] + 1, sent + 1)]
                else:
                    data = await client.join(room)
                position = data["position"]
                assert position == {**position, "seq": sent}
                # Five messages that the client receives, and twenty after its connection is lost.
                await sender.join(room)
                await send(sender, room, 5)
                position = {**position, "seq": (await client.messages(5))[-1]["seq"]}
                client.drop()
                await send(sender, room, 20)
                sent += 25
                if how == "kill":
                    await asyncio.to_thread(server.kill)
