"""Too many requests: first an error, then a close, then a close for good."""

from __future__ import annotations

import json
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
from rooms.protocol.compat_commands import Disconnect
from rooms.protocol.errors import CloseCode
from rooms.protocol.events import Error
from rooms.protocol.native import Native
from rooms.protocol.types import User
from tests.records import application_record, room_record

PING = Ping(id=7)


class Site:
    """A directory with one application and one room, and a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.application: Any = SimpleNamespace(config=application_record(request_rate=1, request_burst=2))
        self.room: Any = SimpleNamespace(config=room_record())

    def cached_application(self, name: str) -> Any:
        return self.application

    def cached_room(self, application: str, name: str) -> Any:
        return self.room if name == "lobby" else None


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site()
    for name, kind in (("TokenBucket", TokenBucket), ("OffenceCounter", OffenceCounter)):
        monkeypatch.setattr(throttle, name, partial(kind, clock=lambda: site.now))
    return site


@pytest.fixture
def guard(site: Site) -> Throttle:
    return Throttle(site)  # type: ignore[arg-type]


def connection(user: str = "", address: str = "10.0.0.1") -> Connection:
    made = Connection(f"{user} {address}", Native(), application="chat", address=address)
    made.user = User(name=user, id=user, guest=True) if user else None
    return made


def asked(guard: Throttle, client: Connection, times: int, request: Any = PING) -> int:
    """How many are allowed; the others are refused."""
    allowed = 0
    for _ in range(times):
        if guard.allows(client, request):
            allowed += 1
        else:
            guard.refuse(client, request)
    return allowed


def said(client: Connection) -> list[Any]:
    return [json.loads(line) for frame in client.take() for line in frame.splitlines()]


def test_a_burst_and_then_an_error_that_may_be_tried_again(guard: Throttle) -> None:
    client = connection()
    assert asked(guard, client, 3) == 2
    (error,) = said(client)
    assert (error["type"], error["id"], error["code"], error["retry"]) == ("error", 7, "rate_limited", True)


def test_the_rate_lets_more_through_in_time(guard: Throttle, site: Site) -> None:
    client = connection()
    asked(guard, client, 2)
    site.now += 2
    assert asked(guard, client, 3) == 2
    assert client.close_code is None


def test_three_strikes_end_the_connection_and_say_when_to_come_back(guard: Throttle) -> None:
    client = connection("ann")
    assert asked(guard, client, 5) == 2
    assert client.close_code is CloseCode.RATE_LIMITED
    last = said(client)[-1]
    assert (last["type"], last["code"]) == ("closing", 4006)
    assert 0 < last["retry_in"] <= 30


def test_going_on_after_that_ends_it_for_good(guard: Throttle) -> None:
    asked(guard, connection("ann"), 5)
    again = connection("ann", "10.0.0.2")
    asked(guard, again, 5)
    assert again.close_code is CloseCode.FLOODING
    assert "retry_in" not in said(again)[-1]


def test_others_begin_afresh(guard: Throttle) -> None:
    asked(guard, connection("ann"), 5)
    other = connection("bob")
    asked(guard, other, 5)
    assert other.close_code is CloseCode.RATE_LIMITED


def test_before_the_login_the_address_counts(guard: Throttle) -> None:
    asked(guard, connection(), 5)
    again = connection()
    asked(guard, again, 5)
    assert again.close_code is CloseCode.FLOODING


def test_whom_the_protocol_makes_anonymous_is_known_by_the_address(guard: Throttle) -> None:
    codes = []
    for name in ("one", "two"):
        client = connection(name)
        client.protocol = Gowsev()
        asked(guard, client, 5)
        codes.append(client.close_code)
    assert codes == [CloseCode.RATE_LIMITED, CloseCode.FLOODING]


def test_strikes_are_forgotten(guard: Throttle, site: Site) -> None:
    client = connection("ann")
    asked(guard, client, 4)
    site.now += 31
    guard.sweep()
    asked(guard, client, 4)
    assert client.close_code is None
    asked(guard, client, 1)
    assert client.close_code is CloseCode.RATE_LIMITED
    site.now += 31
    guard.sweep()
    later = connection("ann")
    asked(guard, later, 5)
    assert later.close_code is CloseCode.RATE_LIMITED


def test_requests_that_could_not_be_read_count_too(guard: Throttle) -> None:
    assert asked(guard, connection(), 5, Error(code="bad_request", message="Wrong.")) == 2


def test_a_rate_of_nothing_is_without_limit(guard: Throttle, site: Site) -> None:
    site.application.config = application_record(request_rate=0)
    assert asked(guard, connection(), 1000) == 1000


def message(room: str) -> Send:
    return Send(room=room, data=Raw(b"1"))


def test_a_room_may_have_its_own_rate_for_those_who_are_in_it(guard: Throttle, site: Site) -> None:
    site.room.config = room_record(request_rate=1, request_burst=50)
    client = connection("ann")
    assert asked(guard, client, 5, message("lobby")) == 2
    client = connection("bob")
    client.memberships["lobby"] = Membership(room="lobby", subscriber=False)
    assert asked(guard, client, 50, message("lobby")) == 50
    # What is not for that room is counted apart.
    assert asked(guard, client, 3, Ping()) == 2


def test_a_room_may_be_without_limit(guard: Throttle, site: Site) -> None:
    site.room.config = room_record(request_rate=0)
    client = connection("bob")
    client.memberships["lobby"] = Membership(room="lobby", subscriber=False)
    assert asked(guard, client, 1000, message("lobby")) == 1000


def test_a_changed_rate_begins_at_once(guard: Throttle, site: Site) -> None:
    client = connection()
    assert asked(guard, client, 3) == 2
    site.application.config = application_record(request_rate=1, request_burst=10)
    assert asked(guard, client, 12) == 10


def test_a_service_that_this_server_dialled_is_without_limit(guard: Throttle) -> None:
    service = connection()
    service.outbound = True
    assert asked(guard, service, 100) == 100


def test_whoever_wants_to_go_is_not_in_the_way(guard: Throttle) -> None:
    client = connection()
    assert asked(guard, client, 3) == 2
    assert asked(guard, client, 9, Disconnect()) == 9
    assert client.close_code is None
