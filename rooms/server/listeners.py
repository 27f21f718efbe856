"""Opens the addresses of ``runrooms``: sockets, ASGI application, certificate."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channels.routing import ProtocolTypeRouter, get_default_application
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from rooms.middleware import with_user
from rooms.routing import endpoint
from rooms.server.addresses import Address
from rooms.views import upgrade_required

# Marks of PEM sections. One file may hold both and be given for both options.
CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
PRIVATE_KEY = b"PRIVATE KEY-----"
ENCRYPTED = re.compile(rb"BEGIN ENCRYPTED PRIVATE KEY|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """The sockets of one address, its ASGI application, and its files for TLS."""

    sockets: list[socket.socket]
    application: Any
    certificate: str | None = None
    key: str | None = None


def open_listeners(
    addresses: Sequence[Address], certificate: str | None, key: str | None, *, shared: bool = False
) -> list[Listener]:
    """Open every address.

    ``shared``: other processes bind the same ports, and none listens yet.

    Raises ValueError if an address cannot be bound, and ImproperlyConfigured without an ASGI application;
    no socket stays open then.
    """
    applications = [application_at(address) for address in addresses]
    return [
        Listener(
            sockets=sockets,
            application=application,
            certificate=certificate if address.tls else None,
            key=key if address.tls else None,
        )
        for address, application, sockets in zip(
            addresses, applications, bind(addresses, shared=shared), strict=True
        )
    ]


# The ASGI application ----------------------------------------------------------------------------


class _WebSocketsOnly(ASGIHandler):
    """The HTTP handler of a port without pages: it answers with 426."""

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        return upgrade_required(request)


def application_at(address: Address) -> Any:
    """Return the ASGI application of an address.

    Raises ImproperlyConfigured if the site has none.
    """
    if address.protocol is None:
        return get_default_application()
    websockets = with_user(endpoint(address.protocol, address.application))
    return ProtocolTypeRouter({"http": _WebSocketsOnly(), "websocket": websockets})


# Sockets -----------------------------------------------------------------------------------------


def bind(addresses: Sequence[Address], *, shared: bool = False) -> list[list[socket.socket]]:
    """Return the sockets of each address, one for each IP address. Raises ValueError."""
    with ExitStack() as stack:
        bound = [[stack.enter_context(each) for each in _bind(address, shared)] for address in addresses]
        stack.pop_all()
    return bound


def check_port_sharing() -> None:
    """Check that several processes can listen on one port. Raises ValueError."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError(
            "Expected --workers 1, got more: this system has no SO_REUSEPORT, so several processes cannot "
            "listen on one port."
        )


def _bind(address: Address, shared: bool) -> Iterator[socket.socket]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, sockaddr in dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found):
            yield _bind_shared(sockaddr, family) if shared else socket.create_server(sockaddr, family=family)
    except OSError as error:
        # Python appends the address in its own spelling in parentheses.
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise ValueError(
            f"Cannot listen on {address}: {reason}. Expected a free port at an address of this machine."
        ) from error


def _bind_shared(sockaddr: Any, family: socket.AddressFamily) -> socket.socket:
    """Bind without listening.

    The system would route clients to a process that does not serve yet.
    """
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(sockaddr)
    except BaseException:
        bound.close()
        raise
    return bound


# The certificate ---------------------------------------------------------------------------------


def check_certificate(certificate: str | None, key: str | None) -> None:
    """Check that both files exist and match. Raises ValueError."""
    chain, private = _read("--cert", certificate), _read("--key", key)
    if CERTIFICATE not in chain:
        raise ValueError(
            f"Expected a certificate chain in PEM format for --cert, got {certificate}, which has "
            f"{_content(chain)}."
        )
    if PRIVATE_KEY not in private:
        raise ValueError(
            f"Expected a private key in PEM format for --key, got {key}, which has {_content(private)}."
        )
    if ENCRYPTED.search(private):
        raise ValueError(
            f"Expected a private key without a password for --key, got {key}, which is encrypted. Decrypt "
            f"it with openssl pkey -in {key} -out FILE."
        )
    assert certificate is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty password, so that OpenSSL never prompts for one.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except OSError as error:
        raise ValueError(
            f"Expected a certificate chain and its own private key, got --cert {certificate} and --key "
            f"{key}: {error.strerror or error}."
        ) from error


def _read(option: str, path: str | None) -> bytes:
    """Read the file of an option. Raises ValueError."""
    if not path:
        raise ValueError(f"--listen-tls needs {option}. Expected a file in PEM format, got none.")
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        reason = "which does not exist"
    except IsADirectoryError:
        reason = "which is a directory"
    except OSError as error:
        reason = f"which cannot be read: {error.strerror}"
    raise ValueError(f"Expected a file in PEM format for {option}, got {path}, {reason}.")


def _content(text: bytes) -> str:
    """Describe a file that has the wrong content."""
    if PRIVATE_KEY in text:
        return "a private key: the two files may be swapped"
    if CERTIFICATE in text:
        return "a certificate: the two files may be swapped"
    return "nothing in PEM format" if text.strip() else "no content"
