"""Roomer clients that join, leave, send and disconnect in any order, on a real node.

Each client's member lists agree with the server, and no state of a disconnected client is left. The
sockets are in memory; behind them is the session of real ones (``node/session.py``).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule, run_state_machine_as_test

from rooms.compat.roomer import Roomer
from rooms.consumers import commands_of
from rooms.hub.room import Room as HubRoom
from rooms.models import Application, Room
from rooms.node import config, registry
from rooms.node.node import Node
from rooms.node.session import Session, make_connection
from tests.node.clients import PATIENCE

if TYPE_CHECKING:
    from rooms.hub.connection import Connection
    from rooms.hub.group import Group

ROOMS = ("root", "red", "blue")

_numbers = itertools.count(1)


def frame(room: str, event: str, to: str = "", payload: str = "") -> bytes:
    fields = (room, event, to, "", payload)
    return b"".join(struct.pack(">I", len(text)) + text for text in map(str.encode, fields))


def fields_of(frame: bytes) -> list[str]:
    fields = []
    while frame:
        (length,) = struct.unpack_from(">I", frame)
        fields.append(frame[4 : 4 + length].decode())
        frame = frame[4 + length :]
    return fields


class Socket:
    """A WebSocket without a network. ``sent.put_nowait(None)`` ends it."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.got: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def next(self) -> bytes | None:
        return await self.sent.get()

    async def send(self, frame: bytes, *, binary: bool) -> None:
        assert binary
        self.got.put_nowait(frame)

    async def close(self, code: int, reason: str) -> None:
        self.got.put_nowait(None)
        self.sent.put_nowait(None)


class Client:
    """Behaves as the original client. ``members`` are the member lists of the rooms that it is in."""

    def __init__(self, node: Node, application: str) -> None:
        self.id = f"{next(_numbers):08x}-0000-4000-8000-000000000000"
        self.members: dict[str, set[str]] = {}
        # The rooms that it last asked to be in, except those that were closed.
        self.wants: set[str] = {"root"}
        self._socket = Socket()
        self._echoes = itertools.count(1)
        self.connection = make_connection(node, self.id, Roomer(), application=application, address="")
        session = Session(node, commands_of(node), self.connection, self._socket)
        self.serving = asyncio.create_task(session.run(None))

    def join(self, room: str) -> None:
        self.wants.add(room)
        self._socket.sent.put_nowait(frame(room, "join", self.id, self.id))

    def leave(self, room: str) -> None:
        self.wants.discard(room)
        self._socket.sent.put_nowait(frame(room, "leave", "", self.id))

    def send_text(self, room: str, text: str, to: str = "") -> None:
        self._socket.sent.put_nowait(frame(room, "note", to, text))

    def disconnect(self) -> None:
        """End the socket; what was sent before is still read."""
        self._socket.sent.put_nowait(None)

    def send_malformed(self) -> None:
        """Violate the protocol, so that the server closes the socket."""
        self._socket.sent.put_nowait(b"nonsense")

    async def sync(self) -> None:
        """Wait until this client's commands are executed and all frames so far are received."""
        mark = f"echo {next(self._echoes)}"
        self.send_text("root", mark, to=self.id)
        async with asyncio.timeout(PATIENCE):
            while (got := await self._socket.got.get()) is not None:
                room, event, to, sender, payload = fields_of(got)
                if payload == mark:
                    assert (room, event, to, sender) == ("root", "note", self.id, self.id)
                    return
                if to != self.id:
                    self._take(room, event, sender, payload)
        raise AssertionError("the server closed the socket")

    def _take(self, room: str, event: str, sender: str, payload: str) -> None:
        if event == "join_ack":
            assert sender == self.id
            self.members[room] = set(json.loads(payload))
        elif event == "leave_ack":
            assert sender == payload == self.id
            self.members.pop(room, None)
        else:
            assert room in self.members, f"received {event} of {room} without being a member"
            assert sender != self.id
            if event == "new_member":
                self.members[room].add(payload)
            elif event == "member_left":
                self.members[room].discard(payload)


