"""The rules of the layout: each yields its breaches in a tree of sources.

No rule imports what it judges. `test_rules.py` applies each to the real tree, and to a small sound tree with
one breach planted in it.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from tests.architecture.source import Module, Tree

Rule: TypeAlias = Callable[[Tree], Iterator[str]]

#: From the lowest to the highest. A module imports from its own layer and from lower ones.
LAYERS = (
    {"protocol"},
    {"concurrency"},
    {"hub"},
    {"conf", "models", "migrations"},
    {"histories", "presence", "layers", "extensions"},
    {"node"},
    {"api", "signals", "middleware", "consumers"},
    {"compat"},
    {"routing", "urls", "views", "admin", "checks", "management", "server", "templatetags"},
    {"apps", "client", "testing"},
)
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}

#: The modules that a site may import, and which of their names; None: all that are not private.
PUBLIC_MODULES: dict[str, set[str] | None] = {
    "rooms.protocol.types": None,
    "rooms.protocol.events": None,
    "rooms.protocol.commands": None,
    "rooms.protocol.errors": None,
    "rooms.protocol.results": None,
    "rooms.protocol.base": {"Protocol"},
    "rooms.extensions": None,
    "rooms.histories": {"History"},
    "rooms.presence": {"Presence"},
    "rooms.routing": None,
    "rooms.urls": None,
    "rooms.client": None,
    "rooms.testing": None,
}

MAX_LAYERS = 10
MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 40
MAX_LOOSE_MODULES = 14
MAX_DOCSTRING_LINE = 79

DJANGO = {"django", "channels", "channels_redis", "daphne", "asgiref"}
#: The modules on the two sides of ASGI: the application and the server.
ASGI_MODULES = {"rooms.consumers", "rooms.server.websocket"}
CHANNEL_LAYER_MODULES = {"rooms.node.broker", "rooms.checks.channel_layers"}
CHANNEL_LAYER_PARTS = {"layers"}
#: The modules that may name `rooms.compat`; `rooms.conf` only as dotted paths.
COMPAT_MODULES = {"rooms.routing"}
COMPAT_PATHS = {"rooms.conf"}


def every_part_has_a_layer(tree: Tree) -> Iterator[str]:
    for module in tree.rooms.values():
        if module.part and module.part not in LAYER:
            yield f"{module.name}: '{module.part}' has no layer in tests/architecture/rules.py"


def imports_go_downwards(tree: Tree) -> Iterator[str]:
    for module in tree.rooms.values():
        for wanted in module.imports:
            target = tree.target(wanted)
            if target is not None and (breach := _upward(module, tree, target)):
                yield f"{module.name}: {breach}"


def _upward(module: Module, tree: Tree, target: str) -> str:
    layer = LAYER.get(module.part)
    # `rooms` itself resolves its names on demand.
    if layer is None:
        return ""
    if target == "rooms":
        # It leads to every layer, so an import of it would evade the rule.
        allowed = layer == len(LAYERS) - 1
        return "" if allowed else "imports the public names; expected the module that defines the name"
    part = tree.rooms[target].part
    other = LAYER.get(part)
    if other is not None and other > layer:
        return f"layer {layer} imports {target} of layer {other}"
    if module.part == "client" and part not in {"client", "protocol"}:
        return f"the client imports {target}; expected nothing but rooms.protocol"
    return ""


def protocol_and_hub_know_no_django(tree: Tree) -> Iterator[str]:
    # An import of either imports `rooms` itself first.
    for module in tree.rooms.values():
        if module.part in {"", "protocol", "hub", "client"}:
            for wanted in module.imports:
                if wanted.module.split(".")[0] in DJANGO:
                    yield f"{module.name}: imports {wanted.module}; expected no Django here"


def protocol_knows_no_asyncio(tree: Tree) -> Iterator[str]:
    for module in tree.rooms.values():
        if module.part == "protocol":
            for wanted in module.imports:
                if wanted.module.split(".")[0] == "asyncio":
                    yield f"{module.name}: imports asyncio; expected no IO in rooms.protocol"


def only_consumers_know_asgi(tree: Tree) -> Iterator[str]:
    for module in tree.rooms.values():
        if module.name not in ASGI_MODULES:
            for value in module.strings():
                if value.startswith("websocket."):
                    yield f"{module.name}: holds the ASGI message {value!r}; expected it in rooms.consumers"


def only_the_broker_knows_the_channel_layer(tree: Tree) -> Iterator[str]:
    for module in tree.rooms.values():
        if module.name in CHANNEL_LAYER_MODULES or module.part in CHANNEL_LAYER_PARTS:
            continue
        for wanted in module.imports:
            if wanted.dotted.startswith(("channels.layers", "channels_redis")):
                yield f"{module.name}: imports {wanted.dotted}; expected it in rooms.node.broker"


def only_routing_names_compat(tree: Tree) -> Iterator[str]:
    for module in tree.rooms.values():
        if module.part == "compat" or module.name in COMPAT_MODULES:
            continue
        for wanted in module.imports:
            if (tree.target(wanted) or "").startswith("rooms.compat"):
                yield f"{module.name}: imports {wanted.dotted}; expected it in rooms.routing"
        if module.name not in COMPAT_PATHS:
            for value in module.strings():
                if value.startswith("rooms.compat"):
                    yield f"{module.name}: holds the path {value!r}; expected it in rooms.conf"


def imports_have_no_cycle(tree: Tree) -> Iterator[str]:
    graph = {
        name: {tree.target(wanted) for wanted in module.imports} - {None, "rooms", name}
        for name, module in tree.rooms.items()
        if name != "rooms"
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield f"import cycle: {' -> '.join(reversed(error.args[1]))}"


def modules_are_not_long(tree: Tree) -> Iterator[str]:
    for module in tree.rooms.values():
        lines = len(module.source.splitlines())
        if lines > MAX_MODULE_LINES and not module.is_migration:
            yield f"{module.name}: has {lines} lines; expected at most {MAX_MODULE_LINES}"


def functions_are_not_long(tree: Tree) -> Iterator[str]:
    for module in tree.rooms.values():
        for function in module.functions():
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > MAX_FUNCTION_LINES and not module.is_migration:
                name = f"{module.name}: {function.name}"
                yield f"{name} has {lines} lines; expected at most {MAX_FUNCTION_LINES}"


def few_modules_are_loose(tree: Tree) -> Iterator[str]:
    loose = [name for name, module in tree.rooms.items() if name == "rooms" or not module.is_package]
    count = sum(name.count(".") < 2 for name in loose)
    if count > MAX_LOOSE_MODULES:
        yield f"rooms: has {count} modules outside its packages; expected at most {MAX_LOOSE_MODULES}"


def modules_have_docstrings(tree: Tree) -> Iterator[str]:
    for module in tree.rooms.values():
        if module.source.strip() and not module.is_migration and not ast.get_docstring(module.tree):
            yield f"{module.name}: opens without a docstring"


def docstrings_begin_with_a_short_line(tree: Tree) -> Iterator[str]:
    for module in tree.rooms.values():
        for name, text in module.docstrings():
            first = len(text.splitlines()[0])
            if first > MAX_DOCSTRING_LINE:
                yield (
                    f"{module.name}: the docstring of {name} begins with {first} characters; "
                    f"expected at most {MAX_DOCSTRING_LINE}"
                )


def the_site_uses_public_names(tree: Tree) -> Iterator[str]:
    """The site is an example: it imports what any other site may import."""
    public = _public_names(tree)
    for module in tree.site:
        for wanted in module.imports:
            if wanted.module.split(".")[0] != "rooms":
                continue
            top = wanted.module == "rooms" and (wanted.name is None or wanted.name in public)
            if not top and not _is_public(wanted.module, wanted.name):
                yield f"{module.name}: imports {wanted.dotted}, which is private"


def _is_public(module: str, name: str | None) -> bool:
    whole = f"{module}.{name}" if name else module
    if whole in PUBLIC_MODULES and PUBLIC_MODULES[whole] is None:
        return True
    if name is None or module not in PUBLIC_MODULES:
        return False
    names = PUBLIC_MODULES[module]
    return not name.startswith("_") if names is None else name in names


def _public_names(tree: Tree) -> set[str]:
    """The names in `rooms.__all__`."""
    for node in tree.rooms["rooms"].tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return {str(item.value) for item in ast.walk(node) if isinstance(item, ast.Constant)}
    return set()


RULES: list[Rule] = [
    every_part_has_a_layer,
    imports_go_downwards,
    protocol_and_hub_know_no_django,
    protocol_knows_no_asyncio,
    only_consumers_know_asgi,
    only_the_broker_knows_the_channel_layer,
    only_routing_names_compat,
    imports_have_no_cycle,
    modules_are_not_long,
    functions_are_not_long,
    few_modules_are_loose,
    modules_have_docstrings,
    docstrings_begin_with_a_short_line,
    the_site_uses_public_names,
]
