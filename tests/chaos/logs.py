"""The logs of a run: messages sent, stored and received, and presence.

The driver writes them while it runs; `checker.py` checks them afterwards.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple


class Mark(NamedTuple):
    """The identity of a message without the server: its sender and the sender's count."""

    sender: str
    number: int


class Sent(NamedTuple):
    """A message that a sender handed to its client: once, however often the client sends it."""

    room: str
    mark: Mark
    text: str


class Acknowledged(NamedTuple):
    """The reply to a message."""

    room: str
    mark: Mark
    seq: int


class Stored(NamedTuple):
    """A row of the server's history."""

    room: str
    seq: int
    mark: Mark
    text: str


class Joined(NamedTuple):
    """The reply to a join.

    ``since`` is the sequence number from which the client asked to recover. ``messages`` is the number of
    messages in the reply; they are logged after it.
    """

    room: str
    epoch: str
    position: int
    messages: int
    recovered: bool
    since: int | None


class Received(NamedTuple):
    """A message with a sequence number as it arrived."""

    room: str
    seq: int
    mark: Mark
    text: str


class Stay(NamedTuple):
    """A time in which a user was certainly in a room, by the driver's clock.

    ``until`` None: to the end of the run.
    """

    room: str
    user: str
    since: float
    until: float | None


class Departure(NamedTuple):
    """A `left` event about a user that an observer received."""

    observer: str
    room: str
    user: str
    at: float


class Outage(NamedTuple):
    """A time in which processes could not share presence: each knew its own members only."""

    since: float
    until: float


class MemberList(NamedTuple):
    """The members of a room as an observer received them at the end."""

    observer: str
    room: str
    users: frozenset[str]


@dataclass(slots=True, kw_only=True)
class Logs:
    """Everything of one run.

    ``newest`` is the server's counter of each room. ``in_time`` is the newest number of each room that each
    remaining client had received when the driver stopped waiting.
    """

    sent: list[Sent] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    newest: dict[str, int] = field(default_factory=dict)
    clients: defaultdict[str, list[Joined | Received]] = field(default_factory=lambda: defaultdict(list))
    in_time: dict[str, dict[str, int]] = field(default_factory=dict)
    stays: list[Stay] = field(default_factory=list)
    departures: list[Departure] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    lists: list[MemberList] = field(default_factory=list)
