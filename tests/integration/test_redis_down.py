"""Redis killed, frozen or not there: two processes go on, and are one again soon after its return."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests import services
from tests.integration.native import PATIENCE, Visitors, unique
from tests.servers import Server, fresh_database, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.integration.native import Client

Pair = tuple[Visitors, Visitors]


@pytest.fixture(scope="module")
def redis() -> services.Redis:
    """A Redis that may be stopped."""
    redis = services.redis("down")
    if redis.process is None:
        pytest.skip("this Redis is not ours to stop")
    return redis


@pytest.fixture(scope="module")
def servers(redis: services.Redis) -> Iterator[tuple[Server, Server]]:
    """Two processes that began while Redis was not there."""
    redis.stop()
    database_url = fresh_database()
    first = Server.start("uvicorn", database_url, redis.url)
    second = Server.start("uvicorn", database_url, redis.url)
    with running(first, second):
        yield first, second


@pytest.fixture
async def pair(servers: tuple[Server, Server], redis: services.Redis) -> AsyncIterator[Pair]:
    """Visitors of the one process and of the other; at the end Redis is there."""
    async with Visitors(servers[0]) as here, Visitors(servers[1]) as there:
        yield here, there
    if redis.process is None:
        await asyncio.to_thread(redis.launch)


@asynccontextmanager
async def killed(redis: services.Redis) -> AsyncIterator[None]:
    """Redis is gone, with all that was in it."""
    await asyncio.to_thread(redis.stop)
    yield
    await asyncio.to_thread(redis.launch)


@asynccontextmanager
async def frozen(redis: services.Redis) -> AsyncIterator[None]:
    """Redis keeps its connections and answers nobody."""
    with redis.frozen():
        yield


async def hear_each_other(clients: tuple[Client, Client], room: str) -> None:
    """Wait until what is told once and never stored gets across, both ways."""
    # No `asyncio.timeout` around so many short waits: on Python 3.11 `wait_for` may swallow its cancellation.
    end = asyncio.get_running_loop().time() + PATIENCE
    for speaker, listener in (clients, clients[::-1]):
        mark = unique("mark")
        while not any(push.get("data") == mark for push in await listener.before_pong()):
            assert asyncio.get_running_loop().time() < end, "the processes do not hear each other"
            await speaker.say(room, mark, volatile=True)


async def everything_goes_on(pair: Pair, clients: tuple[Client, Client], room: str) -> None:
    """What a site is for, in both processes: talk, come in, look back, come back."""
    for speaker, listener in (clients, clients[::-1]):
        begin = (await speaker.join(room))["position"]
        replies = [await speaker.say(room, number, echo=False) for number in range(5)]
        seqs = [reply["seq"] for reply in replies]
        assert seqs == [*range(begin["seq"] + 1, begin["seq"] + 6)]
        while (message := await listener.push("message"))["seq"] != seqs[0]:
            assert message.get("seq") is None or message["seq"] < seqs[0]
        assert [message["seq"] for message in [message, *await listener.messages(4)]] == seqs

        for visitors in pair:
            newcomer = await visitors.guest()
            joined = await newcomer.join(room, since=begin)
            assert joined["recovered"] is True
            assert [message["seq"] for message in joined["messages"]] == seqs
            assert newcomer.user in joined["members"]
            listed = await newcomer.request("members", room=room)
            assert newcomer.user["id"] in {member["id"] for member in listed["members"]}
            stored = await newcomer.request("history", room=room, after=begin["seq"])
            assert [message["seq"] for message in stored["messages"]] == seqs
            await newcomer.request("leave", room=room)


async def come_in(pair: Pair, room: str) -> tuple[Client, Client]:
    clients = await pair[0].guest(), await pair[1].guest()
    for client in clients:
        await client.join(room)
    return clients


# The first test: the servers have just begun without Redis.
async def test_processes_that_begin_without_redis_work_and_find_it(pair: Pair, redis: services.Redis) -> None:
    room = unique("room")
    clients = await come_in(pair, room)
    await everything_goes_on(pair, clients, room)
    await asyncio.to_thread(redis.launch)
    await hear_each_other(clients, room)
    await everything_goes_on(pair, clients, room)


@pytest.mark.parametrize("away", [killed, frozen])
async def test_what_was_begun_goes_on(pair: Pair, redis: services.Redis, away: Any) -> None:
    room, other = unique("room"), unique("room")
    clients = await come_in(pair, room)
    await hear_each_other(clients, room)
    async with away(redis):
        await everything_goes_on(pair, clients, room)
        # A room that nobody was in before.
        for client in clients:
            await client.join(other)
        await everything_goes_on(pair, clients, other)
    await hear_each_other(clients, room)
    await hear_each_other(clients, other)
    await everything_goes_on(pair, clients, room)


@pytest.mark.parametrize("away", [killed, frozen])
async def test_all_that_is_said_around_the_fault_is_heard_in_order(
    pair: Pair, redis: services.Redis, away: Any
) -> None:
    room = unique("room")
    clients = await come_in(pair, room)
    ended, answers = asyncio.Event(), asyncio.Queue[int]()

    async def speaks(client: Client) -> None:
        while not ended.is_set():
            answers.put_nowait((await client.say(room, client.user["name"]))["seq"])

    async def answered(count: int) -> list[int]:
        return [await answers.get() for _ in range(count)]

    async with asyncio.TaskGroup() as speaking:
        for client in clients:
            speaking.create_task(speaks(client))
        seqs = await answered(50)
        for _ in range(2):
            async with away(redis):
                seqs += await answered(200)
            seqs += await answered(200)
        ended.set()
    seqs += await answered(answers.qsize())
    assert sorted(seqs) == [*range(1, len(seqs) + 1)]
    for client in clients:
        assert [message["seq"] for message in await client.messages(len(seqs))] == sorted(seqs)
    await hear_each_other(clients, room)
