"""The channel of a process: messages are batched, and a layer that is down blocks no publisher."""

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
from rooms.node.control_messages import AnyControlMessage, ApplicationChanged, RoomChanged, UserDisconnected
from rooms.protocol.events import Joined, Message
from rooms.protocol.types import User
from tests.node.clients import PATIENCE
from tests.node.unreliable_layer import UnreliableLayer

ANN = User(name="ann", id="1", guest=False)


def message(event: str, seq: int | None = None) -> Message:
    return Message(room="lobby", event=event, data=Raw(b'{"a": 1}'), sender=ANN, seq=seq, time="t")


#: The size of an encoded message whose event name has one character.
SIZE = len(msgspec.json.encode(BrokerMessage(event=message("0"))))


class Process:
    """A broker and what it received."""

    def __init__(self, node: str, alias: str = "default") -> None:
        self.received: list[Any] = []
        self._changed = asyncio.Event()
        self.broker = Broker(alias, node, listener=self)

    def on_event(self, key: str, received: BrokerMessage) -> None:
        if isinstance(received.event, Message) and received.event.event == "fails":
            raise ValueError("the listener fails")
        self._note((key, received))

    def on_control(self, item: Any) -> None:
        self._note(item)

    def _note(self, item: Any) -> None:
        self.received.append(item)
        self._changed.set()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not done():
                self._changed.clear()
                await self._changed.wait()

    def events(self) -> list[str]:
        return [each.event.event for _, each in self.received]


class WithPause:
    """The module ``asyncio`` with a ``sleep`` that lasts until an event is set."""

    def __init__(self, pause: asyncio.Event) -> None:
        self._pause = pause

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await self._pause.wait()


@pytest.fixture
async def processes(unreliable_layer: UnreliableLayer) -> AsyncIterator[tuple[Process, Process]]:
    pair = Process("one"), Process("two")
    for process in pair:
        await process.broker.start()
    unreliable_layer.sent.clear()
    yield pair
    unreliable_layer.broken = unreliable_layer.hung = False
    for process in pair:
        await process.broker.stop()
    assert unreliable_layer.groups == {}


async def test_a_broker_receives_the_events_of_others_and_not_its_own(
    processes: tuple[Process, Process],
) -> None:
    here, there = processes
    for process in processes:
        await process.broker.subscribe("g")
    here.broker.publish("g", message("one", 1), only={"1"}, volatile=True)
    here.broker.publish("g", Joined(room="lobby", user=ANN))
    there.broker.publish("g", message("back"))
    await there.until(lambda: len(there.received) == 2)
    await here.until(lambda: len(here.received) == 1)
    assert there.received == [
        ("g", BrokerMessage(event=message("one", 1), only=["1"], volatile=True)),
        ("g", BrokerMessage(event=Joined(room="lobby", user=ANN))),
    ]
    assert here.events() == ["back"]


async def test_events_of_one_turn_travel_in_one_message_per_group(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer
) -> None:
    here, there = processes
    await there.broker.subscribe("g")
    for number in range(500):
        here.broker.publish("g", message(str(number)))
    here.broker.publish("h", message("other group"))
    await here.broker.flush()
    await there.until(lambda: len(there.received) == 500)
    assert there.events() == [str(number) for number in range(500)]
    assert [(group, len(frames)) for group, frames in unreliable_layer.sent] == [("g", 500), ("h", 1)]


