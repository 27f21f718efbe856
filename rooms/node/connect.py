"""The connect hook: decides about a handshake.

The site's user and an application's extension decide. The hook runs before the socket is accepted;
for goroomserver clients at the login to an application, since their address names none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from rooms.extensions import HandshakeEvent
from rooms.hub.application import Application
from rooms.node.context import NodeContext
from rooms.protocol.errors import InternalError
from rooms.protocol.types import User

logger = logging.getLogger("rooms.extensions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """A handshake.

    ``user`` is the Django user, or None where cookies are not trusted.
    """

    protocol: str
    path: str
    query_string: bytes
    lines: Sequence[tuple[bytes, bytes]]
    address: str
    user: Any = None

    @property
    def query(self) -> Mapping[str, list[str]]:
        return parse_qs(self.query_string.decode("latin-1"), keep_blank_values=True)

    @property
    def headers(self) -> Mapping[str, str]:
        """Values by lower-case names."""
        headers: dict[str, str] = {}
        for name, value in self.lines:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return headers


async def authenticate_handshake(
    context: NodeContext, application: str, handshake: Handshake
) -> dict[str, str]:
    """Return the claims of a connection to ``application``.

    The claims are its user and what the extension adds.

    Raises Rejected or HandshakeRejected where the extension refuses, InternalError where it failed,
    Unavailable where it has not started, where too many handshakes wait for it, and on a timeout.
    """
    user = _signed_in(handshake.user)
    claims = {} if user is None else {"user": user.name, "user_id": user.id}
    found = await context.registry.application(application)
    if found is None or not found.config.allows_protocol(handshake.protocol):
        return claims
    found.runner.ensure_ready()
    if not found.runner.handles("on_handshake"):
        return claims
    event = HandshakeEvent(
        found.config.name,
        handshake.protocol,
        handshake.path,
        handshake.query,
        handshake.headers,
        handshake.address,
        user,
        claims,
    )
    async with found.handshakes.turn():
        await found.runner.call("on_handshake", event)
    _check(found, event.claims)
    return dict(event.claims)


def _signed_in(user: Any) -> User | None:
    if user is None or not user.is_authenticated or not user.is_active:
        return None
    return User(name=user.get_username(), id=str(user.pk), guest=False)


def _check(application: Application, claims: Mapping[Any, Any]) -> None:
    for name, value in claims.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            logger.error(
                "on_handshake of %s set the claim %r to %r; expected strings by name.",
                application.config.extension,
                name,
                value,
            )
            raise InternalError("Something went wrong on the server.")
