"""Presence (section 6): `joined` and `left` are about users, not connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration import native
from tests.integration.native import unique

if TYPE_CHECKING:
    from tests.integration.native import Visitors

visitors = native.visitors


async def test_a_join_and_a_leave_are_broadcast(visitors: Visitors) -> None:
    room = unique("room")
    witness, client = await visitors.guest(), await visitors.guest()
    await witness.join(room)
    await client.join(room)
    assert await witness.push() == {"type": "joined", "room": room, "user": client.user}
    assert await client.request("leave", room=room) == {}
    assert await witness.push() == {"type": "left", "room": room, "user": client.user, "reason": "left"}
    assert (await witness.request("members", room=room))["members"] == [witness.user]
    await client.join(room)
    assert (await witness.push())["type"] == "joined"


async def test_a_leave_without_a_membership_is_refused(visitors: Visitors) -> None:
    room = unique("room")
    await visitors.members(room, 1)
    client = await visitors.guest()
    assert await client.refused("leave", room=room) == "not_member"
    await client.join(room)
    await client.request("leave", room=room)
    assert await client.refused("leave", room=room) == "not_member"


async def test_the_first_join_and_the_last_leave_of_a_user_are_broadcast(visitors: Visitors) -> None:
    room = unique("room")
    witness, laptop = await visitors.members(room, 2)
    phone = await visitors.again(laptop)
    assert (await phone.join(room))["count"] == 2
    await laptop.request("leave", room=room)
    await phone.send_message(room, "still here")
    assert (await witness.push())["data"] == "still here"
    assert (await witness.request("members", room=room))["count"] == 2
    await phone.request("leave", room=room)
    assert (await witness.push())["type"] == "left"
    assert (await witness.request("members", room=room))["count"] == 1


async def test_a_drop_of_one_of_two_connections_is_not_broadcast(visitors: Visitors) -> None:
    room = unique("room")
    witness, laptop = await visitors.members(room, 2)
    phone = await visitors.again(laptop)
    await phone.join(room)
    laptop.drop()
    await phone.request("leave", room=room)
    await phone.join(room)
    await phone.send_message(room, "marker")
    assert (await witness.push())["data"] == "marker"


async def test_a_return_within_the_grace_period_is_not_broadcast(visitors: Visitors) -> None:
    room = unique("room")
    witness, client = await visitors.members(room, 2)
    for number in range(3):
        client.drop()
        client = await visitors.again(client)
        assert (await witness.request("members", room=room))["count"] == 2
        data = await client.join(room)
        assert (data["count"], len(data["members"])) == (2, 2)
        await client.send_message(room, number)
        assert (await witness.push())["data"] == number


async def test_a_leave_after_a_return_is_broadcast_once(visitors: Visitors) -> None:
    room = unique("room")
    witness, client = await visitors.members(room, 2)
    client.drop()
    back = await visitors.again(client)
    await back.join(room)
    await back.request("leave", room=room)
    assert await witness.push() == {"type": "left", "room": room, "user": client.user, "reason": "left"}
    await witness.send_message(room, "marker")
    assert (await witness.push())["type"] == "message"


async def test_subscriptions_are_not_broadcast(visitors: Visitors) -> None:
    room = unique("room")
    witness, subscriber = await visitors.guest(), await visitors.guest()
    await witness.join(room)
    await subscriber.request("subscribe", room=room)
    await subscriber.request("unsubscribe", room=room)
    await witness.send_message(room, "marker")
    assert (await witness.push())["type"] == "message"


async def test_presence_is_broadcast_in_rooms_without_history(visitors: Visitors) -> None:
    room = unique("room")
    witness, client = await visitors.members(room, 2, application="bench")
    client.drop()
    back = await visitors.again(client, application="bench")
    await back.join(room)
    await back.request("leave", room=room)
    assert await witness.push() == {"type": "left", "room": room, "user": client.user, "reason": "left"}
