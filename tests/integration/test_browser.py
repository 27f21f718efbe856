"""The chat page in a real Chromium, against a real server, as the people who use it see it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, WebSocketRoute, expect

from tests.integration.browser import Person, chromium
from tests.servers import Server, running

# Makes a room with a history, with the page's own client.
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

Meet = Callable[..., Person]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site() -> Iterator[Server]:
    """A server of our own, because one of the tests kills it."""
    server = Server.start("uvicorn")
    with running(server):
        yield server


@pytest.fixture
def meet(browser: Browser, site: Server) -> Iterator[Meet]:
    """Somebody new at a browser. At the end nobody's page may have complained."""
    people: list[Person] = []

    def person(server: Server = site, **options: Any) -> Person:
        people.append(Person(browser, server.port, **options))
        return people[-1]

    yield person
    for each in people:
        each.goes()
    assert [each.complaints for each in people] == [[] for _ in people]
    assert [each.dialogs for each in people] == [[] for _ in people]


@pytest.fixture
def room() -> str:
    return f"room {uuid4().hex[:8]}"


def name(who: str) -> str:
    return f"{who} {uuid4().hex[:6]}"


class Staff:
    """The administrator, at a browser in the admin."""

    def __init__(self, person: Person) -> None:
        self.page, self.url = person.page, f"{person.url}/admin/"
        self.page.goto(self.url)
        self.page.get_by_label("Username").fill("admin")
        self.page.get_by_label("Password").fill("admin")
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.get_by_role("link", name="Applications")).to_be_visible()

    def change(self, model: str, row: str, **fields: str | bool) -> None:
        """Change fields, by their labels, of the one row that a search finds."""
        self._open(model, row)
        for label, value in fields.items():
            field = self.page.get_by_label(f"{label}:" if isinstance(value, str) else label, exact=True)
            if isinstance(value, str):
                field.fill(value)
            else:
                field.set_checked(value)
        self._save()

    def restrict(self, kind: str, application: str, guest: str, reason: str) -> None:
        """Ban or mute a guest in a whole application."""
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


def test_two_people_chat(meet: Meet, room: str) -> None:
    ann_name, ben_name = name("ann"), name("ben")
    ann = meet().enter(ann_name, room=room)
    ben = meet().enter(ben_name, room=room)
    ann.sees_members(ann_name, ben_name)
    ben.sees_members(ben_name, ann_name)
    ann.says("Hello Ben")
    ben.sees("Hello Ben").says("Hello Ann", "How are you?")
    for each in (ann, ben):
        each.sees("Hello Ben", "Hello Ann", "How are you?")
    expect(ann.page.locator(".message.own .words")).to_have_text(["Hello Ben"])
    expect(ann.page.locator(".pending, .failed")).to_have_count(0)
    expect(ann.page.locator("[data-part=announcer]")).to_contain_text(f"{ben_name}: How are you?")
    ben.page.get_by_role("button", name="Leave this room").click()
    ann.sees_members(ann_name)


def test_a_room_that_keeps_nothing(meet: Meet, room: str) -> None:
    ann = meet().enter(name("ann"), "bench", room=room)
    ben = meet().enter(name("ben"), "bench", room=room)
    ann.says("one", "two")
    ben.sees("one", "two").says("three")
    ann.sees("one", "two", "three")
    expect(ann.page.locator(".pending")).to_have_count(0)
    # What was seen stays on the page, though the server cannot say it again.
    ben.loses_network()
    ben.has_network()
    ann.says("four")
    ben.sees("one", "two", "three", "four")


def test_enter_sends_and_shift_enter_begins_a_line(meet: Meet, room: str) -> None:
    ann = meet().enter(name("ann"), room=room)
    ann.field.press_sequentially("one")
    ann.field.press("Shift+Enter")
    ann.field.press_sequentially("two")
    ann.field.press("Enter")
    expect(ann.words).to_have_text("one\ntwo", use_inner_text=True)
    expect(ann.field).to_have_value("")
    expect(ann.field).to_be_focused()


