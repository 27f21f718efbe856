"""One socket in several applications: a real node behind a socket made of queues."""

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


# Only a test that waits for an event which never comes takes this long.
PATIENCE = 60


class Client:
    """A client with a real session, of which it is the socket as well."""

    def __init__(self, node: Node, *, address: str = "") -> None:
        from rooms.compat.multiplex import MultiplexSession
        from rooms.conf import load_protocol
        from rooms.consumers import commands_of
        from rooms.node.session import make_connection

        self.connection = make_connection(
            node, str(uuid.uuid4()), load_protocol("goroomserver")(), application="", address=address
        )
        self.closed: int | None = None
        self.received: deque[dict[str, Any]] = deque()
        self._sent: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._woken = asyncio.Event()
        self._session = MultiplexSession(node, commands_of(node), self.connection, self)

    def run(self, user: Any) -> None:
        self._running = asyncio.create_task(self._session.run(user))

    # The socket.

    async def next(self) -> str | bytes | None:
        return await self._sent.get()

    async def send(self, frame: bytes, *, binary: bool) -> None:
        assert not binary
        self.received.append(json.loads(frame))
        self._woken.set()

    async def close(self, code: int, reason: str) -> None:
        self.closed = code
        self._sent.put_nowait(None)
        self._woken.set()

    # The client.

    def put(self, event: int, data: Any = None, *, app: str = "chat", room: str = "") -> None:
        self.put_text(json.dumps({"appName": app, "roomName": room, "eventType": event, "data": data}))

    def put_text(self, frame: str | bytes) -> None:
        self._sent.put_nowait(frame)

    def drop(self) -> None:
        """End the socket."""
        self._sent.put_nowait(None)

    async def close_and_wait(self) -> None:
        """End the socket, and wait until its session has ended."""
        self.drop()
        await self._running

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while not self.received:
                self._woken.clear()
                await self._woken.wait()
        return self.received.popleft()

    async def wait_closed(self) -> int:
        async with asyncio.timeout(PATIENCE):
            while self.closed is None:
                self._woken.clear()
                await self._woken.wait()
        return self.closed

    async def receive_event(self, kind: int, app: str = "chat") -> dict[str, Any]:
        """Return the data of the next frame, of this event and application."""
        received = await self.receive()
        assert (received["eventType"], received["code"]) == (kind, 200), received
        assert received["data"]["appName"] == app
        data: dict[str, Any] = received["data"]
        return data

    async def request(self, event: int, data: Any = None, **options: Any) -> int:
        """Send an event and return the error number of its answer; 0 is none."""
        self.put(event, data, **options)
        received = await self.receive()
        assert received["eventType"] == event, received
        number: int = received["error"]["code"]
        self.text = received["error"]["message"]
        self.data = received["data"]
        return number

    async def login(self, name: str, *rooms: str, app: str = "chat") -> None:
        assert await self.request(6, {"username": name}, app=app) == 0, self.text
        for room in rooms:
            assert await self.request(4, {"roomName": room}, app=app) == 0, self.text

    async def drain(self, app: str = "chat") -> None:
        """Wait until all events so far are executed; they must not have caused a frame."""
        assert await self.request(99, app=app) in (2, 10)


Open = Callable[..., Awaitable[Client]]


@asynccontextmanager
async def connecting(node: Node) -> AsyncIterator[Open]:
    clients: list[Client] = []

    async def open_(user: Any = None, **options: Any) -> Client:
        client = Client(node, **options)
        client.run(user)
        clients.append(client)
        return client

    yield open_
    for client in clients:
        await client.close_and_wait()


@pytest.fixture
async def connect(node: Node) -> AsyncIterator[Open]:
    """Return a function that opens sockets of the node."""
    async with connecting(node) as open_:
        yield open_


@pytest.fixture
async def quiz(chat: Application) -> Application:
    """Create a second application."""
    from rooms.models import Application

    return await Application.objects.acreate(name="quiz", history="memory", request_rate=0)


@pytest.fixture
async def lobby(chat: Application) -> Room:
    return await make_room(chat)


async def make_room(application: Application, name: str = "lobby", **fields: Any) -> Room:
    from rooms.models import Room

    return await Room.objects.acreate(application=application, name=name, **fields)


