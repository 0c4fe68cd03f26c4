"""What ``batch`` and ``alloc`` share: the options of a child instance, and its jobspec."""

from __future__ import annotations

from flux_mpi.cli.options import Option, flag, repeat, value
from flux_mpi.cli.submission import ENVIRONMENT, GENERAL, OTHER, STDIO, Builder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def _conf(text: str) -> dict[str, Any]:
    # Loaded by who uses it: most do not.
    from flux_mpi.cli import childconf

    return childconf.parse(text)


def _file(text: str) -> tuple[str, dict[str, Any]]:
    from flux_mpi.cli import childconf

    return childconf.parse_file(text)


PER_SLOT: tuple[Option, ...] = (
    value(
        "-n",
        "--nslots",
        metavar="N",
        help="Number of resource slots (default 1; with --nodes, one a node).",
    ),
    value("-c", "--cores-per-slot", metavar="N", help="Cores of each slot (default 1)."),
    value("-g", "--gpus-per-slot", metavar="N", help="GPUs of each slot (default none)."),
    value("-N", "--nodes", metavar="N", help="Number of nodes to spread the slots over."),
    flag(
        "-x",
        "--exclusive",
        help="Take the nodes whole (needs --nodes; implied by --nodes without --nslots).",
    ),
)
CHILD: tuple[Option, ...] = (
    repeat(
        "--conf",
        metavar="CONF",
        convert=_conf,
        help="Configure the instance: FILE.toml, FILE.json, KEY=VAL, lines of TOML or JSON, or a "
        "named configuration; later ones win.",
    ),
    repeat(
        "--broker-opts",
        metavar="OPTS",
        help="Options for the brokers of the instance, separated by commas.",
    ),
    repeat(
        "--add-file",
        metavar="[NAME[:PERMS]=]ARG",
        convert=_file,
        help="Take a file along (a path, or NAME and several lines): the command and its arguments "
        "may call it {{tmpdir}}/NAME.",
    ),
)

GROUPS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    ("Resources", PER_SLOT),
    ("Instance", CHILD),
    # How tasks are laid out, the instance decides for each of its own jobs.
    ("Job", tuple(option for option in GENERAL if option.dest != "taskmap")),
    ("Environment", ENVIRONMENT),
    ("Standard I/O", STDIO),
    ("Other", OTHER),
)


class ChildBuilder(Builder):
    """Makes jobspecs of child instances from options."""

    def child(
        self,
        options: dict[str, Any],
        program: Sequence[str],
        *,
        script: str | None = None,
        shell: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The jobspec object; ``shell`` are options of the job shell besides those asked for.

        Raises JobError naming option, what was found, what is allowed.
        """
        from flux_mpi.client.batch import child_jobspec

        nodes = self._integer(options, "nodes", 1)
        nslots = self._integer(options, "nslots", 1)
        cores = self._integer(options, "cores_per_slot", 1)
        gpus = self._integer(options, "gpus_per_slot", 0)
        exclusive = bool(options.get("exclusive"))
        if exclusive and nodes is None:
            raise self.fail("--exclusive can only be used with --nodes")
        if nodes is not None and nslots is not None and nodes > nslots:
            raise self.fail(
                f"--nodes: {nodes} is more than the number of slots, {nslots}: "
                "ask for at least one slot a node"
            )
        common = self.common(options)
        if shell:
            common["options"] = {**common["options"], **shell}
        words = [
            word for text in options.get("broker_opts") or () for word in text.split(",") if word
        ]
        if words and not words[0].startswith("-"):
            raise self.fail(
                f"--broker-opts: {words[0]!r} is no option: expected one that begins with -"
            )
        try:
            found: dict[str, Any] = child_jobspec(
                program,
                script=script,
                nslots=nslots,
                nodes=nodes,
                cores_per_slot=1 if cores is None else cores,
                gpus_per_slot=gpus or 0,
                exclusive=exclusive,
                broker_options=words,
                conf=self._conf(options),
                files=dict(options.get("add_file") or ()),
                **common,
            ).to_dict()
        except ValueError as error:  # JobspecError, ScriptError
            raise self.fail(str(error)) from None
        return found

    def _conf(self, options: dict[str, Any]) -> dict[str, Any] | None:
        if not options.get("conf"):
            return None
        from flux_mpi.cli import childconf

        try:
            return childconf.combine(options["conf"])
        except ValueError as error:
            raise self.fail(f"--conf: {error}") from None

    def submit(self, handle: Any, spec: dict[str, Any], options: dict[str, Any]) -> int:
        """Submits one jobspec; the job's id. Raises JobError and FluxError."""
        request = {
            "entries": [{"jobspec": spec}],
            "urgency": self.urgency(options["urgency"]),
            "flags": self.flags(options),
        }
        return int(handle.call("job-ingest.submit", request)["arrays"][0][0])
