"""The sources keep the rules of the layout, and each rule finds the breach that is planted for it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from tests.architecture import rules
from tests.architecture.rules import LAYERS, MAX_LAYERS, RULES, Rule
from tests.architecture.source import Tree

BASE_DIR = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_sources_keep_the_rule(rule: Rule) -> None:
    assert list(rule(Tree(BASE_DIR))) == []


def test_there_are_few_layers() -> None:
    assert len(LAYERS) <= MAX_LAYERS


SOUND = {
    "rooms/__init__.py": """
        '''The public names.'''
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from rooms.api import publish
        __all__ = ["publish"]
        def __getattr__(name):
            from rooms.api import publish
        """,
    "rooms/protocol/__init__.py": "",
    "rooms/protocol/base.py": """
        '''One protocol.'''
        from . import events
        class Protocol:
            '''websocket.send'''
        """,
    "rooms/protocol/events.py": "'''Events.'''",
    "rooms/hub/__init__.py": "",
    "rooms/hub/room.py": """
        '''A room.'''
        import asyncio
        from rooms.protocol import events
        """,
    "rooms/conf.py": """
        '''Settings.'''
        PATH = "rooms.compat.roomer.Roomer"
        """,
    "rooms/models/__init__.py": """
        '''Tables.'''
        from django.db import models
        """,
    "rooms/migrations/__init__.py": "",
    "rooms/migrations/0001_initial.py": "from django.db import migrations\n" * 600,
    "rooms/node/__init__.py": "",
    "rooms/node/broker.py": """
        '''The broker.'''
        from channels.layers import get_channel_layer
        from rooms.hub import room
        """,
    "rooms/layers/__init__.py": """
        '''Channel layers.'''
        from channels.layers import BaseChannelLayer
        """,
    "rooms/checks/__init__.py": "",
    "rooms/checks/channel_layers.py": """
        '''A check.'''
        from channels.layers import channel_layers
        """,
    "rooms/api.py": """
        '''Functions of a site.'''
        from rooms.node import broker
        publish = broker
        """,
    "rooms/consumers.py": """
        '''The consumer.'''
        from rooms import api
        ACCEPT = "websocket.accept"
        """,
    "rooms/compat/__init__.py": "",
    "rooms/compat/roomer.py": """
        '''Another protocol.'''
        from rooms.compat import multiplex
        """,
    "rooms/compat/multiplex.py": """
        '''Connections in a connection.'''
        from rooms import consumers
        """,
    "rooms/routing.py": """
        '''Routes.'''
        from rooms.compat.multiplex import consumers
        """,
    "rooms/server/__init__.py": "",
    "rooms/server/websocket.py": """
        '''The server.'''
        CONNECT = {"type": "websocket.connect"}
        """,
    "rooms/client/__init__.py": """
        '''A client.'''
        from rooms.protocol import events
        """,
    "rooms/testing.py": """
        '''Tools for tests.'''
        from rooms import publish
        from rooms.client import events
        """,
    "roomsite/__init__.py": "",
    "roomsite/extensions.py": """
        import rooms
        from rooms import publish
        from rooms.protocol import events
        from rooms.protocol.base import Protocol
        from rooms.protocol.events import Message
        """,
}

LATE = "def late():\n    "
FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
LONG_FUNCTION = "def long():\n" + "    pass\n" * rules.MAX_FUNCTION_LINES
LONG_DOCSTRING = f"def long():\n    '''{'x' * 80}'''"

BREACHES: list[tuple[Rule, str, str, str]] = [
    (rules.every_part_has_a_layer, "rooms/other.py", "", "rooms.other: 'other' has no layer"),
    (
        rules.imports_go_downwards,
        "rooms/protocol/base.py",
        "import rooms.hub.room",
        "imports rooms.hub.room of layer 2",
    ),
    (
        rules.imports_go_downwards,
        "rooms/protocol/base.py",
        f"{LATE}from rooms import models",
        "imports rooms.models",
    ),
    (
        rules.imports_go_downwards,
        "rooms/hub/room.py",
        f"{FOR_TYPES}from rooms import api",
        "imports rooms.api of",
    ),
    (
        rules.imports_go_downwards,
        "rooms/models/__init__.py",
        "from .. import consumers",
        "imports rooms.consumers of",
    ),
    (
        rules.imports_go_downwards,
        "rooms/node/broker.py",
        "from rooms.compat import roomer",
        "imports rooms.compat.roomer",
    ),
    (rules.imports_go_downwards, "rooms/api.py", "from rooms import publish", "imports the public names"),
    (
        rules.imports_go_downwards,
        "rooms/client/__init__.py",
        "from rooms.hub import room",
        "the client imports rooms.hub",
    ),
    (
        rules.protocol_and_hub_know_no_django,
        "rooms/hub/room.py",
        "from django.db import models",
        "imports django.db",
    ),
    (
        rules.protocol_and_hub_know_no_django,
        "rooms/protocol/base.py",
        "import channels.db",
        "imports channels.db",
    ),
    (rules.protocol_and_hub_know_no_django, "rooms/__init__.py", "import django", "imports django"),
    (
        rules.protocol_knows_no_asyncio,
        "rooms/protocol/base.py",
        "from asyncio import Queue",
        "imports asyncio",
    ),
    (
        rules.only_consumers_know_asgi,
        "rooms/api.py",
        "SEND = {'type': 'websocket.send'}",
        "message 'websocket.send'",
    ),
    (
        rules.only_the_broker_knows_the_channel_layer,
        "rooms/api.py",
        "from channels.layers import get_channel_layer",
        "api",
    ),
    (
        rules.only_the_broker_knows_the_channel_layer,
        "rooms/consumers.py",
        "from channels import layers",
        "consumers",
    ),
    (
        rules.only_the_broker_knows_the_channel_layer,
        "rooms/checks/__init__.py",
        "import channels_redis.core",
        "checks",
    ),
    (
        rules.only_routing_names_compat,
        "rooms/server/websocket.py",
        "import rooms.compat.roomer",
        "rooms.compat.roomer",
    ),
    (
        rules.only_routing_names_compat,
        "rooms/conf.py",
        f"{LATE}from rooms.compat import roomer",
        "rooms.compat.roomer",
    ),
    (
        rules.only_routing_names_compat,
        "rooms/api.py",
        "PATH = 'rooms.compat.roomer.Roomer'",
        "'rooms.compat.roomer.Roomer'",
    ),
    (
        rules.imports_have_no_cycle,
        "rooms/node/broker.py",
        "from rooms.api import publish",
        "rooms.api -> rooms.node.broker",
    ),
    (
        rules.imports_have_no_cycle,
        "rooms/node/broker.py",
        f"{LATE}import rooms.api",
        "rooms.api -> rooms.node.broker",
    ),
    (
        rules.imports_have_no_cycle,
        "rooms/node/broker.py",
        f"{FOR_TYPES}import rooms.api",
        "rooms.api -> rooms.node.broker",
    ),
    (rules.modules_are_not_long, "rooms/api.py", "\n" * rules.MAX_MODULE_LINES, "rooms.api: has 50"),
    (rules.functions_are_not_long, "rooms/api.py", LONG_FUNCTION, "rooms.api: long has 41 lines"),
    (
        rules.functions_are_not_long,
        "rooms/api.py",
        f"class A:\n    async {LONG_FUNCTION}".replace("    pass", "        pass"),
        "long has 41",
    ),
    (
        rules.modules_have_docstrings,
        "rooms/node/__init__.py",
        "A = 1",
        "rooms.node: opens without a docstring",
    ),
    (
        rules.docstrings_begin_with_a_short_line,
        "rooms/api.py",
        LONG_DOCSTRING,
        "rooms.api: the docstring of long begins with 80",
    ),
    (
        rules.the_site_uses_public_names,
        "roomsite/extensions.py",
        "from rooms.node import broker",
        "rooms.node.broker, which",
    ),
    (
        rules.the_site_uses_public_names,
        "roomsite/extensions.py",
        "from rooms import models",
        "rooms.models, which is private",
    ),
    (
        rules.the_site_uses_public_names,
        "roomsite/extensions.py",
        "import rooms.models",
        "rooms.models, which is private",
    ),
    (
        rules.the_site_uses_public_names,
        "roomsite/extensions.py",
        "from rooms.protocol import base",
        "rooms.protocol.base, which",
    ),
    (
        rules.the_site_uses_public_names,
        "roomsite/extensions.py",
        "from rooms.protocol.events import _a",
        "events._a, which",
    ),
]


def plant(root: Path, files: dict[str, str]) -> Tree:
    """Write sources into a folder and read them."""
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{dedent(source).strip()}\n" if source else "")
    return Tree(root)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_tree_keeps_the_rule(tmp_path: Path, rule: Rule) -> None:
    assert list(rule(plant(tmp_path, SOUND))) == []


@pytest.mark.parametrize(("rule", "file", "code", "breach"), BREACHES)
def test_a_planted_breach_is_found(tmp_path: Path, rule: Rule, file: str, code: str, breach: str) -> None:
    tree = plant(tmp_path, SOUND)
    path = tmp_path / file
    path.write_text(f"{path.read_text() if path.exists() else ''}{code}\n")
    tree = Tree(tmp_path)
    found = list(rule(tree))
    assert any(breach in each for each in found), found


def test_too_many_loose_modules_are_found(tmp_path: Path) -> None:
    more = {f"rooms/loose{number}.py": "" for number in range(rules.MAX_LOOSE_MODULES)}
    assert list(rules.few_modules_are_loose(plant(tmp_path, SOUND | more)))


def test_every_rule_has_a_planted_breach() -> None:
    planted = {rule for rule, *_ in BREACHES} | {rules.few_modules_are_loose}
    assert planted == {*RULES}
