"""The types of fields of commands and events."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Mode: TypeAlias = Literal["open", "broadcast"]
LeftReason: TypeAlias = Literal["left", "dropped", "kicked", "closed"]
CreatePolicy: TypeAlias = Literal["never", "on_demand", "always"]
RemovedReason: TypeAlias = Literal["kicked", "banned", "closed", "logged_out"]

Integer: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
CommandId: TypeAlias = Integer | Annotated[str, Meta(max_length=64)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Capacity: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
EventName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
# The limit before a name is normalised, which is slow for long texts.
UserName: TypeAlias = Annotated[str, Meta(max_length=256)]
Password: TypeAlias = Annotated[str, Meta(max_length=128)]


class Value(Struct, frozen=True, kw_only=True):
    """A part of an event."""


class User(Value, frozen=True, kw_only=True):
    """A user as others see it; ``id`` is a Django primary key, or random for a guest."""

    name: str
    id: str
    guest: bool


class Position(Value, frozen=True, kw_only=True):
    """A position in a room's history: ``seq`` counts from 1 within one ``epoch``."""

    epoch: str
    seq: Count
