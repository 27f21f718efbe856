"""Rounds: what is written down once for all is what each would have been told alone, in the same order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from websockets.frames import Frame
from websockets.protocol import OPEN, Side
from websockets.protocol import Protocol as Peer

from rooms import frames
from rooms.errors import CloseCode
from rooms.events import Ping, User
from rooms.fanout import Connection, Hub
from rooms.fanout.batch import LONGEST_JOINED_FRAME, LONGEST_ROUND, framed, joined
from tests.fanout.codecs import Lines, Plain, Shouting, connection, message, told


@dataclass
class Twin:
    """A hub, and beside it what everybody is to have been told, kept in the plainest way."""

    hub: Hub = field(default_factory=Hub)
    clients: list[Connection] = field(
        default_factory=lambda: [connection(kind(), "u") for kind in (Plain, Plain, Plain, Shouting, Lines)]
    )
    said: int = 0

    def __post_init__(self) -> None:
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
        for text in held or []:
            self.push(client, text)

    def write(self, client: int) -> None:
        self.heard[client] += [line for frame in told(self.clients[client]) for line in frame.split("\n")]

    def write_framed(self, client: int) -> None:
        reader = Peer(Side.CLIENT, state=OPEN, max_size=None)
        for piece in self.clients[client].take_framed():
            reader.receive_data(piece)
        for each in reader.events_received():
            assert isinstance(each, Frame)
            self.heard[client] += bytes(each.data).decode().split("\n")

    def close(self, client: int) -> None:
        if self.clients[client].close_code is None:
            self.release(client)
            self.clients[client].close(CloseCode.KICKED, "Out.")
            self.expected[client].append(f"closing {int(CloseCode.KICKED)}")


clients, groups = some.integers(0, 4), some.sampled_from("gh")
STEPS = some.one_of(
    some.tuples(some.just("tell"), groups, some.none() | clients, some.just(False)),
    some.tuples(some.just("tell"), groups, some.none(), some.just(False)),
    some.tuples(some.just("tell"), groups, some.none() | clients, some.booleans()),
    some.tuples(some.sampled_from(["join", "leave"]), groups, clients),
    some.tuples(
        some.sampled_from(["answer", "answer", "hold", "release", "write", "write_framed", "close"]), clients
    ),
)


@settings(max_examples=400)
@given(some.lists(STEPS, max_size=60))
def test_everybody_is_told_the_same_as_alone_and_in_the_same_order(steps: list[tuple[Any, ...]]) -> None:
    twin = Twin()
    for place in range(4):
        twin.join("g", place)
    for name, *arguments in steps:
        getattr(twin, name)(*arguments)
    for place, client in enumerate(twin.clients):
        twin.release(place)
        assert client.waiting == sum(map(len, _texts(client)))
        twin.write(place)
        assert client.waiting == 0
    shouted = [[text.upper() for text in texts] for texts in twin.expected]
    assert [[text.upper() for text in texts] for texts in twin.heard] == shouted


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
    ann, bob = both(hub)
    ann.user = User(name="ann", id="ann", guest=True)
    hub.group_send("g", message("two"), only={"ann"})
    hub.group_send("g", message("three"))
    assert (told(ann), told(bob)) == (["one", "two", "three"], ["one", "three"])


def test_when_everybody_has_stepped_aside_a_new_round_begins() -> None:
    hub = Hub()
    members = both(hub)
    for each in members:
        each.send(Ping())
    for _ in range(3):
        hub.group_send("g", message("two"))
    assert [len(each._frames) for each in members] == [3, 3]
    assert [told(each) for each in members] == [["one", "ping", "two", "two", "two"]] * 2


def _texts(client: Connection) -> list[bytes]:
    """What waits for it, without taking it."""
    return [
        frame for each in client._frames for frame in ([each] if isinstance(each, bytes) else each.frames)
    ]


# What it costs -----------------------------------------------------------------------------------

MEMBERS, MESSAGES = 1000, 20


def crowd(hub: Hub, protocol: type[Plain] = Plain) -> list[Connection]:
    members = [connection(protocol()) for _ in range(MEMBERS)]
    for member in members:
        hub.group_add("g", member)
    return members


def test_what_a_turn_says_to_a_room_is_one_entry_of_each_member(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(frames, "frame", lambda opcode, payload: made.append(opcode) or payload)
    hub = Hub()
    members = crowd(hub)
    Plain.encoded = 0
    for number in range(MESSAGES):
        # Whoever speaks is answered first, and is told the rest alone.
        members[number].send(Ping())
        hub.group_send("g", message(f"m{number}"))
    assert Plain.encoded == MESSAGES
    assert [len(member._frames) for member in members[MESSAGES:]] == [1] * (MEMBERS - MESSAGES)
    pieces = [member.take_framed() for member in members[MESSAGES:]]
    assert len(made) == MESSAGES
    assert all(piece is pieces[0][0] for (piece,) in pieces)


async def test_no_task_and_no_await_is_made_for_anybody() -> None:
    hub = Hub()
    members = crowd(hub)
    before = asyncio.all_tasks()
    hub.group_send("g", message("hi"))
    for member in members:
        member.take_framed()
    assert asyncio.all_tasks() == before


def test_a_round_has_a_longest() -> None:
    hub = Hub()
    ann, bob = connection(), connection()
    for each in (ann, bob):
        hub.group_add("g", each)
    text = "x" * (LONGEST_ROUND // 2)
    for _ in range(4):
        hub.group_send("g", message(text))
    assert [len(piece) > LONGEST_ROUND for piece in ann.take_framed()] == [True, False]
    assert len(bob.take_framed()) == 2


def test_one_who_does_not_read_is_told_alone() -> None:
    hub = Hub()
    slow, bob = connection(), connection()
    for each in (slow, bob):
        hub.group_add("g", each)
    slow.writing_since = 1.0
    for _ in range(3):
        hub.group_send("g", message("hi"))
    assert (len(slow._frames), len(bob._frames)) == (3, 1)
    assert told(slow) == told(bob) == ["hi"] * 3


def test_a_protocol_that_is_silent_is_not_woken() -> None:
    woken: list[int] = []
    hub = Hub()
    client = Connection("c", Plain(), wake=lambda: woken.append(1))
    client.protocol = _Mute()
    hub.group_add("g", client)
    hub.group_send("g", message("hi"))
    assert (woken, told(client)) == ([], [])


class _Mute(Plain):
    @classmethod
    def broadcast(cls, event: Any, application: str) -> bytes | None:
        return None


# Frames ------------------------------------------------------------------------------------------


def test_lines_are_joined_up_to_the_longest() -> None:
    half = b"x" * (LONGEST_JOINED_FRAME // 2)
    assert joined([half, b"a", half, b"b"], b"\n") == [half + b"\na", half + b"\nb"]
    assert joined([b"a", b"b"], None) == [b"a", b"b"]


def test_frames_without_a_separator_leave_together_and_stay_apart() -> None:
    assert framed([b"a", b""], Plain) == b"\x81\x01a\x81\x00"
    assert framed([b"a", b"b"], Lines) == b"\x81\x03a\nb"
