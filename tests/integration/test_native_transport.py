"""The transport of the native protocol (section 1): lines, frames, ids, protocol errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration import native

if TYPE_CHECKING:
    from tests.integration.native import Visitors

pytestmark = pytest.mark.any_database

visitors = native.visitors

NOT_JSON_OBJECTS = [
    "not json",
    "[]",
    "5",
    '"text"',
    "null",
    "true",
    "{",
    '{"type":"ping"',
    '{"type":"ping"}}',
]
NOT_JSON_OBJECTS += [
    "{'type':'ping'}",
    '{"type":"ping"}{"type":"ping"}',
    '{"type":"ping"},',
    '[{"type":"ping"}]',
]
NOT_JSON_OBJECTS += ["\x00", "\ufeff{}"]


async def test_several_lines_in_a_frame_are_handled_in_order(visitors: Visitors) -> None:
    client = await visitors.connect()
    await client.send_text('{"type":"ping","id":1}\n\n{"type":"ping","id":"two"}\n{"type":"ping","id":3}\n')
    assert [(await client.receive())["id"] for _ in range(3)] == [1, "two", 3]


async def test_requests_of_one_frame_take_effect_in_order(visitors: Visitors) -> None:
    client, room = await visitors.connect(), native.unique("room")
    requests = [
        {"type": "login", "id": 1, "name": native.unique("guest")},
        {"type": "join", "id": 2, "room": room},
        {"type": "message", "id": 3, "room": room, "data": "first"},
        {"type": "leave", "id": 4, "room": room},
    ]
    await client.send_text("\n".join(json.dumps(request) for request in requests))
    assert [(await client.answer(number))["type"] for number in (1, 2, 3, 4)] == ["reply"] * 4
    assert (await client.push("message"))["data"] == "first"


async def test_unknown_fields_are_ignored(visitors: Visitors) -> None:
    client = await visitors.connect()
    assert (await client.ask("ping", colour="red", nested={"type": "logout"}))["type"] == "pong"


async def test_null_counts_as_absent(visitors: Visitors) -> None:
    client, room = await visitors.connect(), native.unique("room")
    await client.login(name=native.unique("guest"), token=None)
    joined = await client.join(room, password=None, since=None, limit=None)
    assert joined["recovered"] is False
    await client.send_message(
        room, "hello", event=None, key=None, to=None, state=None, volatile=None, echo=None
    )
    message = await client.push("message")
    assert (message["event"], message["data"], message["seq"]) == ("message", "hello", 1)
    await client.request("rooms", prefix=None, limit=None)
    await client.request("members", room=room, after=None, limit=None)
    await client.request("history", room=room, before=None, after=None, limit=None)
    await client.send("ping", id=None)
    assert (await client.receive()).get("id") is None


async def test_an_unknown_type_is_an_error(visitors: Visitors) -> None:
    client = await visitors.connect()
    for kind in ("nonsense", "Login", "websocket.close", "", "__class__", "close_connection"):
        assert await client.refused(kind) == "unknown_type"
    assert await client.before_pong() == []


@pytest.mark.parametrize(
    "kind", ["reply", "error", "connected", "joined", "left", "removed", "closing", "room_added"]
)
async def test_a_type_of_the_server_is_unknown_from_a_client(visitors: Visitors, kind: str) -> None:
    client = await visitors.connect()
    assert await client.refused(kind, code=4000, data={}) == "unknown_type"


@pytest.mark.parametrize(
    "line", ['{"id":1}', '{"id":1,"type":null}', '{"id":1,"type":5}', '{"id":1,"type":["ping"]}']
)
async def test_a_missing_type_or_one_that_is_no_string_is_an_error(visitors: Visitors, line: str) -> None:
    client = await visitors.connect()
    await client.send_text(line)
    answer = await client.answer(1)
    assert answer["type"] == "error"
    assert answer["code"] in ("bad_request", "unknown_type")
    assert await client.before_pong() == []


@pytest.mark.parametrize("identifier", [0, -1, 7, 2**63 - 1, -(2**63), "a", "x" * 64, "Zoë 😀", "7"])
async def test_valid_ids_are_repeated(visitors: Visitors, identifier: object) -> None:
    client = await visitors.connect()
    await client.send("ping", id=identifier)
    answer = await client.answer(identifier)
    assert type(answer["id"]) is type(identifier)


@pytest.mark.parametrize("identifier", ["x" * 65, 1.5, True, False, [1], {"a": 1}])
async def test_invalid_ids_are_bad_requests(visitors: Visitors, identifier: object) -> None:
    client = await visitors.connect()
    await client.send("ping", id=identifier)
    answer = await client.receive()
    assert (answer["type"], answer["code"]) == ("error", "bad_request")
    assert await client.before_pong() == []


async def test_a_request_without_an_id_gets_no_reply(visitors: Visitors) -> None:
    client, room = await visitors.guest(), native.unique("room")
    await client.send("join", room=room)
    await client.send("message", room=room, data=1, echo=False)
    await client.send("leave", room=room)
    assert await client.before_pong() == []


async def test_a_request_without_an_id_gets_errors(visitors: Visitors) -> None:
    client = await visitors.guest()
    await client.send("nonsense")
    await client.send("leave", room=native.unique("room"))
    first, second = await client.before_pong()
    assert (first["type"], first["code"], first.get("id")) == ("error", "unknown_type", None)
    assert (second["type"], second["code"], second.get("id")) == ("error", "not_member", None)


async def test_a_ping_without_an_id_gets_a_pong_without_one(visitors: Visitors) -> None:
    client = await visitors.connect()
    await client.send("ping")
    answer = await client.receive()
    assert answer["type"] == "pong"
    assert answer.get("id") is None


async def test_a_pong_is_not_answered(visitors: Visitors) -> None:
    client = await visitors.connect()
    await client.send("pong", id="unanswered")
    assert await client.before_pong() == []


@pytest.mark.parametrize("text", NOT_JSON_OBJECTS)
async def test_a_line_that_is_no_json_object_closes_the_connection(visitors: Visitors, text: str) -> None:
    client = await visitors.connect()
    await client.send_text(text)
    assert await client.closed() == 4500


async def test_lines_before_a_bad_one_are_handled(visitors: Visitors) -> None:
    client = await visitors.connect()
    await client.send_text('{"type":"ping","id":1}\nnot json\n{"type":"ping","id":2}')
    assert await client.closed() == 4500
    assert [message["type"] for message in client.pushes] == ["pong", "closing"]


@pytest.mark.parametrize("data", [b'{"type":"ping","id":1}', b"\x00\xff", b"x"])
async def test_a_binary_frame_closes_the_connection(visitors: Visitors, data: bytes) -> None:
    client = await visitors.connect()
    await client.socket.send(data)
    assert await client.closed() == 4500


async def test_invalid_utf8_closes_the_connection(visitors: Visitors) -> None:
    client = await visitors.connect()
    await client.send_text(b'{"type":"ping","x":"\xff\xfe"}')
    await client.socket.wait_closed()
    # Daphne's WebSocket layer drops the connection without a close frame.
    assert client.socket.close_code in ((1006,) if visitors.server.kind == "daphne" else (1007, 4500))


@pytest.mark.parametrize("letter", ["x", "ë", "😀"])
async def test_a_frame_above_64_kib_closes_the_connection(visitors: Visitors, letter: str) -> None:
    client = await visitors.connect()
    frame = '{"type":"ping","id":1,"x":"%s"}'
    room = 65536 - len(frame % "")
    filling = letter * (room // len(letter.encode()))
    filling += "x" * (room - len(filling.encode()))
    await client.send_text(frame % filling)
    assert (await client.answer(1))["type"] == "pong"
    await client.send_text(frame % (filling + "x"))
    assert await client.closed() == 4507


async def test_the_subprotocol_is_echoed(visitors: Visitors) -> None:
    only = await visitors.connect(subprotocols=["rooms.v1"])
    assert only.socket.subprotocol == "rooms.v1"
    among = await visitors.connect(subprotocols=["other", "rooms.v1"])
    assert among.socket.subprotocol == "rooms.v1"
    none = await visitors.connect()
    assert none.socket.subprotocol is None
