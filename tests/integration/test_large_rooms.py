"""Large rooms over two processes (section 6): who came and went is told in digests, and a list kept from what
is told is right, when the room grows large and when it is small again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.native import Visitors, unique

if TYPE_CHECKING:
    from tests.integration.native import Client, Message
    from tests.servers import Server

pytestmark = pytest.mark.database

#: More than this many are a large room.
LARGE = 200


class Keeper:
    """Keeps the list of a room's members from what one of them is told."""

    def __init__(self, client: Client, joined: Message) -> None:
        self.client = client
        self.members = {user["id"] for user in joined["members"]}
        self.count = joined["count"]
        self.told = {"joined": 0, "left": 0, "members": 0}

    async def until(self, members: set[str]) -> None:
        """Listen until the list is this."""
        while self.members != members or self.count != len(members):
            self._take(await self.client.push())

    def _take(self, push: dict[str, Any]) -> None:
        self.told[push["type"]] += 1
        if push["type"] == "members":
            joined, left = ({user["id"] for user in push[side]} for side in ("joined", "left"))
            assert not joined & left
            assert self.client.user["id"] not in joined
            self.members = (self.members | joined) - left
            self.count = push["count"]
            return
        change = {push["user"]["id"]}
        self.members = self.members | change if push["type"] == "joined" else self.members - change
        self.count = len(self.members)


async def test_a_room_that_grows_large_and_small_again(redis_pair: tuple[Server, Server]) -> None:
    room = unique("room")
    async with AsyncExitStack() as stack:
        sides = [await stack.enter_async_context(Visitors(server)) for server in redis_pair]
        keepers = []
        for side in sides:
            client = await side.guest()
            keepers.append(Keeper(client, await client.join(room)))
        present = {keeper.client.user["id"] for keeper in keepers}

        crowd = [await sides[number % 2].guest() for number in range(LARGE + 20)]
        for begin in range(0, len(crowd), 20):
            await asyncio.gather(*(each.join(room) for each in crowd[begin : begin + 20]))
        everybody = present | {each.user["id"] for each in crowd}
        for keeper in keepers:
            await keeper.until(everybody)
            assert keeper.told["joined"] <= LARGE
            assert keeper.told["members"] >= 1

        for each in crowd:
            await each.request("leave", room=room)
        for keeper in keepers:
            await keeper.until(present)
        last = crowd[0]
        await last.join(room)
        for keeper in keepers:
            before = keeper.told["joined"]
            await keeper.until(present | {last.user["id"]})
            assert keeper.told["joined"] == before + 1
