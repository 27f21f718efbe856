"""gowsev's door over real sockets: who hears what is published, in which order, byte for byte."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from tests.integration.native import make_application, unique
from tests.integration.sites import Guests

if TYPE_CHECKING:
    from tests.servers import Server


@pytest.fixture
async def guests(server: Server) -> AsyncIterator[Guests]:
    async with Guests(server, "bench") as everyone:
        yield everyone


async def test_who_publishes_need_not_subscribe(guests: Guests) -> None:
    channel = unique("channel")
    subscribers = [await guests.come("gowsev", channel) for _ in range(2)]
    publisher = await guests.come("gowsev")
    await publisher.say(channel, b"hello")
    assert await publisher.hear() == b"OK"
    for subscriber in subscribers:
        assert await subscriber.hear() == b"hello"
    assert await publisher.answers() == []


async def test_who_publishes_hears_ok_first_and_then_itself(guests: Guests) -> None:
    channel = unique("channel")
    subscriber = await guests.come("gowsev", channel)
    for number in range(40):
        await subscriber.say(channel, b"%d" % number)
    heard = [await subscriber.hear() for _ in range(80)]
    assert [each for each in heard if each != b"OK"] == [b"%d" % number for number in range(40)]
    for number in range(40):
        oks = heard[: heard.index(b"%d" % number)].count(b"OK")
        assert oks > number


async def test_nobody_hears_what_is_published_where_nobody_is(guests: Guests) -> None:
    publisher, channel = await guests.come("gowsev"), unique("channel")
    await publisher.say(channel, b"hello")
    assert await publisher.hear() == b"OK"
    native = await guests.come("native")
    assert (await native.ask("rooms", prefix=channel))["data"]["rooms"] == []


@pytest.mark.parametrize(
    "body", [b"", b"\0", bytes(range(256)), b'"quoted"', b"123", b'{"base64":"/wA="}', b"x" * 60_000]
)
async def test_a_body_arrives_as_it_was_sent_in_a_binary_frame(guests: Guests, body: bytes) -> None:
    channel = unique("channel")
    subscriber, publisher = await guests.come("gowsev", channel), await guests.come("gowsev")
    await publisher.say(channel, body)
    assert await subscriber.hear() == body


async def test_several_empty_bodies_are_several_frames(guests: Guests) -> None:
    channel = unique("channel")
    subscriber = await guests.come("gowsev", channel)
    for _ in range(3):
        await subscriber.say(channel, b"")
    heard = [await subscriber.hear() for _ in range(6)]
    assert sorted(heard) == [b"", b"", b"", b"OK", b"OK", b"OK"]


async def test_a_subscriber_is_a_member_until_it_unsubscribes_or_goes(guests: Guests) -> None:
    channel = unique("channel")
    native = await guests.come("native", channel)
    staying, going = [await guests.come("gowsev", channel) for _ in range(2)]
    assert [(await native.hear())["type"] for _ in range(2)] == ["joined", "joined"]
    await staying.send(f"subscribe:{channel}")
    assert await staying.hear() == b"OK"
    going.drop()
    left = await native.hear()
    assert (left["type"], left["reason"]) == ("left", "dropped")
    for command in (f"unsubscribe:{channel}", f"unsubscribe:{channel}", "unsubscribe-all"):
        await staying.send(command)
        assert await staying.hear() == b"OK"
    left = await native.hear()
    assert (left["type"], left["reason"]) == ("left", "left")
    assert (await native.ask("members", room=channel))["data"]["count"] == 1


async def test_unsubscribe_all_leaves_every_channel(guests: Guests) -> None:
    channels = [unique("channel") for _ in range(3)]
    subscriber, publisher = await guests.come("gowsev", channels[0]), await guests.come("gowsev")
    for channel in channels[1:]:
        await subscriber.enter(channel)
    await subscriber.send("unsubscribe-all")
    assert await subscriber.hear() == b"OK"
    for channel in channels:
        await publisher.say(channel, b"hello")
        assert await publisher.hear() == b"OK"
    assert await subscriber.answers() == []


async def test_a_channel_can_be_full_and_there_may_be_none_on_demand(server: Server) -> None:
    application = make_application(server, rooms_on_demand=False, logins_per_minute=0)
    server.manage(
        "shell",
        "-c",
        "from rooms.models import Application, Room\n"
        f"Room.objects.create(application=Application.objects.get(name={application!r}), name='small', "
        "max_members=1)",
    )
    async with Guests(server, application) as guests:
        first, second = await guests.come("gowsev", "small"), await guests.come("gowsev")
        assert await second.enter("small") == b"Invalid message"
        assert await second.enter("another") == b"Invalid message"
        await first.send("unsubscribe-all")
        assert await first.hear() == b"OK"
        # Its next command is carried out when it is out.
        assert await first.answers() == []
        assert await second.enter("small") == b"OK"
