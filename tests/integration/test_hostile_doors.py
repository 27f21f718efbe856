"""Hostile, broken and slow clients at each door: they end or are told, and nobody else notices."""

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
from tests.integration.sites import FEW_ROOMS, Guests
from tests.servers import KINDS

if TYPE_CHECKING:
    from tests.integration.protocols import Visitor
    from tests.servers import Server

KIB = 1024
LARGEST = {"roomer": KIB * KIB}
ROOMS_PER_CONNECTION = 128

every_door = pytest.mark.parametrize("protocol", list(PROTOCOLS))


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Server:
    return sites.site(request.param)


@asynccontextmanager
async def undisturbed(server: Server, application: str = "doors") -> AsyncIterator[tuple[Guests, str]]:
    """A room with a member at each door. After the block they hear each other as if nothing had happened,
    and the server's log tells of no fault."""
    logged = server.log.stat().st_size
    async with Guests(server, application) as guests:
        room = unique("room")
        witnesses = {protocol: await guests.come(protocol, room) for protocol in PROTOCOLS}
        yield guests, room
        speaker = witnesses["native"]
        marker = unique("marker")
        await speaker.say(room, marker)
        for protocol, witness in witnesses.items():
            while marker not in str(await witness.told()):
                assert application == "limited", f"the witness at {protocol} heard something else"
    # The servers' own tell of text that is no UTF-8.
    assert not re.search(r'File "[^"]*/rooms/', server.log.read_text(errors="replace")[logged:])


async def over(visitor: Visitor) -> int | None:
    """The code with which the server has ended the connection; None: it goes on and answers."""
    try:
        await visitor.answers()
    except ConnectionClosed:
        return visitor.socket.close_code or 0
    return None


# Too much ----------------------------------------------------------------------------------------------


def request_of(protocol: str, room: str, number: int) -> str | bytes:
    """Something cheap that is carried out."""
    if protocol == "native":
        return json.dumps({"type": "message", "room": room, "data": number, "echo": False})
    if protocol == "roomer":
        return Roomer.frame(room, "note", str(number).encode())
    if protocol == "rtbroadcaster":
        return Rtbroadcaster.message(3, room, funcKey="note", funcParams=[str(number)])
    if protocol == "goroomserver":
        asked = {"appName": "limited", "roomName": room, "eventType": 11, "data": {"n": number}}
        return json.dumps(asked)
    return f"publish:{room}:{number}"


@every_door
async def test_a_flood_is_limited_and_only_its_sender_suffers(server: Server, protocol: str) -> None:
    async with undisturbed(server, "limited") as (guests, room):
        witness, flooder = await guests.come("native", room), await guests.come(protocol, room)
        with contextlib.suppress(ConnectionClosed):
            for number in range(400):
                await flooder.send(request_of(protocol, room, number))
        assert await flooder.closed() == 4006
        speaker = await guests.come("native", room)
        await speaker.say(room, "after the flood")
        heard = 0
        while (await witness.told())["data"] != "after the flood":
            heard += 1
        # A burst of 60, and what comes back with time.
        assert 50 <= heard < 200


@every_door
async def test_a_frame_that_is_too_large_ends_its_connection(server: Server, protocol: str) -> None:
    largest = LARGEST.get(protocol, 64 * KIB)
    async with undisturbed(server) as (guests, _):
        visitor = await guests.come(protocol)
        await visitor.send(
            Roomer.frame("nowhere", "note", b"x" * (largest + 1))
            if protocol == "roomer"
            else "x" * (largest + 1)
        )
        # Daphne takes no frames above 1 MiB, and ends the connection without a word.
        lawful = (4507, 1006) if (protocol, server.kind) == ("roomer", "daphne") else (4507,)
        assert await visitor.closed() in lawful


@every_door
async def test_many_frames_that_are_too_large_end_it_once(server: Server, protocol: str) -> None:
    async with undisturbed(server) as (guests, _):
        visitor = await guests.come(protocol)
        with contextlib.suppress(ConnectionClosed):
            for _ in range(5):
                await visitor.send("x" * (LARGEST.get(protocol, 64 * KIB) + 1))
        assert await visitor.closed() in (4507, 1006)


