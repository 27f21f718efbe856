"""What an application and a client are to each other across the class: ASGI, pressure, the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import weakref
from typing import Any

import pytest
from uvicorn.protocols.utils import ClientDisconnected

from rooms.protocol import frame_protocol
from rooms.server.transport import PONGS_A_READ, READ_A_TURN, Wire
from rooms.server.websocket import EXTENSION
from tests.server.served import PATIENCE, Client, echo, sent, served


class Application:
    """Does as the test says, with one connection at a time."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[dict[str, Any], Any, Any]] = asyncio.Queue()
        self.done = asyncio.Event()
        self.error: BaseException | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.done.clear()
        self.calls.put_nowait((scope, receive, send))
        await self.done.wait()
        if self.error is not None:
            raise self.error

    async def asked(self) -> tuple[dict[str, Any], Any, Any]:
        async with asyncio.timeout(PATIENCE):
            scope, receive, send = await self.calls.get()
            assert await receive() == {"type": "websocket.connect"}
        return scope, receive, send

    async def accepted(self) -> tuple[Any, Any, Any]:
        scope, receive, send = await self.asked()
        await send({"type": "websocket.accept"})
        return scope, receive, send


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def joined(site: Any, application: Application) -> tuple[Client, Any, Any, Any]:
    client = await site.dial()
    client.ask()
    scope, receive, send = await application.accepted()
    assert (await client.answer())[0] == 101
    return client, scope, receive, send


# The handshake -----------------------------------------------------------------------------------


async def test_the_scope_says_who_asks_for_what() -> None:
    application = Application()
    async with served(application, root_path="/root") as site:
        client = await site.dial()
        client.ask("/r%C3%A4ume/?a=b%20c", {"Sec-WebSocket-Protocol": "one, two", "X-Name": "v"})
        scope, _, send = await application.asked()
        assert scope["type"] == "websocket"
        assert (scope["path"], scope["raw_path"]) == ("/root/räume/", b"/root/r%C3%A4ume/")
        assert (scope["query_string"], scope["scheme"], scope["http_version"]) == (b"a=b%20c", "ws", "1.1")
        assert scope["subprotocols"] == ["one", "two"]
        assert (b"x-name", b"v") in scope["headers"]
        assert scope["client"] == client.writer.get_extra_info("sockname")
        assert scope["server"] == ("127.0.0.1", site.port)
        headers = [(b"X-More", b"1")]
        await send({"type": "websocket.accept", "subprotocol": "two", "headers": headers})
        status, answered, _ = await client.answer()
        assert (status, answered["sec-websocket-protocol"], answered["x-more"]) == (101, "two", "1")
        assert "sec-websocket-extensions" not in answered
        application.done.set()


async def test_compression_is_never_agreed_upon() -> None:
    async with served(echo) as site:
        client = await site.dial()
        client.ask(headers={"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"})
        status, headers, _ = await client.answer()
        assert (status, "sec-websocket-extensions" in headers) == (101, False)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": "x"}, 400),
        ({"Sec-WebSocket-Key": ""}, 400),
    ],
)
async def test_an_unlawful_request_never_reaches_the_application(
    changed: dict[str, str], status: int
) -> None:
    application = Application()
    async with served(application) as site:
        client = await site.dial()
        client.ask(headers=changed)
        answered, headers, body = await client.answer()
        assert (answered, body.endswith(b".")) == (status, True)
        assert headers.get("sec-websocket-version") == ("13" if status == 426 else None)
        assert await client.reader.read() == b""
        assert application.calls.empty()


async def test_what_comes_too_early_is_heard_after_the_answer() -> None:
    application = Application()
    async with served(application) as site:
        client = await site.dial()
        client.ask()
        _, receive, send = await application.asked()
        client.say(sent(frame_protocol.TEXT, b"early"))
        await until(lambda: site.sockets[0]._early)
        assert site.sockets[0]._paused
        await send({"type": "websocket.accept"})
        client.say(sent(frame_protocol.TEXT, b"late"))
        async with asyncio.timeout(PATIENCE):
            assert [(await receive())["text"] for _ in range(2)] == ["early", "late"]
        application.done.set()


async def test_a_close_before_the_answer_is_403() -> None:
    application = Application()
    async with served(application) as site:
        client = await site.dial()
        client.ask()
        _, receive, send = await application.asked()
        await send({"type": "websocket.close"})
        assert (await client.answer())[0] == 403
        assert (await receive())["type"] == "websocket.disconnect"
        application.done.set()


