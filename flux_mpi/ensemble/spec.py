"""What an instance is told about an ensemble: what to run, and how what is below is divided."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from typing import Any

from flux_mpi.ensemble.distributor import RETRIES
from flux_mpi.ensemble.shape import Machine, parse_topology
from flux_mpi.formats import duration, templates
from flux_mpi.formats.jobspec import Jobspec, JobspecError
from flux_mpi.formats.shape import Shape
from flux_mpi.message.errors import ServiceError

INTERVAL_S = 0.2
"""A worker reports no more often than this as long as it has enough in hand..."""
REPORTS_A_SECOND = 500
"""...and all workers of an instance together no more often than this."""
MAX_RETRIES = 100


@dataclass(frozen=True, slots=True)
class Spec:
    """An ensemble, as one level of the hierarchy sees it."""

    jobspec: dict[str, Any]
    topology: list[int] = field(default_factory=list)
    """How many children this instance has, and each of these, and so on; empty: none."""
    conf: list[dict[str, Any]] = field(default_factory=list)
    """Configuration of the instances on each level below."""
    expected: float | None = None
    """Seconds that a member runs, if somebody knows."""
    retries: int = RETRIES
    urgency: int = 16
    name: str = "tree"
    """Place of this instance in the tree: ``tree.2.1`` is the first child of the second child."""
    interval: float = INTERVAL_S
    """Seconds between reports upward."""

    @property
    def shape(self) -> Shape:
        """What a member needs."""
        return Jobspec.parse(self.jobspec).shape

    @property
    def mock(self) -> bool:
        """Whether no processes are started."""
        execution = Jobspec.parse(self.jobspec).system.get("exec")
        return isinstance(execution, dict) and execution.get("test") is not None

    def child(self, index: int) -> Spec:
        """For child ``index`` of this instance, from 0."""
        return replace(
            self,
            jobspec=_without_place(self.jobspec),
            topology=self.topology[1:],
            conf=self.conf[1:],
            name=f"{self.name}.{index + 1}",
            interval=max(INTERVAL_S, self.topology[0] / REPORTS_A_SECOND),
        )

    def divided(self, topology: list[int], seconds: float) -> Spec:
        """With another topology, and knowing how long members run."""
        return replace(self, topology=topology, expected=seconds)

    def members(self, machine: Machine) -> dict[str, Any]:
        """The jobspec of members as a leaf submits it, with the variables that tell a member which
        it is, and those that flux-tree(1) gives its jobscripts."""
        system = self.jobspec["attributes"]["system"]
        environment = {
            **(system.get("environment") or {}),
            "FLUX_JOB_CC": "{cc}",
            "FLUX_TREE_ID": self.name,
            "FLUX_TREE_JOBSCRIPT_INDEX": "{cc}",
            "FLUX_TREE_NNODES": str(machine.ranks),
            "FLUX_TREE_NCORES_PER_NODE": str(max(machine.cores, default=0)),
            "FLUX_TREE_NGPUS_PER_NODE": str(max(machine.gpus, default=0)),
        }
        return _with_system(self.jobspec, {**system, "environment": environment})

    # -- on the wire ----------------------------------------------------------------------------

    def to_wire(self) -> dict[str, Any]:
        """As `from_wire` takes it."""
        return {
            "jobspec": self.jobspec,
            "topology": self.topology,
            "conf": self.conf,
            "expected_time": self.expected,
            "retries": self.retries,
            "urgency": self.urgency,
            "name": self.name,
            "interval": self.interval,
        }

    @classmethod
    def from_wire(cls, payload: dict[str, Any]) -> Spec:
        """What a request says. Raises ServiceError(EINVAL) naming the field."""
        try:
            return cls(
                jobspec=_jobspec(payload.get("jobspec")),
                topology=parse_topology(payload.get("topology")),
                conf=_conf(payload.get("conf")),
                expected=_expected(payload.get("expected_time")),
                retries=_number(payload, "retries", RETRIES, 0, MAX_RETRIES),
                urgency=_number(payload, "urgency", 16, 0, 31),
                name=_name(payload.get("name") or "tree"),
                interval=max(INTERVAL_S, float(payload.get("interval") or 0.0)),
            )
        except (JobspecError, ValueError) as error:
            raise ServiceError(errno.EINVAL, str(error)) from None


def _with_system(jobspec: dict[str, Any], system: dict[str, Any]) -> dict[str, Any]:
    return {**jobspec, "attributes": {**jobspec["attributes"], "system": system}}


def _without_place(jobspec: dict[str, Any]) -> dict[str, Any]:
    """Queues and properties are those of the instance that was asked: they say where its children
    go, and mean nothing inside them."""
    system = jobspec["attributes"]["system"]
    place = ("queue", "constraints")
    return _with_system(jobspec, {key: system[key] for key in system if key not in place})


def _jobspec(value: Any) -> dict[str, Any]:
    jobspec = Jobspec.parse(value)
    jobspec.shape  # noqa: B018 - raises what the caller must be told
    obj = jobspec.to_dict()
    if not isinstance(obj["attributes"], dict) or "system" not in obj["attributes"]:
        raise ValueError("jobspec: attributes.system: expected an object, found nothing")
    system = obj["attributes"]["system"]
    seen = [obj["tasks"], {key: system[key] for key in system if key != "environment"}]
    if templates.expand(seen, seq=0) != seen:
        # It would count within a chunk, which nobody outside knows of.
        raise ValueError("template: {seq} means nothing in an ensemble: {cc} is a member's id")
    return obj


def _conf(value: Any) -> list[dict[str, Any]]:
    levels = [] if value is None else [value] if isinstance(value, dict) else value
    if not isinstance(levels, list) or not all(isinstance(conf, dict) for conf in levels):
        raise ValueError(f"conf: expected an object for each level, found {value!r}"[:200])
    return levels


def _expected(value: Any) -> float | None:
    if value is None:
        return None
    seconds = duration.parse(value) if isinstance(value, str) else value
    if not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
        raise ValueError(f"expected_time: expected seconds above 0, found {value!r}")
    return float(seconds)


def _number(payload: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = payload.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name}: expected {least} to {most}, found {value!r}")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > 256:
        raise ValueError(f"name: expected a short text, found {value!r}"[:200])
    return value
