"""The server follows RFC 6455, as a client on the wire sees it.

The cases have the numbers of the sections of Autobahn's test suite: frames, pings, reserved bits, opcodes,
fragments, UTF-8, closing, sizes. Each is a list of steps: bytes that are sent, frames that are expected.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeAlias

import pytest

from rooms.protocol.frame_protocol import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from tests.server.harness import Site, client_frame, echo, serve

LIMIT = 300_000

Step: TypeAlias = tuple[bytes, list[object]]


def last(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return client_frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


def fragments(opcode: int, *pieces: bytes) -> list[bytes]:
    return [
        client_frame(CONTINUATION if index else opcode, piece, last=index == len(pieces) - 1)
        for index, piece in enumerate(pieces)
    ]


def between(frames: list[bytes], *others: bytes) -> bytes:
    """Put other frames behind each fragment but the last."""
    return b"".join(frame + b"".join(others) for frame in frames[:-1]) + frames[-1]


BYE: Step = (last(), [1000])
VALID = "Hello-µ@ßöäüàá-UTF-8!!"
INVALID = "κόσμε".encode() + b"\xf4\x90\x80\x80" + b"edited"

CASES: dict[str, list[Step]] = {
    # 1: frames
    **{
        f"1.1 text of {size} bytes": [(client_frame(TEXT, b"*" * size), ["*" * size]), BYE]
        for size in (0, 125, 126, 127, 128, 65535, 65536)
    },
    **{
        f"1.2 binary of {size} bytes": [(client_frame(BINARY, b"\xfe" * size), [b"\xfe" * size]), BYE]
        for size in (0, 125, 126, 127, 128, 65535, 65536)
    },
    # 2: pings and pongs
    **{
        f"2.1 ping of {size} bytes": [(client_frame(PING, b"\xff" * size), [("PONG", b"\xff" * size)]), BYE]
        for size in (0, 5, 125)
    },
    "2.5 ping of 126 bytes": [(client_frame(PING, b"x" * 126), [1002])],
    "2.7 unsolicited pongs": [(client_frame(PONG) + client_frame(PONG, b"x"), []), BYE],
    "2.9 pong, then ping": [(client_frame(PONG, b"x") + client_frame(PING, b"y"), [("PONG", b"y")]), BYE],
    "2.10 ten pings": [
        (
            b"".join(client_frame(PING, bytes([n])) for n in range(10)),
            [("PONG", bytes([n])) for n in range(10)],
        ),
        BYE,
    ],
    # 3: reserved bits
    **{
        f"3.{bits >> 4} reserved bits {bits:#x}": [
            (client_frame(TEXT, b"before"), ["before"]),
            (client_frame(opcode, b"x", reserved=bits) + client_frame(PING), [1002]),
        ]
        for bits, opcode in zip(
            (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70),
            (TEXT, BINARY, PING, CLOSE, TEXT, PONG, TEXT),
            strict=True,
        )
    },
    # 4: opcodes
    **{
        f"4 opcode {opcode}": [
            (client_frame(TEXT, b"before"), ["before"]),
            (client_frame(opcode, b"x") + client_frame(PING), [1002]),
        ]
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    # 5: fragments
    "5.1 a fragmented ping": [(b"".join(fragments(PING, b"a", b"b")), [1002])],
    "5.2 a fragmented pong": [(b"".join(fragments(PONG, b"a", b"b")), [1002])],
    "5.3 text": [(b"".join(fragments(TEXT, b"a", b"b")), ["ab"]), BYE],
    "5.6 a ping between": [
        (between(fragments(TEXT, b"a", b"b"), client_frame(PING, b"p")), [("PONG", b"p"), "ab"]),
        BYE,
    ],
    "5.9 nothing to continue": [(client_frame(CONTINUATION, b"x") + client_frame(TEXT, b"y"), [1002])],
    "5.12 nothing to continue, not final": [
        (client_frame(CONTINUATION, b"x", last=False) + client_frame(TEXT, b"y"), [1002])
    ],
    "5.18 two beginnings": [(client_frame(TEXT, b"a", last=False) + client_frame(TEXT, b"b"), [1002])],
    "5.19 pings between": [
        (
            between(fragments(TEXT, b"1", b"2", b"3"), client_frame(PING, b"p"), client_frame(PONG)),
            [("PONG", b"p"), ("PONG", b"p"), "123"],
        ),
        BYE,
    ],
    "5.20 binary, with empty fragments": [
        (b"".join(fragments(BINARY, b"", b"a", b"", b"b", b"")), [b"ab"]),
        BYE,
    ],
    # 6: UTF-8
    "6.1 empty": [(client_frame(TEXT), [""]), (b"".join(fragments(TEXT, b"", b"", b"")), [""]), BYE],
    "6.2 valid": [(client_frame(TEXT, VALID.encode()), [VALID]), BYE],
    "6.2 valid, one byte a fragment": [
        (b"".join(fragments(TEXT, *(bytes([each]) for each in VALID.encode()))), [VALID]),
        BYE,
    ],
    "6.3 invalid": [(client_frame(TEXT, INVALID), [1007])],
    "6.3 invalid, one byte a fragment": [
        (b"".join(fragments(TEXT, *(bytes([each]) for each in INVALID))), [1007]),
    ],
    "6.4 invalid, detected before the end": [
        (client_frame(TEXT, INVALID[:11], last=False), []),
        (client_frame(CONTINUATION, INVALID[11:14], last=False), [1007]),
    ],
    "6.4 binary is not validated": [(client_frame(BINARY, INVALID), [INVALID]), BYE],
    **{
        f"6.{number} {bad!r}": [(client_frame(TEXT, bad), [1007])]
        for number, bad in enumerate(
            (
                *(b"\xce", b"\xce\xba\xe1\xbd", b"\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xfe", b"\xff"),
                *(b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf8\x88\x80\x80\x80", b"\xf7\xbf\xbf\xbf"),
            ),
            start=6,
        )
    },
    **{
        f"6.22 {text!r}": [(client_frame(TEXT, text.encode()), [text]), BYE]
        for text in ("\0", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffe", "\U0010ffff")
    },
    # 7: closing
    "7.1.2 two closes": [(last() + last(), [1000])],
    "7.1.3 a ping after the close": [(last() + client_frame(PING), [1000])],
    "7.1.4 text after the close": [(last() + client_frame(TEXT, b"x"), [1000])],
    "7.1.5 a close among fragments": [
        (client_frame(TEXT, b"a", last=False) + last() + client_frame(CONTINUATION), [1000])
    ],
    "7.3.1 without a code": [(last(None), [1005])],
    "7.3.2 a code of one byte": [(client_frame(CLOSE, b"\x03"), [1002])],
    "7.3.4 a reason": [(last(1000, b"bye"), [1000])],
    "7.3.5 the longest reason": [(last(1000, b"x" * 123), [1000])],
    "7.3.6 a longer reason": [(last(1000, b"x" * 124), [1002])],
    "7.5.1 a reason that is not UTF-8": [(last(1000, INVALID), [1007])],
    **{
        f"7.7 code {code}": [(last(code), [code])]
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
    **{
        f"7.9 code {code}": [(last(code), [1002])]
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    # 9: sizes
    "9.1 the largest": [(client_frame(TEXT, b"x" * LIMIT), ["x" * LIMIT]), BYE],
    "9.3 the largest, in many fragments": [
        (b"".join(fragments(BINARY, *[b"x" * 64] * (LIMIT // 64))), [b"x" * (LIMIT // 64 * 64)]),
        BYE,
    ],
    "9 larger": [(client_frame(TEXT, b"x" * (LIMIT + 1)), [1009])],
    "9 larger in fragments": [(b"".join(fragments(BINARY, *[b"x" * 1000] * (LIMIT // 1000 + 1))), [1009])],
    # 10, and masks, which have no section
    "10.1 in fragments of 1300 bytes": [
        (b"".join(fragments(TEXT, *[b"*" * 1300] * 50)), ["*" * 65000]),
        BYE,
    ],
    "no mask": [(client_frame(TEXT, b"x", key=None), [1002])],
}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serve(echo, ws_max_size=LIMIT) as site:
        yield site


@pytest.mark.parametrize("steps", CASES.values(), ids=CASES)
async def test_server_answers_as_the_rfc_requires(site: Site, steps: list[Step]) -> None:
    client = await site.connect_websocket()
    for data, expected in steps:
        client.send(data)
        assert [await client.next() for _ in expected] == expected
    assert await client.read_all() == []


@pytest.mark.parametrize(
    "steps",
    [
        CASES["6.2 valid, one byte a fragment"],
        CASES["5.19 pings between"],
        CASES["7.1.5 a close among fragments"],
    ],
    ids=["text", "pings", "close"],
)
async def test_frames_may_arrive_byte_by_byte(site: Site, steps: list[Step]) -> None:
    client = await site.connect_websocket()
    for data, expected in steps:
        for byte in data:
            client.send(bytes([byte]))
            await client.writer.drain()
        assert [await client.next() for _ in expected] == expected
    assert await client.read_all() == []
