"""The pages: the list of applications and the chat itself. See ``rooms/urls.py``."""

from __future__ import annotations

from rooms.views.chat import ChatView
from rooms.views.index import IndexView

__all__ = ["ChatView", "IndexView"]
