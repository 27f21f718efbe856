"""roomer over real sockets: what the codec alone cannot show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.native import unique
from tests.integration.protocols import Roomer
from tests.integration.sites import Clients

if TYPE_CHECKING:
    from tests.servers import Server

pytestmark = [pytest.mark.any_database, pytest.mark.smoke]

LARGEST = 1024 * 1024


@pytest.fixture
async def clients(server: Server) -> AsyncIterator[Clients]:
    """Clients of an application without limits, with rooms on demand."""
    async with Clients(server, "bench") as opened:
        yield opened


async def receive_in(client: Roomer, room: str) -> tuple[Any, ...]:
    """Return the next frame of a room, and skip those of others, such as ``root``."""
    while (frame := await client.receive())[0] != room:
        pass
    return tuple(frame)


async def test_two_clients_join_send_and_leave(clients: Clients) -> None:
    room = unique("room")
    ann = await clients.connect("roomer", room)
    bob = await clients.connect("roomer")
    answer = await bob.join(room)
    assert answer[:4] == (room, "join_ack", "", bob.name)
    assert sorted(json.loads(answer[4])) == sorted([ann.name, bob.name])
    assert await receive_in(ann, room) == (room, "new_member", "", "", bob.name.encode())
    await bob.send_message(room, b"Hello room!", "chat")
    assert await receive_in(ann, room) == (room, "chat", "", bob.name, b"Hello room!")
    await ann.send(Roomer.frame(room, "leave"))
    assert await receive_in(ann, room) == (room, "leave_ack", "", ann.name, ann.name.encode())
    assert await receive_in(bob, room) == (room, "member_left", "", "", ann.name.encode())
    assert [frame for frame in await bob.drain() if frame[0] == room] == []


async def test_a_direct_message_needs_no_common_room(clients: Clients) -> None:
    ann, bob, eve = [await clients.connect("roomer") for _ in range(3)]
    for client in (ann, bob, eve):
        await client.send(Roomer.frame("root", "leave"))
        assert (await receive_in(client, "root"))[1] in ("leave_ack", "new_member", "member_left")
    await ann.send(Roomer.frame("nowhere", "whisper", b"\x00\xff", dst=bob.name))
    assert await receive_in(bob, "nowhere") == ("nowhere", "whisper", bob.name, ann.name, b"\x00\xff")
    for client in (ann, eve):
        assert [frame for frame in await client.drain() if frame[0] == "nowhere"] == []


async def test_a_dropped_client_leaves_every_room(clients: Clients) -> None:
    room, other = unique("room"), unique("room")
    ann, bob = await clients.connect("roomer", room), await clients.connect("roomer", room)
    for client in (ann, bob):
        await client.join(other)
    bob.drop()
    left = set()
    while len(left) < 3:
        frame = await ann.receive()
        if frame[1] == "member_left" and frame[4] == bob.name.encode():
            left.add(frame[0])
    assert left == {"root", room, other}
    assert json.loads((await ann.join(room))[4]) == [ann.name]


async def test_a_burst_arrives_in_order(clients: Clients) -> None:
    room = unique("room")
    ann, bob = await clients.connect("roomer", room), await clients.connect("roomer", room)
    payloads = [b"%d" % number for number in range(500)]

    async def send_all() -> None:
        for payload in payloads:
            await bob.send_message(room, payload, "n")

    sending = asyncio.create_task(send_all())
    assert (await receive_in(ann, room))[1] == "new_member"
    assert [(await receive_in(ann, room))[4] for _ in payloads] == payloads
    await sending


async def test_a_frame_above_the_limit_closes_the_connection(clients: Clients) -> None:
    room = unique("room")
    ann, bob = await clients.connect("roomer", room), await clients.connect("roomer", room)
    assert (await receive_in(ann, room))[1] == "new_member"
    on_daphne = clients.server.kind == "daphne"
    # Daphne's own limit of 1 MiB applies to the frames it sends as well, the sender's id included.
    largest = LARGEST - len(bob.name) if on_daphne else LARGEST
    payload = bytes(range(256)) * 4096
    payload = payload[: largest - len(Roomer.frame(room, "blob"))]
    await bob.send_message(room, payload, "blob")
    assert await receive_in(ann, room) == (room, "blob", "", bob.name, payload)
    await bob.send_message(room, payload + b"!" * (LARGEST - largest + 1), "blob")
    assert await bob.wait_closed() == (1006 if on_daphne else 4507)
    assert await receive_in(ann, room) == (room, "member_left", "", "", bob.name.encode())


@pytest.mark.parametrize("data", [b"", b"\0" * 19, Roomer.frame("root", "note") + b"\0", "not a frame"])
async def test_a_malformed_frame_closes_the_connection(clients: Clients, data: str | bytes) -> None:
    room = unique("room")
    ann, bob = await clients.connect("roomer", room), await clients.connect("roomer", room)
    assert (await receive_in(ann, room))[1] == "new_member"
    await bob.send_message(room, b"before", "note")
    await bob.send(data)
    await bob.send_message(room, b"after", "note")
    assert await bob.wait_closed() == 4500
    assert (await receive_in(ann, room))[1:] == ("note", "", bob.name, b"before")
    assert (await receive_in(ann, room))[1] == "member_left"


async def test_a_text_frame_is_decoded_like_its_bytes(clients: Clients) -> None:
    room = unique("room")
    ann, bob = await clients.connect("roomer", room), await clients.connect("roomer", room)
    await bob.send(Roomer.frame(room, "note", "ü".encode()).decode())
    assert (await receive_in(ann, room))[1] == "new_member"
    assert await receive_in(ann, room) == (room, "note", "", bob.name, "ü".encode())


async def test_a_client_cannot_send_to_a_room_without_joining(clients: Clients) -> None:
    room = unique("room")
    ann, eve = await clients.connect("roomer", room), await clients.connect("roomer")
    await eve.send_message(room, b"I never joined", "note")
    for event in ("new_member", "member_left", "join_ack", "leave_ack", "open", "close"):
        await eve.send(Roomer.frame(room, event, b"forged"))
        await eve.send(Roomer.frame(room, event, b"forged", dst=ann.name))
    await eve.drain()
    assert [frame for frame in await ann.drain() if frame[0] == room] == []


async def test_a_refused_join_is_answered_with_leave_ack(server: Server) -> None:
    # The demo's quiz creates no rooms on demand, except root.
    async with Clients(server, "quiz") as clients:
        client = await clients.connect("roomer")
        room = unique("room")
        assert await client.join(room) == (room, "leave_ack", "", client.name, client.name.encode())
