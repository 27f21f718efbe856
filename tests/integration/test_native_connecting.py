"""Connect (section 3): the greeting, Django sessions and origins, missing applications."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import InvalidStatus

from tests.integration import native

if TYPE_CHECKING:
    from tests.integration.native import Visitors
    from tests.servers import Server

pytestmark = pytest.mark.any_database

visitors = native.visitors


@pytest.fixture(scope="module")
def ann(server: Server) -> str:
    """A Cookie header with a session of the demo user ann."""
    return native.session_cookie(server, "ann")


async def test_the_greeting_names_the_session_and_limits(visitors: Visitors) -> None:
    client = await visitors.open("bench")
    greeting = await client.receive()
    assert isinstance(greeting["connection"], str)
    assert greeting["connection"]
    assert greeting == {
        "type": "connected",
        "connection": greeting["connection"],
        "application": "bench",
        "user": None,
        "ping": 25,
        "version": 1,
    }


async def test_every_connection_has_its_own_id(visitors: Visitors) -> None:
    greetings = [await (await visitors.open()).receive() for _ in range(5)]
    assert len({greeting["connection"] for greeting in greetings}) == 5


@pytest.mark.parametrize("application", ["nowhere", "Durable", "x" * 200, "caf%C3%A9", "a.b"])
async def test_an_unknown_application_closes_the_connection(visitors: Visitors, application: str) -> None:
    client = await visitors.open(application)
    assert await client.closed() == 4509


async def test_a_disabled_application_closes_the_connection(visitors: Visitors) -> None:
    client = await visitors.open(native.make_application(visitors.server, enabled=False))
    assert await client.closed() == 4509


async def test_an_application_created_while_the_server_runs_is_found(visitors: Visitors) -> None:
    application = native.make_application(visitors.server)
    client = await visitors.open(application)
    assert (await client.receive())["application"] == application


async def test_a_session_user_is_greeted_by_name_and_needs_no_login(visitors: Visitors, ann: str) -> None:
    client = await visitors.connect(origin=visitors.server.url, additional_headers={"Cookie": ann})
    assert client.user["name"] == "ann"
    assert isinstance(client.user["id"], str)
    assert client.user["guest"] is False
    joined = await client.join(native.unique("room"))
    assert joined["members"] == [client.user]


async def test_connections_of_a_session_are_the_same_user(visitors: Visitors, ann: str) -> None:
    room, headers = native.unique("room"), {"Cookie": ann}
    witness = await visitors.guest()
    await witness.join(room)
    for _ in range(2):
        client = await visitors.connect(origin=visitors.server.url, additional_headers=headers)
        assert (await client.join(room))["count"] == 2
    await witness.send_message(room, "marker")
    assert [(await witness.push())["type"] for _ in range(2)] == ["joined", "message"]


async def test_without_an_origin_cookies_are_ignored(visitors: Visitors, ann: str) -> None:
    client = await visitors.connect(additional_headers={"Cookie": ann})
    assert client.user == {}
    assert await client.refused("join", room=native.unique("room")) == "not_logged_in"


@pytest.mark.parametrize("cookie", ["sessionid=nonsense", "sessionid=", "sessionid=%00", "other=1"])
async def test_a_cookie_without_a_session_is_ignored(visitors: Visitors, cookie: str) -> None:
    client = await visitors.connect(origin=visitors.server.url, additional_headers={"Cookie": cookie})
    assert client.user == {}
    await client.login(name=native.unique("guest"))


@pytest.mark.parametrize("with_session", [True, False])
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://evil.example:8000",
        "null",
        "http://127.0.0.1.evil.example",
        "http://evil.example/127.0.0.1",
    ],
)
async def test_a_foreign_origin_is_refused(
    visitors: Visitors, ann: str, origin: str, with_session: bool
) -> None:
    headers = {"Cookie": ann} if with_session else {}
    with pytest.raises(InvalidStatus) as refusal:
        await visitors.open(origin=origin, additional_headers=headers)
    assert refusal.value.response.status_code == 403


@pytest.mark.parametrize(
    "kind", ["create", "close", "join", "leave", "message", "history", "members", "subscribe", "unsubscribe"]
)
async def test_commands_before_the_login_are_refused(visitors: Visitors, kind: str) -> None:
    room = native.unique("room")
    witness, client = await visitors.guest(), await visitors.connect()
    await witness.join(room)
    assert await client.refused(kind, room=room, data=1) == "not_logged_in"
    await witness.send_message(room, "marker")
    message = await witness.push()
    assert (message["data"], message["seq"]) == ("marker", 1)


async def test_an_application_for_users_refuses_guests(visitors: Visitors, ann: str) -> None:
    application = native.make_application(visitors.server, entry="users", rooms_on_demand=True)
    guest = await visitors.connect(application)
    assert await guest.refused("login", name=native.unique("guest")) == "login_refused"
    user = await visitors.connect(application, origin=visitors.server.url, additional_headers={"Cookie": ann})
    await user.join(native.unique("room"))


async def test_an_application_for_a_group_refuses_other_users(visitors: Visitors, ann: str) -> None:
    application = native.make_application(visitors.server, entry="group", rooms_on_demand=True)
    user = await visitors.connect(application, origin=visitors.server.url, additional_headers={"Cookie": ann})
    assert user.user == {}
    assert await user.refused("join", room=native.unique("room")) == "not_logged_in"
