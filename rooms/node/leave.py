"""Every way a connection leaves a room: leave, kick, room deletion, disconnect.

What needs no backend is done at once; what does is retried until the backend answers.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from msgspec import UNSET, UnsetType

from rooms.extensions import LeaveEvent
from rooms.extensions.contexts import NO_CLAIMS
from rooms.hub.application import Runner
from rooms.hub.connection import Connection, Membership
from rooms.hub.room import Room
from rooms.node import config
from rooms.node.context import NodeContext, require_user
from rooms.node.presence_events import PresenceEvents
from rooms.node.room_lifecycle import RoomLifecycle
from rooms.presence.base import Arrival, Departure, GroupClosed
from rooms.protocol.commands import Leave, Unsubscribe
from rooms.protocol.compat_commands import LeaveAll
from rooms.protocol.errors import CloseCode, NotMember, RoomsError
from rooms.protocol.events import Removed, Reply
from rooms.protocol.native import Native
from rooms.protocol.types import LeftReason, RemovedReason, User

logger = logging.getLogger("rooms.node")


class PendingLeave(NamedTuple):
    """A connection that has left, and that presence still counts."""

    connection: Connection
    membership: Membership[Room]
    user: User


class LeaveHandler:
    def __init__(self, context: NodeContext, lifecycle: RoomLifecycle, events: PresenceEvents) -> None:
        self._context = context
        self._lifecycle = lifecycle
        self._events = events
        # The connections of this process whose grace period runs, by the room's key and their id.
        self._in_grace: dict[str, dict[str, PendingLeave]] = {}

    # Commands ----------------------------------------------------------------------------------------

    async def leave(self, connection: Connection, command: Leave) -> None:
        await self._leave(connection, command, subscriber=False)

    async def unsubscribe(self, connection: Connection, command: Unsubscribe) -> None:
        await self._leave(connection, command, subscriber=True)

    async def leave_all(self, connection: Connection, command: LeaveAll) -> None:
        """Leave every room.

        Rooms whose extension refuses are kept, and the refusal is raised.
        """
        user = require_user(connection)
        refusal: RoomsError | None = None
        for membership in list(connection.memberships.values()):
            try:
                await self._ask_extensions(connection, membership, user)
            except RoomsError as error:
                refusal = error
                continue
            # One by one: if this is interrupted, the end of the connection cleans the others up.
            self.discard(connection, membership)
            if not membership.subscriber:
                await self._context.run_to_completion(
                    partial(self.depart, connection, membership, user, "left")
                )
        if refusal is not None:
            raise refusal
        connection.send(Reply(id=command.id, data={}))

    async def log_out(self, connection: Connection) -> None:
        """Leave every room because the user logs out."""
        user = require_user(connection)
        for membership in list(connection.memberships.values()):
            await self.remove(connection, membership, user, "left", removed="logged_out")

    async def _leave(self, connection: Connection, command: Leave | Unsubscribe, *, subscriber: bool) -> None:
        user = require_user(connection)
        membership: Membership[Room] | None = connection.memberships.get(command.room)
        if membership is None or membership.subscriber is not subscriber:
            await self._context.check_room_exists(connection, command.room)
            raise NotMember(f"You are not a member of {command.room}.")
        await self._ask_extensions(connection, membership, user)
        self.discard(connection, membership)
        connection.cork()
        try:
            # The reply means that presence has changed in every process.
            if not subscriber:
                await self._context.run_to_completion(
                    partial(self.depart, connection, membership, user, "left")
                )
            connection.send(Reply(id=command.id, data={}))
        finally:
            connection.uncork()

    async def _ask_extensions(self, connection: Connection, membership: Membership[Room], user: User) -> None:
        """Call ``on_before_leave``, which may refuse that a member leaves.

        Raises what ``on_before_leave`` raises.
        """
        room = membership.room
        if membership.subscriber or room.removed:
            return
        event = LeaveEvent(room.context, user, "left", claims=connection.claims)
        for runner in room.runners:
            if runner.handles("on_before_leave"):
                connection.cork()
                try:
                    await runner.call("on_before_leave", event, executor=room.runner.executor)
                finally:
                    connection.uncork()
        if connection.memberships.get(room.name) is not membership:
            raise NotMember(f"You were removed from {room.name}.")

    # Removal -----------------------------------------------------------------------------------------

    async def remove(
        self,
        connection: Connection,
        membership: Membership[Room],
        user: User,
        reason: LeftReason,
        *,
        removed: RemovedReason,
        message: str = "",
    ) -> None:
        """Take a connection out of a room and send it the reason."""
        self.discard(connection, membership)
        _send_removed(
            connection, Removed(room=membership.room.name, reason=removed, message=message or UNSET)
        )
        if not membership.subscriber:
            await self._context.run_to_completion(partial(self.depart, connection, membership, user, reason))

    async def dissolve(self, room: Room, message: str, *, renamed: str | UnsetType = UNSET) -> None:
        """Remove all connections of this process from a room.

        The room is deleted, or has another name.
        """
        memberships = [
            (connection, membership)
            for connection in room.members
            if (membership := connection.memberships.get(room.name)) and membership.room.key == room.key
        ]
        for connection, membership in memberships:
            self.discard(connection, membership)
        # A join under way finds the room removed and undoes itself.
        leaving = [
            PendingLeave(each, membership, each.user)
            for each, membership in memberships
            if each.user and membership.active
        ]
        if renamed is UNSET:
            leaving += self._in_grace.pop(room.key, {}).values()
        else:
            # Before the clients learn the new name, under which they may join the same group again.
            await self._context.run_to_completion(partial(self._remove_all, room, leaving))
        for connection, _ in memberships:
            _send_removed(
                connection, Removed(room=room.name, reason="closed", message=message, renamed=renamed)
            )
        if renamed is UNSET:
            await self._context.run_to_completion(partial(self._remove_all, room, leaving))

    async def _remove_all(self, room: Room, leaving: Sequence[PendingLeave]) -> None:
        """Take users out of the presence of a room that is gone.

        Of a user with connections in several processes the last process notifies the extensions.
        """
        connections = {
            each.connection.id: each.user
            for each in leaving
            if not _has_returned(each.connection, each.membership)
        }
        claims = {each.user.id: each.connection.claims for each in leaving}
        for user in await self._context.presence.remove_all(room.key, connections):
            self.notify_extensions(room, user, "closed", claims[user.id])

    def disconnected(self, connection: Connection) -> None:
        """The socket is gone: the user's grace periods start."""
        user, connection.user = connection.user, None
        for membership in list(connection.memberships.values()):
            self.discard(connection, membership)
            if user is not None and not membership.subscriber:
                self._start_grace(connection, membership, user)

    def discard(self, connection: Connection, membership: Membership[Room]) -> None:
        """End a membership in this process, at once."""
        room = membership.room
        connection.memberships.pop(room.name, None)
        room.discard(connection)
        if not room.in_use:
            self.release(room)

    def release(self, room: Room) -> None:
        """Unsubscribe on the channel layer from a room that has no members here."""
        broker, key = self._context.broker, room.key
        self._context.tasks.spawn(broker.unsubscribe(key, partial(self._is_used, key)))

    def _is_used(self, key: str) -> bool:
        room = self._context.registry.room_by_key(key)
        return room is not None and room.in_use

    # Departure ---------------------------------------------------------------------------------------

    async def depart(
        self, connection: Connection, membership: Membership[Room], user: User, reason: LeftReason
    ) -> None:
        """Remove a connection from presence.

        With the last connection of the user the leave is announced.
        """
        key = membership.room.key
        if _has_returned(connection, membership):
            self._end_grace(key, connection)
            return
        # Before the user is taken out: if the database is down, all of this is retried.
        room = await self._current_room(membership.room)
        async with self._context.user_locks.of((key, user.id)):
            removed = await self._remove_from_presence(connection, membership, user)
            if removed and room is not None:
                self.user_left(room, user, reason, claims=connection.claims)
        self._end_grace(key, connection)

    async def _current_room(self, room: Room) -> Room | None:
        """Return the loaded room with the same key, or None.

        The room may have been dropped and loaded again meanwhile.
        """
        registry = self._context.registry
        current = registry.room_by_key(room.key)
        if current is None:
            application = registry.cached_application(room.application.config.name)
            found = await registry.find_room(application, room.name) if application else None
            current = found if found is not None and found.key == room.key else None
        return current

    async def _remove_from_presence(
        self, connection: Connection, membership: Membership[Room], user: User
    ) -> bool:
        """Remove the connection from presence, unless it has joined again.

        Returns whether the user has left the room with this connection.
        """
        if _has_returned(connection, membership):
            return False
        return await self._context.presence.remove(membership.room.key, connection.id, user)

    async def undo_join(self, connection: Connection, membership: Membership[Room], user: User) -> None:
        """Remove a user whose join failed from presence.

        The leave is announced if the join was announced.
        """
        room = await self._current_room(membership.room) or membership.room
        async with self._context.user_locks.of((room.key, user.id)):
            removed = await self._remove_from_presence(connection, membership, user)
            if removed and not room.removed:
                self.user_left(room, user, "left", claims=connection.claims)
                return
            self._events.join_failed(room, user)
            if removed and membership.announced:
                self.notify_extensions(room, user, "closed", connection.claims)

    def user_left(
        self, room: Room, user: User, reason: LeftReason, *, claims: Mapping[str, str] = NO_CLAIMS
    ) -> None:
        """Announce the leave, notify the extensions, and remove the room if it is empty."""
        self._events.user_removed(room, user, reason)
        self.notify_extensions(room, user, reason, claims)
        if room.config.closes_with_owner and room.config.is_owner(user):
            self._context.tasks.spawn(
                self._context.delayed.run_in_slot(partial(self._lifecycle.remove, room))
            )
        elif not room.config.persistent:
            self._context.tasks.spawn(
                self._context.delayed.run_in_slot(partial(self._lifecycle.remove_if_empty, room))
            )

    def notify_extensions(
        self,
        room: Room,
        user: User,
        reason: LeftReason,
        claims: Mapping[str, str],
        runners: Sequence[Runner] | None = None,
    ) -> None:
        """Call ``on_leave`` of the extensions of the room and the application.

        With ``runners``, it is called for these instead.
        """
        event = LeaveEvent(room.context, user, reason, claims=claims)
        for runner in room.runners if runners is None else runners:
            if runner.handles("on_leave"):
                self._context.tasks.spawn(runner.notify("on_leave", event, executor=room.runner.executor))

    # Grace periods -----------------------------------------------------------------------------------

    def _start_grace(self, connection: Connection, membership: Membership[Room], user: User) -> None:
        """Count the connection as a member for the room's grace period."""
        room = membership.room
        seconds = room.config.leave_grace
        if not (seconds and (connection.protocol.options.resumable or _waits_for_owner(room, user))):
            self._context.spawn_with_retry(partial(self.depart, connection, membership, user, "dropped"))
            return
        self._schedule_departure(seconds, PendingLeave(connection, membership, user))
        self._context.spawn_with_retry(
            partial(self._context.presence.start_grace, room.key, connection.id, user)
        )

    def _schedule_departure(self, seconds: float, leave: PendingLeave) -> None:
        connection, membership, user = leave
        self._in_grace.setdefault(membership.room.key, {})[connection.id] = leave
        self._context.delayed.add(seconds, partial(self.depart, connection, membership, user, "dropped"))

    def _end_grace(self, key: str, connection: Connection) -> None:
        in_grace = self._in_grace.get(key, {})
        in_grace.pop(connection.id, None)
        if not in_grace:
            self._in_grace.pop(key, None)

    # Other processes ---------------------------------------------------------------------------------

    async def heartbeat(self) -> None:
        """Renew the lease of this process in presence.

        Users that dead processes left behind are announced as gone or returned, or kept in
        presence.
        """
        for found in await self._context.presence.heartbeat():
            self._context.tasks.spawn(self._context.delayed.run_in_slot(partial(self._announce, found)))
        await self._events.verify()

    async def node_died(self, node_id: str) -> None:
        """Give the users of a dead process a grace period, within which they may return."""
        presence, seconds = self._context.presence, self._context.settings.leave_grace
        await self._context.delayed.run_with_retry(partial(presence.expire_node, node_id, seconds))

    async def hand_over(self) -> None:
        """Leave the grace periods of this process to the other processes.

        Waits for background work.
        """
        await self._expire_this_node()
        # The server may kill the process during the wait; and a heartbeat under way renews the lease.
        await self._context.tasks.drain()
        await self._expire_this_node()

    async def _expire_this_node(self) -> None:
        presence = self._context.presence
        try:
            await presence.expire_node(presence.node, self._context.settings.leave_grace)
        except RoomsError as error:
            logger.warning("The users of this process leave when its lease ends: %s", error.message)

    async def _announce(self, found: Departure | Arrival) -> None:
        """Announce what the presence backend found out about a user."""
        context, user = self._context, found.user
        room = context.registry.room_by_key(found.group)
        if room is None:
            names = await context.pool.run(config.names_of_room, found.group)
            application = await context.registry.application(names[0]) if names else None
            room = await context.registry.find_room(application, names[1]) if application and names else None
        if room is None:
            return
        async with context.user_locks.of((room.key, user.id)):
            # The user may have returned or left since: the last announcement has to be right.
            here = (await context.presence.find(room.key, [user.name])).get(user.name)
            present = here is not None and here.id == user.id
            if isinstance(found, Arrival) and present:
                self._events.user_returned(room, user)
            elif isinstance(found, Departure) and not present and not await self._keep(room, user):
                self.user_left(room, user, "dropped")

    async def _keep(self, room: Room, user: User) -> bool:
        """Keep a user for the rest of the room's grace period.

        This applies where the grace period of the room is longer than that of the site.
        """
        seconds = room.config.leave_grace - self._context.settings.leave_grace
        if seconds <= 0:
            return False
        connection = Connection(uuid.uuid4().hex, Native(), application=room.application.config.name)
        membership = Membership(room=room, subscriber=False)
        # First, so that it is cleaned up however the rest ends.
        self._schedule_departure(seconds, PendingLeave(connection, membership, user))
        presence = self._context.presence
        try:
            await presence.add(room.key, connection.id, user)
        except GroupClosed:
            return False
        self._context.spawn_with_retry(partial(presence.start_grace, room.key, connection.id, user))
        return True


def _send_removed(connection: Connection, event: Removed) -> None:
    connection.notify(event)
    if connection.protocol.options.disconnect_on_removal:
        connection.close(
            CloseCode.NORMAL,
            event.message if event.message is not UNSET else "You were removed from the room.",
        )


def _waits_for_owner(room: Room, user: User) -> bool:
    """Whether the room closes with this user, and so waits for the user in any case."""
    return room.config.closes_with_owner and room.config.is_owner(user)


def _has_returned(connection: Connection, membership: Membership[Room]) -> bool:
    """Whether the connection joined again before its departure was carried out."""
    now = connection.memberships.get(membership.room.name)
    return (
        now is not None
        and now is not membership
        and now.room.key == membership.room.key
        and not now.subscriber
    )
