"""One room, five protocols: clients of all protocols receive a message of one.

The names of rooms are UUIDs, so that rtbroadcaster's clients can join as well.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.integration import sites
from tests.integration.protocols import PROTOCOLS, Rtbroadcaster
from tests.integration.sites import OPEN_ROOM, Clients
from tests.servers import KINDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.protocols import Client

pytestmark = pytest.mark.smoke

APPLICATION = "protocols"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CONNECTED = {"value": 3, "text": "connected"}

#: A client's protocol and content; the event, its data, the payload, and rtbroadcaster's parameters.
MESSAGES: list[tuple[str, Any, str, Any, bytes, list[str]]] = [
    ("native", "hello", "message", "hello", b"hello", ["hello"]),
    ("native", "123", "note", "123", b'"123"', ['"123"']),
    ("native", 123, "note", 123, b"123", ["123"]),
    ("native", {"a": [1, None]}, "move", {"a": [1, None]}, b'{"a": [1, null]}', ['{"a": [1, null]}']),
    ("native", ["x", "y"], "move", ["x", "y"], b'["x", "y"]', ["x", "y"]),
    ("roomer", b"hello", "chat", "hello", b"hello", ["hello"]),
    ("roomer", b'{"a":1}', "chat", {"a": 1}, b'{"a":1}', ['{"a":1}']),
    ("roomer", b"\xff\0", "blob", {"base64": "/wA="}, b"\xff\0", ['{"base64":"/wA="}']),
    ("rtbroadcaster", ["hello"], "move", ["hello"], b'["hello"]', ["hello"]),
    ("rtbroadcaster", ["1", "zwei"], "move", ["1", "zwei"], b'["1","zwei"]', ["1", "zwei"]),
    ("goroomserver", {"text": "hi"}, "message", {"text": "hi"}, b'{"text":"hi"}', ['{"text":"hi"}']),
    ("gowsev", b"hello", "message", "hello", b"hello", ["hello"]),
    ("gowsev", b"[1, 2]", "message", [1, 2], b"[1, 2]", ["[1, 2]"]),
    ("gowsev", b"\xff:\xfe", "message", {"base64": "/zr+"}, b"\xff:\xfe", ['{"base64":"/zr+"}']),
]


@pytest.fixture(params=KINDS)
async def clients(request: pytest.FixtureRequest) -> AsyncIterator[Clients]:
    async with Clients(sites.site(request.param), APPLICATION) as opened:
        yield opened


async def one_per_protocol(clients: Clients, room: str) -> dict[str, Any]:
    """Return a member per protocol; the native one joins first, and creates the room."""
    return {protocol: await clients.connect(protocol, room) for protocol in PROTOCOLS}


def new_room() -> str:
    return str(uuid.uuid4())


def expected_frame(
    protocol: str, room: str, event: str, data: Any, payload: bytes, params: list[str], sender: str
) -> Any:
    """Return the frame of a message, without the parts that differ each time."""
    if protocol == "native":
        return {"room": room, "event": event, "data": data, "from": sender}
    if protocol == "roomer":
        return (room, event, "", sender, payload)
    if protocol == "rtbroadcaster":
        fields = {"funcKey": event, "funcParams": params, "stateMessage": False}
        return {"uuid": room, "status": CONNECTED, **fields}
    if protocol == "goroomserver":
        members = data if isinstance(data, dict) else {"data": data}
        name = {} if event == "message" else {"eventName": event}
        names = {"roomName": room, "appName": APPLICATION, "userName": sender}
        return {"eventType": 11, "code": 200, "error": NO_ERROR, "data": {**members, **name, **names}}
    return payload


NO_ERROR = {"code": 0, "message": ""}


def comparable(protocol: str, frame: Any) -> Any:
    """Return a received frame without the parts that differ each time."""
    if protocol != "native":
        return frame
    return {name: frame[name] for name in ("room", "event", "data")} | {"from": frame["from"]["name"]}


@pytest.mark.parametrize(
    ("protocol", "content", "event", "data", "payload", "params"),
    MESSAGES,
    ids=[f"{each[0]}-{number}" for number, each in enumerate(MESSAGES)],
)
async def test_a_message_is_received_in_every_protocol(
    clients: Clients, protocol: str, content: Any, event: str, data: Any, payload: bytes, params: list[str]
) -> None:
    room = new_room()
    members = await one_per_protocol(clients, room)
    sending = await clients.connect(protocol, room)
    await sending.send_message(room, content, event)
    received = {name: await each.receive_message() for name, each in members.items()}
    sender = sending.name or received["native"]["from"]["name"]
    assert sending.name or UUID.fullmatch(sender)
    for name, frame in received.items():
        expected = expected_frame(name, room, event, data, payload, params, sender)
        assert comparable(name, frame) == expected, name
    for name, each in members.items():
        assert [more for more in await each.drain() if each.is_message(more)] == [], name


async def test_a_room_of_the_database_is_shared_by_all_protocols(clients: Clients) -> None:
    members = await one_per_protocol(clients, OPEN_ROOM)
    joined = await members["native"].request("members", room=OPEN_ROOM)
    assert joined["data"]["count"] == 5
    await members["rtbroadcaster"].send_message(OPEN_ROOM, ["every member may send"], "note")
    for protocol in ("native", "roomer", "goroomserver", "gowsev"):
        await members[protocol].receive_message()


async def test_rtbroadcaster_can_join_a_room_whose_name_is_no_uuid(clients: Clients) -> None:
    room = f"plain room {new_room()[:8]}"
    members = await one_per_protocol(clients, room)
    await members["native"].send_message(room, "hello")
    assert (await members["rtbroadcaster"].receive_message())["uuid"] == room


# Who may send ---------------------------------------------------------------------------------------


async def test_only_the_owner_of_a_broadcast_may_send_in_every_protocol(clients: Clients) -> None:
    owner = await clients.connect("rtbroadcaster")
    room = await owner.create_room()
    members = await one_per_protocol(clients, room)
    await check_refused(members, room, "not_sender", "only the owner can broadcast")
    await owner.send_message(room, ["1"], "slide")
    received = {protocol: await each.receive_message() for protocol, each in members.items()}
    sender = received["native"]["from"]["name"]
    for protocol, frame in received.items():
        expected = expected_frame(protocol, room, "slide", ["1"], b'["1"]', ["1"], sender)
        assert comparable(protocol, frame) == expected, protocol


async def check_refused(members: dict[str, Any], room: str, code: str, text: str | None) -> None:
    """Assert that no member may send, and each receives its protocol's error."""
    native, roomer = members["native"], members["roomer"]
    answer = await native.request("message", room=room, data="no")
    assert (answer["type"], answer["code"]) == ("error", code)
    await roomer.send_message(room, b"no", "note")
    assert [frame for frame in await roomer.drain() if roomer.is_message(frame)] == []
    listener = members["rtbroadcaster"]
    await listener.send_message(room, ["no"], "note")
    received = await listener.receive()
    assert (received["status"]["value"], received["funcKey"]) == (3, "")
    assert received["status"]["text"] not in ("", "connected")
    if text is not None:
        assert received["status"]["text"] == text
    refused = await members["goroomserver"].request(11, {"no": 1}, room)
    assert refused["code"] == 500
    await members["gowsev"].send_message(room, b"no")
    assert await members["gowsev"].receive() == b"Invalid message"


