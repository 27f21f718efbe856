"""The example site with changed settings and constants, for live servers.

    environment = changed_site({"rooms.presence.lease.SWEEP_DELAY": 3}, LEAVE_GRACE=1)
    Server.start("runrooms", environment=environment)

The defaults suit networks and people; a test that waits for a timeout should not wait that long.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from django.apps import AppConfig

from roomsite.settings import *  # noqa: F403
from roomsite.settings import INSTALLED_APPS, ROOMS

_CONSTANTS, _SETTINGS = "ROOMS_TEST_CONSTANTS", "ROOMS_TEST_SETTINGS"

INSTALLED_APPS = [*INSTALLED_APPS, f"{__name__}.ChangedConstants"]
ROOMS = {**ROOMS, **json.loads(os.environ.get(_SETTINGS, "{}"))}


def changed_site(constants: Mapping[str, Any] | None = None, **settings: Any) -> dict[str, str]:
    """Return the environment of a server with these constants and `ROOMS` settings."""
    return {
        "DJANGO_SETTINGS_MODULE": __name__,
        _CONSTANTS: json.dumps(dict(constants or {})),
        _SETTINGS: json.dumps(settings),
    }


class ChangedConstants(AppConfig):
    """Replaces the constants once all apps are loaded."""

    name = "tests"
    label = "changed_site"

    def ready(self) -> None:
        for path, value in json.loads(os.environ.get(_CONSTANTS, "{}")).items():
            module, _, name = path.rpartition(".")
            if not hasattr(import_module(module), name):
                raise LookupError(f"Expected the path of a constant, got {path!r}.")
            setattr(import_module(module), name, value)


#: A missing message is noticed within a second, also while Redis is down.
FREQUENT_CHECKS = {"rooms.node.node.CHECK_SECONDS": 0.5, "rooms.node.periodic.TICK_SECONDS": 0.25}

#: A server waits only two seconds for a lock or a statement.
SHORT_STATEMENTS = {
    "rooms.concurrency.timeouts._SQLITE": "PRAGMA busy_timeout = 2000",
    "rooms.concurrency.timeouts._POSTGRESQL": (
        "SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '2s'; "
        "SET LOCAL idle_in_transaction_session_timeout = '2s'"
    ),
}

#: Processes notice within seconds that another one has ended.
SHORT_LEASES = {"rooms.node.node.HEARTBEAT_SECONDS": 1, "rooms.presence.lease.SWEEP_DELAY": 3}
