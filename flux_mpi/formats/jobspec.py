"""What to run and on what: the jobspec, version 1 (RFC 25) and the general form (RFC 14).

`Jobspec.parse` accepts any resource graph that RFC 14 allows and checks every field it knows;
with ``version: 1`` the rules of RFC 25 for counts, tasks and attributes hold as well. What the
scheduler is asked for, in numbers or as a graph, is `Jobspec.shape`.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from flux_mpi.formats.shape import Shape as Shape

MAX_DEPTH = 64
"""Objects and lists nested deeper than this are refused, wherever they are."""

TOP_KEYS = ("resources", "tasks", "attributes", "version")
VERTEX_KEYS = ("type", "count", "unit", "exclusive", "with", "label", "id")
TASK_KEYS = ("command", "slot", "count", "attributes", "distribution")
COUNT_KEYS = ("per_slot", "per_resource", "total")

_MISSING = object()


def __getattr__(name: str) -> Any:
    # Shape belongs here for everyone who uses it, but only the scheduler's side pays for it.
    if name == "Shape":
        from flux_mpi.formats.shape import Shape

        return Shape
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class JobspecError(ValueError):
    """A jobspec that cannot be accepted: which `field`, what was `found`, what is `allowed`."""

    def __init__(self, field: str, found: str, allowed: str) -> None:
        super().__init__(f"jobspec: {field}: expected {allowed}, found {found}")
        self.field = field
        self.found = found
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[JobspecError], tuple[str, str, str]]:
        return (JobspecError, (self.field, self.found, self.allowed))


def _shown(value: object) -> str:
    """``value`` for an error message: short, whatever it is."""
    if value is _MISSING:
        return "nothing"
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= 48 else value[:45] + "...")
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (int, float)):
        return repr(value)
    return f"a {type(value).__name__}"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _positive(value: object, field: str) -> int:
    if not (_is_int(value) and value >= 1):  # type: ignore[operator]
        raise JobspecError(field, _shown(value), "an integer of at least 1")
    return value  # type: ignore[return-value]


def _object(value: object, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise JobspecError(field, _shown(value), "an object")
    return value


def _string(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise JobspecError(field, _shown(value), "a string")
    return value


def _execve_string(value: object, field: str) -> str:
    """A string that the kernel can be handed: without a NUL."""
    if not isinstance(value, str) or "\0" in value:
        raise JobspecError(field, _shown(value), "a string without NUL characters")
    return value


def _known_keys(obj: dict[str, Any], keys: tuple[str, ...], field: str) -> None:
    for key in obj:
        if key not in keys:
            where = f"{field}.{key}" if field else key
            raise JobspecError(
                where if len(where) < 100 else where[:97] + "...",
                "an unknown key",
                "only " + ", ".join(keys),
            )


def _check_json(top: object) -> None:
    """Bound the depth and admit only what both JSON and msgpack can carry.

    Iterative, so that no nesting can exhaust the stack. Later checks may then recurse.
    """
    stack: list[tuple[object, str, int]] = [(top, "", 1)]
    while stack:
        node, field, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise JobspecError(
                field[:100], f"nesting deeper than {MAX_DEPTH}", f"at most {MAX_DEPTH} levels"
            )
        items: Iterable[tuple[object, object]]
        if isinstance(node, dict):
            items = node.items()
        else:
            items = enumerate(node)  # type: ignore[arg-type]
        for key, value in items:
            kind = type(value)
            if kind is str:
                plain = _is_utf8(value)  # type: ignore[arg-type]
            elif kind is bool or value is None:
                plain = True
            elif kind is int:
                plain = -(1 << 63) <= value < 1 << 64  # type: ignore[operator]
            elif kind is float:
                plain = value - value == 0.0  # type: ignore[operator]  # false for inf and nan
            elif isinstance(value, (dict, list)):
                stack.append((value, _join(field, key), depth + 1))
                plain = True
            else:
                plain = False
            if not plain:
                raise JobspecError(
                    _join(field, key)[:100],
                    _shown(value),
                    "JSON (finite numbers of 64 bits, text in UTF-8)",
                )
            if type(key) is not str:
                if isinstance(node, dict):
                    raise JobspecError(field or "keys", f"the key {_shown(key)}", "keys of text")
            elif not _is_utf8(key):
                raise JobspecError(field or "keys", "a key that is not UTF-8", "text in UTF-8")


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _join(field: str, key: object) -> str:
    if isinstance(key, int):
        return f"{field}[{key}]"
    return f"{field}.{key}" if field else str(key)


class Jobspec:
    """A checked request to run one program. Make one with `parse` or a ``from_``… builder.

    The object that `to_dict` returns is the jobspec itself, not a copy: do not change it.
    """

    __slots__ = ("_obj", "_shape")

    def __init__(self, obj: dict[str, Any]) -> None:
        _validate(obj)
        self._obj = obj
        self._shape: Shape | None = None

    @classmethod
    def parse(cls, obj: Mapping[str, Any] | str | bytes) -> Jobspec:
        """The jobspec in ``obj``, a JSON object or its text.

        Raises `JobspecError` naming the field, what was found there and what is allowed.
        """
        if isinstance(obj, (str, bytes)):
            try:
                obj = json.loads(obj)
            except RecursionError:
                raise JobspecError(
                    "document", "endless nesting", f"at most {MAX_DEPTH} levels"
                ) from None
            except ValueError as err:
                raise JobspecError("document", f"no JSON ({err})", "a JSON object") from None
        if not isinstance(obj, dict):
            raise JobspecError("document", _shown(obj), "a JSON object")
        return cls(obj)

    @classmethod
    def from_command(
        cls,
        command: Iterable[str],
        *,
        ntasks: int = 1,
        nslots: int | None = None,
        cores_per_task: int = 1,
        gpus_per_task: int = 0,
        nnodes: int | None = None,
        exclusive: bool = False,
        **common: Any,
    ) -> Jobspec:
        """The version 1 jobspec of ``ntasks`` copies of ``command``, one in each slot.

        ``nslots`` is another word for ``ntasks`` (of a batch job). With ``nnodes`` the slots are
        spread evenly over that many nodes; some stay empty when they do not divide. ``exclusive``
        needs ``nnodes``. ``common``: ``duration`` (s, 0 = no limit), ``environment``, ``cwd``,
        ``name``, ``options`` (job shell options, dotted keys nest), ``queue``, ``dependencies``
        (RFC 26), ``constraints`` (RFC 31), ``attributes`` (dotted keys below ``system``, or below
        ``attributes`` itself when they begin with ``user.``, ``system.`` or a dot).
        Raises `JobspecError`.
        """
        total = _positive(ntasks, "ntasks") if nslots is None else _positive(nslots, "nslots")
        children = _children(cores_per_task, gpus_per_task, "cores_per_task", "gpus_per_task")
        count: dict[str, int] = {"per_slot": 1}
        if nnodes is None:
            if exclusive:
                raise JobspecError("exclusive", "no number of nodes", "nnodes with it")
            resource = _slot(total, children)
        else:
            if _positive(nnodes, "nnodes") > total:
                raise JobspecError("nnodes", str(nnodes), f"at most the number of tasks, {total}")
            if total % nnodes:
                count = {"total": total}
            resource = _node(nnodes, exclusive, _slot(-(-total // nnodes), children))
        return cls(_assemble(command, resource, count, **common))

    @classmethod
    def per_resource(
        cls,
        command: Iterable[str],
        *,
        ncores: int | None = None,
        nnodes: int | None = None,
        per_resource_type: str | None = None,
        per_resource_count: int | None = None,
        gpus_per_node: int = 0,
        exclusive: bool = False,
        **common: Any,
    ) -> Jobspec:
        """The version 1 jobspec of ``ncores`` cores and/or ``nnodes`` nodes, tasks counted later.

        ``per_resource_count`` tasks run for each node or core (``per_resource_type``) that is
        allocated; without these, one task a slot. ``nnodes`` alone needs ``exclusive``.
        ``common`` as in `from_command`. Raises `JobspecError`.
        """
        if (per_resource_type is None) != (per_resource_count is None):
            raise JobspecError("per_resource", "half of it", "both its type and its count")
        if per_resource_type is not None:
            if per_resource_type not in ("node", "core"):
                raise JobspecError("per_resource.type", _shown(per_resource_type), "node or core")
            _positive(per_resource_count, "per_resource.count")
            options = dict(common.get("options") or {})
            options["per-resource"] = {"type": per_resource_type, "count": per_resource_count}
            common["options"] = options
        if ncores is not None:
            _positive(ncores, "ncores")
        if nnodes is None:
            if ncores is None:
                raise JobspecError("ncores", "neither nodes nor cores", "at least one of them")
            if exclusive:
                raise JobspecError("exclusive", "no number of nodes", "nnodes with it")
            if gpus_per_node:
                raise JobspecError("gpus_per_node", "no number of nodes", "nnodes with it")
            resource = _slot(ncores, _children(1, 0, "ncores", "gpus_per_node"))
        else:
            _positive(nnodes, "nnodes")
            if ncores is None and not exclusive:
                raise JobspecError("nnodes", "nodes alone", "ncores or exclusive with it")
            size = 1
            if ncores is not None:
                size, rest = divmod(ncores, nnodes)
                if rest or not size:
                    raise JobspecError("ncores", str(ncores), f"a multiple of {nnodes} nodes")
            children = _children(size, gpus_per_node, "ncores", "gpus_per_node")
            resource = _node(nnodes, exclusive, _slot(1, children))
        return cls(_assemble(command, resource, {"per_slot": 1}, **common))

    # What it says.

    @property
    def version(self) -> int:
        return int(self._obj["version"])

    @property
    def resources(self) -> list[dict[str, Any]]:
        """The resource graph: vertices as in RFC 14, children under ``with``."""
        resources: list[dict[str, Any]] = self._obj["resources"]
        return resources

    @property
    def tasks(self) -> list[dict[str, Any]]:
        tasks: list[dict[str, Any]] = self._obj["tasks"]
        return tasks

    @property
    def attributes(self) -> dict[str, Any]:
        return self._obj["attributes"] or {}

    @property
    def system(self) -> dict[str, Any]:
        """``attributes.system``."""
        system: dict[str, Any] = self.attributes.get("system") or {}
        return system

    @property
    def command(self) -> list[str]:
        """The program and its arguments (of the first task)."""
        command: list[str] = self.tasks[0]["command"]
        return command

    @property
    def duration(self) -> float:
        """Time limit in seconds; 0 is none."""
        return float(self.system.get("duration", 0.0))

    @property
    def environment(self) -> dict[str, str]:
        """The variables that are set (one that RFC 14's null unsets is left out)."""
        environment = self.system.get("environment") or {}
        return {name: value for name, value in environment.items() if value is not None}

    @property
    def cwd(self) -> str | None:
        """The working directory; None is the one of the broker."""
        return self.system.get("cwd")

    @property
    def name(self) -> str:
        """The job's name; the last part of the program's path unless one is set."""
        name = (self.system.get("job") or {}).get("name")
        return name if name is not None else self.command[0].rpartition("/")[2]

    @property
    def options(self) -> dict[str, Any]:
        """The job shell's options."""
        options: dict[str, Any] = (self.system.get("shell") or {}).get("options") or {}
        return options

    @property
    def warning(self) -> tuple[int, float] | None:
        """The signal that tells of the time limit, and how long before it in seconds.

        The ``signal`` option of the job shell: a number other than 0 means SIGUSR1 a minute before.
        """
        told = self.options.get("signal")
        if not told:
            return None
        return _warning(told, "attributes.system.shell.options.signal")

    @property
    def is_instance(self) -> bool:
        """Whether the job is an instance of its own, as ``flux batch`` and ``flux alloc`` make
        them: its command is that of a broker."""
        words = self.command[:2]
        return (
            len(words) == 2
            and words[1] == "broker"
            and words[0].rpartition("/")[2] in ("flux-mpi", "flux")
        )

    @property
    def files(self) -> dict[str, Any]:
        """The files that are to be in the job's temporary directory (RFC 37), by name."""
        return self.system.get("files") or {}

    @property
    def queue(self) -> str | None:
        return self.system.get("queue")

    @property
    def dependencies(self) -> list[dict[str, Any]]:
        """RFC 26 dependencies, each with at least ``scheme`` and ``value``."""
        return self.system.get("dependencies") or []

    @property
    def constraints(self) -> dict[str, Any] | None:
        """The RFC 31 constraint; None when there is none."""
        return self.system.get("constraints")

    def walk(self) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
        """Every resource vertex with its parent (None at the top), parents first."""
        stack: list[tuple[dict[str, Any], dict[str, Any] | None]]
        stack = [(vertex, None) for vertex in reversed(self.resources)]
        while stack:
            vertex, parent = stack.pop()
            yield vertex, parent
            stack.extend((child, vertex) for child in reversed(vertex.get("with", ())))

    @property
    def shape(self) -> Shape:
        """The request: numbers where nodes, slots, cores and GPUs at fixed counts (``slot>core``,
        ``node>slot>(core,gpu)`` …, RFC 25) express it, else with its ``graph``.

        Raises `JobspecError` for what no scheduler could make sense of, such as several tasks."""
        if self._shape is None:
            self._shape = _shape(self)
        return self._shape

    def task_count(self, nnodes: int, ncores: int) -> int:
        """Tasks of the job once ``nnodes`` nodes and ``ncores`` cores are allocated to it.

        Differs from ``shape.ntasks`` only when tasks are counted per allocated resource
        (the ``per-resource`` shell option, ``--tasks-per-node`` and ``--tasks-per-core``).
        """
        per = self.options.get("per-resource")
        if per is None:
            return self.shape.ntasks
        return (nnodes if per["type"] == "node" else ncores) * int(per.get("count", 1))

    def to_dict(self) -> dict[str, Any]:
        """The jobspec as a JSON object, in the order in which Flux prints it."""
        return self._obj

    def __repr__(self) -> str:
        return f"<Jobspec {self.name}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Jobspec):
            return NotImplemented
        return self._obj == other._obj

    __hash__ = None  # type: ignore[assignment]


# Checks.


def _validate(obj: dict[str, Any]) -> None:
    _check_json(obj)
    _known_keys(obj, TOP_KEYS, "")
    for key in ("version", "resources", "tasks", "attributes"):
        if key not in obj:
            raise JobspecError(key, "nothing", "a value (it is required)")
    version = _positive(obj["version"], "version")
    slots = _validate_resources(obj["resources"], version)
    _validate_tasks(obj["tasks"], slots, version)
    _validate_attributes(obj["attributes"], version)


def _validate_resources(resources: object, version: int) -> set[str]:
    """Check the graph; returns the labels of its slots."""
    if not isinstance(resources, list) or not resources:
        raise JobspecError("resources", _shown(resources), "a list of at least one resource")
    if version == 1 and len(resources) != 1:
        raise JobspecError("resources", f"{len(resources)} of them", "exactly one in version 1")
    slots: set[str] = set()
    labels: set[str] = set()
    stack: list[tuple[object, str, bool]]
    stack = [(vertex, f"resources[{i}]", False) for i, vertex in enumerate(resources)][::-1]
    while stack:
        vertex, field, in_slot = stack.pop()
        vertex = _object(vertex, field)
        _known_keys(vertex, VERTEX_KEYS, field)
        kind = vertex.get("type", _MISSING)
        if not isinstance(kind, str) or not kind:
            raise JobspecError(f"{field}.type", _shown(kind), "the name of a resource type")
        _validate_count(vertex.get("count", _MISSING), f"{field}.count", version)
        if "exclusive" in vertex and not isinstance(vertex["exclusive"], bool):
            raise JobspecError(f"{field}.exclusive", _shown(vertex["exclusive"]), "true or false")
        for key in ("unit", "label", "id"):
            if key in vertex:
                _string(vertex[key], f"{field}.{key}")
        label = vertex.get("label", _MISSING)
        if label in labels:
            raise JobspecError(f"{field}.label", f"a second {_shown(label)}", "unique labels")
        if isinstance(label, str):
            labels.add(label)
        children = vertex.get("with", _MISSING)
        if kind in ("slot", "xor_slot"):
            if in_slot:
                raise JobspecError(field, "a slot in a slot", "slots apart from each other")
            if not isinstance(label, str):
                raise JobspecError(f"{field}.label", _shown(label), "a label for the slot")
            slots.add(label)
            if children is _MISSING:
                raise JobspecError(f"{field}.with", "nothing", "what the slot contains")
        if children is not _MISSING:
            if not isinstance(children, list) or not children:
                raise JobspecError(
                    f"{field}.with", _shown(children), "a list of at least one resource"
                )
            inside = in_slot or kind in ("slot", "xor_slot")
            stack.extend(
                (children[i], f"{field}.with[{i}]", inside)
                for i in range(len(children) - 1, -1, -1)
            )
    if not slots:
        raise JobspecError("resources", "no slot", "a slot for the tasks to run in")
    return slots


def _validate_count(count: object, field: str, version: int) -> None:
    if _is_int(count) or version == 1 or not isinstance(count, (str, dict)):
        _positive(count, field)
        return
    from flux_mpi.formats.counts import Count

    try:
        Count.parse(count)
    except ValueError as err:
        raise JobspecError(field, str(err), "a count, an id set or a range") from None


def _validate_tasks(tasks: object, slots: set[str], version: int) -> None:
    if not isinstance(tasks, list) or not tasks:
        raise JobspecError("tasks", _shown(tasks), "a list of at least one task")
    if version == 1 and len(tasks) != 1:
        raise JobspecError("tasks", f"{len(tasks)} of them", "exactly one in version 1")
    for i, task in enumerate(tasks):
        field = f"tasks[{i}]"
        _known_keys(_object(task, field), TASK_KEYS[:3] if version == 1 else TASK_KEYS, field)
        command = task.get("command", _MISSING)
        if not isinstance(command, list) or not command:
            raise JobspecError(
                f"{field}.command", _shown(command), "a list of a program and its arguments"
            )
        for k, word in enumerate(command):
            _execve_string(word, f"{field}.command[{k}]")
        slot = _string(task.get("slot", _MISSING), f"{field}.slot")
        if slot not in slots:
            raise JobspecError(
                f"{field}.slot", _shown(slot), "the label of a slot: " + ", ".join(sorted(slots))
            )
        _validate_task_count(task.get("count", _MISSING), f"{field}.count", version)
        if "distribution" in task:
            _string(task["distribution"], f"{field}.distribution")
        if "attributes" in task:
            attributes = _object(task["attributes"], f"{field}.attributes")
            if "environment" in attributes:
                _validate_environment(attributes["environment"], f"{field}.attributes.environment")


def _validate_task_count(count: object, field: str, version: int) -> None:
    allowed = COUNT_KEYS if version != 1 else ("per_slot", "total")
    if not isinstance(count, dict) or len(count) != 1 or next(iter(count)) not in allowed:
        raise JobspecError(field, _shown(count), "exactly one of " + ", ".join(allowed))
    if "per_slot" in count:
        per_slot = _positive(count["per_slot"], f"{field}.per_slot")
        if version == 1 and per_slot != 1:
            raise JobspecError(f"{field}.per_slot", str(per_slot), "1 in version 1")
    elif "total" in count:
        _positive(count["total"], f"{field}.total")
    else:
        per = _object(count["per_resource"], f"{field}.per_resource")
        _known_keys(per, ("type", "count"), f"{field}.per_resource")
        _string(per.get("type", _MISSING), f"{field}.per_resource.type")
        _positive(per.get("count", _MISSING), f"{field}.per_resource.count")


def _validate_attributes(attributes: object, version: int) -> None:
    if attributes is None and version != 1:
        return
    attributes = _object(attributes, "attributes")
    _known_keys(attributes, ("system", "user"), "attributes")
    if "user" in attributes:
        _object(attributes["user"], "attributes.user")
    if "system" not in attributes:
        if version == 1:
            raise JobspecError("attributes.system", "nothing", "an object in version 1")
        return
    system = _object(attributes["system"], "attributes.system")
    if version == 1 and "duration" not in system:
        raise JobspecError("attributes.system.duration", "nothing", "seconds, or 0 for no limit")
    for key, check in _SYSTEM_CHECKS.items():
        if key in system:
            check(system[key], f"attributes.system.{key}")


def _validate_seconds(value: object, field: str) -> None:
    if not (_is_number(value) and value >= 0):  # type: ignore[operator]
        raise JobspecError(field, _shown(value), "seconds, at least 0")


def _validate_environment(value: object, field: str) -> None:
    for name, text in _object(value, field).items():
        if text is not None and (type(text) is not str or "\0" in text):
            raise JobspecError(
                f"{field}.{name[:64]}", _shown(text), "a string without NUL, or null"
            )
        if not name or "=" in name or "\0" in name:
            raise JobspecError(field, f"the name {_shown(name)}", "names without = and NUL")


def _validate_cwd(value: object, field: str) -> None:
    if not _execve_string(value, field):
        raise JobspecError(field, "an empty string", "a directory")


def _validate_dependencies(value: object, field: str) -> None:
    if not isinstance(value, list):
        raise JobspecError(field, _shown(value), "a list of dependencies (RFC 26)")
    for i, dependency in enumerate(value):
        where = f"{field}[{i}]"
        _object(dependency, where)
        for key in ("scheme", "value"):
            _string(dependency.get(key, _MISSING), f"{where}.{key}")


def _validate_constraints(value: object, field: str) -> None:
    from flux_mpi.formats.constraint import validate

    try:
        validate(_object(value, field))
    except ValueError as err:
        raise JobspecError(field, str(err), "a constraint (RFC 31)") from None


def _validate_job(value: object, field: str) -> None:
    for key, text in _object(value, field).items():
        _execve_string(text, f"{field}.{key[:64]}")


def _warning(value: object, field: str) -> tuple[int, float]:
    """(signal, seconds before the time limit) of the ``signal`` option, defaults filled in."""
    from signal import SIGRTMAX, SIGUSR1

    from flux_mpi.formats import duration

    if _is_int(value):
        return int(SIGUSR1), 60.0
    told = _object(value, field)
    signum, left = told.get("signum", int(SIGUSR1)), told.get("timeleft", 60.0)
    if not (_is_int(signum) and 1 <= signum <= SIGRTMAX):
        raise JobspecError(f"{field}.signum", _shown(signum), f"a signal, 1 to {int(SIGRTMAX)}")
    seconds: Any = left
    try:
        if isinstance(left, str):
            seconds = duration.parse(left)
    except ValueError:
        seconds = None
    if not (_is_number(seconds) and seconds >= 0):
        raise JobspecError(f"{field}.timeleft", _shown(left), "a duration, in seconds or as text")
    return signum, float(seconds)


def _validate_shell(value: object, field: str) -> None:
    options = _object(_object(value, field).get("options", {}), f"{field}.options")
    if options.get("signal"):
        _warning(options["signal"], f"{field}.options.signal")
    per = options.get("per-resource", _MISSING)
    if per is _MISSING:
        return
    per = _object(per, f"{field}.options.per-resource")
    if per.get("type") not in ("node", "core"):
        raise JobspecError(
            f"{field}.options.per-resource.type", _shown(per.get("type", _MISSING)), "node or core"
        )
    _positive(per.get("count", 1), f"{field}.options.per-resource.count")


_SYSTEM_CHECKS = {
    "duration": _validate_seconds,
    "preemptible-after": _validate_seconds,
    "environment": _validate_environment,
    "cwd": _validate_cwd,
    "queue": _string,
    "bank": _string,
    "project": _string,
    "dependencies": _validate_dependencies,
    "constraints": _validate_constraints,
    "job": _validate_job,
    "shell": _validate_shell,
    "files": _object,
}


# What the scheduler is asked for.


class _NotPlain(JobspecError):
    """Nodes, slots, cores and GPUs at fixed counts do not express it."""


def _shape(spec: Jobspec) -> Shape:
    if len(spec.tasks) > 1:
        raise JobspecError("tasks", "several tasks", "one task")
    try:
        return _plain_shape(spec)
    except _NotPlain:
        from flux_mpi.formats.graphshape import graph_shape

        return graph_shape(spec)


def _plain_shape(spec: Jobspec) -> Shape:
    from flux_mpi.formats.shape import Shape

    top, field = spec.resources[0], "resources[0]"
    if len(spec.resources) > 1:
        raise _NotPlain("resources", "several resources", "one node or slot")
    nnodes, exclusive, slot = 0, False, top
    if top["type"] == "node":
        nnodes = _fixed(top, field)
        exclusive = top.get("exclusive", False)
        children = top.get("with", [])
        if len(children) != 1 or children[0]["type"] != "slot":
            raise _NotPlain(f"{field}.with", _kinds(children), "one slot")
        slot, field = children[0], f"{field}.with[0]"
    if slot["type"] != "slot":
        raise _NotPlain(f"{field}.type", _shown(slot["type"]), "node or slot")
    per_node = _fixed(slot, field)
    _shared_is_refused(slot, field)
    sizes = {"core": 0, "gpu": 0}
    for i, child in enumerate(slot["with"]):
        where = f"{field}.with[{i}]"
        kind = child["type"]
        if kind not in sizes or sizes[kind]:
            raise _NotPlain(f"{field}.with", _kinds(slot["with"]), "one core and at most one gpu")
        if "with" in child:
            raise _NotPlain(f"{where}.with", _kinds(child["with"]), f"nothing below a {kind}")
        _shared_is_refused(child, where)
        sizes[kind] = _fixed(child, where)
    if not sizes["core"]:
        raise _NotPlain(f"{field}.with", _kinds(slot["with"]), "a core")
    nslots = per_node * nnodes if nnodes else per_node
    ntasks = task_total(spec, nnodes, nslots, nslots * sizes["core"], nslots * sizes["gpu"])
    return Shape(
        nnodes=nnodes,
        nslots=nslots,
        slots_per_node=per_node if nnodes else 0,
        cores=sizes["core"],
        gpus=sizes["gpu"],
        exclusive=exclusive,
        ntasks=ntasks,
        constraint=constraint_text(spec),
    )


def constraint_text(spec: Jobspec) -> str:
    """The RFC 31 constraint as canonical JSON, or ""."""
    constraint = spec.constraints
    return json.dumps(constraint, sort_keys=True, separators=(",", ":")) if constraint else ""


def _fixed(vertex: dict[str, Any], field: str) -> int:
    if "id" in vertex or "unit" in vertex:
        raise _NotPlain(field, "more than a number", "a fixed count")
    count = vertex["count"]
    if _is_int(count):
        return int(count)
    from flux_mpi.formats.counts import Count

    parsed = Count.parse(count)
    if not parsed.fixed:
        raise _NotPlain(f"{field}.count", _shown(count), "a fixed count")
    return parsed.minimum


def _shared_is_refused(vertex: dict[str, Any], field: str) -> None:
    if vertex.get("exclusive") is False:
        raise JobspecError(f"{field}.exclusive", "false", "slots that are not shared")


def _kinds(vertices: list[dict[str, Any]]) -> str:
    return ", ".join(str(vertex["type"])[:32] for vertex in vertices[:8]) or "nothing"


def task_total(spec: Jobspec, nnodes: int, nslots: int, ncores: int, ngpus: int) -> int:
    """How many tasks run on so much; raises `JobspecError` when that cannot be told."""
    count = spec.tasks[0]["count"]
    if "per_resource" in count:
        each = count["per_resource"]
        found = {"node": nnodes, "core": ncores, "gpu": ngpus}.get(each["type"], 0)
        if not found:
            raise JobspecError(
                "tasks[0].count.per_resource.type",
                _shown(each["type"]),
                "node, core or gpu, of which the resources ask for some",
            )
        return found * int(each["count"])
    per = spec.options.get("per-resource")
    if per is not None and not (per["type"] == "node" and not nnodes):
        return (nnodes if per["type"] == "node" else ncores) * int(per.get("count", 1))
    if "total" in count:
        total = int(count["total"])
        if total < nnodes:
            raise JobspecError(
                "tasks[0].count.total", str(total), f"one for each of {nnodes} nodes"
            )
        return total
    return nslots * int(count["per_slot"])


# The builders.


def _children(cores: int, gpus: int, cores_field: str, gpus_field: str) -> list[dict[str, Any]]:
    children = [{"type": "core", "count": _positive(cores, cores_field)}]
    if gpus:
        children.append({"type": "gpu", "count": _positive(gpus, gpus_field)})
    return children


def _slot(count: int, children: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "slot", "count": count, "with": children, "label": "task"}


def _node(count: int, exclusive: bool, slot: dict[str, Any]) -> dict[str, Any]:
    node: dict[str, Any] = {"type": "node", "count": count}
    if exclusive:
        node["exclusive"] = True
    node["with"] = [slot]
    return node


def _assemble(
    command: Iterable[str],
    resource: dict[str, Any],
    count: dict[str, int],
    *,
    duration: float = 0,
    environment: Mapping[str, str] | None = None,
    cwd: str | None = None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    queue: str | None = None,
    dependencies: Iterable[Mapping[str, Any]] | None = None,
    constraints: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    if isinstance(command, str):
        raise JobspecError("command", _shown(command), "a list of a program and its arguments")
    # As Flux prints it: 0 when there is no limit, else a float. What is no number is refused later.
    limit = float(duration) if duration and _is_number(duration) else duration or 0
    system: dict[str, Any] = {"duration": limit}
    if environment is not None:
        system["environment"] = dict(environment)
    if cwd is not None:
        system["cwd"] = cwd
    if name is not None:
        system["job"] = {"name": name}
    if options:
        shell: dict[str, Any] = {}
        for key, value in options.items():
            set_path(shell, key, value)
        system["shell"] = {"options": shell}
    if queue is not None:
        system["queue"] = queue
    if dependencies:
        system["dependencies"] = [dict(dependency) for dependency in dependencies]
    if constraints:
        system["constraints"] = dict(constraints)
    root: dict[str, Any] = {"system": system}
    for key, value in (attributes or {}).items():
        set_path(root, attribute_path(key), value)
    return {
        "resources": [resource],
        "tasks": [{"command": list(command), "slot": "task", "count": count}],
        "attributes": root,
        "version": 1,
    }


def attribute_path(key: str) -> str:
    """Where ``--setattr KEY=…`` puts a value, below ``attributes``: bare keys below ``system``."""
    key = key.removeprefix("attributes.")
    if key.startswith("."):
        return key[1:]
    return key if key.startswith(("user.", "system.")) else f"system.{key}"


def set_path(obj: dict[str, Any], path: str, value: Any) -> None:
    """Set ``obj[a][b][c]`` for the path ``a.b.c``, making what is missing.

    Raises `JobspecError` when a part of the path is empty or is no object.
    """
    *parents, last = path.split(".")
    node = obj
    for i, key in enumerate(parents):
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise JobspecError(".".join(parents[: i + 1]), _shown(node), "an object to set in")
    if not all(parents) or not last:
        raise JobspecError(path or "attribute", "an empty name in it", "names joined by dots")
    node[last] = value
