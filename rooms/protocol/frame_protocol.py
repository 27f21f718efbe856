"""The framing of RFC 6455 on the server's side, without IO.

``Reader`` turns the bytes of a client into messages, assembled from their fragments, and control frames.
``frame`` writes unfragmented messages and control frames. Compression is not supported.
"""

from __future__ import annotations

import codecs
from struct import Struct
from typing import NamedTuple, TypeAlias


def mask_in_python(data: bytes | bytearray | memoryview, mask: bytes | bytearray) -> bytes:
    """Return ``data`` masked, or unmasked, with the ``mask`` of a frame."""
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


try:
    # The same in C, from the library for outbound connections.
    from websockets.speedups import apply_mask
except ImportError:
    apply_mask = mask_in_python

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
OPCODES = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})

# Close codes that this module uses; ``NO_CODE`` stands for a close frame without a code.
PROTOCOL_ERROR, NO_CODE, BAD_TEXT, POLICY, TOO_BIG = 1002, 1005, 1007, 1008, 1009

# The size of an empty frame of a client: two bytes, and the mask.
MIN_FRAME_SIZE = 6
MAX_CONTROL_PAYLOAD = 125
MAX_CLOSE_REASON = MAX_CONTROL_PAYLOAD - 2
# Fragments may be empty, so a limit of the size of a message alone would not bound their number.
MAX_FRAGMENTS = 128 * 1024

_FIN, _RESERVED, _OPCODE, _MASKED, _CONTROL = 0x80, 0x70, 0x0F, 0x80, 0x08
# The first bytes of unfragmented messages.
_UNFRAGMENTED = (_FIN | TEXT, _FIN | BINARY)
_SHORT, _LONG, _CODE = Struct(">BBH"), Struct(">BBQ"), Struct(">H")


class Ping(NamedTuple):
    payload: bytes


class Pong(NamedTuple):
    payload: bytes


class Close(NamedTuple):
    """The close frame of the peer; nothing follows it."""

    code: int = NO_CODE
    reason: str = ""


class Violation(NamedTuple):
    """A violation of the RFC by the peer, and the code to close the connection with."""

    code: int
    reason: str


Received: TypeAlias = str | bytes | Ping | Pong | Close | Violation


class _Invalid(Exception):
    """Raised with the fields of a ``Violation``; nothing is read after it."""


