"""The chart of costs: a panel for each scenario, a dot for each server.

Costs differ by a factor of several hundred, so the axis is logarithmic; hence dots and not bars, whose
lengths would have no meaning. A line through a dot spans the rounds from cheapest to most expensive.
Colours follow the light or dark mode of the reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from math import ceil, floor, log10

from benchmarks.figures import Figures, Spread, cost_of

SHOWN = ("fanout-8", "fanout-1", "rooms", "echo")
WIDTH, NAMES, RIGHT, ROW, HEAD, FOOT = 820, 300, 90, 22, 44, 34

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600 } .faint { fill: #6e7781; font-size: 11px }
.grid { stroke: #d0d7de } .line { stroke: #6e7781; stroke-width: 2 }
.dot { fill: #6e7781 } .ours { fill: #0969da } .ours.line { stroke: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .faint { fill: #8d96a0 } .grid { stroke: #30363d }
  .line { stroke: #8d96a0 } .dot { fill: #8d96a0 } .ours { fill: #4493f8 } .ours.line { stroke: #4493f8 }
}
"""

Row = tuple[str, str, Spread]


def picture(figures: Figures, titles: Mapping[str, str]) -> str:
    """Return the chart as an SVG document."""
    panels = [(name, rows) for name in SHOWN if (rows := rows_of(figures, titles, name))]
    height = sum(HEAD + FOOT + ROW * len(rows) for _, rows in panels)
    body, top = [], 0
    for name, rows in panels:
        body += list(panel(figures.title(name), rows, top))
        top += HEAD + FOOT + ROW * len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The cost of a delivery on each server; the tables have the same figures.">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(body) + "\n</svg>\n"
    )


def rows_of(figures: Figures, titles: Mapping[str, str], scenario: str) -> list[Row]:
    """Return the peers with their costs, the cheapest first."""
    found = [
        (peer, title.strip("*"), cost)
        for peer, title in titles.items()
        if (cost := figures.spread(scenario, peer, cost_of(scenario))) and cost.least > 0
    ]
    return sorted(found, key=lambda row: row[2].median)


def panel(title: str, rows: list[Row], top: int) -> Iterator[str]:
    """Draw one scenario."""
    low = floor(log10(min(row[2].least for row in rows)))
    high = max(low + 1, ceil(log10(max(row[2].most for row in rows))))

    def across(value: float) -> float:
        return NAMES + (log10(value) - low) / (high - low) * (WIDTH - NAMES - RIGHT)

    first, last = top + HEAD, top + HEAD + ROW * len(rows)
    yield f'<text class="head" x="8" y="{top + 24}">{escape(title)}</text>'
    for power in range(low, high + 1):
        x = across(10**power)
        yield f'<line class="grid" x1="{x:.1f}" y1="{first - 6}" x2="{x:.1f}" y2="{last}"/>'
        yield f'<text class="faint" x="{x:.1f}" y="{last + 14}" text-anchor="middle">{10**power:g} µs</text>'
    for position, (peer, name, cost) in enumerate(rows):
        y = first + ROW * position + ROW / 2
        ours = " ours" if peer.startswith("rooms") else ""
        yield f'<text x="{NAMES - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
        yield (
            f'<line class="line{ours}" x1="{across(cost.least):.1f}" y1="{y}" '
            f'x2="{across(cost.most):.1f}" y2="{y}"/>'
        )
        yield f'<circle class="dot{ours}" cx="{across(cost.median):.1f}" cy="{y}" r="5"/>'
        yield f'<text class="faint" x="{across(cost.most) + 10:.1f}" y="{y + 4}">{cost.median:.3g}</text>'
