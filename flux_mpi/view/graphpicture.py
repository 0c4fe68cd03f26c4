"""A picture of a resource graph: boxes in boxes, coloured by state and by job, as SVG or PNG."""

from __future__ import annotations

import colorsys
import os
from importlib import import_module
from xml.sax.saxutils import escape

from flux_mpi.view import graphlayout as layout
from flux_mpi.view.graphtree import Box, Link, PictureError, Tree, Usage, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

MAX_LINKS = 400
"""More lines than these between boxes are drawn to what contains the boxes instead."""

MAX_LEGEND = 24
"""Jobs that the legend names."""

MAX_PIXELS = 64_000_000
"""A PNG is drawn at double size unless it would have more pixels than these."""

_MARGIN = 24.0
_LEGEND_W = 240.0
_LANE_H = 36.0
_LANE_LABEL_W = 78.0
_LANE_MIN_W = 700.0
_FONTS = "Inter, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif"

_INK, _FAINT, _LINE = "#1f2933", "#66727f", "#c3ccd5"
_UP, _DRAINED, _DOWN = "#e9eef2", "#f6d98f", "#4a5460"
_DRAINED_LINE = "#b9851f"
_LEVELS = ("#f7f9fb", "#ffffff")
"""Backgrounds of containers, taking turns with depth."""

_JOBS = (
    "#3b78c3",
    "#2a9d74",
    "#8f5fbf",
    "#d4526e",
    "#19a3b8",
    "#e2793b",
    "#6b8e23",
    "#c04fa8",
    "#2f4b8f",
    "#a0603d",
    "#5d9bea",
    "#7fbf5a",
)
_SUBSYSTEMS = ("#c2410c", "#0f766e", "#6d28d9", "#1d4ed8", "#a16207", "#be185d")


def draw(
    document: Mapping[str, Any],
    states: Mapping[str, Mapping[str, Any]],
    *,
    title: str,
    root: str | None = None,
    depth: int | None = None,
) -> str:
    """SVG of the graph in ``document`` (JGF), or of what is below the vertex with path ``root``.

    ``states`` tells what holds a vertex, by its id: see `flux_mpi.view.graphtree`. ``depth``
    levels below the root are drawn, by default as many as can be seen; what is deeper is summed
    up. Raises `PictureError`.
    """
    if depth is not None and depth < 0:
        raise PictureError(f"depth: expected 0 or more, found {depth}")
    return _Picture(read(document, states, root), states, depth).svg(title)


def write(path: str, svg: str, *, force: bool = False) -> None:
    """Write a picture to a file named ``.svg`` or ``.png``, a new one unless ``force``.

    PNG needs the optional dependency CairoSVG. Raises `PictureError`, or OSError of the file.
    """
    kind = os.path.splitext(path)[1].lower()
    if kind == ".svg":
        content = svg.encode()
    elif kind == ".png":
        content = _png(svg)
    else:
        raise PictureError(f"{path}: expected a name that ends in .svg or .png")
    try:
        with open(path, "wb" if force else "xb") as file:
            file.write(content)
    except FileExistsError:
        raise PictureError(f"{path} exists; not overwritten without --force") from None


def _png(svg: str) -> bytes:
    try:
        cairosvg: Any = import_module("cairosvg")
    except ImportError:
        raise PictureError(
            "PNG needs CairoSVG: install flux-mpi[pictures], or ask for a file named .svg"
        ) from None
    except OSError as err:  # It is there, but the C library it wraps is not.
        raise PictureError(f"PNG needs the library cairo: {err}") from None
    width, height = (
        float(svg.split(f'{key}="', 1)[1].split('"')[0]) for key in ("width", "height")
    )
    scale = min(2.0, (MAX_PIXELS / (width * height)) ** 0.5, 30_000 / max(width, height))
    content: bytes = cairosvg.svg2png(bytestring=svg.encode(), scale=scale)
    return content


