"""WebSocket frames, as RFC 6455 has them: read and written, without IO.

``Reader`` takes a client's bytes as they come and tells what was said: messages, put together of their
fragments, and control frames. Compression is not spoken. Written is what a server writes: whole messages.
"""

from __future__ import annotations

import codecs
from struct import Struct
from typing import NamedTuple, TypeAlias


def mask_in_python(data: bytes | bytearray | memoryview, mask: bytes | bytearray) -> bytes:
    """``data`` with the ``mask`` of a frame put on, or taken off."""
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


try:
    # Of the library that dials other services: the same in C.
    from websockets.speedups import apply_mask
except ImportError:
    apply_mask = mask_in_python

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
OPCODES = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})

# Close codes that this module finds a reason for; ``NO_CODE`` is a close frame without one.
PROTOCOL_ERROR, NO_CODE, BAD_TEXT, POLICY, TOO_BIG = 1002, 1005, 1007, 1008, 1009

# A client's frame that holds nothing: two bytes, and the mask.
SHORTEST = 6
LONGEST_CONTROL = 125
LONGEST_REASON = LONGEST_CONTROL - 2
# Fragments may be empty, so that the limit of a message's size alone would never be reached.
MOST_FRAGMENTS = 128 * 1024

_FIN, _RESERVED, _OPCODE, _MASKED, _CONTROL = 0x80, 0x70, 0x0F, 0x80, 0x08
# The first bytes of messages that are one frame.
_WHOLE = (_FIN | TEXT, _FIN | BINARY)
_SHORT, _LONG, _CODE = Struct(">BBH"), Struct(">BBQ"), Struct(">H")


class Ping(NamedTuple):
    payload: bytes


class Pong(NamedTuple):
    payload: bytes


class Close(NamedTuple):
    """The peer's last word."""

    code: int = NO_CODE
    reason: str = ""


class Violation(NamedTuple):
    """What the peer did wrong, and the code that it is told with."""

    code: int
    reason: str


Said: TypeAlias = str | bytes | Ping | Pong | Close | Violation


class _Fault(Exception):
    """Ends the reading."""