@pytest.mark.parametrize("protocol", ["native", "roomer", "gowsev"])
async def test_one_connection_is_in_a_bounded_number_of_rooms(server: Server, protocol: str) -> None:
    async with undisturbed(server) as (guests, _):
        visitor = await guests.come(protocol)
        prefix = unique("many")
        answers = [await visitor.enter(f"{prefix}-{number}") for number in range(ROOMS_PER_CONNECTION + 5)]
        admitted = sum(map(visitor.admits, answers))
        # Everybody at roomer's door is in root.
        assert admitted == ROOMS_PER_CONNECTION - (protocol == "roomer")
        await visitor.answers()


@pytest.mark.parametrize("protocol", ["native", "roomer", "gowsev"])
async def test_an_application_has_a_bounded_number_of_rooms(server: Server, protocol: str) -> None:
    async with undisturbed(server), Guests(server, f"few-rooms-{protocol}") as guests:
        visitor = await guests.come(protocol)
        answers = [await visitor.enter(f"room-{number}") for number in range(3 * FEW_ROOMS)]
        assert sum(map(visitor.admits, answers)) == FEW_ROOMS - (protocol == "roomer")


async def test_an_application_has_a_bounded_number_of_broadcasts(server: Server) -> None:
    async with undisturbed(server), Guests(server, "few-rooms-rtbroadcaster") as guests:
        answers = []
        for _ in range(FEW_ROOMS + 5):
            owner = await guests.come("rtbroadcaster")
            await owner.send(Rtbroadcaster.message(1))
            answers.append((await owner.hear())["status"]["value"])
        assert answers == [3] * FEW_ROOMS + [0] * 5


# Nonsense ------------------------------------------------------------------------------------------------

