"""The study: which members there are, and how one of them is computed.

An uncertainty-quantification ensemble with Covasim, an agent-based COVID-19 simulator: how strongly
do the measures against an epidemic depend on a transmission probability that nobody knows exactly,
and on chance? Members = scenario x transmission x seed. Nothing here knows how members are run.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCENARIOS: dict[str, str] = {
    "baseline": "no measures",
    "distancing": "distancing from day 30",
    "testing": "testing and tracing from day 30",
    "combined": "distancing, testing and tracing",
}
"""Name of a scenario -> what a figure calls it."""

METRICS = (
    "infections",
    "infections_per_head",
    "peak_infectious",
    "peak_day",
    "peak_severe",
    "deaths",
)
"""What is kept of a member besides its curves, in the order of the columns of results.csv."""

SINGLE_THREADED = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "COVASIM_NUM_THREADS",
    ),
    "1",
)
"""Environment of a member: the ensemble is the parallelism, so a member must not start threads."""


class MemberFailed(RuntimeError):
    """A member that was asked to fail (``--fail``), to show what a failure does to the others."""


@dataclass(frozen=True)
class Member:
    """One simulation: its number in the study, and the point it stands at."""

    index: int
    scenario: str
    beta: float
    seed: int


@dataclass(frozen=True)
class Study:
    """The design. ``betas`` are transmission probabilities a contact; ``seeds`` is how many."""

    pop_size: int = 3000
    n_days: int = 120
    infected: int = 20
    betas: tuple[float, ...] = (0.012, 0.014, 0.016, 0.018, 0.020)
    seeds: int = 12
    scenarios: tuple[str, ...] = field(default=tuple(SCENARIOS))

    def __post_init__(self) -> None:
        unknown = [name for name in self.scenarios if name not in SCENARIOS]
        if unknown:
            raise ValueError(f"unknown scenario {unknown[0]!r}: there are {', '.join(SCENARIOS)}")
        if min(self.pop_size, self.n_days, self.infected, self.seeds, len(self.betas)) < 1:
            raise ValueError("pop_size, n_days, infected, seeds and betas must be at least 1")

    def __len__(self) -> int:
        return len(self.scenarios) * len(self.betas) * self.seeds

    def member(self, index: int) -> Member:
        """Member ``index`` (0 ... len-1); IndexError when there is none.

        Seeds vary slowest, so that whatever is done first already covers the whole design.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"no member {index}: the study has members 0 to {len(self) - 1}")
        rest, scenario = divmod(index, len(self.scenarios))
        seed, beta = divmod(rest, len(self.betas))
        return Member(index, self.scenarios[scenario], self.betas[beta], seed + 1)

    def members(self) -> list[Member]:
        return [self.member(index) for index in range(len(self))]

    def as_json(self) -> dict[str, Any]:
        """The design for a file; ``load`` reads it back."""
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> Study:
        fields: dict[str, Any] = json.loads(path.read_text())
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def simulate(study: Study, member: Member) -> dict[str, Any]:
    """Run one member: ``{member, metrics: {name: number}, curves: {name: [a day]}, seconds}``.

    Curves are numbers of agents. Importing Covasim costs a second or two, once a process.
    """
    cv = load_covasim()
    began = time.perf_counter()
    sim = cv.Sim(
        pop_size=study.pop_size,
        pop_infected=study.infected,
        pop_type="hybrid",  # households, schools and work places, from the data Covasim ships
        n_days=study.n_days,
        beta=member.beta,
        rand_seed=member.seed,
        interventions=_interventions(cv, study, member.scenario),
        verbose=0,
    )
    sim.run()
    infectious = [int(x) for x in sim.results["n_infectious"]]
    infected = [int(x) for x in sim.results["cum_infections"]]
    severe = [int(x) for x in sim.results["n_severe"]]
    peak = max(infectious)
    return {
        "member": asdict(member),
        "metrics": {
            "infections": infected[-1],
            "infections_per_head": round(infected[-1] / study.pop_size, 4),
            "peak_infectious": peak,
            "peak_day": infectious.index(peak),
            "peak_severe": max(severe),
            "deaths": int(sim.results["cum_deaths"][-1]),
        },
        "curves": {"infectious": infectious, "infections": infected},
        "seconds": round(time.perf_counter() - began, 3),
    }


def load_covasim() -> Any:
    """The module; without its greeting, and without a display for its figures."""
    os.environ.update({"COVASIM_VERBOSE": "0", "MPLBACKEND": "Agg"})
    import covasim

    return covasim


def _interventions(cv: Any, study: Study, scenario: str) -> list[Any]:
    measures: list[Any] = []
    if scenario in ("distancing", "combined"):
        measures.append(cv.change_beta(days=30, changes=0.55, layers=["s", "w", "c"]))
    if scenario in ("testing", "combined"):
        measures.append(cv.test_prob(symp_prob=0.08, asymp_prob=0.001, start_day=30))
        measures.append(cv.contact_tracing(trace_probs=0.3, trace_time=2, start_day=30))
    return measures


def run_member(study: Study, member: Member, folder: Path, fail: Iterable[int] = ()) -> float:
    """Compute ``member`` and write its file below ``folder``; returns its seconds.

    The file appears whole or not at all. Raises what the simulation raises, MemberFailed for the
    numbers in ``fail``.
    """
    if member.index in fail:
        raise MemberFailed(f"member {member.index} fails because --fail names it")
    result = simulate(study, member)
    write_json(member_path(folder, member.index), {"study": asdict(study), **result})
    return float(result["seconds"])


def member_path(folder: Path, index: int) -> Path:
    return folder / f"{index}.json"


def read_member(study: Study, member: Member, folder: Path) -> dict[str, Any] | None:
    """The result of a finished member; None when it must (still, or again) be run.

    A file that is truncated, of another study or with numbers missing is no result.
    """
    try:
        result = json.loads(member_path(folder, member.index).read_text())
    except (OSError, ValueError):
        return None
    return result if _is_result(study, member, result) else None


def _is_result(study: Study, member: Member, result: Any) -> bool:
    def plain(value: Any) -> Any:
        return json.loads(json.dumps(asdict(value)))  # tuples are lists in a file

    if not isinstance(result, Mapping):
        return False
    if result.get("member") != plain(member) or not isinstance(result.get("study"), Mapping):
        return False
    # How many seeds or scenarios the study has does not change what a member's numbers mean.
    same = all(
        result["study"].get(name) == getattr(study, name)
        for name in ("pop_size", "n_days", "infected")
    )
    metrics, curves = result.get("metrics"), result.get("curves")
    return (
        same
        and isinstance(metrics, Mapping)
        and all(_is_number(metrics.get(name)) for name in METRICS)
        and isinstance(curves, Mapping)
        and all(
            isinstance(curves.get(name), list)
            and len(curves[name]) == study.n_days + 1
            and all(map(_is_number, curves[name]))
            for name in ("infectious", "infections")
        )
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def write_json(path: Path, value: Any) -> None:
    """Write atomically: readers, and a run that was interrupted, see the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        scratch.write_text(json.dumps(value))
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
