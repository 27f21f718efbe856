"""What the hub keeps of a group."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from rooms.events import Joined, Left, Push
from rooms.fanout.batch import Round
from rooms.fanout.connection import Connection
from rooms.fanout.crowd import Crowd
from rooms.fanout.sequencer import Sequencer


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to the members of a group."""

    event: Push
    exclude: Connection | None
    only: Collection[str] | None
    # Those of the group's members to whom it is told; None: all.
    among: Collection[Connection] | None = None

    @property
    def whose(self) -> tuple[str, bool] | None:
        """Whose coming or going (False) it tells."""
        event = self.event
        return (event.user.id, isinstance(event, Joined)) if isinstance(event, Joined | Left) else None


class Group:
    """The connections of this process in one group, and where they stand."""

    __slots__ = ("crowd", "epoch", "members", "round", "sequencer", "settling", "singly")

    def __init__(self) -> None:
        self.members: dict[Connection, None] = {}
        self.crowd = Crowd()
        # Members who hear of each coming and going, however large the group is: because their protocol wants
        # that, or because they have no list of members yet.
        self.singly: dict[Connection, None] = {}
        self.sequencer: Sequencer[tuple[int, Delivery]] = Sequencer()
        # Of the history whose numbers these are; None until it has been asked.
        self.epoch: str | None = None
        # Members whose join was answered with more than the group has been told so far.
        self.settling: dict[Connection, int] = {}
        # What is being written down for all of them.
        self.round = Round()

    @property
    def application(self) -> str:
        """All members are in the same."""
        return next(iter(self.members)).application
