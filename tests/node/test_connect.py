"""Before a socket is accepted: what the extension is asked, what it may answer, and what becomes of that."""

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
from tests.node.clients import PATIENCE, Client, Install, soon

if TYPE_CHECKING:
    from rooms.models import Application

ANN = SimpleNamespace(is_authenticated=True, is_active=True, pk=7, get_username=lambda: "ann")


def handshake(**fields: Any) -> Handshake:
    plain = {"protocol": "native", "path": "/", "query_string": b"", "lines": [], "address": "10.0.0.1"}
    return Handshake(**{**plain, **fields})


class Porter(Extension):
    """``act`` is what it does about a handshake."""

    act: ClassVar[Callable[[HandshakeEvent], Any]]
    seen: ClassVar[list[HandshakeEvent]]
    greeted: ClassVar[list[Any]]

    async def on_handshake(self, event: HandshakeEvent) -> None:
        self.seen.append(event)
        type(self).act(event)

    async def on_connect(self, event: Any) -> None:
        self.greeted.append(event.claims)


@pytest.fixture
async def porter(chat: Application, installed: Install, monkeypatch: pytest.MonkeyPatch) -> type[Porter]:
    """Put on the application."""
    chat.extension = installed(Porter)
    await chat.asave()
    for name, value in {"seen": [], "greeted": [], "act": staticmethod(lambda event: None)}.items():
        monkeypatch.setattr(Porter, name, value, raising=False)
    return Porter


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
async def test_who_is_not_signed_in_or_shut_out_is_no_claim(node: Node, missing: str) -> None:
    user = SimpleNamespace(**{**vars(ANN), missing: False})
    assert await authenticate_handshake(node.context, "chat", handshake(user=user)) == {}


async def test_the_extension_sees_the_handshake_and_adds_claims(node: Node, porter: type[Porter]) -> None:
    porter.act = staticmethod(lambda event: event.claims.update(key=event.query["key"][0]))
    asked = handshake(
        protocol="roomer", path="/ws", query_string=b"key=k&key=l", lines=[(b"X-Tenant", b"1")], user=ANN
    )
    assert await authenticate_handshake(node.context, "chat", asked) == {
        "user": "ann",
        "user_id": "7",
        "key": "k",
    }
    (event,) = porter.seen
    assert (event.application, event.protocol, event.path) == ("chat", "roomer", "/ws")
    assert (event.query, event.headers, event.address) == ({"key": ["k", "l"]}, {"x-tenant": "1"}, "10.0.0.1")
    assert event.user is not None
    assert (event.user.name, event.user.id, event.user.guest) == ("ann", "7", False)


async def test_nobody_is_asked_about_a_door_that_is_shut(
    node: Node, chat: Application, porter: type[Porter]
) -> None:
    chat.protocols = ["native"]
    await chat.asave()
    porter.act = raiser(HandshakeRejected())
    assert await authenticate_handshake(node.context, "chat", handshake(protocol="roomer")) == {}
    assert porter.seen == []


