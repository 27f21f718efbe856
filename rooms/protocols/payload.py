"""Payloads between doors: what is bytes at one is a JSON value at another.

- A JSON text on one line that keeps the native protocol's rules, but for a string, is that value; its
  text stays as it is.
- Any other UTF-8 text is the string of that text.
- Bytes that are no UTF-8 are ``{"base64": "..."}``.

Nothing is lost either way: ``to_bytes(from_bytes(payload)) == payload`` and ``from_bytes(to_bytes(data))``
is the value of ``data``. So where two would be the same, one of them is written in a longer way: the
string ``123`` is ``"123"`` with its quotes, and a text that reads as such a base64 object is in base64
itself. A base64 object that holds what has a plainer value is nothing but an object.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from rooms.protocols import strict

_MIGHT_BE_JSON = re.compile(r"[ \t\r]*+(?:[\[{\d-]|true|false|null)")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_LONG_INTEGER = re.compile(rb"(?<![\d.eE+-])-?\d{19,}+(?![.eE])")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")

_encode = msgspec.json.encode


def from_bytes(payload: bytes) -> Raw:
    """The JSON text of the value that stands for these bytes; it holds no line break."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return _wrapped(payload)
    value = _read(text)
    if value is not UNSET:
        return Raw(payload) if _unwrapped(value) is None else _wrapped(payload)
    return Raw(payload if _is_needed_quote(text) else _encode(text))


def to_bytes(data: Raw) -> bytes:
    """The bytes that stand for this value."""
    text = bytes(data)
    first = text.lstrip()[:1]
    if first == b'"':
        string: str = msgspec.json.decode(text)
        return _encode(string) if _is_ambiguous(string) else string.encode()
    if first == b"{" and (b"base64" in text or b"\\" in text):
        unwrapped = _unwrapped(msgspec.json.decode(text))
        if unwrapped is not None:
            return unwrapped
    return text


# Texts -------------------------------------------------------------------------------------------------


def _read(text: str) -> Any:
    """The value of a JSON text that is taken for JSON; UNSET for any other text."""
    # A line break would end a message of the native protocol in its middle.
    if not _MIGHT_BE_JSON.match(text) or "\n" in text:
        return UNSET
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return UNSET
    return value if strict.is_plain(text) or _keeps_the_rules(text) else UNSET


def _keeps_the_rules(text: str) -> bool:
    """Whether JSON keeps the rules on depth and integers: as ``strict.py`` says, but for texts of any length
    and without saying what is wrong."""
    bare = _STRING.sub(b'""', text.encode())
    for match in _LONG_INTEGER.finditer(bare):
        digits = match.group()
        if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
            return False
    brackets = bare.translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(strict.DEEPEST):
        brackets = brackets.replace(b"[]", b"")
    return not brackets


def _is_ambiguous(string: str) -> bool:
    """Whether the text of a string by itself would be read as something else."""
    return _read(string) is not UNSET or _is_needed_quote(string)


def _is_needed_quote(text: str) -> bool:
    """Whether a text is what an ambiguous string is written as."""
    if text[:1] != '"' or text[-1:] != '"':
        return False
    try:
        string = msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return False
    return _is_ambiguous(string) and _encode(string) == text.encode()


# Bytes -------------------------------------------------------------------------------------------------


def _wrapped(payload: bytes) -> Raw:
    return Raw(b'{"base64":"' + b64encode(payload) + b'"}')


def _unwrapped(value: Any) -> bytes | None:
    """The bytes that a value stands for, if it is a base64 object of bytes that have no plainer value."""
    if not (isinstance(value, dict) and len(value) == 1 and isinstance(text := value.get("base64"), str)):
        return None
    try:
        payload = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if b64encode(payload).decode() != text:
        return None
    try:
        value = _read(payload.decode())
    except UnicodeDecodeError:
        return payload
    return None if _unwrapped(value) is None else payload
