"""Rounds: what is written down once for all is what each would have been told alone, in the same order."""

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
from rooms.hub.hub import Hub
from rooms.hub.send_queue import SendQueueLimits
from rooms.hub.shared_frames import LONGEST_JOINED_FRAME, LONGEST_ROUND, SharedFrames, framed, joined
from rooms.hub.write_scheduler import DirectWriter, WriteScheduler
from rooms.protocol import frame_protocol
from rooms.protocol.commands import Ping
from rooms.protocol.errors import CloseCode
from rooms.protocol.events import Event, Message
from rooms.protocol.types import Position
from tests.hub.codecs import Lines, Plain, Shouting, Silent, connection, message, told
from tests.hub.test_write_scheduler import House, Loop, Wire, text


@dataclass
class Twin:
    """A hub, and beside it what everybody is to have been told, kept in the plainest way. All but the last
    client are written to at once, two in a turn."""

    loop: Loop = field(default_factory=Loop)
    clients: list[Connection] = field(
        default_factory=lambda: [
            connection(kind(), "u") for kind in (Plain, Plain, Plain, Shouting, Lines, Plain)
        ]
    )
    said: int = 0

    def __post_init__(self) -> None:
        self.flusher = WriteScheduler(self.loop.later.append)
        self.hub = Hub(flush=self.flusher.add)
        self.wires = [Wire() for _ in self.clients]
        for client, wire in zip(self.clients[:-1], self.wires[:-1], strict=True):
            DirectWriter(client, wire, self.flusher)
        self.members: dict[str, list[int]] = {"g": [], "h": []}
        self.expected: list[list[str]] = [[] for _ in self.clients]
        self.held: list[list[str] | None] = [None for _ in self.clients]
        self.heard: list[list[str]] = [[] for _ in self.clients]

    def tell(self, group: str, exclude: int | None, alone: bool) -> None:
        self.said += 1
        text = f"m{self.said}"
        left_out = None if exclude is None else self.clients[exclude]
        self.hub.group_send(group, message(text), exclude=left_out, only={"u"} if alone else None)
        for member in self.members[group]:
            if member != exclude:
                shouted = isinstance(self.clients[member].protocol, Shouting)
                self.push(member, text.upper() if shouted else text)

    def push(self, client: int, text: str) -> None:
        if self.clients[client].close_code is None:
            held = self.held[client]
            (self.expected[client] if held is None else held).append(text)

    def answer(self, client: int) -> None:
        self.clients[client].send(Ping())
        if self.clients[client].close_code is None:
            shouted = isinstance(self.clients[client].protocol, Shouting)
            self.expected[client].append("PING" if shouted else "ping")

    def join(self, group: str, client: int) -> None:
        self.hub.group_add(group, self.clients[client])
        if client not in self.members[group]:
            self.members[group].append(client)

    def leave(self, group: str, client: int) -> None:
        self.hub.group_discard(group, self.clients[client])
        if client in self.members[group]:
            self.members[group].remove(client)

    def hold(self, client: int) -> None:
        self.clients[client].hold()
        if self.held[client] is None:
            self.held[client] = []

    def release(self, client: int) -> None:
        self.clients[client].release()
        held, self.held[client] = self.held[client], None
        for each in held or []:
            self.push(client, each)

    def turn(self) -> None:
        self.loop.turn()

    def stall(self, client: int) -> None:
        """It reads no more."""
        self.wires[client].free = False

    def drain(self, client: int) -> None:
        """It has read everything."""
        if self.clients[client].writing_since is not None:
            self.wires[client].free = True
            self.wires[client].drained()

    def write(self, client: int) -> None:
        self.hear(client)
        self.heard[client] += [line for frame in told(self.clients[client]) for line in frame.split("\n")]

    def hear(self, client: int) -> None:
        """What was written to it so far."""
        reader = Peer(Side.CLIENT, state=OPEN, max_size=None)
        for piece in self.wires[client].written:
            reader.receive_data(piece)
        self.wires[client].written.clear()
        for each in reader.events_received():
            assert isinstance(each, Frame)
            self.heard[client] += bytes(each.data).decode().split("\n")

    def close(self, client: int) -> None:
        if self.clients[client].close_code is None:
            self.release(client)
            self.clients[client].close(CloseCode.KICKED, "Out.")
            self.expected[client].append(f"closing {int(CloseCode.KICKED)}")


