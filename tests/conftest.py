"""Prepares a test run: its environment, its database and Redis, and no connection left open.

`ROOMS_TEST_DATABASE=postgres pytest` runs the tests on a real PostgreSQL.
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

#: Folders of tests that start servers.
LIVE_FOLDERS = {"chaos", "integration"}
DATABASE_FIXTURES = {"db", "transactional_db"}


def pytest_configure(config: pytest.Config) -> None:
    """Choose the settings and the database before Django reads them."""
    for name in SITE_VARIABLES:
        os.environ.pop(name, None)
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    if on_postgres():
        try:
            os.environ["DATABASE_URL"] = services.postgres().create()
        except pytest.skip.Exception as reason:
            pytest.exit(f"THE TESTS ON POSTGRESQL ARE SKIPPED: {reason}", returncode=0)
        except pytest.fail.Exception as reason:
            pytest.exit(str(reason), returncode=1)
    django.setup()
    TransactionTestCase._fixture_teardown = fixture_teardown
    # A terminated run ends as with Ctrl-C, so that its servers end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The default hashers are slow on purpose.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # A slow machine fails no test. On CI the examples are the same in every run.
    hypothesis.settings.register_profile(
        "suite",
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
        derandomize=bool(os.environ.get("CI")),
    )
    hypothesis.settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add the markers that follow from what a test uses, and sort tests with live servers first.

    Their modules take the longest: if they came last, one process would run them while the others have ended.
    """
    for item in items:
        if item.path.parent.name in LIVE_FOLDERS:
            item.add_marker(pytest.mark.live)
        elif not uses_a_database(item):
            item.add_marker(pytest.mark.any_database)
    items.sort(key=lambda item: item.get_closest_marker("live") is None)


def uses_a_database(item: pytest.Item) -> bool:
    fixtures = {*getattr(item, "fixturenames", ())}
    return bool(DATABASE_FIXTURES & fixtures) or item.get_closest_marker("django_db") is not None


def pytest_report_header() -> str:
    """Name the database of the run."""
    return f"rooms: on {'PostgreSQL' if on_postgres() else 'SQLite'}"


@pytest.fixture(autouse=True)
def no_connection_left(request: pytest.FixtureRequest) -> None:
    """Close the connections of asgiref's thread after each asynchronous test."""
    if pytest_asyncio.is_async_test(request.node):
        request.getfixturevalue("close_connections_of_the_thread")


@pytest.fixture
async def close_connections_of_the_thread() -> AsyncIterator[None]:
    """Close database connections, which would keep the test database from being deleted."""
    yield
    await sync_to_async(connections.close_all)()


@pytest.fixture(autouse=True)
def no_publisher_left() -> Iterator[None]:
    """Close the publisher of a process without sockets: it holds database connections."""
    yield
    from rooms.node import standalone

    standalone.close()


@pytest.fixture
def redis_url() -> str:
    """Return the address of a real, empty Redis."""
    redis = services.redis()
    redis.flush()
    return redis.url


@pytest.fixture
def sweeps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process expire other nodes as soon as it starts."""
    from rooms.presence import lease

    monkeypatch.setattr(lease, "SWEEP_DELAY", 0)
