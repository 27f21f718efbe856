"""Load the applications whose extensions start with the server.

They are loaded before the first client connects.
"""

from __future__ import annotations

import logging
from functools import partial

from rooms.models import Application
from rooms.node.context import NodeContext
from rooms.protocol.errors import RoomsError

logger = logging.getLogger("rooms.node")


async def load_applications(context: NodeContext) -> None:
    """Load every enabled application with an extension.

    This is retried while the database is down.
    """
    await context.run_to_completion(partial(_load, context))


async def _load(context: NodeContext) -> None:
    for name in await context.pool.run(_names_with_extension):
        try:
            await context.registry.application(name)
        except RoomsError:
            raise
        except Exception:
            # The others are loaded nevertheless; the application's first client has it tried again.
            logger.exception("The application %s could not be loaded.", name)


def _names_with_extension() -> list[str]:
    rows = Application.objects.filter(enabled=True).exclude(extension="")
    return list(rows.order_by("name").values_list("name", flat=True))
