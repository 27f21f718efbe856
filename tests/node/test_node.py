"""The node as a whole: start and stop, connections, and its services for code outside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from rooms.extensions import ConnectionEvent, Extension
from rooms.models import Application, Room
from rooms.node.node import Node
from rooms.presence import Departure
from rooms.protocol.commands import Join, ListRooms, Ping, Pong
from rooms.protocol.errors import RoomNotFound, Unavailable, UserNotFound
from rooms.protocol.types import User
from tests.node.clients import Client, active_groups

MakeNode = Callable[..., Awaitable[Node]]
Install = Callable[[type[Extension]], str]
PUBLISHED: dict[str, Any] = {"event": "news", "to": None, "state": False, "volatile": False}


async def connected(node: Node, **options: Any) -> Client:
    client = Client(node, **options)
    await client.connect()
    return client


# Life --------------------------------------------------------------------------------------------


async def test_all_connections_of_a_process_have_one_node(node: Node) -> None:
    assert Node.current() is node
    assert await asyncio.gather(*(Node.get_or_start() for _ in range(3))) == [node] * 3


async def test_a_stopped_node_is_not_current_and_closes_its_connections(chat: Application) -> None:
    node = await Node.get_or_start()
    client = await Client.named(node, "ann", "lobby")
    await node.stop()
    assert Node.current() is None
    assert client.closed == 4000
    another = await Node.get_or_start()
    assert another is not node
    await another.stop()


async def test_a_failed_start_is_retried_with_the_next_connection(
    chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Node) -> None:
        raise Unavailable("The layer is down.")

    with monkeypatch.context() as patch:
        patch.setattr(Node, "start", fail)
        with pytest.raises(Unavailable):
            await Node.get_or_start()
    node = await Node.get_or_start()
    assert Node.current() is node
    await node.stop()


async def test_no_state_is_left_of_disconnected_clients(node: Node, clock: SimpleNamespace) -> None:
    clients = [await Client.named(node, f"user {n}", "lobby", address="10.0.0.1") for n in range(3)]
    await clients[0].request(ListRooms())
    groups = active_groups(node)
    assert 3 in await node.context.presence.counts(groups)
    for client in clients:
        client.disconnect()
        client.disconnect()
    await node.context.tasks.drain()
    clock.now += 3600
    for action in node.context.delayed.pop_due():
        await action()
    await node.context.tasks.drain()
    assert node.connections == {}
    assert active_groups(node) == []
    assert not node._addresses._open
    assert set(await node.context.presence.counts(groups)) == {0}


# Connecting --------------------------------------------------------------------------------------


async def test_the_first_event_describes_the_connection(node: Node) -> None:
    client = await connected(node)
    assert client.read() == [
        {
            "type": "connected",
            "connection": client.connection.id,
            "application": "chat",
            "user": None,
            "ping": 25,
            "version": 1,
        }
    ]


@pytest.mark.parametrize("name", ["nowhere", "x" * 1000, "disabled"])
async def test_a_missing_or_disabled_application_closes_the_connection(node: Node, name: str) -> None:
    await Application.objects.acreate(name="disabled", enabled=False)
    client = await connected(node, application=name)
    assert client.closed == 4509
    assert [frame["type"] for frame in client.read()] == ["closing"]
    assert len(client.connection.close_reason) < 123
    client.disconnect()


async def test_the_connections_from_one_address_are_limited(node: Node, chat: Application) -> None:
    chat.max_connections_per_address = 2
    await chat.asave()
    await node.context.tasks.drain()
    first, _, third = [await connected(node, address="10.0.0.1") for _ in range(3)]
    other = await connected(node, address="10.0.0.2")
    assert (first.closed, third.closed, other.closed) == (None, 4505, None)
    third.disconnect()
    assert (await connected(node, address="10.0.0.1")).closed == 4505
    first.disconnect()
    assert (await connected(node, address="10.0.0.1")).closed is None


async def test_a_ping_is_answered_and_a_pong_is_not(node: Node) -> None:
    client = await connected(node)
    client.read()
    await client.request(Ping())
    assert client.received("pong")[0]["id"] == 1
    await client.request(Pong())
    assert client.read() == []


class RecordsConnections(Extension):
    calls: ClassVar[list[str]] = []

    def record(self, hook: str, event: ConnectionEvent) -> None:
        self.calls.append(f"{hook} {event.user.name if event.user else None} {event.address}")

    async def on_connect(self, event: ConnectionEvent) -> None:
        self.record("connect", event)

    async def on_login(self, event: ConnectionEvent) -> None:
        self.record("login", event)

    async def on_logout(self, event: ConnectionEvent) -> None:
        self.record("logout", event)

    def on_disconnect(self, event: ConnectionEvent) -> None:  # type: ignore[override]
        self.record("disconnect", event)
        raise ValueError("no connection is affected")


async def test_an_extension_receives_the_events_of_connections(
    chat: Application, install_extension: Install
) -> None:
    from rooms.protocol.commands import Login, Logout

    RecordsConnections.calls.clear()
    chat.extension = install_extension(RecordsConnections)
    await chat.asave()
    async with await Node.get_or_start() as node:
        client = await connected(node, address="10.0.0.1")
        await client.request(Login(name="ann"))
        await client.request(Logout())
        await client.request(Login(name="bob"))
        client.disconnect()
        await node.context.tasks.drain()
    assert RecordsConnections.calls == [
        *("connect None 10.0.0.1", "login ann 10.0.0.1", "logout ann 10.0.0.1", "login bob 10.0.0.1"),
        "disconnect bob 10.0.0.1",
    ]


# Services ----------------------------------------------------------------------------------------


async def test_a_message_of_the_server_has_no_sender(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    message = await node.services.publish("chat", "lobby", {"a": [1]}, **PUBLISHED)
    (received,) = ann.received("message")
    assert (received["event"], received["data"], received["from"]) == ("news", {"a": [1]}, None)
    assert (received["seq"], received["time"]) == (message.seq, message.time)


async def test_a_message_of_the_server_may_be_for_single_users(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    await node.services.publish("chat", "lobby", 1, **{**PUBLISHED, "to": ("ann",)})
    await node.services.publish("chat", "lobby", 2, **{**PUBLISHED, "to": "bob"})
    assert (ann.messages(), bob.messages()) == ([1], [2])
    with pytest.raises(UserNotFound):
        await node.services.publish("chat", "lobby", 1, **{**PUBLISHED, "to": "eve"})


async def test_a_message_to_a_missing_room_creates_it_on_demand_or_fails(
    node: Node, chat: Application
) -> None:
    await node.services.publish("chat", "new", 1, **PUBLISHED)
    assert (await Room.objects.aget()).name == "new"
    chat.rooms_on_demand = False
    await chat.asave()
    await node.context.tasks.drain()
    for application, room in (("chat", "newer"), ("nowhere", "new")):
        with pytest.raises(RoomNotFound):
            await node.services.publish(application, room, 1, **PUBLISHED)
        with pytest.raises(RoomNotFound):
            await node.services.members(application, room)
        with pytest.raises(RoomNotFound):
            await node.services.history(application, room, 9)


async def test_services_return_members_and_history(node: Node) -> None:
    ann, _ = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    for number in range(3):
        await ann.send("lobby", number)
    assert [user.name for user in await node.services.members("chat", "lobby")] == ["ann", "bob"]
    assert [message.value for message in await node.services.history("chat", "lobby", 2)] == [1, 2]


async def test_a_node_that_is_not_started_publishes_to_the_others(
    make_node: MakeNode, chat: Application
) -> None:
    await Room.objects.acreate(application=chat, name="durable", history="database")
    serving = await make_node()
    ann = await Client.named(serving, "ann", "durable")
    async with Node() as outside:
        await outside.services.publish("chat", "durable", "from outside", **PUBLISHED)
    await ann.until(lambda: ann.messages() == ["from outside"])
    assert ann.received("message")[0]["seq"] == 1


async def test_the_users_of_a_dead_process_are_announced_as_dropped(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await Client.named(node, "ann", "lobby")
    ghost = User(name="ghost", id="guest-9", guest=True)
    group = ann.connection.memberships["lobby"].room.key

    async def beat() -> list[Departure]:
        return [Departure("application.1", ghost), Departure("room.999999", ghost), Departure(group, ghost)]

    monkeypatch.setattr(node.context.presence, "heartbeat", beat)
    await node.leave.heartbeat()
    await node.context.tasks.drain()
    assert [(frame["user"]["name"], frame["reason"]) for frame in ann.received("left")] == [
        ("ghost", "dropped")
    ]


async def test_the_sweep_affects_no_active_room(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    await node._sweep()
    await ann.request(Join(room="lobby"))
    assert (await ann.send("lobby", 1))["seq"] == 1
