"""Who somebody is: session, guest name, token."""

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
from tests.node.clients import Client, Install, MakeEngine, refused


@pytest.fixture
def ann(transactional_db: None) -> User:
    return User.objects.create_user("Ann", password="sesame")


async def connected(node: Node, user: Any = None, **options: Any) -> Client:
    client = Client(node, **options)
    await client.connect(user)
    return client


async def changed(node: Node, chat: Application, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(chat, name, value)
    await chat.asave()
    await node.context.tasks.drain()


# Again ---------------------------------------------------------------------------------------------


async def test_the_own_token_is_welcome_from_whoever_is_logged_in_by_session(node: Node, ann: User) -> None:
    """A page that comes back with both its session and its token."""
    token = (await (await connected(node, ann)).ask(Login()))["token"]
    back = await connected(node, ann)
    assert (await back.ask(Login(token=token)))["user"]["name"] == "Ann"
    await back.ask(Logout())
    await refused(BadToken, (await connected(node)).ask(Login(token=token)))


async def test_somebody_elses_token_is_not(node: Node, ann: User) -> None:
    token = (await (await connected(node)).ask(Login(name="bob")))["token"]
    await refused(LoginRefused, (await connected(node, ann)).ask(Login(token=token)))
    await refused(BadToken, (await connected(node, ann)).ask(Login(token="x")))


# Guests ------------------------------------------------------------------------------------------


async def test_a_guest_logs_in_by_name(node: Node) -> None:
    client = await connected(node)
    assert client.told("connected")[0]["user"] is None
    data = await client.ask(Login(name="ｂｏｂ"))
    assert (data["user"]["name"], data["user"]["guest"]) == ("bob", True)
    assert data["token"]
    assert client.connection.waiting_for_login is None


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 65])
async def test_a_name_has_to_be_lawful(node: Node, name: str) -> None:
    await refused(BadRequest, (await connected(node)).ask(Login(name=name)))


async def test_a_login_needs_one_of_name_and_token(node: Node) -> None:
    client = await connected(node)
    await refused(BadRequest, client.ask(Login()))
    await refused(BadRequest, client.ask(Login(name="bob", token="x")))


async def test_a_name_is_taken_in_whatever_case_until_a_while_after_the_end(
    node: Node, clock: SimpleNamespace
) -> None:
    bob = await Client.named(node, "bob")
    other = await connected(node)
    assert (await refused(NameTaken, other.ask(Login(name="BOB")))).retry
    bob.disconnect()
    await node.context.tasks.drain()
    await refused(NameTaken, other.ask(Login(name="bob")))
    clock.now += node.context.settings.guest_name_ttl
    for action in node.context.delayed.pop_due():
        await action()
    await other.ask(Login(name="bob"))


async def test_the_name_of_a_registered_user_is_never_a_guests(node: Node, ann: User) -> None:
    error = await refused(NameTaken, (await connected(node)).ask(Login(name="aNN")))
    assert not error.retry


async def test_logging_in_again(node: Node) -> None:
    bob = await Client.named(node, "bob")
    again = await bob.ask(Login(name="BOB"))
    assert again["user"]["name"] == "bob"
    await refused(LoginRefused, bob.ask(Login(name="eve")))


# Tokens ------------------------------------------------------------------------------------------


async def token_of(client: Client) -> str:
    return str((await client.ask(Login()))["token"])


async def test_a_token_logs_the_same_user_in_everywhere(make_node: MakeEngine) -> None:
    here, there = await make_node(), await make_node()
    bob = await Client.named(here, "bob")
    token = await token_of(bob)
    for node in (here, there):
        data = await (await connected(node)).ask(Login(token=token))
        assert data["user"]["id"] == bob.connection.user.id  # type: ignore[union-attr]
        # The new token is as good.
        await (await connected(node)).ask(Login(token=data["token"]))


async def test_a_token_of_a_django_user(node: Node, ann: User) -> None:
    client = await connected(node, ann)
    token = await token_of(client)
    data = await (await connected(node)).ask(Login(token=token))
    assert data["user"] == {"name": "Ann", "id": str(ann.pk), "guest": False}


@pytest.mark.parametrize("token", ["", "nonsense", "a:b:c"])
async def test_what_is_no_token(node: Node, token: str) -> None:
    await refused(BadToken, (await connected(node)).ask(Login(token=token)))


