"""What has to be gone in the end, whatever does not answer meanwhile, and what must not be left behind."""

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
from tests.node.clients import Client, Install, MakeEngine, let_time_pass, present, refused


def told_of(client: Client, name: str) -> list[tuple[str, str | None]]:
    frames = [frame for frame in client.told("joined", "left") if frame["user"]["name"] == name]
    return [(frame["type"], frame.get("reason")) for frame in frames]


async def token_of(client: Client) -> str:
    return str((await client.ask(Login()))["token"])


async def returned(node: Node, token: str, *rooms: str) -> Client:
    """The same user on another connection."""
    client = Client(node)
    await client.connect()
    await client.ask(Login(token=token))
    for room in rooms:
        await client.ask(Join(room=room))
    return client


# A presence that does not answer -----------------------------------------------------------------


@pytest.fixture
def down(node: Node, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """While ``down.now``, presence does not answer to those who go."""
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
async def test_who_goes_while_presence_is_down_is_out_once_it_answers(
    node: Node, clock: SimpleNamespace, down: SimpleNamespace, how: str
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    down.now = True
    if how == "left":
        await bob.ask(Leave(room="lobby"))
    else:
        bob.disconnect()
    for _ in range(3):
        await let_time_pass(node, clock)
    assert told_of(ann, "bob") == [("joined", None)]
    assert await present(ann, "lobby") == ["ann", "bob"]
    down.now = False
    await let_time_pass(node, clock)
    assert told_of(ann, "bob") == [("joined", None), ("left", how)]
    assert await present(ann, "lobby") == ["ann"]
    await let_time_pass(node, clock)
    assert told_of(ann, "bob") == [("joined", None), ("left", how)]


@pytest.mark.parametrize("how", ["left", "dropped"])
async def test_who_came_back_while_presence_was_down_stays(
    node: Node, clock: SimpleNamespace, down: SimpleNamespace, how: str
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    token = await token_of(bob)
    down.now = True
    if how == "left":
        await bob.ask(Leave(room="lobby"))
        await let_time_pass(node, clock)
        await bob.ask(Join(room="lobby"))
    else:
        bob.disconnect()
        await let_time_pass(node, clock)
        bob = await returned(node, token, "lobby")
    down.now = False
    for _ in range(2):
        await let_time_pass(node, clock)
    assert told_of(ann, "bob") == [("joined", None)]
    assert await present(ann, "lobby") == ["ann", "bob"]
    await bob.say("lobby", "here")
    assert ann.messages() == ["here"]
    # And goes when it goes.
    await bob.ask(Leave(room="lobby"))
    assert told_of(ann, "bob") == [("joined", None), ("left", "left")]


async def test_a_name_is_free_again_once_presence_answers(
    node: Node, clock: SimpleNamespace, down: SimpleNamespace
) -> None:
    bob = await Client.named(node, "bob")
    down.now = True
    bob.disconnect()
    await let_time_pass(node, clock)
    down.now = False
    await let_time_pass(node, clock)
    await Client.named(node, "BOB")


# An application that is closed for a while -------------------------------------------------------


@pytest.mark.parametrize("how_long", ["shorter", "longer"])
async def test_nobody_is_left_behind_by_an_application_that_was_disabled(
    node: Node, chat: Application, clock: SimpleNamespace, how_long: str
) -> None:
    ann = await Client.named(node, "ann", "lobby")
    groups = [ann.connection.memberships["lobby"].room.key, f"application.{chat.pk}"]
    chat.enabled = False
    await chat.asave()
    await node.context.tasks.drain()
    assert ann.closed == CloseCode.NO_SUCH_APPLICATION
    ann.disconnect()
    await node.context.tasks.drain()
    if how_long == "longer":
        await let_time_pass(node, clock)
    chat.enabled = True
    await chat.asave()
    await let_time_pass(node, clock)
    assert await node.context.presence.counts(groups) == [0, 0]
    bob = await Client.named(node, "bob", "lobby")
    assert await present(bob, "lobby") == ["bob"]
    # The name as well.
    await Client.named(node, "ann")


# Many at once ------------------------------------------------------------------------------------

MANY = 200


async def test_many_departures_at_once_leave_no_room_and_hold_up_nobody(
    make_node: MakeEngine, chat: Application, clock: SimpleNamespace
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
    # Each of these needs a thread, and is refused when too many wait for one.
    for number in range(20):
        await ann.ask(ListRooms())
        await ann.ask(CreateRoom(room=f"other {number}"))
    await node.context.tasks.drain()
    assert await Room.objects.filter(persistent=False).acount() == 0
    assert await Room.objects.acount() == 20


# Timers of extensions ----------------------------------------------------------------------------


class Clockwork(Extension):
    """Has a timer that never runs out in a test; its beginning can be held up."""

    timeout = 100_000
    begun: ClassVar[list[Any]]
    opened: ClassVar[asyncio.Event]

    async def init(self) -> None:
        self.begun.append(self.room and self.room.name)
        await self.opened.wait()

    async def on_timeout(self) -> None:
        await self.opened.wait()


@pytest.fixture
def clockwork(installed: Install, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(Clockwork, "begun", [], raising=False)
    monkeypatch.setattr(Clockwork, "opened", asyncio.Event(), raising=False)
    return installed(Clockwork)


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many timers of extensions are set now."""
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
async def test_two_quick_saves_begin_an_extension_once_and_set_one_timer(
    node: Node, chat: Application, clockwork: str, timers: Callable[[], int], of: str
) -> None:
    row = await Room.objects.acreate(application=chat, name="lobby")
    await Client.named(node, "ann", "lobby")
    extended = row if of == "room" else chat
    for title in ("one", "two", "three"):
        extended.extension, extended.title = clockwork, title
        await extended.asave()
    # Each save was heard of before the first beginning ends.
    Clockwork.opened.set()
    await node.context.tasks.drain()
    assert Clockwork.begun == ["lobby" if of == "room" else None]
    assert timers() == 1
    # Another save of the same changes nothing about that, and one that takes it away ends it.
    extended.title = "four"
    await extended.asave()
    await node.context.tasks.drain()
    assert (len(Clockwork.begun), timers()) == (1, 1)
    extended.extension = ""
    await extended.asave()
    await node.context.tasks.drain()
    assert timers() == 0


# Logging out, and accounts that are gone -----------------------------------------------------------


async def test_after_a_logout_nothing_is_heard_of_rooms(node: Node) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.ask(ListRooms())
    await bob.ask(CreateRoom(room="one"))
    await node.context.tasks.drain()
    assert [frame["room"]["name"] for frame in ann.told("room_added")] == ["one"]
    await ann.ask(Logout())
    await bob.ask(CreateRoom(room="two"))
    await Room.objects.filter(name="one").adelete()
    await node.context.tasks.drain()
    assert [frame["room"]["name"] for frame in ann.told("room_added")] == ["one"]
    assert ann.told("room_removed") == []
    # Logged in anew, it asks anew.
    await ann.ask(Login(name="ann"))
    await ann.ask(ListRooms())
    await bob.ask(CreateRoom(room="three"))
    await node.context.tasks.drain()
    assert [frame["room"]["name"] for frame in ann.told("room_added")] == ["one", "three"]


async def test_an_account_that_is_deleted_while_it_is_connected(node: Node) -> None:
    account = await models.User.objects.acreate_user("ann", password="sesame")
    ann = Client(node)
    await ann.connect(account)
    await ann.ask(Join(room="lobby"))
    token = await token_of(ann)
    await models.User.objects.all().adelete()
    await refused(PermissionDenied, ann.ask(CreateRoom(room="mine")))
    # A room on demand would be hers, too.
    await refused(PermissionDenied, ann.ask(Join(room="new")))
    await refused(BadToken, ann.ask(Login()))
    other = Client(node)
    await other.connect()
    await refused(BadToken, other.ask(Login(token=token)))
    assert await Room.objects.filter(name__in=["mine", "new"]).acount() == 0
    # What she is in she stays in, until somebody disconnects her.
    await ann.say("lobby", "still here")
    assert ann.messages() == ["still here"]


@pytest.mark.parametrize("name", ["chat\0", "\0", "chat/lobby", "/", "../chat", "", "x" * 65, "chat\n", "é"])
async def test_a_name_that_no_application_can_have(node: Node, name: str) -> None:
    client = Client(node, application=name)
    await client.connect()
    assert client.closed == CloseCode.NO_SUCH_APPLICATION
    client.disconnect()


# Bounds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", ["memory", "database", "none"])
async def test_state_has_bounds_and_can_always_be_replaced_and_removed(
    make_node: MakeEngine, chat: Application, settings: Any, history: str
) -> None:
    settings.ROOMS = {**getattr(settings, "ROOMS", {}), "MAX_STATE_KEYS": 3, "MAX_STATE_BYTES": 10}
    chat.history = history
    await chat.asave()
    node = await make_node()
    ann = await Client.named(node, "ann", "lobby")
    longest = "x" * 8
    for event in ("a", "b", "c"):
        await ann.say("lobby", longest, event=event, state=True)
    await refused(BadRequest, ann.say("lobby", 1, event="d", state=True))
    await refused(MessageTooLarge, ann.say("lobby", longest + "y", event="a", state=True))
    # What is no state has other bounds.
    await ann.say("lobby", longest * 9, event="d")
    await ann.say("lobby", "new", event="b", state=True)
    await ann.say("lobby", None, event="d", state=True)
    state = (await ann.ask(Join(room="lobby")))["state"]
    assert [(each["event"], each["data"]) for each in state] == [("a", longest), ("b", "new"), ("c", longest)]
    await ann.say("lobby", None, event="a", state=True)
    await ann.say("lobby", 1, event="d", state=True)
    state = (await ann.ask(Join(room="lobby")))["state"]
    assert [each["event"] for each in state] == ["b", "c", "d"]
    # What was refused was not told, and took no number.
    told = ann.told("message")
    assert [frame["event"] for frame in told] == ["a", "b", "c", "d", "b", "d", "a", "d"]
    assert [frame["seq"] for frame in told] == [None if history == "none" else n for n in range(1, 9)]


def holding(pushes: int, **limits: int) -> Connection:
    """One with so many pushes held back behind an answer, whose client then stops reading."""
    connection = Connection("c", Native(), limits=SendQueueLimits(**limits))
    connection.cork()
    for _ in range(pushes):
        connection.push(b'"push"')
    connection.writing_since = 1.0
    return connection


LIMITS: list[dict[str, int]] = [{"frames": 3}, {"bytes": 20}]


@pytest.mark.parametrize("limits", LIMITS)
def test_closing_with_too_much_held_back_is_said_once(limits: dict[str, int]) -> None:
    connection = holding(10, **limits)
    connection.close(CloseCode.KICKED, "Out.")
    connection.uncork()
    frames = [line for frame in connection.pop_all() for line in frame.split(b"\n")]
    assert sum(b'"closing"' in frame for frame in frames) == 1
    assert connection.close_code is not None
    assert f'"code":{int(connection.close_code)}'.encode() in frames[-1]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("closes", [True, False])
def test_what_is_too_much_when_it_is_released_keeps_the_counts_right(
    limits: dict[str, int], closes: bool
) -> None:
    connection = holding(10, **limits)
    if closes:
        connection.close(CloseCode.KICKED, "Out.")
    connection.uncork()
    assert connection.close_code is CloseCode.SLOW_CONSUMER
    assert len(connection.pop_all()) == 1
    assert connection.waiting == 0


def test_what_is_held_back_is_bounded_even_for_one_who_reads() -> None:
    connection = holding(0, bytes=100)
    connection.writing_since = None
    for _ in range(1000):
        connection.push(b"x" * 10)
        assert connection.waiting <= 1000
    assert connection.close_code is CloseCode.SLOW_CONSUMER
    connection.uncork()
    assert len(connection.pop_all()) == 1
    assert connection.waiting == 0


# What processes leave behind in Redis ------------------------------------------------------------

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
    """The leases of these processes have run out, or the time of whoever sweeps them."""
    for key in ("rooms:nodes", "rooms:dead"):
        await redis.zadd(key, dict.fromkeys(nodes, 1), xx=True)


@pytest.mark.usefixtures("impatient")
async def test_a_sweep_that_fails_half_way_is_finished_by_another_process(
    redis: Redis, processes: list[RedisPresence], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, failing, other = processes
    for user in PEOPLE:
        await dead.add("g", user.id, user)
    for presence in (failing, other):
        await presence.heartbeat()
    await die(redis, dead.id)
    monkeypatch.setattr(redis_store, "CHUNK", 5)
    remove, count = failing._store._remove_chunk, 0

    async def break_down(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count > 2:
            raise Unavailable("Presence is not available; try again in a moment.")
        return await remove(*arguments, **options)

    monkeypatch.setattr(failing._store, "_remove_chunk", break_down)
    told = await failing.heartbeat()
    assert len(told) == 10
    # Whoever sweeps has a while for it.
    assert await other.heartbeat() == []
    await die(redis, dead.id)
    told += await other.heartbeat()
    assert await other.counts(["g"]) == [0]
    assert await redis.keys("rooms:[uoc]:*") == []
    assert await redis.exists(f"rooms:node:{dead.id}") == 0
    for leases in ("rooms:nodes", "rooms:dead"):
        assert dead.id not in await redis.zrange(leases, 0, -1)
    assert sorted(each.user.id for each in told) == sorted(user.id for user in PEOPLE)


@pytest.mark.usefixtures("impatient")
async def test_whom_the_first_of_many_adds_found_is_told_by_the_next_beat(
    redis: Redis, processes: list[RedisPresence]
) -> None:
    dead, beginning, _ = processes
    for user in PEOPLE:
        await dead.add("g", user.id, user)
    await die(redis, dead.id)
    await asyncio.gather(*(beginning.add("h", f"a{number}", ANN) for number in range(20)))
    found = await beginning.heartbeat()
    assert sorted(each.user.id for each in found) == sorted(user.id for user in PEOPLE)
    assert await beginning.heartbeat() == []


async def test_nothing_is_left_in_redis_of_a_group_that_is_gone(
    redis: Redis, processes: list[RedisPresence]
) -> None:
    double = User(name="ANN", id="guest-9", guest=True)
    for number, presence in enumerate(processes):
        for user in (ANN, double, *PEOPLE[:3]):
            await presence.add("g", f"{user.id} {number}", user)
        await presence.start_grace("g", f"{ANN.id} {number}", ANN)
    # Every process hears that the room is gone.
    for number, presence in enumerate(processes):
        going = {f"{user.id} {number}": user for user in (ANN, double, *PEOPLE[:3])}
        out = await presence.remove_all("g", going)
        assert out == (list(going.values()) if presence is processes[-1] else [])
    assert await redis.keys("*") == ["rooms:nodes"]
    for presence in processes:
        assert await presence.heartbeat() == []
    assert await redis.keys("*") == ["rooms:nodes"]
