"""README and `docs/` match the code: Python runs, links and paths exist, lists are complete."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.utils.module_loading import import_string

import rooms
from rooms import Extension, Rejected, conf
from rooms.extensions import JoinEvent, MessageEvent, registry
from rooms.models import Application
from rooms.node.node import Node
from rooms.protocol import errors
from rooms.protocol.events import Error
from rooms.protocol.native import Native
from rooms.protocol.types import User

BASE_DIR = Path(__file__).resolve().parent.parent
PAGES = sorted([*BASE_DIR.glob("*.md"), *(BASE_DIR / "docs").glob("*.md")])
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

# `make bench` writes what follows.
GENERATED = "<!-- the last result: written by make bench -->"

# The change log names what is gone.
CURRENT_PAGE = pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name
)

ANN = User(name="ann", id="12", guest=False)
BEN = User(name="ben", id="guest-1", guest=True)


def snippets(page: str, language: str) -> list[str]:
    """Return the code blocks of one language in a page, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", (BASE_DIR / page).read_text(), re.DOTALL | re.MULTILINE)


def python_snippets() -> Iterator[Any]:
    """Yield every Python block with its page and number as test id."""
    for page in PAGES:
        for number, source in enumerate(snippets(str(page), "python"), start=1):
            yield pytest.param(source, id=f"{page.name}-{number}")


def section(page: str, title: str) -> str:
    """Return the text below one heading."""
    text = (BASE_DIR / page).read_text()
    return text.partition(f"{title}\n")[2].partition("\n## ")[0]


def without_code(text: str) -> str:
    """Return the text without its code blocks."""
    return re.sub(r"^\s*```.*?^\s*```", "", text, flags=re.DOTALL | re.MULTILINE)


def run(source: str, **names: Any) -> dict[str, Any]:
    """Execute a code block and return its namespace."""
    exec(compile(source, "the documentation", "exec"), names)
    return names


# Python ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", list(python_snippets()))
def test_imports_exist_and_calls_match_the_signature(source: str) -> None:
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
    """Remove the extensions that the documentation registers."""
    before = dict(registry._extensions)
    yield
    registry._extensions.clear()
    registry._extensions.update(before)


class Room:
    """Records what an extension publishes."""

    name = "lobby"

    def __init__(self) -> None:
        self.published: list[tuple[str, Any]] = []

    async def publish(self, event: str, data: Any, **options: Any) -> None:
        self.published.append((event, data))


@pytest.mark.usefixtures("registered")
async def test_the_readme_auction_accepts_higher_bids_only() -> None:
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
    for invalid in (79, "80", 80.5, None, {"bid": 80}):
        with pytest.raises(Rejected, match="at least 80"):
            await bid(invalid)
    assert room.published == [("highest", {"text": "ben bids 70."})]


@pytest.mark.usefixtures("registered")
async def test_the_first_extension_refuses_guests() -> None:
    source = snippets("docs/extensions.md", "python")[0]
    extension: Extension = run(source)["MembersOnly"]("club", None, {})
    room: Any = Room()
    await extension.on_join(JoinEvent(room, ANN, "connection"))
    with pytest.raises(Rejected, match="sign in"):
        await extension.on_join(JoinEvent(room, BEN, "connection"))


def test_the_extensions_page_lists_all_hooks() -> None:
    rows = re.findall(r"^\|(.*?)\|", section("docs/extensions.md", "## Hooks"), re.MULTILINE)
    listed = re.findall(r"`(\w+)`", "".join(rows))
    assert set(listed) == {name for name in vars(Extension) if name.startswith("on_")} | {"init"}


def test_the_settings_of_the_installation_page_are_valid() -> None:
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


def test_the_settings_of_the_processes_page_are_valid() -> None:
    sources = list(snippets("docs/processes.md", "python"))
    assert len(sources) == 3
    for names in map(run, sources):
        assert set(names["ROOMS"]) <= set(conf.KEYS)
        assert import_string(names["CHANNEL_LAYERS"]["default"]["BACKEND"])
        assert import_string(names["ROOMS"]["PRESENCE"]["BACKEND"])


