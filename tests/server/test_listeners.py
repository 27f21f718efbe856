"""Listeners: their ports, their certificate and the application behind them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from channels.routing import get_default_application
from django.core.exceptions import ImproperlyConfigured

from rooms.server import listeners
from rooms.server.addresses import parse
from rooms.server.listeners import Listener, check_certificate, open_listeners
from tests.certificates import Certificate, make_certificate
from tests.services import free_port


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path)


def close(opened: list[Listener]) -> None:
    for listener in opened:
        for each in listener.sockets:
            each.close()


# Ports -------------------------------------------------------------------------------------------


def test_each_address_has_sockets_an_application_and_its_certificate() -> None:
    addresses = [
        parse(f"127.0.0.1:{free_port()}"),
        parse(f"127.0.0.1:{free_port()}=gowsev"),
        parse(f"127.0.0.1:{free_port()}", tls=True),
    ]
    opened = open_listeners(addresses, "chain.pem", "key.pem")
    try:
        for address, listener in zip(addresses, opened, strict=True):
            assert [each.getsockname() for each in listener.sockets] == [(address.host, address.port)]
            socket.create_connection((address.host, address.port)).close()
        assert [listener.certificate for listener in opened] == [None, None, "chain.pem"]
        assert [listener.key for listener in opened] == [None, None, "key.pem"]
        site = get_default_application()
        assert [listener.application is site for listener in opened] == [True, False, True]
    finally:
        close(opened)


def test_port_in_use_is_refused_and_the_other_ports_are_closed() -> None:
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        addresses = [parse(f"127.0.0.1:{free}"), parse(f"127.0.0.1:{port}")]
        with pytest.raises(
            ValueError, match=rf"^Cannot listen on 127\.0\.0\.1:{port}: Address already in use\. "
        ):
            open_listeners(addresses, None, None)
    socket.create_server(("127.0.0.1", free)).close()


def test_address_of_another_machine_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^Cannot listen on 192\.0\.2\.1:8000: .+ Expected a free port at an ad"
    ):
        open_listeners([parse("192.0.2.1:8000")], None, None)


def test_shared_port_is_bound_twice_and_does_not_listen() -> None:
    address = parse(f"127.0.0.1:{free_port()}")
    first, second = (open_listeners([address], None, None, shared=True) for _ in range(2))
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.host, address.port))
    finally:
        close(first + second)


def test_system_without_reuseport_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    listeners.check_port_sharing()
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(ValueError, match=r"^Expected --workers 1, .+ has no SO_REUSEPORT"):
        listeners.check_port_sharing()


def test_site_without_an_asgi_application_is_refused(settings: Any) -> None:
    settings.ASGI_APPLICATION = "roomsite.asgi.nothing"
    with pytest.raises(ImproperlyConfigured, match="'nothing'"):
        open_listeners([parse(f"127.0.0.1:{free_port()}")], None, None)


# The certificate ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cert", "key", "text"),
    [
        (
            "key.pem",
            "certificate.pem",
            "Expected a certificate chain in PEM format for --cert, got {}/key.pem, which has a private key",
        ),
        (
            "certificate.pem",
            "certificate.pem",
            "Expected a private key in PEM format for --key, got {}/certificate.pem, which has a certificate",
        ),
        (
            "empty",
            "key.pem",
            "Expected a certificate chain in PEM format for --cert, got {}/empty, which has no content.",
        ),
        (
            "certificate.pem",
            "text",
            "Expected a private key in PEM format for --key, got {}/text, which has nothing in PEM format.",
        ),
        (
            "certificate.pem",
            ".",
            "Expected a file in PEM format for --key, got {}/., which is a directory.",
        ),
        (
            "missing",
            "key.pem",
            "Expected a file in PEM format for --cert, got {}/missing, which does not exist.",
        ),
    ],
)
def test_file_with_the_wrong_content_is_refused(
    certificate: Certificate, tmp_path: Path, cert: str, key: str, text: str
) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "text").write_text("text")
    with pytest.raises(ValueError, match=r"^Expected ") as raised:
        check_certificate(f"{tmp_path}/{cert}", f"{tmp_path}/{key}")
    swapped = ": the two files may be swapped." if text[-1] != "." else ""
    assert str(raised.value) == text.format(tmp_path) + swapped


def test_certificate_with_the_key_of_another_is_refused(certificate: Certificate, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    cert, key = certificate.file, make_certificate(tmp_path / "other").key
    with pytest.raises(ValueError, match=r"^Expected a certificate chain and its own private key") as raised:
        check_certificate(cert, key)
    assert f"got --cert {cert} and --key {key}: " in str(raised.value)


def test_one_file_may_hold_certificate_and_key(certificate: Certificate, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(Path(certificate.key).read_text() + Path(certificate.file).read_text())
    check_certificate(str(both), str(both))


def test_key_with_a_password_is_refused_without_a_prompt(tmp_path: Path) -> None:
    locked = make_certificate(tmp_path, password=b"secret")
    with pytest.raises(ValueError, match=r"^Expected a private key without a password") as raised:
        check_certificate(*locked)
    assert f"got {locked.key}, which is encrypted. " in str(raised.value)
