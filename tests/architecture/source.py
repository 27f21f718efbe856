"""Read source files with `ast`, without an import of any of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Documented: TypeAlias = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """The target of an import: `from module import name`, or `import module` without a name."""

    module: str
    name: str | None = None

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


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
        """The module or package of `rooms` to which it belongs; empty for `rooms` itself."""
        return self.name.split(".")[1] if "." in self.name else ""

    @property
    def is_migration(self) -> bool:
        return self.part == "migrations" and not self.is_package

    @cached_property
    def imports(self) -> list[Import]:
        """All imports: at the top, inside functions, and those that only type checkers see."""
        found: list[Import] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [Import(alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [Import(self._origin(node), alias.name) for alias in node.names]
        return found

    def _origin(self, node: ast.ImportFrom) -> str:
        """The absolute name of the module in a `from … import`."""
        if not node.level:
            return node.module or ""
        package = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])

    def functions(self) -> Iterator[Function]:
        """Functions and methods, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node

    def docstrings(self) -> Iterator[tuple[str, str]]:
        """The name of each documented module, class and function, with its docstring."""
        for node in ast.walk(self.tree):
            if isinstance(node, Documented) and (text := ast.get_docstring(node)):
                yield (self.name if isinstance(node, ast.Module) else node.name), text

    def strings(self) -> Iterator[str]:
        """The text constants, except docstrings."""
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(self.tree)
            if isinstance(node, Documented) and node.body and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield node.value


class Tree:
    """The source of `rooms`, `roomsite`, `benchmarks` and `tests` below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rooms = {module.name: module for module in self._modules("rooms")}
        self.site = list(self._modules("roomsite"))

    def _modules(self, package: str) -> Iterator[Module]:
        for path in sorted((self.root / package).rglob("*.py")):
            parts = path.relative_to(self.root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            yield Module(".".join(parts[:-1] if is_package else parts), path, is_package)

    def target(self, wanted: Import) -> str | None:
        """The module of `rooms` that an import reaches; None for a module of something else."""
        return next((name for name in (wanted.dotted, wanted.module) if name in self.rooms), None)
