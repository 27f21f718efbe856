"""Login and logout (sections 3, 4 and 10): names of guests, tokens, effects of a logout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration import native
from tests.integration.native import unique

if TYPE_CHECKING:
    from tests.integration.native import Visitors

visitors = native.visitors

#: Written once with a placeholder that makes them unique, for the server is shared.
GOOD_NAMES = ["Zoë-{}", "李雷{}", "a {}", "O'Neil ({})", "😀{}", "x+y={}", "{}", "e\u0301{}", "#1 {}"]
BAD_NAMES = [
    "",
    " ",
    " {}",
    "{} ",
    "a  {}",
    "a\t{}",
    "a\n{}",
    "a\u200b{}",
    "a\u202e{}",
    "\ufeff{}",
    "a\ue000{}",
    "a\x00{}",
]
BAD_NAMES += ["a\x85{}", "a\u2028{}", "x" * 65, "\ufb01" * 40]


async def test_a_guest_gets_a_user_and_a_token(visitors: Visitors) -> None:
    client, name = await visitors.connect(), unique("guest")
    data = await client.login(name=name)
    assert data == {"user": {"name": name, "id": data["user"]["id"], "guest": True}, "token": data["token"]}
    assert isinstance(data["user"]["id"], str)
    assert isinstance(data["token"], str)


@pytest.mark.parametrize("name", GOOD_NAMES)
async def test_valid_names_are_accepted(visitors: Visitors, name: str) -> None:
    client = await visitors.connect()
    await client.login(name=name.format(unique("")))


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
async def test_invalid_names_are_refused(visitors: Visitors, name: str) -> None:
    client = await visitors.connect()
    assert await client.refused("login", name=name.format(unique(""))) == "bad_request"
    await client.login(name=unique("guest"))


async def test_a_name_has_at_most_64_characters(visitors: Visitors) -> None:
    client = await visitors.connect()
    longest = unique("x" * 64)[-64:].replace("x", "😀")
    assert await client.refused("login", name=longest + "y") == "bad_request"
    assert (await client.login(name=longest))["user"]["name"] == longest


async def test_names_are_normalised(visitors: Visitors) -> None:
    plain = unique("Ann")
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in plain)
    client, other = await visitors.connect(), await visitors.connect()
    assert (await client.login(name=wide))["user"]["name"] == plain
    assert await other.refused("login", name=plain) == "name_taken"


@pytest.mark.parametrize(
    ("first", "second"), [("Ann-{}", "ANN-{}"), ("Zoë-{}", "ZOE\u0308-{}"), ("Straße-{}", "STRASSE-{}")]
)
async def test_names_are_unique_regardless_of_case(visitors: Visitors, first: str, second: str) -> None:
    rest = unique("")
    holder, other = await visitors.connect(), await visitors.connect()
    await holder.login(name=first.format(rest))
    assert await other.refused("login", name=second.format(rest)) == "name_taken"
    await other.login(name=unique("guest"))


async def test_one_name_in_two_applications_is_two_users(visitors: Visitors) -> None:
    name = unique("guest")
    await visitors.guest(name, application="durable")
    await visitors.guest(name, application="bench")


async def test_a_guest_cannot_take_the_name_of_a_connected_user(visitors: Visitors) -> None:
    headers = {"Cookie": native.session_cookie(visitors.server, "ann")}
    user = await visitors.connect(origin=visitors.server.url, additional_headers=headers)
    await user.join(unique("room"))
    guest = await visitors.connect()
    assert await guest.refused("login", name="Ann") in ("name_taken", "login_refused")


async def test_a_guest_and_a_user_do_not_share_a_name_in_any_script(visitors: Visitors) -> None:
    username = unique("zoë")
    script = f"from django.contrib.auth import get_user_model as m; m().objects.create_user({username!r})"
    visitors.server.manage("shell", "-c", script)
    headers = {"Cookie": native.session_cookie(visitors.server, username)}
    guest = await visitors.connect()
    answer = await guest.ask("login", name=username.upper())
    user = await visitors.connect(origin=visitors.server.url, additional_headers=headers)
    assert answer["type"] == "error" or not user.user


async def test_the_name_of_a_dropped_guest_is_reserved_for_its_token(visitors: Visitors) -> None:
    first, other = await visitors.guest(), await visitors.connect()
    first.drop()
    answer = await other.ask("login", name=first.user["name"])
    assert (answer["type"], answer["code"], answer["retry"]) == ("error", "name_taken", True)
    back = await visitors.again(first)
    assert back.user == first.user


async def test_a_token_is_the_same_user_on_several_connections(visitors: Visitors) -> None:
    first = await visitors.guest()
    second = await visitors.again(first)
    third = await visitors.again(second)
    assert first.user == second.user == third.user


async def test_invalid_tokens_are_refused(visitors: Visitors) -> None:
    client, guest = await visitors.connect(), await visitors.guest()
    changed = ("A" if guest.token[0] != "A" else "B") + guest.token[1:]
    for token in (
        "nonsense",
        guest.token + "x",
        guest.token[:-1],
        changed,
        "ë",
        "a:b:c",
        "a.b.c",
        "\x00",
        "x" * 10000,
    ):
        assert (token, await client.refused("login", token=token)) == (token, "bad_token")
    await client.login(token=guest.token)


async def test_a_logout_leaves_every_room(visitors: Visitors) -> None:
    rooms = [unique("room"), unique("room")]
    client, witness = await visitors.guest(), await visitors.guest()
    for room in rooms:
        await client.join(room)
        await witness.join(room)
    assert await client.request("logout") == {}
    assert {(await witness.push("left"))["room"] for _ in rooms} == set(rooms)
    for room in rooms:
        assert (await witness.request("members", room=room))["members"] == [witness.user]
        assert await client.refused("message", room=room, data=1) == "not_logged_in"


async def test_no_event_of_a_room_follows_the_logout(visitors: Visitors) -> None:
    room = unique("room")
    client, witness = await visitors.members(room, 2)
    await client.request("logout")
    await client.before_pong()
    await witness.send_message(room, "not received")
    assert (await witness.messages(1))[0]["data"] == "not received"
    assert await client.before_pong() == []


async def test_a_logout_revokes_the_token(visitors: Visitors) -> None:
    client, other = await visitors.guest(), await visitors.connect()
    await client.request("logout")
    assert await other.refused("login", token=client.token) == "bad_token"
    assert await client.refused("login", token=client.token) == "bad_token"


async def test_a_client_can_log_in_again_after_a_logout(visitors: Visitors) -> None:
    client, room = await visitors.guest(), unique("room")
    former = client.user
    await client.request("logout")
    await client.login(name=unique("guest"))
    assert client.user["id"] != former["id"]
    assert (await client.join(room))["members"] == [client.user]


async def test_a_logout_is_no_leave_while_another_connection_is_a_member(visitors: Visitors) -> None:
    room = unique("room")
    witness, client = await visitors.members(room, 2)
    other = await visitors.again(client)
    await other.join(room)
    await client.request("logout")
    await other.send_message(room, "still here")
    assert (await witness.push())["type"] == "message"
    assert (await witness.request("members", room=room))["count"] == 2