async def present(node: Node, application: str, room: str | None = None) -> list[str]:
    """Return the names of the members of an application, or of one of its rooms."""
    await node.context.tasks.drain()
    found = await node.context.registry.application(application)
    assert found is not None
    key = found.key if room is None else (await node.context.registry.room(found, room)).key
    return [user.name for user in (await node.context.presence.members(key)).users]


def extension(**hooks: Any) -> Any:
    from rooms.extensions import Extension

    return type("Hooked", (Extension,), hooks)


async def use(row: Any, name: str) -> None:
    row.extension = name
    await row.asave()


# Several applications --------------------------------------------------------------------------------


async def test_one_socket_may_be_in_two_applications(
    connect: Open, node: Node, quiz: Application, lobby: Room
) -> None:
    await make_room(quiz)
    ann = await connect()
    await ann.login("ann", "lobby")
    await ann.login("ann of the quiz", "lobby", app="quiz")
    assert await present(node, "chat", "lobby") == ["ann"]
    assert await present(node, "quiz", "lobby") == ["ann of the quiz"]
    assert await present(node, "chat") == ["ann"]


async def test_messages_of_both_applications_are_received(
    connect: Open, quiz: Application, lobby: Room
) -> None:
    await make_room(quiz)
    ann, bob = await connect(), await connect()
    for app in ("chat", "quiz"):
        await ann.login("ann", "lobby", app=app)
        await bob.login("bob", "lobby", app=app)
    for app in ("chat", "quiz"):
        bob.put(11, {"to": app}, app=app, room="lobby")
        for each in (ann, bob):
            data = await each.receive_event(11, app)
            assert data == {"to": app, "roomName": "lobby", "appName": app, "userName": "bob"}


async def test_a_logout_does_not_affect_the_other_application(
    connect: Open, node: Node, quiz: Application, lobby: Room
) -> None:
    ann = await connect()
    await make_room(quiz)
    await ann.login("ann", "lobby")
    await ann.login("ann", "lobby", app="quiz")
    assert await ann.request(7) == 0
    assert ann.data == {"userName": "ann", "appName": "chat"}
    assert await present(node, "chat") == await present(node, "chat", "lobby") == []
    assert await present(node, "quiz", "lobby") == ["ann"]
    assert await ann.request(4, {"roomName": "lobby"}) == 2
    assert await ann.request(5, {"roomName": "lobby"}, app="quiz") == 0


async def test_a_client_may_log_in_again_after_a_logout(connect: Open, lobby: Room) -> None:
    ann = await connect()
    for _ in range(3):
        await ann.login("ann", "lobby")
        assert await ann.request(7) == 0


async def test_the_end_of_the_socket_leaves_all_applications_and_rooms(
    connect: Open, node: Node, quiz: Application, lobby: Room
) -> None:
    from tests.node.clients import active_groups

    ann = await connect()
    await ann.login("ann", "lobby")
    await ann.login("ann", app="quiz")
    bob = await connect()
    await ann.close_and_wait()
    await bob.drain()
    assert await present(node, "chat") == await present(node, "quiz") == []
    assert await present(node, "chat", "lobby") == []
    assert list(node.connections) == [bob.connection]
    assert active_groups(node) == []


async def test_a_new_socket_may_log_in_with_the_same_name(connect: Open, lobby: Room) -> None:
    ann = await connect()
    await ann.login("ann", "lobby")
    await ann.close_and_wait()
    other = await connect()
    await other.login("ann", "lobby")


