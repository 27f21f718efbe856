"""Extensions that start with the server, before the first client connects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from rooms.extensions import Extension
from rooms.models import Application
from rooms.node import config, preload
from rooms.node.node import Node
from rooms.node.preload import load_applications
from tests.node.clients import Install, run_due_actions


@pytest.fixture
def started(chat: Application, install_extension: Install) -> list[str]:
    """The applications whose extension has started; of the three that have one, one is disabled."""
    started: list[str] = []

    class Recorder(Extension):
        async def init(self) -> None:
            started.append(self.application)

    name = install_extension(Recorder)
    Application.objects.create(name="first", extension=name)
    Application.objects.create(name="second", extension=name)
    Application.objects.create(name="disabled", extension=name, enabled=False)
    return started


async def test_enabled_applications_with_an_extension_are_loaded(started: list[str], node: Node) -> None:
    await load_applications(node.context)
    assert started == ["first", "second"]
    # Without an extension there is nothing to start.
    assert node.context.registry.cached_application("chat") is None
    await load_applications(node.context)
    assert started == ["first", "second"]


async def test_an_application_that_cannot_be_loaded_does_not_affect_the_others(
    started: list[str], node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    application = node.context.registry.application

    async def fail(name: str) -> Any:
        if name == "first":
            raise ZeroDivisionError
        return await application(name)

    monkeypatch.setattr(node.context.registry, "application", fail)
    await load_applications(node.context)
    assert started == ["second"]
    assert "The application first could not be loaded." in caplog.text


@pytest.mark.parametrize("query", [(preload, "_names_with_extension"), (config, "load_application")])
async def test_applications_are_loaded_later_while_the_database_is_down(
    started: list[str],
    node: Node,
    clock: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    query: tuple[Any, str],
) -> None:
    def fail(*_: Any) -> Any:
        raise OperationalError("The database is down.")

    with monkeypatch.context() as patch:
        patch.setattr(*query, fail)
        await load_applications(node.context)
    assert started == []
    await run_due_actions(node, clock)
    assert started == ["first", "second"]
