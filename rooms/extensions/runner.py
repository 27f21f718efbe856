"""Calling extensions: the room's before its application's, each in its place and isolated.

Every live application and room has a ``Hooks`` with at most one instance of an extension in it.
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

# Nobody waits for an answer to what an extension is only told, and it is lost when its turn does not come:
# so it may come late.
TELL_SECONDS = 60.0
# An extension that could not begin is tried again after so many seconds at the earliest.
AGAIN_SECONDS = 60.0
# What gowsev's time-out waits for: an extension that takes frames hears of the time without any of these.
HAPPENINGS = frozenset({"on_connect", "on_receive", "on_disconnect"})


class ExtensionRunner:
    """The extension of one application or room in this process, its lane and its timer."""

    def __init__(self, executor: SerialExecutor, services: ExtensionServices) -> None:
        self.executor = executor
        self._services = services
        self._extension: Extension | None = None
        self._name = ""
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._timeouts: set[asyncio.Task[None]] = set()
        # How many of HAPPENINGS wait or are being handled.
        self._happening = 0
        # The settings with which it could not begin, and when it may try again with the same.
        self._failed_with: dict[str, Any] | None = None
        self._again = 0.0

    async def configure(
        self, name: str, settings: dict[str, Any], application: str, room: RoomContext | None
    ) -> None:
        """Have this extension with these settings from now on. The same extension stays as it is and
        gets the new settings. One that is missing or cannot begin leaves the place shut, until it begins:
        that is tried again whenever this is called, with the same settings once a minute."""
        if name == self._name and self._extension is not None:
            self._extension.settings = await self._read(type(self._extension), settings)
            return
        again = name == self._name and settings == self._failed_with
        if again and time.monotonic() < self._again:
            return
        self.stop()
        self._extension, self._name, self._failed_with = None, name, None
        if not name:
            return
        extension = await self._begun(settings, application, room)
        if extension is None:
            self._failed_with, self._again = settings, time.monotonic() + AGAIN_SECONDS
            return
        self._extension, self._stopped = extension, False
        self._start_timer()

    async def _begun(
        self, settings: dict[str, Any], application: str, room: RoomContext | None
    ) -> Extension | None:
        """The chosen extension, which has begun; None where it is missing or cannot begin."""
        place = room or application
        kind = registry.find(self._name)
        if kind is None:
            logger.error("There is no extension %s; until there is, nobody enters %s.", self._name, place)
            return None
        extension = None
        try:
            extension = kind(application, room, await self._read(kind, settings))
            # A handler may set it in a thread.
            set_timer = partial(asyncio.get_running_loop().call_soon_threadsafe, self._start_timer)
            extension.attach(self._services, timeout_set=set_timer)
            await self.executor.run(extension.init)
        except Exception as error:
            cause = error.cause if isinstance(error, HandlerFailed) else error
            logger.error(
                "Extension %s could not begin; until it does, nobody enters %s.",
                self._name,
                place,
                exc_info=cause,
            )
            self._end(extension)
            return None
        return extension

    @property
    def active(self) -> bool:
        return self._extension is not None

    @property
    def not_started(self) -> bool:
        """An extension is chosen, but has not begun: nobody is to get past what it would ask."""
        return self._extension is None and bool(self._name)

    def ensure_ready(self) -> None:
        """Raises Unavailable where the place is shut."""
        if self.not_started:
            raise Unavailable("This place is not ready; try again in a moment.")

    def handles(self, hook: str) -> bool:
        """Whether anything would run: no lane is entered for nothing."""
        return self._extension is not None and (hook in self._extension.overridden or self._disturbs(hook))

    def _disturbs(self, hook: str) -> bool:
        """Whether the time-out is waited for anew when that has happened."""
        kind = self._extension
        return hook in HAPPENINGS and kind is not None and {"on_receive", "on_timeout"} <= kind.overridden

    def find_handler(self, event: str) -> Callable[..., Any] | None:
        """The handler that takes messages of this name."""
        if self._extension is None or (method := self._extension.handlers.get(event)) is None:
            return None
        handler: Callable[..., Any] = getattr(self._extension, method)
        return handler

    async def call(
        self, hook: str, event: object, *, executor: SerialExecutor | None = None, wait: float | None = None
    ) -> None:
        """Call a hook, in the room's lane where a room's event reaches its application.

        Raises RoomsError as the handler does, HandlerFailed where it broke (logged already).
        """
        if not self.handles(hook):
            return
        with self._happens() if self._disturbs(hook) else nullcontext():
            await self.run(getattr(self._extension, hook), event, executor=executor, wait=wait)

    async def run(
        self,
        handler: Callable[..., Any],
        *event: object,
        executor: SerialExecutor | None = None,
        wait: float | None = None,
    ) -> None:
        try:
            await (executor or self.executor).run(handler, *event, wait=wait)
        except HandlerFailed as failure:
            await self._failed(handler, event, failure.cause)
            raise

    async def notify(self, hook: str, event: object, *, executor: SerialExecutor | None = None) -> None:
        """Call a hook that cannot refuse; whatever it raises stays here."""
        try:
            await self.call(hook, event, executor=executor, wait=TELL_SECONDS)
        except RoomsError as error:
            if not isinstance(error, HandlerFailed):
                logger.warning("%s of %s has no say, but raised: %s", hook, self._name, error.message)

    def stop(self) -> None:
        """No more timeouts and dialled services; what has been begun ends as it would."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._end(self._extension)

    def _end(self, extension: Extension | None) -> None:
        if extension is not None:
            extension.detach()
            self._services.extension_stopped(extension)

    async def _read(self, kind: type[Extension], settings: dict[str, Any]) -> Mapping[str, Any]:
        # In a thread, because a form may ask the database.
        return await self.executor.pool.run(registry.read_settings, kind, settings)

    async def _failed(
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
    def _happens(self) -> Iterator[None]:
        self._happening += 1
        self._start_timer()
        try:
            yield
        finally:
            self._happening -= 1
            self._start_timer()

    def _start_timer(self) -> None:
        """Call ``on_timeout`` after ``timeout`` seconds from now, or from the end of what is happening."""
        if self._timer is not None:
            self._timer.cancel()
        timeout = self._extension.timeout if self._extension else None
        # One that is just being called is followed by the next when it has ended.
        waits = self._timeouts or self._happening
        if timeout is None or self._stopped or waits or not self.handles("on_timeout"):
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
            logger.debug("on_timeout of %s failed; it is called again in time", self._name)

    def _timeout_ended(self, task: asyncio.Task[None]) -> None:
        self._timeouts.discard(task)
        self._start_timer()


def _origin(event: object) -> str:
    """Where an event came from, for the log; of a handshake there is no connection yet."""
    for attribute, noun in (("connection_id", "connection"), ("address", "address")):
        if value := getattr(event, attribute, ""):
            return f" ({noun} {value})"
    return ""
