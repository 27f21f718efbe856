"""The Python client that comes back, against a server whose part the test plays by hand.

For every rule of docs/client-behaviour.md there is a test at least, with its number in the name. The
JavaScript client has the same list in tests/js/.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests import services
from tests.reconnecting import (
    Ended,
    Frame,
    HandshakeRejected,
    Lost,
    Pace,
    QueueFull,
    Reconnecting,
    comes_back,
)

BASE_DIR = Path(__file__).resolve().parent.parent
PATIENCE = 30.0
ANN = {"name": "ann", "id": "1", "guest": False}
GUS = {"name": "gus", "id": "guest-1", "guest": True}

#: Nothing that a test does not wait for comes in its time, and what it waits for comes soon.
QUICK = Pace(shortest=0.001, longest=0.01, pause=0.001, longest_pause=0.01, rate_pause=0.001)


class Most(random.Random):
    """Draws the longest time every time."""

    def uniform(self, a: float, b: float) -> float:
        return b

    def random(self) -> float:
        return 1.0


class Call:
    """One connection of the client's, from the server's side."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.heard: list[Frame] = []

    async def hear(self, kind: str) -> Frame:
        """The next frame, which must be of this type."""
        frame: Frame = json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE))
        self.heard.append(frame)
        assert frame["type"] == kind, f"{frame} instead of {kind}"
        return frame

    async def push(self, *frames: Frame) -> None:
        """Several in one piece."""
        await self.socket.send("\n".join(json.dumps(frame) for frame in frames))

    async def reply(self, request: Frame, **data: Any) -> None:
        await self.push({"type": "reply", "id": request["id"], "data": data})

    async def refuse(self, request: Frame, code: str, *, retry: bool = False) -> None:
        await self.push({"type": "error", "id": request["id"], "code": code, "message": code, "retry": retry})

    async def connected(self, user: Frame | None = ANN, ping: float = 25) -> None:
        await self.push(
            {"type": "connected", "connection": "c", "application": "chat", "user": user, "ping": ping}
        )

    async def joins(self, room: str = "lobby", seq: int | None = 0, **reply: Any) -> Frame:
        """Let the client join, as it must now ask to; what it asked."""
        request = await self.hear("join")
        assert request["room"] == room
        await self.reply(request, **joined(seq, **reply))
        return request

    async def stores(self, data: Any, seq: int = 1) -> Frame:
        """Acknowledge the message with these data, which must be the next; what the client asked."""
        request = await self.hear("message")
        assert request["data"] == data
        await self.reply(request, seq=seq, time="t")
        return request

    def drop(self) -> None:
        """Gone without a word."""
        self.socket.transport.abort()

    async def gone(self) -> None:
        """Wait until the client is gone; it must have said nothing more."""
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(self.socket.recv(), PATIENCE)


