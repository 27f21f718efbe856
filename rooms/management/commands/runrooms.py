"""``manage.py runrooms``: the site and its doors on several addresses, with and without TLS, in one process
or in several.

What the options mean is in ``rooms/server/addresses.py``, the serving in ``rooms/server/server.py``, the
keeping of several processes in ``rooms/server/supervisor.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from rooms.server import addresses, listeners, preflight
from rooms.server.addresses import Address
from rooms.server.control_pipe import ControlPipe
from rooms.server.http_app import application_at
from rooms.server.supervisor import Supervisor

if TYPE_CHECKING:
    from rooms.server.server import Listener

DEFAULT = "127.0.0.1:8000"
# Tells a site's settings how many processes there will be.
WORKERS = "ROOMS_WORKERS"
# Tells a process that it has begun anew: it is its own id, which it keeps.
BEGUN_ANEW = "ROOMS_BEGUN_ANEW"


class Command(BaseCommand):
    help = "Serves the site and its doors with uvicorn, on as many addresses as you like."

    # Whether it is the command of its process, which can then be started once more.
    is_own_process = False

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
        parser.add_argument(
            "--workers",
            type=int,
            default=1,
            metavar="NUMBER",
            help="how many processes serve; above 1, another one minds them. Default: 1",
        )
        # How a supervisor starts its workers.
        parser.add_argument("--supervisor", type=int, metavar="DESCRIPTOR", help=argparse.SUPPRESS)

    def run_from_argv(self, argv: list[str]) -> None:
        self.is_own_process = True
        super().run_from_argv(argv)

    def execute(self, *args: Any, workers: int, **options: Any) -> str | None:
        """Begin anew where the settings were read without the number of processes: they may depend on it."""
        if workers < 1:
            raise CommandError(f"--workers is {workers}. Lawful: 1 or more.")
        if workers > 1 and not self.is_own_process:
            # They would be started by that program's command line.
            raise CommandError(
                f"--workers is {workers}, and this is another program's process. Lawful: 1, or "
                "python manage.py runrooms as a process of its own."
            )
        if workers > 1 and os.environ.get(WORKERS) != str(workers):
            self._begin_anew(workers)
        return super().execute(*args, workers=workers, **options)

    def _begin_anew(self, workers: int) -> None:
        """Never returns. Raises CommandError where it has been tried already."""
        if os.environ.get(BEGUN_ANEW) == str(os.getpid()):
            raise CommandError(
                f"--workers is {workers}, but something sets the environment variable {WORKERS} to "
                f"{os.environ.get(WORKERS)!r}. Lawful: not to set it, or to the same number."
            )
        os.environ |= {WORKERS: str(workers), BEGUN_ANEW: str(os.getpid())}
        os.execv(sys.executable, own_command())

    def handle(
        self,
        *args: Any,
        listen: list[str],
        listen_tls: list[str],
        cert: str | None,
        key: str | None,
        verbosity: int,
        workers: int,
        supervisor: int | None,
        **options: Any,
    ) -> None:
        try:
            from rooms.server.server import run
        except ModuleNotFoundError as error:
            raise CommandError(
                f"runrooms needs {error.name}, which is not installed. It comes with the extra server: in a "
                'checkout of Rooms, pip install ".[server]".'
            ) from error
        lifeline = None if supervisor is None else ControlPipe(supervisor)
        try:
            wanted = wanted_addresses(listen, listen_tls, cert, key)
            preflight.check(workers)
            listeners = _listeners(wanted, cert, key, shared=lifeline is not None)
        except (ValueError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        if lifeline is not None:
            run(listeners, lambda: None, verbose=verbosity > 1, lifeline=lifeline)
            return
        for warning in preflight.warnings(wanted):
            self.stderr.write(self.style.WARNING(warning))
        if workers == 1:
            run(listeners, partial(self._tell, wanted), verbose=verbosity > 1)
        else:
            _supervise(listeners, workers, partial(self._tell, wanted))

    def _tell(self, wanted: list[Address]) -> None:
        for address in wanted:
            self.stdout.write(f"Listening on {address.url}  {address.served}")
        self.stdout.flush()


def own_command() -> list[str]:
    """The command line of this process."""
    return [sys.executable, *sys.orig_argv[1:]]


def _listeners(wanted: list[Address], cert: str | None, key: str | None, *, shared: bool) -> list[Listener]:
    """What is served, with its sockets. Raises ValueError and ImproperlyConfigured."""
    from rooms.server.server import Listener

    applications = [application_at(address) for address in wanted]
    return [
        Listener(
            sockets=sockets,
            application=application,
            certificate=cert if address.tls else None,
            key=key if address.tls else None,
        )
        for address, application, sockets in zip(
            wanted, applications, listeners.take(wanted, shared=shared), strict=True
        )
    ]


def _supervise(listeners: list[Listener], workers: int, serving: Callable[[], None]) -> None:
    """Have workers serve. Raises CommandError where one of them does not end in order."""
    for listener in listeners:
        for each in listener.sockets:
            # It was there to be had; each worker takes one of its own.
            each.close()
    if not asyncio.run(Supervisor(own_command(), workers, serving).run()):
        raise CommandError("A worker did not end in order.")


def wanted_addresses(
    listen: list[str], listen_tls: list[str], cert: str | None, key: str | None
) -> list[Address]:
    """What the options ask for. Raises ValueError."""
    if listen_tls:
        listeners.check_certificate(cert, key)
    elif cert or key:
        raise ValueError(
            f"--{'cert' if cert else 'key'} was given without an address for it. Lawful: with --listen-tls "
            "HOST:PORT."
        )
    plain = listen or ([] if listen_tls else [DEFAULT])
    return [addresses.parse(text) for text in plain] + [
        addresses.parse(text, tls=True) for text in listen_tls
    ]
