"""Rooms (section 4): list, create, close, broadcast rooms, passwords, capacity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration import native
from tests.integration.native import unique

if TYPE_CHECKING:
    from tests.integration.native import Client, Message, Visitors

visitors = native.visitors


async def push_about(client: Client, kind: str, room: str) -> Message:
    """Return the next push of this type about this room; other tests may leave rooms behind."""
    while True:
        push = await client.push(kind)
        if push["room"] == room or (isinstance(push["room"], dict) and push["room"]["name"] == room):
            return push


async def test_rooms_are_listed_with_their_members(visitors: Visitors) -> None:
    client, room = await visitors.guest(), unique("room")
    await client.request("create", room=room, title="A title", mode="broadcast", max_members=7)
    await visitors.members(room, 2)
    data = await client.request("rooms", prefix=room)
    assert data == {
        "rooms": [{"name": room, "title": "A title", "members": 2, "max_members": 7, "mode": "broadcast"}],
        "more": False,
    }


async def test_prefix_and_limit_select_rooms(visitors: Visitors) -> None:
    client, prefix = await visitors.guest(), unique("room")
    names = {f"{prefix}-{number}" for number in range(5)}
    for name in names:
        await client.request("create", room=name)
    data = await client.request("rooms", prefix=prefix)
    assert ({room["name"] for room in data["rooms"]}, data["more"]) == (names, False)
    data = await client.request("rooms", prefix=prefix, limit=5)
    assert (len(data["rooms"]), data["more"]) == (5, False)
    data = await client.request("rooms", prefix=prefix, limit=3)
    assert (len(data["rooms"]), data["more"]) == (3, True)
    data = await client.request("rooms", prefix=unique("other"))
    assert data == {"rooms": [], "more": False}
    assert (await client.request("rooms"))["rooms"]


@pytest.mark.parametrize("prefix", ["%", "_", "*", "\\", "'"])
async def test_a_prefix_is_no_pattern(visitors: Visitors, prefix: str) -> None:
    client, room = await visitors.guest(), unique("room")
    await client.join(room)
    await client.join(prefix + room)
    found = {entry["name"] for entry in (await client.request("rooms", prefix=prefix))["rooms"]}
    assert prefix + room in found
    assert all(name.startswith(prefix) for name in found)


async def test_a_client_that_listed_rooms_receives_changes_of_the_list(visitors: Visitors) -> None:
    asked, not_asked, owner = [await visitors.guest() for _ in range(3)]
    room = unique("room")
    await asked.request("rooms")
    await owner.request("create", room=room, title="New")
    added = await push_about(asked, "room_added", room)
    assert (added["room"]["name"], added["room"]["title"]) == (room, "New")
    await owner.request("close", room=room)
    assert (await push_about(asked, "room_removed", room))["room"] == room
    assert await not_asked.before_pong() == []


async def test_rooms_on_demand_are_announced_and_deleted_when_empty(visitors: Visitors) -> None:
    asked, client = [await visitors.guest(application="bench") for _ in range(2)]
    room = unique("room")
    await asked.request("rooms")
    await client.join(room)
    await push_about(asked, "room_added", room)
    await client.request("leave", room=room)
    await push_about(asked, "room_removed", room)
    assert (await asked.request("rooms", prefix=room))["rooms"] == []


async def test_rooms_of_durable_stay_when_empty(visitors: Visitors) -> None:
    client, room = await visitors.guest(), unique("room")
    await client.join(room)
    await client.send_message(room, "kept")
    await client.request("leave", room=room)
    assert len((await client.request("rooms", prefix=room))["rooms"]) == 1
    assert [message["data"] for message in (await client.join(room))["messages"]] == ["kept"]


async def test_a_creator_owns_the_room_and_is_no_member_yet(visitors: Visitors) -> None:
    owner, other = await visitors.guest(), await visitors.guest()
    room = unique("room")
    made = (await owner.request("create", room=room, title="T", max_members=3))["room"]
    assert (made["name"], made["title"], made["mode"]) == (room, "T", "open")
    assert (made["owner"], made["max_members"]) == (owner.user["name"], 3)
    assert await owner.refused("message", room=room, data=1) == "not_member"
    joined = await owner.join(room)
    assert (joined["count"], joined["room"]["owner"]) == (1, owner.user["name"])
    assert joined["room"]["you"] == {"send": True, "moderate": True}
    assert (await other.join(room))["room"]["you"] == {"send": True, "moderate": False}


async def test_a_room_is_created_once(visitors: Visitors) -> None:
    first, second = await visitors.guest(), await visitors.guest()
    made, on_demand = unique("room"), unique("room")
    await first.request("create", room=made)
    await first.join(on_demand)
    for room in (made, on_demand):
        assert await second.refused("create", room=room) == "room_exists"
        assert await first.refused("create", room=room) == "room_exists"


async def test_a_closed_room_removes_its_members(visitors: Visitors) -> None:
    owner, room = await visitors.guest(), unique("room")
    await owner.request("create", room=room)
    epoch = (await owner.join(room))["position"]["epoch"]
    await owner.send_message(room, "lost")
    member, phone, subscriber = await visitors.guest(), await visitors.guest(), await visitors.guest()
    await member.join(room)
    await phone.join(room)
    await subscriber.request("subscribe", room=room)
    assert await owner.request("close", room=room) == {}
    for client in (owner, member, phone, subscriber):
        removed = await client.push("removed")
        assert (removed["room"], removed["reason"]) == (room, "closed")
        assert await client.refused("message", room=room, data=1) in ("not_member", "room_not_found")
        assert await client.refused("history", room=room) in ("not_member", "room_not_found")
    again = await member.join(room)
    assert (again["messages"], again["position"]["seq"], again["count"]) == ([], 0, 1)
    assert again["position"]["epoch"] != epoch


async def test_only_the_owner_closes_a_room(visitors: Visitors) -> None:
    owner, member, outsider = [await visitors.guest() for _ in range(3)]
    room = unique("room")
    await owner.request("create", room=room)
    await member.join(room)
    assert await member.refused("close", room=room) == "permission_denied"
    assert await outsider.refused("close", room=room) == "permission_denied"
    assert await outsider.refused("close", room=unique("room")) == "room_not_found"
    await member.send_message(room, "still open")


async def test_in_a_broadcast_room_only_its_owner_sends(visitors: Visitors) -> None:
    owner, listener = await visitors.guest(), await visitors.guest()
    room = unique("room")
    await owner.request("create", room=room, mode="broadcast")
    assert (await owner.join(room))["room"]["you"]["send"] is True
    joined = await listener.join(room)
    assert (joined["room"]["mode"], joined["room"]["you"]["send"]) == ("broadcast", False)
    for fields in ({}, {"state": True}, {"volatile": True}, {"to": owner.user["name"]}):
        assert await listener.refused("message", room=room, data="lost", **fields) == "not_sender"
    await owner.send_message(room, "received")
    assert (await listener.messages(1))[0]["data"] == "received"
    phone = await visitors.again(owner)
    await phone.join(room)
    await phone.send_message(room, "from the owner's other connection")
    assert (await listener.messages(1))[0]["seq"] == 2


@pytest.mark.parametrize("kind", ["join", "subscribe"])
async def test_a_room_with_a_password_needs_it(visitors: Visitors, kind: str) -> None:
    owner, guest = await visitors.guest(), await visitors.guest()
    room, password = unique("room"), unique("pässword")
    made = await owner.request("create", room=room, password=password)
    for wrong in (None, "", "wrong", password.upper(), password + " ", password[:-1]):
        assert (wrong, await guest.refused(kind, room=room, password=wrong)) == (wrong, "bad_password")
    joined = await guest.request(kind, room=room, password=password)
    listed = await guest.request("rooms", prefix=room)
    assert password not in repr([made, joined, listed])


async def test_a_full_room_refuses_a_join(visitors: Visitors) -> None:
    owner, room = await visitors.guest(), unique("room")
    await owner.request("create", room=room, max_members=2)
    first, second = await visitors.members(room, 2)
    third = await visitors.guest()
    assert await third.refused("join", room=room) == "room_full"
    assert (await (await visitors.again(second)).join(room))["count"] == 2
    await first.request("leave", room=room)
    assert (await third.join(room))["count"] == 2
    assert await first.refused("join", room=room) == "room_full"


async def test_a_dropped_member_counts_towards_the_capacity(visitors: Visitors) -> None:
    owner, room = await visitors.guest(), unique("room")
    await owner.request("create", room=room, max_members=1)
    (member,) = await visitors.members(room, 1)
    member.drop()
    back = await visitors.again(member)
    assert (await back.join(room))["count"] == 1
