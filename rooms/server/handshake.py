"""Parses, validates and answers the handshake of a WebSocket, without IO.

``websocket.py`` has the socket.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TypeAlias

Headers: TypeAlias = list[tuple[bytes, bytes]]

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION = b"13"
KEY_BYTES = 16

# The fast path: a complete GET request of HTTP/1.1, one header a line, without folded lines.
MAX_HEAD_BYTES = 16 * 1024
_HEAD = re.compile(
    rb"GET [!-~]+ HTTP/1\.1\r\n(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n)+\r\n", re.ASCII
)
_HOST = re.compile(rb"\r\nhost:", re.IGNORECASE)
_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*\r", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection:(?:[^\r]*,)?[ \t]*upgrade[ \t]*[,\r]", re.IGNORECASE)


class BadHandshake(Exception):
    """The request cannot become a WebSocket.

    Carries the HTTP response: status, text and headers.
    """

    def __init__(self, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = list(headers)


@dataclass(frozen=True, slots=True)
class Request:
    """A valid handshake request.

    Header names are in lower case; ``key`` is the Sec-WebSocket-Key.
    """

    path: bytes
    query: bytes
    headers: Headers
    key: bytes

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers."""
        offered = b",".join(_values(self.headers, b"sec-websocket-protocol")).decode("latin-1").split(",")
        return [each.strip() for each in offered if each.strip()]


def end_of_request(data: bytes) -> int:
    """Return where a plain WebSocket request at the start of ``data`` ends, or 0.

    0 means anything else: an incomplete, unusual or invalid request, which is left to a full HTTP parser.
    """
    found = _HEAD.match(data, 0, MAX_HEAD_BYTES)
    if found is None:
        return 0
    end = found.end()
    # HTTP requires one Host header, so that every proxy on the way agrees on the site.
    hosts = len(_HOST.findall(data, 0, end))
    return end if hosts == 1 and _UPGRADE.search(data, 0, end) and _CONNECTION.search(data, 0, end) else 0


def parse_request(head: bytes) -> Request:
    """Parse a request whose lines are well-formed. Raises BadHandshake."""
    first, *lines = head.split(b"\r\n")
    method, target, _ = first.split(b" ", 2)
    headers: Headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon:
            headers.append((name.lower(), value.strip()))
    if method != b"GET":
        raise BadHandshake(405, "A WebSocket is opened with GET.", [(b"allow", b"GET")])
    versions = _values(headers, b"sec-websocket-version")
    if versions != [VERSION]:
        raise BadHandshake(
            426,
            f"Expected one Sec-WebSocket-Version header with the value {VERSION.decode()}.",
            [
                (b"sec-websocket-version", VERSION),
                (b"upgrade", b"websocket"),
                (b"connection", b"upgrade, close"),
            ],
        )
    keys = _values(headers, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise BadHandshake(400, f"Expected one Sec-WebSocket-Key header with {KEY_BYTES} bytes in Base64.")
    if any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in headers
    ):
        # A proxy would take for a body what is read as frames here.
        raise BadHandshake(400, "Expected a WebSocket request without a body.")
    path, _, query = target.partition(b"?")
    return Request(path, query, headers, keys[0])


def accept_response(key: bytes, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Build the 101 response that opens the WebSocket.

    Raises ValueError for a header of several lines.
    """
    digest = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
    own = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", digest)]
    if subprotocol:
        own.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
    return _head(101, [*own, *headers])


def reject_response(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Build an HTTP response that rejects the handshake and ends the connection.

    Raises ValueError for a header of several lines.
    """
    given = list(headers)
    names = {name.lower() for name, _ in given}
    own = [
        (b"date", formatdate(usegmt=True).encode()),
        (b"connection", b"close"),
        (b"content-length", b"%d" % len(body)),
        (b"content-type", b"text/plain; charset=utf-8"),
    ]
    return _head(status, [*given, *(each for each in own if each[0] not in names)]) + body


def _head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}".encode()]
    for name, value in headers:
        line = name + b": " + value
        if b"\r" in line or b"\n" in line or b"\0" in line:
            raise ValueError(f"Expected a header on one line, got {line!r}.")
        lines.append(line)
    return b"\r\n".join([*lines, b"", b""])


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def _is_key(text: bytes) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False
