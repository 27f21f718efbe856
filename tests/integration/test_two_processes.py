"""Two processes on one database are one site, with and without Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.native import Visitors, unique
from tests.integration.test_native_races import RACES
from tests.servers import Server, fresh_database, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.integration.native import Client

pytestmark = [pytest.mark.database, pytest.mark.smoke]

Pair = tuple[Visitors, Visitors]


@pytest.fixture(scope="module")
def pair_without_redis() -> Iterator[tuple[Server, Server]]:
    """Two processes connected through PostgreSQL, or on SQLite through Unix sockets."""
    database_url, environment = fresh_database(), {"ROOMS_WORKERS": "2"}
    first = Server.start("uvicorn", database_url, environment=environment)
    second = Server.start("uvicorn", database_url, environment=environment)
    with running(first, second):
        yield first, second


@pytest.fixture(params=["redis_pair", "pair_without_redis"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Visitors of each process."""
    servers = request.getfixturevalue(request.param)
    async with Visitors(servers[0]) as here, Visitors(servers[1]) as there:
        yield here, there


async def two_members(pair: Pair, room: str, application: str = "durable") -> tuple[Client, Client]:
    """Return a member on each process, after each has received the other's join."""
    here, there = pair
    first, second = await here.guest(application=application), await there.guest(application=application)
    await first.join(room)
    await second.join(room)
    assert (await first.push("joined"))["user"] == second.user
    return first, second


@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_messages_go_both_ways_in_order(pair: Pair, application: str) -> None:
    room = unique("room")
    first, second = await two_members(pair, room, application)
    for speaker, listener in ((first, second), (second, first)):
        for number in range(50):
            await speaker.send_message(room, [speaker.user["name"], number], echo=False)
        messages = await listener.messages(50)
        assert [message["data"] for message in messages] == [
            [speaker.user["name"], number] for number in range(50)
        ]
        assert messages[0]["from"] == speaker.user


async def test_simultaneous_messages_have_one_order(pair: Pair) -> None:
    room = unique("room")
    clients = await two_members(pair, room)

    async def send(client: Client) -> list[int]:
        return [(await client.send_message(room, client.user["name"]))["seq"] for _ in range(50)]

    replies = await asyncio.gather(*[send(client) for client in clients])
    received = [await client.messages(100) for client in clients]
    assert [message["seq"] for message in received[0]] == [*range(1, 101)]
    assert received[0] == received[1]
    for client, seqs in zip(clients, replies, strict=True):
        assert [message["seq"] for message in received[0] if message["data"] == client.user["name"]] == seqs


async def test_burst_reaches_the_other_process_completely(pair: Pair) -> None:
    room = unique("room")
    speaker, listener = await two_members(pair, room)
    for number in range(500):
        await speaker.send("message", room=room, data=number, echo=False)
    messages = await listener.messages(500)
    assert [message["data"] for message in messages] == [*range(500)]
    assert [message["seq"] for message in messages] == [*range(1, 501)]


async def test_join_during_traffic_of_the_other_process_misses_nothing(pair: Pair) -> None:
    room = unique("room")
    here, there = pair
    speaker, joiners = await here.guest(), [await there.guest() for _ in range(5)]
    await speaker.join(room)

    async def send() -> None:
        for number in range(100):
            await speaker.send_message(room, number)

    async def join(client: Client, earlier: int) -> None:
        for _ in range(earlier):
            await client.before_pong()
        data = await client.join(room, limit=300)
        seqs = [message["seq"] for message in data["messages"]]
        assert data["position"]["seq"] == len(seqs)
        while len(seqs) < 100:
            seqs.append((await client.push("message"))["seq"])
        assert seqs == [*range(1, 101)]

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        for number, joiner in enumerate(joiners):
            tasks.create_task(join(joiner, number * 10))


async def test_both_processes_list_all_members(pair: Pair) -> None:
    room = unique("room")
    first, second = await two_members(pair, room)
    lists = [await client.request("members", room=room) for client in (first, second)]
    assert lists[0] == lists[1]
    assert lists[0]["count"] == 2
    assert {member["id"] for member in lists[0]["members"]} == {first.user["id"], second.user["id"]}
    third = await pair[0].guest()
    assert (await third.join(room))["count"] == 3


async def test_joins_and_leaves_reach_the_other_process(pair: Pair) -> None:
    room = unique("room")
    first, second = await two_members(pair, room)
    await second.request("leave", room=room)
    assert await first.push() == {"type": "left", "room": room, "user": second.user, "reason": "left"}
    await second.join(room)
    assert await first.push() == {"type": "joined", "room": room, "user": second.user}
    await first.request("leave", room=room)
    assert (await second.push("left"))["user"] == first.user


async def test_user_on_both_processes_joins_and_leaves_once(pair: Pair) -> None:
    room = unique("room")
    witness, laptop = await two_members(pair, room)
    phone = await pair[0].again(laptop)
    assert phone.user == laptop.user
    assert (await phone.join(room))["count"] == 2
    await laptop.request("leave", room=room)
    await phone.send_message(room, "still here")
    assert (await witness.push())["data"] == "still here"
    await phone.request("leave", room=room)
    assert (await witness.push())["type"] == "left"


async def test_user_who_reconnects_to_the_other_process_does_not_leave(pair: Pair) -> None:
    room = unique("room")
    witness, client = await two_members(pair, room)
    client.drop()
    back = await pair[0].again(client)
    assert (await back.join(room))["count"] == 2
    await back.send_message(room, "back")
    assert (await witness.push())["data"] == "back"


