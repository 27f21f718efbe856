"""The suite's ground: its own environment, its database, Redis, and no connection left behind.

`ROOMS_TEST_DATABASE=postgres pytest` runs the same suite on a real PostgreSQL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator

import django
import hypothesis
import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections
from django.test import TransactionTestCase

from tests import services
from tests.databases import fixture_teardown
from tests.servers import SITE_VARIABLES, on_postgres

# Nodes in the test's own event loop, for every folder.
pytest_plugins = ["tests.fixtures"]


def pytest_configure(config: pytest.Config) -> None:
    """Choose settings and database, and only then set Django up."""
    for name in SITE_VARIABLES:
        os.environ.pop(name, None)
    os.environ["DJANGO_SETTINGS_MODULE"] = "roomsite.settings"
    if on_postgres():
        try:
            os.environ["DATABASE_URL"] = services.postgres().create()
        except pytest.skip.Exception as reason:
            pytest.exit(f"THE SUITE ON POSTGRESQL IS SKIPPED: {reason}", returncode=0)
        except pytest.fail.Exception as reason:
            pytest.exit(str(reason), returncode=1)
    django.setup()
    TransactionTestCase._fixture_teardown = fixture_teardown
    # A run that is told to end ends as with Ctrl-C, and takes its servers along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The real hashers are slow on purpose.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # A busy machine is no fault; on CI the same examples every time.
    hypothesis.settings.register_profile("suite", deadline=None, derandomize=bool(os.environ.get("CI")))
    hypothesis.settings.load_profile("suite")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take long first, so that at the end no process waits for another's."""
    items.sort(key=lambda item: item.path.parent.name not in {"chaos", "integration"})


def pytest_report_header() -> str:
    """Which database the run is on."""
    return f"rooms: on {'PostgreSQL' if on_postgres() else 'SQLite'}"


@pytest.fixture(autouse=True)
def no_connection_left(request: pytest.FixtureRequest) -> None:
    """After an asynchronous test, close the database connections of the thread that asgiref kept for it."""
    if pytest_asyncio.is_async_test(request.node):
        request.getfixturevalue("close_connections_of_the_thread")


@pytest.fixture
async def close_connections_of_the_thread() -> AsyncIterator[None]:
    """Left open, they would keep the test database from being removed."""
    yield
    await sync_to_async(connections.close_all)()


@pytest.fixture(autouse=True)
def no_publisher_left() -> Iterator[None]:
    """After each test, close the publisher of a process without sockets: it has database connections."""
    yield
    from rooms.node import standalone

    standalone.close()


@pytest.fixture
def redis_url() -> str:
    """The address of a real, empty Redis."""
    redis = services.redis()
    redis.flush()
    return redis.url


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process takes those whose lease is over for dead as soon as it begins."""
    from rooms.presence import lease

    monkeypatch.setattr(lease, "SWEEP_DELAY", 0)
