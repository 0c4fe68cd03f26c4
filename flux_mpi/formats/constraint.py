"""Which nodes a job may use: constraints (RFC 31) and the query syntax for them (RFC 35).

A constraint is a JSON object of one operator and its values: ``properties``, ``hostlist``,
``ranks``, and ``and``, ``or``, ``not`` over further constraints. ``{}`` matches everything.
"""

from __future__ import annotations

import json
import re

from flux_mpi.formats.hostlist import Hostlist
from flux_mpi.formats.idset import EMPTY, IDSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from flux_mpi.formats.rv1 import RSet

MAX_DEPTH = 64
OPERATORS = ("properties", "hostlist", "ranks", "and", "or", "not")

# RFC 20's list without ^, which here means "does not have".
_ILLEGAL = re.compile(r"[!&'\"`|()]")


class ConstraintError(ValueError):
    """A constraint or query that is not valid; the text says where and why."""


def validate(obj: object) -> None:
    """Check that ``obj`` is a constraint of RFC 31; raises `ConstraintError` saying what is not."""
    _validate(obj, 1)


def _validate(obj: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ConstraintError(f"constraint: nested deeper than {MAX_DEPTH} levels")
    if not isinstance(obj, dict):
        raise ConstraintError(f"constraint: expected an object, found {_shown(obj)}")
    if len(obj) > 1:
        raise ConstraintError(f"constraint: expected one operator, found {len(obj)}")
    for operator, values in obj.items():
        if operator not in OPERATORS:
            raise ConstraintError(
                f"constraint: unknown operator {_shown(operator)}, expected one of "
                + ", ".join(OPERATORS)
            )
        if not isinstance(values, (list, tuple)):
            raise ConstraintError(
                f"constraint: {operator}: expected a list, found {_shown(values)}"
            )
        for value in values:
            if operator in ("and", "or", "not"):
                _validate(value, depth + 1)
                continue
            if not isinstance(value, str):
                raise ConstraintError(
                    f"constraint: {operator}: expected strings, found {_shown(value)}"
                )
            if operator == "properties":
                _check_property(value)
            else:
                _parsed(operator, value)


def _check_property(value: str) -> None:
    bad = _ILLEGAL.search(value) or (re.search(r"\^", value[1:]))
    if bad or not value.removeprefix("^"):
        found = f"invalid character {bad[0]!r} in" if bad else "an empty name in"
        raise ConstraintError(f"constraint: {found} property {_shown(value)}")


def _parsed(operator: str, value: str) -> Any:
    try:
        return IDSet.parse(value) if operator == "ranks" else Hostlist.parse(value)
    except ValueError as err:
        raise ConstraintError(f"constraint: {operator}: {err}") from None


def _shown(value: object) -> str:
    if isinstance(value, (dict, list, tuple)):
        return "a list" if not isinstance(value, dict) else "an object"
    text = repr(value)
    return text if len(text) <= 64 else text[:61] + "..."


def canonical(obj: Mapping[str, Any] | None) -> str:
    """``obj`` as text that is equal for equal constraints; "" for none."""
    return json.dumps(obj, sort_keys=True, separators=(",", ":")) if obj else ""


def evaluate(
    obj: Mapping[str, Any], *, properties: Collection[str], hostname: str, rank: int
) -> bool:
    """Whether one node meets a valid constraint. Its host name counts as a property, as in Flux."""
    for operator, values in obj.items():
        if operator == "properties":
            return all(
                (value.removeprefix("^") in properties or value.removeprefix("^") == hostname)
                != value.startswith("^")
                for value in values
            )
        if operator == "hostlist":
            return any(hostname in _parsed(operator, value) for value in values)
        if operator == "ranks":
            return any(rank in _parsed(operator, value) for value in values)
        found = (
            evaluate(value, properties=properties, hostname=hostname, rank=rank) for value in values
        )
        if operator == "or":
            return not values or any(found)
        return all(found) == (operator == "and")
    return True


def matching_ranks(obj: Mapping[str, Any], resources: RSet) -> IDSet:
    """The ranks of ``resources`` that meet constraint ``obj``, all at once.

    Raises `ConstraintError` when ``obj`` is not valid.
    """
    validate(obj)
    return _Matcher(resources).select(obj)


class _Matcher:
    """The ranks behind names, looked up once for a whole constraint."""

    def __init__(self, resources: RSet) -> None:
        self.all = resources.ranks
        self.hosts = resources.hosts
        self.properties = resources.properties
        self._on_host: dict[str, list[int]] | None = None

    def on_host(self) -> dict[str, list[int]]:
        if self._on_host is None:
            self._on_host = {}
            for rank, host in self.hosts.items():
                self._on_host.setdefault(host, []).append(rank)
        return self._on_host

    def select(self, obj: Mapping[str, Any]) -> IDSet:
        for operator, values in obj.items():
            if operator == "properties":
                found = self.all
                for value in values:
                    found = found & self.having(value)
                return found
            if operator == "hostlist":
                return IDSet(rank for value in values for rank in self.on(_parsed(operator, value)))
            if operator == "ranks":
                found = EMPTY
                for value in values:
                    found = found | (_parsed(operator, value) & self.all)
                return found
            parts = [self.select(value) for value in values]
            if operator == "or":
                found = EMPTY
                for part in parts:
                    found = found | part
                return found if parts else self.all
            found = self.all
            for part in parts:
                found = found & part
            return found if operator == "and" else self.all - found
        return self.all

    def having(self, value: str) -> IDSet:
        name = value.removeprefix("^")
        found = self.properties.get(name, EMPTY) | IDSet(self.on_host().get(name, ()))
        return self.all - found if value.startswith("^") else found

    def on(self, hosts: Hostlist) -> list[int]:
        index = self.on_host()
        if len(hosts) > 2 * len(index):
            # Do not walk through a list far longer than the machine.
            return [rank for host, ranks in index.items() if host in hosts for rank in ranks]
        return [rank for host in hosts for rank in index.get(host, ())]


# Queries.

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<lparen>\()
      | (?P<rparen>\))
      | (?P<and>&&?)
      | (?P<or>\|\|?)
      | (?P<word>(?:[^()|&\s"']|(?<=[:])(?:"[^"]*"|'[^']*'))+ | "[^"]*" | '[^']*')
      | (?P<quote>["'])
    )""",
    re.VERBOSE,
)

_ALIASES = {"host": "hostlist", "hosts": "hostlist", "rank": "ranks", "property": "properties"}


def parse(text: str) -> dict[str, Any]:
    """The constraint that a ``--requires`` query means (RFC 35).

    ``a b``, ``a&b`` and ``a,b`` need both properties, ``a|b`` or ``a or b`` one of them; ``-a``,
    ``^a`` and ``not a`` its absence; ``host:n[1-3]`` and ``rank:0`` choose nodes; parentheses
    group. Raises `ConstraintError`.
    """
    obj = parse_query(
        text,
        default="properties",
        aliases=_ALIASES,
        split={"properties": ","},
        combined=("properties",),
    )
    validate(obj)
    return obj


def parse_query(
    text: str,
    *,
    default: str | None = None,
    aliases: Mapping[str, str] | None = None,
    split: Mapping[str, str] | None = None,
    combined: Collection[str] = (),
) -> dict[str, Any]:
    """An RFC 35 query as an RFC 31 object, whatever its operators mean.

    ``default`` is the operator of a term without one (None: an error), ``aliases`` other names of
    operators, ``split`` the separators of values, ``combined`` the operators whose terms become
    one when they are joined by *and*. Raises `ConstraintError`.
    """
    return _Query(text, default, aliases or {}, split or {}, combined).parse()


class _Query:
    def __init__(
        self,
        text: str,
        default: str | None,
        aliases: Mapping[str, str],
        split: Mapping[str, str],
        combined: Collection[str],
    ) -> None:
        self.text = text
        self.default = default
        self.aliases = aliases
        self.split = split
        self.combined = combined
        self.tokens: list[tuple[str, str, int]] = []
        at = 0
        end = len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            assert match is not None  # every character begins some token
            kind = str(match.lastgroup)
            word = match[kind]
            if kind == "quote":
                raise self.error(f"unclosed quote {word}", match.start(kind))
            if kind == "word" and word in ("and", "or", "not"):
                kind = word
            self.tokens.append(
                (kind, word, match.start(kind if kind in match.groupdict() else "word"))
            )
            at = match.end()
        self.tokens.append(("end", "", end))
        self.at = 0

    def error(self, what: str, position: int) -> ConstraintError:
        return ConstraintError(f"constraint {_shown(self.text)}: {what} at position {position}")

    def peek(self) -> str:
        return self.tokens[self.at][0]

    def next(self) -> tuple[str, str, int]:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def parse(self) -> dict[str, Any]:
        obj = self.any_of(1)
        kind, word, position = self.next()
        if kind != "end":
            raise self.error(f"unexpected {word!r}", position)
        return obj

    def any_of(self, depth: int) -> dict[str, Any]:
        terms = [self.all_of(depth)]
        while self.peek() == "or":
            self.next()
            terms.append(self.all_of(depth))
        return terms[0] if len(terms) == 1 else {"or": terms}

    def all_of(self, depth: int) -> dict[str, Any]:
        terms = [self.one(depth)]
        while self.peek() not in ("or", "rparen", "end"):
            if self.peek() == "and":
                self.next()
            terms.append(self.one(depth))
        joined: list[dict[str, Any]] = []
        seen: dict[str, list[str]] = {}
        for term in terms:
            ((operator, values),) = term.items()
            if operator not in self.combined:
                joined.append(term)
            elif operator in seen:
                seen[operator].extend(values)
            else:
                seen[operator] = list(values)
                joined.append({operator: seen[operator]})
        return joined[0] if len(joined) == 1 else {"and": joined}

    def one(self, depth: int) -> dict[str, Any]:
        kind, word, position = self.next()
        if depth > MAX_DEPTH:
            raise self.error(f"nesting deeper than {MAX_DEPTH} levels", position)
        if kind == "not":
            return {"not": [self.one(depth + 1)]}
        if kind == "lparen":
            obj = self.any_of(depth + 1)
            if self.next()[0] != "rparen":
                raise self.error("unclosed parenthesis", position)
            return obj
        if kind != "word":
            found = f"unexpected {word!r}" if word else "unexpected end"
            raise self.error(found, position)
        if word.startswith("-"):
            if len(word) == 1:
                # "-(a|b)" would read as if it negated the group; RFC 35 wants "not (a|b)".
                raise self.error("expected a term after '-' (to negate a group, use not)", position)
            return {"not": [self.term(word[1:], position)]}
        return self.term(word, position)

    def term(self, word: str, position: int) -> dict[str, Any]:
        quoted = word[0] in "\"'"
        operator, colon, operand = word.partition(":")
        if quoted or not colon:
            if self.default is None:
                raise self.error(f"missing operator in {_shown(word)}", position)
            operator, operand = self.default, word
        else:
            bad = re.search(r"[^\w.+@-]", operator)
            if bad or not operator:
                what = f"invalid character {bad[0]!r} in operator" if bad else "missing operator in"
                raise self.error(f"{what} {_shown(word)}", position)
            operator = self.aliases.get(operator, operator)
        if operand[:1] in ("'", '"') and operand[-1:] == operand[:1] and len(operand) > 1:
            operand = operand[1:-1]
        if not operand:
            raise self.error(f"missing value in {_shown(word)}", position)
        separator = self.split.get(operator)
        return {operator: operand.split(separator) if separator else [operand]}
