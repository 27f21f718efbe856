"""One run: people speak and listen, nemeses do their work, then it grows quiet, and everything is noted.

``run`` returns the logs and the figures; ``checker.py`` judges them.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from tests.chaos.logs import ClientMessage, Logs, Outage
from tests.chaos.nemeses import LayerDeaf, Nemesis, RedisDies, nemeses_of
from tests.chaos.people import Flapping, Sender, Slow, Witness, pause
from tests.chaos.sites import Site
from tests.reconnecting import Ended, Lost, RequestRejected

BUSY = tuple(f"busy-{number}" for number in range(1, 6))
QUIET = "quiet"
STAGE = "stage"
ROOMS = (*BUSY, QUIET, STAGE)

#: What must come after the end is waited for so long; then the checker says what is missing.
PATIENCE = 60.0
#: Ghosts of killed workers go by then.
GHOST_PATIENCE = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How large a run is. ``nemeses`` are done once each, in some order; none named: again and again,
    whatever suits the site, until everything has been said. ``rate``: messages a second, all together."""

    seed: str
    messages: int
    senders: int = 20
    readers: int = 50
    slow: int = 10
    flapping: int = 10
    rate: float = 400
    quiet_seconds: float = 15
    nemeses: Sequence[Callable[[Site, random.Random], Nemesis]] = ()
    pauses: tuple[float, float] = (1, 4)


@dataclass(slots=True)
class Run:
    """A run under way, and what is known of it afterwards."""

    site: Site
    plan: Plan
    logs: Logs = field(default_factory=Logs)
    done: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)
    """What the nemeses did, and when."""
    people: list[Witness] = field(default_factory=list)
    began: float = field(default_factory=monotonic)
    seconds: float = 0

    def tell(self, what: str) -> None:
        """Note that something begins now."""
        self.story.append(f"{monotonic() - self.began:6.1f} {what}")

    @property
    def reconnects(self) -> int:
        return sum(each.reconnects for each in self.people)

    @property
    def resets(self) -> int:
        return sum(len(each.resets) for each in self.people)

    @property
    def catch_ups(self) -> list[float]:
        """Seconds from a loss until all rooms were joined again, of those who did not want to be away."""
        return sorted(
            second for each in self.people if not isinstance(each, Flapping) for second in each.catch_ups
        )


async def run(site: Site, plan: Plan) -> Run:
    """Carry out the plan on a site that has been started."""
    this = Run(site, plan)
    chance = random.Random(plan.seed)
    owner, senders = await _senders(this)
    readers = await _readers(this)
    leavers = readers[-2:]
    flapping = [asyncio.create_task(each.flap()) for each in readers if isinstance(each, Flapping)]
    try:
        await _traffic(this, chance, owner, senders, leavers)
    finally:
        for task in flapping:
            task.cancel()
    there = [each for each in this.people if each not in leavers]
    this.tell("everybody comes in again")
    await _spread(this, there)
    this.tell("the quiet tail")
    await _quiet_tail(this, chance, owner, senders, there)
    this.tell("who is there")
    await _presence(this, there)
    for each in there:
        each.stay()
    this.seconds = monotonic() - this.began
    for each in this.people:
        await each.stop()
    this.logs.stored, this.logs.newest = await asyncio.to_thread(site.log, ROOMS)
    return this


# People ---------------------------------------------------------------------------------------------


async def _come(this: Run, who: Witness, rooms: Sequence[str]) -> None:
    this.people.append(who)
    await who.start()
    for room in rooms:
        await who.join(room)


async def _senders(this: Run) -> tuple[Sender, list[Sender]]:
    """The one who owns the stage and speaks in the quiet room, and those who speak in the busy ones."""

    def sender(name: str) -> Sender:
        return Sender(this.site.addresses, name, this.logs, this.plan.seed)

    owner = sender("owner")
    await _come(this, owner, ())
    await owner.request("create", room=STAGE, mode="broadcast")
    for room in (STAGE, QUIET):
        await owner.join(room)
    senders = [sender(f"sender-{number}") for number in range(this.plan.senders)]
    await asyncio.gather(*(_come(this, each, rooms_of(place)) for place, each in enumerate(senders)))
    return owner, senders


def rooms_of(place: int) -> tuple[str, str]:
    """The two busy rooms of a sender."""
    return BUSY[place % len(BUSY)], BUSY[(place + 1) % len(BUSY)]


async def _readers(this: Run) -> list[Witness]:
    """Everybody listens to one busy room, the quiet one and the stage."""
    plan, addresses = this.plan, this.site.addresses
    readers: list[Witness] = []
    for place in range(plan.readers):
        if place < plan.slow:
            readers.append(Slow(addresses, f"slow-{place}", this.logs, plan.seed))
        elif place < plan.slow + plan.flapping:
            readers.append(Flapping(addresses, f"flapping-{place}", this.logs, plan.seed))
        else:
            readers.append(Witness(addresses, f"reader-{place}", this.logs, plan.seed))
    await asyncio.gather(
        *(_come(this, each, (BUSY[place % len(BUSY)], QUIET, STAGE)) for place, each in enumerate(readers))
    )
    return readers


# Traffic --------------------------------------------------------------------------------------------


