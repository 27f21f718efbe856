"""Logins by session, guest name and token, and logouts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core import signing

from rooms.extensions import ConnectionEvent, Extension
from rooms.models import Application, Ban, RevokedToken
from rooms.node.node import Node
from rooms.protocol.commands import Join, ListRooms, Login, Logout
from rooms.protocol.errors import (
    ApplicationFull,
    BadRequest,
    BadToken,
    Banned,
    LoginRefused,
    NameTaken,
    NotLoggedIn,
    RateLimited,
    Rejected,
    Unavailable,
)
from tests.node.clients import Client, Install, MakeNode, error_of


@pytest.fixture
def ann(transactional_db: None) -> User:
    return User.objects.create_user("Ann", password="sesame")


async def connected(node: Node, user: Any = None, **options: Any) -> Client:
    client = Client(node, **options)
    await client.connect(user)
    return client


async def change(node: Node, chat: Application, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(chat, name, value)
    await chat.asave()
    await node.context.tasks.drain()


# Repeated logins ---------------------------------------------------------------------------------


async def test_a_user_logged_in_by_session_may_use_the_own_token(node: Node, ann: User) -> None:
    """A page that reconnects has both its session and its token."""
    token = (await (await connected(node, ann)).request(Login()))["token"]
    again = await connected(node, ann)
    assert (await again.request(Login(token=token)))["user"]["name"] == "Ann"
    await again.request(Logout())
    await error_of(BadToken, (await connected(node)).request(Login(token=token)))


async def test_a_user_logged_in_by_session_may_not_use_another_users_token(node: Node, ann: User) -> None:
    token = (await (await connected(node)).request(Login(name="bob")))["token"]
    await error_of(LoginRefused, (await connected(node, ann)).request(Login(token=token)))
    await error_of(BadToken, (await connected(node, ann)).request(Login(token="x")))


# Guests ------------------------------------------------------------------------------------------


async def test_a_guest_logs_in_by_name(node: Node) -> None:
    client = await connected(node)
    assert client.received("connected")[0]["user"] is None
    data = await client.request(Login(name="ｂｏｂ"))
    assert (data["user"]["name"], data["user"]["guest"]) == ("bob", True)
    assert data["token"]
    assert client.connection.waiting_for_login is None


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 65])
async def test_an_invalid_name_is_refused(node: Node, name: str) -> None:
    await error_of(BadRequest, (await connected(node)).request(Login(name=name)))


async def test_a_login_needs_one_of_name_and_token(node: Node) -> None:
    client = await connected(node)
    await error_of(BadRequest, client.request(Login()))
    await error_of(BadRequest, client.request(Login(name="bob", token="x")))


async def test_a_name_is_taken_in_any_case_until_its_ttl_after_the_disconnect(
    node: Node, clock: SimpleNamespace
) -> None:
    bob = await Client.named(node, "bob")
    other = await connected(node)
    assert (await error_of(NameTaken, other.request(Login(name="BOB")))).retry
    bob.disconnect()
    await node.context.tasks.drain()
    await error_of(NameTaken, other.request(Login(name="bob")))
    clock.now += node.context.settings.guest_name_ttl
    for action in node.context.delayed.pop_due():
        await action()
    await other.request(Login(name="bob"))


async def test_a_guest_cannot_use_the_name_of_an_account(node: Node, ann: User) -> None:
    error = await error_of(NameTaken, (await connected(node)).request(Login(name="aNN")))
    assert not error.retry


async def test_a_second_login_must_be_of_the_same_user(node: Node) -> None:
    bob = await Client.named(node, "bob")
    again = await bob.request(Login(name="BOB"))
    assert again["user"]["name"] == "bob"
    await error_of(LoginRefused, bob.request(Login(name="eve")))


# Tokens ------------------------------------------------------------------------------------------


async def token_of(client: Client) -> str:
    return str((await client.request(Login()))["token"])


async def test_a_token_logs_the_same_user_in_everywhere(make_node: MakeNode) -> None:
    here, there = await make_node(), await make_node()
    bob = await Client.named(here, "bob")
    token = await token_of(bob)
    for node in (here, there):
        data = await (await connected(node)).request(Login(token=token))
        assert data["user"]["id"] == bob.connection.user.id  # type: ignore[union-attr]
        # The new token is valid too.
        await (await connected(node)).request(Login(token=data["token"]))


async def test_a_token_of_a_django_user(node: Node, ann: User) -> None:
    client = await connected(node, ann)
    token = await token_of(client)
    data = await (await connected(node)).request(Login(token=token))
    assert data["user"] == {"name": "Ann", "id": str(ann.pk), "guest": False}


@pytest.mark.parametrize("token", ["", "nonsense", "a:b:c"])
async def test_a_malformed_token_is_refused(node: Node, token: str) -> None:
    await error_of(BadToken, (await connected(node)).request(Login(token=token)))


async def test_a_token_is_valid_for_one_application_and_this_site(node: Node) -> None:
    await Application.objects.acreate(name="other", history="memory")
    token = await token_of(await Client.named(node, "bob"))
    await error_of(BadToken, (await connected(node, application="other")).request(Login(token=token)))
    forged = signing.dumps(signing.loads(token, salt="rooms.login"), salt="rooms.login", key="another")
    await error_of(BadToken, (await connected(node)).request(Login(token=forged)))


async def test_a_token_expires(make_node: MakeNode) -> None:
    node = await make_node(token_ttl=-1)
    token = await token_of(await Client.named(node, "bob"))
    await error_of(BadToken, (await connected(node)).request(Login(token=token)))


async def test_a_logout_revokes_all_tokens_of_the_login_and_no_others(node: Node) -> None:
    bob = await Client.named(node, "bob")
    first = await token_of(bob)
    other = await connected(node)
    second = (await other.request(Login(token=first)))["token"]
    eves = await token_of(await Client.named(node, "eve"))
    await bob.request(Logout())
    for token in (first, second):
        await error_of(BadToken, (await connected(node)).request(Login(token=token)))
    await (await connected(node)).request(Login(token=eves))
    assert await RevokedToken.objects.acount() == 1


async def test_a_new_password_revokes_the_tokens(node: Node, ann: User) -> None:
    token = await token_of(await connected(node, ann))
    ann.set_password("open")
    await ann.asave()
    await error_of(BadToken, (await connected(node)).request(Login(token=token)))


@pytest.mark.parametrize("gone", ["inactive", "deleted"])
async def test_the_token_of_a_deleted_or_inactive_user_is_refused(node: Node, ann: User, gone: str) -> None:
    token = await token_of(await connected(node, ann))
    if gone == "deleted":
        await User.objects.all().adelete()
    else:
        await User.objects.aupdate(is_active=False)
    await error_of(BadToken, (await connected(node)).request(Login(token=token)))


async def test_a_token_does_not_contain_the_hash_of_the_session(node: Node, ann: User) -> None:
    content = signing.loads(await token_of(await connected(node, ann)), salt="rooms.login")
    assert ann.get_session_auth_hash() not in str(content)


# Sessions ----------------------------------------------------------------------------------------


async def test_the_sessions_user_is_logged_in(node: Node, ann: User) -> None:
    client = await connected(node, ann)
    assert client.received("connected")[0]["user"] == {"name": "Ann", "id": str(ann.pk), "guest": False}
    assert client.connection.waiting_for_login is None
    assert not client.connection.moderator
    # One user may have several connections.
    assert (await connected(node, ann)).connection.user == client.connection.user


async def test_the_sessions_user_reconnects_after_a_backend_was_down(
    node: Node, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a user, the client would not reconnect."""

    async def fail(*arguments: Any, **named: Any) -> bool:
        raise Unavailable("Down.")

    client = Client(node)
    with monkeypatch.context() as patch:
        patch.setattr(node.context.presence, "add", fail)
        await error_of(Unavailable, client.connect(ann))
    assert client.received("connected") == []
    client.disconnect()
    assert (await connected(node, ann)).connection.user is not None


