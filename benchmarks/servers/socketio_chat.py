"""Rooms of python-socketio: join one, speak there, and be answered alone."""

from __future__ import annotations

from typing import Any

import socketio

server: Any = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], max_http_buffer_size=1 << 20)
application = socketio.ASGIApp(server)


async def join(client: str, room: str) -> None:
    await server.enter_room(client, room)
    await server.emit("joined", room, to=client)


async def message(client: str, room: str, data: Any) -> None:
    await server.emit("message", data, room=room)


async def echo(client: str, data: Any) -> None:
    await server.emit("echo", data, to=client)


for handler in (join, message, echo):
    server.on(handler.__name__, handler)
