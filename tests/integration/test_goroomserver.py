"""The goroomserver door over real servers: frames as its clients write them, and sockets that end."""

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

visitors = native.visitors

PATIENCE = native.PATIENCE
NO_ERROR = {"code": 0, "message": ""}

Message = dict[str, Any]


class Gopher:
    """One socket, written from the contract alone."""

    def __init__(self, socket: ClientConnection, app: str) -> None:
        self.socket = socket
        self.app = app

    async def send(self, event: int, data: object = None, *, room: str = "", app: str = "") -> None:
        sent = {"appName": app or self.app, "roomName": room, "eventType": event, "data": data or {}}
        await self.socket.send(json.dumps(sent))

    async def hear(self) -> Message:
        """The next thing that is told, but for rooms that others make and remove."""
        while (told := await self.receive())["eventType"] in (12, 13):
            pass
        return told

    async def of_room(self, room: str) -> Message:
        """What is told next of a room that is made or removed."""
        while (told := await self.receive())["data"].get("roomName") != room:
            pass
        return told

    async def receive(self) -> Message:
        frame = await asyncio.wait_for(self.socket.recv(), PATIENCE)
        assert isinstance(frame, str)
        told: Message = json.loads(frame)
        assert set(told) == {"eventType", "data", "code", "error"}
        return told

    async def ask(self, event: int, data: object = None, *, room: str = "", app: str = "") -> Message:
        """The next thing that is told after this was asked."""
        await self.send(event, data, room=room, app=app)
        return await self.hear()

    async def login(self, name: str, *, app: str = "") -> None:
        answer = await self.ask(6, {"username": name}, app=app)
        assert answer == {
            "eventType": 6,
            "data": {"userName": name, "appName": app or self.app},
            "code": 200,
            "error": NO_ERROR,
        }


