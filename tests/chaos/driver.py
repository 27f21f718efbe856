"""Drive a run: clients send and receive, nemeses cause faults, and everything is logged.

``run`` returns the logs and the figures; ``checker.py`` checks the logs.
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

from tests.chaos.clients import Flapping, Sender, Slow, Witness, pause
from tests.chaos.logs import Logs, MemberList, Outage
from tests.chaos.nemeses import LayerLosesAll, Nemesis, RedisDies, nemeses_of
from tests.chaos.sites import Site
from tests.reconnecting import Ended, Lost, RequestRejected

BUSY = tuple(f"busy-{number}" for number in range(1, 6))
QUIET = "quiet"
STAGE = "stage"
ROOMS = (*BUSY, QUIET, STAGE)

#: The driver waits this long for what must happen at the end; then the checker reports what is missing.
TIMEOUT = 60.0
#: The members of killed workers are gone after this time.
PRESENCE_TIMEOUT = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The size of a run.

    Each of ``nemeses`` runs once, in any order; without any, all that suit the site run until the messages
    are sent. ``rate`` is the number of messages a second of all senders.
    """

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
    """The state of a run, and its results."""

    site: Site
    plan: Plan
    logs: Logs = field(default_factory=Logs)
    done: Counter[str] = field(default_factory=Counter)
    timeline: list[str] = field(default_factory=list)
    """The steps and nemeses with their times."""
    clients: list[Witness] = field(default_factory=list)
    began: float = field(default_factory=monotonic)
    seconds: float = 0

    def note(self, step: str) -> None:
        """Add a step that starts now to the timeline."""
        self.timeline.append(f"{monotonic() - self.began:6.1f} {step}")

    @property
    def reconnects(self) -> int:
        return sum(each.reconnects for each in self.clients)

    @property
    def resets(self) -> int:
        return sum(len(each.resets) for each in self.clients)

    @property
    def catch_ups(self) -> list[float]:
        """Seconds from each loss until all rooms were joined again, except of flapping clients."""
        return sorted(
            second for each in self.clients if not isinstance(each, Flapping) for second in each.catch_ups
        )


async def run(site: Site, plan: Plan) -> Run:
    """Run the plan on a site that has been started."""
    this = Run(site, plan)
    chance = random.Random(plan.seed)
    owner, senders = await _start_senders(this)
    readers = await _start_readers(this)
    leavers = readers[-2:]
    flapping = [asyncio.create_task(each.flap()) for each in readers if isinstance(each, Flapping)]
    try:
        await _traffic(this, chance, owner, senders, leavers)
    finally:
        for task in flapping:
            task.cancel()
    remaining = [each for each in this.clients if each not in leavers]
    this.note("all clients reconnect")
    await _reconnect_all(this, remaining)
    this.note("the last messages")
    await _send_last_messages(this, chance, owner, senders, remaining)
    this.note("the member lists")
    await _read_member_lists(this, remaining)
    for each in remaining:
        each.end_stays()
    this.seconds = monotonic() - this.began
    for each in this.clients:
        await each.stop()
    this.logs.stored, this.logs.newest = await asyncio.to_thread(site.stored, ROOMS)
    return this


# Clients --------------------------------------------------------------------------------------------


async def _start(this: Run, client: Witness, rooms: Sequence[str]) -> None:
    this.clients.append(client)
    await client.start()
    for room in rooms:
        await client.join(room)


async def _start_senders(this: Run) -> tuple[Sender, list[Sender]]:
    """Return the owner of the broadcast room, which sends in the quiet room too, and the others."""

    def sender(name: str) -> Sender:
        return Sender(this.site.addresses, name, this.logs, this.plan.seed)

    owner = sender("owner")
    await _start(this, owner, ())
    await owner.request("create", room=STAGE, mode="broadcast")
    for room in (STAGE, QUIET):
        await owner.join(room)
    senders = [sender(f"sender-{number}") for number in range(this.plan.senders)]
    await asyncio.gather(*(_start(this, each, rooms_of(index)) for index, each in enumerate(senders)))
    return owner, senders


def rooms_of(sender: int) -> tuple[str, str]:
    """Return the two busy rooms of a sender."""
    return BUSY[sender % len(BUSY)], BUSY[(sender + 1) % len(BUSY)]


async def _start_readers(this: Run) -> list[Witness]:
    """Join each reader to one busy room, the quiet room and the broadcast room."""
    plan, addresses = this.plan, this.site.addresses
    readers: list[Witness] = []
    for index in range(plan.readers):
        if index < plan.slow:
            readers.append(Slow(addresses, f"slow-{index}", this.logs, plan.seed))
        elif index < plan.slow + plan.flapping:
            readers.append(Flapping(addresses, f"flapping-{index}", this.logs, plan.seed))
        else:
            readers.append(Witness(addresses, f"reader-{index}", this.logs, plan.seed))
    await asyncio.gather(
        *(_start(this, each, (BUSY[index % len(BUSY)], QUIET, STAGE)) for index, each in enumerate(readers))
    )
    return readers


# Traffic --------------------------------------------------------------------------------------------


