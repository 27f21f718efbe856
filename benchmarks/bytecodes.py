"""Counts the bytecodes that a piece of work executes, in this thread and in prepared ones.

Exact on Python 3.11; newer versions trace only some.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_count = 0
_counting = False


async def bytecodes_of(run: Callable[[], Awaitable[None]]) -> int:
    """Return the number of bytecodes of ``run`` in this thread and in threads of ``counted_threads``."""
    global _count, _counting
    _count, _counting = 0, True
    sys.settrace(_enter)
    try:
        await run()
    finally:
        sys.settrace(None)
        _counting = False
    return _count


@contextmanager
def counted_threads() -> Iterator[None]:
    """Have the threads counted that start meanwhile. They run slower for it, also later."""
    threading.settrace(_enter)
    try:
        yield
    finally:
        threading.settrace(None)


def _enter(frame: FrameType, event: str, argument: Any) -> Any:
    if not _counting:
        return None
    frame.f_trace_opcodes, frame.f_trace_lines = True, False
    return _opcode


def _opcode(frame: FrameType, event: str, argument: Any) -> Any:
    global _count
    _count += event == "opcode"
    return _opcode
