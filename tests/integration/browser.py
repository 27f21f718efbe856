"""A person at a real browser: opens the chat page, writes, reads, loses the network.

The pages are served with a strict Content-Security-Policy, whatever the site under test sets, so that
every test also shows that the page lives without inline scripts and styles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route, expect, sync_playwright

from tests import services
from tests.integration.wire import Wire

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    # Pages that the test hands on count as coming from outside, and would not reach a loopback socket.
    "--disable-features=LocalNetworkAccessChecks",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's Chromium, without a screen."""
    path = services.chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Person:
    """Somebody with a browser profile and a wire to the server of their own."""

    def __init__(self, browser: Browser, port: int, *, width: int = 1100, height: int = 720) -> None:
        self.wire = Wire(port)
        self.url = f"http://127.0.0.1:{self.wire.port}"
        self.context = browser.new_context(viewport={"width": width, "height": height})
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.dialogs: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.route(re.compile(r"^[^?]*/rooms/[^/]+/(\?.*)?$"), self._with_policy)

    def enter(self, name: str, application: str = "durable", *, room: str | None = None) -> Self:
        """Come in as a guest, straight into a room if one is named."""
        self.open(application, room=room)
        self.page.get_by_label("What shall we call you?").fill(name)
        self.page.get_by_role("button", name="Enter").click()
        expect(self.page.locator("[data-part=shell]")).to_be_visible()
        return self.sees_room(room) if room else self

    def open(self, application: str = "durable", *, room: str | None = None) -> Self:
        """Open the chat page, as whoever one is."""
        query = self.page.evaluate("room => new URLSearchParams({room}).toString()", room) if room else ""
        self.page.goto(f"{self.url}/rooms/{application}/?{query}")
        return self

    def sees_room(self, title: str) -> Self:
        """The room is on the stage."""
        expect(self.page.get_by_role("heading", level=1, name=title, exact=True)).to_be_visible()
        return self

    def says(self, *texts: str) -> Self:
        """Write and press Enter."""
        for text in texts:
            self.field.fill(text)
            self.field.press("Enter")
        return self

    def sees(self, *texts: str) -> Self:
        """These are the words in the room: all of them, once, in this order."""
        expect(self.words).to_have_text(list(texts))
        return self

    def sees_members(self, *names: str) -> Self:
        """These are the members, oneself first."""
        expect(self.page.locator(".person .name")).to_have_text(list(names))
        return self

    def loses_network(self) -> Self:
        """From now on nothing gets through, and the page has noticed."""
        self.wire.cut()
        expect(self.banner).to_be_visible()
        return self

    def has_network(self) -> Self:
        """The network is back, and so is the page."""
        self.wire.mend()
        expect(self.banner).to_be_hidden(timeout=30_000)
        return self

    def goes(self) -> None:
        """Close the browser."""
        self.context.close()
        self.wire.remove()

    @property
    def field(self) -> Locator:
        return self.page.get_by_label("Message", exact=True)

    @property
    def words(self) -> Locator:
        return self.page.get_by_role("log").locator(".words")

    @property
    def banner(self) -> Locator:
        return self.page.locator(".banner")

    def _console(self, message: ConsoleMessage) -> None:
        # That a lost connection cannot be opened is what a lost connection is.
        if message.type in {"error", "warning"} and "WebSocket connection" not in message.text:
            self.complaints.append(message.text)

    def _with_policy(self, route: Route) -> None:
        response = route.fetch(max_redirects=0)
        route.fulfill(response=response, headers=response.headers | {"content-security-policy": POLICY})
