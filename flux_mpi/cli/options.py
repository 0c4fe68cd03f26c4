"""Command lines as tables: parsing, help, shell completion and the manual come from the same data.

Not argparse: every command pays for its parser (argparse costs 8 ms to import, as much as Python
itself), and Flux's conventions are needed exactly: POSIX parsing that stops at the first operand
where a job's command follows, unambiguous prefixes of long options, values in the same word.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn

PROGRAM = "flux-mpi"


class UsageError(Exception):
    """A command line that makes no sense; ``status`` is the exit status.

    ``reason`` is the text without the usage line and the name of who speaks.
    """

    def __init__(self, text: str, status: int = 2, reason: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason or text


class HelpRequested(Exception):
    """``--help`` was given; the text is the help."""


class Option:
    """One option. ``kind`` is one of

    * ``flag``: no value, sets True;
    * ``count``: no value, counts its uses;
    * ``value``: needs a value;
    * ``repeat``: needs a value, collects a list;
    * ``optional``: may have a value (``--name=VALUE`` only), else takes ``const``.
    """

    __slots__ = (
        "choices",
        "const",
        "convert",
        "default",
        "dest",
        "help",
        "kind",
        "metavar",
        "names",
    )

    def __init__(
        self,
        names: Sequence[str],
        kind: str,
        help: str,
        *,
        metavar: str = "",
        dest: str = "",
        convert: Callable[[str], Any] | None = None,
        default: Any = None,
        const: Any = None,
        choices: Sequence[str] = (),
    ) -> None:
        self.names = tuple(names)
        self.kind = kind
        self.help = help
        long = [name for name in names if name.startswith("--")]
        self.dest = dest or (long[0] if long else names[0]).lstrip("-").replace("-", "_")
        self.metavar = metavar or ("" if kind in ("flag", "count") else "VALUE")
        self.convert = convert
        self.default = default
        self.const = const
        self.choices = tuple(choices)

    @property
    def takes_value(self) -> bool:
        return self.kind in ("value", "repeat")

    @property
    def shown(self) -> str:
        """As an error names it: its long form."""
        return next((name for name in self.names if name.startswith("--")), self.names[0])


def flag(*names: str, help: str, dest: str = "") -> Option:
    return Option(names, "flag", help, dest=dest, default=False)


def count(*names: str, help: str, dest: str = "") -> Option:
    return Option(names, "count", help, dest=dest, default=0)


def value(
    *names: str,
    metavar: str,
    help: str,
    convert: Callable[[str], Any] | None = None,
    default: Any = None,
    dest: str = "",
    choices: Sequence[str] = (),
) -> Option:
    return Option(
        names,
        "value",
        help,
        metavar=metavar,
        convert=convert,
        default=default,
        dest=dest,
        choices=choices,
    )


def repeat(
    *names: str,
    metavar: str,
    help: str,
    dest: str = "",
    convert: Callable[[str], Any] | None = None,
) -> Option:
    return Option(names, "repeat", help, metavar=metavar, dest=dest, convert=convert)


def optional(
    *names: str,
    metavar: str,
    help: str,
    const: Any,
    convert: Callable[[str], Any] | None = None,
    default: Any = None,
    dest: str = "",
    choices: Sequence[str] = (),
) -> Option:
    return Option(
        names,
        "optional",
        help,
        metavar=metavar,
        const=const,
        convert=convert,
        default=default,
        dest=dest,
        choices=choices,
    )


HELP = Option(("-h", "--help"), "flag", "Show this help and exit.")


class Arguments:
    """What was given: an attribute for each option's ``dest``, and ``operands``."""

    operands: list[str]

    def __init__(self, values: dict[str, Any], operands: list[str], command: Command) -> None:
        self.__dict__.update(values)
        self.operands = operands
        self.command = command
        self.given: set[str] = set()

    def override(self, later: Arguments) -> None:
        """Take over what was given in ``later``: its values win, lists and counts add up."""
        values = self.__dict__
        # By the names of their values: options may share a list.
        kinds = {option.dest: option.kind for option in self.command.options}
        for dest in later.given:
            new = getattr(later, dest)
            if kinds[dest] == "repeat":
                new = [*(values[dest] or []), *new]
            elif kinds[dest] == "count":
                new += values[dest]
            values[dest] = new
        self.given |= later.given

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the command has no option {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value


class Command:
    """A command (or, with ``subcommands``, a group of them).

    ``operands`` says in the usage line what follows the options. ``posix`` ends the options at
    the first operand; otherwise they may stand anywhere. ``value_status`` is the exit status for a
    value that an option does not take (Flux's submission commands say 1, the others 2).
    """

    def __init__(
        self,
        name: str,
        summary: str,
        options: Iterable[Option] = (),
        *,
        operands: str = "",
        minimum: int = 0,
        maximum: int | None = None,
        description: str = "",
        posix: bool = False,
        value_status: int = 2,
        groups: Iterable[tuple[str, Sequence[Option]]] = (),
        subcommands: Iterable[Command] = (),
        examples: Sequence[tuple[str, str]] = (),
        run: Callable[[Arguments], int] | None = None,
    ) -> None:
        self.name = name
        self.summary = summary
        self.description = description
        self.operands = operands
        self.minimum = minimum
        self.maximum = maximum if operands else 0
        self.posix = posix
        self.value_status = value_status
        self.groups: list[tuple[str, list[Option]]] = []
        plain = list(options)
        if plain:
            self.groups.append(("Options", plain))
        self.groups += [(title, list(group)) for title, group in groups]
        self.subcommands = {command.name: command for command in subcommands}
        self.examples = tuple(examples)
        self.run = run
        self.parent: Command | None = None
        for command in self.subcommands.values():
            command.parent = self

    @property
    def path(self) -> str:
        """As it is typed: ``flux-mpi job attach``."""
        return f"{self.parent.path if self.parent is not None else PROGRAM} {self.name}"

    @property
    def options(self) -> list[Option]:
        return [option for _, group in self.groups for option in group] + [HELP]

    @property
    def usage(self) -> str:
        if self.subcommands:
            return f"{self.path} COMMAND [OPTIONS...]"
        return f"{self.path} [OPTIONS...]{' ' if self.operands else ''}{self.operands}"

    # -- parsing ----------------------------------------------------------------------------------

    def parse(self, words: Sequence[str]) -> Arguments:
        """Raises UsageError, or HelpRequested with the text to print."""
        if self.subcommands:
            return self._choose(words)
        by_name = {name: option for option in self.options for name in option.names}
        values: dict[str, Any] = {
            option.dest: option.default for option in self.options if option is not HELP
        }
        arguments = Arguments(values, [], self)
        given = arguments.given
        operands = arguments.operands
        position, end = 0, len(words)
        while position < end:
            word = words[position]
            position += 1
            if word == "--":
                operands += words[position:]
                break
            if len(word) < 2 or word[0] != "-" or self._is_number(word, by_name):
                operands.append(word)
                if self.posix:
                    operands += words[position:]
                    break
                continue
            if word.startswith("--"):
                name, equals, text = word.partition("=")
                pending = [(self._long(name, by_name), text if equals else None)]
            else:
                pending = self._bundle(word, by_name)
            for option, attached in pending:
                if option is HELP:
                    raise HelpRequested(self.help())
                if option.takes_value and attached is None:
                    if position >= end:
                        self.fail(f"option {option.shown} needs a value ({option.metavar})")
                    attached = words[position]
                    position += 1
                self._set(values, option, attached)
                given.add(option.dest)
        arguments.__dict__.update(values)
        if len(operands) < self.minimum:
            self.fail(f"{self.operands.split()[0].strip('[].')} is missing")
        if self.maximum is not None and len(operands) > self.maximum:
            self.fail(f"unexpected argument {operands[self.maximum]!r}")
        return arguments

    def _choose(self, words: Sequence[str]) -> Arguments:
        if not words:
            self.fail(f"a command is missing: one of {', '.join(self.subcommands)}")
        word = words[0]
        if word in ("-h", "--help", "help"):
            raise HelpRequested(self.help())
        if word not in self.subcommands:
            near = [name for name in self.subcommands if name.startswith(word)]
            if len(near) != 1:
                known = ", ".join(self.subcommands)
                self.fail(f"unknown command {word!r}: expected one of {known}")
            word = near[0]
        return self.subcommands[word].parse(words[1:])

    @staticmethod
    def _is_number(word: str, by_name: dict[str, Option]) -> bool:
        """``-3`` is an operand, unless an option is called so."""
        return word[1:].replace(".", "", 1).isdigit() and word[:2] not in by_name

    def _long(self, name: str, by_name: dict[str, Option]) -> Option:
        if name in by_name:
            return by_name[name]
        near = {by_name[known].shown: by_name[known] for known in by_name if known.startswith(name)}
        if not near:
            self.fail(f"unrecognized option {name}{self._resembling(name, by_name)}")
        if len(near) > 1:
            self.fail(f"option {name} is ambiguous: {', '.join(sorted(near))}")
        return next(iter(near.values()))

    def _bundle(self, word: str, by_name: dict[str, Option]) -> list[tuple[Option, str | None]]:
        """``-abn4`` as its options; the rest after one that takes a value is the value."""
        found: list[tuple[Option, str | None]] = []
        for at in range(1, len(word)):
            option = by_name.get("-" + word[at])
            if option is None:
                self.fail(f"unrecognized option -{word[at]}" + (f" in {word}" if at > 1 else ""))
            rest = word[at + 1 :]
            if option.takes_value:
                found.append((option, (rest[1:] if rest.startswith("=") else rest) or None))
                break
            if option.kind == "optional" and rest:
                found.append((option, rest[1:] if rest.startswith("=") else rest))
                break
            found.append((option, None))
        return found

    def _set(self, values: dict[str, Any], option: Option, text: str | None) -> None:
        dest = option.dest
        if option.kind in ("flag", "count"):
            if text is not None:
                self.fail(f"option {option.shown} takes no value (found {text!r})")
            values[dest] = True if option.kind == "flag" else values[dest] + 1
            return
        if text is None:
            values[dest] = option.const
            return
        if option.choices and text not in option.choices:
            self.fail(
                f"{option.shown}: invalid value {text!r}: expected {' or '.join(option.choices)}",
                self.value_status,
            )
        converted: Any = text
        if option.convert is not None:
            try:
                converted = option.convert(text)
            except ValueError as error:
                self.fail(f"{option.shown}: {error}", self.value_status)
        if option.kind == "repeat":
            values[dest] = [*(values[dest] or []), converted]
        else:
            values[dest] = converted

    @staticmethod
    def _resembling(name: str, by_name: dict[str, Option]) -> str:
        from difflib import get_close_matches

        near = get_close_matches(name, [known for known in by_name if known[:2] == "--"], 2)
        return f" (did you mean {' or '.join(near)}?)" if near else ""

    def fail(self, text: str, status: int = 2) -> NoReturn:
        """Raises UsageError: with the usage line for a malformed command line (status 2)."""
        if status == 2:
            raise UsageError(f"usage: {self.usage}\n{self.path}: error: {text}", 2, text)
        raise UsageError(f"{program(self)}: ERROR: {text}", status, text)

    # -- help -------------------------------------------------------------------------------------

    def help(self) -> str:
        """What ``--help`` prints."""
        lines = [f"Usage: {self.usage}", "", *_fill(self.summary, "")]
        if self.description:
            lines.append("")
            for paragraph in self.description.strip().split("\n\n"):
                lines += _fill(" ".join(paragraph.split()), "")
                lines.append("")
            lines.pop()
        if self.subcommands:
            lines += ["", "Commands:"]
            width = max(map(len, self.subcommands)) + 2
            for name, command in self.subcommands.items():
                lines += _columns(name, command.summary, width + 2)
        for title, group in [*self.groups, ("", [HELP])] if self.groups else [("Options", [HELP])]:
            if title:
                lines += ["", f"{title}:"]
            for option in group:
                lines += _columns(synopsis(option), option.help, 28)
        if self.examples:
            lines += ["", "Examples:"]
            for line, meaning in self.examples:
                lines += [f"  {line}", f"      {meaning}"]
        return "\n".join(lines) + "\n"


def program(command: Command) -> str:
    """Flux's name for who speaks in an error message: ``flux-job``, ``flux-run``."""
    top = command.path.split()
    return f"flux-{top[1] if len(top) > 1 else top[0]}"


def synopsis(option: Option) -> str:
    """``-n, --ntasks=N``."""
    parts = []
    for name in option.names:
        if option.kind in ("flag", "count"):
            parts.append(name)
        elif option.kind == "optional":
            parts.append(f"{name}[={option.metavar}]" if name.startswith("--") else name)
        elif name.startswith("--"):
            parts.append(f"{name}={option.metavar}")
        else:
            parts.append(name if len(option.names) > 1 else f"{name} {option.metavar}")
    # Options without a short form line up with the long forms of the others.
    return ("" if len(option.names[0]) == 2 else "    ") + ", ".join(parts)


def _columns(left: str, right: str, width: int) -> list[str]:
    filled = _fill(right, " " * width)
    if len(left) + 2 >= width:
        return [f"  {left}", *filled]
    return [f"  {left}".ljust(width) + (filled[0][width:] if filled else ""), *filled[1:]]


def _fill(text: str, indent: str, width: int = 80) -> list[str]:
    """Wrapped at ``width``; like textwrap, whose import costs more than the parsing."""
    lines: list[str] = []
    line = indent
    for word in text.split():
        if len(line) > len(indent) and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = indent
        line += word if len(line) == len(indent) else f" {word}"
    if len(line) > len(indent):
        lines.append(line)
    return lines


# -- conversions that many commands use -----------------------------------------------------------


def integer(minimum: int | None = None, maximum: int | None = None) -> Callable[[str], int]:
    """A converter to an int within bounds; its errors say what was found and what is allowed."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError(f"invalid int value {text!r}") from None
        if minimum is not None and number < minimum:
            raise ValueError(f"{number} is not allowed: must be at least {minimum}")
        if maximum is not None and number > maximum:
            raise ValueError(f"{number} is not allowed: must be at most {maximum}")
        return number

    return convert


def number(minimum: float | None = None) -> Callable[[str], float]:
    """A converter to a float."""

    def convert(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            raise ValueError(f"invalid number {text!r}") from None
        if minimum is not None and not found >= minimum:
            raise ValueError(f"{text} is not allowed: must be at least {minimum:g}")
        return found

    return convert


def duration(text: str) -> float:
    """Flux standard duration to seconds."""
    from flux_mpi.formats import duration as fsd

    try:
        return fsd.parse(text)
    except ValueError:
        raise ValueError(
            f"invalid Flux standard duration {text!r}: expected a number with one of s, m, h, d, "
            "or 'inf'"
        ) from None


def idset(text: str) -> Any:
    """An idset such as ``0-3,7``."""
    from flux_mpi.formats.idset import IDSet

    try:
        return IDSet.parse(text)
    except ValueError as error:
        raise ValueError(f"invalid idset {text!r}: {error}") from None


EVENT_FORMATS: tuple[Option, ...] = (
    value(
        "-f",
        "--format",
        metavar="FORMAT",
        default="text",
        choices=("text", "json"),
        help="text or json.",
    ),
    value(
        "-T",
        "--time-format",
        metavar="FORMAT",
        default="raw",
        choices=("raw", "iso", "offset", "human"),
        help="raw, iso, offset or human.",
    ),
)
"""How every command that prints an event log lets one choose its form."""
