"""The resource request of a canonical jobspec (RFC 14), as Fluxion's libjobspec reads it.

Unlike `flux_mpi.formats.jobspec`, which holds a job to the rules of RFC 14 and RFC 25, this reads
what Fluxion's ``resource-query`` reads: YAML or JSON, any version from 1 to 9999, scalars of YAML
by their text (``"4"`` is a count, ``True`` is no value of *exclusive*), unknown attributes of the
system passed over, unknown keys of a resource refused. Source: ``resource/libjobspec`` of
flux-sched. Stricter than there: counts of 0, duplicate keys, and durations that no schedule can
hold are refused here already, and the size and depth of a request are bounded.
"""

from __future__ import annotations

import json
import re

from flux_mpi.formats.jobspec import JobspecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

UNBOUNDED = (1 << 32) - 1
"""The largest count, and ``max`` of a count that has only ``min``."""

MAX_DEPTH = 64
"""Levels of ``with``, and of *and*, *or*, *not* in a constraint."""

MAX_RESOURCES = 65_536
"""Resources of one request, each mention of a YAML alias counted."""

_MAX_NESTING = 400
"""Collections in collections of the YAML text."""

_MAX_DURATION = float((1 << 63) - 2)

_UNSIGNED = re.compile(r"\+?(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))\s*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*", re.ASCII)
_BAD_IN_PROPERTY = re.compile(r"[!&'\"^`|()]")
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_MISSING = object()

_RESOURCE_KEYS = frozenset(("type", "count", "unit", "exclusive", "with", "label", "id"))
_TOP_KEYS = ("version", "resources", "tasks", "attributes")


class RequestError(JobspecError):
    """A request that cannot be accepted: which `field`, what was `found`, what is `allowed`."""


class Plain(str):
    """A scalar that stood in the YAML without quotes: what is a property must be quoted."""

    __slots__ = ()


class Request:
    """Between ``min`` and ``max`` resources of a type: ``min``, then ``operator operand`` again.

    ``exclusive`` is None where the jobspec does not say; ``children`` is what it calls *with*.
    Not a dataclass: their import would cost a short command more than its work.
    """

    __slots__ = (
        "type",
        "min",
        "max",
        "operator",
        "operand",
        "exclusive",
        "unit",
        "label",
        "id",
        "children",
    )

    def __init__(
        self,
        type: str,
        min: int = 1,
        max: int = 1,
        operator: str = "+",
        operand: int = 1,
        exclusive: bool | None = None,
        unit: str = "",
        label: str = "",
        id: str = "",
        children: list[Request] | None = None,
    ) -> None:
        self.type = type
        self.min = min
        self.max = max
        self.operator = operator
        self.operand = operand
        self.exclusive = exclusive
        self.unit = unit
        self.label = label
        self.id = id
        self.children = children if children is not None else []

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return f"Request{self._fields()!r}"


class MatchJobspec:
    """What a job wants: ``duration`` in seconds (0: no limit), ``constraint`` of RFC 31 or None."""

    __slots__ = ("resources", "duration", "queue", "constraint")

    def __init__(
        self,
        resources: list[Request],
        duration: float = 0.0,
        queue: str = "",
        constraint: dict[str, Any] | None = None,
    ) -> None:
        self.resources = resources
        self.duration = duration
        self.queue = queue
        self.constraint = constraint

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MatchJobspec) and self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return f"MatchJobspec{self._fields()!r}"


def parse_request(text: str, known_type: Callable[[str], bool] | None = None) -> MatchJobspec:
    """The request in ``text``, YAML or JSON.

    ``known_type`` tells whether there are resources of a type at all; without it every name will
    do. Raises `RequestError` naming the field, what was found there and what is allowed.
    """
    top = _load(text)
    if type(top) is not dict:
        raise RequestError("document", _shown(top), "a mapping")
    if top.keys() != _TOP_KEY_SET:
        _refuse_top_keys(top)
    version = _unsigned(top["version"], "version")
    if not 1 <= version <= 9999:
        raise RequestError("version", str(version), "1 to 9999")
    job = MatchJobspec([])
    attributes = top["attributes"]
    if attributes is not None:
        _read_attributes(attributes, job)
    reader = _Resources(known_type)
    job.resources = reader.read(top["resources"], "resources", 1)
    if not job.resources:
        raise RequestError("resources", "an empty list", "at least one resource")
    _check_tasks(top["tasks"])
    return job


_TOP_KEY_SET = dict.fromkeys(_TOP_KEYS).keys()


def _refuse_top_keys(top: dict[str, Any]) -> None:
    for key in _TOP_KEYS:
        if key not in top:
            raise RequestError(key, "nothing", f"all of {', '.join(_TOP_KEYS)}")
    for key in top:
        if key not in _TOP_KEYS:
            raise RequestError(_cut(key), "an unknown key", f"only {', '.join(_TOP_KEYS)}")


