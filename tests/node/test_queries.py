"""Pages of a room's history that fit into one reply, and access to history and members."""

from __future__ import annotations

from typing import Any

from rooms.node.node import Node
from rooms.protocol.commands import ListMembers, ReadHistory, Subscribe
from rooms.protocol.errors import NotMember
from tests.node.clients import Client, MakeNode, error_of


def contents(page: dict[str, Any]) -> tuple[list[Any], bool]:
    """Return the data of a page's messages, and whether there are more."""
    return [each["data"] for each in page["messages"]], page["more"]


async def test_a_page_has_only_messages_that_fit_into_one_reply(make_node: MakeNode) -> None:
    ann = await Client.named(await make_node(send_queue_max_bytes=1000), "ann", "lobby")
    texts = [str(number) * 300 for number in range(5)]
    for text in texts:
        await ann.send("lobby", text)
    assert contents(await ann.request(ReadHistory(room="lobby"))) == (texts[2:], True)
    assert contents(await ann.request(ReadHistory(room="lobby", before=3))) == (texts[:2], False)
    # From the oldest on, the newest are left out.
    assert contents(await ann.request(ReadHistory(room="lobby", after=0))) == (texts[:3], True)
    assert contents(await ann.request(ReadHistory(room="lobby", after=3))) == (texts[3:], False)


async def test_a_page_has_at_least_one_message(make_node: MakeNode) -> None:
    ann = await Client.named(await make_node(send_queue_max_bytes=1000), "ann", "lobby")
    texts = [str(number) * 2000 for number in range(3)]
    for text in texts:
        await ann.send("lobby", text)
    assert contents(await ann.request(ReadHistory(room="lobby"))) == (texts[2:], True)
    assert contents(await ann.request(ReadHistory(room="lobby", after=0))) == (texts[:1], True)


async def test_a_page_has_at_most_as_many_messages_as_recovery(make_node: MakeNode) -> None:
    ann = await Client.named(await make_node(join_history_limit=2, recovery_max_messages=3), "ann", "lobby")
    for number in range(5):
        await ann.send("lobby", number)
    assert contents(await ann.request(ReadHistory(room="lobby"))) == ([3, 4], True)
    assert contents(await ann.request(ReadHistory(room="lobby", limit=100))) == ([2, 3, 4], True)


async def test_members_and_subscribers_can_read_history_and_members(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    bob, eve = await Client.named(node, "bob"), await Client.named(node, "eve")
    await bob.request(Subscribe(room="lobby"))
    await ann.send("lobby", "hi")
    for client in (ann, bob):
        assert contents(await client.request(ReadHistory(room="lobby"))) == (["hi"], False)
        page = await client.request(ListMembers(room="lobby"))
        assert ([user["name"] for user in page["members"]], page["count"], page["more"]) == (
            ["ann"],
            1,
            False,
        )
    for command in (ReadHistory(room="lobby"), ListMembers(room="lobby")):
        await error_of(NotMember, eve.request(command))
