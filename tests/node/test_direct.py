"""Speaking without being in a room, and what else other protocols than the native one ask of the engine."""

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
from tests.node.clients import Client, Install, MakeEngine, active_groups, let_time_pass, present, refused


class Foreign(Native):
    """A protocol of clients without names that knows all there is; written as the native one is."""

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


class Ending(Foreign):
    """One whose clients are done when their room is."""

    options: ClassVar[ProtocolOptions] = replace(Foreign.options, disconnect_on_removal=True)


async def foreigner(node: Node, *rooms: str, protocol: type[Foreign] = Foreign, user: Any = None) -> Client:
    """A client of another protocol, in these rooms."""
    client = Client(node)
    client.connection.protocol = protocol()
    await client.connect(user)
    for room in rooms:
        await client.ask(CompatJoin(room=room))
    return client


def name_of(client: Client) -> str:
    assert client.connection.user is not None
    return client.connection.user.name


def data(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


# Who they are ------------------------------------------------------------------------------------------


async def test_one_whose_protocol_knows_no_names_is_a_guest_called_as_the_connection_is(
    node: Node,
) -> None:
    ann, other = await Client.named(node, "ann", "lobby"), await foreigner(node, "lobby")
    assert name_of(other) == other.connection.id
    assert ann.told("joined")[0]["user"] == {
        "name": other.connection.id,
        "id": f"guest-{other.connection.id}",
        "guest": True,
    }


async def test_who_cannot_come_back_is_gone_at_once(node: Node) -> None:
    ann, other = await Client.named(node, "ann", "lobby"), await foreigner(node, "lobby")
    other.disconnect()
    await node.context.tasks.drain()
    assert [left["reason"] for left in ann.told("left")] == ["dropped"]
    assert await present(ann, "lobby") == ["ann"]
    assert (await node.context.presence.counts(["application.1"]))[0] <= 1
    assert node.context.delayed.pop_due() == []


async def test_where_only_users_enter_the_account_of_the_handshake_opens(
    node: Node, chat: Application
) -> None:
    chat.entry = "users"
    await chat.asave()
    await node.context.tasks.drain()
    account = await sync_to_async(User.objects.create_user)("eve")
    stranger = await foreigner(node, user=AnonymousUser())
    assert stranger.closed == CloseCode.NOT_PERMITTED
    eve = await foreigner(node, "lobby", user=account)
    assert eve.closed is None
    assert name_of(eve) == eve.connection.id


async def test_what_is_forbidden_to_the_account_is_forbidden_to_its_guest(
    node: Node, chat: Application
) -> None:
    account = await sync_to_async(User.objects.create_user)("eve")
    lobby, other = [await Room.objects.acreate(application=chat, name=name) for name in ("lobby", "other")]
    eve = await foreigner(node, "lobby", "other", user=account)
    await Mute.objects.acreate(application=chat, room=other, user=account)
    await Ban.objects.acreate(application=chat, room=lobby, user=account)
    await node.context.tasks.drain()
    assert [removed["room"] for removed in eve.told("removed")] == ["lobby"]
    assert (await refused(RoomsError, eve.ask(SendOriginal(room="other", data=data(1))))).code == "muted"
    await Ban.objects.acreate(application=chat, user=account)
    await node.context.tasks.drain()
    assert eve.closed == CloseCode.BANNED
    again = await foreigner(node, user=account)
    assert again.closed == CloseCode.NOT_PERMITTED


@pytest.mark.parametrize(("protocols", "code"), [([], None), (["foreign"], None), (["native"], 4509)])
async def test_an_application_says_which_protocols_it_lets_in(
    node: Node, chat: Application, protocols: list[str], code: int | None
) -> None:
    chat.protocols = protocols
    await chat.asave()
    await node.context.tasks.drain()
    assert (await foreigner(node)).closed == code


async def test_a_door_that_is_shut_is_shut_to_those_who_are_inside_as_well(
    node: Node, chat: Application
) -> None:
    ann, other = await Client.named(node, "ann"), await foreigner(node)
    chat.protocols = ["native"]
    await chat.asave()
    await node.context.tasks.drain()
    assert (ann.closed, other.closed) == (None, CloseCode.NO_SUCH_APPLICATION)


# Coming in and going out -------------------------------------------------------------------------------


async def test_a_room_is_made_never_or_on_demand_or_always(node: Node, chat: Application) -> None:
    other = await foreigner(node)
    await refused(RoomNotFound, other.ask(CompatJoin(room="a", create="never")))
    await other.ask(CompatJoin(room="b", create="on_demand"))
    chat.rooms_on_demand = False
    await chat.asave()
    await node.context.tasks.drain()
    await refused(RoomNotFound, other.ask(CompatJoin(room="c", create="on_demand")))
    await other.ask(CompatJoin(room="d", create="always"))
    assert {room.name async for room in Room.objects.all()} == {"b", "d"}


async def test_who_comes_in_again_is_answered_or_announced_or_refused(node: Node) -> None:
    witness, ann = await foreigner(node, "lobby"), await Client.named(node, "ann", "lobby")
    other = await foreigner(node, "lobby")
    witness.listen()
    assert (await other.ask(CompatJoin(room="lobby")))["count"] == 3
    assert witness.told("rejoined") == []
    assert (await other.ask(CompatJoin(room="lobby", if_member="announce")))["count"] == 3
    assert [event["user"]["name"] for event in witness.told("rejoined")] == [name_of(other)]
    assert ann.told("rejoined") == []
    await refused(AlreadyMember, other.ask(CompatJoin(room="lobby", if_member="refuse")))
    assert await present(ann, "lobby") == sorted(["ann", name_of(other), name_of(witness)])


async def test_to_leave_a_room_that_is_not_there_is_another_error(node: Node) -> None:
    ann, other = await Client.named(node, "ann", "lobby"), await foreigner(node)
    await refused(NotMember, other.ask(Leave(room="lobby")))
    await refused(RoomNotFound, other.ask(Leave(room="nowhere")))
    await refused(RoomNotFound, other.ask(SendOriginal(room="nowhere", data=data(1))))
    await refused(NotMember, ann.ask(Leave(room="nowhere")))


async def test_out_of_every_room_at_once(node: Node) -> None:
    ann, other = await Client.named(node, "ann", "a", "b"), await foreigner(node, "a", "b")
    await other.ask(LeaveAll())
    await node.context.tasks.drain()
    assert sorted(left["room"] for left in ann.told("left")) == ["a", "b"]
    assert other.told("removed") == []


class Holding(Extension):
    """Lets nobody go who asks for it the first time."""

    asked: ClassVar[list[str]] = []

    async def on_before_leave(self, event: LeaveEvent) -> None:
        self.asked.append(event.user.name)
        if len(self.asked) == 1:
            raise Rejected("Stay a while.")


async def test_an_extension_may_refuse_to_let_go(node: Node, chat: Application, installed: Install) -> None:
    Holding.asked.clear()
    chat.extension = installed(Holding)
    await chat.asave()
    await node.context.tasks.drain()
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    assert (await refused(Rejected, bob.ask(Leave(room="lobby")))).message == "Stay a while."
    assert await present(ann, "lobby") == ["ann", "bob"]
    await bob.ask(Leave(room="lobby"))
    assert await present(ann, "lobby") == ["ann"]


async def test_a_client_may_ask_for_the_end(node: Node) -> None:
    other = await foreigner(node)
    await other.ask(Disconnect())
    assert other.closed == CloseCode.NORMAL


# Rooms that go with their owner --------------------------------------------------------------------------


async def opened(node: Node, client: Client, room: str = "stage", **fields: Any) -> None:
    await client.ask(CreateOwnedRoom(room=room, mode="broadcast", **fields))
    await client.ask(CompatJoin(room=room, create="never"))


@pytest.mark.parametrize("how", ["leaves", "drops", "closes it"])
async def test_a_room_goes_with_its_owner(node: Node, how: str) -> None:
    owner, ann = await foreigner(node), await Client.named(node, "ann")
    await opened(node, owner)
    await ann.ask(Join(room="stage"))
    listener = await foreigner(node, "stage", protocol=Ending)
    if how == "leaves":
        await owner.ask(Leave(room="stage"))
    elif how == "drops":
        owner.disconnect()
    else:
        await owner.ask(CloseRoom(room="stage"))
    await node.context.tasks.drain()
    assert [(removed["room"], removed["reason"]) for removed in ann.told("removed")] == [("stage", "closed")]
    assert ann.closed is None
    assert listener.closed == CloseCode.NORMAL
    listener.listen()
    assert [frame["type"] for frame in listener.heard][-2:] == ["removed", "closing"]
    assert not await Room.objects.filter(name="stage").aexists()


async def test_a_room_outlives_its_listeners_and_is_not_listed(node: Node) -> None:
    owner, listener = await foreigner(node), await foreigner(node)
    await opened(node, owner)
    await listener.ask(CompatJoin(room="stage"))
    listener.disconnect()
    await node.context.tasks.drain()
    room = await Room.objects.aget(name="stage")
    assert (room.listed, room.persistent, room.leave_grace) == (False, False, 0)


async def test_with_a_grace_period_the_owner_is_waited_for(node: Node, clock: Any) -> None:
    owner, ann = await foreigner(node), await Client.named(node, "ann")
    await opened(node, owner, leave_grace=30)
    await ann.ask(Join(room="stage"))
    owner.disconnect()
    await node.context.tasks.drain()
    assert ann.told("removed") == []
    await let_time_pass(node, clock)
    assert len(ann.told("removed")) == 1


# To one user, from outside, to the application --------------------------------------------------------------


async def test_to_one_user_whatever_rooms_they_are_in(node: Node) -> None:
    one, two, three = [await foreigner(node) for _ in range(3)]
    await one.ask(SendDirect(room="anything", event="whisper", data=data("psst"), to=name_of(two)))
    assert [(said["room"], said["event"], said["data"], said["to"]) for said in two.told("direct")] == [
        ("anything", "whisper", "psst", name_of(two))
    ]
    assert two.heard[-1]["sender"]["name"] == name_of(one)
    assert one.told("direct") == three.told("direct") == []
    await one.ask(SendDirect(room="", event="", data=data(1), to="nobody"))
    await one.ask(SendDirect(room="", event="", data=data(2), to=name_of(one)))
    assert [said["data"] for said in one.told("direct")] == [2]


async def test_to_one_user_of_another_process(make_node: MakeEngine) -> None:
    here, there = await make_node(), await make_node()
    object.__setattr__(there.context, "presence", here.context.presence)
    one, two = await foreigner(here), await foreigner(there)
    await one.ask(SendDirect(room="r", event="e", data=data(1), to=name_of(two)))
    await two.until(lambda: two.told("direct"))
    assert two.told("direct")[0]["data"] == 1


async def test_native_clients_are_not_told_what_is_said_outside_of_rooms(node: Node) -> None:
    ann, other = await Client.named(node, "ann", "lobby"), await foreigner(node)
    await other.ask(SendDirect(room="lobby", event="message", data=data("as if"), to="ann"))
    assert ann.told("message", "direct") == []
    await other.ask(CompatJoin(room="elsewhere"))
    await other.ask(SendDirect(room="elsewhere", event="message", data=data("as if"), to="ann"))
    assert ann.told("message", "direct") == []


async def test_in_a_room_that_both_are_in_it_is_a_message_to_one(node: Node, chat: Application) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    other = await foreigner(node, "lobby")
    await other.ask(SendDirect(room="lobby", event="psst", data=data(1), to="ann"))
    assert [
        (said["event"], said["data"], said["to"], said["from"]["name"]) for said in ann.told("message")
    ] == [("psst", 1, ["ann"], name_of(other))]
    assert bob.told("message") == []
    room = await Room.objects.aget(application=chat, name="lobby")
    room.mode = "broadcast"
    await room.asave()
    await node.context.tasks.drain()
    await other.ask(SendDirect(room="lobby", event="psst", data=data(2), to="ann"))
    assert ann.messages() == [1]


async def test_who_is_muted_everywhere_does_not_whisper_either(node: Node, chat: Application) -> None:
    account = await sync_to_async(User.objects.create_user)("eve")
    eve, other = await foreigner(node, user=account), await foreigner(node)
    await Mute.objects.acreate(application=chat, user=account)
    await node.context.tasks.drain()
    whisper = SendDirect(room="", event="", data=data(1), to=name_of(other))
    assert (await refused(RoomsError, eve.ask(whisper))).code == "muted"
    assert other.told("direct") == []


async def test_an_id_is_compared_exactly(node: Node) -> None:
    one, two = await foreigner(node), await foreigner(node)
    await one.ask(SendDirect(room="", event="", data=data(1), to=name_of(two).upper()))
    assert two.told("direct") == []


async def test_speaking_in_a_room_from_outside(node: Node) -> None:
    ann, other = await Client.named(node, "ann", "lobby"), await foreigner(node)
    await other.ask(SendWithoutJoining(room="lobby", data=data("hello")))
    assert ann.messages() == ["hello"]
    assert await present(ann, "lobby") == ["ann"]
    await other.ask(SendWithoutJoining(room="nowhere", data=data("hello")))
    assert not await Room.objects.filter(name="nowhere").aexists()


class Bouncer(Extension):
    async def on_join(self, event: JoinEvent) -> None:
        """Looks at everybody who comes in."""


async def test_from_outside_nobody_gets_round_what_stands_at_the_entrance(
    node: Node, chat: Application, installed: Install
) -> None:
    other = await foreigner(node)
    await Room.objects.acreate(application=chat, name="secret", password="hashed")
    await Room.objects.acreate(application=chat, name="stage", mode="broadcast")
    await Room.objects.acreate(application=chat, name="club", extension=installed(Bouncer))
    for room, code in (
        ("secret", "permission_denied"),
        ("stage", "not_sender"),
        ("club", "permission_denied"),
    ):
        assert (
            await refused(RoomsError, other.ask(SendWithoutJoining(room=room, data=data(1))))
        ).code == code


class Desk(Extension):
    """Takes what is said to the application."""

    @message("message")
    async def hear(self, event: MessageEvent) -> None:
        assert event.room is None
        await event.reply({"heard": event.data})


async def test_to_the_application(node: Node, chat: Application, installed: Install) -> None:
    other = await foreigner(node)
    assert await other.ask(SendToApplication(data=data(1))) == {}
    chat.extension = installed(Desk)
    await chat.asave()
    await node.context.tasks.drain()
    assert await other.ask(SendToApplication(data=data(1))) == {"heard": 1}
    assert await other.ask(SendToApplication(data=data(1), event="other")) == {}


async def test_from_outside_a_room_the_applications_handler_is_asked(
    node: Node, chat: Application, installed: Install
) -> None:
    other = await foreigner(node)
    await Room.objects.acreate(application=chat, name="lobby")
    await refused(NotMember, other.ask(SendToRoomOrApplication(room="lobby", data=data(1))))
    chat.extension = installed(Desk)
    await chat.asave()
    await node.context.tasks.drain()
    assert await other.ask(SendToRoomOrApplication(room="lobby", data=data(1))) == {"heard": 1}
    assert await other.ask(SendToRoomOrApplication(room="nowhere", data=data(2))) == {"heard": 2}
    await refused(NotMember, other.ask(SendToRoomOrApplication(room="lobby", data=data(1), event="other")))


# Words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", ["memory", "database", "none"])
async def test_words_are_for_those_who_speak_the_same_protocol(
    node: Node, chat: Application, history: str
) -> None:
    chat.history = history
    await chat.asave()
    await node.context.tasks.drain()
    ann, other, speaker = (
        await Client.named(node, "ann", "lobby"),
        await foreigner(node, "lobby"),
        await foreigner(node, "lobby"),
    )
    await speaker.ask(
        SendOriginal(
            room="lobby", event="move", data=data([1]), state=True, original=data({"x": [1], "y": 2})
        )
    )
    assert "original" not in ann.told("message")[0]
    assert other.told("message")[0]["original"] == {"x": [1], "y": 2}
    late = await Client.named(node, "late")
    joined = await late.ask(Join(room="lobby"))
    assert [said["data"] for said in joined["state"]] == [[1]]
    assert all("original" not in said for said in (*joined["state"], *joined["messages"]))
    room = await node.context.registry.room(next(iter(node.context.registry.applications())), "lobby")
    past = await node.context.histories[history].snapshot(room.config, None, 50)
    assert [bytes(said.original) for said in past.state if isinstance(said.original, Raw)] == [
        b'{"x":[1],"y":2}'
    ]


class Refusing(Extension):
    """Lets nobody in, to speak or to listen."""

    async def on_join(self, event: JoinEvent) -> None:
        raise Rejected("Listening too." if event.subscriber else "Not you.")


async def test_who_is_refused_does_not_get_in_by_listening(
    node: Node, chat: Application, installed: Install
) -> None:
    ann = await Client.named(node, "ann")
    await Room.objects.acreate(application=chat, name="club", extension=installed(Refusing))
    assert (await refused(Rejected, ann.ask(Join(room="club")))).message == "Not you."
    assert (await refused(Rejected, ann.ask(Subscribe(room="club")))).message == "Listening too."
    assert "room.1" not in active_groups(node)


class First(Extension):
    """The room's: says yes to everybody."""

    heard: ClassVar[list[str]] = []

    async def on_join(self, event: JoinEvent) -> None:
        self.heard.append("join")

    async def on_leave(self, event: LeaveEvent) -> None:
        self.heard.append("leave")


async def test_whoever_said_yes_hears_that_nobody_came_of_it(
    node: Node, chat: Application, installed: Install
) -> None:
    First.heard.clear()
    chat.extension = installed(Refusing)
    await chat.asave()
    await Room.objects.acreate(application=chat, name="club", extension=installed(First))
    await node.context.tasks.drain()
    ann = await Client.named(node, "ann")
    await refused(Rejected, ann.ask(Join(room="club")))
    await node.context.tasks.drain()
    assert First.heard == ["join", "leave"]
