"""What clients of other protocols ask beyond what native ones do.

The native protocol does not read these, so its clients cannot ask them.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Raw

from rooms.protocol.commands import CreateRoom, Join, Request, Send, Subscribe
from rooms.protocol.events import Error
from rooms.protocol.types import Count, Make


class Enter(Join, frozen=True, kw_only=True, tag="enter"):
    """A join as other protocols mean it. ``make`` says whether a room that is not there is made: never,
    where the application has rooms on demand, or always. ``again`` is what becomes of somebody who is in
    already: answered again, announced to the others once more as well, or refused."""

    make: Make = "on_demand"
    again: Literal["answer", "announce", "refuse"] = "answer"


class Listen(Subscribe, frozen=True, kw_only=True, tag="listen"):
    """A subscription as other protocols mean it, with ``make`` and ``again`` as for ``Enter``."""

    make: Make = "on_demand"
    again: Literal["answer", "refuse"] = "answer"


class OpenRoom(CreateRoom, frozen=True, kw_only=True, tag="open_room"):
    """Make an unlisted room that is closed ``leave_grace`` after its owner is gone."""

    leave_grace: Count = 0


class LeaveAll(Request, frozen=True, kw_only=True, tag="leave_all"):
    """Out of every room."""


class Say(Send, frozen=True, kw_only=True, tag="say"):
    """A message together with the ``words`` of the sender's own protocol (see ``Message``)."""

    words: Raw | None = None


class Offer(Send, frozen=True, kw_only=True, tag="offer"):
    """A message to a room; from one who is not in it, for the application's handler of that name alone."""


class Publish(Send, frozen=True, kw_only=True, tag="publish"):
    """Say something in a room where anybody may come in, without being a member. Where there is no
    such room nobody hears it."""


class SendDirect(Request, frozen=True, kw_only=True, tag="send_direct"):
    """Say something to one user of the application, by name, whatever rooms they are in. ``room`` is
    only told. Where there is no such user nothing happens."""

    room: str
    event: str
    data: Raw
    to: str


class SendToApplication(Request, frozen=True, kw_only=True, tag="send_to_application"):
    """A message to no room: for the application's extension, or for nobody."""

    data: Raw
    event: str | None = None


class Receive(Request, frozen=True, kw_only=True, tag="receive"):
    """A frame as it came, for the application's extension."""

    data: bytes


class Quit(Request, frozen=True, kw_only=True, tag="quit"):
    """The client wants its connection to be ended."""


class Addressed(Request, frozen=True, kw_only=True, tag="addressed"):
    """What a client who is in several applications at once asks of one of them: a request, or the Error
    that answers one which this application's users have no way to ask. None: whether there is such an
    application."""

    application: str
    request: Request | Error | None
