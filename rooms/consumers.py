"""The WebSocket consumer: the only code that knows ASGI messages, and the map of the house.

Each event of a connection is mapped to the group operation that carries it out::

    handshake   authenticate_handshake             → the application's extension, before the socket is accepted
    connect     engine.connect        → the application's group
    login       logins.login          → presence in the application
    join        membership.join       → hub.group_add
    message     messages.send         → history, hub.group_send, bus.publish
    leave       membership.leave      → hub.group_discard, departing
    logout      engine.logout         → out of every room
    disconnect  engine.disconnect     → out of every group, however the socket ended

Next in the flow: ``node/session.py`` reads and writes the frames.
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
from rooms.node.session import Operation, Session, make_connection
from rooms.protocol import commands, compat_commands
from rooms.protocol.base import Protocol
from rooms.protocol.commands import Command
from rooms.protocol.errors import HandshakeRejected, Rejected, RoomsError
from rooms.protocol.native import Native

logger = logging.getLogger("rooms.consumers")

# Where our own server (``server/websocket.py``) lets frames be written at once, and the application return.
WIRE = "rooms.frames"

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


@lru_cache(maxsize=1)
def operations(node: Node) -> dict[type[Command], Operation]:
    """What is done about each thing that a client may ask."""
    return {
        commands.Login: node.logins.login,
        commands.Logout: node.logout,
        commands.ListRooms: node.management.list,
        commands.CreateRoom: node.management.create,
        compat_commands.CreateOwnedRoom: node.management.create,
        commands.CloseRoom: node.management.close,
        commands.Join: node.membership.join,
        compat_commands.CompatJoin: node.membership.join,
        commands.Leave: node.membership.leave,
        compat_commands.LeaveAll: node.membership.leave_every,
        commands.Subscribe: node.membership.subscribe,
        compat_commands.CompatSubscribe: node.membership.subscribe,
        commands.Unsubscribe: node.membership.unsubscribe,
        commands.Send: node.messages.send,
        compat_commands.SendOriginal: node.messages.send,
        compat_commands.SendToRoomOrApplication: node.speaking.offer,
        compat_commands.SendWithoutJoining: node.speaking.publish,
        compat_commands.SendDirect: node.speaking.direct,
        compat_commands.SendToApplication: node.speaking.to_application,
        commands.ReadHistory: node.reading.history,
        commands.ListMembers: node.reading.members,
        compat_commands.SendRawFrame: node.speaking.receive,
        commands.Ping: node.ping,
        commands.Pong: node.pong,
        compat_commands.Disconnect: node.quit,
    }


class RoomConsumer(AsyncConsumer):
    """One socket, which speaks one protocol. ``application`` is None where the address names it.

    Has its own receive loop: Channels' dispatch costs a thread hop per message, and its channel layer
    membership is not needed, because the process is the member (``node/broker.py``)."""

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
        # By itself, so that what it needs is not kept for as long as the socket is open.
        if (accepted := await self._let_in(scope, receive, send)) is not None:
            service, user = accepted
            if (wire := _wire(scope)) is None:
                await service.run(user)
            else:
                wire.go_on(partial(service.run, user))

    async def _let_in(self, scope: Any, receive: Any, send: Send) -> tuple[Session, Any] | None:
        """Accept the socket: what serves it, and Django's user. None where it was refused."""
        if (sentence := self._objection(scope)) is not None:
            await _answer(scope, send, 403, sentence)
            return None
        node = await _serving()
        handshake = _handshake(scope, self._protocol, node.parts.settings.num_proxies)
        application = self._application_of(scope)
        try:
            claims = await authenticate_handshake(node.parts, application, handshake)
        except RoomsError as error:
            status = _status_of(error)
            logger.info(
                "A handshake for %.64r from %s is refused: %d", application, handshake.address, status
            )
            await _answer(scope, send, status, error.message)
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
        wire = _wire(scope)
        socket = wire or _AsgiSocket(receive, send)
        served = (node, operations(node), connection, socket, wire)
        return self._session(*served, handshake=handshake), handshake.user

    def _objection(self, scope: Any) -> str | None:
        """What is told, and logged with the cause, where the site lets in no such socket."""
        protocol = self._protocol.name
        if protocol not in get_settings().protocols:
            _tell_once(f'Refused a socket at {scope["path"][:200]!r}: ROOMS["PROTOCOLS"] has no {protocol}.')
            return f"This site does not let in {protocol} clients."
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
        said: dict[str, str] = scope.get("url_route", {}).get("kwargs", {})
        if "application" not in said and not self._protocol.options.multiplexes_applications:
            logger.error(
                'The address %.200r leads into no application: name it in endpoint("%s", …), or as <application> '
                "in the route.",
                scope["path"],
                self._protocol.name,
            )
        return said.get("application", "")


def _wire(scope: Any) -> Any:
    return (scope.get("extensions") or {}).get(WIRE)


async def _serving() -> Node:
    """The engine. One that begins only now is of a server that does not know of it."""
    begins = Node.running() is None
    node = await Node.serving(serve_outbound)
    if begins:
        drain.arrange(node)
    return node


async def serve_outbound(node: Node, outbound: OutboundConnection, socket: ClientSocket) -> None:
    """Serve the socket that an extension opened to another service like one that a client opened."""
    connection = make_connection(
        node,
        str(uuid.uuid4()),
        load_protocol(outbound.protocol)(),
        application=outbound.owner.application,
        address="",
    )
    connection.dialled = True
    outbound.connection = connection
    await Session(node, operations(node), connection, socket).run(None)


def _handshake(scope: Any, protocol: type[Protocol], num_proxies: int) -> Handshake:
    return Handshake(
        protocol=protocol.name,
        path=scope["path"],
        query_string=scope.get("query_string", b""),
        lines=scope["headers"],
        address=middleware.client_address(scope["headers"], (scope.get("client") or ("",))[0], num_proxies),
        # Without an Origin it is no browser, and cookies say nothing.
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
    """A message with a frame that holds nothing. Daphne asks ``get`` whether there are bytes, by their truth,
    and would drop it; what it then sends it takes from the key, and that has to be plain ``bytes``."""

    def get(self, key: str, default: Any = None) -> Any:
        return _NOTHING if key == "bytes" else super().get(key, default)


class _Nothing(bytes):
    def __bool__(self) -> bool:
        return True


_NOTHING = _Nothing()


async def refuse(scope: Any, receive: Any, send: Send) -> None:
    """The ASGI application for any other address, at which there is no door."""
    await receive()
    path = scope["path"][:200]
    _tell_once(f"Refused a socket: there is no door at {path!r}.")
    await _answer(scope, send, 404, f"There is no door at {path}.")


# Whoever looks for a door is not to fill the log: the same is told again only after so much else.
@lru_cache(maxsize=256)
def _tell_once(sentence: str) -> None:
    logger.info(sentence)


def _status_of(error: RoomsError) -> int:
    """The HTTP status with which a handshake is refused."""
    if isinstance(error, Rejected):
        return error.status if isinstance(error, HandshakeRejected) else 403
    return 503 if error.retry else 500


async def _answer(scope: Any, send: Send, status: int, sentence: str) -> None:
    """Answer a handshake: with a status and a sentence where the server knows how to, else by closing it
    before it was accepted, which servers make 403 of."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": sentence.encode()})