def test_who_lost_the_connection_gets_what_was_missed_once_and_in_order(meet: Meet, room: str) -> None:
    ann = meet().enter(name("ann"), room=room).says("before")
    ben = meet().enter(name("ben"), room=room).sees("before")
    ben.loses_network()
    ann.says("one", "two", "three")
    expect(ann.page.locator(".pending")).to_have_count(0)
    ben.says("from the tunnel")
    expect(ben.page.locator(".message.pending")).to_have_count(1)
    ben.has_network()
    ann.sees("before", "one", "two", "three", "from the tunnel").says("after")
    ben.sees("before", "one", "two", "three", "from the tunnel", "after")
    expect(ben.page.locator(".pending")).to_have_count(0)


def test_a_killed_server_comes_back_with_everything(meet: Meet, room: str, site: Server) -> None:
    ann = meet().enter(name("ann"), room=room).says("before")
    ben = meet().enter(name("ben"), room=room).sees("before")
    ann.says("in that moment")
    site.kill()
    for each in (ann, ben):
        expect(each.banner).to_be_visible()
    ann.says("while it was down", "and again")
    expect(ann.page.locator(".message.pending")).not_to_have_count(0)
    everything = "before", "in that moment", "while it was down", "and again"
    ann.sees(*everything)
    site.restart()
    for each in (ann, ben):
        expect(each.banner).to_be_hidden(timeout=30_000)
        each.sees(*everything)
    expect(ann.page.locator(".pending, .failed")).to_have_count(0)
    ben.says("after")
    ann.sees(*everything, "after")
    # The page shows what the server has, and nothing else.
    ben.page.reload()
    ben.sees(*everything, "after")


def test_a_server_that_takes_its_leave_is_waited_for(meet: Meet, room: str) -> None:
    server = Server.start("runrooms")
    with running(server):
        ann = meet(server)
        closings: list[Any] = []

        def hear(frame: str | bytes) -> None:
            lines = [json.loads(line) for line in str(frame).splitlines()]
            closings.extend(line for line in lines if line["type"] == "closing")

        ann.page.on("websocket", lambda socket: socket.on("framereceived", hear))
        ann.enter(name("ann"), room=room).says("before").sees("before")
        ben = meet(server).enter(name("ben"), room=room).sees("before")
        server.stop()
        for each in (ann, ben):
            expect(each.banner).to_be_visible()
        assert [(closing["code"], closing["retry_in"] >= 0) for closing in closings] == [(4000, True)]
        ann.says("while it was down", "and again")
        server.restart()
        everything = "before", "while it was down", "and again"
        for each in (ann, ben):
            expect(each.banner).to_be_hidden(timeout=30_000)
            each.sees(*everything)
        expect(ann.page.locator(".pending, .failed")).to_have_count(0)
        ben.says("after")
        ann.sees(*everything, "after")


def test_what_people_type_stays_text(meet: Meet) -> None:
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
    mallory = meet().enter(evil_name, room=evil_room).says(*bodies)
    ann_name = name("ann")
    ann = meet().enter(ann_name, room=evil_room).sees(*bodies)
    ann.sees_members(ann_name, evil_name)
    for each in (mallory, ann):
        each.sees(*bodies)
        made_of_text = each.page.locator(".log :is(img, script, iframe, svg), .members img, [onclick]")
        expect(made_of_text).to_have_count(0)
        expect(each.page.locator(".log a")).to_have_attribute("href", "https://example.org/")
    expect(ann.page.locator(".message .name").first).to_have_text(evil_name)