async def test_logout_leaves_the_rooms_and_revokes_the_token_on_both(pair: Pair) -> None:
    room = unique("room")
    witness, client = await two_members(pair, room)
    await client.request("logout")
    assert (await witness.push("left"))["user"] == client.user
    other = await pair[0].connect()
    assert await other.refused("login", token=client.token) == "bad_token"


@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_direct_message_reaches_the_other_process(pair: Pair, application: str) -> None:
    room = unique("room")
    first, second = await two_members(pair, room, application)
    third = await pair[1].guest(application=application)
    await third.join(room)
    await first.send_message(room, "secret", to=second.user["name"])
    await first.send_message(room, "open")
    assert [message["data"] for message in await second.messages(2)] == ["secret", "open"]
    assert [message["data"] for message in await third.messages(1)] == ["open"]
    assert await first.refused("message", room=room, data=1, to=unique("absent")) == "user_not_found"


@pytest.mark.parametrize("application", ["durable", "bench"])
async def test_state_and_volatile_messages_reach_the_other_process(pair: Pair, application: str) -> None:
    room = unique("room")
    first, second = await two_members(pair, room, application)
    await first.send_message(room, 1, event="slide", state=True)
    await first.send_message(room, "typing", volatile=True)
    assert [message["data"] for message in await second.messages(2)] == [1, "typing"]
    joined = await (await pair[1].guest(application=application)).join(room)
    assert [(message["event"], message["data"]) for message in joined["state"]] == [("slide", 1)]


async def test_idempotency_key_holds_on_both_processes(pair: Pair) -> None:
    room = unique("room")
    witness, client = await two_members(pair, room)
    phone = await pair[0].again(client)
    await phone.join(room)
    first = await client.send_message(room, "once", key="same")
    assert await phone.send_message(room, "once", key="same") == first
    await client.send_message(room, "marker")
    assert [message["data"] for message in await witness.messages(2)] == ["once", "marker"]


async def test_name_in_use_is_refused_by_the_other_process(pair: Pair) -> None:
    holder, other = await pair[0].guest(), await pair[1].connect()
    assert await other.refused("login", name=holder.user["name"].upper()) == "name_taken"
    await other.login(token=holder.token)
    assert other.user == holder.user


async def test_room_list_is_shared(pair: Pair) -> None:
    room = unique("room")
    watcher, owner = await pair[0].guest(), await pair[1].guest()
    await watcher.request("rooms")
    await owner.request("create", room=room, title="New")
    while (added := await watcher.push("room_added"))["room"]["name"] != room:
        pass
    assert added["room"]["title"] == "New"
    await watcher.join(room)
    await owner.join(room)
    listed = (await owner.request("rooms", prefix=room))["rooms"]
    assert [(entry["name"], entry["members"]) for entry in listed] == [(room, 2)]
    await owner.request("close", room=room)
    assert (await watcher.push("removed"))["reason"] == "closed"
    while (await watcher.push("room_removed"))["room"] != room:
        pass


@pytest.mark.parametrize("race", RACES)
async def test_simultaneous_operations_on_both_processes(pair: Pair, race: Any) -> None:
    await race(pair)


async def test_closed_room_is_closed_on_both_and_can_be_created_again(pair: Pair) -> None:
    room = unique("room")
    owner, member = await pair[0].guest(), await pair[1].guest()
    await owner.request("create", room=room)
    epoch = (await owner.join(room))["position"]["epoch"]
    await member.join(room)
    await member.send_message(room, "lost")
    await owner.request("close", room=room)
    for client in (owner, member):
        assert (await client.push("removed"))["reason"] == "closed"
        client.pushes.clear()
    again = [await client.join(room) for client in (member, owner)]
    assert again[0]["position"]["epoch"] == again[1]["position"]["epoch"] != epoch
    assert [(data["messages"], data["position"]["seq"], data["count"]) for data in again] == [
        ([], 0, 1),
        ([], 0, 2),
    ]
    for speaker, listener in ((member, owner), (owner, member)):
        await speaker.send_message(room, "again", echo=False)
        assert (await listener.messages(1))[0]["data"] == "again"


async def test_room_is_created_once_and_its_capacity_is_shared(pair: Pair) -> None:
    room = unique("room")
    first, second = await pair[0].guest(), await pair[1].guest()
    await first.request("create", room=room, max_members=1)
    assert await second.refused("create", room=room) == "room_exists"
    await first.join(room)
    assert await second.refused("join", room=room) == "room_full"
    await first.request("leave", room=room)
    assert (await second.join(room))["count"] == 1


async def test_publishing_from_a_command_reaches_both(pair: Pair) -> None:
    room = unique("room")
    clients = await two_members(pair, room)
    await clients[0].send_message(room, "before", echo=False)
    script = f"import rooms; rooms.publish('durable', {room!r}, {{'a': 1}})"
    await asyncio.to_thread(pair[0].server.manage, "shell", "-c", script)
    await clients[0].send_message(room, "after")
    assert [message["data"] for message in await clients[0].messages(2)] == [{"a": 1}, "after"]
    messages = await clients[1].messages(3)
    assert [(message["data"], message["seq"]) for message in messages] == [
        ("before", 1),
        ({"a": 1}, 2),
        ("after", 3),
    ]
    assert messages[1]["from"] is None
    assert messages[1]["event"] == "message"
