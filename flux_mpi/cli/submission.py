"""The options that describe a job, and the jobspec they add up to.

``run``, ``submit`` and ``bulksubmit`` share them. Values stay text until ``build`` converts them:
``bulksubmit`` may have template tags in any of them, to be filled in first.
"""

from __future__ import annotations

import os

from flux_mpi.cli.options import Option, UsageError, count, flag, repeat, value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

COMMON = (
    value("-N", "--nodes", metavar="N", help="Number of nodes to spread the tasks over."),
    flag(
        "-x",
        "--exclusive",
        help="Take the nodes whole (needs --nodes; implied by --nodes without --ntasks).",
    ),
)
PER_TASK = (
    value("-n", "--ntasks", metavar="N", help="Number of tasks to run (default 1)."),
    value("-c", "--cores-per-task", metavar="N", help="Cores for each task (default 1)."),
    value("-g", "--gpus-per-task", metavar="N", help="GPUs for each task (default none)."),
)
PER_RESOURCE = (
    value("--cores", metavar="N", help="Total number of cores."),
    value("--tasks-per-node", metavar="N", help="Tasks to run on each node."),
    value("--tasks-per-core", metavar="N", help="Tasks to run on each core."),
    value("--gpus-per-node", metavar="N", help="GPUs on each node (needs --nodes)."),
)
GENERAL = (
    value(
        "-t",
        "--time-limit",
        metavar="MIN|FSD",
        help="Time limit: minutes, or a duration such as 30s, 1.5h, 2d.",
    ),
    value(
        "--urgency",
        metavar="N",
        help="Urgency, 0 to 31; or hold (0), default (16), expedite (31).",
    ),
    value("--job-name", metavar="NAME", help="Name of the job (default: that of the command)."),
    value("-q", "--queue", metavar="NAME", help="Queue to submit to."),
    value("-B", "--bank", metavar="NAME", help="Bank to charge."),
    value("--flags", metavar="FLAGS", help="Comma-separated flags: waitable, debug, novalidate."),
    value(
        "--requires",
        metavar="CONSTRAINT",
        help="Properties, hosts or ranks that the nodes must have, such as 'a&b', 'host:n[1-3]'.",
    ),
    repeat(
        "--dependency",
        metavar="URI",
        help="SCHEME:VALUE that must be fulfilled first, such as afterok:JOBID.",
    ),
    value("--begin-time", metavar="+FSD|TIME", help="Do not start before then."),
    value("--cwd", metavar="DIR", help="Working directory of the tasks (default: this one)."),
    value(
        "--signal",
        metavar="[SIG][@TIME]",
        help="Send SIG (default USR1) when TIME (default 60s) of the time limit is left.",
    ),
    value("--taskmap", metavar="SCHEME[:VALUE]", help="How tasks are laid out: block, cyclic."),
)
ENVIRONMENT = (
    repeat(
        "--env",
        metavar="RULE",
        help="VAR=VALUE sets; -PATTERN removes; PATTERN copies from here; ^FILE reads rules.",
    ),
    # All three collect rules in one list: they apply in the order in which they are typed.
    repeat(
        "--env-remove",
        metavar="PATTERN",
        help="Remove variables: a glob, or a /regex/.",
        dest="env",
        convert=lambda pattern: f"-{pattern}",
    ),
    repeat(
        "--env-file",
        metavar="FILE",
        help="Read environment rules from FILE.",
        dest="env",
        convert=lambda path: f"^{path}",
    ),
    repeat(
        "--rlimit",
        metavar="RULE",
        help="NAME=VALUE sets a process limit, NAME passes the one here on, -NAME does not.",
    ),
)
STDIO = (
    value("--output", metavar="FILE", help="Write stdout to FILE ({{id}}, {{taskid}} allowed)."),
    value("--error", metavar="FILE", help="Write stderr to FILE."),
    value("--input", metavar="FILE|RANKS", help="Read stdin from FILE; run: or send it to RANKS."),
    flag("-l", "--label-io", help="Put the task's rank before each line of output."),
    flag("-u", "--unbuffered", help="Do not hold output back until a line is complete."),
)
OTHER = (
    repeat("-o", "--setopt", metavar="KEY[=VAL]", help="Set an option of the job shell."),
    repeat("-S", "--setattr", metavar="KEY[=VAL]", help="Set an attribute of the jobspec."),
    count("-v", "--verbose", help="Say more: the id, events, execution events."),
    flag("--dry-run", help="Print the jobspec and submit nothing."),
    flag("--debug", help="Set the debug flag of the job."),
    flag("--quiet", help="Do not print the id."),
)

