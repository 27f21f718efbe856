"""Who waits until what they said is kept, and for how long.

Many messages are kept at once, by one commit or one round trip. Then all of their senders are answered, and
only after that everybody is told of them: so a room hears them together, in a few writes, and nobody's
answer comes after their own copy. All of it happens in one turn of the event loop: nothing gets in between.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rooms.protocol.errors import Unavailable

logger = logging.getLogger("rooms.histories")
Item = TypeVar("Item")


class Completion(ABC):
    """One who waits. Both methods are called once, in this order."""

    __slots__ = ()

    @abstractmethod
    def complete(self, result: Any) -> None:
        """What became of it: an exception where it failed."""

    @abstractmethod
    def finish(self) -> None:
        """Called once, after all completions of the same batch are complete."""


class FutureCompletion(Completion):
    """Whoever awaits it gets the result, or it is raised."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._future.__await__()

    def complete(self, result: Any) -> None:
        if self._future.done():
            # Nobody waits any more.
            return
        if isinstance(result, BaseException):
            self._future.set_exception(result)
        else:
            self._future.set_result(result)

    def finish(self) -> None:
        pass


@dataclass(slots=True)
class Place(Generic[Item]):
    """Of one who waits. It is ``left`` with the answer, whatever has become of the item meanwhile."""

    item: Item
    completion: Completion
    until: float
    left: bool = False


class CompletionQueue(Generic[Item]):
    """Those who wait, in the order in which they came. Belongs to one event loop. Whoever is not answered in
    time is told ``refusal``, and to come again: it may be kept all the same."""

    def __init__(self, refusal: str) -> None:
        self._refusal = refusal
        self._places: deque[Place[Item]] = deque()
        # One for all: most are answered long before.
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._places)

    def add(self, item: Item, completion: Completion, seconds: float) -> Place[Item]:
        loop = asyncio.get_running_loop()
        place = Place(item, completion, loop.time() + seconds)
        self._places.append(place)
        if self._timer is None:
            self._timer = loop.call_at(place.until, self._look, loop)
        return place

    def complete(self, answers: Iterable[tuple[Place[Item], Any]]) -> None:
        """First all are answered, then all tell."""
        answered = []
        for place, result in answers:
            if not place.left:
                place.left = True
                answered.append(place.completion)
                complete(place.completion, result)
        while self._places and self._places[0].left:
            self._places.popleft()
        for completion in answered:
            finish(completion)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up those who have waited too long."""
        self._timer, now, late = None, loop.time(), []
        for place in self._places:
            if place.until > now:
                self._timer = loop.call_at(place.until, self._look, loop)
                break
            late.append((place, Unavailable(self._refusal)))
        self.complete(late)


def complete(completion: Completion, result: Any) -> None:
    """What fails for one fails for nobody else."""
    try:
        completion.complete(result)
    except Exception:
        logger.exception("Something could not be answered.")


def finish(completion: Completion) -> None:
    try:
        completion.finish()
    except Exception:
        logger.exception("Something could not be told.")


def complete_alone(completion: Completion, result: Any) -> None:
    """For one who waits alone."""
    complete(completion, result)
    finish(completion)