async def test_a_broadcast_ends_with_its_owner_in_every_protocol(clients: Clients) -> None:
    owner = await clients.connect("rtbroadcaster")
    room = await owner.create_room()
    members = await one_per_protocol(clients, room)
    owner.drop()
    native, listener = members["native"], members["rtbroadcaster"]
    while (frame := await native.receive())["type"] != "removed":
        pass
    assert (frame["room"], frame["reason"]) == (room, "closed")
    while (frame := await members["roomer"].receive())[1] == "new_member":
        pass
    left = [frame]
    while left[-1][1] == "member_left":
        left.append(await members["roomer"].receive())
    assert left[-1][:2] == (room, "leave_ack")
    assert (await listener.receive())["status"] == {"value": 0, "text": "not connected"}
    with pytest.raises(ConnectionClosed):
        await listener.receive()
    assert (await members["goroomserver"].request(11, {}, room))["error"]["code"] == 7
    await members["gowsev"].send_message(room, b"too late")
    assert await members["gowsev"].receive() == b"OK"
    assert await members["gowsev"].drain() == []


# Presence ------------------------------------------------------------------------------------------


async def test_all_protocols_share_the_member_list(clients: Clients) -> None:
    room = new_room()
    members = await one_per_protocol(clients, room)
    listed = (await members["native"].request("members", room=room))["data"]
    assert listed["count"] == 5
    names = {each["name"] for each in listed["members"]}
    assert {each.name for each in members.values() if each.name} < names
    newcomer = await clients.connect("roomer")
    ack = await newcomer.join(room)
    assert set(json.loads(ack[4])) == names | {newcomer.name}
    for protocol in ("rtbroadcaster", "goroomserver", "gowsev"):
        members[protocol].drop()
    gone = set()
    while len(gone) < 3:
        where, event, _, _, member_name = await newcomer.receive()
        if where == room and event == "member_left":
            gone.add(member_name.decode())
    assert gone == names - {members["native"].name, members["roomer"].name}
    now = (await members["native"].request("members", room=room))["data"]
    assert {each["name"] for each in now["members"]} == (names | {newcomer.name}) - gone


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
async def test_joins_and_leaves_are_sent_in_the_protocols_that_have_them(
    clients: Clients, protocol: str
) -> None:
    room = new_room()
    members = await one_per_protocol(clients, room)
    for each in members.values():
        await each.drain()
    newcomer = await clients.connect(protocol, room)
    native, roomer = members["native"], members["roomer"]
    joined = await native.receive()
    assert (joined["type"], joined["room"]) == ("joined", room)
    name = joined["user"]["name"]
    assert newcomer.name in ("", name)
    while (frame := await roomer.receive())[0] != room:
        pass
    assert frame == (room, "new_member", "", "", name.encode())
    if protocol == "native":
        # A dropped native client would stay a member for the grace period.
        await newcomer.request("leave", room=room)
    else:
        newcomer.drop()
    left = await native.receive()
    assert (left["type"], left["user"]["name"]) == ("left", name)
    for silent in ("rtbroadcaster", "gowsev"):
        assert await members[silent].drain() == []
    # Frames of added and removed rooms are expected.
    assert {each["eventType"] for each in await members["goroomserver"].drain()} <= {12, 13}