clients, groups = some.integers(0, 5), some.sampled_from("gh")
STEPS = some.one_of(
    some.tuples(some.just("tell"), groups, some.none() | clients, some.just(False)),
    some.tuples(some.just("tell"), groups, some.none(), some.just(False)),
    some.tuples(some.just("tell"), groups, some.none() | clients, some.booleans()),
    some.tuples(some.sampled_from(["join", "leave"]), groups, clients),
    some.tuples(some.sampled_from(["answer", "answer", "hold", "release", "write", "close"]), clients),
    some.tuples(some.sampled_from(["stall", "drain"]), clients),
    some.tuples(some.just("turn")),
    some.tuples(some.just("turn")),
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.lists(STEPS, max_size=60))
def test_everybody_is_told_the_same_as_alone_and_in_the_same_order(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[Any, ...]]
) -> None:
    monkeypatch.setattr(write_scheduler, "WRITES_A_TURN", 2)
    twin = Twin()
    for place in range(len(twin.clients)):
        twin.join("g", place)
    for name, *arguments in steps:
        getattr(twin, name)(*arguments)
    for place, client in enumerate(twin.clients):
        twin.release(place)
        assert client.waiting == sum(map(len, _texts(client)))
        # Who reads has everything after a few turns; the others when they are asked.
        if client.writing_since is None and place != len(twin.clients) - 1:
            twin.loop.turns()
            assert client.waiting == 0
        twin.write(place)
        assert client.waiting == 0
    shouted = [[each.upper() for each in texts] for texts in twin.expected]
    assert [[each.upper() for each in texts] for texts in twin.heard] == shouted


def both(hub: Hub) -> tuple[Connection, Connection]:
    """Two members of a group, in the middle of a round."""
    ann, bob = connection(), connection()
    for each in (ann, bob):
        hub.group_add("g", each)
    hub.group_send("g", message("one"))
    return ann, bob


def test_one_who_comes_in_during_a_round_hears_the_rest() -> None:
    hub = Hub()
    both(hub)
    eve = connection()
    hub.group_add("g", eve)
    hub.group_send("g", message("two"))
    assert told(eve) == ["two"]


def test_one_who_leaves_during_a_round_hears_no_more() -> None:
    hub = Hub()
    ann, bob = both(hub)
    hub.group_discard("g", ann)
    hub.group_send("g", message("two"))
    assert (told(ann), told(bob)) == (["one"], ["one", "two"])


def test_one_who_waits_for_an_answer_hears_the_rest_after_it() -> None:
    hub = Hub()
    ann, bob = both(hub)
    ann.hold()
    hub.group_send("g", message("two"))
    ann.send(Ping())
    ann.release()
    assert (told(ann), told(bob)) == (["one", "ping", "two"], ["one", "two"])


def test_what_two_rooms_say_in_turn_is_heard_in_turn() -> None:
    hub = Hub()
    ann, bob = both(hub)
    hub.group_add("h", ann)
    hub.group_send("h", message("two"))
    hub.group_send("g", message("three"))
    hub.group_send("h", message("four"))
    assert (told(ann), told(bob)) == (["one", "two", "three", "four"], ["one", "three"])


def test_what_is_for_some_comes_in_between() -> None:
    hub = Hub()
    ann, bob = connection(user="ann"), connection()
    for each in (ann, bob):
        hub.group_add("g", each)
    hub.group_send("g", message("one"))
    hub.group_send("g", message("two"), only={"ann"})
    hub.group_send("g", message("three"))
    assert (told(ann), told(bob)) == (["one", "two", "three"], ["one", "three"])


def test_one_who_is_left_out_hears_the_rest_and_nobody_else_notices() -> None:
    hub = Hub()
    ann, bob = both(hub)
    eve = connection()
    hub.group_add("h", eve)
    for left_out in (ann, None):
        hub.group_send("g", message("two"), exclude=left_out)
        hub.group_send("h", message("first"), exclude=eve)
    assert isinstance(bob.hears, SharedFrames)
    assert (told(ann), told(bob), told(eve)) == (["one", "two"], ["one", "two", "two"], [])


def test_one_who_leaves_before_all_is_written_hears_no_more(house: House) -> None:
    (ann, wire), *_ = [house.client() for _ in range(write_scheduler.WRITES_A_TURN + 1)][::-1]
    house.hub.group_send("g", message("one"))
    for _ in range(2):
        house.loop.turn()
    assert wire.written == []
    house.hub.group_discard("g", ann)
    house.hub.group_send("g", message("two"))
    house.loop.turns()
    assert wire.written == [text("one")]


def test_when_everybody_has_stepped_aside_a_new_round_begins(house: House) -> None:
    members = [house.client() for _ in range(2)]
    house.hub.group_send("g", message("one"))
    for each, _ in members:
        each.send(Ping())
    house.loop.turns()
    for _ in range(3):
        house.hub.group_send("g", message("two"))
    assert len({each.hears for each, _ in members}) == 1
    house.loop.turns()
    assert [wire.written for _, wire in members] == [[text("one", "ping"), text("two", "two", "two")]] * 2


def _texts(client: Connection) -> list[bytes]:
    """What waits for it, without taking it."""
    return [*client._frames, *(frame for batch in client.shared for frame in batch.frames)]


@pytest.fixture
def house() -> House:
    return House()


# What it costs -----------------------------------------------------------------------------------

MEMBERS, MESSAGES = 1000, 20


