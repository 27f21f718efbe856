"""Sites for the tests of all protocols, and their clients.

The sites have the applications of the transcripts and of the tests of several protocols. `Clients` opens
clients of one application and closes them all at the end.
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

#: A room of the application `protocols` from the database; its name is valid in rtbroadcaster as well.
OPEN_ROOM = "3f0c9f1e-5a53-4d3b-8a0e-2f6f4f3a7b11"

#: The room limit of the applications `few-rooms-…`. The application `limited` has the default rate limits.
FEW_ROOMS = 20

#: Fields of an application without limits, with rooms on demand.
FREE = {
    "rooms_on_demand": True,
    "request_rate": 0,
    "logins_per_minute": 0,
    "max_connections_per_address": 0,
}


class Clients:
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
        """Return a client of which no frame has been read yet."""
        kind = PROTOCOLS[protocol]
        address = self.server.ws + kind.path.format(self.application)
        socket = await self._stack.enter_async_context(
            open_socket(address, **{"close_timeout": 1, **options})
        )
        return kind(socket, self.application)

    async def connect(self, protocol: str, room: str | None = None, **options: Any) -> Any:
        """Return a client that is logged in and, if a room is given, has joined it."""
        client = await self.open(protocol, **options)
        await client.log_in()
        if room is not None:
            answer = await client.join(room)
            assert client.is_joined(answer), f"{protocol} cannot join {room}: {answer}"
        return client


def rows(environment: dict[str, str], applications: dict[str, Any], rooms: list[dict[str, Any]]) -> None:
    """Create applications (fields by name) and rooms (fields with ``application``)."""
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
    """Create a database for the transcripts and the tests of several protocols."""
    database_url = fresh_database()
    scenarios = vectors.load()
    names = {application for _, application in vectors.ADDRESSES.values()}
    names |= {each.application for each in scenarios if each.application}
    applications: dict[str, Any] = {name: dict(FREE) for name in names | {"protocols"}}
    applications["test"] = {**FREE, "rooms_on_demand": False}
    applications["limited"] = {"rooms_on_demand": True}
    applications["native-only"] = {**FREE, "protocols": ["native"]}
    applications |= {f"few-rooms-{protocol}": {**FREE, "max_rooms": FEW_ROOMS} for protocol in PROTOCOLS}
    rooms: list[dict[str, Any]] = [
        {"application": "test", "name": "v-lobby", "max_members": 2},
        {"application": "protocols", "name": OPEN_ROOM, "title": "Made in the admin"},
    ]
    for each in scenarios:
        application = each.application or vectors.ADDRESSES[each.protocol][1]
        rooms += [{"application": application, **room} for room in each.rooms]
    rows(site_environment(database_url), applications, rooms)
    return database_url


@functools.cache
def pair() -> tuple[Server, Server]:
    """Return two servers of such a site, which share one Redis."""
    database_url, redis_url = prepared_database(), services.redis("protocols").url
    first = Server.start("uvicorn", database_url, redis_url)
    return first, Server.start("uvicorn", database_url, redis_url)


@functools.cache
def site(kind: Kind) -> Server:
    """Return a server of this kind for such a site.

    All modules share it, and it ends with the test run.
    """
    return Server.start(kind, prepared_database())
