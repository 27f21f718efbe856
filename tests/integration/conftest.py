"""Live servers for the black-box tests, which share them: a start takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import services
from tests.servers import KINDS, Server, fresh_database, shared


@pytest.fixture(scope="session", params=KINDS)
def server(request: pytest.FixtureRequest) -> Server:
    """Return a server of each kind: one process without Redis, shared by all tests."""
    return shared(request.param)


@pytest.fixture(scope="session")
def redis_pair() -> tuple[Server, Server]:
    """Return two processes of one site on one Redis, shared by all tests."""
    redis_url = services.redis("pair").url
    database_url = fresh_database()
    first = Server.start("uvicorn", database_url, redis_url)
    return first, Server.start("uvicorn", database_url, redis_url)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the logs of the servers to the report of a failed test."""
    report: pytest.TestReport = yield
    if report.failed:
        for server in Server.running:
            report.sections.append((f"log of {server.kind} on port {server.port}", server.tail()))
    return report
