"""``manage.py runrooms``: its options, its refusals, and how it starts workers."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.migrations.recorder import MigrationRecorder

from rooms.management.commands import runrooms
from rooms.management.commands.runrooms import parse_addresses
from rooms.server import server
from rooms.server.control_pipe import ControlPipe
from tests.certificates import Certificate, make_certificate
from tests.services import free_port

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


# Options -----------------------------------------------------------------------------------------


def test_options_may_be_repeated_and_have_a_default(certificate: Certificate) -> None:
    def parsed(*options: Any) -> list[tuple[int, bool]]:
        return [(address.port, address.tls) for address in parse_addresses(*options)]

    assert parsed([], [], None, None) == [(8000, False)]
    assert parsed(["a:1", "a:2"], [], None, None) == [(1, False), (2, False)]
    assert parsed(["a:1"], ["a:2", "a:3"], *certificate) == [(1, False), (2, True), (3, True)]
    assert parsed([], ["a:2"], *certificate) == [(2, True)]


# Refused before anything is served ---------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The listeners that the command would serve; it serves none."""
    served: list[Any] = []

    def run(listeners: list[Any], on_listening: Any, *, verbose: bool, control_pipe: Any = None) -> None:
        served.extend(listeners)
        for listener in listeners:
            for each in listener.sockets:
                each.close()

    monkeypatch.setattr(server, "run", run)
    return served


def refusal(*options: str) -> str:
    """The text with which the command refuses these options."""
    with pytest.raises(CommandError) as raised:
        call_command("runrooms", *options, stdout=StringIO())
    assert raised.value.returncode == 1
    return str(raised.value)


def test_listeners_are_served_as_the_options_say(served: list[Any], certificate: Certificate) -> None:
    plain, dedicated, tls = (f"127.0.0.1:{free_port()}" for _ in range(3))
    options = ["--listen", plain, "--listen", f"{dedicated}=gowsev", "--listen-tls", tls]
    call_command("runrooms", *options, "--cert", certificate.file, "--key", certificate.key)
    assert [listener.certificate for listener in served] == [None, None, certificate.file]
    assert served[0].application is served[2].application
    assert served[1].application is not served[0].application


@pytest.mark.parametrize("option", ["--listen", "--listen-tls"])
def test_invalid_address_is_refused(served: list[Any], certificate: Certificate, option: str) -> None:
    files = ["--cert", certificate.file, "--key", certificate.key] if option == "--listen-tls" else []
    expected = "Expected HOST:PORT or HOST:PORT=PROTOCOL/APPLICATION, got 'nowhere'."
    assert refusal(option, "nowhere", *files).startswith(expected)
    assert served == []


@pytest.mark.parametrize("missing", ["--cert", "--key"])
def test_tls_needs_both_files(served: list[Any], certificate: Certificate, missing: str) -> None:
    files = {"--cert": certificate.file, "--key": certificate.key}
    del files[missing]
    ((option, file),) = files.items()
    address = f"127.0.0.1:{free_port()}"
    text = refusal("--listen-tls", address, option, file)
    assert text == f"--listen-tls needs {missing}. Expected a file in PEM format, got none."
    text = refusal("--listen-tls", address, option, file, missing, "/nowhere.pem")
    assert text == f"Expected a file in PEM format for {missing}, got /nowhere.pem, which does not exist."
    text = refusal("--listen", address, option, file)
    assert text == f"Expected --listen-tls HOST:PORT with {option}, got none."
    assert served == []


def test_certificate_with_the_key_of_another_is_refused(
    served: list[Any], certificate: Certificate, tmp_path: Path
) -> None:
    cert, key = certificate.file, make_certificate(tmp_path).key
    options = ["--listen-tls", f"127.0.0.1:{free_port()}", "--cert", cert, "--key", key]
    assert f"got --cert {cert} and --key {key}: " in refusal(*options)
    assert served == []


def test_key_with_a_password_is_refused_without_a_prompt(served: list[Any], tmp_path: Path) -> None:
    locked = make_certificate(tmp_path, password=b"secret")
    options = ["--cert", locked.file, "--key", locked.key]
    text = refusal("--listen-tls", f"127.0.0.1:{free_port()}", *options)
    assert text.startswith(f"Expected a private key without a password for --key, got {locked.key}, ")
    assert served == []


def test_port_in_use_is_refused_and_the_other_ports_are_closed(served: list[Any]) -> None:
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        text = refusal("--listen", f"127.0.0.1:{free}", "--listen", f"127.0.0.1:{port}")
    assert text.startswith(f"Cannot listen on 127.0.0.1:{port}: Address already in use. Expected ")
    socket.create_server(("127.0.0.1", free)).close()
    assert served == []


def test_database_without_migrations_is_refused(served: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MigrationRecorder, "applied_migrations", lambda recorder: {})
    assert "python manage.py migrate" in refusal("--listen", f"127.0.0.1:{free_port()}")
    assert served == []


def test_warnings_are_printed_and_the_site_is_served(served: list[Any]) -> None:
    address, errors = f"127.0.0.1:{free_port()}", StringIO()
    call_command("runrooms", "--listen", f"{address}=gowsev/nope", stderr=errors)
    warning = f"{address} serves the application nope, which does not exist. Create it in the admin."
    assert warning in errors.getvalue().splitlines()
    assert len(served) == 1


def test_site_without_an_asgi_application_is_refused(served: list[Any], settings: Any) -> None:
    settings.ASGI_APPLICATION = "roomsite.asgi.nothing"
    assert "'nothing'" in refusal("--listen", f"127.0.0.1:{free_port()}")
    assert served == []


