"""The commands of a session of ``resource-query``: their words, and what each needs.

A command gets the words of its line, the command itself among them, and ends the session by
returning True. What is wrong with a line is told on stderr and the session goes on.
"""

from __future__ import annotations

from flux_mpi.cli.rq_prompt import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from flux_mpi.cli.rq_session import Session

    Run = Callable[[Session, list[str]], bool | None]

MATCH_OPS = (
    "allocate",
    "allocate_orelse_reserve",
    "allocate_with_satisfiability",
    "satisfiability",
    "without_allocating",
    "without_allocating_future",
)

_MAX_ID = (1 << 63) - 1


class Command:
    """``name`` or ``short`` at the head of a line; ``words`` follow ``name`` in a usage line.

    ``least`` and ``most`` bound how many words a line may have in all (``most`` None: any).
    """

    __slots__ = ("least", "most", "name", "note", "run", "short", "words")

    def __init__(
        self,
        name: str,
        short: str,
        run: Run,
        words: str,
        note: str,
        least: int = 1,
        most: int | None = None,
    ) -> None:
        self.name = name
        self.short = short
        self.run = run
        self.words = words
        self.note = note
        self.least = least
        self.most = most

    @property
    def usage(self) -> str:
        return f"{self.name} {self.words}".rstrip()


def execute(session: Session, line: str) -> bool:
    """Runs one line; True when the session is over."""
    # Words are parted as C does it: a no-break space is part of a name.
    words = [
        word.decode("utf-8", "surrogateescape")
        for word in line.encode("utf-8", "surrogateescape").split()
    ]
    if not words or words[0].startswith("#"):
        return False
    command = find(words[0])
    if command is None:
        _tell_unknown(words[0])
        return False
    if len(words) < command.least or (command.most is not None and len(words) > command.most):
        say(f"ERROR: malformed command: expected {command.usage}")
        return False
    return bool(command.run(session, words))


def find(word: str) -> Command | None:
    """The first command that is called so."""
    return next((command for command in COMMANDS if word in (command.name, command.short)), None)


def _tell_unknown(word: str) -> None:
    from difflib import get_close_matches

    near = get_close_matches(word, [command.name for command in COMMANDS], 1)
    hint = f"did you mean {near[0]}?" if near else "'help' lists the commands"
    say(f"ERROR: unknown command {word!r}: {hint}")


def _number(text: str, what: str, least: int = 0) -> int | None:
    """An integer in decimal; None, after telling so, when it is none."""
    digits = text.removeprefix("+")
    if digits.isascii() and digits.isdigit() and len(digits) < 20 and int(digits) <= _MAX_ID:
        number = int(digits)
        if number >= least:
            return number
    say(f"ERROR: invalid {what} {text!r}: expected an integer from {least} to {_MAX_ID}")
    return None


def _operation(words: list[str]) -> str | None:
    if words[1] in MATCH_OPS:
        return words[1]
    say(f"ERROR: unknown subcmd {words[1]}: expected one of {', '.join(MATCH_OPS)}")
    return None


def _match(session: Session, words: list[str]) -> None:
    op = _operation(words)
    if op is not None:
        session.match(op, words[2])


def _multi_match(session: Session, words: list[str]) -> None:
    op = _operation(words)
    if op is not None:
        for path in words[2:]:
            if not session.match(op, path):
                break


def _update(session: Session, words: list[str]) -> None:
    _, subcommand, format, path, *numbers = words
    if subcommand not in ("allocate", "reserve"):
        say(f"ERROR: unknown subcmd {subcommand}: expected allocate or reserve")
        return
    if format not in ("jgf", "jgf_shorthand", "rv1exec"):
        say(f"ERROR: unsupported reader {format}: expected jgf, jgf_shorthand or rv1exec")
        return
    text = session.read(path)
    job_id = None if text is None else _number(numbers[0], "jobid")
    if text is None or job_id is None:
        return
    if job_id in session.allocations or job_id in session.reservations:
        say(f"ERROR: existing Jobid {job_id}")
        return
    at = _number(numbers[1], "time")
    duration = None if at is None else _number(numbers[2], "duration", 1)
    if at is not None and duration is not None:
        session.update(job_id, text, format, at, duration, path)


def _attach(session: Session, words: list[str]) -> None:
    text = session.read(words[1])
    if text is not None:
        session.attach(text)


def _remove(session: Session, words: list[str]) -> None:
    _, target, is_path = words
    if is_path not in ("true", "false"):
        say(f"ERROR: invalid path boolean input {is_path!r}: expected true or false")
    elif is_path == "true":
        session.remove_path(target)
    else:
        from flux_mpi.formats.idset import IDSet

        try:
            ranks = IDSet.parse(target)
        except ValueError as error:
            say(f"ERROR: failed to decode ranks: {error}")
        else:
            session.remove_ranks(ranks)


