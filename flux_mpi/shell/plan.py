"""A job's ``spec``, compiled once on a rank: what is alike in all members is prepared here.

The spec is that of ``exec.start`` in ``docs/protocol.md``. What a member or a task needs beyond it
is filled in by ``Plan.member``; specs without templates pay nothing for that.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.templates import expand, has_tags
from flux_mpi.shell import affinity
from flux_mpi.shell.env import SURROUNDINGS, encode, encode_all, scrub, scrub_job

CAPTURE = "kvs"
FILE = "file"
NONE = "none"

TRUNCATE = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
"""Always O_APPEND: tasks that share a file must not overwrite each other's output."""

_TEMPLATED = ("command", "cwd", "options", "job_name")
"""Fields of a spec, besides the environment, that may hold tags of an array."""

_SIZE_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
LIMIT_MOST = 10**9
"""Most bytes that ``output.limit`` may ask for."""


class PlanError(ValueError):
    """A spec that cannot be run: the text names the option."""


class Stream:
    """Where a task's stdout or stderr goes."""

    __slots__ = ("kind", "path", "label", "by_task", "by_node")

    def __init__(self, kind: str, path: str, label: bool) -> None:
        self.kind = kind
        self.path = path
        self.label = label
        self.by_task = "{{task" in path
        self.by_node = "{{node" in path


class Member:
    """What one job of an array runs; the strings may still hold tags of the job shell."""

    __slots__ = ("argv", "cwd", "name", "stdout", "stderr", "stdin_path")

    def __init__(
        self,
        argv: list[str],
        cwd: str,
        name: str,
        stdout: Stream,
        stderr: Stream,
        stdin_path: str,
    ) -> None:
        self.argv = argv
        self.cwd = cwd
        self.name = name
        self.stdout = stdout
        self.stderr = stderr
        self.stdin_path = stdin_path


class Plan:
    """A spec, ready to run. Raises PlanError when an option in it makes no sense."""

    __slots__ = (
        "key",
        "spec",
        "params",
        "size",
        "nnodes",
        "env",
        "argv",
        "cwd",
        "first",
        "templated",
        "env_tags",
        "tagged",
        "cpu_mode",
        "cpu_sets",
        "gpu_mode",
        "gpu_sets",
        "stdin",
        "limits",
        "truncate",
        "output_limit",
        "captured",
        "instance",
        "files",
        "sent",
    )

    def __init__(self, key: int, spec: dict[str, Any], nnodes: int, size: int) -> None:
        self.key = key
        self.spec = spec
        self.params = spec.get("params")
        self.size = size
        self.nnodes = nnodes
        options = spec.get("options") or {}
        try:
            self.cpu_mode, self.cpu_sets = affinity.parse(
                "cpu-affinity", options.get("cpu-affinity")
            )
            self.gpu_mode, self.gpu_sets = affinity.parse(
                "gpu-affinity", options.get("gpu-affinity")
            )
        except affinity.AffinityError as error:
            raise PlanError(str(error)) from None
        output = _table(options, "output")
        self.truncate = output.get("mode", "truncate") != "append"
        self.output_limit = _size(output.get("limit"))
        stdin = _table(_table(options, "input"), "stdin")
        self.stdin = stdin.get("type") or (FILE if stdin.get("path") else "null")
        self.limits = _limits(_table(options, "rlimit"))
        self.templated = False
        self.env_tags: dict[bytes, str] = {}
        self.instance = bool(spec.get("instance"))
        self.files = _files(spec.get("files"))
        # What an instance runs is no task of its parent's, but its initial program.
        environ = (scrub_job if self.instance else scrub)(spec.get("env") or {})
        for name in SURROUNDINGS:  # the submitter's, who may be in another instance
            environ.pop(name, None)
        if self.params is not None:
            self.templated = has_tags([spec.get(name) for name in _TEMPLATED])
            self.env_tags = {encode(k): v for k, v in environ.items() if has_tags(v)}
        self.first = self._member(spec)
        first = self.first
        # Tags of the job shell are filled in once the job and task are known.
        self.tagged = (
            any("{{" in word for word in first.argv)
            or "{{" in first.stdout.path + first.stderr.path + first.stdin_path
            or self.templated
        )
        self.captured = first.stdout.kind == CAPTURE and first.stderr.kind == CAPTURE
        self.argv = [encode(word) for word in first.argv]
        self.cwd = encode(first.cwd)
        self.env = encode_all(environ)
        if not self.instance:
            self.env[b"FLUX_TASK_RANK"] = b"0"
            self.env[b"FLUX_TASK_LOCAL_ID"] = b"0"
            self.env[b"FLUX_JOB_SIZE"] = b"%d" % size
            self.env[b"FLUX_JOB_NNODES"] = b"%d" % nnodes
        self.sent = False
        """Has the supervisor been given ``env``?"""

    def member(self, index: int) -> Member:
        """What the ``index``-th job of the array runs. Raises ValueError for a bad template."""
        if not self.templated:
            return self.first
        fields = {name: self.spec.get(name) for name in _TEMPLATED}
        return self._member(expand(fields, **self._parameters(index)))

    def variables(self, index: int) -> dict[bytes, bytes]:
        """The environment variables that differ between jobs of the array.

        Raises ValueError for a bad template.
        """
        parameters = self._parameters(index)
        return {name: encode(expand(value, **parameters)) for name, value in self.env_tags.items()}

    def _parameters(self, index: int) -> dict[str, Any]:
        params = self.params or {}
        if "rows" in params:
            rows = params["rows"]
            return {"row": rows[index], "seq": index, "nseq": len(rows)}
        cc = params["cc"]
        if isinstance(cc, str):
            cc = params["cc"] = IDSet.parse(cc)
        return {"cc": cc.nth(index), "seq": index, "nseq": len(cc)}

    def _member(self, spec: dict[str, Any]) -> Member:
        options = spec.get("options") or {}
        output = _table(options, "output")
        stdout = _stream(_table(output, "stdout"), None)
        stderr = _stream(_table(output, "stderr"), stdout)
        stdin = _table(_table(options, "input"), "stdin")
        argv = list(spec["command"])
        return Member(
            argv,
            spec.get("cwd") or "",
            spec.get("job_name") or os.path.basename(argv[0] if argv else ""),
            stdout,
            stderr,
            str(stdin.get("path") or ""),
        )


