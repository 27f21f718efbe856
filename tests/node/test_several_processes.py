"""Users of several processes: extensions hear of each once, and so do members when a process ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from django.utils import timezone

from rooms.extensions import Extension
from rooms.extensions.contexts import JoinEvent, LeaveEvent
from rooms.models import Application, PresenceNode, Room
from rooms.node import join
from rooms.node.node import Node
from rooms.presence import Arrival, Departure
from rooms.protocol.commands import Join, Leave, Login
from rooms.protocol.errors import Unavailable
from rooms.protocol.types import User
from tests.node.clients import PATIENCE, Client, Install, MakeEngine, let_time_pass, present, refused, soon

pytestmark = pytest.mark.database

SHARED = {"presence": {"BACKEND": "rooms.presence.database.DatabasePresence"}}
Start = Callable[..., Awaitable[Node]]


@pytest.fixture
def start(make_node: MakeEngine) -> Start:
    """Starts a process; all of them share presence."""

    async def start(**settings: Any) -> Node:
        return await make_node(**{**SHARED, **settings})

    return start


async def returned(node: Node, client: Client, *rooms: str) -> Client:
    """The same user on a connection to this process."""
    token = (await client.ask(Login()))["token"]
    again = Client(node)
    await again.connect()
    await again.ask(Login(token=token))
    for room in rooms:
        await again.ask(Join(room=room))
    return again


def told_of(client: Client, name: str) -> list[tuple[str, str | None]]:
    frames = [frame for frame in client.told("joined", "left") if frame["user"]["name"] == name]
    return [(frame["type"], frame.get("reason")) for frame in frames]


def returning(found: Sequence[Departure | Arrival]) -> Callable[[], Awaitable[Sequence[Departure | Arrival]]]:
    """A beat that finds these."""

    async def beat() -> Sequence[Departure | Arrival]:
        return found

    return beat


class Porter(Extension):
    """Notes who comes and goes; lets in when told to."""

    happened: ClassVar[list[tuple[str, str]]]
    asked: ClassVar[asyncio.Event]
    open: ClassVar[asyncio.Event]

    async def on_join(self, event: JoinEvent) -> None:
        self.happened.append((event.user.name, "joined"))
        self.asked.set()
        await self.open.wait()

    async def on_leave(self, event: LeaveEvent) -> None:
        self.happened.append((event.user.name, event.reason))


@pytest.fixture
def porter(installed: Install, chat: Application) -> type[Porter]:
    """At the door of the room "lobby"."""
    Porter.happened, Porter.asked, Porter.open = [], asyncio.Event(), asyncio.Event()
    Porter.open.set()
    Room.objects.create(application=chat, name="lobby", extension=installed(Porter))
    return Porter


# Extensions ----------------------------------------------------------------------------------------


async def test_a_user_who_joins_through_two_processes_at_once_is_one_member(
    start: Start, porter: type[Porter]
) -> None:
    """Each of the processes calls ``on_join``."""
    here, there = await start(), await start()
    ann = await Client.named(here, "ann")
    again = await returned(there, ann)
    porter.open.clear()
    porter.asked.clear()
    first = asyncio.create_task(ann.ask(Join(room="lobby")))
    await soon(porter.asked)
    porter.asked.clear()
    second = asyncio.create_task(again.ask(Join(room="lobby")))
    await soon(porter.asked)
    porter.open.set()
    assert (await first)["count"] == (await second)["count"] == 1
    assert porter.happened == [("ann", "joined")] * 2
    ann.disconnect()
    again.disconnect()


async def test_a_room_that_is_closed_tells_extensions_of_each_user_once(
    start: Start, porter: type[Porter], clock: SimpleNamespace, chat: Application
) -> None:
    here, there = await start(), await start()
    ann, bob = await Client.named(here, "ann", "lobby"), await Client.named(here, "bob", "lobby")
    again = await returned(there, ann, "lobby")
    # In one process she fades, in the other she is there; Bob fades.
    eve = await Client.named(there, "eve", "lobby")
    bob.disconnect()
    for node in (here, there):
        await node.context.tasks.drain()
    assert sorted(porter.happened) == [("ann", "joined"), ("bob", "joined"), ("eve", "joined")]
    porter.happened.clear()
    await Room.objects.filter(name="lobby").adelete()
    for client in (ann, again, eve):
        await client.until(lambda client=client: client.told("removed"))
    for node in (here, there):
        await let_time_pass(node, clock)
    assert sorted(porter.happened) == [("ann", "closed"), ("bob", "closed"), ("eve", "closed")]


# Processes that end --------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
async def test_the_users_of_a_process_that_is_known_to_be_dead_are_told_once(start: Start) -> None:
    await Application.objects.aupdate(leave_grace=0)
    dead, here, there = await start(), await start(leave_grace=0), await start(leave_grace=0)
    witness, other = await Client.named(here, "witness", "lobby"), await Client.named(there, "other", "lobby")
    ann, bob = await Client.named(dead, "ann", "lobby"), await Client.named(dead, "bob", "lobby")
    await witness.until(lambda: told_of(witness, "bob"))
    assert dead._ticking is not None
    dead._ticking.cancel()
    back = await returned(there, bob, "lobby")
    for node in (here, there):
        await node.node_died(dead.id)
    for node in (here, there):
        await node.leave.heartbeat()
    for client in (witness, other):
        await client.until(lambda client=client: ("left", "dropped") in told_of(client, "ann"))
    for node in (here, there):
        await node.leave.heartbeat()
        await node.context.tasks.drain()
    for client in (witness, other):
        assert told_of(client, "ann") == [("joined", None), ("left", "dropped")]
        assert told_of(client, "bob") == [("joined", None)]
    assert await present(back, "lobby") == ["bob", "other", "witness"]
    for gone in (ann, bob):
        gone.disconnect()


@pytest.mark.usefixtures("impatient")
async def test_a_process_that_ends_in_order_leaves_those_who_fade_to_the_others(start: Start) -> None:
    ending, here = await start(leave_grace=0), await start()
    witness = await Client.named(here, "witness", "lobby")
    ann, bob = await Client.named(ending, "ann", "lobby"), await Client.named(ending, "bob", "lobby")
    await witness.until(lambda: told_of(witness, "bob"))
    await returned(here, bob, "lobby")
    for client in (ann, bob):
        client.disconnect()
    await ending.stop()
    assert await present(witness, "lobby") == ["ann", "bob", "witness"]
    await here.departing.beat()
    await witness.until(lambda: told_of(witness, "ann")[1:])
    assert told_of(witness, "ann") == [("joined", None), ("left", "dropped")]
    assert told_of(witness, "bob") == [("joined", None)]
    assert await present(witness, "lobby") == ["bob", "witness"]


async def test_a_process_that_ends_slowly_leaves_its_users_to_the_others_at_once(start: Start) -> None:
    ending = await start()
    await Client.named(ending, "ann", "lobby")
    never = asyncio.Event()
    ending.context.tasks.spawn(never.wait())
    stopping = asyncio.create_task(ending.stop())
    soon_over = timezone.now() + timedelta(seconds=2 * ending.context.settings.leave_grace)
    leases = PresenceNode.objects.filter(pk=ending.node, lease__lt=soon_over)
    try:
        async with asyncio.timeout(PATIENCE):
            while not await leases.aexists():  # noqa: ASYNC110 (told by nobody)
                await asyncio.sleep(0)
        assert not stopping.done()
    finally:
        never.set()
        await stopping


@pytest.mark.usefixtures("impatient")
async def test_a_room_waits_longer_for_those_of_a_process_that_ended_if_it_waits_longer_for_all(
    start: Start, chat: Application, clock: SimpleNamespace
) -> None:
    await Room.objects.acreate(application=chat, name="lobby", leave_grace=100)
    ending, here = await start(leave_grace=0), await start(leave_grace=0)
    witness = await Client.named(here, "witness", "lobby")
    ann, bob = await Client.named(ending, "ann", "lobby"), await Client.named(ending, "bob", "lobby")
    await witness.until(lambda: told_of(witness, "bob"))
    await ending.departing.hand_over()
    await here.departing.beat()
    await here.context.tasks.drain()
    assert await present(witness, "lobby") == ["ann", "bob", "witness"]
    await returned(here, bob, "lobby")
    assert (told_of(witness, "ann"), told_of(witness, "bob")) == ([("joined", None)], [("joined", None)])
    await let_time_pass(here, clock)
    assert told_of(witness, "ann") == [("joined", None), ("left", "dropped")]
    assert told_of(witness, "bob") == [("joined", None)]
    assert await present(witness, "lobby") == ["bob", "witness"]
    for gone in (ann, bob):
        gone.disconnect()


@pytest.mark.usefixtures("impatient")
async def test_the_users_of_a_process_that_was_taken_for_dead_are_told_to_be_there_again(
    start: Start,
) -> None:
    slow, here = await start(), await start()
    for node in (slow, here):
        assert node._ticking is not None
        # Every beat is this test's.
        node._ticking.cancel()
    bob, ann = await Client.named(here, "bob", "lobby"), await Client.named(slow, "ann", "lobby")
    eve = await Client.named(slow, "eve", "lobby")
    await bob.until(lambda: told_of(bob, "eve"))
    await PresenceNode.objects.filter(pk=slow.node).aupdate(lease=timezone.now() - timedelta(seconds=1))
    await here.departing.beat()
    await bob.until(lambda: told_of(bob, "ann")[1:] and told_of(bob, "eve")[1:])
    found = await slow.context.presence.heartbeat()
    # Who goes before it is told is not told as come.
    await eve.ask(Leave(room="lobby"))
    slow.context.presence.heartbeat = returning(found)  # type: ignore[method-assign]
    await slow.departing.beat()
    await slow.context.tasks.drain()
    await bob.until(lambda: told_of(bob, "ann")[2:])
    assert told_of(bob, "ann") == [("joined", None), ("left", "dropped"), ("joined", None)]
    assert told_of(bob, "eve") == [("joined", None), ("left", "dropped"), ("left", "left")]
    assert await present(bob, "lobby") == ["ann", "bob"]
    ann.disconnect()


async def test_who_has_come_back_before_the_departure_is_told_is_not_gone(start: Start) -> None:
    here = await start()
    ann, bob = await Client.named(here, "ann", "lobby"), await Client.named(here, "bob", "lobby")
    room = here.context.registry.cached_room("chat", "lobby")
    assert room is not None
    assert ann.connection.user is not None
    gone = User(name="eve", id="guest-eve", guest=True)
    found = [Departure(room.key, user) for user in (ann.connection.user, gone)]
    here.context.presence.heartbeat = returning(found)  # type: ignore[method-assign]
    await here.departing.beat()
    await here.context.tasks.drain()
    assert told_of(bob, "eve") == [("left", "dropped")]
    assert told_of(bob, "ann") == []


async def test_the_engine_and_its_presence_are_one_node(start: Start) -> None:
    here, there = await start(), await start()
    assert here.node == here.context.presence.node
    assert here.node != there.node


# What goes wrong -----------------------------------------------------------------------------------


async def test_a_departure_that_fails_is_tried_again(
    node: Node, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    remove, failures = node.context.presence.remove, 4

    async def fail(*arguments: Any) -> bool:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise ZeroDivisionError
        return await remove(*arguments)

    monkeypatch.setattr(node.context.presence, "remove", fail)
    bob.disconnect()
    for _ in range(6):
        await let_time_pass(node, clock)
    assert told_of(ann, "bob") == [("joined", None), ("left", "dropped")]
    assert node.context.delayed.pop_due() == []


async def test_what_fails_for_good_is_given_up(node: Node, clock: SimpleNamespace) -> None:
    tried = 0

    async def fail() -> None:
        nonlocal tried
        tried += 1
        raise ZeroDivisionError

    await node.context.run_to_completion(fail)
    for _ in range(10):
        await let_time_pass(node, clock)
    assert tried == 5


async def test_nobody_waits_for_ever_behind_one_whom_a_backend_holds_up(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    room = node.context.registry.cached_room("chat", "lobby")
    assert room is not None
    monkeypatch.setattr(join, "ADMISSION_SECONDS", 0.01)
    async with room.admission:
        error = await refused(Unavailable, bob.ask(Join(room="lobby")))
        assert error.retry
    await bob.ask(Join(room="lobby"))
    assert await present(ann, "lobby") == ["ann", "bob"]
