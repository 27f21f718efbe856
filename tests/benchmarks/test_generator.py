"""The benchmarks' generator counts right, and notices what a server does wrong; their page is filled."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from benchmarks import load, results
from benchmarks.scenarios import SCENARIOS
from tests import services
from tests.servers import Server, running

SHORT = ("--clients", "20", "--settle", "0", "--warm", "0.1", "--seconds", "0.3", "--patience", "1")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    @services.real_part
    def built() -> Path:
        try:
            return load.build(tmp_path_factory.mktemp("generator"))
        except load.NoCompiler as error:
            raise services.Unavailable(str(error)) from error

    return built()


def test_what_a_room_of_twenty_hears_is_counted(program: Path) -> None:
    server = Server.start("runrooms")
    with running(server):
        spoken = load.run(
            program, "native", server.port, [server.pid], [*SHORT, "--window", "2", "--senders", "4"]
        )
        stored = load.run(program, "durable", server.port, [server.pid], [*SHORT, "--scenario", "durable"])
    for report in (spoken, stored):
        assert (report["fault"], report["connected"], report["missing"]) == (None, 20, 0)
        assert report["deliveries"] > 0
        assert report["cpu_us"] > 0
    # But for what is under way at either end of the time that is measured.
    assert abs(spoken["deliveries"] - 20 * spoken["messages"]) <= 2 * 20
    assert abs(stored["deliveries"] - stored["messages"]) <= 20


class Unreliable:
    """A server of the protocol `json` that sends one member's seventh message otherwise than the rest."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.members: list[ServerConnection] = []
        self.received: Counter[ServerConnection] = Counter()

    async def serve(self, socket: ServerConnection) -> None:
        async for text in socket:
            if json.loads(text)["type"] == "join":
                self.members.append(socket)
                await socket.send('{"type":"joined"}')
                continue
            for member in self.members:
                for part in self.parts(member, str(text)):
                    await member.send(part)

    def parts(self, member: ServerConnection, text: str) -> list[str | list[str]]:
        self.received[member] += 1
        if self.received[member] != 7 or member is not self.members[3]:
            return [text]
        ways: dict[str, list[str | list[str]]] = {
            "well": [text],
            "in fragments": [[text[:60], text[60:90], text[90:]]],
            "twice": [text, text],
            "never": [],
            "half": [text[:60]],
        }
        return ways[self.how]


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ("well", None),
        ("in fragments", None),
        ("twice", "heard something twice"),
        ("never", "1 deliveries or answers are missing"),
        ("half", "1 deliveries or answers are missing"),
    ],
)
async def test_a_message_that_comes_twice_not_at_all_or_in_half_is_a_fault(
    program: Path, how: str, fault: str | None
) -> None:
    async with serve(Unreliable(how).serve, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        report = await asyncio.to_thread(load.run, program, "json", port, [], SHORT)
    assert fault in report["fault"] if fault else report["fault"] is None
    assert report["torn"] == int(how == "half")


def report(**figures: Any) -> dict[str, Any]:
    return {"fault": None, "clients": 1000, "p50_ms": 1, "p99_ms": 2, "cores": 1, **figures}


def test_the_page_is_filled_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "performance.md"
    before, _, _ = results.PAGE.read_text().partition(results.BEGIN)
    page.write_text(results.PAGE.read_text())
    for name, path in (
        ("PAGE", page),
        ("LATEST", tmp_path / "latest.json"),
        ("PICTURE", tmp_path / "made.svg"),
    ):
        monkeypatch.setattr(results, name, path)
    costs = {"rooms": (1.0, 2.0, 1.5), "socketio": (10.0, 40.0, 10.0)}
    reports = {
        ("fanout-8", peer): [report(cpu_us=cost, deliveries_per_second=1e6 / cost) for cost in each]
        for peer, each in costs.items()
    }
    reports["fanout-8", "socketio"].append({"fault": "it does not start"})
    titles = {"rooms": "Rooms", "socketio": "Socket.IO"}
    found = results.Result(reports=reports, titles=titles, left_out={"ws": "node"}, about={"Date": "today"})
    for _ in range(2):
        results.write(found)
    text = page.read_text()
    assert text.startswith(before)
    assert text.count("| today |") == 1
    assert "One room of 1000, eight messages in flight" in text
    # Ratios are of rounds that were run together: 0.1, 0.05 and 0.15.
    assert "| Socket.IO (1 of 4 rounds failed) | 100,000 | 10.0 (10.0–40.0) | 0.10 |" in text
    assert "| Socket.IO | ≤ 0.12 | 0.10 (0.050–0.15) | yes |" in text
    assert "ws (node)" in text
    assert (tmp_path / "made.svg").read_text().count("<circle") == len(titles)
    page.write_text("no marks")
    with pytest.raises(ValueError, match=r"^Expected the marks .+ in performance\.md"):
        results.write(found)


def test_every_scenario_is_one_of_the_generators(program: Path) -> None:
    """On a port without a server: the generator refuses an unknown scenario before it connects."""
    port = services.free_port()
    for scenario, members in itertools.product(SCENARIOS.values(), (20, 1000)):
        protocol = "durable" if scenario.is_stored else "native"
        refused = load.run(program, protocol, port, [], scenario.arguments(members, 0.1))
        assert refused["fault"].startswith("client 0 cannot connect"), scenario.name
