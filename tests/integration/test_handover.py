"""Two processes without Redis share presence, also when one of them ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.changed_site import SHORT_LEASES, changed_site
from tests.integration.native import Visitors, unique
from tests.servers import Server, fresh_database, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.integration.native import Client

pytestmark = pytest.mark.database

Pair = tuple[Visitors, Visitors]

ENVIRONMENT = {**changed_site(SHORT_LEASES, LEAVE_GRACE=4), "ROOMS_WORKERS": "2"}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """Two processes of one site."""
    database_url = fresh_database()
    first = Server.start("runrooms", database_url, environment=ENVIRONMENT)
    second = Server.start("runrooms", database_url, environment=ENVIRONMENT)
    with running(first, second):
        yield first, second


@pytest.fixture
async def pair(servers: tuple[Server, Server]) -> AsyncIterator[Pair]:
    """Visitors of each process."""
    async with Visitors(servers[0]) as here, Visitors(servers[1]) as there:
        yield here, there


async def names_in(client: Client, room: str) -> set[str]:
    return {member["name"] for member in (await client.request("members", room=room))["members"]}


async def test_both_processes_list_the_members_of_both(pair: Pair) -> None:
    room = unique("room")
    here, there = pair
    ann, ben = await here.guest(), await there.guest()
    await ann.join(room)
    assert (await ben.join(room))["count"] == 2
    again = await there.again(ann)
    await again.join(room)
    for client in (ann, ben, again):
        assert await names_in(client, room) == {ann.user["name"], ben.user["name"]}
    await ann.request("leave", room=room)
    assert await names_in(ben, room) == {ann.user["name"], ben.user["name"]}
    await again.request("leave", room=room)
    assert await names_in(ben, room) == {ben.user["name"]}
    # A name in use is refused by both.
    assert await (await there.connect()).refused("login", name=ann.user["name"]) == "name_taken"


async def test_users_of_a_process_that_ended_leave_unless_they_come_back(pair: Pair) -> None:
    room = unique("room")
    here, there = pair
    witness = await there.guest()
    await witness.join(room)
    ann, ben = await here.guest(), await here.guest()
    for client in (ann, ben):
        await client.join(room)
        assert (await witness.push("joined"))["user"] == client.user
    # Connected before, so that little is left to do within the grace period.
    back = await there.connect()
    stopping = asyncio.create_task(asyncio.to_thread(here.server.stop))
    assert await asyncio.gather(ann.closed(), ben.closed()) == [4000] * 2
    await back.login(token=ben.token)
    assert (await back.join(room))["count"] == 3
    await stopping
    assert await witness.push() == {"type": "left", "room": room, "user": ann.user, "reason": "dropped"}
    assert await names_in(witness, room) == {ben.user["name"], witness.user["name"]}
    assert await witness.before_pong() == []