async def test_a_request_may_be_refused_with_a_whole_response() -> None:
    application = Application()
    async with served(application) as site:
        client = await site.dial()
        client.ask()
        _, _, send = await application.asked()
        start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"no")]}
        await send(start)
        with pytest.raises(RuntimeError, match=r"Lawful: websocket\.http\.response\.body"):
            await send({"type": "websocket.accept"})
        await send({"type": "websocket.http.response.body", "body": b"one ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"two"})
        status, headers, body = await client.answer()
        assert (status, headers["x-why"], body) == (401, "no", b"one two")
        assert await client.reader.read() == b""
        application.done.set()


@pytest.mark.parametrize("error", [None, ValueError("broken")])
async def test_an_application_without_an_answer_is_500(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    application = Application()
    application.error = error
    async with served(application) as site:
        client = await site.dial()
        client.ask()
        await application.asked()
        application.done.set()
        assert (await client.answer())[0] == 500
    assert ("broken" if error else "without completing handshake") in caplog.text


async def test_a_header_of_two_lines_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    application = Application()
    async with served(application) as site:
        client = await site.dial()
        client.ask()
        _, _, send = await application.asked()
        with pytest.raises(ValueError, match="one line"):
            await send({"type": "websocket.accept", "headers": [(b"x", b"a\r\nset-cookie: b")]})
        application.done.set()
        status, headers, _ = await client.answer()
        assert (status, "set-cookie" in headers) == (500, False)


async def test_requests_are_logged_where_that_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "uvicorn.error"):
        async with served(echo) as site:
            client = await site.open("/somewhere?a=b")
            port = client.writer.get_extra_info("sockname")[1]
    assert f'127.0.0.1:{port} - "WebSocket /somewhere?a=b" [accepted]' in caplog.text


async def test_a_status_that_is_none_is_no_answer() -> None:
    application = Application()
    async with served(application) as site:
        client = await site.dial()
        client.ask()
        _, _, send = await application.asked()
        for status in (101, 600):
            with pytest.raises(RuntimeError, match=f"status {status}. Lawful: 200 to 599"):
                await send({"type": "websocket.http.response.start", "status": status})
        application.done.set()
        assert (await client.answer())[0] == 500


# Messages and ends -------------------------------------------------------------------------------


async def test_text_and_bytes_go_both_ways_in_order() -> None:
    async with served(echo) as site:
        client = await site.open()
        client.say(
            *(
                sent(frame_protocol.TEXT, b"%d" % n) + sent(frame_protocol.BINARY, b"%d" % n)
                for n in range(500)
            )
        )
        expected = [each for n in range(500) for each in (str(n), b"%d" % n)]
        assert [await client.next() for _ in expected] == expected


@pytest.mark.parametrize(
    ("said", "code"), [(sent(frame_protocol.CLOSE, b"\x0f\xa1bye"), 4001), (sent(frame_protocol.CLOSE), 1005)]
)
async def test_a_client_that_says_good_bye(said: bytes, code: int) -> None:
    application = Application()
    async with served(application) as site:
        client, _, receive, send = await joined(site, application)
        client.say(sent(frame_protocol.TEXT, b"last"), said)
        async with asyncio.timeout(PATIENCE):
            assert (await receive())["text"] == "last"
            end = await receive()
        assert (end["code"], end["reason"]) == (code, "bye" if code == 4001 else "")
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "text": "too late"})
        assert await client.rest() == [code]
        application.done.set()


async def test_a_client_that_is_gone() -> None:
    application = Application()
    async with served(application) as site:
        client, _, receive, send = await joined(site, application)
        client.writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            assert (await receive())["code"] == 1006
        # Told once: whoever asks on and on is not to keep the event loop for itself.
        with pytest.raises(ClientDisconnected):
            await receive()
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "text": "too late"})
        application.done.set()
        await until(lambda: not site.sockets)


async def test_an_application_that_says_good_bye_hears_no_more() -> None:
    application = Application()
    async with served(application) as site:
        client, _, receive, send = await joined(site, application)
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        client.say(sent(frame_protocol.TEXT, b"late"))
        async with asyncio.timeout(PATIENCE):
            assert await receive() == {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}
        assert site.sockets[0].close_sent
        assert await client.next() == 4000
        client.say(sent(frame_protocol.CLOSE, b"\x0f\xa0"))
        assert await client.rest() == []
        application.done.set()


