"""Roomer clients who come, go, speak and vanish in any order, on the real engine: what each is told of who is
where is so, and of who is gone nothing is left.

The sockets are in memory; everything behind them is what serves real ones (``node/session.py``).
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
from rooms.models import Application, Room
from rooms.node import config
from rooms.node.node import Node
from rooms.node.session import Session, make_connection
from tests.node.clients import PATIENCE

if TYPE_CHECKING:
    from rooms.hub.connection import Connection

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
    """A WebSocket without a network. ``put(None)`` is its end."""

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
    """A roomer client as the original's are: ``members`` is what it knows of the rooms that it is in."""

    def __init__(self, node: Node, application: str) -> None:
        self.id = f"{next(_numbers):08x}-0000-4000-8000-000000000000"
        self.members: dict[str, set[str]] = {}
        # What it last asked for about each room, as long as nobody else put it out.
        self.wants: set[str] = {"root"}
        self._socket = Socket()
        self._echoes = itertools.count(1)
        self.connection = make_connection(node, self.id, Roomer(), application=application, address="")
        service = Session(node, commands_of(node), self.connection, self._socket)
        self.serving = asyncio.create_task(service.run(None))

    def join(self, room: str) -> None:
        self.wants.add(room)
        self._socket.sent.put_nowait(frame(room, "join", self.id, self.id))

    def leave(self, room: str) -> None:
        self.wants.discard(room)
        self._socket.sent.put_nowait(frame(room, "leave", "", self.id))

    def say(self, room: str, text: str, to: str = "") -> None:
        self._socket.sent.put_nowait(frame(room, "note", to, text))

    def vanish(self) -> None:
        """The socket ends; what was sent before it is still read."""
        self._socket.sent.put_nowait(None)

    def break_off(self) -> None:
        """The peer breaks the protocol and is cut off."""
        self._socket.sent.put_nowait(b"nonsense")

    async def catch_up(self) -> None:
        """All that this client asked is done, and all that it was told so far is heard."""
        mark = f"echo {next(self._echoes)}"
        self.say("root", mark, to=self.id)
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
            assert room in self.members, f"heard {event} of {room} without being in it"
            assert sender != self.id
            if event == "new_member":
                self.members[room].add(payload)
            elif event == "member_left":
                self.members[room].discard(payload)


class World:
    """An engine in a loop of its own, and an application in it that begins anew with each example."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.node = runner.run(Node.get_or_start())
        self.application = ""
        self.clients: list[Client] = []

    async def begin(self) -> None:
        """An application of its own, whose rooms go with their last member."""
        self.application = f"roomer-{next(_numbers)}"
        create = partial(Application.objects.create, name=self.application, history="memory")
        # In a thread, because the engine is told of it in this loop.
        await self.node.context.pool.run(partial(create, rooms_on_demand=True, request_rate=0))

    async def connect(self) -> Client:
        client = Client(self.node, self.application)
        self.clients.append(client)
        return client

    async def settle(self) -> None:
        """Everything that was asked is done, and everybody has heard of it."""
        for client in [each for each in self.clients if each.serving.done()]:
            self.clients.remove(client)
        for client in self.clients:
            await client.catch_up()
        await self.node.context.tasks.drain()
        for client in self.clients:
            await client.catch_up()

    async def end(self, client: Client) -> None:
        """Wait until the server is through with a socket that ends."""
        async with asyncio.timeout(PATIENCE):
            await client.serving
        self.clients.remove(client)

    async def empty(self) -> None:
        """Everybody goes."""
        for client in list(self.clients):
            # Nobody goes with something that was told and is not yet written.
            await self.settle()
            client.vanish()
            await self.end(client)
        await self.node.context.tasks.drain()

    async def present(self) -> dict[str, set[str]]:
        """Who is in which room, as the server has it; only of rooms where somebody is."""
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
        """Take a room away under the feet of its members."""
        parts = self.node.context
        application = await context.directory.application(self.application)
        assert application is not None
        room = await context.directory.find_room(application, name)
        if room is not None:
            await context.pool.run(config.delete_room, room.config.id)

    def connections(self) -> set[Connection]:
        """Whoever the engine still holds on to."""
        hub = self.node.context.hub
        return {each for group in hub.groups() for each in hub.members(group)} | set(self.node.connections)


@contextmanager
def world() -> Iterator[World]:
    with asyncio.Runner() as runner:
        made = World(runner)
        try:
            yield made
        finally:
            runner.run(made.node.stop())


async def let_others_run(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


class Roomers(RuleBasedStateMachine):
    """What is asked is only put on its way, so that requests of several clients are under way together."""

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
    def say(self, client: Client, room: str) -> None:
        client.say(room, f"text {next(self._texts)}")

    @rule(client=clients, other=clients)
    def whisper(self, client: Client, other: Client) -> None:
        client.say("root", f"text {next(self._texts)}", to="" if client is other else other.id)

    @rule(client=consumes(clients), broken=st.booleans())
    def go(self, client: Client, broken: bool) -> None:
        if broken:
            client.break_off()
        else:
            client.vanish()
        self.run(self.world.end(client))

    @rule(turns=st.integers(1, 30))
    def let_time_pass(self, turns: int) -> None:
        self.run(let_others_run(turns))

    @rule()
    def look(self) -> None:
        """Everybody knows who is where, and is where they want to be."""
        self.run(self.world.settle())
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
        self.look()
        self.run(self.world.close(room))
        for client in self.world.clients:
            client.wants.discard(room)
        self.look()

    def teardown(self) -> None:
        clients = list(self.world.clients)
        try:
            self.look()
        finally:
            self.run(self.world.empty())
        for client in clients:
            assert client.connection.waiting == 0
            assert not client.connection.memberships
        assert self.world.connections() == set()
        assert self.run(self.world.present()) == {}
        assert not Room.objects.filter(application__name=self.world.application).exists()


@pytest.mark.usefixtures("transactional_db", "wire")
def test_whoever_is_told_of_knows_who_is_where_and_of_the_gone_nothing_is_left() -> None:
    with world() as made:
        machine = type("Machine", (Roomers,), {"world": made})
        settings: Any = hypothesis.settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[hypothesis.HealthCheck.too_slow],
        )
        run_state_machine_as_test(machine, settings=settings)
