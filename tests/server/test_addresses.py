"""The addresses of `runrooms --listen`: what is parsed, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from rooms.server.addresses import SYNTAX, Address, parse


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Address(host="127.0.0.1", port=8000)),
        ("localhost:1", Address(host="localhost", port=1)),
        ("chat.example.org:65535", Address(host="chat.example.org", port=65535)),
        ("[::1]:8000", Address(host="::1", port=8000)),
        ("[fe80::1%eth0]:8000", Address(host="fe80::1%eth0", port=8000)),
        ("[::]:9=gowsev", Address(host="::", port=9, protocol="gowsev", application="gowsev")),
        ("0.0.0.0:9=roomer", Address(host="0.0.0.0", port=9, protocol="roomer", application="roomer")),
        ("a:9=roomer/chat", Address(host="a", port=9, protocol="roomer", application="chat")),
        (
            "a:9=rtbroadcaster",
            Address(host="a", port=9, protocol="rtbroadcaster", application="rtbroadcaster"),
        ),
        ("a:9=native/my-chat_2", Address(host="a", port=9, protocol="native", application="my-chat_2")),
        ("a:9=goroomserver", Address(host="a", port=9, protocol="goroomserver")),
    ],
)
def test_address_is_parsed(text: str, address: Address) -> None:
    assert parse(text) == address


@pytest.mark.parametrize(
    ("text", "url", "description"),
    [
        ("[::1]:8000", "http://[::1]:8000/", "the site with all its protocols"),
        ("a:9=gowsev/chat", "ws://a:9/", "gowsev at every path, application chat"),
        ("a:9=goroomserver", "ws://a:9/", "goroomserver at every path"),
    ],
)
def test_address_has_a_url_and_a_description(text: str, url: str, description: str) -> None:
    address = parse(text)
    assert (address.url, address.description) == (url, description)
    assert parse(text, tls=True).url == url.replace("://", "s://")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8000",
        ":8000",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:٨٠",
        "127.0.0.1:8000000",
        "::1:8000",
        "[127.0.0.1:8000",
        "http://127.0.0.1:8000",
        "127.0.0.1:8000/",
        "a b:8000",
        "a..b:8000",
        "x" * 64 + ":8000",
    ],
)
def test_anything_else_is_refused_with_the_syntax(text: str) -> None:
    with pytest.raises(ValueError, match=r"^Expected ") as raised:
        parse(text)
    assert f"Expected {SYNTAX}, got {text!r}. Examples: " in str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:0", "a port from 1 to 65535, got 0"),
        ("127.0.0.1:65536", "a port from 1 to 65535, got 65536"),
        ("a:9=", "one of native, roomer, rtbroadcaster, goroomserver, gowsev, got the protocol ''"),
        (
            "a:9=telnet",
            "one of native, roomer, rtbroadcaster, goroomserver, gowsev, got the protocol 'telnet'",
        ),
        (
            "a:9=Roomer",
            "one of native, roomer, rtbroadcaster, goroomserver, gowsev, got the protocol 'Roomer'",
        ),
        ("a:9=native", "HOST:PORT=native/APPLICATION, got"),
        ("a:9=roomer/", "the name of an application after roomer/, got ''"),
        ("a:9=roomer/a/b", "the name of an application after roomer/, got 'a/b'"),
        ("a:9=roomer/a b", "the name of an application after roomer/, got 'a b'"),
        ("a:9=goroomserver/chat", "HOST:PORT=goroomserver, got 'a:9=goroomserver/chat': its clients name"),
    ],
)
def test_refused_part_is_named(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r"^Expected ") as raised:
        parse(text)
    assert repr(text) in str(raised.value)
    assert str(raised.value).startswith(f"Expected {expected}")


def test_disabled_protocol_is_refused_with_the_enabled_ones(settings: Any) -> None:
    settings.ROOMS = {"PROTOCOLS": ["native", "gowsev"]}
    assert parse("a:9=gowsev").protocol == "gowsev"
    with pytest.raises(
        ValueError, match=r'^Expected one of ROOMS\["PROTOCOLS"\] \(native, gowsev\), got \'roomer\''
    ):
        parse("a:9=roomer")