class Burrow:
    """Opens sockets to one server, and closes them all at the end."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def open(self, app: str = "durable", *, path: str = "/", **options: Any) -> Gopher:
        defaults = {"compression": None, "ping_interval": None, "proxy": None, "close_timeout": 1}
        address = f"{self.server.ws}{path}"
        socket = await self._stack.enter_async_context(connect(address, **{**defaults, **options}))
        return Gopher(socket, app)

    async def named(self, prefix: str, app: str = "durable") -> Gopher:
        gopher = await self.open(app)
        await gopher.login(native.unique(prefix))
        return gopher


@pytest.fixture
async def burrow(server: Server) -> AsyncIterator[Burrow]:
    async with Burrow(server) as everyone:
        yield everyone


async def make_room(visitors: Visitors, app: str = "durable") -> str:
    """A room that stays; this door makes none."""
    name = native.unique("room")
    maker = await visitors.guest(application=app)
    await maker.request("create", room=name)
    return name


@pytest.mark.parametrize("path", ["/", "/ws/goroomserver/"])
async def test_the_door_is_where_its_clients_look_and_where_ours_do(burrow: Burrow, path: str) -> None:
    gopher = await burrow.open(path=path)
    assert (await gopher.ask(3))["data"] == {"appName": "durable"}


async def test_coming_talking_and_going(burrow: Burrow, visitors: Visitors) -> None:
    room = await make_room(visitors)
    ann, bob = await burrow.named("ann"), await burrow.named("bob")
    for each in (ann, bob):
        answer = await each.ask(4, {"roomName": room})
        assert answer == {
            "eventType": 4,
            "data": {"roomName": room, "appName": "durable"},
            "code": 200,
            "error": NO_ERROR,
        }
    for number in range(20):
        await ann.send(11, {"n": number}, room=room)
    for each in (ann, bob):
        assert [(await each.hear())["data"]["n"] for _ in range(20)] == list(range(20))
    assert (await bob.ask(5, {"roomName": room}))["error"] == NO_ERROR
    assert (await bob.ask(11, {"n": 1}, room=room))["error"]["code"] == 9


async def test_natives_and_gophers_are_in_one_room(burrow: Burrow, visitors: Visitors) -> None:
    room = await make_room(visitors)
    nat = await visitors.guest()
    await nat.join(room)
    ann = await burrow.named("ann")
    await ann.ask(4, {"roomName": room})
    assert (await nat.push("joined"))["user"]["guest"] is True
    await ann.send(11, {"text": "hi"}, room=room)
    assert (await nat.push("message"))["data"] == {"text": "hi"}
    assert (await ann.hear())["data"]["text"] == "hi"
    await nat.say(room, [1, 2], event="numbers")
    assert (await ann.hear())["data"] == {
        "data": [1, 2],
        "eventName": "numbers",
        "roomName": room,
        "appName": "durable",
        "userName": nat.user["name"],
    }


async def test_an_event_is_called_as_the_data_say(burrow: Burrow, visitors: Visitors) -> None:
    room = await make_room(visitors)
    nat = await visitors.guest()
    await nat.join(room)
    ann = await burrow.named("ann")
    await ann.ask(4, {"roomName": room})
    await ann.send(11, {"eventName": "numbers", "n": 1}, room=room)
    heard = await nat.push("message")
    assert (heard["event"], heard["data"]) == ("numbers", {"eventName": "numbers", "n": 1})
    assert (await ann.hear())["data"]["eventName"] == "numbers"


async def test_numbers_that_no_double_holds_are_answered_as_the_event_that_was_sent(burrow: Burrow) -> None:
    ann = await burrow.named("ann")
    await ann.socket.send('{"appName":"durable","eventType":11,"data":{"n":1E400}}')
    answer = await ann.hear()
    assert (answer["eventType"], answer["error"]["code"]) == (11, 10)


async def test_the_handlers_of_a_room_are_reached_by_name(burrow: Burrow, visitors: Visitors) -> None:
    app = native.make_application(burrow.server, rooms_on_demand=True, extension="roomsite.Quiz")
    room = await make_room(visitors, app)
    ann = await burrow.named("ann", app)
    await ann.ask(4, {"roomName": room})
    answer = await ann.ask(11, {"eventName": "start"}, room=room)
    assert (answer["data"]["text"], answer["data"]["roomName"]) == ("Here we go!", room)
    assert [(await ann.hear())["data"]["eventName"] for _ in range(2)] == ["score", "question"]


async def test_rooms_that_natives_make_and_close_are_told(burrow: Burrow, visitors: Visitors) -> None:
    app = native.make_application(burrow.server, rooms_on_demand=True, rooms_stay=True)
    ann = await burrow.named("ann", app)
    nat = await visitors.guest(application=app)
    await nat.request("create", room="new")
    told = {"data": {"roomName": "new", "appName": app}, "code": 200, "error": NO_ERROR}
    assert await ann.of_room("new") == {"eventType": 12, **told}
    await nat.request("close", room="new")
    assert await ann.of_room("new") == {"eventType": 13, **told}


async def test_one_socket_two_applications_and_its_end(burrow: Burrow, visitors: Visitors) -> None:
    rooms = {app: await make_room(visitors, app) for app in ("durable", "bench")}
    witnesses = {}
    ann = await burrow.open()
    name = native.unique("ann")
    for app, room in rooms.items():
        witnesses[app] = await visitors.guest(application=app)
        await witnesses[app].join(room)
        await ann.login(name, app=app)
        assert (await ann.ask(4, {"roomName": room}, app=app))["code"] == 200
        assert (await witnesses[app].push("joined"))["user"]["name"] == name
    ann.socket.transport.abort()
    for witness in witnesses.values():
        assert (await witness.push("left"))["user"]["name"] == name


async def test_who_closes_can_return_with_the_same_name(burrow: Burrow) -> None:
    """At once, or as soon as the server has noticed."""
    name = native.unique("ann")
    async with asyncio.timeout(PATIENCE):
        for _ in range(5):
            ann = await burrow.open()
            while (await ann.ask(6, {"username": name}))["code"] != 200:
                pass
            await ann.socket.close()


async def test_a_name_is_taken_for_natives_and_gophers_alike(burrow: Burrow, visitors: Visitors) -> None:
    nat = await visitors.guest()
    ann = await burrow.open()
    assert (await ann.ask(6, {"username": nat.user["name"]}))["error"]["code"] == 4
    name = native.unique("ann")
    await ann.login(name)
    other = await visitors.connect()
    assert await other.refused("login", name=name) == "name_taken"


async def test_a_signed_in_user_logs_in_by_the_session(burrow: Burrow, visitors: Visitors) -> None:
    headers = {"Cookie": native.session_cookie(burrow.server, "ann"), "Origin": burrow.server.url}
    stranger = await burrow.open()
    assert (await stranger.ask(6, {"username": "ann"}))["error"]["code"] == 4
    ann = await burrow.open(additional_headers=headers)
    await ann.login("ann")


async def test_malformed_frames_are_answered_and_the_socket_stays(burrow: Burrow) -> None:
    ann = await burrow.named("ann")
    for frame in ("", "hello", "[1,2", b"\xff", '{"eventType":11,"data":[]}'):
        await ann.socket.send(frame)
        assert (await ann.hear())["error"]["code"] == 10
    assert (await ann.ask(3))["code"] == 200


async def test_a_frame_that_is_too_large_ends_the_socket(burrow: Burrow) -> None:
    ann = await burrow.named("ann")
    assert (await ann.ask(99, {"text": "x" * 60_000}))["error"]["code"] == 10
    with pytest.raises(ConnectionClosed):
        await ann.ask(99, {"text": "x" * 70_000})
    assert ann.socket.close_code in (4507, 1009)
