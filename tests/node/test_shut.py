"""Where an extension was chosen and has not begun, nobody gets past it; who is inside stays and speaks."""

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
from tests.node.clients import Client, Install, refused
from tests.node.peers import Peer
from tests.node.test_connect import Door, handshake

if TYPE_CHECKING:
    from rooms.models import Application


class Guarded(Extension):
    """Lets nobody in; ``broken`` is whether it begins at all."""

    broken = True

    async def init(self) -> None:
        if self.broken:
            raise ValueError

    async def on_receive(self, event: Any) -> None: ...


MISSING = "gone.Extension"


@pytest.fixture(params=["broken", "missing"])
def unusable(request: pytest.FixtureRequest, installed: Install, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an extension that does not begin."""
    monkeypatch.setattr(Guarded, "broken", True)
    return installed(Guarded) if request.param == "broken" else MISSING


async def choose(node: Node, row: Application | Room, extension: str) -> None:
    row.extension = extension
    await row.asave()
    await node.context.tasks.drain()


async def test_handshakes_are_answered_with_503(node: Node, chat: Application, unusable: str) -> None:
    await choose(node, chat, unusable)
    with pytest.raises(Unavailable, match="not started"):
        await authenticate_handshake(node.context, "chat", handshake())
    # A closed door is no business of the extension.
    chat.protocols = ["native"]
    await choose(node, chat, unusable)
    assert await authenticate_handshake(node.context, "chat", handshake(protocol="roomer")) == {}


@pytest.mark.usefixtures("node")
async def test_the_door_says_503(chat: Application, installed: Install) -> None:
    chat.extension = MISSING
    await chat.asave()
    async with Door(protocol=Gowsev) as protocol:
        start = await protocol.answer()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)


async def test_who_comes_without_a_handshake_is_not_let_in(
    node: Node, chat: Application, unusable: str
) -> None:
    await choose(node, chat, unusable)
    for peer in (Peer(node, Gowsev()), Client(node)):
        with pytest.raises(Unavailable):
            await peer.connect()
        assert peer.connection.user is None


async def test_logins_and_joins_wait_and_who_is_inside_speaks(
    node: Node, chat: Application, unusable: str
) -> None:
    ann, ben = [await Client.named(node, name, "lobby") for name in ("ann", "ben")]
    outside, unknown = await Client.named(node, "carl"), Client(node)
    await unknown.connect()
    await choose(node, chat, unusable)
    assert (await refused(Unavailable, unknown.ask(Login(name="dora")))).retry
    for request in (Join(room="lobby"), Subscribe(room="lobby"), Join(room="new")):
        assert (await refused(Unavailable, outside.ask(request))).retry
    await ann.say("lobby", "still here")
    assert ben.messages() == ["still here"]
    assert (ann.closed, outside.closed, unknown.closed) == (None, None, None)
    await choose(node, chat, "")
    await outside.ask(Join(room="lobby"))
    await unknown.ask(Login(name="dora"))


async def test_a_room_is_shut_by_its_own_and_the_others_are_open(
    node: Node, chat: Application, unusable: str
) -> None:
    room = await Room.objects.acreate(application=chat, name="quiz", extension=unusable)
    ann = await Client.named(node, "ann", "lobby")
    await refused(Unavailable, ann.ask(Join(room="quiz")))
    await choose(node, room, "")
    await ann.ask(Join(room="quiz"))


async def test_nobody_speaks_into_a_shut_room_from_outside(node: Node, chat: Application) -> None:
    peer = await Peer.connected(node, Gowsev())
    room = await Room.objects.acreate(application=chat, name="quiz", extension=MISSING)
    assert await outcome(node, peer) is Unavailable
    await choose(node, room, "")
    assert await outcome(node, peer) is None
    await choose(node, chat, MISSING)
    assert await outcome(node, peer) is Unavailable


async def outcome(node: Node, peer: Peer) -> type[RoomsError] | None:
    """What becomes of something that is published from outside."""
    (request,) = peer.connection.protocol.decode("publish:quiz:hello")
    assert isinstance(request, SendWithoutJoining), isinstance(request, Error)
    try:
        await node.direct.publish(peer.connection, request)
    except RoomsError as error:
        return type(error)
    return None


async def test_it_opens_when_the_extension_begins_at_last(
    node: Node, chat: Application, installed: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guarded, "broken", True)
    name = installed(Guarded)
    room = await Room.objects.acreate(application=chat, name="quiz", extension=name)
    ann = await Client.named(node, "ann")
    await refused(Unavailable, ann.ask(Join(room="quiz")))
    await choose(node, chat, name)
    monkeypatch.setattr(Guarded, "broken", False)
    await node.context.registry.refresh()
    await refused(Unavailable, Client(node).connect())
    # At most once a minute, unless the row has other settings now.
    monkeypatch.setattr("rooms.extensions.runner.RESTART_INTERVAL", 0)
    for row in (chat, room):
        row.extension_settings = {"other": 1}
        monkeypatch.setattr(Guarded, "broken", row is room)
        await choose(node, row, name)
    await Client.named(node, "ben")
    await refused(Unavailable, ann.ask(Join(room="quiz")))
    monkeypatch.setattr(Guarded, "broken", False)
    await node.context.registry.refresh()
    await ann.ask(Join(room="quiz"))
