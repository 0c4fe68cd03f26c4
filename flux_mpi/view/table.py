"""Tables from a format string, in the syntax of Flux's ``-o`` options.

Python's format syntax with extras: conversions ``!D !d !F !H !P``, the type ``h`` (a hyphen for
what is unset), the suffix ``+`` (marks a cut), and before a column ``?:`` (drop it when empty for
all), ``+:`` (as wide as needed) or both, ``?+:``. A leading ``sort:KEY,…`` sorts.

The string is compiled once into one function a column: a table of 10,000 rows is a loop over
those, not 10,000 times the parsing of a format string.
"""

from __future__ import annotations

from string import Formatter

from flux_mpi.formats import duration, timefmt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Protocol

    class Field(Protocol):
        """A column's heading, the attributes it needs, and its value for an item."""

        heading: str
        attrs: tuple[str, ...]

        @property
        def get(self) -> Callable[[Any], Any]: ...


SENTINELS = ("?+:", "?:", "+:")
_EMPTY = frozenset(("", "0s", "0.0", "0:00:00", "1970-01-01T00:00:00"))


class FormatError(ValueError):
    """A format string that makes no sense."""


class Column:
    """One ``{field!conversion:spec}`` and the text before it."""

    __slots__ = ("conversion", "field", "literal", "name", "sentinel", "spec")

    def __init__(
        self, literal: str, name: str, conversion: str, spec: str, field: Field | None
    ) -> None:
        self.sentinel = next((mark for mark in SENTINELS if literal.endswith(mark)), "")
        self.literal = literal[: len(literal) - len(self.sentinel)]
        self.name = name
        self.conversion = conversion
        self.spec = spec
        self.field = field


class Format:
    """A format string, checked against the fields that ``lookup`` knows.

    Raises FormatError naming what is wrong.
    """

    def __init__(self, text: str, lookup: Callable[[str], Field | None]) -> None:
        self._lookup = lookup
        self.sort_keys: list[tuple[str, bool]] = []
        if text.startswith("sort:"):
            end = min(at for at in (text.find(" "), text.find("{"), len(text)) if at >= 0)
            self.set_sort(text[len("sort:") : end])
            text = text[end + 1 :] if text[end : end + 1] == " " else text[end:]
        self.columns: list[Column] = []
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise FormatError(str(error)) from None
        for literal, name, spec, conversion in parsed:
            found = None
            if name is not None:
                found = lookup(name)
                if found is None:
                    raise FormatError(f"Unknown format field: {name}")
                if conversion and conversion not in _CONVERSIONS:
                    raise FormatError(
                        f"Unknown conversion !{conversion} of {name}: "
                        f"expected one of {' '.join('!' + known for known in _CONVERSIONS)}"
                    )
            self.columns.append(Column(literal, name or "", conversion or "", spec or "", found))

    def set_sort(self, keys: str) -> None:
        """Sort by ``KEY,-KEY…`` (``-``: descending). Raises FormatError for an unknown key."""
        self.sort_keys = []
        for key in filter(None, (part.strip() for part in keys.split(","))):
            name = key.lstrip("-")
            if self._lookup(name) is None:
                raise FormatError(f"Invalid sort key: {name}")
            self.sort_keys.append((name, key.startswith("-")))

    @property
    def attrs(self) -> set[str]:
        """All attributes that the columns and the sorting need."""
        fields = [column.field for column in self.columns]
        fields += [self._lookup(name) for name, _ in self.sort_keys]
        return {attr for field in fields if field is not None for attr in field.attrs}

    def sort(self, items: list[Any]) -> list[Any]:
        """``items`` in the order asked for; unset before numbers before text."""
        for name, descending in reversed(self.sort_keys):
            field = self._lookup(name)
            assert field is not None
            get = field.get
            items.sort(key=lambda item: _rank(get(item)), reverse=descending)
        return items

    def table(self, items: Sequence[Any], header: bool = True) -> Iterator[str]:
        """The header line, unless suppressed, and a line for each item; no newlines."""
        shown = self._fit(items, header)
        if header:
            yield "".join(
                column.literal
                + (_pad(column.field.heading, spec) if column.field is not None else "")
                for column, spec in shown
            )
        parts: list[Callable[[Any], str]] = []
        for column, spec in shown:
            if column.literal:
                parts.append(_constant(column.literal))
            if column.field is not None:
                parts.append(_cell(column.field.get, column.conversion, spec))
        for item in items:
            yield "".join([part(item) for part in parts])

    def line(self, item: Any) -> str:
        """One item on its own."""
        return next(self.table([item], header=False))

    def _fit(self, items: Sequence[Any], header: bool) -> list[tuple[Column, str]]:
        """The columns to show, with their widths."""
        shown = []
        for column in self.columns:
            spec = column.spec
            if column.sentinel and column.field is not None:
                bare = _cell(column.field.get, column.conversion, "")
                widest = 0
                for item in items:
                    text = bare(item)
                    if len(text) > widest and text not in _EMPTY:
                        widest = len(text)
                if "?" in column.sentinel and widest == 0:
                    continue
                if "+" in column.sentinel:
                    spec = _widen(spec, max(widest, len(column.field.heading) if header else 0))
            shown.append((column, spec))
        return shown


