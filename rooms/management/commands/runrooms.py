"""``manage.py runrooms``: the site and its doors on several addresses, with and without TLS, in one process.

What the options mean is in ``rooms/servers/addresses.py``, the serving in ``rooms/servers/running.py``.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from rooms.servers import addresses, listening, readiness
from rooms.servers.addresses import Address
from rooms.servers.doors import application_at

DEFAULT = "127.0.0.1:8000"


class Command(BaseCommand):
    help = "Serves the site and its doors with uvicorn, on as many addresses as you like."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--listen",
            action="append",
            default=[],
            metavar="HOST:PORT[=DOOR[/APPLICATION]]",
            help=f"an address to serve; with a door it is that door's alone. Default: {DEFAULT}",
        )
        parser.add_argument(
            "--listen-tls",
            action="append",
            default=[],
            metavar="HOST:PORT[=DOOR[/APPLICATION]]",
            help="the same with TLS, which needs --cert and --key",
        )
        parser.add_argument("--cert", metavar="FILE", help="the certificate chain for TLS, in PEM format")
        parser.add_argument(
            "--key", metavar="FILE", help="its private key, in PEM format, without a password"
        )

    def handle(
        self,
        *args: Any,
        listen: list[str],
        listen_tls: list[str],
        cert: str | None,
        key: str | None,
        verbosity: int,
        **options: Any,
    ) -> None:
        try:
            from rooms.servers.running import Listener, run
        except ModuleNotFoundError as error:
            raise CommandError(
                f"runrooms needs {error.name}, which is not installed. It comes with the extra server: in a "
                'checkout of Rooms, pip install ".[server]".'
            ) from error
        try:
            wanted = wanted_addresses(listen, listen_tls, cert, key)
            applications = [application_at(address) for address in wanted]
            readiness.check_database()
            taken = listening.take(wanted)
        except (ValueError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        listeners = [
            Listener(
                sockets=sockets,
                application=application,
                certificate=cert if address.tls else None,
                key=key if address.tls else None,
            )
            for address, application, sockets in zip(wanted, applications, taken, strict=True)
        ]
        for warning in readiness.warnings(wanted):
            self.stderr.write(self.style.WARNING(warning))
        run(listeners, lambda: self._tell(wanted), verbose=verbosity > 1)

    def _tell(self, wanted: list[Address]) -> None:
        for address in wanted:
            self.stdout.write(f"Listening on {address.url}  {address.served}")
        self.stdout.flush()


def wanted_addresses(
    listen: list[str], listen_tls: list[str], cert: str | None, key: str | None
) -> list[Address]:
    """What the options ask for. Raises ValueError."""
    if listen_tls:
        listening.check_certificate(cert, key)
    elif cert or key:
        raise ValueError(
            f"--{'cert' if cert else 'key'} was given without an address for it. Lawful: with --listen-tls "
            "HOST:PORT."
        )
    plain = listen or ([] if listen_tls else [DEFAULT])
    return [addresses.parse(text) for text in plain] + [
        addresses.parse(text, tls=True) for text in listen_tls
    ]
