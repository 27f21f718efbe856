"""Values in the transcripts of tests/vectors, compared with what arrived.

Symbols such as `$id:A` stand for random context. All of them are UUIDs as text, so the length of a value is
known before its symbols are. `vectors.py` plays the transcripts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Known: TypeAlias = dict[str, str]
"""The texts of the symbols, by name."""

Event: TypeAlias = Mapping[str, Any]
"""An expected event, as in the file."""

UUID_LENGTH = 36
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
SYMBOL = re.compile(r"\$(\$|[a-z]+:\w+)")


@dataclass(frozen=True)
class Arrived:
    """An event of a client: a frame, or the end of its connection."""

    kind: Literal["text", "binary", "close"]
    content: bytes = b""
    code: int = 0

    def __str__(self) -> str:
        return f"close {self.code}" if self.kind == "close" else f"{self.kind} {self.content[:300]!r}"


@dataclass(frozen=True)
class Symbol:
    name: str


@dataclass(frozen=True)
class AnyOrder:
    """A compact JSON array of these texts in any order."""

    texts: tuple[str, ...]


Part: TypeAlias = bytes | Symbol | AnyOrder


def written(value: Any, known: Known) -> bytes:
    """Return the bytes of a value to send. Raises KeyError for an unknown symbol."""
    pieces = []
    for part in parts(value):
        assert not isinstance(part, AnyOrder), "a set is valid in expectations only"
        pieces.append(known[part.name].encode() if isinstance(part, Symbol) else part)
    return b"".join(pieces)


def matches(event: Event, arrived: Arrived, known: Known) -> Known | None:
    """Return the symbols known afterwards, or None if the event does not match."""
    now = dict(known)
    if "close" in event:
        anything = "any" in (event["close"], event.get("ours"))
        equal = arrived.kind == "close" and (anything or arrived.code in event["close"])
    elif "json" in event:
        equal = arrived.kind == "text" and _matches_json(event["json"], arrived.content, now)
    elif "text" in event:
        equal = arrived.kind == "text" and _matches_text(event["text"], arrived.content, now)
    else:
        equal = arrived.kind == "binary" and _matches(event["binary"], arrived.content, now)
    return now if equal else None


def parts(value: Any) -> Iterator[Part]:
    """Yield a value as bytes and the parts between them."""
    if isinstance(value, str):
        yield from _parts_of_text(value)
        return
    ((kind, content),) = value.items()
    if kind == "hex":
        yield bytes.fromhex(content)
    elif kind == "repeat":
        yield b"".join(_only_bytes(content["of"])) * content["times"]
    elif kind == "concat":
        for each in content:
            yield from parts(each)
    elif kind == "fields":
        for each in content:
            field = list(parts(each))
            yield sum(_length(part) for part in field).to_bytes(4, "big")
            yield from field
    elif kind == "set":
        yield AnyOrder(tuple(content))
    else:
        raise ValueError(f"Expected hex, repeat, concat, fields or set, got {kind!r}.")


def _parts_of_text(text: str) -> Iterator[Part]:
    end = 0
    for found in SYMBOL.finditer(text):
        yield text[end : found.start()].encode()
        yield b"$" if found[1] == "$" else Symbol(found[1])
        end = found.end()
    yield text[end:].encode()


def _only_bytes(value: Any) -> Iterator[bytes]:
    for part in parts(value):
        assert isinstance(part, bytes), "a repeated value must not hold symbols"
        yield part


def _length(part: Part) -> int:
    if isinstance(part, bytes):
        return len(part)
    if isinstance(part, Symbol):
        return UUID_LENGTH
    quoted = [2 + sum(map(_length, parts(text))) for text in part.texts]
    return len("[]") + sum(quoted) + max(0, len(quoted) - 1)


def _matches(value: Any, found: bytes, known: Known) -> bool:
    at = 0
    for part in parts(value):
        piece = found[at : at + _length(part)]
        at += _length(part)
        if isinstance(part, Symbol):
            equal = _bind(part.name, piece.decode(errors="replace"), known)
        elif isinstance(part, AnyOrder):
            equal = _matches_in_any_order(part, piece, known)
        else:
            equal = piece == part
        if not equal:
            return False
    return at == len(found)


def _bind(name: str, text: str, known: Known) -> bool:
    """Return whether a symbol can be this text, and bind it if it can."""
    if name in known:
        return known[name] == text
    if not UUID4.fullmatch(text) or text in known.values():
        return False
    known[name] = text
    return True


def _matches_in_any_order(expected: AnyOrder, found: bytes, known: Known) -> bool:
    try:
        texts = json.loads(found)
    except ValueError:
        return False
    if json.dumps(texts, separators=(",", ":"), ensure_ascii=False).encode() != found:
        return False
    if not isinstance(texts, list):
        return False
    # Texts with known symbols first, so that a new symbol is bound to one of the others.
    left = list(texts)
    for text in sorted(expected.texts, key=lambda each: not all(s in known for s in _symbols(each))):
        matching = next((each for each in left if _matches(text, str(each).encode(), known)), None)
        if matching is None:
            return False
        left.remove(matching)
    return not left


def _symbols(text: str) -> list[str]:
    return [found[1] for found in SYMBOL.finditer(text) if found[1] != "$"]


# JSON ----------------------------------------------------------------------------------------------


def _matches_text(expected: Any, found: bytes, known: Known) -> bool:
    """Compare JSON as JSON: order of members, escapes and format of numbers are free."""
    try:
        wanted, got = json.loads(expected), json.loads(found)
    except (TypeError, ValueError):
        return _matches(expected, found, known)
    return _same(wanted, got, known, exactly=True)


def _matches_json(expected: Any, found: bytes, known: Known) -> bool:
    try:
        got = json.loads(found)
    except ValueError:
        return False
    return _same(expected, got, known, exactly=False)


def _same(expected: Any, found: Any, known: Known, *, exactly: bool) -> bool:
    """Return whether two JSON values are equal.

    Unless ``exactly``, the objects in ``found`` may have more members.
    """
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and (not exactly or expected.keys() == found.keys())
            and all(
                name in found and _same(each, found[name], known, exactly=exactly)
                for name, each in expected.items()
            )
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(expected) == len(found)
            and all(_same(*pair, known, exactly=exactly) for pair in zip(expected, found, strict=True))
        )
    if isinstance(expected, str):
        return isinstance(found, str) and _matches(expected, found.encode(errors="surrogatepass"), known)
    if isinstance(expected, bool) or expected is None:
        return found is expected
    # As doubles, as the clients parse them.
    return isinstance(found, int | float) and not isinstance(found, bool) and float(found) == float(expected)
