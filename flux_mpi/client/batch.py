"""Child instances: jobs whose program runs in an instance of its own on what the job was given.

``flux-mpi batch`` and ``flux-mpi alloc`` make their jobspecs here, as Python programs may:

>>> job = flux_mpi.batch("#!/bin/sh\\nflux-mpi run hostname\\n", nodes=2, conf={"queue": {...}})
>>> job = flux_mpi.batch(["./workflow", "input"], nslots=16)
>>> job = flux_mpi.batch(None, nodes=4)  # stays until it is shut down
>>> with flux_mpi.Handle(flux_mpi.child_uri(job)) as child:
...     flux_mpi.submit(["hostname"], handle=child)

The job's command is ``flux-mpi broker OPTIONS... PROGRAM...``; a script and the configuration
travel in the jobspec as files (RFC 14 ``attributes.system.files``, an RFC 37 archive), which are in
the job's temporary directory when the program starts.
"""

from __future__ import annotations

import errno
import os

from flux_mpi.client.handle import Handle
from flux_mpi.client.jobs import (
    FLAG_WAITABLE,
    URGENCY_DEFAULT,
    JobID,
    _Borrowed,
    common_fields,
    submit_entries,
)
from flux_mpi.formats import fluid
from flux_mpi.formats.jobspec import Jobspec, JobspecError
from flux_mpi.message.errors import FluxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

BROKER = ("flux-mpi", "broker")
"""What makes a job an instance: the first words of its command."""
SCRIPT, CONF = "script", "conf.json"
"""The files of the archive that RFC 14 reserves."""
SCRIPT_MODE, FILE_MODE = 0o100700, 0o100600
"""Types and permissions of files, as of ``st_mode``."""
FILE_LIMIT = 8 << 20
"""Bytes of a script or of another file: all of them travel, and are kept, with the jobspec."""

_NAMES = {
    "cores_per_task": "cores_per_slot",
    "gpus_per_task": "gpus_per_slot",
    "ntasks": "nslots",
    "nnodes": "nodes",
}
"""Fields of a jobspec by the names that they have here."""


class ScriptError(ValueError):
    """A script that cannot be submitted; the text names it and says why."""


def script_text(data: bytes, name: str = "script", *, wrap: bool = False) -> str:
    """The text of a batch script, checked; with ``wrap``, lines that ``/bin/sh`` is to run.

    DOS line ends become Unix ones: the kernel would look for an interpreter with a carriage return
    in its name. Raises ScriptError.
    """
    check_size(len(data), name)
    if b"\0" in data:
        raise ScriptError(f"{name}: does not appear to be a script: it contains NUL bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ScriptError(
            f"{name}: does not appear to be a script: byte {error.start} ({data[error.start]:#04x})"
            " is no UTF-8"
        ) from None
    text = text.replace("\r\n", "\n")
    if wrap:
        text = f"#!/bin/sh\n{text}"
    if not text.startswith("#!"):
        raise ScriptError(
            f"{name}: batch script does not appear to start with '#!': begin it with a line such "
            "as #!/bin/sh, or use --wrap"
        )
    return text


def check_size(size: int, name: str) -> None:
    """Refuse a file of ``size`` bytes that is too large for a jobspec. Raises ScriptError."""
    if size > FILE_LIMIT:
        raise ScriptError(
            f"{name}: {size / (1 << 20):.1f} MiB is too large: at most {FILE_LIMIT >> 20} MiB fit "
            "in a jobspec; keep data in files that the job opens"
        )


def file_entry(data: bytes, mode: int = FILE_MODE) -> dict[str, Any]:
    """A regular file as RFC 37 has it: UTF-8 text as it is, anything else in base64."""
    entry: dict[str, Any] = {"mode": mode, "size": len(data)}
    if not data:
        return entry
    try:
        text = data.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        import base64

        text = base64.b64encode(data).decode("ascii")
        encoding = "base64"
    return {**entry, "encoding": encoding, "data": text}


def child_jobspec(
    program: Sequence[str] = (),
    *,
    script: str | None = None,
    nslots: int | None = None,
    nodes: int | None = None,
    cores_per_slot: int = 1,
    gpus_per_slot: int = 0,
    exclusive: bool = False,
    broker_options: Iterable[str] = (),
    conf: Mapping[str, Any] | None = None,
    files: Mapping[str, Mapping[str, Any]] | None = None,
    **common: Any,
) -> Jobspec:
    """The jobspec of an instance on ``nslots`` slots, spread over ``nodes`` nodes if given.

    Its initial program is ``program``, or ``script`` with ``program`` as its arguments; with
    neither it stays until it is shut down. Without ``nslots`` there is one slot, or one a
    node on whole nodes. ``broker_options`` are words for each of its brokers, ``conf`` its
    configuration, ``files`` RFC 37 objects by name; ``common`` as in ``Jobspec.from_command``.
    Raises JobspecError naming the parameter, and ScriptError.
    """
    archive: dict[str, Any] = {name: dict(entry) for name, entry in (files or {}).items()}
    for name in (SCRIPT, CONF):
        if name in archive:
            raise JobspecError(f"files.{name}", "a file", "other names: RFC 14 reserves this one")
    words = [str(word) for word in program]
    options = [str(word) for word in broker_options]
    if script is not None:
        # Checked here as well: whoever calls this may have it from anywhere.
        text = script_text(script.encode("utf-8", "surrogatepass"))
        words = ["{{tmpdir}}/" + SCRIPT, *words]
        archive[SCRIPT] = {"mode": SCRIPT_MODE, "data": text, "encoding": "utf-8"}
    if conf is not None:
        options.append("-c{{tmpdir}}/" + CONF)
        archive[CONF] = {"mode": FILE_MODE, "data": dict(conf)}
    if words and words[0].startswith("-"):
        options.append("--")  # or the broker would take it for an option
    if options and not options[0].startswith("-"):
        raise JobspecError(
            "broker_options", repr(options[0])[:64], "options, the first beginning with -"
        )
    if nslots is None:
        nslots = nodes or 1  # 0 nodes are refused as such below
        exclusive = exclusive or nodes is not None
    shell = {**(common.pop("options", None) or {}), "per-resource": {"type": "node", "count": 1}}
    if archive:
        common["attributes"] = {**(common.get("attributes") or {}), "system.files": archive}
    try:
        return Jobspec.from_command(
            [*BROKER, *options, *words],
            nslots=nslots,
            nnodes=nodes,
            cores_per_task=cores_per_slot,
            gpus_per_task=gpus_per_slot,
            exclusive=exclusive,
            options=shell,
            **common,
        )
    except JobspecError as error:
        field = _NAMES.get(error.field, error.field)
        raise JobspecError(field, error.found, error.allowed.replace("tasks", "slots")) from None


