"""Sites on which clients of all doors are tried, and guests who come and go there.

The sites have the applications that transcripts and tests of several doors enter. `Guests` opens clients on
one application and closes them all at the end.
"""

from __future__ import annotations

import functools
from contextlib import AsyncExitStack
from typing import Any, Self

from tests import services
from tests.integration import vectors
from tests.integration.protocols import PROTOCOLS
from tests.integration.vectors import open_socket
from tests.servers import Kind, Server, fresh_database, manage, site_environment

#: A room of the application `doors` that was made in the database; rtbroadcaster can join it by its name.
OPEN_ROOM = "3f0c9f1e-5a53-4d3b-8a0e-2f6f4f3a7b11"

#: So many rooms has each of the applications `few-rooms-…`. The application `limited` has the usual rates.
FEW_ROOMS = 20

#: Rows without limits, in which users make rooms as they go.
FREE = {
    "rooms_on_demand": True,
    "request_rate": 0,
    "logins_per_minute": 0,
    "max_connections_per_address": 0,
}


class Guests:
    """Opens clients of one application, and closes them all when the block ends."""

    def __init__(self, server: Server, application: str) -> None:
        self.server = server
        self.application = application
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def open(self, protocol: str, **options: Any) -> Any:
        """A client of this door on which nothing has been read yet."""
        kind = PROTOCOLS[protocol]
        address = self.server.ws + kind.path.format(self.application)
        socket = await self._stack.enter_async_context(
            open_socket(address, **{"close_timeout": 1, **options})
        )
        return kind(socket, self.application)

    async def come(self, protocol: str, room: str | None = None, **options: Any) -> Any:
        """A client that has been greeted and, if a room is named, is in it."""
        visitor = await self.open(protocol, **options)
        await visitor.greet()
        if room is not None:
            answer = await visitor.enter(room)
            assert visitor.admits(answer), f"{protocol} may not enter {room}: {answer}"
        return visitor


def rows(environment: dict[str, str], applications: dict[str, Any], rooms: list[dict[str, Any]]) -> None:
    """Make applications (fields by name) and rooms (fields, with their application's name) in a database."""
    script = (
        "from rooms.models import Application, Room\n"
        f"for name, fields in {applications!r}.items():\n"
        "    Application.objects.update_or_create(name=name, defaults=fields)\n"
        f"for fields in {rooms!r}:\n"
        "    application = Application.objects.get(name=fields.pop('application'))\n"
        "    Room.objects.create(application=application, **fields)\n"
    )
    manage(environment, "shell", "-v", "0", "-c", script)


def prepared_database() -> str:
    """A database with the applications that transcripts and tests of several doors enter."""
    database_url = fresh_database()
    scenarios = vectors.load()
    names = {application for _, application in vectors.ADDRESSES.values()}
    names |= {each.application for each in scenarios if each.application}
    applications: dict[str, Any] = {name: dict(FREE) for name in names | {"doors"}}
    applications["test"] = {**FREE, "rooms_on_demand": False}
    applications["limited"] = {"rooms_on_demand": True}
    applications["native-only"] = {**FREE, "protocols": ["native"]}
    applications |= {f"few-rooms-{protocol}": {**FREE, "max_rooms": FEW_ROOMS} for protocol in PROTOCOLS}
    rooms: list[dict[str, Any]] = [
        {"application": "test", "name": "v-lobby", "max_members": 2},
        {"application": "doors", "name": OPEN_ROOM, "title": "Made in the admin"},
    ]
    for each in scenarios:
        application = each.application or vectors.ADDRESSES[each.protocol][1]
        rooms += [{"application": application, **room} for room in each.rooms]
    rows(site_environment(database_url), applications, rooms)
    return database_url


@functools.cache
def pair() -> tuple[Server, Server]:
    """One such site with two processes on one Redis."""
    database_url, redis_url = prepared_database(), services.redis("doors").url
    first = Server.start("uvicorn", database_url, redis_url)
    return first, Server.start("uvicorn", database_url, redis_url)


@functools.cache
def site(kind: Kind) -> Server:
    """A server of this kind on such a database. Shared by the modules that ask for it, and ended with the
    run."""
    return Server.start(kind, prepared_database())