GROUPS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    ("Resources", COMMON),
    ("Resources by task", PER_TASK),
    ("Resources by node or core", PER_RESOURCE),
    ("Job", GENERAL),
    ("Environment", ENVIRONMENT),
    ("Standard I/O", STDIO),
    ("Other", OTHER),
)

TEMPLATED = ("command", "job_name", "cwd", "output", "error", "input")
"""Where tags of an array are filled in member by member on the instance's side."""

STRUCTURAL = (
    *(option.dest for _, group in GROUPS[:4] for option in group if option.dest not in TEMPLATED),
    "rlimit",
    "setopt",
    "setattr",
)
"""Where tags change what a job asks for: members that differ here are different jobspecs."""

FLAGS = {"debug": 2, "waitable": 4, "novalidate": 8}
URGENCIES = {"hold": 0, "default": 16, "expedite": 31}

_LIMITS = ("cpu", "fsize", "data", "stack", "core", "nofile", "as", "rss", "nproc")
_MORE_LIMITS = ("memlock", "msgqueue", "nice", "rtprio", "rttime", "sigpending")


class JobError(UsageError):
    """An option of a job that makes no sense; exit status 1, as in Flux."""

    def __init__(self, prog: str, text: str) -> None:
        super().__init__(f"{prog}: ERROR: {text}", 1, text)


