"""The server's own parts: its configuration of uvicorn and its shutdown signal.

`tests/integration/test_runrooms.py` runs it as a process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from rooms.conf import PROTOCOL_NAMES, get_settings
from rooms.server import server
from rooms.server.http_upgrade import Http
from rooms.server.listeners import Listener
from rooms.server.websocket import WebSocket
from tests.server.harness import PATIENCE

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Restore the signal handlers of the test run."""
    before = [signal.getsignal(each) for each in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def test_uvicorn_is_configured_with_our_classes_and_limits() -> None:
    config = server._config(Listener(sockets=[], application=None, certificate="c", key="k"), False)
    assert (config.http, config.ws) == (Http, WebSocket)
    assert (config.ssl_certfile, config.ssl_keyfile) == ("c", "k")
    assert (config.access_log, config.server_header, config.proxy_headers) == (False, False, False)
    largest = max(get_settings().frame_bytes(protocol) for protocol in PROTOCOL_NAMES)
    assert config.ws_max_size == 2 * largest


async def test_first_signal_is_awaited_and_restores_the_default_for_the_second() -> None:
    shutdown = server._ShutdownSignal()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            await shutdown.wait()
        assert [signal.getsignal(each) for each in SIGNALS] == [signal.SIG_DFL] * 2
    finally:
        shutdown._timeout.cancel()


async def test_shutdown_may_be_set_from_any_thread_and_more_than_once() -> None:
    shutdown = server._ShutdownSignal()
    try:
        for _ in range(2):
            thread = threading.Thread(target=shutdown.set)
            thread.start()
            async with asyncio.timeout(PATIENCE):
                await shutdown.wait()
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert shutdown._timeout.is_alive()
    finally:
        shutdown._timeout.cancel()


async def test_process_exits_when_the_shutdown_takes_too_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(os, "_exit", lambda code: loop.call_soon_threadsafe(exited.set_result, code))
    monkeypatch.setattr(server, "SHUTDOWN_TIMEOUT", 0.01)
    server._ShutdownSignal().set()
    async with asyncio.timeout(PATIENCE):
        assert await exited == 1
    assert "Shutdown not complete after" in caplog.text
