"""Calling extensions: the room's before its application's, each in its place and isolated.

Every live application and room has a ``Hooks`` with at most one instance of an extension in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rooms.engine.lanes import HandlerFailed, Lane
from rooms.errors import RoomsError
from rooms.extensions import Extension, RoomContext, registry
from rooms.extensions.contexts import Services

logger = logging.getLogger("rooms.extensions")

# Nobody waits for an answer to what an extension is only told, and it is lost when its turn does not come:
# so it may come late.
TELL_SECONDS = 60.0


class Hooks:
    """The extension of one application or room in this process, its lane and its timer."""

    def __init__(self, lane: Lane, services: Services) -> None:
        self.lane = lane
        self._services = services
        self._extension: Extension | None = None
        self._name = ""
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._timeouts: set[asyncio.Task[None]] = set()

    async def use(
        self, name: str, settings: dict[str, Any], application: str, room: RoomContext | None
    ) -> None:
        """Have this extension with these settings from now on. The same extension stays as it is
        and gets the new settings; one that is gone or cannot begin leaves the place without."""
        if name == self._name and self._extension is not None:
            self._extension.settings = await self._read(type(self._extension), settings)
            return
        self.stop()
        self._extension, self._name = None, name
        if not name:
            return
        kind = registry.find(name)
        if kind is None:
            logger.error("There is no extension %s; %s goes on without.", name, room or application)
            return
        extension = None
        try:
            extension = kind(application, room, await self._read(kind, settings))
            # A handler may set it in a thread.
            set_timer = partial(asyncio.get_running_loop().call_soon_threadsafe, self._start_timer)
            extension.attach(self._services, timeout_set=set_timer)
            await self.lane.run(extension.init)
        except Exception as error:
            cause = error.cause if isinstance(error, HandlerFailed) else error
            logger.error("Extension %s could not begin in %s", name, room or application, exc_info=cause)
            self._end(extension)
            return
        self._extension, self._stopped = extension, False
        self._start_timer()

    @property
    def active(self) -> bool:
        return self._extension is not None

    def has(self, hook: str) -> bool:
        """Whether anything would run: no lane is entered for nothing."""
        return self._extension is not None and hook in self._extension.overridden

    def taker(self, event: str) -> Callable[..., Any] | None:
        """The handler that takes messages of this name."""
        if self._extension is None or (method := self._extension.takers.get(event)) is None:
            return None
        handler: Callable[..., Any] = getattr(self._extension, method)
        return handler

    async def call(
        self, hook: str, event: object, *, lane: Lane | None = None, wait: float | None = None
    ) -> None:
        """Call a hook, in the room's lane where a room's event reaches its application.

        Raises RoomsError as the handler does, HandlerFailed where it broke (logged already).
        """
        if self.has(hook):
            await self.run(getattr(self._extension, hook), event, lane=lane, wait=wait)

    async def run(
        self,
        handler: Callable[..., Any],
        *event: object,
        lane: Lane | None = None,
        wait: float | None = None,
    ) -> None:
        try:
            await (lane or self.lane).run(handler, *event, wait=wait)
        except HandlerFailed as failure:
            await self._failed(handler, event, failure.cause)
            raise

    async def tell(self, hook: str, event: object, *, lane: Lane | None = None) -> None:
        """Call a hook that cannot refuse; whatever it raises stays here."""
        try:
            await self.call(hook, event, lane=lane, wait=TELL_SECONDS)
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
            self._services.ended(extension)

    async def _read(self, kind: type[Extension], settings: dict[str, Any]) -> Mapping[str, Any]:
        # In a thread, because a form may ask the database.
        return await self.lane.pool.run(registry.read_settings, kind, settings)

    async def _failed(
        self, handler: Callable[..., Any], event: tuple[object, ...], cause: BaseException
    ) -> None:
        where = getattr(event[0], "connection", "") if event else ""
        logger.error(
            "%s of extension %s failed (connection %s)", handler.__name__, self._name, where, exc_info=cause
        )
        if self.has("on_error") and self._extension is not None:
            try:
                await self.lane.run(self._extension.on_error, event[0] if event else None, cause)
            except RoomsError:
                logger.exception("on_error of extension %s failed", self._name)

    def _start_timer(self) -> None:
        """Call ``on_timeout`` after ``timeout`` seconds from now."""
        if self._timer is not None:
            self._timer.cancel()
        timeout = self._extension.timeout if self._extension else None
        # One that is just being called is followed by the next when it has ended.
        if timeout is None or self._stopped or self._timeouts or not self.has("on_timeout"):
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
