"""Where an extension was chosen and has not begun, nobody gets past it; who is inside stays and speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rooms.engine.engine import Engine
from rooms.engine.handshakes import claims_of
from rooms.errors import RoomsError, Unavailable
from rooms.events import Error, Join, Login, Publish, Subscribe
from rooms.extensions import Extension
from rooms.models import Room
from rooms.protocols.gowsev import Gowsev
from tests.engine.clients import Client, Install, refused
from tests.engine.peers import Peer
from tests.engine.test_handshakes import Door, handshake

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


async def choose(engine: Engine, row: Application | Room, extension: str) -> None:
    row.extension = extension
    await row.asave()
    await engine.parts.tasks.settle()


async def test_handshakes_are_answered_with_503(engine: Engine, chat: Application, unusable: str) -> None:
    await choose(engine, chat, unusable)
    with pytest.raises(Unavailable, match="not ready"):
        await claims_of(engine.parts, "chat", handshake())
    # A closed door is no business of the extension.
    chat.doors = ["native"]
    await choose(engine, chat, unusable)
    assert await claims_of(engine.parts, "chat", handshake(protocol="roomer")) == {}


@pytest.mark.usefixtures("engine")
async def test_the_door_says_503(chat: Application, installed: Install) -> None:
    chat.extension = MISSING
    await chat.asave()
    async with Door(protocol=Gowsev) as door:
        start = await door.answer()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)


async def test_who_comes_without_a_handshake_is_not_let_in(
    engine: Engine, chat: Application, unusable: str
) -> None:
    await choose(engine, chat, unusable)
    for peer in (Peer(engine, Gowsev()), Client(engine)):
        with pytest.raises(Unavailable):
            await peer.connect()
        assert peer.connection.user is None


async def test_logins_and_joins_wait_and_who_is_inside_speaks(
    engine: Engine, chat: Application, unusable: str
) -> None:
    ann, ben = [await Client.named(engine, name, "lobby") for name in ("ann", "ben")]
    outside, unknown = await Client.named(engine, "carl"), Client(engine)
    await unknown.connect()
    await choose(engine, chat, unusable)
    assert (await refused(Unavailable, unknown.ask(Login(name="dora")))).retry
    for request in (Join(room="lobby"), Subscribe(room="lobby"), Join(room="new")):
        assert (await refused(Unavailable, outside.ask(request))).retry
    await ann.say("lobby", "still here")
    assert ben.messages() == ["still here"]
    assert (ann.closed, outside.closed, unknown.closed) == (None, None, None)
    await choose(engine, chat, "")
    await outside.ask(Join(room="lobby"))
    await unknown.ask(Login(name="dora"))


async def test_a_room_is_shut_by_its_own_and_the_others_are_open(
    engine: Engine, chat: Application, unusable: str
) -> None:
    room = await Room.objects.acreate(application=chat, name="quiz", extension=unusable)
    ann = await Client.named(engine, "ann", "lobby")
    await refused(Unavailable, ann.ask(Join(room="quiz")))
    await choose(engine, room, "")
    await ann.ask(Join(room="quiz"))


async def test_nobody_speaks_into_a_shut_room_from_outside(engine: Engine, chat: Application) -> None:
    peer = await Peer.connected(engine, Gowsev())
    room = await Room.objects.acreate(application=chat, name="quiz", extension=MISSING)
    assert await outcome(engine, peer) is Unavailable
    await choose(engine, room, "")
    assert await outcome(engine, peer) is None
    await choose(engine, chat, MISSING)
    assert await outcome(engine, peer) is Unavailable


async def outcome(engine: Engine, peer: Peer) -> type[RoomsError] | None:
    """What becomes of something that is published from outside."""
    (request,) = peer.connection.protocol.receive("publish:quiz:hello")
    assert isinstance(request, Publish), isinstance(request, Error)
    try:
        await engine.speaking.publish(peer.connection, request)
    except RoomsError as error:
        return type(error)
    return None


async def test_it_opens_when_the_extension_begins_at_last(
    engine: Engine, chat: Application, installed: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guarded, "broken", True)
    name = installed(Guarded)
    room = await Room.objects.acreate(application=chat, name="quiz", extension=name)
    ann = await Client.named(engine, "ann")
    await refused(Unavailable, ann.ask(Join(room="quiz")))
    await choose(engine, chat, name)
    monkeypatch.setattr(Guarded, "broken", False)
    await engine.parts.directory.refresh()
    await refused(Unavailable, Client(engine).connect())
    # At most once a minute, unless the row has other settings now.
    monkeypatch.setattr("rooms.engine.hooks.AGAIN_SECONDS", 0)
    for row in (chat, room):
        row.extension_settings = {"other": 1}
        monkeypatch.setattr(Guarded, "broken", row is room)
        await choose(engine, row, name)
    await Client.named(engine, "ben")
    await refused(Unavailable, ann.ask(Join(room="quiz")))
    monkeypatch.setattr(Guarded, "broken", False)
    await engine.parts.directory.refresh()
    await ann.ask(Join(room="quiz"))
