"""``manage.py runrooms`` before it serves: what its options mean, and what it refuses in plain words."""

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
from django.db import OperationalError
from django.db.migrations.recorder import MigrationRecorder

from rooms.management.commands import runrooms
from rooms.management.commands.runrooms import wanted_addresses
from rooms.models import Application
from rooms.server import preflight, server
from rooms.server.addresses import Address, parse
from rooms.server.control_pipe import ControlPipe
from tests.certificates import Certificate, make_certificate
from tests.services import free_port

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


# What the options mean -------------------------------------------------------------------------------


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
def test_an_address(text: str, address: Address) -> None:
    assert parse(text) == address


@pytest.mark.parametrize(
    ("text", "url", "served"),
    [
        ("[::1]:8000", "http://[::1]:8000/", "the site and its doors"),
        ("a:9=gowsev/chat", "ws://a:9/", "gowsev at every path, application chat"),
        ("a:9=goroomserver", "ws://a:9/", "goroomserver at every path"),
    ],
)
def test_an_address_says_what_is_served_there(text: str, url: str, served: str) -> None:
    address = parse(text)
    assert (address.url, address.served) == (url, served)
    assert parse(text, tls=True).url == url.replace("://", "s://")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no address"),
        ("8000", "is no address"),
        (":8000", "is no address"),
        ("127.0.0.1", "is no address"),
        ("127.0.0.1:", "is no address"),
        ("127.0.0.1:http", "is no address"),
        ("127.0.0.1:٨٠", "is no address"),
        ("127.0.0.1:8000000", "is no address"),
        ("::1:8000", "is no address"),
        ("[127.0.0.1:8000", "is no address"),
        ("http://127.0.0.1:8000", "is no address"),
        ("127.0.0.1:8000/", "is no address"),
        ("a b:8000", "is no address"),
        ("a..b:8000", "is no address"),
        ("x" * 64 + ":8000", "is no address"),
        ("127.0.0.1:0", "has the port 0. Lawful: 1 to 65535."),
        ("127.0.0.1:65536", "has the port 65536. Lawful: 1 to 65535."),
        ("a:9=", "names the door ''. Lawful: native, roomer, rtbroadcaster, goroomserver, gowsev."),
        ("a:9=telnet", "names the door 'telnet'. Lawful: native, roomer"),
        ("a:9=Roomer", "names the door 'Roomer'. Lawful: native, roomer"),
        ("a:9=native", "names no application. Lawful: native/application."),
        ("a:9=roomer/", "names the application ''. Lawful: roomer/"),
        ("a:9=roomer/a/b", "names the application 'a/b'. Lawful: roomer/"),
        ("a:9=roomer/a b", "names the application 'a b'. Lawful: roomer/"),
        ("a:9=goroomserver/chat", "clients of goroomserver say it. Lawful: goroomserver."),
    ],
)
def test_what_is_no_address_is_told_with_what_is_lawful(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="Lawful: ") as raised:
        parse(text)
    assert repr(text) in str(raised.value)
    assert words in str(raised.value)


def test_a_closed_door_is_told_with_those_that_are_open(settings: Any) -> None:
    settings.ROOMS = {"PROTOCOLS": ["native", "gowsev"]}
    assert parse("a:9=gowsev").protocol == "gowsev"
    with pytest.raises(ValueError, match=r'closed\. Lawful by ROOMS\["PROTOCOLS"\]: native, gowsev\.$'):
        parse("a:9=roomer")


def test_options_may_be_repeated_and_there_is_a_default(certificate: Certificate) -> None:
    def places(*options: Any) -> list[tuple[int, bool]]:
        return [(address.port, address.tls) for address in wanted_addresses(*options)]

    assert places([], [], None, None) == [(8000, False)]
    assert places(["a:1", "a:2"], [], None, None) == [(1, False), (2, False)]
    assert places(["a:1"], ["a:2", "a:3"], *certificate) == [(1, False), (2, True), (3, True)]
    assert places([], ["a:2"], *certificate) == [(2, True)]


