"""Authentication: by Django session, by a guest's name, or by a token.

A token serves after a reconnect. It is signed, not stored: it works in every process and across
restarts. All tokens that descend from one login share its id, and a logout revokes that id in the
database.
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
from rooms.hub.application import Application
from rooms.hub.connection import Connection
from rooms.models import RevokedToken
from rooms.node import permissions
from rooms.node.accounts import are_registered
from rooms.node.context import NodeContext, connection_event, require_user
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
    """A user with what permissions depend on.

    ``login`` is the id of the login that a token came from.
    """

    user: User
    groups: frozenset[int] = frozenset()
    moderator: bool = False
    stamp: str = ""
    login: str | None = None


class Authenticator:
    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._buckets: dict[tuple[int, str], TokenBucket] = {}
        self._registered: Lookups[str, str, bool] = Lookups(partial(context.pool.run, are_registered))

    async def by_session(self, connection: Connection, application: Application, user: Any) -> None:
        """Log in the handshake's Django user, where the application admits that user."""
        identity = await self._context.pool.run(_identity, user)
        if identity is not None:
            try:
                await self._admit(connection, application, identity)
            except Unavailable:
                # The client cannot log this user in itself: it has to reconnect.
                raise
            except RoomsError:
                connection.login = None

    async def anonymous(self, connection: Connection, application: Application, user: Any) -> None:
        """Log in a client whose protocol has no names, as a guest.

        The guest is named like the connection. Where only signed-in users are admitted, the
        handshake's Django user decides. Raises RoomsError.
        """
        guest = User(name=connection.id, id=f"guest-{connection.id}", guest=True)
        signed_in = user is not None and user.is_authenticated
        identity = await self._context.pool.run(_identity, user) if signed_in else None
        if identity is not None:
            permissions.check_entry(application.config, identity.user, identity.groups)
            connection.account = identity.user
        moderator = identity is not None and identity.moderator
        await self._admit(
            connection,
            application,
            Identity(user=guest, moderator=moderator),
            checked=identity is not None,
        )

    async def login(self, connection: Connection, command: Login) -> None:
        application = await self._context.application_of(connection)
        if command.name is not None and command.token is not None:
            raise BadRequest("Expected a name or a token, got both.")
        if connection.user is None:
            self._check_rate(connection, application)
            try:
                identity = await self._identify(application, command)
                await self._admit(connection, application, identity)
            except Unavailable:
                # The login timeout starts again: the server was at fault.
                connection.waiting_for_login = time.monotonic()
                raise
        else:
            await self._confirm(connection, application, command)
        await self._reply(connection, command, application)

    async def login_by_session(self, connection: Connection, command: Login, user: Any) -> None:
        """Log in the handshake's Django user, who has the command's name.

        Otherwise as ``login``. Raises RoomsError.
        """
        application = await self._context.application_of(connection)
        self._check_rate(connection, application)
        identity = await self._context.pool.run(_identity, user)
        if identity is None:
            raise LoginRefused("This account is not active.")
        await self._admit(connection, application, identity)
        await self._reply(connection, command, application)

    async def _reply(self, connection: Connection, command: Login, application: Application) -> None:
        user = require_user(connection)
        connection.login = connection.login or secrets.token_hex(16)
        signed = partial(_token, application.config.name, user, connection.login)
        # A guest has no row in the database.
        token = signed() if user.guest else await self._context.pool.run(signed)
        connection.send(Reply(id=command.id, data={"user": user, "token": token}))

    async def logout(self, connection: Connection, command: Logout) -> None:
        """Revoke the tokens of the login.

        The connection has left its rooms already (``node.py``).
        """
        user = require_user(connection)
        application = await self._context.application_of(connection)
        if connection.login is not None:
            await self._context.pool.run(_revoke, connection.login, self._context.settings.token_ttl)
        connection.user, connection.login, connection.moderator = None, None, False
        application.discard_user(user.id, connection)
        connection.waiting_for_login = time.monotonic()
        await self._context.run_to_completion(partial(self._remove, application.key, connection, user))
        connection.send(Reply(id=command.id, data={}))
        await application.runner.notify("on_logout", connection_event(connection, user))

    def disconnected(self, connection: Connection, application: Application, user: User) -> None:
        """Keep a guest's name for a while after the last connection is gone."""
        context, key = self._context, application.key
        application.discard_user(user.id, connection)
        remove = partial(self._remove, key, connection, user)
        if not connection.protocol.options.resumable:
            context.spawn_with_retry(remove)
            return
        context.spawn_with_retry(partial(context.presence.start_grace, key, connection.id, user))
        context.delayed.add(context.settings.guest_name_ttl, remove)

    async def _remove(self, key: str, connection: Connection, user: User) -> None:
        if connection.user is None or connection.user.id != user.id:
            await self._context.presence.remove(key, connection.id, user)

    async def _confirm(self, connection: Connection, application: Application, command: Login) -> None:
        """Accept a repeated login of the same user, who may be logged in by session.

        Raises LoginRefused for another user.
        """
        user = require_user(connection)
        if command.token is not None:
            identity = await self._identify(application, command)
            if identity.user.id == user.id:
                connection.login = identity.login
                return
        elif command.name is None or validators.user_key(command.name) == validators.user_key(user.name):
            return
        raise LoginRefused(f"You are logged in as {user.name}; log out first.")

    async def _identify(self, application: Application, command: Login) -> Identity:
        if command.token is not None:
            read = partial(_read_token, application.config.name, command.token)
            return await self._context.pool.run(read, self._context.settings.token_ttl)
        if command.name is None:
            raise BadRequest("Expected a name or a token, got neither.")
        name = validators.user_name(command.name)
        if await self._registered.get(validators.user_key(name), name):
            raise NameTaken(f"The name {name} belongs to an account.", retry=False)
        return Identity(user=User(name=name, id=f"guest-{secrets.token_hex(16)}", guest=True))

    async def _admit(
        self,
        connection: Connection,
        application: Application,
        identity: Identity,
        *,
        checked: bool = False,
    ) -> None:
        """Log a user in. ``checked``: permission was checked in another way."""
        user, config = identity.user, application.config
        if not checked:
            permissions.check_entry(config, user, identity.groups)
        try:
            await self._context.presence.add(
                application.key, connection.id, user, limit=config.max_users, unique=user.guest
            )
            application.runner.ensure_ready()
            await application.runner.call("on_login", connection_event(connection, user))
            # Again: a ban may have been made meanwhile.
            if not checked:
                permissions.check_entry(application.config, user, identity.groups)
        except BaseException as error:
            remove = partial(self._remove, application.key, connection, user)
            self._context.spawn_with_retry(remove)
            if isinstance(error, NameInUse):
                raise NameTaken(f"The name {user.name} is taken.") from None
            if isinstance(error, GroupFull):
                raise ApplicationFull(
                    f"The application is full ({config.max_users} of {config.max_users})."
                ) from None
            raise
        connection.user, connection.login = user, identity.login
        connection.moderator = identity.moderator
        connection.waiting_for_login = None
        application.add_user(user.id, connection)
        if connection.protocol.options.auto_subscribe_room_list:
            application.room_list.add(connection)

    def _check_rate(self, connection: Connection, application: Application) -> None:
        per_minute = application.config.logins_per_minute
        if not per_minute or not connection.address:
            return
        key = (application.config.id, connection.address)
        bucket = self._buckets.setdefault(key, TokenBucket(per_minute / 60, per_minute))
        if not bucket.take():
            raise RateLimited(f"Too many logins: at most {per_minute} per minute from one address.")

    def sweep(self) -> None:
        """Forget addresses whose bucket is full."""
        for key in [key for key, bucket in self._buckets.items() if bucket.is_full()]:
            del self._buckets[key]


