"""Saying something in a room, and reading what was said.

A message: policy → extension, which may take it → history, which numbers it → the sender's answer →
the hub → the bus. The answer always goes first. Whoever says several things in one room need not wait for
the answers: what a history is keeping shares a commit. Next in the flow: ``saying.py``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from rooms.histories import Appended, complete_alone
from rooms.hub.connection import Connection
from rooms.node import permissions
from rooms.node.context import NodeContext, room_of, user_of
from rooms.node.pending_message import ClientMessage, PendingMessage, ServerMessage
from rooms.node.registry import Room
from rooms.node.replies import check_event, message_event
from rooms.protocol import timestamps, validators
from rooms.protocol.commands import Send
from rooms.protocol.compat_commands import SendOriginal, SendToApplication
from rooms.protocol.errors import BadRequest, MessageTooLarge, NotMember, UserNotFound
from rooms.protocol.events import Message, Reply
from rooms.protocol.results import SentData
from rooms.protocol.types import User

# Keys of messages that no history keeps are remembered in this process, so many of them.
MOST_KEYS = 10_000

# So many messages of a connection may wait for the history, as long as so few wait altogether.
MOST_UNANSWERED = 16
MOST_TOGETHER = 512

# A key as it counts: with its room and its user.
_Used: TypeAlias = tuple[int, str, str]


class MessageHandler:
    def __init__(self, parts: NodeContext) -> None:
        self._parts = parts
        self._answers: OrderedDict[_Used, object] = OrderedDict()
        # Keys whose message is under way: whoever sends it again waits for the same answer.
        self._under_way: dict[_Used, asyncio.Future[None]] = {}

    async def send(self, connection: Connection, request: Send) -> None:
        user = user_of(connection)
        room = await room_of(self._parts, connection, request.room)
        if connection.unanswered and not self._may_follow(connection, request, room):
            await connection.answered()
            room = await room_of(self._parts, connection, request.room)
        if connection.memberships[room.name].listens_only:
            raise NotMember(f"You only listen in {request.room}.")
        await self.say(connection, request, room, user)

    async def say(self, connection: Connection, request: Send, room: Room, user: User) -> None:
        """As ``send``, for one of whom it is known that they may be heard here."""
        permissions.check_send(room.record, user, connection.people)
        self._check(request, self._largest(connection, room))
        if request.key is None or self._is_for_history(request, room):
            await self._carry_out(connection, request, room, user)
        else:
            await self._carry_out_once(
                connection, request, room, user, (room.record.id, user.id, request.key)
            )

    async def publish(
        self,
        room: Room,
        data: Any,
        *,
        event: str = validators.DEFAULT_EVENT,
        to: str | Sequence[str] | None = None,
        state: bool = False,
        volatile: bool = False,
        sender: User | None = None,
        exclude: Connection | None = None,
    ) -> Message:
        """Say something as the server, or as ``sender``, whose own connection, ``exclude``, is left out. No
        handler is asked and no policy: the site's code decides."""
        request = Send(
            room=room.name,
            data=msgspec.Raw(msgspec.json.encode(data)),
            event=event,
            to=to if to is None or isinstance(to, str) else list(to),
            state=state,
            volatile=volatile,
        )
        check_event(event, shortest=1)
        self._check(request, self._largest(exclude, room))
        recipients = None if request.to is None else await self._recipients(room, request.to)
        published = ServerMessage(
            parts=self._parts, room=room, recipients=recipients, exclude=exclude, volatile=volatile
        )
        self._keep(request, room, sender, request.data, published)
        return await published.message()

    # Steps of a message ------------------------------------------------------------------------------

    def _largest(self, connection: Connection | None, room: Room) -> int | None:
        """The most bytes of a message: the application's word, or what suits the protocol, where the largest
        frame is limit enough."""
        most = room.application.record.max_message_bytes
        if most is None and (connection is None or connection.protocol.options.limits_message_size):
            most = self._parts.settings.max_message_bytes
        return most

    def check_size(self, data: msgspec.Raw, most: int | None) -> int:
        """The size of a message. Raises MessageTooLarge."""
        size = len(bytes(data))
        if most is not None and size > most:
            raise MessageTooLarge(f"A message has at most {most} bytes, got {size}.")
        return size

    def _check(self, request: Send, most: int | None) -> None:
        size = self.check_size(request.data, most)
        if isinstance(request, SendOriginal) and request.original is not None:
            size = max(size, self.check_size(request.original, most))
        if request.state:
            if request.to is not None or request.volatile:
                raise BadRequest("State is for everybody and is kept: it goes with neither to nor volatile.")
            if size > self._parts.settings.max_state_bytes:
                raise MessageTooLarge(
                    f"State has at most {self._parts.settings.max_state_bytes} bytes, got {size}."
                )

    def _is_for_history(self, request: Send, room: Room) -> bool:
        """Nobody but the history has a say, and it knows the message by its key."""
        is_kept = request.to is None and not request.volatile
        history = self._parts.histories[room.record.history]
        return is_kept and not _has_extensions(room) and history.deduplicates

    def _may_follow(self, connection: Connection, request: Send, room: Room) -> bool:
        """It need not wait for the answers to what its sender has said: it is kept, answered and told after
        them in any case."""
        return (
            connection.speaks_in == room.group
            and connection.unanswered < MOST_UNANSWERED
            and not request.state
            and self._is_for_history(request, room)
            and self._parts.histories[room.record.history].pending < MOST_TOGETHER
        )

    async def _carry_out_once(
        self, connection: Connection, request: Send, room: Room, user: User, used: _Used
    ) -> None:
        """Carry out a message with a key, unless that has been done: then the first answer is given again."""
        while (under_way := self._under_way.get(used)) is not None:
            await asyncio.wait({under_way})
        if (answer := self._answers.get(used)) is not None:
            connection.send(Reply(id=request.id, data=answer))
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way[used] = future
        try:
            answer = await self._kept_answer(request, room, user)
            if answer is None:
                answer = await self._carry_out(connection, request, room, user)
            else:
                connection.send(Reply(id=request.id, data=answer))
            if answer is not None:
                self._answers[used] = answer
            if len(self._answers) > MOST_KEYS:
                self._answers.popitem(last=False)
        finally:
            del self._under_way[used]
            future.set_result(None)

    async def _kept_answer(self, request: Send, room: Room, user: User) -> SentData | None:
        """The answer that the history knows. Without extensions it is found when appending."""
        if request.key is None or not _has_extensions(room):
            return None
        return await self._parts.histories[room.record.history].find(room.record, user.id, request.key)

    async def _carry_out(self, connection: Connection, request: Send, room: Room, user: User) -> object:
        """Extensions, history, answer, fan-out. Returns the answer, None where there is none or not yet."""
        recipients = None if request.to is None else await self._recipients(room, request.to)
        if not _has_extensions(room):
            asked = self._say(connection, request, room, user, request.data, recipients)
            # State may be kept elsewhere than messages, and a protocol may go on with what became of it.
            if connection.unanswered and (request.state or not self._is_for_history(request, room)):
                await connection.answered()
            return asked.data
        connection.hold()
        try:
            data = await self._through_extensions(connection, request, room, user)
            if isinstance(data, msgspec.Raw):
                asked = self._say(connection, request, room, user, data, recipients)
                await connection.answered()
                return asked.data
            connection.send(Reply(id=request.id, data=data))
            return data
        finally:
            connection.release()

    async def _recipients(self, room: Room, to: str | list[str]) -> list[User]:
        wanted = [to] if isinstance(to, str) else to
        found = await self._parts.presence.find(room.group, wanted)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise UserNotFound(f"{missing[0][:64]} is not a member of {room.name}.")
        return list({user.id: user for user in found.values()}.values())

    async def _through_extensions(
        self, connection: Connection, request: Send, room: Room, user: User
    ) -> msgspec.Raw | dict[str, Any]:
        """What is left to be said after the extensions, or the answer of the one that took the message."""
        levels = room.levels
        name = name_of(request)
        taking = next(((hooks, handler) for hooks in levels if (handler := hooks.find_handler(name))), None)
        asked = [hooks for hooks in levels if hooks.handles("on_message")]
        if taking is None and not asked:
            return request.data
        event = message_event(
            self._parts, self.publish, connection, user, room.application, room, name, request.data
        )
        if taking is not None:
            hooks, handler = taking
            await hooks.run(handler, event, executor=room.hooks.executor)
            return {"seq": None, "time": timestamps.now(), **event.reply_data}
        before = msgspec.json.encode(event.data)
        for hooks in asked:
            await hooks.call("on_message", event, executor=room.hooks.executor)
        after = msgspec.json.encode(event.data)
        return request.data if after == before else msgspec.Raw(after)

    def _say(
        self,
        connection: Connection,
        request: Send,
        room: Room,
        user: User,
        data: msgspec.Raw,
        recipients: list[User] | None,
    ) -> ClientMessage:
        """Hand it to the history. From there on it goes its way by itself."""
        asked = ClientMessage(
            parts=self._parts,
            room=room,
            recipients=recipients,
            exclude=connection if request.echo is False else None,
            volatile=request.volatile is True,
            connection=connection,
            request=request,
        )
        connection.unanswered += 1
        connection.speaks_in = room.group
        try:
            self._keep(request, room, user, data, asked)
        except Exception as error:
            complete_alone(asked, error)
        return asked

    def _keep(
        self, request: Send, room: Room, user: User | None, data: msgspec.Raw, saying: PendingMessage
    ) -> None:
        recipients = saying.recipients
        message = Message(
            room=room.name,
            event=name_of(request),
            data=data,
            sender=user,
            seq=None,
            time=timestamps.now(),
            to=UNSET if recipients is None else [each.name for each in recipients],
            state=True if request.state else UNSET,
            original=_original(request, data),
        )
        if recipients is not None or request.volatile:
            complete_alone(saying, Appended(message))
        else:
            self._parts.histories[room.record.history].append(room.record, message, request.key, saying)


def name_of(request: Send | SendToApplication) -> str:
    """The name of the event that a message is."""
    return validators.DEFAULT_EVENT if request.event is None else request.event


def _original(request: Send, data: msgspec.Raw) -> msgspec.Raw | UnsetType:
    # An extension that changed the data spoke last.
    if isinstance(request, SendOriginal) and request.original is not None and data is request.data:
        return request.original
    return UNSET


def _has_extensions(room: Room) -> bool:
    return room.hooks.active or room.application.hooks.active