class Reader:
    """What a client says. ``limit`` is the most bytes of a message. After a ``Close`` or a ``Violation``
    nothing more is read."""

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
        # The beginning of a frame, and how many bytes are needed before there is more to know of it.
        self._rest: bytearray | None = None
        self._wanted = 0
        # The message whose fragments are being read; None: there is none.
        self._opcode: int | None = None
        self._message = bytearray()
        self._decoder: codecs.IncrementalDecoder | None = None
        self._fragments = 0

    def receive(self, data: bytes) -> list[Said]:
        """Everything that is complete now, in order. Never raises."""
        if self._ended:
            return []
        if self._rest is None and self._opcode is None and (message := self._only(data)) is not None:
            return [message]
        buffer: bytes | bytearray = data
        if self._rest is not None:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            buffer = self._rest
        said: list[Said] = []
        try:
            read = self._read(buffer, said)
        except _Fault as fault:
            self._end()
            said.append(Violation(*fault.args))
        else:
            self._rest = None if self._ended or read == len(buffer) else bytearray(memoryview(buffer)[read:])
        return said

    def _only(self, data: bytes) -> str | bytes | None:
        """The message that a piece mostly is, whole and alone; None: it has to be looked at more closely."""
        if len(data) < SHORTEST or data[0] not in _WHOLE:
            return None
        second, key = data[1], 2
        size = len(data) - 6
        if second == _MASKED | 126:
            key, size = 4, size - 2
            if data[2] << 8 | data[3] != size:
                return None
        elif second != _MASKED | size or size > LONGEST_CONTROL:
            return None
        if size > self._limit:
            return None
        payload = apply_mask(data[key + 4 :], data[key : key + 4])
        if data[0] == _WHOLE[1]:
            return payload
        try:
            return payload.decode()
        except UnicodeDecodeError:
            return None

    def _read(self, buffer: bytes | bytearray, said: list[Said]) -> int:
        """Read whole frames; returns where they end."""
        start, end = 0, len(buffer)
        while not self._ended:
            if end - start < 2:
                self._wanted = 2
                break
            first, second = buffer[start], buffer[start + 1]
            size, key = second & 0x7F, start + 2
            if size > LONGEST_CONTROL:
                wide = 2 if size == 126 else 8
                key += wide
                if end < key:
                    self._check(first, second, size)
                    self._wanted = 2 + wide
                    break
                size = int.from_bytes(buffer[start + 2 : key], "big")
            # Most are, and have nothing else to be asked.
            whole = first in _WHOLE and second & _MASKED and self._opcode is None and size <= self._limit
            if not whole:
                self._check(first, second, size)
            after = key + 4 + size
            if end < after:
                self._wanted = after - start
                break
            payload = apply_mask(buffer[key + 4 : after], buffer[key : key + 4])
            start = after
            if whole:
                said.append(_text(payload) if first == _WHOLE[0] else payload)
            else:
                self._take(first, payload, said)
        return start

    def _check(self, first: int, second: int, size: int) -> None:
        """Whether a frame may be as its head says, before its payload is there."""
        opcode = first & _OPCODE
        if first & _RESERVED:
            raise _Fault(PROTOCOL_ERROR, "Reserved bits are 0: no extension was agreed upon.")
        if not second & _MASKED:
            raise _Fault(PROTOCOL_ERROR, "A client masks its frames.")
        if opcode not in OPCODES:
            raise _Fault(PROTOCOL_ERROR, f"There is no opcode {opcode}.")
        if opcode & _CONTROL:
            if not first & _FIN:
                raise _Fault(PROTOCOL_ERROR, "A control frame is not fragmented.")
            if size > LONGEST_CONTROL:
                raise _Fault(PROTOCOL_ERROR, f"A control frame has at most {LONGEST_CONTROL} bytes.")
            return
        if (opcode == CONTINUATION) != (self._opcode is not None):
            raise _Fault(PROTOCOL_ERROR, "A message begins once, and ends before another begins.")
        if len(self._message) + size > self._limit:
            raise _Fault(TOO_BIG, f"A message has at most {self._limit} bytes.")

    def _take(self, first: int, payload: bytes, said: list[Said]) -> None:
        """A frame that is not a message by itself."""
        opcode = first & _OPCODE
        if opcode & _CONTROL:
            self._control(opcode, payload, said)
        else:
            self._fragment(opcode, payload, bool(first & _FIN), said)

    def _fragment(self, opcode: int, payload: bytes, last: bool, said: list[Said]) -> None:
        if opcode != CONTINUATION:
            self._opcode, self._fragments = opcode, 0
            self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
        self._fragments += 1
        if self._fragments > MOST_FRAGMENTS:
            raise _Fault(POLICY, f"A message has at most {MOST_FRAGMENTS} fragments.")
        if self._decoder is not None:
            # At once: what can become no text is refused before its end is there.
            try:
                self._decoder.decode(payload, last)
            except UnicodeDecodeError:
                raise _Fault(BAD_TEXT, "Text is UTF-8.") from None
        self._message += payload
        if last:
            said.append(bytes(self._message) if self._decoder is None else self._message.decode())
            self._opcode, self._message, self._decoder = None, bytearray(), None

    def _control(self, opcode: int, payload: bytes, said: list[Said]) -> None:
        if opcode == PING:
            said.append(Ping(payload))
        elif opcode == PONG:
            said.append(Pong(payload))
        else:
            said.append(_close(payload))
            self._end()

    def _end(self) -> None:
        self._ended, self._rest, self._message, self._decoder = True, None, bytearray(), None


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise _Fault(BAD_TEXT, "Text is UTF-8.") from None


def _close(payload: bytes) -> Close:
    if not payload:
        return Close()
    if len(payload) == 1:
        raise _Fault(PROTOCOL_ERROR, "A close code has two bytes.")
    (code,) = _CODE.unpack_from(payload)
    if not is_lawful_code(code):
        raise _Fault(PROTOCOL_ERROR, f"There is no close code {code}.")
    return Close(code, _text(payload[2:]))


def is_lawful_code(code: int) -> bool:
    """Whether a close frame may hold it: the others are said of connections, never on them."""
    return 3000 <= code <= 4999 or 1000 <= code <= 1003 or 1007 <= code <= 1014


# Writing -----------------------------------------------------------------------------------------


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole message, or a control frame, as a server writes it."""
    size = len(payload)
    if size <= LONGEST_CONTROL:
        return bytes((_FIN | opcode, size)) + payload
    if size < 1 << 16:
        return _SHORT.pack(_FIN | opcode, 126, size) + payload
    return _LONG.pack(_FIN | opcode, 127, size) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; of a reason that is too long only its beginning."""
    if not is_lawful_code(code):
        return frame(CLOSE, b"")
    # Cut between characters.
    cut = reason.encode()[:LONGEST_REASON].decode(errors="ignore").encode()
    return frame(CLOSE, _CODE.pack(code) + cut)
