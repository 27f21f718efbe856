"""An extension that has not started refuses handshakes, logins and joins; members stay and may send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rooms.compat.gowsev import Gowsev
from rooms.extensions import Extension
from rooms.models import Room
from rooms.node.connect import authenticate_handshake
from rooms.node.node import Node
from rooms.protocol.commands import Join, Login, Subscribe
from rooms.protocol.compat_commands import SendWithoutJoining
from rooms.protocol.errors import RoomsError, Unavailable
from rooms.protocol.events import Error
from tests.node.clients import Client, Install, error_of
from tests.node.peers import Peer
from tests.node.test_connect import Opening, handshake

if TYPE_CHECKING:
    from rooms.models import Application


class Fragile(Extension):
    """Fails to start while ``broken``."""

    broken = True

    async def init(self) -> None:
        if self.broken:
            raise ValueError

    async def on_receive(self, event: Any) -> None: ...


MISSING = "gone.Extension"


@pytest.fixture(params=["broken", "missing"])
def unusable(
    request: pytest.FixtureRequest, install_extension: Install, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The name of an extension that does not start."""
    monkeypatch.setattr(Fragile, "broken", True)
    return install_extension(Fragile) if request.param == "broken" else MISSING


async def choose(node: Node, row: Application | Room, extension: str) -> None:
    row.extension = extension
    await row.asave()
    await node.context.tasks.drain()


async def test_handshakes_are_answered_with_503(node: Node, chat: Application, unusable: str) -> None:
    await choose(node, chat, unusable)
    with pytest.raises(Unavailable, match="not started"):
        await authenticate_handshake(node.context, "chat", handshake())
    # A protocol that the application does not accept is checked first.
    chat.protocols = ["native"]
    await choose(node, chat, unusable)
    assert await authenticate_handshake(node.context, "chat", handshake(protocol="roomer")) == {}


@pytest.mark.usefixtures("node")
async def test_a_gowsev_handshake_is_answered_with_503(chat: Application, install_extension: Install) -> None:
    chat.extension = MISSING
    await chat.asave()
    async with Opening(protocol=Gowsev) as opening:
        start = await opening.receive()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)


async def test_a_connection_without_a_handshake_is_refused(
    node: Node, chat: Application, unusable: str
) -> None:
    await choose(node, chat, unusable)
    for peer in (Peer(node, Gowsev()), Client(node)):
        with pytest.raises(Unavailable):
            await peer.connect()
        assert peer.connection.user is None


async def test_logins_and_joins_are_refused_and_members_may_send(
    node: Node, chat: Application, unusable: str
) -> None:
    ann, ben = [await Client.named(node, name, "lobby") for name in ("ann", "ben")]
    outside, unknown = await Client.named(node, "carl"), Client(node)
    await unknown.connect()
    await choose(node, chat, unusable)
    assert (await error_of(Unavailable, unknown.request(Login(name="dora")))).retry
    for request in (Join(room="lobby"), Subscribe(room="lobby"), Join(room="new")):
        assert (await error_of(Unavailable, outside.request(request))).retry
    await ann.send("lobby", "still here")
    assert ben.messages() == ["still here"]
    assert (ann.closed, outside.closed, unknown.closed) == (None, None, None)
    await choose(node, chat, "")
    await outside.request(Join(room="lobby"))
    await unknown.request(Login(name="dora"))


async def test_an_extension_of_a_room_affects_no_other_room(
    node: Node, chat: Application, unusable: str
) -> None:
    room = await Room.objects.acreate(application=chat, name="quiz", extension=unusable)
    ann = await Client.named(node, "ann", "lobby")
    await error_of(Unavailable, ann.request(Join(room="quiz")))
    await choose(node, room, "")
    await ann.request(Join(room="quiz"))


async def test_messages_from_outside_are_refused(node: Node, chat: Application) -> None:
    peer = await Peer.connected(node, Gowsev())
    room = await Room.objects.acreate(application=chat, name="quiz", extension=MISSING)
    assert await outcome(node, peer) is Unavailable
    await choose(node, room, "")
    assert await outcome(node, peer) is None
    await choose(node, chat, MISSING)
    assert await outcome(node, peer) is Unavailable


async def outcome(node: Node, peer: Peer) -> type[RoomsError] | None:
    """Return the error of a message from outside, if there is one."""
    (request,) = peer.connection.protocol.decode("publish:quiz:hello")
    assert isinstance(request, SendWithoutJoining), isinstance(request, Error)
    try:
        await node.direct.publish(peer.connection, request)
    except RoomsError as error:
        return type(error)
    return None


async def test_joins_are_accepted_once_the_extension_starts(
    node: Node, chat: Application, install_extension: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fragile, "broken", True)
    name = install_extension(Fragile)
    room = await Room.objects.acreate(application=chat, name="quiz", extension=name)
    ann = await Client.named(node, "ann")
    await error_of(Unavailable, ann.request(Join(room="quiz")))
    await choose(node, chat, name)
    monkeypatch.setattr(Fragile, "broken", False)
    await node.context.registry.refresh()
    await error_of(Unavailable, Client(node).connect())
    # It is started again at most once a minute, unless its settings change.
    monkeypatch.setattr("rooms.extensions.runner.RESTART_INTERVAL", 0)
    for row in (chat, room):
        row.extension_settings = {"other": 1}
        monkeypatch.setattr(Fragile, "broken", row is room)
        await choose(node, row, name)
    await Client.named(node, "ben")
    await error_of(Unavailable, ann.request(Join(room="quiz")))
    monkeypatch.setattr(Fragile, "broken", False)
    await node.context.registry.refresh()
    await ann.request(Join(room="quiz"))