async def _traffic(
    this: Run, chance: random.Random, owner: Sender, senders: Sequence[Sender], leavers: Sequence[Witness]
) -> None:
    plan = this.plan
    enough = asyncio.Event()
    tormenting = asyncio.create_task(_torment(this, chance, enough))

    def wanted() -> bool:
        unfinished = bool(plan.nemeses) and not tormenting.done()
        return unfinished or len(this.logs.sent) < plan.messages

    def still() -> bool:
        return not enough.is_set()

    try:
        async with asyncio.TaskGroup() as alone:
            alone.create_task(owner.speak([QUIET], still, plan.quiet_seconds, enough))
            alone.create_task(owner.speak([STAGE], still, max(0.2, 20 / plan.rate), enough))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_leave(this, leavers))
                for place, each in enumerate(senders):
                    seconds = len(senders) / plan.rate
                    tasks.create_task(each.speak(rooms_of(place), wanted, seconds, enough))
            enough.set()
    finally:
        enough.set()
        await tormenting


async def _leave(this: Run, leavers: Sequence[Witness]) -> None:
    """One goes with a word, one without; both for good."""
    await leavers[0].until(lambda: len(this.logs.sent) >= this.plan.messages / 4)
    for room in list(leavers[0].heard):
        await leavers[0].leave(room)
    leavers[1].drop()
    for each in leavers:
        await each.stop()


async def _torment(this: Run, chance: random.Random, stopped: asyncio.Event) -> None:
    """One nemesis after the other, until the plan is carried out or everything has been said."""
    left = list(this.plan.nemeses)
    chance.shuffle(left)
    choices = nemeses_of(this.site)
    await pause(stopped, 2)
    while not stopped.is_set() and (left or not this.plan.nemeses):
        nemesis = (left.pop() if left else chance.choice(choices))(this.site, chance)
        this.done[nemesis.name] += 1
        async with under_way(this, nemesis):
            await pause(stopped, nemesis.seconds * chance.uniform(0.7, 1.3))
        await pause(stopped, chance.uniform(*this.plan.pauses))


@asynccontextmanager
async def under_way(this: Run, nemesis: Nemesis) -> AsyncIterator[None]:
    """A nemesis does its work in the block."""
    began = monotonic()
    this.tell(nemesis.name)
    await nemesis.begin()
    try:
        yield
    finally:
        this.tell(f"the end of {nemesis.name}")
        await nemesis.end()
        if nemesis.parts_presence:
            this.logs.outages.append(Outage(began, monotonic()))


# The end --------------------------------------------------------------------------------------------


async def _spread(this: Run, there: Sequence[Witness]) -> None:
    """See that every worker has people: after the last end of one, all of them may be with those that were
    left, who need no layer to hear each other."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if this.site.is_whole():
                break
            await asyncio.sleep(0.2)
    before = {each: each.reconnects for each in there}
    for each in there:
        if isinstance(each, Slow):
            each.hurry()
        each.drop()
    await everyone(there, lambda who: who.reconnects > before[who] and who.is_back)


async def _quiet_tail(
    this: Run, chance: random.Random, owner: Sender, senders: Sequence[Sender], there: Sequence[Witness]
) -> None:
    """Processes hear nothing of each other any more, somebody says a last word in each room, and nobody says
    anything after it: everyone hears it all the same."""
    deaf = (RedisDies if this.site.has_own_redis else LayerDeaf)(this.site, chance)
    async with under_way(this, deaf):
        last = [owner.say(room) for room in (QUIET, STAGE)]
        last += [each.say(rooms_of(place)[0]) for place, each in enumerate(senders[: len(BUSY)])]
        await asyncio.gather(*last)
        await everyone_knows(there, newest_of(this.logs))
        this.logs.in_time = {each.name: dict(each.heard) for each in there}


def newest_of(logs: Logs) -> dict[str, int]:
    """The newest acknowledged number of each room."""
    newest: dict[str, int] = {}
    for each in logs.acknowledged:
        newest[each.room] = max(newest.get(each.room, 0), each.seq)
    return newest


async def everyone_knows(
    there: Sequence[Witness], newest: Mapping[str, int], patience: float = PATIENCE
) -> None:
    """Wait until everyone has heard these numbers of their rooms, or it is too late."""
    await everyone(
        there, lambda who: all(seq >= newest.get(room, 0) for room, seq in who.heard.items()), patience
    )


async def everyone(
    there: Sequence[Witness], condition: Callable[[Witness], bool], patience: float = PATIENCE
) -> None:
    """Wait until it is true of everyone, or it is too late."""
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await asyncio.gather(
                *(each.until(partial(condition, each)) for each in there), return_exceptions=True
            )


async def _presence(this: Run, there: Sequence[Witness]) -> None:
    """Ask several people, in different processes, who is there, until it is right or too late."""
    await everyone(there, lambda who: who.is_back)
    began = monotonic()
    while True:
        lists: list[ClientMessage] = []
        for each in (*there[:1], *there[-8:]):
            for room in {QUIET, STAGE} & set(each.heard):
                with suppress(Ended, Lost, RequestRejected):
                    lists.append(ClientMessage(each.name, room, await each.members(room)))
        truth = {room: {each.name for each in there if room in each.heard} for room in ROOMS}
        right = bool(lists) and all(asked.users == truth[asked.room] for asked in lists)
        if right or monotonic() - began > GHOST_PATIENCE:
            break
        await asyncio.sleep(1)
    this.logs.lists = lists
    slow = {each.name for each in there if isinstance(each, Slow)}
    this.logs.departures = [each for each in this.logs.departures if each.user not in slow]
