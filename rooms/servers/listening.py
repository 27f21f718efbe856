"""Taking what a server needs before it serves: its ports and its certificate."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from rooms.servers.addresses import Address


def take(addresses: Sequence[Address]) -> list[list[socket.socket]]:
    """Listening sockets for each address: one for everything that its host's name means. Raises ValueError
    where one cannot be had, and then holds none."""
    with ExitStack() as held:
        taken = [[held.enter_context(each) for each in _sockets(address)] for address in addresses]
        held.pop_all()
    return taken


def _sockets(address: Address) -> Iterator[socket.socket]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, place in dict.fromkeys((family, place) for family, _, _, _, place in found):
            yield socket.create_server(place, family=family)
    except OSError as error:
        # Without the address in Python's own spelling, which follows in brackets.
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise ValueError(
            f"Cannot listen on {address}: {reason}. Lawful: a free port at an address of this machine."
        ) from error


def check_certificate(certificate: str | None, key: str | None) -> None:
    """Whether the two files are there and belong together. Raises ValueError."""
    for option, path in (("--cert", certificate), ("--key", key)):
        if not path:
            raise ValueError(f"--listen-tls needs {option}, and got none. Lawful: a file in PEM format.")
        if not Path(path).is_file():
            raise ValueError(f"{option} is {path}, and there is no such file. Lawful: a file in PEM format.")
    assert certificate is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Never ask at a terminal for the password of an encrypted key.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except OSError as error:
        raise ValueError(
            f"--cert {certificate} and --key {key} cannot be used: {error.strerror or error}. Lawful: a "
            "certificate chain and its private key without a password, both in PEM format."
        ) from error
