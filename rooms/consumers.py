"""The WebSocket consumer. Only it and ``server/websocket.py`` know ASGI messages.

The command table is below. Each event of a connection is mapped to the operation that executes
it::

    handshake   authenticate_handshake    the application's extension, before the socket is accepted
    connect     node.connect              added to the application's group
    login       auth.login                added to presence in the application
    join        join.join                 added to the room
    message     messages.send             history, room.broadcast, broker.publish
    leave       leave.leave               removed from the room and its presence
    logout      node.logout               removed from every room
    disconnect  node.disconnect           removed from every group, however the socket ended
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any, TypeAlias

from channels.consumer import AsyncConsumer

from rooms import middleware
from rooms.conf import get_settings, load_protocol
from rooms.node import drain
from rooms.node.connect import Handshake, authenticate_handshake
from rooms.node.node import Node
from rooms.node.outbound import ClientSocket, OutboundConnection
from rooms.node.session import CommandTable, Session, make_connection
from rooms.protocol import commands, compat_commands
from rooms.protocol.base import Protocol
from rooms.protocol.errors import HandshakeRejected, Rejected, RoomsError
from rooms.protocol.native import Native

logger = logging.getLogger("rooms.consumers")

# The scope extension of our own server (``server/websocket.py``), which writes frames at once.
TRANSPORT = "rooms.frames"

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


@lru_cache(maxsize=1)
def commands_of(node: Node) -> CommandTable:
    """Return the operation of each command."""
    return {
        commands.Login: node.auth.login,
        commands.Logout: node.logout,
        commands.ListRooms: node.lifecycle.list,
        commands.CreateRoom: node.lifecycle.create,
        commands.CloseRoom: node.lifecycle.close,
        commands.Join: node.join.join,
        commands.Leave: node.leave.leave,
        commands.Subscribe: node.join.subscribe,
        commands.Unsubscribe: node.leave.unsubscribe,
        commands.Send: node.messages.send,
        commands.ReadHistory: node.queries.history,
        commands.ListMembers: node.queries.members,
        commands.Ping: node.ping,
        commands.Pong: node.pong,
        # Of other protocols' clients
        compat_commands.CompatJoin: node.join.join,
        compat_commands.CompatSubscribe: node.join.subscribe,
        compat_commands.CreateOwnedRoom: node.lifecycle.create,
        compat_commands.LeaveAll: node.leave.leave_all,
        compat_commands.SendOriginal: node.messages.send,
        compat_commands.SendToRoomOrApplication: node.direct.offer,
        compat_commands.SendWithoutJoining: node.direct.publish,
        compat_commands.SendDirect: node.direct.direct,
        compat_commands.SendToApplication: node.direct.to_application,
        compat_commands.SendRawFrame: node.direct.receive,
        compat_commands.Disconnect: node.quit,
    }


class RoomConsumer(AsyncConsumer):
    """One socket with one protocol.

    ``application`` is None where the address names it.

    It has a receive loop of its own: Channels' dispatch costs a thread hop per message, and its
    group membership is not needed, because the process is the member (``node/broker.py``).
    """

    channel_layer_alias = None

    def __init__(
        self,
        *,
        protocol: type[Protocol] = Native,
        application: str | None = None,
        session: type[Session] = Session,
    ) -> None:
        self._protocol = protocol
        self._application = application
        self._session = session

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        await receive()
        # A function of its own, so that its variables are not kept while the socket is open.
        if (accepted := await self._accept(scope, receive, send)) is not None:
            session, user = accepted
            if (transport := _transport(scope)) is None:
                await session.run(user)
            else:
                transport.go_on(partial(session.run, user))

    async def _accept(self, scope: Any, receive: Any, send: Send) -> tuple[Session, Any] | None:
        """Accept the socket and return its session and Django's user.

        Returns None where the socket was refused.
        """
        if (refusal := self._refusal(scope)) is not None:
            await _respond(scope, send, 403, refusal)
            return None
        node = await _start_node()
        handshake = _handshake(scope, self._protocol, node.context.settings.num_proxies)
        application = self._application_of(scope)
        try:
            claims = await authenticate_handshake(node.context, application, handshake)
        except RoomsError as error:
            status = _status_of(error)
            logger.info(
                "A handshake for %.64r from %s is refused: %d", application, handshake.address, status
            )
            await _respond(scope, send, status, error.message)
            return None
        offered = self._protocol.options.subprotocol
        accept = {"type": "websocket.accept"}
        await send({**accept, "subprotocol": offered} if offered in scope["subprotocols"] else accept)
        connection = make_connection(
            node,
            str(uuid.uuid4()),
            self._protocol(),
            application=application,
            address=handshake.address,
        )
        connection.claims = claims
        transport = _transport(scope)
        socket = transport or _AsgiSocket(receive, send)
        session = self._session(node, commands_of(node), connection, socket, transport, handshake=handshake)
        return session, handshake.user

    def _refusal(self, scope: Any) -> str | None:
        """The response where the site accepts no such socket; the log has the cause."""
        protocol = self._protocol.name
        if protocol not in get_settings().protocols:
            _log_once(f'Refused a socket at {scope["path"][:200]!r}: ROOMS["PROTOCOLS"] has no {protocol}.')
            return f"This site does not accept {protocol} clients."
        if not middleware.origin_is_allowed(scope["headers"]):
            logger.warning(
                "Refused a socket from a page of %.200r: not this site's own, nor in CSRF_TRUSTED_ORIGINS.",
                middleware.header(scope["headers"], b"origin"),
            )
            return "Pages of other sites may not open sockets here."
        return None

    def _application_of(self, scope: Any) -> str:
        if self._application is not None:
            return self._application
        arguments: dict[str, str] = scope.get("url_route", {}).get("kwargs", {})
        if "application" not in arguments and not self._protocol.options.multiplexes_applications:
            logger.error(
                'The address %.200r names no application: name it in endpoint("%s", …), or as <application> '
                "in the route.",
                scope["path"],
                self._protocol.name,
            )
        return arguments.get("application", "")


def _transport(scope: Any) -> Any:
    return (scope.get("extensions") or {}).get(TRANSPORT)


async def _start_node() -> Node:
    """Return the node of this process; start it if needed.

    A server other than ``runrooms`` does not know the node, and is made to drain it.
    """
    starts = Node.current() is None
    node = await Node.get_or_start(serve_outbound)
    if starts:
        drain.handle_signals(node)
    return node


async def serve_outbound(node: Node, outbound: OutboundConnection, socket: ClientSocket) -> None:
    """Serve a socket that an extension opened to another service.

    It is served like one that a client opened.
    """
    connection = make_connection(
        node,
        str(uuid.uuid4()),
        load_protocol(outbound.protocol)(),
        application=outbound.owner.application,
        address="",
    )
    connection.outbound = True
    outbound.connection = connection
    await Session(node, commands_of(node), connection, socket).run(None)


def _handshake(scope: Any, protocol: type[Protocol], num_proxies: int) -> Handshake:
    return Handshake(
        protocol=protocol.name,
        path=scope["path"],
        query_string=scope.get("query_string", b""),
        lines=scope["headers"],
        address=middleware.client_address(scope["headers"], (scope.get("client") or ("",))[0], num_proxies),
        # A client without an Origin is no browser; its cookies are ignored.
        user=None if middleware.header(scope["headers"], b"origin") is None else scope.get("user"),
    )


class _AsgiSocket:
    """The socket behind ASGI's ``receive`` and ``send``."""

    def __init__(self, receive: Any, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def next(self) -> str | bytes | None:
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return None
        text: str | None = message.get("text")
        frame: bytes | None = message.get("bytes")
        return text if text is not None else frame

    async def send(self, frame: bytes, *, binary: bool) -> None:
        if binary:
            message = {"type": "websocket.send", "bytes": frame}
            await self._send(message if frame else _Empty(message))
        else:
            await self._send({"type": "websocket.send", "text": frame.decode()})

    async def close(self, code: int, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})


