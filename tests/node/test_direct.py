"""Messages without a membership, and the other commands that the native protocol does not have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import msgspec
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from msgspec import Raw

from rooms.extensions import Extension, JoinEvent, LeaveEvent, MessageEvent, message
from rooms.models import Application, Ban, Mute, Room
from rooms.node.node import Node
from rooms.protocol.base import ProtocolOptions
from rooms.protocol.commands import CloseRoom, Command, Join, Leave, Subscribe
from rooms.protocol.compat_commands import (
    CompatJoin,
    CreateOwnedRoom,
    Disconnect,
    LeaveAll,
    SendDirect,
    SendOriginal,
    SendToApplication,
    SendToRoomOrApplication,
    SendWithoutJoining,
)
from rooms.protocol.errors import AlreadyMember, CloseCode, NotMember, Rejected, RoomNotFound, RoomsError
from rooms.protocol.events import Direct, Event, Rejoined
from rooms.protocol.native import Native
from tests.node.clients import (
    Client,
    Install,
    MakeNode,
    active_groups,
    error_of,
    member_names,
    run_due_actions,
)


class Foreign(Native):
    """A protocol of anonymous clients with every event, encoded as in the native protocol."""

    name: ClassVar[str] = "foreign"
    options: ClassVar[ProtocolOptions] = replace(
        Native.options, anonymous=True, resumable=False, heartbeat=False, reports_missing_rooms=True
    )

    def encode(self, event: Event | Command) -> bytes | None:
        if isinstance(event, Direct | Rejoined):
            return msgspec.json.encode(event)
        return super().encode(event)

    @classmethod
    def encode_broadcast(cls, event: Event | Command, application: str) -> bytes | None:
        return msgspec.json.encode(event)


class EndsWithRoom(Foreign):
    """A protocol whose clients are disconnected with their room."""

    options: ClassVar[ProtocolOptions] = replace(Foreign.options, disconnect_on_removal=True)


async def foreign_client(
    node: Node, *rooms: str, protocol: type[Foreign] = Foreign, user: Any = None
) -> Client:
    """A client of another protocol, in these rooms."""
    client = Client(node)
    client.connection.protocol = protocol()
    await client.connect(user)
    for room in rooms:
        await client.request(CompatJoin(room=room))
    return client


def name_of(client: Client) -> str:
    assert client.connection.user is not None
    return client.connection.user.name


def data(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


# Identity ----------------------------------------------------------------------------------------


async def test_an_anonymous_client_is_a_guest_named_like_its_connection(
    node: Node,
) -> None:
    ann, other = await Client.named(node, "ann", "lobby"), await foreign_client(node, "lobby")
    assert name_of(other) == other.connection.id
    assert ann.received("joined")[0]["user"] == {
        "name": other.connection.id,
        "id": f"guest-{other.connection.id}",
        "guest": True,
    }


async def test_a_client_that_cannot_resume_leaves_at_once(node: Node) -> None:
    ann, other = await Client.named(node, "ann", "lobby"), await foreign_client(node, "lobby")
    other.disconnect()
    await node.context.tasks.drain()
    assert [left["reason"] for left in ann.received("left")] == ["dropped"]
    assert await member_names(ann, "lobby") == ["ann"]
    assert (await node.context.presence.counts(["application.1"]))[0] <= 1
    assert node.context.delayed.pop_due() == []


async def test_the_account_of_the_handshake_decides_where_only_users_are_admitted(
    node: Node, chat: Application
) -> None:
    chat.entry = "users"
    await chat.asave()
    await node.context.tasks.drain()
    account = await sync_to_async(User.objects.create_user)("eve")
    stranger = await foreign_client(node, user=AnonymousUser())
    assert stranger.closed == CloseCode.NOT_PERMITTED
    eve = await foreign_client(node, "lobby", user=account)
    assert eve.closed is None
    assert name_of(eve) == eve.connection.id


async def test_bans_and_mutes_of_the_account_apply_to_its_guest(node: Node, chat: Application) -> None:
    account = await sync_to_async(User.objects.create_user)("eve")
    lobby, other = [await Room.objects.acreate(application=chat, name=name) for name in ("lobby", "other")]
    eve = await foreign_client(node, "lobby", "other", user=account)
    await Mute.objects.acreate(application=chat, room=other, user=account)
    await Ban.objects.acreate(application=chat, room=lobby, user=account)
    await node.context.tasks.drain()
    assert [removed["room"] for removed in eve.received("removed")] == ["lobby"]
    assert (await error_of(RoomsError, eve.request(SendOriginal(room="other", data=data(1))))).code == "muted"
    await Ban.objects.acreate(application=chat, user=account)
    await node.context.tasks.drain()
    assert eve.closed == CloseCode.BANNED
    again = await foreign_client(node, user=account)
    assert again.closed == CloseCode.NOT_PERMITTED


@pytest.mark.parametrize(("protocols", "code"), [([], None), (["foreign"], None), (["native"], 4509)])
async def test_an_application_accepts_only_its_protocols(
    node: Node, chat: Application, protocols: list[str], code: int | None
) -> None:
    chat.protocols = protocols
    await chat.asave()
    await node.context.tasks.drain()
    assert (await foreign_client(node)).closed == code


async def test_disabling_a_protocol_closes_its_clients(node: Node, chat: Application) -> None:
    ann, other = await Client.named(node, "ann"), await foreign_client(node)
    chat.protocols = ["native"]
    await chat.asave()
    await node.context.tasks.drain()
    assert (ann.closed, other.closed) == (None, CloseCode.NO_SUCH_APPLICATION)


# Joining and leaving -----------------------------------------------------------------------------


async def test_a_room_is_created_never_or_on_demand_or_always(node: Node, chat: Application) -> None:
    other = await foreign_client(node)
    await error_of(RoomNotFound, other.request(CompatJoin(room="a", create="never")))
    await other.request(CompatJoin(room="b", create="on_demand"))
    chat.rooms_on_demand = False
    await chat.asave()
    await node.context.tasks.drain()
    await error_of(RoomNotFound, other.request(CompatJoin(room="c", create="on_demand")))
    await other.request(CompatJoin(room="d", create="always"))
    assert {room.name async for room in Room.objects.all()} == {"b", "d"}


async def test_a_repeated_join_is_acknowledged_or_announced_or_refused(node: Node) -> None:
    observer, ann = await foreign_client(node, "lobby"), await Client.named(node, "ann", "lobby")
    other = await foreign_client(node, "lobby")
    observer.read()
    assert (await other.request(CompatJoin(room="lobby")))["count"] == 3
    assert observer.received("rejoined") == []
    assert (await other.request(CompatJoin(room="lobby", if_member="announce")))["count"] == 3
    assert [event["user"]["name"] for event in observer.received("rejoined")] == [name_of(other)]
    assert ann.received("rejoined") == []
    await error_of(AlreadyMember, other.request(CompatJoin(room="lobby", if_member="refuse")))
    assert await member_names(ann, "lobby") == sorted(["ann", name_of(other), name_of(observer)])


async def test_leaving_a_missing_room_is_another_error_than_leaving_as_no_member(node: Node) -> None:
    ann, other = await Client.named(node, "ann", "lobby"), await foreign_client(node)
    await error_of(NotMember, other.request(Leave(room="lobby")))
    await error_of(RoomNotFound, other.request(Leave(room="nowhere")))
    await error_of(RoomNotFound, other.request(SendOriginal(room="nowhere", data=data(1))))
    await error_of(NotMember, ann.request(Leave(room="nowhere")))


async def test_leave_all_leaves_every_room(node: Node) -> None:
    ann, other = await Client.named(node, "ann", "a", "b"), await foreign_client(node, "a", "b")
    await other.request(LeaveAll())
    await node.context.tasks.drain()
    assert sorted(left["room"] for left in ann.received("left")) == ["a", "b"]
    assert other.received("removed") == []


class RejectsFirstLeave(Extension):
    """Rejects the first leave."""

    leaves: ClassVar[list[str]] = []

    async def on_before_leave(self, event: LeaveEvent) -> None:
        self.leaves.append(event.user.name)
        if len(self.leaves) == 1:
            raise Rejected("Not yet.")


async def test_an_extension_may_reject_a_leave(
    node: Node, chat: Application, install_extension: Install
) -> None:
    RejectsFirstLeave.leaves.clear()
    chat.extension = install_extension(RejectsFirstLeave)
    await chat.asave()
    await node.context.tasks.drain()
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    assert (await error_of(Rejected, bob.request(Leave(room="lobby")))).message == "Not yet."
    assert await member_names(ann, "lobby") == ["ann", "bob"]
    await bob.request(Leave(room="lobby"))
    assert await member_names(ann, "lobby") == ["ann"]


async def test_a_client_may_request_the_disconnect(node: Node) -> None:
    other = await foreign_client(node)
    await other.request(Disconnect())
    assert other.closed == CloseCode.NORMAL


# Rooms that go with their owner ------------------------------------------------------------------


async def create_and_join(node: Node, client: Client, room: str = "stage", **fields: Any) -> None:
    await client.request(CreateOwnedRoom(room=room, mode="broadcast", **fields))
    await client.request(CompatJoin(room=room, create="never"))


@pytest.mark.parametrize("how", ["leaves", "drops", "closes it"])
async def test_a_room_goes_with_its_owner(node: Node, how: str) -> None:
    owner, ann = await foreign_client(node), await Client.named(node, "ann")
    await create_and_join(node, owner)
    await ann.request(Join(room="stage"))
    other = await foreign_client(node, "stage", protocol=EndsWithRoom)
    if how == "leaves":
        await owner.request(Leave(room="stage"))
    elif how == "drops":
        owner.disconnect()
    else:
        await owner.request(CloseRoom(room="stage"))
    await node.context.tasks.drain()
    assert [(removed["room"], removed["reason"]) for removed in ann.received("removed")] == [
        ("stage", "closed")
    ]
    assert ann.closed is None
    assert other.closed == CloseCode.NORMAL
    other.read()
    assert [frame["type"] for frame in other.frames][-2:] == ["removed", "closing"]
    assert not await Room.objects.filter(name="stage").aexists()


async def test_an_owned_room_outlives_its_other_members_and_is_not_listed(node: Node) -> None:
    owner, other = await foreign_client(node), await foreign_client(node)
    await create_and_join(node, owner)
    await other.request(CompatJoin(room="stage"))
    other.disconnect()
    await node.context.tasks.drain()
    room = await Room.objects.aget(name="stage")
    assert (room.listed, room.persistent, room.leave_grace) == (False, False, 0)


async def test_a_grace_period_keeps_the_room_until_the_owner_is_gone(node: Node, clock: Any) -> None:
    owner, ann = await foreign_client(node), await Client.named(node, "ann")
    await create_and_join(node, owner, leave_grace=30)
    await ann.request(Join(room="stage"))
    owner.disconnect()
    await node.context.tasks.drain()
    assert ann.received("removed") == []
    await run_due_actions(node, clock)
    assert len(ann.received("removed")) == 1


# To one user, from outside, to the application ---------------------------------------------------


async def test_a_direct_message_reaches_its_user_in_any_room(node: Node) -> None:
    one, two, three = [await foreign_client(node) for _ in range(3)]
    await one.request(SendDirect(room="anything", event="whisper", data=data("psst"), to=name_of(two)))
    assert [
        (frame["room"], frame["event"], frame["data"], frame["to"]) for frame in two.received("direct")
    ] == [("anything", "whisper", "psst", name_of(two))]
    assert two.frames[-1]["sender"]["name"] == name_of(one)
    assert one.received("direct") == three.received("direct") == []
    await one.request(SendDirect(room="", event="", data=data(1), to="nobody"))
    await one.request(SendDirect(room="", event="", data=data(2), to=name_of(one)))
    assert [frame["data"] for frame in one.received("direct")] == [2]


async def test_a_direct_message_reaches_a_user_in_another_process(make_node: MakeNode) -> None:
    here, there = await make_node(), await make_node()
    object.__setattr__(there.context, "presence", here.context.presence)
    one, two = await foreign_client(here), await foreign_client(there)
    await one.request(SendDirect(room="r", event="e", data=data(1), to=name_of(two)))
    await two.until(lambda: two.received("direct"))
    assert two.received("direct")[0]["data"] == 1


async def test_native_clients_receive_no_direct_message_from_outside_the_room(node: Node) -> None:
    ann, other = await Client.named(node, "ann", "lobby"), await foreign_client(node)
    await other.request(SendDirect(room="lobby", event="message", data=data("as if"), to="ann"))
    assert ann.received("message", "direct") == []
    await other.request(CompatJoin(room="elsewhere"))
    await other.request(SendDirect(room="elsewhere", event="message", data=data("as if"), to="ann"))
    assert ann.received("message", "direct") == []


async def test_a_direct_message_in_a_shared_room_is_a_message_to_one_member(
    node: Node, chat: Application
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    other = await foreign_client(node, "lobby")
    await other.request(SendDirect(room="lobby", event="psst", data=data(1), to="ann"))
    assert [
        (frame["event"], frame["data"], frame["to"], frame["from"]["name"])
        for frame in ann.received("message")
    ] == [("psst", 1, ["ann"], name_of(other))]
    assert bob.received("message") == []
    room = await Room.objects.aget(application=chat, name="lobby")
    room.mode = "broadcast"
    await room.asave()
    await node.context.tasks.drain()
    await other.request(SendDirect(room="lobby", event="psst", data=data(2), to="ann"))
    assert ann.messages() == [1]


async def test_a_mute_in_the_application_applies_to_direct_messages(node: Node, chat: Application) -> None:
    account = await sync_to_async(User.objects.create_user)("eve")
    eve, other = await foreign_client(node, user=account), await foreign_client(node)
    await Mute.objects.acreate(application=chat, user=account)
    await node.context.tasks.drain()
    whisper = SendDirect(room="", event="", data=data(1), to=name_of(other))
    assert (await error_of(RoomsError, eve.request(whisper))).code == "muted"
    assert other.received("direct") == []


async def test_the_recipient_of_a_direct_message_is_compared_exactly(node: Node) -> None:
    one, two = await foreign_client(node), await foreign_client(node)
    await one.request(SendDirect(room="", event="", data=data(1), to=name_of(two).upper()))
    assert two.received("direct") == []


async def test_a_message_from_outside_reaches_the_room(node: Node) -> None:
    ann, other = await Client.named(node, "ann", "lobby"), await foreign_client(node)
    await other.request(SendWithoutJoining(room="lobby", data=data("hello")))
    assert ann.messages() == ["hello"]
    assert await member_names(ann, "lobby") == ["ann"]
    await other.request(SendWithoutJoining(room="nowhere", data=data("hello")))
    assert not await Room.objects.filter(name="nowhere").aexists()


class ChecksJoins(Extension):
    async def on_join(self, event: JoinEvent) -> None:
        """Accept every join."""


async def test_a_message_from_outside_does_not_bypass_the_checks_of_a_join(
    node: Node, chat: Application, install_extension: Install
) -> None:
    other = await foreign_client(node)
    await Room.objects.acreate(application=chat, name="secret", password="hashed")
    await Room.objects.acreate(application=chat, name="stage", mode="broadcast")
    await Room.objects.acreate(application=chat, name="club", extension=install_extension(ChecksJoins))
    for room, code in (
        ("secret", "permission_denied"),
        ("stage", "not_sender"),
        ("club", "permission_denied"),
    ):
        assert (
            await error_of(RoomsError, other.request(SendWithoutJoining(room=room, data=data(1))))
        ).code == code


class HandlesMessages(Extension):
    """Handles the messages to the application."""

    @message("message")
    async def handle(self, event: MessageEvent) -> None:
        assert event.room is None
        await event.reply({"received": event.data})


async def test_a_message_to_the_application_calls_its_handler(
    node: Node, chat: Application, install_extension: Install
) -> None:
    other = await foreign_client(node)
    assert await other.request(SendToApplication(data=data(1))) == {}
    chat.extension = install_extension(HandlesMessages)
    await chat.asave()
    await node.context.tasks.drain()
    assert await other.request(SendToApplication(data=data(1))) == {"received": 1}
    assert await other.request(SendToApplication(data=data(1), event="other")) == {}


async def test_a_message_from_outside_calls_the_applications_handler(
    node: Node, chat: Application, install_extension: Install
) -> None:
    other = await foreign_client(node)
    await Room.objects.acreate(application=chat, name="lobby")
    await error_of(NotMember, other.request(SendToRoomOrApplication(room="lobby", data=data(1))))
    chat.extension = install_extension(HandlesMessages)
    await chat.asave()
    await node.context.tasks.drain()
    assert await other.request(SendToRoomOrApplication(room="lobby", data=data(1))) == {"received": 1}
    assert await other.request(SendToRoomOrApplication(room="nowhere", data=data(2))) == {"received": 2}
    await error_of(
        NotMember, other.request(SendToRoomOrApplication(room="lobby", data=data(1), event="other"))
    )


# Original data -----------------------------------------------------------------------------------


@pytest.mark.parametrize("history", ["memory", "database", "none"])
async def test_the_original_data_is_sent_to_clients_of_the_same_protocol_only(
    node: Node, chat: Application, history: str
) -> None:
    chat.history = history
    await chat.asave()
    await node.context.tasks.drain()
    ann, other, sender = (
        await Client.named(node, "ann", "lobby"),
        await foreign_client(node, "lobby"),
        await foreign_client(node, "lobby"),
    )
    await sender.request(
        SendOriginal(
            room="lobby", event="move", data=data([1]), state=True, original=data({"x": [1], "y": 2})
        )
    )
    assert "original" not in ann.received("message")[0]
    assert other.received("message")[0]["original"] == {"x": [1], "y": 2}
    late = await Client.named(node, "late")
    joined = await late.request(Join(room="lobby"))
    assert [frame["data"] for frame in joined["state"]] == [[1]]
    assert all("original" not in frame for frame in (*joined["state"], *joined["messages"]))
    room = await node.context.registry.room(next(iter(node.context.registry.applications())), "lobby")
    snapshot = await node.context.histories[history].snapshot(room.config, None, 50)
    assert [bytes(each.original) for each in snapshot.state if isinstance(each.original, Raw)] == [
        b'{"x":[1],"y":2}'
    ]


class RejectsJoins(Extension):
    """Rejects every member and subscriber."""

    async def on_join(self, event: JoinEvent) -> None:
        raise Rejected("No subscribers." if event.subscriber else "No members.")


async def test_a_rejected_user_cannot_subscribe_either(
    node: Node, chat: Application, install_extension: Install
) -> None:
    ann = await Client.named(node, "ann")
    await Room.objects.acreate(application=chat, name="club", extension=install_extension(RejectsJoins))
    assert (await error_of(Rejected, ann.request(Join(room="club")))).message == "No members."
    assert (await error_of(Rejected, ann.request(Subscribe(room="club")))).message == "No subscribers."
    assert "room.1" not in active_groups(node)


class AcceptsJoins(Extension):
    """Of the room: accepts every join."""

    calls: ClassVar[list[str]] = []

    async def on_join(self, event: JoinEvent) -> None:
        self.calls.append("join")

    async def on_leave(self, event: LeaveEvent) -> None:
        self.calls.append("leave")


async def test_an_extension_that_accepted_a_join_receives_the_leave_when_another_rejects_it(
    node: Node, chat: Application, install_extension: Install
) -> None:
    AcceptsJoins.calls.clear()
    chat.extension = install_extension(RejectsJoins)
    await chat.asave()
    await Room.objects.acreate(application=chat, name="club", extension=install_extension(AcceptsJoins))
    await node.context.tasks.drain()
    ann = await Client.named(node, "ann")
    await error_of(Rejected, ann.request(Join(room="club")))
    await node.context.tasks.drain()
    assert AcceptsJoins.calls == ["join", "leave"]