async def test_a_subscriber_of_goroomserver_is_no_member(clients: Clients) -> None:
    room = new_room()
    members = await one_per_protocol(clients, room)
    subscriber = await clients.connect("goroomserver")
    assert (await subscriber.request(9, {"roomName": room}))["code"] == 200
    assert (await members["native"].request("members", room=room))["data"]["count"] == 5
    await members["gowsev"].send_message(room, b"hello")
    assert (await subscriber.receive_message())["data"]["data"] == "hello"


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
async def test_a_full_room_refuses_clients_of_every_protocol(clients: Clients, protocol: str) -> None:
    room, owner = new_room(), await clients.connect("native")
    await owner.request("create", room=room, max_members=2)
    await clients.connect("roomer", room)
    await clients.connect("gowsev", room)
    client = await clients.connect(protocol)
    answer = await client.join(room)
    assert not client.is_joined(answer)
    if protocol == "native":
        assert answer["code"] == "room_full"
    elif protocol == "goroomserver":
        assert answer["error"] == {"code": 12, "message": "room is full"}
    elif protocol == "rtbroadcaster":
        assert answer["status"]["value"] == 0
        assert "full" in answer["status"]["text"]
        assert answer["uuid"] == room
    elif protocol == "gowsev":
        assert answer == b"Invalid message"


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
async def test_a_room_with_a_password_refuses_protocols_without_passwords(
    clients: Clients, protocol: str
) -> None:
    room, owner = new_room(), await clients.connect("native")
    await owner.request("create", room=room, password="open sesame")
    client = await clients.connect(protocol)
    assert not client.is_joined(await client.join(room))
    if protocol == "gowsev":
        await client.send_message(room, b"without the password")
        assert await client.receive() == b"Invalid message"


# History and state -----------------------------------------------------------------------------------


async def test_the_history_holds_the_messages_of_all_protocols(clients: Clients) -> None:
    room = new_room()
    members = await one_per_protocol(clients, room)
    contents: dict[str, Any] = {
        "native": "from native",
        "roomer": b"from roomer",
        "rtbroadcaster": ["from", "rtbroadcaster"],
        "goroomserver": {"from": "goroomserver"},
        "gowsev": b"from gowsev",
    }
    for protocol, content in contents.items():
        await members[protocol].send_message(room, content, "message")
        await members["native"].receive_message()
    history = (await members["native"].request("history", room=room))["data"]["messages"]
    assert [each["data"] for each in history] == [
        content.decode() if isinstance(content, bytes) else content for content in contents.values()
    ]
    assert [each["seq"] for each in history] == [1, 2, 3, 4, 5]
    assert all("original" not in each for each in history)


