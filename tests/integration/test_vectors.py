"""All transcripts in tests/vectors, against both servers, and the player itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.integration import sites, vectors
from tests.integration.vectors import Mismatch, Scenario
from tests.servers import KINDS

if TYPE_CHECKING:
    from tests.servers import Kind

pytestmark = pytest.mark.any_database

SCENARIOS = vectors.load()


Outcomes = dict[str, Exception | None]


@pytest.fixture(scope="module")
def played() -> dict[Kind, Outcomes]:
    """Return the error of each scenario for each kind of server.

    Scenarios run concurrently, because they wait most of the time.
    """
    addresses = [sites.site(kind).ws for kind in KINDS]

    async def play_all() -> list[Outcomes]:
        return await asyncio.gather(*(vectors.play_all(SCENARIOS, address) for address in addresses))

    return dict(zip(KINDS, asyncio.run(play_all()), strict=True))


@pytest.fixture(params=KINDS)
def outcomes(request: pytest.FixtureRequest, played: dict[Kind, Outcomes]) -> Outcomes:
    return played[request.param]


@pytest.mark.parametrize("name", [str(each) for each in SCENARIOS])
def test_the_server_answers_as_in_the_transcript(outcomes: Outcomes, name: str) -> None:
    if (error := outcomes[name]) is not None:
        raise error


def test_all_transcripts_of_the_originals_are_played() -> None:
    theirs = [path for path in vectors.FOLDER.glob("*/*.json") if path.parent.name in vectors.ADDRESSES]
    assert len(theirs) == 121
    assert len(SCENARIOS) >= 121 + 25


# The player ----------------------------------------------------------------------------------------

ID = "6f1c1e0a-5b1f-4c55-9c36-0c3f2f3f5a11"
OTHER = "0b7a3a34-8d63-4f0e-8f0e-54b1d7b3a9c2"


@asynccontextmanager
async def scripted(*frames: str | bytes, code: int | None = None) -> AsyncIterator[str]:
    """Serve these frames as the answer to any frame, followed by a close if given."""

    async def answer(socket: ServerConnection) -> None:
        try:
            async for _ in socket:
                for frame in frames:
                    await socket.send(frame)
                if code is not None:
                    await socket.close(code)
        except ConnectionClosed:
            pass

    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def play(
    server: str, *expected: Any, protocol: str = "gowsev", steps: Sequence[dict[str, Any]] = ()
) -> None:
    """Connect a client, send a frame, and expect these events."""
    send = {"client": "A", "action": "send_text", "data": "?"}
    scenario = Scenario(
        protocol,
        "scripted",
        [{"client": "A", "action": "connect"}, send, *steps],
        [{}, {"A": list(expected)} if expected else {}, *({} for _ in steps)],
    )
    await vectors.play(scenario, server, quiet=0.05, patience=0.3)


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (b"OK", {"binary": "OK"}),
        (b"\x00\xff", {"binary": {"hex": "00ff"}}),
        (b"ababab!", {"binary": {"concat": [{"repeat": {"of": "ab", "times": 3}}, "!"]}}),
        (b"\0\0\0\2ab\0\0\0\0", {"binary": {"fields": ["ab", ""]}}),
        (b'\0\0\0\x09["a","b"]', {"binary": {"fields": [{"set": ["b", "a"]}]}}),
        (f"it is {ID}".encode(), {"binary": "it is $id:A"}),
        (f'{ID}["{OTHER}","{ID}"]'.encode(), {"binary": {"concat": ["$id:A", {"set": ["$id:A", "$id:B"]}]}}),
        (b"5 $", {"binary": "5 $$"}),
        ('{"b":[1.0],"a":"\\u0041"}', {"text": '{"a":"A","b":[1]}'}),
        ('{"a":{"b":1,"c":2},"d":[1]}', {"json": {"a": {"b": 1}, "d": [1]}}),
        (f'{{"uuid":"{ID}"}}', {"json": {"uuid": "$uuid:1"}}),
        ("no JSON", {"text": "no JSON"}),
    ],
)
async def test_an_expected_frame_passes(frame: str | bytes, event: Any) -> None:
    async with scripted(frame) as server:
        await play(server, event)


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (b"OK", {"binary": "Ok"}),
        (b"OK", {"binary": "OK!"}),
        (b"OK!", {"binary": "OK"}),
        (b"OK", {"binary": ""}),
        ("OK", {"binary": "OK"}),
        (b"OK", {"text": "OK"}),
        (b"\x00\xfe", {"binary": {"hex": "00ff"}}),
        (b"\0\0\0\3ab", {"binary": {"fields": ["ab"]}}),
        (b'["a","c"]', {"binary": {"set": ["b", "a"]}}),
        (b'["a","a"]', {"binary": {"set": ["b", "a"]}}),
        (b'["a", "b"', {"binary": {"set": ["b", "a"]}}),
        (b"it is 6f1c1e0a-5b1f-1c55-9c36-0c3f2f3f5a11", {"binary": "it is $id:A"}),
        (ID.upper().encode(), {"binary": "$id:A"}),
        (f"{ID}{OTHER}".encode(), {"binary": "$id:A$id:A"}),
        (f"{ID}{ID}".encode(), {"binary": "$id:A$id:B"}),
        ('{"a":1,"b":2}', {"text": '{"a":1}'}),
        ('{"a":1}', {"text": '{"a":2}'}),
        ('{"a":true}', {"text": '{"a":1}'}),
        ('{"a":null}', {"text": '{"a":[]}'}),
        ('{"a":[1,2]}', {"json": {"a": [1]}}),
        ('{"b":1}', {"json": {"a": 1}}),
        ("no JSON", {"json": {}}),
        (b"OK", {"close": [1000]}),
    ],
)
async def test_any_other_frame_fails(frame: str | bytes, event: Any) -> None:
    async with scripted(frame) as server:
        with pytest.raises(Mismatch, match="expected"):
            await play(server, event)


async def test_a_missing_frame_fails() -> None:
    async with scripted(b"1") as server:
        with pytest.raises(Mismatch, match="A did not get"):
            await play(server, {"binary": "1"}, {"binary": "2"})


async def test_an_additional_frame_fails_at_the_end() -> None:
    async with scripted(b"1", b"2") as server:
        with pytest.raises(Mismatch, match=re.escape("got binary b'2', expected nothing")):
            await play(server, {"binary": "1"})


async def test_a_frame_where_nothing_is_expected_fails() -> None:
    async with scripted(b"1") as server:
        with pytest.raises(Mismatch, match=r"step 1 .* expected nothing"):
            await play(server)


async def test_frames_of_one_client_are_compared_in_order() -> None:
    async with scripted(b"1", b"2") as server:
        await play(server, {"binary": "1"}, {"binary": "2"})
        with pytest.raises(Mismatch, match="got binary b'1'"):
            await play(server, {"binary": "2"}, {"binary": "1"})
        await play(server, {"unordered": [{"binary": "2"}, {"binary": "1"}]})
        with pytest.raises(Mismatch, match="got binary b'2'"):
            await play(server, {"unordered": [{"binary": "1"}, {"binary": "1"}]})


async def test_an_optional_event_may_be_missing() -> None:
    async with scripted(b"2") as server:
        await play(server, {"optional": {"binary": "1"}}, {"binary": "2"})
    async with scripted(b"1", b"2") as server:
        await play(server, {"optional": {"binary": "1"}}, {"binary": "2"})


async def test_rtbroadcasters_frames_are_split_into_lines_and_others_are_not() -> None:
    async with scripted("1\n2") as server:
        await play(server, {"text": "1"}, {"text": "2"}, protocol="rtbroadcaster")
        await play(server, {"text": "1\n2"}, protocol="goroomserver")


async def test_close_codes_are_compared() -> None:
    async with scripted(code=4500) as server:
        await play(server, {"close": [1005, 4500]})
        await play(server, {"close": [1006], "ours": "any"})
        await play(server, {"close": "any"})
        with pytest.raises(Mismatch, match="got close 4500"):
            await play(server, {"close": [1000]})


async def test_a_server_that_does_not_close_fails() -> None:
    async with scripted(b"1") as server:
        with pytest.raises(Mismatch, match="did not get"):
            await play(server, {"binary": "1"}, {"close": "any"})


async def test_closes_by_the_client_are_events() -> None:
    async with scripted() as server:
        for action, code in (("close", 1000), ("drop", 1006)):
            steps = [{"client": "A", "action": "connect"}, {"client": "A", "action": action}]
            ends = Scenario("gowsev", "ends", steps, [{}, {"A": [{"close": [code]}]}])
            await vectors.play(ends, server, quiet=0.05, patience=5)


async def test_frames_are_sent_as_in_the_file() -> None:
    received: list[str | bytes] = []

    async def record(socket: ServerConnection) -> None:
        await socket.send(ID)
        async for frame in socket:
            received.append(frame)

    steps = [
        {"client": "A", "action": "connect"},
        {"client": "A", "action": "send_text", "data": "to $id:A for $$1"},
        {"client": "A", "action": "send_binary", "burst": ["1", {"hex": "ff"}]},
        {"client": "A", "action": "send_text", "fragments": ["a", "b"]},
        {"client": "A", "action": "close"},
    ]
    expect: list[Any] = [{"A": [{"text": "$id:A"}]}, {}, {}, {}, {"A": [{"close": [1000]}]}]
    async with serve(record, "127.0.0.1", 0, compression=None) as server:
        address = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await vectors.play(Scenario("gowsev", "sends", steps, expect), address, quiet=0.01, patience=5)
    assert received == [f"to {ID} for $1", b"1", b"\xff", "ab"]


async def test_an_unknown_symbol_cannot_be_sent() -> None:
    async with scripted() as server:
        with pytest.raises(KeyError, match="id:B"):
            await play(server, steps=[{"client": "A", "action": "send_text", "data": "$id:B"}])
