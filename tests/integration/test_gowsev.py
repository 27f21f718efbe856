"""gowsev over real sockets: receivers, order and bytes of published messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from tests.integration.native import make_application, unique
from tests.integration.sites import Clients

if TYPE_CHECKING:
    from tests.servers import Server

pytestmark = [pytest.mark.any_database, pytest.mark.smoke]


@pytest.fixture
async def clients(server: Server) -> AsyncIterator[Clients]:
    async with Clients(server, "bench") as opened:
        yield opened


async def test_a_publisher_need_not_subscribe(clients: Clients) -> None:
    channel = unique("channel")
    subscribers = [await clients.connect("gowsev", channel) for _ in range(2)]
    publisher = await clients.connect("gowsev")
    await publisher.send_message(channel, b"hello")
    assert await publisher.receive() == b"OK"
    for subscriber in subscribers:
        assert await subscriber.receive() == b"hello"
    assert await publisher.drain() == []


async def test_a_publisher_receives_ok_before_its_own_message(clients: Clients) -> None:
    channel = unique("channel")
    subscriber = await clients.connect("gowsev", channel)
    for number in range(40):
        await subscriber.send_message(channel, b"%d" % number)
    frames = [await subscriber.receive() for _ in range(80)]
    assert [each for each in frames if each != b"OK"] == [b"%d" % number for number in range(40)]
    for number in range(40):
        oks = frames[: frames.index(b"%d" % number)].count(b"OK")
        assert oks > number


async def test_a_message_to_an_empty_channel_is_dropped(clients: Clients) -> None:
    publisher, channel = await clients.connect("gowsev"), unique("channel")
    await publisher.send_message(channel, b"hello")
    assert await publisher.receive() == b"OK"
    native = await clients.connect("native")
    assert (await native.request("rooms", prefix=channel))["data"]["rooms"] == []


@pytest.mark.parametrize(
    "body", [b"", b"\0", bytes(range(256)), b'"quoted"', b"123", b'{"base64":"/wA="}', b"x" * 60_000]
)
async def test_a_body_is_received_unchanged_in_a_binary_frame(clients: Clients, body: bytes) -> None:
    channel = unique("channel")
    subscriber, publisher = await clients.connect("gowsev", channel), await clients.connect("gowsev")
    await publisher.send_message(channel, body)
    assert await subscriber.receive() == body


async def test_several_empty_bodies_are_several_frames(clients: Clients) -> None:
    channel = unique("channel")
    subscriber = await clients.connect("gowsev", channel)
    for _ in range(3):
        await subscriber.send_message(channel, b"")
    frames = [await subscriber.receive() for _ in range(6)]
    assert sorted(frames) == [b"", b"", b"", b"OK", b"OK", b"OK"]


async def test_a_subscriber_is_a_member_until_it_unsubscribes_or_disconnects(clients: Clients) -> None:
    channel = unique("channel")
    native = await clients.connect("native", channel)
    staying, leaving = [await clients.connect("gowsev", channel) for _ in range(2)]
    assert [(await native.receive())["type"] for _ in range(2)] == ["joined", "joined"]
    await staying.send(f"subscribe:{channel}")
    assert await staying.receive() == b"OK"
    leaving.drop()
    left = await native.receive()
    assert (left["type"], left["reason"]) == ("left", "dropped")
    for command in (f"unsubscribe:{channel}", f"unsubscribe:{channel}", "unsubscribe-all"):
        await staying.send(command)
        assert await staying.receive() == b"OK"
    left = await native.receive()
    assert (left["type"], left["reason"]) == ("left", "left")
    assert (await native.request("members", room=channel))["data"]["count"] == 1


async def test_unsubscribe_all_leaves_every_channel(clients: Clients) -> None:
    channels = [unique("channel") for _ in range(3)]
    subscriber, publisher = await clients.connect("gowsev", channels[0]), await clients.connect("gowsev")
    for channel in channels[1:]:
        await subscriber.join(channel)
    await subscriber.send("unsubscribe-all")
    assert await subscriber.receive() == b"OK"
    for channel in channels:
        await publisher.send_message(channel, b"hello")
        assert await publisher.receive() == b"OK"
    assert await subscriber.drain() == []


async def test_a_full_channel_and_a_missing_channel_refuse_subscribers(server: Server) -> None:
    application = make_application(server, rooms_on_demand=False, logins_per_minute=0)
    server.manage(
        "shell",
        "-c",
        "from rooms.models import Application, Room\n"
        f"Room.objects.create(application=Application.objects.get(name={application!r}), name='small', "
        "max_members=1)",
    )
    async with Clients(server, application) as clients:
        first, second = await clients.connect("gowsev", "small"), await clients.connect("gowsev")
        assert await second.join("small") == b"Invalid message"
        assert await second.join("another") == b"Invalid message"
        await first.send("unsubscribe-all")
        assert await first.receive() == b"OK"
        # The next command is executed after the leave.
        assert await first.drain() == []
        assert await second.join("small") == b"OK"
