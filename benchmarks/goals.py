"""The performance goals of Rooms, and whether a run reached them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.figures import Figures, Spread, cost_of

Found = Callable[[Figures], Spread | None]


@dataclass(frozen=True, slots=True)
class Goal:
    """``limit`` is the maximum of the figure, or its minimum if ``is_least``."""

    work: str
    against: str
    limit: float
    found: Found
    is_least: bool = False

    def reached(self, figures: Figures) -> tuple[Spread, bool] | None:
        """Return the figure and whether it reaches the goal; None if it was not measured."""
        found = self.found(figures)
        if found is None:
            return None
        return found, found.median >= self.limit if self.is_least else found.median <= self.limit


def cost(scenario: str, theirs: str, ours: str = "rooms", their_scenario: str = "") -> Found:
    """The cost of a delivery relative to that of another server."""
    other = their_scenario or scenario
    return lambda figures: figures.ratio((scenario, ours, cost_of(scenario)), (other, theirs, cost_of(other)))


def figure(scenario: str, name: str, peer: str = "rooms") -> Found:
    """An absolute figure of Rooms."""
    return lambda figures: figures.spread(scenario, peer, name)


def best_tutorial(server: str) -> Found:
    """The cost relative to the tutorial's chat on the layer that suits it best."""

    def found(figures: Figures) -> Spread | None:
        ratios = [
            cost("fanout-8", f"tutorial-{server}-{layer}", f"rooms-{server}")(figures)
            for layer in ("memory", "redis")
        ]
        return max((each for each in ratios if each is not None), key=lambda each: each.median, default=None)

    return found


def goals() -> Iterator[Goal]:
    """Yield the goals in the order of the table.

    `--also` must use these names for the Go servers.
    """
    work = "Fan-out to 1000, eight messages in flight: CPU"
    for peer, limit in (("roomer", 0.2), ("gowsev", 0.15), ("rtbroadcaster", 0.35), ("socketio", 0.12)):
        yield Goal(work, peer, limit, cost("fanout-8", peer))
    for peer, limit in (("roomer", 0.9), ("gowsev", 0.95), ("socketio", 0.65)):
        yield Goal("Fan-out to 1000, one message at a time: CPU", peer, limit, cost("fanout-1", peer))
    yield Goal("60 messages a second to 1000: CPU", "roomer", 0.75, cost("paced-60", "roomer"))
    work = "400 messages a second offered to 1000"
    yield Goal(
        work, "deliveries a second", 398_000, figure("paced-400", "deliveries_per_second"), is_least=True
    )
    yield Goal(work, "p99 in ms", 30, figure("paced-400", "p99_ms"))
    yield Goal(work, "cores", 1, figure("paced-400", "cores"))
    for peer, limit in (("roomer", 1.0), ("socketio", 0.5)):
        yield Goal("500 rooms of 2 to 10: CPU", peer, limit, cost("rooms", peer))
    for server in ("daphne", "uvicorn"):
        yield Goal(
            "Fan-out to 1000, eight in flight: CPU",
            f"Channels tutorial, {server}",
            1 / 40,
            best_tutorial(server),
        )
    for peer in ("roomer", "gowsev"):
        yield Goal("A request and its reply: CPU", peer, 1, cost("echo", peer))
    yield Goal(
        "Connect, log in, join: CPU", "gowsev's handshake", 3, cost("connect", "gowsev", "rooms", "handshake")
    )
    work = "Idle memory a client, logged in, in one room"
    yield Goal(work, "kB", 16, figure("connect", "connection_kb"))
    yield Goal(
        work,
        "gowsev's handshake",
        0.8,
        lambda figures: figures.ratio(
            ("connect", "rooms", "connection_kb"), ("handshake", "gowsev", "connection_kb")
        ),
    )
    yield Goal(
        "Two processes and Redis, eight in flight: CPU",
        "one process",
        1.3,
        cost("fanout-8", "rooms", "rooms-2"),
    )
    work = "Stored and acknowledged"
    stored = "deliveries_per_second"
    yield Goal(work, "a second, SQLite", 5000, figure("durable", stored), is_least=True)
    yield Goal(work, "a second, PostgreSQL", 3000, figure("durable", stored, "rooms-postgres"), is_least=True)
    yield Goal(
        "A member that never reads: throughput",
        "the same without that member",
        0.9,
        lambda figures: figures.ratio(("stalled", "rooms", stored), ("unstalled", "rooms", stored)),
        is_least=True,
    )
