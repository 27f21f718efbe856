"""Calling extensions: which hooks run, what becomes of their errors, settings and timers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import Mock

import pytest
from django import forms

from rooms.concurrency.serial_executor import HandlerFailed, SerialExecutor
from rooms.concurrency.thread_pool import ThreadPool
from rooms.extensions import Extension, message
from rooms.extensions.runner import ExtensionRunner
from rooms.protocol.errors import Rejected, Unavailable

Install = Callable[[type[Extension]], str]


class Recorder(Extension):
    """Notes what it is called with; ``raises`` says what it does about it."""

    class Settings(forms.Form):
        size = forms.IntegerField(initial=1)

    calls: ClassVar[list[Any]] = []
    raises: ClassVar[BaseException | None] = None

    async def init(self) -> None:
        self.calls.append(("init", self.settings["size"]))

    async def on_join(self, event: Any) -> None:
        self.calls.append(("join", event))
        if self.raises:
            raise self.raises

    def on_leave(self, event: Any) -> None:  # type: ignore[override]
        self.calls.append(("leave", event))

    async def on_error(self, event: object, error: BaseException) -> None:
        self.calls.append(("error", event, error))

    @message("roll")
    async def roll(self, event: Any) -> None:
        self.calls.append(("roll", self.settings["size"]))


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorder, "calls", [])
    monkeypatch.setattr(Recorder, "raises", None)


@pytest.fixture
async def hooks() -> AsyncIterator[ExtensionRunner]:
    pool = ThreadPool(2, 8)
    hooks = ExtensionRunner(SerialExecutor(pool, 20), Mock())
    yield hooks
    hooks.stop()
    await asyncio.to_thread(pool.close)


async def use(hooks: ExtensionRunner, name: str, **settings: Any) -> None:
    await hooks.configure(name, settings, "chat", None)


async def test_without_an_extension_nothing_runs(hooks: ExtensionRunner) -> None:
    assert (hooks.active, hooks.handles("on_join"), hooks.find_handler("roll")) == (False, False, None)
    await hooks.call("on_join", "event")
    await hooks.notify("on_join", "event")


async def test_only_overridden_hooks_run(hooks: ExtensionRunner, installed: Install) -> None:
    await use(hooks, installed(Recorder))
    assert (hooks.handles("on_join"), hooks.handles("on_message"), hooks.active) == (True, False, True)
    await hooks.call("on_message", "event")
    await hooks.call("on_join", "event")
    await hooks.call("on_leave", "event")
    assert Recorder.calls == [("init", 1), ("join", "event"), ("leave", "event")]


async def test_settings_are_in_force_at_once_without_a_new_beginning(
    hooks: ExtensionRunner, installed: Install
) -> None:
    name = installed(Recorder)
    await use(hooks, name, size=2)
    roll = hooks.find_handler("roll")
    assert roll is not None
    await use(hooks, name, size=3)
    await hooks.run(roll, "event")
    assert Recorder.calls == [("init", 2), ("roll", 3)]


async def test_another_extension_begins_anew_and_none_ends_it(
    hooks: ExtensionRunner, installed: Install
) -> None:
    class Other(Extension):
        async def on_join(self, event: Any) -> None:
            Recorder.calls.append(("other", event))

    await use(hooks, installed(Recorder))
    await use(hooks, installed(Other))
    await hooks.call("on_join", 1)
    await use(hooks, "")
    await hooks.call("on_join", 2)
    assert Recorder.calls == [("init", 1), ("other", 1)]


async def test_one_that_is_gone_leaves_the_place_shut(
    hooks: ExtensionRunner, caplog: pytest.LogCaptureFixture
) -> None:
    hooks.ensure_ready()
    await use(hooks, "gone.Extension")
    assert (hooks.active, hooks.not_started) == (False, True)
    with pytest.raises(Unavailable, match="try again"):
        hooks.ensure_ready()
    assert "There is no extension gone.Extension; until there is, nobody enters chat." in caplog.text
    await use(hooks, "")
    hooks.ensure_ready()


@pytest.mark.parametrize("error", [ValueError("no"), Rejected("no"), SystemExit(1)], ids=repr)
async def test_one_that_cannot_begin_leaves_the_place_shut(
    hooks: ExtensionRunner, installed: Install, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Extension):
        async def init(self) -> None:
            raise error

    await use(hooks, installed(Broken))
    assert (hooks.active, hooks.not_started) == (False, True)
    assert "could not begin; until it does, nobody enters chat." in caplog.text


async def test_one_that_is_just_beginning_leaves_the_place_shut(
    hooks: ExtensionRunner, installed: Install
) -> None:
    seen: list[bool] = []

    class Watching(Extension):
        async def init(self) -> None:
            seen.append(hooks.not_started)

    await use(hooks, installed(Recorder))
    await use(hooks, installed(Watching))
    assert (seen, hooks.not_started) == ([True], False)


async def test_one_that_could_not_begin_is_tried_again_with_other_settings_or_after_a_minute(
    hooks: ExtensionRunner, installed: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=100.0)
    monkeypatch.setattr("rooms.extensions.runner.time", clock)
    tried: list[float] = []
    broken = True

    class Broken(Extension):
        async def init(self) -> None:
            tried.append(clock.now)
            if broken:
                raise ValueError

    name = installed(Broken)
    for now in (100, 101, 159.9, 160, 161):
        clock.now = now
        await use(hooks, name, size=1)
    assert tried == [100, 160]
    clock.now = 162
    await use(hooks, name, size=2)
    assert (tried, hooks.not_started) == ([100, 160, 162], True)
    # Another that was chosen meanwhile, or none, is no reason to wait.
    await use(hooks, "")
    broken = False
    await use(hooks, name, size=2)
    assert (tried, hooks.not_started, hooks.active) == ([100, 160, 162, 162], False, True)


async def test_a_refusal_passes_and_is_no_error(hooks: ExtensionRunner, installed: Install) -> None:
    await use(hooks, installed(Recorder))
    Recorder.raises = Rejected("Not you.")
    with pytest.raises(Rejected, match="Not you"):
        await hooks.call("on_join", "event")
    assert Recorder.calls[-1] == ("join", "event")


@pytest.mark.parametrize("error", [ValueError("why"), SystemExit(1), asyncio.CancelledError()], ids=repr)
async def test_what_breaks_is_told_to_the_log_and_to_on_error(
    hooks: ExtensionRunner, installed: Install, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    await use(hooks, installed(Recorder))
    Recorder.raises = error
    with pytest.raises(HandlerFailed):
        await hooks.call("on_join", "event")
    assert Recorder.calls[-1] == ("error", "event", error)
    assert "on_join of extension" in caplog.text


@pytest.mark.parametrize(
    ("event", "origin"),
    [
        (SimpleNamespace(connection_id="7", address="10.0.0.1"), " (connection 7)"),
        (SimpleNamespace(address="10.0.0.1"), " (address 10.0.0.1)"),
        (SimpleNamespace(), ""),
    ],
)
async def test_the_log_says_where_it_came_from(
    hooks: ExtensionRunner, installed: Install, event: Any, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    await use(hooks, installed(Recorder))
    Recorder.raises = ValueError()
    await hooks.notify("on_join", event)
    assert f"on_join of extension {hooks._name} failed{origin}\n" in caplog.text


async def test_an_on_error_that_breaks_too_is_logged(
    hooks: ExtensionRunner, installed: Install, caplog: pytest.LogCaptureFixture
) -> None:
    class Hopeless(Extension):
        async def on_join(self, event: Any) -> None:
            raise ValueError

        async def on_error(self, event: object, error: BaseException) -> None:
            raise RecursionError

    await use(hooks, installed(Hopeless))
    with pytest.raises(HandlerFailed):
        await hooks.call("on_join", "event")
    assert "on_error of extension" in caplog.text


@pytest.mark.parametrize("error", [ValueError("why"), Rejected("no say")], ids=repr)
async def test_a_hook_without_a_say_keeps_its_errors(
    hooks: ExtensionRunner, installed: Install, error: BaseException
) -> None:
    await use(hooks, installed(Recorder))
    Recorder.raises = error
    await hooks.notify("on_join", "event")


async def test_a_rooms_event_reaches_its_application_in_the_rooms_lane(
    hooks: ExtensionRunner, installed: Install
) -> None:
    inside, release = asyncio.Event(), asyncio.Event()

    class Slow(Extension):
        async def on_join(self, event: Any) -> None:
            inside.set()
            await release.wait()

    await use(hooks, installed(Slow))
    room, other = SerialExecutor(ThreadPool(1, 1), 20), SerialExecutor(ThreadPool(1, 1), 20)
    first = asyncio.ensure_future(hooks.call("on_join", 1, executor=room))
    await inside.wait()
    inside.clear()
    # Another room of the application is not held up.
    second = asyncio.ensure_future(hooks.call("on_join", 2, executor=other))
    async with asyncio.timeout(20):
        await inside.wait()
    release.set()
    await asyncio.gather(first, second)


async def test_what_an_extension_is_only_told_may_come_late(
    installed: Install,
) -> None:
    pool = ThreadPool(2, 8)
    hooks = ExtensionRunner(SerialExecutor(pool, 0.01), Mock())
    inside, go_on = asyncio.Event(), asyncio.Event()
    await use(hooks, installed(Recorder))
    # It has begun in time and takes no notice of its own limit.
    busy = asyncio.ensure_future(hooks.executor.run(_stubborn, inside, go_on))
    await inside.wait()
    told = asyncio.ensure_future(hooks.notify("on_join", "late"))
    with pytest.raises(Unavailable):
        await hooks.call("on_join", "asked")
    go_on.set()
    with pytest.raises(HandlerFailed):
        await busy
    await told
    assert Recorder.calls == [("init", 1), ("join", "late")]
    await asyncio.to_thread(pool.close)


async def _stubborn(inside: asyncio.Event, go_on: asyncio.Event) -> None:
    inside.set()
    while not go_on.is_set():
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            continue


# Timers ------------------------------------------------------------------------------------------


class Ticking(Extension):
    """Called again and again; ``fails`` says whether it breaks."""

    timeout = 0.001
    ticks: ClassVar[list[int]] = []
    enough: ClassVar[asyncio.Event]
    fails: ClassVar[bool] = False

    async def on_timeout(self) -> None:
        self.ticks.append(1)
        if len(self.ticks) == 3:
            self.enough.set()
        if self.fails:
            raise ValueError


@pytest.mark.parametrize("fails", [False, True])
async def test_a_timeout_comes_again_and_again_until_it_is_stopped(
    hooks: ExtensionRunner, installed: Install, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ticking, "ticks", [])
    monkeypatch.setattr(Ticking, "fails", fails)
    monkeypatch.setattr(Ticking, "enough", asyncio.Event(), raising=False)
    await use(hooks, installed(Ticking))
    async with asyncio.timeout(20):
        await Ticking.enough.wait()
    hooks.stop()
    await asyncio.gather(*hooks._timeouts)
    count = len(Ticking.ticks)
    await hooks.executor.run(int)
    assert len(Ticking.ticks) == count
    assert hooks._timer is None or hooks._timer.cancelled()


class Patient(Extension):
    """Waits an hour, unless it is told otherwise."""

    timeout: float | None = 3600
    begun: ClassVar[Patient]
    called: ClassVar[asyncio.Event]

    async def init(self) -> None:
        type(self).begun = self

    async def on_timeout(self) -> None:
        self.called.set()


@pytest.fixture
async def patient(hooks: ExtensionRunner, installed: Install, monkeypatch: pytest.MonkeyPatch) -> Patient:
    monkeypatch.setattr(Patient, "called", asyncio.Event(), raising=False)
    await use(hooks, installed(Patient))
    return Patient.begun


@pytest.mark.parametrize("in_a_thread", [False, True])
async def test_a_timeout_that_is_set_holds_at_once(patient: Patient, in_a_thread: bool) -> None:
    if in_a_thread:
        await asyncio.to_thread(setattr, patient, "timeout", 0.001)
    else:
        patient.timeout = 0.001
    async with asyncio.timeout(20):
        await Patient.called.wait()


async def test_setting_the_timeout_begins_the_wait_anew_and_none_ends_it(
    hooks: ExtensionRunner, patient: Patient
) -> None:
    first = hooks._timer
    assert first is not None
    patient.timeout = 3600
    await hooks.executor.run(int)
    second = hooks._timer
    assert second is not None
    assert (first.cancelled(), second.when() > first.when()) == (True, True)
    patient.timeout = None
    await hooks.executor.run(int)
    assert second.cancelled()
    assert hooks._timer is second


async def test_a_timeout_that_is_being_handled_is_not_called_a_second_time(
    hooks: ExtensionRunner, installed: Install
) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Extension):
        timeout = 0.001
        at_once = 0

        async def on_timeout(self) -> None:
            type(self).at_once += 1
            assert self.at_once == 1
            # While this is still going on.
            self.timeout = 0.001
            inside.set()
            await go_on.wait()
            type(self).at_once -= 1
            self.timeout = None

    await use(hooks, installed(Slow))
    await inside.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(hooks._timeouts) == 1
    go_on.set()
    await asyncio.gather(*hooks._timeouts)
    assert Slow.at_once == 0


@pytest.mark.parametrize("hook", ["on_connect", "on_receive", "on_disconnect"])
async def test_who_takes_frames_waits_anew_whenever_something_has_happened(
    hooks: ExtensionRunner, installed: Install, hook: str
) -> None:
    waits: list[Any] = []

    class Quiet(Extension):
        async def on_receive(self, event: Any) -> None:
            waits.append(hooks._timer)

        async def on_timeout(self) -> None: ...

    await use(hooks, installed(Quiet))
    first = hooks._timer
    assert first is not None
    assert round(first.when() - asyncio.get_running_loop().time()) == 60
    assert hooks.handles(hook)
    await hooks.notify(hook, "event")
    second = hooks._timer
    assert second is not None
    assert (first.cancelled(), second.cancelled(), second.when() > first.when()) == (True, False, True)
    # While it is handled nothing is waited for.
    assert waits == ([first] if hook == "on_receive" else [])


async def test_who_takes_no_frames_is_called_in_time_whatever_happens(
    hooks: ExtensionRunner, patient: Patient
) -> None:
    first = hooks._timer
    assert not hooks.handles("on_connect")
    await hooks.notify("on_connect", "event")
    assert hooks._timer is first


async def test_as_long_as_anything_happens_nothing_is_waited_for(
    hooks: ExtensionRunner, installed: Install
) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    class Busy(Extension):
        async def on_receive(self, event: Any) -> None:
            if event == "last":
                inside.set()
                await go_on.wait()

        async def on_timeout(self) -> None: ...

    await use(hooks, installed(Busy))
    told = [asyncio.ensure_future(hooks.notify("on_receive", event)) for event in ("first", "last")]
    await inside.wait()
    await told[0]
    assert hooks._timer is not None
    assert hooks._timer.cancelled()
    go_on.set()
    await told[1]
    assert not hooks._timer.cancelled()


async def test_the_engine_hears_of_the_end_of_an_extension(
    hooks: ExtensionRunner, installed: Install
) -> None:
    class Broken(Extension):
        async def init(self) -> None:
            raise ValueError

    ended: Any = hooks._services.extension_stopped
    await use(hooks, installed(Recorder))
    running = hooks._extension
    ended.assert_not_called()
    await use(hooks, installed(Broken))
    assert [type(call.args[0]) for call in ended.call_args_list] == [Recorder, Broken]
    assert ended.call_args_list[0].args[0] is running