def test_missing_uvicorn_is_reported_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rooms.server.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    text = refusal()
    assert text.startswith("runrooms needs uvicorn, which is not installed. ")
    assert text.endswith('pip install ".[server]".')


# Several processes -------------------------------------------------------------------------------------


class FakeSupervisor:
    """Records what it is created with and starts no process."""

    created: ClassVar[list[tuple[list[str], int]]] = []
    is_clean = True

    def __init__(self, command: list[str], number: int, on_serving: Callable[[], None]) -> None:
        self.created.append((command, number))
        self._on_serving = on_serving

    async def run(self) -> bool:
        self._on_serving()
        return self.is_clean


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch, settings: Any) -> list[tuple[list[str], int]]:
    """The commands and numbers of workers, on a site whose backends are shared."""
    monkeypatch.setattr(runrooms, "Supervisor", FakeSupervisor)
    monkeypatch.setattr(FakeSupervisor, "created", created := [])
    monkeypatch.setenv("ROOMS_WORKERS", "2")
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}}
    settings.ROOMS = {"PRESENCE": {"BACKEND": "rooms.presence.redis.RedisPresence"}}
    return created


def as_own_process(*options: str) -> str:
    """Call the command as if from the command line; what it prints."""
    command, output = runrooms.Command(), StringIO()
    command.is_own_process = True
    call_command(command, *options, stdout=output)
    return output.getvalue()


def test_supervisor_runs_with_the_ports_closed(
    served: list[Any], supervised: list[tuple[list[str], int]]
) -> None:
    port = free_port()
    output = as_own_process("--workers", "2", "--listen", f"127.0.0.1:{port}")
    assert supervised == [([sys.executable, *sys.orig_argv[1:]], 2)]
    assert output == f"Listening on http://127.0.0.1:{port}/  the site with all its protocols\n"
    socket.create_server(("127.0.0.1", port)).close()
    assert served == []


def test_worker_that_did_not_shut_down_cleanly_is_an_error(
    supervised: list[tuple[list[str], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSupervisor, "is_clean", False)
    with pytest.raises(CommandError, match=r"A worker did not shut down cleanly\."):
        as_own_process("--workers", "2", "--listen", f"127.0.0.1:{free_port()}")


def test_worker_shares_its_port_and_does_not_listen_before_it_serves(
    served: list[Any], supervised: list[tuple[list[str], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = []
    ended = threading.Event()

    def run(listeners: list[Any], *_: Any, control_pipe: ControlPipe, **__: Any) -> None:
        control_pipe.listen(lambda node_id: None, ended.set)
        for listener in listeners:
            for each in listener.sockets:
                addresses.append(each.getsockname())
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(each.getsockname())
                each.close()

    monkeypatch.setattr(server, "run", run)
    port = free_port()
    ours, theirs = socket.socketpair()
    with ours, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        options = ["--workers", "2", "--supervisor", str(theirs.detach())]
        output = as_own_process(*options, "--listen", f"127.0.0.1:{port}")
    assert (addresses, output, supervised) == ([("127.0.0.1", port)], "", [])
    assert ended.wait(60)


def test_process_restarts_when_the_settings_were_read_without_the_number_of_workers(
    supervised: list[tuple[list[str], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: list[tuple[str, list[str], str]] = []

    def execv(path: str, command: list[str]) -> None:
        executed.append((path, command, os.environ["ROOMS_WORKERS"]))
        raise InterruptedError

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setenv("ROOMS_RESTARTED", "")
    with pytest.raises(InterruptedError):
        as_own_process("--workers", "3")
    # A manage.py may set the variable itself, each time.
    monkeypatch.setenv("ROOMS_WORKERS", "2")
    with pytest.raises(
        CommandError,
        match=r"^Expected the environment variable ROOMS_WORKERS to be 3 as in --workers, got '2'\.",
    ):
        as_own_process("--workers", "3")
    assert executed == [(sys.executable, [sys.executable, *sys.orig_argv[1:]], "3")]
    assert supervised == []


@pytest.mark.parametrize("number", ["0", "-1"])
def test_number_of_workers_below_one_is_refused(number: str) -> None:
    assert refusal("--workers", number) == f"Expected --workers 1 or more, got {number}."


def test_workers_are_refused_when_another_program_calls_the_command(
    supervised: list[tuple[list[str], int]],
) -> None:
    assert refusal("--workers", "2").startswith(
        "Expected --workers 1 when another program calls the command, got 2. "
    )
    assert supervised == []


def test_backends_in_memory_are_refused_for_several_workers(
    supervised: list[tuple[list[str], int]], settings: Any
) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.ROOMS = {}
    with pytest.raises(CommandError) as raised:
        as_own_process("--workers", "2", "--listen", f"127.0.0.1:{free_port()}")
    assert str(raised.value) == (
        "Expected backends that processes share with --workers 2, got presence and the channel layer in "
        'memory. Configure CHANNEL_LAYERS and ROOMS["PRESENCE"], or use --workers 1.'
    )
    assert supervised == []


def test_system_that_cannot_share_ports_is_refused(
    supervised: list[tuple[list[str], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(
        CommandError, match=r"^Expected --workers 1, got more: this system has no SO_REUSEPORT"
    ):
        as_own_process("--workers", "2", "--listen", f"127.0.0.1:{free_port()}")
    assert supervised == []
