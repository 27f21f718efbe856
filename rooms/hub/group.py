"""What the hub keeps of a group."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from rooms.hub.connection import Connection
from rooms.hub.presence_diff import PresenceDiff
from rooms.hub.sequencer import Sequencer
from rooms.hub.shared_frames import FlushWindow
from rooms.protocol.events import Event, Joined, Left

# The round of a group that has been told nothing yet.
_SILENCE: Final = FlushWindow()


class Delivery(NamedTuple):
    """An event on its way to the members of a group; ``seq`` is its number, if it has one."""

    event: Event
    seq: int | None = None
    exclude: Connection | None = None
    # Users, by their ids.
    only: Collection[str] | None = None
    # Those of the group's members to whom it is told; None: all.
    among: Collection[Connection] | None = None
    volatile: bool = False

    @property
    def whose(self) -> tuple[str, bool] | None:
        """Whose coming or going (False) it tells."""
        event = self.event
        return (event.user.id, isinstance(event, Joined)) if isinstance(event, (Joined, Left)) else None


class Group:
    """The connections of this process in one group, and where they stand."""

    __slots__ = ("_of_users", "crowd", "epoch", "members", "round", "sequencer", "settling", "singly")

    def __init__(self) -> None:
        # With the ids of the users who they were when they came.
        self.members: dict[Connection, str | None] = {}
        # The members of each user; None until somebody asks.
        self._of_users: dict[str, dict[Connection, None]] | None = None
        self.crowd = PresenceDiff()
        # Members who hear of each coming and going, however large the group is: because their protocol wants
        # that, or because they have no list of members yet.
        self.singly: dict[Connection, None] = {}
        self.sequencer: Sequencer[Delivery] = Sequencer()
        # Of the history whose numbers these are; None until it has been asked.
        self.epoch: str | None = None
        # Members whose join was answered with more than the group has been told so far.
        self.settling: dict[Connection, int] = {}
        # What is being written down for all of them.
        self.round = _SILENCE

    @property
    def application(self) -> str:
        """All members are in the same."""
        return next(iter(self.members)).application

    def add(self, connection: Connection) -> None:
        """Nothing for one who is there."""
        if connection in self.members:
            return
        user = self.members[connection] = connection.user.id if connection.user else None
        if self._of_users is not None and user is not None:
            self._of_users.setdefault(user, {})[connection] = None
        self.round.join(connection)

    def discard(self, connection: Connection) -> None:
        """For one who is there."""
        user = self.members.pop(connection)
        if self._of_users is not None and user is not None:
            of_user = self._of_users[user]
            del of_user[connection]
            if not of_user:
                del self._of_users[user]
        self.round.discard(connection)
        self.singly.pop(connection, None)
        self.crowd.forget(connection)
        self.settling.pop(connection, None)

    def of(self, users: Iterable[str]) -> list[Connection]:
        """The members of these users."""
        if self._of_users is None:
            self._of_users = {}
            for member, user in self.members.items():
                if user is not None:
                    self._of_users.setdefault(user, {})[member] = None
        return [member for user in users for member in self._of_users.get(user, ())]

    def knowing(self, seq: int) -> list[Connection]:
        """Members whom the answer to their join has told the event of this number; of others it is forgotten
        that they were ahead."""
        known = [member for member, until in self.settling.items() if until >= seq]
        self.settling = {member: until for member, until in self.settling.items() if until > seq}
        return known
