"""Handshakes: what the site and an application's extension say about somebody who wants to connect.

A door asks before it accepts the socket; goroomserver's asks when a client logs in to an application, since
its address names none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from rooms.extensions import HandshakeEvent
from rooms.node.context import NodeContext
from rooms.node.registry import Application
from rooms.protocol.errors import InternalError
from rooms.protocol.types import User

logger = logging.getLogger("rooms.extensions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What was sent with it. ``user`` is the Django user, or None where cookies are not believed."""

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
        """By names in lower case."""
        headers: dict[str, str] = {}
        for name, value in self.lines:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return headers


async def authenticate_handshake(
    parts: NodeContext, application: str, handshake: Handshake
) -> dict[str, str]:
    """The claims of a connection to ``application``: the signed-in user and what the extension adds.

    Raises Rejected or Refused where the extension does not let the client in, InternalError where it broke,
    Unavailable where it has not begun, where too many wait for it, and where it or the database did not
    answer in time.
    """
    user = _signed_in(handshake.user)
    claims = {} if user is None else {"user": user.name, "user_id": user.id}
    live = await parts.directory.application(application)
    if live is None or not live.record.allows_protocol(handshake.protocol):
        return claims
    live.hooks.ensure_ready()
    if not live.hooks.handles("on_handshake"):
        return claims
    event = HandshakeEvent(
        live.record.name,
        handshake.protocol,
        handshake.path,
        handshake.query,
        handshake.headers,
        handshake.address,
        user,
        claims,
    )
    async with live.handshakes.turn():
        await live.hooks.call("on_handshake", event)
    _check(live, event.claims)
    return dict(event.claims)


def _signed_in(user: Any) -> User | None:
    if user is None or not user.is_authenticated or not user.is_active:
        return None
    return User(name=user.get_username(), id=str(user.pk), guest=False)


def _check(application: Application, claims: Mapping[Any, Any]) -> None:
    for name, value in claims.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            logger.error(
                "on_handshake of %s left the claim %r: %r. Lawful: texts by name.",
                application.record.extension,
                name,
                value,
            )
            raise InternalError("Something went wrong on the server.")
