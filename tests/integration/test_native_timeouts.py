"""The timeouts of a connection: login deadlines, heartbeats, grace periods.

Each scenario takes as long as the timeout that it is about, so they run side by side, on every kind of
server. Where something must *not* have happened yet, or must be over, another timeout of the same server
shows it: a connection that never logs in is closed after the login timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from typing import TypeAlias

import pytest

from tests.changed_site import changed_site
from tests.integration.native import Client, Visitors, make_application, unique
from tests.servers import KINDS, Server, running

pytestmark = pytest.mark.any_database

Scenario: TypeAlias = Callable[[Visitors], Awaitable[None]]

SHORT_TIMEOUTS = changed_site(
    LOGIN_TIMEOUT=2,
    # Much longer than the login timeout, with which tests show that the grace period is not over yet.
    LEAVE_GRACE=7,
    GUEST_NAME_TTL=7,
    PING_INTERVAL=4,
    PONG_TIMEOUT=3,
)


async def a_connection_without_a_login_is_closed(visitors: Visitors) -> None:
    client = await visitors.connect()
    assert await client.closed() == 4502


async def login_timeouts(visitors: Visitors, number: int) -> None:
    """Wait as long as the server needs to close this many connections, one after the other."""
    for _ in range(number):
        await a_connection_without_a_login_is_closed(visitors)


async def the_login_timeout_starts_again_after_a_logout(visitors: Visitors) -> None:
    client = await visitors.guest()
    await login_timeouts(visitors, 1)
    await client.request("logout")
    assert await client.closed() == 4502


async def a_connection_with_a_login_stays_open(visitors: Visitors) -> None:
    client = await visitors.guest()
    await login_timeouts(visitors, 2)
    assert (await client.ask("ping"))["type"] == "pong"
    assert [push["type"] for push in client.pushes if push["type"] != "ping"] == []


async def a_connection_that_never_answers_a_ping_is_closed(visitors: Visitors) -> None:
    client = await visitors.guest()
    before = len(client.log)
    assert await client.closed() == 4002
    assert [message["type"] for message in client.log[before:]] == ["ping", "closing"]


async def a_connection_that_answers_with_any_frame_stays_open(visitors: Visitors) -> None:
    """A pong counts, and so does a frame that is an error."""
    pong, nonsense = await visitors.guest(), await visitors.guest()
    for client, frame in ((pong, "pong"), (nonsense, "nonsense")):
        assert (await client.receive())["type"] == "ping"
        await client.send(frame)
    await login_timeouts(visitors, 1)
    for client in (pong, nonsense):
        assert (await client.ask("ping"))["type"] == "pong"


async def a_dropped_member_leaves_after_the_grace_period(visitors: Visitors) -> None:
    room = unique("room")
    witness, client = await visitors.members(room, 2)
    client.drop()
    await login_timeouts(visitors, 1)
    assert (await witness.request("members", room=room))["count"] == 2
    assert not witness.pushes, "nothing is sent within the grace period"
    assert await witness.push() == {"type": "left", "room": room, "user": client.user, "reason": "dropped"}
    assert (await witness.request("members", room=room))["members"] == [witness.user]


async def a_returned_member_stays_when_the_grace_period_ends(visitors: Visitors) -> None:
    room = unique("room")
    witness, client, other = await visitors.members(room, 3)
    await witness.before_pong()
    client.drop()
    back = await visitors.again(client)
    await back.join(room)
    # Dropped later, so that its grace period ends later.
    other.drop()
    left = {"type": "left", "room": room, "user": other.user, "reason": "dropped"}
    # Both read, and thereby answer the heartbeat.
    assert await asyncio.gather(witness.push(), back.push("left")) == [left, left]
    await back.send_message(room, "marker")
    assert (await witness.push())["data"] == "marker"
    assert (await witness.request("members", room=room))["count"] == 2


async def the_name_of_a_dropped_guest_is_free_again(visitors: Visitors) -> None:
    await check_that_the_name_becomes_free(visitors, await visitors.guest())


async def the_name_of_a_dropped_member_is_free_again(visitors: Visitors) -> None:
    (first,) = await visitors.members(unique("room"), 1)
    await check_that_the_name_becomes_free(visitors, first)


async def check_that_the_name_becomes_free(visitors: Visitors, first: Client) -> None:
    first.drop()
    await login_timeouts(visitors, 1)
    second = await visitors.connect()
    assert await second.refused("login", name=first.user["name"]) == "name_taken"
    third = await visitors.connect()
    while (answer := await third.ask("login", name=first.user["name"]))["type"] == "error":
        assert answer["code"] == "name_taken"
        await login_timeouts(visitors, 1)
        third = await visitors.connect()
    assert answer["data"]["user"]["id"] != first.user["id"]


async def a_drop_out_of_many_rooms_disturbs_no_other_client(visitors: Visitors) -> None:
    """Grace periods end and rooms are deleted all at once; each of them is, and other clients still join."""
    unlimited = dict.fromkeys(["request_rate", "logins_per_minute", "max_connections_per_address"], 0)
    fields = {**unlimited, "rooms_on_demand": True, "history": "none", "leave_grace": 1}
    application = await asyncio.to_thread(make_application, visitors.server, **fields)
    witness = await visitors.guest(application=application)
    await witness.request("rooms", limit=0)
    rooms = {unique("room") for _ in range(200)}
    clients = [await visitors.guest(application=application) for _ in range(2)]
    for number, room in enumerate(rooms):
        await clients[number % 2].join(room)
        await witness.push("room_added")  # a client that only waits would miss its heartbeats
    for client in clients:
        client.drop()
    while rooms:
        removed = await witness.push("room_removed")
        rooms.discard(removed["room"])
        if len(rooms) % 10 == 0:
            other = await visitors.guest(application=application)
            await other.join(unique("room"))


SCENARIOS = (
    a_connection_without_a_login_is_closed,
    the_login_timeout_starts_again_after_a_logout,
    a_connection_with_a_login_stays_open,
    a_connection_that_never_answers_a_ping_is_closed,
    a_connection_that_answers_with_any_frame_stays_open,
    a_dropped_member_leaves_after_the_grace_period,
    a_returned_member_stays_when_the_grace_period_ends,
    the_name_of_a_dropped_guest_is_free_again,
    the_name_of_a_dropped_member_is_free_again,
)


async def run(scenario: Scenario, visitors: Visitors) -> None:
    """Run a scenario; a failure names it and the kind of the server."""
    try:
        await scenario(visitors)
    except Exception as error:
        error.add_note(f"{scenario.__name__}, under {visitors.server.kind}")
        raise


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    """A server of each kind with short timeouts."""
    started = [Server.start(kind, environment=SHORT_TIMEOUTS) for kind in KINDS]
    with running(*started):
        yield started


async def run_all(scenarios: Iterable[Scenario], servers: Iterable[Server]) -> None:
    """Run all scenarios at once, each on each server."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        for server in servers:
            visitors = await stack.enter_async_context(Visitors(server))
            for scenario in scenarios:
                tasks.create_task(run(scenario, visitors))


async def test_every_timeout_is_kept(servers: list[Server]) -> None:
    await run_all(SCENARIOS, servers)


async def test_a_drop_out_of_many_rooms_disturbs_no_other_client(servers: list[Server]) -> None:
    await run_all([a_drop_out_of_many_rooms_disturbs_no_other_client], servers)