def test_what_a_turn_says_to_a_room_is_written_down_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(frame_protocol, "frame", lambda opcode, payload: made.append(opcode) or payload)
    crowd = [house.client() for _ in range(MEMBERS)]
    Plain.encoded = 0
    for number in range(MESSAGES):
        # Whoever speaks is answered first, and is told the rest alone.
        crowd[number][0].send(Ping())
        house.hub.group_send("g", message(f"m{number}"))
    assert Plain.encoded == MESSAGES
    silent = crowd[MESSAGES:]
    assert all(client._frames == [] for client, _ in silent)
    assert len({client.hears for client, _ in silent}) == 1
    house.loop.turns()
    assert len(made) == MESSAGES + sum(1 + MESSAGES for _ in range(MESSAGES))
    assert all(wire.written == silent[0][1].written and len(wire.written) == 1 for _, wire in silent)
    assert len({id(wire.written[0]) for _, wire in silent}) == 1


async def test_no_task_and_no_await_is_made_for_anybody(house: House) -> None:
    crowd = [house.client() for _ in range(MEMBERS)]
    before = asyncio.all_tasks()
    house.hub.group_send("g", message("hi"))
    house.loop.turns()
    assert all(wire.written for _, wire in crowd)
    assert asyncio.all_tasks() == before


def test_a_round_has_a_longest(house: House) -> None:
    (ann, ann_wire), (_, bob_wire) = house.client(), house.client()
    half = "x" * (LONGEST_ROUND // 2)
    for _ in range(4):
        house.hub.group_send("g", message(half))
    assert ann.waiting == 4 * len(half)
    house.loop.turns()
    assert [len(piece) > LONGEST_ROUND for piece in ann_wire.written] == [True, False]
    assert ann_wire.written == bob_wire.written


def test_one_who_does_not_read_is_told_alone() -> None:
    hub = Hub()
    slow, bob = connection(), connection()
    for each in (slow, bob):
        hub.group_add("g", each)
    slow.writing_since = 1.0
    for _ in range(3):
        hub.group_send("g", message("hi"))
    assert (len(slow._frames), len(bob._frames)) == (3, 0)
    assert told(slow) == told(bob) == ["hi"] * 3


def test_who_writes_by_itself_is_woken_when_the_round_ends(house: House) -> None:
    woken: list[int] = []
    client = Connection("c", Lines(), limits=SendQueueLimits(), wake=lambda: woken.append(1))
    house.hub.group_add("g", client)
    for said in ("one", "two"):
        house.hub.group_send("g", message(said))
    assert woken == []
    house.loop.turns()
    assert woken == [1]
    assert told(client) == ["one\ntwo"]


def test_those_to_whom_nothing_is_said_are_neither_woken_nor_written_to(house: House) -> None:
    woken: list[int] = []
    client, wire = Connection("c", Silent(), wake=lambda: woken.append(1)), Wire()
    mute = Connection("d", Silent())
    DirectWriter(mute, wire, house.flusher)
    for each in (client, mute):
        house.hub.group_add("g", each)
    house.hub.group_send("g", message("hi"))
    house.loop.turns()
    assert (woken, wire.written) == ([], [])
    mute.push(b"own")
    house.loop.turns()
    assert wire.written == [text("own")]


class Stammering(Plain):
    """Cannot say everything."""

    @classmethod
    def encode_broadcast(cls, event: Event, application: str) -> bytes | None:
        assert not isinstance(event, Message) or event.event != "two"
        return super().encode_broadcast(event, application)


def test_what_cannot_be_encoded_for_some_keeps_nobody_from_hearing_it_or_what_follows(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    stammering, apart = connection(Stammering()), connection()
    for each in (stammering, apart):
        house.hub.group_add("g", each)
    _, wire = house.client()
    apart.hold()
    house.hub.start("g", Position(epoch="e", seq=0))
    for seq, said in ((3, "three"), (2, "two"), (1, "one")):
        house.hub.group_send("g", message(said, seq))
    house.loop.turns()
    apart.release()
    assert wire.written == [text("one", "two", "three")]
    assert (told(apart), told(stammering)) == (["one", "two", "three"], ["one", "three"])
    assert "Message cannot be told in Stammering" in caplog.text


def test_a_round_that_nobody_hears_keeps_nobody(house: House) -> None:
    ann, _ = house.client()
    house.hub.group_send("g", message("one"), exclude=ann)
    house.client()
    house.hub.group_discard("g", ann)
    assert not house.hub._groups["g"].round.batches


# Frames ------------------------------------------------------------------------------------------


def test_lines_are_joined_up_to_the_longest() -> None:
    half = b"x" * (LONGEST_JOINED_FRAME // 2)
    assert joined([half, b"a", half, b"b"], b"\n") == [half + b"\na", half + b"\nb"]
    assert joined([b"a", b"b"], None) == [b"a", b"b"]


def test_frames_without_a_separator_leave_together_and_stay_apart() -> None:
    assert framed([b"a", b""], Plain) == [b"\x81\x01a\x81\x00"]
    assert framed([b"a", b"b"], Lines) == [b"\x81\x03a\nb"]
