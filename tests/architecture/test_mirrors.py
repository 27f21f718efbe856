"""Sources and their tests have the same names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.mirrors import mirrors_without_source, sources_without_mirror

BASE_DIR = Path(__file__).resolve().parent.parent.parent


def test_every_source_has_a_mirror() -> None:
    assert list(sources_without_mirror(BASE_DIR)) == []


def test_every_mirror_has_a_source() -> None:
    assert list(mirrors_without_source(BASE_DIR)) == []


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A tree in which all mirrors are right."""
    for name in (
        "rooms/__init__.py",
        "rooms/api.py",
        "rooms/hub/__init__.py",
        "rooms/hub/lua.py",
        "rooms/hub/room.py",
        "rooms/migrations/0001_initial.py",
        "rooms/management/commands/prune.py",
        "rooms/models/__init__.py",
        "rooms/models/message.py",
        "roomsite/settings.py",
        "tests/hub/test_room.py",
        "tests/integration/test_browser.py",
        "tests/management/test_prune.py",
        "tests/roomsite/test_settings.py",
        "tests/services.py",
        "tests/test_api.py",
        "tests/test_documentation.py",
        "tests/test_models.py",
        "tests/test_services.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


COVERED = {"hub/lua.py": "hub/test_room.py"}
SCENARIOS = {"test_documentation.py"}


def test_a_sound_tree_has_all_mirrors(sound: Path) -> None:
    assert list(sources_without_mirror(sound, COVERED)) == []
    assert list(mirrors_without_source(sound, SCENARIOS)) == []


@pytest.mark.parametrize(
    "name", ["rooms/hub/config.py", "rooms/conf.py", "rooms/management/commands/demo.py"]
)
def test_a_source_without_a_mirror_is_found(sound: Path, name: str) -> None:
    (sound / name).touch()
    assert [name in breach for breach in sources_without_mirror(sound, COVERED)] == [True]


@pytest.mark.parametrize(
    "name", ["tests/hub/test_config.py", "tests/test_conf.py", "tests/roomsite/test_views.py"]
)
def test_a_mirror_without_a_source_is_found(sound: Path, name: str) -> None:
    (sound / name).touch()
    assert [name in breach for breach in mirrors_without_source(sound, SCENARIOS)] == [True]


def test_an_outdated_entry_of_a_list_is_found(sound: Path) -> None:
    (sound / "tests/hub/test_lua.py").touch()
    (sound / "rooms/documentation.py").touch()
    assert "is listed as covered, but has a mirror" in next(sources_without_mirror(sound, COVERED))
    assert "is listed as a scenario" in next(mirrors_without_source(sound, SCENARIOS))
    missing = [*sources_without_mirror(sound, {"hub/gone.py": "hub/test_room.py"})]
    assert any("rooms/hub/gone.py is listed as covered" in breach for breach in missing)
