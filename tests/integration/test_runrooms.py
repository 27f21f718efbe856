"""``manage.py runrooms`` as a process: dedicated ports, TLS, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests import services
from tests.certificates import Certificate, make_certificate
from tests.integration.native import PATIENCE, Client, make_application, unique
from tests.servers import BASE_DIR, START_SECONDS, STOP_SECONDS, Server, running

pytestmark = pytest.mark.any_database

Open = Callable[..., Awaitable[ClientConnection]]
HANDSHAKE = (
    "GET /ws/rooms/durable/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Site(NamedTuple):
    """A server, its other ports, and the certificate of the one with TLS."""

    server: Server
    native: int
    gowsev: int
    tls: int
    certificate: Certificate

    def addresses(self) -> list[str]:
        """The addresses of the application `durable`, one on each kind of port."""
        path = "/ws/rooms/durable/"
        return [
            f"{self.server.ws}{path}",
            f"ws://127.0.0.1:{self.native}/",
            f"wss://127.0.0.1:{self.tls}{path}",
        ]


def start(certificate: Certificate) -> Site:
    native, gowsev, tls = (services.free_port() for _ in range(3))
    options = ["--listen", f"127.0.0.1:{native}=native/durable"]
    options += ["--listen", f"127.0.0.1:{gowsev}=gowsev/durable", "--listen-tls", f"127.0.0.1:{tls}"]
    options += ["--cert", certificate.file, "--key", certificate.key]
    return Site(Server.start("runrooms", options=options), native, gowsev, tls, certificate)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def site(certificate: Certificate) -> Iterator[Site]:
    """A site that several tests share."""
    site = start(certificate)
    with running(site.server):
        yield site


@pytest.fixture
def stopping(certificate: Certificate) -> Iterator[Site]:
    """A site that the test stops."""
    site = start(certificate)
    with running(site.server):
        yield site


@pytest.fixture
async def opened(certificate: Certificate) -> AsyncIterator[Open]:
    """Opens WebSockets, and closes them all at the end."""
    async with AsyncExitStack() as stack:

        async def opened(address: str, **options: Any) -> ClientConnection:
            trusting = (
                ssl.create_default_context(cafile=certificate.file) if address.startswith("wss") else None
            )
            plain = {"compression": None, "ping_interval": None, "proxy": None, "close_timeout": 1}
            return await stack.enter_async_context(connect(address, ssl=trusting, **{**plain, **options}))

        yield opened


async def logged_in(socket: ClientConnection, *rooms: str) -> Client:
    """Return a client on this socket that is logged in and in these rooms."""
    client = Client(socket)
    assert (await client.receive())["application"] == "durable"
    await client.login(name=unique("guest"))
    for room in rooms:
        await client.join(room)
    return client


async def exit_code(server: Server) -> int:
    """Stop the server as a deployment does; returns its exit code."""
    process = server.process
    assert process is not None
    await asyncio.to_thread(server.stop)
    return int(process.returncode)


def request(port: int, method: str, path: str) -> tuple[int, Mapping[str, str], bytes]:
    """Return the status, headers and body of an HTTP response."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


# Serving --------------------------------------------------------------------------------------


async def test_clients_of_all_ports_share_a_room(site: Site, opened: Open) -> None:
    room = unique("room")
    clients = [await logged_in(await opened(address), room) for address in site.addresses()]
    for number, speaker in enumerate(clients):
        await speaker.send_message(room, number)
    for client in clients:
        assert [message["data"] for message in await client.messages(3)] == [0, 1, 2]


@pytest.mark.parametrize("path", ["/", "/any", "/ws/rooms/elsewhere/", "/a%20b?c=d"])
async def test_dedicated_port_serves_its_protocol_at_every_path(site: Site, opened: Open, path: str) -> None:
    await logged_in(await opened(f"ws://127.0.0.1:{site.native}{path}"))


async def test_dedicated_port_of_a_foreign_protocol_shares_the_room(site: Site, opened: Open) -> None:
    client = await opened(f"ws://127.0.0.1:{site.gowsev}/any")
    await client.send(f"subscribe:{(channel := unique('room'))}")
    assert await client.recv() == b"OK"
    native = await logged_in(await opened(site.addresses()[0]), channel)
    await native.send_message(channel, "hello")
    assert await client.recv() == b"hello"


