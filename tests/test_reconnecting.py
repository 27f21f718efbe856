"""The reconnecting Python client, against a fake server that the test drives.

Each rule of docs/client-behaviour.md has at least one test, with its number in the name. The tests of the
JavaScript client are in tests/js/.
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
    Lost,
    Pace,
    QueueFull,
    Reconnecting,
    RequestRejected,
    reconnects_after,
)

BASE_DIR = Path(__file__).resolve().parent.parent
#: Seconds to wait for what must happen. No assertion is about time.
PATIENCE = 60.0
ANN = {"name": "ann", "id": "1", "guest": False}
GUS = {"name": "gus", "id": "guest-1", "guest": True}

#: Retries come at once; timeouts keep their length, so that none ends during a test.
QUICK = Pace(shortest=0.001, longest=0.01, pause=0.001, longest_pause=0.01, rate_pause=0.001)


class Maximum(random.Random):
    """Always draws the maximum."""

    def uniform(self, a: float, b: float) -> float:
        return b

    def random(self) -> float:
        return 1.0


class Connection:
    """The server's side of one connection."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket

    async def expect(self, kind: str) -> Frame:
        """Receive the next frame, which must have this type."""
        frame: Frame = json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE))
        assert frame["type"] == kind, f"expected {kind}, got {frame}"
        return frame

    async def send(self, *frames: Frame) -> None:
        """Send several frames in one message."""
        await self.socket.send("\n".join(json.dumps(frame) for frame in frames))

    async def reply(self, request: Frame, **data: Any) -> None:
        await self.send({"type": "reply", "id": request["id"], "data": data})

    async def refuse(self, request: Frame, code: str, *, retry: bool = False) -> None:
        await self.send({"type": "error", "id": request["id"], "code": code, "message": code, "retry": retry})

    async def connected(self, user: Frame | None = ANN, ping: float = 25) -> None:
        await self.send(
            {"type": "connected", "connection": "c", "application": "chat", "user": user, "ping": ping}
        )

    async def accept_join(self, room: str = "lobby", seq: int | None = 0, **reply: Any) -> Frame:
        """Answer a join, which must be the next request; returns the request."""
        request = await self.expect("join")
        assert request["room"] == room
        await self.reply(request, **joined(seq, **reply))
        return request

    async def acknowledge(self, data: Any, seq: int = 1) -> Frame:
        """Acknowledge a message, which must be the next request; returns the request."""
        request = await self.expect("message")
        assert request["data"] == data
        await self.reply(request, seq=seq, time="t")
        return request

    def drop(self) -> None:
        """Lose the connection without a close frame."""
        self.socket.transport.abort()

    async def closed(self) -> None:
        """Wait until the client has closed; it must send nothing before."""
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(self.socket.recv(), PATIENCE)