class _Spec:
    """``[[fill]align][width][.precision][rest]`` taken apart."""

    __slots__ = ("align", "precision", "rest", "width")

    def __init__(self, text: str) -> None:
        self.align = ""
        if len(text) > 1 and text[1] in "<>^=":
            self.align, text = text[:2], text[2:]
        elif text[:1] in ("<", ">", "^", "="):
            self.align, text = text[:1], text[1:]
        end = 0
        while end < len(text) and text[end].isdigit():
            end += 1
        self.width, text = text[:end], text[end:]
        self.precision = ""
        if text.startswith("."):
            end = 1
            while end < len(text) and text[end].isdigit():
                end += 1
            self.precision, text = text[1:end], text[end:]
        self.rest = text


def _widen(text: str, width: int) -> str:
    spec = _Spec(text)
    width = max(width, int(spec.width or 0))
    precision = f".{width}" if spec.precision else ""
    return f"{spec.align}{width or ''}{precision}{spec.rest}"


def _pad(heading: str, text: str) -> str:
    """A heading at a column's width and alignment."""
    if "::" in text:
        text = text.split("::", 1)[1]
    elif "%" in text:
        return heading
    spec = _Spec(text)
    return format(heading, f"{spec.align}{spec.width}")


def _constant(text: str) -> Callable[[Any], str]:
    return lambda item: text


def _cell(get: Callable[[Any], Any], conversion: str, spec: str) -> Callable[[Any], str]:
    """One function from item to text, with nothing left to parse."""
    if conversion == "d":
        return _datetime_cell(get, spec)
    convert = _CONVERSIONS[conversion] if conversion else None
    mark = spec.endswith("+")
    spec = spec[:-1] if mark else spec
    hyphen = spec.endswith("h")
    spec = spec[:-1] if hyphen else spec

    if not mark and not hyphen and convert is None:

        def simple(item: Any) -> str:
            value = get(item)
            try:
                return format(value, spec)
            except ValueError:
                return _as_text(value, spec)

        return simple

    def cell(item: Any) -> str:
        value = get(item)
        if convert is not None:
            value = convert(value)
        if hyphen:
            value = str(value)
            if value in _EMPTY:
                value = "-"
        try:
            text = format(value, spec)
        except ValueError:
            text = _as_text(value, spec)
        if mark and len(text) < len(str(value)):
            text = text[:-1] + "+"
        return text

    return cell


def _as_text(value: Any, text: str) -> str:
    """A number's spec applied to a text that stands for "unset"."""
    spec = _Spec(text)
    align = "" if "=" in spec.align else spec.align
    precision = f".{spec.precision}" if spec.precision else ""
    return format(str(value), f"{align}{spec.width.lstrip('0')}{precision}")


def _datetime_cell(get: Callable[[Any], Any], spec: str) -> Callable[[Any], str]:
    from datetime import datetime

    when, separator, rest = spec.partition("::")
    hyphen = rest.endswith("h")
    rest = rest[:-1] if hyphen else rest
    if not separator and when in ("h", ""):
        hyphen, when = when == "h", ""
    when = when or "%FT%T"

    def cell(item: Any) -> str:
        value = get(item)
        text = datetime.fromtimestamp(value).strftime(when) if value else "-" if hyphen else ""
        return format(text, rest)

    return cell


def _iso(value: Any) -> Any:
    if not value:
        return ""
    from datetime import datetime

    return datetime.fromtimestamp(value).strftime("%FT%T")


def _fsd(value: Any) -> Any:
    return duration.short(value) if isinstance(value, (int, float)) else value


def _clock(value: Any) -> Any:
    if not isinstance(value, (int, float)):
        return value
    return timefmt.hms(value)


def _percent(value: Any) -> Any:
    if not isinstance(value, (int, float)):
        return value
    value = value * 100
    return f"{value:.2f}%" if 0 < value < 1 else f"{value:.3g}%"


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "d": _iso,
    "D": _iso,
    "F": _fsd,
    "H": _clock,
    "P": _percent,
    "s": str,
    "r": repr,
    "a": ascii,
}


def _rank(value: Any) -> tuple[int, float, str]:
    """A key that orders unset values, numbers and texts in one column."""
    if value is None or value in ("", "-"):
        return (0, 0.0, "")
    try:
        return (1, float(value), "")
    except (TypeError, ValueError):
        return (2, 0.0, str(value))


def cut(line: str, width: int) -> str:
    """``line`` in at most ``width`` columns (0 or less: whole), ``+`` marking the cut."""
    return line if width <= 0 or len(line) <= width else line[: width - 1] + "+"