def test_older_messages_come_when_scrolling_up_and_the_place_stays(meet: Meet, room: str) -> None:
    ann = meet()
    ann.open()
    ann.page.evaluate(FILL, ["durable", room, 120])
    ann.enter(name("ann"), room=room)
    expect(ann.words).to_have_count(50)
    expect(ann.words.last).to_be_in_viewport()
    first = ann.page.locator(".message", has_text=re.compile(r"message 71$"))
    first.scroll_into_view_if_needed()
    expect(ann.words).to_have_count(100)
    expect(first).to_be_in_viewport()
    ann.page.get_by_text("message 21", exact=True).scroll_into_view_if_needed()
    ann.sees(*(f"message {number}" for number in range(1, 121)))
    ann.page.get_by_text("This is where the room begins.").scroll_into_view_if_needed()
    # Who reads far above is not dragged down, but told.
    ben = meet().enter(name("ben"), room=room).says("news")
    expect(ben.words.last).to_have_text("news")
    ann.page.get_by_role("button", name="1 new message").click()
    expect(ann.words.last).to_be_in_viewport()


def test_a_room_with_a_password(meet: Meet, room: str) -> None:
    ben = meet().enter(name("ben"))
    ann = meet().enter(name("ann"))
    ann.page.get_by_role("button", name="Open or create a room").click()
    ann.page.get_by_label("Name").fill(room)
    ann.page.get_by_label("Password (optional)").fill("sesame")
    ann.page.get_by_role("button", name="Create", exact=True).click()
    ann.sees_room(room)
    ben.page.get_by_role("button", name=room).click()
    dialog = ben.page.get_by_role("dialog")
    dialog.get_by_label("Password").fill("wrong")
    dialog.get_by_role("button", name="Come in").click()
    expect(dialog.get_by_role("alert")).to_have_text("That is not this room’s password.")
    dialog.get_by_label("Password").fill("sesame")
    dialog.get_by_role("button", name="Come in").click()
    ben.sees_room(room)
    ann.says("Welcome")
    ben.sees("Welcome")


def test_a_message_that_is_refused_can_be_tried_again(meet: Meet, room: str) -> None:
    ann = meet()
    refusals = iter([True])

    def meddle(browser_side: WebSocketRoute) -> None:
        server_side = browser_side.connect_to_server()

        def pass_on(frame: str | bytes) -> None:
            request = json.loads(frame)
            if request["type"] == "message" and next(refusals, False):
                refusal = {"type": "error", "code": "muted", "message": "You are muted.", "retry": False}
                browser_side.send(json.dumps(refusal | {"id": request["id"]}))
            else:
                server_side.send(frame)

        browser_side.on_message(pass_on)

    ann.page.route_web_socket(re.compile("/ws/"), meddle)
    ann.enter(name("ann"), room=room).says("may I?")
    expect(ann.page.locator(".failed")).to_contain_text("Not sent. You are muted.")
    expect(ann.field).to_have_attribute("placeholder", "You are muted.")
    ann.page.get_by_role("button", name="Try again").click()
    expect(ann.page.locator(".pending, .failed")).to_have_count(0)
    ann.sees("may I?")
    expect(ann.field).to_have_attribute("placeholder", f"Write to {room}")


def test_events_of_an_extension(meet: Meet) -> None:
    ann = meet().enter(name("ann"), "quiz")
    ann.page.get_by_role("button", name="Quiz lobby").click()
    state = ann.page.get_by_role("list", name="Current values of this room")
    ann.sees_room("Quiz lobby")
    expect(state).to_contain_text("Write /start to begin a quiz")
    # What is refused stays, to be tried again or thrown away, as any message.
    ann.says("/answer 8")
    expect(ann.page.locator(".failed")).to_contain_text("No question is open.")
    ann.page.get_by_role("button", name="Discard").click()
    expect(ann.page.locator(".failed")).to_have_count(0)
    # What an extension answers stands before what it then says to the room.
    ann.says("/start")
    expect(ann.page.locator(".message").filter(has_text=re.compile("Here we go|Score"))).to_contain_text(
        ["Here we go!", "Score: ann"]
    )
    expect(state.get_by_role("listitem")).to_have_count(3)
    expect(state.get_by_role("listitem").first).to_contain_text("?")
    ann.says("/answer nobody knows")
    expect(ann.page.locator(".message.own").last).to_contain_text("answer nobody knows")
    expect(ann.page.locator(".message.own").last).to_contain_text("No, that is not it.")
    expect(ann.page.locator(".toast")).to_have_count(0)


