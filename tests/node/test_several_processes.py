"""Users of several processes: extensions and members are notified once, also when a process ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
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
from tests.node.clients import (
    PATIENCE,
    Client,
    Install,
    MakeNode,
    error_of,
    member_names,
    run_due_actions,
    wait_for,
)

pytestmark = pytest.mark.database

SHARED = {"presence": {"BACKEND": "rooms.presence.database.DatabasePresence"}}
Start = Callable[..., Awaitable[Node]]
Found = Sequence[Departure | Arrival]


@pytest.fixture
def start(make_node: MakeNode) -> Start:
    """Return a function that starts a node; all of them share presence."""

    async def start(**settings: Any) -> Node:
        return await make_node(**{**SHARED, **settings})

    return start


async def returned(node: Node, client: Client, *rooms: str) -> Client:
    """Return the same user on a connection to this process."""
    token = (await client.request(Login()))["token"]
    again = Client(node)
    await again.connect()
    await again.request(Login(token=token))
    for room in rooms:
        await again.request(Join(room=room))
    return again


def events_about(client: Client, name: str) -> list[tuple[str, str | None]]:
    """Return the joined and left events about a user that this client received, with their reasons."""
    frames = [frame for frame in client.received("joined", "left") if frame["user"]["name"] == name]
    return [(frame["type"], frame.get("reason")) for frame in frames]


def finding(found: Found) -> Callable[[], Coroutine[Any, Any, Found]]:
    """Return a heartbeat of presence that finds these."""

    async def heartbeat() -> Found:
        return found

    return heartbeat


def stop_periodic(node: Node) -> None:
    """Stop the periodic tasks: every heartbeat is the test's."""
    assert node._periodic is not None
    node._periodic.cancel()


class Recorder(Extension):
    """Records joins and leaves; a join waits until it is ``opened``."""

    happened: ClassVar[list[tuple[str, str]]]
    asked: ClassVar[asyncio.Event]
    opened: ClassVar[asyncio.Event]

    async def on_join(self, event: JoinEvent) -> None:
        self.happened.append((event.user.name, "joined"))
        self.asked.set()
        await self.opened.wait()

    async def on_leave(self, event: LeaveEvent) -> None:
        self.happened.append((event.user.name, event.reason))


@pytest.fixture
def recorder(install_extension: Install, chat: Application) -> type[Recorder]:
    """Select the extension for the room "lobby"."""
    Recorder.happened, Recorder.asked, Recorder.opened = [], asyncio.Event(), asyncio.Event()
    Recorder.opened.set()
    Room.objects.create(application=chat, name="lobby", extension=install_extension(Recorder))
    return Recorder


# Extensions ----------------------------------------------------------------------------------------


async def test_a_user_that_joins_through_two_processes_at_once_is_one_member(
    start: Start, recorder: type[Recorder]
) -> None:
    """Each of the processes calls ``on_join``."""
    here, there = await start(), await start()
    ann = await Client.named(here, "ann")
    again = await returned(there, ann)
    recorder.opened.clear()
    recorder.asked.clear()
    first = asyncio.create_task(ann.request(Join(room="lobby")))
    await wait_for(recorder.asked)
    recorder.asked.clear()
    second = asyncio.create_task(again.request(Join(room="lobby")))
    await wait_for(recorder.asked)
    recorder.opened.set()
    assert (await first)["count"] == (await second)["count"] == 1
    assert recorder.happened == [("ann", "joined")] * 2
    ann.disconnect()
    again.disconnect()


async def test_extensions_are_notified_of_each_user_of_a_closed_room_once(
    start: Start, recorder: type[Recorder], clock: SimpleNamespace, chat: Application
) -> None:
    here, there = await start(), await start()
    ann, bob = await Client.named(here, "ann", "lobby"), await Client.named(here, "bob", "lobby")
    again = await returned(there, ann, "lobby")
    # Ann is connected to both processes, Eve to the other one; Bob has a grace period.
    eve = await Client.named(there, "eve", "lobby")
    bob.disconnect()
    for node in (here, there):
        await node.context.tasks.drain()
    assert sorted(recorder.happened) == [("ann", "joined"), ("bob", "joined"), ("eve", "joined")]
    recorder.happened.clear()
    await Room.objects.filter(name="lobby").adelete()
    for client in (ann, again, eve):
        await client.until(lambda client=client: client.received("removed"))
    for node in (here, there):
        await run_due_actions(node, clock)
    assert sorted(recorder.happened) == [("ann", "closed"), ("bob", "closed"), ("eve", "closed")]


