"""Lawful names of users, rooms and events (native protocol, section 10).

A user's name is normalised (NFKC) and unique case-insensitively in its application; a room's name
is compared exactly as it was sent.
"""

from __future__ import annotations

import re
import unicodedata

from rooms.protocol.errors import BadRequest

LONGEST_NAME = 64
# Of events, in rooms: the tables hold no more.
LONGEST_EVENT = 64
# What a message is called whose sender gave its event no name.
DEFAULT_EVENT = "message"
# The room of what is said to one client alone, which roomer's clients are in from the start.
ROOT = "root"
APPLICATION_NAME = re.compile(r"^[-a-zA-Z0-9_]{1,64}\Z")

_USER_CATEGORIES = frozenset("LMNPS")
_FORBIDDEN_IN_ROOMS = frozenset({"Cc", "Cf", "Cs", "Co"})
# What the tables hold, without control characters and lone surrogates.
_ROOM_OF_ANY_PROTOCOL = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")


def user_name(name: str) -> str:
    """The name as it is kept and shown: NFKC of what was sent.

    Raises BadRequest, with a sentence that says what is lawful.
    """
    # Before it is normalised as well: that is slow for long texts.
    _check_length("A user name", name, longest=4 * LONGEST_NAME)
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
    """What two spellings of one user name have in common."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def room_name(name: str) -> str:
    """The name unchanged. Raises BadRequest where it is not lawful."""
    if 1 <= len(name) <= LONGEST_NAME and name.isascii() and name.isprintable() and " " not in name:
        # Most are.
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
    """Whether clients of protocols other than the native one may call a room so; its rule is narrower."""
    return _ROOM_OF_ANY_PROTOCOL.fullmatch(name) is not None


def is_event_name(name: str) -> bool:
    """Whether an event may be called so in a room; an empty name only other protocols than the native one
    know."""
    return len(name) <= LONGEST_EVENT and "\0" not in name


def _check_length(what: str, name: str, longest: int = LONGEST_NAME) -> None:
    if not 1 <= len(name) <= longest:
        raise BadRequest(f"{what} has 1 to {LONGEST_NAME} characters, got {len(name)}.")


def _shown(character: str) -> str:
    return f"U+{ord(character):04X}"