class File:
    """A file that a job is to find in its temporary directory (RFC 37)."""

    __slots__ = ("name", "mode", "data")

    def __init__(self, name: str, mode: int, data: bytes) -> None:
        self.name = name
        self.mode = mode
        self.data = data


def _files(table: object) -> list[File]:
    """The files of a jobspec. Raises PlanError naming the one that makes no sense."""
    if not table:
        return []
    if not isinstance(table, dict):
        raise PlanError(f"files: expected an object, found {type(table).__name__}")
    return [_file(str(name), entry) for name, entry in table.items()]


def _file(name: str, entry: object) -> File:
    where = f"files.{name}"
    if not name or name in (".", "..") or name.startswith("/") or ".." in name.split("/"):
        raise PlanError(f"{where}: expected a path below the job's temporary directory")
    if not isinstance(entry, dict):
        entry = {"data": entry}
    data, encoding, mode = entry.get("data"), entry.get("encoding"), entry.get("mode", 0o100600)
    if type(mode) is not int or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise PlanError(f"{where}: mode: expected that of a regular file, found {mode!r}")
    # Imported where needed: most ranks never see a file.
    if encoding is None:
        import json

        content = b"" if data is None else json.dumps(data).encode()
    elif not isinstance(data, str):
        raise PlanError(f"{where}: data: expected text, found {type(data).__name__}")
    elif encoding == "utf-8":
        content = encode(data)
    elif encoding == "base64":
        import base64

        try:
            content = base64.b64decode(data, validate=True)
        except ValueError:
            raise PlanError(f"{where}: data is no base64") from None
    else:
        raise PlanError(f"{where}: encoding: expected utf-8 or base64, found {encoding!r}")
    return File(name, stat.S_IMODE(mode), content)


def _table(options: dict[str, Any], name: str) -> dict[str, Any]:
    """A nested table of options; options may also be spelled ``"a.b"``, as ``-o a.b=c`` is read."""
    found = options.get(name)
    table = dict(found) if isinstance(found, dict) else {}
    for key, value in options.items():
        head, dot, tail = key.partition(".")
        if dot and head == name:
            table.setdefault(tail, value)
    return table


def _stream(table: dict[str, Any], default: Stream | None) -> Stream:
    path = str(table.get("path") or "")
    kind = table.get("type") or (FILE if path else "")
    if not kind:
        if default is not None:
            return default
        kind = CAPTURE
    if kind not in (CAPTURE, FILE, NONE, "term"):
        raise PlanError(f"output type: expected kvs, file, none or term, found {kind!r}")
    if kind == FILE and not path:
        raise PlanError("output to a file needs output.stdout.path or output.stderr.path")
    return Stream(kind, path, bool(table.get("label")))


def _size(value: object) -> int:
    """Bytes of an ``output.limit``: a number with an optional unit k, M or G. Raises PlanError."""
    if value is None:
        return LIMIT_MOST
    text = str(value).strip()
    number = text.rstrip("kKMG")
    try:
        size = int(float(number) * _SIZE_UNITS[text[len(number) :]])
    except (ValueError, KeyError, OverflowError):
        raise PlanError(f"output.limit: expected a size such as 10M, found {value!r}") from None
    if not 0 <= size <= LIMIT_MOST:
        raise PlanError(f"output.limit: expected at most 1G, found {value!r}")
    return size


def _limits(table: dict[str, Any]) -> dict[str, int] | None:
    """Soft resource limits that differ from what tasks inherit anyway."""
    if not table:
        return None
    import resource

    wanted: dict[str, int] = {}
    for name, value in table.items():
        which = getattr(resource, f"RLIMIT_{str(name).upper()}", None)
        if which is None or not isinstance(value, int) or isinstance(value, bool):
            raise PlanError(f"rlimit: {name}={value!r} is no resource limit")
        if resource.getrlimit(which)[0] != value:
            wanted[str(name)] = value
    return wanted or None