async def test_state_of_native_clients_is_replayed_to_rtbroadcaster(clients: Clients) -> None:
    room, native = new_room(), await clients.connect("native")
    await native.join(room)
    for event, data in (
        ("slide", ["1"]),
        ("title", "Protocols"),
        ("size", {"x": 1}),
        ("title", "Five protocols"),
    ):
        answer = await native.request("message", room=room, event=event, data=data, state=True)
        assert answer["type"] == "reply"
    listener = await clients.connect("rtbroadcaster", room)
    replayed = [await listener.receive() for _ in range(3)]
    assert [(each["funcKey"], each["funcParams"]) for each in replayed] == [
        ("slide", ["1"]),
        ("title", ["Five protocols"]),
        ("size", ['{"x": 1}']),
    ]
    assert all(each["stateMessage"] is True and each["uuid"] == room for each in replayed)
    await native.request("message", room=room, event="title", data=None, state=True)
    assert [each["funcKey"] for each in await replayed_state(clients, room, 2)] == ["slide", "size"]


async def replayed_state(clients: Clients, room: str, number: int) -> list[Any]:
    newcomer = await clients.connect("rtbroadcaster", room)
    replayed = [await newcomer.receive() for _ in range(number)]
    assert await newcomer.drain() == []
    return replayed


async def test_state_of_rtbroadcaster_is_state_for_native_clients(clients: Clients) -> None:
    owner = await clients.connect("rtbroadcaster")
    room = await owner.create_room()
    await owner.send_message(room, ["1", "2"], "slide", state=True)
    await owner.send_message(room, None, "stop", state=True)
    await owner.send(Rtbroadcaster.message(3, room, funcKey="own", funcParams=["x"], stateMessage=True, z=9))
    await owner.drain()
    native = await clients.connect("native")
    joined = (await native.join(room))["data"]
    assert [(each["event"], each["data"]) for each in joined["state"]] == [
        ("slide", ["1", "2"]),
        ("stop", []),
        ("own", ["x"]),
    ]
    assert all("original" not in each and each["state"] is True for each in joined["state"])
    assert joined["room"]["mode"] == "broadcast"


async def test_a_direct_message_reaches_a_recipient_of_another_protocol(clients: Clients) -> None:
    room = new_room()
    members = await one_per_protocol(clients, room)
    for protocol in ("roomer", "goroomserver"):
        await members["native"].request(
            "message", room=room, data="psst", to=members[protocol].name, echo=False
        )
        frame = await members[protocol].receive_message()
        assert "psst" in str(frame)
        if protocol == "roomer":
            assert frame == (room, "message", members["roomer"].name, members["native"].name, b"psst")
    for protocol in ("rtbroadcaster", "gowsev"):
        assert await members[protocol].drain() == []


async def test_direct_messages_of_roomer_have_their_true_sender(clients: Clients) -> None:
    room = new_room()
    members = await one_per_protocol(clients, room)
    roomer, other = members["roomer"], await clients.connect("roomer")
    await roomer.send(roomer.frame("anywhere", "whisper", b"psst", dst=other.name))
    assert await other.receive_message() == ("anywhere", "whisper", other.name, roomer.name, b"psst")
    for target, count in (("anywhere", 0), (room, 1)):
        for protocol in ("native", "goroomserver"):
            await roomer.send(roomer.frame(target, "whisper", b"psst", dst=members[protocol].name))
        await roomer.drain()
        # Other protocols have no messages outside of rooms; in a common room it is a direct message.
        native = [each for each in await members["native"].drain() if each["type"] == "message"]
        assert [(each["from"]["name"], each["to"]) for each in native] == [
            (roomer.name, [members["native"].name])
        ] * count
        other = [each["data"] for each in await members["goroomserver"].drain() if each["eventType"] == 11]
        assert [each["userName"] for each in other] == [roomer.name] * count
    for silent in ("rtbroadcaster", "gowsev"):
        assert await members[silent].drain() == []


@pytest.mark.parametrize("event", ["new_member", "member_left", "join_ack", "leave_ack", "open", "close"])
async def test_no_client_can_send_reserved_events_to_roomer(clients: Clients, event: str) -> None:
    room = new_room()
    members = await one_per_protocol(clients, room)
    roomer = members["roomer"]
    await roomer.drain()
    await members["native"].request("message", room=room, event=event, data=members["gowsev"].name)
    await members["native"].request("message", room=room, event=event, data="x", to=roomer.name)
    await members["rtbroadcaster"].send_message(room, ["x"], event)
    await members["rtbroadcaster"].drain()
    await members["native"].send_message(room, "marker")
    assert [frame[4] for frame in await roomer_until(roomer, b"marker")] == [b"marker"]


