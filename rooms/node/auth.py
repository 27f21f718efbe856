"""Who somebody is: by Django session, by a guest's name, by a token after a reconnect.

A token is signed, not stored: it works in every process and across restarts. All tokens that
descend from one login share its id, and a logout revokes that id in the database.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.core import signing
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from rooms.concurrency.batching import Lookups
from rooms.concurrency.rate_limits import TokenBucket
from rooms.hub.connection import Connection
from rooms.models import RevokedToken
from rooms.node import permissions
from rooms.node.accounts import are_registered
from rooms.node.context import NodeContext, event_of, user_of
from rooms.node.registry import Application
from rooms.presence.base import GroupFull, NameInUse
from rooms.protocol import validators
from rooms.protocol.commands import Login, Logout
from rooms.protocol.errors import (
    ApplicationFull,
    BadRequest,
    BadToken,
    LoginRefused,
    NameTaken,
    RateLimited,
    RoomsError,
    Unavailable,
)
from rooms.protocol.events import Reply
from rooms.protocol.types import User

SALT = "rooms.login"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A user together with what the policy asks about them; ``login`` is the login it came by."""

    user: User
    groups: frozenset[int] = frozenset()
    moderator: bool = False
    stamp: str = ""
    login: str | None = None


class Authenticator:
    def __init__(self, parts: NodeContext) -> None:
        self._parts = parts
        self._buckets: dict[tuple[int, str], TokenBucket] = {}
        self._registered: Lookups[str, str, bool] = Lookups(partial(parts.pool.run, are_registered))

    async def by_session(self, connection: Connection, application: Application, user: Any) -> None:
        """Log the handshake's Django user in, where the application admits them; else nothing."""
        identity = await self._parts.pool.run(_identity, user)
        if identity is not None:
            try:
                await self._admit(connection, application, identity)
            except Unavailable:
                # Nobody else would log this user in: the client has to come again.
                raise
            except RoomsError:
                connection.login = None

    async def anonymous(self, connection: Connection, application: Application, user: Any) -> None:
        """Log in somebody whose protocol knows no names: a guest, called as the connection is. Where only
        signed-in users are admitted, that is asked of the handshake's Django user. Raises RoomsError."""
        guest = User(name=connection.id, id=f"guest-{connection.id}", guest=True)
        signed_in = user is not None and user.is_authenticated
        identity = await self._parts.pool.run(_identity, user) if signed_in else None
        if identity is not None:
            permissions.check_entry(application.record, identity.user, identity.groups)
            connection.account = identity.user
        moderator = identity is not None and identity.moderator
        await self._admit(
            connection,
            application,
            Identity(user=guest, moderator=moderator),
            vouched=identity is not None,
        )

    async def login(self, connection: Connection, request: Login) -> None:
        application = await self._parts.application_of(connection)
        if request.name is not None and request.token is not None:
            raise BadRequest("Log in with a name or with a token, not with both.")
        if connection.user is None:
            self._check_rate(connection, application)
            try:
                identity = await self._identify(application, request)
                await self._admit(connection, application, identity)
            except Unavailable:
                # A client is not sent away for what the server could not do.
                connection.waiting_for_login = time.monotonic()
                raise
        else:
            await self._confirm(connection, application, request)
        await self._answer(connection, request, application)

    async def login_by_session(self, connection: Connection, request: Login, user: Any) -> None:
        """As ``login``, for the handshake's Django user, whose name it is. Raises RoomsError."""
        application = await self._parts.application_of(connection)
        self._check_rate(connection, application)
        identity = await self._parts.pool.run(_identity, user)
        if identity is None:
            raise LoginRefused("This account is not active.")
        await self._admit(connection, application, identity)
        await self._answer(connection, request, application)

    async def _answer(self, connection: Connection, request: Login, application: Application) -> None:
        user = user_of(connection)
        connection.login = connection.login or secrets.token_hex(16)
        signed = partial(_token, application.record.name, user, connection.login)
        # Of a guest nothing is in the database.
        token = signed() if user.guest else await self._parts.pool.run(signed)
        connection.send(Reply(id=request.id, data={"user": user, "token": token}))

    async def logout(self, connection: Connection, request: Logout) -> None:
        """After everything that a logout means for rooms has been carried out (``node.py``)."""
        user = user_of(connection)
        application = await self._parts.application_of(connection)
        if connection.login is not None:
            await self._parts.pool.run(_revoke, connection.login, self._parts.settings.token_ttl)
        connection.user, connection.login, connection.moderator = None, None, False
        self._parts.users.discard(application.group, user.id, connection)
        connection.waiting_for_login = time.monotonic()
        await self._parts.run_to_completion(partial(self._remove, application.group, connection, user))
        connection.send(Reply(id=request.id, data={}))
        await application.hooks.notify("on_logout", event_of(connection, user))

    def disconnected(self, connection: Connection, application: Application, user: User) -> None:
        """A guest's name stays theirs for a while after the last connection is gone."""
        parts, group = self._parts, application.group
        parts.users.discard(group, user.id, connection)
        remove = partial(self._remove, group, connection, user)
        if not connection.protocol.options.resumable:
            parts.tasks.spawn(parts.departures.attempt(remove))
            return
        start_grace = partial(parts.presence.start_grace, group, connection.id, user)
        parts.tasks.spawn(parts.departures.attempt(start_grace))
        parts.departures.add(parts.settings.guest_name_ttl, remove)

    async def _remove(self, group: str, connection: Connection, user: User) -> None:
        if connection.user is None or connection.user.id != user.id:
            await self._parts.presence.remove(group, connection.id, user)

    async def _confirm(self, connection: Connection, application: Application, request: Login) -> None:
        """Somebody who is logged in, by session perhaps, logs in again: as the same user that is fine.

        Raises LoginRefused.
        """
        user = user_of(connection)
        if request.token is not None:
            identity = await self._identify(application, request)
            if identity.user.id == user.id:
                connection.login = identity.login
                return
        elif request.name is None or validators.user_key(request.name) == validators.user_key(user.name):
            return
        raise LoginRefused(f"You are logged in as {user.name} already; log out first.")

    async def _identify(self, application: Application, request: Login) -> Identity:
        if request.token is not None:
            read = partial(_read_token, application.record.name, request.token)
            return await self._parts.pool.run(read, self._parts.settings.token_ttl)
        if request.name is None:
            raise BadRequest("Log in with a name or with a token.")
        name = validators.user_name(request.name)
        if await self._registered.get(validators.user_key(name), name):
            raise NameTaken(f"The name {name} belongs to a registered user.", retry=False)
        return Identity(user=User(name=name, id=f"guest-{secrets.token_hex(16)}", guest=True))

    async def _admit(
        self,
        connection: Connection,
        application: Application,
        identity: Identity,
        *,
        vouched: bool = False,
    ) -> None:
        """Let somebody in; ``vouched``: whether they may enter has been found out in another way."""
        user, record = identity.user, application.record
        if not vouched:
            permissions.check_entry(record, user, identity.groups)
        try:
            await self._parts.presence.add(
                application.group, connection.id, user, limit=record.max_users, unique=user.guest
            )
            application.hooks.ensure_ready()
            await application.hooks.call("on_login", event_of(connection, user))
            # Again, because a ban may have come while we waited.
            if not vouched:
                permissions.check_entry(application.record, user, identity.groups)
        except BaseException as error:
            remove = partial(self._remove, application.group, connection, user)
            self._parts.tasks.spawn(self._parts.departures.attempt(remove))
            if isinstance(error, NameInUse):
                raise NameTaken(f"The name {user.name} is taken.") from None
            if isinstance(error, GroupFull):
                raise ApplicationFull(
                    f"The application is full ({record.max_users} of {record.max_users})."
                ) from None
            raise
        connection.user, connection.login = user, identity.login
        connection.moderator = identity.moderator
        connection.waiting_for_login = None
        self._parts.users.add(application.group, user.id, connection)
        if connection.protocol.options.auto_subscribe_room_list:
            self._parts.hub.group_add(application.watchers, connection)

    def _check_rate(self, connection: Connection, application: Application) -> None:
        per_minute = application.record.logins_per_minute
        if not per_minute or not connection.address:
            return
        key = (application.record.id, connection.address)
        bucket = self._buckets.setdefault(key, TokenBucket(per_minute / 60, per_minute))
        if not bucket.take():
            raise RateLimited(f"Too many logins: at most {per_minute} a minute from one address.")

    def sweep(self) -> None:
        """Forget addresses whose bucket is full again."""
        for key in [key for key, bucket in self._buckets.items() if bucket.is_full()]:
            del self._buckets[key]


