"""The WebSocket class: the handshake, messages, the end of a connection."""

from __future__ import annotations

import asyncio
import logging
import weakref
from typing import Any

import pytest
from uvicorn.protocols.utils import ClientDisconnected

from rooms.protocol import frame_protocol
from rooms.server.websocket import EXTENSION
from tests.server.harness import PATIENCE, Application, client_frame, connect, echo, serve, until

# The handshake -----------------------------------------------------------------------------------


async def test_scope_describes_the_request() -> None:
    application = Application()
    async with serve(application, root_path="/root") as site:
        client = await site.connect()
        client.request("/r%C3%A4ume/?a=b%20c", {"Sec-WebSocket-Protocol": "one, two", "X-Name": "v"})
        scope, _, send = await application.connecting()
        assert scope["type"] == "websocket"
        assert (scope["path"], scope["raw_path"]) == ("/root/räume/", b"/root/r%C3%A4ume/")
        assert (scope["query_string"], scope["scheme"], scope["http_version"]) == (b"a=b%20c", "ws", "1.1")
        assert scope["subprotocols"] == ["one", "two"]
        assert (b"x-name", b"v") in scope["headers"]
        assert scope["client"] == client.writer.get_extra_info("sockname")
        assert scope["server"] == ("127.0.0.1", site.port)
        headers = [(b"X-More", b"1")]
        await send({"type": "websocket.accept", "subprotocol": "two", "headers": headers})
        status, answered, _ = await client.response()
        assert (status, answered["sec-websocket-protocol"], answered["x-more"]) == (101, "two", "1")
        assert "sec-websocket-extensions" not in answered
        application.done.set()


async def test_compression_is_not_negotiated() -> None:
    async with serve(echo) as site:
        client = await site.connect()
        client.request(headers={"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"})
        status, headers, _ = await client.response()
        assert (status, "sec-websocket-extensions" in headers) == (101, False)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": "x"}, 400),
        ({"Sec-WebSocket-Key": ""}, 400),
    ],
)
async def test_invalid_request_does_not_reach_the_application(changed: dict[str, str], status: int) -> None:
    application = Application()
    async with serve(application) as site:
        client = await site.connect()
        client.request(headers=changed)
        answered, headers, body = await client.response()
        assert (answered, body.endswith(b".")) == (status, True)
        assert headers.get("sec-websocket-version") == ("13" if status == 426 else None)
        assert await client.reader.read() == b""
        assert application.calls.empty()


async def test_frames_sent_before_the_response_are_received_after_it() -> None:
    application = Application()
    async with serve(application) as site:
        client = await site.connect()
        client.request()
        _, receive, send = await application.connecting()
        client.send(client_frame(frame_protocol.TEXT, b"early"))
        await until(lambda: site.websockets[0]._early_data)
        assert site.websockets[0]._paused
        await send({"type": "websocket.accept"})
        client.send(client_frame(frame_protocol.TEXT, b"late"))
        async with asyncio.timeout(PATIENCE):
            assert [(await receive())["text"] for _ in range(2)] == ["early", "late"]
        application.done.set()


async def test_close_before_accept_is_answered_with_403() -> None:
    application = Application()
    async with serve(application) as site:
        client = await site.connect()
        client.request()
        _, receive, send = await application.connecting()
        await send({"type": "websocket.close"})
        assert (await client.response())[0] == 403
        assert (await receive())["type"] == "websocket.disconnect"
        application.done.set()


async def test_application_rejects_with_a_complete_response() -> None:
    application = Application()
    async with serve(application) as site:
        client = await site.connect()
        client.request()
        _, _, send = await application.connecting()
        start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"no")]}
        await send(start)
        with pytest.raises(RuntimeError, match=r"Expected websocket\.http\.response\.body, got"):
            await send({"type": "websocket.accept"})
        await send({"type": "websocket.http.response.body", "body": b"one ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"two"})
        status, headers, body = await client.response()
        assert (status, headers["x-why"], body) == (401, "no", b"one two")
        assert await client.reader.read() == b""
        application.done.set()


@pytest.mark.parametrize("error", [None, ValueError("broken")])
async def test_application_that_returns_without_accepting_is_answered_with_500(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    application = Application()
    application.error = error
    async with serve(application) as site:
        client = await site.connect()
        client.request()
        await application.connecting()
        application.done.set()
        assert (await client.response())[0] == 500
    assert ("broken" if error else "without completing handshake") in caplog.text


async def test_header_with_a_line_break_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    application = Application()
    async with serve(application) as site:
        client = await site.connect()
        client.request()
        _, _, send = await application.connecting()
        with pytest.raises(ValueError, match="one line"):
            await send({"type": "websocket.accept", "headers": [(b"x", b"a\r\nset-cookie: b")]})
        application.done.set()
        status, headers, _ = await client.response()
        assert (status, "set-cookie" in headers) == (500, False)


async def test_requests_are_logged_at_level_info(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "uvicorn.error"):
        async with serve(echo) as site:
            client = await site.connect_websocket("/somewhere?a=b")
            port = client.writer.get_extra_info("sockname")[1]
    assert f'127.0.0.1:{port} - "WebSocket /somewhere?a=b" [accepted]' in caplog.text


async def test_status_out_of_range_is_refused() -> None:
    application = Application()
    async with serve(application) as site:
        client = await site.connect()
        client.request()
        _, _, send = await application.connecting()
        for status in (101, 600):
            with pytest.raises(RuntimeError, match=f"Expected a status from 200 to 599, got {status} "):
                await send({"type": "websocket.http.response.start", "status": status})
        application.done.set()
        assert (await client.response())[0] == 500


# Messages and the end ----------------------------------------------------------------------------


async def test_text_and_bytes_are_echoed_in_order() -> None:
    async with serve(echo) as site:
        client = await site.connect_websocket()
        client.send(
            *(
                client_frame(frame_protocol.TEXT, b"%d" % n) + client_frame(frame_protocol.BINARY, b"%d" % n)
                for n in range(500)
            )
        )
        expected = [each for n in range(500) for each in (str(n), b"%d" % n)]
        assert [await client.next() for _ in expected] == expected


@pytest.mark.parametrize(
    ("frame", "code"),
    [(client_frame(frame_protocol.CLOSE, b"\x0f\xa1bye"), 4001), (client_frame(frame_protocol.CLOSE), 1005)],
)
async def test_close_by_the_client_ends_receive_and_send(frame: bytes, code: int) -> None:
    application = Application()
    async with serve(application) as site:
        client, _, receive, send = await connect(site, application)
        client.send(client_frame(frame_protocol.TEXT, b"last"), frame)
        async with asyncio.timeout(PATIENCE):
            assert (await receive())["text"] == "last"
            end = await receive()
        assert (end["code"], end["reason"]) == (code, "bye" if code == 4001 else "")
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "text": "too late"})
        assert await client.read_all() == [code]
        application.done.set()


async def test_lost_connection_ends_receive_and_send() -> None:
    application = Application()
    async with serve(application) as site:
        client, _, receive, send = await connect(site, application)
        client.writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            assert (await receive())["code"] == 1006
        # Delivered once: a caller in a loop would block the event loop.
        with pytest.raises(ClientDisconnected):
            await receive()
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "text": "too late"})
        application.done.set()
        await until(lambda: not site.websockets)


