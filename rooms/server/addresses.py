"""Parses the addresses that ``runrooms`` listens on.

``HOST:PORT`` serves the whole site, ``HOST:PORT=PROTOCOL/APPLICATION`` dedicates a port to one protocol.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rooms.conf import PROTOCOL_NAMES, get_settings
from rooms.protocol import validators

SYNTAX = "HOST:PORT or HOST:PORT=PROTOCOL/APPLICATION"
_LABEL = "[A-Za-z0-9_-]{1,63}"
_HOST_AND_PORT = re.compile(
    rf"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>{_LABEL}(?:\.{_LABEL})*)):(?P<port>[0-9]{{1,5}})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One address to listen on.

    Without a ``protocol`` it serves the site with all its protocols; with one it serves that protocol
    alone, at every path. ``application`` is where its clients connect to, None where the client names the
    application.
    """

    host: str
    port: int
    tls: bool = False
    protocol: str | None = None
    application: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL that clients use."""
        scheme = "http" if self.protocol is None else "ws"
        return f"{scheme}{'s' if self.tls else ''}://{self}/"

    @property
    def description(self) -> str:
        """What the address serves, for the start-up message."""
        if self.protocol is None:
            return "the site with all its protocols"
        if self.application is None:
            return f"{self.protocol} at every path"
        return f"{self.protocol} at every path, application {self.application}"


def parse(text: str, *, tls: bool = False) -> Address:
    """Parse the value of a ``--listen`` option. Raises ValueError."""
    host_and_port, given, target = text.partition("=")
    found = _HOST_AND_PORT.fullmatch(host_and_port)
    if found is None:
        raise ValueError(
            f"Expected {SYNTAX}, got {text!r}. Examples: 127.0.0.1:8000, [::1]:9000=gowsev, "
            "0.0.0.0:9001=native/chat."
        )
    port = int(found["port"])
    if not 0 < port < 65536:
        raise ValueError(f"Expected a port from 1 to 65535, got {port} in {text!r}.")
    protocol, application = _parse_target(text, target) if given else (None, None)
    return Address(
        host=found["ipv6"] or found["host"], port=port, tls=tls, protocol=protocol, application=application
    )


def _parse_target(text: str, target: str) -> tuple[str, str | None]:
    """Parse the part behind ``=``: a protocol and its application."""
    protocol, slash, application = target.partition("/")
    if protocol not in PROTOCOL_NAMES:
        raise ValueError(
            f"Expected one of {', '.join(PROTOCOL_NAMES)}, got the protocol {protocol!r} in {text!r}."
        )
    if protocol not in (enabled := get_settings().protocols):
        raise ValueError(
            f'Expected one of ROOMS["PROTOCOLS"] ({", ".join(enabled)}), got {protocol!r} in {text!r}.'
        )
    if protocol == "goroomserver":
        if slash:
            raise ValueError(
                f"Expected HOST:PORT=goroomserver, got {text!r}: its clients name the application themselves."
            )
        return protocol, None
    if not slash:
        if protocol == "native":
            raise ValueError(f"Expected HOST:PORT=native/APPLICATION, got {text!r} without an application.")
        return protocol, protocol
    if not validators.APPLICATION_NAME.match(application):
        raise ValueError(
            f"Expected the name of an application after {protocol}/, got {application!r} in {text!r}."
        )
    return protocol, application