# What follows runs in threads ----------------------------------------------------------------------


def _identity(user: Any, login: str | None = None) -> Identity | None:
    """The identity of a Django user; None for somebody anonymous or inactive."""
    if user is None or not user.is_authenticated or not user.is_active:
        return None
    return Identity(
        user=User(name=user.get_username(), id=str(user.pk), guest=False),
        groups=frozenset(user.groups.values_list("pk", flat=True))
        if hasattr(user, "groups")
        else frozenset(),
        moderator=hasattr(user, "has_perm") and user.has_perm("rooms.moderate_room"),
        stamp=_stamp(user),
        login=login,
    )


def _stamp(user: Any) -> str:
    """Changes with the password, so that a new password ends old tokens. Not the session's own hash:
    a token can be read by whoever has it."""
    return hashlib.sha256(f"{SALT}{user.get_session_auth_hash()}".encode()).hexdigest()[:16]


def _token(application: str, user: User, login: str) -> str:
    account = None if user.guest else get_user_model()._default_manager.filter(pk=user.id).first()
    if account is None and not user.guest:
        raise BadToken("This account is not there any more.")
    stamp = "" if account is None else _stamp(account)
    content = {"a": application, "i": user.id, "n": user.name, "g": user.guest, "l": login, "s": stamp}
    return signing.dumps(content, salt=SALT)


def _read_token(application: str, token: str, seconds: int) -> Identity:
    try:
        content = signing.loads(token, salt=SALT, max_age=seconds)
    except signing.BadSignature:
        raise BadToken("This token is not valid, or not any more.") from None
    login = content["l"]
    if content["a"] != application or RevokedToken.objects.filter(pk=login).exists():
        raise BadToken("This token is not valid, or not any more.")
    if content["g"]:
        return Identity(user=User(name=content["n"], id=content["i"], guest=True), login=login)
    user = get_user_model()._default_manager.filter(pk=content["i"]).first()
    identity = _identity(user, login)
    if identity is None or not constant_time_compare(identity.stamp, content["s"]):
        raise BadToken("This token is not valid, or not any more.")
    return identity


def _revoke(login: str, seconds: int) -> None:
    now = timezone.now()
    RevokedToken.objects.filter(expires__lt=now).delete()
    RevokedToken.objects.get_or_create(login=login, defaults={"expires": now + timedelta(seconds=seconds)})
