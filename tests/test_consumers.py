"""The consumer: its command table, and how it refuses sockets. `tests/node/test_session.py` has the rest."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from rooms import consumers
from rooms.consumers import commands_of, refuse
from rooms.node.node import Node
from rooms.protocol import commands, compat_commands
from rooms.protocol.commands import Command
from rooms.protocol.compat_commands import ApplicationCommand


def defined_commands() -> set[type[Command]]:
    """All commands that a codec may decode; a multiplex session opens ApplicationCommand itself."""
    found = {
        each
        for module in (commands, compat_commands)
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Command)
    }
    return found - {Command, ApplicationCommand}


async def test_every_command_has_an_operation(node: Node) -> None:
    table = commands_of(node)
    assert table.keys() == defined_commands()
    assert all(asyncio.iscoroutinefunction(operation) for operation in table.values())


async def refused(path: str, *, responses: bool) -> list[dict[str, Any]]:
    """The answers of the application for addresses without a WebSocket."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    extensions = {"websocket.http.response": {}} if responses else None
    await refuse({"type": "websocket", "path": path, "extensions": extensions}, receive, send)
    return sent


async def test_another_address_is_answered_with_404_where_the_server_can() -> None:
    start, body = await refused("/nowhere", responses=True)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 404)
    assert body["body"] == b"No WebSocket is served at /nowhere."
    assert await refused("/nowhere", responses=False) == [{"type": "websocket.close"}]


async def test_a_scanner_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    consumers._log_once.cache_clear()
    with caplog.at_level(logging.INFO, "rooms.consumers"):
        for _ in range(5):
            await refused("/wp-login.php", responses=False)
    assert [record.message for record in caplog.records] == [
        "Refused a socket: no WebSocket is served at '/wp-login.php'."
    ]


async def test_an_empty_binary_frame_passes_a_server_that_drops_false_values() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    socket = consumers._AsgiSocket(None, send)
    await socket.send(b"", binary=True)
    await socket.send(b"x", binary=True)
    empty, full = sent
    # Daphne asks `get`, and sends the value of the key.
    assert empty.get("bytes")
    assert (type(empty["bytes"]), empty["bytes"]) == (bytes, b"")
    assert full == {"type": "websocket.send", "bytes": b"x"}
