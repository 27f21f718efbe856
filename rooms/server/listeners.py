"""Taking what a server needs before it serves: its ports and its certificate."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rooms.server.addresses import Address

# What is in a PEM file. One may hold both, and be named twice.
CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
PRIVATE_KEY = b"PRIVATE KEY-----"
LOCKED = re.compile(rb"BEGIN ENCRYPTED PRIVATE KEY|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)


def take(addresses: Sequence[Address], *, shared: bool = False) -> list[list[socket.socket]]:
    """Listening sockets for each address: one for everything that its host's name means. With ``shared``
    other processes may have the same, and they do not listen yet. Raises ValueError where one cannot be
    had, and then holds none."""
    with ExitStack() as held:
        taken = [[held.enter_context(each) for each in _sockets(address, shared)] for address in addresses]
        held.pop_all()
    return taken


def check_sharing() -> None:
    """Whether several processes can listen on one port. Raises ValueError."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError(
            "This system cannot have several processes listen on one port: it has no SO_REUSEPORT. "
            "Lawful: --workers 1."
        )


def _sockets(address: Address, shared: bool) -> Iterator[socket.socket]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, place in dict.fromkeys((family, place) for family, _, _, _, place in found):
            yield _bound(place, family) if shared else socket.create_server(place, family=family)
    except OSError as error:
        # Without the address in Python's own spelling, which follows in brackets.
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise ValueError(
            f"Cannot listen on {address}: {reason}. Lawful: a free port at an address of this machine."
        ) from error


def _bound(place: Any, family: socket.AddressFamily) -> socket.socket:
    """As ``create_server`` makes it, but it does not listen: the system would lead clients to a process that
    does not serve yet."""
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(place)
    except BaseException:
        made.close()
        raise
    return made


def check_certificate(certificate: str | None, key: str | None) -> None:
    """Whether the two files are there and belong together. Raises ValueError."""
    chain, private = _read("--cert", certificate), _read("--key", key)
    if CERTIFICATE not in chain:
        raise ValueError(
            f"--cert is {certificate}, which holds {_held(chain)}. Lawful: a certificate chain in PEM format."
        )
    if PRIVATE_KEY not in private:
        raise ValueError(
            f"--key is {key}, which holds {_held(private)}. Lawful: a private key in PEM format."
        )
    if LOCKED.search(private):
        raise ValueError(
            f"--key is {key}, which is encrypted. Lawful: a private key without a password, as "
            f"openssl pkey -in {key} -out FILE writes it."
        )
    assert certificate is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Never ask at a terminal for a password.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except OSError as error:
        raise ValueError(
            f"--cert {certificate} and --key {key} cannot be used together: {error.strerror or error}. "
            "Lawful: a certificate chain and its own private key."
        ) from error


def _read(option: str, path: str | None) -> bytes:
    """A file that an option names. Raises ValueError."""
    if not path:
        raise ValueError(f"--listen-tls needs {option}, and got none. Lawful: a file in PEM format.")
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        reason = "there is no such file"
    except IsADirectoryError:
        reason = "that is a folder"
    except OSError as error:
        reason = f"that cannot be read: {error.strerror}"
    raise ValueError(f"{option} is {path}, and {reason}. Lawful: a file in PEM format.")


def _held(text: bytes) -> str:
    """What is in a file that does not hold what it should."""
    if PRIVATE_KEY in text:
        return "a private key: perhaps the two files are exchanged"
    if CERTIFICATE in text:
        return "a certificate: perhaps the two files are exchanged"
    return "nothing in PEM format" if text.strip() else "nothing"