def test_the_modules_of_the_installation_page_run() -> None:
    asgi, urls = (source for source in snippets("docs/install.md", "python") if "import " in source)
    assert set(run(asgi)["application"].application_mapping) == {"http", "websocket"}
    assert [str(pattern.pattern) for pattern in run(urls)["urlpatterns"]] == ["admin/", "rooms/"]


# For Channels users ----------------------------------------------------------------------------------


@pytest.fixture
async def channels_page(chat: Application, registered: None) -> AsyncIterator[dict[str, Any]]:
    """Execute all snippets of the page as one module of the app ``shop``; stop the node at the end."""
    names: dict[str, Any] = {"__name__": "shop.extensions"}
    for source in snippets("docs/channels.md", "python"):
        names = run(source, **names)
    yield names
    if (node := Node.current()) is not None:
        await node.stop()


async def test_the_test_of_the_channels_page_passes(channels_page: dict[str, Any]) -> None:
    await channels_page["test_a_message_is_acknowledged_before_its_broadcast"]()


@pytest.mark.parametrize(
    ("extension", "event", "reply", "push"),
    [("Dice", "roll", {"points"}, "rolled"), ("Census", "census", {"accounts"}, "census")],
)
async def test_the_extensions_of_the_channels_page_reply_and_publish(
    channels_page: dict[str, Any], chat: Application, extension: str, event: str, reply: set[str], push: str
) -> None:
    chat.extension = f"shop.{extension}"
    await chat.asave()
    client = channels_page["Client"]()
    await client.connect()
    await client.request(type="login", name="ann")
    await client.request(type="join", room="lobby")
    answer = await client.request(type="message", room="lobby", event=event, data=None)
    assert reply <= set(answer["data"])
    assert (await client.read())["event"] == push
    await client.disconnect()


async def test_the_publish_of_the_channels_page_reaches_a_member(channels_page: dict[str, Any]) -> None:
    client = channels_page["Client"]()
    await client.connect()
    await client.request(type="login", name="ann")
    await client.request(type="join", room="lobby")
    await sync_to_async(channels_page["announce"])("Lunch is ready")
    assert (await client.read())["data"] == {"text": "Lunch is ready"}
    await client.disconnect()


@pytest.mark.usefixtures("registered")
async def test_the_consumer_of_the_channels_page_works_beside_rooms() -> None:
    source = next(each for each in snippets("docs/channels.md", "python") if "class Echo" in each)
    client = WebsocketCommunicator(run(source)["websocket"], "/ws/echo/")
    assert (await client.connect())[0]
    await client.send_to("Hello!")
    assert await client.receive_from() == "Hello!"
    await client.disconnect()


# Links, paths and names ------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@PAGE
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", without_code(page.read_text()))
    for link in (either or other for either, other in links):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    text = (BASE_DIR / "README.md").read_text()
    for page in PAGES:
        assert page.name == "README.md" or f"({page.relative_to(BASE_DIR)})" in text


@CURRENT_PAGE
def test_paths_of_the_repository_exist(page: Path) -> None:
    folders = ("rooms", "roomsite", "tests", "benchmarks", "docs", "requirements", "templates", "static")
    for path in re.findall(rf"`((?:{'|'.join(folders)})/[^`\s]*)`", page.read_text()):
        # Templates and static files go by their names.
        roots = (BASE_DIR, BASE_DIR / "rooms", BASE_DIR / "rooms/templates")
        assert any(list(root.glob(path.rstrip("/"))) for root in roots), path


@cache
def strings_of_the_code() -> frozenset[str]:
    """Return the dotted names that occur as strings: loggers, check ids, the subprotocol."""
    found: set[str] = set()
    for path in (BASE_DIR / "rooms").rglob("*.py"):
        found |= set(re.findall(r"\"(rooms\.[\w.]+)\"", path.read_text()))
    return frozenset(found)


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one, to any depth."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@CURRENT_PAGE
def test_dotted_names_exist(page: Path) -> None:
    for name in re.findall(r"`(rooms\.[\w.]+?)(?:\(.*?)?`", page.read_text()):
        assert exists(name) or name in strings_of_the_code(), name


