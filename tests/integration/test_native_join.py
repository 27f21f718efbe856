"""Join (section 5): the snapshot, its position, and recovery from an earlier position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration import native
from tests.integration.native import unique

if TYPE_CHECKING:
    from tests.integration.native import Client, Message, Visitors

visitors = native.visitors


def seqs(messages: list[Message]) -> list[int]:
    return [message["seq"] for message in messages]


async def room_with(visitors: Visitors, number: int) -> tuple[Client, str]:
    """Return a room whose only member has sent and received 1, 2, 3 …."""
    client, room = await visitors.guest(), unique("room")
    await client.join(room)
    for start in range(0, number, 100):
        for value in range(start, min(start + 100, number)):
            await client.send("message", room=room, data=value + 1)
        await client.messages(min(100, number - start))
    return client, room


async def test_the_first_join_is_answered_with_a_snapshot(visitors: Visitors) -> None:
    client, room = await visitors.guest(), unique("room")
    data = await client.join(room)
    assert {"room", "members", "count", "state", "messages", "recovered", "position"} <= data.keys()
    assert {"name", "title", "mode", "owner", "max_members", "you"} <= data["room"].keys()
    assert (data["room"]["name"], data["room"]["mode"]) == (room, "open")
    assert data["room"]["you"]["send"] is True
    assert isinstance(data["room"]["you"]["moderate"], bool)
    assert (data["members"], data["count"]) == ([client.user], 1)
    assert (data["state"], data["messages"], data["recovered"]) == ([], [], False)
    assert isinstance(data["position"]["epoch"], str)
    assert data["position"]["seq"] == 0


async def test_a_joiner_is_listed_and_receives_no_join_of_its_own(visitors: Visitors) -> None:
    room = unique("room")
    first, second = await visitors.members(room, 2)
    third = await visitors.guest()
    data = await third.join(room)
    assert data["count"] == 3
    assert {member["id"] for member in data["members"]} == {
        client.user["id"] for client in (first, second, third)
    }
    await third.send_message(room, "marker")
    assert (await third.push())["data"] == "marker"


async def test_a_room_without_history_has_no_position(visitors: Visitors) -> None:
    room = unique("room")
    first, second = await visitors.members(room, 2, application="bench")
    await first.send_message(room, "gone")
    third = await visitors.guest(application="bench")
    data = await third.join(room)
    assert (data["position"], data["messages"], data["recovered"]) == (None, [], False)
    data = await third.join(room, since={"epoch": "any", "seq": 1})
    assert (data["position"], data["messages"], data["recovered"]) == (None, [], False)
    assert (await second.messages(1))[0]["data"] == "gone"


async def test_the_position_is_the_newest_message_and_the_next_push_follows_it(visitors: Visitors) -> None:
    sender, room = await room_with(visitors, 5)
    client = await visitors.guest()
    data = await client.join(room)
    assert seqs(data["messages"]) == [1, 2, 3, 4, 5]
    assert data["position"]["seq"] == 5
    for _ in range(3):
        await sender.send_message(room, "more")
    assert seqs(await client.messages(3)) == [6, 7, 8]


async def test_the_snapshot_holds_the_messages_as_they_were_pushed(visitors: Visitors) -> None:
    client, room = await visitors.guest(), unique("room")
    await client.join(room)
    await client.send_message(room, {"text": "hello"}, event="greeting")
    pushed = (await client.messages(1))[0]
    data = await (await visitors.guest()).join(room)
    fields = ("room", "event", "data", "from", "seq", "time")
    assert [{field: message[field] for field in fields} for message in data["messages"]] == [
        {field: pushed[field] for field in fields}
    ]


@pytest.mark.parametrize(
    ("limit", "expected"), [(3, [8, 9, 10]), (10, [*range(1, 11)]), (99, [*range(1, 11)]), (0, [])]
)
async def test_limit_selects_the_newest_messages(visitors: Visitors, limit: int, expected: list[int]) -> None:
    _, room = await room_with(visitors, 10)
    data = await (await visitors.guest()).join(room, limit=limit)
    assert seqs(data["messages"]) == expected
    assert data["position"]["seq"] == 10


async def test_the_default_limit_is_50_and_the_highest_300(visitors: Visitors) -> None:
    _, room = await room_with(visitors, 310)
    client = await visitors.guest()
    assert seqs((await client.join(room))["messages"]) == [*range(261, 311)]
    for limit in (300, 301, 5000):
        data = await client.join(room, limit=limit)
        assert seqs(data["messages"]) == [*range(11, 311)]


async def test_recovery_returns_exactly_the_messages_after_the_position(visitors: Visitors) -> None:
    _, room = await room_with(visitors, 10)
    client = await visitors.guest()
    epoch = (await client.join(room))["position"]["epoch"]
    for seq in (0, 1, 7, 9, 10):
        data = await client.join(room, since={"epoch": epoch, "seq": seq})
        assert data["recovered"] is True
        assert seqs(data["messages"]) == [*range(seq + 1, 11)]
        assert data["position"] == {"epoch": epoch, "seq": 10}


@pytest.mark.parametrize("limit", [0, 2, 50])
async def test_limit_does_not_cut_a_recovery(visitors: Visitors, limit: int) -> None:
    _, room = await room_with(visitors, 10)
    client = await visitors.guest()
    epoch = (await client.join(room))["position"]["epoch"]
    data = await client.join(room, since={"epoch": epoch, "seq": 4}, limit=limit)
    assert data["recovered"] is True
    assert seqs(data["messages"]) == [*range(5, 11)]


async def test_a_dropped_client_recovers_without_a_gap(visitors: Visitors) -> None:
    sender, room = await room_with(visitors, 3)
    client = await visitors.guest()
    position = (await client.join(room))["position"]
    client.drop()
    for value in (4, 5, 6):
        await sender.send_message(room, value)
    back = await visitors.again(client)
    data = await back.join(room, since=position)
    assert (data["recovered"], seqs(data["messages"])) == (True, [4, 5, 6])
    await sender.send_message(room, 7)
    assert seqs(await back.messages(1)) == [7]


@pytest.mark.parametrize("limit", [None, 4])
async def test_another_epoch_or_a_seq_above_the_newest_is_not_recovered(
    visitors: Visitors, limit: int | None
) -> None:
    _, room = await room_with(visitors, 10)
    client = await visitors.guest()
    epoch = (await client.join(room))["position"]["epoch"]
    for since in ({"epoch": "other" + epoch, "seq": 5}, {"epoch": "", "seq": 5}, {"epoch": epoch, "seq": 11}):
        data = await client.join(room, since=since, limit=limit)
        assert data["recovered"] is False
        assert seqs(data["messages"]) == [*range(1, 11)][-(limit or 50) :]
        assert data["position"] == {"epoch": epoch, "seq": 10}


async def test_at_most_300_messages_are_recovered(visitors: Visitors) -> None:
    _, room = await room_with(visitors, 305)
    client = await visitors.guest()
    epoch = (await client.join(room))["position"]["epoch"]
    all_of_them = await client.join(room, since={"epoch": epoch, "seq": 5})
    assert (all_of_them["recovered"], seqs(all_of_them["messages"])) == (True, [*range(6, 306)])
    too_many = await client.join(room, since={"epoch": epoch, "seq": 4})
    assert (too_many["recovered"], seqs(too_many["messages"])) == (False, [*range(256, 306)])


async def test_a_second_join_is_answered_the_same_and_not_broadcast(visitors: Visitors) -> None:
    room = unique("room")
    witness, client = await visitors.members(room, 2)
    await witness.send_message(room, "hello")
    first = await (await visitors.again(client)).join(room)
    assert await client.join(room) == first
    assert first["count"] == 2
    await witness.send_message(room, "marker")
    assert [(await witness.push())["data"] for _ in range(2)] == ["hello", "marker"]
    assert (await client.messages(2))[1]["data"] == "marker"


async def test_a_join_of_a_missing_room_is_refused(visitors: Visitors) -> None:
    application = native.make_application(visitors.server, rooms_on_demand=False)
    client = await visitors.guest(application=application)
    assert await client.refused("join", room=unique("room")) == "room_not_found"
    assert await client.refused("subscribe", room=unique("room")) == "room_not_found"


@pytest.mark.parametrize(
    "name", ["x", "x" * 64, "a b", "a  b", "Café 李 😀", "../etc", "a/b?c#d", "*", "rooms:all", "%00"]
)
async def test_valid_room_names_are_accepted(visitors: Visitors, name: str) -> None:
    first, second = await visitors.guest(application="bench"), await visitors.guest(application="bench")
    assert (await first.join(name))["room"]["name"] == name
    await second.join(name)
    await second.send_message(name, "hello")
    assert (await first.push("message"))["room"] == name


async def test_room_names_are_compared_exactly_as_sent(visitors: Visitors) -> None:
    rest = unique("")
    names = ["caf\u00e9" + rest, "cafe\u0301" + rest, "CAF\u00c9" + rest, "\uff43af\u00e9" + rest]
    for name in names:
        client = await visitors.guest()
        assert (await client.join(name))["count"] == 1


async def test_a_connection_is_in_at_most_128_rooms(visitors: Visitors) -> None:
    client, room = await visitors.guest(application="bench"), unique("room")
    for number in range(128):
        await client.join(f"{room}-{number}")
    assert await client.refused("join", room=f"{room}-128") == "too_many_rooms"
    await client.request("leave", room=f"{room}-0")
    await client.join(f"{room}-128")
