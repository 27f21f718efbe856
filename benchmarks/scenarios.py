"""The scenarios that are measured, as options of the generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: The default: scenarios measure the cost of one delivery.
PER_DELIVERY = "CPU µs a delivery"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """``options`` are for the generator; ``members`` may be reduced.

    Names in braces in the ``title`` are keys of a report.
    """

    name: str
    title: str
    scenario: str = "fanout"
    members: int = 1000
    scaled: bool = True
    options: Mapping[str, int | bool]
    cost: str = PER_DELIVERY
    is_stored: bool = False

    def arguments(self, members: int, seconds: float) -> list[str]:
        """Return the command line of the generator, with at most this number of members."""
        clients = min(self.members, members) if self.scaled else self.members
        given = {"scenario": self.scenario, "clients": clients, "seconds": seconds, **self.options}
        if self.scenario == "rooms":
            given["rooms"] = max(1, clients // 2)
        if self.scenario == "connect":
            given["clients"] = 2 * clients
        return [
            text
            for name, value in given.items()
            for text in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
        ]


SCENARIOS = {
    each.name: each
    for each in (
        Scenario(
            name="fanout-8",
            title="One room of {clients}, eight messages in flight",
            options={"window": 8, "senders": 8},
        ),
        Scenario(
            name="fanout-1", title="One room of {clients}, one message at a time", options={"window": 1}
        ),
        Scenario(
            name="paced-60",
            title="{rate} messages a second to {clients} members",
            options={"rate": 60, "senders": 50},
        ),
        Scenario(
            name="paced-400",
            title="{rate} messages a second offered to {clients} members",
            options={"rate": 400, "senders": 50},
        ),
        Scenario(
            name="rooms",
            title="{rooms} rooms of 2 to 10 members, one message in flight in each",
            scenario="rooms",
            options={},
        ),
        Scenario(
            name="echo",
            title="{clients} clients, each with one request in flight, answered to that client alone",
            scenario="echo",
            members=100,
            options={},
            cost="CPU µs a request",
        ),
        Scenario(
            name="connect",
            title="{clients} clients join one room, 50 at a time, and stay",
            scenario="connect",
            options={"settle": 2},
            cost="CPU µs a client",
        ),
        Scenario(
            name="handshake",
            title="{clients} clients only connect, 50 at a time, and stay for a moment",
            scenario="connect",
            options={"settle": 2, "bare": True},
            cost="CPU µs a client",
        ),
        Scenario(
            name="unstalled",
            title="One room of {clients}, eight messages of {bytes} bytes in flight",
            members=100,
            options={"window": 8, "senders": 8, "bytes": 1000},
        ),
        Scenario(
            name="stalled",
            title="One room of {clients}, one never reads, eight messages of {bytes} bytes in flight",
            members=100,
            options={"window": 8, "senders": 8, "bytes": 1000, "stalled": True},
        ),
        Scenario(
            name="durable",
            title="Stored and acknowledged: a room of {clients}, each with {window} messages in flight",
            scenario="durable",
            members=20,
            scaled=False,
            options={"window": 8},
            cost="CPU µs a message",
            is_stored=True,
        ),
    )
}
