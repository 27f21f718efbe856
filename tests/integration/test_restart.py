"""Acknowledged data survives `kill -9`: history, state, keys, logins, rooms."""

from __future__ import annotations

import asyncio
from operator import itemgetter
from typing import TYPE_CHECKING

import pytest

from tests.integration.native import Visitors, unique
from tests.servers import KINDS, on_postgres

if TYPE_CHECKING:
    from tests.servers import Server

pytestmark = pytest.mark.database

#: A killed server runs no code, so one kind is enough.
one_kind = pytest.mark.parametrize("server", KINDS[-1:], indirect=True)


@one_kind
async def test_acknowledged_messages_survive_kill_9(server: Server) -> None:
    room = unique("room")
    async with Visitors(server) as visitors:
        speaker, listener = await visitors.members(room, 2)
        for number in range(1, 21):
            reply = await speaker.send_message(room, number, key=f"key-{number}")
        await speaker.send_message(room, "red", event="colour", state=True)
        await listener.messages(10)
        before = await speaker.join(room)
        await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)

    async with Visitors(server) as visitors:
        back = await visitors.again(speaker)
        assert back.user == speaker.user
        after = await back.join(room)
        for part in ("messages", "state", "position"):
            assert after[part] == before[part]
        # Shared presence keeps the other members until the lease of the dead process expires.
        others = [listener.user] if on_postgres() else []
        assert sorted(after["members"], key=itemgetter("name")) == sorted(
            [back.user, *others], key=itemgetter("name")
        )
        assert after["count"] == 1 + len(others)

        assert await back.send_message(room, 20, key="key-20") == reply
        assert (await back.send_message(room, "next"))["seq"] == 22
        assert (await back.messages(1))[0]["seq"] == 22

        other = await visitors.again(listener)
        data = await other.join(room, since={"epoch": before["position"]["epoch"], "seq": 10})
        assert data["recovered"] is True
        assert [message["seq"] for message in data["messages"]] == [*range(11, 23)]


@one_kind
async def test_created_rooms_survive_kill_9(server: Server) -> None:
    room = unique("room")
    async with Visitors(server) as visitors:
        owner = await visitors.guest()
        created = await owner.request(
            "create", room=room, title="Kept", mode="broadcast", max_members=5, password="secret"
        )
        await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)

    async with Visitors(server) as visitors:
        guest = await visitors.guest()
        assert await guest.refused("join", room=room) == "bad_password"
        joined = (await guest.join(room, password="secret"))["room"]
        for field in ("name", "title", "mode", "owner", "max_members"):
            assert joined[field] == created["room"][field]
        assert await guest.refused("message", room=room, data=1) == "not_sender"
        back = await visitors.again(owner)
        await back.join(room, password="secret")
        await back.send_message(room, "still mine")
        assert (await guest.push("message"))["data"] == "still mine"


async def test_orderly_restart_keeps_the_history(server: Server) -> None:
    room = unique("room")
    async with Visitors(server) as visitors:
        (client,) = await visitors.members(room, 1)
        await client.send_message(room, "kept")
        before = await client.join(room)
        await asyncio.to_thread(server.restart)

    async with Visitors(server) as visitors:
        after = await (await visitors.again(client)).join(room)
        for part in ("messages", "position"):
            assert after[part] == before[part]
