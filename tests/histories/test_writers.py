"""Four processes of four threads write to one room: no number is missing or given twice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.integration.sites import rows
from tests.servers import fresh_database, manage, site_environment

pytestmark = pytest.mark.database

PROCESSES = 4
MESSAGES = 60
SCRIPT = Path(__file__).with_name("writer.py")

READ = (
    "import json\n"
    "from rooms.models import Message\n"
    "rows = Message.objects.filter(room__name='stress').order_by('seq')\n"
    "print(json.dumps(list(rows.values_list('seq', 'sender_id', 'data'))))\n"
)


async def test_numbers_of_many_writers_have_no_holes_and_no_duplicates() -> None:
    environment = site_environment(fresh_database())
    await asyncio.to_thread(rows, environment, {}, [{"application": "durable", "name": "stress"}])

    def write(process: int) -> dict[str, list[int]]:
        more = {"ROOMS_TEST_WRITER": str(process), "ROOMS_TEST_MESSAGES": str(MESSAGES)}
        printed = manage(environment | more, "shell", "-v", "0", "-c", SCRIPT.read_text())
        numbers: dict[str, list[int]] = json.loads(printed.splitlines()[-1])
        return numbers

    numbers: dict[str, list[int]] = {}
    for each in await asyncio.gather(*(asyncio.to_thread(write, process) for process in range(PROCESSES))):
        numbers |= each
    assert len(numbers) == PROCESSES * 4
    given = sorted(seq for seqs in numbers.values() for seq in seqs)
    assert given == list(range(1, PROCESSES * 4 * MESSAGES + 1))
    # The numbers that each writer got are those that are stored, in the order of its messages.
    stored = json.loads(
        (await asyncio.to_thread(manage, environment, "shell", "-v", "0", "-c", READ)).splitlines()[-1]
    )
    assert [seq for seq, _, _ in stored] == given
    for writer, seqs in numbers.items():
        own = [(seq, data) for seq, sender, data in stored if sender == writer]
        assert own == [(seq, str(number)) for number, seq in enumerate(seqs)]