@pytest.mark.parametrize(("error", "code"), [(None, 1000), (ValueError("broken"), 1011)])
async def test_an_application_that_ends_closes(error: Exception | None, code: int) -> None:
    application = Application()
    application.error = error
    async with served(application) as site:
        client, _, _, _ = await joined(site, application)
        application.done.set()
        assert await client.next() == code


async def test_what_goes_on_keeps_nothing_of_the_application() -> None:
    class Request(dict[str, Any]):
        """What a middleware may hand on."""

    requests: list[weakref.ref[Request]] = []

    async def accepting(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})

        async def serve() -> None:
            await send({"type": "websocket.send", "text": str((await receive())["text"])})
            await receive()
            raise ValueError("broken")

        scope["extensions"][EXTENSION].go_on(serve)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        request = scope["request"] = Request(scope)
        requests.append(weakref.ref(request))
        await accepting(request, receive, send)

    async with served(application) as site:
        client = await site.open()
        client.say(sent(frame_protocol.TEXT, b"one"))
        assert await client.next() == "one"
        assert [request() for request in requests] == [None]
        client.say(sent(frame_protocol.TEXT, b"two"))
        assert await client.next() == 1011


async def test_an_application_that_is_cancelled_did_not_end_well() -> None:
    application = Application()
    async with served(application) as site:
        client, _, _, _ = await joined(site, application)
        for task in site.server.server_state.tasks:
            task.cancel()
        assert await client.next() == 1011


async def test_one_receive_at_a_time() -> None:
    application = Application()
    async with served(application) as site:
        client, _, receive, _ = await joined(site, application)
        first = asyncio.create_task(receive())
        await until(lambda: site.sockets[0]._waiter)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(RuntimeError, match="one receive at a time"):
                await receive()
        client.say(sent(frame_protocol.TEXT, b"x"))
        assert (await first)["text"] == "x"
        application.done.set()


async def test_nothing_is_said_after_the_last_word() -> None:
    application = Application()
    async with served(application) as site:
        client, _, _, send = await joined(site, application)
        # A message without anything in it is none.
        await send({"type": "websocket.send"})
        await send({"type": "websocket.close", "code": None})
        with pytest.raises(RuntimeError, match="Lawful: nothing"):
            await send({"type": "websocket.send", "text": "x"})
        assert await client.next() == 1000
        application.done.set()


async def test_what_cannot_be_said_is_an_error() -> None:
    application = Application()
    async with served(application) as site:
        client = await site.dial()
        client.ask()
        _, _, send = await application.asked()
        with pytest.raises(RuntimeError, match=r"Lawful: websocket\.accept"):
            await send({"type": "websocket.send", "text": "x"})
        await send({"type": "websocket.accept"})
        with pytest.raises(RuntimeError, match=r"Lawful: websocket\.send"):
            await send({"type": "websocket.accept"})
        application.done.set()


async def test_the_reason_of_a_refused_frame_is_heard_behind_much_that_is_unread() -> None:
    async with served(echo, ws_max_size=1000) as site:
        client = await site.open()
        client.writer.transport.pause_reading()
        client.say(sent(frame_protocol.TEXT, b"x" * 5_000_000))
        await until(lambda: not site.sockets or site.sockets[0].close_sent)
        client.writer.transport.resume_reading()
        assert await client.rest() == [1009]
        client.writer.close()
        await until(lambda: not site.sockets)


async def test_uvicorn_takes_leave() -> None:
    async with served(echo) as site:
        client = await site.open()
        waiting = await site.dial()
        await until(lambda: len(site.server.server_state.connections) == 2)
        for each in list(site.server.server_state.connections):
            each.shutdown()
        assert await client.rest() == [1012]
        assert await waiting.reader.read() == b""


async def test_uvicorn_takes_leave_of_those_who_are_yet_to_be_answered() -> None:
    application = Application()
    async with served(application) as site:
        client = await site.dial()
        client.ask()
        await application.asked()
        site.sockets[0].shutdown()
        assert (await client.answer())[0] == 503
        application.done.set()


# Pressure ----------------------------------------------------------------------------------------