def test_dedicated_port_has_no_pages(site: Site) -> None:
    status, headers, text = request(site.native, "GET", "/")
    assert (status, headers["Upgrade"]) == (426, "websocket")
    assert b"open it as ws://" in text
    status, headers, _ = request(site.native, "POST", "/anything")
    assert (status, headers["Allow"]) == (405, "GET")


def test_response_has_no_server_header(site: Site) -> None:
    status, headers, _ = request(site.server.port, "GET", "/")
    assert status == 200
    assert "Server" not in headers


async def test_frame_above_the_limit_of_its_protocol_closes_with_4507(site: Site, opened: Open) -> None:
    client = await logged_in(await opened(site.addresses()[0]))
    await client.send_text(" " * 65537)
    assert await client.closed() == 4507
    # Twice the limit of the native protocol, and below the largest limit of all protocols.
    client = await logged_in(await opened(site.addresses()[0]))
    await client.send_text(" " * 131072)
    assert await client.closed() == 4507


async def test_frames_are_not_compressed(site: Site, opened: Open) -> None:
    client = await opened(site.addresses()[0], compression="deflate")
    assert client.response is not None
    assert "Sec-WebSocket-Extensions" not in client.response.headers


async def test_addresses_are_printed_and_requests_are_not_logged(site: Site, opened: Open) -> None:
    marker = unique("query")
    await logged_in(await opened(f"{site.addresses()[0]}?{marker}"))
    request(site.server.port, "GET", f"/?{marker}")
    log = site.server.log.read_text()
    assert [line for line in log.splitlines() if line.startswith("Listening on")] == [
        f"Listening on http://127.0.0.1:{site.server.port}/  the site with all its protocols",
        f"Listening on ws://127.0.0.1:{site.native}/  native at every path, application durable",
        f"Listening on ws://127.0.0.1:{site.gowsev}/  gowsev at every path, application durable",
        f"Listening on https://127.0.0.1:{site.tls}/  the site with all its protocols",
    ]
    assert marker not in log


def test_second_server_on_the_same_port_fails_without_a_traceback(site: Site) -> None:
    second = subprocess.run(
        [sys.executable, "manage.py", "runrooms", "--listen", f"127.0.0.1:{site.tls}"],
        capture_output=True,
        text=True,
        cwd=BASE_DIR,
        env=site.server.environment,
        timeout=START_SECONDS,
    )
    assert second.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{site.tls}: Address already in use." in second.stderr
    assert "Traceback" not in second.stderr
    assert "Listening" not in second.stdout


def test_extensions_start_without_a_client() -> None:
    server = Server.start("runrooms")
    with running(server):
        # One that does not exist is logged as soon as its application is loaded.
        application = make_application(server, extension="nowhere.Nothing")
        server.restart()
        missing = "This site has no extension nowhere.Nothing:"
        assert f"{missing} {application} refuses users." in server.tail()


# Shutdown -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_closes_every_connection_and_ends_the_process(
    stopping: Site, opened: Open, number: signal.Signals
) -> None:
    clients = [await logged_in(await opened(address), "lobby") for address in stopping.addresses()]
    process = stopping.server.process
    assert process is not None
    process.send_signal(number)
    assert [await client.closed() for client in clients] == [4000] * 3
    assert await asyncio.to_thread(process.wait, STOP_SECONDS) == 0
    for port in (stopping.server.port, stopping.native, stopping.tls):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    assert "Traceback" not in stopping.server.tail()


@contextlib.contextmanager
def unresponsive_clients(port: int) -> Iterator[None]:
    """Connect two clients that delay a shutdown.

    One never answers a close frame, one never ends its request.
    """
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as silent,
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as unfinished,
    ):
        unfinished.sendall(b"POST /login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nhalf")
        silent.sendall(HANDSHAKE.encode())
        assert silent.recv(12) == b"HTTP/1.1 101"
        yield


async def test_unresponsive_clients_do_not_prevent_the_shutdown(stopping: Site) -> None:
    with unresponsive_clients(stopping.server.port):
        assert await exit_code(stopping.server) == 0


async def test_second_signal_ends_the_process_at_once(stopping: Site, opened: Open) -> None:
    client = await logged_in(await opened(stopping.addresses()[0]))
    process = stopping.server.process
    assert process is not None
    with unresponsive_clients(stopping.server.port):
        process.send_signal(signal.SIGTERM)
        assert await client.closed() == 4000
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, STOP_SECONDS) == -signal.SIGTERM