# -- text to values -------------------------------------------------------------------------------


def _load(text: str) -> Any:
    """Mappings, lists and scalars; scalars of JSON as what they are, of YAML as text.

    All JSON is YAML for Fluxion's purposes, and json is two orders of magnitude faster.
    """
    if text.startswith("{"):
        try:
            return _JSON.decode(text)
        except RecursionError:
            raise RequestError("document", "endless nesting", _NESTING) from None
        except ValueError:
            pass  # perhaps YAML in flow style
    return _load_yaml(text)


def _no_constant(text: str) -> Any:
    raise ValueError(text)  # NaN and Infinity are not words of YAML


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise RequestError(_cut(key), "the key twice", "each key once")
            seen.add(key)
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_NESTING = f"at most {MAX_DEPTH} levels"


def _load_yaml(text: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _build(yaml.parse(text, Loader=loader), yaml)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "document"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RequestError(place, _cut(str(problem), 120), "YAML or JSON") from None
    except UnicodeEncodeError:
        raise RequestError("document", "text that is not UTF-8", "YAML or JSON") from None
    except RecursionError:
        raise RequestError("document", "endless nesting", _NESTING) from None


def _build(events: Iterable[Any], yaml: Any) -> Any:
    """The first document of a stream of events.

    Not one of PyYAML's loaders: they recurse, they guess types of scalars by rules of their own,
    and do not tell what was quoted. An alias is the very object of its anchor.
    """
    anchors: dict[str, Any] = {}
    top: list[Any] = []
    stack: list[tuple[Any, list[Any]]] = [(top, [])]
    scalar, alias, end = yaml.ScalarEvent, yaml.AliasEvent, yaml.CollectionEndEvent
    for event in events:
        kind = type(event)
        if kind is scalar:
            value: Any = event.value
            if event.style is None or event.style == "":
                value = None if value in _NULLS else Plain(value)
        elif kind is alias:
            if event.anchor not in anchors:
                raise RequestError(_place(event), f"unknown alias *{_cut(event.anchor)}", "YAML")
            value = anchors[event.anchor]
        elif isinstance(event, end):
            stack.pop()
            continue
        elif isinstance(event, yaml.CollectionStartEvent):
            value = {} if kind is yaml.MappingStartEvent else []
            if len(stack) > _MAX_NESTING:
                raise RequestError(_place(event), "deeper nesting", _NESTING)
        elif kind is yaml.DocumentEndEvent:
            break
        else:
            continue
        if kind is not alias and event.anchor is not None:
            anchors[event.anchor] = value
        holder, waiting = stack[-1]
        if type(holder) is list:
            holder.append(value)
        elif waiting:
            holder[waiting.pop()] = value
        else:
            waiting.append(_key(value, holder, event))
        if type(value) in (dict, list) and kind is not alias:
            stack.append((value, []))
    return top[0] if top else None


def _key(value: Any, holder: dict[str, Any], event: Any) -> str:
    if value is None:
        value = "null"
    if not isinstance(value, str):
        raise RequestError(_place(event), f"the key {_shown(value)}", "keys of text")
    key = str(value)
    if key in holder:
        raise RequestError(f"{_place(event)}, {_cut(key)}", "the key twice", "each key once")
    return key


def _place(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"


def _cut(text: str, width: int = 48) -> str:
    text = text if len(text) <= width else text[: width - 3] + "..."
    return text if text.isprintable() else ascii(text)[1:-1]


def _shown(value: object) -> str:
    """``value`` for an error message: short, whatever it is."""
    if value is _MISSING:
        return "nothing"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, Plain):
        return _cut(value)
    if isinstance(value, str):
        return repr(_cut(value))
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    return str(value)


# -- scalars, by the text that they have in YAML --------------------------------------------------


def _text(value: object, where: str, allowed: str = "a string") -> str:
    """A scalar as text; raises `RequestError` for anything else."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise RequestError(where, _shown(value), allowed)


def _string(value: object, where: str) -> str:
    """As `_text`; null is a word like others, as where libjobspec does not ask for a scalar."""
    return "null" if value is None else _text(value, where)


def _unsigned(value: object, where: str, least: int = 0) -> int:
    """An integer of 32 bits: decimal, octal behind 0, hexadecimal behind 0x."""
    number = -1
    if type(value) is int:
        number = value
    elif isinstance(value, str):
        match = _UNSIGNED.fullmatch(value)
        if match is not None and len(value) < 64:
            hexadecimal, octal, decimal = match.groups()
            if hexadecimal:
                number = int(hexadecimal, 16)
            else:
                number = int(octal, 8) if octal else int(decimal)
    if not least <= number <= UNBOUNDED:
        raise RequestError(where, _shown(value), f"an integer from {least} to {UNBOUNDED}")
    return number


def _duration(value: object, where: str) -> float:
    """Seconds; neither negative nor endless."""
    number = -1.0
    if type(value) is int or type(value) is float:
        try:
            number = float(value)
        except OverflowError:
            pass
    elif isinstance(value, str) and len(value) < 400 and _NUMBER.fullmatch(value):
        number = float(value)
    if not 0.0 <= number <= _MAX_DURATION:
        raise RequestError(where, _shown(value), "seconds, at least 0 (0: no limit)")
    return number


# -- resources ------------------------------------------------------------------------------------


class _Resources:
    """Reads lists of resources, and counts them."""

    __slots__ = ("known_type", "left")

    def __init__(self, known_type: Callable[[str], bool] | None) -> None:
        self.known_type = known_type
        self.left = MAX_RESOURCES

    def read(self, value: object, where: str, depth: int) -> list[Request]:
        if type(value) is not list:
            raise RequestError(where, _shown(value), "a list of resources")
        if depth > MAX_DEPTH:
            raise RequestError(f"{where[:24]}...", "deeper nesting", _NESTING)
        self.left -= len(value)
        if self.left < 0:
            found = f"more than {MAX_RESOURCES} resources"
            raise RequestError(where, found, f"at most {MAX_RESOURCES}")
        return [self.one(item, where, i, depth) for i, item in enumerate(value)]

    def one(self, value: object, parent: str, index: int, depth: int) -> Request:
        where = f"{parent}[{index}]"
        if type(value) is not dict:
            raise RequestError(where, _shown(value), "a mapping")
        if not value.keys() <= _RESOURCE_KEYS:
            key = next(key for key in value if key not in _RESOURCE_KEYS)
            allowed = "only type, count, unit, exclusive, with, label, id"
            raise RequestError(f"{where}.{_cut(key)}", "an unknown key", allowed)
        kind = _text(value.get("type", _MISSING), f"{where}.type")
        if self.known_type is not None and not self.known_type(kind):
            raise RequestError(f"{where}.type", repr(_cut(kind)), "a type that the graph has")
        request = Request(kind)
        count = value.get("count", _MISSING)
        if type(count) is int and 0 < count <= UNBOUNDED:
            request.min = request.max = count
        else:
            _read_count(count, f"{where}.count", request)
        if "exclusive" in value:
            word = value["exclusive"]
            if word is not True and word is not False:
                word = _text(word, f"{where}.exclusive", "true or false")
                if word not in ("true", "false"):
                    raise RequestError(f"{where}.exclusive", _cut(word), "true or false")
                word = word == "true"
            request.exclusive = word
        if "with" in value:
            request.children = self.read(value["with"], f"{where}.with", depth + 1)
        if "label" in value:
            request.label = _text(value["label"], f"{where}.label")
        elif kind == "slot":
            raise RequestError(f"{where}.label", "nothing", "a label: all slots have one")
        if "unit" in value:
            request.unit = _text(value["unit"], f"{where}.unit")
        if "id" in value:
            request.id = _text(value["id"], f"{where}.id")
        return request


def _read_count(value: object, where: str, request: Request) -> None:
    """A count as number, or as mapping of min and perhaps max, operator and operand."""
    if type(value) is not dict:
        if value is _MISSING or value is None or type(value) is list:
            raise RequestError(where, _shown(value), "a number or a mapping with min")
        request.min = request.max = _unsigned(value, where, 1)
        return
    if "min" not in value:
        raise RequestError(f"{where}.min", "nothing", "a number")
    request.min = _unsigned(value["min"], f"{where}.min", 1)
    request.max = UNBOUNDED
    given = [key for key in ("max", "operator", "operand") if key in value]
    if not given:
        return
    if len(given) < 3:
        raise RequestError(
            where, f"only {' and '.join(given)}", "all or none of max, operator and operand"
        )
    request.max = _unsigned(value["max"], f"{where}.max", 1)
    if request.max < request.min:
        raise RequestError(f"{where}.max", str(request.max), f"at least min ({request.min})")
    operator = _text(value["operator"], f"{where}.operator", "one of + * ^")
    if operator not in ("+", "*", "^"):
        raise RequestError(f"{where}.operator", repr(_cut(operator)), "one of + * ^")
    request.operator = operator
    least = 1 if operator == "+" else 2
    operand = _unsigned(value["operand"], f"{where}.operand", least)
    if operand >= 1 << 31:
        raise RequestError(f"{where}.operand", str(operand), f"{least} to {(1 << 31) - 1}")
    request.operand = operand
    if operator == "^" and request.min < 2:
        raise RequestError(f"{where}.min", str(request.min), "at least 2 with operator ^")


# -- tasks and attributes -------------------------------------------------------------------------


def _check_tasks(value: object) -> None:
    if type(value) is not list:
        raise RequestError("tasks", _shown(value), "a list")
    for i, task in enumerate(value):
        where = f"tasks[{i}]"
        if type(task) is not dict:
            raise RequestError(where, _shown(task), "a mapping")
        command = task.get("command", _MISSING)
        if type(command) is not list:
            raise RequestError(f"{where}.command", _shown(command), "a list")
        for j, word in enumerate(command):
            if type(word) is not str:
                _string(word, f"{where}.command[{j}]")
        _text(task.get("slot", _MISSING), f"{where}.slot")
        if "count" in task:
            count = task["count"]
            if type(count) is not dict or len(count) != 1:
                raise RequestError(f"{where}.count", _shown(count), "a mapping of one entry")
            for key, number in count.items():
                _string(number, f"{where}.count.{_cut(key)}")
        if "distribution" in task:
            _text(task["distribution"], f"{where}.distribution")
        if "attributes" in task:
            attributes = task["attributes"]
            if type(attributes) is not dict:
                raise RequestError(f"{where}.attributes", _shown(attributes), "a mapping")
            for key, number in attributes.items():
                _string(number, f"{where}.attributes.{_cut(key)}")
        if not 3 <= len(task) <= 5:
            raise RequestError(where, f"{len(task)} keys", "command, slot and count")


def _read_attributes(value: object, job: MatchJobspec) -> None:
    if type(value) is not dict:
        raise RequestError("attributes", _shown(value), "a mapping")
    for key in value:
        if key not in ("user", "system"):
            raise RequestError(f"attributes.{_cut(key)}", "an unknown key", "user and system")
    system = value.get("system")
    if type(system) is list and system:
        raise RequestError("attributes.system", "a list", "a mapping")
    if type(system) is not dict:
        return  # a scalar says nothing, and is let pass
    if "duration" in system:
        job.duration = _duration(system["duration"], "attributes.system.duration")
    if "queue" in system:
        job.queue = _string(system["queue"], "attributes.system.queue")
    if "cwd" in system:
        _string(system["cwd"], "attributes.system.cwd")
    environment = system.get("environment")
    if type(environment) is dict:
        for name, text in environment.items():
            if type(text) is not str:
                _string(text, f"attributes.system.environment.{_cut(name)}")
    elif type(environment) is list and environment:
        raise RequestError("attributes.system.environment", "a list", "a mapping")
    if "constraints" in system:
        constraints = _Constraints()
        job.constraint = constraints.read(system["constraints"], "attributes.system.constraints", 1)


class _Constraints:
    """Reads constraints of RFC 31 into plain ones, and counts their values."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_RESOURCES

    def read(self, value: object, where: str, depth: int) -> dict[str, Any]:
        if type(value) is not dict:
            raise RequestError(where, _shown(value), "a mapping")
        if depth > MAX_DEPTH:
            raise RequestError(f"{where[:48]}...", "deeper nesting", _NESTING)
        if len(value) > 1:
            raise RequestError(where, f"{len(value)} operators", "one operator")
        for operator, operands in value.items():
            where = f"{where}.{_cut(operator)}"
            if type(operands) is not list:
                raise RequestError(where, _shown(operands), "a list")
            self.left -= len(operands)
            if self.left < 0:
                found = f"more than {MAX_RESOURCES} values"
                raise RequestError(f"{where[:48]}...", found, f"at most {MAX_RESOURCES}")
            if operator in ("and", "or", "not"):
                terms = enumerate(operands)
                return {operator: [self.read(x, f"{where}[{i}]", depth + 1) for i, x in terms]}
            check = _CONSTRAINT_CHECKS.get(operator)
            if check is None:
                raise RequestError(
                    where, "an unknown operator", "properties, hostlist, ranks, and, or, not"
                )
            return {operator: [check(item, f"{where}[{i}]") for i, item in enumerate(operands)]}
        return {}


def _property(value: object, where: str) -> str:
    if not isinstance(value, str) or isinstance(value, Plain):
        raise RequestError(where, _shown(value), "a string (in YAML: in quotes)")
    bad = _BAD_IN_PROPERTY.search(value.removeprefix("^"))
    if bad is not None:
        raise RequestError(where, f"{bad[0]!r} in {_shown(value)}", "a property without it")
    return value


def _hostlist(value: object, where: str) -> str:
    from flux_mpi.formats.hostlist import Hostlist

    text = _string(value, where)
    try:
        Hostlist.parse(text)
    except ValueError:
        raise RequestError(where, _shown(value), "a host list") from None
    return text


def _idset(value: object, where: str) -> str:
    from flux_mpi.formats.idset import IDSet

    text = _string(value, where)
    try:
        IDSet.parse(text)
    except ValueError:
        raise RequestError(where, _shown(value), "an idset") from None
    return text


_CONSTRAINT_CHECKS = {"properties": _property, "hostlist": _hostlist, "ranks": _idset}
