"""What the server does by its own clock: login deadlines, heartbeats, grace periods.

Each of these takes as long as the default that it is about, so they run side by side, on all kinds of
servers. Where something must *not* have happened yet, or must be over, another of the server's own clocks
tells so: a connection that never logs in lives 10 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from tests.integration.native import Client, Visitors, unique
from tests.servers import KINDS, shared


async def login_deadline(visitors: Visitors) -> None:
    """Without a login the server closes; it is also our clock of 10 s."""
    client = await visitors.connect()
    assert await client.closed() == 4502


async def login_deadline_starts_over_after_a_logout(visitors: Visitors) -> None:
    client = await visitors.guest()
    await login_deadline(visitors)
    await client.request("logout")
    assert await client.closed() == 4502


async def who_has_logged_in_stays(visitors: Visitors) -> None:
    client = await visitors.guest()
    await login_deadline(visitors)
    await login_deadline(visitors)
    assert await client.before_pong() == []


async def who_never_answers_a_ping_is_closed(visitors: Visitors) -> None:
    client = await visitors.guest()
    heard = len(client.log)
    assert await client.closed() == 4002
    assert [message["type"] for message in client.log[heard:]] == ["ping", "closing"]


async def who_answers_stays(visitors: Visitors) -> None:
    """Any frame is a sign of life, a pong and one that is an error alike."""
    polite, rude = await visitors.guest(), await visitors.guest()
    for client, sign in ((polite, "pong"), (rude, "nonsense")):
        assert (await client.receive())["type"] == "ping"
        await client.send(sign)
    await login_deadline(visitors)
    for client in (polite, rude):
        assert (await client.ask("ping"))["type"] == "pong"


async def who_drops_leaves_after_the_grace_period(visitors: Visitors) -> None:
    room = unique("room")
    witness, client = await visitors.members(room, 2)
    client.drop()
    await login_deadline(visitors)
    assert (await witness.request("members", room=room))["count"] == 2
    assert not witness.pushes, "nothing is told within the grace period"
    assert await witness.push() == {"type": "left", "room": room, "user": client.user, "reason": "dropped"}
    assert (await witness.request("members", room=room))["members"] == [witness.user]


async def a_returned_member_stays_when_the_grace_period_ends(visitors: Visitors) -> None:
    room = unique("room")
    witness, client = await visitors.members(room, 2)
    client.drop()
    back = await visitors.again(client)
    await back.join(room)
    await login_deadline(visitors)
    await login_deadline(visitors)
    await back.say(room, "marker")
    assert (await witness.push())["data"] == "marker"
    assert (await witness.request("members", room=room))["count"] == 2


async def the_name_of_a_dropped_guest_is_free_again(visitors: Visitors) -> None:
    await is_free_again(visitors, await visitors.guest())


async def the_name_of_one_who_dropped_out_of_a_room_is_free_again(visitors: Visitors) -> None:
    (first,) = await visitors.members(unique("room"), 1)
    await is_free_again(visitors, first)


async def is_free_again(visitors: Visitors, first: Client) -> None:
    first.drop()
    await login_deadline(visitors)
    second = await visitors.connect()
    assert await second.refused("login", name=first.user["name"]) == "name_taken"
    await login_deadline(visitors)
    third = await visitors.connect()
    await third.login(name=first.user["name"])
    assert third.user["id"] != first.user["id"]


async def who_drop_out_of_many_rooms_disturb_nobody(visitors: Visitors) -> None:
    """When grace periods end and rooms go all together, all of them do go, and others still come in."""
    witness = await visitors.guest(application="bench")
    await witness.request("rooms", limit=0)
    rooms = {unique("room") for _ in range(200)}
    clients = [await visitors.guest(application="bench") for _ in range(2)]
    for number, room in enumerate(rooms):
        await clients[number % 2].join(room)
    for client in clients:
        client.drop()
    while rooms:
        removed = await witness.push("room_removed")
        rooms.discard(removed["room"])
        if len(rooms) % 10 == 0:
            other = await visitors.guest(application="bench")
            await other.join(unique("room"))


STORIES = (
    login_deadline,
    login_deadline_starts_over_after_a_logout,
    who_has_logged_in_stays,
    who_never_answers_a_ping_is_closed,
    who_answers_stays,
    who_drops_leaves_after_the_grace_period,
    a_returned_member_stays_when_the_grace_period_ends,
    the_name_of_a_dropped_guest_is_free_again,
    the_name_of_one_who_dropped_out_of_a_room_is_free_again,
    who_drop_out_of_many_rooms_disturb_nobody,
)


async def told(story: Callable[[Visitors], Awaitable[None]], visitors: Visitors) -> None:
    """Carry out a story; what goes wrong says where."""
    try:
        await story(visitors)
    except Exception as error:
        error.add_note(f"{story.__name__}, under {visitors.server.kind}")
        raise


async def test_the_clocks() -> None:
    servers = [shared(kind) for kind in KINDS]
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        for server in servers:
            visitors = await stack.enter_async_context(Visitors(server))
            for story in STORIES:
                tasks.create_task(told(story, visitors))
