"""Redis is killed, frozen or absent: two processes work on and reconnect."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests import services
from tests.changed_site import FREQUENT_CHECKS, changed_site
from tests.integration.native import PATIENCE, Visitors, unique
from tests.servers import Server, fresh_database, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.changed_site import FREQUENT_CHECKS, changed_site
from tests.integration.native import Client

Pair = tuple[Visitors, Visitors]


@pytest.fixture(scope="module")
def redis() -> services.Redis:
    """A Redis that may be stopped."""
    redis = services.redis("down")
    if redis.process is None:
        pytest.skip("this Redis is external and cannot be stopped")
    return redis


@pytest.fixture(scope="module")
def servers(redis: services.Redis) -> Iterator[tuple[Server, Server]]:
    """Two processes that started without Redis."""
    redis.stop()
    database_url, environment = fresh_database(), changed_site(FREQUENT_CHECKS)
    first = Server.start("uvicorn", database_url, redis.url, environment)
    second = Server.start("uvicorn", database_url, redis.url, environment)
    with running(first, second):
        yield first, second


@pytest.fixture
async def pair(servers: tuple[Server, Server], redis: services.Redis) -> AsyncIterator[Pair]:
    """Visitors of each process; at the end Redis runs again."""
    async with Visitors(servers[0]) as here, Visitors(servers[1]) as there:
        yield here, there
    if redis.process is None:
        await asyncio.to_thread(redis.launch)


@pytest.fixture
async def running_redis(servers: tuple[Server, Server], redis: services.Redis) -> services.Redis:
    """Redis, started if no test has done so."""
    if redis.process is None:
        await asyncio.to_thread(redis.launch)
    return redis


@asynccontextmanager
async def killed(redis: services.Redis) -> AsyncIterator[None]:
    """Stop Redis, which loses its data."""
    await asyncio.to_thread(redis.stop)
    yield
    await asyncio.to_thread(redis.launch)


@asynccontextmanager
async def frozen(redis: services.Redis) -> AsyncIterator[None]:
    """Freeze Redis: it keeps its connections and answers nothing."""
    with redis.frozen():
        yield


async def exchange_messages(clients: tuple[Client, Client], room: str) -> None:
    """Wait until volatile messages arrive in both directions."""
    # No `asyncio.timeout` around many short waits: on Python 3.11 `wait_for` may swallow its cancellation.
    deadline = asyncio.get_running_loop().time() + 2 * PATIENCE
    for speaker, listener in (clients, clients[::-1]):
        mark = unique("mark")
        while not any(push.get("data") == mark for push in await listener.before_pong()):
            assert asyncio.get_running_loop().time() < deadline, "no volatile message arrived"
            await speaker.send_message(room, mark, volatile=True)


async def check_everything_works(pair: Pair, clients: tuple[Client, Client], room: str) -> None:
    """Send, join, list members, read the history and recover, on both processes."""
    for speaker, listener in (clients, clients[::-1]):
        begin = (await speaker.join(room))["position"]
        replies = [await speaker.send_message(room, number, echo=False) for number in range(5)]
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


async def join_both(pair: Pair, room: str) -> tuple[Client, Client]:
    clients = await pair[0].guest(), await pair[1].guest()
    for client in clients:
        await client.join(room)
    return clients


async def test_processes_started_without_redis_work_and_connect_to_it_later(
    pair: Pair, redis: services.Redis
) -> None:
    room = unique("room")
    clients = await join_both(pair, room)
    await check_everything_works(pair, clients, room)
    await asyncio.to_thread(redis.launch)
    await exchange_messages(clients, room)
    await check_everything_works(pair, clients, room)


@pytest.mark.parametrize("outage", [killed, frozen])
async def test_rooms_keep_working_during_an_outage(
    pair: Pair, running_redis: services.Redis, outage: Any
) -> None:
    room, other = unique("room"), unique("room")
    clients = await join_both(pair, room)
    await exchange_messages(clients, room)
    async with outage(running_redis):
        await check_everything_works(pair, clients, room)
        # A room without members before.
        for client in clients:
            await client.join(other)
        await check_everything_works(pair, clients, other)
    await exchange_messages(clients, room)
    await exchange_messages(clients, other)
    await check_everything_works(pair, clients, room)


@pytest.mark.parametrize("outage", [killed, frozen])
async def test_messages_around_an_outage_arrive_in_order(
    pair: Pair, running_redis: services.Redis, outage: Any
) -> None:
    room = unique("room")
    clients = await join_both(pair, room)
    stop, answers = asyncio.Event(), asyncio.Queue[int]()

    async def send(client: Client) -> None:
        while not stop.is_set():
            answers.put_nowait((await client.send_message(room, client.user["name"]))["seq"])

    async def answered(count: int) -> list[int]:
        return [await answers.get() for _ in range(count)]

    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(send(client))
        seqs = await answered(50)
        for _ in range(2):
            async with outage(running_redis):
                seqs += await answered(200)
            seqs += await answered(200)
        stop.set()
    seqs += await answered(answers.qsize())
    assert sorted(seqs) == [*range(1, len(seqs) + 1)]
    for client in clients:
        assert [message["seq"] for message in await client.messages(len(seqs))] == sorted(seqs)
    await exchange_messages(clients, room)
