"""A chat as the tutorial of Channels teaches it: every socket is in the group of its room on the channel
layer, and what one says is sent to the group.

The layer is the one in memory, or with REDIS_URL that of channels_redis on pub/sub, its fastest.
"""

from __future__ import annotations

import json
import os
from typing import Any

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import re_path

REDIS_URL = os.environ.get("REDIS_URL")
LAYER: dict[str, Any] = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
if REDIS_URL:
    LAYER = {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}

settings.configure(SECRET_KEY="of no use here", ALLOWED_HOSTS=["*"], CHANNEL_LAYERS={"default": LAYER})
django.setup()


class Chat(AsyncWebsocketConsumer):
    """One socket."""

    async def connect(self) -> None:
        self.group = f"chat_{self.scope['url_route']['kwargs']['room']}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        said = json.loads(text_data or "")["message"]
        await self.channel_layer.group_send(self.group, {"type": "chat.message", "message": said})

    async def chat_message(self, event: dict[str, Any]) -> None:
        """What the group is sent."""
        await self.send(text_data=json.dumps({"message": event["message"]}))


_chat: Any = Chat.as_asgi()
application = ProtocolTypeRouter({"websocket": URLRouter([re_path(r"^ws/chat/(?P<room>\w+)/$", _chat)])})
