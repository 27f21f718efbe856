"""Take the screenshots of the chat page for the README: `python docs/screenshots.py` from the checkout.

The script starts a server with the demo data, sends messages as four users, and writes chat-light.png,
chat-dark.png and chat-phone.png to docs/images.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from playwright.sync_api import expect

from tests.integration.browser import BrowserUser, chromium
from tests.servers import Server, running

IMAGES = Path(__file__).parent / "images"
ROOM = "Garden party"
MESSAGES = [
    ("Ann Archer", "Good morning! Who brings what on Saturday?"),
    ("Ann Archer", "The list so far: https://example.org/party"),
    ("Ben", "I make the lemonade, and I have the long table."),
    ("Célestine", "Cake!\nOne with plums, one without."),
    ("Ben", "Shall we say four o’clock? Then the sun is behind the house."),
]
OWN_MESSAGE = "Four is good. I will hang up the lights the evening before."


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    server = Server.start("uvicorn")
    with running(server), chromium() as browser:
        users = {name: BrowserUser(browser, server.port) for name in dict(MESSAGES)}
        for name, user in users.items():
            user.join(name, "chat", room=ROOM)
        for number, (name, text) in enumerate(MESSAGES, start=1):
            users[name].send(text)
            for user in users.values():
                expect(user.texts).to_have_count(number)
        dora = BrowserUser(browser, server.port, width=1100, height=700).join("Dora", "chat", room=ROOM)
        dora.send(OWN_MESSAGE)
        expect(dora.page.locator(".pending")).to_have_count(0)
        for scheme in ("light", "dark"):
            dora.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            dora.page.screenshot(path=IMAGES / f"chat-{scheme}.png")
        dora.page.set_viewport_size({"width": 360, "height": 640})
        dora.page.emulate_media(color_scheme="light", reduced_motion="reduce")
        dora.page.screenshot(path=IMAGES / "chat-phone.png")
        for user in (*users.values(), dora):
            user.close()


if __name__ == "__main__":
    main()
