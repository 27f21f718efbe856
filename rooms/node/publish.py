"""Client messages: permission, extension, history, acknowledgement, broadcast.

A client that sends several messages to one room need not wait for the acknowledgements: messages
that the history has not stored yet share a commit. The last steps are in ``publisher.py``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from rooms.histories import Appended, complete_alone
from rooms.hub.connection import Connection, Membership
from rooms.hub.room import Room
from rooms.node import permissions
from rooms.node.context import NodeContext, require_user
from rooms.node.publisher import PendingMessage, Publisher, event_name
from rooms.node.replies import message_event
from rooms.protocol import timestamps
from rooms.protocol.base import error_event
from rooms.protocol.commands import Command, Send
from rooms.protocol.errors import InternalError, NotMember, RoomsError
from rooms.protocol.events import Reply
from rooms.protocol.results import SentData
from rooms.protocol.types import User

logger = logging.getLogger("rooms.node")

# This many idempotency keys of messages that no history stores are remembered in this process.
MAX_KEYS = 10_000
# This many messages of a connection may wait for the history, while all of them together are below
# the second limit.
MAX_IN_FLIGHT = 16
MAX_IN_FLIGHT_TOTAL = 512

# An idempotency key with the ids of its room and its user.
_Key: TypeAlias = tuple[int, str, str]


@dataclass(slots=True, kw_only=True)
class ClientMessage(PendingMessage):
    """A message of a client.

    ``data`` is the acknowledgement; None before it, and after an error.
    """

    connection: Connection
    command: Send
    data: SentData | None = None

    def complete(self, result: Appended | Exception) -> None:
        if isinstance(result, Exception):
            reply_error(self.connection, self.command, result)
            return
        self.stored = result
        self.data = SentData(seq=result.message.seq, time=result.message.time)
        self.connection.send(Reply(id=self.command.id, data=self.data))

    def finish(self) -> None:
        try:
            PendingMessage.finish(self)
        finally:
            self.connection.mark_acknowledged()


def reply_error(connection: Connection, command: Command, error: Exception) -> None:
    """Reply to a command that failed."""
    if not isinstance(error, RoomsError):
        name = type(command).__name__
        logger.error("%s failed (connection %s)", name, connection.id, exc_info=error)
        error = InternalError("Something went wrong on the server.")
    connection.send(error_event(command.id, error))


class MessageHandler:
    """Executes the commands that send a message to a room."""

    def __init__(self, context: NodeContext, publisher: Publisher) -> None:
        self._context = context
        self._publisher = publisher
        # The acknowledgements of messages that no history stores, by their key.
        self._acknowledged: OrderedDict[_Key, object] = OrderedDict()
        # Keys of messages under way: the same key sent again waits for the same acknowledgement.
        self._under_way: dict[_Key, asyncio.Future[None]] = {}

    async def send(self, connection: Connection, command: Send) -> None:
        """Publish a message of a member."""
        membership: Membership[Room] | None = connection.memberships.get(command.room)
        user = connection.user
        if membership is None or user is None or membership.room.removed:
            # Raises the fitting error.
            user = require_user(connection)
            membership = await self._context.require_membership(connection, command.room)
        if connection.in_flight and not self._may_follow(connection, command, membership.room):
            await connection.wait_idle()
            membership = await self._context.require_membership(connection, command.room)
        if membership.subscriber:
            raise NotMember(f"You are a subscriber of {command.room}; only members can send.")
        await self.publish(connection, command, membership.room, user)

    async def publish(self, connection: Connection, command: Send, room: Room, user: User) -> None:
        """As ``send``, for a client that need not be a member."""
        permissions.check_send(room.config, user, connection)
        self._publisher.check(command, self._publisher.max_bytes(room, connection))
        if command.key is None or self._is_deduplicated(command, room):
            await self._execute(connection, command, room, user)
        else:
            await self._execute_once(connection, command, room, user, (room.config.id, user.id, command.key))

    # Idempotency -------------------------------------------------------------------------------------

    def _is_deduplicated(self, command: Send, room: Room) -> bool:
        """Whether the history alone decides about the message, and knows its key."""
        stored = command.to is None and not command.volatile
        history = self._publisher.histories[room.config.history]
        return stored and not _has_extensions(room) and history.deduplicates

    def _may_follow(self, connection: Connection, command: Send, room: Room) -> bool:
        """Whether a message need not wait for the earlier ones of its sender.

        It need not where it is stored, acknowledged and broadcast after them in any case.
        """
        return (
            connection.in_flight_room is room
            and connection.in_flight < MAX_IN_FLIGHT
            and not command.state
            and self._is_deduplicated(command, room)
            and self._publisher.histories[room.config.history].pending < MAX_IN_FLIGHT_TOTAL
        )

    async def _execute_once(
        self, connection: Connection, command: Send, room: Room, user: User, key: _Key
    ) -> None:
        """Execute a message with a key; a duplicate gets the first acknowledgement again."""
        while (under_way := self._under_way.get(key)) is not None:
            await asyncio.wait({under_way})
        if (data := self._acknowledged.get(key)) is not None:
            connection.send(Reply(id=command.id, data=data))
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way[key] = future
        try:
            data = await self._find_stored(command, room, user)
            if data is None:
                data = await self._execute(connection, command, room, user)
            else:
                connection.send(Reply(id=command.id, data=data))
            if data is not None:
                self._acknowledged[key] = data
            if len(self._acknowledged) > MAX_KEYS:
                self._acknowledged.popitem(last=False)
        finally:
            del self._under_way[key]
            future.set_result(None)

    async def _find_stored(self, command: Send, room: Room, user: User) -> SentData | None:
        """Return the acknowledgement that the history knows, or None.

        Without extensions, the append finds it.
        """
        if command.key is None or not _has_extensions(room):
            return None
        return await self._publisher.histories[room.config.history].find(room.config, user.id, command.key)

    # Steps of a message ------------------------------------------------------------------------------

    async def _execute(self, connection: Connection, command: Send, room: Room, user: User) -> object:
        """Run the extensions and publish.

        Returns the data of the reply; None: there is none, or not yet.
        """
        recipients = None if command.to is None else await self._publisher.find_recipients(room, command.to)
        if not _has_extensions(room):
            pending = self._publish(connection, command, room, user, command.data, recipients)
            # State may be stored elsewhere than messages, and a protocol may need its outcome.
            if connection.in_flight and (command.state or not self._is_deduplicated(command, room)):
                await connection.wait_idle()
            return pending.data
        connection.cork()
        try:
            data = await self._run_extensions(connection, command, room, user)
            if isinstance(data, msgspec.Raw):
                pending = self._publish(connection, command, room, user, data, recipients)
                await connection.wait_idle()
                return pending.data
            connection.send(Reply(id=command.id, data=data))
            return data
        finally:
            connection.uncork()

    async def _run_extensions(
        self, connection: Connection, command: Send, room: Room, user: User
    ) -> msgspec.Raw | dict[str, Any]:
        """Return the data to publish, or the reply of the handler that took the message."""
        name = event_name(command)
        runners = room.runners
        found = next(
            ((runner, handler) for runner in runners if (handler := runner.find_handler(name))), None
        )
        asked = [runner for runner in runners if runner.handles("on_message")]
        if found is None and not asked:
            return command.data
        event = message_event(
            self._context,
            self._publisher.publish,
            connection,
            user,
            room.application,
            room,
            name,
            command.data,
        )
        if found is not None:
            runner, handler = found
            await runner.run(handler, event, executor=room.runner.executor)
            return {"seq": None, "time": timestamps.now(), **event.reply_data}
        before = msgspec.json.encode(event.data)
        for runner in asked:
            await runner.call("on_message", event, executor=room.runner.executor)
        after = msgspec.json.encode(event.data)
        return command.data if after == before else msgspec.Raw(after)

    def _publish(
        self,
        connection: Connection,
        command: Send,
        room: Room,
        user: User,
        data: msgspec.Raw,
        recipients: list[User] | None,
    ) -> ClientMessage:
        """Hand the message to the history.

        It is acknowledged and broadcast when it is stored.
        """
        pending = ClientMessage(
            broker=self._publisher.broker,
            room=room,
            recipients=recipients,
            exclude=connection if command.echo is False else None,
            volatile=command.volatile is True,
            connection=connection,
            command=command,
        )
        connection.in_flight += 1
        connection.in_flight_room = room
        try:
            self._publisher.store(command, data, user, pending)
        except Exception as error:
            complete_alone(pending, error)
        return pending


def _has_extensions(room: Room) -> bool:
    return room.runner.active or room.application.runner.active
