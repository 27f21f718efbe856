"""Rate limits: too many commands get an error, then a close, then a close for good."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Raw

from rooms.compat.gowsev import Gowsev
from rooms.concurrency.rate_limits import OffenceCounter, TokenBucket
from rooms.hub.connection import Connection, Membership
from rooms.node import throttle
from rooms.node.throttle import Throttle
from rooms.protocol.commands import Ping, Send
from rooms.protocol.compat_commands import ApplicationCommand, Disconnect, SendWithoutJoining
from rooms.protocol.errors import CloseCode
from rooms.protocol.events import Error
from rooms.protocol.native import Native
from rooms.protocol.types import User
from tests.records import application_record, room_record

Connect = Callable[..., Connection]

PING = Ping(id=7)


class Site:
    """A registry with one application and one room, and a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.application: Any = SimpleNamespace(config=application_record(request_rate=1, request_burst=2))
        self.room: Any = SimpleNamespace(config=room_record())

    def cached_room(self, application: str, name: str) -> Any:
        return self.room if name == "lobby" else None


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site()
    for name, kind in (("TokenBucket", TokenBucket), ("OffenceCounter", OffenceCounter)):
        monkeypatch.setattr(throttle, name, partial(kind, clock=lambda: site.now))
    return site


@pytest.fixture
def limiter(site: Site) -> Throttle:
    return Throttle(site)  # type: ignore[arg-type]


@pytest.fixture
def connect(site: Site) -> Connect:
    """Return a function that makes connections of the application."""

    def make(user: str = "", address: str = "10.0.0.1") -> Connection:
        connection = Connection(f"{user} {address}", Native(), application="chat", address=address)
        connection.user = User(name=user, id=user, guest=True) if user else None
        connection.entered = site.application
        return connection

    return make


def send(limiter: Throttle, client: Connection, times: int, command: Any = PING) -> int:
    """Return how many commands are allowed; the others are refused."""
    allowed = 0
    for _ in range(times):
        if limiter.allows(client, command):
            allowed += 1
        else:
            limiter.refuse(client, command)
    return allowed


def sent(client: Connection) -> list[Any]:
    return [json.loads(line) for frame in client.pop_all() for line in frame.splitlines()]


def test_commands_above_the_burst_get_an_error_that_may_be_retried(
    limiter: Throttle, connect: Connect
) -> None:
    client = connect()
    assert send(limiter, client, 3) == 2
    (error,) = sent(client)
    assert (error["type"], error["id"], error["code"], error["retry"]) == ("error", 7, "rate_limited", True)


def test_the_bucket_refills_at_the_rate(limiter: Throttle, site: Site, connect: Connect) -> None:
    client = connect()
    send(limiter, client, 2)
    site.now += 2
    assert send(limiter, client, 3) == 2
    assert client.close_code is None


def test_three_offences_close_the_connection_with_a_retry_time(limiter: Throttle, connect: Connect) -> None:
    client = connect("ann")
    assert send(limiter, client, 5) == 2
    assert client.close_code is CloseCode.RATE_LIMITED
    last = sent(client)[-1]
    assert (last["type"], last["code"]) == ("closing", 4006)
    assert 0 < last["retry_in"] <= 30


def test_further_offences_after_a_reconnect_close_for_good(limiter: Throttle, connect: Connect) -> None:
    send(limiter, connect("ann"), 5)
    again = connect("ann", "10.0.0.2")
    send(limiter, again, 5)
    assert again.close_code is CloseCode.FLOODING
    assert "retry_in" not in sent(again)[-1]


def test_offences_of_one_user_do_not_count_for_another(limiter: Throttle, connect: Connect) -> None:
    send(limiter, connect("ann"), 5)
    other = connect("bob")
    send(limiter, other, 5)
    assert other.close_code is CloseCode.RATE_LIMITED


