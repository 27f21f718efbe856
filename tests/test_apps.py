"""What Django's setup loads of rooms, in processes that serve no sockets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import site_environment

BASE_DIR = Path(__file__).resolve().parent.parent

# ``daphne`` in INSTALLED_APPS would load itself.
SETUP = """
import sys
from roomsite import settings
settings.INSTALLED_APPS.remove("daphne")
import django
django.setup()
"""
LOADED = """
loaded = {"rooms.node.node", "rooms.consumers", "daphne", "uvicorn"}
print(sorted(loaded & set(sys.modules)))
"""
WSGI = """
from django.core.wsgi import get_wsgi_application
from django.urls import resolve
get_wsgi_application()
resolve("/rooms/chat/")
"""


@pytest.mark.parametrize("work", ["", WSGI], ids=["setup", "wsgi"])
def test_no_node_is_imported_by_a_process_without_sockets(work: str, tmp_path: Path) -> None:
    environment = site_environment(f"sqlite:///{tmp_path / 'db.sqlite3'}", None)
    done = subprocess.run(
        [sys.executable, "-c", SETUP + work + LOADED],
        capture_output=True,
        text=True,
        cwd=BASE_DIR,
        env=environment,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
