"""What ``runrooms`` is told to listen on: ``HOST:PORT`` for the whole site, ``HOST:PORT=door/application``
for a port that is given over to one door."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rooms.conf import PROTOCOL_NAMES, get_settings
from rooms.protocol import validators

LAWFUL = "HOST:PORT or HOST:PORT=door/application, for example 127.0.0.1:8000 or [::1]:9000=gowsev"
_LABEL = "[A-Za-z0-9_-]{1,63}"
_PLACE = re.compile(
    rf"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>{_LABEL}(?:\.{_LABEL})*)):(?P<port>[0-9]{{1,5}})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen and what for: without a ``door`` it is the site with all its doors, with one it is
    that door alone, at every path, and ``application`` is what it leads into (None where clients say)."""

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
        """As clients write it."""
        scheme = "http" if self.protocol is None else "ws"
        return f"{scheme}{'s' if self.tls else ''}://{self}/"

    @property
    def served(self) -> str:
        """What there is, in words."""
        if self.protocol is None:
            return "the site and its doors"
        if self.application is None:
            return f"{self.protocol} at every path"
        return f"{self.protocol} at every path, application {self.application}"


def parse(text: str, *, tls: bool = False) -> Address:
    """An option's value. Raises ValueError, which says what was got and what is lawful."""
    place, given, target = text.partition("=")
    found = _PLACE.fullmatch(place)
    if found is None:
        raise ValueError(f"{text!r} is no address. Lawful: {LAWFUL}.")
    port = int(found["port"])
    if not 0 < port < 65536:
        raise ValueError(f"{text!r} has the port {found['port']}. Lawful: 1 to 65535.")
    protocol, application = _target(text, target) if given else (None, None)
    return Address(
        host=found["six"] or found["host"], port=port, tls=tls, protocol=protocol, application=application
    )


def _target(text: str, target: str) -> tuple[str, str | None]:
    """A door and the application behind it."""
    protocol, slash, application = target.partition("/")
    if protocol not in PROTOCOL_NAMES:
        raise ValueError(f"{text!r} names the door {protocol!r}. Lawful: {', '.join(PROTOCOL_NAMES)}.")
    if protocol not in (opened := get_settings().protocols):
        raise ValueError(
            f'{text!r} names {protocol!r}, which is closed. Lawful by ROOMS["PROTOCOLS"]: {", ".join(opened)}.'
        )
    if protocol == "goroomserver":
        if slash:
            raise ValueError(
                f"{text!r} names an application, but clients of goroomserver say it. Lawful: {protocol}."
            )
        return protocol, None
    if not slash:
        if protocol == "native":
            raise ValueError(f"{text!r} names no application. Lawful: native/application.")
        return protocol, protocol
    if not validators.APPLICATION_NAME.match(application):
        raise ValueError(
            f"{text!r} names the application {application!r}. Lawful: {protocol}/ and the name of an application."
        )
    return protocol, application
