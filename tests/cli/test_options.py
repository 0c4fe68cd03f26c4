"""Command lines as tables: what is accepted, what is refused and how, what help says."""

from __future__ import annotations

import subprocess

import pytest

from flux_mpi.cli import commands, completion
from flux_mpi.cli.options import (
    Arguments,
    Command,
    HelpRequested,
    UsageError,
    count,
    flag,
    integer,
    number,
    optional,
    repeat,
    value,
)

COMMAND = Command(
    "demo",
    "Do what is asked.",
    (
        flag("-a", "--all", help="Everything."),
        flag("--alike", help="Alike."),
        count("-v", "--verbose", help="Say more."),
        value("-n", "--ntasks", metavar="N", convert=integer(1, 9), help="Tasks."),
        value("--color-mode", metavar="WHEN", choices=("on", "off"), help="Colours."),
        repeat("-o", "--setopt", metavar="KEY", help="Options."),
        optional("-w", "--width", metavar="N", const=0, default=-1, convert=integer(), help="W."),
    ),
    operands="COMMAND [ARGS...]",
    posix=True,
)


def parse(*words: str) -> Arguments:
    return COMMAND.parse(words)


def test_defaults_and_every_way_to_give_a_value() -> None:
    args = parse()
    assert (args.all, args.verbose, args.ntasks, args.setopt, args.width) == (
        False,
        0,
        None,
        None,
        -1,
    )
    for words in (("-n4",), ("-n", "4"), ("-n=4",), ("--ntasks=4",), ("--ntasks", "4")):
        assert parse(*words).ntasks == 4
    args = parse("-avv", "-o", "x", "-oy=1", "--setopt=z", "-an3")
    assert (args.all, args.verbose, args.setopt, args.ntasks) == (True, 2, ["x", "y=1", "z"], 3)
    assert args.given == {"all", "verbose", "setopt", "ntasks"}


def test_optional_values() -> None:
    assert parse("-w").width == 0
    assert parse("--width").width == 0
    assert parse("--width=5").width == 5
    assert parse("-w7").width == 7
    args = parse("-w", "7")
    assert (args.width, args.operands) == (0, ["7"])


def test_options_end_at_the_first_operand() -> None:
    args = parse("-a", "cmd", "-n", "x", "--all")
    assert (args.all, args.ntasks, args.operands) == (True, None, ["cmd", "-n", "x", "--all"])
    assert parse("-a", "--", "-n", "x").operands == ["-n", "x"]
    assert parse("cmd", "--", "x").operands == ["cmd", "--", "x"]
    assert parse("-").operands == ["-"]


def test_elsewhere_options_may_follow_operands() -> None:
    command = Command("demo", "", (flag("-a", help=""),), operands="[X...]")
    args = command.parse(["one", "-a", "two", "-3"])
    assert (args.a, args.operands) == (True, ["one", "two", "-3"])


def test_unambiguous_prefixes_are_enough() -> None:
    assert parse("--nt=2").ntasks == 2
    assert parse("--col=on").color_mode == "on"
    assert parse("--all").all is True, "an exact name is not ambiguous"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--nosuch"], "unrecognized option --nosuch"),
        (["--setopts=1"], "did you mean --setopt?"),
        (["-z"], "unrecognized option -z"),
        (["-az"], "unrecognized option -z in -az"),
        (["--al"], "option --al is ambiguous: --alike, --all"),
        (["-n"], "option --ntasks needs a value (N)"),
        (["--ntasks"], "option --ntasks needs a value (N)"),
        (["--all=1"], "option --all takes no value (found '1')"),
        (["-n", "x"], "--ntasks: invalid int value 'x'"),
        (["-n", "0"], "--ntasks: 0 is not allowed: must be at least 1"),
        (["-n", "10"], "--ntasks: 10 is not allowed: must be at most 9"),
        (["--color-mode=x"], "--color-mode: invalid value 'x': expected on or off"),
    ],
)
def test_errors_name_the_option_what_was_found_and_what_is_allowed(
    words: list[str], text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*words)
    assert text in str(caught.value)
    assert str(caught.value).startswith("usage: flux-mpi demo [OPTIONS...] COMMAND [ARGS...]\n")
    assert caught.value.status == 2


