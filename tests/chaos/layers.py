"""A channel layer that loses, doubles and delays messages between processes, on demand.

It wraps the real layer in every process of the site under test. A file holds its faults, so that the driver
starts and ends them from outside; without the file there are none.
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
    """Shares of messages to groups that are lost, doubled, and late by up to ``seconds``."""

    lost: float = 0
    doubled: float = 0
    late: float = 0
    seconds: float = 0

    def begin(self, file: Path) -> None:
        """Start these faults in every layer that reads this file."""
        # Replaced at once, because processes read it at any time.
        new = file.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        new.replace(file)


def faults_in(file: Path) -> Faults:
    """Return the faults in the file."""
    try:
        return Faults(**json.loads(file.read_text()))
    except FileNotFoundError:
        return Faults()


class UnreliableLayer:
    """Wraps ``layer``, an entry of ``CHANNEL_LAYERS``; ``faults`` is the path of the file."""

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
                # The sender does not wait, so later messages overtake this one.
                task = asyncio.create_task(self._later(group, message, random.uniform(0, faults.seconds)))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
            else:
                await self._layer.group_send(group, message)

    async def _later(self, group: str, message: dict[str, Any], seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._layer.group_send(group, message)
