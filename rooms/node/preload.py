"""Applications whose extensions begin with the server rather than with the first client."""

from __future__ import annotations

import logging
from functools import partial

from rooms.models import Application
from rooms.node.context import NodeContext
from rooms.protocol.errors import RoomsError

logger = logging.getLogger("rooms.node")


async def open_applications(parts: NodeContext) -> None:
    """Load every enabled application that has an extension; later, where the database does not answer."""
    await parts.run_to_completion(partial(_open, parts))


async def _open(parts: NodeContext) -> None:
    for name in await parts.pool.run(_extended):
        try:
            await parts.directory.application(name)
        except RoomsError:
            raise
        except Exception:
            # The others are not to suffer for it; its first client has it tried again.
            logger.exception("The application %s could not be opened.", name)


def _extended() -> list[str]:
    """The names of enabled applications with an extension."""
    rows = Application.objects.filter(enabled=True).exclude(extension="")
    return list(rows.order_by("name").values_list("name", flat=True))
