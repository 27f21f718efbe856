"""The oracle finds what it is for: four servers that break a promise each are caught, a whole one is not.

Each scenario is aimed at one promise, and is carried out on the server that breaks it and on a whole one.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

import pytest

from tests.chaos.checker import Kind, check
from tests.chaos.driver import everyone_knows
from tests.chaos.layers import Faults
from tests.chaos.logs import Logs
from tests.chaos.people import Sender, Witness
from tests.chaos.sites import GROUNDS, Site
from tests.chaos.variants import VARIANTS
from tests.reconnecting import Frame
from tests.servers import on_postgres

pytestmark = pytest.mark.skipif(on_postgres(), reason="the same on every database: it runs on SQLite")

#: What a whole server does soon, and a broken one never.
PATIENCE = 60.0
SHORT_PATIENCE = 10.0


class Unanswered(Sender):
    """The answer to each message gets lost once, with the connection."""

    lost = 0

    def _answer(self, frame: Frame) -> None:
        if frame["type"] == "reply" and "seq" in frame["data"] and self.lost < self.number:
            self.lost += 1
            self.drop()
            return
        super()._answer(frame)


@dataclass
class Stage:
    """A site, a room of one scenario in it, and the two who are there: each in a process of its own, where
    there are two."""

    site: Site
    room: str
    speaker: Sender
    listener: Witness
    patience: float

    async def heard(self) -> None:
        """Wait until the listener has heard all that was acknowledged, or it is too late."""
        logs = self.speaker.logs
        newest = {self.room: max(each.seq for each in logs.acknowledged)}
        await everyone_knows([self.listener], newest, self.patience)
        logs.in_time = {self.listener.name: dict(self.listener.heard)}


async def dies_after_acknowledging(stage: Stage) -> None:
    for _ in range(5):
        await stage.speaker.say(stage.room)
    for server in stage.site.servers:
        server.end(signal.SIGKILL)


async def answers_get_lost(stage: Stage) -> None:
    for _ in range(5):
        await stage.speaker.say(stage.room)
    await stage.heard()


async def the_last_word_is_not_passed_on(stage: Stage) -> None:
    await stage.speaker.say(stage.room)
    await stage.heard()
    Faults(lost=1).begin(stage.site.faults)
    await stage.speaker.say(stage.room)
    await stage.heard()


async def every_other_word_is_not_passed_on(stage: Stage) -> None:
    await stage.speaker.say(stage.room)
    await stage.heard()
    Faults(lost=0.5).begin(stage.site.faults)
    for _ in range(40):
        await stage.speaker.say(stage.room)
    stage.site.faults.unlink()
    await stage.speaker.say(stage.room)
    await stage.heard()


@dataclass(frozen=True)
class Scenario:
    """What happens, which variant it is aimed at, and as what the oracle finds that one."""

    happens: Callable[[Stage], Awaitable[None]]
    variant: str
    kind: Kind
    workers: int
    speaker: type[Sender] = Sender


SCENARIOS = [
    Scenario(answers_get_lost, "knows_no_keys", "doubled", 1, Unanswered),
    Scenario(the_last_word_is_not_passed_on, "checks_no_positions", "lost", 2),
    Scenario(every_other_word_is_not_passed_on, "fetches_no_gaps", "lost", 2),
    # The last one: afterwards the servers are gone.
    Scenario(dies_after_acknowledging, "acknowledges_before_the_commit", "lost", 1),
]


async def carried_out(scenario: Scenario, site: Site, patience: float) -> Logs:
    """A scenario on a site, and what is left behind."""
    logs, room = Logs(), f"room-{uuid4().hex[:8]}"
    seed = scenario.variant
    speaker = scenario.speaker(site.addresses[:1], f"speaker-{room}", logs, seed)
    listener = Witness(site.addresses[-1:], f"listener-{room}", logs, seed)
    for each in (speaker, listener):
        await each.start()
        await each.join(room)
    stage = Stage(site, room, speaker, listener, patience)
    await asyncio.wait_for(asyncio.ensure_future(scenario.happens(stage)), 2 * PATIENCE)
    for each in (speaker, listener):
        await each.stop()
    site.faults.unlink(missing_ok=True)
    logs.stored, logs.newest = site.log([room])
    return logs


def test_every_variant_has_its_scenario() -> None:
    assert {scenario.variant for scenario in SCENARIOS} == set(VARIANTS)


async def test_a_whole_server_passes_every_scenario() -> None:
    site = Site(GROUNDS["sqlite"], workers=2)
    try:
        await site.start()
        for scenario in SCENARIOS:
            assert check(await carried_out(scenario, site, PATIENCE)) == [], scenario.variant
    finally:
        site.stop()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.variant)
async def test_a_broken_server_is_caught(scenario: Scenario) -> None:
    site = Site(GROUNDS["sqlite"], scenario.workers, variant=scenario.variant)
    try:
        await site.start()
        found = check(await carried_out(scenario, site, SHORT_PATIENCE))
    finally:
        site.stop()
    assert scenario.kind in {violation.kind for violation in found}
