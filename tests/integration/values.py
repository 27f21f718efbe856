"""How the transcripts in tests/vectors write bytes, and whether what arrived is what they expect.

Symbols such as `$id:A` stand for what is random. All of them are UUIDs in text form, so that the
length of every value is known before its symbols are. Next in the flow: `vectors.py` plays a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Known: TypeAlias = dict[str, str]
"""What the symbols stand for, by their names."""

Event: TypeAlias = Mapping[str, Any]
"""What a transcript expects, as the file has it."""

UUID_LENGTH = 36
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
SYMBOL = re.compile(r"\$(\$|[a-z]+:\w+)")


@dataclass(frozen=True)
class Arrived:
    """Something that a client received: a frame, or the end of its connection."""

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
    """A JSON array of these texts in any order, written compactly."""

    texts: tuple[str, ...]


Part: TypeAlias = bytes | Symbol | AnyOrder


def written(value: Any, known: Known) -> bytes:
    """The bytes of a value that is to be sent. Raises KeyError for a symbol that nothing has told yet."""
    pieces = []
    for part in parts(value):
        assert not isinstance(part, AnyOrder), "a set stands only in expectations"
        pieces.append(known[part.name].encode() if isinstance(part, Symbol) else part)
    return b"".join(pieces)


def matches(event: Event, arrived: Arrived, known: Known) -> Known | None:
    """What is known of the symbols afterwards, or None: that is not what was expected."""
    now = dict(known)
    if "close" in event:
        anything = "any" in (event["close"], event.get("ours"))
        fits = arrived.kind == "close" and (anything or arrived.code in event["close"])
    elif "json" in event:
        fits = arrived.kind == "text" and _fits_json(event["json"], arrived.content, now)
    elif "text" in event:
        fits = arrived.kind == "text" and _fits_text(event["text"], arrived.content, now)
    else:
        fits = arrived.kind == "binary" and _fits(event["binary"], arrived.content, now)
    return now if fits else None


def parts(value: Any) -> Iterator[Part]:
    """A value as bytes and what stands between them."""
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
        raise ValueError(f"There is no value {kind!r}. Lawful: hex, repeat, concat, fields, set.")


def _parts_of_text(text: str) -> Iterator[Part]:
    end = 0
    for found in SYMBOL.finditer(text):
        yield text[end : found.start()].encode()
        yield b"$" if found[1] == "$" else Symbol(found[1])
        end = found.end()
    yield text[end:].encode()


def _only_bytes(value: Any) -> Iterator[bytes]:
    for part in parts(value):
        assert isinstance(part, bytes), "what is repeated holds no symbols"
        yield part


def _length(part: Part) -> int:
    if isinstance(part, bytes):
        return len(part)
    if isinstance(part, Symbol):
        return UUID_LENGTH
    quoted = [2 + sum(map(_length, parts(text))) for text in part.texts]
    return len("[]") + sum(quoted) + max(0, len(quoted) - 1)


def _fits(value: Any, found: bytes, known: Known) -> bool:
    at = 0
    for part in parts(value):
        piece = found[at : at + _length(part)]
        at += _length(part)
        if isinstance(part, Symbol):
            fits = _stands_for(part.name, piece.decode(errors="replace"), known)
        elif isinstance(part, AnyOrder):
            fits = _fits_in_any_order(part, piece, known)
        else:
            fits = piece == part
        if not fits:
            return False
    return at == len(found)


def _stands_for(name: str, text: str, known: Known) -> bool:
    """Whether the symbol may stand for this text; from now on it does."""
    if name in known:
        return known[name] == text
    if not UUID4.fullmatch(text) or text in known.values():
        return False
    known[name] = text
    return True


def _fits_in_any_order(expected: AnyOrder, found: bytes, known: Known) -> bool:
    try:
        texts = json.loads(found)
    except ValueError:
        return False
    if json.dumps(texts, separators=(",", ":"), ensure_ascii=False).encode() != found:
        return False
    if not isinstance(texts, list):
        return False
    # What is known already first, so that a new symbol stands for what is left.
    left = list(texts)
    for text in sorted(expected.texts, key=lambda each: not all(s in known for s in _symbols(each))):
        matching = next((each for each in left if _fits(text, str(each).encode(), known)), None)
        if matching is None:
            return False
        left.remove(matching)
    return not left


def _symbols(text: str) -> list[str]:
    return [found[1] for found in SYMBOL.finditer(text) if found[1] != "$"]


# JSON ----------------------------------------------------------------------------------------------


def _fits_text(expected: Any, found: bytes, known: Known) -> bool:
    """JSON is compared as JSON: the order of members, escapes and the spelling of numbers are free."""
    try:
        wanted, got = json.loads(expected), json.loads(found)
    except (TypeError, ValueError):
        return _fits(expected, found, known)
    return _same(wanted, got, known, exactly=True)


def _fits_json(expected: Any, found: bytes, known: Known) -> bool:
    try:
        got = json.loads(found)
    except ValueError:
        return False
    return _same(expected, got, known, exactly=False)


def _same(expected: Any, found: Any, known: Known, *, exactly: bool) -> bool:
    """Whether two JSON values are the same; unless ``exactly``, objects may have more members."""
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
        return isinstance(found, str) and _fits(expected, found.encode(errors="surrogatepass"), known)
    if isinstance(expected, bool) or expected is None:
        return found is expected
    # As doubles, which is what the clients read.
    return isinstance(found, int | float) and not isinstance(found, bool) and float(found) == float(expected)
