"""A user of the chat page in a real browser, for tests.

The pages are served with a strict Content-Security-Policy, independent of the site under test, so that
every test also proves that the page needs no inline scripts and styles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route, expect, sync_playwright

from tests import services
from tests.integration.relay import Relay

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
#: Milliseconds for everything that a page must show. No assertion is about time.
TIMEOUT = 60_000
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    # Chromium treats pages that a test fulfils as remote and would block their loopback sockets.
    "--disable-features=LocalNetworkAccessChecks",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a headless Chromium."""
    path = services.chromium()
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class BrowserUser:
    """A user with a separate browser profile and network connection."""

    def __init__(self, browser: Browser, port: int, *, width: int = 1100, height: int = 720) -> None:
        self.relay = Relay(port)
        self.url = f"http://127.0.0.1:{self.relay.port}"
        self.context = browser.new_context(viewport={"width": width, "height": height})
        self.context.set_default_timeout(TIMEOUT)
        self.page: Page = self.context.new_page()
        self.console_errors: list[str] = []
        self.dialogs: list[str] = []
        self.page.on("console", self._record_console)
        self.page.on("pageerror", lambda error: self.console_errors.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.route(re.compile(r"^[^?]*/rooms/[^/]+/(\?.*)?$"), self._add_policy)

    def join(self, name: str, application: str = "durable", *, room: str | None = None) -> Self:
        """Join the chat as a guest, and a room if it is given."""
        self.open(application, room=room)
        self.page.get_by_label("Your name").fill(name)
        self.page.get_by_role("button", name="Join", exact=True).click()
        expect(self.page.locator("[data-part=shell]")).to_be_visible()
        return self.expect_room(room) if room else self

    def open(self, application: str = "durable", *, room: str | None = None) -> Self:
        """Open the chat page."""
        query = self.page.evaluate("room => new URLSearchParams({room}).toString()", room) if room else ""
        self.page.goto(f"{self.url}/rooms/{application}/?{query}")
        return self

    def expect_room(self, title: str) -> Self:
        """Wait until the room is shown."""
        expect(self.page.get_by_role("heading", level=1, name=title, exact=True)).to_be_visible()
        return self

    def send(self, *texts: str) -> Self:
        """Write each text and press Enter."""
        for text in texts:
            self.field.fill(text)
            self.field.press("Enter")
        return self

    def expect_texts(self, *texts: str) -> Self:
        """Wait until the room shows exactly these texts in this order."""
        expect(self.texts).to_have_text(list(texts))
        return self

    def expect_members(self, *names: str) -> Self:
        """Wait until the member list shows exactly these names."""
        expect(self.page.locator(".member .name")).to_have_text(list(names))
        return self

    def cut_network(self) -> Self:
        """Cut the network and wait until the page shows it."""
        self.relay.cut()
        expect(self.banner).to_be_visible()
        return self

    def restore_network(self) -> Self:
        """Restore the network and wait until the page is connected."""
        self.relay.mend()
        expect(self.banner).to_be_hidden()
        return self

    def close(self) -> None:
        """Close the browser. A page that is still loading must not fail in its route."""
        self.page.unroute_all(behavior="ignoreErrors")
        self.context.close()
        self.relay.remove()

    @property
    def field(self) -> Locator:
        return self.page.get_by_label("Message", exact=True)

    @property
    def texts(self) -> Locator:
        return self.page.get_by_role("log").locator(".message .text")

    @property
    def banner(self) -> Locator:
        return self.page.locator(".banner")

    def _record_console(self, message: ConsoleMessage) -> None:
        # Chromium logs an error for every failed WebSocket; a cut network causes these.
        if message.type in {"error", "warning"} and "WebSocket connection" not in message.text:
            self.console_errors.append(message.text)

    def _add_policy(self, route: Route) -> None:
        response = route.fetch(max_redirects=0)
        route.fulfill(response=response, headers=response.headers | {"content-security-policy": POLICY})