# Processes that end --------------------------------------------------------------------------------


@pytest.mark.usefixtures("sweeps_at_once")
async def test_each_user_of_a_dead_process_is_announced_as_left_once(start: Start) -> None:
    await Application.objects.aupdate(leave_grace=0)
    dead, here, there = await start(), await start(leave_grace=0), await start(leave_grace=0)
    witness, other = await Client.named(here, "witness", "lobby"), await Client.named(there, "other", "lobby")
    ann, bob = await Client.named(dead, "ann", "lobby"), await Client.named(dead, "bob", "lobby")
    await witness.until(lambda: events_about(witness, "bob"))
    stop_periodic(dead)
    back = await returned(there, bob, "lobby")
    for node in (here, there):
        await node.node_died(dead.id)
    for node in (here, there):
        await node.leave.heartbeat()
    for client in (witness, other):
        await client.until(lambda client=client: ("left", "dropped") in events_about(client, "ann"))
    for node in (here, there):
        await node.leave.heartbeat()
        await node.context.tasks.drain()
    for client in (witness, other):
        assert events_about(client, "ann") == [("joined", None), ("left", "dropped")]
        assert events_about(client, "bob") == [("joined", None)]
    assert await member_names(back, "lobby") == ["bob", "other", "witness"]
    for client in (ann, bob):
        client.disconnect()


@pytest.mark.usefixtures("sweeps_at_once")
async def test_an_orderly_shutdown_leaves_grace_periods_to_the_other_processes(start: Start) -> None:
    ending, here = await start(leave_grace=0), await start()
    witness = await Client.named(here, "witness", "lobby")
    ann, bob = await Client.named(ending, "ann", "lobby"), await Client.named(ending, "bob", "lobby")
    await witness.until(lambda: events_about(witness, "bob"))
    await returned(here, bob, "lobby")
    for client in (ann, bob):
        client.disconnect()
    await ending.stop()
    assert await member_names(witness, "lobby") == ["ann", "bob", "witness"]
    await here.leave.heartbeat()
    await witness.until(lambda: events_about(witness, "ann")[1:])
    assert events_about(witness, "ann") == [("joined", None), ("left", "dropped")]
    assert events_about(witness, "bob") == [("joined", None)]
    assert await member_names(witness, "lobby") == ["bob", "witness"]


async def test_a_slow_shutdown_leaves_its_users_to_the_other_processes_at_once(start: Start) -> None:
    ending = await start()
    await Client.named(ending, "ann", "lobby")
    never = asyncio.Event()
    ending.context.tasks.spawn(never.wait())
    stopping = asyncio.create_task(ending.stop())
    soon_over = timezone.now() + timedelta(seconds=2 * ending.context.settings.leave_grace)
    leases = PresenceNode.objects.filter(pk=ending.id, lease__lt=soon_over)
    try:
        async with asyncio.timeout(PATIENCE):
            while not await leases.aexists():  # noqa: ASYNC110 (a row has no event)
                await asyncio.sleep(0)
        assert not stopping.done()
    finally:
        never.set()
        await stopping


@pytest.mark.usefixtures("sweeps_at_once")
async def test_a_longer_grace_period_of_the_room_applies_to_users_of_a_process_that_ended(
    start: Start, chat: Application, clock: SimpleNamespace
) -> None:
    await Room.objects.acreate(application=chat, name="lobby", leave_grace=100)
    ending, here = await start(leave_grace=0), await start(leave_grace=0)
    witness = await Client.named(here, "witness", "lobby")
    ann, bob = await Client.named(ending, "ann", "lobby"), await Client.named(ending, "bob", "lobby")
    await witness.until(lambda: events_about(witness, "bob"))
    await ending.leave.hand_over()
    await here.leave.heartbeat()
    await here.context.tasks.drain()
    assert await member_names(witness, "lobby") == ["ann", "bob", "witness"]
    await returned(here, bob, "lobby")
    assert (events_about(witness, "ann"), events_about(witness, "bob")) == (
        [("joined", None)],
        [("joined", None)],
    )
    await run_due_actions(here, clock)
    assert events_about(witness, "ann") == [("joined", None), ("left", "dropped")]
    assert events_about(witness, "bob") == [("joined", None)]
    assert await member_names(witness, "lobby") == ["bob", "witness"]
    for client in (ann, bob):
        client.disconnect()


