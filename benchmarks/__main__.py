"""``python -m benchmarks``: the command line of the benchmarks.

make bench                                                       everything: an hour or more
make bench ARGS="--scenarios fanout-1,echo --peers rooms,ws --rounds 1 --members 100 --print-only"
make bench ARGS="--also roomer roomer 9001 './roomer -addr 127.0.0.1:9001'"     adds another server
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import load, results
from benchmarks.measuring import measure, turns
from benchmarks.peers import PEERS, another
from benchmarks.scenarios import SCENARIOS
from benchmarks.serving import Ground


def write_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write the results. Returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        program = load.build(Path(sys.prefix))
        wanted = {name: SCENARIOS[name] for name in chosen("--scenarios", options.scenarios, list(SCENARIOS))}
        also = {each[0]: another(*each) for each in options.also}
        peers = [PEERS[name] for name in chosen("--peers", options.peers, list(PEERS))] + list(also.values())
    except (ValueError, load.NoCompiler) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="rooms-benchmarks-") as folder:
        ground = Ground(Path(folder))
        try:
            left_out = {peer.title: lack for peer in peers if (lack := ground.lacks(peer))}
            for title, lack in left_out.items():
                write_line(f"LEFT OUT: {title}. It needs {lack}.")
            runs = list(
                turns(
                    list(wanted.values()), [each for each in peers if not ground.lacks(each)], options.rounds
                )
            )
            reports = measure(
                program, ground, runs, members=options.members, seconds=options.seconds, report=write_line
            )
        finally:
            ground.close()
    found = results.gather(
        reports,
        {each.name: each.title for each in peers},
        left_out,
        command=f"python -m benchmarks {shlex.join(arguments)}",
    )
    write_line("\n" + results.page(found))
    if not options.print_only:
        results.write(found)
    return int(any(report["fault"] for each in reports.values() for report in each))


def chosen(option: str, given: str | None, allowed: list[str]) -> list[str]:
    """Return the names of a list option. Raises ValueError."""
    names = allowed if given is None else given.split(",")
    for name in names:
        if name not in allowed:
            raise ValueError(f"Expected {option} with names of {', '.join(allowed)}, got {name!r}.")
    return names


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures Rooms and other servers."
    )
    made.add_argument("--scenarios", metavar="NAME,…", help=f"of {', '.join(SCENARIOS)}; default: all")
    made.add_argument(
        "--peers", metavar="NAME,…", help=f"of {', '.join(PEERS)}; default: all that this machine can run"
    )
    made.add_argument("--rounds", type=int, default=3, help="the number of rounds; default: 3")
    made.add_argument("--members", type=int, default=1000, help="the size of the large room; default: 1000")
    made.add_argument(
        "--seconds", type=float, default=2.5, help="the duration of a measurement; default: 2.5"
    )
    made.add_argument(
        "--also",
        nargs=4,
        action="append",
        default=[],
        metavar=("NAME", "PROTOCOL", "PORT", "COMMAND"),
        help="another server, started by this command on this port; may be repeated",
    )
    made.add_argument("--print-only", action="store_true", help="write no files")
    return made


if __name__ == "__main__":
    # On SIGTERM stop the servers first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
