"""README and `docs/` are true: their Python runs or at least fits, their links lead somewhere, and
their lists are those of the code."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils.module_loading import import_string

import rooms
from rooms import Extension, Rejected, conf
from rooms.extensions import JoinEvent, MessageEvent, registry
from rooms.protocol import errors
from rooms.protocol.events import Error
from rooms.protocol.native import Native
from rooms.protocol.types import User

BASE_DIR = Path(__file__).resolve().parent.parent
PAGES = sorted([*BASE_DIR.glob("*.md"), *(BASE_DIR / "docs").glob("*.md")])
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

ANN = User(name="ann", id="12", guest=False)
BEN = User(name="ben", id="guest-1", guest=True)


def snippets(page: str, language: str) -> list[str]:
    """The blocks of one language in a page, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", (BASE_DIR / page).read_text(), re.DOTALL | re.MULTILINE)


def python() -> Iterator[Any]:
    """Every Python block, with a name that says where it stands."""
    for page in PAGES:
        for number, source in enumerate(snippets(str(page), "python"), start=1):
            yield pytest.param(source, id=f"{page.name}-{number}")


def section(page: str, title: str) -> str:
    """The text below one heading."""
    text = (BASE_DIR / page).read_text()
    return text.partition(f"{title}\n")[2].partition("\n## ")[0]


def run(source: str, **names: Any) -> dict[str, Any]:
    """Carry a block out; the names it leaves."""
    exec(compile(source, "the documentation", "exec"), names)
    return names


# Python ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", list(python()))
def test_what_is_imported_is_there_and_what_is_called_takes_that(source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("rooms."):
            function = getattr(rooms, ast.unparse(node.func).removeprefix("rooms."))
            named = {str(keyword.arg): keyword.value for keyword in node.keywords}
            inspect.signature(function).bind(*node.args, **named)


@pytest.fixture
def registered() -> Iterator[None]:
    """Extensions of the documentation do not stay."""
    before = dict(registry._extensions)
    yield
    registry._extensions.clear()
    registry._extensions.update(before)


class Room:
    """A room that remembers what an extension said to it."""

    name = "lobby"

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    async def publish(self, event: str, data: Any, **options: Any) -> None:
        self.heard.append((event, data))


@pytest.mark.usefixtures("registered")
async def test_the_auction_of_the_readme() -> None:
    auction_class = run(snippets("README.md", "python")[0], __name__="shop.extensions")["Auction"]
    assert registry.find("shop.Auction") is auction_class
    auction = auction_class("shop", None, registry.read_settings(auction_class, {}))
    await auction.init()
    room: Any = Room()

    async def bid(data: Any) -> dict[str, Any]:
        event = MessageEvent(room, BEN, "connection", "bid", data)
        await getattr(auction, auction.handlers["bid"])(event)
        return event.reply_data

    assert await bid(70) == {"text": "You lead."}
    for unlawful in (79, "80", 80.5, None, {"bid": 80}):
        with pytest.raises(Rejected, match="at least 80"):
            await bid(unlawful)
    assert room.heard == [("highest", {"text": "ben bids 70."})]


@pytest.mark.usefixtures("registered")
async def test_the_door_of_the_extensions() -> None:
    protocol: Extension = run(snippets("docs/extensions.md", "python")[0])["Door"]("club", None, {})
    room: Any = Room()
    await protocol.on_join(JoinEvent(room, ANN, "connection"))
    with pytest.raises(Rejected, match="sign in"):
        await protocol.on_join(JoinEvent(room, BEN, "connection"))


def test_the_hooks_of_the_extensions() -> None:
    rows = re.findall(r"^\|(.*?)\|", section("docs/extensions.md", "## Hooks"), re.MULTILINE)
    told = re.findall(r"`(\w+)`", "".join(rows))
    assert set(told) == {name for name in vars(Extension) if name.startswith("on_")} | {"init"}


def test_the_settings_of_the_installation() -> None:
    """As the page says, after what `startproject` makes; and then they are lawful settings of Rooms."""
    names: dict[str, Any] = {"INSTALLED_APPS": [], "MIDDLEWARE": ["security"], "BASE_DIR": BASE_DIR}
    names["DATABASES"] = {"default": {}}
    for source in snippets("docs/install.md", "python"):
        if "ROOMS" in source or "import " not in source:
            names = run(source, **names)
    assert names["INSTALLED_APPS"] == ["daphne", "rooms"]
    assert names["MIDDLEWARE"][0] == "security"
    site = settings.DATABASES["default"]
    if "sqlite3" in site["ENGINE"]:
        assert names["DATABASES"]["default"]["OPTIONS"] == site["OPTIONS"]
    assert import_string(names["CHANNEL_LAYERS"]["default"]["BACKEND"])


def test_the_settings_of_several_processes() -> None:
    sources = list(snippets("docs/processes.md", "python"))
    assert len(sources) == 3
    for names in map(run, sources):
        assert set(names["ROOMS"]) <= set(conf.KEYS)
        assert import_string(names["CHANNEL_LAYERS"]["default"]["BACKEND"])
        assert import_string(names["ROOMS"]["PRESENCE"]["BACKEND"])


def test_the_modules_of_the_installation() -> None:
    asgi, urls = (source for source in snippets("docs/install.md", "python") if "import " in source)
    assert set(run(asgi)["application"].application_mapping) == {"http", "websocket"}
    assert [str(pattern.pattern) for pattern in run(urls)["urlpatterns"]] == ["admin/", "rooms/"]


# Links and lists -------------------------------------------------------------------------------------


@PAGE
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    for link in (either or other for either, other in links):
        if not link.startswith("https://"):
            assert (page.parent / link).exists(), link


def test_every_page_is_linked_from_the_readme() -> None:
    text = (BASE_DIR / "README.md").read_text()
    for page in PAGES:
        assert page.name == "README.md" or f"({page.relative_to(BASE_DIR)})" in text


def test_the_settings_page_lists_the_settings() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (BASE_DIR / "docs/settings.md").read_text(), re.MULTILINE)
    told = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
    assert sorted(told) == sorted(conf.KEYS)


def test_the_protocol_page_lists_the_codes() -> None:
    told = set(re.findall(r"`([a-z_]+)`", section("docs/native-protocol.md", "## 7. Error codes")))
    classes = [each for each in vars(errors).values() if inspect.isclass(each)]
    # What only clients of other protocols are told is on their pages.
    native = {each.code for each in classes if issubclass(each, errors.RoomsError)} - {"already_member"}
    assert told == native
    closing = section("docs/native-protocol.md", "## 8. Close codes")
    told_closing = {int(code): name for code, name in re.findall(r"\| (4\d{3}) \| (\w+)", closing)}
    assert told_closing == {code.value: code.name.lower() for code in errors.CloseCode if code >= 4000}


def test_the_session_of_the_protocol_page_is_one() -> None:
    """What the client writes is understood, what it reads is JSON, and every answer follows its question."""
    blocks = re.findall(r"```\n(.*?)```", (BASE_DIR / "docs/native-protocol.md").read_text(), re.DOTALL)
    session = next(block for block in blocks if block.startswith("←"))
    asked: list[object] = []
    answered: list[object] = []
    for line in session.splitlines():
        if line.startswith("→ "):
            (request,) = Native().decode(line[2:])
            assert not isinstance(request, Error)
            asked.append(request.id)
        else:
            push = json.loads(line.removeprefix("← "))
            if push["type"] == "reply":
                answered.append(push["id"])
                assert answered == asked
    assert answered == [1, 2, 3, 4]