class _Picture:
    """Collects SVG elements of one picture."""

    def __init__(
        self, tree: Tree, states: Mapping[str, Mapping[str, Any]], depth: int | None
    ) -> None:
        self.tree = tree
        self.parts: list[str] = []
        layout.cut(tree.roots, depth)
        self.boxes = layout.drawn(tree.roots)
        self.tiles = sum(box.tile for box in self.boxes)
        self.shown = {box.id for box in self.boxes}
        self.usage: dict[str, Usage] = {}
        for root in tree.roots:
            for name, usage in root.usage.items():
                self.usage.setdefault(name, Usage()).add(usage)
        self.everything: dict[str, Usage] = {}
        """The same with what lanes have."""
        outside = [box for boxes in tree.outside.values() for box in boxes]
        for box in [*tree.roots, *outside]:
            for name, usage in box.usage.items():
                self.everything.setdefault(name, Usage()).add(usage)
        every = self.everything.values()
        holding = _natural({job for usage in every for job in usage.jobs})
        waiting = _natural({job for usage in every for job in usage.reserved})
        self.jobs = holding + [job for job in waiting if job not in set(holding)]
        # A job has the same colour in the pictures of all parts of the graph.
        known = {str(job) for state in states.values() for job in state.get("jobs", ())}
        known |= {str(job) for state in states.values() for job in state.get("reserved", ())}
        self.colors = {job: _job_color(i) for i, job in enumerate(_natural(known))}
        self.hatches = {job: f"r{i}" for i, job in enumerate(waiting)}
        found = dict.fromkeys(link.subsystem for link in tree.links)
        self.subsystems = {
            name: _SUBSYSTEMS[i % len(_SUBSYSTEMS)] for i, name in enumerate(sorted(found))
        }

    def svg(self, title: str) -> str:
        lanes = [(name, _layers(self.tree, name)) for name in sorted(self.tree.outside)]
        rows = sum(len(layers) for _, layers in lanes)
        top = _MARGIN + 46.0
        first = top + (rows * _LANE_H + 14.0 if lanes else 0.0)
        left = _MARGIN + (_LANE_LABEL_W if lanes else 0.0)
        # What lanes lead to must have its place first: they lie above it.
        width, height = layout.place(self.tree.roots, left, first)
        right = max(left + width, _MARGIN + 380.0)
        y = top
        for _, layers in lanes:
            right = max(right, self._place_lane(layers, left, right, y))
            y += len(layers) * _LANE_H
        for box in self.boxes:
            self._box(box)
        self._links(first)
        # Over the lines that would cross them.
        for box in self.boxes:
            if box.children and not box.tile:
                self._title(box)
        y = top
        for name, layers in lanes:
            self._lane(name, layers, y)
            y += len(layers) * _LANE_H
        bottom = max(first + height, self._legend(right + 28.0, top))
        full = right + 28.0 + _LEGEND_W + _MARGIN
        self._header(title, full - 2 * _MARGIN)
        return self._document(full, bottom + _MARGIN)

    def _document(self, width: float, height: float) -> str:
        hatches = "".join(
            f'<pattern id="{name}" width="5" height="5" patternUnits="userSpaceOnUse" '
            f'patternTransform="rotate(45)"><rect width="5" height="5" fill="#fff"/>'
            f'<rect width="2.2" height="5" fill="{self.colors[job]}"/></pattern>'
            for job, name in self.hatches.items()
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="{_FONTS}">'
            f"<defs>{hatches}</defs>"
            f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(self.parts) + "</svg>\n"
        )

    # -- pieces ---------------------------------------------------------------------------------

    def _rect(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        fill: str,
        *,
        line: str = "",
        radius: float = 0.0,
        width: float = 1.0,
        tip: str = "",
    ) -> None:
        extra = f' rx="{radius:g}"' if radius else ""
        if line:
            extra += f' stroke="{line}"' + (f' stroke-width="{width:g}"' if width != 1 else "")
        end = f"><title>{escape(tip)}</title></rect>" if tip else "/>"
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{fill}"'
            f"{extra}{end}"
        )

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        *,
        fill: str = _INK,
        anchor: str = "",
        bold: bool = False,
        halo: bool = False,
    ) -> None:
        """``halo`` draws only the background around letters that are drawn later."""
        if not text:
            return
        extra = f' text-anchor="{anchor}"' if anchor else ""
        extra += ' font-weight="600"' if bold or halo else ""
        extra += f' stroke="{fill}" stroke-width="3.5" stroke-linejoin="round"' if halo else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{fill}"{extra}>'
            f"{escape(_printable(text))}</text>"
        )

    def _cross(self, x: float, y: float, size: float) -> None:
        """The mark of what is down, so that it is not told by colour alone."""
        a, b = size * 0.3, size * 0.7
        self.parts.append(
            f'<path d="M{x + a:.1f} {y + a:.1f}L{x + b:.1f} {y + b:.1f}'
            f'M{x + b:.1f} {y + a:.1f}L{x + a:.1f} {y + b:.1f}" stroke="#fff" stroke-width="1.2"/>'
        )

    def _box(self, box: Box) -> None:
        if box.tile:
            self._tile(box)
        elif not box.children:
            self._leaf(box)
        else:
            line, width = _frame(box.status)
            fill = _LEVELS[box.depth % 2]
            self._rect(
                box.x, box.y, box.w, box.h, fill, line=line, radius=4, width=width, tip=_tip(box)
            )

    def _title(self, box: Box) -> None:
        """The name, and on the right the state or what is free, if there is room."""
        room = box.w - 2 * layout.PAD
        name = layout.shorten(box.name, layout.FONT, room)
        y = box.y + layout.TITLE_H - 4
        self._text(box.x + layout.PAD, y, name, layout.FONT, fill=_LEVELS[box.depth % 2], halo=True)
        self._text(box.x + layout.PAD, y, name, layout.FONT, bold=True)
        room -= layout.text_width(name, layout.FONT) + 8
        for text in _remarks(box):
            if layout.text_width(text, layout.SMALL_FONT) <= room:
                fill = _DRAINED_LINE if box.status == "drained" else _FAINT
                x = box.x + box.w - layout.PAD
                self._text(x, y, text, layout.SMALL_FONT, fill=fill, anchor="end")
                break

    def _leaf(self, box: Box, line: str = "") -> None:
        cell = layout.is_cell(box)
        whole = self._whole(box)
        line = line or _frame(box.status)[0]
        self._rect(
            box.x, box.y, box.w, box.h, whole, line=line, radius=2 if cell else 3, tip=_tip(box)
        )
        if cell:
            if whole == _DOWN:
                self._cross(box.x, box.y, box.w)
            return
        y = box.y + box.h / 2 + 3
        if box.size != 1 and whole in (_UP, _DRAINED):
            # A pool has a line of shares below its label.
            y -= 1.5
            usage = box.usage[box.type]
            self._bar(box.x + 3, box.y + box.h - 4, box.w - 6, 2.5, usage, outline=False)
        text = layout.shorten(layout.chip_label(box), layout.SMALL_FONT, box.w - 4)
        dark = whole not in (_UP, _DRAINED) and not whole.startswith("url")
        fill = "#fff" if dark else _INK
        self._text(box.x + box.w / 2, y, text, layout.SMALL_FONT, fill=fill, anchor="middle")

    def _whole(self, box: Box) -> str:
        """The colour of a leaf, where one job or state has all of it."""
        for job, units in box.jobs.items():
            if box.size == 1 or units >= box.size:
                return self.colors[job]
        if box.status == "up" and not box.jobs and box.size == 1:
            for job in box.reserved:
                return f"url(#{self.hatches[job]})"
        return {"up": _UP, "drained": _DRAINED, "down": _DOWN}[box.status]

    def _tile(self, box: Box) -> None:
        line, width = _frame(box.status)
        if self.tiles > layout.MEDIUM:
            usage = box.usage[_main_type(box.usage)]
            self._rect(box.x, box.y, box.w, box.h, "#fff", line=line, width=width, tip=_tip(box))
            self._bar(box.x + 0.5, box.y + 0.5, box.w - 1, box.h - 1, usage, outline=False)
            return
        tip = _tip(box)
        self._rect(box.x, box.y, box.w, box.h, "#fff", line=line, radius=3, width=width, tip=tip)
        if self.tiles > layout.LARGE:
            name = layout.shorten(box.name, layout.SMALL_FONT, box.w - 6)
            self._text(box.x + 4, box.y + 9, name, layout.SMALL_FONT)
            for i, usage in enumerate(box.usage.values()):
                self._bar(box.x + 4, box.y + 12 + 5 * i, box.w - 8, 4, usage)
            return
        self._title(box)
        for i, (name, usage) in enumerate(box.usage.items()):
            y = box.y + layout.TITLE_H + 14 * i
            name = layout.shorten(name, layout.SMALL_FONT, 42)
            self._text(box.x + layout.PAD, y + 8, name, layout.SMALL_FONT, fill=_FAINT)
            self._bar(box.x + 50, y + 1, 52, 8, usage)
            count = f"{usage.taken}/{usage.total}"
            x = box.x + box.w - layout.PAD
            self._text(x, y + 8, count, layout.SMALL_FONT, fill=_FAINT, anchor="end")

    def _bar(
        self, x: float, y: float, w: float, h: float, usage: Usage, *, outline: bool = True
    ) -> None:
        """Shares of a whole, side by side: jobs, reserved, drained, down, free."""
        if outline or usage.total:
            self._rect(x, y, w, h, _UP)
        if not usage.total:
            return
        at, end = x, x + w

        def share(units: int, fill: str) -> None:
            nonlocal at
            wide = min(units * w / usage.total, end - at)
            if wide > 0.05:
                self._rect(at, y, wide, h, fill)
                at += wide

        for job, units in usage.jobs.items():
            share(units, self.colors[job])
        share(usage.down, _DOWN)
        share(usage.drained, _DRAINED)
        # Reservations of one thing may follow each other: all share what is free now.
        left = min(usage.free, sum(usage.reserved.values()))
        whole = sum(usage.reserved.values())
        for job, units in usage.reserved.items():
            share(round(units * left / whole), f"url(#{self.hatches[job]})")

    # -- other subsystems -----------------------------------------------------------------------

    def _place_lane(self, layers: list[list[Box]], left: float, right: float, y: float) -> float:
        """Boxes above what they lead to, deepest layer first; returns where they end."""
        pairs = [(link.source.id, self._visible(link.target)) for link in self.tree.links]
        end = right
        for i in range(len(layers) - 1, -1, -1):
            layer = layers[i]
            middle: dict[str, list[float]] = {box.id: [] for box in layer}
            for source, target in pairs:
                if source in middle and target is not None and target.w:
                    middle[source].append(target.x + target.w / 2)
            widths = [
                layout.text_width(layout.chip_label(box)[:28], layout.SMALL_FONT) + 14
                for box in layer
            ]
            gap = 10.0
            if sum(widths) + gap * len(layer) > max(right - left, _LANE_MIN_W):
                # Too many for labels.
                gap = 3.0 if len(layer) < 300 else 0.0
                each = max(min((right - left) / len(layer) - gap, 12.0), 0.5)
                widths = [each] * len(layer)
            for box, width in zip(layer, widths):
                box.w = width
                box.h = 18.0
                box.y = y + i * _LANE_H
                places = middle[box.id]
                box.x = (sum(places) / len(places) if places else left) - box.w / 2
            # Those over the same place stay in their order.
            layer.sort(key=lambda box: round((box.x + box.w / 2) / 8))
            at = left
            for box in layer:
                box.x = at = max(box.x, at)
                at += box.w + gap
            # Pushed out on the right: move back as far as there is room.
            at = max(right, left + sum(box.w + gap for box in layer) - gap)
            for box in reversed(layer):
                box.x = min(box.x, at - box.w)
                at = box.x - gap
            end = max(end, layer[-1].x + layer[-1].w)
        return end

    def _visible(self, box: Box) -> Box | None:
        """The box itself, or the drawn one that it is summed up in."""
        at: Box | None = box
        while at is not None and at.id not in self.shown and at.parent is not None:
            at = at.parent
        return at

    def _lane(self, name: str, layers: list[list[Box]], y: float) -> None:
        color = self.subsystems[name]
        label = layout.shorten(name, layout.FONT, _LANE_LABEL_W - 6)
        self._text(_MARGIN, y + 13, label, layout.FONT, fill=color, bold=True)
        for layer in layers:
            for box in layer:
                self._leaf(box, color)

    def _links(self, top: float) -> None:
        """Lines of other subsystems. ``top`` is where the boxes begin that lanes lead to.

        They run like cables: to a box along the top, down the gap left of it, and in. Cables of
        several sources lie side by side.
        """
        pairs = self._pairs(self.tree.links)
        slots: dict[str, int] = {}
        for (subsystem, _, _), (source, target, count) in pairs.items():
            color = self.subsystems[subsystem]
            thick = 1.2 if count == 1 else min(1.2 + 0.1 * count**0.5, 2.0)
            x1, y1 = source.x + source.w / 2, source.y + source.h
            if target.id in self.shown:
                slot = slots.setdefault(source.id, len(slots))
                x, y = target.x, target.y + min(9.0, target.h / 2)
                gap = x - 2.5 - 2.2 * (slot % 3)
                if y1 <= top:
                    along = top - 4 - 3.2 * (slot % 6)
                    aside = self._way_down(source, x1)
                    down = [(x1, y1 + 5), (aside, y1 + 5), (aside, along)]
                    if aside == x1:
                        down = [(x1, along)]
                    path = _cable([(x1, y1), *down, (gap, along), (gap, y), (x, y)])
                else:  # From a box among the others.
                    path = _cable([(source.x, y1 - 6), (gap, y1 - 6), (gap, y), (x, y)])
            else:
                x, y = target.x + target.w / 2, target.y
                path = _cable([(x1, y1), (x1, (y1 + y) / 2), (x, (y1 + y) / 2), (x, y)])
            self.parts.append(
                f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{thick:.2g}"/>'
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{color}"/>'
            )

    def _way_down(self, source: Box, x: float) -> float:
        """Where a line from ``source`` can pass the lanes below it, as near to ``x`` as may be."""
        below = [
            (box.x - 4, box.x + box.w + 4)
            for boxes in self.tree.outside.values()
            for box in boxes
            if box.y > source.y
        ]
        choices = [x, *(end for span in below for end in span)]
        free = [at for at in choices if not any(low < at < high for low, high in below)]
        return min(free, key=lambda at: abs(at - x), default=x)

    def _pairs(self, links: Iterable[Link]) -> dict[tuple[str, str, str], tuple[Box, Box, int]]:
        """Boxes to join and how many edges a line stands for.

        Deep targets give way to what contains them until there are few enough lines.
        """
        depth = max((box.depth for box in self.boxes), default=0)
        while True:
            pairs: dict[tuple[str, str, str], tuple[Box, Box, int]] = {}
            among_lanes: dict[tuple[str, str, str], tuple[Box, Box, int]] = {}
            for link in links:
                source, target = self._visible(link.source), self._visible(link.target)
                while target is not None and target.depth > depth and target.parent is not None:
                    target = target.parent
                if source is None or target is None:
                    continue
                if source.contains(target) or target.contains(source):
                    continue
                found = pairs if target.id in self.shown else among_lanes
                key = (link.subsystem, source.id, target.id)
                count = found[key][2] if key in found else 0
                found[key] = (source, target, count + 1)
            if len(pairs) <= MAX_LINKS or depth <= 1:
                return {**among_lanes, **pairs}
            depth -= 1

    # -- words ----------------------------------------------------------------------------------

    def _header(self, title: str, width: float) -> None:
        room = width
        self._text(_MARGIN, _MARGIN + 14, layout.shorten(title, 19.0, room), 19.0, bold=True)
        counts: dict[str, int] = {}
        for root in self.tree.roots:
            for box in root.walk():
                if box.children:
                    counts[box.type] = counts.get(box.type, 0) + 1
        words = [f"{count:,} {_plural(name, count)}" for name, count in counts.items()]
        words += [
            f"{_amount(name, usage, usage.total)} ({usage.free:,} free)"
            for name, usage in self.usage.items()
        ]
        text = layout.shorten(" · ".join(words), layout.FONT, room)
        self._text(_MARGIN, _MARGIN + 32, text, layout.FONT, fill=_FAINT)

    def _legend(self, x: float, y: float) -> float:
        """States, jobs and subsystems; returns where it ends."""

        def entry(fill: str, text: str, more: str = "", line: str = _LINE) -> None:
            nonlocal y
            self._rect(x, y, 14, 12, fill, line=line, radius=2)
            if fill == _DOWN:
                self._cross(x + 1, y, 12)
            text = layout.shorten(text, layout.FONT, _LEGEND_W - 22)
            self._text(x + 22, y + 10, text, layout.FONT)
            at = 28 + layout.text_width(text, layout.FONT)
            more = layout.shorten(more, layout.SMALL_FONT, _LEGEND_W - at)
            self._text(x + at, y + 10, more, layout.SMALL_FONT, fill=_FAINT)
            y += 19

        def heading(text: str) -> None:
            nonlocal y
            self._text(x, y + 9, text, layout.FONT, fill=_FAINT, bold=True)
            y += 18

        heading("State")
        entry(_UP, "up, free")
        entry(_DRAINED, "drained", line=_DRAINED_LINE)
        entry(_DOWN, "down")
        if self.jobs:
            y += 8
            heading("Jobs")
            for job in self.jobs[:MAX_LEGEND]:
                held = self._held(job)
                if held or job not in self.hatches:
                    entry(self.colors[job], job, held)
                else:
                    entry(f"url(#{self.hatches[job]})", job, "reserved")
            if len(self.jobs) > MAX_LEGEND:
                text = f"and {len(self.jobs) - MAX_LEGEND:,} more"
                self._text(x + 22, y + 10, text, layout.FONT, fill=_FAINT)
                y += 19
        if self.subsystems:
            y += 8
            heading("Other subsystems")
            for name, color in self.subsystems.items():
                self.parts.append(
                    f'<path d="M{x:.1f} {y + 6:.1f}h14" stroke="{color}" stroke-width="2"/>'
                )
                text = layout.shorten(name, layout.FONT, _LEGEND_W - 22)
                self._text(x + 22, y + 10, text, layout.FONT)
                y += 19
        return y

    def _held(self, job: str) -> str:
        """What a job holds, most telling first."""
        found = {name: usage for name, usage in self.everything.items() if usage.jobs.get(job)}
        names = sorted(found, key=lambda name: (name != "core", bool(found[name].unit)))
        return ", ".join(_amount(name, found[name], found[name].jobs[job]) for name in names[:3])


