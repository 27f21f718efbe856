"""A client's place in one application, where one socket is in several (``rooms/compat/multiplex.py``)."""

from __future__ import annotations

from rooms.hub.connection import Connection
from rooms.protocol.errors import CloseCode


class SubConnection(Connection):
    """A client's place in one application, where one socket is in several: it tells and ends its
    ``trunk``, the connection that has the socket. Until ``grown`` its end is its own: it was not let in."""

    __slots__ = ("_trunk", "grown")

    def __init__(self, id: str, trunk: Connection, *, application: str) -> None:
        super().__init__(
            id,
            trunk.protocol.for_application(application),
            application=application,
            address=trunk.address,
            limits=trunk._limits,
        )
        self.claims = trunk.claims
        self.shared = None
        self.grown = False
        self._trunk = trunk

    @property
    def socket(self) -> str:
        return self._trunk.id

    def is_slow(self) -> bool:
        return self._trunk.is_slow()

    def is_busy(self) -> bool:
        return self._trunk.is_busy()

    def _is_closing(self) -> bool:
        return super()._is_closing() or self._trunk._is_closing()

    def close(
        self, code: CloseCode, message: str, *, retry_in: float | None = None, discard: bool = False
    ) -> None:
        if not self.grown:
            super().close(code, message, retry_in=retry_in, discard=discard)
            return
        if discard:
            self._corked, self._bytes = None, 0
        else:
            self.uncork()
        self._trunk.close(code, message, retry_in=retry_in, discard=discard)

    def _put(self, frame: bytes) -> None:
        self._trunk._put(frame)

    def _rejoin(self) -> None:
        """What it is told goes between what other branches are told."""
