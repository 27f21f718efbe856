"""What a run leaves behind: who said what, what the server keeps, what each client was told, who was there.

Written by the driver while it runs, judged afterwards by ``checker.py``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple


class Mark(NamedTuple):
    """What makes a message itself, whatever the server calls it: its sender and the sender's count."""

    sender: str
    number: int


class Sent(NamedTuple):
    """A message that a sender handed to its client; once, however often the client sends it."""

    room: str
    mark: Mark
    text: str


class Acknowledged(NamedTuple):
    """The answer to a message."""

    room: str
    mark: Mark
    seq: int


class Stored(NamedTuple):
    """A row of the server's own log."""

    room: str
    seq: int
    mark: Mark
    text: str


class Entered(NamedTuple):
    """The answer to a join. ``since`` is the number that the client said it had, ``told`` how many messages
    came with the answer; they are logged after it."""

    room: str
    epoch: str
    position: int
    told: int
    recovered: bool
    since: int | None


class Heard(NamedTuple):
    """A numbered message as it came over the wire."""

    room: str
    seq: int
    mark: Mark
    text: str


class Spell(NamedTuple):
    """A user was in a room, certainly; ``until`` None: to the end. Seconds on the driver's clock."""

    room: str
    user: str
    since: float
    until: float | None


class Left(NamedTuple):
    """An observer was told that a user had gone."""

    observer: str
    room: str
    user: str
    at: float


class Outage(NamedTuple):
    """Processes could not share who is there, and each knew of its own people only."""

    since: float
    until: float


class ClientMessage(NamedTuple):
    """The list of a room's members that an observer was given after the end."""

    observer: str
    room: str
    users: frozenset[str]


@dataclass(slots=True, kw_only=True)
class Logs:
    """Everything of one run. ``newest`` is each room's counter on the server, ``in_time`` how far each client
    who stayed had heard each of its rooms when nothing more was to be waited for."""

    sent: list[Sent] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    newest: dict[str, int] = field(default_factory=dict)
    clients: defaultdict[str, list[Entered | Heard]] = field(default_factory=lambda: defaultdict(list))
    in_time: dict[str, dict[str, int]] = field(default_factory=dict)
    spells: list[Spell] = field(default_factory=list)
    departures: list[Left] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    lists: list[ClientMessage] = field(default_factory=list)
