"""Rows become complete values: what a room leaves blank its application says, then the settings."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.models import Group
from django.contrib.auth.models import User as Account
from django.db import connection, connections
from django.db.models import Model
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from rooms.hub.config import ApplicationConfig, RoomConfig, room_group
from rooms.models import Application, Ban, Mute, Room, Sequence
from rooms.node import config
from rooms.protocol.commands import CreateRoom
from rooms.protocol.errors import PermissionDenied, RoomExists
from rooms.protocol.types import User

pytestmark = pytest.mark.database

GUEST = User(name="bob", id="guest-1", guest=True)


def application(**fields: Any) -> ApplicationConfig:
    Application.objects.create(**{"name": "chat", **fields})
    found = config.load_application(fields.get("name", "chat"))
    assert found is not None
    return found


def room(of: ApplicationConfig, **fields: Any) -> RoomConfig:
    Room.objects.create(**{"application_id": of.id, "name": "lobby", **fields})
    found = config.load_room(of, fields.get("name", "lobby"))
    assert found is not None
    return found


@pytest.mark.django_db
class TestLoading:
    @override_settings(ROOMS={"HISTORY_SIZE": 11, "REQUEST_RATE": 12, "MAX_MESSAGE_BYTES": 13})
    def test_what_nobody_says_the_settings_say(self) -> None:
        chat = application()
        assert (chat.history_size, chat.request_rate) == (11, 12)
        # What the application leaves open depends on the protocol.
        assert chat.max_message_bytes is None
        assert chat.history_ttl == 7 * 24 * 3600
        assert room(chat).history_size == 11

    def test_what_the_application_says_holds_in_its_rooms(self) -> None:
        chat = application(history="memory", history_size=5, leave_grace=0, request_burst=9)
        lobby = room(chat)
        assert (lobby.history, lobby.history_size, lobby.leave_grace) == ("memory", 5, 0)
        assert (lobby.request_rate, lobby.request_burst) == (None, 9)
        assert lobby.application is chat

    def test_what_the_room_says_holds(self) -> None:
        chat = application(history_size=5, leave_grace=20)
        lobby = room(chat, history="none", history_size=7, leave_grace=0, request_rate=0)
        assert (lobby.history, lobby.history_size) == ("none", 7)
        assert (lobby.leave_grace, lobby.request_rate) == (0, 0)

    def test_disabled_ones_are_found_and_others_are_not(self) -> None:
        assert application(enabled=False).enabled is False
        assert config.load_application("other") is None
        assert config.load_application("Chat") is None

    def test_a_room_is_found_in_its_application_by_name_or_id(self) -> None:
        chat, other = application(), application(name="other")
        lobby = room(chat)
        assert config.load_room(other, "lobby") is None
        assert config.load_room(chat, "Lobby") is None
        assert config.load_room_by_id(chat, lobby.id) == lobby
        assert config.load_room_by_id(other, lobby.id) is None

    def test_many_rooms_take_no_more_queries_than_one(self) -> None:
        chat, other = application(), application(name="other")
        here, moved = [room(chat, name=f"room {number}") for number in range(3)], room(other)
        for found in here[:2]:
            Ban.objects.create(application_id=chat.id, room_id=found.id, guest=found.name)
        with CaptureQueriesContext(connection) as captured:
            rooms = config.load_rooms(chat, [*(each.id for each in here), moved.id, 10**6])
        assert len(captured) == 3
        assert rooms == {each.id: config.load_room_by_id(chat, each.id) for each in [*here, moved]}
        bans = [[ban.guest for ban in found.bans] for found in rooms.values() if found is not None]
        assert sorted(bans) == [[], ["room 0"], ["room 1"]]
        assert rooms[moved.id] is None

    def test_rows_are_read_where_they_are_written(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A copy may not know yet what the notice says."""
        chat = application()
        lobby = room(chat)

        class Copied:
            def db_for_read(self, model: type[Model], **hints: Any) -> str:
                return "copy"

        # Nothing can be read from it.
        copy = {**connections.settings["default"], "ENGINE": "django.db.backends.dummy"}
        monkeypatch.setitem(connections.settings, "copy", copy)
        settings.DATABASE_ROUTERS = [Copied()]
        assert config.load_application("chat") == chat
        assert config.load_room(chat, "lobby") == lobby
        assert config.load_room_by_id(chat, lobby.id) == lobby

    def test_the_owner_is_a_user_a_guest_or_nobody(self) -> None:
        chat, ann = application(), Account.objects.create_user("ann")
        hers = room(chat, owner=ann)
        his = room(chat, name="his", guest_owner_id="guest-1", guest_owner_name="bob")
        nobodys = room(chat, name="nobodys")
        assert (hers.owner_id, hers.owner_name, hers.owner_guest) == (str(ann.pk), "ann", False)
        assert (his.owner_id, his.owner_name, his.owner_guest) == ("guest-1", "bob", True)
        assert (nobodys.owner_id, nobodys.owner_name) == ("", "")
        assert his.is_owner(GUEST)
        assert not hers.is_owner(GUEST)
        assert not nobodys.is_owner(User(name="", id="", guest=False))

    def test_restrictions_that_are_over_are_left_out(self) -> None:
        chat = application()
        row = Application.objects.get()
        now = timezone.now()
        Ban.objects.create(application=row, guest="BOB", reason="spam")
        Ban.objects.create(application=row, guest="eve", until=now - timedelta(seconds=1))
        lobby_row = Room.objects.create(application=row, name="lobby")
        Mute.objects.create(application=row, room=lobby_row, guest="bob", until=now + timedelta(hours=1))
        found = config.load_application("chat")
        assert found is not None
        assert [(each.guest, each.reason) for each in found.bans] == [("bob", "spam")]
        assert found.mutes == ()
        assert found.bans[0].concerns(GUEST)
        lobby = config.load_room(chat, "lobby")
        assert lobby is not None
        assert (len(lobby.bans), len(lobby.mutes)) == (0, 1)

    def test_the_group_whose_members_may_enter(self) -> None:
        group = Group.objects.create(name="staff")
        assert application(entry="group", group=group).group == group.pk

    def test_a_group_leads_back_to_its_room(self) -> None:
        lobby = room(application())
        assert config.names_of_room(room_group(lobby.id)) == ("chat", "lobby")
        Room.objects.all().delete()
        assert config.names_of_room(room_group(lobby.id)) is None
        assert config.names_of_room("application.1") is None


