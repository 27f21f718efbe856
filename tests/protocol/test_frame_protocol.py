"""WebSocket frames: valid streams in any chunks, and what is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as some
from websockets.frames import Close as TheirClose
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

from rooms.protocol import frame_protocol
from rooms.protocol.frame_protocol import Close, Ping, Pong, Reader, Received, Violation

LIMIT = 70_000
KEY = b"\x12\x34\x56\x78"


def sent(
    opcode: int, payload: bytes = b"", *, last: bool = True, reserved: int = 0, key: bytes | None = KEY
) -> bytes:
    """Return a frame of a client; without a ``key`` it is invalid: not masked."""
    size = len(payload)
    masked = 0 if key is None else 0x80
    head = bytes([(0x80 if last else 0) | reserved | opcode])
    if size < 126:
        head += bytes([masked | size])
    elif size < 1 << 16:
        head += bytes([masked | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([masked | 127]) + size.to_bytes(8, "big")
    return head + payload if key is None else head + key + frame_protocol.mask_in_python(payload, key)


def received(*chunks: bytes, limit: int = LIMIT) -> list[Received]:
    reader = Reader(limit)
    return [frame for chunk in chunks for frame in reader.receive(chunk)]


def violation(*chunks: bytes, limit: int = LIMIT) -> int:
    """Return the code of the violation, before which nothing is received."""
    (frame,) = received(*chunks, limit=limit)
    assert isinstance(frame, Violation)
    return frame.code


# Messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, LIMIT])
def test_messages_of_every_length_are_read(size: int) -> None:
    assert received(sent(frame_protocol.TEXT, b"x" * size)) == ["x" * size]
    assert received(sent(frame_protocol.BINARY, b"\xff" * size)) == [b"\xff" * size]


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_a_stream_may_arrive_in_any_chunks(step: int) -> None:
    stream = (
        sent(frame_protocol.TEXT, "ä€😀".encode() * 50)
        + sent(frame_protocol.PING, b"p")
        + sent(frame_protocol.BINARY, b"b" * 200)
    )
    chunks = [stream[start : start + step] for start in range(0, len(stream), step)]
    assert received(*chunks) == ["ä€😀" * 50, Ping(b"p"), b"b" * 200]


def test_fragments_are_assembled_and_control_frames_may_come_between_them() -> None:
    text = "häll€".encode()
    frames = received(
        sent(frame_protocol.TEXT, text[:2], last=False),
        sent(frame_protocol.PING, b"now"),
        sent(frame_protocol.CONTINUATION, b"", last=False) + sent(frame_protocol.PONG, b"then"),
        sent(frame_protocol.CONTINUATION, text[2:]),
        sent(frame_protocol.BINARY, b"a", last=False) + sent(frame_protocol.CONTINUATION, b"b"),
    )
    assert frames == [Ping(b"now"), Pong(b"then"), "häll€", b"ab"]


def test_the_size_of_a_message_is_limited_with_and_without_fragments() -> None:
    assert received(sent(frame_protocol.TEXT, b"x" * 10), limit=10) == ["x" * 10]
    # Refused before its payload has arrived.
    assert violation(sent(frame_protocol.TEXT, b"x" * 11)[:6], limit=10) == 1009
    fragment = sent(frame_protocol.CONTINUATION, b"x" * 5, last=False)
    assert violation(sent(frame_protocol.BINARY, b"x", last=False), fragment, fragment, limit=10) == 1009


def test_the_number_of_fragments_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_protocol, "MAX_FRAGMENTS", 3)
    nothing = sent(frame_protocol.CONTINUATION, b"", last=False)
    assert received(
        sent(frame_protocol.TEXT, b"", last=False) + nothing + sent(frame_protocol.CONTINUATION)
    ) == [""]
    assert violation(sent(frame_protocol.TEXT, b"", last=False) + 3 * nothing) == 1008


def test_the_limit_of_fragments_holds_per_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_protocol, "MAX_FRAGMENTS", 2)
    two = sent(frame_protocol.TEXT, b"a", last=False) + sent(frame_protocol.CONTINUATION, b"b")
    assert received(two * 3) == ["ab"] * 3


# Violations ---------------------------------------------------------------------------------------

INVALID = {
    "the first reserved bit": sent(frame_protocol.TEXT, reserved=0x40),
    "the second reserved bit": sent(frame_protocol.TEXT, reserved=0x20),
    "the third reserved bit": sent(frame_protocol.PING, reserved=0x10),
    "no mask": sent(frame_protocol.TEXT, b"x", key=None),
    **{f"opcode {opcode}": sent(opcode) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a fragmented ping": sent(frame_protocol.PING, last=False),
    "a long ping": sent(frame_protocol.PING, b"x" * 126)[:2],
    "a long close": sent(frame_protocol.CLOSE, b"\x03\xe8" + b"x" * 124),
    "nothing to continue": sent(frame_protocol.CONTINUATION),
    "a close code of one byte": sent(frame_protocol.CLOSE, b"\x03"),
    **{
        f"close code {code}": sent(frame_protocol.CLOSE, code.to_bytes(2, "big"))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("frame", INVALID.values(), ids=INVALID)
def test_an_invalid_frame_is_a_protocol_error(frame: bytes) -> None:
    assert violation(frame) == 1002


def test_a_fragmented_message_must_end_before_the_next_one() -> None:
    assert violation(sent(frame_protocol.TEXT, b"x", last=False), sent(frame_protocol.TEXT, b"y")) == 1002


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xce\xba\xe1"])
def test_text_must_be_utf_8(bad: bytes) -> None:
    assert violation(sent(frame_protocol.TEXT, bad)) == 1007
    assert violation(sent(frame_protocol.TEXT, bad, last=False), sent(frame_protocol.CONTINUATION)) == 1007
    assert violation(sent(frame_protocol.CLOSE, b"\x03\xe8" + bad)) == 1007


def test_a_fragment_of_invalid_text_is_refused_before_the_last_one() -> None:
    assert violation(sent(frame_protocol.TEXT, b"good\xf4\x90", last=False)) == 1007


def test_frames_before_a_violation_are_received_and_none_after_it() -> None:
    good, bad = sent(frame_protocol.TEXT, b"good"), sent(frame_protocol.TEXT, b"\xff")
    reader = Reader(LIMIT)
    assert reader.receive(good + bad + good) == ["good", Violation(1007, "Text must be UTF-8.")]
    assert reader.receive(good) == []


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999])
def test_nothing_is_received_after_a_close(code: int) -> None:
    last = sent(frame_protocol.CLOSE, code.to_bytes(2, "big") + "schön".encode())
    assert received(last + sent(frame_protocol.TEXT, b"x"), sent(frame_protocol.TEXT, b"x")) == [
        Close(code, "schön")
    ]
    assert received(sent(frame_protocol.CLOSE)) == [Close(1005, "")]


# Encoding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_websockets_reads_the_frames_that_are_written(size: int) -> None:
    client = Protocol(Side.CLIENT, state=OPEN, max_size=None)
    client.receive_data(
        frame_protocol.frame(frame_protocol.BINARY, b"x" * size)
        + frame_protocol.frame(frame_protocol.TEXT, b"y")
    )
    first, second = client.events_received()
    assert isinstance(first, Frame)
    assert isinstance(second, Frame)
    assert (first.opcode, len(first.data), second.opcode) == (Opcode.BINARY, size, Opcode.TEXT)


def test_a_long_reason_is_cut_between_characters() -> None:
    written = frame_protocol.close_frame(4000, "€" * 100)
    assert written == b"\x88\x7d" + (4000).to_bytes(2, "big") + "€".encode() * 41
    assert len(written) == 2 + frame_protocol.MAX_CONTROL_PAYLOAD
    # A code that is never sent is left out.
    assert frame_protocol.close_frame(frame_protocol.NO_CODE, "gone") == b"\x88\x00"


# Comparison with websockets, and arbitrary streams ------------------------------------------------


def reference(stream: bytes) -> list[object]:
    """Return what the parser of ``websockets`` receives."""
    server = Protocol(Side.SERVER, state=OPEN, max_size=LIMIT)
    server.receive_data(stream)
    frames: list[object] = []
    pieces: list[bytes] = []
    text = False
    for each in server.events_received():
        assert isinstance(each, Frame)
        if each.opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE):
            frames.append((each.opcode, bytes(each.data)))
            continue
        text = each.opcode is Opcode.TEXT if each.opcode is not Opcode.CONT else text
        pieces.append(bytes(each.data))
        if each.fin:
            whole, pieces = b"".join(pieces), []
            frames.append(whole.decode() if text else whole)
    return frames


def converted(frame: Received) -> object:
    """Return a frame in the form of ``reference``."""
    if isinstance(frame, Ping):
        return Opcode.PING, frame.payload
    if isinstance(frame, Pong):
        return Opcode.PONG, frame.payload
    if isinstance(frame, Close):
        return Opcode.CLOSE, b"" if frame.code == 1005 else TheirClose(frame.code, frame.reason).serialize()
    return frame


@some.composite
def streams(draw: some.DrawFn) -> bytes:
    """A valid stream: fragmented messages, control frames between, perhaps a close."""
    stream = b""
    for _ in range(draw(some.integers(0, 5))):
        text = draw(some.booleans())
        payload = draw(some.text(max_size=200)).encode() if text else draw(some.binary(max_size=200))
        cuts = sorted(draw(some.lists(some.integers(0, len(payload)), max_size=3)))
        pieces = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for place, piece in enumerate(pieces):
            opcode = (
                frame_protocol.CONTINUATION
                if place
                else frame_protocol.TEXT
                if text
                else frame_protocol.BINARY
            )
            stream += sent(
                opcode, piece, last=place == len(pieces) - 1, key=draw(some.binary(min_size=4, max_size=4))
            )
            if draw(some.booleans()):
                stream += sent(
                    draw(some.sampled_from([frame_protocol.PING, frame_protocol.PONG])),
                    draw(some.binary(max_size=125)),
                )
    if draw(some.booleans()):
        reason = draw(some.text(max_size=30))
        stream += sent(frame_protocol.CLOSE, draw(some.sampled_from([b"", b"\x03\xe8" + reason.encode()])))
    return stream


@given(streams(), some.lists(some.integers(1, 300), max_size=8))
def test_a_valid_stream_is_read_as_websockets_reads_it(stream: bytes, steps: list[int]) -> None:
    chunks, start = [], 0
    for step in steps:
        chunks.append(stream[start : start + step])
        start += step
    assert [converted(each) for each in received(*chunks, stream[start:])] == reference(stream)


@given(some.lists(some.binary(max_size=400)))
def test_arbitrary_bytes_end_with_at_most_one_violation_or_close(chunks: list[bytes]) -> None:
    frames = received(*chunks)
    ends = [isinstance(each, Violation | Close) for each in frames]
    assert not any(ends[:-1])


@given(streams(), some.data())
def test_a_damaged_stream_ends_with_at_most_one_violation_or_close(
    stream: bytes, data: some.DataObject
) -> None:
    if stream:
        place = data.draw(some.integers(0, len(stream) - 1))
        stream = stream[:place] + bytes([data.draw(some.integers(0, 255))]) + stream[place + 1 :]
    ends = [isinstance(each, Violation | Close) for each in received(stream)]
    assert not any(ends[:-1])


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 127, 4096])
def test_masking_in_python_gives_the_same_bytes_as_in_c(size: int) -> None:
    data = os.urandom(size)
    expected = bytes(byte ^ KEY[place % 4] for place, byte in enumerate(data))
    assert frame_protocol.mask_in_python(data, KEY) == frame_protocol.apply_mask(data, KEY) == expected