NONSENSE: list[str | bytes] = [
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
NONSENSE += [
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
NONSENSE += [
    b"\xff\xfe{\0}\0",
    b"\x80",
    bytes(range(256)),
    '{"type":"ping"}\n{',
    "publish:" + ":" * 1000,
    "subscribe:" + "\t" * 1000,
]
NONSENSE += [b"\x7f\xff\xff\xff" * 5, b"\x80\0\0\0" * 5, b"\0\0\0\x04root" * 4, b"\0\0\0\x01\xff" * 5]
#: Of JSON objects as two doors read them, with something unlawful in one place.
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
    "goroomserver": '"appName":"doors","roomName":"r","eventType":11,"data":{}',
}


@every_door
async def test_nonsense_ends_its_connection_or_is_answered(server: Server, protocol: str) -> None:
    frames = list(NONSENSE)
    if protocol in JSON_STEM:
        # The later of two members of one name counts.
        frames += [
            f'{{{JSON_STEM[protocol]},"{name}":{value}}}' for name in JSON_FIELDS for value in JSON_VALUES
        ]
    async with undisturbed(server) as (guests, _):
        visitor = await guests.come(protocol)
        for frame in frames:
            await visitor.send(frame)
            if (code := await over(visitor)) is not None:
                assert code == 4500, frame[:80]
                assert protocol in ("native", "roomer"), "the others answer what they cannot read"
                visitor = await guests.come(protocol)


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


def naming(protocol: str, name: str) -> list[str | bytes]:
    """Requests that name a room, an event or a user so."""
    if protocol == "native":
        asked = [{"type": "join", "room": name}, {"type": "message", "room": name, "data": 1, "event": name}]
        asked += [{"type": "create", "room": name, "title": name}, {"type": "rooms", "prefix": name}]
        return [json.dumps({**each, "id": name}) for each in asked]
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
        asked = [
            {
                "appName": "doors",
                "roomName": name,
                "eventType": kind,
                "data": {"roomName": name, "username": name},
            }
            for kind in range(14)
            if kind != 7
        ]
        return [json.dumps(each) for each in asked] + [json.dumps({**asked[6], "appName": name})]
    return [f"{command}:{name}" for command in ("subscribe", "unsubscribe")] + [f"publish:{name}:{name}"]


@every_door
async def test_nasty_names_harm_nobody(server: Server, protocol: str) -> None:
    async with undisturbed(server) as (guests, _):
        visitor = await guests.come(protocol)
        for name in NAMES:
            for frame in naming(protocol, name):
                try:
                    await visitor.send(frame)
                    ended = await over(visitor) is not None
                except ConnectionClosed:
                    # That the last one was the end it may hear only now.
                    ended = True
                if ended:
                    assert protocol == "rtbroadcaster", "only a listener who says 4 is disconnected"
                    visitor = await guests.come(protocol)


@every_door
async def test_text_that_is_no_utf8_harms_nobody(server: Server, protocol: str) -> None:
    async with undisturbed(server) as (guests, _):
        visitor = await guests.come(protocol)
        await visitor.socket.send(b'{"type":"ping","x":"\xff\xfe"}', text=True)
        # Servers end the connection themselves: RFC 6455 forbids such frames. Daphne says nothing.
        assert await over(visitor) in (1006, 1007, 4500)


# Broken and slow ---------------------------------------------------------------------------------------


@every_door
async def test_half_a_frame_and_then_nothing_is_a_client_that_is_gone(server: Server, protocol: str) -> None:
    async with undisturbed(server) as (guests, room):
        watch = await guests.come("native", room)
        visitor = await guests.come(protocol, room)
        name = (await watch.hear())["user"]["name"]
        # The head of a masked frame of 16 KiB, and the beginning of it.
        visitor.socket.transport.write(b"\x82\xfe\x40\0" + bytes(4) + b"half")
        visitor.drop()
        if protocol != "native":
            left = await watch.hear()
            assert (left["type"], left["user"]["name"]) == ("left", name)


@every_door
async def test_a_message_that_is_never_finished_holds_nobody_up(server: Server, protocol: str) -> None:
    async with undisturbed(server) as (guests, room):
        visitor = await guests.come(protocol, room)
        # The first fragment of a text message.
        visitor.socket.transport.write(b"\x01\x84" + bytes(4) + b"half")
        speaker = await guests.come("native")
        await speaker.enter(room)
        assert (await speaker.ask("ping"))["type"] == "pong"


@every_door
async def test_who_does_not_read_is_cut_off_and_nobody_else_notices(server: Server, protocol: str) -> None:
    if server.kind == "daphne":
        pytest.skip(
            "Daphne takes whatever is sent to it and buffers without bound: no server can see who reads"
        )
    messages, large = 400, "x" * 50_000
    async with undisturbed(server) as (guests, _):
        room = unique("room")
        speaker, reader = await guests.come("native", room), await guests.come("native", room)
        stalled = await guests.come(protocol, room, max_queue=1)
        for number in range(messages):
            await speaker.ask("message", room=room, data=[number, large], echo=False)
            assert (await reader.told())["data"][0] == number
        heard = []
        with contextlib.suppress(ConnectionClosed):
            while len(heard) < messages:
                number_of = re.search(r"\[(\d+), ", str(await stalled.told()))
                assert number_of is not None
                heard.append(int(number_of[1]))
        assert len(heard) < messages
        assert stalled.socket.close_code in (4001, 1006), "1006: a close frame did not get through either"
        assert heard == [*range(len(heard))]


@every_door
async def test_who_only_connects_and_drops_leaves_nothing_behind(server: Server, protocol: str) -> None:
    async with undisturbed(server) as (guests, _):
        for _ in range(30):
            (await guests.open(protocol)).drop()
        watch = await guests.come("roomer")
        others = {each async for each in _members_of_root(watch)}
        # The witness at roomer's door, and those whose end has not been noticed yet; they go.
        while len(others) > 1:
            where, event, _, _, who = await watch.hear()
            if (where, event) == ("root", "member_left"):
                others.discard(who.decode())


async def _members_of_root(watch: Any) -> AsyncIterator[str]:
    for name in json.loads((await watch.enter("root"))[4]):
        if name != watch.name:
            yield name


@pytest.mark.parametrize("application", ["native-only", "no-such-application"])
@every_door
async def test_a_door_that_is_shut_lets_nobody_in(server: Server, protocol: str, application: str) -> None:
    async with undisturbed(server), Guests(server, application) as guests:
        if (protocol, application) == ("native", "native-only"):
            await guests.come(protocol, "room")
            return
        visitor = await guests.open(protocol)
        if protocol == "goroomserver":
            assert (await visitor.ask(6, {"username": "somebody"}))["error"]["code"] == 1
        else:
            assert await visitor.closed() == 4509
