"""A picture of a screen's utilisation over time, as SVG.

    python examples/docking/picture.py out/docking/hierarchy

Above, the cores in use and held at each moment; below, who ran when: a band an instance, a box a
docking. ``screen.py`` draws it by itself.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from screening import write_text
from utilisation import Span, Timeline, lanes, steps, summary

WIDTH, LEFT, RIGHT = 960.0, 110.0, 24.0
TOP, PLOT_H, GAP, LANE_H, BAND_GAP = 64.0, 170.0, 46.0, 13.0, 5.0
INK, FAINT, LINE = "#1f2933", "#66727f", "#dfe4e9"
USED, HELD, HELD_LINE = "#2a7f9d", "#e8edf1", "#8fa3b3"
FONTS = "Inter, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif"


def draw(timeline: Timeline) -> str:
    """The picture of ``timeline``."""
    bands = [(each.held, each.jobs, lanes(each.jobs)) for each in timeline.instances]
    heights = [(max(rows, default=0) + 1) * LANE_H + BAND_GAP for _, _, rows in bands]
    below = TOP + PLOT_H + GAP
    height = below + sum(heights) + 24
    wall = timeline.wall_s or 1.0
    tick_s = _round_up(wall / 8)
    most = max(timeline.cores, 1)

    def x(time: float) -> float:
        return LEFT + (time - timeline.submitted) / wall * (WIDTH - LEFT - RIGHT)

    def y(cores: float) -> float:
        return TOP + PLOT_H * (1 - cores / most)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:.1f}" '
        f'width="{WIDTH:g}" height="{height:.1f}" font-family={quoteattr(FONTS)} font-size="12">',
        f'<rect width="{WIDTH:g}" height="{height:.1f}" fill="#ffffff"/>',
        _text(LEFT, 24, f"{timeline.of_machine():.1%} of {most} cores used", size=16),
        _text(
            LEFT,
            44,
            f"{len(timeline.busy())} dockings in {timeline.wall_s:.1f} s; {timeline.way}",
            FAINT,
        ),
    ]
    for x0, colour, edge, what in (
        (WIDTH - 230, USED, USED, "in use"),
        (WIDTH - 150, HELD, HELD_LINE, "held by an instance"),
    ):
        out.append(_box(x0, 15, 11, 11, colour, edge))
        out.append(_text(x0 + 17, 25, what, FAINT))
    for count in sorted({round(most * share / 4) for share in range(5)}):
        out.append(_line(LEFT, y(count), WIDTH - RIGHT, y(count), LINE))
        out.append(_text(LEFT - 8, y(count) + 4, str(count), FAINT, anchor="end"))
    middle = TOP + PLOT_H / 2
    turned = f' transform="rotate(-90 {LEFT - 44:g} {middle:g})"'
    out.append(_text(LEFT - 44, middle, "cores", FAINT, anchor="middle", more=turned))
    out.append(_area(timeline.held(), x, y, HELD, HELD_LINE))
    out.append(_area(timeline.busy(), x, y, USED, USED))
    for k in range(int(wall / tick_s) + 1):
        at = x(timeline.submitted + k * tick_s)
        out.append(_line(at, TOP + PLOT_H, at, TOP + PLOT_H + 5, HELD_LINE))
        out.append(_text(at, TOP + PLOT_H + 19, f"{k * tick_s:g} s", FAINT, anchor="middle"))
    at = below
    for (held, jobs, rows), band in zip(bands, heights):
        inner = band - BAND_GAP
        out.append(_box(x(held.start), at, x(held.end) - x(held.start), inner, HELD, HELD_LINE))
        out.append(_text(LEFT - 8, at + LANE_H - 3, held.name, FAINT, anchor="end", size=10))
        for job, row in zip(jobs, rows):
            box = (x(job.start), at + row * LANE_H + 2, x(job.end) - x(job.start), LANE_H - 4)
            out.append(_box(*box, USED, "#ffffff", f"{job.name}, {job.end - job.start:.2f} s"))
        at += band
    out.append("</svg>\n")
    return "\n".join(out)


def _area(spans: Sequence[Span], x, y, fill: str, edge: str) -> str:  # type: ignore[no-untyped-def]
    """The sum of the spans as a filled staircase."""
    found = steps(spans)
    if not found:
        return ""
    path = [f"M{x(found[0][0]):.2f},{y(0):.2f}"]
    for time, level in found:
        path.append(f"H{x(time):.2f}V{y(level):.2f}")
    return f'<path d="{"".join(path)}Z" fill="{fill}" stroke="{edge}" stroke-width="0.8"/>'


def _text(
    x: float, y: float, what: str, fill: str = INK, *, anchor: str = "start", size: float = 12,
    more: str = "",
) -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" text-anchor="{anchor}" '
        f'font-size="{size:g}"{more}>{escape(what)}</text>'
    )


def _line(x0: float, y0: float, x1: float, y1: float, stroke: str) -> str:
    return f'<path d="M{x0:.1f},{y0:.1f}L{x1:.1f},{y1:.1f}" stroke="{stroke}" fill="none"/>'


def _box(
    x: float, y: float, width: float, height: float, fill: str, edge: str, title: str = ""
) -> str:
    said = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(width, 0.5):.2f}" height="{height:.2f}" '
        f'fill="{fill}" stroke="{edge}" stroke-width="0.6">{said}</rect>'
    )


def _round_up(value: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= value * 0.999)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: picture.py FOLDER_OF_A_SCREEN", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    try:
        timeline = Timeline.from_json(json.loads((folder / "timeline.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"picture.py: {folder / 'timeline.json'}: {error}", file=sys.stderr)
        return 1
    write_text(folder / "utilisation.svg", draw(timeline))
    print(f"{summary(timeline)}\ndrawn in {folder / 'utilisation.svg'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
