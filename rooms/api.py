"""Rooms from anywhere: views, signals, tasks, the shell, management commands.

In the process that serves the sockets these go straight to its engine; in any other they write the
history themselves and reach the sockets over the channel layer. Each has a synchronous and an
asynchronous form; the synchronous ones may be called inside ``transaction.atomic()``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from asgiref.sync import async_to_sync
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction

from rooms.models.database import database
from rooms.node.control_messages import AnyControlMessage, UserDisconnected
from rooms.node.node import Node
from rooms.protocol.errors import CloseCode, RoomsError
from rooms.protocol.events import Message
from rooms.protocol.types import User

T = TypeVar("T")

# A synchronous call waits no longer for the engine.
CALL_SECONDS = 30


def publish(
    application: str,
    room: str,
    data: Any,
    *,
    event: str = "message",
    to: str | Sequence[str] | None = None,
    state: bool = False,
    volatile: bool = False,
) -> Message | None:
    """Say something in a room, as the server (``from`` is null).

    ``data`` is anything JSON can hold, as it is now; the options are those of the native protocol's
    ``message``.
    Returns the message with its number, or None inside ``transaction.atomic()``: then it is sent
    after the commit, and never if the transaction is rolled back. Raises RoomNotFound (a room is
    made where the application has rooms on demand), UserNotFound for ``to``, ReservedEvent,
    MessageTooLarge, Unavailable; TypeError for what JSON cannot hold.
    """
    said = _json(data)

    # A function and no partial: when it fails, Django logs it by its name.
    def send() -> Message:
        return _wait_for(
            lambda node: node.services.publish(
                application, room, said, event=event, to=to, state=state, volatile=volatile
            )
        )

    if transaction.get_connection().in_atomic_block:
        transaction.on_commit(send, robust=True)
        return None
    return send()


async def apublish(
    application: str,
    room: str,
    data: Any,
    *,
    event: str = "message",
    to: str | Sequence[str] | None = None,
    state: bool = False,
    volatile: bool = False,
) -> Message:
    """As ``publish``, from asynchronous code, where Django has no transactions: it is sent at once."""
    async with _node() as node:
        return await node.services.publish(
            application, room, _json(data), event=event, to=to, state=state, volatile=volatile
        )


def members(application: str, room: str) -> list[User]:
    """Who is in a room, by name. Raises RoomNotFound. With the presence backend in memory only the
    process that serves the sockets knows."""
    return _wait_for(lambda node: node.services.members(application, room))


async def amembers(application: str, room: str) -> list[User]:
    """As ``members``, from asynchronous code."""
    async with _node() as node:
        return await node.services.members(application, room)


def history(application: str, room: str, limit: int = 50) -> list[Message]:
    """The newest messages of a room, oldest first; ``value`` is what was said. Raises RoomNotFound."""
    return _wait_for(lambda node: node.services.history(application, room, limit))


async def ahistory(application: str, room: str, limit: int = 50) -> list[Message]:
    """As ``history``, from asynchronous code."""
    async with _node() as node:
        return await node.services.history(application, room, limit)


def disconnect(
    user: AbstractBaseUser | User | str,
    application: str | None = None,
    *,
    code: CloseCode = CloseCode.KICKED,
    message: str = "You were disconnected.",
) -> None:
    """Close every socket of a user, in one application or in all.

    ``user`` is a Django user, a ``User`` as ``members`` gives it, or **an id and never a name**: a text
    is taken as a user's id, so ``disconnect("ann")`` disconnects nobody. Clients do not come back by
    themselves after codes from 4500 on. Inside ``transaction.atomic()`` it happens after the commit.
    """
    notify(_disconnection(user, application, code, message))


async def adisconnect(
    user: AbstractBaseUser | User | str,
    application: str | None = None,
    *,
    code: CloseCode = CloseCode.KICKED,
    message: str = "You were disconnected.",
) -> None:
    """As ``disconnect``, from asynchronous code."""
    notice = _disconnection(user, application, code, message)
    async with _node() as node:
        await node.services.call(node.tell(notice))


def notify(notice: AnyControlMessage) -> None:
    """Tell every process that something changed, once the surrounding transaction is committed."""

    # A function and no partial: when it fails, Django logs it by its name.
    def tell() -> None:
        _wait_for(lambda node: node.services.call(node.tell(notice)))

    transaction.on_commit(tell, using=database(), robust=True)


def _json(data: Any) -> msgspec.Raw:
    """The data as JSON: what cannot be said fails in the call, even if it is sent after a commit."""
    try:
        return msgspec.Raw(msgspec.json.encode(data))
    except TypeError as error:
        lawful = "texts, numbers, true, false, null, and lists and dicts of them"
        raise TypeError(f"A message holds what JSON can hold: {lawful}. {error}") from error


def _disconnection(
    user: AbstractBaseUser | User | str, application: str | None, code: CloseCode, message: str
) -> UserDisconnected:
    if isinstance(user, AbstractBaseUser):
        user = str(user.pk)
    id = user.id if isinstance(user, User) else user
    return UserDisconnected(application=application, user=id, code=code, message=message)


@asynccontextmanager
async def _node() -> AsyncIterator[Node]:
    """The engine that serves this process's sockets, or one just for this call."""
    running = Node.running()
    if running is not None:
        yield running
        return
    async with Node() as node:
        yield node


def _wait_for(ask: Callable[[Node], Coroutine[Any, Any, T]]) -> T:
    running = Node.running()
    if running is None:
        return async_to_sync(_alone)(ask)
    try:
        in_its_loop = asyncio.get_running_loop() is running.loop
    except RuntimeError:
        in_its_loop = False
    if in_its_loop:
        raise RoomsError("In asynchronous code, await the function whose name begins with a: apublish, …")
    return asyncio.run_coroutine_threadsafe(_with(running, ask), running.loop).result(CALL_SECONDS)


async def _alone(ask: Callable[[Node], Coroutine[Any, Any, T]]) -> T:
    async with Node() as node:
        return await ask(node)


async def _with(node: Node, ask: Callable[[Node], Coroutine[Any, Any, T]]) -> T:
    return await ask(node)
