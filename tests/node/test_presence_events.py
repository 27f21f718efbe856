"""Who comes and who goes is told in the order in which presence has it; what crossed is put right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from rooms.extensions import Extension
from rooms.extensions.contexts import JoinEvent, LeaveEvent
from rooms.models import Application, Room
from rooms.node import presence_events
from rooms.node.node import Node
from rooms.protocol.commands import Join, Leave, Login
from rooms.protocol.errors import RoomClosed
from tests.node.clients import Client, Install, MakeEngine, present, refused, soon

SHARED = {"presence": {"BACKEND": "rooms.presence.database.DatabasePresence"}}


class Held:
    """Carries out what it is asked; the answer comes when it may ``go``."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self.done, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        answer = await self._work(*arguments, **options)
        self.done.set()
        await soon(self.go)
        return answer


class Diary(Extension):
    """Notes who comes and who goes."""

    happened: ClassVar[list[str]]

    async def on_join(self, event: JoinEvent) -> None:
        self.happened.append(f"+{event.user.name}")

    async def on_leave(self, event: LeaveEvent) -> None:
        self.happened.append(f"-{event.user.name}")


@pytest.fixture
def diary(installed: Install, chat: Application) -> list[str]:
    """What happens in the lobby, as its extension hears it."""
    Diary.happened = []
    Room.objects.create(application=chat, name="lobby", extension=installed(Diary))
    return Diary.happened


@pytest.fixture
async def pair(make_node: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> tuple[Node, Node]:
    """Two processes in which nothing happens by itself."""
    monkeypatch.setattr(presence_events, "VERIFY_AFTER_SECONDS", 0)
    here, there = await make_node(**SHARED), await make_node(**SHARED)
    for node in (here, there):
        assert node._ticking is not None
        node._ticking.cancel()
    return here, there


async def again(node: Node, client: Client) -> Client:
    """The same user on another connection."""
    other = Client(node)
    await other.connect()
    await other.ask(Login(token=(await client.ask(Login()))["token"]))
    return other


def told_of(client: Client, name: str) -> list[str]:
    return [frame["type"] for frame in client.told("joined", "left") if frame["user"]["name"] == name]


async def test_who_comes_while_going_is_told_in_that_order(
    diary: list[str], node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob, ann = await Client.named(node, "bob", "lobby"), await Client.named(node, "ann", "lobby")
    double = await again(node, ann)
    remove, removed = node.context.presence.remove, asyncio.Event()

    async def slowly(*arguments: Any) -> bool:
        out = await remove(*arguments)
        removed.set()
        # In so many turns of the loop anybody comes in who does not wait for this answer.
        for _ in range(200):
            await asyncio.sleep(0)
        return out

    monkeypatch.setattr(node.context.presence, "remove", slowly)
    leaving = asyncio.create_task(ann.ask(Leave(room="lobby")))
    await soon(removed)
    await double.ask(Join(room="lobby"))
    await leaving
    await node.context.tasks.drain()
    assert told_of(bob, "ann") == ["joined", "left", "joined"]
    assert diary == ["+bob", "+ann", "-ann", "+ann"]


async def test_one_who_went_before_they_came_again_is_asked_about(
    diary: list[str], pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    ann = await Client.named(here, "ann", "lobby")
    double = await again(there, ann)
    find = Held(there.context.presence.find)
    monkeypatch.setattr(there.context.presence, "find", find)
    joining = asyncio.create_task(double.ask(Join(room="lobby")))
    await soon(find.done)
    await ann.ask(Leave(room="lobby"))
    await here.context.tasks.drain()
    find.go.set()
    await joining
    assert diary == ["+ann", "-ann", "+ann"]


async def test_words_of_two_processes_that_crossed_are_put_right(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    bob, ann = await Client.named(there, "bob", "lobby"), await Client.named(here, "ann", "lobby")
    eve = await Client.named(here, "eve", "lobby")
    double = await again(there, ann)
    remove = Held(here.context.presence.remove_all)
    monkeypatch.setattr(here.context.presence, "remove_all", remove)
    leaving = asyncio.create_task(ann.ask(Leave(room="lobby")))
    await soon(remove.done)
    await double.ask(Join(room="lobby"))
    await eve.until(lambda: told_of(eve, "ann"))
    remove.go.set()
    await leaving
    await bob.until(lambda: "left" in told_of(bob, "ann"))
    assert told_of(bob, "ann")[-1] == told_of(eve, "ann")[-1] == "left"
    # She leaves while she is looked for, and that crosses as well.
    find = Held(here.context.presence.find)
    monkeypatch.setattr(here.context.presence, "find", find)
    looking = asyncio.create_task(here.departing.beat())
    await soon(find.done)
    await double.ask(Leave(room="lobby"))
    await eve.until(lambda: told_of(eve, "ann").count("left") == 2)
    find.go.set()
    await looking
    assert told_of(eve, "ann")[-1] == "joined"
    await here.departing.beat()
    await bob.until(lambda: told_of(bob, "ann").count("left") == 3)
    assert told_of(bob, "ann")[-1] == told_of(eve, "ann")[-1] == "left"
    # By now all are sure.
    heard = len(eve.heard)
    for node in (*pair, *pair):
        await node.leave.heartbeat()
    assert len(eve.told("joined", "left", "reply")) <= heard
    assert await present(eve, "lobby") == ["bob", "eve"]


async def test_who_is_there_after_their_first_connection_failed_is_told(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    bob, ann = await Client.named(here, "bob", "lobby"), await Client.named(here, "ann")
    double = await again(there, ann)
    add = Held(here.context.presence.add)
    monkeypatch.setattr(here.context.presence, "add", add)
    joining = asyncio.create_task(ann.ask(Join(room="lobby")))
    await soon(add.done)
    await double.ask(Join(room="lobby"))
    ann.disconnect()
    add.go.set()
    await refused(RoomClosed, joining)
    await here.context.tasks.drain()
    assert told_of(bob, "ann") == []
    await here.departing.beat()
    assert told_of(bob, "ann") == ["joined"]


async def test_what_is_told_while_somebody_is_looked_for_is_newer(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = pair
    bob, ann = await Client.named(here, "bob", "lobby"), await Client.named(here, "ann", "lobby")
    await ann.ask(Leave(room="lobby"))
    room = here.context.registry.cached_room("chat", "lobby")
    assert room is not None
    assert ann.connection.user is not None
    find, subscribe = here.context.presence.find, here.context.broker.subscribe
    # Once she has come before the answer, and once she is still on her way in.
    for on_her_way in (False, True):
        if on_her_way:
            await ann.ask(Leave(room="lobby"))
            here.departing.comings.returned(room, ann.connection.user)
        looked_for, followed = Held(find), Held(subscribe)
        monkeypatch.setattr(here.context.presence, "find", looked_for)
        looking = asyncio.create_task(here.departing.beat())
        await soon(looked_for.done)
        monkeypatch.setattr(here.context.presence, "find", find)
        monkeypatch.setattr(here.context.broker, "subscribe", followed)
        joining = asyncio.create_task(ann.ask(Join(room="lobby")))
        await soon(followed.done)
        if not on_her_way:
            followed.go.set()
            await joining
        looked_for.go.set()
        await looking
        followed.go.set()
        await joining
    assert told_of(bob, "ann") == ["joined", "left", "joined", "left", "joined", "joined"]
