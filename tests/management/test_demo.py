"""``manage.py demo``: something to look at in an empty database, and nothing at all in any other."""

from __future__ import annotations

from io import StringIO

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError

from rooms.management.commands import demo
from rooms.models import Application, Room

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def debug(settings) -> None:
    settings.DEBUG = True


def prepare(*options: str) -> None:
    call_command("demo", "--no-serve", *options, stdout=StringIO())


def test_an_empty_database_gets_applications_rooms_and_users() -> None:
    prepare()
    assert {(room.application.name, room.name) for room in Room.objects.select_related("application")} == {
        ("chat", "lobby"),
        ("chat", "help"),
        ("quiz", "lobby"),
        ("quiz", "help"),
    }
    chat = Application.objects.get(name="chat")
    assert (chat.entry, chat.rooms_on_demand) == ("anyone", True)
    admin = authenticate(username="admin", password="admin")
    assert admin is not None
    assert admin.is_superuser
    assert authenticate(username="ann", password="ann") is not None


def test_preparing_again_changes_nothing() -> None:
    prepare()
    Room.objects.get(application__name="chat", name="help").delete()
    prepare()
    assert Room.objects.count() == 3


@pytest.mark.parametrize("what", ["a user", "an application"])
def test_a_database_that_is_in_use_gets_nothing(what: str) -> None:
    if what == "a user":
        get_user_model().objects.create_user("somebody")
    else:
        Application.objects.create(name="mine")
    prepare()
    assert not get_user_model().objects.filter(username__in=demo.DEMO_USERS).exists()
    assert not Application.objects.filter(name="chat").exists()


def test_public_passwords_never_come_into_being_with_debug_off(settings) -> None:
    settings.DEBUG = False
    with pytest.raises(CommandError, match="DEBUG"):
        prepare()
    assert not get_user_model().objects.exists()


def test_bench_adds_applications_without_limits_to_whatever_is_there() -> None:
    Application.objects.create(name="mine")
    prepare("--bench")
    prepare("--bench")
    for name, history, stays in (("bench", "none", False), ("durable", "database", True)):
        application = Application.objects.get(name=name)
        assert (application.history, application.rooms_stay) == (history, stays)
        assert (application.entry, application.rooms_on_demand) == ("anyone", True)
        limits = (
            application.request_rate,
            application.logins_per_minute,
            application.max_connections_per_address,
        )
        assert limits == (0, 0, 0)


@pytest.mark.parametrize("addr", ["8000x", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", ""])
def test_an_address_that_is_none_is_refused_with_an_example(addr: str) -> None:
    with pytest.raises(CommandError, match=r"127\.0\.0\.1:8000"):
        prepare("--addr", addr)


def test_the_greeting_says_where_to_go_and_how_to_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[str, int]] = []
    monkeypatch.setattr(demo, "_serve", lambda host, port: served.append((host, port)))
    said = StringIO()
    call_command("demo", "--addr", "127.0.0.1:9000", stdout=said)
    for word in ("http://127.0.0.1:9000/rooms/chat/", "/admin/", "admin or ann", "the password is the name"):
        assert word in said.getvalue()
    assert served == [("127.0.0.1", 9000)]
