"""The ``kvs.*`` requests of ``docs/protocol.md``, answered from a `Store`. Rank 0 only."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from flux_mpi.broker.service import Broker, Request, ServiceError
from flux_mpi.formats.eventlog import compact
from flux_mpi.kvs.keys import shown
from flux_mpi.kvs.store import PRIMARY, Commit, Store
from flux_mpi.kvs.watch import Notice, VersionWaiter, Watcher

JOB_PREFIX = "job-"
"""A job's own namespace is this and its id in decimal."""

LOG_ERR = 3

_T = TypeVar("_T")


class KvsService:
    """The key-value service of an instance.

    ``job_owner(id)`` is the uid of an active job, None of any other. A job's namespace comes into
    being when it is first used, so the many jobs that never use one cost nothing; when the job
    ends (`close_ended`) what it holds moves to ``job.<id, in dothex>.guest`` of the primary one.
    """

    def __init__(
        self,
        broker: Broker,
        store: Store | None = None,
        *,
        job_owner: Callable[[int], int | None] | None = None,
        job_key: Callable[[int], str] | None = None,
    ) -> None:
        """``job_key(id)``: the key of a job in the primary namespace, ``job.0000.…``."""
        self.broker = broker
        self.store = store or Store(owner=os.geteuid())
        self.job_owner = job_owner
        self._job_key = job_key or (lambda jobid: f"job.{jobid}")
        self._job_names: dict[int, str] = {}
        broker.register(
            "kvs",
            {
                "commit": self.commit,
                "lookup": self.lookup,
                "watch": self.watch,
                "getroot": self.getroot,
                "wait-version": self.wait_version,
                "namespace-create": self.namespace_create,
                "namespace-remove": self.namespace_remove,
                "namespace-list": self.namespace_list,
                "stats": self.stats,
            },
        )

    # -- requests

    def commit(self, request: Request) -> None:
        body = _body(request)
        ns = self._ns(body)
        ops = body.get("ops")
        if type(ops) is not list:
            raise ServiceError(errno.EPROTO, f"ops must be a list, found {shown(ops)}")
        done = self.store.commit(ns, ops, uid=request.uid)
        request.respond({"version": done.version})
        self._tell(done.notices)

    def lookup(self, request: Request) -> None:
        body = _body(request)
        ns = self._ns(body)
        key = body.get("key")
        version = _field(body, "version", int, None)
        store, uid = self.store, request.uid
        if body.get("dir"):
            tree, dirs, links = store.listdir(
                ns, _key(key), recursive=bool(body.get("recursive")), uid=uid, version=version
            )
            request.respond({"dir": tree, "dirs": dirs, "links": links})
        elif body.get("readlink"):
            request.respond({"target": store.readlink(ns, _key(key), uid=uid, version=version)})
        else:
            request.respond({"value": store.get(ns, _key(key), uid=uid, version=version)})

    def watch(self, request: Request) -> None:
        if not request.streaming:
            raise ServiceError(errno.EPROTO, "kvs.watch answers many times: ask for a stream")
        body = _body(request)
        watcher, notices = self.store.watch(
            self._ns(body),
            _key(body.get("key")),
            request,
            full=bool(body.get("full")),
            uniq=bool(body.get("uniq")),
            append=bool(body.get("append")),
            waitcreate=bool(body.get("waitcreate")),
            initial=bool(body.get("initial", True)),
            uid=request.uid,
        )
        self._close_with(request, watcher)
        self._tell(notices)

    def getroot(self, request: Request) -> None:
        namespace = self.store.namespace(self._ns(_body(request)), request.uid)
        request.respond({"version": namespace.version, "owner": namespace.owner})

    def wait_version(self, request: Request) -> None:
        body = _body(request)
        ns = self._ns(body)
        version = _field(body, "version", int, None)
        if version is None:
            raise ServiceError(errno.EPROTO, "version is missing")
        waiter = self.store.wait_version(ns, version, request, uid=request.uid)
        if waiter is None:
            request.respond({"version": self.store.namespace(ns).version})
        else:
            self._close_with(request, waiter)

    def namespace_create(self, request: Request) -> None:
        body = _body(request)
        name = body.get("ns")
        self._owner_only(request)
        owner = _field(body, "owner", int, None)
        if owner is not None and not 0 <= owner < 1 << 32:
            raise ServiceError(errno.EINVAL, f"owner must be a user id, found {owner}")
        notices = self.store.create_namespace(_name(name), owner)
        request.respond({})
        self._tell(notices)

    def namespace_remove(self, request: Request) -> None:
        name = _body(request).get("ns")
        self._owner_only(request)
        notices = self.store.remove_namespace(_name(name))
        request.respond({})
        self._tell(notices)

    def namespace_list(self, request: Request) -> None:
        rows = [
            {"namespace": ns.name, "owner": ns.owner, "flags": 0, "version": ns.version}
            for ns in self.store.namespaces()
        ]
        request.respond({"namespaces": rows})

    def stats(self, request: Request) -> None:
        """Counters: bytes held, bytes of old versions, namespaces with their versions."""
        store = self.store
        request.respond(
            {
                "bytes": store.bytes,
                "history_bytes": store.history_bytes,
                "limit_bytes": store.limits.total,
                "namespaces": {ns.name: ns.version for ns in store.namespaces()},
            }
        )

    # -- for the other services of this rank

    def put(self, key: str, value: Any, *, ns: str = PRIMARY) -> int:
        """Store one value on the instance's behalf; the new version. Raises ServiceError.

        The store keeps ``value`` itself: do not change it afterwards.
        """
        return self.apply([[key, value]], ns=ns)

    def apply(self, ops: list[list[Any]], *, ns: str = PRIMARY) -> int:
        """Commit ``ops`` on the instance's behalf; the new version. Raises ServiceError."""
        done: Commit = self.store.commit(ns, ops)
        self._tell(done.notices)
        return done.version

    def keep(self, key: str, value: Any) -> None:
        """As `put`, but a store that refuses is logged: for records nobody waits for."""
        self._keep([[key, value]])

    def keep_events(self, key: str, events: Iterable[dict[str, Any]]) -> None:
        """Append RFC 18 events, as dicts, to the event log at ``key``; refusals as in `keep`."""
        lines = "".join(f"{compact(event)}\n" for event in events)
        if lines:
            self._keep([[key, lines, "append"]])

    def _keep(self, ops: list[list[Any]]) -> None:
        try:
            self.apply(ops)
        except ServiceError as error:
            self.broker.log(LOG_ERR, "kvs", f"not kept: {error}")

    def close_ended(self) -> None:
        """`close_jobs` those whose owner is no longer told: they have ended."""
        if self._job_names and self.job_owner is not None:
            self.close_jobs([jobid for jobid in self._job_names if self.job_owner(jobid) is None])

    def close_jobs(self, jobids: Iterable[int]) -> None:
        """These jobs are over: archive and remove the namespaces they made."""
        if not self._job_names:
            return
        for jobid in jobids:
            name = self._job_names.pop(jobid, None)
            if name is None or not self.store.has_namespace(name):
                continue
            try:
                notices = self.store.archive(name, f"{self._job_key(jobid)}.guest").notices
            except ServiceError as error:
                # A full store must not also leave the namespaces of dead jobs behind.
                self.broker.log(LOG_ERR, "kvs", f"{name}: not archived: {error}")
                notices = self.store.remove_namespace(name)
            self._tell(notices)

    # -- helpers

    def _ns(self, body: dict[str, Any]) -> str:
        """The namespace that ``body`` asks for, made if it belongs to a job that is active."""
        name = body.get("ns")
        if name is None:
            return PRIMARY
        name = _name(name)
        if not self.store.has_namespace(name) and name.startswith(JOB_PREFIX):
            self._open_job(name)
        return name

    def _open_job(self, name: str) -> None:
        digits = name[len(JOB_PREFIX) :]
        if self.job_owner is None or not (digits.isascii() and digits.isdigit()):
            return
        if len(digits) > 20 or digits != str(int(digits)):
            return
        jobid = int(digits)
        owner = self.job_owner(jobid)
        if owner is not None:
            self._job_names[jobid] = name
            self._tell(self.store.create_namespace(name, owner))

    def _owner_only(self, request: Request) -> None:
        if request.uid != self.store.owner:
            raise ServiceError(
                errno.EPERM,
                f"only the instance owner (user {self.store.owner}) may do this, "
                f"not user {request.uid}",
            )

    def _close_with(self, request: Request, item: Watcher | VersionWaiter) -> None:
        request.on_close(lambda: self.store.unwatch(item))

    @staticmethod
    def _tell(notices: list[Notice]) -> None:
        for request, errnum, payload in notices:
            if errnum:
                request.error(errnum, payload)
            else:
                request.respond(payload)


def _body(request: Request) -> dict[str, Any]:
    body = request.payload
    if type(body) is not dict:
        raise ServiceError(
            errno.EPROTO, f"{request.topic}: the payload must be a map, found {shown(body)}"
        )
    return body


def _key(key: Any) -> str:
    if type(key) is not str:
        raise ServiceError(errno.EPROTO, f"key must be a string, found {shown(key)}")
    return key


def _name(name: Any) -> str:
    if type(name) is not str:
        raise ServiceError(errno.EPROTO, f"ns must be a string, found {shown(name)}")
    return name


def _field(body: dict[str, Any], name: str, kind: type[_T], default: _T | None) -> _T | None:
    value = body.get(name, default)
    if value is not default and type(value) is not kind:
        raise ServiceError(errno.EPROTO, f"{name} must be {kind.__name__}, found {shown(value)}")
    return value
