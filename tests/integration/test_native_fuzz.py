"""No frame of a client stops the server or disturbs another member of the room."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from websockets.exceptions import ConnectionClosed

from tests.integration import native

if TYPE_CHECKING:
    from tests.integration.native import Client, Visitors

pytestmark = pytest.mark.any_database

visitors = native.visitors

ROOM = native.unique("fuzzed")

TYPES = ["login", "logout", "rooms", "create", "join", "leave", "message", "history", "members", "subscribe"]
TYPES += ["unsubscribe", "ping", "pong"]
FIELDS = ["id", "name", "token", "room", "title", "mode", "max_members", "password", "since", "limit"]
FIELDS += ["prefix", "data", "event", "key", "to", "state", "volatile", "echo", "before", "after", "type"]

texts = some.text(some.characters(), max_size=20)  # lone surrogates included: JSON escapes them
values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | texts | some.just(ROOM),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
requests = some.builds(
    lambda kind, room, fields: json.dumps({**room, **fields, "type": kind}),
    some.sampled_from(TYPES) | texts,
    some.sampled_from([{"room": ROOM}, {}]),
    some.dictionaries(some.sampled_from(FIELDS), values, max_size=5),
)
lines = requests | some.text(some.characters(exclude_categories=["Cs"]), max_size=50)
frames = some.lists(lines, max_size=5).map("\n".join)


@pytest.fixture
async def witness(visitors: Visitors) -> Client:
    """Return a member of the room that must receive nothing of the frames."""
    client = await visitors.guest()
    await client.join(ROOM)
    return client


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(several=some.lists(frames, min_size=1, max_size=3), logged_in=some.booleans())
async def test_arbitrary_frames_do_not_disturb_other_clients(
    visitors: Visitors, witness: Client, several: list[Any], logged_in: bool
) -> None:
    client = await (visitors.guest() if logged_in else visitors.connect())
    try:
        if logged_in:
            await client.join(ROOM)
        for frame in several:
            await client.send_text(frame)
        await client.send("ping", id="the end of it")
        assert (await client.answer("the end of it"))["type"] == "pong"
    except ConnectionClosed:
        assert client.socket.close_code == 4500
    marker = native.unique("marker")
    await witness.send_message(ROOM, marker)
    while (await witness.push("message"))["data"] != marker:
        pass
    client.drop()
