"""The options of ``flux-mpi start``: one table, read here and printed by its help.

Every rank of an instance reads them before anything heavier is loaded: standard library only,
and little of it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# name, short form, argument (empty = a flag), what it does
TABLE: tuple[tuple[str, str, str, str], ...] = (
    ("setattr", "S", "NAME=VALUE", "set a broker attribute (may be repeated)"),
    ("conf", "", "FILE|KEY=VALUE", "read a TOML file, or set one key of it (may be repeated)"),
    ("config-path", "c", "FILE", "as --conf, by the name it has in Flux"),
    ("fanout", "", "K", "children a broker has in the tree (default 32)"),
    ("cores-per-rank", "", "N", "pretend that every rank has N cores; tasks are not bound"),
    ("gpus-per-rank", "", "N", "pretend that every rank has N GPUs; tasks are not bound"),
    ("statedir", "", "DIR", "keep state in DIR (accepted; nothing is kept there yet)"),
    ("test-size", "s", "N", "start N ranks on this machine with the mpiexec that is found"),
    ("ensemble", "", "TOKEN", ""),
    ("verbose", "v", "", "say what happens while starting (twice: more)"),
    ("help", "h", "", "show this help"),
)


class UsageError(Exception):
    """An option that is unknown, incomplete or not allowed; the text says which and why."""


class StartOptions:
    """What the command line asked for."""

    def __init__(self) -> None:
        self.setattr: dict[str, str] = {}
        self.conf: list[str] = []
        self.fanout: int | None = None
        self.cores_per_rank: int | None = None
        self.gpus_per_rank: int | None = None
        self.statedir: str | None = None
        self.ensemble = ""
        """The ensemble of its parent that a child instance is to work for."""
        self.test_size: int | None = None
        self.verbose = 0
        self.help = False
        self.command: list[str] = []
        self.forwarded: list[str] = []
        """The words to pass on to the ranks when this process only launches them."""

    @property
    def resources_emulated(self) -> bool:
        return self.cores_per_rank is not None or self.gpus_per_rank is not None


def parse(words: Sequence[str]) -> StartOptions:
    """Read the words after ``start``; options end at the first other word or at ``--``.

    Raises UsageError.
    """
    options = StartOptions()
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            at += 1
            break
        if not word.startswith("-") or word == "-":
            break
        at += 1
        if word.startswith("--"):
            text, eq, value = word[2:].partition("=")
            name, takes = _long(text)
            if takes and not eq:
                value, at = _next(words, at, f"--{name}")
            elif eq and not takes:
                raise UsageError(f"option --{name} takes no value, found {value!r}")
            _apply(options, name, value)
        else:
            at = _short(options, word, words, at)
    options.command = list(words[at:])
    return options


def _short(options: StartOptions, word: str, words: Sequence[str], at: int) -> int:
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        known = [(name, takes) for name, short, takes, _ in TABLE if short == letter]
        if not known:
            raise UsageError(f"unrecognized option -{letter}")
        name, takes = known[0]
        if not takes:
            _apply(options, name, "")
            continue
        if letters:
            value, letters = letters.removeprefix("="), ""
        else:
            value, at = _next(words, at, f"-{letter}")
        _apply(options, name, value)
    return at


def _long(text: str) -> tuple[str, str]:
    matching = [(name, takes) for name, _, takes, _ in TABLE if name.startswith(text)]
    exact = [each for each in matching if each[0] == text]
    if exact:
        return exact[0]
    if not matching or not text:
        raise UsageError(f"unrecognized option --{text}")
    if len(matching) > 1:
        names = ", ".join(f"--{name}" for name, _ in matching)
        raise UsageError(f"option --{text} is ambiguous: {names}")
    return matching[0]


def _next(words: Sequence[str], at: int, option: str) -> tuple[str, int]:
    if at >= len(words):
        raise UsageError(f"option {option} needs a value")
    return words[at], at + 1


def _apply(options: StartOptions, name: str, value: str) -> None:
    if name != "test-size":
        takes = any(option == name and argument for option, _, argument, _ in TABLE)
        options.forwarded.append(f"--{name}={value}" if takes else f"--{name}")
    if name == "verbose":
        options.verbose += 1
    elif name == "help":
        options.help = True
    elif name in ("conf", "config-path"):
        options.conf.append(value)
    elif name == "statedir":
        options.statedir = value
    elif name == "ensemble":
        options.ensemble = value
    elif name == "setattr":
        attribute, eq, text = value.partition("=")
        if not eq or not attribute:
            raise UsageError(f"--setattr: NAME=VALUE is required, found {value!r}")
        options.setattr[attribute] = text
    elif name == "fanout":
        options.fanout = _count(name, value, 1)
    elif name == "test-size":
        options.test_size = _count(name, value, 1)
    elif name == "cores-per-rank":
        options.cores_per_rank = _count(name, value, 1)
    else:
        options.gpus_per_rank = _count(name, value, 0)


def _count(name: str, value: str, least: int) -> int:
    if not (value.isascii() and value.isdigit()) or not least <= int(value) <= 1 << 20:
        raise UsageError(f"--{name}: an integer of at least {least} is required, found {value!r}")
    return int(value)


def help_text() -> str:
    """The help of ``flux-mpi start``."""
    lines = [
        "Usage: flux-mpi start [OPTIONS] [COMMAND...]",
        "       mpiexec -n N flux-mpi start [OPTIONS] [COMMAND...]",
        "",
        "Start an instance: one broker for each rank that the launcher started, or just one.",
        "Rank 0 runs COMMAND (default: an interactive shell); when it ends, so does the instance,",
        "with the same exit status.",
        "",
        "Options:",
    ]
    for name, short, takes, text in TABLE:
        if not text:
            continue  # said by one instance to another
        flag = f"-{short}, --{name}" if short else f"    --{name}"
        lines.append(f"  {flag + ('=' + takes if takes else ''):<30} {text}")
    return "\n".join(lines)