def _layers(tree: Tree, subsystem: str) -> list[list[Box]]:
    """Boxes outside of the nest by how far they are from the top of their subsystem."""
    boxes = {box.id: box for box in tree.outside[subsystem]}
    level = dict.fromkeys(boxes, 0)
    links = [x for x in tree.links if x.source.id in boxes and x.target.id in boxes]
    for _ in range(len(boxes)):
        changed = False
        for link in links:
            if level[link.target.id] <= level[link.source.id] < len(boxes):
                level[link.target.id] = level[link.source.id] + 1
                changed = True
        if not changed:
            break
    layers: dict[int, list[Box]] = {}
    for id_, at in level.items():
        layers.setdefault(at, []).append(boxes[id_])
    return [layers[at] for at in sorted(layers)]


def _frame(status: str) -> tuple[str, float]:
    """Colour and width of a box's outline."""
    if status == "drained":
        return _DRAINED_LINE, 1.5
    return (_DOWN, 1.5) if status == "down" else (_LINE, 1.0)


def _main_type(usage: dict[str, Usage]) -> str:
    """The type that stands for a vertex where there is room for one: cores if it has any."""
    return "core" if "core" in usage else max(usage, key=lambda name: usage[name].total)


def _remarks(box: Box) -> list[str]:
    """What to say beside a name, longest first."""
    if box.status != "up":
        return [box.status]
    if not box.usage:
        return []
    name = _main_type(box.usage)
    usage = box.usage[name]
    few = f"{usage.free:,} of {usage.total:,}"
    return [f"{few} {_plural(name, usage.total)} free", f"{few} free", f"{usage.free:,} free"]


