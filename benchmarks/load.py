"""Compiles the load generator if necessary and runs it against a server."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "generator"
#: The timeout of a run, above the longest timeout of the generator.
SECONDS = 300


class NoCompiler(Exception):
    """The generator cannot be compiled on this machine."""


def build(folder: Path) -> Path:
    """Return the program in ``folder``, compiled from the current sources.

    Raises NoCompiler.
    """
    sources = sorted(SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    program = folder / f"rooms-generator-{digest}"
    if program.exists():
        return program
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise NoCompiler("Expected a C compiler (cc, gcc or clang) on PATH for the load generator, got none.")
    # Under another name until it is complete: several processes may compile at once.
    unfinished = program.with_name(f"{program.name}.{uuid.uuid4().hex}")
    files = [str(source) for source in sources if source.suffix == ".c"]
    done = subprocess.run(
        [compiler, "-O2", "-std=c11", "-Wall", "-Wextra", "-o", str(unfinished), *files],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise NoCompiler(f"The load generator does not compile with {compiler}:\n{done.stderr}")
    unfinished.rename(program)
    return program


def run(
    program: Path, protocol: str, port: int, pids: Sequence[int], arguments: Sequence[str]
) -> dict[str, Any]:
    """Run the generator and return its report; ``fault`` says why it is not usable."""
    command = [
        program,
        "--protocol",
        protocol,
        "--port",
        port,
        "--pids",
        ",".join(map(str, pids)),
        *arguments,
    ]
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"fault": f"the run did not end within {SECONDS} seconds"}
    if not done.stdout:
        return {"fault": done.stderr.strip() or f"the generator exited with code {done.returncode}"}
    report: dict[str, Any] = json.loads(done.stdout)
    return report
