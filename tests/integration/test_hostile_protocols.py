"""Hostile, broken and slow clients of each protocol harm no other client."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.integration import sites
from tests.integration.native import unique
from tests.integration.protocols import PROTOCOLS, Roomer, Rtbroadcaster
from tests.integration.sites import FEW_ROOMS, Clients
from tests.servers import KINDS

if TYPE_CHECKING:
    from tests.integration.protocols import Client
    from tests.servers import Server

pytestmark = pytest.mark.any_database

KIB = 1024
LARGEST = {"roomer": KIB * KIB}
ROOMS_PER_CONNECTION = 128

every_protocol = pytest.mark.parametrize("protocol", list(PROTOCOLS))


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Server:
    return sites.site(request.param)


@asynccontextmanager
async def unharmed(server: Server, application: str = "protocols") -> AsyncIterator[tuple[Clients, str]]:
    """Give a room with a member per protocol, and check it after the block.

    All members must still receive messages, and the server's log must hold no exception.
    """
    logged = server.log.stat().st_size
    async with Clients(server, application) as clients:
        room = unique("room")
        watchers = {protocol: await clients.connect(protocol, room) for protocol in PROTOCOLS}
        yield clients, room
        sender = watchers["native"]
        marker = unique("marker")
        await sender.send_message(room, marker)
        for protocol, watcher in watchers.items():
            while marker not in str(await watcher.receive_message()):
                assert application == "limited", f"the client of {protocol} received another message"
    # Exceptions of the servers' own code, for text that is not UTF-8, are expected.
    assert not re.search(r'File "[^"]*/rooms/', server.log.read_text(errors="replace")[logged:])


async def close_code(client: Client) -> int | None:
    """Return the code that the server has closed with; None if it still answers."""
    try:
        await client.drain()
    except ConnectionClosed:
        return client.socket.close_code or 0
    return None


# Limits ------------------------------------------------------------------------------------------------


def command_frame(protocol: str, room: str, number: int) -> str | bytes:
    """Return a frame with a cheap command that succeeds."""
    if protocol == "native":
        return json.dumps({"type": "message", "room": room, "data": number, "echo": False})
    if protocol == "roomer":
        return Roomer.frame(room, "note", str(number).encode())
    if protocol == "rtbroadcaster":
        return Rtbroadcaster.message(3, room, funcKey="note", funcParams=[str(number)])
    if protocol == "goroomserver":
        sent = {"appName": "limited", "roomName": room, "eventType": 11, "data": {"n": number}}
        return json.dumps(sent)
    return f"publish:{room}:{number}"


@every_protocol
async def test_a_flood_closes_only_its_sender(server: Server, protocol: str) -> None:
    async with unharmed(server, "limited") as (clients, room):
        watcher, flooder = await clients.connect("native", room), await clients.connect(protocol, room)
        with contextlib.suppress(ConnectionClosed):
            for number in range(400):
                await flooder.send(command_frame(protocol, room, number))
        assert await flooder.wait_closed() == 4006
        sender = await clients.connect("native", room)
        await sender.send_message(room, "after the flood")
        count = 0
        while (await watcher.receive_message())["data"] != "after the flood":
            count += 1
        # A burst of 60, and the rate for the time it took.
        assert 50 <= count < 200


@every_protocol
async def test_a_frame_that_is_too_large_closes_its_connection(server: Server, protocol: str) -> None:
    largest = LARGEST.get(protocol, 64 * KIB)
    async with unharmed(server) as (clients, _):
        client = await clients.connect(protocol)
        await client.send(
            Roomer.frame("nowhere", "note", b"x" * (largest + 1))
            if protocol == "roomer"
            else "x" * (largest + 1)
        )
        # Daphne refuses frames above 1 MiB, and ends the connection without a close frame.
        expected = (4507, 1006) if (protocol, server.kind) == ("roomer", "daphne") else (4507,)
        assert await client.wait_closed() in expected


@every_protocol
async def test_many_frames_that_are_too_large_close_the_connection_once(
    server: Server, protocol: str
) -> None:
    async with unharmed(server) as (clients, _):
        client = await clients.connect(protocol)
        with contextlib.suppress(ConnectionClosed):
            for _ in range(5):
                await client.send("x" * (LARGEST.get(protocol, 64 * KIB) + 1))
        assert await client.wait_closed() in (4507, 1006)


@pytest.mark.parametrize("protocol", ["native", "roomer", "gowsev"])
async def test_the_number_of_rooms_of_a_connection_is_limited(server: Server, protocol: str) -> None:
    async with unharmed(server) as (clients, _):
        client = await clients.connect(protocol)
        prefix = unique("many")
        answers = [await client.join(f"{prefix}-{number}") for number in range(ROOMS_PER_CONNECTION + 5)]
        admitted = sum(map(client.is_joined, answers))
        # All clients of roomer are members of root.
        assert admitted == ROOMS_PER_CONNECTION - (protocol == "roomer")
        await client.drain()


@pytest.mark.parametrize("protocol", ["native", "roomer", "gowsev"])
async def test_the_number_of_rooms_of_an_application_is_limited(server: Server, protocol: str) -> None:
    async with unharmed(server), Clients(server, f"few-rooms-{protocol}") as clients:
        client = await clients.connect(protocol)
        answers = [await client.join(f"room-{number}") for number in range(3 * FEW_ROOMS)]
        assert sum(map(client.is_joined, answers)) == FEW_ROOMS - (protocol == "roomer")


async def test_the_number_of_broadcasts_of_an_application_is_limited(server: Server) -> None:
    async with unharmed(server), Clients(server, "few-rooms-rtbroadcaster") as clients:
        answers = []
        for _ in range(FEW_ROOMS + 5):
            owner = await clients.connect("rtbroadcaster")
            await owner.send(Rtbroadcaster.message(1))
            answers.append((await owner.receive())["status"]["value"])
        assert answers == [3] * FEW_ROOMS + [0] * 5


# Invalid frames -------------------------------------------------------------------------------------------

INVALID: list[str | bytes] = [
    "",
    b"",
    "\0",
    b"\0" * 19,
    b"\0" * 21,
    b"\xff" * 20,
    "\ufeff{}",
    " " * 60_000,
    "\n" * 60_000,
]
INVALID += [
    "[" * 5_000,
    '{"a":' * 5_000,
    "[" * 30_000 + "]" * 30_000,
    "9" * 20_000,
    "-",
    "1e999",
    "NaN",
    "{}",
    "[]",
    "null",
]
INVALID += [
    b"\xff\xfe{\0}\0",
    b"\x80",
    bytes(range(256)),
    '{"type":"ping"}\n{',
    "publish:" + ":" * 1000,
    "subscribe:" + "\t" * 1000,
]
INVALID += [b"\x7f\xff\xff\xff" * 5, b"\x80\0\0\0" * 5, b"\0\0\0\x04root" * 4, b"\0\0\0\x01\xff" * 5]
#: Members of JSON frames, each to be set to each of the invalid values.
JSON_FIELDS = ["type", "id", "room", "data", "uuid", "status", "funcKey", "funcParams", "stateMessage"]
JSON_FIELDS += ["appName", "roomName", "eventType"]
JSON_VALUES = [
    "1" * 400,
    "-" + "9" * 19,
    "1e400",
    "-0",
    '"\\ud800"',
    '"\\u0000"',
    "[" * 100 + "]" * 100,
    "{}",
    "[]",
    "null",
    "true",
]
JSON_VALUES += [
    '{"value":3,"text":"\\udfff"}',
    '{"value":1e2}',
    '{"value":99999999999999999999}',
    '"' + "x" * 5000 + '"',
]
JSON_STEM = {
    "native": '"type":"message","room":"r","data":1',
    "rtbroadcaster": '"uuid":"r","status":{"value":3,"text":""},"funcKey":"k","funcParams":[]',
    "goroomserver": '"appName":"protocols","roomName":"r","eventType":11,"data":{}',
}


@every_protocol
async def test_an_invalid_frame_closes_its_connection_or_is_answered(server: Server, protocol: str) -> None:
    frames = list(INVALID)
    if protocol in JSON_STEM:
        # The second of two members with the same name counts.
        frames += [
            f'{{{JSON_STEM[protocol]},"{name}":{value}}}' for name in JSON_FIELDS for value in JSON_VALUES
        ]
    async with unharmed(server) as (clients, _):
        client = await clients.connect(protocol)
        for frame in frames:
            await client.send(frame)
            if (code := await close_code(client)) is not None:
                # Daphne drops the connection after the close frame. What the client sends meanwhile makes TCP
                # reset the connection, and the frame is lost.
                assert code in ((4500, 1006) if server.kind == "daphne" else (4500,)), frame[:80]
                assert protocol in ("native", "roomer"), "the others answer invalid frames"
                client = await clients.connect(protocol)


NAMES = [
    "",
    " ",
    "\0",
    "a\0b",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "x" * 129,
    "x" * 5_000,
    "\u202egnp.exe",
    "../..",
    "root\n",
]
NAMES += [
    "🦊" * 64,
    "<script>alert(1)</script>",
    "%s%n{0}",
    "'; DROP TABLE rooms_room; --",
    "\ufdd0",
    "\u200b",
    "Ⅷ",
    "ß" * 128,
]


def frames_with_name(protocol: str, name: str) -> list[str | bytes]:
    """Return frames in which a room, an event or a user has this name."""
    if protocol == "native":
        commands = [
            {"type": "join", "room": name},
            {"type": "message", "room": name, "data": 1, "event": name},
        ]
        commands += [{"type": "create", "room": name, "title": name}, {"type": "rooms", "prefix": name}]
        return [json.dumps({**each, "id": name}) for each in commands]
    if protocol == "roomer":
        events = ("join", "note", "leave", name)
        return [Roomer.frame(name, event, b"x") for event in events] + [
            Roomer.frame("nowhere", "note", b"x", dst=name)
        ]
    if protocol == "rtbroadcaster":
        join = Rtbroadcaster.message(2, name, funcKey=name)
        return [
            join,
            Rtbroadcaster.message(3, name, funcKey=name, funcParams=[name], stateMessage=True),
            Rtbroadcaster.message(4, name),
        ]
    if protocol == "goroomserver":
        commands = [
            {
                "appName": "protocols",
                "roomName": name,
                "eventType": kind,
                "data": {"roomName": name, "username": name},
            }
            for kind in range(14)
            if kind != 7
        ]
        return [json.dumps(each) for each in commands] + [json.dumps({**commands[6], "appName": name})]
    return [f"{command}:{name}" for command in ("subscribe", "unsubscribe")] + [f"publish:{name}:{name}"]


@every_protocol
async def test_invalid_and_odd_names_harm_no_other_client(server: Server, protocol: str) -> None:
    async with unharmed(server) as (clients, _):
        client = await clients.connect(protocol)
        for name in NAMES:
            for frame in frames_with_name(protocol, name):
                try:
                    await client.send(frame)
                    closed = await close_code(client) is not None
                except ConnectionClosed:
                    # The close for the frame before may arrive only now.
                    closed = True
                if closed:
                    assert protocol == "rtbroadcaster", "only a listener that sends 4 is disconnected"
                    client = await clients.connect(protocol)


@every_protocol
async def test_text_that_is_not_utf8_closes_the_connection(server: Server, protocol: str) -> None:
    async with unharmed(server) as (clients, _):
        client = await clients.connect(protocol)
        await client.socket.send(b'{"type":"ping","x":"\xff\xfe"}', text=True)
        # The servers close the connection: RFC 6455 forbids such frames. Daphne sends no close frame.
        assert await close_code(client) in (1006, 1007, 4500)


# Broken and slow clients ------------------------------------------------------------------------------------


@every_protocol
async def test_a_client_that_drops_within_a_frame_leaves_its_room(server: Server, protocol: str) -> None:
    async with unharmed(server) as (clients, room):
        watch = await clients.connect("native", room)
        client = await clients.connect(protocol, room)
        name = (await watch.receive())["user"]["name"]
        # The head of a masked frame of 16 KiB, and the beginning of it.
        client.socket.transport.write(b"\x82\xfe\x40\0" + bytes(4) + b"half")
        client.drop()
        if protocol != "native":
            left = await watch.receive()
            assert (left["type"], left["user"]["name"]) == ("left", name)


@every_protocol
async def test_an_unfinished_message_delays_no_other_client(server: Server, protocol: str) -> None:
    async with unharmed(server) as (clients, room):
        client = await clients.connect(protocol, room)
        # The first fragment of a text message.
        client.socket.transport.write(b"\x01\x84" + bytes(4) + b"half")
        sender = await clients.connect("native")
        await sender.join(room)
        assert (await sender.request("ping"))["type"] == "pong"


@every_protocol
async def test_a_slow_consumer_is_closed_and_no_other_client_is_affected(
    server: Server, protocol: str
) -> None:
    if server.kind == "daphne":
        pytest.skip("Daphne buffers without bound, so a slow consumer is never detected")
    messages, large = 400, "x" * 50_000
    async with unharmed(server) as (clients, _):
        room = unique("room")
        sender, reader = await clients.connect("native", room), await clients.connect("native", room)
        stalled = await clients.connect(protocol, room, max_queue=1)
        for number in range(messages):
            await sender.request("message", room=room, data=[number, large], echo=False)
            assert (await reader.receive_message())["data"][0] == number
        numbers = []
        with contextlib.suppress(ConnectionClosed):
            while len(numbers) < messages:
                number_of = re.search(r"\[(\d+), ", str(await stalled.receive_message()))
                assert number_of is not None
                numbers.append(int(number_of[1]))
        assert len(numbers) < messages
        assert stalled.socket.close_code in (4001, 1006), "1006: a close frame did not get through either"
        assert numbers == [*range(len(numbers))]


@every_protocol
async def test_connections_that_drop_at_once_are_cleaned_up(server: Server, protocol: str) -> None:
    async with unharmed(server) as (clients, _):
        for _ in range(30):
            (await clients.open(protocol)).drop()
        watch = await clients.connect("roomer")
        others = {each async for each in _members_of_root(watch)}
        # The watcher of roomer, and dropped clients that the server has not removed yet.
        while len(others) > 1:
            where, event, _, _, member_name = await watch.receive()
            if (where, event) == ("root", "member_left"):
                others.discard(member_name.decode())


async def _members_of_root(watch: Any) -> AsyncIterator[str]:
    for name in json.loads((await watch.join("root"))[4]):
        if name != watch.name:
            yield name


@pytest.mark.parametrize("application", ["native-only", "no-such-application"])
@every_protocol
async def test_an_application_that_does_not_allow_the_protocol_refuses_its_clients(
    server: Server, protocol: str, application: str
) -> None:
    async with unharmed(server), Clients(server, application) as clients:
        if (protocol, application) == ("native", "native-only"):
            await clients.connect(protocol, "room")
            return
        client = await clients.open(protocol)
        if protocol == "goroomserver":
            assert (await client.request(6, {"username": "someone"}))["error"]["code"] == 1
        else:
            assert await client.wait_closed() == 4509
