"""Rows become complete configs: blank fields come from the application, then from the settings."""

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
    def test_blank_fields_come_from_the_settings(self) -> None:
        chat = application()
        assert (chat.history_size, chat.request_rate) == (11, 12)
        # The limit of an application without its own depends on the protocol.
        assert chat.max_message_bytes is None
        assert chat.history_ttl == 7 * 24 * 3600
        assert room(chat).history_size == 11

    def test_blank_fields_of_a_room_come_from_the_application(self) -> None:
        chat = application(history="memory", history_size=5, leave_grace=0, request_burst=9)
        lobby = room(chat)
        assert (lobby.history, lobby.history_size, lobby.leave_grace) == ("memory", 5, 0)
        assert (lobby.request_rate, lobby.request_burst) == (None, 9)
        assert lobby.application is chat

    def test_fields_of_the_room_take_precedence(self) -> None:
        chat = application(history_size=5, leave_grace=20)
        lobby = room(chat, history="none", history_size=7, leave_grace=0, request_rate=0)
        assert (lobby.history, lobby.history_size) == ("none", 7)
        assert (lobby.leave_grace, lobby.request_rate) == (0, 0)

    def test_disabled_applications_are_found_and_missing_ones_are_not(self) -> None:
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

    def test_a_room_to_publish_takes_one_query_and_has_no_restrictions(self) -> None:
        chat = application()
        lobby = room(chat, owner=Account.objects.create_user("ann"), history_size=7)
        Ban.objects.create(application_id=chat.id, guest="eve")
        Mute.objects.create(application_id=chat.id, room_id=lobby.id, guest="eve")
        with CaptureQueriesContext(connection) as captured:
            assert config.load_room_to_publish("chat", "lobby") == lobby
        assert len(captured) == 1
        assert config.load_room_to_publish("chat", "hall") is None
        assert config.load_room_to_publish("other", "lobby") is None
        Application.objects.update(enabled=False)
        assert config.load_room_to_publish("chat", "lobby") is None

    def test_rows_are_read_from_the_database_that_is_written(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A replica may not have the change that a control message announces."""
        chat = application()
        lobby = room(chat)

        class Replicated:
            def db_for_read(self, model: type[Model], **hints: Any) -> str:
                return "replica"

        # Reads from it fail.
        replica = {**connections.settings["default"], "ENGINE": "django.db.backends.dummy"}
        monkeypatch.setitem(connections.settings, "replica", replica)
        settings.DATABASE_ROUTERS = [Replicated()]
        assert config.load_application("chat") == chat
        assert config.load_room(chat, "lobby") == lobby
        assert config.load_room_by_id(chat, lobby.id) == lobby

    def test_the_owner_is_a_user_or_a_guest_or_missing(self) -> None:
        chat, ann = application(), Account.objects.create_user("ann")
        users = room(chat, owner=ann)
        guests = room(chat, name="guests", guest_owner_id="guest-1", guest_owner_name="bob")
        unowned = room(chat, name="unowned")
        assert (users.owner_id, users.owner_name, users.owner_guest) == (str(ann.pk), "ann", False)
        assert (guests.owner_id, guests.owner_name, guests.owner_guest) == ("guest-1", "bob", True)
        assert (unowned.owner_id, unowned.owner_name) == ("", "")
        assert guests.is_owner(GUEST)
        assert not users.is_owner(GUEST)
        assert not unowned.is_owner(User(name="", id="", guest=False))

    def test_expired_restrictions_are_left_out(self) -> None:
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

    def test_the_group_of_an_application_is_its_id(self) -> None:
        group = Group.objects.create(name="staff")
        assert application(entry="group", group=group).group == group.pk

    def test_names_of_room_finds_the_room_of_a_key(self) -> None:
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

    def test_only_listed_rooms_of_the_application_are_found(self, chat: ApplicationConfig) -> None:
        assert sorted(self.listed(chat)) == sorted(["Alto", "al_", "alpha", "beta"])
        assert len(self.listed(chat, limit=2)) == 2
        assert self.listed(chat, limit=0) == []

    def test_the_prefix_is_compared_exactly(self, chat: ApplicationConfig) -> None:
        assert sorted(self.listed(chat, "al")) == ["al_", "alpha"]
        assert self.listed(chat, "al_") == ["al_"]
        assert self.listed(chat, "%") == []

    def test_an_entry_describes_the_room(self, chat: ApplicationConfig) -> None:
        ((pk, info),) = config.list_rooms(chat, "beta", 1).items()
        assert pk == Room.objects.get(name="beta").pk
        assert (info.title, info.members, info.max_members, info.mode) == ("BETA", 0, None, "open")

    def test_the_list_takes_one_query(self, chat: ApplicationConfig, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(1):
            config.list_rooms(chat, "", 100)


@pytest.mark.django_db
class TestCreating:
    def test_the_creator_owns_the_room(self) -> None:
        chat, ann = application(), Account.objects.create_user("ann")
        config.create_room(chat, CreateRoom(room="users"), User(name="ann", id=str(ann.pk), guest=False))
        config.create_room(chat, CreateRoom(room="guests"), GUEST)
        config.create_room(chat, CreateRoom(room="servers"), None)
        users, guests, servers = (config.load_room(chat, name) for name in ("users", "guests", "servers"))
        assert users is not None
        assert (users.owner_id, users.persistent) == (str(ann.pk), False)
        assert guests is not None
        assert (guests.owner_id, guests.owner_name, guests.owner_guest) == ("guest-1", "bob", True)
        assert servers is not None
        assert servers.owner_id == ""
        assert Sequence.objects.count() == 3

    def test_the_fields_of_the_command_are_saved(self) -> None:
        chat = application(rooms_stay=True)
        command = CreateRoom(room="x", title="T", mode="broadcast", max_members=3, password="ignored here")
        config.create_room(chat, command, GUEST, make_password("sesame"))
        created = config.load_room(chat, "x")
        assert created is not None
        assert (created.title, created.mode, created.max_members, created.persistent) == (
            "T",
            "broadcast",
            3,
            True,
        )
        assert check_password("sesame", created.password)

    def test_a_name_that_is_taken_leaves_the_transaction_usable(self) -> None:
        chat = application()
        config.create_room(chat, CreateRoom(room="x"), None)
        with pytest.raises(RoomExists):
            config.create_room(chat, CreateRoom(room="x"), GUEST)
        assert Room.objects.count() == 1

    def test_max_rooms_of_the_application_is_enforced(self) -> None:
        chat = application(max_rooms=1)
        config.create_room(chat, CreateRoom(room="x"), None)
        with pytest.raises(PermissionDenied):
            config.create_room(chat, CreateRoom(room="y"), None)

    def test_a_room_may_be_deleted_twice(self) -> None:
        lobby = room(application())
        config.delete_room(lobby.id)
        config.delete_room(lobby.id)
        assert not Room.objects.exists()

    def test_temporary_rooms_are_found_by_age(self) -> None:
        chat = application()
        room(chat, name="stays")
        temporary = room(chat, name="goes", persistent=False)
        now = timezone.now()
        assert config.temporary_rooms(now + timedelta(seconds=1)) == [temporary.id]
        assert config.temporary_rooms(now - timedelta(hours=1)) == []


@pytest.mark.django_db(transaction=True)
def test_max_rooms_holds_for_concurrent_creation() -> None:
    chat = application(max_rooms=3)
    together = threading.Barrier(6)

    def create(number: int) -> bool:
        together.wait(timeout=60)
        try:
            config.create_room(chat, CreateRoom(room=f"room {number}"), None)
        except PermissionDenied:
            return False
        finally:
            connections.close_all()
        return True

    with ThreadPoolExecutor(6) as threads:
        created = list(threads.map(create, range(6)))
    assert sum(created) == Room.objects.count() == 3