def test_an_event_that_nobody_takes_is_everybodys(meet: Meet, room: str) -> None:
    ann = meet().enter(name("ann"), room=room)
    ben = meet().enter(name("ben"), room=room)
    ann.says("/bid 7", "/shout loud words")
    for each in (ann, ben):
        expect(each.page.locator(".event-line")).to_have_text(["bid 7", "shout loud words"])
    expect(ann.page.locator(".pending")).to_have_count(0)


def test_a_new_title_is_followed_and_a_new_name_told(meet: Meet, room: str) -> None:
    staff = Staff(meet())
    ann = meet().enter(name("ann"), room=room)
    title = f"Parlour {room}"
    staff.change("room", room, Title=title)
    ann.sees_room(title)
    expect(ann.page.get_by_role("button", name=f"{title}, 1 person")).to_be_visible()
    expect(ann.page).to_have_title(re.compile(f"^{title}"))
    staff.change("room", room, Name=f"{room} again")
    expect(ann.page.locator(".toast").first).to_have_text(
        re.compile(f"{title}: The room is called {room} again now.")
    )


def test_a_room_with_a_new_name_is_entered_again(meet: Meet, room: str) -> None:
    renamed = f"{room} again"
    ben = meet().enter(name("ben"), room=renamed)
    ann = meet()
    browser_sides: list[WebSocketRoute] = []

    def listen_in(browser_side: WebSocketRoute) -> None:
        browser_side.connect_to_server()
        browser_sides.append(browser_side)

    ann.page.route_web_socket(re.compile("/ws/"), listen_in)
    ann.enter(name("ann"), room=room)
    removed = {"type": "removed", "room": room, "reason": "closed", "renamed": renamed}
    browser_sides[-1].send(json.dumps(removed | {"message": f"The room is called {renamed} now."}))
    ann.sees_room(renamed).says("here again")
    ben.sees("here again")


def test_muted_and_banned_people_read_why(meet: Meet) -> None:
    staff = Staff(meet())
    who, room = name("gus"), "lobby"
    gus = meet().enter(who, "chat").open("chat", room=room).sees_room("Lobby")
    staff.restrict("mute", "chat", who, "Too loud")
    gus.says("may I?")
    expect(gus.page.locator(".failed")).to_contain_text("You are muted here: Too loud.")
    expect(gus.field).to_have_attribute("placeholder", "You are muted here: Too loud.")
    staff.restrict("ban", "chat", who, "Too loud still")
    expect(gus.banner).to_contain_text("You are banned")
    expect(gus.field).to_be_disabled()
    gus.page.reload()
    expect(gus.page.get_by_role("alert").first).to_have_text("You are banned here: Too loud still.")


def test_an_application_that_is_closed(meet: Meet) -> None:
    staff = Staff(meet())
    ann = meet().enter(name("ann"), "chat").open("chat", room="help").sees_room("Help")
    ann.field.fill("not sent yet")
    staff.change("application", "chat", Enabled=False)
    expect(ann.banner).to_contain_text("This chat is closed.")
    expect(ann.field).to_be_disabled()
    expect(ann.field).to_have_value("not sent yet")
    staff.change("application", "chat", Enabled=True)
    ann.page.get_by_role("button", name="Try again").click()
    expect(ann.banner).to_be_hidden()
    expect(ann.field).to_be_enabled()


def test_news_of_other_rooms_is_counted(meet: Meet, room: str) -> None:
    other = f"{room} annex"
    ann = meet().enter(name("ann"), room=room).says("stay here")
    ann.page.get_by_role("button", name="Open or create a room").click()
    ann.page.get_by_label("Name").fill(other)
    ann.page.get_by_role("button", name="Create", exact=True).click()
    ann.sees_room(other)
    meet().enter(name("ben"), room=room).says("one", "two")
    button = ann.page.get_by_role("button", name=re.compile(f"^{room}, 2 people, 2 unread$"))
    button.click()
    ann.sees("stay here", "one", "two")
    ann.page.go_back()
    ann.sees_room(other)


