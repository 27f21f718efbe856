"""The runner of an extension: hooks, errors, settings and timers."""

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
    """Records its calls; ``raises`` is the error of ``on_join``."""

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
def reset_recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorder, "calls", [])
    monkeypatch.setattr(Recorder, "raises", None)


@pytest.fixture
async def runner() -> AsyncIterator[ExtensionRunner]:
    pool = ThreadPool(2, 8)
    runner = ExtensionRunner(SerialExecutor(pool, 20), Mock())
    yield runner
    runner.stop()
    await asyncio.to_thread(pool.close)


async def configure(runner: ExtensionRunner, name: str, **settings: Any) -> None:
    await runner.configure(name, settings, "chat", None)


async def test_without_an_extension_nothing_runs(runner: ExtensionRunner) -> None:
    assert (runner.active, runner.handles("on_join"), runner.find_handler("roll")) == (False, False, None)
    await runner.call("on_join", "event")
    await runner.notify("on_join", "event")


async def test_only_overridden_hooks_run(runner: ExtensionRunner, install_extension: Install) -> None:
    await configure(runner, install_extension(Recorder))
    assert (runner.handles("on_join"), runner.handles("on_message"), runner.active) == (True, False, True)
    await runner.call("on_message", "event")
    await runner.call("on_join", "event")
    await runner.call("on_leave", "event")
    assert Recorder.calls == [("init", 1), ("join", "event"), ("leave", "event")]


async def test_new_settings_are_in_force_at_once_without_a_restart(
    runner: ExtensionRunner, install_extension: Install
) -> None:
    name = install_extension(Recorder)
    await configure(runner, name, size=2)
    roll = runner.find_handler("roll")
    assert roll is not None
    await configure(runner, name, size=3)
    await runner.run(roll, "event")
    assert Recorder.calls == [("init", 2), ("roll", 3)]


async def test_another_extension_or_none_replaces_the_running_one(
    runner: ExtensionRunner, install_extension: Install
) -> None:
    class Other(Extension):
        async def on_join(self, event: Any) -> None:
            Recorder.calls.append(("other", event))

    await configure(runner, install_extension(Recorder))
    await configure(runner, install_extension(Other))
    await runner.call("on_join", 1)
    await configure(runner, "")
    await runner.call("on_join", 2)
    assert Recorder.calls == [("init", 1), ("other", 1)]


