"""Valid names of users, rooms and events (native protocol, section 10).

A user's name is normalised (NFKC) and unique in its application, whatever its case; a room's name is
compared exactly as it was sent.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from rooms.protocol.errors import BadRequest

MAX_NAME_LENGTH = 64
# Of events in rooms: the columns of the tables hold no more.
MAX_EVENT_LENGTH = 64
# The event name of a message that was sent without one.
DEFAULT_EVENT = "message"
# The room of direct messages from the server. Clients of roomer are members of it from the start.
ROOT_ROOM = "root"
APPLICATION_NAME = re.compile(r"^[-a-zA-Z0-9_]{1,64}\Z")

_USER_CATEGORIES = frozenset("LMNPS")
_FORBIDDEN_IN_ROOMS = frozenset({"Cc", "Cf", "Cs", "Co"})
# What the columns of the tables hold, without control characters and lone surrogates.
_ROOM_OF_ANY_PROTOCOL = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")


def user_name(name: str) -> str:
    """Return a user name in its stored form, which is NFKC.

    Raises BadRequest for an invalid name.
    """
    # Before normalisation too, which is slow for long texts.
    _check_length("A user name", name, longest=4 * MAX_NAME_LENGTH)
    name = unicodedata.normalize("NFKC", name)
    _check_length("A user name", name)
    if name != name.strip(" ") or "  " in name:
        raise BadRequest("A user name has no spaces at its ends and only single ones inside.")
    for character in name:
        if character != " " and unicodedata.category(character)[0] not in _USER_CATEGORIES:
            raise BadRequest(
                f"A user name holds letters, digits, punctuation and symbols, not {_shown(character)}."
            )
    return name


def user_key(name: str) -> str:
    """Return the key that all spellings of a user name share."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


@lru_cache(maxsize=4096)
def room_name(name: str) -> str:
    """Return a room name unchanged. Raises BadRequest for an invalid name."""
    if 1 <= len(name) <= MAX_NAME_LENGTH and name.isascii() and name.isprintable() and " " not in name:
        # The common case, without the slower checks below.
        return name
    _check_length("A room name", name)
    if name[0].isspace() or name[-1].isspace():
        raise BadRequest("A room name has no blanks at its ends.")
    for character in name:
        if unicodedata.category(character) in _FORBIDDEN_IN_ROOMS:
            raise BadRequest(
                f"A room name holds no control or invisible characters, got {_shown(character)}."
            )
    return name


def is_room_name(name: str) -> bool:
    """Return whether compatibility protocols allow a room name."""
    return _ROOM_OF_ANY_PROTOCOL.fullmatch(name) is not None


def is_event_name(name: str) -> bool:
    """Return whether an event name is valid; compatibility protocols allow ``""``."""
    return len(name) <= MAX_EVENT_LENGTH and "\0" not in name


def _check_length(what: str, name: str, longest: int = MAX_NAME_LENGTH) -> None:
    if not 1 <= len(name) <= longest:
        raise BadRequest(f"{what} has 1 to {MAX_NAME_LENGTH} characters, got {len(name)}.")


def _shown(character: str) -> str:
    return f"U+{ord(character):04X}"
