"""``manage.py rooms_demo``: the first minute with Rooms.

Prepares the database, fills an empty one with something to look at, and serves it with Daphne.
Demo passwords come into being only here: never in a database that has users, never with DEBUG off.
"""

from __future__ import annotations

import socket
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, transaction

from rooms.conf import PROTOCOL_NAMES, get_settings
from rooms.models import Application, HistoryPolicy, Room

DEMO_USERS = ("admin", "ann")


# Their doors and where the example site has them.
ORIGINALS = {
    "roomer": "/ws",
    "rtbroadcaster": "/broadcasting",
    "goroomserver": "/",
    "gowsev": "/ws/gowsev/gowsev/",
}


class Command(BaseCommand):
    help = "Prepares a demo site (only in an empty database, only with DEBUG on) and serves it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--addr", default="127.0.0.1:8000", help="host:port to serve on")
        parser.add_argument("--no-serve", action="store_true", help="only prepare the database")
        parser.add_argument(
            "--bench",
            action="store_true",
            help="also make the applications bench and durable, without limits, for benchmarks and tests",
        )

    def handle(self, *args: Any, addr: str, no_serve: bool, bench: bool, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("The demo has public passwords and needs DEBUG on; this site has it off.")
        host, port = _address(addr)
        if not no_serve:
            _check_that_it_is_free(host, port)
        try:
            call_command("migrate", verbosity=0)
            with transaction.atomic():
                made = self._make_demo()
                if bench:
                    _make_bench()
        except OperationalError as error:
            # Only its first line: what the database says, without the address and its password.
            reason = str(error).partition("\n")[0]
            raise CommandError(
                f"The database cannot be used: {reason}. Where it is, DATABASES says in the settings, and "
                "DATABASE_URL in those of the example site."
            ) from error
        if not no_serve:
            self._greet(host, port, made)
            _serve(host, port)

    def _make_demo(self) -> bool:
        """Users and applications to begin with; False, and nothing made, where there are any."""
        users = get_user_model()._default_manager
        if users.exists() or Application.objects.exists():
            return False
        users.create_superuser("admin", "admin@example.com", "admin")
        users.create_user("ann", "ann@example.com", "ann")
        chat = Application.objects.create(
            name="chat", title="Chat", rooms_on_demand=True, extension="roomsite.WordFilter"
        )
        Room.objects.create(application=chat, name="lobby", title="Lobby")
        Room.objects.create(application=chat, name="help", title="Help")
        quiz = Application.objects.create(name="quiz", title="Quiz")
        Room.objects.create(application=quiz, name="lobby", title="Quiz lobby", extension="roomsite.Quiz")
        Room.objects.create(application=quiz, name="help", title="Help")
        _make_originals()
        return True

    def _greet(self, host: str, port: int, made: bool) -> None:
        name = f"[{host}]" if ":" in host else host
        lines = [
            "",
            f"  Chat        http://{name}:{port}/rooms/chat/     enter any name, in several windows",
            f"  Quiz        http://{name}:{port}/rooms/quiz/     in its lobby write /start, then /answer …",
            f"  Admin       http://{name}:{port}/admin/",
            f"  Your code   ws://{name}:{port}/ws/rooms/chat/",
            *_originals(f"ws://{name}:{port}"),
            "",
        ]
        if not made:
            lines += ["  The database had data already; nothing was added to it.", ""]
        if known := _who_has_the_demo_password():
            lines += [f"  Sign in as {' or '.join(known)}; the password is the name.", ""]
        self.stdout.write("\n".join(lines))
        self.stdout.flush()


def _originals(site: str) -> list[str]:
    """Where the example site has the clients of other room servers, as far as it lets them in."""
    opened = [name for name in ORIGINALS if name in get_settings().protocols]
    labels = ["Doors", *([""] * len(opened))]
    return [
        f"  {label:<12}{site}{ORIGINALS[name]:<20}for {name}'s clients"
        for label, name in zip(labels, opened, strict=False)
    ]


def _make_originals() -> None:
    """Where the clients of other room servers come in. Those servers have neither history nor limits; here
    there are limits, but so wide that only a flood meets them."""
    for name, title, on_demand, extension in (
        ("roomer", "roomer", True, "roomsite.Relay"),
        ("rtbroadcaster", "rtbroadcaster", True, ""),
        ("gowsev", "gowsev", True, ""),
        ("test", "goroomserver", False, ""),
    ):
        Application.objects.create(
            name=name,
            title=title,
            rooms_on_demand=on_demand,
            history=HistoryPolicy.NONE,
            request_rate=500,
            request_burst=2000,
            logins_per_minute=0,
            max_connections_per_address=1000,
            extension=extension,
        )


def _make_bench() -> None:
    """For load generators and black-box tests: nothing is limited, guests make rooms as they go."""
    for name, history, stay in (
        ("bench", HistoryPolicy.NONE, False),
        ("durable", HistoryPolicy.DATABASE, True),
    ):
        Application.objects.get_or_create(
            name=name,
            defaults={
                "title": name.capitalize(),
                "rooms_on_demand": True,
                "rooms_stay": stay,
                "history": history,
                "request_rate": 0,
                "logins_per_minute": 0,
                "max_connections_per_address": 0,
            },
        )


def _address(addr: str) -> tuple[str, int]:
    host, _, port = addr.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise CommandError(f"--addr is host:port, for example 127.0.0.1:8000; got {addr}.")
    return host.strip("[]") or "127.0.0.1", int(port)


def _check_that_it_is_free(host: str, port: int) -> None:
    """Daphne would go on without the port, and end as if nothing had happened."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Daphne does
            listener.bind(address)
    except OSError as error:
        raise CommandError(
            f"Cannot serve on {host}:{port}: {error.strerror}. Choose another address, "
            "--addr 127.0.0.1:9000, or with make: make run ADDR=127.0.0.1:9000."
        ) from error


def _who_has_the_demo_password() -> list[str]:
    """The demo users who are there and have the password they were made with."""
    users = get_user_model()
    found = users._default_manager.filter(**{f"{users.USERNAME_FIELD}__in": DEMO_USERS})
    known = (user for user in found if user.is_active and user.check_password(user.get_username()))
    return sorted(user.get_username() for user in known)


def _serve(host: str, port: int) -> None:
    # Daphne installs Twisted's event loop when it is imported, so only a server imports it.
    from channels.routing import get_default_application
    from daphne.endpoints import build_endpoint_description_strings
    from daphne.server import Server

    # Rooms' own limits come first, also for what grows on its way out.
    largest = 2 * max(map(get_settings().frame_bytes, PROTOCOL_NAMES))
    Server(
        application=get_default_application(),
        endpoints=build_endpoint_description_strings(host=host, port=port),
        signal_handlers=True,
        websocket_max_message_size=largest,
        websocket_max_frame_size=largest,
    ).run()