# What is refused before anything is served ------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been served, instead of serving it."""
    served: list[Any] = []

    def run(listeners: list[Any], listening: Any, *, verbose: bool, lifeline: Any = None) -> None:
        served.extend(listeners)
        for listener in listeners:
            for each in listener.sockets:
                each.close()

    monkeypatch.setattr(server, "run", run)
    return served


def refusal(*options: str) -> str:
    """How the command refuses these options."""
    with pytest.raises(CommandError) as raised:
        call_command("runrooms", *options, stdout=StringIO())
    assert raised.value.returncode == 1
    return str(raised.value)


def test_it_serves_what_the_options_say(served: list[Any], certificate: Certificate) -> None:
    plain, only, tls = (f"127.0.0.1:{free_port()}" for _ in range(3))
    options = ["--listen", plain, "--listen", f"{only}=gowsev", "--listen-tls", tls]
    call_command("runrooms", *options, "--cert", certificate.file, "--key", certificate.key)
    assert [listener.certificate for listener in served] == [None, None, certificate.file]
    assert served[0].application is served[2].application
    assert served[1].application is not served[0].application


@pytest.mark.parametrize("option", ["--listen", "--listen-tls"])
def test_a_bad_address_is_refused(served: list[Any], certificate: Certificate, option: str) -> None:
    files = ["--cert", certificate.file, "--key", certificate.key] if option == "--listen-tls" else []
    assert "'nowhere' is no address. Lawful: HOST:PORT" in refusal(option, "nowhere", *files)
    assert served == []


@pytest.mark.parametrize("missing", ["--cert", "--key"])
def test_tls_needs_both_files(served: list[Any], certificate: Certificate, missing: str) -> None:
    files = {"--cert": certificate.file, "--key": certificate.key}
    del files[missing]
    (given,) = files.items()
    address = f"127.0.0.1:{free_port()}"
    assert f"--listen-tls needs {missing}, and got none. Lawful: " in refusal("--listen-tls", address, *given)
    gone = refusal("--listen-tls", address, *given, missing, "/nowhere.pem")
    assert f"{missing} is /nowhere.pem, and there is no such file. Lawful: " in gone
    assert "without an address for it. Lawful: with --listen-tls" in refusal("--listen", address, *given)
    assert served == []


def test_files_that_do_not_belong_together_are_refused(
    served: list[Any], certificate: Certificate, tmp_path: Path
) -> None:
    cert, key = certificate.file, make_certificate(tmp_path).key
    options = ["--listen-tls", f"127.0.0.1:{free_port()}", "--cert", cert, "--key", key]
    assert f"--cert {cert} and --key {key} cannot be used together" in refusal(*options)
    assert served == []


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("key.pem", "certificate.pem", "--cert is {}/key.pem, which holds a private key: perhaps the two"),
        (
            "certificate.pem",
            "certificate.pem",
            "--key is {}/certificate.pem, which holds a certificate: perh",
        ),
        ("empty", "key.pem", "--cert is {}/empty, which holds nothing. Lawful: a certificate chain in PEM"),
        ("certificate.pem", "nonsense", "--key is {}/nonsense, which holds nothing in PEM format. Lawful: a"),
        ("certificate.pem", ".", "--key is {}/., and that is a folder. Lawful: "),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(
    served: list[Any], tmp_path: Path, cert: str, key: str, words: str
) -> None:
    make_certificate(tmp_path)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "nonsense").write_text("nonsense")
    options = ["--cert", f"{tmp_path}/{cert}", "--key", f"{tmp_path}/{key}"]
    assert words.format(tmp_path) in refusal("--listen-tls", f"127.0.0.1:{free_port()}", *options)
    assert served == []


