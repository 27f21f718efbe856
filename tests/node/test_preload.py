"""Extensions that begin with the server, before any client comes."""

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
from tests.node.clients import Install, let_time_pass


@pytest.fixture
def begun(chat: Application, installed: Install) -> list[str]:
    """The applications in which an extension has begun; three have one, of which one is closed."""
    begun: list[str] = []

    class Early(Extension):
        async def init(self) -> None:
            begun.append(self.application)

    name = installed(Early)
    Application.objects.create(name="first", extension=name)
    Application.objects.create(name="second", extension=name)
    Application.objects.create(name="closed", extension=name, enabled=False)
    return begun


async def test_enabled_applications_with_an_extension_are_opened(begun: list[str], node: Node) -> None:
    await load_applications(node.context)
    assert begun == ["first", "second"]
    # Without an extension there is nothing to begin.
    assert node.context.registry.cached_application("chat") is None
    await load_applications(node.context)
    assert begun == ["first", "second"]


async def test_one_that_cannot_be_opened_does_not_keep_the_others(
    begun: list[str], node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    application = node.context.registry.application

    async def fail(name: str) -> Any:
        if name == "first":
            raise ZeroDivisionError
        return await application(name)

    monkeypatch.setattr(node.context.registry, "application", fail)
    await load_applications(node.context)
    assert begun == ["second"]
    assert "The application first could not be opened." in caplog.text


@pytest.mark.parametrize("place", [(preload, "_extended"), (config, "load_application")])
async def test_where_the_database_does_not_answer_they_are_opened_later(
    begun: list[str],
    node: Node,
    clock: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[Any, str],
) -> None:
    def fail(*_: Any) -> Any:
        raise OperationalError("The database is down.")

    with monkeypatch.context() as patch:
        patch.setattr(*place, fail)
        await load_applications(node.context)
    assert begun == []
    await let_time_pass(node, clock)
    assert begun == ["first", "second"]
