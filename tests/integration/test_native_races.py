"""Races of several clients for one name, one room, the last free seats and the member list.

Here they run on one server, and on two processes of one site in `test_two_processes.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration import native
from tests.integration.native import unique

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.native import Client, Visitors

pytestmark = pytest.mark.database

visitors = native.visitors


async def guests(sites: Sequence[Visitors], number: int, application: str = "durable") -> list[Client]:
    """Log in guests, spread over the sites."""
    chosen = [sites[position % len(sites)] for position in range(number)]
    return list(await asyncio.gather(*[site.guest(application=application) for site in chosen]))


async def at_once(clients: Sequence[Client], kind: str, **fields: Any) -> list[native.Message]:
    """Return the answers to a request that all clients send at once."""
    return list(await asyncio.gather(*[client.ask(kind, **fields) for client in clients]))


def codes(answers: Sequence[native.Message]) -> list[str]:
    return sorted("granted" if answer["type"] == "reply" else answer["code"] for answer in answers)


async def one_client_gets_a_name(sites: Sequence[Visitors]) -> None:
    clients = [await sites[position % len(sites)].connect() for position in range(8)]
    answers = await at_once(clients, "login", name=unique("guest"))
    assert codes(answers) == ["granted"] + ["name_taken"] * 7


async def one_client_creates_a_room(sites: Sequence[Visitors]) -> None:
    answers = await at_once(await guests(sites, 8), "create", room=unique("room"))
    assert codes(answers) == ["granted"] + ["room_exists"] * 7


async def a_room_admits_no_more_than_its_capacity(sites: Sequence[Visitors]) -> None:
    room, clients = unique("room"), await guests(sites, 10)
    await clients[0].request("create", room=room, max_members=3)
    answers = await at_once(clients, "join", room=room)
    assert codes(answers) == ["granted"] * 3 + ["room_full"] * 7
    inside = [client for client, answer in zip(clients, answers, strict=True) if answer["type"] == "reply"]
    assert (await inside[0].request("members", room=room))["count"] == 3


async def one_key_is_sent_once(sites: Sequence[Visitors]) -> None:
    """All connections of a user resend the same message."""
    room, (first, *_) = unique("room"), await guests(sites, 1)
    clients = [await sites[position % len(sites)].again(first) for position in range(6)]
    for client in clients:
        await client.join(room)
    answers = await at_once(clients, "message", room=room, data="once", key="same")
    assert [answer["data"] for answer in answers] == [answers[0]["data"]] * 6
    assert (await clients[0].send_message(room, "marker"))["seq"] == 2


async def each_member_sees_all(sites: Sequence[Visitors], application: str = "durable") -> None:
    """All join a room on demand; members missing in a reply are announced later."""
    room, clients = unique("room"), await guests(sites, 20, application)
    answers = await at_once(clients, "join", room=room)
    assert codes(answers) == ["granted"] * 20
    if application == "durable":
        assert len({answer["data"]["position"]["epoch"] for answer in answers}) == 1
    all_ids = {client.user["id"] for client in clients}
    for client, answer in zip(clients, answers, strict=True):
        seen = {member["id"] for member in answer["data"]["members"]}
        while seen != all_ids:
            seen.add((await client.push("joined"))["user"]["id"])


async def each_member_sees_all_without_history(sites: Sequence[Visitors]) -> None:
    await each_member_sees_all(sites, "bench")


async def joins_and_leaves_alternate(sites: Sequence[Visitors]) -> None:
    """A witness receives joins and leaves of each client in turn; the last one is true."""
    room, (witness, *clients) = unique("room"), await guests(sites, 9)
    await witness.join(room)

    async def join_and_leave(client: Client, last: str) -> None:
        for _ in range(8):
            await client.request("join", room=room)
            await client.request("leave", room=room)
        if last == "joined":
            await client.request("join", room=room)

    ends = ["joined" if position % 2 else "left" for position in range(len(clients))]
    await asyncio.gather(*[join_and_leave(client, last) for client, last in zip(clients, ends, strict=True)])
    events: dict[str, list[str]] = {client.user["id"]: [] for client in clients}
    for _ in range(sum(16 + (last == "joined") for last in ends)):
        push = await witness.push()
        events[push["user"]["id"]].append(push["type"])
    for client, last in zip(clients, ends, strict=True):
        turns = events[client.user["id"]]
        assert turns == [("joined", "left")[turn % 2] for turn in range(len(turns))]
        assert turns[-1] == last
    members = (await witness.request("members", room=room))["members"]
    assert {member["id"] for member in members} == {witness.user["id"]} | {
        client.user["id"] for client, last in zip(clients, ends, strict=True) if last == "joined"
    }
    await witness.send_message(room, "marker")
    assert (await witness.push())["type"] == "message"


async def a_room_on_demand_exists_for_its_members(sites: Sequence[Visitors]) -> None:
    """A room on demand that is left and joined repeatedly exists while it has members."""
    room, clients = unique("room"), await guests(sites, 4, "bench")

    async def join_send_and_leave(client: Client) -> None:
        for number in range(10):
            await client.join(room)
            await client.send_message(room, [client.user["name"], number])
            while (push := await client.push()).get("data") != [client.user["name"], number]:
                assert push["type"] != "removed", f"removed from a room with a member: {push}"
            await client.request("leave", room=room)

    await asyncio.gather(*[join_send_and_leave(client) for client in clients])
    answers = await at_once(clients, "join", room=room)
    assert codes(answers) == ["granted"] * 4
    await clients[0].send_message(room, "marker")
    for client in clients:
        while (await client.push("message"))["data"] != "marker":
            pass
    assert (await clients[0].request("members", room=room))["count"] == 4


RACES = [
    one_client_gets_a_name,
    one_client_creates_a_room,
    a_room_admits_no_more_than_its_capacity,
    one_key_is_sent_once,
    each_member_sees_all,
    each_member_sees_all_without_history,
    joins_and_leaves_alternate,
    a_room_on_demand_exists_for_its_members,
]


@pytest.mark.parametrize("race", RACES)
async def test_race(visitors: Visitors, race: Any) -> None:
    await race([visitors])