@PAGE
def test_lines_have_at_most_100_characters(page: Path) -> None:
    """Except rows of tables, recorded frames, and what `make bench` writes."""
    for line in page.read_text().partition(GENERATED)[0].splitlines():
        assert len(line) <= 100 or line.lstrip().startswith(("|", "→", "←")), line


# Lists -----------------------------------------------------------------------------------------------


def glossary() -> list[Any]:
    """Return the rows of the glossary: the term and its code column."""
    text = (BASE_DIR / "docs/glossary.md").read_text()
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| .+? \| (.*?) \|$", text, re.MULTILINE)
    return [pytest.param(code, id=term) for term, code in rows]


@pytest.mark.parametrize("code", glossary())
def test_the_code_of_a_glossary_term_exists(code: str) -> None:
    names = re.findall(r"`([^`]+)`", code)
    assert names
    for name in names:
        if "/" in name:
            assert (BASE_DIR / name).exists(), name
        elif name.isupper():
            assert name in conf.KEYS, name
        else:
            assert exists(name), name


def test_a_glossary_term_has_one_meaning() -> None:
    terms = [each.id for each in glossary()]
    assert len(terms) > 20
    assert len(terms) == len(set(terms))


def test_the_modules_and_methods_of_the_message_flow_exist() -> None:
    text = (BASE_DIR / "docs/message-flow.md").read_text()
    modules = re.findall(r"`(\w+\.py)`", text)
    assert len(modules) > 20
    for name in modules:
        assert any((BASE_DIR / "rooms" / folder / name).exists() for folder in ("", "node")), name
    sources = "\n".join(path.read_text() for path in (BASE_DIR / "rooms").rglob("*.py"))
    (trip,) = re.findall(r"^## A message\n+```\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    for owner, method in re.findall(r"\b([A-Z]\w+)\.(\w+)", trip):
        assert re.search(rf"^class {owner}\b", sources, re.MULTILINE), owner
        assert re.search(rf"^    (?:async )?def {method}\(", sources, re.MULTILINE), method


def test_the_settings_page_lists_all_settings() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (BASE_DIR / "docs/settings.md").read_text(), re.MULTILINE)
    listed = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(conf.KEYS)


def test_the_change_log_renames_settings_to_existing_ones() -> None:
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", (BASE_DIR / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert {new for _, new in rows} <= set(conf.KEYS)
    assert not {old for old, _ in rows} & set(conf.KEYS)


def test_the_protocol_page_lists_all_codes() -> None:
    listed = set(re.findall(r"`([a-z_]+)`", section("docs/native-protocol.md", "## 7. Error codes")))
    classes = [each for each in vars(errors).values() if inspect.isclass(each)]
    # The pages of the other protocols list the codes that only their clients receive.
    native = {each.code for each in classes if issubclass(each, errors.RoomsError)} - {"already_member"}
    assert listed == native
    closing = section("docs/native-protocol.md", "## 8. Close codes")
    listed_closing = {int(code): name for code, name in re.findall(r"\| (4\d{3}) \| (\w+)", closing)}
    assert listed_closing == {code.value: code.name.lower() for code in errors.CloseCode if code >= 4000}


def test_the_session_of_the_protocol_page_is_valid() -> None:
    """The codec reads each request, each push is JSON, and replies follow their requests in order."""
    blocks = re.findall(r"```\n(.*?)```", (BASE_DIR / "docs/native-protocol.md").read_text(), re.DOTALL)
    session = next(block for block in blocks if block.startswith("←"))
    requested: list[object] = []
    answered: list[object] = []
    for line in session.splitlines():
        if line.startswith("→ "):
            (request,) = Native().decode(line[2:])
            assert not isinstance(request, Error)
            requested.append(request.id)
        else:
            push = json.loads(line.removeprefix("← "))
            if push["type"] == "reply":
                answered.append(push["id"])
                assert answered == requested
    assert answered == [1, 2, 3, 4]
