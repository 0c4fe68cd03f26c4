"""Every command: where it lives, and one line about it. Nothing is imported until it is used."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flux_mpi.cli.options import Command

SECTIONS = (
    (
        "Instances",
        (
            ("start", "Start an instance and run a command or a shell in it"),
            ("uptime", "Say how long the instance has been running"),
            ("uri", "Print the URI of an instance: of a job, of the one around this, of a process"),
            ("proxy", "Run a command, or a shell, that talks to another instance"),
            ("top", "Watch an instance and its jobs, and go down into those that are instances"),
            ("overlay", "Show the tree of brokers and their health"),
            ("getattr", "Print a broker attribute"),
            ("setattr", "Set a broker attribute"),
            ("lsattr", "List broker attributes"),
            ("dmesg", "Print the brokers' log"),
            ("logger", "Write a line to the brokers' log"),
            ("exec", "Run a command on brokers' nodes, outside any job"),
            ("ping", "Measure the round trip to a broker or service"),
            ("shutdown", "Shut the instance down"),
        ),
    ),
    (
        "Submitting jobs",
        (
            ("run", "Run a job, show its output, and exit with its status"),
            ("submit", "Submit a job, or an array of jobs, and print its id"),
            ("bulksubmit", "Submit a job for each input, as xargs or GNU parallel do"),
            ("tree", "Run a command for many members, over a hierarchy of instances"),
            ("alloc", "Start an instance of one's own and work in it"),
            ("batch", "Submit a script that runs in an instance of its own"),
        ),
    ),
    (
        "Jobs",
        (
            ("jobs", "List jobs"),
            ("job", "Attach to, inspect, wait for, signal one or more jobs"),
            ("cancel", "Cancel jobs"),
            ("watch", "Show the output of jobs as it appears"),
            ("pgrep", "Find jobs by name"),
            ("pkill", "Cancel jobs by name"),
            ("pstree", "Show jobs as a tree, down through the hierarchy"),
            ("queue", "Show and control the queues"),
        ),
    ),
    (
        "Resources and data",
        (
            ("resource", "List resources; drain and undrain nodes"),
            ("resource-query", "Match requests against a resource graph, without an instance"),
            ("kvs", "Read and write the key-value store"),
            ("event", "Publish and receive events"),
            ("barrier", "Wait until so many participants are in a barrier"),
            ("group", "Join and leave groups, and see who is in them"),
        ),
    ),
    (
        "Other",
        (
            ("version", "Print version information"),
            ("completion", "Print a completion script for a shell"),
            ("help", "Explain a command"),
        ),
    ),
)

ALIASES = {"pkill": "pgrep"}
"""Commands that share another's file."""


def names() -> list[str]:
    """All commands, in the order of the help."""
    return [name for _, commands in SECTIONS for name, _ in commands]


def load(name: str) -> Command:
    """The parser of a command, which also knows what to run."""
    from importlib import import_module

    module = import_module(f"flux_mpi.cli.{module_name(name)}")
    command: Command = getattr(module, "PKILL" if name == "pkill" else "COMMAND")
    return command


def module_name(name: str) -> str:
    """The file of a command: ``exec`` and ``help`` are words of Python's; hyphens are none."""
    name = ALIASES.get(name, name)
    return f"{name}_" if name in ("exec", "help") else name.replace("-", "_")
