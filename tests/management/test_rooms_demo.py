"""``manage.py rooms_demo``: demo data in an empty database, none in any other."""

from __future__ import annotations

import socket
from io import StringIO

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError

from rooms.management.commands import rooms_demo
from rooms.models import Application, Room
from tests.servers import manage, site_environment
from tests.services import free_port

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def debug(settings) -> None:
    settings.DEBUG = True


def prepare(*options: str) -> None:
    call_command("rooms_demo", "--no-serve", *options, stdout=StringIO())


def test_empty_database_gets_applications_rooms_and_users() -> None:
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


def test_second_run_changes_nothing() -> None:
    prepare()
    Room.objects.get(application__name="chat", name="help").delete()
    prepare()
    assert Room.objects.count() == 3


@pytest.mark.parametrize("what", ["a user", "an application"])
def test_database_with_data_gets_no_demo_data(what: str) -> None:
    if what == "a user":
        get_user_model().objects.create_user("dan")
    else:
        Application.objects.create(name="mine")
    prepare()
    assert not get_user_model().objects.filter(username__in=rooms_demo.DEMO_USERS).exists()
    assert not Application.objects.filter(name="chat").exists()


def test_public_passwords_are_never_created_with_debug_off(settings) -> None:
    settings.DEBUG = False
    with pytest.raises(CommandError, match=r"^Expected DEBUG on, .+ got DEBUG off\.$"):
        prepare()
    assert not get_user_model().objects.exists()


def test_bench_adds_applications_without_limits_to_any_database() -> None:
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
def test_invalid_address_is_refused_with_an_example(addr: str) -> None:
    with pytest.raises(CommandError, match=r"^Expected --addr HOST:PORT, for example 127\.0\.0\.1:8000, got"):
        prepare("--addr", addr)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The addresses that the command would serve; it serves none."""
    served: list[tuple[str, int]] = []
    monkeypatch.setattr(rooms_demo, "_serve", lambda host, port: served.append((host, port)))
    return served


def greeting(port: int) -> str:
    output = StringIO()
    call_command("rooms_demo", "--addr", f"127.0.0.1:{port}", stdout=output)
    return output.getvalue()


def test_greeting_lists_addresses_and_logins(served: list[tuple[str, int]]) -> None:
    port = free_port()
    output = greeting(port)
    assert f"http://127.0.0.1:{port}/rooms/chat/" in output
    assert "/admin/" in output
    assert "Log in as admin or ann; the password is the name." in output
    protocols = [line.split() for line in output.splitlines() if line.endswith(" clients")]
    assert protocols[0] == ["Protocols", f"ws://127.0.0.1:{port}/ws", "for", "roomer", "clients"]
    assert [line[-4] for line in protocols[1:]] == [
        f"ws://127.0.0.1:{port}{path}" for path in ("/broadcasting", "/", "/ws/gowsev/gowsev/")
    ]
    assert served == [("127.0.0.1", port)]


def test_disabled_protocols_are_not_listed(served: list[tuple[str, int]], settings) -> None:
    settings.ROOMS = {}
    assert "Protocols" not in greeting(free_port())


def test_login_is_listed_while_the_user_has_the_public_password(served: list[tuple[str, int]]) -> None:
    prepare()
    port = free_port()
    assert "Log in as admin or ann; the password is the name." in greeting(port)
    admin, ann = get_user_model().objects.order_by("username")
    admin.set_password("something else")
    admin.save()
    assert "Log in as ann; the password is the name." in greeting(port)
    ann.is_active = False
    ann.save()
    output = greeting(port)
    assert "Log in" not in output
    assert "no demo data was added" in output


def test_port_in_use_is_refused_before_the_database_is_touched(served: list[tuple[str, int]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        with pytest.raises(CommandError, match=rf"127\.0\.0\.1:{port}: .+ Choose another") as raised:
            greeting(port)
    assert raised.value.returncode == 1
    assert served == []
    assert not Application.objects.exists()


def test_address_of_another_machine_is_refused(served: list[tuple[str, int]]) -> None:
    with pytest.raises(CommandError, match="Choose another"):
        call_command("rooms_demo", "--addr", "192.0.2.1:8000", stdout=StringIO())


def test_database_that_does_not_answer_is_one_line_without_its_password() -> None:
    environment = site_environment(f"postgres://ann:hidden@127.0.0.1:{free_port()}/rooms")
    with pytest.raises(AssertionError, match="The database cannot be used: ") as raised:
        manage(environment, "rooms_demo", "--no-serve")
    output = str(raised.value)
    assert "hidden" not in output
    assert "Traceback" not in output
