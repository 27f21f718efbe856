"""Runs the extension of one application or room: handlers, errors, timer.

Each loaded application and room has an ``ExtensionRunner``, with at most one instance of an extension.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from rooms.concurrency.serial_executor import HandlerFailed, SerialExecutor
from rooms.extensions import Extension, RoomContext, registry
from rooms.extensions.contexts import ExtensionServices
from rooms.protocol.errors import RoomsError, Unavailable

logger = logging.getLogger("rooms.extensions")

# No client waits for a notification, and it is lost when it times out in the queue: so it may wait longer.
NOTIFY_QUEUE_TIMEOUT = 60.0
# With the same settings, an extension that failed to start is started again after this time.
RESTART_INTERVAL = 60.0
# Events that restart the timer of an extension with ``on_receive``, as in gowsev.
ACTIVITY_HOOKS = frozenset({"on_connect", "on_receive", "on_disconnect"})


class ExtensionRunner:
    """The extension of one application or room, its executor and its timer."""

    def __init__(self, executor: SerialExecutor, services: ExtensionServices) -> None:
        self.executor = executor
        self._services = services
        self._extension: Extension | None = None
        # Whether an extension is running.
        self.active = False
        self._name = ""
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._timeouts: set[asyncio.Task[None]] = set()
        # The number of calls of ACTIVITY_HOOKS that are queued or running.
        self._activities = 0
        # The settings with which it failed to start, and the time of the next attempt with the same.
        self._failed_settings: dict[str, Any] | None = None
        self._restart_at = 0.0

    async def configure(
        self, name: str, settings: dict[str, Any], application: str, room: RoomContext | None
    ) -> None:
        """Start the extension of that name; if it is running, replace its settings.

        An extension that is missing or fails to start leaves ``not_started`` true. Each call tries again,
        with the same settings once in RESTART_INTERVAL.
        """
        if name == self._name and self._extension is not None:
            self._extension.settings = await self._read(type(self._extension), settings)
            return
        unchanged = name == self._name and settings == self._failed_settings
        if unchanged and time.monotonic() < self._restart_at:
            return
        self.stop()
        self._extension, self.active = None, False
        self._name, self._failed_settings = name, None
        if not name:
            return
        extension = await self._start(settings, application, room)
        if extension is None:
            self._failed_settings, self._restart_at = settings, time.monotonic() + RESTART_INTERVAL
            return
        self._extension, self.active, self._stopped = extension, True, False
        self._start_timer()

    async def _start(
        self, settings: dict[str, Any], application: str, room: RoomContext | None
    ) -> Extension | None:
        """Instantiate the extension and call ``init``; None where that fails."""
        owner = application if room is None else f"{application}/{room.name}"
        kind = registry.find(self._name)
        if kind is None:
            logger.error("This site has no extension %s: %s refuses users.", self._name, owner)
            return None
        extension = None
        try:
            extension = kind(application, room, await self._read(kind, settings))
            # A handler may set the timeout in a thread.
            set_timer = partial(asyncio.get_running_loop().call_soon_threadsafe, self._start_timer)
            extension.attach(self._services, on_timeout_set=set_timer)
            await self.executor.run(extension.init)
        except Exception as error:
            cause = error.cause if isinstance(error, HandlerFailed) else error
            logger.error("Extension %s failed to start: %s refuses users.", self._name, owner, exc_info=cause)
            self._detach(extension)
            return None
        return extension

    @property
    def not_started(self) -> bool:
        """Whether an extension is chosen, but not running; its checks must hold."""
        return self._extension is None and bool(self._name)

    def ensure_ready(self) -> None:
        """Raise Unavailable while the chosen extension is not running."""
        if self.not_started:
            raise Unavailable("The extension is not started; try again in a moment.")

    def handles(self, hook: str) -> bool:
        """Return whether ``call`` would run the hook or restart the timer."""
        extension = self._extension
        return extension is not None and (hook in extension.overridden or self._restarts_timer(hook))

    def _restarts_timer(self, hook: str) -> bool:
        extension = self._extension
        return (
            hook in ACTIVITY_HOOKS
            and extension is not None
            and {"on_receive", "on_timeout"} <= extension.overridden
        )

    def find_handler(self, event: str) -> Callable[..., Any] | None:
        """Return the handler of messages with this event, if there is one."""
        if self._extension is None or (method := self._extension.handlers.get(event)) is None:
            return None
        handler: Callable[..., Any] = getattr(self._extension, method)
        return handler

    async def call(
        self, hook: str, event: object, *, executor: SerialExecutor | None = None, wait: float | None = None
    ) -> None:
        """Call a hook, in ``executor`` or in its own.

        The event of a room runs in the executor of that room. Raises the RoomsError of the handler, and
        HandlerFailed, already logged, for any other error.
        """
        if not self.handles(hook):
            return
        with self._activity() if self._restarts_timer(hook) else nullcontext():
            await self.run(getattr(self._extension, hook), event, executor=executor, wait=wait)

    async def run(
        self,
        handler: Callable[..., Any],
        *event: object,
        executor: SerialExecutor | None = None,
        wait: float | None = None,
    ) -> None:
        """Run a handler of the extension. Raises the same as ``call``."""
        try:
            await (executor or self.executor).run(handler, *event, wait=wait)
        except HandlerFailed as failure:
            await self._report(handler, event, failure.cause)
            raise

    async def notify(self, hook: str, event: object, *, executor: SerialExecutor | None = None) -> None:
        """Call a hook that cannot refuse; its errors are logged and not raised."""
        try:
            await self.call(hook, event, executor=executor, wait=NOTIFY_QUEUE_TIMEOUT)
        except RoomsError as error:
            if not isinstance(error, HandlerFailed):
                logger.warning("%s of %s cannot refuse, but raised: %s", hook, self._name, error.message)

    def stop(self) -> None:
        """Stop the timer and outbound connections; running handlers end by themselves."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._detach(self._extension)

    def _detach(self, extension: Extension | None) -> None:
        if extension is not None:
            extension.detach()
            self._services.extension_stopped(extension)

    async def _read(self, kind: type[Extension], settings: dict[str, Any]) -> Mapping[str, Any]:
        # In a thread, because a form may query the database.
        return await self.executor.pool.run(registry.read_settings, kind, settings)

    async def _report(
        self, handler: Callable[..., Any], event: tuple[object, ...], cause: BaseException
    ) -> None:
        logger.error(
            "%s of extension %s failed%s",
            handler.__name__,
            self._name,
            _origin(event[0]) if event else "",
            exc_info=cause,
        )
        if self.handles("on_error") and self._extension is not None:
            try:
                await self.executor.run(self._extension.on_error, event[0] if event else None, cause)
            except RoomsError:
                logger.exception("on_error of extension %s failed", self._name)

    @contextmanager
    def _activity(self) -> Iterator[None]:
        self._activities += 1
        self._start_timer()
        try:
            yield
        finally:
            self._activities -= 1
            self._start_timer()

    def _start_timer(self) -> None:
        """Restart the timer of ``on_timeout``, which does not run during activity."""
        if self._timer is not None:
            self._timer.cancel()
        timeout = self._extension.timeout if self._extension else None
        # The end of a running ``on_timeout`` or of an activity starts it.
        busy = self._timeouts or self._activities
        if timeout is None or self._stopped or busy or not self.handles("on_timeout"):
            return
        self._timer = asyncio.get_running_loop().call_later(timeout, self._timed_out)

    def _timed_out(self) -> None:
        if self._extension is not None:
            task = asyncio.create_task(self._call_timeout(self._extension))
            self._timeouts.add(task)
            task.add_done_callback(self._timeout_ended)

    async def _call_timeout(self, extension: Extension) -> None:
        try:
            await self.run(extension.on_timeout)
        except RoomsError:
            logger.debug("on_timeout of %s failed; the next call follows after its timeout", self._name)

    def _timeout_ended(self, task: asyncio.Task[None]) -> None:
        self._timeouts.discard(task)
        self._start_timer()


def _origin(event: object) -> str:
    """Describe the origin of an event for the log: a handshake has an address only."""
    for attribute, noun in (("connection_id", "connection"), ("address", "address")):
        if value := getattr(event, attribute, ""):
            return f" ({noun} {value})"
    return ""
