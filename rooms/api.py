"""Rooms from server code: views, signals, tasks, the shell, management commands.

In the process that serves the sockets a call goes to its node. Any other process stores the message
itself and reaches the sockets over the channel layer (``node/standalone.py``). Each function has a
synchronous and an asynchronous form; the synchronous ones may be called inside
``transaction.atomic()``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction

from rooms.models.database import database
from rooms.node import current, standalone
from rooms.node.control_messages import AnyControlMessage, UserDisconnected
from rooms.node.current import ServerApi
from rooms.protocol.errors import CloseCode, RoomsError
from rooms.protocol.events import Message
from rooms.protocol.types import User

T = TypeVar("T")

# A synchronous call waits this many seconds at most.
CALL_TIMEOUT = 30


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
    """Publish a message to a room, as the server (``from`` is null).

    ``data`` is anything JSON can hold, as it is now; the options are those of the native protocol's
    ``message``. Returns the message with its sequence number; inside ``transaction.atomic()`` None: the
    message is published after the commit, and never if the transaction is rolled back.

    Raises RoomNotFound (a room is created where the application has rooms on demand), UserNotFound for
    ``to``, ReservedEvent, MessageTooLarge, Unavailable; TypeError for what JSON cannot hold.
    """
    encoded = _json(data)

    # A function and no partial: when it fails, Django logs it by its name.
    def send() -> Message:
        return _call(
            lambda target: target.publish(
                application, room, encoded, event=event, to=to, state=state, volatile=volatile
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
    """Publish at once, from asynchronous code.

    As ``publish``, but Django has no transactions in asynchronous code.
    """
    encoded = _json(data)
    return await _acall(
        lambda target: target.publish(
            application, room, encoded, event=event, to=to, state=state, volatile=volatile
        )
    )


def members(application: str, room: str) -> list[User]:
    """Return the members of a room, by name. Raises RoomNotFound.

    With presence in memory only the process that serves the sockets knows them.
    """
    return _call(lambda target: target.members(application, room))


async def amembers(application: str, room: str) -> list[User]:
    """As ``members``, from asynchronous code."""
    return await _acall(lambda target: target.members(application, room))


def history(application: str, room: str, limit: int = 50) -> list[Message]:
    """Return the newest messages of a room, oldest first. Raises RoomNotFound.

    ``value`` of a message is its data.
    """
    return _call(lambda target: target.history(application, room, limit))


async def ahistory(application: str, room: str, limit: int = 50) -> list[Message]:
    """As ``history``, from asynchronous code."""
    return await _acall(lambda target: target.history(application, room, limit))


def disconnect(
    user: AbstractBaseUser | User | str,
    application: str | None = None,
    *,
    code: CloseCode = CloseCode.KICKED,
    message: str = "You were disconnected.",
) -> None:
    """Close every socket of a user, in one application or in all.

    ``user`` is a Django user, a ``User`` as ``members`` returns it, or **an id and never a name**: a string
    is taken as a user's id, so ``disconnect("ann")`` disconnects no user of that name. Clients do not
    reconnect by themselves after codes from 4500 on. Inside ``transaction.atomic()`` it happens after the
    commit.
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
    control = _disconnection(user, application, code, message)
    await _acall(lambda target: target.send_control(control))


def notify(control: AnyControlMessage) -> None:
    """Send a control message to every node.

    It is sent once the surrounding transaction is committed.
    """

    # A function and no partial: when it fails, Django logs it by its name.
    def send() -> None:
        _call(lambda target: target.send_control(control))

    transaction.on_commit(send, using=database(), robust=True)


def _json(data: Any) -> msgspec.Raw:
    """Encode data at the call.

    Data that cannot be encoded fails there, and not after a commit.
    """
    try:
        return msgspec.Raw(msgspec.json.encode(data))
    except TypeError as error:
        expected = "strings, numbers, true, false, null, and lists and dicts of them"
        raise TypeError(f"Expected data that JSON can hold ({expected}). {error}") from error


def _disconnection(
    user: AbstractBaseUser | User | str, application: str | None, code: CloseCode, message: str
) -> UserDisconnected:
    if isinstance(user, AbstractBaseUser):
        user = str(user.pk)
    id = user.id if isinstance(user, User) else user
    return UserDisconnected(application=application, user=id, code=code, message=message)


def _call(ask: Callable[[ServerApi], Coroutine[Any, Any, T]]) -> T:
    """Wait for the result of a call.

    Raises RoomsError where waiting would block the event loop.
    """
    node = current.node
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is not None and (node is None or running is node.loop):
        raise RoomsError("In asynchronous code, await the function whose name begins with a: apublish, …")
    if node is not None:
        return asyncio.run_coroutine_threadsafe(ask(node.services), node.loop).result(CALL_TIMEOUT)
    publisher = standalone.current()
    return publisher.call(ask(publisher), CALL_TIMEOUT)


async def _acall(ask: Callable[[ServerApi], Coroutine[Any, Any, T]]) -> T:
    node = current.node
    if node is not None:
        return await ask(node.services)
    publisher = standalone.current()
    return await publisher.acall(ask(publisher))
