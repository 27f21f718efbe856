"""The oracle finds a broken promise: it rejects each of four broken servers, and no correct one.

Each scenario aims at one promise; it runs on the server that breaks it, and on a correct one.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest

from tests.chaos.checker import Kind, check
from tests.chaos.clients import Sender, Witness
from tests.chaos.driver import all_received
from tests.chaos.layers import Faults
from tests.chaos.logs import Logs
from tests.chaos.sites import BACKENDS, Site
from tests.chaos.variants import VARIANTS
from tests.reconnecting import Frame
from tests.servers import on_postgres

pytestmark = pytest.mark.skipif(on_postgres(), reason="the same on every database: runs on SQLite")

#: A correct server needs seconds, a broken one does not get there.
TIMEOUT = 60.0
SHORT_TIMEOUT = 6.0


class LosesReplies(Sender):
    """Drops the connection before the reply to each message, once a message."""

    lost = 0

    def _answer(self, frame: Frame) -> None:
        if frame["type"] == "reply" and "seq" in frame["data"] and self.lost < self.number:
            self.lost += 1
            self.drop()
            return
        super()._answer(frame)


@dataclass
class Stage:
    """A site and a room with its two members, each on a process of its own if there are two."""

    site: Site
    room: str
    sender: Sender
    receiver: Witness
    seconds: float

    async def all_received(self) -> None:
        """Wait until the receiver has all acknowledged messages, or the timeout."""
        logs = self.sender.logs
        newest = {self.room: max(each.seq for each in logs.acknowledged)}
        await all_received([self.receiver], newest, self.seconds)
        logs.in_time = {self.receiver.name: dict(self.receiver.newest)}


async def servers_die_after_acknowledgements(stage: Stage) -> None:
    for _ in range(5):
        await stage.sender.send_next(stage.room)
    for server in stage.site.servers:
        server.end(signal.SIGKILL)


async def replies_get_lost(stage: Stage) -> None:
    for _ in range(5):
        await stage.sender.send_next(stage.room)
    await stage.all_received()


async def the_last_message_is_not_passed_on(stage: Stage) -> None:
    await stage.sender.send_next(stage.room)
    await stage.all_received()
    Faults(lost=1).begin(stage.site.faults)
    await stage.sender.send_next(stage.room)
    await stage.all_received()


async def every_other_message_is_not_passed_on(stage: Stage) -> None:
    await stage.sender.send_next(stage.room)
    await stage.all_received()
    Faults(lost=0.5).begin(stage.site.faults)
    for _ in range(40):
        await stage.sender.send_next(stage.room)
    stage.site.faults.unlink()
    await stage.sender.send_next(stage.room)
    await stage.all_received()


@dataclass(frozen=True)
class Scenario:
    """A scenario, the variant at which it aims, and the kind of the violation that it causes."""

    run: Callable[[Stage], Awaitable[None]]
    variant: str
    kind: Kind
    workers: int
    sender: type[Sender] = Sender


SCENARIOS = [
    Scenario(replies_get_lost, "knows_no_keys", "doubled", 1, LosesReplies),
    Scenario(the_last_message_is_not_passed_on, "checks_no_positions", "lost", 2),
    Scenario(every_other_message_is_not_passed_on, "fetches_no_gaps", "lost", 2),
    Scenario(servers_die_after_acknowledgements, "acknowledges_before_the_commit", "lost", 1),
]
EACH_SCENARIO = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.variant)


async def run(scenario: Scenario, site: Site, seconds: float) -> Logs:
    """Run a scenario on a site and return its logs."""
    logs, room = Logs(), f"room-{uuid4().hex[:8]}"
    seed = scenario.variant
    sender = scenario.sender(site.addresses[:1], f"sender-{room}", logs, seed)
    receiver = Witness(site.addresses[-1:], f"receiver-{room}", logs, seed)
    for each in (sender, receiver):
        await each.start()
        await each.join(room)
    stage = Stage(site, room, sender, receiver, seconds)
    await asyncio.wait_for(asyncio.ensure_future(scenario.run(stage)), 2 * TIMEOUT)
    for each in (sender, receiver):
        await each.stop()
    site.faults.unlink(missing_ok=True)
    logs.stored, logs.newest = site.stored([room])
    return logs


@asynccontextmanager
async def started(workers: int, variant: str = "") -> AsyncIterator[Site]:
    site = Site(BACKENDS["sqlite"], workers, variant=variant)
    try:
        await site.start()
        yield site
    finally:
        site.stop()


def test_every_variant_has_its_scenario() -> None:
    assert {scenario.variant for scenario in SCENARIOS} == set(VARIANTS)


@EACH_SCENARIO
async def test_a_correct_server_passes(scenario: Scenario) -> None:
    async with started(workers=2) as site:
        assert check(await run(scenario, site, TIMEOUT)) == []


@EACH_SCENARIO
async def test_a_broken_server_is_found(scenario: Scenario) -> None:
    async with started(scenario.workers, scenario.variant) as site:
        found = check(await run(scenario, site, SHORT_TIMEOUT))
    assert scenario.kind in {violation.kind for violation in found}