def test_one_file_may_hold_both(served: list[Any], certificate: Certificate, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(Path(certificate.key).read_text() + Path(certificate.file).read_text())
    options = ["--cert", str(both), "--key", str(both)]
    call_command("runrooms", "--listen-tls", f"127.0.0.1:{free_port()}", *options, stderr=StringIO())
    assert [listener.key for listener in served] == [str(both)]


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(
    served: list[Any], tmp_path: Path
) -> None:
    locked = make_certificate(tmp_path, password=b"secret")
    options = ["--cert", locked.file, "--key", locked.key]
    said = refusal("--listen-tls", f"127.0.0.1:{free_port()}", *options)
    assert f"--key is {locked.key}, which is encrypted. Lawful: a private key without a password" in said
    assert served == []


def test_a_port_that_is_taken_is_refused_and_the_others_are_let_go_of(served: list[Any]) -> None:
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal("--listen", f"127.0.0.1:{free}", "--listen", f"127.0.0.1:{port}")
    assert said.startswith(f"Cannot listen on 127.0.0.1:{port}: Address already in use. Lawful: ")
    socket.create_server(("127.0.0.1", free)).close()
    assert served == []


def test_a_host_that_is_not_ours_is_refused(served: list[Any]) -> None:
    assert "Cannot listen on 192.0.2.1:8000: " in refusal("--listen", "192.0.2.1:8000")
    assert served == []


def test_a_database_that_is_not_prepared_is_told_so(
    served: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MigrationRecorder, "applied_migrations", lambda recorder: {})
    assert "python manage.py migrate" in refusal("--listen", f"127.0.0.1:{free_port()}")
    assert served == []


def test_a_database_that_does_not_answer_yet_is_told_without_its_password(
    served: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise OperationalError("connection refused\nin postgres://rooms:secret@nowhere/")

    monkeypatch.setattr(MigrationRecorder, "applied_migrations", down)
    monkeypatch.setattr(preflight, "_shut", down)
    said = warned("--listen", f"127.0.0.1:{free_port()}")
    assert said[0] == (
        "The database does not answer: connection refused. It is asked again when it is needed."
    )
    assert len(served) == 1


def warned(*options: str) -> list[str]:
    """What it warns of before it serves."""
    said = StringIO()
    call_command("runrooms", *options, stderr=said)
    return said.getvalue().splitlines()


def test_an_application_that_nobody_can_enter_is_warned_of(served: list[Any]) -> None:
    Application.objects.create(name="gowsev")
    Application.objects.create(name="chosen", protocols=["native"])
    places = [f"127.0.0.1:{free_port()}" for _ in range(4)]
    targets = ["", "=gowsev", "=gowsev/nope", "=gowsev/chosen"]
    options = [word for each in zip(places, targets, strict=True) for word in ("--listen", "".join(each))]
    # What is in memory is another matter.
    assert [line for line in warned(*options) if not line.startswith("In memory")] == [
        f"{places[2]} leads into the application nope, which is not there. Make it in the admin.",
        f"{places[3]} leads into the application chosen, which does not let in gowsev clients.",
    ]
    assert len(served) == 4


def test_what_is_in_memory_is_told(served: list[Any], settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    shared = {"BACKEND": "rooms.presence.redis.RedisPresence", "OPTIONS": {"url": "redis://localhost"}}
    for presence, words in (
        ({}, "In memory: presence and the channel layer. That is for one process: "),
        ({"PRESENCE": shared}, "In memory: the channel layer. That is for one process: "),
    ):
        settings.ROOMS = presence
        (line,) = warned("--listen", f"127.0.0.1:{free_port()}")
        assert line.startswith(words)


def test_a_site_without_an_asgi_application_is_told_so(served: list[Any], settings: Any) -> None:
    settings.ASGI_APPLICATION = "roomsite.asgi.nothing"
    assert "'nothing'" in refusal("--listen", f"127.0.0.1:{free_port()}")
    assert served == []


def test_without_uvicorn_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rooms.server.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    said = refusal()
    assert said.startswith("runrooms needs uvicorn, which is not installed. ")
    assert said.endswith('pip install ".[server]".')


# Several processes -------------------------------------------------------------------------------------


class FakeSupervisor:
    """Remembers what was to be supervised, instead of doing it."""

    made: ClassVar[list[tuple[list[str], int]]] = []
    in_order = True

    def __init__(self, command: list[str], number: int, serving: Callable[[], None]) -> None:
        self.made.append((command, number))
        self._serving = serving

    async def run(self) -> bool:
        self._serving()
        return self.in_order


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch, settings: Any) -> list[tuple[list[str], int]]:
    """What would have been supervised, on a site whose processes share what they have to."""
    monkeypatch.setattr(runrooms, "Supervisor", FakeSupervisor)
    monkeypatch.setattr(FakeSupervisor, "made", made := [])
    monkeypatch.setenv("ROOMS_WORKERS", "2")
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}}
    settings.ROOMS = {"PRESENCE": {"BACKEND": "rooms.presence.redis.RedisPresence"}}
    return made


