"""Changed rows apply to the open sockets: of this process, and of another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import pytest
from django import forms
from django.contrib.auth.models import Group, User

from rooms.conf import load_protocol
from rooms.extensions import Extension, LeaveEvent, MessageEvent, message
from rooms.models import Application, Ban, Room
from rooms.node import invalidation
from rooms.node.control_messages import ApplicationChanged, RoomChanged
from rooms.node.node import Node
from rooms.protocol.commands import Join, ListMembers, ListRooms, Login
from rooms.protocol.errors import NotMember, RoomNotFound, Unavailable
from tests.node.clients import Client, run_due_actions
from tests.node.peers import Peer
from tests.node.unreliable_layer import UnreliableLayer

pytestmark = pytest.mark.database

Install = Callable[[type[Extension]], str]
MakeNode = Callable[..., Awaitable[Node]]


@pytest.fixture
async def lobby(chat: Application) -> Room:
    return await Room.objects.acreate(application=chat, name="lobby", title="Lobby")


async def in_lobby(node: Node, *names: str) -> list[Client]:
    clients = [await Client.named(node, name, "lobby") for name in names]
    for client in clients:
        await client.request(ListRooms())
        client.read()
        client.frames.clear()
    return clients


async def saved(node: Node, row: Any, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(row, name, value)
    await row.asave()
    await node.context.tasks.drain()


def reasons(client: Client) -> list[tuple[str, str]]:
    return [(frame["room"], frame["reason"]) for frame in client.received("removed")]


async def test_members_of_a_deleted_room_are_removed(node: Node, lobby: Room) -> None:
    ann, bob = await in_lobby(node, "ann", "bob")
    await lobby.adelete()
    await node.context.tasks.drain()
    for client in (ann, bob):
        assert reasons(client) == [("lobby", "closed")]
        assert [frame["room"] for frame in client.received("room_removed")] == ["lobby"]
        assert client.closed is None
    with pytest.raises(NotMember):
        await ann.send("lobby", 1)
    # A new room of the same name is another room.
    data = await ann.request(Join(room="lobby"))
    assert (data["count"], data["messages"], data["room"]["title"]) == (1, [], "")


async def test_members_of_a_renamed_room_are_removed_and_may_join_the_new_name(
    node: Node, lobby: Room
) -> None:
    (ann,) = await in_lobby(node, "ann")
    await ann.send("lobby", "kept")
    await saved(node, lobby, name="hall")
    assert reasons(ann) == [("lobby", "closed")]
    assert "hall" in ann.received("removed")[0]["message"]
    assert [frame["room"] for frame in ann.received("room_removed")] == ["lobby"]
    assert [frame["room"]["name"] for frame in ann.received("room_added")] == ["hall"]
    data = await ann.request(Join(room="hall"))
    assert [each["data"] for each in data["messages"]] == ["kept"]


async def test_a_room_leaves_and_enters_the_room_list_with_its_listed_field(node: Node, lobby: Room) -> None:
    (ann,) = await in_lobby(node, "ann")
    await saved(node, lobby, listed=False)
    assert [frame["room"] for frame in ann.received("room_removed")] == ["lobby"]
    await saved(node, lobby, title="Secret")
    assert len(ann.received("room_removed", "room_added")) == 1
    await saved(node, lobby, listed=True)
    assert [frame["room"]["title"] for frame in ann.received("room_added")] == ["Secret"]
    assert reasons(ann) == []


async def test_members_of_a_changed_room_stay_under_its_new_rules(node: Node, lobby: Room) -> None:
    ann, bob = await in_lobby(node, "ann", "bob")
    await saved(node, lobby, title="Hall", mode="broadcast")
    added = ann.received("room_added")[0]["room"]
    assert (added["title"], added["mode"], added["members"]) == ("Hall", "broadcast", 2)
    with pytest.raises(Exception, match="Only the owner of lobby can send messages"):
        await ann.send("lobby", 1)
    assert reasons(ann) == reasons(bob) == []


async def test_a_user_banned_from_a_room_is_removed(node: Node, chat: Application, lobby: Room) -> None:
    ann, bob = await in_lobby(node, "ann", "bob")
    await Ban.objects.acreate(application=chat, room=lobby, guest="BOB", reason="spam")
    await node.context.tasks.drain()
    assert reasons(bob) == [("lobby", "banned")]
    assert [(f["user"]["name"], f["reason"]) for f in ann.received("left")] == [("bob", "kicked")]
    assert reasons(ann) == []
    assert bob.closed is None
    assert (await ann.request(ListMembers(room="lobby")))["count"] == 1


async def test_a_banned_moderator_is_not_removed(node: Node, chat: Application, lobby: Room) -> None:
    (bob,) = await in_lobby(node, "bob")
    bob.connection.moderator = True
    await Ban.objects.acreate(application=chat, room=lobby, guest="bob")
    await node.context.tasks.drain()
    assert reasons(bob) == []


async def test_a_user_banned_from_the_application_is_closed(node: Node, chat: Application) -> None:
    ann, bob = await in_lobby(node, "ann", "bob")
    await Ban.objects.acreate(application=chat, guest="bob")
    await node.context.tasks.drain()
    assert (ann.closed, bob.closed) == (None, 4504)


async def test_guests_are_closed_when_entry_is_limited_to_users(node: Node, chat: Application) -> None:
    (bob,) = await in_lobby(node, "bob")
    ann = Client(node)
    await ann.connect(await User.objects.acreate_user("ann"))
    anonymous = Client(node)
    await anonymous.connect()
    await saved(node, chat, entry="users")
    # A client without login is refused when it logs in.
    assert (ann.closed, bob.closed, anonymous.closed) == (None, 4008, None)
    assert bob.received("closing")[0]["message"] == "Only signed-in users can log in here."


async def test_users_outside_the_group_are_closed_when_entry_is_limited_to_it(
    node: Node, chat: Application
) -> None:
    editors, writers = [await Group.objects.acreate(name=name) for name in ("editors", "writers")]
    clients = {}
    for name, protocol in (("ann", "native"), ("bob", "native"), ("eve", "roomer"), ("dan", "roomer")):
        row = await User.objects.acreate_user(name)
        if name in {"ann", "eve"}:
            await row.groups.aadd(editors)
        peer = clients[name] = Peer(node, load_protocol(protocol)())
        await node.connect(peer.connection, row, lambda: None)
    guest = await Client.named(node, "guest")

    def closed() -> list[str]:
        return [name for name, peer in clients.items() if peer.connection.close_code == 4008]

    await saved(node, chat, entry="group", group=editors)
    assert (closed(), guest.closed) == (["bob", "dan"], 4008)
    await saved(node, chat, group=writers)
    assert closed() == ["ann", "bob", "eve", "dan"]


async def test_a_failed_check_of_groups_is_retried(
    node: Node, chat: Application, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = Client(node)
    await ann.connect(await User.objects.acreate_user("ann"))
    editors = await Group.objects.acreate(name="editors")

    def down(*_: Any) -> None:
        raise Unavailable("The database does not answer.")

    with monkeypatch.context() as broken:
        broken.setattr(invalidation, "_groups_of", down)
        await saved(node, chat, entry="group", group=editors)
        assert ann.closed is None
    await run_due_actions(node, clock)
    assert ann.closed == 4008


async def test_a_check_of_groups_for_an_outdated_config_closes_no_connection(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = Client(node)
    await ann.connect(await User.objects.acreate_user("ann"))

    def slowly(*_: Any) -> dict[str, frozenset[int]]:
        application = node.context.registry.cached_application("chat")
        assert application is not None
        application.config = replace(application.config, entry="anyone", group=None)
        return {}

    monkeypatch.setattr(invalidation, "_groups_of", slowly)
    await saved(node, chat, entry="group", group=await Group.objects.acreate(name="editors"))
    assert ann.closed is None


async def test_a_user_may_join_again_after_the_ban_is_deleted(
    node: Node, chat: Application, lobby: Room
) -> None:
    (bob,) = await in_lobby(node, "bob")
    ban = await Ban.objects.acreate(application=chat, room=lobby, guest="bob")
    await node.context.tasks.drain()
    await ban.adelete()
    await node.context.tasks.drain()
    await bob.request(Join(room="lobby"))


async def test_a_room_with_bans_can_be_deleted(node: Node, chat: Application, lobby: Room) -> None:
    (ann,) = await in_lobby(node, "ann")
    await Ban.objects.acreate(application=chat, room=lobby, guest="bob")
    room = await Room.objects.aget(pk=lobby.pk)
    await room.adelete()
    await node.context.tasks.drain()
    assert reasons(ann) == [("lobby", "closed")]
    assert not await Ban.objects.aexists()


@pytest.mark.parametrize("how", ["disabled", "deleted", "renamed"])
async def test_connections_of_an_application_that_is_gone_are_closed(
    node: Node, chat: Application, lobby: Room, how: str
) -> None:
    (ann,) = await in_lobby(node, "ann")
    if how == "deleted":
        await Application.objects.filter(pk=chat.pk).adelete()
        await node.context.tasks.drain()
    else:
        await saved(node, chat, **({"enabled": False} if how == "disabled" else {"name": "talk"}))
    assert ann.closed == 4509
    late = Client(node)
    await late.connect()
    assert late.closed == 4509


async def test_a_client_of_a_protocol_that_is_not_allowed_is_closed_with_the_reason(
    node: Node, chat: Application
) -> None:
    await saved(node, chat, protocols=["roomer"])
    late = Client(node)
    await late.connect()
    assert (late.closed, late.connection.close_reason) == (
        4509,
        "Application chat does not accept native clients.",
    )


async def test_an_application_that_is_enabled_again_accepts_clients(node: Node, chat: Application) -> None:
    await saved(node, chat, enabled=False)
    await saved(node, chat, enabled=True)
    await Client.named(node, "ann", "lobby")


async def test_changed_fields_of_an_application_apply_to_its_open_rooms(
    node: Node, chat: Application, lobby: Room
) -> None:
    (ann,) = await in_lobby(node, "ann")
    await saved(node, chat, leave_grace=77, max_message_bytes=5)
    room = node.context.registry.cached_room("chat", "lobby")
    assert room is not None
    assert (room.config.leave_grace, room.application.config.max_message_bytes) == (77, 5)
    with pytest.raises(Exception, match="at most 5 bytes"):
        await ann.send("lobby", "123456")


async def test_members_are_closed_to_resync_when_the_history_of_the_room_changes(
    node: Node, lobby: Room
) -> None:
    (ann,) = await in_lobby(node, "ann")
    await saved(node, lobby, history="database")
    assert ann.closed == 4003


class Adjustable(Extension):
    class Settings(forms.Form):
        size = forms.IntegerField(initial=1)

    started: ClassVar[list[str]] = []
    left: ClassVar[list[str]] = []

    async def init(self) -> None:
        self.started.append(self.application)

    async def on_leave(self, event: LeaveEvent) -> None:
        self.left.append(f"{event.reason} {event.user.name}")

    @message("size")
    async def size(self, event: MessageEvent) -> None:
        event.reply({"size": self.settings["size"]})


async def test_changed_extension_settings_apply_without_a_restart(
    node: Node, lobby: Room, install_extension: Install
) -> None:
    Adjustable.started.clear()
    (ann,) = await in_lobby(node, "ann")
    await saved(node, lobby, extension=install_extension(Adjustable))
    assert (await ann.send("lobby", 0, event="size"))["size"] == 1
    await saved(node, lobby, extension_settings={"size": 5})
    assert (await ann.send("lobby", 0, event="size"))["size"] == 5
    assert Adjustable.started == ["chat"]
    await saved(node, lobby, extension="")
    await ann.send("lobby", 0, event="size")
    assert ann.messages() == [0]


async def test_on_leave_runs_for_the_members_of_a_deleted_room(
    node: Node, lobby: Room, install_extension: Install
) -> None:
    Adjustable.left.clear()
    await saved(node, lobby, extension=install_extension(Adjustable))
    await in_lobby(node, "ann", "bob")
    await lobby.adelete()
    await node.context.tasks.drain()
    assert sorted(Adjustable.left) == ["closed ann", "closed bob"]


async def test_disconnect_closes_the_connections_of_a_user(node: Node, chat: Application) -> None:
    from rooms import adisconnect

    await Application.objects.acreate(name="other", history="memory")
    row = await User.objects.acreate_user("ann")
    clients = []
    for application in ("chat", "chat", "other"):
        clients.append(client := Client(node, application=application))
        await client.connect(row)
    bob = await Client.named(node, "bob")
    await adisconnect(row, "other", message="Enough.")
    await node.context.tasks.drain()
    assert [client.closed for client in clients] == [None, None, 4503]
    assert clients[2].received("closing")[0]["message"] == "Enough."
    await adisconnect(str(row.pk))
    await node.context.tasks.drain()
    assert [client.closed for client in clients] == [4503, 4503, 4503]
    assert bob.closed is None


async def test_changes_apply_in_every_process(make_node: MakeNode, chat: Application, lobby: Room) -> None:
    """The rows are saved in a process without sockets; the sockets are in two others."""
    one, two = await make_node(), await make_node()
    (ann,), (bob,) = await in_lobby(one, "ann"), await in_lobby(two, "bob")
    lobby.title = "Hall"
    await lobby.asave()
    for client in (ann, bob):
        await client.until(lambda client=client: client.received("room_added"))
        assert client.received("room_added")[0]["room"]["title"] == "Hall"
    await lobby.adelete()
    for client in (ann, bob):
        await client.until(lambda client=client: client.received("room_removed"))
        assert reasons(client) == [("lobby", "closed")]
    chat.enabled = False
    await chat.asave()
    for client in (ann, bob):
        await client.until(lambda client=client: client.closed == 4509)


async def test_a_refresh_applies_changes_whose_control_messages_were_lost(
    make_node: MakeNode, unreliable_layer: UnreliableLayer, chat: Application, lobby: Room
) -> None:
    node = await make_node()
    unreliable_layer.loses = lambda group, message: True
    den, hall, kept = [
        await Room.objects.acreate(application=chat, name=name) for name in ("den", "hall", "kept")
    ]
    (bob,) = await in_lobby(node, "bob")
    for name in ("den", "hall", "kept"):
        await bob.request(Join(room=name))
    bob.frames.clear()
    await Ban.objects.acreate(application=chat, room=lobby, guest="bob")
    await den.adelete()
    hall.name = "yard"
    await hall.asave()
    kept.title = "Kept"
    await kept.asave()
    assert sorted(bob.connection.memberships) == ["den", "hall", "kept", "lobby"]
    await refreshed(node)
    assert sorted(reasons(bob)) == [("den", "closed"), ("hall", "closed"), ("lobby", "banned")]
    assert list(bob.connection.memberships) == ["kept"]
    # Connections that asked for the room list receive the changes as well.
    assert sorted(frame["room"] for frame in bob.received("room_removed")) == ["den", "hall"]
    titles = [(frame["room"]["name"], frame["room"]["title"]) for frame in bob.received("room_added")]
    assert sorted(titles) == [("kept", "Kept"), ("lobby", "Lobby"), ("yard", "")]
    bob.frames.clear()
    await refreshed(node)
    assert bob.received("removed", "room_added", "room_removed") == []


async def refreshed(node: Node) -> None:
    """Refresh the registry, as the node does twice a minute."""
    await node.context.registry.refresh()
    await node.context.tasks.drain()


async def test_a_room_moved_to_another_application_is_closed_in_the_old_one(
    node: Node, lobby: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ann,) = await in_lobby(node, "ann")
    forget = mock.AsyncMock()
    monkeypatch.setattr(node.context.histories["memory"], "forget", forget)
    await saved(node, lobby, application=await Application.objects.acreate(name="other"))
    await refreshed(node)
    assert reasons(ann) == [("lobby", "closed")]
    # Its messages move along.
    assert not forget.called


async def test_control_messages_about_unknown_rows_are_ignored(node: Node) -> None:
    await node.invalidation.handle(ApplicationChanged(application="nowhere"))
    await node.invalidation.handle(RoomChanged(application="nowhere", room=1, name="x"))
    await node.invalidation.handle(RoomChanged(application="chat", room=10**6, name="x"))
    await node.invalidation.handle(RoomChanged(application="chat", room=10**6, name="x", deleted=True))


async def test_a_backend_that_is_down_is_logged(
    node: Node, lobby: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await in_lobby(node, "ann")

    async def down(*_: Any) -> None:
        raise RoomNotFound("The database does not answer.")

    monkeypatch.setattr(node.context.registry, "reload_room", down)
    await saved(node, lobby, title="x")
    assert "could not be acted on" in caplog.text


async def test_a_token_stays_valid_after_a_rename_of_the_user(node: Node) -> None:
    row = await User.objects.acreate_user("ann")
    client = Client(node)
    await client.connect(row)
    token = (await client.request(Login()))["token"]
    row.username = "anna"
    await row.asave()
    again = Client(node)
    await again.connect()
    assert (await again.request(Login(token=token)))["user"]["name"] == "anna"