@pytest.mark.usefixtures("sweeps_at_once")
async def test_users_of_a_process_that_was_presumed_dead_are_announced_again(
    start: Start,
) -> None:
    slow, here = await start(), await start()
    for node in (slow, here):
        stop_periodic(node)
    bob, ann = await Client.named(here, "bob", "lobby"), await Client.named(slow, "ann", "lobby")
    eve = await Client.named(slow, "eve", "lobby")
    await bob.until(lambda: events_about(bob, "eve"))
    await PresenceNode.objects.filter(pk=slow.id).aupdate(lease=timezone.now() - timedelta(seconds=1))
    await here.leave.heartbeat()
    await bob.until(lambda: events_about(bob, "ann")[1:] and events_about(bob, "eve")[1:])
    found = await slow.context.presence.heartbeat()
    # Eve leaves before the return is announced, so it is not.
    await eve.request(Leave(room="lobby"))
    slow.context.presence.heartbeat = finding(found)  # type: ignore[method-assign]
    await slow.leave.heartbeat()
    await slow.context.tasks.drain()
    await bob.until(lambda: events_about(bob, "ann")[2:])
    assert events_about(bob, "ann") == [("joined", None), ("left", "dropped"), ("joined", None)]
    assert events_about(bob, "eve") == [("joined", None), ("left", "dropped"), ("left", "left")]
    assert await member_names(bob, "lobby") == ["ann", "bob"]
    ann.disconnect()


async def test_a_user_that_returned_before_the_departure_is_announced_has_not_left(start: Start) -> None:
    here = await start()
    ann, bob = await Client.named(here, "ann", "lobby"), await Client.named(here, "bob", "lobby")
    room = here.context.registry.cached_room("chat", "lobby")
    assert room is not None
    assert ann.connection.user is not None
    absent = User(name="eve", id="guest-eve", guest=True)
    found = [Departure(room.key, user) for user in (ann.connection.user, absent)]
    here.context.presence.heartbeat = finding(found)  # type: ignore[method-assign]
    await here.leave.heartbeat()
    await here.context.tasks.drain()
    assert events_about(bob, "eve") == [("left", "dropped")]
    assert events_about(bob, "ann") == []


async def test_a_node_and_its_presence_have_one_id(start: Start) -> None:
    here, there = await start(), await start()
    assert here.id == here.context.presence.node
    assert here.id != there.id


# Failures ----------------------------------------------------------------------------------------


async def test_a_failed_departure_is_retried(
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
        await run_due_actions(node, clock)
    assert events_about(ann, "bob") == [("joined", None), ("left", "dropped")]
    assert node.context.delayed.pop_due() == []


async def test_an_action_that_always_fails_runs_five_times(node: Node, clock: SimpleNamespace) -> None:
    tries = 0

    async def fail() -> None:
        nonlocal tries
        tries += 1
        raise ZeroDivisionError

    await node.context.run_to_completion(fail)
    for _ in range(10):
        await run_due_actions(node, clock)
    assert tries == 5


async def test_a_join_that_waits_too_long_for_earlier_ones_is_refused(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    room = node.context.registry.cached_room("chat", "lobby")
    assert room is not None
    monkeypatch.setattr(join, "ADMISSION_TIMEOUT", 0.01)
    async with room.lock:
        error = await error_of(Unavailable, bob.request(Join(room="lobby")))
        assert error.retry
    await bob.request(Join(room="lobby"))
    assert await member_names(ann, "lobby") == ["ann", "bob"]
