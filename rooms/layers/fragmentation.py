"""Long messages in numbered parts, and whole again at the other side.

The parts of a message arrive in order and next to each other, or not at all: that is what the
transport promises (PostgreSQL does, for what one transaction notifies).
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator

# Who sends, the number of the message, the number of this part, how many there are.
_HEAD = struct.Struct(">8sIHH")
# Longer ones are refused before they are sent, so this also bounds what waits for the rest of itself.
MOST_PARTS = 4096


class Fragmenter:
    """One sender's parts, of ``size`` bytes at most with their head."""

    def __init__(self, size: int) -> None:
        self.sender = secrets.token_bytes(8)
        self._size = size - _HEAD.size
        self._number = 0

    @property
    def most_bytes(self) -> int:
        """The longest message."""
        return self._size * MOST_PARTS

    def parts(self, message: bytes) -> Iterator[bytes]:
        """The message in parts. Raises ValueError when it is too long."""
        count = -(-len(message) // self._size) or 1
        if count > MOST_PARTS:
            raise ValueError(f"A message of {len(message)} bytes is sent. Lawful: {self.most_bytes} at most.")
        self._number = (self._number + 1) % 2**32
        for index in range(count):
            head = _HEAD.pack(self.sender, self._number, index, count)
            yield head + message[index * self._size : (index + 1) * self._size]


class Reassembler:
    """Messages out of their parts; what ``ignored`` sent is passed over."""

    def __init__(self, ignored: bytes) -> None:
        self._ignored = ignored
        self._begun: list[bytes] = []
        self._whose = (b"", 0)

    def add(self, part: bytes) -> bytes | None:
        """The message that is whole with this part. Raises ValueError when it is no part of any."""
        if len(part) < _HEAD.size:
            raise ValueError(f"A part of {len(part)} bytes came. Lawful: {_HEAD.size} at least.")
        sender, number, index, count = _HEAD.unpack_from(part)
        if sender == self._ignored:
            return None
        if count > MOST_PARTS:
            raise ValueError(f"A part of {count} came. Lawful: {MOST_PARTS} at most.")
        if (sender, number) != self._whose or index != len(self._begun):
            # What was begun is never finished: its rest got lost.
            self._begun, self._whose = [], (sender, number)
            if index:
                return None
        self._begun.append(part[_HEAD.size :])
        if len(self._begun) < count:
            return None
        message, self._begun = b"".join(self._begun), []
        return message