class Builder:
    """Makes jobspecs from options; ``prog`` is who speaks in errors (``flux-run``)."""

    def __init__(self, prog: str) -> None:
        self.prog = prog
        self._environment: dict[str, str] | None = None

    def fail(self, text: str) -> JobError:
        return JobError(self.prog, text)

    def build(self, options: Mapping[str, Any], command: list[str]) -> dict[str, Any]:
        """The jobspec object. Raises JobError naming option, what was found, what is allowed."""
        from flux_mpi.formats.jobspec import Jobspec, JobspecError

        if not command:
            raise self.fail("job command and arguments are missing")
        try:
            return self._geometry(Jobspec, options, command, self.common(options))
        except JobspecError as error:
            raise self.fail(str(error)) from None

    def common(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What every kind of job may say, as keywords of ``Jobspec.from_command``.

        Raises JobError.
        """
        shell = self._shell_options(options)
        common: dict[str, Any] = {
            "duration": self._duration(options.get("time_limit")),
            "environment": self.environ(options),
            "cwd": options.get("cwd") or _getcwd(),
            "name": options.get("job_name"),
            "options": shell,
            "queue": options.get("queue"),
        }
        attributes = self._attributes(options)
        if attributes:
            common["attributes"] = attributes
        dependencies = self._dependencies(options)
        if dependencies:
            common["dependencies"] = dependencies
        requires = options.get("requires")
        if requires:
            common["constraints"] = self._constraint(requires)
        if options.get("queue") is None:
            del common["queue"]
        return common

    # -- resources --------------------------------------------------------------------------------

    def _integer(self, options: Mapping[str, Any], name: str, minimum: int) -> int | None:
        text = options.get(name)
        if text is None:
            return None
        shown = "--" + name.replace("_", "-")
        try:
            found = int(text)
        except ValueError:
            raise self.fail(
                f"{shown}: invalid int value {text!r}: expected a number of at least {minimum}"
            ) from None
        if found < minimum:
            raise self.fail(f"{shown}: {found} is not allowed: must be at least {minimum}")
        return found

    def _geometry(
        self,
        jobspec: Any,
        options: Mapping[str, Any],
        command: list[str],
        common: dict[str, Any],
    ) -> dict[str, Any]:
        nodes = self._integer(options, "nodes", 1)
        ntasks = self._integer(options, "ntasks", 1)
        cores = self._integer(options, "cores", 1)
        per_node = self._integer(options, "tasks_per_node", 1)
        per_core = self._integer(options, "tasks_per_core", 1)
        node_gpus = self._integer(options, "gpus_per_node", 0)
        task_cores = self._integer(options, "cores_per_task", 1)
        task_gpus = self._integer(options, "gpus_per_task", 0)
        exclusive = bool(options.get("exclusive"))
        by_resource = [
            name
            for name, found in (
                ("--cores", cores),
                ("--tasks-per-node", per_node),
                ("--tasks-per-core", per_core),
                ("--gpus-per-node", node_gpus),
            )
            if found is not None
        ]
        by_task = [
            name
            for name, found in (
                ("--ntasks", ntasks),
                ("--cores-per-task", task_cores),
                ("--gpus-per-task", task_gpus),
            )
            if found is not None
        ]
        if exclusive and nodes is None:
            raise self.fail("--exclusive can only be used with --nodes")
        if not by_resource:
            if nodes is not None and ntasks is None:
                ntasks, exclusive = nodes, True
            ntasks = 1 if ntasks is None else ntasks
            if nodes is not None and nodes > ntasks:
                raise self.fail(
                    f"--nodes: {nodes} is more than the number of tasks, {ntasks}: "
                    "ask for at least one task a node"
                )
            spec = jobspec.from_command(
                command,
                ntasks=ntasks,
                nnodes=nodes,
                cores_per_task=task_cores or 1,
                gpus_per_task=task_gpus or 0,
                exclusive=exclusive,
                **common,
            )
            return _object(spec)
        if by_task:
            raise self.fail(
                f"{by_task[0]} and {by_resource[0]} exclude each other: "
                "count resources either by task or by node and core"
            )
        if per_node is not None and per_core is not None:
            raise self.fail("--tasks-per-node and --tasks-per-core exclude each other")
        if node_gpus is not None and nodes is None:
            raise self.fail("--gpus-per-node can only be used with --nodes")
        if nodes is None and cores is None:
            raise self.fail(f"{by_resource[0]} needs --nodes or --cores")
        if nodes is not None and cores is None:
            exclusive = True
        kind = "node" if per_node is not None else "core" if per_core is not None else None
        spec = jobspec.per_resource(
            command,
            ncores=cores,
            nnodes=nodes,
            per_resource_type=kind,
            per_resource_count=per_node or per_core,
            gpus_per_node=node_gpus or 0,
            exclusive=exclusive,
            **common,
        )
        return _object(spec)

    def _duration(self, text: str | None) -> float:
        if text is None:
            return 0.0
        try:
            seconds = float(text) * 60
        except ValueError:
            from flux_mpi.formats.duration import parse

            try:
                seconds = parse(text)
            except ValueError:
                raise self.fail(
                    f"--time-limit: invalid Flux standard duration {text!r}: expected minutes, "
                    "or a number with s, m, h or d"
                ) from None
        if seconds == float("inf"):
            return 0.0
        if not seconds >= 0:
            raise self.fail(f"--time-limit: {text} is not allowed: must not be negative")
        return seconds

    # -- attributes -------------------------------------------------------------------------------

    def urgency(self, text: str | None) -> int:
        """Raises JobError for what is neither a name nor 0 to 31."""
        if text is None:
            return 16
        if text in URGENCIES:
            return URGENCIES[text]
        try:
            found = int(text)
        except ValueError:
            raise self.fail(
                f"--urgency: invalid value {text!r}: expected 0 to 31, hold, default or expedite"
            ) from None
        if not 0 <= found <= 31:
            raise self.fail(f"--urgency: {found} is not allowed: urgency range is [0:31]")
        return found

    def flags(self, options: Mapping[str, Any]) -> int:
        """The bits of ``--flags`` and ``--debug``."""
        found = FLAGS["debug"] if options.get("debug") else 0
        for name in filter(None, (options.get("flags") or "").split(",")):
            if name not in FLAGS:
                raise self.fail(
                    f"--flags: unknown flag {name!r}: expected some of {','.join(FLAGS)}"
                )
            found |= FLAGS[name]
        return found

    def _attributes(self, options: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for text in options.get("setattr") or ():
            key, equals, raw = text.partition("=")
            if key.startswith("^"):
                found[key[1:]] = self._json_file(raw)
            else:
                found[key] = _json_or_text(raw) if equals else 1
            if not key.strip("^."):
                raise self.fail(f"--setattr: invalid value {text!r}: expected KEY[=VAL]")
        if options.get("bank"):
            found["bank"] = options["bank"]
        return found

    def _json_file(self, path: str) -> Any:
        import json

        try:
            with open(path, encoding="utf-8") as file:
                return json.load(file)
        except OSError as error:
            raise self.fail(f"--setattr: {path}: {error.strerror}") from None
        except ValueError as error:
            raise self.fail(f"--setattr: {path} is no JSON: {error}") from None

    def _dependencies(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for uri in options.get("dependency") or ():
            scheme, colon, rest = uri.partition(":")
            where, _, query = rest.partition("?")
            if not scheme or (not colon and scheme != "singleton"):
                raise self.fail(
                    f"--dependency: invalid URI {uri!r}: expected SCHEME:VALUE, "
                    "such as afterok:JOBID"
                )
            entry: dict[str, Any] = {"scheme": scheme, "value": where}
            for pair in filter(None, query.split("&")):
                key, _, content = pair.partition("=")
                entry[key] = content
            found.append(entry)
        when = options.get("begin_time")
        if when:
            import time

            from flux_mpi.formats.timefmt import parse_datetime

            try:
                moment = parse_datetime(when, time.time())
            except ValueError as error:
                raise self.fail(f"--begin-time: {error}") from None
            found.append({"scheme": "begin-time", "value": repr(moment)})
        return found

    def _constraint(self, text: str) -> dict[str, Any]:
        from flux_mpi.formats import constraint

        try:
            found: dict[str, Any] = constraint.parse(text)
        except ValueError as error:
            raise self.fail(f"--requires: {error}") from None
        return found

    # -- the job shell ----------------------------------------------------------------------------

    def _shell_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        limits = self._limits(options.get("rlimit"))
        if limits:
            found["rlimit"] = limits
        for text in options.get("setopt") or ():
            key, equals, raw = text.partition("=")
            if not key:
                raise self.fail(f"--setopt: invalid value {text!r}: expected KEY[=VAL]")
            found[key] = _json_or_text(raw) if equals else 1
        for name, stream in (("output", "stdout"), ("error", "stderr")):
            path = options.get(name)
            if path:
                found[f"output.{stream}.type"] = "file"
                found[f"output.{stream}.path"] = path
                if options.get("label_io"):
                    found[f"output.{stream}.label"] = True
            if options.get("unbuffered"):
                found[f"output.{stream}.buffer.type"] = "none"
        if options.get("output") and not options.get("error") and options.get("label_io"):
            found["output.stderr.label"] = True
        path = options.get("input")
        if path and not is_idset(path):
            found["input.stdin.type"] = "file"
            found["input.stdin.path"] = path
        taskmap = options.get("taskmap")
        if taskmap:
            scheme, _, rest = taskmap.partition(":")
            found["taskmap"] = {"scheme": scheme, "value": rest}
        warning = options.get("signal")
        if warning:
            found["signal"] = self._warning(warning)
        return found

    def _warning(self, text: str) -> dict[str, Any]:
        from flux_mpi.cli.common import parse_signal
        from flux_mpi.formats.duration import parse

        name, _, left = text.partition("@")
        try:
            return {
                "signum": parse_signal(name or "USR1"),
                "timeleft": parse(left) if left else 60.0,
            }
        except ValueError as error:
            raise self.fail(f"--signal: {error}") from None

    def _limits(self, rules: list[str] | None) -> dict[str, int]:
        import resource

        def current(name: str) -> int:
            return resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[0]

        known = [
            name
            for name in (*_LIMITS, *_MORE_LIMITS)
            if hasattr(resource, f"RLIMIT_{name.upper()}")
        ]
        found = {name: current(name) for name in known if name in _LIMITS}
        if not rules:
            return found
        from fnmatch import fnmatchcase

        for rule in (part for text in rules for part in text.split(",")):
            name, equals, text = rule.partition("=")
            if rule.startswith("-"):
                found = {key: val for key, val in found.items() if not fnmatchcase(key, rule[1:])}
            elif equals:
                if name not in known:
                    raise self.fail(
                        f"--rlimit: unknown limit {name!r}: expected {', '.join(known)}"
                    )
                if text in ("unlimited", "infinity", "inf"):
                    found[name] = resource.RLIM_INFINITY
                elif text.isdigit():
                    found[name] = int(text)
                else:
                    raise self.fail(
                        f"--rlimit: {name}: invalid value {text!r}: expected a number or unlimited"
                    )
            else:
                matching = [key for key in known if fnmatchcase(key, rule)]
                if not matching:
                    raise self.fail(f"--rlimit: {rule!r} matches none of {', '.join(known)}")
                found.update({key: current(key) for key in matching})
        return found

    # -- environment ------------------------------------------------------------------------------

    def environ(self, options: Mapping[str, Any]) -> dict[str, str]:
        """The environment that the job gets: this process's after the rules. Raises JobError."""
        rules = options.get("env")
        if not rules:
            if self._environment is None:
                self._environment = dict(os.environ)
            return dict(self._environment)
        return self.apply_rules(rules, dict(os.environ), 0)

    def apply_rules(self, rules: list[str], environ: dict[str, str], depth: int) -> dict[str, str]:
        """``environ`` after the rules of ``--env``. Raises JobError."""
        for rule in rules:
            if not rule:
                continue
            if rule.startswith("-"):
                matches = self._matcher(rule[1:])
                environ = {key: val for key, val in environ.items() if not matches(key)}
            elif rule.startswith("^"):
                environ = self.apply_rules(self._rule_file(rule[1:], depth), environ, depth + 1)
            elif "=" in rule and not rule.startswith("/"):
                name, _, text = rule.partition("=")
                environ[name] = self._substitute(text, environ)
            else:
                matches = self._matcher(rule)
                for key, val in os.environ.items():
                    if key not in environ and matches(key):
                        environ[key] = val
        return environ

    def _matcher(self, pattern: str) -> Callable[[str], object]:
        if pattern.startswith("/"):
            import re

            body = pattern[1:-1] if pattern.endswith("/") and len(pattern) > 1 else pattern[1:]
            try:
                return re.compile(body).match
            except re.error as error:
                raise self.fail(f"--env: invalid regex {pattern!r}: {error}") from None
        from fnmatch import fnmatchcase

        return lambda key: fnmatchcase(key, pattern)

    def _rule_file(self, path: str, depth: int) -> list[str]:
        if depth >= 10:
            raise self.fail(f"--env-file: {path}: rule files nested deeper than 10")
        try:
            with open(os.path.expanduser(path), encoding="utf-8") as file:
                return [line.strip() for line in file]
        except OSError as error:
            raise self.fail(f"--env-file: {path}: {error.strerror}") from None

    def _substitute(self, text: str, environ: Mapping[str, str]) -> str:
        if "$" not in text:
            return text
        from string import Template

        try:
            return Template(text).substitute({**os.environ, **environ})
        except KeyError as error:
            raise self.fail(f"--env: variable {error} is not set in {text!r}") from None
        except ValueError as error:
            raise self.fail(f"--env: cannot substitute in {text!r}: {error}") from None


def _object(spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = spec.to_dict()
    return found


def is_idset(text: str) -> bool:
    """True for ``0-3`` and ``all``, which ``run --input`` takes for task ranks."""
    if text == "all":
        return True
    if not text[:1].isdigit():
        return False
    from flux_mpi.formats.idset import IDSet

    try:
        IDSet.parse(text)
    except ValueError:
        return False
    return True


def _json_or_text(text: str) -> Any:
    # Most values are words and small numbers; json costs 5 ms to load.
    if text.isdigit():
        return int(text)
    if text.replace("-", "").replace("_", "").isalpha() and text not in (
        "true",
        "false",
        "null",
        "NaN",
        "Infinity",
        "-Infinity",
    ):
        return text
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def _getcwd() -> str:
    # The name the user knows (a symbolic link, an automounter's path), if it is this place.
    shown = os.environ.get("PWD", "")
    try:
        if shown and os.path.samefile(shown, "."):
            return shown
    except OSError:
        pass
    return os.getcwd()
