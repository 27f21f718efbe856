"""What ``runrooms`` is told to listen on: ``HOST:PORT`` for the whole site, ``HOST:PORT=door/application``
for a port that is given over to one door."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rooms import names
from rooms.conf import get_settings
from rooms.protocols import PROTOCOLS

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
    door: str | None = None
    application: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """As clients write it."""
        scheme = "http" if self.door is None else "ws"
        return f"{scheme}{'s' if self.tls else ''}://{self}/"

    @property
    def served(self) -> str:
        """What there is, in words."""
        if self.door is None:
            return "the site and its doors"
        if self.application is None:
            return f"{self.door} at every path"
        return f"{self.door} at every path, application {self.application}"


def parse(text: str, *, tls: bool = False) -> Address:
    """An option's value. Raises ValueError, which says what was got and what is lawful."""
    place, given, target = text.partition("=")
    found = _PLACE.fullmatch(place)
    if found is None:
        raise ValueError(f"{text!r} is no address. Lawful: {LAWFUL}.")
    port = int(found["port"])
    if not 0 < port < 65536:
        raise ValueError(f"{text!r} has the port {found['port']}. Lawful: 1 to 65535.")
    door, application = _target(text, target) if given else (None, None)
    return Address(host=found["six"] or found["host"], port=port, tls=tls, door=door, application=application)


def _target(text: str, target: str) -> tuple[str, str | None]:
    """A door and the application behind it."""
    door, slash, application = target.partition("/")
    if door not in PROTOCOLS:
        raise ValueError(f"{text!r} names the door {door!r}. Lawful: {', '.join(PROTOCOLS)}.")
    if door not in (opened := get_settings().doors):
        raise ValueError(
            f'{text!r} names {door!r}, which is closed. Lawful by ROOMS["DOORS"]: {", ".join(opened)}.'
        )
    if door == "goroomserver":
        if slash:
            raise ValueError(
                f"{text!r} names an application, but clients of goroomserver say it. Lawful: {door}."
            )
        return door, None
    if not slash:
        if door == "native":
            raise ValueError(f"{text!r} names no application. Lawful: native/application.")
        return door, door
    if not names.APPLICATION_NAME.match(application):
        raise ValueError(
            f"{text!r} names the application {application!r}. Lawful: {door}/ and the name of an application."
        )
    return door, application
