"""A request graph as rows of integers, for the kernels of `search`.

Row *r* of a table says what one resource of a jobspec asks for; what lies in it (its ``with``) are
the consecutive rows R_FROM to R_TO. What one unit of it needs of each tracked type below it comes
along, for pruning.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flux_mpi.formats.request import Request
from flux_mpi.resource.graph import Names
from flux_mpi.sched.arena import A_WIDTH
from flux_mpi.sched.requestrows import (
    R_EXCLUSIVE,
    R_FROM,
    R_IS_SLOT,
    R_LABEL,
    R_MAX,
    R_MIN,
    R_MOST,
    R_NEED,
    R_OPERAND,
    R_OPERATOR,
    R_PRUNES,
    R_TO,
    R_TYPE,
    R_UNION,
    R_UNION_TO,
    X_FALSE,
    X_TRUE,
    X_UNSAID,
    count_for,
)
from flux_mpi.sched.scalars import LABELS

MOST = (1 << 32) - 1
"""More units than this there never are."""

MAX_VARIANTS = 1000
"""Alternatives that ``xor_slot`` may multiply out to."""

_SLOTS = ("slot", "xor_slot")


class Table(NamedTuple):
    """A compiled request: rows of ``width`` words, the outermost being the first ``top`` of them.

    ``needs``: units of each tracked type in all (by column), `types` those asked for exclusively.
    """

    rows: array[int]
    width: int
    top: int
    needs: list[int]
    whole_types: frozenset[str]
    labels: list[str]


def variants(resources: Sequence[Request], flexible: bool) -> list[list[Request]]:
    """The requests that ``xor_slot`` stands for, in the order to try them.

    Raises ValueError when there are more than MAX_VARIANTS.
    """
    if not flexible:
        return [list(resources)]
    return _split(resources)


def _split(resources: Sequence[Request]) -> list[list[Request]]:
    base: list[list[Request]] = [[]]
    options: list[Request] = []
    for resource in resources:
        below = _split(resource.children)
        if resource.type == "xor_slot":
            options += [_with(resource, "slot", children) for children in below]
        else:
            base = [
                [*chosen, _with(resource, resource.type, children)]
                for chosen in base
                for children in below
            ]
        if len(base) * max(1, len(options)) > MAX_VARIANTS:
            raise ValueError(
                f"xor_slot: expected at most {MAX_VARIANTS} alternatives in all, found more"
            )
    if not options:
        return base
    return [[*chosen, option] for chosen in base for option in options]


def _with(resource: Request, type: str, children: list[Request]) -> Request:
    return Request(
        type,
        resource.min,
        resource.max,
        resource.operator,
        resource.operand,
        resource.exclusive,
        resource.unit,
        resource.label,
        resource.id,
        children,
    )


class Compiler:
    """Makes tables. ``tracked``: type to column of the types that vertices track below them."""

    def __init__(self, types: Names, tracked: Mapping[str, int], flexible: bool) -> None:
        self._types = types
        self._tracked = tracked
        self._flexible = flexible

    def table(self, resources: Sequence[Request]) -> Table:
        """Raises ValueError for alternatives of more types than a flexible request may have."""
        self._width = R_NEED + len(self._tracked)
        self._rows: list[list[int]] = []
        self._labels = [""]
        self._unknown: dict[str, int] = {}
        self._whole: set[str] = set()
        needs: dict[str, int] = {}
        data: dict[int, dict[str, int]] = {}
        self._prime(resources, needs, data)
        self._place(resources, data)
        rows = array("q")
        for row in self._rows:
            rows.extend(row)
        by_column = [0] * len(self._tracked)
        for type, column in self._tracked.items():
            by_column[column] = needs.get(type, 0)
        return Table(
            rows,
            self._width,
            len(resources),
            by_column,
            frozenset(self._whole),
            self._labels,
        )

    def _prime(
        self,
        resources: Sequence[Request],
        up: dict[str, int],
        data: dict[int, dict[str, int]],
    ) -> None:
        """Work out what each resource needs below one unit of it, and all of them together."""
        for resource in resources:
            if resource.exclusive:
                self._whole.add(resource.type)
            if resource.type in self._tracked:
                up[resource.type] = up.get(resource.type, 0) + resource.min
            own = data.setdefault(id(resource), {})
            own.clear()
            self._prime(resource.children, own, data)
            if self._flexible and resource.type in _SLOTS:
                # Of alternatives, the least that any of them needs.
                for type, units in own.items():
                    least = resource.min * units
                    up[type] = min(up.get(type, least), least)
                for type in up:
                    if type not in own:
                        up[type] = 0
            else:
                for type, units in own.items():
                    up[type] = up.get(type, 0) + resource.min * units

    def _place(
        self, resources: Sequence[Request], data: Mapping[int, dict[str, int]]
    ) -> tuple[int, int]:
        """Lay rows for ``resources``, then for what is in them; returns the range of the former."""
        first = len(self._rows)
        for resource in resources:
            self._rows.append(self._row(resource, data[id(resource)]))
        last = len(self._rows)
        for k, resource in enumerate(resources):
            inside = self._place(resource.children, data)
            self._rows[first + k][R_FROM : R_TO + 1] = inside
        if self._flexible and any(resource.type in _SLOTS for resource in resources):
            self._lay_union(resources, first, last)
        return first, last

    def _lay_union(self, resources: Sequence[Request], first: int, last: int) -> None:
        """Rows for what any of several alternatives holds, the larger count of each type."""
        union: dict[str, int] = {}
        for k in range(first, last):
            start, end = self._rows[k][R_FROM], self._rows[k][R_TO]
            for row, inside in zip(range(start, end), resources[k - first].children):
                known = union.get(inside.type)
                if known is None or self._rows[known][R_MIN] < inside.min:
                    union[inside.type] = row
        if len(union) > A_WIDTH:
            raise ValueError(
                f"slot: expected alternatives of at most {A_WIDTH} types, found {len(union)}"
            )
        at = len(self._rows)
        for type in sorted(union, key=self._number):
            self._rows.append(list(self._rows[union[type]]))
        for k in range(first, last):
            self._rows[k][R_UNION : R_UNION_TO + 1] = at, len(self._rows)

    def _number(self, type: str) -> int:
        number = self._types.find(type)
        if number < 0:  # there is none; yet two such types are not the same
            number = self._unknown.setdefault(type, -2 - len(self._unknown))
        return number

    def _row(self, resource: Request, below: Mapping[str, int]) -> list[int]:
        row = [0] * self._width
        row[R_TYPE] = self._number(resource.type)
        row[R_MIN] = resource.min
        row[R_MAX] = min(resource.max, MOST)
        row[R_OPERATOR] = "+*^".index(resource.operator)
        row[R_OPERAND] = resource.operand
        row[R_EXCLUSIVE] = (
            X_UNSAID if resource.exclusive is None else X_TRUE if resource.exclusive else X_FALSE
        )
        row[R_IS_SLOT] = int(resource.type == "slot")
        row[R_MOST] = count_for(row, 0, MOST)
        row[R_PRUNES] = int(bool(below))
        if resource.label and resource.type not in _SLOTS:  # slots are no vertices
            if resource.label not in self._labels and len(self._labels) < LABELS:
                self._labels.append(resource.label)
            if resource.label in self._labels:
                row[R_LABEL] = self._labels.index(resource.label)
        for type, units in below.items():
            row[R_NEED + self._tracked[type]] = units
        return row
