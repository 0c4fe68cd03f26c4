"""How long the graph scheduler takes: to load a machine, to match on it, to plan ahead on it.

Graphs are racks of 64 nodes with 48 cores and 8 GPUs; requests differ in duration from one to the
next, so that nothing of a request is remembered but its shape. Times are of compiled kernels
unless said otherwise: ``match`` from Python with a request at hand, ``whole`` from the text of the
jobspec to that of R. References in the same run: what NumPy takes to read one word of each vertex,
which any search without an index must. The column Flux has what Fluxion takes in its
``resource-query`` on the same kind of machine, reading the jobspec and writing R included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy
from _common import HERE, BenchmarkError, Row, main, milliseconds, run
from _machines import one_core, racks, recipe, whole_nodes

from flux_mpi.formats.request import parse_request
from flux_mpi.resource import readers
from flux_mpi.resource.graph import ResourceGraph
from flux_mpi.resource.writers import create_writer
from flux_mpi.sched.graphtier import GraphTier
from flux_mpi.sched.matcher import Matcher

FLUXION = {
    ("first", "one core"): ("0.18 ms", "0.16 ms", "0.16 ms"),
    ("first", "1 node"): ("0.29 ms", "0.26 ms", "0.30 ms"),
    ("first", "64 nodes"): ("6.5 ms", "6.1 ms", "8.1 ms"),
}
LIMITS_S = {
    ("first", "one core"): (20e-6, 100e-6),
    ("first", "1 node"): (20e-6, 150e-6),
    ("first", "64 nodes"): (300e-6, 1e-3),
}
RANKED_S = {"one core": 50e-6, "1 node": 50e-6, "64 nodes": 300e-6}
RANKED_FLUXION = {"one core": "280 ms", "1 node": "187 ms", "64 nodes": "182 ms"}
REQUESTS: dict[str, Callable[[float], str]] = {
    "one core": one_core,
    "1 node": lambda duration: whole_nodes(1, duration),
    "64 nodes": lambda duration: whole_nodes(64, duration),
}


class Bench:
    """One graph under one policy; job ids and durations that no request had before."""

    def __init__(self, graph: ResourceGraph, policy: str, tier: GraphTier) -> None:
        self.matcher = Matcher(graph, policy=policy, tier=tier)
        self.writer = create_writer("rv1_nosched", graph)
        self._jobs = 0

    def _next(self, request: Callable[[float], str]) -> tuple[int, str]:
        self._jobs += 1
        return self._jobs, request(3600 + self._jobs * 1e-3)

    def fill(self, share: float, size: int) -> None:
        """Take ``share`` of the machine by jobs of 64 nodes."""
        for _ in range(int(share * size / 64)):
            job_id, text = self._next(lambda duration: whole_nodes(64, duration))
            self.matcher.match("allocate", parse_request(text), job_id, None)

    def times(self, request: Callable[[float], str], repeats: int) -> tuple[float, float]:
        """Median seconds of a match, and of a whole request. Nothing stays allocated."""
        match, whole = [], []
        for _ in range(repeats):
            job_id, text = self._next(request)
            job = parse_request(text)
            self.matcher.prepare(job)
            began = time.perf_counter()
            outcome = self.matcher.match("allocate", job, job_id, None)
            match.append(time.perf_counter() - began)
            if outcome.status != "matched":
                raise BenchmarkError(f"no match: {outcome}")
            self.matcher.cancel(job_id)
            job_id, text = self._next(request)
            began = time.perf_counter()
            self.matcher.match("allocate", parse_request(text), job_id, self.writer)
            self.writer.emit()
            whole.append(time.perf_counter() - began)
            self.matcher.cancel(job_id)
        return statistics.median(match), statistics.median(whole)

    def reserve(self, request: Callable[[float], str], count: int) -> list[float]:
        """Seconds of each of so many requests that have to wait."""
        spent = []
        for _ in range(count):
            job_id, _ = self._next(request)
            job = parse_request(request(3600))
            began = time.perf_counter()
            self.matcher.match("allocate_orelse_reserve", job, job_id, None)
            spent.append(time.perf_counter() - began)
        return spent


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs" if seconds < 1e-3 else milliseconds(seconds)


def reading(graph: ResourceGraph) -> str:
    """The reference: one pass over a column of all vertices."""
    sizes = graph.views()["sizes"]
    took = statistics.median(_timed(lambda: int(numpy.count_nonzero(sizes))) for _ in range(9))
    return f"{microseconds(took)} to read a word of {graph.n_vertices:,} vertices"


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def loading(options: argparse.Namespace) -> list[Row]:
    """In a process of its own: what a graph costs before the first request."""
    code = (
        "import json, resource, sys, time; sys.path.insert(0, sys.argv[2])\n"
        "import numpy\n"
        "from _machines import recipe\n"
        "from flux_mpi.resource import readers\n"
        "from flux_mpi.sched.matcher import Matcher\n"
        "from flux_mpi.sched.graphtier import GraphTier\n"
        "text = recipe(int(sys.argv[1]), sockets=sys.argv[3] == 'True')\n"
        "began = time.perf_counter()\n"
        "graph = readers.load(text, 'grug')\n"
        "matcher = Matcher(graph, tier=GraphTier(graph.n_vertices, 'never'))\n"
        "took = time.perf_counter() - began\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print(json.dumps([took, peak, graph.n_vertices]))\n"
    )
    rows = []
    for sockets in (False, True):
        nodes = options.nodes
        command = [sys.executable, "-c", code, str(nodes), str(HERE), str(sockets)]
        took, peak, vertices = json.loads(run(command).splitlines()[-1])
        bare = statistics.median(
            _timed(lambda n=vertices: numpy.zeros((n, 8), dtype="i")[:, 0].fill(1))
            for _ in range(3)
        )
        rows.append(
            Row(
                f"load {nodes:,} nodes{' with sockets' if sockets else ''}: time, memory at most",
                f"{took:.2f} s, {peak:.0f} MiB",
                f"{milliseconds(bare)} to lay out {vertices:,} rows by NumPy",
                "2.5 s, 2.1 GB" if nodes == 16384 and not sockets else "",
                "≤ 1.0 s, 300 MB",
                took <= 1.0 and peak * 1.048576 <= 300,
            )
        )
    return rows


def first(options: argparse.Namespace, tier: GraphTier) -> list[Row]:
    """Policy first, on an empty, half full and nearly full machine."""
    nodes = options.nodes
    graph = readers.load(recipe(nodes), "grug")
    reference = reading(graph)
    bench = Bench(graph, "first", tier)
    rows = []
    for column, (state, share) in enumerate((("empty", 0.0), ("half", 0.5), ("nearly full", 0.48))):
        bench.fill(share, nodes)
        for name, request in REQUESTS.items():
            match, whole = bench.times(request, options.repeats)
            match_limit, whole_limit = LIMITS_S["first", name]
            rows.append(
                Row(
                    f"{name}, first, {nodes:,} nodes, {state}: match, whole request",
                    f"{microseconds(match)}, {microseconds(whole)}",
                    reference,
                    FLUXION["first", name][column],
                    f"≤ {microseconds(match_limit)}, {microseconds(whole_limit)}",
                    match <= match_limit and whole <= whole_limit,
                )
            )
    return rows


def ranked(options: argparse.Namespace, tier: GraphTier) -> list[Row]:
    """Policies that want the best of all candidates, on an empty machine."""
    nodes = options.ranked_nodes
    graph = readers.load(recipe(nodes), "grug")
    reference = reading(graph)
    rows = []
    for policy in ("low", "high", "lonode"):
        bench = Bench(graph, policy, tier)
        for name, request in REQUESTS.items():
            match, whole = bench.times(request, options.repeats)
            rows.append(
                Row(
                    f"{name}, {policy}, {nodes:,} nodes, empty: match, whole request",
                    f"{microseconds(match)}, {microseconds(whole)}",
                    reference,
                    RANKED_FLUXION[name],
                    f"≤ {microseconds(RANKED_S[name])}",
                    match <= RANKED_S[name],
                )
            )
    return rows


def general(options: argparse.Namespace, tier: GraphTier) -> list[Row]:
    """A request of several levels with slots in them."""
    graph = readers.load(recipe(1024, sockets=True), "grug")
    reference = reading(graph)
    rows = []
    for policy in ("first", "lonode"):
        match, whole = Bench(graph, policy, tier).times(racks, options.repeats)
        rows.append(
            Row(
                f"racks with nodes with slots of sockets, {policy}, 1,024 nodes: match, whole",
                f"{microseconds(match)}, {microseconds(whole)}",
                reference,
                "7–8 ms",
                "≤ 500 µs",
                match <= 500e-6,
            )
        )
    return rows


def planning(options: argparse.Namespace, tier: GraphTier) -> list[Row]:
    """Reservations on a full machine of 1,024 nodes."""
    graph = readers.load(recipe(1024), "grug")
    bench = Bench(graph, "first", tier)
    bench.fill(1.0, 1024)
    spent = bench.reserve(lambda duration: whole_nodes(64, duration), options.reservations)
    tenth = max(1, len(spent) // 10)
    early = sum(spent[:tenth]) / tenth
    late = sum(spent[-tenth:]) / tenth
    memory = _resident()
    return [
        Row(
            f"reserve {options.reservations:,} × 64 nodes on 1,024 full ones: first, last tenth "
            "(each), memory in all",
            f"{milliseconds(early)}, {milliseconds(late)}, {memory:.0f} MB",
            reading(graph),
            "15 ms, 61 ms, 3.1 GB",
            "≤ 0.5 ms, 200 MB",
            max(early, late) <= 0.5e-3 and memory <= 200,
        )
    ]


def _resident() -> float:
    """Memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def cold(options: argparse.Namespace) -> list[Row]:
    """Without compiled kernels: a small machine's first match, and the whole command."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from _machines import recipe, whole_nodes\n"
        "began = time.perf_counter()\n"
        "from flux_mpi.formats.request import parse_request\n"
        "from flux_mpi.resource import readers\n"
        "from flux_mpi.sched.matcher import Matcher\n"
        "matcher = Matcher(readers.load(recipe(4), 'grug'))\n"
        "outcome = matcher.match('allocate', parse_request(whole_nodes(2)), 1, None)\n"
        "assert outcome.status == 'matched', outcome\n"
        "assert 'numba' not in sys.modules\n"
        "print(time.perf_counter() - began)\n"
    )
    began = time.perf_counter()
    run([sys.executable, "-c", "pass"])
    python = time.perf_counter() - began
    first_match = min(float(run([sys.executable, "-c", code, str(HERE)])) for _ in range(3))
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        graph, spec = Path(folder, "graph.xml"), Path(folder, "job.json")
        graph.write_text(recipe(4))
        spec.write_text(whole_nodes(2))
        commands = Path(folder, "commands")
        commands.write_text(f"match allocate {spec}\nquit\n")
        command = f"flux-mpi resource-query -L {graph} -d < {commands}"
        run(["/bin/sh", "-c", command])
        whole = statistics.median(_timed(lambda: run(["/bin/sh", "-c", command])) for _ in range(5))
    reference = f"{milliseconds(python)} for python -c pass"
    return [
        Row(
            "first match of 4 nodes in a fresh process, nothing compiled, imports included",
            milliseconds(first_match),
            reference,
            "",
            "≤ 100 ms",
            first_match <= 0.1,
        ),
        Row(
            "resource-query on a tiny graph, the whole command",
            milliseconds(whole),
            reference,
            "0.06 s",
            "≤ 0.5 s",
            whole <= 0.5,
        ),
    ]


def scaling(options: argparse.Namespace, tier: GraphTier) -> list[Row]:
    """How the cost of one core grows with the machine, and that of nodes with their number."""
    sizes = [64 * 4**k for k in range(6) if 64 * 4**k <= options.scale_to]
    cores = []
    for size in sizes:
        bench = Bench(readers.load(recipe(size), "grug"), "first", tier)
        cores.append(bench.times(one_core, options.repeats)[0])
    bench = Bench(readers.load(recipe(options.nodes), "grug"), "first", tier)
    counts = [4**k for k in range(7) if 4**k <= options.nodes // 2]
    bench.times(_nodes(counts[-1]), 2)  # memory has grown as far as it will
    nodes = [bench.times(_nodes(count), 7)[0] for count in counts]
    if options.plot:
        _plot(Path(options.plot), sizes, cores, counts, nodes)
    each = [total / count for total, count in zip(nodes, counts)]
    return [
        Row(
            f"one core, first, {sizes[0]:,} to {sizes[-1]:,} nodes (×4 each)",
            " · ".join(microseconds(took) for took in cores),
            "",
            "",
            "no faster than log N",
            bool(cores[-1] <= cores[0] * numpy.log2(sizes[-1]) / numpy.log2(sizes[0])),
        ),
        Row(
            f"1 to {counts[-1]:,} of {options.nodes:,} nodes (×4 each): each of them",
            " · ".join(f"{took * 1e6:.1f} µs" for took in each),
            "",
            "",
            "linear in nodes (caches cost a factor of 2)",
            max(each[2:]) <= 2.5 * min(each),
        ),
    ]


def _nodes(count: int) -> Callable[[float], str]:
    return lambda duration: whole_nodes(count, duration)


def _plot(
    path: Path, sizes: list[int], cores: list[float], counts: list[int], nodes: list[float]
) -> None:
    if path.exists():
        raise BenchmarkError(f"--plot: {path} exists and is not overwritten")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogx(sizes, [took * 1e6 for took in cores], "o-", base=4)
    left.set(xlabel="nodes of the machine", ylabel="µs", title="one core, policy first")
    left.set_ylim(bottom=0)
    right.loglog(counts, [took * 1e6 for took in nodes], "s-", label="measured")
    line = [nodes[3] / counts[3] * count * 1e6 for count in counts]
    right.loglog(counts, line, "--", color="grey", label="linear")
    right.set(xlabel="nodes asked for, of 16,384", ylabel="µs", title="whole nodes, policy first")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path)


PARTS = ("loading", "first", "ranked", "general", "planning", "cold", "scaling")


def measure(options: argparse.Namespace) -> list[Row]:
    wanted = options.parts.split(",") if options.parts else list(PARTS)
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        raise BenchmarkError(f"--parts: expected some of {', '.join(PARTS)}, found {unknown[0]!r}")
    rows: list[Row] = []
    if "loading" in wanted:
        rows += loading(options)
    if "cold" in wanted:
        rows += cold(options)
    tier = GraphTier(0, "always")
    if not tier.compiled:
        raise BenchmarkError(f"the kernels could not be compiled: {tier.failure}")
    for name, part in (
        ("planning", planning),  # before larger graphs: it asks for the memory of all
        ("first", first),
        ("ranked", ranked),
        ("general", general),
        ("scaling", scaling),
    ):
        if name in wanted:
            rows += part(options, tier)
    return rows


if __name__ == "__main__":
    main(
        measure,
        __doc__,
        {
            "--parts": "",
            "--nodes": 16_384,
            "--ranked-nodes": 4_096,
            "--reservations": 1_000,
            "--scale-to": 65_536,
            "--repeats": 31,
            "--plot": "",
        },
    )
