"""A session of ``resource-query``: a graph, its matcher, and the book of jobs.

The one file of the commands that knows the rooms ``resource`` and ``sched``: this tool works
without an instance. Everything is imported where it is used, for the shell starts in no time.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from time import perf_counter

from flux_mpi.cli.options import UsageError
from flux_mpi.cli.rq_prompt import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TextIO

    from flux_mpi.cli.options import Arguments
    from flux_mpi.resource.graph import ResourceGraph
    from flux_mpi.resource.writers import Writer
    from flux_mpi.sched.matcher import Matcher

DEFAULT_FILTERS = "ALL:core,ALL:node"
RULE = "INFO: ============================="
PROGRAM = "flux-resource-query"

_WITHOUT_ALLOCATING = ("without_allocating", "without_allocating_future")


def run(arguments: Arguments) -> int:
    """The whole command: load, read commands until the end, write the graph if asked to.

    Returns 1 when an input file of some command was refused, else 0.
    """
    from flux_mpi.cli import rq_commands, rq_prompt

    started = perf_counter()
    graph = load(arguments)
    matcher = create_matcher(graph, arguments)
    elapsed = perf_counter() - started
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    if arguments.elapse_time:
        tell_graph(graph, elapsed)
    out: TextIO = sys.stdout
    if arguments.test_output is not None:
        out = open(  # noqa: SIM115 - stdout must stay open
            arguments.test_output, "w", encoding="utf-8", errors="surrogateescape", newline=""
        )
    session = Session(matcher, arguments.match_format, out, elapse=arguments.elapse_time)
    session.filters = {
        word for pair in _filters(arguments).split(",") for word in pair.strip().split(":")
    }
    try:
        names = [command.name for command in rq_commands.COMMANDS]
        for line in rq_prompt.lines(names, prompt=not arguments.disable_prompt):
            over = rq_commands.execute(session, line)
            sys.stdout.flush()
            if over:
                break
    finally:
        if out is not sys.stdout:
            out.close()
    if arguments.graph_output is not None:
        from flux_mpi.cli.rq_graph import write_graph

        print("INFO: Write the target graph of the matcher...")
        write_graph(graph, f"{arguments.graph_output}.{arguments.graph_format}")
    return 1 if session.refused else 0


def load(arguments: Arguments) -> ResourceGraph:
    """The graph of ``--load-file``. Raises UsageError for one that makes no sense."""
    from flux_mpi.cli.resource_query import DEFAULT_FILE
    from flux_mpi.resource import readers

    path = arguments.load_file
    if path is None:
        import os

        path = DEFAULT_FILE
        if not os.path.exists(path):
            raise UsageError(f"{PROGRAM}: ERROR: {path} does not exist: name a file with -L", 1)
    allowlist: frozenset[str] | None = None
    types = [word.strip() for text in arguments.load_allowlist or () for word in text.split(",")]
    if any(types):
        allowlist = frozenset(["cluster", *filter(None, types)])
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
    except UnicodeDecodeError:
        raise UsageError(f"{PROGRAM}: ERROR: {path}: expected text in UTF-8", 1) from None
    try:
        return readers.load(text, arguments.load_format, allowlist=allowlist)
    except ValueError as error:
        raise UsageError(f"{PROGRAM}: ERROR: {path}: {error}", 1) from None


def _filters(arguments: Arguments) -> str:
    given = [text for text in arguments.prune_filters or () if text.strip()]
    return ",".join(given) or DEFAULT_FILTERS


def create_matcher(graph: ResourceGraph, arguments: Arguments) -> Matcher:
    """Raises UsageError for an option that the graph or the matcher does not know."""
    from flux_mpi.sched.matcher import Matcher

    try:
        return Matcher(
            graph,
            policy=arguments.match_policy,
            subsystems=arguments.match_subsystems,
            prune_filters=_filters(arguments),
            traverser=arguments.traverser_policy,
            as_fluxion=True,
        )
    except ValueError as error:
        raise UsageError(f"{PROGRAM}: ERROR: {error}", 1) from None


def tell_graph(graph: ResourceGraph, elapsed: float) -> None:
    """What ``--elapse-time`` says of a loaded graph; ``elapsed`` in seconds."""
    vertices = list(graph.vertices())
    paths = {path for vertex in vertices for path in graph.paths(vertex).values()}
    print(f"INFO: Graph Load Time: {elapsed:g}")
    print(f"INFO: Vertex Count: {len(vertices)}")
    print(f"INFO: Edge Count: {len(graph.out)}")
    print(f"INFO: by_type Key-Value Pairs: {len({graph.type(vertex) for vertex in vertices})}")
    print(f"INFO: by_name Key-Value Pairs: {len({graph.name(vertex) for vertex in vertices})}")
    print(f"INFO: by_path Key-Value Pairs: {len(paths)}")
    for rank, held in sorted(graph.by_rank().items()):
        print(f"INFO: number of vertices with rank {rank}: {len(held)}")


class Job:
    """A job that got resources: since when (seconds), from which file, found in how long."""

    __slots__ = ("at", "elapsed", "id", "path", "state")

    def __init__(self, id: int, state: str, at: int, path: str, elapsed: float) -> None:
        self.id = id
        self.state = state
        self.at = at
        self.path = path
        self.elapsed = elapsed

    @property
    def line(self) -> str:
        return f"INFO: {self.id}, {self.state}, {self.at}, {self.path}, {self.elapsed:g}"


class Session:
    """The state of a session. Matches go to ``out``, the rest of what is told to stdout.

    ``refused`` becomes True when an input file could not be read or made no sense.
    """

    def __init__(self, matcher: Matcher, format: str, out: TextIO, *, elapse: bool = False) -> None:
        from flux_mpi.resource.writers import create_writer

        self.matcher = matcher
        self.writer: Writer = create_writer(format, matcher.graph)
        self.out = out
        self.elapse = elapse
        self.filters: set[str] = set()
        self.refused = False
        self.next_id = 1
        self.jobs: dict[int, Job] = {}
        self.allocations: set[int] = set()
        self.reservations: set[int] = set()
        self._fastest = float("inf")
        self._slowest = 0.0
        self._total = 0.0

    # -- helpers ----------------------------------------------------------------------------------

    def tell(self, line: str) -> None:
        self.out.write(f"{line}\n")

    def read(self, path: str) -> str | None:
        """The text of a file; None, after telling so, when there is none to be had."""
        try:
            with open(path, "rb") as file:
                return file.read().decode()
        except OSError as error:
            say(f"ERROR: can't open {path}: {error.strerror}")
        except UnicodeDecodeError:
            say(f"ERROR: {path}: expected text in UTF-8")
        self.refused = True
        return None

    def _tell_visits(self) -> None:
        print(f"INFO: PREORDER VISIT COUNT={self.matcher.preorder}")
        print(f"INFO: POSTORDER VISIT COUNT={self.matcher.postorder}")

    def _known_type(self, name: str) -> bool:
        return self.matcher.graph.types.find(name) >= 0 or name in self.filters

    # -- matching ---------------------------------------------------------------------------------

    def match(self, op: str, path: str) -> bool:
        """Whether to go on with further jobspecs: False when this one did not match."""
        text = self.read(path)
        if text is None:
            return True
        from flux_mpi.formats.request import RequestError, parse_request

        started = perf_counter()
        job_id = self.next_id
        status, at, elapsed, result = "invalid", 0, 0.0, ""
        try:
            job = parse_request(text, self._known_type)
        except RequestError as error:
            say(f"match_allocate: ERROR: Jobspec error for {job_id}: {error}")
            self.refused = True
        else:
            status, at, message = self.matcher.match(op, job, job_id, self.writer)
            if message or status == "invalid":
                say(f"match_allocate: ERROR: {message or 'traverser: Invalid argument'}")
            if status != "invalid":
                result = self.writer.emit()
                elapsed = perf_counter() - started
                if op != "satisfiability" and op not in _WITHOUT_ALLOCATING:
                    self.next_id += 1
        self.out.write(result)
        if op == "satisfiability":
            # As in Fluxion, where a request that makes no sense is not unsatisfiable.
            self._tell_satisfiability(status != "unsatisfiable", elapsed)
        elif status == "matched":
            self._tell_match(job_id, path, at, elapsed, op not in _WITHOUT_ALLOCATING)
        else:
            self._tell_no_match(job_id, status != "unsatisfiable", elapsed)
        return status == "matched"

    def _tell_satisfiability(self, satisfiable: bool, elapsed: float) -> None:
        word = "Satisfiable" if satisfiable else "Unsatisfiable"
        self.out.write(f"{RULE}\nINFO: {word} request\n{RULE}\n")
        if self.elapse:
            print(f"INFO: ELAPSE={elapsed:.6f}")
            self._tell_visits()

    def _tell_match(self, job_id: int, path: str, at: int, elapsed: float, allocated: bool) -> None:
        state = "MATCHED"
        if allocated:
            state = "RESERVED" if at else "ALLOCATED"
        self.out.write(
            f"{RULE}\nINFO: JOBID={job_id}\nINFO: RESOURCES={state}\n"
            f"INFO: SCHEDULED AT={at or 'Now'}\n"
        )
        if self.elapse:
            print(f"INFO: ELAPSE={elapsed:.6f}")
            self._tell_visits()
        self.tell(RULE)
        if allocated:
            self.jobs[job_id] = Job(job_id, state, at, path, elapsed)
            (self.reservations if at else self.allocations).add(job_id)
            self._fastest = min(self._fastest, elapsed)
            self._slowest = max(self._slowest, elapsed)
            self._total += elapsed

    def _tell_no_match(self, job_id: int, satisfiable: bool, elapsed: float) -> None:
        self.tell(f"{RULE}\nINFO: No matching resources found")
        if not satisfiable:
            self.tell("INFO: Unsatisfiable request")
        self.tell(f"INFO: JOBID={job_id}")
        if self.elapse:
            self.tell(f"INFO: ELAPSE={elapsed:.6f}")
            self._tell_visits()
        self.tell(RULE)

    def update(
        self, job_id: int, text: str, format: str, at: int, duration: int, path: str
    ) -> None:
        """A job's resources from ``text``, from second ``at`` on for ``duration`` seconds."""
        started = perf_counter()
        matched = False
        try:
            outcome = self.matcher.update(job_id, text, format, at, duration, self.writer)
        except ValueError as error:
            message = str(error)
        else:
            matched, message = outcome.status == "matched", outcome.message
        if not matched:
            say(f"ERROR: can't update job {job_id} from {path}: {message}")
            self.refused = True
        self.out.write(self.writer.emit())
        elapsed = perf_counter() - started
        if matched:
            self._tell_match(job_id, path, at, elapsed, True)
        else:
            self._tell_no_match(job_id, True, elapsed)
        self.next_id = job_id + 1

    # -- ends of jobs -----------------------------------------------------------------------------

    def cancel(self, job_id: int, stats: bool) -> None:
        """End a job; ``stats``: tell how many vertices that took."""
        if job_id not in self.allocations and job_id not in self.reservations:
            say(f"cancel: ERROR: nonexistent job {job_id}")
            return
        try:
            self.matcher.cancel(job_id)
        except (KeyError, ValueError) as error:
            say(f"cancel: ERROR: error encountered while removing job {job_id}: {error}")
            return
        self._ended(job_id)
        if stats:
            self._tell_stats("CANCEL")

    def partial_cancel(self, job_id: int, text: str, format: str, stats: bool) -> None:
        """Release what ``text`` names of a job."""
        if job_id in self.reservations:
            say("ERROR: reservations not currently supported by partial cancel")
            return
        if job_id not in self.allocations:
            say(f"ERROR: nonexistent job {job_id}")
            return
        try:
            if self.matcher.partial_cancel(job_id, text, format):
                self._ended(job_id)
        except ValueError as error:
            say(f"ERROR: error encountered while removing job {job_id}: {error}")
            self.refused = True
        if stats:
            self._tell_stats("PARTIAL CANCEL")

    def _ended(self, job_id: int) -> None:
        self.allocations.discard(job_id)
        self.reservations.discard(job_id)
        if job_id in self.jobs:
            self.jobs[job_id].state = "CANCELED"

    def _tell_stats(self, what: str) -> None:
        self.out.write(
            f'{RULE}\nINFO: {what} PREORDER COUNT="{self.matcher.preorder}"\n'
            f'INFO: {what} POSTORDER COUNT="{self.matcher.postorder}"\n{RULE}\n'
        )

    # -- changes of the graph ---------------------------------------------------------------------

    def attach(self, text: str) -> None:
        """Add a subgraph in JGF."""
        if not self._try("can't attach JGF subgraph", lambda: self.matcher.attach(text)):
            self.refused = True

    def remove_path(self, path: str) -> None:
        self._try("can't remove subgraph", lambda: self.matcher.remove_path(path))

    def remove_ranks(self, ranks: Iterable[int]) -> None:
        self._try("can't remove subgraph", lambda: self.matcher.remove_ranks(ranks))

    def _try(self, failure: str, action: Callable[[], object]) -> bool:
        try:
            action()
        except ValueError as error:
            say(f"ERROR: {failure}: {error}")
            return False
        return True

    def set_property(self, path: str, key: str, value: str) -> None:
        graph = self.matcher.graph
        vertices = graph.find_path(path)
        if not vertices:
            self.tell(f"Couldn't find path {path} in resource graph.")
        for vertex in vertices:
            graph.set_property(vertex, key, value)

    def get_property(self, path: str) -> None:
        vertices = self._vertices(path)
        graph = self.matcher.graph
        for vertex in vertices:
            properties = graph.properties.get(vertex)
            if not properties:
                number = graph.uniq[vertex]
                self.tell(f"No properties were found for {path} (vtx's uniq_id={number}).")
                continue
            for key in sorted(properties):
                self.tell(f"{key}={properties[key]}")

    def set_status(self, path: str, word: str) -> None:
        from flux_mpi.resource.graph import DOWN, UP

        if not self._vertices(path):
            return
        if word not in ("up", "down"):
            say(f"ERROR: unrecognized status {word!r}: expected up or down")
            return
        status = UP if word == "up" else DOWN
        self._try("can't set status", lambda: self.matcher.mark_path(path, status))

    def get_status(self, path: str) -> None:
        from flux_mpi.resource.graph import UP

        for vertex in self._vertices(path):
            word = "up" if self.matcher.graph.status(vertex) == UP else "down"
            self.tell(f"{path} is {word}")

    def _vertices(self, path: str) -> list[int]:
        """What has a path; tells when nothing does."""
        vertices = self.matcher.graph.find_path(path)
        if not vertices:
            self.tell(f"Could not find path {path} in resource graph.")
        return vertices

    # -- questions --------------------------------------------------------------------------------

    def find(self, text: str) -> None:
        """Show what meets criteria."""
        from flux_mpi.sched.criteria import parse
        from flux_mpi.sched.finding import find

        try:
            find(self.matcher, parse(text), self.writer)
        except ValueError as error:
            self.writer.emit()
            say(f"find: ERROR: {error}")
            return
        self.out.write(self.writer.emit())
        self.out.write(f'{RULE}\nINFO: EXPRESSION="{text}"\n{RULE}\n')

    def list_jobs(self) -> None:
        for _, job in sorted(self.jobs.items()):
            print(job.line)

    def info(self, job_id: int) -> None:
        if job_id in self.jobs:
            print(self.jobs[job_id].line)
        else:
            say(f"info: ERROR: nonexistent job {job_id}")

    def stat(self) -> None:
        count = len(self.jobs)
        print(f"INFO: Num. of Jobs Matched: {count}")
        print(f"INFO: Min. Match Time: {self._fastest if count else 0.0:g}")
        print(f"INFO: Max. Match Time: {self._slowest:g}")
        print(f"INFO: Avg. Match Time: {self._total / count if count else 0.0:g}")
