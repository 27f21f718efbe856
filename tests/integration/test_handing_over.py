"""Two processes that share a database and no Redis: who is where is known to both, and stays right when one
of them ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.integration.native import Visitors, unique
from tests.servers import Server, fresh_database, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.integration.native import Client

pytestmark = pytest.mark.database

Pair = tuple[Visitors, Visitors]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """Two processes of one site."""
    database_url, environment = fresh_database(), {"ROOMS_WORKERS": "2"}
    first = Server.start("runrooms", database_url, environment=environment)
    second = Server.start("runrooms", database_url, environment=environment)
    with running(first, second):
        yield first, second


@pytest.fixture
async def pair(servers: tuple[Server, Server]) -> AsyncIterator[Pair]:
    """Visitors of the one process and of the other."""
    async with Visitors(servers[0]) as here, Visitors(servers[1]) as there:
        yield here, there


async def names_in(client: Client, room: str) -> set[str]:
    return {member["name"] for member in (await client.request("members", room=room))["members"]}


async def test_both_know_who_is_where(pair: Pair) -> None:
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
    # A name is taken in both.
    assert await (await there.connect()).refused("login", name=ann.user["name"]) == "name_taken"


async def test_who_was_with_a_process_that_ended_is_told_as_gone_unless_they_came_back(pair: Pair) -> None:
    room = unique("room")
    here, there = pair
    witness = await there.guest()
    await witness.join(room)
    ann, ben = await here.guest(), await here.guest()
    for client in (ann, ben):
        await client.join(room)
        assert (await witness.push("joined"))["user"] == client.user
    await asyncio.to_thread(here.server.stop)
    assert await ann.closed() == 4000
    back = await there.again(ben)
    assert (await back.join(room))["count"] == 3
    assert await witness.push() == {"type": "left", "room": room, "user": ann.user, "reason": "dropped"}
    assert await names_in(witness, room) == {ben.user["name"], witness.user["name"]}
    assert await witness.before_pong() == []
