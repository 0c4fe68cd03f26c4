"""Which instance a TARGET means (flux-uri(1)): a URI, a path of job ids, a process.

``ƒ1/ƒ2`` is the instance that is job ƒ2 of the instance that is job ƒ1 of this one; ``/`` is the
outermost instance, ``..`` the one around this one, ``.`` this one.
"""

from __future__ import annotations

import errno
import os

from flux_mpi.client.handle import Handle
from flux_mpi.client.info import RUN, annotation
from flux_mpi.client.uri import FORCE_LOCAL, SCHEME, split, to_local, to_remote
from flux_mpi.formats import fluid
from flux_mpi.message.errors import FluxError

TIMEOUT_S = 5.0
"""How long each instance on the way may take to answer."""
SCHEMES = {
    "jobid": "a path of job ids, such as ƒ1/ƒ2, or / . .. (what a TARGET without a scheme is)",
    "pid": "the number of a process of this host: the instance it belongs to",
    "local": "a URI of an instance on this host",
    "ssh": "a URI of an instance and its host",
}
UNSUPPORTED = {
    "slurm": "a Slurm job",
    "lsf": "an LSF job",
}
LISTENS = 0x10000
"""Flag of a listening socket in /proc/net/unix."""
QUERIES = ("local", "remote", "wait")


class TargetError(FluxError):
    """A target that makes no sense, or that is no running instance."""


def resolve(target: str, *, wait: bool = False) -> str:
    """The URI of the instance that ``target`` means.

    ``wait``: until a job has said where its instance is, however long it is pending. A path starts
    from the instance that ``FLUX_URI`` names. Raises TargetError, FluxError of an instance that
    cannot be reached, and TimeoutError when one does not answer.
    """
    scheme, rest, queries = _parse(target)
    local = "local" in queries or FORCE_LOCAL in os.environ
    if scheme in ("local", "ssh"):
        uri = f"{scheme}:{rest}"
        split(uri)
    elif scheme == "pid":
        uri = _of_process(rest)
    else:
        uri = _of_path(rest, wait or "wait" in queries, local)
    if "remote" in queries:
        return to_remote(uri)
    return to_local(uri) if local else uri


def _parse(target: str) -> tuple[str, str, set[str]]:
    """(scheme, what follows it, the words after ``?``). Raises TargetError."""
    text, _, query = target.partition("?")
    queries = set(filter(None, query.split("&")))
    for word in queries:
        if word not in QUERIES:
            raise TargetError(
                errno.EINVAL,
                f"{target!r}: unknown query ?{word}: expected one of "
                + ", ".join(f"?{known}" for known in QUERIES),
            )
    if {"local", "remote"} <= queries:
        raise TargetError(errno.EINVAL, f"{target!r}: only one of ?local and ?remote is allowed")
    scheme, colon, rest = text.partition(":")
    if not colon or "/" in scheme:
        return "jobid", text, queries
    if scheme in UNSUPPORTED:
        raise TargetError(
            errno.EOPNOTSUPP,
            f"{target!r}: the instance of {UNSUPPORTED[scheme]} cannot be looked up yet: on its "
            f"first node, use pid:PID of the broker, or the FLUX_URI of its initial program",
        )
    if scheme not in SCHEMES:
        raise TargetError(
            errno.EINVAL, f"{target!r}: unknown scheme: expected one of {', '.join(SCHEMES)}"
        )
    return scheme, rest, queries


# -- paths -----------------------------------------------------------------------------------------


def _of_path(path: str, wait: bool, local: bool) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/"):
        parts.insert(0, "/")
    for part in parts:
        if part not in ("/", ".."):
            _job_id(part)  # what is misspelled is told before anybody is asked
    handle = Handle()
    try:
        uri = _ask(handle, "local-uri")
        host = ""
        for at, part in enumerate(parts):
            if at:
                handle.close()
                handle = Handle(to_local(uri) if local else uri)
            if part == "/":
                uri = _root(handle)
            elif part == "..":
                uri = _parent(handle)
                if host:
                    uri = to_remote(uri, host)
            else:
                uri = job_uri(handle, _job_id(part), wait=wait)
                host = split(uri)[0]
        return uri
    finally:
        handle.close()


