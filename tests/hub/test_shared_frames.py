"""Shared frames are what each member would receive alone, in the same order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from websockets.frames import Frame
from websockets.protocol import OPEN, Side
from websockets.protocol import Protocol as Peer

from rooms.hub import write_scheduler
from rooms.hub.connection import Connection
from rooms.hub.group import Group, Hub
from rooms.hub.room import Room
from rooms.hub.send_queue import SendQueueLimits
from rooms.hub.shared_frames import MAX_JOINED_FRAME, MAX_WINDOW, SharedFrames, framed, joined
from rooms.hub.write_scheduler import DirectWriter, WriteScheduler
from rooms.protocol import frame_protocol
from rooms.protocol.commands import Ping
from rooms.protocol.errors import CloseCode
from rooms.protocol.events import Event, Message
from tests.hub.codecs import Lines, Plain, Silent, Uppercase
from tests.hub.factories import (
    Loop,
    Socket,
    WiredRoom,
    add_members,
    at,
    connection,
    make_hub,
    make_room,
    message,
    received,
    text_frames,
)


@dataclass
class Model:
    """A room and a group, and what each client is expected to receive of them in the plainest way.

    All clients but the last are written to directly, two in a turn.
    """

    loop: Loop = field(default_factory=Loop)
    clients: list[Connection] = field(
        default_factory=lambda: [
            connection(kind(), "u") for kind in (Plain, Plain, Plain, Uppercase, Lines, Plain)
        ]
    )
    sent: int = 0

    def __post_init__(self) -> None:
        self.scheduler = WriteScheduler(self.loop.scheduled.append)
        hub = Hub(self.scheduler)
        self.groups: dict[str, Group] = {"room": make_room(hub), "group": Group(hub, "group")}
        self.sockets = [Socket() for _ in self.clients]
        for client, socket in zip(self.clients[:-1], self.sockets[:-1], strict=True):
            DirectWriter(client, socket, self.scheduler)
        self.members: dict[str, list[int]] = {"room": [], "group": []}
        self.expected: list[list[str]] = [[] for _ in self.clients]
        self.corked: list[list[str] | None] = [None for _ in self.clients]
        self.received: list[list[str]] = [[] for _ in self.clients]

    def broadcast(self, group: str, exclude: int | None, by_user: bool) -> None:
        self.sent += 1
        text = f"m{self.sent}"
        excluded = None if exclude is None else self.clients[exclude]
        self.groups[group].broadcast(message(text), exclude=excluded, only={"u"} if by_user else None)
        for member in self.members[group]:
            if member != exclude:
                uppercase = isinstance(self.clients[member].protocol, Uppercase)
                self._push(member, text.upper() if uppercase else text)

    def reply(self, client: int) -> None:
        self.clients[client].send(Ping())
        if self.clients[client].close_code is None:
            uppercase = isinstance(self.clients[client].protocol, Uppercase)
            self.expected[client].append("PING" if uppercase else "ping")

    def join(self, group: str, client: int) -> None:
        self.groups[group].add(self.clients[client])
        if client not in self.members[group]:
            self.members[group].append(client)

    def leave(self, group: str, client: int) -> None:
        self.groups[group].discard(self.clients[client])
        if client in self.members[group]:
            self.members[group].remove(client)

    def cork(self, client: int) -> None:
        self.clients[client].cork()
        if self.corked[client] is None:
            self.corked[client] = []

    def uncork(self, client: int) -> None:
        self.clients[client].uncork()
        corked, self.corked[client] = self.corked[client], None
        for each in corked or []:
            self._push(client, each)

    def turn(self) -> None:
        self.loop.turn()

    def stall(self, client: int) -> None:
        """The client reads no more."""
        self.sockets[client].reads = False

    def drain(self, client: int) -> None:
        """The client has read everything."""
        if self.clients[client].writing_since is not None:
            self.sockets[client].reads = True
            self.sockets[client].drained()

    def pop(self, client: int) -> None:
        """Take what is queued for a client, after what was written to it."""
        self._read(client)
        self.received[client] += [
            line for frame in received(self.clients[client]) for line in frame.split("\n")
        ]

    def close(self, client: int) -> None:
        if self.clients[client].close_code is None:
            self.uncork(client)
            self.clients[client].close(CloseCode.KICKED, "Out.")
            self.expected[client].append(f"closing {int(CloseCode.KICKED)}")

    def _push(self, client: int, text: str) -> None:
        if self.clients[client].close_code is None:
            corked = self.corked[client]
            (self.expected[client] if corked is None else corked).append(text)

    def _read(self, client: int) -> None:
        reader = Peer(Side.CLIENT, state=OPEN, max_size=None)
        for piece in self.sockets[client].written:
            reader.receive_data(piece)
        self.sockets[client].written.clear()
        for each in reader.events_received():
            assert isinstance(each, Frame)
            self.received[client] += bytes(each.data).decode().split("\n")


clients, groups = some.integers(0, 5), some.sampled_from(["room", "group"])
STEPS = some.one_of(
    some.tuples(some.just("broadcast"), groups, some.none() | clients, some.just(False)),
    some.tuples(some.just("broadcast"), groups, some.none(), some.just(False)),
    some.tuples(some.just("broadcast"), groups, some.none() | clients, some.booleans()),
    some.tuples(some.sampled_from(["join", "leave"]), groups, clients),
    some.tuples(some.sampled_from(["reply", "reply", "cork", "uncork", "pop", "close"]), clients),
    some.tuples(some.sampled_from(["stall", "drain"]), clients),
    some.tuples(some.just("turn")),
    some.tuples(some.just("turn")),
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.lists(STEPS, max_size=60))
def test_every_client_receives_the_same_as_alone_and_in_the_same_order(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[Any, ...]]
) -> None:
    monkeypatch.setattr(write_scheduler, "WRITES_PER_TURN", 2)
    model = Model()
    for index in range(len(model.clients)):
        model.join("room", index)
    for name, *arguments in steps:
        getattr(model, name)(*arguments)
    for index, client in enumerate(model.clients):
        model.uncork(index)
        assert client.pending_bytes == sum(map(len, _queued(client)))
        # A client that reads has everything after a few turns, any other when its queue is popped.
        if client.writing_since is None and index != len(model.clients) - 1:
            model.loop.run()
            assert client.pending_bytes == 0
        model.pop(index)
        assert client.pending_bytes == 0
    expected = [[each.upper() for each in texts] for texts in model.expected]
    assert [[each.upper() for each in texts] for texts in model.received] == expected


# Members that detach from a window ---------------------------------------------------------------


@pytest.fixture
def hub() -> Hub:
    return make_hub()


@pytest.fixture
def room(hub: Hub) -> Room:
    return make_room(hub)


def two_members(room: Room) -> tuple[Connection, Connection]:
    """Two members of a room, within an open window."""
    ann, bob = add_members(room, 2)
    room.broadcast(message("one"))
    return ann, bob


def test_a_member_that_joins_during_a_window_receives_the_rest(room: Room) -> None:
    two_members(room)
    (eve,) = add_members(room, 1)
    room.broadcast(message("two"))
    assert received(eve) == ["two"]


def test_a_member_that_leaves_during_a_window_receives_no_more(room: Room) -> None:
    ann, bob = two_members(room)
    room.discard(ann)
    room.broadcast(message("two"))
    assert (received(ann), received(bob)) == (["one"], ["one", "two"])


def test_a_corked_member_receives_the_rest_after_its_reply(room: Room) -> None:
    ann, bob = two_members(room)
    ann.cork()
    room.broadcast(message("two"))
    ann.send(Ping())
    ann.uncork()
    assert (received(ann), received(bob)) == (["one", "ping", "two"], ["one", "two"])


def test_events_of_two_rooms_are_received_in_the_order_of_the_broadcasts(hub: Hub, room: Room) -> None:
    ann, bob = two_members(room)
    other = make_room(hub, ann, id=2)
    other.broadcast(message("two"))
    room.broadcast(message("three"))
    other.broadcast(message("four"))
    assert (received(ann), received(bob)) == (["one", "two", "three", "four"], ["one", "three"])


def test_events_for_single_users_keep_their_order(room: Room) -> None:
    ann, bob = connection(user="ann"), connection()
    for each in (ann, bob):
        room.add(each)
    room.broadcast(message("one"))
    room.broadcast(message("two"), only={"ann"})
    room.broadcast(message("three"))
    assert (received(ann), received(bob)) == (["one", "two", "three"], ["one", "three"])


def test_an_excluded_member_receives_the_rest_and_the_others_keep_sharing(hub: Hub, room: Room) -> None:
    ann, bob = two_members(room)
    eve = connection()
    other = make_room(hub, eve, id=2)
    for excluded in (ann, None):
        room.broadcast(message("two"), exclude=excluded)
        other.broadcast(message("first"), exclude=eve)
    assert isinstance(bob.shared, SharedFrames)
    assert (received(ann), received(bob), received(eve)) == (["one", "two"], ["one", "two", "two"], [])


def test_a_member_that_leaves_before_all_is_written_receives_no_more(wired: WiredRoom) -> None:
    (ann, socket), *_ = [wired.client() for _ in range(write_scheduler.WRITES_PER_TURN + 1)][::-1]
    wired.broadcast("one")
    for _ in range(2):
        wired.loop.turn()
    assert socket.written == []
    wired.room.discard(ann)
    wired.broadcast("two")
    wired.loop.run()
    assert socket.written == [text_frames("one")]


def test_a_new_window_opens_when_all_members_have_detached(wired: WiredRoom) -> None:
    members = [wired.client() for _ in range(2)]
    wired.broadcast("one")
    for each, _ in members:
        each.send(Ping())
    wired.loop.run()
    wired.broadcast("two", "two", "two")
    assert len({each.shared for each, _ in members}) == 1
    wired.loop.run()
    expected = [text_frames("one", "ping"), text_frames("two", "two", "two")]
    assert [socket.written for _, socket in members] == [expected] * 2


def _queued(client: Connection) -> list[bytes]:
    """The frames that wait for a client; they stay in its queue."""
    return [*client._frames, *(frame for shared in client.shared_pending for frame in shared.frames)]


# Cost --------------------------------------------------------------------------------------------

MEMBERS, MESSAGES = 1000, 20


def test_the_events_of_a_turn_are_framed_once(wired: WiredRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(frame_protocol, "frame", lambda opcode, payload: made.append(opcode) or payload)
    members = [wired.client() for _ in range(MEMBERS)]
    Plain.encoded = 0
    for number in range(MESSAGES):
        # The sender receives its reply first, and the rest alone.
        members[number][0].send(Ping())
        wired.broadcast(f"m{number}")
    assert Plain.encoded == MESSAGES
    others = members[MESSAGES:]
    assert all(client._frames == [] for client, _ in others)
    assert len({client.shared for client, _ in others}) == 1
    wired.loop.run()
    assert len(made) == MESSAGES + sum(1 + MESSAGES for _ in range(MESSAGES))
    assert all(socket.written == others[0][1].written and len(socket.written) == 1 for _, socket in others)
    assert len({id(socket.written[0]) for _, socket in others}) == 1


async def test_no_task_is_created_for_a_member(wired: WiredRoom) -> None:
    members = [wired.client() for _ in range(MEMBERS)]
    before = asyncio.all_tasks()
    wired.broadcast("hi")
    wired.loop.run()
    assert all(socket.written for _, socket in members)
    assert asyncio.all_tasks() == before


def test_a_window_has_a_maximum_size(wired: WiredRoom) -> None:
    (ann, ann_socket), (_, bob_socket) = wired.client(), wired.client()
    half = "x" * (MAX_WINDOW // 2)
    wired.broadcast(*[half] * 4)
    assert ann.pending_bytes == 4 * len(half)
    wired.loop.run()
    assert [len(piece) > MAX_WINDOW for piece in ann_socket.written] == [True, False]
    assert ann_socket.written == bob_socket.written


def test_a_member_that_does_not_read_shares_no_frames(room: Room) -> None:
    slow, bob = add_members(room, 2)
    slow.writing_since = 1.0
    for _ in range(3):
        room.broadcast(message("hi"))
    assert (len(slow._frames), len(bob._frames)) == (3, 0)
    assert received(slow) == received(bob) == ["hi"] * 3


def test_a_client_with_a_writer_of_its_own_is_woken_when_the_window_closes(wired: WiredRoom) -> None:
    woken: list[int] = []
    client = Connection("c", Lines(), limits=SendQueueLimits(), wake=lambda: woken.append(1))
    wired.room.add(client)
    wired.broadcast("one", "two")
    assert woken == []
    wired.loop.run()
    assert woken == [1]
    assert received(client) == ["one\ntwo"]


def test_clients_whose_protocol_has_no_frame_are_neither_woken_nor_written_to(wired: WiredRoom) -> None:
    woken: list[int] = []
    client, socket = Connection("c", Silent(), wake=lambda: woken.append(1)), Socket()
    direct = Connection("d", Silent())
    DirectWriter(direct, socket, wired.scheduler)
    for each in (client, direct):
        wired.room.add(each)
    wired.broadcast("hi")
    wired.loop.run()
    assert (woken, socket.written) == ([], [])
    direct.push(b"own")
    wired.loop.run()
    assert socket.written == [text_frames("own")]


# Failures ----------------------------------------------------------------------------------------


class Faulty(Plain):
    """Cannot encode every event."""

    @classmethod
    def encode_broadcast(cls, event: Event, application: str) -> bytes | None:
        assert not isinstance(event, Message) or event.event != "two"
        return super().encode_broadcast(event, application)


def test_a_failed_encoding_affects_no_other_protocol_and_no_later_event(
    wired: WiredRoom, caplog: pytest.LogCaptureFixture
) -> None:
    faulty, apart = connection(Faulty()), connection()
    for each in (faulty, apart):
        wired.room.add(each)
    _, socket = wired.client()
    apart.cork()
    wired.room.start(at(0))
    for seq, event in ((3, "three"), (2, "two"), (1, "one")):
        wired.room.broadcast(message(event, seq))
    wired.loop.run()
    apart.uncork()
    assert socket.written == [text_frames("one", "two", "three")]
    assert (received(apart), received(faulty)) == (["one", "two", "three"], ["one", "three"])
    assert "Message cannot be encoded for Faulty" in caplog.text


def test_a_window_without_attached_members_keeps_no_member_in_memory(wired: WiredRoom) -> None:
    ann, _ = wired.client()
    wired.room.broadcast(message("one"), exclude=ann)
    wired.client()
    wired.room.discard(ann)
    assert not wired.room._window.frames


def test_a_window_forgets_frames_that_are_written(wired: WiredRoom) -> None:
    wired.client()
    wired.broadcast("one")
    assert wired.room._window.frames
    wired.loop.run()
    assert not wired.room._window.frames


# WebSocket frames --------------------------------------------------------------------------------


def test_lines_are_joined_up_to_the_maximum_size() -> None:
    half = b"x" * (MAX_JOINED_FRAME // 2)
    assert joined([half, b"a", half, b"b"], b"\n") == [half + b"\na", half + b"\nb"]
    assert joined([b"a", b"b"], None) == [b"a", b"b"]


def test_frames_of_a_protocol_without_separator_are_written_together() -> None:
    assert framed([b"a", b""], Plain) == [b"\x81\x01a\x81\x00"]
    assert framed([b"a", b"b"], Lines) == [b"\x81\x03a\nb"]