def _tip(box: Box) -> str:
    """What a browser shows where the mouse is."""
    words = [box.path, box.type]
    if box.status != "up":
        words.append(box.status)
    if box.children:
        for name, usage in box.usage.items():
            words.append(f"{name} {usage.taken:,} of {usage.total:,} taken")
    else:
        if box.size != 1:
            words.append(f"{box.size} {box.unit}".rstrip())
        words += [f"job {job}" for job in list(box.jobs)[:8]]
        words += [f"reserved for {job}" for job in list(box.reserved)[:8]]
    return _printable(" · ".join(words)[:512])


def _amount(name: str, usage: Usage, units: int) -> str:
    """``4 cores``, or ``64 GB memory``."""
    if usage.unit:
        return f"{units:,} {usage.unit} {name}"
    return f"{units:,} {_plural(name, units)}"


def _cable(points: list[tuple[float, float]]) -> str:
    """A path along ``points`` that turns corners with a small radius."""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for before, at, after in zip(points, points[1:], points[2:]):
        ends = []
        for other in (before, after):
            dx, dy = other[0] - at[0], other[1] - at[1]
            length = (dx * dx + dy * dy) ** 0.5
            part = min(4.0, length / 2) / length if length else 0.0
            ends.append((at[0] + dx * part, at[1] + dy * part))
        (x1, y1), (x2, y2) = ends
        path += f"L{x1:.1f} {y1:.1f}Q{at[0]:.1f} {at[1]:.1f} {x2:.1f} {y2:.1f}"
    return f"{path}L{points[-1][0]:.1f} {points[-1][1]:.1f}"


def _plural(word: str, count: int) -> str:
    if count == 1 or word == "memory" or word.endswith("s"):
        return word
    return word + "s"


def _natural(jobs: set[str]) -> list[str]:
    """Job ids in their order: shorter numbers are smaller."""
    return sorted(jobs, key=lambda job: (len(job), job))


def _job_color(i: int) -> str:
    if i < len(_JOBS):
        return _JOBS[i]
    # Steps of the golden ratio never come near an earlier hue soon.
    r, g, b = colorsys.hls_to_rgb((i * 0.618034) % 1.0, 0.42 + 0.16 * (i % 3) / 2, 0.55)
    return f"#{round(r * 255):02x}{round(g * 255):02x}{round(b * 255):02x}"


def _printable(text: str) -> str:
    """XML has no way to write most control characters."""
    return "".join(c if c >= " " and not "\ud800" <= c <= "\udfff" else "\ufffd" for c in text)
