"""What a queue makes of a submission: defaults, constraints, and the limits it refuses by."""

from __future__ import annotations

import errno
from typing import Any

from flux_mpi.formats import duration
from flux_mpi.formats.jobspec import Jobspec, Shape
from flux_mpi.job.queueconfig import QueueConfig, QueueSettings
from flux_mpi.message.errors import ServiceError


def complete(jobspec: Jobspec, settings: QueueSettings) -> QueueConfig:
    """Put into a jobspec what its queue adds, and say which queue that is.

    Raises ServiceError EINVAL in Flux's words when there is no such queue.
    """
    name = jobspec.queue
    if not settings.named:
        if name is not None:
            raise ServiceError(errno.EINVAL, f"{name!r} is not a valid queue")
        queue = settings.queues[""]
    else:
        if name is None:
            name = settings.default
            if not name:
                raise ServiceError(errno.EINVAL, "no queue specified")
            _system(jobspec)["queue"] = name
        found = settings.queues.get(name)
        if found is None:
            raise ServiceError(errno.EINVAL, f"Invalid queue {name!r} specified")
        queue = found
    if queue.default_duration and not jobspec.duration:
        _system(jobspec)["duration"] = queue.default_duration
    if queue.requires:
        _constrain(_system(jobspec), list(queue.requires))
    return queue


def check(jobspec: Jobspec, shape: Shape, queue: QueueConfig) -> None:
    """Refuse what the queue's limits do not allow, in Flux's words. Raises ServiceError EINVAL."""
    where = f" for queue {queue.name}" if queue.name else ""
    limits = queue.limits
    asked = {"nnodes": shape.nnodes, "ncores": shape.ncores, "ngpus": shape.ngpus}
    for over, bounds in ((True, limits.most), (False, limits.least)):
        for name, number in asked.items():
            bound = bounds[name]
            if number > bound if over else number < bound:
                how = "exceeds" if over else "is under"
                raise ServiceError(
                    errno.EINVAL,
                    f"requested {name} ({number}) {how} policy limit of {bound:g}{where}",
                )
    seconds = jobspec.duration
    if limits.duration < (seconds or float("inf")):
        shown = duration.format(seconds) if seconds else "unlimited"
        raise ServiceError(
            errno.EINVAL,
            f"requested duration ({shown}) exceeds policy limit of "
            f"{duration.format(limits.duration)}{where}",
        )


def _system(jobspec: Jobspec) -> dict[str, Any]:
    """``attributes.system``, to be changed: nobody else has this jobspec yet."""
    spec = jobspec.to_dict()
    attributes = spec.get("attributes")
    if attributes is None:
        attributes = spec["attributes"] = {}
    system: dict[str, Any] | None = attributes.get("system")
    if system is None:
        system = attributes["system"] = {}
    return system


def _constrain(system: dict[str, Any], properties: list[str]) -> None:
    """Require these properties besides what is required already (RFC 31)."""
    given = system.get("constraints")
    if not given:
        system["constraints"] = {"properties": properties}
    elif "properties" in given:
        known = given["properties"]
        given["properties"] = known + [name for name in properties if name not in known]
    else:
        system["constraints"] = {"and": [given, {"properties": properties}]}
