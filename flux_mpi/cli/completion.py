"""``flux-mpi completion``: a completion script for a shell, made from the commands' parsers."""

from __future__ import annotations

import sys

from flux_mpi.cli.commands import SECTIONS, load, names
from flux_mpi.cli.options import Arguments, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")


def walk() -> Iterator[tuple[tuple[str, ...], Command]]:
    """Every command and subcommand with the words that lead to it."""
    todo: list[tuple[tuple[str, ...], Command]] = [((name,), load(name)) for name in names()]
    while todo:
        words, command = todo.pop(0)
        yield words, command
        todo += [((*words, name), sub) for name, sub in command.subcommands.items()]


def words_after(command: Command) -> list[str]:
    """What may come next: subcommands, or options (with = when they take a value)."""
    if command.subcommands:
        return [*command.subcommands, "--help"]
    found = []
    for option in command.options:
        for name in option.names:
            long = name.startswith("--")
            found.append(f"{name}=" if long and option.takes_value else name)
    return found


def bash() -> str:
    """For ``source <(flux-mpi completion bash)``."""
    cases = []
    for words, command in walk():
        cases.append(f'        "{" ".join(words)}") words="{" ".join(words_after(command))}" ;;')
    groups = " ".join(
        " ".join(words).replace(" ", ":") for words, command in walk() if command.subcommands
    )
    table = "\n".join(cases)
    return f"""\
# bash completion for flux-mpi; use: source <(flux-mpi completion bash)
_flux_mpi() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" path="" words="" i groups=" {groups} "
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${{COMP_WORDS[i]}}" in
        -*) ;;
        *)
            if [[ -z "$path" ]]; then path="${{COMP_WORDS[i]}}"
            elif [[ "$groups" == *" ${{path// /:}} "* ]]; then path="$path ${{COMP_WORDS[i]}}"
            fi ;;
        esac
    done
    case "$path" in
        "") words="{" ".join(names())}" ;;
{table}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    if [[ ${{#COMPREPLY[@]}} -eq 1 && "${{COMPREPLY[0]}}" == *= ]]; then compopt -o nospace; fi
    if [[ ${{#COMPREPLY[@]}} -eq 0 ]]; then compopt -o default; fi
}}
complete -F _flux_mpi flux-mpi
"""


def zsh() -> str:
    """For ``source <(flux-mpi completion zsh)``: zsh runs bash's."""
    return "autoload -Uz bashcompinit && bashcompinit\n" + bash()


def fish() -> str:
    """For ``flux-mpi completion fish | source``."""
    lines = ["# fish completion for flux-mpi; use: flux-mpi completion fish | source"]
    for _, commands in SECTIONS:
        for name, meaning in commands:
            lines.append(
                f"complete -c flux-mpi -f -n __fish_use_subcommand -a {name} -d {_quote(meaning)}"
            )
    for words, command in walk():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in words)
        for name, sub in command.subcommands.items():
            lines.append(f"complete -c flux-mpi -f -n '{seen}' -a {name} -d {_quote(sub.summary)}")
        if command.subcommands:
            continue
        for option in command.options:
            parts = [f"complete -c flux-mpi -n '{seen}'"]
            for name in option.names:
                parts.append(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}")
            if option.takes_value:
                parts.append("-r")
            if option.choices:
                parts.append(f"-f -a {_quote(' '.join(option.choices))}")
            parts.append(f"-d {_quote(option.help)}")
            lines.append(" ".join(parts))
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def run(args: Arguments) -> int:
    shell = args.operands[0]
    if shell not in SHELLS:
        args.command.fail(f"unknown shell {shell!r}: expected {', '.join(SHELLS)}")
    sys.stdout.write({"bash": bash, "zsh": zsh, "fish": fish}[shell]())
    return 0


COMMAND = Command(
    "completion",
    "Print a completion script for a shell.",
    operands="bash|zsh|fish",
    minimum=1,
    maximum=1,
    examples=(("source <(flux-mpi completion bash)", "In ~/.bashrc."),),
    run=run,
)
