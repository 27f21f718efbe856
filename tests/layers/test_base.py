"""The interface of Channels, for each layer: within a process and between two."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.node.clients import PATIENCE

if TYPE_CHECKING:
    from rooms.layers.base import TransportLayer

Pair = tuple["TransportLayer", "TransportLayer"]
Make = Callable[..., "TransportLayer"]


def numbered(number: int, text: str = "") -> dict[str, Any]:
    return {"type": "test.message", "number": number, "text": text}


async def received(layer: TransportLayer, channel: str, count: int = 1) -> list[Any]:
    """Receive ``count`` messages and return their numbers."""
    async with asyncio.timeout(PATIENCE):
        return [(await layer.receive(channel))["number"] for _ in range(count)]


async def test_a_message_arrives_unchanged(pair: Pair) -> None:
    message = {"type": "a", "frames": [b"\x00\xff", "ä"], "nested": {"list": [1, None, True, 2.5]}}
    for sender in pair:
        channel = await pair[1].new_channel()
        await sender.send(channel, message)
        async with asyncio.timeout(PATIENCE):
            arrived = await pair[1].receive(channel)
        assert arrived == message
        assert arrived is not message


async def test_channel_names_are_unique(pair: Pair) -> None:
    names = [await layer.new_channel("seat") for layer in pair for _ in range(2)]
    assert len(set(names)) == 4
    assert all(name.startswith("seat!") for name in names)


async def test_a_channel_keeps_the_order_of_messages(pair: Pair) -> None:
    channel = await pair[1].new_channel()
    for number in range(200):
        await pair[0].send(channel, numbered(number))
    assert await received(pair[1], channel, 200) == [*range(200)]


async def test_a_channel_with_a_fixed_name_is_received_where_it_is_read(pair: Pair) -> None:
    reading = asyncio.create_task(received(pair[1], "thumbnails-make"))
    while not reading.done():
        await pair[0].send("thumbnails-make", numbered(1))
        await asyncio.wait([reading], timeout=0.05)
    assert reading.result() == [1]


async def test_a_group_message_arrives_in_every_process(pair: Pair) -> None:
    here, there = pair
    channels = [(layer, await layer.new_channel()) for layer in (here, there, there)]
    for layer, channel in channels:
        await layer.group_add("room", channel)
        await layer.group_add("room", channel)
    await here.group_add("other", channels[0][1])
    await here.group_send("room", numbered(1))
    await there.group_send("room", numbered(2))
    for layer, channel in channels:
        assert sorted(await received(layer, channel, 2)) == [1, 2]
    await there.group_send("other", numbered(3))
    assert await received(here, channels[0][1]) == [3]


async def test_group_messages_arrive_in_order(pair: Pair) -> None:
    here, there = pair
    channel = await there.new_channel()
    await there.group_add("room", channel)
    for number in range(300):
        await here.group_send("room", numbered(number))
    assert await received(there, channel, 300) == [*range(300)]


async def test_concurrent_group_messages_arrive_in_order(pair: Pair) -> None:
    here, there = pair
    channel = await there.new_channel()
    await there.group_add("room", channel)
    await asyncio.gather(*(here.group_send("room", numbered(number)) for number in range(500)))
    assert await received(there, channel, 500) == [*range(500)]


async def test_a_channel_that_left_a_group_receives_nothing(pair: Pair) -> None:
    here, there = pair
    channel = await there.new_channel()
    for group in ("left", "stayed"):
        await there.group_add(group, channel)
    await there.group_discard("left", channel)
    await there.group_discard("left", channel)
    await there.group_discard("never", "known")
    await here.group_send("left", numbered(1))
    await here.group_send("stayed", numbered(2))
    assert await received(there, channel) == [2]


async def test_messages_without_a_receiver_are_dropped(pair: Pair) -> None:
    await pair[0].group_send("unknown", numbered(1))
    await pair[0].send("unknown", numbered(1))
    await pair[0].group_send("unknown", numbered(2))


@pytest.mark.parametrize("size", [0, 5970, 5971, 100_000, 3_000_000])
async def test_a_message_of_any_length_arrives_complete(pair: Pair, size: int) -> None:
    here, there = pair
    channel = await there.new_channel()
    await there.group_add("room", channel)
    text = "".join(map(str, range(size // 5)))[:size]
    await here.group_send("room", numbered(1, text))
    await here.group_send("room", numbered(2))
    async with asyncio.timeout(PATIENCE):
        assert (await there.receive(channel))["text"] == text
    assert await received(there, channel) == [2]


async def test_a_message_that_is_too_long_is_refused_and_the_next_one_arrives(pair: Pair) -> None:
    here, there = pair
    channel = await there.new_channel()
    await there.group_add("room", channel)
    with pytest.raises(ValueError, match="at most"):
        await here.group_send("room", numbered(1, "x" * 20_000_000))
    await here.group_send("room", numbered(2))
    assert await received(there, channel) == [2]


async def test_a_full_channel_drops_and_counts_the_oldest_messages(make: Make) -> None:
    here, there = make(), make(capacity=10)
    channel, witness = await there.new_channel(), await there.new_channel()
    await there.group_add("room", channel)
    for number in range(15):
        await here.group_send("room", numbered(number))
    await here.send(witness, numbered(0))
    await received(there, witness)
    assert await received(there, channel, 10) == [*range(5, 15)]
    assert there.dropped == {"channel": 5}


async def test_a_cancelled_receive_leaves_nothing(pair: Pair) -> None:
    here, there = pair
    channel = await there.new_channel()
    reading = asyncio.create_task(there.receive(channel))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert there._exchange().channels == {}
    await there.group_add("room", channel)
    await here.group_send("room", numbered(1))
    assert await received(there, channel) == [1]


async def test_a_flushed_layer_can_be_used_again(pair: Pair) -> None:
    here, there = pair
    channel = await there.new_channel()
    await there.group_add("room", channel)
    await here.group_send("room", numbered(1))
    assert await received(there, channel) == [1]
    for layer in pair:
        await layer.flush()
    channel = await there.new_channel()
    await there.group_add("room", channel)
    await here.group_send("room", numbered(2))
    assert await received(there, channel) == [2]


@pytest.mark.parametrize("name", ["", "spaced out", "ä", "x" * 100, 7, None])
async def test_invalid_names_are_refused(pair: Pair, name: Any) -> None:
    with pytest.raises(TypeError):
        await pair[0].send(name, numbered(1))
    with pytest.raises(TypeError):
        await pair[0].receive(name)
    for call in (pair[0].group_add, pair[0].group_discard):
        with pytest.raises(TypeError):
            await call(name, "channel")
        with pytest.raises(TypeError):
            await call("group", name)
    with pytest.raises(TypeError):
        await pair[0].group_send(name, numbered(1))


async def test_a_message_must_be_a_dict(pair: Pair) -> None:
    message: Any = ["type", "a"]
    with pytest.raises(TypeError, match="Expected a dict"):
        await pair[0].send("channel", message)
    with pytest.raises(TypeError, match="Expected a dict"):
        await pair[0].group_send("group", message)


async def test_each_event_loop_has_its_own_state(pair: Pair) -> None:
    """As in synchronous code: one event loop for each call."""
    here, there = pair
    channel = await there.new_channel()
    await there.group_add("room", channel)

    def speak() -> None:
        for number in range(3):
            asyncio.run(here.group_send("room", numbered(number)))
        # A closed loop leaves nothing.
        assert len(here._exchanges) <= 2

    thread = threading.Thread(target=speak)
    thread.start()
    assert await received(there, channel, 3) == [0, 1, 2]
    await asyncio.to_thread(thread.join)
