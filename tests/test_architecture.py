"""Holds the layout of `rooms/`: storeys, what each may know, no cycles, no long files.

A checker of source text: it reads modules with `ast` and imports none of them. It is fed the real
tree, and a small fake one in which each rule is broken once, so that no rule can sleep.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import dedent

import pytest

BASE_DIR = Path(__file__).resolve().parent.parent

CLIENTS = 6
STOREYS = {
    "protocol": 0,
    "concurrency": 1,
    "hub": 2,
    **dict.fromkeys(["conf", "models", "migrations", "layers", "extensions", "histories", "presence"], 3),
    **dict.fromkeys(["node", "api"], 4),
    **dict.fromkeys(["middleware", "consumers", "compat", "routing", "views", "urls", "signals"], 5),
    **dict.fromkeys(["checks", "admin", "apps", "management", "server", "templatetags"], 5),
    **dict.fromkeys(["client", "testing"], CLIENTS),
}

#: The second ring: modules that sites may import, and which of their names; None: all of them.
PUBLIC_MODULES: dict[str, set[str] | None] = {
    "rooms.events": None,
    "rooms.protocol.errors": None,
    "rooms.extensions": None,
    "rooms.compat": {"Protocol"},
    "rooms.histories": {"History"},
    "rooms.presence": {"Presence"},
    "rooms.client": None,
    "rooms.testing": None,
    "rooms.routing": None,
    "rooms.urls": None,
    "rooms.urls_doors": None,
}

LONGEST_MODULE = 300


@dataclass(frozen=True)
class Import:
    """One import statement's target: `from module import name`, or `import module` without a name."""

    module: str
    name: str | None = None


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    path: Path
    is_package: bool

    @cached_property
    def source(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def part(self) -> str:
        """What of `rooms` it belongs to: the first name below."""
        return self.name.split(".")[1] if "." in self.name else ""

    @property
    def storey(self) -> int | None:
        return STOREYS.get(self.part)

    @cached_property
    def imports(self) -> list[Import]:
        """What it imports when it runs, inside functions too; what only type checkers see is left out."""
        return list(self._imports(self.tree))

    def _imports(self, node: ast.AST) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from self._imports(child)
        elif isinstance(node, ast.Import):
            yield from (Import(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(self._origin(node), alias.name) for alias in node.names)
        else:
            for child in ast.iter_child_nodes(node):
                yield from self._imports(child)

    def _origin(self, node: ast.ImportFrom) -> str:
        """The absolute name of the module that a `from … import` names."""
        if not node.level:
            return node.module or ""
        package = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])

    def strings(self) -> Iterator[str]:
        """Its text constants, except docstrings."""
        documents = {
            id(node.body[0].value)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
                yield node.value


class Tree:
    """The source of `rooms` and `roomsite` below one folder."""

    def __init__(self, root: Path) -> None:
        self.rooms = {module.name: module for module in self._modules(root, "rooms")}
        self.site = list(self._modules(root, "roomsite"))

    @staticmethod
    def _modules(root: Path, package: str) -> Iterator[Module]:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").context
            is_package = parts[-1] == "__init__"
            yield Module(".".join(parts[:-1] if is_package else parts), path, is_package)

    def target(self, wanted: Import) -> str | None:
        """Which module of `rooms` an import reaches; None: none."""
        deeper = f"{wanted.module}.{wanted.name}"
        return next((name for name in (deeper, wanted.module) if name in self.rooms), None)

    def violations(self) -> list[str]:
        """Every breach of every rule, one line each."""
        found: list[str] = []
        for module in self.rooms.values():
            found += [f"{module.name}: {breach}" for rule in RULES for breach in rule(self, module)]
        for module in self.site:
            found += [f"{module.name}: {breach}" for breach in only_public_names(self, module)]
        return found + [f"import cycle: {cycle}" for cycle in cycles(self)]


def has_a_storey(tree: Tree, module: Module) -> Iterator[str]:
    if module.part and module.storey is None:
        yield f"'{module.part}' has no storey in tests/test_architecture.py"


def storeys_only_downwards(tree: Tree, module: Module) -> Iterator[str]:
    if module.storey is None:
        return
    for wanted in module.imports:
        if (target := tree.target(wanted)) is None:
            continue
        if target == "rooms":
            # The face leads to every storey: an import of it would go round the rule.
            if module.storey < CLIENTS:
                yield "imports the public face; import from the module that has the name"
        elif (storey := tree.rooms[target].storey) is not None and storey > module.storey:
            yield f"storey {module.storey} imports {target} of storey {storey}"
        elif module.part == "client" and target.split(".")[1] != "client" and storey not in {0, 1}:
            yield f"the client imports {target}; it may know storeys 0 and 1 only"


def knows_no_django(tree: Tree, module: Module) -> Iterator[str]:
    low = module.storey is not None and module.storey <= 2
    # The face and `client` come with storeys 0-2: whoever imports those, imports the face first.
    if not (low or module.part in {"", "client"}):
        return
    for wanted in module.imports:
        if wanted.module.split(".")[0] in {"django", "channels", "channels_redis", "daphne"}:
            yield f"imports {wanted.module}; storeys 0-2 know no Django"


def knows_no_asyncio(tree: Tree, module: Module) -> Iterator[str]:
    if module.storey in {0, 1} and any(wanted.module.split(".")[0] == "asyncio" for wanted in module.imports):
        yield "imports asyncio; storeys 0-1 do no IO"


def only_consumers_know_asgi(tree: Tree, module: Module) -> Iterator[str]:
    # The server's own class is on the other side of ASGI.
    if module.part == "consumers" or module.name == "rooms.server.websocket":
        return
    for value in module.strings():
        if value.startswith("websocket."):
            yield f"knows the ASGI message {value!r}; only rooms.consumers does"


def only_the_bus_knows_the_layer(tree: Tree, module: Module) -> Iterator[str]:
    if module.name == "rooms.node.broker" or module.part == "layers":
        return
    for wanted in module.imports:
        where = f"{wanted.module}.{wanted.name}"
        if where.startswith(("channels.layers", "channels_redis")):
            yield f"imports {where}; only rooms.node.broker knows the channel layer"


def opens_with_a_docstring(tree: Tree, module: Module) -> Iterator[str]:
    generated = module.part == "migrations" and not module.is_package
    if module.source.strip() and not generated and not ast.get_docstring(module.tree):
        yield "opens without a docstring"


def is_not_long(tree: Tree, module: Module) -> Iterator[str]:
    lines = len(module.source.splitlines())
    if lines > LONGEST_MODULE and module.part != "migrations":
        yield f"has {lines} lines; {LONGEST_MODULE} are the most"


RULES = [
    has_a_storey,
    storeys_only_downwards,
    knows_no_django,
    knows_no_asyncio,
    only_consumers_know_asgi,
    only_the_bus_knows_the_layer,
    opens_with_a_docstring,
    is_not_long,
]


def only_public_names(tree: Tree, module: Module) -> Iterator[str]:
    """The site is an example of use: it takes what any other site may take."""
    for wanted in module.imports:
        if wanted.module.split(".")[0] != "rooms":
            continue
        whole = f"{wanted.module}.{wanted.name}" if wanted.name else wanted.module
        face = wanted.module == "rooms" and (wanted.name is None or wanted.name in public_face(tree))
        ring = whole in PUBLIC_MODULES
        if wanted.name and wanted.module in PUBLIC_MODULES:
            names = PUBLIC_MODULES[wanted.module]
            ring = not wanted.name.startswith("_") if names is None else wanted.name in names
        if not (face or ring):
            yield f"imports {whole}, which is private"


def public_face(tree: Tree) -> set[str]:
    """The names in `rooms.__all__`."""
    for node in tree.rooms["rooms"].tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return {item.value for item in ast.walk(node) if isinstance(item, ast.Constant)}
    return set()


def cycles(tree: Tree) -> Iterator[str]:
    """A ring of imports, if there is one. The face only looks names up on demand, so it is none of it."""
    graph = {
        name: {
            target
            for wanted in module.imports
            if (target := tree.target(wanted)) not in {None, "rooms", name}
        }
        for name, module in tree.rooms.items()
        if name != "rooms"
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield " -> ".join(reversed(error.args[1]))


def test_the_tree_keeps_every_rule() -> None:
    assert Tree(BASE_DIR).violations() == []


def test_the_lower_storeys_run_without_django() -> None:
    """The real thing beside the text: what is imported, and what that imports in turn."""
    low = [m.name for m in Tree(BASE_DIR).rooms.values() if m.storey is not None and m.storey <= 2]
    probe = f"import sys, {', '.join(low)}\nprint({{'django', 'channels'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=BASE_DIR)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


SOUND = {
    "rooms/__init__.py": """
        '''The face.'''
        __all__ = ["publish"]
        def __getattr__(name):
            from rooms.api import publish
        """,
    "rooms/events.py": """
        '''Words.'''
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from rooms.hub import hub
        """,
    "rooms/protocols/__init__.py": """
        '''Codecs.'''
        from .base import Protocol
        """,
    "rooms/protocol/base.py": """
        '''One codec.'''
        from .. import events
        class Protocol:
            '''websocket.send'''
        """,
    "rooms/fanout/__init__.py": "",
    "rooms/hub/hub.py": """
        '''Hub.'''
        import asyncio
        from rooms import events
        """,
    "rooms/models.py": """
        '''Tables.'''
        from django.db import models
        """,
    "rooms/migrations/__init__.py": "",
    "rooms/migrations/0001_initial.py": "from django.db import migrations\n" * 400,
    "rooms/engine/__init__.py": "",
    "rooms/node/broker.py": """
        '''Bus.'''
        from channels.layers import get_channel_layer
        from rooms.hub.hub import asyncio
        """,
    "rooms/api.py": """
        '''Calls.'''
        from rooms.node import bus
        publish = bus
        """,
    "rooms/consumers.py": """
        '''Doors.'''
        from rooms import api
        ACCEPT = "websocket.accept"
        """,
    "rooms/client/__init__.py": """
        '''Client.'''
        from rooms import events
        from rooms.compat import Protocol
        """,
    "rooms/testing.py": """
        '''Doubles.'''
        from rooms import publish
        from rooms.client import events
        """,
    "roomsite/__init__.py": "",
    "roomsite/extensions.py": """
        import rooms
        from rooms import publish, events
        from rooms.compat import Protocol
        """,
}

BREACHES = [
    ("rooms/events.py", "import rooms.hub.hub", "storey 0 imports rooms.hub.hub of storey 2"),
    ("rooms/events.py", "def late():\n    from rooms.models import models", "storey 0 imports rooms.models"),
    ("rooms/protocol/base.py", "from ..models import models", "storey 1 imports rooms.models"),
    ("rooms/models.py", "from . import consumers", "storey 3 imports rooms.consumers"),
    ("rooms/api.py", "from rooms.testing import events", "storey 4 imports rooms.testing"),
    ("rooms/api.py", "from rooms import publish", "imports the public face"),
    ("rooms/client/__init__.py", "from rooms.hub import hub", "the client imports rooms.hub.hub"),
    ("rooms/hub/hub.py", "from django.db import models", "imports django.db; storeys 0-2 know no Django"),
    ("rooms/hub/hub.py", "import channels.db", "imports channels.db; storeys 0-2 know no Django"),
    ("rooms/__init__.py", "import django", "imports django; storeys 0-2 know no Django"),
    ("rooms/protocol/base.py", "from asyncio import Queue", "imports asyncio; storeys 0-1 do no IO"),
    ("rooms/api.py", "SEND = {'type': 'websocket.send'}", "knows the ASGI message 'websocket.send'"),
    ("rooms/api.py", "from channels.layers import get_channel_layer", "only rooms.node.broker knows"),
    ("rooms/consumers.py", "from channels import layers", "only rooms.node.broker knows"),
    ("rooms/node/broker.py", "from rooms.api import publish", "import cycle: rooms.api -> rooms.node.broker"),
    (
        "rooms/node/broker.py",
        "def late():\n    import rooms.api",
        "import cycle: rooms.api -> rooms.node.broker",
    ),
    ("rooms/models.py", "\n" * 300, "rooms.models: has 30"),
    ("rooms/oddments.py", '"""What belongs nowhere."""', "'oddments' has no storey"),
    (
        "rooms/concurrency/serial_executor.py",
        "LANES = 1",
        "rooms.concurrency.serial_executor: opens without a docstring",
    ),
    ("roomsite/extensions.py", "from rooms.node import bus", "imports rooms.node.broker, which is private"),
    ("roomsite/extensions.py", "from rooms import models", "imports rooms.models, which is private"),
    ("roomsite/extensions.py", "import rooms.models", "imports rooms.models, which is private"),
    (
        "roomsite/extensions.py",
        "from rooms.compat import base",
        "imports rooms.protocol.base, which is private",
    ),
    (
        "roomsite/extensions.py",
        "from rooms.events import _secret",
        "imports rooms.events._secret, which is private",
    ),
]


def plant(root: Path, files: dict[str, str]) -> Tree:
    """Write a fake tree and read it."""
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source).lstrip())
    return Tree(root)


def test_a_sound_tree_has_no_violations(tmp_path: Path) -> None:
    assert plant(tmp_path, SOUND).violations() == []


@pytest.mark.parametrize(("file", "line", "breach"), BREACHES)
def test_each_breach_is_found(tmp_path: Path, file: str, line: str, breach: str) -> None:
    found = plant(tmp_path, SOUND | {file: f"{dedent(SOUND.get(file, ''))}{line}\n"}).violations()
    assert any(breach in violation for violation in found), found
