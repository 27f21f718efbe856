"""One socket in several applications: the real engine behind a socket that is only a pair of queues."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from tests.compat.test_goroomserver import frames, texts

if TYPE_CHECKING:
    from rooms.hub.connection import Connection
    from rooms.models import Application, Room
    from rooms.node.node import Node


# Nothing takes so long but a test that waits for what never comes.
PATIENCE = 20


class Visitor:
    """A client of the protocol, behind the real service. It is the socket as well."""

    def __init__(self, node: Node, *, address: str = "") -> None:
        from rooms.compat.multiplex import MultiplexSession
        from rooms.conf import load_protocol
        from rooms.consumers import operations
        from rooms.node.session import make_connection

        self.connection = make_connection(
            node, str(uuid.uuid4()), load_protocol("goroomserver")(), application="", address=address
        )
        self.closed: int | None = None
        self.told: deque[dict[str, Any]] = deque()
        self._sent: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._woken = asyncio.Event()
        self._service = MultiplexSession(node, operations(node), self.connection, self)

    def run(self, user: Any) -> None:
        self._running = asyncio.create_task(self._service.run(user))

    # As a socket.

    async def next(self) -> str | bytes | None:
        return await self._sent.get()

    async def send(self, frame: bytes, *, binary: bool) -> None:
        assert not binary
        self.told.append(json.loads(frame))
        self._woken.set()

    async def close(self, code: int, reason: str) -> None:
        self.closed = code
        self._sent.put_nowait(None)
        self._woken.set()

    # As a client.

    def put(self, event: int, data: Any = None, *, app: str = "chat", room: str = "") -> None:
        self.put_text(json.dumps({"appName": app, "roomName": room, "eventType": event, "data": data}))

    def put_text(self, frame: str | bytes) -> None:
        self._sent.put_nowait(frame)

    def drop(self) -> None:
        """The socket is gone."""
        self._sent.put_nowait(None)

    async def gone(self) -> None:
        """Drop, and wait until nothing is left of it."""
        self.drop()
        await self._running

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while not self.told:
                self._woken.clear()
                await self._woken.wait()
        return self.told.popleft()

    async def until_closed(self) -> int:
        async with asyncio.timeout(PATIENCE):
            while self.closed is None:
                self._woken.clear()
                await self._woken.wait()
        return self.closed

    async def heard(self, kind: int, app: str = "chat") -> dict[str, Any]:
        """The data of what comes next, which is of this kind and from this application."""
        told = await self.hear()
        assert (told["eventType"], told["code"]) == (kind, 200), told
        assert told["data"]["appName"] == app
        data: dict[str, Any] = told["data"]
        return data

    async def ask(self, event: int, data: Any = None, **options: Any) -> int:
        """Have something carried out: the number of the error, 0 is none. Nothing else may come before it."""
        self.put(event, data, **options)
        told = await self.hear()
        assert told["eventType"] == event, told
        number: int = told["error"]["code"]
        self.text = told["error"]["message"]
        self.data = told["data"]
        return number

    async def login(self, name: str, *rooms: str, app: str = "chat") -> None:
        assert await self.ask(6, {"username": name}, app=app) == 0, self.text
        for room in rooms:
            assert await self.ask(4, {"roomName": room}, app=app) == 0, self.text

    async def settle(self, app: str = "chat") -> None:
        """Until everything that was asked so far is carried out; nothing may have come because of it."""
        assert await self.ask(99, app=app) in (2, 10)


Open = Callable[..., Awaitable[Visitor]]


@asynccontextmanager
async def protocols(node: Node) -> AsyncIterator[Open]:
    visitors: list[Visitor] = []

    async def open_(user: Any = None, **options: Any) -> Visitor:
        visitor = Visitor(node, **options)
        visitor.run(user)
        visitors.append(visitor)
        return visitor

    yield open_
    for visitor in visitors:
        await visitor.gone()


@pytest.fixture
async def visit(node: Node) -> AsyncIterator[Open]:
    """Opens sockets of the engine."""
    async with protocols(node) as open_:
        yield open_


@pytest.fixture
async def quiz(chat: Application) -> Application:
    """A second application."""
    from rooms.models import Application

    return await Application.objects.acreate(name="quiz", history="memory", request_rate=0)


@pytest.fixture
async def lobby(chat: Application) -> Room:
    return await make_room(chat)


async def make_room(application: Application, name: str = "lobby", **fields: Any) -> Room:
    from rooms.models import Room

    return await Room.objects.acreate(application=application, name=name, **fields)


async def present(node: Node, application: str, room: str | None = None) -> list[str]:
    """The names of those who are in an application, or in one of its rooms."""
    await node.parts.tasks.settle()
    live = await node.parts.directory.application(application)
    assert live is not None
    group = live.group if room is None else (await node.parts.directory.room(live, room)).group
    return [user.name for user in (await node.parts.presence.members(group)).users]


def extension(**hooks: Any) -> Any:
    from rooms.extensions import Extension

    return type("Hooked", (Extension,), hooks)


async def use(row: Any, name: str) -> None:
    row.extension = name
    await row.asave()


# Several applications --------------------------------------------------------------------------------


async def test_one_socket_is_in_two_applications(
    visit: Open, node: Node, quiz: Application, lobby: Room
) -> None:
    await make_room(quiz)
    ann = await visit()
    await ann.login("ann", "lobby")
    await ann.login("ann of the quiz", "lobby", app="quiz")
    assert await present(node, "chat", "lobby") == ["ann"]
    assert await present(node, "quiz", "lobby") == ["ann of the quiz"]
    assert await present(node, "chat") == ["ann"]


async def test_messages_of_both_applications_are_heard(visit: Open, quiz: Application, lobby: Room) -> None:
    await make_room(quiz)
    ann, bob = await visit(), await visit()
    for app in ("chat", "quiz"):
        await ann.login("ann", "lobby", app=app)
        await bob.login("bob", "lobby", app=app)
    for app in ("chat", "quiz"):
        bob.put(11, {"to": app}, app=app, room="lobby")
        for each in (ann, bob):
            data = await each.heard(11, app)
            assert data == {"to": app, "roomName": "lobby", "appName": app, "userName": "bob"}


async def test_a_logout_leaves_the_other_application_alone(
    visit: Open, node: Node, quiz: Application, lobby: Room
) -> None:
    ann = await visit()
    await make_room(quiz)
    await ann.login("ann", "lobby")
    await ann.login("ann", "lobby", app="quiz")
    assert await ann.ask(7) == 0
    assert ann.data == {"userName": "ann", "appName": "chat"}
    assert await present(node, "chat") == await present(node, "chat", "lobby") == []
    assert await present(node, "quiz", "lobby") == ["ann"]
    assert await ann.ask(4, {"roomName": "lobby"}) == 2
    assert await ann.ask(5, {"roomName": "lobby"}, app="quiz") == 0


async def test_after_a_logout_one_may_come_back_at_once(visit: Open, lobby: Room) -> None:
    ann = await visit()
    for _ in range(3):
        await ann.login("ann", "lobby")
        assert await ann.ask(7) == 0


async def test_the_end_of_the_socket_leaves_everything(
    visit: Open, node: Node, quiz: Application, lobby: Room
) -> None:
    ann = await visit()
    await ann.login("ann", "lobby")
    await ann.login("ann", app="quiz")
    bob = await visit()
    await ann.gone()
    await bob.settle()
    assert await present(node, "chat") == await present(node, "quiz") == []
    assert await present(node, "chat", "lobby") == []
    assert list(node.connections) == [bob.connection]
    assert all(group not in node.parts.hub for group in node.parts.hub.groups())


async def test_who_goes_can_return_with_the_same_name(visit: Open, lobby: Room) -> None:
    ann = await visit()
    await ann.login("ann", "lobby")
    await ann.gone()
    again = await visit()
    await again.login("ann", "lobby")


async def test_a_socket_is_in_so_many_applications(
    visit: Open, quiz: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rooms.compat.multiplex.MAX_APPLICATIONS", 1)
    ann = await visit()
    await ann.login("ann")
    assert await ann.ask(6, {"username": "ann"}, app="quiz") == 3
    assert await ann.ask(7) == 0
    await ann.login("ann", app="quiz")


# Logging in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [3, 4, 6, 11, 99, 0])
async def test_an_unknown_application_is_error_1(visit: Open, event: int) -> None:
    ann = await visit()
    assert await ann.ask(event, {"username": "ann"}, app="nowhere") == 1
    assert ann.data == {"username": "ann", "roomName": "", "appName": "nowhere"}
    assert await ann.ask(event, app="") == 1


async def test_an_application_whose_door_is_shut_is_unknown(visit: Open, chat: Application) -> None:
    chat.protocols = ["native"]
    await chat.asave()
    ann = await visit()
    assert await ann.ask(6, {"username": "ann"}) == 1
    assert await ann.ask(3) == 1


async def test_whether_there_is_an_application_can_be_asked_by_anybody(visit: Open) -> None:
    ann = await visit()
    assert await ann.ask(3) == 0
    assert ann.data == {"appName": "chat"}
    assert await ann.ask(4, {"roomName": "lobby"}) == 2


@pytest.mark.parametrize("event", [4, 5, 7, 9, 10, 11, 99, 1, 2, 0])
async def test_before_a_login_everything_else_is_error_2(visit: Open, event: int) -> None:
    ann = await visit()
    assert await ann.ask(event, {"roomName": "lobby"}) == 2


@pytest.mark.parametrize("name", ["", " ann", "a\nb", "x" * 65, "x" * 5000, "\ud800"])
async def test_an_unlawful_name_is_error_3(visit: Open, node: Node, name: str) -> None:
    ann = await visit()
    assert await ann.ask(6, {"username": name}) == 3
    assert ann.text == "User login error"
    assert list(node.connections) == [ann.connection]


async def test_a_name_that_is_taken_is_error_4(visit: Open, node: Node) -> None:
    ann, bob = await visit(), await visit()
    await ann.login("ann")
    assert await bob.ask(6, {"username": "ANN"}) == 4
    assert bob.data == {"username": "ANN", "roomName": "", "appName": "chat"}
    await bob.login("bob")


async def test_who_is_logged_in_is_told_so(visit: Open, node: Node) -> None:
    ann = await visit()
    await ann.login("ann")
    assert await ann.ask(6, {"username": "ann"}) == 4
    assert await ann.ask(6, {"username": "bob"}) == 4
    assert await present(node, "chat") == ["ann"]


async def test_a_login_that_an_extension_refuses_leaves_nothing(
    visit: Open, node: Node, chat: Application, installed: Any
) -> None:
    from rooms.protocol.errors import Rejected

    gone = []

    async def on_login(self: Any, event: Any) -> None:
        raise Rejected("Not on Sundays.")

    async def on_disconnect(self: Any, event: Any) -> None:
        gone.append(event.user)

    await use(chat, installed(extension(on_login=on_login, on_disconnect=on_disconnect)))
    ann = await visit()
    assert (await ann.ask(6, {"username": "ann"}), ann.text) == (3, "Not on Sundays.")
    assert await present(node, "chat") == []
    assert list(node.connections) == [ann.connection]
    assert gone == [None]
    assert await ann.ask(4, {"roomName": "lobby"}) == 2


async def test_too_many_from_one_address_are_refused_and_not_closed(visit: Open, chat: Application) -> None:
    chat.max_connections_per_address = 1
    await chat.asave()
    ann, bob = await visit(address="10.0.0.1"), await visit(address="10.0.0.1")
    await ann.login("ann")
    assert await bob.ask(6, {"username": "bob"}) == 3
    assert await ann.ask(7) == 0
    await bob.login("bob")


async def django_user(name: str) -> Any:
    from django.contrib.auth import get_user_model

    return await sync_to_async(get_user_model().objects.create_user)(name)


async def test_a_signed_in_user_logs_in_by_their_session(visit: Open, node: Node, chat: Application) -> None:
    user = await django_user("dora")
    dora = await visit(user)
    await dora.login("dora")
    (connection,) = [each for each in node.connections if each.user is not None]
    assert connection.user is not None
    assert (connection.user.id, connection.user.guest) == (str(user.pk), False)


async def test_a_signed_in_user_may_be_a_guest_by_another_name(visit: Open, chat: Application) -> None:
    dora = await visit(await django_user("dora"))
    await dora.login("visitor")
    stranger = await visit()
    assert await stranger.ask(6, {"username": "dora"}) == 4


async def test_the_login_of_a_signed_in_user_can_be_refused(
    visit: Open, chat: Application, installed: Any
) -> None:
    from rooms.protocol.errors import Rejected

    async def on_login(self: Any, event: Any) -> None:
        raise Rejected("Not you.")

    await use(chat, installed(extension(on_login=on_login)))
    dora = await visit(await django_user("dora"))
    assert (await dora.ask(6, {"username": "dora"}), dora.text) == (3, "Not you.")


async def test_only_signed_in_users_enter_where_that_is_asked(visit: Open, chat: Application) -> None:
    chat.entry = "users"
    await chat.asave()
    guest, dora = await visit(), await visit(await django_user("dora"))
    assert await guest.ask(6, {"username": "guest"}) == 3
    await dora.login("dora")


# Rooms -----------------------------------------------------------------------------------------------


async def test_joining_again_an_unknown_and_a_full_room(visit: Open, node: Node, chat: Application) -> None:
    await make_room(chat, "small", max_members=1)
    ann, bob = await visit(), await visit()
    await ann.login("ann", "small")
    await bob.login("bob")
    assert await ann.ask(4, {"roomName": "small"}) == 8
    assert await present(node, "chat", "small") == ["ann"]
    assert await bob.ask(4, {"roomName": "nowhere"}) == 7
    assert (await bob.ask(4, {"roomName": "small"}), bob.text) == (12, "room is full")


async def test_no_room_is_made_by_coming(visit: Open, chat: Application) -> None:
    from rooms.models import Room

    assert chat.rooms_on_demand
    ann = await visit()
    await ann.login("ann")
    for event in (4, 9):
        assert await ann.ask(event, {"roomName": "nowhere"}) == 7
    assert not await Room.objects.aexists()


async def test_leaving(visit: Open, node: Node, lobby: Room) -> None:
    ann = await visit()
    await ann.login("ann", "lobby")
    assert await ann.ask(5, {"roomName": "nowhere"}) == 7
    assert await ann.ask(5, {"roomName": "lobby"}) == 0
    assert ann.data == {"roomName": "lobby", "appName": "chat"}
    assert await present(node, "chat", "lobby") == []
    assert await ann.ask(5, {"roomName": "lobby"}) == 9


async def test_a_handler_may_refuse_to_let_somebody_come_or_go(
    visit: Open, node: Node, lobby: Room, installed: Any
) -> None:
    from rooms.protocol.errors import Rejected

    async def on_join(self: Any, event: Any) -> None:
        if event.user.name == "bob":
            raise Rejected("Not you.")

    async def on_before_leave(self: Any, event: Any) -> None:
        raise Rejected("Stay a while.")

    await use(lobby, installed(extension(on_join=on_join, on_before_leave=on_before_leave)))
    ann, bob = await visit(), await visit()
    await ann.login("ann", "lobby")
    await bob.login("bob")
    assert (await bob.ask(4, {"roomName": "lobby"}), bob.text) == (12, "Not you.")
    assert (await ann.ask(5, {"roomName": "lobby"}), ann.text) == (13, "Stay a while.")
    assert await present(node, "chat", "lobby") == ["ann"]


async def test_who_subscribes_hears_and_is_not_listed(visit: Open, node: Node, lobby: Room) -> None:
    ann, bob = await visit(), await visit()
    await ann.login("ann", "lobby")
    await bob.login("bob")
    assert await bob.ask(9, {"roomName": "lobby"}) == 0
    assert bob.data == {"roomName": "lobby", "appName": "chat"}
    assert await present(node, "chat", "lobby") == ["ann"]
    ann.put(11, {"n": 1}, room="lobby")
    assert (await bob.heard(11))["n"] == 1
    assert await bob.ask(11, {"n": 2}, room="lobby") == 9
    assert await bob.ask(9, {"roomName": "lobby"}) == 8
    assert await bob.ask(5, {"roomName": "lobby"}) == 9
    assert await bob.ask(10, {"roomName": "lobby"}) == 0
    assert await bob.ask(10, {"roomName": "lobby"}) == 9
    ann.put(11, {"n": 3}, room="lobby")
    assert (await ann.heard(11))["n"] == 1
    assert (await ann.heard(11))["n"] == 3
    await bob.settle()


async def test_a_message_needs_a_room_that_one_is_in(visit: Open, lobby: Room) -> None:
    ann = await visit()
    await ann.login("ann")
    assert await ann.ask(11, {"text": "hi"}, room="lobby") == 9
    assert ann.data == {"text": "hi", "roomName": "lobby", "appName": "chat"}
    assert await ann.ask(11, {"text": "hi"}, room="nowhere") == 7


async def test_a_message_for_nobody_is_silent(visit: Open) -> None:
    ann = await visit()
    await ann.login("ann")
    ann.put(11, {"text": "hi"})
    await ann.settle()


async def test_handlers_of_room_and_application_take_messages(
    visit: Open, chat: Application, lobby: Room, installed: Any
) -> None:
    from rooms import message

    @message("message")
    async def take(self: Any, event: Any) -> None:
        if event.data.get("quiet"):
            return
        await event.reply({"by": "the room" if self.room else "the application"})

    name = installed(extension(take=take))
    for row in (chat, lobby):
        await use(row, name)
    ann = await visit()
    await ann.login("ann", "lobby")
    ann.put(11, {"quiet": True}, room="lobby")
    ann.put(11, {"quiet": True})
    await ann.settle()
    ann.put(11, {"q": 1}, room="lobby")
    assert await ann.heard(11) == {"by": "the room", "roomName": "lobby", "appName": "chat"}
    ann.put(11, {"q": 1})
    assert await ann.heard(11) == {"by": "the application", "roomName": "", "appName": "chat"}


async def test_what_the_server_writes_names_the_application(
    visit: Open, node: Node, quiz: Application
) -> None:
    ann = await visit()
    await ann.login("ann")
    await ann.login("ann", app="quiz")
    for app in ("chat", "quiz"):
        await node.services.write(app, 1, {"a": app})
    for app in ("chat", "quiz"):
        assert (await ann.heard(11, app))["a"] == app


async def test_rooms_that_come_and_go_are_told_to_everybody_who_is_logged_in(
    visit: Open, node: Node, chat: Application, quiz: Application
) -> None:
    ann, bob, nobody = await visit(), await visit(), await visit()
    await ann.login("ann")
    await bob.login("bob", app="quiz")
    room = await make_room(chat, "new")
    assert await ann.heard(12) == {"roomName": "new", "appName": "chat"}
    await make_room(chat, "hidden", listed=False)
    room.title = "Another title"
    await room.asave()
    await room.adelete()
    assert await ann.heard(13) == {"roomName": "new", "appName": "chat"}
    for each, app in ((ann, "chat"), (bob, "quiz"), (nobody, "chat")):
        await each.settle(app)


async def test_after_the_logout_rooms_are_told_no_more(visit: Open, chat: Application) -> None:
    ann, bob = await visit(), await visit()
    await ann.login("ann")
    await bob.login("bob")
    assert await ann.ask(7) == 0
    await make_room(chat, "new")
    await bob.heard(12)
    await ann.settle()


async def test_who_is_in_a_room_that_goes_can_go_on(visit: Open, chat: Application, lobby: Room) -> None:
    ann = await visit()
    await ann.login("ann", "lobby")
    await lobby.adelete()
    await ann.heard(13)
    assert await ann.ask(5, {"roomName": "lobby"}) == 7
    await make_room(chat)
    await ann.heard(12)
    assert await ann.ask(4, {"roomName": "lobby"}) == 0


async def test_a_native_client_hears_it_and_is_heard(visit: Open, node: Node, lobby: Room) -> None:
    from tests.node.clients import Client

    native = await Client.named(node, "nat", "lobby")
    ann = await visit()
    await ann.login("ann", "lobby")
    ann.put(11, {"text": "hi"}, room="lobby")
    await ann.heard(11)
    assert native.messages() == [{"text": "hi"}]
    assert [each["user"]["name"] for each in native.told("joined")] == ["ann"]
    await native.say("lobby", "plain", event="greeting")
    assert await ann.heard(11) == {
        "data": "plain",
        "eventName": "greeting",
        "roomName": "lobby",
        "appName": "chat",
        "userName": "nat",
    }
    native.disconnect()


# Ends ------------------------------------------------------------------------------------------------


def heartbeat(node: Node, connection: Connection, later: float) -> None:
    """What the heartbeat would do after so many seconds."""
    import time

    from rooms.node.periodic import PeriodicTasks

    parts = node.parts
    PeriodicTasks(
        parts.settings, node.connections, parts.departures, parts.tasks, lambda connection: None
    )._look_at(connection, time.monotonic() + later)


async def test_who_is_logged_in_nowhere_is_closed_in_time(visit: Open, node: Node) -> None:
    from rooms.protocol.errors import CloseCode

    ann = await visit()
    assert await ann.ask(3) == 0
    heartbeat(node, ann.connection, 290)
    assert await ann.ask(6, {"username": ""}) == 3
    heartbeat(node, ann.connection, 301)
    assert await ann.until_closed() == CloseCode.LOGIN_TIMEOUT


async def test_who_is_logged_in_somewhere_stays_and_after_the_logout_the_time_begins(
    visit: Open, node: Node, quiz: Application
) -> None:
    from rooms.protocol.errors import CloseCode

    ann = await visit()
    await ann.login("ann")
    await ann.login("ann", app="quiz")
    assert await ann.ask(7) == 0
    for each in list(node.connections):
        heartbeat(node, each, 3600)
    await ann.settle()
    assert await ann.ask(7, app="quiz") == 0
    heartbeat(node, ann.connection, 290)
    await ann.settle()
    heartbeat(node, ann.connection, 301)
    assert await ann.until_closed() == CloseCode.LOGIN_TIMEOUT


async def test_an_application_that_is_closed_closes_the_socket(visit: Open, chat: Application) -> None:
    from rooms.protocol.errors import CloseCode

    ann = await visit()
    await ann.login("ann")
    chat.enabled = False
    await chat.asave()
    assert await ann.until_closed() == CloseCode.NO_SUCH_APPLICATION


async def test_too_many_requests_are_refused_and_then_close(visit: Open, chat: Application) -> None:
    from rooms.protocol.errors import CloseCode

    chat.request_rate, chat.request_burst = 1, 2
    await chat.asave()
    ann = await visit()
    await ann.login("ann")
    assert [await ann.ask(99, {"n": n}) for n in range(4)] == [10, 10, 500, 500]
    assert ann.data == {"n": 3, "roomName": "", "appName": "chat"}
    assert await ann.ask(99) == 500
    assert await ann.until_closed() == CloseCode.RATE_LIMITED


async def test_who_is_logged_in_nowhere_has_the_limit_of_the_site(make_node: Any, chat: Application) -> None:
    async with protocols(await make_node(request_rate=1, request_burst=2)) as open_:
        ann = await open_()
        assert [await ann.ask(3) for _ in range(3)] == [0, 0, 500]


async def test_what_cannot_be_read_has_the_limit_of_an_application_that_one_is_in(
    make_node: Any, chat: Application
) -> None:
    async with protocols(await make_node(request_rate=1, request_burst=2)) as open_:
        ann = await open_()
        await ann.login("ann")
        for _ in range(4):
            ann.put_text("hello")
            assert (await ann.hear())["error"]["code"] == 10


async def test_who_does_not_read_is_closed_for_all_applications(
    visit: Open, node: Node, quiz: Application, lobby: Room
) -> None:
    from rooms.protocol.errors import CloseCode

    ann = await visit()
    await ann.login("ann", "lobby")
    (branch,) = [each for each in node.connections if each.user is not None]
    ann.connection._limits = dataclasses.replace(ann.connection._limits, bytes=100)
    ann.connection.writing_since = 1.0
    branch.push(b"x" * 60)
    assert branch.is_slow()
    for _ in range(5):
        branch.push(b"x" * 60)
    assert ann.connection.close_code == CloseCode.SLOW_CONSUMER
    assert await ann.until_closed() == CloseCode.SLOW_CONSUMER


@settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(several=some.lists(some.one_of(frames, texts, some.binary()), max_size=5))
async def test_no_frame_closes_the_socket(visit: Open, lobby: Room, several: list[str | bytes]) -> None:
    ann = await visit()
    await ann.login(f"ann {uuid.uuid4().hex[:8]}", "lobby")
    for each in several:
        ann.put_text(each)
    ann.put(99, {"the": "end"})
    while "the" not in (await ann.hear())["data"]:
        pass
    assert ann.closed is None
    ann.drop()
