"""What is cleaned up in the end, also when a backend fails meanwhile, and what stays bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from django.contrib.auth import models
from redis.asyncio import Redis

from rooms.extensions import Extension
from rooms.hub.connection import Connection
from rooms.hub.send_queue import SendQueueLimits
from rooms.models import Application, Room
from rooms.node.node import Node
from rooms.presence import redis_store
from rooms.presence.redis import RedisPresence
from rooms.protocol.commands import CreateRoom, Join, Leave, ListRooms, Login, Logout
from rooms.protocol.errors import (
    BadRequest,
    BadToken,
    CloseCode,
    MessageTooLarge,
    PermissionDenied,
    Unavailable,
)
from rooms.protocol.native import Native
from rooms.protocol.types import User
from tests.node.clients import Client, Install, MakeNode, error_of, member_names, run_due_actions


def events_about(client: Client, name: str) -> list[tuple[str, str | None]]:
    """Return the joined and left events about a user that this client received, with their reasons."""
    frames = [frame for frame in client.received("joined", "left") if frame["user"]["name"] == name]
    return [(frame["type"], frame.get("reason")) for frame in frames]


async def token_of(client: Client) -> str:
    return str((await client.request(Login()))["token"])


async def returned(node: Node, token: str, *rooms: str) -> Client:
    """Return the same user on another connection."""
    client = Client(node)
    await client.connect()
    await client.request(Login(token=token))
    for room in rooms:
        await client.request(Join(room=room))
    return client


# Presence that is down ---------------------------------------------------------------------------


@pytest.fixture
def down(node: Node, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """While ``down.now``, presence does not answer to leaves and disconnects."""
    state = SimpleNamespace(now=False)

    def failing(work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **options: Any) -> Any:
            if state.now:
                raise Unavailable("Presence is not available; try again in a moment.")
            return await work(*arguments, **options)

        return call

    for name in ("remove", "start_grace"):
        monkeypatch.setattr(node.context.presence, name, failing(getattr(node.context.presence, name)))
    return state


@pytest.mark.parametrize("how", ["left", "dropped"])
async def test_a_leave_while_presence_is_down_takes_effect_once_it_answers(
    node: Node, clock: SimpleNamespace, down: SimpleNamespace, how: str
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    down.now = True
    if how == "left":
        await bob.request(Leave(room="lobby"))
    else:
        bob.disconnect()
    for _ in range(3):
        await run_due_actions(node, clock)
    assert events_about(ann, "bob") == [("joined", None)]
    assert await member_names(ann, "lobby") == ["ann", "bob"]
    down.now = False
    await run_due_actions(node, clock)
    assert events_about(ann, "bob") == [("joined", None), ("left", how)]
    assert await member_names(ann, "lobby") == ["ann"]
    await run_due_actions(node, clock)
    assert events_about(ann, "bob") == [("joined", None), ("left", how)]


@pytest.mark.parametrize("how", ["left", "dropped"])
async def test_a_user_that_returned_while_presence_was_down_stays(
    node: Node, clock: SimpleNamespace, down: SimpleNamespace, how: str
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    token = await token_of(bob)
    down.now = True
    if how == "left":
        await bob.request(Leave(room="lobby"))
        await run_due_actions(node, clock)
        await bob.request(Join(room="lobby"))
    else:
        bob.disconnect()
        await run_due_actions(node, clock)
        bob = await returned(node, token, "lobby")
    down.now = False
    for _ in range(2):
        await run_due_actions(node, clock)
    assert events_about(ann, "bob") == [("joined", None)]
    assert await member_names(ann, "lobby") == ["ann", "bob"]
    await bob.send("lobby", "here")
    assert ann.messages() == ["here"]
    # The next leave takes effect.
    await bob.request(Leave(room="lobby"))
    assert events_about(ann, "bob") == [("joined", None), ("left", "left")]


async def test_a_guest_name_is_free_again_once_presence_answers(
    node: Node, clock: SimpleNamespace, down: SimpleNamespace
) -> None:
    bob = await Client.named(node, "bob")
    down.now = True
    bob.disconnect()
    await run_due_actions(node, clock)
    down.now = False
    await run_due_actions(node, clock)
    await Client.named(node, "BOB")


# An application that is disabled for a while -----------------------------------------------------


@pytest.mark.parametrize("disabled", ["shorter", "longer"])
async def test_an_application_that_was_disabled_leaves_no_user_in_presence(
    node: Node, chat: Application, clock: SimpleNamespace, disabled: str
) -> None:
    ann = await Client.named(node, "ann", "lobby")
    groups = [ann.connection.memberships["lobby"].room.key, f"application.{chat.pk}"]
    chat.enabled = False
    await chat.asave()
    await node.context.tasks.drain()
    assert ann.closed == CloseCode.NO_SUCH_APPLICATION
    ann.disconnect()
    await node.context.tasks.drain()
    if disabled == "longer":
        await run_due_actions(node, clock)
    chat.enabled = True
    await chat.asave()
    await run_due_actions(node, clock)
    assert await node.context.presence.counts(groups) == [0, 0]
    bob = await Client.named(node, "bob", "lobby")
    assert await member_names(bob, "lobby") == ["bob"]
    # The guest name is free as well.
    await Client.named(node, "ann")


# Many at once ------------------------------------------------------------------------------------

MANY = 200


async def test_many_departures_at_once_delete_their_rooms_and_delay_no_command(
    make_node: MakeNode, chat: Application, clock: SimpleNamespace
) -> None:
    node = await make_node(max_rooms_per_connection=MANY)
    names = [f"brief {number}" for number in range(MANY)]
    await Room.objects.abulk_create([Room(application=chat, name=name, persistent=False) for name in names])
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob", *names)
    bob.disconnect()
    await node.context.tasks.drain()
    clock.now += 3600
    due = node.context.delayed.pop_due()
    assert len(due) > MANY
    for action in due:
        node.context.tasks.spawn(node.context.delayed.run_in_slot(action))
    # Each command needs a thread, and is refused when too many wait for one.
    for number in range(20):
        await ann.request(ListRooms())
        await ann.request(CreateRoom(room=f"other {number}"))
    await node.context.tasks.drain()
    assert await Room.objects.filter(persistent=False).acount() == 0
    assert await Room.objects.acount() == 20


# Timers of extensions ----------------------------------------------------------------------------


class Clockwork(Extension):
    """Has a timer that never fires in a test; its start can be delayed."""

    timeout = 100_000
    started: ClassVar[list[Any]]
    opened: ClassVar[asyncio.Event]

    async def init(self) -> None:
        self.started.append(self.room and self.room.name)
        await self.opened.wait()

    async def on_timeout(self) -> None:
        await self.opened.wait()


@pytest.fixture
def clockwork(install_extension: Install, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(Clockwork, "started", [], raising=False)
    monkeypatch.setattr(Clockwork, "opened", asyncio.Event(), raising=False)
    return install_extension(Clockwork)


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that counts the timers of extensions that are set."""
    loop = asyncio.get_running_loop()
    call_later = loop.call_later
    handles: list[asyncio.TimerHandle] = []

    def counted(delay: float, callback: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        handle = call_later(delay, callback, *arguments, **options)
        if getattr(callback, "__name__", "") == "_timed_out":
            handles.append(handle)
        return handle

    monkeypatch.setattr(loop, "call_later", counted)
    return lambda: sum(not handle.cancelled() for handle in handles)


@pytest.mark.parametrize("of", ["room", "application"])
async def test_quick_saves_start_an_extension_once_and_set_one_timer(
    node: Node, chat: Application, clockwork: str, timers: Callable[[], int], of: str
) -> None:
    row = await Room.objects.acreate(application=chat, name="lobby")
    await Client.named(node, "ann", "lobby")
    extended = row if of == "room" else chat
    for title in ("one", "two", "three"):
        extended.extension, extended.title = clockwork, title
        await extended.asave()
    # All saves are received before the first start ends.
    Clockwork.opened.set()
    await node.context.tasks.drain()
    assert Clockwork.started == ["lobby" if of == "room" else None]
    assert timers() == 1
    # Another save keeps extension and timer; without an extension the timer ends.
    extended.title = "four"
    await extended.asave()
    await node.context.tasks.drain()
    assert (len(Clockwork.started), timers()) == (1, 1)
    extended.extension = ""
    await extended.asave()
    await node.context.tasks.drain()
    assert timers() == 0


# Logout, and deleted accounts --------------------------------------------------------------------


async def test_after_a_logout_no_change_of_the_room_list_is_sent(node: Node) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.request(ListRooms())
    await bob.request(CreateRoom(room="one"))
    await node.context.tasks.drain()
    assert [frame["room"]["name"] for frame in ann.received("room_added")] == ["one"]
    await ann.request(Logout())
    await bob.request(CreateRoom(room="two"))
    await Room.objects.filter(name="one").adelete()
    await node.context.tasks.drain()
    assert [frame["room"]["name"] for frame in ann.received("room_added")] == ["one"]
    assert ann.received("room_removed") == []
    # After the next login the client asks for the list again.
    await ann.request(Login(name="ann"))
    await ann.request(ListRooms())
    await bob.request(CreateRoom(room="three"))
    await node.context.tasks.drain()
    assert [frame["room"]["name"] for frame in ann.received("room_added")] == ["one", "three"]


async def test_a_deleted_account_keeps_its_memberships_and_can_do_nothing_new(node: Node) -> None:
    account = await models.User.objects.acreate_user("ann", password="sesame")
    ann = Client(node)
    await ann.connect(account)
    await ann.request(Join(room="lobby"))
    token = await token_of(ann)
    await models.User.objects.all().adelete()
    await error_of(PermissionDenied, ann.request(CreateRoom(room="mine")))
    # The account would own a room on demand, too.
    await error_of(PermissionDenied, ann.request(Join(room="new")))
    await error_of(BadToken, ann.request(Login()))
    other = Client(node)
    await other.connect()
    await error_of(BadToken, other.request(Login(token=token)))
    assert await Room.objects.filter(name__in=["mine", "new"]).acount() == 0
    # Memberships last until the user is disconnected.
    await ann.send("lobby", "still here")
    assert ann.messages() == ["still here"]


@pytest.mark.parametrize("name", ["chat\0", "\0", "chat/lobby", "/", "../chat", "", "x" * 65, "chat\n", "é"])
async def test_a_connection_to_an_impossible_application_name_is_closed(node: Node, name: str) -> None:
    client = Client(node, application=name)
    await client.connect()
    assert client.closed == CloseCode.NO_SUCH_APPLICATION
    client.disconnect()


# Bounds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", ["memory", "database", "none"])
async def test_state_is_limited_and_can_always_be_replaced_and_removed(
    make_node: MakeNode, chat: Application, settings: Any, history: str
) -> None:
    settings.ROOMS = {**getattr(settings, "ROOMS", {}), "MAX_STATE_KEYS": 3, "MAX_STATE_BYTES": 10}
    chat.history = history
    await chat.asave()
    node = await make_node()
    ann = await Client.named(node, "ann", "lobby")
    longest = "x" * 8
    for event in ("a", "b", "c"):
        await ann.send("lobby", longest, event=event, state=True)
    await error_of(BadRequest, ann.send("lobby", 1, event="d", state=True))
    await error_of(MessageTooLarge, ann.send("lobby", longest + "y", event="a", state=True))
    # Other messages have other limits.
    await ann.send("lobby", longest * 9, event="d")
    await ann.send("lobby", "new", event="b", state=True)
    await ann.send("lobby", None, event="d", state=True)
    state = (await ann.request(Join(room="lobby")))["state"]
    assert [(each["event"], each["data"]) for each in state] == [("a", longest), ("b", "new"), ("c", longest)]
    await ann.send("lobby", None, event="a", state=True)
    await ann.send("lobby", 1, event="d", state=True)
    state = (await ann.request(Join(room="lobby")))["state"]
    assert [each["event"] for each in state] == ["b", "c", "d"]
    # Refused messages were not broadcast and have no sequence number.
    messages = ann.received("message")
    assert [frame["event"] for frame in messages] == ["a", "b", "c", "d", "b", "d", "a", "d"]
    assert [frame["seq"] for frame in messages] == [None if history == "none" else n for n in range(1, 9)]


def corked(pushes: int, **limits: int) -> Connection:
    """Return a connection with corked pushes, whose client then stops reading."""
    connection = Connection("c", Native(), limits=SendQueueLimits(**limits))
    connection.cork()
    for _ in range(pushes):
        connection.push(b'"push"')
    connection.writing_since = 1.0
    return connection


LIMITS: list[dict[str, int]] = [{"frames": 3}, {"bytes": 20}]


@pytest.mark.parametrize("limits", LIMITS)
def test_a_close_with_too_many_corked_pushes_is_sent_once(limits: dict[str, int]) -> None:
    connection = corked(10, **limits)
    connection.close(CloseCode.KICKED, "Out.")
    connection.uncork()
    frames = [line for frame in connection.pop_all() for line in frame.split(b"\n")]
    assert sum(b'"closing"' in frame for frame in frames) == 1
    assert connection.close_code is not None
    assert f'"code":{int(connection.close_code)}'.encode() in frames[-1]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("closes", [True, False])
def test_a_queue_that_overflows_when_it_is_uncorked_is_closed_and_empty(
    limits: dict[str, int], closes: bool
) -> None:
    connection = corked(10, **limits)
    if closes:
        connection.close(CloseCode.KICKED, "Out.")
    connection.uncork()
    assert connection.close_code is CloseCode.SLOW_CONSUMER
    assert len(connection.pop_all()) == 1
    assert connection.pending_bytes == 0


def test_corked_pushes_are_bounded_also_for_a_client_that_reads() -> None:
    connection = corked(0, bytes=100)
    connection.writing_since = None
    for _ in range(1000):
        connection.push(b"x" * 10)
        assert connection.pending_bytes <= 1000
    assert connection.close_code is CloseCode.SLOW_CONSUMER
    connection.uncork()
    assert len(connection.pop_all()) == 1
    assert connection.pending_bytes == 0


# Keys in Redis -----------------------------------------------------------------------------------

ANN = User(name="ann", id="1", guest=False)
PEOPLE = [User(name=f"user {number}", id=f"guest-{number}", guest=True) for number in range(20)]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = Redis.from_url(redis_url, decode_responses=True)
    yield redis
    await redis.aclose()


@pytest.fixture
async def processes(redis_url: str) -> AsyncIterator[list[RedisPresence]]:
    """The presence of three processes."""
    every = [RedisPresence(url=redis_url) for _ in range(3)]
    yield every
    for presence in every:
        await presence.close()


async def die(redis: Redis, *nodes: str) -> None:
    """End the leases of these processes, or of the sweep of what they left."""
    for key in ("rooms:nodes", "rooms:dead"):
        await redis.zadd(key, dict.fromkeys(nodes, 1), xx=True)


@pytest.mark.usefixtures("sweeps_at_once")
async def test_another_process_finishes_a_sweep_that_failed_half_way(
    redis: Redis, processes: list[RedisPresence], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, failing, other = processes
    for user in PEOPLE:
        await dead.add("g", user.id, user)
    for presence in (failing, other):
        await presence.heartbeat()
    await die(redis, dead.node)
    monkeypatch.setattr(redis_store, "CHUNK", 5)
    remove, count = failing._store._remove_chunk, 0

    async def fail(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count > 2:
            raise Unavailable("Presence is not available; try again in a moment.")
        return await remove(*arguments, **options)

    monkeypatch.setattr(failing._store, "_remove_chunk", fail)
    found = await failing.heartbeat()
    assert len(found) == 10
    # A sweep has a lease of its own, within which no other begins.
    assert await other.heartbeat() == []
    await die(redis, dead.node)
    found += await other.heartbeat()
    assert await other.counts(["g"]) == [0]
    assert await redis.keys("rooms:[uoc]:*") == []
    assert await redis.exists(f"rooms:node:{dead.node}") == 0
    for leases in ("rooms:nodes", "rooms:dead"):
        assert dead.node not in await redis.zrange(leases, 0, -1)
    assert sorted(each.user.id for each in found) == sorted(user.id for user in PEOPLE)


@pytest.mark.usefixtures("sweeps_at_once")
async def test_users_that_concurrent_adds_found_are_reported_once_by_the_next_heartbeat(
    redis: Redis, processes: list[RedisPresence]
) -> None:
    dead, starting, _ = processes
    for user in PEOPLE:
        await dead.add("g", user.id, user)
    await die(redis, dead.node)
    await asyncio.gather(*(starting.add("h", f"a{number}", ANN) for number in range(20)))
    found = await starting.heartbeat()
    assert sorted(each.user.id for each in found) == sorted(user.id for user in PEOPLE)
    assert await starting.heartbeat() == []


async def test_a_removed_group_leaves_no_keys_in_redis(redis: Redis, processes: list[RedisPresence]) -> None:
    double = User(name="ANN", id="guest-9", guest=True)
    for number, presence in enumerate(processes):
        for user in (ANN, double, *PEOPLE[:3]):
            await presence.add("g", f"{user.id} {number}", user)
        await presence.start_grace("g", f"{ANN.id} {number}", ANN)
    # Every process removes its users, as after a control message.
    for number, presence in enumerate(processes):
        going = {f"{user.id} {number}": user for user in (ANN, double, *PEOPLE[:3])}
        out = await presence.remove_all("g", going)
        assert out == (list(going.values()) if presence is processes[-1] else [])
    assert await redis.keys("*") == ["rooms:nodes"]
    for presence in processes:
        assert await presence.heartbeat() == []
    assert await redis.keys("*") == ["rooms:nodes"]