async def test_a_token_is_of_one_application_and_of_this_site(node: Node) -> None:
    await Application.objects.acreate(name="other", history="memory")
    token = await token_of(await Client.named(node, "bob"))
    await refused(BadToken, (await connected(node, application="other")).ask(Login(token=token)))
    forged = signing.dumps(signing.loads(token, salt="rooms.login"), salt="rooms.login", key="another")
    await refused(BadToken, (await connected(node)).ask(Login(token=forged)))


async def test_a_token_ends_in_time(make_node: MakeEngine) -> None:
    node = await make_node(token_ttl=-1)
    token = await token_of(await Client.named(node, "bob"))
    await refused(BadToken, (await connected(node)).ask(Login(token=token)))


async def test_a_logout_ends_all_tokens_of_the_login_and_no_others(node: Node) -> None:
    bob = await Client.named(node, "bob")
    first = await token_of(bob)
    desk = await connected(node)
    second = (await desk.ask(Login(token=first)))["token"]
    eves = await token_of(await Client.named(node, "eve"))
    await bob.ask(Logout())
    for token in (first, second):
        await refused(BadToken, (await connected(node)).ask(Login(token=token)))
    await (await connected(node)).ask(Login(token=eves))
    assert await RevokedToken.objects.acount() == 1


async def test_a_new_password_ends_the_tokens(node: Node, ann: User) -> None:
    token = await token_of(await connected(node, ann))
    ann.set_password("open")
    await ann.asave()
    await refused(BadToken, (await connected(node)).ask(Login(token=token)))


@pytest.mark.parametrize("gone", ["inactive", "deleted"])
async def test_a_user_who_is_gone_has_no_token(node: Node, ann: User, gone: str) -> None:
    token = await token_of(await connected(node, ann))
    if gone == "deleted":
        await User.objects.all().adelete()
    else:
        await User.objects.aupdate(is_active=False)
    await refused(BadToken, (await connected(node)).ask(Login(token=token)))


async def test_a_token_does_not_hold_the_sessions_hash(node: Node, ann: User) -> None:
    content = signing.loads(await token_of(await connected(node, ann)), salt="rooms.login")
    assert ann.get_session_auth_hash() not in str(content)


# Sessions ----------------------------------------------------------------------------------------


async def test_the_sessions_user_is_logged_in(node: Node, ann: User) -> None:
    client = await connected(node, ann)
    assert client.told("connected")[0]["user"] == {"name": "Ann", "id": str(ann.pk), "guest": False}
    assert client.connection.waiting_for_login is None
    assert not client.connection.moderator
    # Several connections of one user are no double.
    assert (await connected(node, ann)).connection.user == client.connection.user