class Stage:
    """A server that only takes calls."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Call] = asyncio.Queue()
        self.server: Server | None = None
        self.url = ""

    async def open(self) -> None:
        self.server = await serve(self._called, "127.0.0.1", 0, subprotocols=["rooms.v1"], close_timeout=1)  # type: ignore[list-item]
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/ws/rooms/chat/"

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()
        await self.server.wait_closed()

    async def call(self) -> Call:
        """The next one who calls."""
        return await asyncio.wait_for(self.calls.get(), PATIENCE)

    async def _called(self, socket: ServerConnection) -> None:
        self.calls.put_nowait(Call(socket))
        await socket.wait_closed()


class Actors:
    """Clients of a test, and what they do meanwhile."""

    def __init__(self) -> None:
        self.clients: list[Reconnecting] = []
        self.doings: list[asyncio.Task[Any]] = []

    def client(self, *urls: str, pace: Pace = QUICK, **options: Any) -> Reconnecting:
        self.clients.append(Reconnecting(urls, "gus", pace=pace, random=Most(), **options))
        return self.clients[-1]

    def soon(self, work: Any) -> asyncio.Task[Any]:
        """Begun in the order of the calls."""
        self.doings.append(asyncio.create_task(asyncio.wait_for(work, PATIENCE)))
        return self.doings[-1]

    async def starts(self, stage: Stage, **options: Any) -> tuple[Reconnecting, Call]:
        """A client that is logged in."""
        client = self.client(stage.url, **options)
        starting = self.soon(client.start())
        call = await stage.call()
        await call.connected()
        await starting
        return client, call

    async def inside(self, stage: Stage, seq: int | None = 0, **options: Any) -> tuple[Reconnecting, Call]:
        """A client that is in the lobby."""
        client, call = await self.starts(stage, **options)
        joining = self.soon(client.join("lobby"))
        await call.joins(seq=seq)
        await joining
        return client, call


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    await stage.open()
    yield stage
    await stage.close()


@pytest.fixture
async def actors() -> AsyncIterator[Actors]:
    actors = Actors()
    yield actors
    for client in actors.clients:
        await client.stop()
    for doing in actors.doings:
        doing.cancel()
    await asyncio.gather(*actors.doings, return_exceptions=True)


def message(seq: int | None, room: str = "lobby") -> Frame:
    return {
        "type": "message",
        "room": room,
        "event": "message",
        "data": seq,
        "from": ANN,
        "seq": seq,
        "time": "t",
    }


def joined(seq: int | None, *, messages: Any = (), recovered: bool = False, epoch: str = "e") -> Frame:
    position = None if seq is None else {"epoch": epoch, "seq": seq}
    people = {"members": [ANN], "count": 1, "state": []}
    return {**people, "messages": list(messages), "recovered": recovered, "position": position}


def seqs(client: Reconnecting) -> list[int | None]:
    return [delivered.seq for delivered in client.log("lobby")]


async def until(client: Reconnecting, predicate: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        await client.until(predicate)


async def asks(client: Reconnecting, call: Call, actors: Actors) -> None:
    """Everything that the client wanted to say before this must have been said, and looked at, before."""
    actors.soon(client.request("marker"))
    await call.hear("marker")


def test_every_rule_has_its_tests() -> None:
    rules = re.findall(r"^\*\*(\d+)\. ", (BASE_DIR / "docs/client-behaviour.md").read_text(), re.MULTILINE)
    assert rules == [str(number) for number in range(1, 29)]
    python = set(re.findall(r"def test_rule_(\d+)_", Path(__file__).read_text()))
    scripts = "".join(path.read_text() for path in (BASE_DIR / "tests/js").glob("*.mjs"))
    javascript = set(re.findall(r"test\([\"`]rule (\d+): ", scripts))
    assert python == set(rules) - {"9"}  # what a browser's tab does
    assert javascript == set(rules)


# Connecting


async def test_rule_1_offers_the_subprotocol(stage: Stage, actors: Actors) -> None:
    _, call = await actors.starts(stage)
    assert call.socket.subprotocol == "rooms.v1"


async def test_rule_1_goes_round_the_addresses(stage: Stage, actors: Actors) -> None:
    nobody = f"ws://127.0.0.1:{services.free_port()}/"
    client = actors.client(nobody, stage.url, nobody)
    actors.soon(client.start())
    (await stage.call()).drop()
    await stage.call()
    assert client.closes == [1006] * 4


async def test_rule_2_backs_off(actors: Actors) -> None:
    pace = Pace(shortest=0.0002, longest=0.02)
    client = actors.client(f"ws://127.0.0.1:{services.free_port()}/", pace=pace)
    actors.soon(client.start())
    await until(client, lambda: len(client.waits) >= 9)
    ceilings = [min(0.02, 0.0002 * 2**attempt) for attempt in range(9)]
    assert client.waits[:9] == pytest.approx(ceilings)


def test_rule_2_is_as_the_page_says() -> None:
    assert (Pace().shortest, Pace().longest) == (0.2, 20)
    client = Reconnecting("ws://x/", "gus", random=random.Random(1))
    waits = [client._wait() for _ in range(2000)]
    assert min(waits) >= 0
    assert max(waits) <= 20
    longest = waits[10:]
    assert min(longest) < 1
    assert max(longest) > 19


@pytest.mark.parametrize(("stable", "again"), [(0.0, 1), (3600.0, 2)])
async def test_rule_3_starts_over_when_open_for_long(
    stage: Stage, actors: Actors, stable: float, again: int
) -> None:
    client, call = await actors.starts(stage, pace=Pace(shortest=0.001, stable=stable))
    call.drop()
    call = await stage.call()
    await call.connected()
    await until(client, lambda: client.logged_in)
    call.drop()
    await stage.call()
    assert client.waits == pytest.approx([0.001, 0.001 * again])


async def test_rule_4_waits_exactly_as_long_as_told(stage: Stage, actors: Actors) -> None:
    client, call = await actors.starts(stage)
    await call.push({"type": "closing", "code": 4000, "message": "", "retry_in": 0.0123})
    await call.socket.close(4000)
    (await stage.call()).drop()
    await stage.call()
    assert client.waits == pytest.approx([0.0123, QUICK.shortest])


async def test_rule_5_says_nothing_after_closing(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage)
    await call.push({"type": "closing", "code": 4000, "message": ""}, message(1))
    await until(client, lambda: seqs(client) == [1])
    actors.soon(client.send("lobby", "late"))
    await call.push({"type": "ping"}, message(2))
    await until(client, lambda: seqs(client) == [1, 2])
    await call.socket.close(4000)
    await call.removed()
    call = await stage.call()
    await call.connected()
    await call.joins(seq=2, recovered=True)
    await call.stores("late", 3)


async def test_rule_5_believes_what_was_said_where_the_code_got_lost(stage: Stage, actors: Actors) -> None:
    client, call = await actors.starts(stage)
    await call.push({"type": "closing", "code": 4504, "message": "You are banned."})
    await call.socket.close(1000)
    with pytest.raises(Ended) as ended:
        await until(client, lambda: False)
    assert ended.value.code == 4504


# Kept in step with tests/js/connection.test.mjs.
@pytest.mark.parametrize("code", [1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4008, 4499])
def test_rule_6_comes_back(code: int) -> None:
    assert comes_back(code)


@pytest.mark.parametrize("code", [1000, 1002, 1007, 1009, 3000, 4500, 4503, 4510, 4999])
def test_rule_6_stays_away(code: int) -> None:
    assert not comes_back(code)


async def test_rule_6_on_the_wire(stage: Stage, actors: Actors) -> None:
    client, call = await actors.starts(stage)
    for code in (1001, 1011, 1012, 4000, 4499):
        await call.socket.close(code)
        call = await stage.call()
        await call.connected()
    await call.socket.close(4500)
    with pytest.raises(Ended):
        await until(client, lambda: False)
    assert client.closes == [1001, 1011, 1012, 4000, 4499, 4500]


async def test_rule_7_reconnects_after_silence(stage: Stage, actors: Actors) -> None:
    client = actors.client(stage.url, pace=Pace(shortest=0.001, ping=3600, pong=0.01))
    actors.soon(client.start())
    call = await stage.call()
    await call.connected(ping=0)
    await stage.call()
    assert client.closes == [1006]


async def test_rule_7_reconnects_when_the_handshake_is_not_answered(actors: Actors) -> None:
    callers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    mute = await asyncio.start_server(lambda _, writer: callers.put_nowait(writer), "127.0.0.1", 0)
    async with mute:
        url = f"ws://127.0.0.1:{mute.sockets[0].getsockname()[1]}/"
        actors.soon(actors.client(url, pace=Pace(shortest=0.001, ping=0, pong=0.01)).start())
        for writer in [await asyncio.wait_for(callers.get(), PATIENCE) for _ in range(2)]:
            writer.close()


async def test_rule_8_answers_a_ping(stage: Stage, actors: Actors) -> None:
    _, call = await actors.starts(stage)
    await call.push({"type": "ping"})
    assert await call.hear("pong") == {"type": "pong"}


# Who one is


async def test_rule_10_the_signed_in_user_needs_no_login(stage: Stage, actors: Actors) -> None:
    client, call = await actors.starts(stage)
    await asks(client, call, actors)
    assert client.user == ANN


async def test_rule_10_by_name_at_first_and_by_token_from_then_on(stage: Stage, actors: Actors) -> None:
    client = actors.client(stage.url)
    actors.soon(client.start())
    call = await stage.call()
    await call.connected(None)
    login = await call.hear("login")
    assert login["name"] == "gus"
    await call.reply(login, user=GUS, token="t0k")
    await until(client, lambda: client.user == GUS)
    call.drop()
    call = await stage.call()
    await call.connected(None)
    assert (await call.hear("login"))["token"] == "t0k"


async def test_rule_11_a_token_that_is_not_accepted_any_more(stage: Stage, actors: Actors) -> None:
    client, call = await actors.starts(stage)
    client.token = "t0k"
    call.drop()
    call = await stage.call()
    await call.connected(None)
    await call.refuse(await call.hear("login"), "bad_token")
    login = await call.hear("login")
    assert login["name"] == "gus"
    await call.reply(login, user=GUS, token="t1k")
    await until(client, lambda: client.logged_in)
    assert client.token == "t1k"


async def test_rule_11_an_expired_sessions_token_is_not_shown_again(stage: Stage, actors: Actors) -> None:
    client, call = await actors.starts(stage)
    client.token = "t0k"
    await call.socket.close(4005)
    call = await stage.call()
    await call.connected(None)
    assert (await call.hear("login"))["name"] == "gus"


async def test_rule_12_a_login_that_is_refused_for_now_is_tried_again(stage: Stage, actors: Actors) -> None:
    client = actors.client(stage.url)
    starting = actors.soon(client.start())
    for _ in range(2):
        call = await stage.call()
        await call.connected(None)
        await call.refuse(await call.hear("login"), "unavailable", retry=True)
    call = await stage.call()
    await call.connected(None)
    await call.reply(await call.hear("login"), user=GUS, token="t")
    await starting


async def test_rule_12_a_name_that_is_taken(stage: Stage, actors: Actors) -> None:
    client, call = await actors.starts(stage)
    call.drop()
    call = await stage.call()
    await call.connected(None)
    await call.refuse(await call.hear("login"), "name_taken", retry=True)
    await stage.call()  # by our own lost connection: it comes back
    assert client.ended is None

    other = actors.client(stage.url)
    starting = actors.soon(other.start())
    call = await stage.call()
    await call.connected(None)
    await call.refuse(await call.hear("login"), "name_taken", retry=True)
    with pytest.raises(Ended) as ended:
        await starting
    assert ended.value.code == "name_taken"


# Rooms


async def test_rule_13_every_room_is_joined_again_from_where_it_stood(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage, seq=4)
    joining = actors.soon(client.join("help", password="p"))
    await call.joins("help", 0, epoch="h")
    await joining
    await call.push(message(5))
    await until(client, lambda: seqs(client) == [5])
    call.drop()
    call = await stage.call()
    await call.connected()
    assert (await call.hear("join"))["since"] == {"epoch": "e", "seq": 5}
    second = await call.hear("join")
    assert (second["room"], second["password"], second["since"]) == ("help", "p", {"epoch": "h", "seq": 0})


async def test_rule_14_a_resume_repeats_nothing(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage, seq=4)
    await call.push(message(5))
    await until(client, lambda: seqs(client) == [5])
    call.drop()
    call = await stage.call()
    await call.connected()
    await call.joins(seq=7, recovered=True, messages=map(message, (5, 6, 7)))
    await call.push(message(7), message(8))
    await until(client, lambda: 8 in seqs(client))
    assert seqs(client) == [5, 6, 7, 8]
    assert client.resets == []
    await until(client, lambda: len(client.catch_ups) == client.reconnects == 1)


async def test_rule_15_a_place_that_is_lost_is_told(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage, seq=4)
    call.drop()
    call = await stage.call()
    await call.connected()
    await call.joins(seq=2, epoch="f", messages=map(message, (1, 2)))
    await call.push(message(3))
    await until(client, lambda: 3 in seqs(client))
    assert seqs(client) == [1, 2, 3]
    assert {delivered.epoch for delivered in client.log("lobby")} == {"f"}
    assert [(reset.room, reset.index, reset.epoch) for reset in client.resets] == [("lobby", 0, "f")]


async def test_rule_15_a_room_without_history_keeps_what_was_seen(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage, seq=None)
    await call.push(message(None))
    await until(client, lambda: seqs(client) == [None])
    call.drop()
    call = await stage.call()
    await call.connected()
    assert "since" not in await call.joins(seq=None)
    await call.push(message(None))
    await until(client, lambda: seqs(client) == [None, None])
    assert client.resets == []


async def test_rule_16_doubles_are_dropped_and_unnumbered_ones_never(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage, seq=4)
    await call.push(*map(message, (4, 5, 5, None, None, 6)))
    await until(client, lambda: 6 in seqs(client))
    assert seqs(client) == [5, None, None, 6]
    await asks(client, call, actors)


async def test_rule_17_a_hole_is_filled_by_joining_again(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage, seq=4)
    await call.push(message(7), message(8))
    request = await call.hear("join")
    assert request["since"] == {"epoch": "e", "seq": 4}
    reply = joined(8, recovered=True, messages=map(message, (5, 6, 7, 8)))
    # Right behind the reply another hole.
    await call.push({"type": "reply", "id": request["id"], "data": reply}, message(10))
    assert seqs(client) == []
    assert (await call.joins(seq=10, recovered=True, messages=map(message, (9, 10))))["since"]["seq"] == 8
    await call.push(message(11))
    await until(client, lambda: 11 in seqs(client))
    assert seqs(client) == [5, 6, 7, 8, 9, 10, 11]


async def test_rule_18_a_room_is_asked_for_as_long_as_it_takes(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage, seq=4)
    call.drop()
    call = await stage.call()
    await call.connected()
    for _ in range(10):
        await call.refuse(await call.hear("join"), "unavailable", retry=True)
    await call.joins(seq=5, recovered=True, messages=[message(5)])
    await until(client, lambda: seqs(client) == [5])


async def test_rule_18_who_is_out_of_a_room_stays_out(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage)
    joining = actors.soon(client.join("help"))
    await call.joins("help")
    await joining
    await call.push({"type": "removed", "room": "help", "reason": "kicked"})
    call.drop()
    call = await stage.call()
    await call.connected()
    await call.refuse(await call.hear("join"), "room_not_found")
    await until(client, lambda: len(client.events) == 2)
    assert [event[:2] for event in client.events] == [("removed", "help"), ("removed", "lobby")]
    call.drop()
    call = await stage.call()
    await call.connected()
    await until(client, lambda: client.logged_in)
    await asks(client, call, actors)


# Sending


async def test_rule_19_a_message_has_a_key(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage)
    sending = actors.soon(client.send("lobby", "one"))
    assert 8 <= len((await call.stores("one", 7))["key"]) <= 64
    assert await sending == 7
    actors.soon(client.send("lobby", "two", key="mine"))
    assert (await call.stores("two"))["key"] == "mine"


async def test_rule_20_one_message_is_on_its_way_in_a_room(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage)
    for text in ("one", "two", "three"):
        actors.soon(client.send("lobby", text))
    actors.soon(client.send("help", "elsewhere"))
    first = await call.hear("message")
    assert (await call.hear("message"))["data"] == "elsewhere"
    await asks(client, call, actors)
    await call.reply(first, seq=1, time="t")
    await call.stores("two", 2)
    await call.stores("three", 3)


async def test_rule_20_in_all_rooms_only_a_few_are_on_their_way(stage: Stage, actors: Actors) -> None:
    client, call = await actors.starts(stage)
    for number in range(10):
        actors.soon(client.send(f"room {number}", number))
    asked = [await call.hear("message") for _ in range(8)]
    await asks(client, call, actors)
    await call.reply(asked[0], seq=1, time="t")
    assert (await call.hear("message"))["data"] == 8


async def test_rule_21_what_is_said_in_a_room_waits_until_it_is_joined(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage)
    actors.soon(client.join("help"))
    request = await call.hear("join")
    actors.soon(client.send("help", "one"))
    actors.soon(client.send("lobby", "two"))
    await call.stores("two")
    await call.reply(request, **joined(0))
    await call.stores("one")


async def test_rule_22_what_was_not_acknowledged_is_sent_again(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage)
    sending = [actors.soon(client.send("lobby", text)) for text in ("zero", "one", "two")]
    await call.stores("zero", 1)
    key = (await call.hear("message"))["key"]
    call.drop()
    await until(client, lambda: client.closes == [1006])
    sending.append(actors.soon(client.send("lobby", "three")))
    call = await stage.call()
    await call.connected()
    request = await call.hear("join")
    await asks(client, call, actors)  # nothing before the room is joined again
    await call.reply(request, **joined(1, recovered=True, messages=[message(1)]))
    assert (await call.stores("one", 2))["key"] == key
    await call.stores("two", 3)
    await call.stores("three", 4)
    assert await asyncio.gather(*sending) == [1, 2, 3, 4]


async def test_rule_23_a_refusal_for_now_keeps_its_place(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage)
    sending = [actors.soon(client.send("lobby", text)) for text in ("one", "two")]
    keys = set()
    for _ in range(6):
        request = await call.hear("message")
        assert request["data"] == "one"
        keys.add(request["key"])
        await call.refuse(request, "unavailable", retry=True)
    keys.add((await call.stores("one", 1))["key"])
    await call.stores("two", 2)
    assert await asyncio.gather(*sending) == [1, 2]
    assert len(keys) == 1
    assert client.pauses == pytest.approx([0.0015, 0.003, 0.006, 0.012, 0.015, 0.015])


async def test_rule_23_patience_ends(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage)
    sending = actors.soon(client.send("lobby", "one"))
    for _ in range(7):
        await call.refuse(await call.hear("message"), "unavailable", retry=True)
    with pytest.raises(HandshakeRejected, match="unavailable"):
        await sending


async def test_rule_23_a_new_connection_ends_the_pause(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage, pace=Pace(shortest=0.001, pause=3600, longest_pause=3600))
    actors.soon(client.send("lobby", "one"))
    await call.refuse(await call.hear("message"), "unavailable", retry=True)
    await until(client, lambda: len(client.pauses) == 1)
    call.drop()
    call = await stage.call()
    await call.connected()
    await call.joins(recovered=True)
    await call.stores("one")


async def test_rule_23_a_room_that_pauses_does_not_hold_up_another_one(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage, pace=Pace(pause=3600, longest_pause=3600))
    actors.soon(client.send("lobby", "one"))
    await call.refuse(await call.hear("message"), "unavailable", retry=True)
    await until(client, lambda: len(client.pauses) == 1)
    actors.soon(client.send("help", "two"))
    await call.stores("two")


async def test_rule_24_who_is_too_fast_is_silent_and_then_says_one_thing_at_a_time(
    stage: Stage, actors: Actors
) -> None:
    client, call = await actors.inside(stage)
    for room in ("lobby", "help"):
        actors.soon(client.send(room, room))
    asked = [await call.hear("message") for _ in range(2)]
    for request in asked:
        await call.refuse(request, "rate_limited", retry=True)
    again = await call.hear("message")
    await asks(client, call, actors)
    await call.reply(again, seq=1, time="t")
    await call.hear("message")
    assert client.pauses == pytest.approx([QUICK.rate_pause * 1.5] * 2)
    assert (Pace().rate_pause, Pace().careful) == (15, 30)


async def test_rule_25_a_refusal_for_good_fails_at_once(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage)
    first, _ = (actors.soon(client.send("lobby", text)) for text in ("one", "two"))
    await call.refuse(await call.hear("message"), "muted")
    with pytest.raises(HandshakeRejected, match="muted"):
        await first
    await call.stores("two")


async def test_rule_26_other_requests_are_made_once(stage: Stage, actors: Actors) -> None:
    client, call = await actors.starts(stage)
    making = actors.soon(client.request("create", room="new"))
    await call.hear("create")
    call.drop()
    with pytest.raises(Lost):
        await making
    with pytest.raises(Lost):
        await actors.soon(client.send("lobby", "typing", volatile=True))
    call = await stage.call()
    await call.connected()
    await until(client, lambda: client.logged_in)
    await asks(client, call, actors)


async def test_rule_27_a_thousand_wait_and_one_more_fails(stage: Stage, actors: Actors) -> None:
    client, call = await actors.inside(stage)
    call.drop()
    call = await stage.call()  # which says nothing yet
    for number in range(1000):
        actors.soon(client.send("lobby", number))
    late = actors.soon(client.send("lobby", "late"))
    with pytest.raises(QueueFull):
        await late
    assert client.waiting == 1000
    await call.connected()
    await call.joins(recovered=True)
    for number in range(1000):
        await call.stores(number, number + 1)


async def test_rule_28_the_answer_is_heard_before_what_comes_after_it(stage: Stage, actors: Actors) -> None:
    client, call = await actors.starts(stage)
    actors.soon(client.join("lobby"))
    request = await call.hear("join")
    reply = joined(4, messages=[message(4)])
    await call.push({"type": "reply", "id": request["id"], "data": reply}, message(5), message(6))
    await until(client, lambda: len(seqs(client)) == 3)
    assert seqs(client) == [4, 5, 6]
