"""Applications whose extensions begin with the server rather than with the first client."""

from __future__ import annotations

import logging
from functools import partial

from rooms.engine.parts import Parts
from rooms.errors import RoomsError
from rooms.models import Application

logger = logging.getLogger("rooms.engine")


async def open_applications(parts: Parts) -> None:
    """Load every enabled application that has an extension; later, where the database does not answer."""
    await parts.see_to(partial(_open, parts))


async def _open(parts: Parts) -> None:
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
