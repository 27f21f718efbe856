"""The generator: compiled when it is needed, run against one server, its report read."""

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
#: Above the longest of its own waits.
SECONDS = 300


class NoCompiler(Exception):
    """This machine cannot compile the generator."""


def build(folder: Path) -> Path:
    """The program in ``folder``, compiled unless it is there from these sources. Raises NoCompiler."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    program = folder / f"rooms-generator-{digest}"
    if program.exists():
        return program
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise NoCompiler(
            "The load generator is written in C, and there is no C compiler here. Lawful: cc, gcc or clang "
            "on PATH."
        )
    # Under another name until it is whole: several may begin at once.
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
    """The generator's report of one run; what makes it worthless is its ``fault``."""
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
        return {"fault": f"the run was not over after {SECONDS} seconds"}
    if not done.stdout:
        return {"fault": done.stderr.strip() or f"the generator ended with {done.returncode}"}
    report: dict[str, Any] = json.loads(done.stdout)
    return report
