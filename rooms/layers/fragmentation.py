"""Splits long messages into numbered parts, and joins them at the other side.

The parts of a message arrive in order and next to each other, or not at all: the transport guarantees that
(PostgreSQL does, for the notifications of one transaction).
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator

# The sender, the number of the message, the number of this part, the number of parts.
_HEAD = struct.Struct(">8sIHH")
# Longer messages are refused by the sender, so this also bounds an incomplete message at the receiver.
MAX_PARTS = 4096


class Fragmenter:
    """Splits the messages of one sender into parts of at most ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self.sender = secrets.token_bytes(8)
        self._size = size - _HEAD.size
        self._number = 0

    @property
    def max_bytes(self) -> int:
        """The maximum length of a message."""
        return self._size * MAX_PARTS

    def parts(self, message: bytes) -> Iterator[bytes]:
        """Split a message. Raises ValueError when it is too long."""
        count = -(-len(message) // self._size) or 1
        if count > MAX_PARTS:
            raise ValueError(f"Expected a message of at most {self.max_bytes} bytes, got {len(message)}.")
        self._number = (self._number + 1) % 2**32
        for index in range(count):
            head = _HEAD.pack(self.sender, self._number, index, count)
            yield head + message[index * self._size : (index + 1) * self._size]


class Reassembler:
    """Joins the parts of messages; the parts of the sender ``ignored`` are skipped."""

    def __init__(self, ignored: bytes) -> None:
        self._ignored = ignored
        self._begun: list[bytes] = []
        self._current = (b"", 0)

    def add(self, part: bytes) -> bytes | None:
        """Add a part; return the message that it completes. Raises ValueError."""
        if len(part) < _HEAD.size:
            raise ValueError(f"Expected a part of at least {_HEAD.size} bytes, got {len(part)}.")
        sender, number, index, count = _HEAD.unpack_from(part)
        if sender == self._ignored:
            return None
        if count > MAX_PARTS:
            raise ValueError(f"Expected a message of at most {MAX_PARTS} parts, got {count}.")
        if (sender, number) != self._current or index != len(self._begun):
            # The rest of the incomplete message is lost.
            self._begun, self._current = [], (sender, number)
            if index:
                return None
        self._begun.append(part[_HEAD.size :])
        if len(self._begun) < count:
            return None
        message, self._begun = b"".join(self._begun), []
        return message
