"""Which vertices ``find`` shows: predicates joined by *and* and *or*, grouped by parentheses.

``status=up``, ``sched-now=allocated``, ``sched-future=free``, ``agfilter=true``,
``names=HOSTLIST``, ``jobid-alloc=ID`` (also ``-span``, ``-tag``, ``-reserved``), ``property=NAME``.
There is no precedence: terms are taken from left to right, and two terms without a word between
them are joined by *and*. The words stand alone, with white space around them; a parenthesis opens
a group only where a term begins. Source: ``resource/evaluators`` of flux-sched.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Protocol

    class VertexView(Protocol):
        """A vertex as criteria see it.

        ``down``, ``allocated`` and ``reserved`` hold for everything below a vertex of which they
        hold; the rest is the vertex's own.
        """

        @property
        def down(self) -> bool: ...
        @property
        def allocated(self) -> bool: ...
        @property
        def reserved(self) -> bool: ...
        @property
        def name(self) -> str: ...
        @property
        def properties(self) -> Container[str]: ...
        @property
        def allocations(self) -> Container[int]: ...
        @property
        def reservations(self) -> Container[int]: ...
        @property
        def tags(self) -> Container[int]: ...
        @property
        def spans(self) -> Container[int]: ...

    Test = Callable[[VertexView], bool]


MAX_DEPTH = 64
"""Parentheses in parentheses."""

_BLANKS = " \t"

_JOB_SETS = {
    "jobid-alloc": "allocations",
    "jobid-span": "spans",
    "jobid-tag": "tags",
    "jobid-reserved": "reservations",
}

_STATES = {
    "status": ("down", "down", "up"),
    "sched-now": ("allocated", "allocated", "free"),
    "sched-future": ("reserved", "reserved", "free"),
}
"""Predicate to attribute, the word for it, and the word for its absence."""

KEYS = (*_STATES, "agfilter", "names", *_JOB_SETS, "property")


class Criteria:
    """Parsed criteria; make them with `parse`.

    ``agfilter`` says whether what is found is to be shown with the use of its aggregates, and
    ``job_id`` whose use (0: anyone's). Both are what the text says last.
    """

    __slots__ = ("_test", "agfilter", "job_id", "text")

    def __init__(self, text: str, test: Test, agfilter: bool, job_id: int) -> None:
        self.text = text
        self.agfilter = agfilter
        self.job_id = job_id
        self._test = test

    def matches(self, view: VertexView) -> bool:
        return self._test(view)

    def __repr__(self) -> str:
        return f"Criteria({self.text!r})"


def parse(text: str) -> Criteria:
    """Raises ValueError naming what is wrong, and where a term is expected, which there are."""
    parser = _Parser(text)
    test = parser.group(text, 1)
    return Criteria(text, test, parser.agfilter, parser.job_id)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.agfilter = False
        self.job_id = 0

    def fail(self, problem: str) -> ValueError:
        shown = self.text if len(self.text) <= 100 else self.text[:97] + "..."
        return ValueError(f"criteria {shown!r}: {problem}")

    def group(self, text: str, depth: int) -> Test:
        if depth > MAX_DEPTH:
            raise self.fail(f"more than {MAX_DEPTH} parentheses in each other")
        first, at = self.term(text, 0, depth)
        rest: list[tuple[bool, Test]] = []
        end = len(text.rstrip(_BLANKS))
        while at < end:
            if text[at] not in _BLANKS:
                raise self.fail(f"expected white space before {_word(text, at)!r}")
            start = _skip(text, at)
            word = _word(text, start)
            if word in ("and", "or"):
                at = start + len(word)
            other, at = self.term(text, at, depth)
            rest.append((word == "or", other))
        return _chain(first, rest) if rest else first

    def term(self, text: str, at: int, depth: int) -> tuple[Test, int]:
        """A predicate or a group in parentheses, and where the text goes on."""
        start = _skip(text, at)
        if start == len(text):
            after = text.split()
            where = f"after {after[-1]!r}" if after else "but it is empty"
            raise self.fail(f"expected a predicate {where}")
        if text[start] != "(":
            word = _word(text, start)
            return self.predicate(word), start + len(word)
        balance, end = 1, start + 1
        while balance:
            if end == len(text):
                raise self.fail("a parenthesis is not closed")
            balance += (text[end] == "(") - (text[end] == ")")
            end += 1
        return self.group(text[start + 1 : end - 1], depth + 1), end

    def predicate(self, word: str) -> Test:
        key, equals, value = word.partition("=")
        if not equals:
            raise self.fail(f"expected KEY=VALUE, found {_short(word)}")
        lower = value.lower()
        if key in _STATES:
            attribute, present, absent = _STATES[key]
            if lower not in (present, absent):
                raise self.fail(f"{key}: expected {absent} or {present}, found {_short(value)}")
            return _state(attribute, lower == present)
        if key in _JOB_SETS:
            from flux_mpi.formats import fluid

            try:
                self.job_id = fluid.parse(value)
            except ValueError:
                raise self.fail(f"{key}: expected a job id, found {_short(value)}") from None
            return _of_job(_JOB_SETS[key], self.job_id)
        if key == "agfilter":
            if lower not in ("true", "t", "false", "f"):
                raise self.fail(f"agfilter: expected true or false, found {_short(value)}")
            self.agfilter = lower in ("true", "t")
            return _constant(self.agfilter)
        if key == "names":
            return self._names(lower)
        if key == "property":
            if not value:
                raise self.fail("property: expected a name, found nothing")
            return lambda view: lower in view.properties
        raise self.fail(f"unknown predicate {_short(key)}: expected one of {', '.join(KEYS)}")

    def _names(self, value: str) -> Test:
        from flux_mpi.formats.hostlist import Hostlist

        try:
            hosts = Hostlist.parse(value)
        except ValueError:
            raise self.fail(f"names: expected a host list, found {_short(value)}") from None
        return lambda view: hosts.find(view.name) >= 0


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at


def _word(text: str, at: int) -> str:
    end = at
    while end < len(text) and text[end] not in _BLANKS:
        end += 1
    return text[at:end]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _state(attribute: str, wanted: bool) -> Test:
    return lambda view: getattr(view, attribute) is wanted


def _of_job(attribute: str, job_id: int) -> Test:
    return lambda view: job_id in getattr(view, attribute)


def _constant(value: bool) -> Test:
    return lambda view: value


def _chain(first: Test, rest: list[tuple[bool, Test]]) -> Test:
    """Further tests, each joined by *or* (True) or *and* to all before it."""

    def test(view: VertexView) -> bool:
        result = first(view)
        for is_or, other in rest:
            if result is not is_or:
                result = other(view)
        return result

    return test