@pytest.mark.parametrize("claims", [{"age": 7}, {7: "age"}, {"name": None}])
async def test_claims_are_texts(
    node: Node, porter: type[Porter], claims: dict[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    porter.act = staticmethod(lambda event: event.claims.update(claims))
    with caplog.at_level(logging.ERROR), pytest.raises(InternalError):
        await authenticate_handshake(node.context, "chat", handshake())
    assert "Lawful: texts by name" in caplog.text


@pytest.mark.parametrize("status", [200, 399, 500])
def test_a_refusal_has_a_lawful_status(status: int) -> None:
    with pytest.raises(ValueError, match=f"from 400 to 499, got {status}"):
        HandshakeRejected(status=status)


# The door ------------------------------------------------------------------------------------------------


class Door:
    """Knocks at a door as an ASGI server does, and notes what is answered."""

    def __init__(
        self,
        *,
        protocol: type[Protocol] = Roomer,
        application: str | None = "chat",
        speaks_http: bool = True,
        **scope: Any,
    ) -> None:
        session = MultiplexSession if protocol.options.multiplexes_applications else Session
        self._consumer = RoomConsumer(protocol=protocol, application=application, session=session)
        self.answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._incoming.put_nowait({"type": "websocket.connect"})
        self.scope = {
            "type": "websocket",
            "path": "/ws",
            "query_string": b"",
            "headers": [],
            "subprotocols": [],
            "client": ("10.0.0.9", 5),
            "extensions": {"websocket.http.response": {}} if speaks_http else {},
            **scope,
        }

    async def __aenter__(self) -> Door:
        self._serving = asyncio.ensure_future(
            self._consumer(self.scope, self._incoming.get, self.answers.put)  # type: ignore[arg-type]
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._incoming.put_nowait({"type": "websocket.disconnect"})
        async with asyncio.timeout(PATIENCE):
            await self._serving

    def say(self, text: str) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    async def answer(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            return await self.answers.get()


@pytest.mark.usefixtures("node")
async def test_the_door_tells_what_was_sent_and_lets_in(porter: type[Porter]) -> None:
    def act(event: HandshakeEvent) -> None:
        event.claims["tenant"] = event.headers["x-tenant"]

    porter.act = staticmethod(act)
    headers = [(b"X-Tenant", b"one"), (b"accept", b"a"), (b"accept", b"b")]
    async with Door(headers=headers, query_string=b"a=1&a=%C3%A9&b=", user=ANN) as protocol:
        assert (await protocol.answer())["type"] == "websocket.accept"
        # Only after the greeting something is told.
        assert (await protocol.answer())["type"] == "websocket.send"
    (event,) = porter.seen
    assert (event.path, event.query, event.address) == ("/ws", {"a": ["1", "é"], "b": [""]}, "10.0.0.9")
    assert event.headers == {"x-tenant": "one", "accept": "a, b"}
    # There was no Origin, so nobody knows whose cookies those are.
    assert event.user is None
    assert porter.greeted == [{"tenant": "one"}]


@pytest.mark.usefixtures("node")
async def test_the_door_knows_who_is_signed_in(porter: type[Porter], settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["site"]
    porter.act = raiser(HandshakeRejected(status=402))
    headers = [(b"origin", b"http://site"), (b"host", b"site")]
    async with Door(headers=headers, user=ANN) as protocol:
        assert (await protocol.answer())["status"] == 402
    assert porter.seen[0].claims == {"user": "ann", "user_id": "7"}


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (HandshakeRejected(status=401, message="Who are you?"), 401, b"Who are you?"),
        (HandshakeRejected(), 403, b"You may not come in."),
        (Rejected("Not today."), 403, b"Not today."),
        (ValueError("secret"), 500, b"Something went wrong on the server."),
        (SystemExit(1), 500, b"Something went wrong on the server."),
    ],
    ids=repr,
)
@pytest.mark.usefixtures("node")
async def test_who_is_refused_gets_the_status_where_the_server_can_say_it(
    porter: type[Porter], error: BaseException, status: int, body: bytes
) -> None:
    porter.act = raiser(error)
    async with Door() as protocol:
        start, text = await protocol.answer(), await protocol.answer()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert (text["type"], text["body"]) == ("websocket.http.response.body", body)
    async with Door(speaks_http=False) as protocol:
        assert await protocol.answer() == {"type": "websocket.close"}
    assert porter.greeted == []


@pytest.mark.usefixtures("node")
async def test_a_door_whose_address_names_no_application_asks_at_the_login(porter: type[Porter]) -> None:
    def act(event: HandshakeEvent) -> None:
        if "x-tenant" not in event.headers:
            raise HandshakeRejected("Who are you?", status=401)
        event.claims["tenant"] = event.headers["x-tenant"]

    porter.act = staticmethod(act)
    login = json.dumps({"appName": "chat", "roomName": "", "eventType": 6, "data": {"username": "ann"}})
    for headers, code in (([], 3), ([(b"x-tenant", b"one")], 0)):
        async with Door(protocol=Goroomserver, application=None, headers=headers) as protocol:
            assert (await protocol.answer())["type"] == "websocket.accept"
            protocol.say(login)
            answer = json.loads((await protocol.answer())["text"])
        assert answer["error"]["code"] == code
        assert answer["error"]["message"] == ("Who are you?" if code else "")
    assert porter.greeted == [{"tenant": "one"}]


async def test_a_crowd_before_the_door_is_bounded_and_leaves_others_their_turn(
    node: Node, chat: Application, installed: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on, order = asyncio.Event(), asyncio.Event(), list[str]()

    class Slow(Extension):
        async def on_handshake(self, event: HandshakeEvent) -> None:
            order.append("handshake")
            inside.set()
            await go_on.wait()

        async def on_login(self, event: Any) -> None:
            order.append("login")

    ann = Client(node)
    await ann.connect()
    chat.extension = installed(Slow)
    await chat.asave()
    await node.context.tasks.drain()
    asking = [asyncio.ensure_future(authenticate_handshake(node.context, "chat", handshake()))]
    await soon(inside)
    asking += [
        asyncio.ensure_future(authenticate_handshake(node.context, "chat", handshake())) for _ in range(64)
    ]
    waits, run = asyncio.Event(), SerialExecutor.run

    async def told(lane: SerialExecutor, handler: Any, *arguments: Any, **options: Any) -> None:
        if handler.__name__ == "on_login":
            waits.set()
        await run(lane, handler, *arguments, **options)

    monkeypatch.setattr(SerialExecutor, "run", told)
    login = asyncio.ensure_future(ann.ask(Login(name="ann")))
    await soon(waits)
    with pytest.raises(Unavailable, match="Too many"):
        await authenticate_handshake(node.context, "chat", handshake())
    go_on.set()
    await asyncio.gather(*asking, login)
    # The login waits for one handshake, and not for all.
    assert order.index("login") <= 2
    assert order.count("handshake") == 65
    assert await authenticate_handshake(node.context, "chat", handshake()) == {}


async def test_who_waits_too_long_before_the_door_is_told_to_come_back(
    chat: Application, installed: Install, make_node: Callable[..., Awaitable[Node]]
) -> None:
    class Slow(Extension):
        async def on_handshake(self, event: HandshakeEvent) -> None:
            await asyncio.Event().wait()

    chat.extension = installed(Slow)
    await chat.asave()
    node = await make_node(handler_timeout=0.05)
    asked = [authenticate_handshake(node.context, "chat", handshake()) for _ in range(3)]
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert HandlerFailed in map(type, errors)
    assert Unavailable in map(type, errors)


async def test_a_refusal_is_told_in_the_log(
    node: Node, porter: type[Porter], caplog: pytest.LogCaptureFixture
) -> None:
    porter.act = raiser(HandshakeRejected(status=401))
    with caplog.at_level(logging.INFO, "rooms.consumers"):
        async with Door() as protocol:
            await protocol.answer()
    assert "A handshake for 'chat' from 10.0.0.9 is refused: 401" in caplog.text


async def test_a_handler_that_takes_too_long_lets_nobody_in(
    chat: Application, installed: Install, make_node: Callable[..., Awaitable[Node]]
) -> None:
    class Slow(Extension):
        async def on_handshake(self, event: HandshakeEvent) -> None:
            await asyncio.Event().wait()

    chat.extension = installed(Slow)
    await chat.asave()
    node = await make_node(handler_timeout=0.01)
    with pytest.raises(RoomsError) as raised:
        await authenticate_handshake(node.context, "chat", handshake())
    assert raised.value.code == "internal_error"
