"""One room, five doors: what is said at one is heard at every other, in its own words.

The rooms' names are UUIDs, so that rtbroadcaster's clients can come in as well.
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
from tests.integration.sites import OPEN_ROOM, Guests
from tests.servers import KINDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.protocols import Visitor

APPLICATION = "doors"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CONNECTED = {"value": 3, "text": "connected"}

#: Who says what, and what that is as an event and its data, as bytes, and as rtbroadcaster's parameters.
SAYINGS: list[tuple[str, Any, str, Any, bytes, list[str]]] = [
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
async def guests(request: pytest.FixtureRequest) -> AsyncIterator[Guests]:
    async with Guests(sites.site(request.param), APPLICATION) as everyone:
        yield everyone


async def at_every_door(guests: Guests, room: str) -> dict[str, Any]:
    """A member at each door. The native one is first and makes the room, if it is not there."""
    return {protocol: await guests.come(protocol, room) for protocol in PROTOCOLS}


def new_room() -> str:
    return str(uuid.uuid4())


def words(
    protocol: str, room: str, event: str, data: Any, payload: bytes, params: list[str], sender: str
) -> Any:
    """How a door tells of a message, as far as it is told alike each time."""
    if protocol == "native":
        return {"room": room, "event": event, "data": data, "from": sender}
    if protocol == "roomer":
        return (room, event, "", sender, payload)
    if protocol == "rtbroadcaster":
        told = {"funcKey": event, "funcParams": params, "stateMessage": False}
        return {"uuid": room, "status": CONNECTED, **told}
    if protocol == "goroomserver":
        told = data if isinstance(data, dict) else {"data": data}
        name = {} if event == "message" else {"eventName": event}
        place = {"roomName": room, "appName": APPLICATION, "userName": sender}
        return {"eventType": 11, "code": 200, "error": NO_ERROR, "data": {**told, **name, **place}}
    return payload


NO_ERROR = {"code": 0, "message": ""}


def heard_words(protocol: str, heard: Any) -> Any:
    """What was heard, without what differs each time."""
    if protocol != "native":
        return heard
    return {name: heard[name] for name in ("room", "event", "data")} | {"from": heard["from"]["name"]}


@pytest.mark.parametrize(
    ("protocol", "said", "event", "data", "payload", "params"),
    SAYINGS,
    ids=[f"{each[0]}-{number}" for number, each in enumerate(SAYINGS)],
)
async def test_what_is_said_at_one_door_is_heard_at_all_in_their_own_words(
    guests: Guests, protocol: str, said: Any, event: str, data: Any, payload: bytes, params: list[str]
) -> None:
    room = new_room()
    members = await at_every_door(guests, room)
    speaker = await guests.come(protocol, room)
    await speaker.say(room, said, event)
    told = {listening: await each.told() for listening, each in members.items()}
    sender = speaker.name or told["native"]["from"]["name"]
    assert speaker.name or UUID.fullmatch(sender)
    for listening, heard in told.items():
        expected = words(listening, room, event, data, payload, params, sender)
        assert heard_words(listening, heard) == expected, listening
    for listening, each in members.items():
        assert [more for more in await each.answers() if each.is_message(more)] == [], listening


async def test_a_room_of_the_database_is_everybodys(guests: Guests) -> None:
    members = await at_every_door(guests, OPEN_ROOM)
    joined = await members["native"].ask("members", room=OPEN_ROOM)
    assert joined["data"]["count"] == 5
    await members["rtbroadcaster"].say(OPEN_ROOM, ["all speak here"], "note")
    for protocol in ("native", "roomer", "goroomserver", "gowsev"):
        await members[protocol].told()


async def test_a_room_with_a_plain_name_is_open_to_rtbroadcaster_too(guests: Guests) -> None:
    room = f"plain room {new_room()[:8]}"
    members = await at_every_door(guests, room)
    await members["native"].say(room, "hello")
    assert (await members["rtbroadcaster"].told())["uuid"] == room


# Who speaks -----------------------------------------------------------------------------------------


async def test_only_the_owner_of_a_broadcast_speaks_and_is_heard_at_every_door(guests: Guests) -> None:
    owner = await guests.come("rtbroadcaster")
    room = await owner.make()
    members = await at_every_door(guests, room)
    await refused_to_speak(members, room, "not_sender", "only the owner can broadcast")
    await owner.say(room, ["1"], "slide")
    told = {protocol: await each.told() for protocol, each in members.items()}
    sender = told["native"]["from"]["name"]
    for protocol, heard in told.items():
        expected = words(protocol, room, "slide", ["1"], b'["1"]', ["1"], sender)
        assert heard_words(protocol, heard) == expected, protocol


async def refused_to_speak(members: dict[str, Any], room: str, code: str, text: str | None) -> None:
    """Everybody tries to speak, and is told that they may not, as far as their protocol can."""
    native, roomer = members["native"], members["roomer"]
    answer = await native.ask("message", room=room, data="no")
    assert (answer["type"], answer["code"]) == ("error", code)
    await roomer.say(room, b"no", "note")
    assert [heard for heard in await roomer.answers() if roomer.is_message(heard)] == []
    listener = members["rtbroadcaster"]
    await listener.say(room, ["no"], "note")
    told = await listener.hear()
    assert (told["status"]["value"], told["funcKey"]) == (3, "")
    assert told["status"]["text"] not in ("", "connected")
    if text is not None:
        assert told["status"]["text"] == text
    refused = await members["goroomserver"].ask(11, {"no": 1}, room)
    assert refused["code"] == 500
    await members["gowsev"].say(room, b"no")
    assert await members["gowsev"].hear() == b"Invalid message"


async def test_a_broadcast_ends_with_its_owner_at_every_door(guests: Guests) -> None:
    owner = await guests.come("rtbroadcaster")
    room = await owner.make()
    members = await at_every_door(guests, room)
    owner.drop()
    native, listener = members["native"], members["rtbroadcaster"]
    while (heard := await native.hear())["type"] != "removed":
        pass
    assert (heard["room"], heard["reason"]) == (room, "closed")
    while (heard := await members["roomer"].hear())[1] == "new_member":
        pass
    left = [heard]
    while left[-1][1] == "member_left":
        left.append(await members["roomer"].hear())
    assert left[-1][:2] == (room, "leave_ack")
    assert (await listener.hear())["status"] == {"value": 0, "text": "not connected"}
    with pytest.raises(ConnectionClosed):
        await listener.hear()
    assert (await members["goroomserver"].ask(11, {}, room))["error"]["code"] == 7
    await members["gowsev"].say(room, b"anybody?")
    assert await members["gowsev"].hear() == b"OK"
    assert await members["gowsev"].answers() == []


# Who is there ---------------------------------------------------------------------------------------


async def test_presence_is_the_same_at_every_door(guests: Guests) -> None:
    room = new_room()
    members = await at_every_door(guests, room)
    listed = (await members["native"].ask("members", room=room))["data"]
    assert listed["count"] == 5
    names = {each["name"] for each in listed["members"]}
    assert {each.name for each in members.values() if each.name} < names
    late = await guests.come("roomer")
    ack = await late.enter(room)
    assert set(json.loads(ack[4])) == names | {late.name}
    for protocol in ("rtbroadcaster", "goroomserver", "gowsev"):
        members[protocol].drop()
    gone = set()
    while len(gone) < 3:
        where, event, _, _, who = await late.hear()
        if where == room and event == "member_left":
            gone.add(who.decode())
    assert gone == names - {members["native"].name, members["roomer"].name}
    now = (await members["native"].ask("members", room=room))["data"]
    assert {each["name"] for each in now["members"]} == (names | {late.name}) - gone


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
async def test_coming_and_going_is_told_to_those_whose_protocols_tell_it(
    guests: Guests, protocol: str
) -> None:
    room = new_room()
    members = await at_every_door(guests, room)
    for each in members.values():
        await each.answers()
    newcomer = await guests.come(protocol, room)
    native, roomer = members["native"], members["roomer"]
    joined = await native.hear()
    assert (joined["type"], joined["room"]) == ("joined", room)
    name = joined["user"]["name"]
    assert newcomer.name in ("", name)
    while (heard := await roomer.hear())[0] != room:
        pass
    assert heard == (room, "new_member", "", "", name.encode())
    if protocol == "native":
        # Those who drop could come back for a while.
        await newcomer.ask("leave", room=room)
    else:
        newcomer.drop()
    left = await native.hear()
    assert (left["type"], left["user"]["name"]) == ("left", name)
    for silent in ("rtbroadcaster", "gowsev"):
        assert await members[silent].answers() == []
    # Of rooms that others make and leave it does tell.
    assert {each["eventType"] for each in await members["goroomserver"].answers()} <= {12, 13}


async def test_who_subscribes_at_goroomserver_is_no_member(guests: Guests) -> None:
    room = new_room()
    members = await at_every_door(guests, room)
    subscriber = await guests.come("goroomserver")
    assert (await subscriber.ask(9, {"roomName": room}))["code"] == 200
    assert (await members["native"].ask("members", room=room))["data"]["count"] == 5
    await members["gowsev"].say(room, b"hello")
    assert (await subscriber.told())["data"]["data"] == "hello"


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
async def test_a_room_is_full_at_every_door(guests: Guests, protocol: str) -> None:
    room, owner = new_room(), await guests.come("native")
    await owner.ask("create", room=room, max_members=2)
    await guests.come("roomer", room)
    await guests.come("gowsev", room)
    visitor = await guests.come(protocol)
    answer = await visitor.enter(room)
    assert not visitor.admits(answer)
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
async def test_a_room_with_a_password_is_shut_to_those_who_cannot_say_it(
    guests: Guests, protocol: str
) -> None:
    room, owner = new_room(), await guests.come("native")
    await owner.ask("create", room=room, password="open sesame")
    visitor = await guests.come(protocol)
    assert not visitor.admits(await visitor.enter(room))
    if protocol == "gowsev":
        await visitor.say(room, b"through the keyhole")
        assert await visitor.hear() == b"Invalid message"


# What was said --------------------------------------------------------------------------------------


async def test_the_history_holds_what_every_door_said(guests: Guests) -> None:
    room = new_room()
    members = await at_every_door(guests, room)
    said: dict[str, Any] = {
        "native": "from native",
        "roomer": b"from roomer",
        "rtbroadcaster": ["from", "rtbroadcaster"],
        "goroomserver": {"from": "goroomserver"},
        "gowsev": b"from gowsev",
    }
    for protocol, content in said.items():
        await members[protocol].say(room, content, "message")
        await members["native"].told()
    history = (await members["native"].ask("history", room=room))["data"]["messages"]
    assert [each["data"] for each in history] == [
        content.decode() if isinstance(content, bytes) else content for content in said.values()
    ]
    assert [each["seq"] for each in history] == [1, 2, 3, 4, 5]
    assert all("original" not in each for each in history)


async def test_state_of_native_clients_is_replayed_at_rtbroadcaster(guests: Guests) -> None:
    room, native = new_room(), await guests.come("native")
    await native.enter(room)
    for event, data in (("slide", ["1"]), ("title", "Doors"), ("size", {"x": 1}), ("title", "Five doors")):
        answer = await native.ask("message", room=room, event=event, data=data, state=True)
        assert answer["type"] == "reply"
    listener = await guests.come("rtbroadcaster", room)
    replayed = [await listener.hear() for _ in range(3)]
    assert [(each["funcKey"], each["funcParams"]) for each in replayed] == [
        ("slide", ["1"]),
        ("title", ["Five doors"]),
        ("size", ['{"x": 1}']),
    ]
    assert all(each["stateMessage"] is True and each["uuid"] == room for each in replayed)
    await native.ask("message", room=room, event="title", data=None, state=True)
    assert [each["funcKey"] for each in await again_replayed(guests, room, 2)] == ["slide", "size"]


async def again_replayed(guests: Guests, room: str, number: int) -> list[Any]:
    late = await guests.come("rtbroadcaster", room)
    replayed = [await late.hear() for _ in range(number)]
    assert await late.answers() == []
    return replayed


async def test_state_of_rtbroadcaster_is_state_for_native_clients(guests: Guests) -> None:
    owner = await guests.come("rtbroadcaster")
    room = await owner.make()
    await owner.say(room, ["1", "2"], "slide", state=True)
    await owner.say(room, None, "stop", state=True)
    await owner.send(Rtbroadcaster.message(3, room, funcKey="own", funcParams=["x"], stateMessage=True, z=9))
    await owner.answers()
    native = await guests.come("native")
    joined = (await native.enter(room))["data"]
    assert [(each["event"], each["data"]) for each in joined["state"]] == [
        ("slide", ["1", "2"]),
        ("stop", []),
        ("own", ["x"]),
    ]
    assert all("original" not in each and each["state"] is True for each in joined["state"])
    assert joined["room"]["mode"] == "broadcast"


async def test_a_message_to_one_reaches_one_at_any_door(guests: Guests) -> None:
    room = new_room()
    members = await at_every_door(guests, room)
    for protocol in ("roomer", "goroomserver"):
        await members["native"].ask("message", room=room, data="psst", to=members[protocol].name, echo=False)
        heard = await members[protocol].told()
        assert "psst" in str(heard)
        if protocol == "roomer":
            assert heard == (room, "message", members["roomer"].name, members["native"].name, b"psst")
    for protocol in ("rtbroadcaster", "gowsev"):
        assert await members[protocol].answers() == []


async def test_roomers_direct_messages_carry_their_true_sender(guests: Guests) -> None:
    room = new_room()
    members = await at_every_door(guests, room)
    roomer, other = members["roomer"], await guests.come("roomer")
    await roomer.send(roomer.frame("anywhere", "whisper", b"psst", dst=other.name))
    assert await other.told() == ("anywhere", "whisper", other.name, roomer.name, b"psst")
    for said_in, heard in (("anywhere", 0), (room, 1)):
        for protocol in ("native", "goroomserver"):
            await roomer.send(roomer.frame(said_in, "whisper", b"psst", dst=members[protocol].name))
        await roomer.answers()
        # The others know no messages outside of rooms; in one that both are in it is a message to one.
        native = [each for each in await members["native"].answers() if each["type"] == "message"]
        assert [(each["from"]["name"], each["to"]) for each in native] == [
            (roomer.name, [members["native"].name])
        ] * heard
        other = [each["data"] for each in await members["goroomserver"].answers() if each["eventType"] == 11]
        assert [each["userName"] for each in other] == [roomer.name] * heard
    for silent in ("rtbroadcaster", "gowsev"):
        assert await members[silent].answers() == []


@pytest.mark.parametrize("event", ["new_member", "member_left", "join_ack", "leave_ack", "open", "close"])
async def test_nobody_can_feign_at_another_door_what_roomers_server_says(guests: Guests, event: str) -> None:
    room = new_room()
    members = await at_every_door(guests, room)
    roomer = members["roomer"]
    await roomer.answers()
    await members["native"].ask("message", room=room, event=event, data=members["gowsev"].name)
    await members["native"].ask("message", room=room, event=event, data="x", to=roomer.name)
    await members["rtbroadcaster"].say(room, ["x"], event)
    await members["rtbroadcaster"].answers()
    await members["native"].say(room, "marker")
    assert [heard[4] for heard in await roomer_until(roomer, b"marker")] == [b"marker"]


async def roomer_until(roomer: Any, payload: bytes) -> list[Any]:
    heard = [await roomer.hear()]
    while heard[-1][4] != payload:
        heard.append(await roomer.hear())
    return heard


# Two processes, and what is done in the admin ---------------------------------------------------------


@pytest.fixture
async def here_and_there() -> AsyncIterator[tuple[Guests, Guests]]:
    first, second = sites.pair()
    async with Guests(first, APPLICATION) as here, Guests(second, APPLICATION) as there:
        yield here, there


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
async def test_doors_of_two_processes_lead_to_one_room(
    here_and_there: tuple[Guests, Guests], protocol: str
) -> None:
    here, there = here_and_there
    _, said, event, data, payload, params = next(each for each in SAYINGS if each[0] == protocol)
    room = new_room()
    first = await at_every_door(here, room)
    second = await at_every_door(there, room)
    assert (await first["native"].ask("members", room=room))["data"]["count"] == 10
    speaker: Visitor = await here.come(protocol, room)
    await speaker.say(room, said, event)
    sender = speaker.name
    for members in (first, second):
        for listening, each in members.items():
            heard = await each.told()
            sender = sender or heard["from"]["name"]
            expected = words(listening, room, event, data, payload, params, sender)
            assert heard_words(listening, heard) == expected, listening


async def test_the_server_itself_is_heard_at_every_door(here_and_there: tuple[Guests, Guests]) -> None:
    here, there = here_and_there
    room = new_room()
    members = await at_every_door(here, room)
    script = f"from rooms import publish; publish({APPLICATION!r}, {room!r}, {{'now': 1}}, event='news')"
    there.server.manage("shell", "-v", "0", "-c", script)
    for protocol, each in members.items():
        heard = await each.told()
        if protocol == "native":
            assert heard["from"] is None
            continue
        expected = words(protocol, room, "news", {"now": 1}, b'{"now":1}', ['{"now":1}'], "")
        assert heard == expected, protocol


async def test_a_broadcast_ends_in_both_processes(here_and_there: tuple[Guests, Guests]) -> None:
    here, there = here_and_there
    owner = await here.come("rtbroadcaster")
    room = await owner.make()
    listeners = [await each.come("rtbroadcaster", room) for each in (here, there, there)]
    await owner.say(room, ["1"], "slide")
    for each in listeners:
        assert (await each.hear())["funcParams"] == ["1"]
    await owner.send(Rtbroadcaster.message(4, room))
    for each in (owner, *listeners):
        assert (await each.hear())["status"] == {"value": 0, "text": "not connected"}
        await each.closed()


async def test_mutes_and_bans_hold_at_every_door(here_and_there: tuple[Guests, Guests]) -> None:
    here, there = here_and_there
    room = new_room()
    witness = await there.come("native", room)
    members = await at_every_door(here, room)
    names = [each["name"] for each in (await witness.ask("members", room=room))["data"]["members"]]
    names.remove(witness.name)
    restrict(here, "Mute", room, names)
    await refused_to_speak(members, room, "muted", None)
    await witness.answers()
    restrict(here, "Ban", room, names)
    left = set()
    while left != set(names):
        heard = await witness.hear()
        assert heard["type"] == "left", "nobody who is muted was heard"
        left.add(heard["user"]["name"])
    assert (await members["rtbroadcaster"].hear())["status"]["value"] == 0
    await members["rtbroadcaster"].closed()
    del members["rtbroadcaster"]
    for protocol, each in members.items():
        if protocol == "roomer":
            while (await each.hear())[:2] != (room, "leave_ack"):
                pass
        await each.answers()
        assert not each.admits(await each.enter(room)), protocol


def restrict(guests: Guests, kind: str, room: str, names: list[str]) -> None:
    """Mute or ban guests in a room, as the admin does, in a process of its own."""
    script = (
        "from rooms.models import Ban, Mute, Room\n"
        f"room = Room.objects.get(name={room!r})\n"
        f"for name in {names!r}:\n"
        f"    {kind}.objects.create(application=room.application, room=room, guest=name)\n"
    )
    guests.server.manage("shell", "-v", "0", "-c", script)
