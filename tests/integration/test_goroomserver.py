"""goroomserver over real sockets: frames of its clients, and closed sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.integration import native

if TYPE_CHECKING:
    from tests.integration.native import Visitors
    from tests.servers import Server

pytestmark = pytest.mark.smoke

visitors = native.visitors

PATIENCE = native.PATIENCE
NO_ERROR = {"code": 0, "message": ""}

Message = dict[str, Any]


class Client:
    """A client on one socket, written from the documents alone."""

    def __init__(self, socket: ClientConnection, app: str) -> None:
        self.socket = socket
        self.app = app

    async def send(self, event: int, data: object = None, *, room: str = "", app: str = "") -> None:
        sent = {"appName": app or self.app, "roomName": room, "eventType": event, "data": data or {}}
        await self.socket.send(json.dumps(sent))

    async def receive(self) -> Message:
        """Return the next frame, and skip those of added and removed rooms."""
        while (frame := await self.receive_any())["eventType"] in (12, 13):
            pass
        return frame

    async def receive_room(self, room: str) -> Message:
        """Return the next frame of an added or removed room."""
        while (frame := await self.receive_any())["data"].get("roomName") != room:
            pass
        return frame

    async def receive_any(self) -> Message:
        frame = await asyncio.wait_for(self.socket.recv(), PATIENCE)
        assert isinstance(frame, str)
        frame: Message = json.loads(frame)
        assert set(frame) == {"eventType", "data", "code", "error"}
        return frame

    async def request(self, event: int, data: object = None, *, room: str = "", app: str = "") -> Message:
        """Send an event and return the next frame."""
        await self.send(event, data, room=room, app=app)
        return await self.receive()

    async def login(self, name: str, *, app: str = "") -> None:
        answer = await self.request(6, {"username": name}, app=app)
        assert answer == {
            "eventType": 6,
            "data": {"userName": name, "appName": app or self.app},
            "code": 200,
            "error": NO_ERROR,
        }


class Clients:
    """Opens clients of one server, and closes them all at the end."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def open(self, app: str = "durable", *, path: str = "/", **options: Any) -> Client:
        defaults = {"compression": None, "ping_interval": None, "proxy": None, "close_timeout": 1}
        address = f"{self.server.ws}{path}"
        socket = await self._stack.enter_async_context(connect(address, **{**defaults, **options}))
        return Client(socket, app)

    async def logged_in(self, prefix: str, app: str = "durable") -> Client:
        client = await self.open(app)
        await client.login(native.unique(prefix))
        return client


@pytest.fixture
async def clients(server: Server) -> AsyncIterator[Clients]:
    async with Clients(server) as opened:
        yield opened


async def make_room(visitors: Visitors, app: str = "durable") -> str:
    """Create a room with a native client; this protocol creates none."""
    name = native.unique("room")
    creator = await visitors.guest(application=app)
    await creator.request("create", room=name)
    return name


@pytest.mark.parametrize("path", ["/", "/ws/goroomserver/"])
async def test_the_protocol_is_served_at_the_original_path_and_at_ours(clients: Clients, path: str) -> None:
    client = await clients.open(path=path)
    assert (await client.request(3))["data"] == {"appName": "durable"}


async def test_clients_join_send_and_leave(clients: Clients, visitors: Visitors) -> None:
    room = await make_room(visitors)
    ann, bob = await clients.logged_in("ann"), await clients.logged_in("bob")
    for each in (ann, bob):
        answer = await each.request(4, {"roomName": room})
        assert answer == {
            "eventType": 4,
            "data": {"roomName": room, "appName": "durable"},
            "code": 200,
            "error": NO_ERROR,
        }
    for number in range(20):
        await ann.send(11, {"n": number}, room=room)
    for each in (ann, bob):
        assert [(await each.receive())["data"]["n"] for _ in range(20)] == list(range(20))
    assert (await bob.request(5, {"roomName": room}))["error"] == NO_ERROR
    assert (await bob.request(11, {"n": 1}, room=room))["error"]["code"] == 9


async def test_native_and_goroomserver_clients_share_a_room(clients: Clients, visitors: Visitors) -> None:
    room = await make_room(visitors)
    nat = await visitors.guest()
    await nat.join(room)
    ann = await clients.logged_in("ann")
    await ann.request(4, {"roomName": room})
    assert (await nat.push("joined"))["user"]["guest"] is True
    await ann.send(11, {"text": "hi"}, room=room)
    assert (await nat.push("message"))["data"] == {"text": "hi"}
    assert (await ann.receive())["data"]["text"] == "hi"
    await nat.send_message(room, [1, 2], event="numbers")
    assert (await ann.receive())["data"] == {
        "data": [1, 2],
        "eventName": "numbers",
        "roomName": room,
        "appName": "durable",
        "userName": nat.user["name"],
    }