class FakeServer:
    """A server that only accepts connections."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[Connection] = asyncio.Queue()
        self.server: Server | None = None
        self.url = ""

    async def open(self) -> None:
        self.server = await serve(self._connected, "127.0.0.1", 0, subprotocols=["rooms.v1"], close_timeout=1)  # type: ignore[list-item]
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/ws/rooms/chat/"

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()
        await self.server.wait_closed()

    async def accept(self) -> Connection:
        """Wait for the next connection."""
        return await asyncio.wait_for(self.connections.get(), PATIENCE)

    async def _connected(self, socket: ServerConnection) -> None:
        self.connections.put_nowait(Connection(socket))
        await socket.wait_closed()


class Clients:
    """The clients of a test and their background tasks."""

    def __init__(self) -> None:
        self.clients: list[Reconnecting] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def client(self, *urls: str, pace: Pace = QUICK, **options: Any) -> Reconnecting:
        self.clients.append(Reconnecting(urls, "gus", pace=pace, random=Maximum(), **options))
        return self.clients[-1]

    def run(self, work: Any) -> asyncio.Task[Any]:
        """Start a task; tasks start in the order of the calls."""
        self.tasks.append(asyncio.create_task(asyncio.wait_for(work, PATIENCE)))
        return self.tasks[-1]

    async def start(self, server: FakeServer, **options: Any) -> tuple[Reconnecting, Connection]:
        """Start a client and log it in."""
        client = self.client(server.url, **options)
        starting = self.run(client.start())
        connection = await server.accept()
        await connection.connected()
        await starting
        return client, connection

    async def join(
        self, server: FakeServer, seq: int | None = 0, **options: Any
    ) -> tuple[Reconnecting, Connection]:
        """Start a client and let it join the lobby."""
        client, connection = await self.start(server, **options)
        joining = self.run(client.join("lobby"))
        await connection.accept_join(seq=seq)
        await joining
        return client, connection


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    server = FakeServer()
    await server.open()
    yield server
    await server.close()


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    for client in clients.clients:
        await client.stop()
    for task in clients.tasks:
        task.cancel()
    await asyncio.gather(*clients.tasks, return_exceptions=True)


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
    members = {"members": [ANN], "count": 1, "state": []}
    return {**members, "messages": list(messages), "recovered": recovered, "position": position}


def seqs(client: Reconnecting) -> list[int | None]:
    return [delivered.seq for delivered in client.log("lobby")]


async def until(client: Reconnecting, predicate: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        await client.until(predicate)


async def expect_marker(client: Reconnecting, connection: Connection, clients: Clients) -> None:
    """Receive a marker: the client has sent nothing unexpected before it."""
    clients.run(client.request("marker"))
    await connection.expect("marker")


def test_every_rule_has_its_tests() -> None:
    rules = re.findall(r"^\*\*(\d+)\. ", (BASE_DIR / "docs/client-behaviour.md").read_text(), re.MULTILINE)
    assert rules == [str(number) for number in range(1, 29)]
    python = set(re.findall(r"def test_rule_(\d+)_", Path(__file__).read_text()))
    scripts = "".join(path.read_text() for path in (BASE_DIR / "tests/js").glob("*.mjs"))
    javascript = set(re.findall(r"test\([\"`]rule (\d+): ", scripts))
    assert python == set(rules) - {"9"}  # only in a browser
    assert javascript == set(rules)


# Connecting


async def test_rule_1_client_offers_the_subprotocol(server: FakeServer, clients: Clients) -> None:
    _, connection = await clients.start(server)
    assert connection.socket.subprotocol == "rooms.v1"


async def test_rule_1_each_attempt_goes_to_the_next_address(server: FakeServer, clients: Clients) -> None:
    closed = f"ws://127.0.0.1:{services.free_port()}/"
    client = clients.client(closed, server.url, closed)
    clients.run(client.start())
    (await server.accept()).drop()
    await server.accept()
    assert client.closes == [1006] * 4


async def test_rule_2_ceiling_of_the_wait_doubles_up_to_the_maximum(clients: Clients) -> None:
    pace = Pace(shortest=0.0002, longest=0.02)
    client = clients.client(f"ws://127.0.0.1:{services.free_port()}/", pace=pace)
    clients.run(client.start())
    await until(client, lambda: len(client.waits) >= 9)
    ceilings = [min(0.02, 0.0002 * 2**attempt) for attempt in range(9)]
    assert client.waits[:9] == pytest.approx(ceilings)


def test_rule_2_wait_is_uniform_between_0_and_20_seconds() -> None:
    assert (Pace().shortest, Pace().longest) == (0.2, 20)
    client = Reconnecting("ws://x/", "gus", random=random.Random(1))
    waits = [client._wait() for _ in range(2000)]
    assert min(waits) >= 0
    assert max(waits) <= 20
    longest = waits[10:]
    assert min(longest) < 1
    assert max(longest) > 19


@pytest.mark.parametrize(("stable", "again"), [(0.0, 1), (3600.0, 2)])
async def test_rule_3_back_off_restarts_after_a_stable_connection(
    server: FakeServer, clients: Clients, stable: float, again: int
) -> None:
    client, connection = await clients.start(server, pace=Pace(shortest=0.001, stable=stable))
    connection.drop()
    connection = await server.accept()
    await connection.connected()
    await until(client, lambda: client.logged_in)
    connection.drop()
    await server.accept()
    assert client.waits == pytest.approx([0.001, 0.001 * again])


async def test_rule_4_client_waits_exactly_retry_in(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.start(server)
    await connection.send({"type": "closing", "code": 4000, "message": "", "retry_in": 0.0123})
    await connection.socket.close(4000)
    (await server.accept()).drop()
    await server.accept()
    assert client.waits == pytest.approx([0.0123, QUICK.shortest])


async def test_rule_5_client_sends_nothing_after_closing(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server)
    await connection.send({"type": "closing", "code": 4000, "message": ""}, message(1))
    await until(client, lambda: seqs(client) == [1])
    clients.run(client.send("lobby", "late"))
    await connection.send({"type": "ping"}, message(2))
    await until(client, lambda: seqs(client) == [1, 2])
    await connection.socket.close(4000)
    await connection.closed()
    connection = await server.accept()
    await connection.connected()
    await connection.accept_join(seq=2, recovered=True)
    await connection.acknowledge("late", 3)


async def test_rule_5_code_of_closing_replaces_a_lost_close_code(
    server: FakeServer, clients: Clients
) -> None:
    client, connection = await clients.start(server)
    await connection.send({"type": "closing", "code": 4504, "message": "You are banned."})
    await connection.socket.close(1000)
    with pytest.raises(Ended) as ended:
        await until(client, lambda: False)
    assert ended.value.code == 4504


# Kept in step with tests/js/connection.test.mjs.
@pytest.mark.parametrize("code", [1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4008, 4499])
def test_rule_6_client_reconnects_after_temporary_codes(code: int) -> None:
    assert reconnects_after(code)


@pytest.mark.parametrize("code", [1000, 1002, 1007, 1009, 3000, 4500, 4503, 4510, 4999])
def test_rule_6_client_does_not_reconnect_after_permanent_codes(code: int) -> None:
    assert not reconnects_after(code)


async def test_rule_6_holds_for_real_close_frames(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.start(server)
    for code in (1001, 1011, 1012, 4000, 4499):
        await connection.socket.close(code)
        connection = await server.accept()
        await connection.connected()
    await connection.socket.close(4500)
    with pytest.raises(Ended):
        await until(client, lambda: False)
    assert client.closes == [1001, 1011, 1012, 4000, 4499, 4500]


async def test_rule_7_client_reconnects_after_silence(server: FakeServer, clients: Clients) -> None:
    client = clients.client(server.url, pace=Pace(shortest=0.001, ping=3600, pong=0.01))
    clients.run(client.start())
    connection = await server.accept()
    await connection.connected(ping=0)
    await server.accept()
    assert client.closes == [1006]


async def test_rule_7_client_reconnects_when_the_handshake_is_not_answered(clients: Clients) -> None:
    callers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    mute = await asyncio.start_server(lambda _, writer: callers.put_nowait(writer), "127.0.0.1", 0)
    async with mute:
        url = f"ws://127.0.0.1:{mute.sockets[0].getsockname()[1]}/"
        clients.run(clients.client(url, pace=Pace(shortest=0.001, ping=0, pong=0.01)).start())
        for writer in [await asyncio.wait_for(callers.get(), PATIENCE) for _ in range(2)]:
            writer.close()


async def test_rule_8_client_answers_a_ping(server: FakeServer, clients: Clients) -> None:
    _, connection = await clients.start(server)
    await connection.send({"type": "ping"})
    assert await connection.expect("pong") == {"type": "pong"}


# Login


async def test_rule_10_signed_in_user_sends_no_login(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.start(server)
    await expect_marker(client, connection, clients)
    assert client.user == ANN


async def test_rule_10_first_login_is_by_name_and_later_ones_by_token(
    server: FakeServer, clients: Clients
) -> None:
    client = clients.client(server.url)
    clients.run(client.start())
    connection = await server.accept()
    await connection.connected(None)
    login = await connection.expect("login")
    assert login["name"] == "gus"
    await connection.reply(login, user=GUS, token="t0k")
    await until(client, lambda: client.user == GUS)
    connection.drop()
    connection = await server.accept()
    await connection.connected(None)
    assert (await connection.expect("login"))["token"] == "t0k"


async def test_rule_11_refused_token_is_replaced_by_the_name(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.start(server)
    client.token = "t0k"
    connection.drop()
    connection = await server.accept()
    await connection.connected(None)
    await connection.refuse(await connection.expect("login"), "bad_token")
    login = await connection.expect("login")
    assert login["name"] == "gus"
    await connection.reply(login, user=GUS, token="t1k")
    await until(client, lambda: client.logged_in)
    assert client.token == "t1k"


async def test_rule_11_token_of_an_expired_session_is_not_sent_again(
    server: FakeServer, clients: Clients
) -> None:
    client, connection = await clients.start(server)
    client.token = "t0k"
    await connection.socket.close(4005)
    connection = await server.accept()
    await connection.connected(None)
    assert (await connection.expect("login"))["name"] == "gus"


async def test_rule_12_login_is_retried_after_a_temporary_refusal(
    server: FakeServer, clients: Clients
) -> None:
    client = clients.client(server.url)
    starting = clients.run(client.start())
    for _ in range(2):
        connection = await server.accept()
        await connection.connected(None)
        await connection.refuse(await connection.expect("login"), "unavailable", retry=True)
    connection = await server.accept()
    await connection.connected(None)
    await connection.reply(await connection.expect("login"), user=GUS, token="t")
    await starting


async def test_rule_12_name_in_use_is_permanent_before_the_first_login_only(
    server: FakeServer, clients: Clients
) -> None:
    client, connection = await clients.start(server)
    connection.drop()
    connection = await server.accept()
    await connection.connected(None)
    await connection.refuse(await connection.expect("login"), "name_taken", retry=True)
    await server.accept()  # held by our own lost connection: the client reconnects
    assert client.ended is None

    other = clients.client(server.url)
    starting = clients.run(other.start())
    connection = await server.accept()
    await connection.connected(None)
    await connection.refuse(await connection.expect("login"), "name_taken", retry=True)
    with pytest.raises(Ended) as ended:
        await starting
    assert ended.value.code == "name_taken"


# Rooms


async def test_rule_13_every_room_is_joined_again_since_its_position(
    server: FakeServer, clients: Clients
) -> None:
    client, connection = await clients.join(server, seq=4)
    joining = clients.run(client.join("help", password="p"))
    await connection.accept_join("help", 0, epoch="h")
    await joining
    await connection.send(message(5))
    await until(client, lambda: seqs(client) == [5])
    connection.drop()
    connection = await server.accept()
    await connection.connected()
    assert (await connection.expect("join"))["since"] == {"epoch": "e", "seq": 5}
    second = await connection.expect("join")
    assert (second["room"], second["password"], second["since"]) == ("help", "p", {"epoch": "h", "seq": 0})


async def test_rule_14_recovery_delivers_nothing_twice(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server, seq=4)
    await connection.send(message(5))
    await until(client, lambda: seqs(client) == [5])
    connection.drop()
    connection = await server.accept()
    await connection.connected()
    await connection.accept_join(seq=7, recovered=True, messages=map(message, (5, 6, 7)))
    await connection.send(message(7), message(8))
    await until(client, lambda: 8 in seqs(client))
    assert seqs(client) == [5, 6, 7, 8]
    assert client.resets == []
    await until(client, lambda: len(client.catch_ups) == client.reconnects == 1)


async def test_rule_15_failed_recovery_is_reported_as_a_reset(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server, seq=4)
    connection.drop()
    connection = await server.accept()
    await connection.connected()
    await connection.accept_join(seq=2, epoch="f", messages=map(message, (1, 2)))
    await connection.send(message(3))
    await until(client, lambda: 3 in seqs(client))
    assert seqs(client) == [1, 2, 3]
    assert {delivered.epoch for delivered in client.log("lobby")} == {"f"}
    assert [(reset.room, reset.index, reset.epoch) for reset in client.resets] == [("lobby", 0, "f")]


async def test_rule_15_room_without_history_has_no_reset(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server, seq=None)
    await connection.send(message(None))
    await until(client, lambda: seqs(client) == [None])
    connection.drop()
    connection = await server.accept()
    await connection.connected()
    assert "since" not in await connection.accept_join(seq=None)
    await connection.send(message(None))
    await until(client, lambda: seqs(client) == [None, None])
    assert client.resets == []


async def test_rule_16_duplicates_are_dropped_and_unnumbered_messages_are_not(
    server: FakeServer, clients: Clients
) -> None:
    client, connection = await clients.join(server, seq=4)
    await connection.send(*map(message, (4, 5, 5, None, None, 6)))
    await until(client, lambda: 6 in seqs(client))
    assert seqs(client) == [5, None, None, 6]
    await expect_marker(client, connection, clients)


async def test_rule_17_gap_is_filled_by_joining_again(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server, seq=4)
    await connection.send(message(7), message(8))
    request = await connection.expect("join")
    assert request["since"] == {"epoch": "e", "seq": 4}
    reply = joined(8, recovered=True, messages=map(message, (5, 6, 7, 8)))
    # Another gap directly behind the reply.
    await connection.send({"type": "reply", "id": request["id"], "data": reply}, message(10))
    assert seqs(client) == []
    assert (await connection.accept_join(seq=10, recovered=True, messages=map(message, (9, 10))))["since"][
        "seq"
    ] == 8
    await connection.send(message(11))
    await until(client, lambda: 11 in seqs(client))
    assert seqs(client) == [5, 6, 7, 8, 9, 10, 11]


async def test_rule_18_join_is_retried_without_limit_in_a_room_joined_before(
    server: FakeServer, clients: Clients
) -> None:
    client, connection = await clients.join(server, seq=4)
    connection.drop()
    connection = await server.accept()
    await connection.connected()
    for _ in range(10):
        await connection.refuse(await connection.expect("join"), "unavailable", retry=True)
    await connection.accept_join(seq=5, recovered=True, messages=[message(5)])
    await until(client, lambda: seqs(client) == [5])


async def test_rule_18_removed_client_does_not_join_again(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server)
    joining = clients.run(client.join("help"))
    await connection.accept_join("help")
    await joining
    await connection.send({"type": "removed", "room": "help", "reason": "kicked"})
    connection.drop()
    connection = await server.accept()
    await connection.connected()
    await connection.refuse(await connection.expect("join"), "room_not_found")
    await until(client, lambda: len(client.events) == 2)
    assert [event[:2] for event in client.events] == [("removed", "help"), ("removed", "lobby")]
    connection.drop()
    connection = await server.accept()
    await connection.connected()
    await until(client, lambda: client.logged_in)
    await expect_marker(client, connection, clients)


# Sending


async def test_rule_19_each_message_has_a_key(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server)
    sending = clients.run(client.send("lobby", "one"))
    assert 8 <= len((await connection.acknowledge("one", 7))["key"]) <= 64
    assert await sending == 7
    clients.run(client.send("lobby", "two", key="mine"))
    assert (await connection.acknowledge("two"))["key"] == "mine"


async def test_rule_20_one_message_is_in_flight_in_a_room(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server)
    for text in ("one", "two", "three"):
        clients.run(client.send("lobby", text))
    clients.run(client.send("help", "elsewhere"))
    first = await connection.expect("message")
    assert (await connection.expect("message"))["data"] == "elsewhere"
    await expect_marker(client, connection, clients)
    await connection.reply(first, seq=1, time="t")
    await connection.acknowledge("two", 2)
    await connection.acknowledge("three", 3)


async def test_rule_20_eight_messages_are_in_flight_in_all_rooms(
    server: FakeServer, clients: Clients
) -> None:
    client, connection = await clients.start(server)
    for number in range(10):
        clients.run(client.send(f"room {number}", number))
    requests = [await connection.expect("message") for _ in range(8)]
    await expect_marker(client, connection, clients)
    await connection.reply(requests[0], seq=1, time="t")
    assert (await connection.expect("message"))["data"] == 8


async def test_rule_21_messages_wait_until_their_room_is_joined(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server)
    clients.run(client.join("help"))
    request = await connection.expect("join")
    clients.run(client.send("help", "one"))
    clients.run(client.send("lobby", "two"))
    await connection.acknowledge("two")
    await connection.reply(request, **joined(0))
    await connection.acknowledge("one")


async def test_rule_22_unacknowledged_messages_are_sent_again(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server)
    sending = [clients.run(client.send("lobby", text)) for text in ("zero", "one", "two")]
    await connection.acknowledge("zero", 1)
    key = (await connection.expect("message"))["key"]
    connection.drop()
    await until(client, lambda: client.closes == [1006])
    sending.append(clients.run(client.send("lobby", "three")))
    connection = await server.accept()
    await connection.connected()
    request = await connection.expect("join")
    await expect_marker(client, connection, clients)  # nothing before the room is joined again
    await connection.reply(request, **joined(1, recovered=True, messages=[message(1)]))
    assert (await connection.acknowledge("one", 2))["key"] == key
    await connection.acknowledge("two", 3)
    await connection.acknowledge("three", 4)
    assert await asyncio.gather(*sending) == [1, 2, 3, 4]


async def test_rule_23_message_is_retried_before_later_ones(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server)
    sending = [clients.run(client.send("lobby", text)) for text in ("one", "two")]
    keys = set()
    for _ in range(6):
        request = await connection.expect("message")
        assert request["data"] == "one"
        keys.add(request["key"])
        await connection.refuse(request, "unavailable", retry=True)
    keys.add((await connection.acknowledge("one", 1))["key"])
    await connection.acknowledge("two", 2)
    assert await asyncio.gather(*sending) == [1, 2]
    assert len(keys) == 1
    assert client.pauses == pytest.approx([0.0015, 0.003, 0.006, 0.012, 0.015, 0.015])


async def test_rule_23_message_fails_after_six_retries(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server)
    sending = clients.run(client.send("lobby", "one"))
    for _ in range(7):
        await connection.refuse(await connection.expect("message"), "unavailable", retry=True)
    with pytest.raises(RequestRejected, match="unavailable"):
        await sending


async def test_rule_23_new_connection_ends_the_pause(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server, pace=Pace(shortest=0.001, pause=3600, longest_pause=3600))
    clients.run(client.send("lobby", "one"))
    await connection.refuse(await connection.expect("message"), "unavailable", retry=True)
    await until(client, lambda: len(client.pauses) == 1)
    connection.drop()
    connection = await server.accept()
    await connection.connected()
    await connection.accept_join(recovered=True)
    await connection.acknowledge("one")


async def test_rule_23_pause_of_a_room_does_not_delay_another_room(
    server: FakeServer, clients: Clients
) -> None:
    client, connection = await clients.join(server, pace=Pace(pause=3600, longest_pause=3600))
    clients.run(client.send("lobby", "one"))
    await connection.refuse(await connection.expect("message"), "unavailable", retry=True)
    await until(client, lambda: len(client.pauses) == 1)
    clients.run(client.send("help", "two"))
    await connection.acknowledge("two")


async def test_rule_24_rate_limited_client_pauses_and_then_sends_one_request_at_a_time(
    server: FakeServer, clients: Clients
) -> None:
    client, connection = await clients.join(server)
    for room in ("lobby", "help"):
        clients.run(client.send(room, room))
    requests = [await connection.expect("message") for _ in range(2)]
    for request in requests:
        await connection.refuse(request, "rate_limited", retry=True)
    again = await connection.expect("message")
    await expect_marker(client, connection, clients)
    await connection.reply(again, seq=1, time="t")
    await connection.expect("message")
    assert client.pauses == pytest.approx([QUICK.rate_pause * 1.5] * 2)
    assert (Pace().rate_pause, Pace().careful) == (15, 30)


async def test_rule_25_permanent_refusal_fails_at_once(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server)
    first, _ = (clients.run(client.send("lobby", text)) for text in ("one", "two"))
    await connection.refuse(await connection.expect("message"), "muted")
    with pytest.raises(RequestRejected, match="muted"):
        await first
    await connection.acknowledge("two")


async def test_rule_26_other_requests_are_sent_once(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.start(server)
    making = clients.run(client.request("create", room="new"))
    await connection.expect("create")
    connection.drop()
    with pytest.raises(Lost):
        await making
    with pytest.raises(Lost):
        await clients.run(client.send("lobby", "typing", volatile=True))
    connection = await server.accept()
    await connection.connected()
    await until(client, lambda: client.logged_in)
    await expect_marker(client, connection, clients)


async def test_rule_27_queue_takes_a_thousand_messages(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.join(server)
    connection.drop()
    connection = await server.accept()  # which sends nothing yet
    for number in range(1000):
        clients.run(client.send("lobby", number))
    late = clients.run(client.send("lobby", "late"))
    with pytest.raises(QueueFull):
        await late
    assert client.waiting == 1000
    await connection.connected()
    await connection.accept_join(recovered=True)
    for number in range(1000):
        await connection.acknowledge(number, number + 1)


async def test_rule_28_reply_is_handled_before_later_frames(server: FakeServer, clients: Clients) -> None:
    client, connection = await clients.start(server)
    clients.run(client.join("lobby"))
    request = await connection.expect("join")
    reply = joined(4, messages=[message(4)])
    await connection.send({"type": "reply", "id": request["id"], "data": reply}, message(5), message(6))
    await until(client, lambda: len(seqs(client)) == 3)
    assert seqs(client) == [4, 5, 6]
