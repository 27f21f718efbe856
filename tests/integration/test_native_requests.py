"""Invalid requests: wrong types, values out of range, JSON that section 10 forbids.

Each is answered with `bad_request` and its id; the connection and other clients are not affected.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration import native

if TYPE_CHECKING:
    from tests.integration.native import Visitors

pytestmark = pytest.mark.any_database

visitors = native.visitors

#: Not names of rooms: blanks at the ends, control, format and private-use characters, wrong lengths.
BAD_ROOMS: list[Any] = [5, "", "x" * 65, " a", "a ", "\u00a0a", "a\u2003", "a\nb", "a\tb", "a\x00b", "a\x7fb"]
BAD_ROOMS += ["a\u200bb", "a\u202eb", "\ufeffa", "a\ue000b", "a\U000f0000b", ["a"], {"name": "a"}, True, 1.5]

#: Invalid fields, each in an otherwise valid request; `room` stands for a room of the client.
WRONG_FIELDS: list[tuple[str, dict[str, Any]]] = [
    *[("rooms", {"prefix": value}) for value in (5, ["a"], True)],
    *[("rooms", {"limit": value}) for value in ("5", -1, 1.5, True, [5])],
    *[("create", {"room": "new", "title": value}) for value in (5, ["a"], True)],
    *[("create", {"room": "new", "mode": value}) for value in (5, "strange", "Open", True)],
    *[("create", {"room": "new", "max_members": value}) for value in ("5", -1, 1.5, True)],
    *[("create", {"room": "new", "password": value}) for value in (5, ["a"], True)],
    *[("join", {"password": value}) for value in (5, ["a"], True)],
    *[("join", {"limit": value}) for value in ("5", -1, 1.5, True)],
    *[("join", {"since": value}) for value in (5, "1", [], {}, {"epoch": "a"}, {"seq": 1})],
    *[("join", {"since": {"epoch": epoch, "seq": 1}}) for epoch in (5, ["a"], True)],
    *[("join", {"since": {"epoch": "a", "seq": seq}}) for seq in ("1", -1, 1.5, True)],
    *[("message", {"data": 1, "event": value}) for value in (5, "", "x" * 65, ["a"], True)],
    *[("message", {"data": 1, "key": value}) for value in (5, "x" * 65, ["a"], True)],
    *[("message", {"data": 1, "to": value}) for value in (5, [5], {"a": 1}, True, [["a"]], [None])],
    *[
        ("message", {"data": 1, flag: value})
        for flag in ("state", "volatile", "echo")
        for value in ("yes", 1, [])
    ],
    *[("history", {bound: value}) for bound in ("before", "after") for value in ("5", 1.5, True, [5])],
    *[("history", {"limit": value}) for value in ("5", -1, 1.5, True)],
    *[("members", {"after": value}) for value in (5, ["a"], True)],
    *[("members", {"limit": value}) for value in ("5", -1, 1.5, True)],
    *[("login", {"name": value}) for value in (5, ["a"], True, {})],
    *[("login", {"token": value}) for value in (5, ["a"], True, {})],
]

NEED_A_ROOM = (
    "create",
    "close",
    "join",
    "leave",
    "message",
    "history",
    "members",
    "subscribe",
    "unsubscribe",
)

#: JSON values that a client may not send (section 10). The last ones would break a careless parser.
FORBIDDEN = ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", str(2**63), str(-(2**63) - 1), "9" * 5000]
FORBIDDEN += [
    r'"\ud800"',
    r'"\udc00\ud800"',
    r'{"\udfff":1}',
    r'["a","x\ud83d"]',
    "[NaN]",
    '{"a":{"b":-1e999}}',
]
FORBIDDEN += [
    "[" * 16 + "]" * 16,
    '{"a":' * 16 + "1" + "}" * 16,
    "[" * 20000 + "]" * 20000,
    '{"a":' * 9000 + "1" + "}" * 9000,
]


@pytest.mark.parametrize(("kind", "fields"), WRONG_FIELDS, ids=lambda value: json.dumps(value)[:60])
async def test_an_invalid_field_is_a_bad_request(
    visitors: Visitors, kind: str, fields: dict[str, Any]
) -> None:
    client = await visitors.connect()
    if kind != "login":
        await client.login(name=native.unique("guest"))
        if kind not in ("rooms", "create"):
            fields = {"room": native.unique("room"), **fields}
            await client.join(fields["room"])
    if kind == "create":
        fields = {**fields, "room": native.unique("room")}
    assert await client.refused(kind, **fields) == "bad_request"
    assert await client.before_pong() == []


@pytest.mark.parametrize("kind", NEED_A_ROOM)
async def test_a_request_about_a_room_needs_a_valid_name(visitors: Visitors, kind: str) -> None:
    client = await visitors.guest()
    assert await client.refused(kind, data=1) == "bad_request"
    assert await client.refused(kind, data=1, room=None) == "bad_request"
    for name in BAD_ROOMS:
        assert (name, await client.refused(kind, data=1, room=name)) == (name, "bad_request")
    assert await client.before_pong() == []


async def test_a_message_needs_data(visitors: Visitors) -> None:
    client, room = await visitors.guest(), native.unique("room")
    await client.join(room)
    assert await client.refused("message", room=room) == "bad_request"


async def test_a_login_needs_a_name_or_a_token(visitors: Visitors) -> None:
    client = await visitors.connect()
    assert await client.refused("login") == "bad_request"
    assert await client.refused("login", name=None, token=None) == "bad_request"


@pytest.mark.parametrize("value", FORBIDDEN, ids=lambda value: value[:20])
async def test_forbidden_json_is_a_bad_request_and_closes_nothing(visitors: Visitors, value: str) -> None:
    room = native.unique("room")
    client, witness = await visitors.members(room, 2)
    await client.send_text(f'{{"id":"seen","type":"message","room":"{room}","data":{value}}}')
    answer = await client.answer("seen")
    assert (answer["type"], answer["code"], answer["retry"]) == ("error", "bad_request", False)
    await client.send_message(room, "afterwards")
    message = await witness.push()
    assert (message["data"], message["seq"]) == ("afterwards", 1)


@pytest.mark.parametrize(
    "value", ["NaN", "9" * 30, r'"\ud800"', "[" * 16 + "]" * 16], ids=lambda value: value[:20]
)
async def test_forbidden_json_is_refused_in_unknown_fields(visitors: Visitors, value: str) -> None:
    client = await visitors.connect()
    await client.send_text(f'{{"id":1,"type":"ping","unknown":{value}}}')
    answer = await client.answer(1)
    assert (answer["type"], answer["code"]) == ("error", "bad_request")
    assert await client.before_pong() == []


@pytest.mark.parametrize("identifier", [str(2**63), "NaN", r'"\ud800"', "1e400"])
async def test_a_forbidden_id_is_not_repeated_in_the_error(visitors: Visitors, identifier: str) -> None:
    client = await visitors.connect()
    await client.send_text(f'{{"id":{identifier},"type":"ping"}}')
    answer = await client.receive()
    assert (answer["type"], answer["code"], answer.get("id")) == ("error", "bad_request", None)
    assert await client.before_pong() == []


async def test_a_bad_line_does_not_affect_other_lines_of_the_frame(visitors: Visitors) -> None:
    client = await visitors.connect()
    await client.send_text('{"type":"ping","id":1}\n{"type":"ping","id":2,"x":NaN}\n{"type":"ping","id":3}')
    answers = [await client.receive() for _ in range(3)]
    assert [(answer["type"], answer["id"]) for answer in answers] == [("pong", 1), ("error", 2), ("pong", 3)]