def as_own_process(*options: str) -> str:
    """Call the command as a process of its own would; what it prints."""
    command, said = runrooms.Command(), StringIO()
    command.is_own_process = True
    call_command(command, *options, stdout=said)
    return said.getvalue()


def test_with_workers_it_supervises_and_lets_go_of_the_ports(
    served: list[Any], supervised: list[tuple[list[str], int]]
) -> None:
    port = free_port()
    said = as_own_process("--workers", "2", "--listen", f"127.0.0.1:{port}")
    assert supervised == [([sys.executable, *sys.orig_argv[1:]], 2)]
    assert said == f"Listening on http://127.0.0.1:{port}/  the site and its doors\n"
    socket.create_server(("127.0.0.1", port)).close()
    assert served == []


def test_it_fails_where_a_worker_did_not_end_in_order(
    supervised: list[tuple[list[str], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSupervisor, "in_order", False)
    with pytest.raises(CommandError, match=r"A worker did not end in order\."):
        as_own_process("--workers", "2", "--listen", f"127.0.0.1:{free_port()}")


def test_a_worker_shares_its_port_and_does_not_listen_before_it_serves(
    served: list[Any], supervised: list[tuple[list[str], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = []
    ended = threading.Event()

    def run(listeners: list[Any], *_: Any, lifeline: ControlPipe, **__: Any) -> None:
        lifeline.listen(lambda node: None, ended.set)
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
        said = as_own_process(*options, "--listen", f"127.0.0.1:{port}")
    assert (addresses, said, supervised) == ([("127.0.0.1", port)], "", [])
    assert ended.wait(60)


def test_the_settings_are_read_again_where_they_did_not_know_of_the_workers(
    supervised: list[tuple[list[str], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, list[str], str]] = []

    def execv(path: str, command: list[str]) -> None:
        begun.append((path, command, os.environ["ROOMS_WORKERS"]))
        raise InterruptedError

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setenv("ROOMS_BEGUN_ANEW", "")
    with pytest.raises(InterruptedError):
        as_own_process("--workers", "3")
    # A manage.py may set it by itself, each time.
    monkeypatch.setenv("ROOMS_WORKERS", "2")
    with pytest.raises(CommandError, match="something sets the environment variable ROOMS_WORKERS to '2'"):
        as_own_process("--workers", "3")
    assert begun == [(sys.executable, [sys.executable, *sys.orig_argv[1:]], "3")]
    assert supervised == []


@pytest.mark.parametrize("number", ["0", "-1"])
def test_without_workers_nobody_would_serve(number: str) -> None:
    assert refusal("--workers", number) == f"--workers is {number}. Lawful: 1 or more."


def test_a_program_that_calls_it_cannot_be_started_once_more(supervised: list[tuple[list[str], int]]) -> None:
    assert refusal("--workers", "2").startswith("--workers is 2, and this is another program's process. ")
    assert supervised == []


def test_what_is_in_memory_is_no_good_for_several(
    supervised: list[tuple[list[str], int]], settings: Any
) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.ROOMS = {}
    with pytest.raises(CommandError) as raised:
        as_own_process("--workers", "2", "--listen", f"127.0.0.1:{free_port()}")
    assert str(raised.value) == (
        "In memory: presence and the channel layer. That is for one process, and --workers is 2. Lawful: "
        'CHANNEL_LAYERS and ROOMS["PRESENCE"] that processes share, or --workers 1.'
    )
    assert supervised == []


def test_a_system_that_cannot_share_ports_is_told_so(
    supervised: list[tuple[list[str], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(CommandError, match=r"it has no SO_REUSEPORT\. Lawful: --workers 1\.$"):
        as_own_process("--workers", "2", "--listen", f"127.0.0.1:{free_port()}")
    assert supervised == []
