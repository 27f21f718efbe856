"""Each source has a test module of the same name, and each test module a source.

The mirror of `rooms/X/Y.py` is `tests/X/test_Y.py`; the folder `commands` is left out. The test modules of
`tests/roomsite/` and `tests/benchmarks/` mirror those folders, and a package may have one mirror as a whole:
`tests/test_models.py` is that of `rooms/models/`. Helpers of the tests have mirrors too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

#: Folders of tests that span many sources.
SCENARIO_FOLDERS = frozenset({"architecture", "chaos", "integration", "scenarios"})

#: Test modules of one scenario beside the mirrors, below `tests/`.
SCENARIOS = frozenset(
    {
        "admin/test_lists.py",
        "benchmarks/test_generator.py",
        "histories/test_writers.py",
        "js/test_javascript.py",
        "node/test_cleanup.py",
        "node/test_hot_path.py",
        "node/test_interruptions.py",
        "node/test_races.py",
        "node/test_roomer.py",
        "node/test_several_processes.py",
        "node/test_unavailable_extension.py",
        "presence/test_shared.py",
        "protocol/test_linear.py",
        "server/test_conformance.py",
        "server/test_parity.py",
        "test_documentation.py",
        "test_trip_budget.py",
    }
)

#: Sources that are an implementation detail of another one, below `rooms/`, with the tests that cover them.
COVERED: dict[str, str] = {
    "admin/formatting.py": "admin/test_lists.py",
    "admin/user_fields.py": "admin/test_restrictions.py",
    "histories/lua.py": "histories/test_redis.py",
    "histories/queries.py": "histories/test_database.py",
    "presence/expiry.py": "presence/test_database.py",
    "presence/lua.py": "presence/test_redis.py",
    "presence/operations.py": "presence/test_database.py",
    "presence/queries.py": "presence/test_database.py",
    "presence/redis_store.py": "presence/test_redis.py",
    "protocol/compat_commands.py": "compat/test_rtbroadcaster.py",
    "protocol/results.py": "protocol/test_native.py",
}


def sources_without_mirror(root: Path, covered: Mapping[str, str] = COVERED) -> Iterator[str]:
    """The modules of `rooms/` without a test module, and entries of the list that are not true."""
    for name in _sources(root / "rooms"):
        mirror = root / "tests" / _mirror(name)
        package = root / "tests" / f"test_{name.split('/')[0]}.py"
        by_itself = mirror.exists() or ("/" in name and package.exists())
        if name in covered and by_itself:
            yield f"rooms/{name} is listed as covered, but has a mirror"
        elif name not in covered and not by_itself:
            yield f"rooms/{name} has no tests; expected tests/{_mirror(name)}"
    for name, tests in covered.items():
        if not (root / "rooms" / name).exists() or not (root / "tests" / tests).exists():
            yield f"rooms/{name} is listed as covered by tests/{tests}; expected both to exist"


def mirrors_without_source(root: Path, scenarios: Collection[str] = SCENARIOS) -> Iterator[str]:
    """The test modules without a source, and entries of the list that are not true."""
    for path in sorted((root / "tests").rglob("test_*.py")):
        name = path.relative_to(root / "tests").as_posix()
        if name.split("/")[0] not in SCENARIO_FOLDERS and name not in scenarios and not _mirrored(root, name):
            yield f"tests/{name} has no source; expected one of this name, or an entry in SCENARIOS"
    for name in scenarios:
        if not (root / "tests" / name).exists() or _mirrored(root, name):
            yield f"tests/{name} is listed as a scenario; expected a test module without a source"


def _sources(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if path.name != "__init__.py" and not name.startswith("migrations/"):
            yield name


def _mirror(source: str) -> str:
    *folders, name = source.split("/")
    return "/".join([*(folder for folder in folders if folder != "commands"), f"test_{name}"])


def _mirrored(root: Path, test: str) -> bool:
    """Whether a test module has a source, or a package as its source."""
    *folders, name = test.split("/")
    module = name.removeprefix("test_")
    inside = "/".join(folders)
    candidates = [root / "rooms" / inside / module, root / "tests" / inside / module]
    candidates += [root / "rooms" / inside / "commands" / module, root / inside / module]
    package = root / "rooms" / inside / module.removesuffix(".py") / "__init__.py"
    return any(each.exists() for each in [*candidates, package])