def test_before_the_login_offences_count_by_address(limiter: Throttle, connect: Connect) -> None:
    send(limiter, connect(), 5)
    again = connect()
    send(limiter, again, 5)
    assert again.close_code is CloseCode.FLOODING


def test_offences_of_anonymous_clients_count_by_address(limiter: Throttle, connect: Connect) -> None:
    codes = []
    for name in ("one", "two"):
        client = connect(name)
        client.protocol = Gowsev()
        send(limiter, client, 5)
        codes.append(client.close_code)
    assert codes == [CloseCode.RATE_LIMITED, CloseCode.FLOODING]


def test_offences_outside_the_window_are_forgotten(limiter: Throttle, site: Site, connect: Connect) -> None:
    client = connect("ann")
    send(limiter, client, 4)
    site.now += 31
    limiter.sweep()
    send(limiter, client, 4)
    assert client.close_code is None
    send(limiter, client, 1)
    assert client.close_code is CloseCode.RATE_LIMITED
    site.now += 31
    limiter.sweep()
    later = connect("ann")
    send(limiter, later, 5)
    assert later.close_code is CloseCode.RATE_LIMITED


def test_commands_that_cannot_be_decoded_count_as_well(limiter: Throttle, connect: Connect) -> None:
    assert send(limiter, connect(), 5, Error(code="bad_request", message="Wrong.")) == 2


def test_a_rate_of_zero_means_no_limit(limiter: Throttle, site: Site, connect: Connect) -> None:
    site.application.config = application_record(request_rate=0)
    assert send(limiter, connect(), 1000) == 1000


def message(room: str) -> Send:
    return Send(room=room, data=Raw(b"1"))


def test_a_rate_of_a_room_limits_the_messages_of_its_members(
    limiter: Throttle, site: Site, connect: Connect
) -> None:
    site.room.config = room_record(request_rate=1, request_burst=50)
    client = connect("ann")
    assert send(limiter, client, 5, message("lobby")) == 2
    client = connect("bob")
    client.memberships["lobby"] = Membership(room=site.room, subscriber=False)
    assert send(limiter, client, 50, message("lobby")) == 50
    # Other commands have a limit of their own.
    assert send(limiter, client, 3, Ping()) == 2


def test_a_rate_of_a_room_limits_messages_of_clients_that_need_not_join(
    limiter: Throttle, site: Site, connect: Connect
) -> None:
    site.room.config = room_record(request_rate=1, request_burst=50)
    client = connect("ann")
    command = SendWithoutJoining(room="lobby", data=Raw(b"1"))
    assert send(limiter, client, 50, command) == 50
    assert send(limiter, client, 3, ApplicationCommand(application="chat", command=command)) == 0
    client = connect("bob")
    # A room that is not loaded has no rate yet.
    assert send(limiter, client, 3, SendWithoutJoining(room="hall", data=Raw(b"1"))) == 2


def test_a_room_may_have_no_limit(limiter: Throttle, site: Site, connect: Connect) -> None:
    site.room.config = room_record(request_rate=0)
    client = connect("bob")
    client.memberships["lobby"] = Membership(room=site.room, subscriber=False)
    assert send(limiter, client, 1000, message("lobby")) == 1000


def test_a_changed_rate_applies_at_once(limiter: Throttle, site: Site, connect: Connect) -> None:
    client = connect()
    assert send(limiter, client, 3) == 2
    site.application.config = application_record(request_rate=1, request_burst=10)
    assert send(limiter, client, 12) == 10


def test_an_outbound_connection_has_no_limit(limiter: Throttle, connect: Connect) -> None:
    outbound = connect()
    outbound.outbound = True
    assert send(limiter, outbound, 100) == 100


def test_a_disconnect_command_is_always_allowed(limiter: Throttle, connect: Connect) -> None:
    client = connect()
    assert send(limiter, client, 3) == 2
    assert send(limiter, client, 9, Disconnect()) == 9
    assert client.close_code is None
