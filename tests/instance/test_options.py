"""What ``flux-mpi start`` is told: options, configuration, and the traces of a launcher."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.instance import config, launcher
from flux_mpi.instance.config import ConfigError
from flux_mpi.instance.options import TABLE, UsageError, help_text, parse

# -- options ------------------------------------------------------------------------------------


def test_all_options_are_understood():
    options = parse(
        ["-S", "a=1", "--setattr=b=x=y", "--conf", "k.l=2", "--conf=f.toml", "--fanout", "4",
         "--cores-per-rank=2", "--gpus-per-rank", "0", "--statedir", "/s", "-vv", "-v",
         "cmd", "-v", "--help"]
    )  # fmt: skip
    assert options.setattr == {"a": "1", "b": "x=y"}
    assert options.conf == ["k.l=2", "f.toml"]
    assert (options.fanout, options.cores_per_rank, options.gpus_per_rank) == (4, 2, 0)
    assert (options.statedir, options.verbose, options.help) == ("/s", 3, False)
    assert options.command == ["cmd", "-v", "--help"]
    assert options.resources_emulated


def test_nothing_is_fine():
    options = parse([])
    assert (options.command, options.conf, options.fanout) == ([], [], None)
    assert not options.resources_emulated


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["--", "-x"], ["-x"]),
        (["-v", "--", "--", "x"], ["--", "x"]),
        (["-"], ["-"]),
        (["sh", "--", "-c"], ["sh", "--", "-c"]),
    ],
)
def test_the_command_begins_at_the_first_other_word(words, command):
    assert parse(words).command == command


@pytest.mark.parametrize(
    ("words", "attribute", "value"),
    [
        (["--fan=3"], "fanout", 3),
        (["--verb"], "verbose", 1),
        (["--core", "3"], "cores_per_rank", 3),
        (["-s3"], "test_size", 3),
        (["-s", "3"], "test_size", 3),
        (["-s=3"], "test_size", 3),
        (["--test-size=3"], "test_size", 3),
        (["-vS", "a=b"], "setattr", {"a": "b"}),
        (["-vvh"], "help", True),
    ],
)
def test_spellings(words, attribute, value):
    assert getattr(parse(words), attribute) == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nix"], "unrecognized option --nix"),
        (["-x"], "unrecognized option -x"),
        (["-vx"], "unrecognized option -x"),
        (["--=3"], "unrecognized option --"),
        (["--s=3"], "option --s is ambiguous: --setattr, --statedir"),
        (["--fanout"], "option --fanout needs a value"),
        (["-S"], "option -S needs a value"),
        (["--verbose=3"], "option --verbose takes no value, found '3'"),
        (["--fanout=0"], "--fanout: an integer of at least 1 is required, found '0'"),
        (["--fanout=x"], "found 'x'"),
        (["--fanout=²"], "found '²'"),
        (["--gpus-per-rank=-1"], "--gpus-per-rank: an integer of at least 0"),
        (["-s", "99999999999"], "--test-size"),
        (["-S", "novalue"], "--setattr: NAME=VALUE is required, found 'novalue'"),
        (["-S", "=x"], "--setattr"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert message in str(caught.value)


def test_the_launching_process_passes_on_all_but_the_size():
    words = ["-v", "-s", "3", "--conf", "a=1", "--test-size=4", "--test-s", "5", "-S", "x=y", "cmd"]
    options = parse(words)
    assert options.forwarded == ["--verbose", "--conf=a=1", "--setattr=x=y"]
    assert options.test_size == 5
    again = parse([*options.forwarded, "--", *options.command])
    assert (again.test_size, again.command) == (None, ["cmd"])


def test_a_size_among_other_letters_is_not_passed_on():
    options = parse(["-vs3", "cmd"])
    assert (options.verbose, options.test_size) == (1, 3)
    assert parse([*options.forwarded, "--", *options.command]).test_size is None


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_words_are_read_or_refused(words):
    try:
        options = parse(words)
    except UsageError:
        assert any(word.startswith("-") for word in words)
        return
    assert options.command == words[len(words) - len(options.command) :]
    again = parse([*options.forwarded, "--", *options.command])
    assert (again.command, again.conf, again.setattr) == (
        options.command, options.conf, options.setattr,
    )  # fmt: skip


def test_the_help_names_every_option():
    text = help_text()
    assert all(f"--{name}" in text for name, _, _, what in TABLE if what)
    assert "--ensemble" not in text  # said by one instance to another
    assert max(map(len, text.splitlines())) <= 100


# -- configuration ------------------------------------------------------------------------------


def test_words_and_files_are_merged_in_order(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[queue]\npolicy = 'fcfs'\ndepth = 3\n[x]\ny = 1\n")
    loaded = config.load(["queue.policy=easy", str(path), "queue.depth=5", "x.z=[1, 2]"])
    assert loaded == {"queue": {"policy": "fcfs", "depth": 5}, "x": {"y": 1, "z": [1, 2]}}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("k=1", 1), ("k=1.5", 1.5), ("k=true", True), ("k='x'", "x"), ("k=bare word", "bare word"),
        ("k=", ""), ("k=a=b", "a=b"), ("k={a=1}", {"a": 1}), ("k=1\nj=2", "1\nj=2"),
    ],
)  # fmt: skip
def test_values_are_toml_or_bare_text(word, value):
    assert config.load([word]) == {"k": value}


def test_what_cannot_be_read_is_named(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("a = = 1")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for words, message in (
        ([str(tmp_path / "none.toml")], "No such file or directory"),
        ([str(tmp_path)], "Is a directory"),
        ([str(broken)], "not TOML"),
        ([str(binary)], "not TOML"),
        (["a..b=1"], "no key"),
        (["=1"], "no key"),
        (["a=1", "a.b=2"], "a is set to a value already, not a table"),
    ):
        with pytest.raises(ConfigError, match=message):
            config.load(words)
    table = tmp_path / "table.toml"
    table.write_text("[a.b]\nc = 1\n")
    with pytest.raises(ConfigError, match=r"a\.b is both a value and a table"):
        config.load(["a.b=1", str(table)])


def test_values_have_the_type_of_their_default():
    loaded = {"a": {"n": 3, "f": 1.5, "t": "x", "b": True}}
    assert config.get(loaded, "a.n", 1) == 3
    assert config.get(loaded, "a.n", 1.0) == 3
    assert config.get(loaded, "a.f", 1.0) == 1.5
    assert config.get(loaded, "a.b", False) is True
    assert config.get(loaded, "a.missing", "default") == "default"
    assert config.get(loaded, "a.n.deeper", 7) == 7
    assert config.get(loaded, "a.t", None) == "x"
    for key, default in (("a.f", 1), ("a.t", 1), ("a.b", 1), ("a.n", True), ("a", 1), ("a.n", "")):
        with pytest.raises(ConfigError, match=f"--conf: {key}: .* is required, found"):
            config.get(loaded, key, default)


# -- launchers ----------------------------------------------------------------------------------

STEP = {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("environ", "launch"),
    [
        ({}, (None, 0, 1)),
        ({"PMI_RANK": "3", "PMI_SIZE": "8"}, ("pmi", 3, 8)),
        ({"PMI_RANK": "3"}, (None, 0, 1)),
        ({"PMI_RANK": "x", "PMI_SIZE": "8"}, (None, 0, 1)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, ("ompi", 1, 2)),
        ({"PMIX_RANK": "1"}, ("pmix", 1, 2)),
        ({"PMIX_RANK": "1", "PMIX_SIZE": "4"}, ("pmix", 1, 4)),
        (STEP, ("slurm", 2, 4)),
        ({**STEP, "PMI_RANK": "2", "PMI_SIZE": "4"}, ("pmi", 2, 4)),
        ({**STEP, "SLURM_STEP_ID": "4294967291"}, (None, 0, 1)),  # a batch script
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (None, 0, 1)),  # salloc's shell
    ],
)
def test_the_launcher_is_known_by_its_traces(environ, launch):
    found = launcher.detect(environ)
    assert (found.launcher, found.rank, found.size) == launch


def test_a_launcher_of_another_mpi_is_told():
    assert launcher.singleton_trap(launcher.Launch("pmi", 0, 4), 4) is None
    assert launcher.singleton_trap(launcher.Launch(None, 0, 1), 1) is None
    assert launcher.singleton_trap(launcher.Launch("pmix", 0, 2), 1) is None
    told = launcher.singleton_trap(launcher.Launch("slurm", 0, 4), 1)
    assert told is not None
    assert "srun --mpi=pmi2" in told
    told = launcher.singleton_trap(launcher.Launch("ompi", 0, 4), 1)
    assert told is not None
    assert "started 4 ranks but MPI sees 1" in told


def test_the_mpiexec_beside_this_python_comes_first(tmp_path, monkeypatch):
    here, there = tmp_path / "venv", tmp_path / "path"
    for folder in (here, there):
        folder.mkdir()
        (folder / "mpiexec").write_text("#!/bin/sh\n")
        (folder / "mpiexec").chmod(0o755)
    monkeypatch.setattr("sys.executable", str(here / "python"))
    monkeypatch.setenv("PATH", str(there))
    assert launcher.find_mpiexec() == str(here / "mpiexec")
    (here / "mpiexec").chmod(0o644)
    assert launcher.find_mpiexec() == str(there / "mpiexec")
    (there / "mpiexec").unlink()
    assert launcher.find_mpiexec() is None


@pytest.mark.parametrize(
    ("name", "beside", "open_mpi"),
    [
        ("mpiexec", [], False),
        ("mpiexec", ["ompi_info"], True),
        ("mpiexec.hydra", ["ompi_info"], False),
        ("mpiexec.openmpi", [], True),
        ("prterun", [], True),
    ],
)
def test_open_mpi_is_known_and_told_to_go_on_without_a_killed_rank(
    tmp_path, name, beside, open_mpi
):
    for file in (name, *beside):
        (tmp_path / file).touch()
    link = tmp_path / "bin" / "mpiexec"
    link.parent.mkdir()
    link.symlink_to(tmp_path / name)
    assert launcher.is_open_mpi(str(link)) is open_mpi
    assert ("--continuous" in launcher.mpiexec_command(str(link), 3, [])) is open_mpi


def test_the_command_of_a_test_instance_starts_this_very_package():
    command = launcher.mpiexec_command("/x/mpiexec", 3, ["-v", "--", "true"])
    assert command[:3] == ["/x/mpiexec", "-n", "3"]
    assert command[-6:] == ["-m", "flux_mpi", "start", "-v", "--", "true"]