async def test_the_number_of_applications_of_a_socket_is_limited(
    connect: Open, quiz: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rooms.compat.multiplex.MAX_APPLICATIONS", 1)
    ann = await connect()
    await ann.login("ann")
    assert await ann.request(6, {"username": "ann"}, app="quiz") == 3
    assert await ann.request(7) == 0
    await ann.login("ann", app="quiz")


# Logins ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [3, 4, 6, 11, 99, 0])
async def test_an_unknown_application_is_error_1(connect: Open, event: int) -> None:
    ann = await connect()
    assert await ann.request(event, {"username": "ann"}, app="nowhere") == 1
    assert ann.data == {"username": "ann", "roomName": "", "appName": "nowhere"}
    assert await ann.request(event, app="") == 1


async def test_an_application_that_does_not_allow_the_protocol_is_unknown(
    connect: Open, chat: Application
) -> None:
    chat.protocols = ["native"]
    await chat.asave()
    ann = await connect()
    assert await ann.request(6, {"username": "ann"}) == 1
    assert await ann.request(3) == 1


async def test_a_client_may_ask_for_an_application_before_a_login(connect: Open) -> None:
    ann = await connect()
    assert await ann.request(3) == 0
    assert ann.data == {"appName": "chat"}
    assert await ann.request(4, {"roomName": "lobby"}) == 2


@pytest.mark.parametrize("event", [4, 5, 7, 9, 10, 11, 99, 1, 2, 0])
async def test_all_other_events_before_a_login_are_error_2(connect: Open, event: int) -> None:
    ann = await connect()
    assert await ann.request(event, {"roomName": "lobby"}) == 2


@pytest.mark.parametrize("name", ["", " ann", "a\nb", "x" * 65, "x" * 5000, "\ud800"])
async def test_an_invalid_name_is_error_3(connect: Open, node: Node, name: str) -> None:
    ann = await connect()
    assert await ann.request(6, {"username": name}) == 3
    assert ann.text == "User login error"
    assert list(node.connections) == [ann.connection]


async def test_a_name_that_is_taken_is_error_4(connect: Open, node: Node) -> None:
    ann, bob = await connect(), await connect()
    await ann.login("ann")
    assert await bob.request(6, {"username": "ANN"}) == 4
    assert bob.data == {"username": "ANN", "roomName": "", "appName": "chat"}
    await bob.login("bob")


async def test_a_second_login_is_error_4(connect: Open, node: Node) -> None:
    ann = await connect()
    await ann.login("ann")
    assert await ann.request(6, {"username": "ann"}) == 4
    assert await ann.request(6, {"username": "bob"}) == 4
    assert await present(node, "chat") == ["ann"]


async def test_a_login_that_an_extension_refuses_is_cleaned_up(
    connect: Open, node: Node, chat: Application, install_extension: Any
) -> None:
    from rooms.protocol.errors import Rejected

    disconnected = []

    async def on_login(self: Any, event: Any) -> None:
        raise Rejected("Not on Sundays.")

    async def on_disconnect(self: Any, event: Any) -> None:
        disconnected.append(event.user)

    await use(chat, install_extension(extension(on_login=on_login, on_disconnect=on_disconnect)))
    ann = await connect()
    assert (await ann.request(6, {"username": "ann"}), ann.text) == (3, "Not on Sundays.")
    assert await present(node, "chat") == []
    assert list(node.connections) == [ann.connection]
    assert disconnected == [None]
    assert await ann.request(4, {"roomName": "lobby"}) == 2


async def test_too_many_connections_from_one_address_are_refused_without_a_close(
    connect: Open, chat: Application
) -> None:
    chat.max_connections_per_address = 1
    await chat.asave()
    ann, bob = await connect(address="10.0.0.1"), await connect(address="10.0.0.1")
    await ann.login("ann")
    assert await bob.request(6, {"username": "bob"}) == 3
    assert await ann.request(7) == 0
    await bob.login("bob")


async def django_user(name: str) -> Any:
    from django.contrib.auth import get_user_model

    return await sync_to_async(get_user_model().objects.create_user)(name)


async def test_a_signed_in_user_logs_in_by_session(connect: Open, node: Node, chat: Application) -> None:
    user = await django_user("dora")
    dora = await connect(user)
    await dora.login("dora")
    (connection,) = [each for each in node.connections if each.user is not None]
    assert connection.user is not None
    assert (connection.user.id, connection.user.guest) == (str(user.pk), False)


async def test_a_signed_in_user_may_be_a_guest_with_another_name(connect: Open, chat: Application) -> None:
    dora = await connect(await django_user("dora"))
    await dora.login("visitor")
    stranger = await connect()
    assert await stranger.request(6, {"username": "dora"}) == 4


async def test_the_login_of_a_signed_in_user_can_be_refused(
    connect: Open, chat: Application, install_extension: Any
) -> None:
    from rooms.protocol.errors import Rejected

    async def on_login(self: Any, event: Any) -> None:
        raise Rejected("Not you.")

    await use(chat, install_extension(extension(on_login=on_login)))
    dora = await connect(await django_user("dora"))
    assert (await dora.request(6, {"username": "dora"}), dora.text) == (3, "Not you.")


async def test_an_application_for_users_refuses_guests(connect: Open, chat: Application) -> None:
    chat.entry = "users"
    await chat.asave()
    guest, dora = await connect(), await connect(await django_user("dora"))
    assert await guest.request(6, {"username": "guest"}) == 3
    await dora.login("dora")


# Rooms -----------------------------------------------------------------------------------------------


async def test_joins_of_a_member_of_a_missing_and_of_a_full_room_are_errors(
    connect: Open, node: Node, chat: Application
) -> None:
    await make_room(chat, "small", max_members=1)
    ann, bob = await connect(), await connect()
    await ann.login("ann", "small")
    await bob.login("bob")
    assert await ann.request(4, {"roomName": "small"}) == 8
    assert await present(node, "chat", "small") == ["ann"]
    assert await bob.request(4, {"roomName": "nowhere"}) == 7
    assert (await bob.request(4, {"roomName": "small"}), bob.text) == (12, "room is full")


async def test_a_join_creates_no_room(connect: Open, chat: Application) -> None:
    from rooms.models import Room

    assert chat.rooms_on_demand
    ann = await connect()
    await ann.login("ann")
    for event in (4, 9):
        assert await ann.request(event, {"roomName": "nowhere"}) == 7
    assert not await Room.objects.aexists()


async def test_a_leave_removes_the_member(connect: Open, node: Node, lobby: Room) -> None:
    ann = await connect()
    await ann.login("ann", "lobby")
    assert await ann.request(5, {"roomName": "nowhere"}) == 7
    assert await ann.request(5, {"roomName": "lobby"}) == 0
    assert ann.data == {"roomName": "lobby", "appName": "chat"}
    assert await present(node, "chat", "lobby") == []
    assert await ann.request(5, {"roomName": "lobby"}) == 9


async def test_an_extension_may_refuse_a_join_or_a_leave(
    connect: Open, node: Node, lobby: Room, install_extension: Any
) -> None:
    from rooms.protocol.errors import Rejected

    async def on_join(self: Any, event: Any) -> None:
        if event.user.name == "bob":
            raise Rejected("Not you.")

    async def on_before_leave(self: Any, event: Any) -> None:
        raise Rejected("Stay a while.")

    await use(lobby, install_extension(extension(on_join=on_join, on_before_leave=on_before_leave)))
    ann, bob = await connect(), await connect()
    await ann.login("ann", "lobby")
    await bob.login("bob")
    assert (await bob.request(4, {"roomName": "lobby"}), bob.text) == (12, "Not you.")
    assert (await ann.request(5, {"roomName": "lobby"}), ann.text) == (13, "Stay a while.")
    assert await present(node, "chat", "lobby") == ["ann"]


async def test_a_subscriber_receives_messages_and_is_no_member(
    connect: Open, node: Node, lobby: Room
) -> None:
    ann, bob = await connect(), await connect()
    await ann.login("ann", "lobby")
    await bob.login("bob")
    assert await bob.request(9, {"roomName": "lobby"}) == 0
    assert bob.data == {"roomName": "lobby", "appName": "chat"}
    assert await present(node, "chat", "lobby") == ["ann"]
    ann.put(11, {"n": 1}, room="lobby")
    assert (await bob.receive_event(11))["n"] == 1
    assert await bob.request(11, {"n": 2}, room="lobby") == 9
    assert await bob.request(9, {"roomName": "lobby"}) == 8
    assert await bob.request(5, {"roomName": "lobby"}) == 9
    assert await bob.request(10, {"roomName": "lobby"}) == 0
    assert await bob.request(10, {"roomName": "lobby"}) == 9
    ann.put(11, {"n": 3}, room="lobby")
    assert (await ann.receive_event(11))["n"] == 1
    assert (await ann.receive_event(11))["n"] == 3
    await bob.drain()


async def test_only_a_member_may_send_to_a_room(connect: Open, lobby: Room) -> None:
    ann = await connect()
    await ann.login("ann")
    assert await ann.request(11, {"text": "hi"}, room="lobby") == 9
    assert ann.data == {"text": "hi", "roomName": "lobby", "appName": "chat"}
    assert await ann.request(11, {"text": "hi"}, room="nowhere") == 7


async def test_a_message_without_a_handler_is_not_answered(connect: Open) -> None:
    ann = await connect()
    await ann.login("ann")
    ann.put(11, {"text": "hi"})
    await ann.drain()


async def test_handlers_of_room_and_application_answer_messages(
    connect: Open, chat: Application, lobby: Room, install_extension: Any
) -> None:
    from rooms import message

    @message("message")
    async def take(self: Any, event: Any) -> None:
        if event.data.get("quiet"):
            return
        await event.reply({"by": "the room" if self.room else "the application"})

    name = install_extension(extension(take=take))
    for row in (chat, lobby):
        await use(row, name)
    ann = await connect()
    await ann.login("ann", "lobby")
    ann.put(11, {"quiet": True}, room="lobby")
    ann.put(11, {"quiet": True})
    await ann.drain()
    ann.put(11, {"q": 1}, room="lobby")
    assert await ann.receive_event(11) == {"by": "the room", "roomName": "lobby", "appName": "chat"}
    ann.put(11, {"q": 1})
    assert await ann.receive_event(11) == {"by": "the application", "roomName": "", "appName": "chat"}


async def test_messages_of_the_server_name_the_application(
    connect: Open, node: Node, quiz: Application
) -> None:
    ann = await connect()
    await ann.login("ann")
    await ann.login("ann", app="quiz")
    for app in ("chat", "quiz"):
        await node.services.write(app, 1, {"a": app})
    for app in ("chat", "quiz"):
        assert (await ann.receive_event(11, app))["a"] == app


async def test_added_and_removed_rooms_are_sent_to_clients_that_are_logged_in(
    connect: Open, node: Node, chat: Application, quiz: Application
) -> None:
    ann, bob, guest = await connect(), await connect(), await connect()
    await ann.login("ann")
    await bob.login("bob", app="quiz")
    room = await make_room(chat, "new")
    assert await ann.receive_event(12) == {"roomName": "new", "appName": "chat"}
    await make_room(chat, "hidden", listed=False)
    room.title = "Another title"
    await room.asave()
    await room.adelete()
    assert await ann.receive_event(13) == {"roomName": "new", "appName": "chat"}
    for each, app in ((ann, "chat"), (bob, "quiz"), (guest, "chat")):
        await each.drain(app)


async def test_rooms_are_not_sent_after_a_logout(connect: Open, chat: Application) -> None:
    ann, bob = await connect(), await connect()
    await ann.login("ann")
    await bob.login("bob")
    assert await ann.request(7) == 0
    await make_room(chat, "new")
    await bob.receive_event(12)
    await ann.drain()


async def test_a_member_of_a_removed_room_stays_connected(
    connect: Open, chat: Application, lobby: Room
) -> None:
    ann = await connect()
    await ann.login("ann", "lobby")
    await lobby.adelete()
    await ann.receive_event(13)
    assert await ann.request(5, {"roomName": "lobby"}) == 7
    await make_room(chat)
    await ann.receive_event(12)
    assert await ann.request(4, {"roomName": "lobby"}) == 0


async def test_native_clients_and_goroomserver_clients_exchange_messages(
    connect: Open, node: Node, lobby: Room
) -> None:
    from tests.node.clients import Client as NativeClient

    native = await NativeClient.named(node, "nat", "lobby")
    ann = await connect()
    await ann.login("ann", "lobby")
    ann.put(11, {"text": "hi"}, room="lobby")
    await ann.receive_event(11)
    assert native.messages() == [{"text": "hi"}]
    assert [each["user"]["name"] for each in native.received("joined")] == ["ann"]
    await native.send("lobby", "plain", event="greeting")
    assert await ann.receive_event(11) == {
        "data": "plain",
        "eventName": "greeting",
        "roomName": "lobby",
        "appName": "chat",
        "userName": "nat",
    }
    native.disconnect()


# Closes ----------------------------------------------------------------------------------------------


def check_later(node: Node, connection: Connection, later: float) -> None:
    """Check a connection as the periodic tasks do, ``later`` seconds from now."""
    import time

    from rooms.node.periodic import PeriodicTasks

    periodic = PeriodicTasks(node.context, node.connections, lambda connection: None)
    periodic._check(connection, time.monotonic() + later)


async def test_a_socket_without_a_login_is_closed_after_the_timeout(connect: Open, node: Node) -> None:
    from rooms.protocol.errors import CloseCode

    ann = await connect()
    assert await ann.request(3) == 0
    check_later(node, ann.connection, 290)
    assert await ann.request(6, {"username": ""}) == 3
    check_later(node, ann.connection, 301)
    assert await ann.wait_closed() == CloseCode.LOGIN_TIMEOUT


async def test_the_login_timeout_starts_with_the_last_logout(
    connect: Open, node: Node, quiz: Application
) -> None:
    from rooms.protocol.errors import CloseCode

    ann = await connect()
    await ann.login("ann")
    await ann.login("ann", app="quiz")
    assert await ann.request(7) == 0
    for each in list(node.connections):
        check_later(node, each, 3600)
    await ann.drain()
    assert await ann.request(7, app="quiz") == 0
    check_later(node, ann.connection, 290)
    await ann.drain()
    check_later(node, ann.connection, 301)
    assert await ann.wait_closed() == CloseCode.LOGIN_TIMEOUT


async def test_a_disabled_application_closes_the_socket(connect: Open, chat: Application) -> None:
    from rooms.protocol.errors import CloseCode

    ann = await connect()
    await ann.login("ann")
    chat.enabled = False
    await chat.asave()
    assert await ann.wait_closed() == CloseCode.NO_SUCH_APPLICATION


async def test_too_many_commands_are_refused_and_then_close_the_socket(
    connect: Open, chat: Application
) -> None:
    from rooms.protocol.errors import CloseCode

    chat.request_rate, chat.request_burst = 1, 2
    await chat.asave()
    ann = await connect()
    await ann.login("ann")
    assert [await ann.request(99, {"n": n}) for n in range(4)] == [10, 10, 500, 500]
    assert ann.data == {"n": 3, "roomName": "", "appName": "chat"}
    assert await ann.request(99) == 500
    assert await ann.wait_closed() == CloseCode.RATE_LIMITED


async def test_a_socket_without_a_login_has_the_rate_limit_of_the_site(
    make_node: Any, chat: Application
) -> None:
    async with connecting(await make_node(request_rate=1, request_burst=2)) as open_:
        ann = await open_()
        assert [await ann.request(3) for _ in range(3)] == [0, 0, 500]


async def test_invalid_frames_have_the_rate_limit_of_an_application_of_the_socket(
    make_node: Any, chat: Application
) -> None:
    async with connecting(await make_node(request_rate=1, request_burst=2)) as open_:
        ann = await open_()
        await ann.login("ann")
        for _ in range(4):
            ann.put_text("hello")
            assert (await ann.receive())["error"]["code"] == 10


async def test_a_slow_consumer_is_closed_in_all_applications(
    connect: Open, node: Node, quiz: Application, lobby: Room
) -> None:
    from rooms.protocol.errors import CloseCode

    ann = await connect()
    await ann.login("ann", "lobby")
    (sub_connection,) = [each for each in node.connections if each.user is not None]
    ann.connection._limits = dataclasses.replace(ann.connection._limits, bytes=100)
    ann.connection.writing_since = 1.0
    sub_connection.push(b"x" * 60)
    assert sub_connection.is_slow()
    for _ in range(5):
        sub_connection.push(b"x" * 60)
    assert ann.connection.close_code == CloseCode.SLOW_CONSUMER
    assert await ann.wait_closed() == CloseCode.SLOW_CONSUMER


@settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(several=some.lists(some.one_of(frames, texts, some.binary()), max_size=5))
async def test_no_frame_closes_the_socket(connect: Open, lobby: Room, several: list[str | bytes]) -> None:
    ann = await connect()
    await ann.login(f"ann {uuid.uuid4().hex[:8]}", "lobby")
    for each in several:
        ann.put_text(each)
    ann.put(99, {"the": "end"})
    while "the" not in (await ann.receive())["data"]:
        pass
    assert ann.closed is None
    ann.drop()
