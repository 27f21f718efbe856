"""Rates and queues (section 10). The rates are those of the demo application `chat`: the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from tests.integration import native
from tests.integration.native import unique

if TYPE_CHECKING:
    from tests.integration.native import Visitors

pytestmark = pytest.mark.any_database

visitors = native.visitors


async def test_too_many_requests_are_refused_until_the_connection_is_closed(visitors: Visitors) -> None:
    client = await visitors.guest(application="chat")
    room = unique("room")
    lines = [f'{{"type":"leave","id":{number},"room":"{room}"}}' for number in range(500)]
    await client.send_text("\n".join(lines))
    assert await client.closed() == 4006
    answers = [message for message in client.pushes if message["type"] == "error"]
    refused = [message for message in answers if message["code"] == "rate_limited"]
    assert answers.index(refused[0]) >= 59, "a burst of 60 is allowed, with the login"
    assert all(message["retry"] is True for message in refused)
    assert {message["code"] for message in answers} == {"not_member", "rate_limited"}


async def test_a_client_that_continues_is_closed_without_a_retry(visitors: Visitors) -> None:
    client = await visitors.guest(application="chat")
    lines = ['{"type":"ping"}'] * 500
    await client.send_text("\n".join(lines))
    assert await client.closed() == 4006
    back = await visitors.again(client, application="chat")
    await back.send_text("\n".join(lines))
    assert await back.closed() == 4508


async def test_a_message_that_is_too_large_is_refused(visitors: Visitors) -> None:
    application = native.make_application(visitors.server, rooms_on_demand=True, max_message_bytes=100)
    client, room = await visitors.guest(application=application), unique("room")
    await client.join(room)
    assert await client.refused("message", room=room, data="x" * 200) == "message_too_large"
    await client.send_message(room, "x" * 50)
    assert [len(message["data"]) for message in await client.messages(1)] == [50]


async def test_a_full_application_refuses_a_login(visitors: Visitors) -> None:
    application = native.make_application(visitors.server, max_users=1)
    first, second = await visitors.guest(application=application), await visitors.connect(application)
    assert await second.refused("login", name=unique("guest")) == "application_full"
    await second.login(token=first.token)


async def test_a_refused_message_is_not_sent(visitors: Visitors) -> None:
    room = unique("room")
    witness = await visitors.guest(application="chat")
    await witness.join(room)
    client = await visitors.guest(application="chat")
    await client.join(room)
    for number in range(60):
        await client.send("message", id=f"n{number}", room=room, data=number)
    answers = [await client.answer(f"n{number}") for number in range(60)]
    granted = [number for number, answer in enumerate(answers) if answer["type"] == "reply"]
    assert {answer["code"] for answer in answers if answer["type"] == "error"} <= {"rate_limited"}
    received = [message["data"] for message in await witness.messages(len(granted))]
    assert received == granted
    assert await witness.before_pong() == []


async def test_bench_and_durable_have_no_rate_limits(visitors: Visitors) -> None:
    for application in ("bench", "durable"):
        client = await visitors.guest(application=application)
        await client.send_text("\n".join(f'{{"type":"ping","id":{number}}}' for number in range(1000)))
        assert (await client.answer(999))["type"] == "pong"


async def test_a_client_that_does_not_read_is_closed_without_effect_on_others(visitors: Visitors) -> None:
    if visitors.server.kind == "daphne":
        pytest.skip("Daphne buffers without bound, so that no limit of the server applies")
    room, large = unique("room"), "x" * 50_000
    sender, reader = await visitors.members(room, 2, application="bench")
    stalled = await visitors.connect("bench", max_queue=1)
    await stalled.login(name=unique("stalled"))
    await stalled.join(room)
    for number in range(400):
        await sender.send_message(room, [number, large], echo=False)
        assert (await reader.messages(1))[0]["data"][0] == number
    received = []
    try:
        while len(received) < 400:
            received.append((await stalled.messages(1))[0]["data"][0])
    except ConnectionClosed:
        assert stalled.socket.close_code in (4001, 1006), "1006: a close frame did not get through either"
    assert len(received) < 400
    assert received == [*range(len(received))]