def test_value_errors_of_submission_commands_exit_1() -> None:
    command = Command(
        "run", "", (value("-n", metavar="N", convert=number(), help=""),), value_status=1
    )
    with pytest.raises(UsageError, match=r"^flux-run: ERROR: -n: invalid number 'x'$") as caught:
        command.parse(["-n", "x"])
    assert caught.value.status == 1


def test_the_number_of_operands_is_checked() -> None:
    command = Command("demo", "", operands="ID [N]", minimum=1, maximum=2)
    assert command.parse(["1", "2"]).operands == ["1", "2"]
    with pytest.raises(UsageError, match="ID is missing"):
        command.parse([])
    with pytest.raises(UsageError, match="unexpected argument '3'"):
        command.parse(["1", "2", "3"])
    with pytest.raises(UsageError, match="unexpected argument 'x'"):
        Command("demo", "").parse(["x"])


def test_subcommands() -> None:
    group = Command(
        "group", "", subcommands=(Command("list", ""), Command("live", ""), Command("put", ""))
    )
    assert group.parse(["list"]).command.path == "flux-mpi group list"
    assert group.parse(["p"]).command.name == "put"
    for words in ([], ["x"], ["li"]):
        with pytest.raises(UsageError, match="list, live, put"):
            group.parse(words)


def test_help() -> None:
    with pytest.raises(HelpRequested) as caught:
        parse("-a", "--help")
    text = str(caught.value)
    assert "Usage: flux-mpi demo [OPTIONS...] COMMAND [ARGS...]" in text
    assert "  -n, --ntasks=N" in text
    assert "  -w, --width[=N]" in text
    assert "      --alike " in text
    assert max(map(len, text.splitlines())) <= 80


# -- the real commands -----------------------------------------------------------------------------


def all_commands() -> list[tuple[str, Command]]:
    return [(" ".join(words), command) for words, command in completion.walk()]


@pytest.mark.parametrize(
    ("name", "command"), all_commands(), ids=lambda x: x if type(x) is str else ""
)
def test_every_command_is_sound(name: str, command: Command) -> None:
    seen: set[str] = set()
    for option in command.options:
        for one in option.names:
            assert one not in seen, f"{one} is there twice"
            seen.add(one)
        assert option.help.endswith("."), f"{option.names}: help is a sentence"
        if option.default is not None and option.choices:
            assert option.default in option.choices
    assert command.summary.endswith(".")
    assert max(map(len, command.help().splitlines()), default=0) <= 88
    assert command.path == f"flux-mpi {name}"
    if not command.subcommands and name != "start":
        assert command.run is not None


def test_every_command_of_the_overview_exists() -> None:
    for name in commands.names():
        assert commands.load(name).name == name


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flux-mpi sub", "submit"),
        ("flux-mpi job wai", "wait wait-event"),
        ("flux-mpi kvs namespace cr", "create"),
        ("flux-mpi submit --cc=1-2 --urg", "--urgency="),
        ("flux-mpi jobs -a --stats", "--stats --stats-only"),
    ],
)
def test_bash_completion(line: str, expected: str) -> None:
    words = line.split(" ")
    script = (
        f"{completion.bash()}\nCOMP_WORDS=({' '.join(words)})\nCOMP_CWORD={len(words) - 1}\n"
        # compopt works only while completing.
        "compopt() { :; }\n_flux_mpi\necho ${COMPREPLY[@]}\n"
    )
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30)
    assert found.stdout.strip() == expected, found.stderr


def test_fish_and_zsh_completion_name_every_command() -> None:
    fish, zsh = completion.fish(), completion.zsh()
    for name in commands.names():
        assert f"-a {name} " in fish
        assert f'"{name}") words=' in zsh