async def test_the_data_may_name_the_event(clients: Clients, visitors: Visitors) -> None:
    room = await make_room(visitors)
    nat = await visitors.guest()
    await nat.join(room)
    ann = await clients.logged_in("ann")
    await ann.request(4, {"roomName": room})
    await ann.send(11, {"eventName": "numbers", "n": 1}, room=room)
    message = await nat.push("message")
    assert (message["event"], message["data"]) == ("numbers", {"eventName": "numbers", "n": 1})
    assert (await ann.receive())["data"]["eventName"] == "numbers"


async def test_numbers_that_overflow_a_double_are_answered_with_their_event(clients: Clients) -> None:
    ann = await clients.logged_in("ann")
    await ann.socket.send('{"appName":"durable","eventType":11,"data":{"n":1E400}}')
    answer = await ann.receive()
    assert (answer["eventType"], answer["error"]["code"]) == (11, 10)


async def test_the_event_name_selects_the_handler_of_a_room(clients: Clients, visitors: Visitors) -> None:
    app = native.make_application(clients.server, rooms_on_demand=True, extension="roomsite.Quiz")
    room = await make_room(visitors, app)
    ann = await clients.logged_in("ann", app)
    await ann.request(4, {"roomName": room})
    answer = await ann.request(11, {"eventName": "start"}, room=room)
    assert (answer["data"]["text"], answer["data"]["roomName"]) == ("Here we go!", room)
    assert [(await ann.receive())["data"]["eventName"] for _ in range(2)] == ["score", "question"]


async def test_rooms_of_native_clients_are_sent_when_added_and_removed(
    clients: Clients, visitors: Visitors
) -> None:
    app = native.make_application(clients.server, rooms_on_demand=True, rooms_stay=True)
    ann = await clients.logged_in("ann", app)
    nat = await visitors.guest(application=app)
    await nat.request("create", room="new")
    rest = {"data": {"roomName": "new", "appName": app}, "code": 200, "error": NO_ERROR}
    assert await ann.receive_room("new") == {"eventType": 12, **rest}
    await nat.request("close", room="new")
    assert await ann.receive_room("new") == {"eventType": 13, **rest}


async def test_a_dropped_socket_leaves_both_its_applications(clients: Clients, visitors: Visitors) -> None:
    rooms = {app: await make_room(visitors, app) for app in ("durable", "bench")}
    watchers = {}
    ann = await clients.open()
    name = native.unique("ann")
    for app, room in rooms.items():
        watchers[app] = await visitors.guest(application=app)
        await watchers[app].join(room)
        await ann.login(name, app=app)
        assert (await ann.request(4, {"roomName": room}, app=app))["code"] == 200
        assert (await watchers[app].push("joined"))["user"]["name"] == name
    ann.socket.transport.abort()
    for watcher in watchers.values():
        assert (await watcher.push("left"))["user"]["name"] == name


async def test_a_client_can_return_with_the_same_name(clients: Clients) -> None:
    """At the latest when the server has processed the close."""
    name = native.unique("ann")
    async with asyncio.timeout(PATIENCE):
        for _ in range(5):
            ann = await clients.open()
            while (await ann.request(6, {"username": name}))["code"] != 200:
                pass
            await ann.socket.close()


async def test_names_are_unique_across_native_and_goroomserver_clients(
    clients: Clients, visitors: Visitors
) -> None:
    nat = await visitors.guest()
    ann = await clients.open()
    assert (await ann.request(6, {"username": nat.user["name"]}))["error"]["code"] == 4
    name = native.unique("ann")
    await ann.login(name)
    other = await visitors.connect()
    assert await other.refused("login", name=name) == "name_taken"


async def test_a_signed_in_user_logs_in_by_session(clients: Clients, visitors: Visitors) -> None:
    headers = {"Cookie": native.session_cookie(clients.server, "ann"), "Origin": clients.server.url}
    stranger = await clients.open()
    assert (await stranger.request(6, {"username": "ann"}))["error"]["code"] == 4
    ann = await clients.open(additional_headers=headers)
    await ann.login("ann")


async def test_malformed_frames_are_answered_and_the_socket_stays_open(clients: Clients) -> None:
    ann = await clients.logged_in("ann")
    for frame in ("", "hello", "[1,2", b"\xff", '{"eventType":11,"data":[]}'):
        await ann.socket.send(frame)
        assert (await ann.receive())["error"]["code"] == 10
    assert (await ann.request(3))["code"] == 200


async def test_a_frame_that_is_too_large_closes_the_socket(clients: Clients) -> None:
    ann = await clients.logged_in("ann")
    assert (await ann.request(99, {"text": "x" * 60_000}))["error"]["code"] == 10
    with pytest.raises(ConnectionClosed):
        await ann.request(99, {"text": "x" * 70_000})
    assert ann.socket.close_code in (4507, 1009)
