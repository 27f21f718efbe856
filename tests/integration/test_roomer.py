"""The roomer door over real sockets: what the codec alone cannot show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.native import unique
from tests.integration.protocols import Roomer
from tests.integration.sites import Guests

if TYPE_CHECKING:
    from tests.servers import Server

LARGEST = 1024 * 1024


@pytest.fixture
async def guests(server: Server) -> AsyncIterator[Guests]:
    """Clients of an application without limits in which rooms are made as they are entered."""
    async with Guests(server, "bench") as everyone:
        yield everyone


async def heard_in(client: Roomer, room: str) -> tuple[Any, ...]:
    """The next that a client hears of a room; others come and go in ``root`` meanwhile."""
    while (heard := await client.hear())[0] != room:
        pass
    return tuple(heard)


async def test_two_clients_meet_speak_and_part(guests: Guests) -> None:
    room = unique("room")
    ann = await guests.come("roomer", room)
    bob = await guests.come("roomer")
    answer = await bob.enter(room)
    assert answer[:4] == (room, "join_ack", "", bob.name)
    assert sorted(json.loads(answer[4])) == sorted([ann.name, bob.name])
    assert await heard_in(ann, room) == (room, "new_member", "", "", bob.name.encode())
    await bob.say(room, b"Hello room!", "chat")
    assert await heard_in(ann, room) == (room, "chat", "", bob.name, b"Hello room!")
    await ann.send(Roomer.frame(room, "leave"))
    assert await heard_in(ann, room) == (room, "leave_ack", "", ann.name, ann.name.encode())
    assert await heard_in(bob, room) == (room, "member_left", "", "", ann.name.encode())
    assert [heard for heard in await bob.answers() if heard[0] == room] == []


async def test_a_direct_message_reaches_one_who_is_in_no_common_room(guests: Guests) -> None:
    ann, bob, eve = [await guests.come("roomer") for _ in range(3)]
    for client in (ann, bob, eve):
        await client.send(Roomer.frame("root", "leave"))
        assert (await heard_in(client, "root"))[1] in ("leave_ack", "new_member", "member_left")
    await ann.send(Roomer.frame("nowhere", "whisper", b"\x00\xff", dst=bob.name))
    assert await heard_in(bob, "nowhere") == ("nowhere", "whisper", bob.name, ann.name, b"\x00\xff")
    for client in (ann, eve):
        assert [heard for heard in await client.answers() if heard[0] == "nowhere"] == []


async def test_who_vanishes_has_left_every_room(guests: Guests) -> None:
    room, other = unique("room"), unique("room")
    ann, bob = await guests.come("roomer", room), await guests.come("roomer", room)
    for client in (ann, bob):
        await client.enter(other)
    bob.drop()
    left = set()
    while len(left) < 3:
        heard = await ann.hear()
        if heard[1] == "member_left" and heard[4] == bob.name.encode():
            left.add(heard[0])
    assert left == {"root", room, other}
    assert json.loads((await ann.enter(room))[4]) == [ann.name]


async def test_a_burst_arrives_in_order(guests: Guests) -> None:
    room = unique("room")
    ann, bob = await guests.come("roomer", room), await guests.come("roomer", room)
    payloads = [b"%d" % number for number in range(500)]

    async def speak() -> None:
        for payload in payloads:
            await bob.say(room, payload, "n")

    speaking = asyncio.create_task(speak())
    assert (await heard_in(ann, room))[1] == "new_member"
    assert [(await heard_in(ann, room))[4] for _ in payloads] == payloads
    await speaking


async def test_the_largest_frame_passes_and_a_larger_one_ends_the_connection(guests: Guests) -> None:
    room = unique("room")
    ann, bob = await guests.come("roomer", room), await guests.come("roomer", room)
    assert (await heard_in(ann, room))[1] == "new_member"
    on_daphne = guests.server.kind == "daphne"
    # Daphne has a limit of its own, 1 MiB too, which what it sends must keep as well, sender's id included.
    largest = LARGEST - len(bob.name) if on_daphne else LARGEST
    payload = bytes(range(256)) * 4096
    payload = payload[: largest - len(Roomer.frame(room, "blob"))]
    await bob.say(room, payload, "blob")
    assert await heard_in(ann, room) == (room, "blob", "", bob.name, payload)
    await bob.say(room, payload + b"!" * (LARGEST - largest + 1), "blob")
    assert await bob.closed() == (1006 if on_daphne else 4507)
    assert await heard_in(ann, room) == (room, "member_left", "", "", bob.name.encode())


@pytest.mark.parametrize("data", [b"", b"\0" * 19, Roomer.frame("root", "note") + b"\0", "not a frame"])
async def test_a_malformed_frame_ends_the_connection(guests: Guests, data: str | bytes) -> None:
    room = unique("room")
    ann, bob = await guests.come("roomer", room), await guests.come("roomer", room)
    assert (await heard_in(ann, room))[1] == "new_member"
    await bob.say(room, b"before", "note")
    await bob.send(data)
    await bob.say(room, b"after", "note")
    assert await bob.closed() == 4500
    assert (await heard_in(ann, room))[1:] == ("note", "", bob.name, b"before")
    assert (await heard_in(ann, room))[1] == "member_left"


async def test_a_text_frame_is_read_by_its_bytes(guests: Guests) -> None:
    room = unique("room")
    ann, bob = await guests.come("roomer", room), await guests.come("roomer", room)
    await bob.send(Roomer.frame(room, "note", "ü".encode()).decode())
    assert (await heard_in(ann, room))[1] == "new_member"
    assert await heard_in(ann, room) == (room, "note", "", bob.name, "ü".encode())


async def test_nobody_is_heard_where_they_are_not(guests: Guests) -> None:
    room = unique("room")
    ann, eve = await guests.come("roomer", room), await guests.come("roomer")
    await eve.say(room, b"I never joined", "note")
    for event in ("new_member", "member_left", "join_ack", "leave_ack", "open", "close"):
        await eve.send(Roomer.frame(room, event, b"forged"))
        await eve.send(Roomer.frame(room, event, b"forged", dst=ann.name))
    await eve.answers()
    assert [heard for heard in await ann.answers() if heard[0] == room] == []


async def test_a_room_that_may_not_be_entered_is_told_to_be_closed(server: Server) -> None:
    # The demo's quiz has the rooms that its admin made, and no others; root is made all the same.
    async with Guests(server, "quiz") as guests:
        client = await guests.come("roomer")
        room = unique("room")
        assert await client.enter(room) == (room, "leave_ack", "", client.name, client.name.encode())
