"""Order (sections 2, 5, 6): reply before own copy, nothing before a join's reply, no gaps."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from tests.integration import native
from tests.integration.native import unique

if TYPE_CHECKING:
    from tests.integration.native import Client, Visitors

pytestmark = pytest.mark.database

visitors = native.visitors


@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_the_reply_precedes_the_copy_of_the_sender(visitors: Visitors, application: str) -> None:
    client, room = await visitors.guest(application=application), unique("room")
    await client.join(room)
    for number in range(100):
        await client.send("message", id=f"n{number}", room=room, data=number)
    await client.messages(100)
    places = {
        message["id"] if message["type"] == "reply" else message["data"]: place
        for place, message in enumerate(client.log)
        if message["type"] == "message" or str(message.get("id")).startswith("n")
    }
    assert all(places[f"n{number}"] < places[number] for number in range(100))


@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_messages_of_a_connection_keep_their_order(visitors: Visitors, application: str) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2, application=application)
    lines = [json.dumps({"type": "message", "room": room, "data": number}) for number in range(200)]
    for start in range(0, 200, 20):
        await sender.send_text("\n".join(lines[start : start + 20]))
    for client in (sender, listener):
        messages = await client.messages(200)
        assert [message["data"] for message in messages] == [*range(200)]
        if application == "durable":
            assert [message["seq"] for message in messages] == [*range(1, 201)]


@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_500_messages_in_one_burst_reach_50_members_in_order(
    visitors: Visitors, application: str
) -> None:
    room = unique("room")
    sender = await visitors.guest(application=application)
    members = await asyncio.gather(*[visitors.guest(application=application) for _ in range(50)])
    for member in members:
        await member.join(room)
    await sender.join(room)

    async def hears_all(member: Client) -> None:
        messages = await member.messages(500)
        assert [message["data"] for message in messages] == [*range(500)]
        if application == "durable":
            assert [message["seq"] for message in messages] == [*range(1, 501)]

    async def send_all() -> None:
        for number in range(500):
            await sender.send("message", id=f"n{number}", room=room, data=number, echo=False)
        for number in range(500):
            assert (await sender.answer(f"n{number}"))["type"] == "reply"

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send_all())
        for member in members:
            tasks.create_task(hears_all(member))


async def test_messages_of_several_senders_arrive_in_one_order(visitors: Visitors) -> None:
    room = unique("room")
    clients = await visitors.members(room, 5)

    async def send_all(client: Client, name: int) -> list[int]:
        return [(await client.send_message(room, [name, number]))["seq"] for number in range(40)]

    replies = await asyncio.gather(*[send_all(client, name) for name, client in enumerate(clients)])
    received = [await client.messages(200) for client in clients]
    assert [message["seq"] for message in received[0]] == [*range(1, 201)]
    assert all(messages == received[0] for messages in received)
    for name, seqs in enumerate(replies):
        own = [message for message in received[0] if message["data"][0] == name]
        assert [message["data"][1] for message in own] == [*range(40)]
        assert [message["seq"] for message in own] == seqs


@pytest.mark.parametrize("kind", ["join", "subscribe"])
async def test_a_join_during_traffic_misses_and_repeats_no_message(visitors: Visitors, kind: str) -> None:
    room = unique("room")
    senders = await visitors.members(room, 2)
    joiners = [await visitors.guest() for _ in range(10)]

    async def send_all(client: Client) -> None:
        for number in range(100):
            await client.send_message(room, number)

    async def join_after(client: Client, earlier: int) -> None:
        for _ in range(earlier):
            await client.before_pong()
        data = await client.request(kind, room=room, limit=300)
        assert not client.pushes, "a push of the room came before the reply"
        seqs = [message["seq"] for message in data["messages"]]
        assert data["position"]["seq"] == len(seqs)
        while len(seqs) < 200:
            seqs.append((await client.push("message"))["seq"])
        assert seqs == [*range(1, 201)]

    async with asyncio.TaskGroup() as tasks:
        for sender in senders:
            tasks.create_task(send_all(sender))
        for number, joiner in enumerate(joiners):
            tasks.create_task(join_after(joiner, number * 8))


async def test_a_second_join_during_traffic_recovers_without_a_gap(visitors: Visitors) -> None:
    room = unique("room")
    sender, reader = await visitors.members(room, 2)
    epoch = (await reader.join(room))["position"]["epoch"]

    async def send_all() -> None:
        for number in range(150):
            await sender.send_message(room, number)

    async def flaps() -> None:
        client, newest = reader, 0
        while newest < 150:
            newest += 1
            assert (await client.push("message"))["seq"] == newest
            if newest % 20 == 0 and newest < 150:
                client.drop()
                client = await visitors.again(client)
                data = await client.join(room, since={"epoch": epoch, "seq": newest})
                assert data["recovered"] is True
                seqs = [message["seq"] for message in data["messages"]]
                assert seqs == [*range(newest + 1, newest + 1 + len(seqs))]
                newest += len(seqs)

    await asyncio.gather(send_all(), flaps())


async def test_no_event_of_a_room_follows_the_reply_to_leave(visitors: Visitors) -> None:
    room = unique("room")
    sender, leaver = await visitors.members(room, 2)

    async def send_all() -> None:
        for number in range(100):
            await sender.send_message(room, number)

    async def leaves() -> None:
        await leaver.messages(10)
        await leaver.request("leave", room=room)
        place = len(leaver.log)
        for _ in range(20):
            await leaver.before_pong()
        assert [message["type"] for message in leaver.log[place:]] == ["pong"] * 20

    await asyncio.gather(send_all(), leaves())
