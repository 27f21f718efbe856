"""The frame transport: back-pressure in both directions, closing, keepalive."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from uvicorn.protocols.utils import ClientDisconnected

from rooms.protocol import frame_protocol
from rooms.server.transport import MAX_BYTES_PER_TURN, MAX_PONGS_PER_READ, FrameTransport
from rooms.server.websocket import EXTENSION
from tests.server.harness import (
    PATIENCE,
    Application,
    client_frame,
    connect,
    connect_without_reading,
    echo,
    serve,
    until,
)

FRAME = frame_protocol.frame(frame_protocol.BINARY, b"x" * 65536)


def fill(transport: Any) -> int:
    """Write until the client does not read; returns the number of frames."""
    written = 1
    while transport.write(FRAME):
        written += 1
    return written


# Back-pressure -----------------------------------------------------------------------------------


async def test_close_code_arrives_although_the_client_has_unread_data() -> None:
    async with serve(echo, ws_max_size=1000) as site:
        client = await site.connect_websocket()
        client.writer.transport.pause_reading()
        client.send(client_frame(frame_protocol.TEXT, b"x" * 5_000_000))
        await until(lambda: not site.websockets or site.websockets[0].close_sent)
        client.writer.transport.resume_reading()
        assert await client.read_all() == [1009]
        client.writer.close()
        await until(lambda: not site.websockets)


async def test_write_reports_a_client_that_does_not_read_and_on_drained_when_it_has() -> None:
    application = Application()
    async with serve(application) as site:
        client, transport, _ = await connect_without_reading(site, application)
        drained: list[bool] = []
        transport.on_drained(lambda: drained.append(True))
        written = fill(transport)
        # Once the client reads, the last ping alone is answered.
        client.send(client_frame(frame_protocol.PING, b"one"), client_frame(frame_protocol.PING, b"two"))
        await until(lambda: site.websockets[0]._pending_pong == b"two")
        assert drained == []
        client.writer.transport.resume_reading()
        assert [await client.next() for _ in range(written)] == [b"x" * 65536] * written
        assert await client.next() == ("PONG", b"two")
        assert drained == [True]
        assert transport.write(FRAME)
        application.done.set()


async def test_many_pings_are_answered_in_part_and_parsed_over_several_turns() -> None:
    async with serve(echo) as site:
        client = await site.connect_websocket()
        (websocket,) = site.websockets
        flood = b"".join(client_frame(frame_protocol.PING, b"%d" % n) for n in range(MAX_BYTES_PER_TURN // 7))
        websocket.data_received(flood[: flood.index(client_frame(frame_protocol.PING, b"100"))])
        assert not websocket._paused
        assert [await client.next() for _ in range(MAX_PONGS_PER_READ)] == [
            ("PONG", b"%d" % n) for n in range(100 - MAX_PONGS_PER_READ, 100)
        ]
        websocket.data_received(flood)
        assert websocket._paused
        client.send(client_frame(frame_protocol.TEXT, b"x"))
        # That took two turns.
        assert MAX_BYTES_PER_TURN < len(flood) < 2 * MAX_BYTES_PER_TURN
        assert [await client.next() for _ in range(2 * MAX_PONGS_PER_READ + 1)][-1] == "x"


async def test_send_waits_for_a_client_that_does_not_read() -> None:
    application = Application()
    async with serve(application) as site:
        client, transport, _ = await connect_without_reading(site, application)
        fill(transport)
        sending = [
            asyncio.create_task(site.websockets[0].send({"type": "websocket.send", "text": t})) for t in "ab"
        ]
        await asyncio.sleep(0)
        assert not any(each.done() for each in sending)
        client.writer.transport.resume_reading()
        while (received := await client.next()) != "a":
            assert received == b"x" * 65536
        assert await client.next() == "b"
        await asyncio.gather(*sending)
        application.done.set()


async def test_send_fails_when_the_client_is_lost() -> None:
    application = Application()
    async with serve(application) as site:
        client, transport, receive = await connect_without_reading(site, application)
        fill(transport)
        sending = asyncio.create_task(site.websockets[0].send({"type": "websocket.send", "text": "x"}))
        client.writer.transport.abort()
        with pytest.raises(ClientDisconnected):
            async with asyncio.timeout(PATIENCE):
                await sending
        assert (await receive())["code"] == 1006
        application.done.set()


async def test_client_that_does_not_read_its_close_frame_is_aborted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rooms.server.transport.CLOSE_TIMEOUT", 0.05)
    application = Application()
    async with serve(application) as site:
        _, transport, receive = await connect_without_reading(site, application)
        fill(transport)
        transport.close(4001, "slow")
        async with asyncio.timeout(PATIENCE):
            assert (await receive())["code"] == 4001
        await until(lambda: not site.websockets)
        application.done.set()


async def test_reading_pauses_until_the_application_takes_messages() -> None:
    application = Application()
    async with serve(application) as site:
        client, _, receive, _ = await connect(site, application)
        message, count = client_frame(frame_protocol.BINARY, b"x" * 100_000), 200
        client.writer.transport.set_write_buffer_limits(high=1 << 30)
        client.send(*[message] * count)
        await until(lambda: site.websockets[0]._paused)
        # The queue is bounded by the size of one read, not by what the client sends.
        assert sum(map(len, site.websockets[0]._received)) < 2_000_000
        async with asyncio.timeout(PATIENCE):
            for _ in range(count):
                assert len((await receive())["bytes"]) == 100_000
        assert not site.websockets[0]._paused
        application.done.set()


async def test_writes_after_close_are_ignored() -> None:
    application = Application()
    async with serve(application) as site:
        client, scope, _, send = await connect(site, application)
        transport = scope["extensions"][EXTENSION]
        assert transport.write(
            frame_protocol.frame(frame_protocol.TEXT, b"a") + frame_protocol.frame(frame_protocol.TEXT, b"b")
        )
        await send({"type": "websocket.send", "text": "c"})
        transport.close(1000, "")
        assert transport.write(frame_protocol.frame(frame_protocol.TEXT, b"d"))
        transport.close(4000, "again")
        client.send(client_frame(frame_protocol.CLOSE))
        async with asyncio.timeout(PATIENCE):
            received = await client.reader.read()
        assert received == b"\x81\x01a\x81\x01b\x81\x01c\x88\x02\x03\xe8"
        application.done.set()


async def test_close_drops_messages_that_were_not_taken() -> None:
    application = Application()
    async with serve(application) as site:
        client, _, receive, send = await connect(site, application)
        client.writer.transport.set_write_buffer_limits(high=1 << 30)
        client.send(
            *[client_frame(frame_protocol.BINARY, b"x" * 100_000)] * 100, client_frame(frame_protocol.CLOSE)
        )
        await until(lambda: site.websockets[0]._paused)
        await send({"type": "websocket.close"})
        assert (await receive())["type"] == "websocket.disconnect"
        # The client's close frame is behind all of that.
        assert await client.read_all() == [1000]
        application.done.set()


async def test_messages_of_a_lost_client_are_still_delivered() -> None:
    application = Application()
    async with serve(application) as site:
        client, _, receive, _ = await connect(site, application)
        client.writer.transport.set_write_buffer_limits(high=1 << 30)
        client.send(*[client_frame(frame_protocol.BINARY, b"x" * 100_000)] * 100)
        (websocket,) = site.websockets
        await until(lambda: websocket._paused)
        websocket.abort()
        await until(lambda: not site.websockets)
        # The socket is closed, and resuming it would fail.
        assert not websocket._paused
        async with asyncio.timeout(PATIENCE):
            while (message := await receive())["type"] == "websocket.receive":
                assert len(message["bytes"]) == 100_000
        assert message["code"] == 1006
        application.done.set()


async def test_closed_connection_leaves_no_garbage() -> None:
    async with serve(echo) as site:
        gc.collect()
        gc.disable()
        # Log records of earlier tests may hold transports in their tracebacks.
        before = {id(each) for each in gc.get_objects() if isinstance(each, FrameTransport)}
        try:
            for last in (client_frame(frame_protocol.CLOSE), client_frame(frame_protocol.TEXT, b"\xff"), b""):
                client = await site.connect_websocket()
                client.send(client_frame(frame_protocol.TEXT, b"x"), last)
                assert await client.next() == "x" or last
                client.writer.close()
            await until(lambda: not site.websockets and not site.server.server_state.tasks)
            assert not [
                each
                for each in gc.get_objects()
                if isinstance(each, FrameTransport) and id(each) not in before
            ]
        finally:
            gc.enable()


# Keepalive ---------------------------------------------------------------------------------------


async def test_keepalive_closes_a_client_that_does_not_answer_pings() -> None:
    application = Application()
    async with serve(application, ws_ping_interval=3600, ws_ping_timeout=3600) as site:
        client, _, receive, _ = await connect(site, application)
        (websocket,) = site.websockets
        for _ in range(3):
            websocket.check_alive()
            assert await client.next() == ("PING", b"")
            client.send(client_frame(frame_protocol.PONG))
            await until(lambda: websocket._silent_checks == 0)
        websocket.check_alive()
        assert await client.next() == ("PING", b"")
        websocket.check_alive()
        assert await client.next() == 1011
        async with asyncio.timeout(PATIENCE):
            assert (await receive())["code"] == 1011
        application.done.set()


async def test_keepalive_does_not_count_while_reading_is_paused() -> None:
    application = Application()
    async with serve(application, ws_ping_interval=3600, ws_ping_timeout=3600) as site:
        client, _, _, _ = await connect(site, application)
        (websocket,) = site.websockets
        websocket._pause_reading()
        for _ in range(5):
            websocket.check_alive()
        assert not websocket.close_sent
        websocket._resume_reading()
        websocket.check_alive()
        assert await client.next() == ("PING", b"")
        application.done.set()


async def test_clients_are_pinged_at_the_interval() -> None:
    async with serve(echo, ws_ping_interval=0.4, ws_ping_timeout=None) as site:
        client = await site.connect_websocket()
        assert [await client.next() for _ in range(3)] == [("PING", b"")] * 3
        (websocket,) = site.websockets
        assert websocket._keepalive is not None
        client.writer.close()
        await until(lambda: not any(websocket._keepalive._slots))