def small_buffers() -> socket.socket:
    """A socket that takes little before it is full."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return made


async def clogged(site: Any, application: Application) -> tuple[Client, Any, Any]:
    """A client that does not read, until nothing more can be written."""
    own = small_buffers()
    own.setblocking(False)
    await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", site.port))
    reader, writer = await asyncio.open_connection(sock=own, limit=4096)
    client = Client(reader, writer)
    site.clients.append(client)
    client.ask()
    scope, receive, _ = await application.accepted()
    assert (await client.answer())[0] == 101
    writer.transport.pause_reading()
    wire = scope["extensions"][EXTENSION]
    return client, wire, receive


FRAME = frame_protocol.frame(frame_protocol.BINARY, b"x" * 65536)


def fill(wire: Any) -> int:
    """Write until it says that the client does not read; how many frames that took."""
    written = 1
    while wire.write(FRAME):
        written += 1
    return written


async def test_whoever_does_not_read_is_told_of_and_so_is_its_reading_again() -> None:
    application = Application()
    async with served(application) as site:
        client, wire, _ = await clogged(site, application)
        drained: list[bool] = []
        wire.on_drained(lambda: drained.append(True))
        written = fill(wire)
        # A ping is answered when there is room again, and only the last.
        client.say(sent(frame_protocol.PING, b"one"), sent(frame_protocol.PING, b"two"))
        await until(lambda: site.sockets[0]._pong == b"two")
        assert drained == []
        client.writer.transport.resume_reading()
        assert [await client.next() for _ in range(written)] == [b"x" * 65536] * written
        assert await client.next() == ("PONG", b"two")
        assert drained == [True]
        assert wire.write(FRAME)
        application.done.set()


async def test_of_many_pings_the_last_are_answered_and_others_get_their_turn() -> None:
    async with served(echo) as site:
        client = await site.open()
        (wire,) = site.sockets
        flood = b"".join(sent(frame_protocol.PING, b"%d" % n) for n in range(READ_A_TURN // 7))
        wire.data_received(flood[: flood.index(sent(frame_protocol.PING, b"100"))])
        assert not wire._paused
        assert [await client.next() for _ in range(PONGS_A_READ)] == [
            ("PONG", b"%d" % n) for n in range(100 - PONGS_A_READ, 100)
        ]
        wire.data_received(flood)
        assert wire._paused
        client.say(sent(frame_protocol.TEXT, b"x"))
        # Two turns it took.
        assert READ_A_TURN < len(flood) < 2 * READ_A_TURN
        assert [await client.next() for _ in range(2 * PONGS_A_READ + 1)][-1] == "x"


async def test_send_waits_for_a_client_that_does_not_read() -> None:
    application = Application()
    async with served(application) as site:
        client, wire, _ = await clogged(site, application)
        fill(wire)
        sending = [
            asyncio.create_task(site.sockets[0].send({"type": "websocket.send", "text": t})) for t in "ab"
        ]
        await asyncio.sleep(0)
        assert not any(each.done() for each in sending)
        client.writer.transport.resume_reading()
        while (heard := await client.next()) != "a":
            assert heard == b"x" * 65536
        assert await client.next() == "b"
        await asyncio.gather(*sending)
        application.done.set()


async def test_send_ends_with_the_client() -> None:
    application = Application()
    async with served(application) as site:
        client, wire, receive = await clogged(site, application)
        fill(wire)
        sending = asyncio.create_task(site.sockets[0].send({"type": "websocket.send", "text": "x"}))
        client.writer.transport.abort()
        with pytest.raises(ClientDisconnected):
            async with asyncio.timeout(PATIENCE):
                await sending
        assert (await receive())["code"] == 1006
        application.done.set()


async def test_a_client_that_does_not_read_the_last_word_is_let_go_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rooms.server.transport.CLOSE_SECONDS", 0.05)
    application = Application()
    async with served(application) as site:
        _, wire, receive = await clogged(site, application)
        fill(wire)
        wire.close(4001, "slow")
        async with asyncio.timeout(PATIENCE):
            assert (await receive())["code"] == 4001
        await until(lambda: not site.sockets)
        application.done.set()


async def test_an_application_that_does_not_take_holds_its_client_back() -> None:
    application = Application()
    async with served(application) as site:
        client, _, receive, _ = await joined(site, application)
        message, count = sent(frame_protocol.BINARY, b"x" * 100_000), 200
        client.writer.transport.set_write_buffer_limits(high=1 << 30)
        client.say(*[message] * count)
        await until(lambda: site.sockets[0]._paused)
        # What waits is bounded by what is read at once, not by what is sent.
        assert sum(map(len, site.sockets[0]._received)) < 2_000_000
        async with asyncio.timeout(PATIENCE):
            for _ in range(count):
                assert len((await receive())["bytes"]) == 100_000
        assert not site.sockets[0]._paused
        application.done.set()


async def test_what_is_written_after_the_end_goes_nowhere() -> None:
    application = Application()
    async with served(application) as site:
        client, scope, _, send = await joined(site, application)
        wire = scope["extensions"][EXTENSION]
        assert wire.write(
            frame_protocol.frame(frame_protocol.TEXT, b"a") + frame_protocol.frame(frame_protocol.TEXT, b"b")
        )
        await send({"type": "websocket.send", "text": "c"})
        wire.close(1000, "")
        assert wire.write(frame_protocol.frame(frame_protocol.TEXT, b"d"))
        wire.close(4000, "again")
        client.say(sent(frame_protocol.CLOSE))
        async with asyncio.timeout(PATIENCE):
            heard = await client.reader.read()
        assert heard == b"\x81\x01a\x81\x01b\x81\x01c\x88\x02\x03\xe8"
        application.done.set()


async def test_an_application_that_closes_need_not_take_what_was_said() -> None:
    application = Application()
    async with served(application) as site:
        client, _, receive, send = await joined(site, application)
        client.writer.transport.set_write_buffer_limits(high=1 << 30)
        client.say(*[sent(frame_protocol.BINARY, b"x" * 100_000)] * 100, sent(frame_protocol.CLOSE))
        await until(lambda: site.sockets[0]._paused)
        await send({"type": "websocket.close"})
        assert (await receive())["type"] == "websocket.disconnect"
        # Its answer lies behind all that.
        assert await client.rest() == [1000]
        application.done.set()


async def test_who_is_gone_may_have_left_something_to_be_taken() -> None:
    application = Application()
    async with served(application) as site:
        client, _, receive, _ = await joined(site, application)
        client.writer.transport.set_write_buffer_limits(high=1 << 30)
        client.say(*[sent(frame_protocol.BINARY, b"x" * 100_000)] * 100)
        (wire,) = site.sockets
        await until(lambda: wire._paused)
        wire.abort()
        await until(lambda: not site.sockets)
        # Its transport is gone as well, and would not take it kindly to be read again.
        assert not wire._paused
        async with asyncio.timeout(PATIENCE):
            while (message := await receive())["type"] == "websocket.receive":
                assert len(message["bytes"]) == 100_000
        assert message["code"] == 1006
        application.done.set()


async def test_nothing_is_left_of_a_connection_for_the_collector() -> None:
    async with served(echo) as site:
        gc.collect()
        gc.disable()
        # The records of a test's log outlive it, and hold on to those of their tracebacks.
        before = {id(each) for each in gc.get_objects() if isinstance(each, Wire)}
        try:
            for last in (sent(frame_protocol.CLOSE), sent(frame_protocol.TEXT, b"\xff"), b""):
                client = await site.open()
                client.say(sent(frame_protocol.TEXT, b"x"), last)
                assert await client.next() == "x" or last
                client.writer.close()
            await until(lambda: not site.sockets and not site.server.server_state.tasks)
            assert not [
                each for each in gc.get_objects() if isinstance(each, Wire) and id(each) not in before
            ]
        finally:
            gc.enable()


# Whether they are there --------------------------------------------------------------------------


async def test_whoever_answers_pings_stays_and_whoever_does_not_goes() -> None:
    application = Application()
    async with served(application, ws_ping_interval=3600, ws_ping_timeout=3600) as site:
        client, _, receive, _ = await joined(site, application)
        (wire,) = site.sockets
        for _ in range(3):
            wire.look()
            assert await client.next() == ("PING", b"")
            client.say(sent(frame_protocol.PONG))
            await until(lambda: wire._missed == 0)
        wire.look()
        assert await client.next() == ("PING", b"")
        wire.look()
        assert await client.next() == 1011
        async with asyncio.timeout(PATIENCE):
            assert (await receive())["code"] == 1011
        application.done.set()


async def test_nobody_is_blamed_for_what_we_have_not_read() -> None:
    application = Application()
    async with served(application, ws_ping_interval=3600, ws_ping_timeout=3600) as site:
        client, _, _, _ = await joined(site, application)
        (wire,) = site.sockets
        wire._pause_reading()
        for _ in range(5):
            wire.look()
        assert not wire.close_sent
        wire._resume_reading()
        wire.look()
        assert await client.next() == ("PING", b"")
        application.done.set()


async def test_they_are_pinged_without_being_asked_to() -> None:
    async with served(echo, ws_ping_interval=0.02, ws_ping_timeout=None) as site:
        client = await site.open()
        assert [await client.next() for _ in range(3)] == [("PING", b"")] * 3
        (wire,) = site.sockets
        assert wire._keepalive is not None
        client.writer.close()
        await until(lambda: not any(wire._keepalive._parts))
