"""Runs the JavaScript unit tests with the Node binary of Playwright."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def test_javascript() -> None:
    driver = pytest.importorskip(
        "playwright._impl._driver", reason="Playwright with its Node binary is not installed"
    )
    node, _ = driver.compute_driver_executable()
    tests = sorted(str(path) for path in FOLDER.glob("*.test.mjs"))
    assert tests
    done = subprocess.run([node, "--test", *tests], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
