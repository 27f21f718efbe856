"""Configs of applications and rooms: protocols, owners, bans and mutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rooms.hub.config import RestrictedUser, room_group
from rooms.protocol.types import User
from tests.hub.factories import guest
from tests.records import application_record, room_record

ANN = User(name="ann", id="1", guest=False)


@pytest.mark.parametrize(
    ("enabled", "protocols", "allowed"),
    [(True, (), True), (True, ("native",), True), (True, ("gowsev",), False), (False, (), False)],
)
def test_an_enabled_application_allows_its_protocols_or_all(
    enabled: bool, protocols: tuple[str, ...], allowed: bool
) -> None:
    config = application_record(enabled=enabled, protocols=protocols)
    assert config.allows_protocol("native") is allowed


def test_a_restriction_of_a_user_concerns_the_id() -> None:
    restriction = RestrictedUser(user="1", guest="", until=None, reason="spam")
    assert restriction.concerns(ANN)
    assert not restriction.concerns(User(name="ann", id="2", guest=False))
    assert not restriction.concerns(User(name="ann", id="1", guest=True))


def test_a_restriction_of_a_guest_concerns_every_spelling_of_the_name() -> None:
    restriction = RestrictedUser(user="", guest="bob", until=None, reason="")
    assert restriction.concerns(guest("bob"))
    assert restriction.concerns(guest("BOB"))
    assert not restriction.concerns(guest("eve"))
    assert not restriction.concerns(User(name="bob", id="2", guest=False))


@pytest.mark.parametrize(("seconds", "concerned"), [(-1, False), (3600, True)])
def test_a_restriction_ends_with_its_time(seconds: int, concerned: bool) -> None:
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    restriction = RestrictedUser(user="1", guest="", until=until, reason="")
    assert restriction.concerns(ANN) is concerned


def test_the_owner_is_known_by_id_and_kind() -> None:
    room = room_record(owner_id="1", owner_name="ann")
    assert room.is_owner(ANN)
    assert not room.is_owner(User(name="ann", id="1", guest=True))
    assert not room_record().is_owner(User(name="", id="", guest=False))


def test_info_describes_the_room() -> None:
    info = room_record(title="Lobby", max_members=8, mode="broadcast").info(3)
    assert (info.name, info.title, info.members, info.max_members, info.mode) == (
        "lobby",
        "Lobby",
        3,
        8,
        "broadcast",
    )


def test_the_key_of_a_room_contains_its_primary_key() -> None:
    assert room_group(12) == "room.12"
