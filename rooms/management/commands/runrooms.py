"""``manage.py runrooms``: serves the site and its protocols.

It listens on several addresses, in one process or several. The options are parsed in
``rooms/server/addresses.py``; ``rooms/server/server.py`` serves, ``rooms/server/supervisor.py`` runs
several processes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from rooms.server import addresses, listeners, preflight
from rooms.server.addresses import Address
from rooms.server.control_pipe import ControlPipe
from rooms.server.listeners import Listener
from rooms.server.supervisor import Supervisor

DEFAULT = "127.0.0.1:8000"
METAVAR = "HOST:PORT[=PROTOCOL[/APPLICATION]]"
# The number of processes, for the settings of the site.
WORKERS = "ROOMS_WORKERS"
# The id of a process that has restarted itself, which keeps its id.
RESTARTED = "ROOMS_RESTARTED"


class Command(BaseCommand):
    help = "Serves the site and its protocols with uvicorn on one or more addresses."

    # Whether the command line of this process is this command, so that it can be executed again.
    is_own_process = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--listen",
            action="append",
            default=[],
            metavar=METAVAR,
            help=f"an address to serve; with a protocol it serves that protocol alone. Default: {DEFAULT}",
        )
        parser.add_argument(
            "--listen-tls",
            action="append",
            default=[],
            metavar=METAVAR,
            help="the same with TLS; requires --cert and --key",
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
            help="the number of processes that serve; above 1, one more supervises them. Default: 1",
        )
        # Set by the supervisor when it starts a worker.
        parser.add_argument("--supervisor", type=int, metavar="DESCRIPTOR", help=argparse.SUPPRESS)

    def run_from_argv(self, argv: list[str]) -> None:
        self.is_own_process = True
        super().run_from_argv(argv)

    def execute(self, *args: Any, workers: int, **options: Any) -> str | None:
        """Restart if the settings were read without the number of workers.

        They may depend on it.
        """
        if workers < 1:
            raise CommandError(f"Expected --workers 1 or more, got {workers}.")
        if workers > 1 and not self.is_own_process:
            # Workers are started with the command line of this process.
            raise CommandError(
                f"Expected --workers 1 when another program calls the command, got {workers}. For several "
                "processes run python manage.py runrooms."
            )
        if workers > 1 and os.environ.get(WORKERS) != str(workers):
            self._restart(workers)
        return super().execute(*args, workers=workers, **options)

    def _restart(self, workers: int) -> None:
        """Execute the process again, with the number of workers in its environment.

        Never returns. Raises CommandError if that has been tried already.
        """
        if os.environ.get(RESTARTED) == str(os.getpid()):
            raise CommandError(
                f"Expected the environment variable {WORKERS} to be {workers} as in --workers, got "
                f"{os.environ.get(WORKERS)!r}. Remove what sets it."
            )
        os.environ |= {WORKERS: str(workers), RESTARTED: str(os.getpid())}
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
                f"runrooms needs {error.name}, which is not installed. Install the extra server; in "
                'a checkout of Rooms: pip install ".[server]".'
            ) from error
        control_pipe = None if supervisor is None else ControlPipe(supervisor)
        try:
            wanted = parse_addresses(listen, listen_tls, cert, key)
            preflight.check(workers)
            opened = listeners.open_listeners(wanted, cert, key, shared=control_pipe is not None)
        except (ValueError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        if control_pipe is not None:
            run(opened, lambda: None, verbose=verbosity > 1, control_pipe=control_pipe)
            return
        for warning in preflight.warnings(wanted):
            self.stderr.write(self.style.WARNING(warning))
        if workers == 1:
            run(opened, partial(self._print_addresses, wanted), verbose=verbosity > 1)
        else:
            _supervise(opened, workers, partial(self._print_addresses, wanted))

    def _print_addresses(self, wanted: list[Address]) -> None:
        for address in wanted:
            self.stdout.write(f"Listening on {address.url}  {address.description}")
        self.stdout.flush()


def own_command() -> list[str]:
    """Return the command line of this process."""
    return [sys.executable, *sys.orig_argv[1:]]


def _supervise(opened: list[Listener], workers: int, on_serving: Callable[[], None]) -> None:
    """Run the workers. Raises CommandError if one of them does not shut down cleanly."""
    for listener in opened:
        for each in listener.sockets:
            # Opened only to check the address; each worker binds its own socket.
            each.close()
    if not asyncio.run(Supervisor(own_command(), workers, on_serving).run()):
        raise CommandError("A worker did not shut down cleanly.")


def parse_addresses(
    listen: list[str], listen_tls: list[str], cert: str | None, key: str | None
) -> list[Address]:
    """Parse the addresses and check the certificate. Raises ValueError."""
    if listen_tls:
        listeners.check_certificate(cert, key)
    elif cert or key:
        raise ValueError(f"Expected --listen-tls HOST:PORT with --{'cert' if cert else 'key'}, got none.")
    plain = listen or ([] if listen_tls else [DEFAULT])
    return [addresses.parse(text) for text in plain] + [
        addresses.parse(text, tls=True) for text in listen_tls
    ]
