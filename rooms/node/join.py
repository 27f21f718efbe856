"""Join and subscribe commands.

A join: the pushes to the connection are corked; permission, extensions, presence, the channel layer; then
the connection is added to the room; then the reply with the snapshot and the members; then the corked pushes.
Live messages queue behind the reply: none overtakes it, none is lost, and sequence numbers remove
duplicates.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from rooms.extensions import JoinEvent
from rooms.histories import Snapshot
from rooms.hub.application import Runner
from rooms.hub.connection import Connection, Membership
from rooms.hub.room import Room
from rooms.node import permissions
from rooms.node.context import NodeContext, membership_in, require_user
from rooms.node.leave import LeaveHandler
from rooms.node.presence_events import PresenceEvents
from rooms.node.room_lifecycle import RoomLifecycle
from rooms.node.snapshot import join_snapshot, last_seq, live_position
from rooms.presence.base import GroupClosed, GroupFull
from rooms.protocol.commands import Join, Subscribe
from rooms.protocol.compat_commands import CompatJoin, CompatSubscribe
from rooms.protocol.errors import AlreadyMember, RoomClosed, RoomFull, TooManyRooms, Unavailable
from rooms.protocol.events import Rejoined, Reply
from rooms.protocol.results import JoinData
from rooms.protocol.types import User

# A join waits for earlier ones, which extensions or a backend may delay, at most this many seconds.
ADMISSION_TIMEOUT = 30
# A room that is being removed is looked up again after these pauses.
RETRY_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2)


class JoinHandler:
    def __init__(
        self, context: NodeContext, lifecycle: RoomLifecycle, leave: LeaveHandler, events: PresenceEvents
    ) -> None:
        self._context = context
        self._lifecycle = lifecycle
        self._leave = leave
        self._events = events

    async def join(self, connection: Connection, command: Join) -> None:
        await self._join(connection, command, subscriber=False)

    async def subscribe(self, connection: Connection, command: Subscribe) -> None:
        await self._join(connection, command, subscriber=True)

    async def _join(self, connection: Connection, command: Join | Subscribe, *, subscriber: bool) -> None:
        user = require_user(connection)
        limit = self._context.settings.max_rooms_per_connection
        if command.room not in connection.memberships and len(connection.memberships) >= limit:
            raise TooManyRooms(f"A connection can join at most {limit} rooms.")
        connection.cork()
        try:
            membership, before = await self._admit(connection, command, user, subscriber=subscriber)
            repeated = membership is before
            if (
                repeated
                and isinstance(command, CompatJoin | CompatSubscribe)
                and command.if_member == "refuse"
            ):
                raise AlreadyMember(f"You are a member of {command.room} already.")
            try:
                await self._reply(connection, command, membership, user)
                if repeated and isinstance(command, CompatJoin) and command.if_member == "announce":
                    event = Rejoined(room=membership.room.name, user=user)
                    self._events.announce(membership.room, event, exclude=connection)
            except BaseException:
                if not repeated:
                    self._undo(connection, membership, before, user)
                raise
        finally:
            connection.uncork()

    # Admission ---------------------------------------------------------------------------------------

    async def _admit(
        self, connection: Connection, command: Join | Subscribe, user: User, *, subscriber: bool
    ) -> tuple[Membership[Room], Membership[Room] | None]:
        """Make the connection a member. Returns its membership and the one it had before.

        Both are the same object if it was a member already.
        """
        for pause in RETRY_PAUSES:
            room = await self._lifecycle.room_to_join(connection, command, user)
            before = membership_in(connection, room)
            if before is not None and (subscriber or not before.subscriber):
                return before, before
            password = room.config.password
            await self._check_permission(connection, command, room, user)
            async with _admission(room):
                # The last member left, or the password changed, while the join waited.
                if room.removed or room.config.password != password:
                    continue
                before = membership_in(connection, room)
                membership = Membership(room=room, subscriber=subscriber)
                # First, so that the end of the connection cleans it up however the rest ends.
                connection.memberships[room.name] = membership
                try:
                    await self._enter(connection, membership, user)
                except GroupClosed:
                    # The room is being removed, here or by another process: soon a new one can be found.
                    self._context.registry.remove_room(room)
                    self._undo(connection, membership, None, user)
                    await self._leave.dissolve(room, "The room was closed.")
                    await asyncio.sleep(pause)
                    continue
                except BaseException:
                    self._undo(connection, membership, before, user)
                    raise
            return membership, before
        raise Unavailable(f"Room {command.room} is being removed; try again in a moment.")

    async def _check_permission(
        self, connection: Connection, command: Join | Subscribe, room: Room, user: User
    ) -> None:
        config, moderator = room.config, connection.moderator
        permissions.check_join(config, connection, moderator=moderator)
        if permissions.needs_password(config, user, moderator=moderator):
            # Slow on purpose: neither under a lock nor in the threads that other commands need.
            await self._context.password_pool.run(permissions.check_room_password, config, command.password)

    async def _enter(self, connection: Connection, membership: Membership[Room], user: User) -> None:
        """Add the connection to presence, the channel layer and the room, in this order."""
        context, room = self._context, membership.room
        room.joining += 1
        try:
            if membership.subscriber:
                await self._ask_extensions(connection, membership, user)
            elif not await self._add_to_presence(connection, membership, user, present=None):
                # The user's last connection left after presence was asked: the extensions are asked now.
                await self._add_to_presence(connection, membership, user, present=False)
            await context.broker.subscribe(room.key)
            position = await live_position(context, room, connection.protocol)
            # Again: a ban may have been made meanwhile.
            permissions.check_join(room.config, connection, moderator=connection.moderator)
            if room.removed:
                raise GroupClosed
            if membership_in(connection, room) is not membership:
                raise RoomClosed(f"You were removed from {room.name}.")
            room.add(connection)
        finally:
            room.joining -= 1
            if not room.in_use:
                self._leave.release(room)
        if position is not None:
            room.start(position)
        if not membership.subscriber:
            membership.active = True
            self._events.member_active(room, user, connection)

    async def _add_to_presence(
        self, connection: Connection, membership: Membership[Room], user: User, *, present: bool | None
    ) -> bool:
        """Add the user to presence; the extensions must accept a new user first.

        ``present`` states whether presence has the user already; None: it is looked up. Returns
        False, and undoes the addition, where the user turns out to be new and ``on_join`` was not called.
        """
        room, presence = membership.room, self._context.presence
        asked = await self._ask_extensions(connection, membership, user, present=present)
        async with self._context.user_locks.of((room.key, user.id)):
            try:
                first = await presence.add(room.key, connection.id, user, limit=room.config.max_members)
            except BaseException as error:
                if membership.announced:
                    membership.announced = False
                    self._leave.notify_extensions(room, user, "left", connection.claims)
                if isinstance(error, GroupFull):
                    raise _full(room) from None
                raise
            if first:
                self._events.user_added(room, user)
            if first and asked and not membership.announced:
                await presence.remove(room.key, connection.id, user)
                return False
        return True

    # Extensions --------------------------------------------------------------------------------------

    async def _ask_extensions(
        self,
        connection: Connection,
        membership: Membership[Room],
        user: User,
        *,
        present: bool | None = None,
    ) -> bool:
        """Call ``on_join`` for a user that is not in the room yet.

        Returns whether any extension has an ``on_join``. Raises what ``on_join`` raises, RoomFull
        if the room is full already, Unavailable if an extension has not started.
        """
        room, subscriber = membership.room, membership.subscriber
        runners = []
        for runner in room.runners:
            runner.ensure_ready()
            if runner.active and runner.handles("on_join"):
                runners.append(runner)
        if not runners:
            return False
        if present is None:
            # A leave under way is completed first, also for the extensions.
            async with self._context.user_locks.of((room.key, user.id)):
                found = (await self._context.presence.find(room.key, [user.name])).get(user.name)
            present = found is not None and found.id == user.id
        if present:
            return True
        limit = None if subscriber else room.config.max_members
        if limit is not None and (await self._context.presence.counts([room.key]))[0] >= limit:
            raise _full(room)
        await self._call_on_join(connection, membership, user, runners)
        membership.announced = not subscriber
        return True

    async def _call_on_join(
        self, connection: Connection, membership: Membership[Room], user: User, runners: list[Runner]
    ) -> None:
        room = membership.room
        event = JoinEvent(
            room.context, user, connection.id, claims=connection.claims, subscriber=membership.subscriber
        )
        accepted: list[Runner] = []
        try:
            for runner in runners:
                runner.ensure_ready()
                await runner.call("on_join", event, executor=room.runner.executor)
                accepted.append(runner)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                # The handler still runs, and may accept the user.
                accepted.append(runner)
            if not membership.subscriber:
                # Extensions that accepted the user learn that the join failed.
                self._leave.notify_extensions(room, user, "left", connection.claims, runners=accepted)
            raise

    # Reply -------------------------------------------------------------------------------------------

    async def _reply(
        self,
        connection: Connection,
        command: Join | Subscribe,
        membership: Membership[Room],
        user: User,
    ) -> None:
        """Send the snapshot and the members in the reply.

        The corked pushes that these do not cover follow.
        """
        context, room = self._context, membership.room
        snapshot = await join_snapshot(context, room, connection.protocol, command)
        limit = None if connection.protocol.options.full_member_list else context.settings.join_members_limit
        page = await context.presence.members(room.key, limit=limit)
        if membership_in(connection, room) is not membership:
            raise RoomClosed(f"Room {room.name} was closed.")
        members = page.users
        if not membership.subscriber and user not in members:
            # A list that is cut short still contains the joining user.
            members = [*members[:-1], user]
        data = self._join_data(connection, membership, user, members, page.count, snapshot)
        connection.send(Reply(id=command.id, data=data))
        room.mark_members_sent(connection, {each.id for each in members}, page.count, complete=not page.more)
        if snapshot is None:
            # It receives every message since it was added to the room.
            connection.uncork()
        else:
            room.mark_synced(connection, last_seq(snapshot))

    def _join_data(
        self,
        connection: Connection,
        membership: Membership[Room],
        user: User,
        members: list[User],
        count: int,
        snapshot: Snapshot | None,
    ) -> JoinData:
        return JoinData(
            room=permissions.details(
                membership.room.config,
                user,
                moderator=connection.moderator,
                subscriber=membership.subscriber,
            ),
            members=members,
            count=count,
            state=snapshot.state if snapshot else [],
            messages=snapshot.messages if snapshot else [],
            recovered=snapshot is not None and snapshot.recovered,
            position=snapshot.position if snapshot else None,
        )

    def _undo(
        self,
        connection: Connection,
        membership: Membership[Room],
        before: Membership[Room] | None,
        user: User,
    ) -> None:
        """Restore the connection's state before a join that failed."""
        room = membership.room
        if connection.memberships.get(room.name) is membership:
            if before is not None:
                # A subscriber that could not become a member stays a subscriber.
                connection.memberships[room.name] = before
            else:
                self._leave.discard(connection, membership)
                # The client has no position in the room.
                connection.drop_corked(room.key)
        if not membership.subscriber:
            self._context.spawn_with_retry(partial(self._leave.undo_join, connection, membership, user))


@asynccontextmanager
async def _admission(room: Room) -> AsyncIterator[None]:
    """Hold the room's lock. Raises Unavailable."""
    try:
        async with asyncio.timeout(ADMISSION_TIMEOUT):
            await room.lock.acquire()
    except TimeoutError:
        raise Unavailable(f"Too many joins wait for room {room.name}; try again in a moment.") from None
    try:
        yield
    finally:
        room.lock.release()


def _full(room: Room) -> RoomFull:
    limit = room.config.max_members
    return RoomFull(f"Room {room.name} is full ({limit} of {limit}).", retry=True)
