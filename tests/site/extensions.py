"""Extensions for tests only."""

from __future__ import annotations

from django import forms

from rooms import Extension, HandshakeRejected, register
from rooms.extensions import ConnectionEvent, HandshakeEvent, ReceiveEvent


@register
class Bridge(Extension):
    """Relays frames between a service and its clients, which need a key."""

    class Settings(forms.Form):
        url = forms.CharField()
        key = forms.CharField()

    async def init(self) -> None:
        self.service = await self.open_connection(self.settings["url"])

    async def on_handshake(self, event: HandshakeEvent) -> None:
        if event.query.get("key") != [self.settings["key"]]:
            raise HandshakeRejected("Expected the key.", status=401)
        event.claims["name"] = event.headers.get("x-name", "nobody")

    async def on_connect(self, event: ConnectionEvent) -> None:
        if event.number != self.service.number:
            await self.write(event.number, f"hello {event.claims['name']}")

    async def on_receive(self, event: ReceiveEvent) -> None:
        if event.number != self.service.number:
            others = [self.service.number]
        else:
            others = [number for number in self.connections if number != event.number]
        for number in others:
            if number is not None:
                await self.write(number, event.data)