class _Empty(dict[str, Any]):
    """A message with an empty frame.

    Daphne drops it if ``get`` returns false bytes; it then sends the value of the key, which has to be plain
    ``bytes``.
    """

    def get(self, key: str, default: Any = None) -> Any:
        return _NOTHING if key == "bytes" else super().get(key, default)


class _Nothing(bytes):
    def __bool__(self) -> bool:
        return True


_NOTHING = _Nothing()


async def refuse(scope: Any, receive: Any, send: Send) -> None:
    """The ASGI application for all other addresses."""
    await receive()
    path = scope["path"][:200]
    _log_once(f"Refused a socket: no WebSocket is served at {path!r}.")
    await _respond(scope, send, 404, f"No WebSocket is served at {path}.")


# A scanner must not fill the log: a line is repeated only after this many others.
@lru_cache(maxsize=256)
def _log_once(text: str) -> None:
    logger.info(text)


def _status_of(error: RoomsError) -> int:
    """The HTTP status with which a handshake is refused."""
    if isinstance(error, Rejected):
        return error.status if isinstance(error, HandshakeRejected) else 403
    return 503 if error.retry else 500


async def _respond(scope: Any, send: Send, status: int, text: str) -> None:
    """Refuse a handshake.

    The response has a status and a text where the server can send them; otherwise it is a close.
    Servers turn a close before the accept into 403.
    """
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": text.encode()})
