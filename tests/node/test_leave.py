"""The leave command, disconnects, grace periods and the removal of empty rooms."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from rooms.models import Application, Room
from rooms.node.node import Node
from rooms.protocol.commands import Join, Leave, ListMembers, Login, ReadHistory
from rooms.protocol.errors import NotMember
from tests.node.clients import Client, let_time_pass, refused, soon
from tests.node.wires import Wire


def names(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["user"]["name"] for frame in frames]


async def test_a_leave_is_announced_and_ends_the_membership(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    assert await bob.ask(Leave(room="lobby")) == {}
    assert [(frame["user"]["name"], frame["reason"]) for frame in ann.told("left")] == [("bob", "left")]
    assert bob.told("left") == []
    await ann.say("lobby", "not for others")
    assert bob.messages() == []
    await refused(NotMember, bob.ask(Leave(room="lobby")))
    await refused(NotMember, bob.say("lobby", "not for others"))
    for command in (ListMembers(room="lobby"), ReadHistory(room="lobby")):
        await refused(NotMember, bob.ask(command))


async def test_a_dropped_user_leaves_after_the_grace_period(node: Node, clock: SimpleNamespace) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    bob.disconnect()
    await node.context.tasks.drain()
    assert ann.told("left") == []
    assert (await ann.ask(ListMembers(room="lobby")))["count"] == 2
    await let_time_pass(node, clock)
    assert [(frame["user"]["name"], frame["reason"]) for frame in ann.told("left")] == [("bob", "dropped")]
    assert (await ann.ask(ListMembers(room="lobby")))["count"] == 1


async def test_a_return_within_the_grace_period_is_not_announced(node: Node, clock: SimpleNamespace) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    token = next(frame["data"]["token"] for frame in bob.told("reply") if "token" in frame["data"])
    bob.disconnect()
    await node.context.tasks.drain()
    again = Client(node)
    await again.connect()
    await again.ask(Login(token=token))
    await again.ask(Join(room="lobby"))
    await let_time_pass(node, clock)
    assert ann.told("left") == []
    assert names(ann.told("joined")) == ["bob"]
    assert (await ann.ask(ListMembers(room="lobby")))["count"] == 2


async def test_a_room_has_its_own_grace_period(node: Node, chat: Application, clock: SimpleNamespace) -> None:
    await Room.objects.acreate(application=chat, name="strict", leave_grace=0)
    ann, bob = await Client.named(node, "ann", "strict"), await Client.named(node, "bob", "strict")
    bob.disconnect()
    await node.context.tasks.drain()
    for action in node.context.delayed.pop_due():
        await action()
    assert names(ann.told("left")) == ["bob"]


async def test_a_temporary_room_is_deleted_with_its_last_member(node: Node, chat: Application) -> None:
    await Room.objects.acreate(application=chat, name="brief", persistent=False)
    ann, bob = await Client.named(node, "ann", "brief"), await Client.named(node, "bob", "brief")
    await ann.ask(Leave(room="brief"))
    assert await Room.objects.filter(name="brief").aexists()
    await bob.ask(Leave(room="brief"))
    await node.context.tasks.drain()
    assert not await Room.objects.filter(name="brief").aexists()
    # Created again, it is another room.
    data = await ann.ask(Join(room="brief"))
    assert (data["room"]["owner"], data["position"]["seq"]) == ("ann", 0)


async def test_the_process_is_subscribed_to_a_room_while_it_has_members_in_it(node: Node, wire: Wire) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    group = ann.connection.memberships["lobby"].room.key
    assert group in wire.groups
    await ann.ask(Leave(room="lobby"))
    await node.context.tasks.drain()
    assert group in wire.groups
    bob.disconnect()
    await node.context.tasks.drain()
    assert group not in wire.groups


async def test_the_reply_to_a_leave_follows_the_change_of_presence(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await Client.named(node, "ann", "lobby")
    presence, asked, go = node.context.presence, asyncio.Event(), asyncio.Event()
    remove = presence.remove

    async def slow(*arguments: Any, **named: Any) -> Any:
        asked.set()
        await soon(go)
        return await remove(*arguments, **named)

    monkeypatch.setattr(presence, "remove", slow)
    before = len(ann.heard)
    leaving = asyncio.create_task(ann.ask(Leave(room="lobby")))
    await soon(asked)
    ann.listen()
    assert ann.heard[before:] == []
    go.set()
    assert await leaving == {}
