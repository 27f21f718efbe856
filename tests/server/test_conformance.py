"""What the RFC asks of a server, as a client on the wire sees it.

The cases are those that Autobahn's test suite is made of, by its sections: frames, pings, reserved bits,
opcodes, fragments, UTF-8, closing, sizes. Each is what is said and what is to be heard, step by step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeAlias

import pytest

from rooms.protocol.frame_protocol import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from tests.server.served import Site, echo, sent, served

LIMIT = 300_000

Step: TypeAlias = tuple[bytes, list[object]]


def last(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return sent(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


def fragments(opcode: int, *pieces: bytes) -> list[bytes]:
    places = range(len(pieces))
    return [
        sent(CONTINUATION if place else opcode, pieces[place], last=place == places[-1]) for place in places
    ]


def between(frames: list[bytes], *others: bytes) -> bytes:
    """Something else after each fragment but the last."""
    return b"".join(frame + b"".join(others) for frame in frames[:-1]) + frames[-1]


BYE: Step = (last(), [1000])
VALID = "Hello-µ@ßöäüàá-UTF-8!!"
INVALID = "κόσμε".encode() + b"\xf4\x90\x80\x80" + b"edited"

CASES: dict[str, list[Step]] = {
    # 1: frames
    **{
        f"1.1 text of {size} bytes": [(sent(TEXT, b"*" * size), ["*" * size]), BYE]
        for size in (0, 125, 126, 127, 128, 65535, 65536)
    },
    **{
        f"1.2 binary of {size} bytes": [(sent(BINARY, b"\xfe" * size), [b"\xfe" * size]), BYE]
        for size in (0, 125, 126, 127, 128, 65535, 65536)
    },
    # 2: pings and pongs
    **{
        f"2.1 ping of {size} bytes": [(sent(PING, b"\xff" * size), [("PONG", b"\xff" * size)]), BYE]
        for size in (0, 5, 125)
    },
    "2.5 ping of 126 bytes": [(sent(PING, b"x" * 126), [1002])],
    "2.7 pongs nobody asked for": [(sent(PONG) + sent(PONG, b"x"), []), BYE],
    "2.9 pong, then ping": [(sent(PONG, b"x") + sent(PING, b"y"), [("PONG", b"y")]), BYE],
    "2.10 ten pings": [
        (b"".join(sent(PING, bytes([n])) for n in range(10)), [("PONG", bytes([n])) for n in range(10)]),
        BYE,
    ],
    # 3: reserved bits
    **{
        f"3.{bits >> 4} reserved bits {bits:#x}": [
            (sent(TEXT, b"before"), ["before"]),
            (sent(opcode, b"x", reserved=bits) + sent(PING), [1002]),
        ]
        for bits, opcode in zip(
            (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70),
            (TEXT, BINARY, PING, CLOSE, TEXT, PONG, TEXT),
            strict=True,
        )
    },
    # 4: opcodes
    **{
        f"4 opcode {opcode}": [(sent(TEXT, b"before"), ["before"]), (sent(opcode, b"x") + sent(PING), [1002])]
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    # 5: fragments
    "5.1 a fragmented ping": [(b"".join(fragments(PING, b"a", b"b")), [1002])],
    "5.2 a fragmented pong": [(b"".join(fragments(PONG, b"a", b"b")), [1002])],
    "5.3 text": [(b"".join(fragments(TEXT, b"a", b"b")), ["ab"]), BYE],
    "5.6 a ping between": [
        (between(fragments(TEXT, b"a", b"b"), sent(PING, b"p")), [("PONG", b"p"), "ab"]),
        BYE,
    ],
    "5.9 nothing to continue": [(sent(CONTINUATION, b"x") + sent(TEXT, b"y"), [1002])],
    "5.12 nothing to continue, unfinished": [
        (sent(CONTINUATION, b"x", last=False) + sent(TEXT, b"y"), [1002])
    ],
    "5.18 two beginnings": [(sent(TEXT, b"a", last=False) + sent(TEXT, b"b"), [1002])],
    "5.19 pings between": [
        (
            between(fragments(TEXT, b"1", b"2", b"3"), sent(PING, b"p"), sent(PONG)),
            [("PONG", b"p"), ("PONG", b"p"), "123"],
        ),
        BYE,
    ],
    "5.20 binary, empty ones too": [(b"".join(fragments(BINARY, b"", b"a", b"", b"b", b"")), [b"ab"]), BYE],
    # 6: UTF-8
    "6.1 nothing": [(sent(TEXT), [""]), (b"".join(fragments(TEXT, b"", b"", b"")), [""]), BYE],
    "6.2 valid": [(sent(TEXT, VALID.encode()), [VALID]), BYE],
    "6.2 valid, each byte alone": [
        (b"".join(fragments(TEXT, *(bytes([each]) for each in VALID.encode()))), [VALID]),
        BYE,
    ],
    "6.3 invalid": [(sent(TEXT, INVALID), [1007])],
    "6.3 invalid, each byte alone": [
        (b"".join(fragments(TEXT, *(bytes([each]) for each in INVALID))), [1007]),
    ],
    "6.4 invalid, found before the end": [
        (sent(TEXT, INVALID[:11], last=False), []),
        (sent(CONTINUATION, INVALID[11:14], last=False), [1007]),
    ],
    "6.4 invalid binary is none": [(sent(BINARY, INVALID), [INVALID]), BYE],
    **{
        f"6.{number} {bad!r}": [(sent(TEXT, bad), [1007])]
        for number, bad in enumerate(
            (
                *(b"\xce", b"\xce\xba\xe1\xbd", b"\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xfe", b"\xff"),
                *(b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf8\x88\x80\x80\x80", b"\xf7\xbf\xbf\xbf"),
            ),
            start=6,
        )
    },
    **{
        f"6.22 {text!r}": [(sent(TEXT, text.encode()), [text]), BYE]
        for text in ("\0", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffe", "\U0010ffff")
    },
    # 7: closing
    "7.1.2 two closes": [(last() + last(), [1000])],
    "7.1.3 a ping after the close": [(last() + sent(PING), [1000])],
    "7.1.4 text after the close": [(last() + sent(TEXT, b"x"), [1000])],
    "7.1.5 a close among fragments": [(sent(TEXT, b"a", last=False) + last() + sent(CONTINUATION), [1000])],
    "7.3.1 without a code": [(last(None), [1005])],
    "7.3.2 a code of one byte": [(sent(CLOSE, b"\x03"), [1002])],
    "7.3.4 a reason": [(last(1000, b"bye"), [1000])],
    "7.3.5 the longest reason": [(last(1000, b"x" * 123), [1000])],
    "7.3.6 a longer reason": [(last(1000, b"x" * 124), [1002])],
    "7.5.1 a reason that is no text": [(last(1000, INVALID), [1007])],
    **{
        f"7.7 code {code}": [(last(code), [code])]
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
    **{
        f"7.9 code {code}": [(last(code), [1002])]
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    # 9: sizes
    "9.1 the largest": [(sent(TEXT, b"x" * LIMIT), ["x" * LIMIT]), BYE],
    "9.3 the largest, in many fragments": [
        (b"".join(fragments(BINARY, *[b"x" * 64] * (LIMIT // 64))), [b"x" * (LIMIT // 64 * 64)]),
        BYE,
    ],
    "9 larger": [(sent(TEXT, b"x" * (LIMIT + 1)), [1009])],
    "9 larger in fragments": [(b"".join(fragments(BINARY, *[b"x" * 1000] * (LIMIT // 1000 + 1))), [1009])],
    # 10, and what no section has: masks
    "10.1 in fragments of 1300 bytes": [
        (b"".join(fragments(TEXT, *[b"*" * 1300] * 50)), ["*" * 65000]),
        BYE,
    ],
    "no mask": [(sent(TEXT, b"x", key=None), [1002])],
}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with served(echo, ws_max_size=LIMIT) as site:
        yield site


@pytest.mark.parametrize("steps", CASES.values(), ids=CASES)
async def test_case(site: Site, steps: list[Step]) -> None:
    client = await site.open()
    for said, expected in steps:
        client.say(said)
        assert [await client.next() for _ in expected] == expected
    assert await client.rest() == []


@pytest.mark.parametrize(
    "steps",
    [
        CASES["6.2 valid, each byte alone"],
        CASES["5.19 pings between"],
        CASES["7.1.5 a close among fragments"],
    ],
    ids=["text", "pings", "close"],
)
async def test_every_byte_may_come_alone(site: Site, steps: list[Step]) -> None:
    client = await site.open()
    for said, expected in steps:
        for byte in said:
            client.say(bytes([byte]))
            await client.writer.drain()
        assert [await client.next() for _ in expected] == expected
    assert await client.rest() == []
