"""What is saved in the admin of a running server reaches the sockets that are open on it."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from tests.integration import native
from tests.integration.native import unique

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.integration.native import Client, Visitors
    from tests.servers import Server

pytestmark = pytest.mark.smoke

visitors = native.visitors


class Form(HTMLParser):
    """What a browser would send of the form on a page if one pressed its button at once."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._select = self._textarea = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        name, value = attributes.get("name") or "", attributes.get("value") or ""
        if tag == "select":
            self._select = name
        elif tag == "option" and "selected" in attributes:
            self.fields[self._select] = value
        elif tag == "textarea":
            self._textarea = name
            self.fields[name] = ""
        elif tag == "input" and name and attributes.get("type") != "submit":
            if attributes.get("type") != "checkbox":
                self.fields[name] = value
            elif "checked" in attributes:
                self.fields[name] = "on"

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            # A line break after the start tag is not part of the text.
            self.fields[self._textarea] = self.fields[self._textarea].removeprefix("\n")
            self._textarea = ""

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.fields[self._textarea] += data


class Staff:
    """A member of staff at a browser, signed in to the admin."""

    def __init__(self, server: Server) -> None:
        self.url = f"{server.url}/admin/"
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))
        self._submit("login/", {"username": "admin", "password": "admin"})

    async def submit(self, page: str, *, stays: bool = False, **changes: Any) -> None:
        """Open a page, change something in its form and send it; `stays`: that leads to it again."""
        await asyncio.to_thread(self._submit, page, changes, stays)

    async def row(self, page: str, name: str) -> str:
        """The id of the one row that a list finds by this name."""
        listed = await asyncio.to_thread(self._get, f"{page}?{urlencode({'q': name})}")
        (found,) = set(re.findall(r"/(\d+)/change/", listed))
        return found

    def _get(self, page: str) -> str:
        with self._opener.open(self.url + page) as response:
            return response.read().decode()

    def _submit(self, page: str, changes: Mapping[str, Any], stays: bool = False) -> None:
        sent = {**Form(self._get(page)).fields, **changes}
        with self._opener.open(self.url + page, urlencode(sent).encode()) as response:
            answer = response.read().decode()
        assert "errorlist" not in answer, re.findall(r'class="errorlist.*?</ul>', answer, re.DOTALL)
        assert (response.url == self.url + page) is stays


@pytest.fixture(scope="module")
def staff(server: Server) -> Staff:
    return Staff(server)


async def wait_for_update(watcher: Client, room: str) -> None:
    """Wait until the server has applied a change of the room, which it pushes to those who watch the list."""
    while (await watcher.push("room_added"))["room"]["name"] != room:
        pass  # another test's room


async def test_settings_of_a_room_are_in_force_at_once(visitors: Visitors, staff: Staff) -> None:
    room, text = unique("room"), "darn, a banana"
    speaker, listener = await visitors.members(room, 2)
    await listener.request("rooms", prefix=room)
    page = f"rooms/room/{await staff.row('rooms/room/', room)}/change/"

    async def delivered(sent: str) -> str:
        await wait_for_update(listener, room)
        await speaker.send_message(room, sent)
        return (await listener.push("message"))["data"]

    # Having chosen another extension, one is on the page again, which has its settings now.
    await staff.submit(page, extension="roomsite.WordFilter", stays=True)
    assert await delivered(text) == "****, a banana"
    await staff.submit(page, **{"settings-words": "apple\nbanana"})
    assert await delivered(text) == "darn, a ******"
    await staff.submit(page, **{"settings-refuse": "on"})
    await wait_for_update(listener, room)
    assert await speaker.refused("message", room=room, data=text) == "rejected"
    await staff.submit(page, extension="")
    assert await delivered(text) == text


async def test_settings_of_an_application_come_into_force_too(visitors: Visitors, staff: Staff) -> None:
    application = native.make_application(
        visitors.server, rooms_on_demand=True, request_rate=0, extension="roomsite.WordFilter"
    )
    room, text = unique("room"), "darn, a banana"
    speaker, listener = await visitors.members(room, 2, application)
    await speaker.send_message(room, text)
    delivered = (await listener.push("message"))["data"]
    assert delivered == "****, a banana"
    pk = await staff.row("rooms/application/", application)
    await staff.submit(f"rooms/application/{pk}/change/", **{"settings-words": "apple\nbanana"})
    # Nothing is pushed when an application changes; every message passes the old words or the new.
    async with asyncio.timeout(native.PATIENCE):
        while delivered == "****, a banana":
            await speaker.send_message(room, text)
            delivered = (await listener.push("message"))["data"]
    assert delivered == "darn, a ******"


async def test_a_deleted_room_removes_its_members(visitors: Visitors, staff: Staff) -> None:
    room = unique("room")
    (member,) = await visitors.members(room, 1)
    watcher = await visitors.guest()
    await watcher.request("rooms", prefix=room)
    pk = await staff.row("rooms/room/", room)
    await staff.submit(f"rooms/room/{pk}/delete/")
    removed = await member.push("removed")
    assert (removed["room"], removed["reason"]) == (room, "closed")
    while (await watcher.push("room_removed"))["room"] != room:
        pass  # another test's room
    assert await member.refused("members", room=room) == "not_member"


async def test_a_user_who_is_banned_from_a_room_is_put_out(visitors: Visitors, staff: Staff) -> None:
    room = unique("room")
    (other,) = await visitors.members(room, 1)
    cookie = native.session_cookie(visitors.server, "ann")
    ann = await visitors.connect(origin=visitors.server.url, additional_headers={"Cookie": cookie})
    await ann.join(room)
    await staff.submit(
        "rooms/ban/add/",
        application=await staff.row("rooms/application/", "durable"),
        room=await staff.row("rooms/room/", room),
        user=ann.user["id"],
        reason="Noise",
    )
    removed = await ann.push("removed")
    assert (removed["room"], removed["reason"]) == (room, "banned")
    left = await other.push("left")
    assert (left["user"], left["reason"]) == (ann.user, "kicked")
    assert await ann.refused("join", room=room) == "banned"


async def test_a_guest_who_is_banned_from_an_application_is_closed(visitors: Visitors, staff: Staff) -> None:
    application = native.make_application(visitors.server, rooms_on_demand=True)
    guest, other = [await visitors.guest(application=application) for _ in range(2)]
    pk = await staff.row("rooms/application/", application)
    await staff.submit("rooms/ban/add/", application=pk, guest=guest.user["name"])
    assert await guest.closed() == 4504
    assert await other.before_pong() == []


async def test_a_disabled_application_closes_its_connections(visitors: Visitors, staff: Staff) -> None:
    application = native.make_application(visitors.server)
    guest = await visitors.guest(application=application)
    pk = await staff.row("rooms/application/", application)
    await staff.submit("rooms/application/", action="disable", _selected_action=pk, stays=True)
    assert await guest.closed() == 4509
