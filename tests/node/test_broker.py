"""The seat on the channel layer: batched, its own echo dropped, and never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from channels.layers import InMemoryChannelLayer, channel_layers
from msgspec import Raw

from rooms.node import broker as module
from rooms.node.broker import CONTROL, Broker, BrokerMessage
from rooms.node.control_messages import ApplicationChanged, RoomChanged, UserDisconnected
from rooms.protocol.events import Joined, Message
from rooms.protocol.types import User
from tests.node.clients import PATIENCE
from tests.node.wires import Wire

ANN = User(name="ann", id="1", guest=False)


def message(event: str, seq: int | None = None) -> Message:
    return Message(room="lobby", event=event, data=Raw(b'{"a": 1}'), sender=ANN, seq=seq, time="t")


#: Of a frame with a name of one letter, as it travels.
SIZE = len(msgspec.json.encode(BrokerMessage(event=message("0"))))


class Seat:
    """A bus and what it heard."""

    def __init__(self, node: str, alias: str = "default") -> None:
        self.heard: list[Any] = []
        self._news = asyncio.Event()
        self.bus = Broker(alias, node, listener=self)

    def on_event(self, group: str, relay: BrokerMessage) -> None:
        if isinstance(relay.event, Message) and relay.event.event == "breaks":
            raise ValueError("the hub fails")
        self._note((group, relay))

    def on_control(self, item: Any) -> None:
        self._note(item)

    def _note(self, item: Any) -> None:
        self.heard.append(item)
        self._news.set()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not done():
                self._news.clear()
                await self._news.wait()

    def events(self) -> list[str]:
        return [relay.event.event for _, relay in self.heard]


class WithPause:
    """The module `asyncio`, in which every sleep lasts until the event."""

    def __init__(self, pause: asyncio.Event) -> None:
        self._pause = pause

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await self._pause.wait()


@pytest.fixture
async def seats(wire: Wire) -> AsyncIterator[tuple[Seat, Seat]]:
    pair = Seat("one"), Seat("two")
    for seat in pair:
        await seat.bus.start()
    wire.sent.clear()
    yield pair
    wire.broken = wire.hung = False
    for seat in pair:
        await seat.bus.stop()
    assert wire.groups == {}


async def test_what_one_says_the_other_hears_and_not_itself(seats: tuple[Seat, Seat]) -> None:
    here, there = seats
    for seat in seats:
        await seat.bus.subscribe("g")
    here.bus.publish("g", message("one", 1), only={"1"}, volatile=True)
    here.bus.publish("g", Joined(room="lobby", user=ANN))
    there.bus.publish("g", message("back"))
    await there.until(lambda: len(there.heard) == 2)
    await here.until(lambda: len(here.heard) == 1)
    assert there.heard == [
        ("g", BrokerMessage(event=message("one", 1), only=["1"], volatile=True)),
        ("g", BrokerMessage(event=Joined(room="lobby", user=ANN))),
    ]
    assert here.events() == ["back"]


async def test_what_is_said_in_one_turn_travels_together(seats: tuple[Seat, Seat], wire: Wire) -> None:
    here, there = seats
    await there.bus.subscribe("g")
    for number in range(500):
        here.bus.publish("g", message(str(number)))
    here.bus.publish("h", message("elsewhere"))
    await here.bus.flush()
    await there.until(lambda: len(there.heard) == 500)
    assert there.events() == [str(number) for number in range(500)]
    assert [(group, len(frames)) for group, frames in wire.sent] == [("g", 500), ("h", 1)]


async def test_a_process_that_is_alone_on_the_layer_in_memory_does_not_talk_to_itself(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = InMemoryChannelLayer()
    channel_layers.set("default", layer)
    sent = []
    send = layer.group_send

    async def counted(group: str, message: dict[str, Any]) -> None:
        sent.append(group)
        await send(group, message)

    monkeypatch.setattr(layer, "group_send", counted)
    here, there = Seat("one"), Seat("two")
    await here.bus.start()
    await here.bus.subscribe("g")
    here.bus.publish("g", message("alone"))
    here.bus.tell(ApplicationChanged(application="chat"))
    await here.bus.flush()
    assert sent == []

    await there.bus.start()
    await there.bus.subscribe("g")
    here.bus.publish("g", message("heard"))
    here.bus.tell(ApplicationChanged(application="chat"))
    await there.until(lambda: len(there.heard) == 2)
    assert sorted(sent) == ["g", CONTROL]
    for seat in (here, there):
        await seat.bus.stop()


async def test_notices_reach_every_process(seats: tuple[Seat, Seat]) -> None:
    here, there = seats
    notices = [
        ApplicationChanged(application="chat"),
        RoomChanged(application="chat", room=7, name="lobby", listed=True, deleted=True),
        UserDisconnected(application=None, user="1", code=4503, message="Out."),
    ]
    for notice in notices:
        here.bus.tell(notice)
    await there.until(lambda: len(there.heard) == 3)
    assert there.heard == notices
    assert here.heard == []


async def test_only_groups_that_are_wanted_are_heard(seats: tuple[Seat, Seat]) -> None:
    here, there = seats
    await there.bus.subscribe("g")
    await there.bus.subscribe("h")
    await there.bus.unsubscribe("g")
    await there.bus.unsubscribe("never")
    here.bus.publish("g", message("unheard"))
    here.bus.publish("h", message("heard"))
    await there.until(lambda: bool(there.heard))
    assert there.events() == ["heard"]


async def test_a_group_that_is_wanted_again_is_not_let_go(seats: tuple[Seat, Seat]) -> None:
    here, there = seats
    await there.bus.subscribe("g")
    await there.bus.unsubscribe("g", lambda: True)
    here.bus.publish("g", message("heard"))
    await there.until(lambda: there.events() == ["heard"])


async def test_what_cannot_be_used_is_passed_over(
    seats: tuple[Seat, Seat], wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = seats
    await there.bus.subscribe("g")
    await wire.group_send("g", {"type": "x", "node": "three", "group": "g", "frames": [b"nonsense", b"{}"]})
    here.bus.publish("g", message("breaks"))
    here.bus.publish("g", message("good"))
    await there.until(lambda: there.events() == ["good"])
    assert caplog.text.count("could not be used") == 3


async def test_a_layer_that_fails_loses_hints_and_breaks_nothing(
    seats: tuple[Seat, Seat], wire: Wire
) -> None:
    here, there = seats
    await there.bus.subscribe("g")
    wire.broken = True
    for _ in range(3):
        here.bus.publish("g", message("lost"))
    await here.bus.flush()
    assert here.bus.dropped == {"hint": 3}
    wire.broken = False
    here.bus.publish("g", message("told"))
    await there.until(lambda: there.events() == ["told"])


async def test_a_layer_that_hangs_holds_nobody_up(
    seats: tuple[Seat, Seat], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = seats
    monkeypatch.setattr(module, "PUBLISH_SECONDS", 0.01)
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    wire.hung = True
    for _ in range(8):
        here.bus.publish("g", message("lost"))
    await here.bus.flush()
    assert here.bus.dropped == {"hint": 8}


async def test_a_group_that_hangs_holds_up_no_other(
    seats: tuple[Seat, Seat], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = seats
    group_send, stuck = wire.group_send, asyncio.Event()

    async def sometimes_stuck(group: str, message: dict[str, Any]) -> None:
        if group == "stuck":
            await stuck.wait()
        await group_send(group, message)

    monkeypatch.setattr(wire, "group_send", sometimes_stuck)
    for group in ("g", "stuck"):
        await there.bus.subscribe(group)
    for number in range(3):
        here.bus.publish("stuck", message(f"stuck {number}"))
        here.bus.publish("g", message(str(number)))
        await there.until(lambda number=number: there.events()[-1:] == [str(number)])
    stuck.set()
    await there.until(lambda: len(there.heard) == 6)
    assert there.events() == ["0", "1", "2", "stuck 0", "stuck 1", "stuck 2"]


@pytest.mark.parametrize(("bound", "most"), [("MOST_WAITING", 5), ("MOST_WAITING_BYTES", 5 * SIZE)])
async def test_what_waits_is_bounded_while_the_layer_hangs(
    seats: tuple[Seat, Seat], wire: Wire, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    here, there = seats
    await there.bus.subscribe("g")
    monkeypatch.setattr(module, bound, most)
    wire.hung = True
    here.bus.publish("g", message("1"))
    # Also what the layer has been given counts, as long as it is not done with it.
    await asyncio.sleep(0)
    for number in range(2, 10):
        here.bus.publish("g" if number % 2 else "h", message(str(number)))
    assert here.bus.dropped == {"hint": 4}
    wire.hung = False
    monkeypatch.setattr(module, "PUBLISH_SECONDS", 0.01)
    await here.bus.stop()
    assert here.bus._count == here.bus._bytes == 0


async def test_a_turn_that_is_too_long_for_one_message_travels_in_order_in_several(
    seats: tuple[Seat, Seat], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = seats
    await there.bus.subscribe("g")
    monkeypatch.setattr(module, "MESSAGE_BYTES", 3 * SIZE)
    for number in range(7):
        here.bus.publish("g", message(str(number)))
    here.bus.publish("g", message("long" * SIZE))
    await there.until(lambda: len(there.heard) == 8)
    assert there.events() == [*map(str, range(7)), "long" * SIZE]
    assert [len(frames) for _, frames in wire.sent] == [3, 3, 1, 1]


async def test_a_layer_that_fails_is_not_asked_for_every_message(
    seats: tuple[Seat, Seat], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = seats
    await there.bus.subscribe("g")
    pause = asyncio.Event()
    monkeypatch.setattr(module, "asyncio", WithPause(pause))
    works, attempts = wire._works, 0

    async def counted() -> None:
        nonlocal attempts
        attempts += 1
        await works()

    monkeypatch.setattr(wire, "_works", counted)
    wire.broken = True
    for number in range(10):
        here.bus.publish("g", message(str(number)))
        await here.bus.flush() if number == 0 else await asyncio.sleep(0)
    assert attempts == 1
    wire.broken = False
    pause.set()
    await there.until(lambda: len(there.heard) == 9)
    assert there.events() == [*map(str, range(1, 10))]
    assert here.bus.dropped == {"hint": 1}


async def test_what_a_layer_forgot_while_it_was_away_is_told_it_again(
    seats: tuple[Seat, Seat], wire: Wire
) -> None:
    here, there = seats
    await there.bus.subscribe("g")
    wire.groups.clear()
    wire.broken = True
    there.bus.publish("g", message("lost"))
    await there.bus.flush()
    wire.broken = False
    there.bus.publish("g", message("heard by nobody"))
    await there.bus.flush()
    await there.bus.repair()
    here.bus.publish("g", message("heard"))
    await there.until(lambda: there.events() == ["heard"])


async def test_nobody_waits_for_a_layer_that_is_known_not_to_answer(
    seats: tuple[Seat, Seat], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = seats
    await there.bus.subscribe("old")
    monkeypatch.setattr(module, "PUBLISH_SECONDS", 0.01)
    wire.hung = True
    await there.bus.subscribe("first")
    # From here on a call that waits would wait for ever.
    monkeypatch.setattr(module, "PUBLISH_SECONDS", None)
    await there.bus.subscribe("g")
    await there.bus.unsubscribe("old")
    wire.hung = False
    await there.bus.repair()
    assert {"g", "first"} <= wire.groups.keys()
    assert "old" not in wire.groups
    here.bus.publish("g", message("heard"))
    await there.until(lambda: there.events() == ["heard"])


async def test_leaving_a_layer_that_hangs_takes_one_wait_and_not_one_for_each_group(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = Seat("leaving")
    await leaving.bus.start()
    for number in range(20):
        await leaving.bus.subscribe(f"g{number}")
    asked = []
    monkeypatch.setattr(module, "PUBLISH_SECONDS", 0.01)
    monkeypatch.setattr(wire, "_works", lambda: asked.append(1) or asyncio.Event().wait())
    await leaving.bus.stop()
    assert len(asked) == 1
    wire.groups.clear()


async def test_a_membership_that_could_not_be_had_is_had_later(seats: tuple[Seat, Seat], wire: Wire) -> None:
    here, there = seats
    wire.broken = True
    await there.bus.subscribe("g")
    wire.broken = False
    await there.bus.repair()
    here.bus.publish("g", message("heard"))
    await there.until(lambda: there.events() == ["heard"])


async def test_a_membership_that_could_not_be_ended_is_ended_later(
    seats: tuple[Seat, Seat], wire: Wire
) -> None:
    _, there = seats
    await there.bus.subscribe("g")
    wire.broken = True
    await there.bus.unsubscribe("g")
    assert "g" in wire.groups
    wire.broken = False
    await there.bus.repair()
    assert "g" not in wire.groups


async def test_memberships_are_renewed_before_the_layer_forgets_them(
    seats: tuple[Seat, Seat], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = seats
    await there.bus.subscribe("g")
    wire.groups.clear()
    await there.bus.repair()
    assert wire.groups == {}
    monkeypatch.setattr(there.bus, "_renewed", -module.RENEW_SECONDS * 2)
    await there.bus.repair()
    assert set(wire.groups) == {"g", CONTROL}
    await there.bus.repair()
    here.bus.publish("g", message("heard"))
    await there.until(lambda: there.events() == ["heard"])


async def test_a_bus_that_was_not_started_can_publish(seats: tuple[Seat, Seat]) -> None:
    _, there = seats
    await there.bus.subscribe("g")
    outside = Seat("outside")
    await outside.bus.subscribe("g")
    outside.bus.publish("g", message("from outside"))
    await outside.bus.stop()
    await there.until(lambda: there.events() == ["from outside"])
    assert outside.heard == []


async def test_without_a_layer_nothing_is_said_and_nothing_fails(wire: Wire) -> None:
    alone = Seat("alone", alias="missing")
    await alone.bus.start()
    await alone.bus.subscribe("g")
    alone.bus.publish("g", message("unheard"))
    await alone.bus.stop()
    assert wire.sent == []


async def test_stopping_sends_what_waits(seats: tuple[Seat, Seat], wire: Wire) -> None:
    _, there = seats
    await there.bus.subscribe("g")
    leaving = Seat("leaving")
    await leaving.bus.start()
    await leaving.bus.subscribe("g")
    leaving.bus.publish("g", message("last"))
    await leaving.bus.stop()
    await there.until(lambda: there.events() == ["last"])
    assert all(len(channels) == 1 or group == CONTROL for group, channels in wire.groups.items())