class World:
    """A node in a loop of its own, and an application of its own for each example."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.node = runner.run(Node.get_or_start())
        self.application = ""
        self.clients: list[Client] = []
        # Every room of the example, also those that the registry has removed.
        self.rooms: list[HubRoom] = []

    async def begin(self) -> None:
        """Create an application whose rooms go with their last member."""
        self.application = f"roomer-{next(_numbers)}"
        self.rooms.clear()
        create = partial(Application.objects.create, name=self.application, history="memory")
        # In a thread, because the node receives the change in this loop.
        await self.node.context.pool.run(partial(create, rooms_on_demand=True, request_rate=0))

    async def connect(self) -> Client:
        client = Client(self.node, self.application)
        self.clients.append(client)
        return client

    async def sync(self) -> None:
        """Wait until all commands are executed and all clients have received the results."""
        for client in [each for each in self.clients if each.serving.done()]:
            self.clients.remove(client)
        for client in self.clients:
            await client.sync()
        await self.node.context.tasks.drain()
        for client in self.clients:
            await client.sync()

    async def end(self, client: Client) -> None:
        """Wait until the server has cleaned up after a socket."""
        async with asyncio.timeout(PATIENCE):
            await client.serving
        self.clients.remove(client)

    async def empty(self) -> None:
        """Disconnect all clients."""
        for client in list(self.clients):
            # A client that disconnects has no unwritten frames.
            await self.sync()
            client.disconnect()
            await self.end(client)
        await self.node.context.tasks.drain()

    async def present(self) -> dict[str, set[str]]:
        """Return the members of each room that has any, as the server has them."""
        application = await self.node.context.registry.application(self.application)
        assert application is not None
        found: dict[str, set[str]] = {}
        for name in ROOMS:
            room = await self.node.context.registry.find_room(application, name)
            if room is not None:
                page = await self.node.context.presence.members(room.key)
                found[name] = {user.name for user in page.users}
        return {name: members for name, members in found.items() if members}

    async def close(self, name: str) -> None:
        """Delete a room with its members in it."""
        context = self.node.context
        application = await context.registry.application(self.application)
        assert application is not None
        room = await context.registry.find_room(application, name)
        if room is not None:
            await context.pool.run(config.delete_room, room.config.id)

    def connections(self) -> set[Connection]:
        """Return all connections that the node still has."""
        groups: list[Group] = [*self.rooms]
        for application in self.node.context.registry.applications():
            groups += [application.members, application.room_list]
        return {each for group in groups for each in group.members} | set(self.node.connections)


@contextmanager
def world() -> Iterator[World]:
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        made = World(runner)

        def room(*arguments: Any, **options: Any) -> HubRoom:
            made.rooms.append(HubRoom(*arguments, **options))
            return made.rooms[-1]

        patch.setattr(registry, "Room", room)
        try:
            yield made
        finally:
            runner.run(made.node.stop())


async def run_turns(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


class Roomers(RuleBasedStateMachine):
    """Commands are only queued, so that those of several clients are under way together."""

    world: World
    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.run = self.world.runner.run
        self.run(self.world.begin())
        self._texts = itertools.count(1)

    @rule(target=clients)
    def connect(self) -> Client:
        return self.run(self.world.connect())

    @rule(client=clients, room=st.sampled_from(ROOMS))
    def join(self, client: Client, room: str) -> None:
        client.join(room)

    @rule(client=clients, room=st.sampled_from(ROOMS))
    def leave(self, client: Client, room: str) -> None:
        client.leave(room)

    @rule(client=clients, room=st.sampled_from(ROOMS))
    def send_text(self, client: Client, room: str) -> None:
        client.send_text(room, f"text {next(self._texts)}")

    @rule(client=clients, other=clients)
    def send_direct(self, client: Client, other: Client) -> None:
        client.send_text("root", f"text {next(self._texts)}", to="" if client is other else other.id)

    @rule(client=consumes(clients), broken=st.booleans())
    def disconnect(self, client: Client, broken: bool) -> None:
        if broken:
            client.send_malformed()
        else:
            client.disconnect()
        self.run(self.world.end(client))

    @rule(turns=st.integers(1, 30))
    def run_loop(self, turns: int) -> None:
        self.run(run_turns(turns))

    @rule()
    def check(self) -> None:
        """All clients know the members, and are in the rooms that they asked for."""
        self.run(self.world.sync())
        present = self.run(self.world.present())
        wanted: defaultdict[str, set[str]] = defaultdict(set)
        for client in self.world.clients:
            for room in client.wants:
                wanted[room].add(client.id)
        assert present == wanted
        for client in self.world.clients:
            known = {room: members for room, members in present.items() if client.id in members}
            assert client.members == known
            assert set(client.connection.memberships) == client.wants
        assert self.world.connections() == {client.connection for client in self.world.clients}

    @rule(room=st.sampled_from(ROOMS[1:]))
    def close_a_room(self, room: str) -> None:
        self.check()
        self.run(self.world.close(room))
        for client in self.world.clients:
            client.wants.discard(room)
        self.check()

    def teardown(self) -> None:
        clients = list(self.world.clients)
        try:
            self.check()
        finally:
            self.run(self.world.empty())
        for client in clients:
            assert client.connection.pending_bytes == 0
            assert not client.connection.memberships
        assert self.world.connections() == set()
        assert self.run(self.world.present()) == {}
        assert not Room.objects.filter(application__name=self.world.application).exists()


@pytest.mark.usefixtures("transactional_db", "unreliable_layer")
def test_clients_know_all_members_and_no_state_of_disconnected_ones_is_left() -> None:
    with world() as made:
        machine = type("Machine", (Roomers,), {"world": made})
        settings: Any = hypothesis.settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[hypothesis.HealthCheck.too_slow],
        )
        run_state_machine_as_test(machine, settings=settings)