def batch(
    program: str | os.PathLike[str] | Sequence[str] | None,
    args: Sequence[str] = (),
    *,
    handle: Handle | None = None,
    nslots: int | None = None,
    nodes: int | None = None,
    cores_per_slot: int = 1,
    gpus_per_slot: int = 0,
    exclusive: bool = False,
    conf: Mapping[str, Any] | None = None,
    broker_options: Iterable[str] = (),
    files: Mapping[str, bytes | str] | None = None,
    urgency: int = URGENCY_DEFAULT,
    waitable: bool = False,
    flags: int = 0,
    **how: Any,
) -> JobID:
    """Submits an instance of its own that runs ``program``: returns the id of its job.

    ``program`` is the text of a script (it begins with ``#!``), the path of one (a
    ``pathlib.Path``), the words of a command, or None: then the instance stays until it is shut
    down or cancelled. ``args`` follow it. ``files``, contents by name, are beside the script;
    ``{{tmpdir}}/NAME`` in ``args`` is the path of one. The resources are those of
    ``child_jobspec``; ``how`` is ``time_limit``, ``cwd``, ``env``, ``output``, ``error``,
    ``input``, ``name``, ``options`` and ``attributes`` as in ``submit``. Raises JobspecError,
    ScriptError, OSError and FluxError.
    """
    script: str | None = None
    words = [str(word) for word in args]
    if isinstance(program, os.PathLike):
        path = os.fspath(program)
        with open(path, "rb") as file:
            script = script_text(file.read(FILE_LIMIT + 1), path)
        how.setdefault("name", os.path.basename(path))
    elif isinstance(program, str):
        script = program
        how.setdefault("name", "batch")
    elif program is not None:
        words = [*(str(word) for word in program), *words]
    archive = {
        name: file_entry(data.encode() if isinstance(data, str) else data)
        for name, data in (files or {}).items()
    }
    spec = child_jobspec(
        words,
        script=script,
        nslots=nslots,
        nodes=nodes,
        cores_per_slot=cores_per_slot,
        gpus_per_slot=gpus_per_slot,
        exclusive=exclusive,
        broker_options=broker_options,
        conf=conf,
        files=archive,
        **common_fields(**how),
    )
    array = submit_entries(
        [{"jobspec": spec.to_dict()}],
        handle=handle,
        urgency=urgency,
        flags=flags | (FLAG_WAITABLE if waitable else 0),
    )
    return JobID(array[0])


def child_uri(job: int | str, timeout: float | None = None, *, handle: Handle | None = None) -> str:
    """The URI of a job's instance, once that is ready for jobs and has said so in a memo.

    Raises FluxError(ECHILD) when the job ends before, and TimeoutError after ``timeout`` seconds.
    """
    with _Borrowed(handle) as connection:
        return wait_ready(connection, fluid.parse(job), timeout)


def wait_ready(
    handle: Handle,
    job: int,
    timeout: float | None = None,
    on_event: Callable[[dict[str, Any]], object] | None = None,
) -> str:
    """As ``child_uri``; ``on_event`` is called for each event of the job until then."""
    import time

    text = fluid.encode(job)
    deadline = None if timeout is None else time.monotonic() + timeout
    why = ""
    stream = handle.rpc("job-info.eventlog-watch", {"id": job, "path": "eventlog"}, streaming=True)
    try:
        while True:
            try:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                events = stream.get(left)["events"]
            except TimeoutError:
                raise TimeoutError(
                    f"{text}: its instance is not ready after {timeout:g} s"
                ) from None
            except FluxError as error:
                if error.errno != errno.ENODATA:
                    raise
                raise _ended(text, why) from None
            for event in events:
                if on_event is not None:
                    on_event(event)
                context = event.get("context") or {}
                name = event["name"]
                if name == "memo" and context.get("uri"):
                    return str(context["uri"])
                if name == "exception" and context.get("severity") == 0:
                    why = f"{context.get('type')}: {context.get('note') or 'no reason given'}"
                elif name in ("finish", "clean"):
                    raise _ended(text, why)
    finally:
        stream.cancel()


def _ended(text: str, why: str) -> FluxError:
    reason = f" ({why})" if why else ""
    return FluxError(errno.ECHILD, f"{text}: ended before its instance was ready{reason}")