async def test_a_user_with_the_permission_is_a_moderator(node: Node, ann: User) -> None:
    await ann.user_permissions.aadd(await Permission.objects.aget(codename="moderate_room"))
    client = await connected(node, await User.objects.aget(pk=ann.pk))
    assert client.connection.moderator


async def test_a_banned_user_of_the_session_may_log_in_as_a_guest(
    node: Node, chat: Application, ann: User
) -> None:
    await Ban.objects.acreate(application=chat, user=ann)
    await node.context.tasks.drain()
    client = await connected(node, ann)
    assert client.received("connected")[0]["user"] is None
    assert client.connection.waiting_for_login is not None
    await client.request(Login(name="guest"))


@pytest.mark.parametrize("active", [True, False])
async def test_an_anonymous_or_inactive_user_is_not_logged_in(node: Node, ann: User, active: bool) -> None:
    ann.is_active = False
    client = await connected(node, AnonymousUser() if active else ann)
    assert client.connection.user is None


# Errors ------------------------------------------------------------------------------------------


async def test_guests_are_refused_where_only_users_are_admitted(
    node: Node, chat: Application, ann: User
) -> None:
    await change(node, chat, entry="users")
    await error_of(LoginRefused, (await connected(node)).request(Login(name="bob")))
    assert (await connected(node, ann)).connection.user is not None