async def test_the_sessions_user_comes_again_where_a_backend_was_away(
    node: Node, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to be nobody, the client would be sent away for good."""

    async def away(*arguments: Any, **named: Any) -> bool:
        raise Unavailable("Away.")

    client = Client(node)
    with monkeypatch.context() as patch:
        patch.setattr(node.context.presence, "add", away)
        await refused(Unavailable, client.connect(ann))
    assert client.told("connected") == []
    client.disconnect()
    assert (await connected(node, ann)).connection.user is not None


async def test_a_moderator_is_known_by_the_permission(node: Node, ann: User) -> None:
    await ann.user_permissions.aadd(await Permission.objects.aget(codename="moderate_room"))
    client = await connected(node, await User.objects.aget(pk=ann.pk))
    assert client.connection.moderator


async def test_whom_the_application_does_not_admit_may_still_log_in(
    node: Node, chat: Application, ann: User
) -> None:
    await Ban.objects.acreate(application=chat, user=ann)
    await node.context.tasks.drain()
    client = await connected(node, ann)
    assert client.told("connected")[0]["user"] is None
    assert client.connection.waiting_for_login is not None
    await client.ask(Login(name="somebody"))


@pytest.mark.parametrize("active", [True, False])
async def test_somebody_anonymous_or_inactive_is_nobody(node: Node, ann: User, active: bool) -> None:
    ann.is_active = False
    client = await connected(node, AnonymousUser() if active else ann)
    assert client.connection.user is None


# Refusals ----------------------------------------------------------------------------------------


async def test_only_users_where_only_users_enter(node: Node, chat: Application, ann: User) -> None:
    await changed(node, chat, entry="users")
    await refused(LoginRefused, (await connected(node)).ask(Login(name="bob")))
    assert (await connected(node, ann)).connection.user is not None


async def test_the_banned(node: Node, chat: Application) -> None:
    await Ban.objects.acreate(application=chat, guest="bob")
    await node.context.tasks.drain()
    await refused(Banned, (await connected(node)).ask(Login(name="Bob")))


async def test_a_full_application(node: Node, chat: Application) -> None:
    await changed(node, chat, max_users=1)
    bob = await Client.named(node, "bob")
    token = await token_of(bob)
    other = await connected(node)
    assert (await refused(ApplicationFull, other.ask(Login(name="eve")))).retry
    await (await connected(node)).ask(Login(token=token))


async def test_so_many_logins_from_one_address(node: Node, chat: Application) -> None:
    await changed(node, chat, logins_per_minute=2)
    for name in ("a", "b"):
        await Client.named(node, name, address="10.0.0.1")
    client = await connected(node, address="10.0.0.1")
    assert (await refused(RateLimited, client.ask(Login(name="c")))).retry
    await Client.named(node, "c", address="10.0.0.2")
    node.auth.sweep()
    await refused(RateLimited, client.ask(Login(name="d")))


async def test_an_extension_may_refuse_a_login(node: Node, chat: Application, installed: Install) -> None:
    class Door(Extension):
        async def on_login(self, event: ConnectionEvent) -> None:
            assert event.user is not None
            if event.user.name == "eve":
                raise Rejected("Not you, Eve.")

    await changed(node, chat, extension=installed(Door))
    client = await connected(node)
    await refused(Rejected, client.ask(Login(name="eve")))
    assert client.connection.user is None
    await refused(NotLoggedIn, client.ask(ListRooms()))
    await node.context.tasks.drain()
    assert await node.context.presence.find(f"application.{chat.pk}", ["eve"]) == {}
    await client.ask(Login(name="bob"))


# Logging out -------------------------------------------------------------------------------------


async def test_logging_out_is_leaving_every_room_and_the_socket_stays(node: Node) -> None:
    bob, eve = await Client.named(node, "bob", "one", "two"), await Client.named(node, "eve", "one")
    await eve.ask(Join(room="two"))
    await bob.ask(Logout())
    frames = bob.listen() or bob.heard
    assert [frame["type"] for frame in frames[-3:]] == ["reply", "removed", "removed"]
    assert {frame["reason"] for frame in bob.told("removed")} == {"logged_out"}
    assert {(frame["room"], frame["reason"]) for frame in eve.told("left")} == {
        ("one", "left"),
        ("two", "left"),
    }
    assert bob.closed is None
    assert bob.connection.waiting_for_login is not None
    await refused(NotLoggedIn, bob.ask(Join(room="one")))
    # The name is free at once.
    await (await connected(node)).ask(Login(name="bob"))
    await bob.ask(Login(name="somebody else"))


async def test_who_is_not_logged_in_cannot_log_out(node: Node) -> None:
    await refused(NotLoggedIn, (await connected(node)).ask(Logout()))


# The time to log in ------------------------------------------------------------------------------


async def test_the_time_to_log_in_begins_when_a_client_can_be_heard(
    make_node: MakeEngine, chat: Application, installed: Install
) -> None:
    seen: list[float | None] = []

    class Greeter(Extension):
        async def on_connect(self, event: ConnectionEvent) -> None:
            seen.append(client.connection.waiting_for_login)

    chat.extension = installed(Greeter)
    await chat.asave()
    client = Client(await make_node())
    await client.connect()
    assert seen == [None]
    assert client.connection.waiting_for_login is not None


async def test_the_time_to_log_in_begins_again_where_a_backend_was_away(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*arguments: Any, **named: Any) -> bool:
        raise Unavailable("Away.")

    client = await connected(node)
    client.connection.waiting_for_login = 0.0
    monkeypatch.setattr(node.context.presence, "add", away)
    await refused(Unavailable, client.ask(Login(name="ann")))
    assert client.connection.waiting_for_login