async def test_a_missing_extension_is_not_started(
    runner: ExtensionRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner.ensure_ready()
    await configure(runner, "gone.Extension")
    assert (runner.active, runner.not_started) == (False, True)
    with pytest.raises(Unavailable, match="try again"):
        runner.ensure_ready()
    assert "This site has no extension gone.Extension: chat refuses users." in caplog.text
    await configure(runner, "")
    runner.ensure_ready()


@pytest.mark.parametrize("error", [ValueError("no"), Rejected("no"), SystemExit(1)], ids=repr)
async def test_an_extension_that_fails_to_start_is_not_started(
    runner: ExtensionRunner,
    install_extension: Install,
    error: BaseException,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Extension):
        async def init(self) -> None:
            raise error

    await configure(runner, install_extension(Broken))
    assert (runner.active, runner.not_started) == (False, True)
    assert "failed to start: chat refuses users." in caplog.text


async def test_a_starting_extension_is_not_started(
    runner: ExtensionRunner, install_extension: Install
) -> None:
    seen: list[bool] = []

    class Watching(Extension):
        async def init(self) -> None:
            seen.append(runner.not_started)

    await configure(runner, install_extension(Recorder))
    await configure(runner, install_extension(Watching))
    assert (seen, runner.not_started) == ([True], False)


async def test_a_failed_start_is_repeated_with_other_settings_or_after_a_minute(
    runner: ExtensionRunner, install_extension: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=100.0)
    monkeypatch.setattr("rooms.extensions.runner.time", clock)
    starts: list[float] = []
    broken = True

    class Broken(Extension):
        async def init(self) -> None:
            starts.append(clock.now)
            if broken:
                raise ValueError

    name = install_extension(Broken)
    for now in (100, 101, 159.9, 160, 161):
        clock.now = now
        await configure(runner, name, size=1)
    assert starts == [100, 160]
    clock.now = 162
    await configure(runner, name, size=2)
    assert (starts, runner.not_started) == ([100, 160, 162], True)
    # A change of the extension meanwhile starts it without delay.
    await configure(runner, "")
    broken = False
    await configure(runner, name, size=2)
    assert (starts, runner.not_started, runner.active) == ([100, 160, 162, 162], False, True)


async def test_a_refusal_is_raised_and_not_logged_as_an_error(
    runner: ExtensionRunner, install_extension: Install
) -> None:
    await configure(runner, install_extension(Recorder))
    Recorder.raises = Rejected("Not you.")
    with pytest.raises(Rejected, match="Not you"):
        await runner.call("on_join", "event")
    assert Recorder.calls[-1] == ("join", "event")


@pytest.mark.parametrize("error", [ValueError("why"), SystemExit(1), asyncio.CancelledError()], ids=repr)
async def test_an_error_is_logged_and_passed_to_on_error(
    runner: ExtensionRunner,
    install_extension: Install,
    error: BaseException,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await configure(runner, install_extension(Recorder))
    Recorder.raises = error
    with pytest.raises(HandlerFailed):
        await runner.call("on_join", "event")
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
async def test_the_log_names_the_origin_of_the_event(
    runner: ExtensionRunner,
    install_extension: Install,
    event: Any,
    origin: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await configure(runner, install_extension(Recorder))
    Recorder.raises = ValueError()
    await runner.notify("on_join", event)
    assert f"on_join of extension {runner._name} failed{origin}\n" in caplog.text


async def test_an_error_in_on_error_is_logged(
    runner: ExtensionRunner, install_extension: Install, caplog: pytest.LogCaptureFixture
) -> None:
    class Hopeless(Extension):
        async def on_join(self, event: Any) -> None:
            raise ValueError

        async def on_error(self, event: object, error: BaseException) -> None:
            raise RecursionError

    await configure(runner, install_extension(Hopeless))
    with pytest.raises(HandlerFailed):
        await runner.call("on_join", "event")
    assert "on_error of extension" in caplog.text


@pytest.mark.parametrize("error", [ValueError("why"), Rejected("no")], ids=repr)
async def test_notify_does_not_raise_errors_of_the_hook(
    runner: ExtensionRunner, install_extension: Install, error: BaseException
) -> None:
    await configure(runner, install_extension(Recorder))
    Recorder.raises = error
    await runner.notify("on_join", "event")


async def test_the_extension_of_an_application_runs_in_the_executor_of_the_room(
    runner: ExtensionRunner, install_extension: Install
) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    class Slow(Extension):
        async def on_join(self, event: Any) -> None:
            entered.set()
            await release.wait()

    await configure(runner, install_extension(Slow))
    room, other = SerialExecutor(ThreadPool(1, 1), 20), SerialExecutor(ThreadPool(1, 1), 20)
    first = asyncio.ensure_future(runner.call("on_join", 1, executor=room))
    await entered.wait()
    entered.clear()
    # An event of another room runs at the same time.
    second = asyncio.ensure_future(runner.call("on_join", 2, executor=other))
    async with asyncio.timeout(60):
        await entered.wait()
    release.set()
    await asyncio.gather(first, second)


async def test_a_notification_waits_longer_than_a_call(
    install_extension: Install,
) -> None:
    pool = ThreadPool(2, 8)
    runner = ExtensionRunner(SerialExecutor(pool, 0.01), Mock())
    entered, release = asyncio.Event(), asyncio.Event()
    await configure(runner, install_extension(Recorder))
    # It starts in time and ignores its own timeout.
    busy = asyncio.ensure_future(runner.executor.run(_stubborn, entered, release))
    await entered.wait()
    notified = asyncio.ensure_future(runner.notify("on_join", "late"))
    with pytest.raises(Unavailable):
        await runner.call("on_join", "asked")
    release.set()
    with pytest.raises(HandlerFailed):
        await busy
    await notified
    assert Recorder.calls == [("init", 1), ("join", "late")]
    await asyncio.to_thread(pool.close)


async def _stubborn(entered: asyncio.Event, release: asyncio.Event) -> None:
    entered.set()
    while not release.is_set():
        try:
            await release.wait()
        except asyncio.CancelledError:
            continue


# Timers ------------------------------------------------------------------------------------------


class Ticking(Extension):
    """Counts its timeouts; ``fails`` makes each raise an error."""

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
async def test_on_timeout_is_repeated_until_the_runner_stops(
    runner: ExtensionRunner, install_extension: Install, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ticking, "ticks", [])
    monkeypatch.setattr(Ticking, "fails", fails)
    monkeypatch.setattr(Ticking, "enough", asyncio.Event(), raising=False)
    await configure(runner, install_extension(Ticking))
    async with asyncio.timeout(60):
        await Ticking.enough.wait()
    runner.stop()
    await asyncio.gather(*runner._timeouts)
    count = len(Ticking.ticks)
    await runner.executor.run(int)
    assert len(Ticking.ticks) == count
    assert runner._timer is None or runner._timer.cancelled()


class Patient(Extension):
    """Has a timeout of an hour until a test sets another."""

    timeout: float | None = 3600
    started: ClassVar[Patient]
    called: ClassVar[asyncio.Event]

    async def init(self) -> None:
        type(self).started = self

    async def on_timeout(self) -> None:
        self.called.set()


@pytest.fixture
async def patient(
    runner: ExtensionRunner, install_extension: Install, monkeypatch: pytest.MonkeyPatch
) -> Patient:
    monkeypatch.setattr(Patient, "called", asyncio.Event(), raising=False)
    await configure(runner, install_extension(Patient))
    return Patient.started


@pytest.mark.parametrize("in_a_thread", [False, True])
async def test_a_timeout_that_is_set_is_in_force_at_once(patient: Patient, in_a_thread: bool) -> None:
    if in_a_thread:
        await asyncio.to_thread(setattr, patient, "timeout", 0.001)
    else:
        patient.timeout = 0.001
    async with asyncio.timeout(60):
        await Patient.called.wait()


async def test_setting_the_timeout_restarts_the_timer_and_none_stops_it(
    runner: ExtensionRunner, patient: Patient
) -> None:
    first = runner._timer
    assert first is not None
    patient.timeout = 3600
    await runner.executor.run(int)
    second = runner._timer
    assert second is not None
    assert (first.cancelled(), second.when() > first.when()) == (True, True)
    patient.timeout = None
    await runner.executor.run(int)
    assert second.cancelled()
    assert runner._timer is second


async def test_on_timeout_does_not_overlap_itself(
    runner: ExtensionRunner, install_extension: Install
) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    class Slow(Extension):
        timeout = 0.001
        at_once = 0

        async def on_timeout(self) -> None:
            type(self).at_once += 1
            assert self.at_once == 1
            # While this call is running.
            self.timeout = 0.001
            entered.set()
            await release.wait()
            type(self).at_once -= 1
            self.timeout = None

    await configure(runner, install_extension(Slow))
    await entered.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(runner._timeouts) == 1
    release.set()
    await asyncio.gather(*runner._timeouts)
    assert Slow.at_once == 0


@pytest.mark.parametrize("hook", ["on_connect", "on_receive", "on_disconnect"])
async def test_with_on_receive_activity_restarts_the_timer(
    runner: ExtensionRunner, install_extension: Install, hook: str
) -> None:
    waits: list[Any] = []

    class Quiet(Extension):
        async def on_receive(self, event: Any) -> None:
            waits.append(runner._timer)

        async def on_timeout(self) -> None: ...

    await configure(runner, install_extension(Quiet))
    first = runner._timer
    assert first is not None
    assert round(first.when() - asyncio.get_running_loop().time()) == 60
    assert runner.handles(hook)
    await runner.notify(hook, "event")
    second = runner._timer
    assert second is not None
    assert (first.cancelled(), second.cancelled(), second.when() > first.when()) == (True, False, True)
    # While it is handled, no timer runs.
    assert waits == ([first] if hook == "on_receive" else [])


async def test_without_on_receive_activity_does_not_restart_the_timer(
    runner: ExtensionRunner, patient: Patient
) -> None:
    first = runner._timer
    assert not runner.handles("on_connect")
    await runner.notify("on_connect", "event")
    assert runner._timer is first


async def test_no_timer_runs_during_activity(runner: ExtensionRunner, install_extension: Install) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    class Busy(Extension):
        async def on_receive(self, event: Any) -> None:
            if event == "last":
                entered.set()
                await release.wait()

        async def on_timeout(self) -> None: ...

    await configure(runner, install_extension(Busy))
    notified = [asyncio.ensure_future(runner.notify("on_receive", event)) for event in ("first", "last")]
    await entered.wait()
    await notified[0]
    assert runner._timer is not None
    assert runner._timer.cancelled()
    release.set()
    await notified[1]
    assert not runner._timer.cancelled()


async def test_the_node_is_informed_when_an_extension_stops(
    runner: ExtensionRunner, install_extension: Install
) -> None:
    class Broken(Extension):
        async def init(self) -> None:
            raise ValueError

    stopped: Any = runner._services.extension_stopped
    await configure(runner, install_extension(Recorder))
    running = runner._extension
    stopped.assert_not_called()
    await configure(runner, install_extension(Broken))
    assert [type(call.args[0]) for call in stopped.call_args_list] == [Recorder, Broken]
    assert stopped.call_args_list[0].args[0] is running
