"""Wire formats: one file each, no IO, no Django.

``PROTOCOLS`` is the table of them, by the names that settings, addresses and applications call them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rooms.protocols.base import Protocol, error_answer
from rooms.protocols.goroomserver import Goroomserver
from rooms.protocols.gowsev import Gowsev
from rooms.protocols.native import Native
from rooms.protocols.roomer import Roomer
from rooms.protocols.rtbroadcaster import Rtbroadcaster

PROTOCOLS: Mapping[str, type[Protocol]] = MappingProxyType(
    {each.name: each for each in (Native, Roomer, Rtbroadcaster, Goroomserver, Gowsev)}
)

__all__ = ["PROTOCOLS", "Native", "Protocol", "error_answer"]