@pytest.mark.django_db
class TestListing:
    @pytest.fixture
    def chat(self) -> ApplicationConfig:
        chat = application()
        for name in ("beta", "alpha", "Alto", "al_", "hidden"):
            room(chat, name=name, listed=name != "hidden", title=name.upper())
        room(application(name="other"), name="elsewhere")
        return chat

    def listed(self, chat: ApplicationConfig, prefix: str = "", limit: int = 100) -> list[str]:
        return [info.name for info in config.list_rooms(chat, prefix, limit).values()]

    def test_listed_rooms_of_the_application(self, chat: ApplicationConfig) -> None:
        assert sorted(self.listed(chat)) == sorted(["Alto", "al_", "alpha", "beta"])
        assert len(self.listed(chat, limit=2)) == 2
        assert self.listed(chat, limit=0) == []

    def test_the_prefix_is_compared_exactly(self, chat: ApplicationConfig) -> None:
        assert sorted(self.listed(chat, "al")) == ["al_", "alpha"]
        assert self.listed(chat, "al_") == ["al_"]
        assert self.listed(chat, "%") == []

    def test_it_shows_what_the_room_is(self, chat: ApplicationConfig) -> None:
        ((pk, info),) = config.list_rooms(chat, "beta", 1).items()
        assert pk == Room.objects.get(name="beta").pk
        assert (info.title, info.members, info.max_members, info.mode) == ("BETA", 0, None, "open")

    def test_one_query_however_many_rooms(
        self, chat: ApplicationConfig, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(1):
            config.list_rooms(chat, "", 100)


@pytest.mark.django_db
class TestMaking:
    def test_the_maker_owns_it(self) -> None:
        chat, ann = application(), Account.objects.create_user("ann")
        config.create_room(chat, CreateRoom(room="hers"), User(name="ann", id=str(ann.pk), guest=False))
        config.create_room(chat, CreateRoom(room="his"), GUEST)
        config.create_room(chat, CreateRoom(room="ours"), None)
        hers, his, ours = (config.load_room(chat, name) for name in ("hers", "his", "ours"))
        assert hers is not None
        assert (hers.owner_id, hers.persistent) == (str(ann.pk), False)
        assert his is not None
        assert (his.owner_id, his.owner_name, his.owner_guest) == ("guest-1", "bob", True)
        assert ours is not None
        assert ours.owner_id == ""
        assert Sequence.objects.count() == 3

    def test_what_was_asked_for(self) -> None:
        chat = application(rooms_stay=True)
        wish = CreateRoom(room="x", title="T", mode="broadcast", max_members=3, password="ignored here")
        config.create_room(chat, wish, GUEST, make_password("sesame"))
        made = config.load_room(chat, "x")
        assert made is not None
        assert (made.title, made.mode, made.max_members, made.persistent) == ("T", "broadcast", 3, True)
        assert check_password("sesame", made.password)

    def test_a_name_that_is_taken_leaves_the_transaction_usable(self) -> None:
        chat = application()
        config.create_room(chat, CreateRoom(room="x"), None)
        with pytest.raises(RoomExists):
            config.create_room(chat, CreateRoom(room="x"), GUEST)
        assert Room.objects.count() == 1

    def test_no_more_rooms_than_the_application_may_have(self) -> None:
        chat = application(max_rooms=1)
        config.create_room(chat, CreateRoom(room="x"), None)
        with pytest.raises(PermissionDenied):
            config.create_room(chat, CreateRoom(room="y"), None)

    def test_deleting(self) -> None:
        lobby = room(application())
        config.delete_room(lobby.id)
        config.delete_room(lobby.id)
        assert not Room.objects.exists()

    def test_rooms_that_pass(self) -> None:
        chat = application()
        room(chat, name="stays")
        passing = room(chat, name="passes", persistent=False)
        now = timezone.now()
        assert config.temporary_rooms(now + timedelta(seconds=1)) == [passing.id]
        assert config.temporary_rooms(now - timedelta(hours=1)) == []


@pytest.mark.django_db(transaction=True)
def test_those_who_make_rooms_at_the_same_time_keep_to_the_limit() -> None:
    chat = application(max_rooms=3)
    together = threading.Barrier(6)

    def make(number: int) -> bool:
        together.wait(timeout=10)
        try:
            config.create_room(chat, CreateRoom(room=f"room {number}"), None)
        except PermissionDenied:
            return False
        finally:
            connections.close_all()
        return True

    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(make, range(6)))
    assert sum(made) == Room.objects.count() == 3
