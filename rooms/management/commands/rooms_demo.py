"""``manage.py rooms_demo``: serves a demo site.

Migrates the database, fills an empty one with demo data, and serves it with Daphne. The demo users have
public passwords: they are created only here, never in a database with users, never with DEBUG off.
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


# The foreign protocols and their paths on the example site.
FOREIGN_PATHS = {
    "roomer": "/ws",
    "rtbroadcaster": "/broadcasting",
    "goroomserver": "/",
    "gowsev": "/ws/gowsev/gowsev/",
}


class Command(BaseCommand):
    help = "Creates demo data (only in an empty database, only with DEBUG on) and serves the site."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--addr", default="127.0.0.1:8000", help="the address to serve on, as HOST:PORT")
        parser.add_argument("--no-serve", action="store_true", help="only create the demo data")
        parser.add_argument(
            "--bench",
            action="store_true",
            help="also create the applications bench and durable, without limits, for benchmarks and tests",
        )

    def handle(self, *args: Any, addr: str, no_serve: bool, bench: bool, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError(
                "Expected DEBUG on, because the demo users have public passwords; got DEBUG off."
            )
        host, port = _address(addr)
        if not no_serve:
            _check_free(host, port)
        try:
            call_command("migrate", verbosity=0)
            with transaction.atomic():
                created = self._create_demo()
                if bench:
                    _create_bench()
        except OperationalError as error:
            # Only the first line: the others may hold the address with its password.
            reason = str(error).partition("\n")[0]
            raise CommandError(
                f"The database cannot be used: {reason}. Check DATABASES in the settings; the example site "
                "reads DATABASE_URL from the environment."
            ) from error
        if not no_serve:
            self._print_greeting(host, port, created)
            _serve(host, port)

    def _create_demo(self) -> bool:
        """Create users and applications; False, and nothing created, if any exist."""
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
        _create_foreign()
        return True

    def _print_greeting(self, host: str, port: int, created: bool) -> None:
        name = f"[{host}]" if ":" in host else host
        lines = [
            "",
            f"  Chat        http://{name}:{port}/rooms/chat/     use any name, in several windows",
            f"  Quiz        http://{name}:{port}/rooms/quiz/     in its lobby send /start, then /answer …",
            f"  Admin       http://{name}:{port}/admin/",
            f"  Your code   ws://{name}:{port}/ws/rooms/chat/",
            *_foreign_addresses(f"ws://{name}:{port}"),
            "",
        ]
        if not created:
            lines += ["  The database already has data; no demo data was added.", ""]
        if users := _users_with_demo_password():
            lines += [f"  Log in as {' or '.join(users)}; the password is the name.", ""]
        self.stdout.write("\n".join(lines))
        self.stdout.flush()


def _foreign_addresses(site: str) -> list[str]:
    """Return a line for each foreign protocol that the site allows."""
    enabled = [name for name in FOREIGN_PATHS if name in get_settings().protocols]
    labels = ["Protocols", *([""] * len(enabled))]
    return [
        f"  {label:<12}{site}{FOREIGN_PATHS[name]:<20}for {name} clients"
        for label, name in zip(labels, enabled, strict=False)
    ]


def _create_foreign() -> None:
    """Create the applications for clients of other room servers.

    Those servers have neither history nor limits; the limits here are wide enough for any normal client.
    """
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


def _create_bench() -> None:
    """Create applications without limits, in which guests create rooms on demand."""
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
        raise CommandError(f"Expected --addr HOST:PORT, for example 127.0.0.1:8000, got {addr!r}.")
    return host.strip("[]") or "127.0.0.1", int(port)


def _check_free(host: str, port: int) -> None:
    """Check that the port is free: Daphne does not report one that is in use."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Daphne does
            listener.bind(address)
    except OSError as error:
        raise CommandError(
            f"Cannot serve on {host}:{port}: {error.strerror}. Choose another address: "
            "--addr 127.0.0.1:9000, or make run ADDR=127.0.0.1:9000."
        ) from error


def _users_with_demo_password() -> list[str]:
    """Return the names of the demo users that still have their public password."""
    users = get_user_model()
    found = users._default_manager.filter(**{f"{users.USERNAME_FIELD}__in": DEMO_USERS})
    unchanged = (user for user in found if user.is_active and user.check_password(user.get_username()))
    return sorted(user.get_username() for user in unchanged)


def _serve(host: str, port: int) -> None:
    # Daphne installs Twisted's event loop on import, so it is imported only to serve.
    from channels.routing import get_default_application
    from daphne.endpoints import build_endpoint_description_strings
    from daphne.server import Server

    # Twice the limits of Rooms, which come first, also for messages that grow when they are encoded.
    largest = 2 * max(map(get_settings().frame_bytes, PROTOCOL_NAMES))
    Server(
        application=get_default_application(),
        endpoints=build_endpoint_description_strings(host=host, port=port),
        signal_handlers=True,
        websocket_max_message_size=largest,
        websocket_max_frame_size=largest,
    ).run()
