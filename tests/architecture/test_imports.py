"""What really happens at an import, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.architecture.source import Tree

BASE_DIR = Path(__file__).resolve().parent.parent.parent
TIMEOUT = 120

NODE = "rooms.node.node"

SET_UP = """
    import sys
    import django
    django.setup()
"""
NODE_IMPORTED = f"""
    print({NODE!r} in sys.modules)
"""
WSGI = """
    from io import BytesIO
    from django.core.wsgi import get_wsgi_application
    application = get_wsgi_application()
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/login/", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "80",
        "wsgi.input": BytesIO(), "wsgi.url_scheme": "http",
    }
    status = []
    b"".join(application(environ, lambda line, headers: status.append(line)))
    assert status == ["200 OK"], status
"""
MIGRATE = """
    from django.core.management import call_command
    call_command("migrate", verbosity=0)
"""
PUBLISH = """
    import rooms
    from rooms.models import Application
    Application.objects.create(name="chat", history="database").rooms.create(name="lobby")
    rooms.publish("chat", "lobby", "hello")
"""


def output(tmp_path: Path, *probes: str) -> str:
    """What a program prints that has an empty database."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "DEBUG": "1",
        "PYTHONPATH": str(BASE_DIR),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "".join(dedent(probe) for probe in probes)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def modules(part: str = "") -> list[str]:
    """The names of the modules of one part of `rooms`, or of all."""
    return [module.name for module in Tree(BASE_DIR).rooms.values() if not part or module.part == part]


@pytest.mark.parametrize("part", ["protocol", "hub"])
def test_the_part_runs_without_django(tmp_path: Path, part: str) -> None:
    probe = f"import sys, {', '.join(modules(part))}\nprint({{'django', 'channels'}} & set(sys.modules))"
    assert output(tmp_path, probe) == "set()"


def test_the_probe_finds_django(tmp_path: Path) -> None:
    assert output(tmp_path, "import sys, rooms.conf\nprint('django' in sys.modules)") == "True"


IMPORT_ALL = f"""
    import asyncio, importlib, threading
    started = []
    threading.Thread.start = lambda thread: started.append(thread.name)
    asyncio.events.BaseDefaultEventLoopPolicy.new_event_loop = lambda policy: started.append("event loop")
    for name in {modules()!r}:
        importlib.import_module(name)
"""


def test_nothing_starts_at_import(tmp_path: Path) -> None:
    assert output(tmp_path, SET_UP, IMPORT_ALL, "print(started)") == "[]"


def test_the_probe_finds_what_starts(tmp_path: Path) -> None:
    starts = "threading.Thread(target=print).start()\nasyncio.new_event_loop()"
    assert "event loop" in output(tmp_path, SET_UP, IMPORT_ALL, starts, "\nprint(started)")


def test_django_sets_up_without_the_node(tmp_path: Path) -> None:
    assert output(tmp_path, SET_UP, NODE_IMPORTED) == "False"


def test_a_migration_runs_without_the_node(tmp_path: Path) -> None:
    assert output(tmp_path, SET_UP, MIGRATE, NODE_IMPORTED) == "False"


def test_a_wsgi_worker_answers_without_the_node(tmp_path: Path) -> None:
    assert output(tmp_path, SET_UP, WSGI, NODE_IMPORTED) == "False"


def test_a_wsgi_worker_publishes_without_the_node(tmp_path: Path) -> None:
    assert output(tmp_path, SET_UP, MIGRATE, PUBLISH, NODE_IMPORTED) == "False"


def test_the_probe_finds_the_node(tmp_path: Path) -> None:
    assert output(tmp_path, SET_UP, f"import {NODE}\n", NODE_IMPORTED) == "True"
