"""History, members and subscriptions (section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration import native
from tests.integration.native import unique

if TYPE_CHECKING:
    from tests.integration.native import Client, Visitors

pytestmark = pytest.mark.database

visitors = native.visitors


async def room_with_ten(visitors: Visitors) -> tuple[Client, str]:
    client, room = await visitors.guest(), unique("room")
    await client.join(room)
    for value in range(1, 11):
        await client.send_message(room, value, event=f"event-{value}")
    return client, room


@pytest.mark.parametrize(
    ("fields", "expected", "more"),
    [
        ({}, [*range(1, 11)], False),
        ({"limit": 10}, [*range(1, 11)], False),
        ({"limit": 300}, [*range(1, 11)], False),
        ({"limit": 3}, [8, 9, 10], True),
        ({"before": 5, "limit": 2}, [3, 4], True),
        ({"before": 3, "limit": 2}, [1, 2], False),
        ({"before": 3}, [1, 2], False),
        ({"before": 1}, [], False),
        ({"before": 99, "limit": 1}, [10], True),
        ({"after": 8}, [9, 10], False),
        ({"after": 8, "limit": 2}, [9, 10], False),
        ({"after": 2, "limit": 3}, [3, 4, 5], True),
        ({"after": 0, "limit": 1}, [1], True),
        ({"after": 10}, [], False),
        ({"after": 99}, [], False),
        ({"after": 2, "before": 6}, [3, 4, 5], False),
        ({"after": 2, "before": 6, "limit": 3}, [3, 4, 5], False),
        ({"after": 2, "before": 7, "limit": 2}, [3, 4], True),
        ({"after": 5, "before": 6}, [], False),
    ],
)
async def test_history_returns_the_page_that_is_asked_for(
    visitors: Visitors, fields: dict[str, Any], expected: list[int], more: bool
) -> None:
    client, room = await room_with_ten(visitors)
    data = await client.request("history", room=room, **fields)
    assert [message["seq"] for message in data["messages"]] == expected
    assert data["more"] is more


async def test_history_returns_the_messages_as_they_were_pushed(visitors: Visitors) -> None:
    client, room = await room_with_ten(visitors)
    pushed = await client.messages(10)
    stored = (await client.request("history", room=room))["messages"]
    fields = ("type", "room", "event", "data", "from", "seq", "time")
    assert [[message[field] for field in fields] for message in stored] == [
        [message[field] for field in fields] for message in pushed
    ]


async def test_history_pages_lead_back_to_the_first_message(visitors: Visitors) -> None:
    client, room = await room_with_ten(visitors)
    seqs: list[int] = []
    page: dict[str, Any] = {"more": True}
    while page["more"]:
        before = {"before": seqs[0]} if seqs else {}
        page = await client.request("history", room=room, limit=4, **before)
        seqs = [message["seq"] for message in page["messages"]] + seqs
    assert seqs == [*range(1, 11)]


async def test_a_room_without_history_returns_no_messages(visitors: Visitors) -> None:
    client, room = await visitors.guest(application="bench"), unique("room")
    await client.join(room)
    await client.send_message(room, "gone")
    assert await client.request("history", room=room) == {"messages": [], "more": False}


@pytest.mark.parametrize("kind", ["history", "members"])
async def test_a_client_outside_the_room_is_refused(visitors: Visitors, kind: str) -> None:
    _, room = await room_with_ten(visitors)
    outsider, leaver = await visitors.guest(), await visitors.guest()
    await leaver.join(room)
    await leaver.request("leave", room=room)
    assert await outsider.refused(kind, room=room) == "not_member"
    assert await leaver.refused(kind, room=room) == "not_member"


async def test_members_are_listed_with_their_number(visitors: Visitors) -> None:
    room = unique("room")
    clients = await visitors.members(room, 5)
    await (await visitors.again(clients[0])).join(room)
    data = await clients[0].request("members", room=room)
    assert (data["count"], data["more"], len(data["members"])) == (5, False, 5)
    assert {member["id"] for member in data["members"]} == {client.user["id"] for client in clients}
    assert all(member in [client.user for client in clients] for member in data["members"])
    assert await clients[1].request("members", room=room) == data


async def test_member_pages_lead_to_the_last_member(visitors: Visitors) -> None:
    room = unique("room")
    clients = await visitors.members(room, 5)
    everyone = (await clients[0].request("members", room=room))["members"]
    found: list[Any] = []
    page: dict[str, Any] = {"more": True}
    while page["more"]:
        after = {"after": found[-1]["name"]} if found else {}
        page = await clients[0].request("members", room=room, limit=2, **after)
        assert page["count"] == 5
        assert len(page["members"]) <= 2
        found += page["members"]
    assert found == everyone


async def test_a_subscriber_receives_and_reads_but_is_no_member(visitors: Visitors) -> None:
    room = unique("room")
    sender, listener = await visitors.members(room, 2)
    await sender.send_message(room, "before")
    subscriber = await visitors.guest()
    data = await subscriber.request("subscribe", room=room)
    assert data["count"] == 2
    assert subscriber.user not in data["members"]
    assert [message["data"] for message in data["messages"]] == ["before"]
    assert data["position"]["seq"] == 1
    assert (await sender.request("members", room=room))["count"] == 2
    await sender.send_message(room, "after")
    assert (await subscriber.messages(1))[0]["seq"] == 2
    assert len((await subscriber.request("history", room=room))["messages"]) == 2
    assert [(await listener.push())["type"] for _ in range(2)] == ["message", "message"]


async def test_a_subscriber_recovers_like_a_member(visitors: Visitors) -> None:
    sender, room = await room_with_ten(visitors)
    subscriber = await visitors.guest()
    epoch = (await subscriber.request("subscribe", room=room, limit=0))["position"]["epoch"]
    data = await subscriber.request("subscribe", room=room, since={"epoch": epoch, "seq": 7})
    assert data["recovered"] is True
    assert [message["seq"] for message in data["messages"]] == [8, 9, 10]
    await sender.send_message(room, "next")
    assert (await subscriber.messages(1))[0]["seq"] == 11


async def test_an_unsubscribed_client_receives_no_more(visitors: Visitors) -> None:
    room = unique("room")
    (sender,) = await visitors.members(room, 1)
    subscriber = await visitors.guest()
    await subscriber.request("subscribe", room=room)
    assert await subscriber.request("unsubscribe", room=room) == {}
    await sender.send_message(room, "unheard")
    assert await subscriber.before_pong() == []
    assert await subscriber.refused("unsubscribe", room=room) == "not_member"
    assert await subscriber.refused("history", room=room) == "not_member"


async def test_a_subscription_creates_a_room_on_demand(visitors: Visitors) -> None:
    subscriber, room = await visitors.guest(), unique("room")
    data = await subscriber.request("subscribe", room=room)
    assert (data["room"]["name"], data["members"], data["count"]) == (room, [], 0)
    (sender,) = await visitors.members(room, 1)
    await sender.send_message(room, "hello")
    assert (await subscriber.messages(1))[0]["data"] == "hello"