def _find(session: Session, words: list[str]) -> None:
    session.find(" ".join(words[1:]))


def _cancel(session: Session, words: list[str]) -> None:
    job_id = _number(words[1], "jobid")
    if job_id is not None:
        session.cancel(job_id, words[2:] == ["stats"])


def _partial_cancel(session: Session, words: list[str]) -> None:
    _, job, format, path, *rest = words
    if format not in ("jgf", "rv1exec"):
        say(f"ERROR: unsupported reader {format}: expected jgf or rv1exec")
        return
    text = session.read(path)
    job_id = None if text is None else _number(job, "jobid")
    if text is not None and job_id is not None:
        session.partial_cancel(job_id, text, format, rest == ["stats"])


def _set_property(session: Session, words: list[str]) -> None:
    key, equals, value = words[2].partition("=")
    if not (key and equals and value):
        session.tell("Incorrect input format. ")
        session.tell("Please use `set-property <resource> PROPERTY=VALUE`.")
    else:
        session.set_property(words[1], key, value)


def _get_property(session: Session, words: list[str]) -> None:
    session.get_property(words[1])


def _set_status(session: Session, words: list[str]) -> None:
    session.set_status(words[1], words[2])


def _get_status(session: Session, words: list[str]) -> None:
    session.get_status(words[1])


def _list(session: Session, words: list[str]) -> None:
    session.list_jobs()


def _info(session: Session, words: list[str]) -> None:
    job_id = _number(words[1], "jobid")
    if job_id is not None:
        session.info(job_id)


def _stat(session: Session, words: list[str]) -> None:
    session.stat()


def _cat(session: Session, words: list[str]) -> None:
    text = session.read(words[1])
    if text is not None:
        print(text, end="" if not text or text.endswith("\n") else "\n")
        print(f"INFO: Jobspec in {words[1]}")


def _help(session: Session, words: list[str]) -> None:
    wanted = words[1] if len(words) == 2 else None
    shown = [c for c in COMMANDS if wanted is None or wanted in (c.name, c.short)]
    for command in shown:
        print(f"INFO: {command.name} ({command.short}) -- {command.note}: {command.usage}")
    if not shown:
        print(f"ERROR: unknown command: {wanted}")


def _quit(session: Session, words: list[str]) -> bool:
    return True


COMMANDS = (
    Command(
        "match",
        "m",
        _match,
        f"{'|'.join(MATCH_OPS)} JOBSPEC",
        "Find resources for a jobspec, and allocate or reserve them",
        3,
        3,
    ),
    Command(
        "multi-match",
        "M",
        _multi_match,
        "OPERATION JOBSPEC JOBSPEC...",
        "Match one jobspec after another, up to the first that fails",
        4,
    ),
    Command(
        "update",
        "u",
        _update,
        "allocate|reserve jgf|jgf_shorthand|rv1exec FILE JOBID START DURATION",
        "Give a job the resources that a file names",
        7,
        7,
    ),
    Command("attach", "j", _attach, "FILE", "Add a subgraph (JGF) to the graph", 2, 2),
    Command(
        "remove",
        "j",
        _remove,
        "PATH true | RANKS false",
        "Take a subgraph out of the graph, by its path or by its ranks",
        3,
        3,
    ),
    Command(
        "find",
        "f",
        _find,
        "CRITERIA",
        "Show resources that meet criteria, joined by and/or and parentheses "
        "(status=up|down sched-now=allocated|free sched-future=reserved|free agfilter=true|false "
        "names=HOSTLIST jobid-alloc=ID jobid-span=ID jobid-tag=ID jobid-reserved=ID "
        "property=NAME)",
        2,
    ),
    Command("cancel", "c", _cancel, "JOBID [stats]", "End an allocation or a reservation", 2, 3),
    Command(
        "partial-cancel",
        "pc",
        _partial_cancel,
        "JOBID jgf|rv1exec FILE [stats]",
        "Release what a file names of an allocation",
        4,
        5,
    ),
    Command(
        "set-property",
        "p",
        _set_property,
        "PATH PROPERTY=VALUE",
        "Set a property of a resource",
        3,
        3,
    ),
    Command("get-property", "g", _get_property, "PATH", "Show a resource's properties", 2, 2),
    Command("set-status", "t", _set_status, "PATH up|down", "Mark a resource up or down", 3, 3),
    Command("get-status", "e", _get_status, "PATH", "Show whether a resource is up", 2, 2),
    Command("list", "l", _list, "", "Show all jobs"),
    Command("info", "i", _info, "JOBID", "Show one job", 2, 2),
    Command("stat", "s", _stat, "", "Show how many jobs matched, and how long it took", 1, 1),
    Command("cat", "a", _cat, "JOBSPEC", "Show a jobspec file", 2, 2),
    Command("help", "h", _help, "[COMMAND]", "Explain the commands"),
    Command("quit", "q", _quit, "", "End the session"),
)
