"""Valid and invalid handshake requests, and the responses."""

from __future__ import annotations

import pytest

from rooms.server import handshake
from rooms.server.handshake import BadHandshake
from tests.server.harness import KEY

LINES = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def head(first: str = "GET /a?b=c HTTP/1.1", more: str = "", **changed: str) -> bytes:
    lines = {**LINES, **{name.replace("_", "-"): value for name, value in changed.items()}}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"{first}\r\n{text}{more}\r\n".encode("latin-1")


def test_valid_request_is_parsed() -> None:
    offers = "Sec-WebSocket-Protocol: one, two\r\nSec-WebSocket-Protocol: three\r\nX-Name: a: b \r\n"
    request = handshake.parse_request(head(more=offers))
    assert (request.path, request.query, request.key) == (b"/a", b"b=c", KEY.encode())
    assert request.subprotocols == ["one", "two", "three"]
    assert request.headers[0] == (b"host", b"localhost")
    assert request.headers[-1] == (b"x-name", b"a: b")


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head("POST / HTTP/1.1"), 405),
        (head(Sec_WebSocket_Version="8"), 426),
        (head(Sec_WebSocket_Version=""), 426),
        (head(more="Sec-WebSocket-Version: 8\r\n"), 426),
        (head(Sec_WebSocket_Key=""), 400),
        (head(Sec_WebSocket_Key="c2hvcnQ="), 400),
        (head(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ"), 400),
        (head(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==?"), 400),
        (head(more=f"Sec-WebSocket-Key: {KEY}\r\n"), 400),
        (head(more="Content-Length: 5\r\n"), 400),
        (head(more="Transfer-Encoding: chunked\r\n"), 400),
    ],
)
def test_invalid_request_is_refused(request_head: bytes, status: int) -> None:
    with pytest.raises(BadHandshake) as refused:
        handshake.parse_request(request_head)
    assert refused.value.status == status
    if status == 426:
        assert (b"sec-websocket-version", b"13") in refused.value.headers
        # RFC 9110: an Upgrade header is named in Connection.
        assert (b"connection", b"upgrade, close") in refused.value.headers


def test_accept_response_is_derived_from_the_key() -> None:
    answer = handshake.accept_response(KEY.encode(), "rooms.v1", [(b"x-more", b"1")])
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    # The example of RFC 6455, section 1.3.
    assert b"\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert answer.endswith(b"\r\nsec-websocket-protocol: rooms.v1\r\nx-more: 1\r\n\r\n")
    assert b"sec-websocket-extensions" not in answer


def test_reject_response_has_a_length_and_ends_the_connection() -> None:
    answer = handshake.reject_response(404, [(b"content-type", b"text/html")], b"body")
    first, _, rest = answer.partition(b"\r\n")
    assert first == b"HTTP/1.1 404 Not Found"
    assert b"content-length: 4\r\n" in rest
    assert b"connection: close\r\n" in rest
    assert rest.count(b"content-type") == 1
    assert handshake.reject_response(599, [], b"").startswith(b"HTTP/1.1 599 \r\n")


@pytest.mark.parametrize("bad", [b"a\r\nset-cookie: x", b"a\nb", b"a\0"])
def test_header_with_a_line_break_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match="on one line"):
        handshake.accept_response(KEY.encode(), None, [(b"x", bad)])
    with pytest.raises(ValueError, match="on one line"):
        handshake.reject_response(403, [(b"x", bad)], b"")
    with pytest.raises(ValueError, match="on one line"):
        handshake.accept_response(KEY.encode(), bad.decode(), [])


PLAIN = b"GET /a HTTP/1.1\r\nhost: a\r\nConnection: keep-alive, Upgrade\r\nUPGRADE:\tWebSocket \r\nx:\r\n\r\n"


@pytest.mark.parametrize("behind", [b"", b"GET", b"\r\n\r\n"])
def test_plain_request_ends_with_its_head(behind: bytes) -> None:
    assert handshake.end_of_request(PLAIN + behind) == len(PLAIN)


@pytest.mark.parametrize(
    ("part", "other"),
    [
        *((b"GET", b"POST"), (b"/a", b"/\xff"), (b"/a", b"/ a"), (b"HTTP/1.1", b"HTTP/1.0")),
        *((b"host: a", b"host : a"), (b"host: a", b"x: a"), (b"host: a", b"host: a\r\nHost: b")),
        *((b"x:", b"x"), (b"x:", b":"), (b"x:", b"x: \0"), (b"x:", b"x: a\rb"), (b"x:", b"x: a\nb")),
        *(
            (b"x:", b"x: a\r\n b"),
            (b"\r\n\r\n", b"\r\n"),
            (b"WebSocket", b"h2c"),
            (b"WebSocket", b"WebSocket2"),
        ),
        *(
            (b"Upgrade", b"close"),
            (b"Upgrade", b"no-Upgrade"),
            (b"x:", b"x: " + b"a" * handshake.MAX_HEAD_BYTES),
        ),
    ],
)
def test_unusual_request_is_left_to_the_http_parser(part: bytes, other: bytes) -> None:
    head = PLAIN.replace(part, other, 1)
    assert head != PLAIN
    assert handshake.end_of_request(head) == 0