async def _traffic(
    this: Run, chance: random.Random, owner: Sender, senders: Sequence[Sender], leavers: Sequence[Witness]
) -> None:
    plan = this.plan
    enough = asyncio.Event()
    nemeses = asyncio.create_task(_run_nemeses(this, chance, enough))

    def wanted() -> bool:
        unfinished = bool(plan.nemeses) and not nemeses.done()
        return unfinished or len(this.logs.sent) < plan.messages

    def others_send() -> bool:
        return not enough.is_set()

    try:
        async with asyncio.TaskGroup() as of_owner:
            of_owner.create_task(owner.send_all([QUIET], others_send, plan.quiet_seconds, enough))
            of_owner.create_task(owner.send_all([STAGE], others_send, max(0.2, 20 / plan.rate), enough))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_leave(this, leavers))
                for index, each in enumerate(senders):
                    seconds = len(senders) / plan.rate
                    tasks.create_task(each.send_all(rooms_of(index), wanted, seconds, enough))
            enough.set()
    finally:
        enough.set()
        await nemeses


async def _leave(this: Run, leavers: Sequence[Witness]) -> None:
    """One client leaves its rooms, the other one drops; both do not return."""
    await leavers[0].until(lambda: len(this.logs.sent) >= this.plan.messages / 4)
    for room in list(leavers[0].newest):
        await leavers[0].leave(room)
    leavers[1].drop()
    for each in leavers:
        await each.stop()


async def _run_nemeses(this: Run, chance: random.Random, stopped: asyncio.Event) -> None:
    """Run one nemesis after the other, until the plan is done or all messages are sent."""
    left = list(this.plan.nemeses)
    chance.shuffle(left)
    choices = nemeses_of(this.site)
    await pause(stopped, 2)
    while not stopped.is_set() and (left or not this.plan.nemeses):
        nemesis = (left.pop() if left else chance.choice(choices))(this.site, chance)
        this.done[nemesis.name] += 1
        async with active(this, nemesis):
            await pause(stopped, nemesis.seconds * chance.uniform(0.7, 1.3))
        await pause(stopped, chance.uniform(*this.plan.pauses))


@asynccontextmanager
async def active(this: Run, nemesis: Nemesis) -> AsyncIterator[None]:
    """Keep the nemesis active in the block."""
    began = monotonic()
    this.note(nemesis.name)
    await nemesis.begin()
    try:
        yield
    finally:
        this.note(f"the end of {nemesis.name}")
        await nemesis.end()
        if nemesis.splits_presence:
            this.logs.outages.append(Outage(began, monotonic()))


# The end --------------------------------------------------------------------------------------------


async def _reconnect_all(this: Run, clients: Sequence[Witness]) -> None:
    """Reconnect all clients, so that each worker has some.

    After the last fault all of them may be connected to one worker, and need no layer.
    """
    async with asyncio.timeout(TIMEOUT):
        while True:
            if this.site.all_workers_listen():
                break
            await asyncio.sleep(0.2)
    before = {each: each.reconnects for each in clients}
    for each in clients:
        if isinstance(each, Slow):
            each.hurry()
        each.drop()
    await wait_for_all(clients, lambda each: each.reconnects > before[each] and each.is_in_all_rooms)


async def _send_last_messages(
    this: Run, chance: random.Random, owner: Sender, senders: Sequence[Sender], clients: Sequence[Witness]
) -> None:
    """Send a last message to each room while processes cannot exchange messages.

    No later message makes a client notice that it missed one; all clients receive it nevertheless.
    """
    nemesis = (RedisDies if this.site.has_own_redis else LayerLosesAll)(this.site, chance)
    async with active(this, nemesis):
        last = [owner.send_next(room) for room in (QUIET, STAGE)]
        last += [each.send_next(rooms_of(index)[0]) for index, each in enumerate(senders[: len(BUSY)])]
        await asyncio.gather(*last)
        await all_received(clients, newest_of(this.logs))
        this.logs.in_time = {each.name: dict(each.newest) for each in clients}


def newest_of(logs: Logs) -> dict[str, int]:
    """Return the newest acknowledged number of each room."""
    newest: dict[str, int] = {}
    for each in logs.acknowledged:
        newest[each.room] = max(newest.get(each.room, 0), each.seq)
    return newest


async def all_received(
    clients: Sequence[Witness], newest: Mapping[str, int], seconds: float = TIMEOUT
) -> None:
    """Wait until all clients have received these numbers of their rooms, or the timeout."""
    await wait_for_all(
        clients, lambda each: all(seq >= newest.get(room, 0) for room, seq in each.newest.items()), seconds
    )


async def wait_for_all(
    clients: Sequence[Witness], condition: Callable[[Witness], bool], seconds: float = TIMEOUT
) -> None:
    """Wait until the condition is true for all clients, or the timeout."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(
                *(each.until(partial(condition, each)) for each in clients), return_exceptions=True
            )


async def _read_member_lists(this: Run, clients: Sequence[Witness]) -> None:
    """Read member lists at several processes, until they are right or the timeout."""
    await wait_for_all(clients, lambda each: each.is_in_all_rooms)
    began = monotonic()
    while True:
        lists: list[MemberList] = []
        for each in (*clients[:1], *clients[-8:]):
            for room in {QUIET, STAGE} & set(each.newest):
                with suppress(Ended, Lost, RequestRejected):
                    lists.append(MemberList(each.name, room, await each.members(room)))
        truth = {room: {each.name for each in clients if room in each.newest} for room in ROOMS}
        right = bool(lists) and all(each.users == truth[each.room] for each in lists)
        if right or monotonic() - began > PRESENCE_TIMEOUT:
            break
        await asyncio.sleep(1)
    this.logs.lists = lists
    slow = {each.name for each in clients if isinstance(each, Slow)}
    this.logs.departures = [each for each in this.logs.departures if each.user not in slow]
