"""The chat page in a real Chromium, against a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, WebSocketRoute, expect

from tests.integration.browser import BrowserUser, chromium
from tests.servers import Server, running

pytestmark = [pytest.mark.any_database, pytest.mark.smoke]

# Fills a room with messages through the page's own client.
FILL = """
async ([application, room, count]) => {
  const { RoomsClient } = await import("/static/rooms/client.js");
  const memory = new Map();
  const storage = {
    getItem: (key) => memory.get(key) ?? null,
    setItem: (key, value) => memory.set(key, value),
    removeItem: (key) => memory.delete(key),
  };
  const client = new RoomsClient(`ws://${location.host}/ws/rooms/${application}/`, { storage });
  client.connect({ name: "filler " + Date.now() });
  await client.join(room);
  for (let number = 1; number <= count; number += 1) {
    await client.send(room, { text: `message ${number}` });
  }
  await client.logout();
}
"""

NewUser = Callable[..., BrowserUser]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site() -> Iterator[Server]:
    """Start a separate server, because one test kills it."""
    server = Server.start("uvicorn")
    with running(server):
        yield server


@pytest.fixture
def new_user(browser: Browser, site: Server) -> Iterator[NewUser]:
    """Create browser users; at the end no page may have logged an error or opened a dialog."""
    users: list[BrowserUser] = []

    def create(server: Server = site, **options: Any) -> BrowserUser:
        users.append(BrowserUser(browser, server.port, **options))
        return users[-1]

    yield create
    for each in users:
        each.close()
    assert [each.console_errors for each in users] == [[] for _ in users]
    assert [each.dialogs for each in users] == [[] for _ in users]


@pytest.fixture
def room() -> str:
    return f"room {uuid4().hex[:8]}"


def name(prefix: str) -> str:
    return f"{prefix} {uuid4().hex[:6]}"


class Staff:
    """An administrator in the admin, in a browser."""

    def __init__(self, user: BrowserUser) -> None:
        self.page, self.url = user.page, f"{user.url}/admin/"
        self.page.goto(self.url)
        self.page.get_by_label("Username").fill("admin")
        self.page.get_by_label("Password").fill("admin")
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.get_by_role("link", name="Applications")).to_be_visible()

    def change(self, model: str, row: str, **fields: str | bool) -> None:
        """Change fields, given by their labels, of the only row that a search finds."""
        self._open(model, row)
        for label, value in fields.items():
            field = self.page.get_by_label(f"{label}:" if isinstance(value, str) else label, exact=True)
            if isinstance(value, str):
                field.fill(value)
            else:
                field.set_checked(value)
        self._save()

    def restrict(self, kind: str, application: str, guest: str, reason: str) -> None:
        """Ban or mute a guest in an application."""
        self._open("application", application)
        (key,) = re.findall(r"/(\d+)/change/", self.page.url)
        self.page.goto(f"{self.url}rooms/{kind}/add/")
        self.page.locator("#id_application").evaluate(
            "(field, key) => field.append(new Option(key, key, true, true))", key
        )
        self.page.get_by_label("Guest's name:").fill(guest)
        self.page.get_by_label("Reason:").fill(reason)
        self._save()

    def _open(self, model: str, row: str) -> None:
        self.page.goto(f"{self.url}rooms/{model}/")
        self.page.get_by_role("textbox", name="Search").fill(row)
        self.page.get_by_role("button", name="Search").click()
        self.page.locator("#result_list tbody th a").click()

    def _save(self) -> None:
        self.page.get_by_role("button", name="Save", exact=True).click()
        expect(self.page.locator(".messagelist .success")).to_be_visible()


def test_two_users_exchange_messages(new_user: NewUser, room: str) -> None:
    ann_name, ben_name = name("ann"), name("ben")
    ann = new_user().join(ann_name, room=room)
    ben = new_user().join(ben_name, room=room)
    ann.expect_members(ann_name, ben_name)
    ben.expect_members(ben_name, ann_name)
    ann.send("Hello Ben")
    ben.expect_texts("Hello Ben").send("Hello Ann", "How are you?")
    for each in (ann, ben):
        each.expect_texts("Hello Ben", "Hello Ann", "How are you?")
    expect(ann.page.locator(".message.own .text")).to_have_text(["Hello Ben"])
    expect(ann.page.locator(".pending, .failed")).to_have_count(0)
    expect(ann.page.locator("[data-part=announcer]")).to_contain_text(f"{ben_name}: How are you?")
    ben.page.get_by_role("button", name="Leave this room").click()
    ann.expect_members(ann_name)


def test_a_room_without_history_shows_live_messages(new_user: NewUser, room: str) -> None:
    ann = new_user().join(name("ann"), "bench", room=room)
    ben = new_user().join(name("ben"), "bench", room=room)
    ann.send("one", "two")
    ben.expect_texts("one", "two").send("three")
    ann.expect_texts("one", "two", "three")
    expect(ann.page.locator(".pending")).to_have_count(0)
    # The page keeps its messages, although the server cannot send them again.
    ben.cut_network()
    ben.restore_network()
    ann.send("four")
    ben.expect_texts("one", "two", "three", "four")


def test_enter_sends_and_shift_enter_inserts_a_line_break(new_user: NewUser, room: str) -> None:
    ann = new_user().join(name("ann"), room=room)
    ann.field.press_sequentially("one")
    ann.field.press("Shift+Enter")
    ann.field.press_sequentially("two")
    ann.field.press("Enter")
    expect(ann.texts).to_have_text("one\ntwo", use_inner_text=True)
    expect(ann.field).to_have_value("")
    expect(ann.field).to_be_focused()


def test_missed_messages_arrive_once_in_order_after_a_lost_connection(new_user: NewUser, room: str) -> None:
    ann = new_user().join(name("ann"), room=room).send("before")
    ben = new_user().join(name("ben"), room=room).expect_texts("before")
    ben.cut_network()
    ann.send("one", "two", "three")
    expect(ann.page.locator(".pending")).to_have_count(0)
    ben.send("while offline")
    expect(ben.page.locator(".message.pending")).to_have_count(1)
    ben.restore_network()
    ann.expect_texts("before", "one", "two", "three", "while offline").send("after")
    ben.expect_texts("before", "one", "two", "three", "while offline", "after")
    expect(ben.page.locator(".pending")).to_have_count(0)


def test_all_messages_are_shown_after_a_server_is_killed(new_user: NewUser, room: str, site: Server) -> None:
    ann = new_user().join(name("ann"), room=room).send("before")
    ben = new_user().join(name("ben"), room=room).expect_texts("before")
    ann.send("during the crash")
    site.kill()
    for each in (ann, ben):
        expect(each.banner).to_be_visible()
    ann.send("while it was down", "and again")
    expect(ann.page.locator(".message.pending")).not_to_have_count(0)
    everything = "before", "during the crash", "while it was down", "and again"
    ann.expect_texts(*everything)
    site.restart()
    for each in (ann, ben):
        expect(each.banner).to_be_hidden()
        each.expect_texts(*everything)
    expect(ann.page.locator(".pending, .failed")).to_have_count(0)
    ben.send("after")
    ann.expect_texts(*everything, "after")
    # After a reload the page shows only what the server has stored.
    ben.page.reload()
    ben.expect_texts(*everything, "after")


def test_the_page_reconnects_after_a_graceful_shutdown(new_user: NewUser, room: str) -> None:
    server = Server.start("runrooms")
    with running(server):
        ann = new_user(server)
        closings: list[Any] = []

        def record_closing(frame: str | bytes) -> None:
            lines = [json.loads(line) for line in str(frame).splitlines()]
            closings.extend(line for line in lines if line["type"] == "closing")

        ann.page.on("websocket", lambda socket: socket.on("framereceived", record_closing))
        ann.join(name("ann"), room=room).send("before").expect_texts("before")
        ben = new_user(server).join(name("ben"), room=room).expect_texts("before")
        server.stop()
        for each in (ann, ben):
            expect(each.banner).to_be_visible()
        assert [(closing["code"], closing["retry_in"] >= 0) for closing in closings] == [(4000, True)]
        ann.send("while it was down", "and again")
        server.restart()
        everything = "before", "while it was down", "and again"
        for each in (ann, ben):
            expect(each.banner).to_be_hidden()
            each.expect_texts(*everything)
        expect(ann.page.locator(".pending, .failed")).to_have_count(0)
        ben.send("after")
        ann.expect_texts(*everything, "after")


def test_user_input_is_inserted_as_text(new_user: NewUser) -> None:
    mark = uuid4().hex[:6]
    evil_name = f"<img src=x onerror=alert('{mark}')>"
    evil_room = f"<svg onload=alert('{mark}')>"
    bodies = [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(2)>",
        '"><iframe src=javascript:alert(3)></iframe>',
        "javascript:alert(4)",
        "{{ 7 * 7 }} ${7 * 7}",
        'https://example.org/"onclick="alert(5)',
    ]
    mallory = new_user().join(evil_name, room=evil_room).send(*bodies)
    ann_name = name("ann")
    ann = new_user().join(ann_name, room=evil_room).expect_texts(*bodies)
    ann.expect_members(ann_name, evil_name)
    for each in (mallory, ann):
        each.expect_texts(*bodies)
        elements = each.page.locator(".log :is(img, script, iframe, svg), .members img, [onclick]")
        expect(elements).to_have_count(0)
        expect(each.page.locator(".log a")).to_have_attribute("href", "https://example.org/")
    expect(ann.page.locator(".message .name").first).to_have_text(evil_name)


def test_scrolling_up_loads_older_messages_and_keeps_the_position(new_user: NewUser, room: str) -> None:
    ann = new_user()
    ann.open()
    ann.page.evaluate(FILL, ["durable", room, 120])
    ann.join(name("ann"), room=room)
    expect(ann.texts).to_have_count(50)
    expect(ann.texts.last).to_be_in_viewport()
    first = ann.page.locator(".message", has_text=re.compile(r"message 71$"))
    first.scroll_into_view_if_needed()
    expect(ann.texts).to_have_count(100)
    expect(first).to_be_in_viewport()
    ann.page.get_by_text("message 21", exact=True).scroll_into_view_if_needed()
    ann.expect_texts(*(f"message {number}" for number in range(1, 121)))
    ann.page.get_by_text("The room’s history begins here.").scroll_into_view_if_needed()
    # Far from the end, a new message does not scroll the log but shows a button.
    ben = new_user().join(name("ben"), room=room).send("news")
    expect(ben.texts.last).to_have_text("news")
    ann.page.get_by_role("button", name="1 new message").click()
    expect(ann.texts.last).to_be_in_viewport()


def test_a_room_with_a_password_asks_for_it(new_user: NewUser, room: str) -> None:
    ben = new_user().join(name("ben"))
    ann = new_user().join(name("ann"))
    ann.page.get_by_role("button", name="New room").click()
    ann.page.get_by_label("Room name").fill(room)
    ann.page.get_by_label("Password (optional)").fill("sesame")
    ann.page.get_by_role("button", name="Create", exact=True).click()
    ann.expect_room(room)
    ben.page.get_by_role("button", name=room).click()
    dialog = ben.page.get_by_role("dialog")
    dialog.get_by_label("Password").fill("wrong")
    dialog.get_by_role("button", name="Join").click()
    expect(dialog.get_by_role("alert")).to_have_text("The password is wrong.")
    dialog.get_by_label("Password").fill("sesame")
    dialog.get_by_role("button", name="Join").click()
    ben.expect_room(room)
    ann.send("Welcome")
    ben.expect_texts("Welcome")


def test_a_refused_message_can_be_sent_again(new_user: NewUser, room: str) -> None:
    ann = new_user()
    refusals = iter([True])

    def refuse_first_message(browser_side: WebSocketRoute) -> None:
        server_side = browser_side.connect_to_server()

        def forward(frame: str | bytes) -> None:
            request = json.loads(frame)
            if request["type"] == "message" and next(refusals, False):
                refusal = {"type": "error", "code": "muted", "message": "You are muted.", "retry": False}
                browser_side.send(json.dumps(refusal | {"id": request["id"]}))
            else:
                server_side.send(frame)

        browser_side.on_message(forward)

    ann.page.route_web_socket(re.compile("/ws/"), refuse_first_message)
    ann.join(name("ann"), room=room).send("may I?")
    expect(ann.page.locator(".failed")).to_contain_text("Not sent. You are muted.")
    expect(ann.field).to_have_attribute("placeholder", "You are muted.")
    ann.page.get_by_role("button", name="Try again").click()
    expect(ann.page.locator(".pending, .failed")).to_have_count(0)
    ann.expect_texts("may I?")
    expect(ann.field).to_have_attribute("placeholder", f"Write to {room}")


def test_events_and_state_of_an_extension_are_shown(new_user: NewUser) -> None:
    ann = new_user().join(name("ann"), "quiz")
    ann.page.get_by_role("button", name="Quiz lobby").click()
    state = ann.page.get_by_role("list", name="Current values of this room")
    ann.expect_room("Quiz lobby")
    expect(state).to_contain_text("Write /start to begin a quiz")
    # A refused event stays, to be sent again or discarded, like any message.
    ann.send("/answer 8")
    expect(ann.page.locator(".failed")).to_contain_text("No question is open.")
    ann.page.get_by_role("button", name="Discard").click()
    expect(ann.page.locator(".failed")).to_have_count(0)
    # The answer of the extension is shown before the messages that it then sends to the room.
    ann.send("/start")
    expect(ann.page.locator(".message").filter(has_text=re.compile("Here we go|Score"))).to_contain_text(
        ["Here we go!", "Score: ann"]
    )
    expect(state.get_by_role("listitem")).to_have_count(3)
    expect(state.get_by_role("listitem").first).to_contain_text("?")
    ann.send("/answer not in the list")
    expect(ann.page.locator(".message.own").last).to_contain_text("answer not in the list")
    expect(ann.page.locator(".message.own").last).to_contain_text("No, that is not it.")
    expect(ann.page.locator(".toast")).to_have_count(0)


def test_an_event_without_a_handler_is_broadcast(new_user: NewUser, room: str) -> None:
    ann = new_user().join(name("ann"), room=room)
    ben = new_user().join(name("ben"), room=room)
    ann.send("/bid 7", "/shout loud words")
    for each in (ann, ben):
        expect(each.page.locator(".event-line")).to_have_text(["bid 7", "shout loud words"])
    expect(ann.page.locator(".pending")).to_have_count(0)


def test_a_new_room_title_is_shown_and_a_new_room_name_announced(new_user: NewUser, room: str) -> None:
    staff = Staff(new_user())
    ann = new_user().join(name("ann"), room=room)
    title = f"Parlour {room}"
    staff.change("room", room, Title=title)
    ann.expect_room(title)
    expect(ann.page.get_by_role("button", name=f"{title}, 1 member")).to_be_visible()
    expect(ann.page).to_have_title(re.compile(f"^{title}"))
    staff.change("room", room, Name=f"{room} again")
    expect(ann.page.locator(".toast").first).to_have_text(
        re.compile(f"{title}: The room is called {room} again now.")
    )


def test_a_renamed_room_is_joined_again(new_user: NewUser, room: str) -> None:
    renamed = f"{room} again"
    ben = new_user().join(name("ben"), room=renamed)
    ann = new_user()
    browser_sides: list[WebSocketRoute] = []

    def record_socket(browser_side: WebSocketRoute) -> None:
        browser_side.connect_to_server()
        browser_sides.append(browser_side)

    ann.page.route_web_socket(re.compile("/ws/"), record_socket)
    ann.join(name("ann"), room=room)
    removed = {"type": "removed", "room": room, "reason": "closed", "renamed": renamed}
    browser_sides[-1].send(json.dumps(removed | {"message": f"The room is called {renamed} now."}))
    ann.expect_room(renamed).send("here again")
    ben.expect_texts("here again")


def test_muted_and_banned_users_see_the_reason(new_user: NewUser) -> None:
    staff = Staff(new_user())
    guest, room = name("gus"), "lobby"
    gus = new_user().join(guest, "chat").open("chat", room=room).expect_room("Lobby")
    staff.restrict("mute", "chat", guest, "Too loud")
    gus.send("may I?")
    expect(gus.page.locator(".failed")).to_contain_text("You are muted here: Too loud.")
    expect(gus.field).to_have_attribute("placeholder", "You are muted here: Too loud.")
    staff.restrict("ban", "chat", guest, "Too loud still")
    expect(gus.banner).to_contain_text("You are banned")
    expect(gus.field).to_be_disabled()
    gus.page.reload()
    expect(gus.page.get_by_role("alert").first).to_have_text("You are banned here: Too loud still.")


def test_a_disabled_application_closes_the_page_until_it_is_enabled(new_user: NewUser) -> None:
    staff = Staff(new_user())
    ann = new_user().join(name("ann"), "chat").open("chat", room="help").expect_room("Help")
    ann.field.fill("not sent yet")
    staff.change("application", "chat", Enabled=False)
    expect(ann.banner).to_contain_text("This chat is closed.")
    expect(ann.field).to_be_disabled()
    expect(ann.field).to_have_value("not sent yet")
    staff.change("application", "chat", Enabled=True)
    ann.page.get_by_role("button", name="Try again").click()
    expect(ann.banner).to_be_hidden()
    expect(ann.field).to_be_enabled()


def test_unread_messages_of_other_rooms_are_counted(new_user: NewUser, room: str) -> None:
    other = f"{room} annex"
    ann = new_user().join(name("ann"), room=room).send("stay here")
    ann.page.get_by_role("button", name="New room").click()
    ann.page.get_by_label("Room name").fill(other)
    ann.page.get_by_role("button", name="Create", exact=True).click()
    ann.expect_room(other)
    new_user().join(name("ben"), room=room).send("one", "two")
    button = ann.page.get_by_role("button", name=re.compile(f"^{room}, 2 members, 2 unread$"))
    button.click()
    ann.expect_texts("stay here", "one", "two")
    ann.page.go_back()
    ann.expect_room(other)


def test_a_signed_in_user_joins_without_entering_a_name(new_user: NewUser, room: str, site: Server) -> None:
    username = name("ann").replace(" ", "-")
    code = "from django.contrib.auth.models import User; User.objects.create_user('{}', password='sesame')"
    site.manage("shell", "-c", code.format(username))
    ann = new_user()
    ann.page.goto(f"{ann.url}/login/")
    ann.page.get_by_label("Username").fill(username)
    ann.page.get_by_label("Password").fill("sesame")
    ann.page.get_by_role("button", name="Sign in").click()
    expect(ann.page.get_by_role("banner")).to_contain_text(re.compile(rf"{username}\s*·\s*Sign out"))
    ann.open(room=room).expect_room(room).send("It is me")
    ann.expect_texts("It is me").expect_members(username)
    ann.page.get_by_role("button", name="Sign out").click()
    expect(ann.page.get_by_role("link", name="Sign in").first).to_be_visible()


def test_a_guest_stays_logged_in_after_a_reload_but_not_after_leaving(new_user: NewUser, room: str) -> None:
    guest = name("ann")
    ann = new_user().join(guest, room=room).send("before")
    ann.page.reload()
    ann.expect_room(room).expect_texts("before").expect_members(guest)
    expect(ann.page.locator(".message.own .text")).to_have_text(["before"])
    ann.page.get_by_role("button", name="Leave chat").click()
    expect(ann.page.get_by_label("Your name")).to_be_visible()
    ann.page.reload()
    expect(ann.page.get_by_label("Your name")).to_be_visible()


def test_a_reload_joins_every_room_again(new_user: NewUser, room: str) -> None:
    other = f"{room} annex"
    ann = new_user().join(name("ann"), room=room)
    ben = new_user().join(name("ben"), room=room)
    ann.page.get_by_role("button", name="New room").click()
    ann.page.get_by_label("Room name").fill(other)
    ann.page.get_by_role("button", name="Create", exact=True).click()
    ann.expect_room(other)
    ann.page.reload()
    ann.expect_room(other)
    expect(ann.page.locator(".room-button.joined")).to_have_count(2)
    ben.send("still there?")
    expect(ann.page.get_by_role("button", name=f"{room}, 2 members, 1 unread")).to_be_visible()
    ann.page.get_by_role("button", name="Leave this room").click()
    ann.page.reload()
    expect(ann.page.locator(".room-button.joined")).to_have_count(1)


def test_a_taken_name_is_refused(new_user: NewUser, room: str) -> None:
    guest = name("ann")
    new_user().join(guest, room=room)
    other = new_user().open()
    other.page.get_by_label("Your name").fill(guest.upper())
    other.page.get_by_role("button", name="Join", exact=True).click()
    expect(other.page.get_by_role("alert").first).to_contain_text("already in use")
    other.page.get_by_label("Your name").fill(name("anna"))
    other.page.get_by_role("button", name="Join", exact=True).click()
    expect(other.page.get_by_text("Choose a room")).to_be_visible()


def test_a_narrow_screen_shows_the_lists_as_drawers(new_user: NewUser, room: str) -> None:
    ann = new_user(width=320, height=640).join(name("ann"), room=room)
    ann.send("x" * 300, "https://example.org/" + "y" * 200)
    expect(ann.texts).to_have_count(2)
    assert ann.page.evaluate("document.documentElement.scrollWidth") == 320
    rooms = ann.page.get_by_role("navigation", name="Rooms")
    expect(rooms).to_be_hidden()
    ann.page.get_by_role("button", name="Rooms").click()
    expect(rooms).to_be_visible()
    ann.page.keyboard.press("Escape")
    expect(rooms).to_be_hidden()
    expect(ann.page.get_by_role("button", name="Rooms")).to_be_focused()
    ann.page.get_by_role("button", name="Members").click()
    expect(ann.page.locator(".member")).to_be_visible()
