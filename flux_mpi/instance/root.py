"""What only rank 0 has: the stores, the scheduler, the job manager, and the say over the others."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from flux_mpi.broker.logring import ERR, WARNING
from flux_mpi.broker.service import Request
from flux_mpi.formats import fluid
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.rv1 import RSet
from flux_mpi.instance.lifecycle import signal_name
from flux_mpi.job.service import JobService
from flux_mpi.job.states import State
from flux_mpi.kvs.service import KvsService
from flux_mpi.message.errors import FluxError, ServiceError
from flux_mpi.resource.config import ResourceConfig, parse_config
from flux_mpi.resource.inventory import ResourceError
from flux_mpi.resource.service import ResourceService

if TYPE_CHECKING:
    from flux_mpi.ensemble.service import EnsembleService
    from flux_mpi.instance.node import Node

ENSEMBLE_METHODS = ("run", "plan", "cancel", "list", "join", "report", "return")

SAME_SIGNAL_S = 0.5
"""A launcher signals every rank: the same signal again within this time is the same one."""


class Root:
    """The services of rank 0, tied together."""

    def __init__(self, node: Node) -> None:
        self.node = node
        broker, settings = node.broker, node.settings
        self._signals: dict[int, float] = {}
        self.jobs = JobService(
            broker, config=settings.config, on_hello=self._hello, owner=broker.uid
        )
        self.kvs = KvsService(
            broker,
            job_owner=self._job_owner,
            job_key=lambda jobid: fluid.encode(jobid, "kvs"),
        )
        self.resources = ResourceService(
            broker,
            node.hosts,
            self,
            config=_resource_config(settings.config, node.hosts),
            allocated=self.jobs.allocated,
            others=self.jobs.others,
            keeper=self.kvs,
            define_after=settings.join_timeout_s,
            expiration=settings.expiration,
            owner=broker.uid,
        )
        self._ensembles: EnsembleService | None = None
        broker.register("ensemble", dict.fromkeys(ENSEMBLE_METHODS, self._ensemble))
        self._inactive = 0
        broker.reactor.at_turn_end(self._close_namespaces)
        broker.register(
            "instance",
            {"shutdown": self._shutdown, "signal": self._signal, "lost": self._link_lost},
        )

    # -- ranks come and go ----------------------------------------------------------------------

    def _hello(self, rank: int, info: dict[str, Any]) -> None:
        self.resources.hello(rank, info)
        assert self.node.membership is not None
        self.node.membership.online(rank, self.node.reactor.now())

    def _link_lost(self, request: Request) -> None:
        self.link_lost(int(request.payload["rank"]), str(request.payload["why"]))

    def link_lost(self, rank: int, why: str) -> None:
        """The link to ``rank`` broke: it and all below it are gone."""
        assert self.node.membership is not None
        gone = self.node.membership.lost(rank, self.node.reactor.now(), why)
        if gone:
            self.resources.lost(gone)

    # -- what the resource service tells --------------------------------------------------------

    def define(self, resources: RSet, up: IDSet) -> None:
        """R is known: the instance can run jobs, and its program."""
        try:
            self.jobs.define(resources, up)
        except FluxError as error:
            self.node.broker.log(ERR, "sched", str(error))
            self.node.life.failed(1)
            return
        # After this turn: the program must find the scheduler ready.
        self.node.reactor.call_soon(self.node.life.joined)

    def change(self, up: IDSet) -> None:
        """These ranks can be used for new jobs, and no others."""
        self.jobs.change(up)

    def lost(self, ranks: IDSet) -> None:
        """These ranks are gone, and what ran there."""
        self.jobs.lost(ranks)

    # -- the instance's own service -------------------------------------------------------------

    def _shutdown(self, request: Request) -> None:
        if request.uid != self.node.broker.uid:
            raise ServiceError(errno.EPERM, "only the instance owner may shut it down")
        reason = (request.payload or {}).get("reason", "") if request.payload else ""
        self.node.broker.log(WARNING, "broker", f"shutdown was asked for. {reason}".strip())
        request.respond()
        self.node.life.shutdown()

    def _signal(self, request: Request) -> None:
        signum = int(request.payload["signum"])
        self.signalled(signum, int(request.payload["rank"]))

    def signalled(self, signum: int, rank: int) -> None:
        """A rank got a signal."""
        now = self.node.reactor.monotonic()
        if now - self._signals.get(signum, -SAME_SIGNAL_S) < SAME_SIGNAL_S:
            return
        self._signals[signum] = now
        self.node.broker.log(WARNING, "broker", f"rank {rank} got {signal_name(signum)}")
        self.node.life.signalled(signum)

    # -- ensembles ------------------------------------------------------------------------------

    @property
    def ensembles(self) -> EnsembleService:
        """The service ``ensemble``, made when it is first needed: most instances never do."""
        if self._ensembles is None:
            from flux_mpi.ensemble.service import EnsembleService

            node = self.node
            upstream, token = node.ensemble or (None, "")
            self._ensembles = EnsembleService(
                node.broker,
                owner=node.broker.uid,
                upstream=upstream,
                token=token,
                finish=node.life.program_ended,
            )
        return self._ensembles

    def _ensemble(self, request: Request) -> None:
        method = request.topic.rpartition(".")[2]
        self.ensembles.handlers()[method](request)

    # -- jobs -----------------------------------------------------------------------------------

    def _job_owner(self, jobid: int) -> int | None:
        found = self.jobs.manager.store.find(jobid)
        if found is None:
            return None
        jobs, member = found
        return None if jobs.state_of(member) is State.INACTIVE else jobs.userid

    def _close_namespaces(self) -> None:
        """Jobs that ended in this turn leave their part of the store to the primary namespace."""
        inactive = self.jobs.manager.counts.states[State.INACTIVE]
        if inactive != self._inactive:
            self._inactive = inactive
            self.kvs.close_ended()

    def stop_jobs(self, now: bool) -> None:
        """End all jobs; the lifecycle is told when none is left."""
        if self._ensembles is not None:
            self._ensembles.close()
        self.jobs.stop(now, self.node.life.jobs_ended)


def _resource_config(config: dict[str, Any], hosts: list[str]) -> ResourceConfig:
    """The ``[resource]`` table; raises FluxError, as all that keeps an instance from starting."""
    try:
        return parse_config(config.get("resource"), hosts)
    except ResourceError as error:
        raise FluxError(error.errnum, str(error)) from None
