"""The order of one room's numbered events in one process.

Events from other processes may arrive late, twice or not at all. A sequencer passes each number on
once and in order, keeps what arrived too early, and knows whether something is missing.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Sequencer(Generic[T]):
    """Pass the items of a room on in the order of their numbers.

    ``position`` is the last number that was passed on; None until the history was read.
    """

    __slots__ = ("_early", "position")

    def __init__(self) -> None:
        self.position: int | None = None
        self._early: dict[int, T] = {}

    def start(self, position: int) -> list[T]:
        """Count everything up to ``position`` as passed on.

        Returns what may follow at once. A sequencer that has started only moves forward.
        """
        if self.position is None or position > self.position:
            self.position = position
            for seq in [seq for seq in self._early if seq <= position]:
                del self._early[seq]
        return self._ready()

    def offer(self, seq: int, item: T) -> list[T]:
        """Return what may be passed on now, in order.

        Returns nothing if the item is early or a duplicate.
        """
        if self.position is not None:
            if seq == self.position + 1 and not self._early:
                self.position = seq
                return [item]
            if seq <= self.position:
                return []
        self._early.setdefault(seq, item)
        return self._ready() if self.position is not None else []

    @property
    def has_gap(self) -> bool:
        """Whether something waits for a number that is missing."""
        return self.position is not None and bool(self._early)

    @property
    def earliest(self) -> int | None:
        """The first number that waits behind a gap."""
        return min(self._early, default=None)

    def _ready(self) -> list[T]:
        assert self.position is not None
        ready: list[T] = []
        while (item := self._early.pop(self.position + 1, None)) is not None:
            self.position += 1
            ready.append(item)
        return ready
