"""Saying something in a room, and reading what was said.

A message: policy → extension, which may take it → history, which numbers it → the sender's answer →
the hub → the bus. The answer always goes first. What other processes' hints leave out of a room
with history is fetched from there, in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from rooms import clock, policy
from rooms.engine.directory import LiveRoom
from rooms.engine.parts import Parts, user_of
from rooms.errors import BadRequest, MessageTooLarge, NotMember, RoomsError, UserNotFound
from rooms.events import ListMembers, Message, ReadHistory, Reply, Send, SentData, User
from rooms.extensions import MessageEvent
from rooms.fanout import Connection
from rooms.histories import Appended

logger = logging.getLogger("rooms.engine")

# A number that is missing may just be late; after so long it is fetched.
GAP_SECONDS = 0.05
# Keys of messages that no history keeps are remembered in this process, so many of them.
MOST_KEYS = 10_000

DEFAULT_EVENT = "message"
LIST_LIMIT = 100
LONGEST_LIST = 1000


class Messages:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._answers: OrderedDict[tuple[int, str, str], dict[str, Any]] = OrderedDict()
        self._filling: set[str] = set()

    async def send(self, connection: Connection, request: Send) -> None:
        user = user_of(connection)
        place = connection.memberships.get(request.room)
        if place is None or place.listens_only:
            raise NotMember(f"You are not a member of {request.room}.")
        application = await self._parts.application_of(connection)
        room = await self._parts.directory.room(application, request.room)
        _check(room, request, user)
        used = None if request.key is None else (room.record.id, user.id, request.key)
        if used is not None and (answer := self._answers.get(used)) is not None:
            connection.send(Reply(id=request.id, data=answer))
            return
        recipients = await self._recipients(room, request.to)
        if room.hooks.active or application.hooks.active:
            connection.hold()
            try:
                data = await self._through_extensions(connection, request, room, user)
                if data is not None:
                    await self._say(connection, request, room, user, data, recipients)
            finally:
                connection.release()
        else:
            await self._say(connection, request, room, user, request.data, recipients)

    async def publish(
        self,
        room: LiveRoom,
        data: Any,
        *,
        event: str = DEFAULT_EVENT,
        to: str | Sequence[str] | None = None,
        state: bool = False,
        volatile: bool = False,
    ) -> Message:
        """Say something as the server. No handler is asked and no policy: the site's code decides."""
        request = Send(
            room=room.name,
            data=msgspec.Raw(msgspec.json.encode(data)),
            event=event,
            to=to if to is None or isinstance(to, str) else list(to),
            state=state,
            volatile=volatile,
        )
        _check_options(request)
        recipients = await self._recipients(room, request.to)
        message = (await self._keep(request, room, None, request.data, recipients)).message
        self._tell(room, message, recipients, volatile=volatile)
        return message

    async def history(self, connection: Connection, request: ReadHistory) -> None:
        room = await self._room_of(connection, request.room)
        settings = self._parts.settings
        limit = settings.join_limit if request.limit is None else request.limit
        page = await self._parts.histories[room.record.history].page(
            room.record,
            before=request.before,
            after=request.after,
            limit=min(limit, settings.recovery_limit),
        )
        connection.send(Reply(id=request.id, data={"messages": page.messages, "more": page.more}))

    async def members(self, connection: Connection, request: ListMembers) -> None:
        room = await self._room_of(connection, request.room)
        limit = min(LIST_LIMIT if request.limit is None else request.limit, LONGEST_LIST)
        page = await self._parts.presence.members(room.group, after=request.after, limit=limit)
        connection.send(
            Reply(id=request.id, data={"members": page.users, "count": page.count, "more": page.more})
        )

    def gap(self, group: str) -> None:
        """The hub misses a number: fetch it, unless it comes by itself."""
        if group not in self._filling:
            self._filling.add(group)
            self._parts.tasks.spawn(self._fill(group))

    # Steps of a message ------------------------------------------------------------------------------

    async def _room_of(self, connection: Connection, name: str) -> LiveRoom:
        """The room, for those who are in it. Raises NotMember."""
        user_of(connection)
        if name not in connection.memberships:
            raise NotMember(f"You are not in {name}.")
        return await self._parts.directory.room(await self._parts.application_of(connection), name)

    async def _recipients(self, room: LiveRoom, to: str | list[str] | None) -> list[User] | None:
        if to is None:
            return None
        wanted = [to] if isinstance(to, str) else to
        found = await self._parts.presence.find(room.group, wanted)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise UserNotFound(f"{missing[0][:64]} is not a member of {room.name}.")
        return list({user.id: user for user in found.values()}.values())

    async def _through_extensions(
        self, connection: Connection, request: Send, room: LiveRoom, user: User
    ) -> msgspec.Raw | None:
        """What is left to be said after the extensions: None when one of them took the message."""
        levels = (room.hooks, room.application.hooks)
        name = request.event or DEFAULT_EVENT
        taking = next(((hooks, taker) for hooks in levels if (taker := hooks.taker(name))), None)
        asked = [hooks for hooks in levels if hooks.has("on_message")]
        if taking is None and not asked:
            return request.data
        event = MessageEvent(room.context, user, connection.id, name, msgspec.json.decode(request.data))
        if taking is not None:
            hooks, taker = taking
            await hooks.run(taker, event, lane=room.hooks.lane)
            self._answer(connection, request, room, user, {"seq": None, "time": clock.now(), **event.answer})
            return None
        before = msgspec.json.encode(event.data)
        for hooks in asked:
            await hooks.call("on_message", event, lane=room.hooks.lane)
        after = msgspec.json.encode(event.data)
        return request.data if after == before else msgspec.Raw(after)

    async def _say(
        self,
        connection: Connection,
        request: Send,
        room: LiveRoom,
        user: User,
        data: msgspec.Raw,
        recipients: list[User] | None,
    ) -> None:
        kept = await self._keep(request, room, user, data, recipients)
        message = kept.message
        if message.seq is None:
            self._answer(connection, request, room, user, {"seq": None, "time": message.time})
        else:
            connection.send(Reply(id=request.id, data=SentData(seq=message.seq, time=message.time)))
        if not kept.again:
            exclude = connection if request.echo is False else None
            self._tell(room, message, recipients, exclude=exclude, volatile=request.volatile is True)

    async def _keep(
        self,
        request: Send,
        room: LiveRoom,
        user: User | None,
        data: msgspec.Raw,
        recipients: list[User] | None,
    ) -> Appended:
        message = Message(
            room=room.name,
            event=request.event or DEFAULT_EVENT,
            data=data,
            sender=user,
            seq=None,
            time=clock.now(),
            to=UNSET if recipients is None else [each.name for each in recipients],
            state=True if request.state else UNSET,
        )
        if recipients is not None or request.volatile:
            return Appended(message)
        return await self._parts.histories[room.record.history].append(room.record, message, request.key)

    def _tell(
        self,
        room: LiveRoom,
        message: Message,
        recipients: list[User] | None,
        *,
        exclude: Connection | None = None,
        volatile: bool = False,
    ) -> None:
        only = None if recipients is None else {each.id for each in recipients}
        self._parts.hub.group_send(room.group, message, exclude=exclude, only=only, volatile=volatile)
        self._parts.bus.publish(room.group, message, only=only, volatile=volatile)

    def _answer(
        self, connection: Connection, request: Send, room: LiveRoom, user: User, answer: dict[str, Any]
    ) -> None:
        """Answer for a message that no history keeps, and remember the answer for its key."""
        connection.send(Reply(id=request.id, data=answer))
        if request.key is not None:
            self._answers[room.record.id, user.id, request.key] = answer
            if len(self._answers) > MOST_KEYS:
                self._answers.popitem(last=False)

    async def _fill(self, group: str) -> None:
        hub = self._parts.hub
        try:
            await asyncio.sleep(GAP_SECONDS)
            room = self._parts.directory.room_by_group(group)
            while room is not None and (position := hub.missing_after(group)) is not None:
                messages = await self._parts.histories[room.record.history].after(room.record, position)
                if messages and messages[0].seq is not None:
                    # What the history does not keep any more is gone for good.
                    hub.skip(group, messages[0].seq - 1)
                for message in messages:
                    hub.group_send(group, message)
                if not messages:
                    hub.skip_gap(group)
        except RoomsError as error:
            # The next message of the room finds the gap again.
            logger.warning("Could not fetch what is missing in %s: %s", group, error.message)
        finally:
            self._filling.discard(group)


def _check(room: LiveRoom, request: Send, user: User) -> None:
    policy.check_send(room.record, user)
    most = room.application.record.max_message_bytes
    if len(bytes(request.data)) > most:
        raise MessageTooLarge(f"A message has at most {most} bytes, got {len(bytes(request.data))}.")
    _check_options(request)


def _check_options(request: Send) -> None:
    if request.state and (request.to is not None or request.volatile):
        raise BadRequest("State is for everybody and is kept: state goes with neither to nor volatile.")