def _job_id(text: str) -> int:
    try:
        return fluid.parse(text)
    except ValueError:
        raise TargetError(errno.EINVAL, f"{text!r} is not a valid job id") from None


def _ask(handle: Handle, attribute: str) -> str:
    value: str = handle.call("attr.get", {"name": attribute}, timeout=TIMEOUT_S)["value"]
    return value


def _parent(handle: Handle) -> str:
    """Of the outermost instance: itself, as with Flux."""
    nested = int(_ask(handle, "instance-level")) > 0
    return _ask(handle, "parent-uri" if nested else "local-uri")


def _root(handle: Handle) -> str:
    own: Handle | None = None
    try:
        while int(_ask(own or handle, "instance-level")) > 0:
            above = Handle(_parent(own or handle))
            if own is not None:
                own.close()
            own = above
        return _ask(own or handle, "local-uri")
    finally:
        if own is not None:
            own.close()


def job_uri(handle: Handle, job: int, *, wait: bool = False) -> str:
    """Where the instance is that is ``job`` of the instance behind ``handle``.

    ``wait``: until the job has said so. Raises TargetError when it has not (yet, or ever).
    """
    name = fluid.encode(job)
    if wait:
        uri = _awaited(handle, job)
    else:
        request = {"ids": [job], "attrs": ["state", "annotations"]}
        try:
            (record,) = handle.call("job-list.list", request, timeout=TIMEOUT_S)["jobs"]
        except FluxError as error:
            if error.errno != errno.ENOENT:
                raise
            raise TargetError(errno.ENOENT, f"job {name} not found") from None
        if record["state"] != RUN:
            raise TargetError(errno.ENOENT, f"job {name} is not running")
        uri = annotation(record, "user.uri")
    if not isinstance(uri, str) or not uri:
        raise TargetError(
            errno.ENOENT,
            f"job {name} has told no URI: it is no instance, or has not started one yet",
        )
    return uri


def _awaited(handle: Handle, job: int) -> str | None:
    """The URI in the first memo that has one; None when the job finishes without."""
    from flux_mpi.client.batch import wait_ready  # who does not wait needs no jobspecs

    try:
        return wait_ready(handle, job)
    except FluxError as error:
        if error.errno == errno.ECHILD:
            return None
        if error.errno == errno.ENOENT:
            raise TargetError(errno.ENOENT, f"job {fluid.encode(job)} not found") from None
        raise


# -- processes -------------------------------------------------------------------------------------


def _of_process(text: str) -> str:
    """What the process is connected to, or serves. Raises TargetError."""
    if not (text.isascii() and text.isdigit()):
        raise TargetError(errno.EINVAL, f"pid:{text}: expected the number of a process")
    pid = int(text)
    if not os.path.isdir(f"/proc/{pid}"):
        raise TargetError(errno.ENOENT, f"pid:{pid}: there is no such process on this host")
    sockets = _listeners()
    # A broker's own FLUX_URI is that of the instance around it, if there is one; its supervisor has
    # the same, and is its parent.
    for each in (pid, *_children(pid)):
        path = _served(each, sockets)
        if path:
            return SCHEME + path
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError as error:
        raise TargetError(
            error.errno or errno.EACCES, f"pid:{pid}: cannot read its environment: {error.strerror}"
        ) from None
    for entry in variables:
        name, _, value = entry.partition(b"=")
        if name == b"FLUX_URI" and value:
            return os.fsdecode(value)
    raise TargetError(errno.ENOENT, f"pid:{pid}: the process has no FLUX_URI: no instance runs it")


def _listeners() -> dict[str, str]:
    """The listening Unix sockets of this host: inode → path."""
    found = {}
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
        next(file)
        for line in file:
            fields = line.split(None, 7)
            if len(fields) == 8 and int(fields[3], 16) & LISTENS:
                found[fields[6]] = fields[7].rstrip("\n")
    return found


def _served(pid: int, sockets: dict[str, str]) -> str:
    """The path of the broker's socket that a process listens on, or ''."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return ""
    for name in names:
        try:
            where = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if where.startswith("socket:["):
            path = sockets.get(where[len("socket:[") : -1], "")
            if os.path.basename(path).startswith("local-"):
                return path
    return ""


def _children(pid: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The name in parentheses may hold anything; after it: state, parent.
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            if parent == pid:
                found.append(int(name))
    return found