async def roomer_until(roomer: Any, payload: bytes) -> list[Any]:
    frames = [await roomer.receive()]
    while frames[-1][4] != payload:
        frames.append(await roomer.receive())
    return frames


# Two processes, and changes in the admin ---------------------------------------------------------------


@pytest.fixture
async def here_and_there() -> AsyncIterator[tuple[Clients, Clients]]:
    first, second = sites.pair()
    async with Clients(first, APPLICATION) as here, Clients(second, APPLICATION) as there:
        yield here, there


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
async def test_two_processes_share_a_room_in_every_protocol(
    here_and_there: tuple[Clients, Clients], protocol: str
) -> None:
    here, there = here_and_there
    _, content, event, data, payload, params = next(each for each in MESSAGES if each[0] == protocol)
    room = new_room()
    first = await one_per_protocol(here, room)
    second = await one_per_protocol(there, room)
    assert (await first["native"].request("members", room=room))["data"]["count"] == 10
    sending: Client = await here.connect(protocol, room)
    await sending.send_message(room, content, event)
    sender = sending.name
    for members in (first, second):
        for name, each in members.items():
            frame = await each.receive_message()
            sender = sender or frame["from"]["name"]
            expected = expected_frame(name, room, event, data, payload, params, sender)
            assert comparable(name, frame) == expected, name


async def test_a_message_of_the_server_is_received_in_every_protocol(
    here_and_there: tuple[Clients, Clients],
) -> None:
    here, there = here_and_there
    room = new_room()
    members = await one_per_protocol(here, room)
    script = f"from rooms import publish; publish({APPLICATION!r}, {room!r}, {{'now': 1}}, event='news')"
    there.server.manage("shell", "-v", "0", "-c", script)
    for protocol, each in members.items():
        frame = await each.receive_message()
        if protocol == "native":
            assert frame["from"] is None
            continue
        expected = expected_frame(protocol, room, "news", {"now": 1}, b'{"now":1}', ['{"now":1}'], "")
        assert frame == expected, protocol


async def test_a_broadcast_ends_in_both_processes(here_and_there: tuple[Clients, Clients]) -> None:
    here, there = here_and_there
    owner = await here.connect("rtbroadcaster")
    room = await owner.create_room()
    listeners = [await each.connect("rtbroadcaster", room) for each in (here, there, there)]
    await owner.send_message(room, ["1"], "slide")
    for each in listeners:
        assert (await each.receive())["funcParams"] == ["1"]
    await owner.send(Rtbroadcaster.message(4, room))
    for each in (owner, *listeners):
        assert (await each.receive())["status"] == {"value": 0, "text": "not connected"}
        await each.wait_closed()


async def test_mutes_and_bans_apply_in_every_protocol(here_and_there: tuple[Clients, Clients]) -> None:
    here, there = here_and_there
    room = new_room()
    watcher = await there.connect("native", room)
    members = await one_per_protocol(here, room)
    names = [each["name"] for each in (await watcher.request("members", room=room))["data"]["members"]]
    names.remove(watcher.name)
    restrict(here, "Mute", room, names)
    await check_refused(members, room, "muted", None)
    await watcher.drain()
    restrict(here, "Ban", room, names)
    left = set()
    while left != set(names):
        frame = await watcher.receive()
        assert frame["type"] == "left", "a message of a muted client was received"
        left.add(frame["user"]["name"])
    assert (await members["rtbroadcaster"].receive())["status"]["value"] == 0
    await members["rtbroadcaster"].wait_closed()
    del members["rtbroadcaster"]
    for protocol, each in members.items():
        if protocol == "roomer":
            while (await each.receive())[:2] != (room, "leave_ack"):
                pass
        await each.drain()
        assert not each.is_joined(await each.join(room)), protocol


def restrict(clients: Clients, kind: str, room: str, names: list[str]) -> None:
    """Mute or ban guests in a room, as the admin does, in a process of its own."""
    script = (
        "from rooms.models import Ban, Mute, Room\n"
        f"room = Room.objects.get(name={room!r})\n"
        f"for name in {names!r}:\n"
        f"    {kind}.objects.create(application=room.application, room=room, guest=name)\n"
    )
    clients.server.manage("shell", "-v", "0", "-c", script)