def test_the_signed_in_user_goes_straight_in(meet: Meet, room: str, site: Server) -> None:
    who = name("ann").replace(" ", "-")
    code = "from django.contrib.auth.models import User; User.objects.create_user('{}', password='sesame')"
    site.manage("shell", "-c", code.format(who))
    ann = meet()
    ann.page.goto(f"{ann.url}/login/")
    ann.page.get_by_label("Username").fill(who)
    ann.page.get_by_label("Password").fill("sesame")
    ann.page.get_by_role("button", name="Sign in").click()
    expect(ann.page.get_by_role("banner")).to_contain_text(re.compile(rf"{who}\s*·\s*Sign out"))
    ann.open(room=room).sees_room(room).says("It is me")
    ann.sees("It is me").sees_members(who)
    ann.page.get_by_role("button", name="Sign out").click()
    expect(ann.page.get_by_role("link", name="Sign in").first).to_be_visible()


def test_a_guest_who_reloads_is_still_there_and_who_leaves_is_not(meet: Meet, room: str) -> None:
    who = name("ann")
    ann = meet().enter(who, room=room).says("before")
    ann.page.reload()
    ann.sees_room(room).sees("before").sees_members(who)
    expect(ann.page.locator(".message.own .words")).to_have_text(["before"])
    ann.page.get_by_role("button", name="Leave chat").click()
    expect(ann.page.get_by_label("What shall we call you?")).to_be_visible()
    ann.page.reload()
    expect(ann.page.get_by_label("What shall we call you?")).to_be_visible()


def test_a_reload_comes_back_to_every_room(meet: Meet, room: str) -> None:
    other = f"{room} annex"
    ann = meet().enter(name("ann"), room=room)
    ben = meet().enter(name("ben"), room=room)
    ann.page.get_by_role("button", name="Open or create a room").click()
    ann.page.get_by_label("Name").fill(other)
    ann.page.get_by_role("button", name="Create", exact=True).click()
    ann.sees_room(other)
    ann.page.reload()
    ann.sees_room(other)
    expect(ann.page.locator(".room-button.in")).to_have_count(2)
    ben.says("still there?")
    expect(ann.page.get_by_role("button", name=f"{room}, 2 people, 1 unread")).to_be_visible()
    ann.page.get_by_role("button", name="Leave this room").click()
    ann.page.reload()
    expect(ann.page.locator(".room-button.in")).to_have_count(1)


def test_a_name_that_is_taken(meet: Meet, room: str) -> None:
    who = name("ann")
    meet().enter(who, room=room)
    other = meet().open()
    other.page.get_by_label("What shall we call you?").fill(who.upper())
    other.page.get_by_role("button", name="Enter").click()
    expect(other.page.get_by_role("alert").first).to_contain_text("has that name already")
    other.page.get_by_label("What shall we call you?").fill(name("anna"))
    other.page.get_by_role("button", name="Enter").click()
    expect(other.page.get_by_text("Choose a room")).to_be_visible()


def test_a_phone(meet: Meet, room: str) -> None:
    ann = meet(width=320, height=640).enter(name("ann"), room=room)
    ann.says("x" * 300, "https://example.org/" + "y" * 200)
    expect(ann.words).to_have_count(2)
    assert ann.page.evaluate("document.documentElement.scrollWidth") == 320
    rooms = ann.page.get_by_role("navigation", name="Rooms")
    expect(rooms).to_be_hidden()
    ann.page.get_by_role("button", name="Rooms").click()
    expect(rooms).to_be_visible()
    ann.page.keyboard.press("Escape")
    expect(rooms).to_be_hidden()
    expect(ann.page.get_by_role("button", name="Rooms")).to_be_focused()
    ann.page.get_by_role("button", name="Members").click()
    expect(ann.page.locator(".person")).to_be_visible()
