"""Every permission rule by itself, over plain configs."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.utils import timezone

from rooms.hub.config import RestrictedUser
from rooms.node import permissions
from rooms.protocol.errors import (
    BadPassword,
    Banned,
    LoginRefused,
    Muted,
    NotSender,
    PermissionDenied,
    RoomsError,
)
from rooms.protocol.types import User
from tests.records import application_record, room_record

ANN = User(name="ann", id="1", guest=False)
BOB = User(name="Bob", id="guest-2", guest=True)

FOR_ANN = RestrictedUser(user="1", guest="", until=None, reason="spam")
FOR_BOB = RestrictedUser(user="", guest="bob", until=None, reason="")


def known_as(*users: User) -> Any:
    """A client that counts as these users."""
    return SimpleNamespace(identities=users)


def refused(error: type[RoomsError], check: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(error) as raised:
        check(*arguments, **keywords)
    return str(raised.value)


def test_any_user_may_log_in_to_an_open_application() -> None:
    permissions.check_entry(application_record(), BOB, frozenset())
    permissions.check_entry(application_record(), ANN, frozenset())


def test_guests_are_refused_where_entry_is_limited_to_users() -> None:
    users_only = application_record(entry="users")
    permissions.check_entry(users_only, ANN, frozenset())
    refused(LoginRefused, permissions.check_entry, users_only, BOB, frozenset())


@pytest.mark.parametrize("groups", [frozenset[int](), frozenset({8})])
def test_only_group_members_may_log_in_where_entry_is_limited_to_a_group(groups: frozenset[int]) -> None:
    members_only = application_record(entry="group", group=7)
    permissions.check_entry(members_only, ANN, frozenset({7, 9}))
    refused(LoginRefused, permissions.check_entry, members_only, ANN, groups)
    refused(LoginRefused, permissions.check_entry, members_only, BOB, frozenset({7}))


def test_all_users_are_refused_when_the_group_is_deleted() -> None:
    refused(LoginRefused, permissions.check_entry, application_record(entry="group"), ANN, frozenset({7}))


def test_banned_users_are_refused_with_the_reason() -> None:
    banning = application_record(bans=(FOR_ANN, FOR_BOB))
    assert "spam" in refused(Banned, permissions.check_entry, banning, ANN, frozenset())
    refused(Banned, permissions.check_entry, banning, BOB, frozenset())
    permissions.check_entry(banning, User(name="eve", id="3", guest=False), frozenset())


def test_bans_of_guests_and_of_users_are_separate() -> None:
    banning = application_record(bans=(FOR_ANN, FOR_BOB))
    permissions.check_entry(banning, User(name="bob", id="9", guest=False), frozenset())
    permissions.check_entry(banning, User(name="ann", id="1", guest=True), frozenset())


def test_a_restriction_applies_until_its_end() -> None:
    now = timezone.now()
    over = RestrictedUser(user="1", guest="", until=now - timedelta(seconds=1), reason="")
    lasting = RestrictedUser(user="1", guest="", until=now + timedelta(hours=1), reason="")
    permissions.check_entry(application_record(bans=(over,)), ANN, frozenset())
    text = refused(Banned, permissions.check_entry, application_record(bans=(lasting,)), ANN, frozenset())
    assert "until" in text


def test_bans_do_not_apply_to_moderators() -> None:
    room = room_record(bans=(FOR_ANN,))
    refused(Banned, permissions.check_join, room, known_as(ANN), moderator=False)
    permissions.check_join(room, known_as(ANN), moderator=True)
    permissions.check_join(room, known_as(BOB), moderator=False)


def test_owner_and_moderators_need_no_password() -> None:
    locked = room_record(password="hash", owner_id="guest-2", owner_guest=True)
    assert permissions.needs_password(locked, ANN, moderator=False)
    assert not permissions.needs_password(locked, ANN, moderator=True)
    assert not permissions.needs_password(locked, BOB, moderator=False)
    assert not permissions.needs_password(room_record(), ANN, moderator=False)


def test_only_the_right_password_is_accepted() -> None:
    room = room_record(password=make_password("sesame"))
    permissions.check_room_password(room, "sesame")
    for wrong in (None, "", "Sesame"):
        refused(BadPassword, permissions.check_room_password, room, wrong)


def test_only_the_owner_sends_in_a_broadcast_room() -> None:
    room = room_record(mode="broadcast", owner_id="1")
    permissions.check_send(room, ANN, known_as(ANN))
    refused(NotSender, permissions.check_send, room, BOB, known_as(BOB))


def test_a_guest_with_the_id_of_the_owner_is_not_the_owner() -> None:
    room = room_record(mode="broadcast", owner_id="1")
    guest = User(name="ann", id="1", guest=True)
    refused(NotSender, permissions.check_send, room, guest, known_as(guest))


def test_a_room_without_owner_has_no_moderating_owner() -> None:
    user = User(name="x", id="", guest=False)
    refused(PermissionDenied, permissions.check_moderate, room_record(), user, moderator=False)


def test_muted_users_may_not_send_in_the_room_or_application() -> None:
    permissions.check_send(room_record(), BOB, known_as(BOB))
    refused(Muted, permissions.check_send, room_record(mutes=(FOR_BOB,)), BOB, known_as(BOB))
    everywhere = room_record(application=application_record(mutes=(FOR_BOB,)))
    refused(Muted, permissions.check_send, everywhere, BOB, known_as(BOB))
    permissions.check_send(everywhere, ANN, known_as(ANN))


def test_rooms_are_created_where_the_application_allows_it() -> None:
    permissions.check_create(application_record(rooms_on_demand=True))
    refused(PermissionDenied, permissions.check_create, application_record())


def test_owner_and_moderators_moderate() -> None:
    room = room_record(owner_id="1")
    permissions.check_moderate(room, ANN, moderator=False)
    permissions.check_moderate(room, BOB, moderator=True)
    refused(PermissionDenied, permissions.check_moderate, room, BOB, moderator=False)


@pytest.mark.parametrize(
    ("mode", "user", "moderator", "subscriber", "sends", "moderates"),
    [
        ("open", BOB, False, False, True, False),
        ("open", BOB, False, True, False, False),
        ("broadcast", BOB, False, False, False, False),
        ("broadcast", BOB, True, False, False, True),
        ("broadcast", ANN, False, False, True, True),
        ("broadcast", ANN, False, True, False, True),
    ],
)
def test_details_show_the_permissions_of_the_user(
    mode: Any, user: User, moderator: bool, subscriber: bool, sends: bool, moderates: bool
) -> None:
    room = room_record(mode=mode, owner_id="1", owner_name="ann", max_members=5)
    seen = permissions.details(room, user, moderator=moderator, subscriber=subscriber)
    assert (seen.name, seen.mode, seen.owner, seen.max_members) == ("lobby", mode, "ann", 5)
    assert (seen.you.send, seen.you.moderate) == (sends, moderates)


def test_details_of_a_room_without_owner_have_none() -> None:
    assert permissions.details(room_record(), ANN, moderator=False).owner is None