# In threads ----------------------------------------------------------------------------------------


def _identity(user: Any, login: str | None = None) -> Identity | None:
    """Return the identity of a Django user; None for an anonymous or inactive one."""
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
    """Return a hash that changes with the password.

    A new password thus ends old tokens. The hash is not the session's own: every holder can read a
    token.
    """
    return hashlib.sha256(f"{SALT}{user.get_session_auth_hash()}".encode()).hexdigest()[:16]


def _token(application: str, user: User, login: str) -> str:
    account = None if user.guest else get_user_model()._default_manager.filter(pk=user.id).first()
    if account is None and not user.guest:
        raise BadToken("This account does not exist any more.")
    stamp = "" if account is None else _stamp(account)
    content = {"a": application, "i": user.id, "n": user.name, "g": user.guest, "l": login, "s": stamp}
    return signing.dumps(content, salt=SALT)


def _read_token(application: str, token: str, seconds: int) -> Identity:
    try:
        content = signing.loads(token, salt=SALT, max_age=seconds)
    except signing.BadSignature:
        raise BadToken("This token is invalid or has expired.") from None
    login = content["l"]
    if content["a"] != application or RevokedToken.objects.filter(pk=login).exists():
        raise BadToken("This token is invalid or has expired.")
    if content["g"]:
        return Identity(user=User(name=content["n"], id=content["i"], guest=True), login=login)
    user = get_user_model()._default_manager.filter(pk=content["i"]).first()
    identity = _identity(user, login)
    if identity is None or not constant_time_compare(identity.stamp, content["s"]):
        raise BadToken("This token is invalid or has expired.")
    return identity


def _revoke(login: str, seconds: int) -> None:
    now = timezone.now()
    RevokedToken.objects.filter(expires__lt=now).delete()
    RevokedToken.objects.get_or_create(login=login, defaults={"expires": now + timedelta(seconds=seconds)})