async def test_a_process_alone_on_the_in_memory_layer_sends_nothing(
    unreliable_layer: UnreliableLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = InMemoryChannelLayer()
    channel_layers.set("default", layer)
    sent = []
    send = layer.group_send

    async def counted(group: str, message: dict[str, Any]) -> None:
        sent.append(group)
        await send(group, message)

    monkeypatch.setattr(layer, "group_send", counted)
    here, there = Process("one"), Process("two")
    await here.broker.start()
    await here.broker.subscribe("g")
    here.broker.publish("g", message("alone"))
    here.broker.send_control(ApplicationChanged(application="chat"))
    await here.broker.flush()
    assert sent == []

    await there.broker.start()
    await there.broker.subscribe("g")
    here.broker.publish("g", message("received"))
    here.broker.send_control(ApplicationChanged(application="chat"))
    await there.until(lambda: len(there.received) == 2)
    assert sorted(sent) == ["g", CONTROL]
    for process in (here, there):
        await process.broker.stop()


async def test_control_messages_reach_every_other_process(processes: tuple[Process, Process]) -> None:
    here, there = processes
    control_messages: list[AnyControlMessage] = [
        ApplicationChanged(application="chat"),
        RoomChanged(application="chat", room=7, name="lobby", listed=True, deleted=True),
        UserDisconnected(application=None, user="1", code=4503, message="Out."),
    ]
    for each in control_messages:
        here.broker.send_control(each)
    await there.until(lambda: len(there.received) == 3)
    assert there.received == control_messages
    assert here.received == []


async def test_only_subscribed_groups_are_received(processes: tuple[Process, Process]) -> None:
    here, there = processes
    await there.broker.subscribe("g")
    await there.broker.subscribe("h")
    await there.broker.unsubscribe("g")
    await there.broker.unsubscribe("never")
    here.broker.publish("g", message("not received"))
    here.broker.publish("h", message("received"))
    await there.until(lambda: bool(there.received))
    assert there.events() == ["received"]


async def test_a_group_that_is_still_wanted_is_not_unsubscribed(processes: tuple[Process, Process]) -> None:
    here, there = processes
    await there.broker.subscribe("g")
    await there.broker.unsubscribe("g", lambda: True)
    here.broker.publish("g", message("received"))
    await there.until(lambda: there.events() == ["received"])


async def test_a_message_that_cannot_be_used_is_skipped_and_logged(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = processes
    await there.broker.subscribe("g")
    await unreliable_layer.group_send(
        "g", {"type": "x", "node": "three", "group": "g", "frames": [b"nonsense", b"{}"]}
    )
    here.broker.publish("g", message("fails"))
    here.broker.publish("g", message("good"))
    await there.until(lambda: there.events() == ["good"])
    assert caplog.text.count("could not be used") == 3


async def test_a_failing_layer_costs_hints_only(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer
) -> None:
    here, there = processes
    await there.broker.subscribe("g")
    unreliable_layer.broken = True
    for _ in range(3):
        here.broker.publish("g", message("lost"))
    await here.broker.flush()
    assert here.broker.dropped == {"hint": 3}
    unreliable_layer.broken = False
    here.broker.publish("g", message("sent"))
    await there.until(lambda: there.events() == ["sent"])


async def test_a_hanging_layer_blocks_no_publisher(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = processes
    monkeypatch.setattr(module, "LAYER_TIMEOUT", 0.01)
    monkeypatch.setattr(module, "MAX_PENDING", 5)
    unreliable_layer.hung = True
    for _ in range(8):
        here.broker.publish("g", message("lost"))
    await here.broker.flush()
    assert here.broker.dropped == {"hint": 8}


async def test_a_hanging_group_delays_no_other_group(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = processes
    group_send, stuck = unreliable_layer.group_send, asyncio.Event()

    async def sometimes_stuck(group: str, message: dict[str, Any]) -> None:
        if group == "stuck":
            await stuck.wait()
        await group_send(group, message)

    monkeypatch.setattr(unreliable_layer, "group_send", sometimes_stuck)
    for group in ("g", "stuck"):
        await there.broker.subscribe(group)
    for number in range(3):
        here.broker.publish("stuck", message(f"stuck {number}"))
        here.broker.publish("g", message(str(number)))
        await there.until(lambda number=number: there.events()[-1:] == [str(number)])
    stuck.set()
    await there.until(lambda: len(there.received) == 6)
    assert there.events() == ["0", "1", "2", "stuck 0", "stuck 1", "stuck 2"]


@pytest.mark.parametrize(("bound", "limit"), [("MAX_PENDING", 5), ("MAX_PENDING_BYTES", 5 * SIZE)])
async def test_pending_messages_are_bounded_while_the_layer_hangs(
    processes: tuple[Process, Process],
    unreliable_layer: UnreliableLayer,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    limit: int,
) -> None:
    here, there = processes
    await there.broker.subscribe("g")
    monkeypatch.setattr(module, bound, limit)
    unreliable_layer.hung = True
    here.broker.publish("g", message("1"))
    # A message that the layer has not accepted yet counts as well.
    await asyncio.sleep(0)
    for number in range(2, 10):
        here.broker.publish("g" if number % 2 else "h", message(str(number)))
    assert here.broker.dropped == {"hint": 4}
    unreliable_layer.hung = False
    monkeypatch.setattr(module, "LAYER_TIMEOUT", 0.01)
    await here.broker.stop()
    assert here.broker._count == here.broker._bytes == 0


async def test_a_turn_too_large_for_one_message_travels_in_order_in_several(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = processes
    await there.broker.subscribe("g")
    monkeypatch.setattr(module, "MAX_LAYER_MESSAGE_BYTES", 3 * SIZE)
    for number in range(7):
        here.broker.publish("g", message(str(number)))
    here.broker.publish("g", message("long" * SIZE))
    await there.until(lambda: len(there.received) == 8)
    assert there.events() == [*map(str, range(7)), "long" * SIZE]
    assert [len(frames) for _, frames in unreliable_layer.sent] == [3, 3, 1, 1]


async def test_a_failing_layer_is_not_called_for_every_message(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = processes
    await there.broker.subscribe("g")
    pause = asyncio.Event()
    monkeypatch.setattr(module, "asyncio", WithPause(pause))
    ensure_up, attempts = unreliable_layer._ensure_up, 0

    async def counted() -> None:
        nonlocal attempts
        attempts += 1
        await ensure_up()

    monkeypatch.setattr(unreliable_layer, "_ensure_up", counted)
    unreliable_layer.broken = True
    for number in range(10):
        here.broker.publish("g", message(str(number)))
        await here.broker.flush() if number == 0 else await asyncio.sleep(0)
    assert attempts == 1
    unreliable_layer.broken = False
    pause.set()
    await there.until(lambda: len(there.received) == 9)
    assert there.events() == [*map(str, range(1, 10))]
    assert here.broker.dropped == {"hint": 1}


async def test_memberships_are_renewed_after_an_outage_of_the_layer(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer
) -> None:
    here, there = processes
    await there.broker.subscribe("g")
    unreliable_layer.groups.clear()
    unreliable_layer.broken = True
    there.broker.publish("g", message("lost"))
    await there.broker.flush()
    unreliable_layer.broken = False
    there.broker.publish("g", message("not received"))
    await there.broker.flush()
    await there.broker.repair()
    here.broker.publish("g", message("received"))
    await there.until(lambda: there.events() == ["received"])


async def test_no_call_waits_for_a_layer_that_is_known_to_be_down(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = processes
    await there.broker.subscribe("old")
    monkeypatch.setattr(module, "LAYER_TIMEOUT", 0.01)
    unreliable_layer.hung = True
    await there.broker.subscribe("first")
    # From here on a call that waits for the layer would not end.
    monkeypatch.setattr(module, "LAYER_TIMEOUT", None)
    await there.broker.subscribe("g")
    await there.broker.unsubscribe("old")
    unreliable_layer.hung = False
    await there.broker.repair()
    assert {"g", "first"} <= unreliable_layer.groups.keys()
    assert "old" not in unreliable_layer.groups
    here.broker.publish("g", message("received"))
    await there.until(lambda: there.events() == ["received"])


async def test_stopping_on_a_hanging_layer_waits_once_and_not_once_per_group(
    unreliable_layer: UnreliableLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = Process("leaving")
    await leaving.broker.start()
    for number in range(20):
        await leaving.broker.subscribe(f"g{number}")
    calls = 0

    async def hang() -> None:
        nonlocal calls
        calls += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "LAYER_TIMEOUT", 0.01)
    monkeypatch.setattr(unreliable_layer, "_ensure_up", hang)
    await leaving.broker.stop()
    assert calls == 1
    unreliable_layer.groups.clear()


async def test_a_failed_subscription_is_repeated(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer
) -> None:
    here, there = processes
    unreliable_layer.broken = True
    await there.broker.subscribe("g")
    unreliable_layer.broken = False
    await there.broker.repair()
    here.broker.publish("g", message("received"))
    await there.until(lambda: there.events() == ["received"])


async def test_a_failed_unsubscription_is_repeated(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer
) -> None:
    _, there = processes
    await there.broker.subscribe("g")
    unreliable_layer.broken = True
    await there.broker.unsubscribe("g")
    assert "g" in unreliable_layer.groups
    unreliable_layer.broken = False
    await there.broker.repair()
    assert "g" not in unreliable_layer.groups


async def test_memberships_are_renewed_before_the_layer_drops_them(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = processes
    await there.broker.subscribe("g")
    unreliable_layer.groups.clear()
    await there.broker.repair()
    assert unreliable_layer.groups == {}
    monkeypatch.setattr(there.broker, "_renewed", -module.RENEW_INTERVAL * 2)
    await there.broker.repair()
    assert set(unreliable_layer.groups) == {"g", CONTROL}
    await there.broker.repair()
    here.broker.publish("g", message("received"))
    await there.until(lambda: there.events() == ["received"])


async def test_a_broker_that_was_not_started_can_publish(processes: tuple[Process, Process]) -> None:
    _, there = processes
    await there.broker.subscribe("g")
    outside = Process("outside")
    await outside.broker.subscribe("g")
    outside.broker.publish("g", message("from outside"))
    await outside.broker.stop()
    await there.until(lambda: there.events() == ["from outside"])
    assert outside.received == []


async def test_a_broker_without_listener_publishes_and_creates_no_channel(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer
) -> None:
    _, there = processes
    await there.broker.subscribe("g")
    groups = {key: list(channels) for key, channels in unreliable_layer.groups.items()}
    outside = Broker("default", "outside")
    await outside.start()
    await outside.subscribe("g")
    assert {key: list(channels) for key, channels in unreliable_layer.groups.items()} == groups
    outside.publish("g", message("from outside"))
    await outside.stop()
    await there.until(lambda: there.events() == ["from outside"])


async def test_without_a_layer_nothing_is_sent_and_nothing_fails(unreliable_layer: UnreliableLayer) -> None:
    alone = Process("alone", alias="missing")
    await alone.broker.start()
    await alone.broker.subscribe("g")
    alone.broker.publish("g", message("not received"))
    await alone.broker.stop()
    assert unreliable_layer.sent == []


async def test_stopping_sends_pending_messages(
    processes: tuple[Process, Process], unreliable_layer: UnreliableLayer
) -> None:
    _, there = processes
    await there.broker.subscribe("g")
    leaving = Process("leaving")
    await leaving.broker.start()
    await leaving.broker.subscribe("g")
    leaving.broker.publish("g", message("last"))
    await leaving.broker.stop()
    await there.until(lambda: there.events() == ["last"])
    assert all(len(channels) == 1 or group == CONTROL for group, channels in unreliable_layer.groups.items())
