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
from tests.node.clients import Client, error_of, run_due_actions, wait_for
from tests.node.unreliable_layer import UnreliableLayer


def names(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["user"]["name"] for frame in frames]


async def test_a_leave_is_announced_and_ends_the_membership(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    assert await bob.request(Leave(room="lobby")) == {}
    assert [(frame["user"]["name"], frame["reason"]) for frame in ann.received("left")] == [("bob", "left")]
    assert bob.received("left") == []
    await ann.send("lobby", "not for others")
    assert bob.messages() == []
    await error_of(NotMember, bob.request(Leave(room="lobby")))
    await error_of(NotMember, bob.send("lobby", "not for others"))
    for command in (ListMembers(room="lobby"), ReadHistory(room="lobby")):
        await error_of(NotMember, bob.request(command))


async def test_a_dropped_user_leaves_after_the_grace_period(node: Node, clock: SimpleNamespace) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    bob.disconnect()
    await node.context.tasks.drain()
    assert ann.received("left") == []
    assert (await ann.request(ListMembers(room="lobby")))["count"] == 2
    await run_due_actions(node, clock)
    assert [(frame["user"]["name"], frame["reason"]) for frame in ann.received("left")] == [
        ("bob", "dropped")
    ]
    assert (await ann.request(ListMembers(room="lobby")))["count"] == 1


async def test_a_return_within_the_grace_period_is_not_announced(node: Node, clock: SimpleNamespace) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    token = next(frame["data"]["token"] for frame in bob.received("reply") if "token" in frame["data"])
    bob.disconnect()
    await node.context.tasks.drain()
    again = Client(node)
    await again.connect()
    await again.request(Login(token=token))
    await again.request(Join(room="lobby"))
    await run_due_actions(node, clock)
    assert ann.received("left") == []
    assert names(ann.received("joined")) == ["bob"]
    assert (await ann.request(ListMembers(room="lobby")))["count"] == 2


async def test_a_room_has_its_own_grace_period(node: Node, chat: Application, clock: SimpleNamespace) -> None:
    await Room.objects.acreate(application=chat, name="strict", leave_grace=0)
    ann, bob = await Client.named(node, "ann", "strict"), await Client.named(node, "bob", "strict")
    bob.disconnect()
    await node.context.tasks.drain()
    for action in node.context.delayed.pop_due():
        await action()
    assert names(ann.received("left")) == ["bob"]


async def test_a_temporary_room_is_deleted_with_its_last_member(node: Node, chat: Application) -> None:
    await Room.objects.acreate(application=chat, name="brief", persistent=False)
    ann, bob = await Client.named(node, "ann", "brief"), await Client.named(node, "bob", "brief")
    await ann.request(Leave(room="brief"))
    assert await Room.objects.filter(name="brief").aexists()
    await bob.request(Leave(room="brief"))
    await node.context.tasks.drain()
    assert not await Room.objects.filter(name="brief").aexists()
    # Created again, it is another room.
    data = await ann.request(Join(room="brief"))
    assert (data["room"]["owner"], data["position"]["seq"]) == ("ann", 0)


async def test_the_process_is_subscribed_to_a_room_while_it_has_members_in_it(
    node: Node, unreliable_layer: UnreliableLayer
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    group = ann.connection.memberships["lobby"].room.key
    assert group in unreliable_layer.groups
    await ann.request(Leave(room="lobby"))
    await node.context.tasks.drain()
    assert group in unreliable_layer.groups
    bob.disconnect()
    await node.context.tasks.drain()
    assert group not in unreliable_layer.groups


async def test_the_reply_to_a_leave_follows_the_change_of_presence(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await Client.named(node, "ann", "lobby")
    presence, asked, go = node.context.presence, asyncio.Event(), asyncio.Event()
    remove = presence.remove

    async def slow(*arguments: Any, **named: Any) -> Any:
        asked.set()
        await wait_for(go)
        return await remove(*arguments, **named)

    monkeypatch.setattr(presence, "remove", slow)
    before = len(ann.frames)
    leaving = asyncio.create_task(ann.request(Leave(room="lobby")))
    await wait_for(asked)
    ann.read()
    assert ann.frames[before:] == []
    go.set()
    assert await leaving == {}
