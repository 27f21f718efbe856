"""Presence diffs in a large room of two processes (section 6).

A list of members that a client keeps up to date from events stays correct, while the room grows and shrinks.
"""

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

#: A room with more members than this is large.
LARGE = 200


class MemberList:
    """The list of a room's members, kept up to date from the events of one client."""

    def __init__(self, client: Client, joined: Message) -> None:
        self.client = client
        self.members = {user["id"] for user in joined["members"]}
        self.count = joined["count"]
        self.received = {"joined": 0, "left": 0, "members": 0}

    async def until(self, members: set[str]) -> None:
        """Read events until the list has these members."""
        while self.members != members or self.count != len(members):
            self._apply(await self.client.push())

    def _apply(self, push: dict[str, Any]) -> None:
        self.received[push["type"]] += 1
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


async def test_member_lists_are_correct_while_a_room_grows_and_shrinks(
    redis_pair: tuple[Server, Server],
) -> None:
    room = unique("room")
    async with AsyncExitStack() as stack:
        sides = [await stack.enter_async_context(Visitors(server)) for server in redis_pair]
        lists = []
        for side in sides:
            client = await side.guest()
            lists.append(MemberList(client, await client.join(room)))
        present = {members.client.user["id"] for members in lists}

        clients = [await sides[number % 2].guest() for number in range(LARGE + 20)]
        for begin in range(0, len(clients), 20):
            await asyncio.gather(*(each.join(room) for each in clients[begin : begin + 20]))
        everyone = present | {each.user["id"] for each in clients}
        for members in lists:
            await members.until(everyone)
            assert members.received["joined"] <= LARGE
            assert members.received["members"] >= 1

        for each in clients:
            await each.request("leave", room=room)
        for members in lists:
            await members.until(present)
        last = clients[0]
        await last.join(room)
        for members in lists:
            before = members.received["joined"]
            await members.until(present | {last.user["id"]})
            assert members.received["joined"] == before + 1
