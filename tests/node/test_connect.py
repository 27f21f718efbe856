"""The connect hook: what the extension receives before a socket is accepted, and what it may decide."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from rooms.compat.goroomserver import Goroomserver
from rooms.compat.multiplex import MultiplexSession
from rooms.compat.roomer import Roomer
from rooms.concurrency.serial_executor import HandlerFailed, SerialExecutor
from rooms.consumers import RoomConsumer
from rooms.extensions import Extension, HandshakeEvent
from rooms.node.connect import Handshake, authenticate_handshake
from rooms.node.node import Node
from rooms.node.session import Session
from rooms.protocol.base import Protocol
from rooms.protocol.commands import Login
from rooms.protocol.errors import HandshakeRejected, InternalError, Rejected, RoomsError, Unavailable
from tests.node.clients import PATIENCE, Client, Install, wait_for

if TYPE_CHECKING:
    from rooms.models import Application

ANN = SimpleNamespace(is_authenticated=True, is_active=True, pk=7, get_username=lambda: "ann")


def handshake(**fields: Any) -> Handshake:
    plain = {"protocol": "native", "path": "/", "query_string": b"", "lines": [], "address": "10.0.0.1"}
    return Handshake(**{**plain, **fields})


class Gatekeeper(Extension):
    """``act`` is what it does with a handshake."""

    act: ClassVar[Callable[[HandshakeEvent], Any]]
    seen: ClassVar[list[HandshakeEvent]]
    connected: ClassVar[list[Any]]

    async def on_handshake(self, event: HandshakeEvent) -> None:
        self.seen.append(event)
        type(self).act(event)

    async def on_connect(self, event: Any) -> None:
        self.connected.append(event.claims)


@pytest.fixture
async def gatekeeper(
    chat: Application, install_extension: Install, monkeypatch: pytest.MonkeyPatch
) -> type[Gatekeeper]:
    """The extension of the application."""
    chat.extension = install_extension(Gatekeeper)
    await chat.asave()
    for name, value in {"seen": [], "connected": [], "act": staticmethod(lambda event: None)}.items():
        monkeypatch.setattr(Gatekeeper, name, value, raising=False)
    return Gatekeeper


def raiser(error: BaseException) -> Any:
    def act(event: HandshakeEvent) -> None:
        raise error

    return staticmethod(act)


# The extension -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("chat")
async def test_without_an_extension_the_claims_are_the_signed_in_user(node: Node) -> None:
    for application in ("chat", "nowhere", ""):
        assert await authenticate_handshake(node.context, application, handshake()) == {}
        assert await authenticate_handshake(node.context, application, handshake(user=ANN)) == {
            "user": "ann",
            "user_id": "7",
        }


@pytest.mark.parametrize("missing", ["is_authenticated", "is_active"])
@pytest.mark.usefixtures("chat")
async def test_an_anonymous_or_inactive_user_is_no_claim(node: Node, missing: str) -> None:
    user = SimpleNamespace(**{**vars(ANN), missing: False})
    assert await authenticate_handshake(node.context, "chat", handshake(user=user)) == {}


async def test_the_extension_sees_the_handshake_and_adds_claims(
    node: Node, gatekeeper: type[Gatekeeper]
) -> None:
    gatekeeper.act = staticmethod(lambda event: event.claims.update(key=event.query["key"][0]))
    given = handshake(
        protocol="roomer", path="/ws", query_string=b"key=k&key=l", lines=[(b"X-Tenant", b"1")], user=ANN
    )
    assert await authenticate_handshake(node.context, "chat", given) == {
        "user": "ann",
        "user_id": "7",
        "key": "k",
    }
    (event,) = gatekeeper.seen
    assert (event.application, event.protocol, event.path) == ("chat", "roomer", "/ws")
    assert (event.query, event.headers, event.address) == ({"key": ["k", "l"]}, {"x-tenant": "1"}, "10.0.0.1")
    assert event.user is not None
    assert (event.user.name, event.user.id, event.user.guest) == ("ann", "7", False)


async def test_the_extension_is_not_called_for_a_protocol_that_is_not_allowed(
    node: Node, chat: Application, gatekeeper: type[Gatekeeper]
) -> None:
    chat.protocols = ["native"]
    await chat.asave()
    gatekeeper.act = raiser(HandshakeRejected())
    assert await authenticate_handshake(node.context, "chat", handshake(protocol="roomer")) == {}
    assert gatekeeper.seen == []


@pytest.mark.parametrize("claims", [{"age": 7}, {7: "age"}, {"name": None}])
async def test_claims_must_be_strings(
    node: Node, gatekeeper: type[Gatekeeper], claims: dict[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    gatekeeper.act = staticmethod(lambda event: event.claims.update(claims))
    with caplog.at_level(logging.ERROR), pytest.raises(InternalError):
        await authenticate_handshake(node.context, "chat", handshake())
    assert "expected strings by name" in caplog.text


@pytest.mark.parametrize("status", [200, 399, 500])
def test_the_status_of_a_refusal_must_be_a_client_error(status: int) -> None:
    with pytest.raises(ValueError, match=f"from 400 to 499, got {status}"):
        HandshakeRejected(status=status)


# The consumer --------------------------------------------------------------------------------------------


class Opening:
    """Opens a socket as an ASGI server does, and collects what the consumer sends."""

    def __init__(
        self,
        *,
        protocol: type[Protocol] = Roomer,
        application: str | None = "chat",
        http_responses: bool = True,
        **scope: Any,
    ) -> None:
        session = MultiplexSession if protocol.options.multiplexes_applications else Session
        self._consumer = RoomConsumer(protocol=protocol, application=application, session=session)
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._incoming.put_nowait({"type": "websocket.connect"})
        self.scope = {
            "type": "websocket",
            "path": "/ws",
            "query_string": b"",
            "headers": [],
            "subprotocols": [],
            "client": ("10.0.0.9", 5),
            "extensions": {"websocket.http.response": {}} if http_responses else {},
            **scope,
        }

    async def __aenter__(self) -> Opening:
        self._serving = asyncio.ensure_future(self._consumer(self.scope, self._incoming.get, self.sent.put))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._incoming.put_nowait({"type": "websocket.disconnect"})
        async with asyncio.timeout(PATIENCE):
            await self._serving

    def send(self, text: str) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            return await self.sent.get()


@pytest.mark.usefixtures("node")
async def test_the_extension_receives_the_request_and_accepts_the_socket(
    gatekeeper: type[Gatekeeper],
) -> None:
    def act(event: HandshakeEvent) -> None:
        event.claims["tenant"] = event.headers["x-tenant"]

    gatekeeper.act = staticmethod(act)
    headers = [(b"X-Tenant", b"one"), (b"accept", b"a"), (b"accept", b"b")]
    async with Opening(headers=headers, query_string=b"a=1&a=%C3%A9&b=", user=ANN) as opening:
        assert (await opening.receive())["type"] == "websocket.accept"
        # ``connected`` is the first event.
        assert (await opening.receive())["type"] == "websocket.send"
    (event,) = gatekeeper.seen
    assert (event.path, event.query, event.address) == ("/ws", {"a": ["1", "é"], "b": [""]}, "10.0.0.9")
    assert event.headers == {"x-tenant": "one", "accept": "a, b"}
    # Without an Origin header, cookies are not trusted.
    assert event.user is None
    assert gatekeeper.connected == [{"tenant": "one"}]


@pytest.mark.usefixtures("node")
async def test_the_extension_receives_the_signed_in_user_of_an_allowed_origin(
    gatekeeper: type[Gatekeeper], settings: Any
) -> None:
    settings.ALLOWED_HOSTS = ["site"]
    gatekeeper.act = raiser(HandshakeRejected(status=402))
    headers = [(b"origin", b"http://site"), (b"host", b"site")]
    async with Opening(headers=headers, user=ANN) as opening:
        assert (await opening.receive())["status"] == 402
    assert gatekeeper.seen[0].claims == {"user": "ann", "user_id": "7"}


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (HandshakeRejected(status=401, message="Send a key."), 401, b"Send a key."),
        (HandshakeRejected(), 403, b"The handshake was rejected."),
        (Rejected("Not today."), 403, b"Not today."),
        (ValueError("secret"), 500, b"Something went wrong on the server."),
        (SystemExit(1), 500, b"Something went wrong on the server."),
    ],
    ids=repr,
)
@pytest.mark.usefixtures("node")
async def test_a_refused_client_gets_the_status_where_the_server_can_send_it(
    gatekeeper: type[Gatekeeper], error: BaseException, status: int, body: bytes
) -> None:
    gatekeeper.act = raiser(error)
    async with Opening() as opening:
        start, text = await opening.receive(), await opening.receive()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert (text["type"], text["body"]) == ("websocket.http.response.body", body)
    async with Opening(http_responses=False) as opening:
        assert await opening.receive() == {"type": "websocket.close"}
    assert gatekeeper.connected == []


@pytest.mark.usefixtures("node")
async def test_a_protocol_without_application_in_its_address_calls_the_hook_at_the_login(
    gatekeeper: type[Gatekeeper],
) -> None:
    def act(event: HandshakeEvent) -> None:
        if "x-tenant" not in event.headers:
            raise HandshakeRejected("Send a key.", status=401)
        event.claims["tenant"] = event.headers["x-tenant"]

    gatekeeper.act = staticmethod(act)
    login = json.dumps({"appName": "chat", "roomName": "", "eventType": 6, "data": {"username": "ann"}})
    for headers, code in (([], 3), ([(b"x-tenant", b"one")], 0)):
        async with Opening(protocol=Goroomserver, application=None, headers=headers) as opening:
            assert (await opening.receive())["type"] == "websocket.accept"
            opening.send(login)
            answer = json.loads((await opening.receive())["text"])
        assert answer["error"]["code"] == code
        assert answer["error"]["message"] == ("Send a key." if code else "")
    assert gatekeeper.connected == [{"tenant": "one"}]


async def test_waiting_handshakes_are_bounded_and_do_not_delay_logins(
    node: Node, chat: Application, install_extension: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, go_on, order = asyncio.Event(), asyncio.Event(), list[str]()

    class Slow(Extension):
        async def on_handshake(self, event: HandshakeEvent) -> None:
            order.append("handshake")
            running.set()
            await go_on.wait()

        async def on_login(self, event: Any) -> None:
            order.append("login")

    ann = Client(node)
    await ann.connect()
    chat.extension = install_extension(Slow)
    await chat.asave()
    await node.context.tasks.drain()
    handshakes = [asyncio.ensure_future(authenticate_handshake(node.context, "chat", handshake()))]
    await wait_for(running)
    handshakes += [
        asyncio.ensure_future(authenticate_handshake(node.context, "chat", handshake())) for _ in range(64)
    ]
    waiting, run = asyncio.Event(), SerialExecutor.run

    async def noted(executor: SerialExecutor, handler: Any, *arguments: Any, **options: Any) -> None:
        if handler.__name__ == "on_login":
            waiting.set()
        await run(executor, handler, *arguments, **options)

    monkeypatch.setattr(SerialExecutor, "run", noted)
    login = asyncio.ensure_future(ann.request(Login(name="ann")))
    await wait_for(waiting)
    with pytest.raises(Unavailable, match="Too many"):
        await authenticate_handshake(node.context, "chat", handshake())
    go_on.set()
    await asyncio.gather(*handshakes, login)
    # The login waits for one handshake, not for all of them.
    assert order.index("login") <= 2
    assert order.count("handshake") == 65
    assert await authenticate_handshake(node.context, "chat", handshake()) == {}


async def test_a_handshake_that_waits_too_long_gets_a_retryable_error(
    chat: Application, install_extension: Install, make_node: Callable[..., Awaitable[Node]]
) -> None:
    class Slow(Extension):
        async def on_handshake(self, event: HandshakeEvent) -> None:
            await asyncio.Event().wait()

    chat.extension = install_extension(Slow)
    await chat.asave()
    node = await make_node(handler_timeout=0.05)
    attempts = [authenticate_handshake(node.context, "chat", handshake()) for _ in range(3)]
    errors = await asyncio.gather(*attempts, return_exceptions=True)
    assert HandlerFailed in map(type, errors)
    assert Unavailable in map(type, errors)


async def test_a_refusal_is_logged(
    node: Node, gatekeeper: type[Gatekeeper], caplog: pytest.LogCaptureFixture
) -> None:
    gatekeeper.act = raiser(HandshakeRejected(status=401))
    with caplog.at_level(logging.INFO, "rooms.consumers"):
        async with Opening() as opening:
            await opening.receive()
    assert "A handshake for 'chat' from 10.0.0.9 is refused: 401" in caplog.text


async def test_a_handler_that_times_out_refuses_the_handshake(
    chat: Application, install_extension: Install, make_node: Callable[..., Awaitable[Node]]
) -> None:
    class Slow(Extension):
        async def on_handshake(self, event: HandshakeEvent) -> None:
            await asyncio.Event().wait()

    chat.extension = install_extension(Slow)
    await chat.asave()
    node = await make_node(handler_timeout=0.01)
    with pytest.raises(RoomsError) as raised:
        await authenticate_handshake(node.context, "chat", handshake())
    assert raised.value.code == "internal_error"