async def test_a_banned_guest_is_refused(node: Node, chat: Application) -> None:
    await Ban.objects.acreate(application=chat, guest="bob")
    await node.context.tasks.drain()
    await error_of(Banned, (await connected(node)).request(Login(name="Bob")))


async def test_a_full_application_refuses_another_user_but_not_another_connection(
    node: Node, chat: Application
) -> None:
    await change(node, chat, max_users=1)
    bob = await Client.named(node, "bob")
    token = await token_of(bob)
    other = await connected(node)
    assert (await error_of(ApplicationFull, other.request(Login(name="eve")))).retry
    await (await connected(node)).request(Login(token=token))


async def test_the_logins_from_one_address_are_limited(node: Node, chat: Application) -> None:
    await change(node, chat, logins_per_minute=2)
    for name in ("a", "b"):
        await Client.named(node, name, address="10.0.0.1")
    client = await connected(node, address="10.0.0.1")
    assert (await error_of(RateLimited, client.request(Login(name="c")))).retry
    await Client.named(node, "c", address="10.0.0.2")
    node.auth.sweep()
    await error_of(RateLimited, client.request(Login(name="d")))


async def test_an_extension_may_reject_a_login(
    node: Node, chat: Application, install_extension: Install
) -> None:
    class RejectsEve(Extension):
        async def on_login(self, event: ConnectionEvent) -> None:
            assert event.user is not None
            if event.user.name == "eve":
                raise Rejected("Not Eve.")

    await change(node, chat, extension=install_extension(RejectsEve))
    client = await connected(node)
    await error_of(Rejected, client.request(Login(name="eve")))
    assert client.connection.user is None
    await error_of(NotLoggedIn, client.request(ListRooms()))
    await node.context.tasks.drain()
    assert await node.context.presence.find(f"application.{chat.pk}", ["eve"]) == {}
    await client.request(Login(name="bob"))


# Logging out -------------------------------------------------------------------------------------


async def test_a_logout_leaves_every_room_and_keeps_the_socket(node: Node) -> None:
    bob, eve = await Client.named(node, "bob", "one", "two"), await Client.named(node, "eve", "one")
    await eve.request(Join(room="two"))
    await bob.request(Logout())
    frames = bob.read() or bob.frames
    assert [frame["type"] for frame in frames[-3:]] == ["reply", "removed", "removed"]
    assert {frame["reason"] for frame in bob.received("removed")} == {"logged_out"}
    assert {(frame["room"], frame["reason"]) for frame in eve.received("left")} == {
        ("one", "left"),
        ("two", "left"),
    }
    assert bob.closed is None
    assert bob.connection.waiting_for_login is not None
    await error_of(NotLoggedIn, bob.request(Join(room="one")))
    # The name is free at once.
    await (await connected(node)).request(Login(name="bob"))
    await bob.request(Login(name="another name"))


async def test_a_logout_requires_a_login(node: Node) -> None:
    await error_of(NotLoggedIn, (await connected(node)).request(Logout()))


# Login timeout -----------------------------------------------------------------------------------


async def test_the_login_timeout_starts_when_the_connection_is_accepted(
    make_node: MakeNode, chat: Application, install_extension: Install
) -> None:
    seen: list[float | None] = []

    class Recorder(Extension):
        async def on_connect(self, event: ConnectionEvent) -> None:
            seen.append(client.connection.waiting_for_login)

    chat.extension = install_extension(Recorder)
    await chat.asave()
    client = Client(await make_node())
    await client.connect()
    assert seen == [None]
    assert client.connection.waiting_for_login is not None


async def test_the_login_timeout_starts_again_after_a_backend_was_down(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: Any, **named: Any) -> bool:
        raise Unavailable("Down.")

    client = await connected(node)
    client.connection.waiting_for_login = 0.0
    monkeypatch.setattr(node.context.presence, "add", fail)
    await error_of(Unavailable, client.request(Login(name="ann")))
    assert client.connection.waiting_for_login