class Reader:
    """The parser of a client's bytes.

    ``limit`` is the maximal size of a message in bytes. After a ``Close`` or a ``Violation`` it ignores all
    further bytes.
    """

    __slots__ = (
        "_decoder",
        "_ended",
        "_fragments",
        "_limit",
        "_message",
        "_opcode",
        "_rest",
        "_wanted",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ended = False
        # An incomplete frame, and the number of bytes at which parsing it can continue.
        self._rest: bytearray | None = None
        self._wanted = 0
        # The opcode of the fragmented message that is being read; None without one.
        self._opcode: int | None = None
        self._message = bytearray()
        self._decoder: codecs.IncrementalDecoder | None = None
        self._fragments = 0

    def receive(self, data: bytes) -> list[Received]:
        """Return the messages and control frames that ``data`` completes, in order."""
        if self._ended:
            return []
        if self._rest is None and self._opcode is None and (message := self._read_single(data)) is not None:
            return [message]
        buffer: bytes | bytearray = data
        if self._rest is not None:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            buffer = self._rest
        received: list[Received] = []
        try:
            end = self._read_frames(buffer, received)
        except _Invalid as violation:
            self._end()
            received.append(Violation(*violation.args))
        else:
            self._rest = None if self._ended or end == len(buffer) else bytearray(memoryview(buffer)[end:])
        return received

    def _read_single(self, data: bytes) -> str | bytes | None:
        """Return the message if ``data`` is one unfragmented frame, else None."""
        if len(data) < MIN_FRAME_SIZE or data[0] not in _UNFRAGMENTED:
            return None
        second, key = data[1], 2
        size = len(data) - 6
        if second == _MASKED | 126:
            key, size = 4, size - 2
            if data[2] << 8 | data[3] != size:
                return None
        elif second != _MASKED | size or size > MAX_CONTROL_PAYLOAD:
            return None
        if size > self._limit:
            return None
        payload = apply_mask(data[key + 4 :], data[key : key + 4])
        if data[0] == _UNFRAGMENTED[1]:
            return payload
        try:
            return payload.decode()
        except UnicodeDecodeError:
            return None

    def _read_frames(self, buffer: bytes | bytearray, received: list[Received]) -> int:
        """Read all complete frames and return the position of their end."""
        start, end = 0, len(buffer)
        while not self._ended:
            if end - start < 2:
                self._wanted = 2
                break
            first, second = buffer[start], buffer[start + 1]
            size, key = second & 0x7F, start + 2
            if size > MAX_CONTROL_PAYLOAD:
                wide = 2 if size == 126 else 8
                key += wide
                if end < key:
                    self._check_head(first, second, size)
                    self._wanted = 2 + wide
                    break
                size = int.from_bytes(buffer[start + 2 : key], "big")
            # The common case, which needs no further checks.
            single = (
                first in _UNFRAGMENTED and second & _MASKED and self._opcode is None and size <= self._limit
            )
            if not single:
                self._check_head(first, second, size)
            after = key + 4 + size
            if end < after:
                self._wanted = after - start
                break
            payload = apply_mask(buffer[key + 4 : after], buffer[key : key + 4])
            start = after
            if single:
                received.append(_text(payload) if first == _UNFRAGMENTED[0] else payload)
            else:
                self._handle(first, payload, received)
        return start

    def _check_head(self, first: int, second: int, size: int) -> None:
        """Check the head of a frame, before its payload has arrived. Raises _Invalid."""
        opcode = first & _OPCODE
        if first & _RESERVED:
            raise _Invalid(PROTOCOL_ERROR, "Reserved bits must be 0, because no extension was negotiated.")
        if not second & _MASKED:
            raise _Invalid(PROTOCOL_ERROR, "Frames of a client must be masked.")
        if opcode not in OPCODES:
            raise _Invalid(PROTOCOL_ERROR, f"Got the unknown opcode {opcode}.")
        if opcode & _CONTROL:
            if not first & _FIN:
                raise _Invalid(PROTOCOL_ERROR, "A control frame must not be fragmented.")
            if size > MAX_CONTROL_PAYLOAD:
                raise _Invalid(PROTOCOL_ERROR, f"A control frame has at most {MAX_CONTROL_PAYLOAD} bytes.")
            return
        if (opcode == CONTINUATION) != (self._opcode is not None):
            raise _Invalid(PROTOCOL_ERROR, "A fragmented message must end before another one begins.")
        if len(self._message) + size > self._limit:
            raise _Invalid(TOO_BIG, f"A message has at most {self._limit} bytes.")

    def _handle(self, first: int, payload: bytes, received: list[Received]) -> None:
        """Handle a control frame or a fragment."""
        opcode = first & _OPCODE
        if opcode & _CONTROL:
            self._control(opcode, payload, received)
        else:
            self._fragment(opcode, payload, bool(first & _FIN), received)

    def _fragment(self, opcode: int, payload: bytes, last: bool, received: list[Received]) -> None:
        if opcode != CONTINUATION:
            self._opcode, self._fragments = opcode, 0
            self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
        self._fragments += 1
        if self._fragments > MAX_FRAGMENTS:
            raise _Invalid(POLICY, f"A message has at most {MAX_FRAGMENTS} fragments.")
        if self._decoder is not None:
            # Per fragment, so that invalid text is refused before the message is complete.
            try:
                self._decoder.decode(payload, last)
            except UnicodeDecodeError:
                raise _Invalid(BAD_TEXT, "Text must be UTF-8.") from None
        self._message += payload
        if last:
            received.append(bytes(self._message) if self._decoder is None else self._message.decode())
            self._opcode, self._message, self._decoder = None, bytearray(), None

    def _control(self, opcode: int, payload: bytes, received: list[Received]) -> None:
        if opcode == PING:
            received.append(Ping(payload))
        elif opcode == PONG:
            received.append(Pong(payload))
        else:
            received.append(_close(payload))
            self._end()

    def _end(self) -> None:
        self._ended, self._rest, self._message, self._decoder = True, None, bytearray(), None


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise _Invalid(BAD_TEXT, "Text must be UTF-8.") from None


def _close(payload: bytes) -> Close:
    if not payload:
        return Close()
    if len(payload) == 1:
        raise _Invalid(PROTOCOL_ERROR, "A close code must have two bytes.")
    (code,) = _CODE.unpack_from(payload)
    if not is_valid_close_code(code):
        raise _Invalid(PROTOCOL_ERROR, f"Got the invalid close code {code}.")
    return Close(code, _text(payload[2:]))


def is_valid_close_code(code: int) -> bool:
    """Return whether a close frame may hold a code; the other codes are never sent."""
    return 3000 <= code <= 4999 or 1000 <= code <= 1003 or 1007 <= code <= 1014


# Writing -----------------------------------------------------------------------------------------


def frame(opcode: int, payload: bytes) -> bytes:
    """Return the bytes of an unfragmented message or a control frame of a server."""
    size = len(payload)
    if size <= MAX_CONTROL_PAYLOAD:
        return bytes((_FIN | opcode, size)) + payload
    if size < 1 << 16:
        return _SHORT.pack(_FIN | opcode, 126, size) + payload
    return _LONG.pack(_FIN | opcode, 127, size) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Return the bytes of a close frame; a reason that is too long is cut."""
    if not is_valid_close_code(code):
        return frame(CLOSE, b"")
    # The cut is between characters, not within one.
    cut = reason.encode()[:MAX_CLOSE_REASON].decode(errors="ignore").encode()
    return frame(CLOSE, _CODE.pack(code) + cut)