async def test_application_receives_nothing_after_its_close() -> None:
    application = Application()
    async with serve(application) as site:
        client, _, receive, send = await connect(site, application)
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        client.send(client_frame(frame_protocol.TEXT, b"late"))
        async with asyncio.timeout(PATIENCE):
            assert await receive() == {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}
        assert site.websockets[0].close_sent
        assert await client.next() == 4000
        client.send(client_frame(frame_protocol.CLOSE, b"\x0f\xa0"))
        assert await client.read_all() == []
        application.done.set()


@pytest.mark.parametrize(("error", "code"), [(None, 1000), (ValueError("broken"), 1011)])
async def test_connection_closes_when_the_application_ends(error: Exception | None, code: int) -> None:
    application = Application()
    application.error = error
    async with serve(application) as site:
        client, _, _, _ = await connect(site, application)
        application.done.set()
        assert await client.next() == code


async def test_continuation_releases_the_request() -> None:
    class Request(dict[str, Any]):
        """What middleware may pass on."""

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

    async with serve(application) as site:
        client = await site.connect_websocket()
        client.send(client_frame(frame_protocol.TEXT, b"one"))
        assert await client.next() == "one"
        assert [request() for request in requests] == [None]
        client.send(client_frame(frame_protocol.TEXT, b"two"))
        assert await client.next() == 1011


async def test_cancelled_application_closes_with_1011() -> None:
    application = Application()
    async with serve(application) as site:
        client, _, _, _ = await connect(site, application)
        for task in site.server.server_state.tasks:
            task.cancel()
        assert await client.next() == 1011


async def test_second_receive_at_the_same_time_is_refused() -> None:
    application = Application()
    async with serve(application) as site:
        client, _, receive, _ = await connect(site, application)
        first = asyncio.create_task(receive())
        await until(lambda: site.websockets[0]._waiter)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(RuntimeError, match="Expected one receive at a time"):
                await receive()
        client.send(client_frame(frame_protocol.TEXT, b"x"))
        assert (await first)["text"] == "x"
        application.done.set()


async def test_send_after_close_is_refused() -> None:
    application = Application()
    async with serve(application) as site:
        client, _, _, send = await connect(site, application)
        # A message without text and bytes sends nothing.
        await send({"type": "websocket.send"})
        await send({"type": "websocket.close", "code": None})
        with pytest.raises(RuntimeError, match="Expected nothing after the close"):
            await send({"type": "websocket.send", "text": "x"})
        assert await client.next() == 1000
        application.done.set()


async def test_message_of_the_wrong_type_is_refused() -> None:
    application = Application()
    async with serve(application) as site:
        client = await site.connect()
        client.request()
        _, _, send = await application.connecting()
        with pytest.raises(RuntimeError, match=r"Expected websocket\.accept"):
            await send({"type": "websocket.send", "text": "x"})
        await send({"type": "websocket.accept"})
        with pytest.raises(RuntimeError, match=r"Expected websocket\.send"):
            await send({"type": "websocket.accept"})
        application.done.set()


async def test_shutdown_closes_connections_with_1012() -> None:
    async with serve(echo) as site:
        client = await site.connect_websocket()
        waiting = await site.connect()
        await until(lambda: len(site.server.server_state.connections) == 2)
        for each in list(site.server.server_state.connections):
            each.shutdown()
        assert await client.read_all() == [1012]
        assert await waiting.reader.read() == b""


async def test_shutdown_answers_pending_handshakes_with_503() -> None:
    application = Application()
    async with serve(application) as site:
        client = await site.connect()
        client.request()
        await application.connecting()
        site.websockets[0].shutdown()
        assert (await client.response())[0] == 503
        application.done.set()
