"""A channel layer that loses, doubles and delays what processes tell each other, on demand.

It stands before the site's real layer, in every process of the site under test. What it does wrong is written
in a file, so that the driver can begin and end it from outside; without the file it does nothing wrong.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.utils.module_loading import import_string


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Parts of all messages to groups that are lost, doubled, and late by up to ``seconds``."""

    lost: float = 0
    doubled: float = 0
    late: float = 0
    seconds: float = 0

    def begin(self, file: Path) -> None:
        """Let every layer that watches this file do so from now on."""
        # Whole or not at all: processes read it at any moment.
        written = file.with_suffix(".new")
        written.write_text(json.dumps(asdict(self)))
        written.replace(file)


def faults_in(file: Path) -> Faults:
    """What the file asks for now."""
    try:
        return Faults(**json.loads(file.read_text()))
    except FileNotFoundError:
        return Faults()


class UnreliableLayer:
    """``layer`` is the real one, as in ``CHANNEL_LAYERS``; ``faults`` the file that is watched."""

    def __init__(self, *, layer: dict[str, Any], faults: str, **options: Any) -> None:
        self._layer = import_string(layer["BACKEND"])(**layer.get("CONFIG", {}))
        self._faults = Path(faults)
        self._late: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        faults = faults_in(self._faults)
        copies = 0 if random.random() < faults.lost else 2 if random.random() < faults.doubled else 1
        for _ in range(copies):
            if random.random() < faults.late:
                # The sender does not wait: others overtake it.
                task = asyncio.create_task(self._later(group, message, random.uniform(0, faults.seconds)))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
            else:
                await self._layer.group_send(group, message)

    async def _later(self, group: str, message: dict[str, Any], seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._layer.group_send(group, message)
