"""Times on the wire."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from rooms.protocol import timestamps


def test_now_is_in_utc_with_milliseconds() -> None:
    text = timestamps.now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert abs(datetime.now(UTC) - timestamps.from_wire(text)) < timedelta(minutes=1)


def test_a_time_of_another_zone_is_converted_to_utc() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=timezone(timedelta(hours=2)))
    assert timestamps.to_wire(moment) == "2026-01-02T01:04:05.678Z"


def test_a_text_survives_the_round_trip() -> None:
    text = "2026-01-02T01:04:05.000Z"
    assert timestamps.to_wire(timestamps.from_wire(text)) == text


def test_texts_sort_as_their_times_do() -> None:
    assert timestamps.ago(60) < timestamps.ago(0) <= timestamps.now()
