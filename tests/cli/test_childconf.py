"""``--conf`` and ``--add-file``: every form, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flux_mpi.cli.childconf import combine, parse, parse_file


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ('resource.exclude="0"', {"resource": {"exclude": "0"}}),
        ("a.b=1", {"a": {"b": 1}}),
        ("a=true", {"a": True}),
        ("a=null", {"a": None}),
        ('a={"b": [1, 2]}', {"a": {"b": [1, 2]}}),
        ("a={b = 1}", {"a": {"b": 1}}),
        ("a='x'", {"a": "x"}),
        ("sched.queue-policy=easy", {"sched": {"queue-policy": "easy"}}),
        ("a=b=c", {"a": "b=c"}),
        ("a=/x/y.toml", {"a": "/x/y.toml"}),
        ("a=", {"a": ""}),
        ('[resource]\nexclude = "0"\n', {"resource": {"exclude": "0"}}),
        ('\n {"a":\n {"b": 1}}', {"a": {"b": 1}}),
        ("a = 1\n", {"a": 1}),
    ],
)
def test_words_and_documents(text: str, config: dict[str, Any]) -> None:
    assert parse(text) == config


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text("[a]\nb = 1\n")
    (tmp_path / "a.json").write_text('{"a": {"b": 2}}')
    (tmp_path / "plain").write_text("a = 3\n")
    assert parse("a.toml") == {"a": {"b": 1}}
    assert parse("a.json") == {"a": {"b": 2}}
    assert parse("./plain") == {"a": 3}
    assert parse(f"{tmp_path}/a.toml") == {"a": {"b": 1}}


def test_names(tmp_path: Path) -> None:
    def put(folder: str, name: str, text: str) -> None:
        (tmp_path / folder / "config").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "config" / name).write_text(text)

    environ = {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": f"{tmp_path}/one:{tmp_path}/two"}
    put("two/flux", "x.json", '{"from": "two"}')
    assert parse("x", environ) == {"from": "two"}
    put("one/flux", "x.toml", "from = 'one'")
    assert parse("x", environ) == {"from": "one"}
    put(".config/flux", "x.toml", "from = 'home'")
    assert parse("x", environ) == {"from": "home"}
    put(".config/flux-mpi", "x.toml", "from = 'ours'")
    assert parse("x", environ) == {"from": "ours"}
    put("xdg/flux", "x.toml", "from = 'xdg'")
    assert parse("x", {**environ, "XDG_CONFIG_HOME": f"{tmp_path}/xdg"}) == {"from": "xdg"}
    with pytest.raises(ValueError, match=r"'y' is neither KEY=VAL nor .*/two/flux/config"):
        parse("y", environ)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("/no/such.toml", "/no/such.toml: No such file or directory"),
        ("/", "/: Is a directory"),
        ("a..b=1", "'a..b' is no key"),
        ("=1", "'' is no key"),
        ("[a\nb = 1\n", "not TOML: .*line 1"),
        ('{"a":\n}', "not JSON: .*line 2"),
        ("a = 1979-05-27\nb = 2\n", "a: a date is not allowed: write dates and times in quotes"),
        ("[a]\nb = [1, inf]\n", r"a\.b\[1\]: inf is not allowed"),
        ("a=NaN", "a: nan is not allowed"),
    ],
)
def test_what_is_no_configuration(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(text)


def test_a_file_of_a_wrong_kind_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "b.toml"
    broken.write_text("a = = 1")
    with pytest.raises(ValueError, match=r"b\.toml: not TOML: .*line 1"):
        parse(str(broken))
    (tmp_path / "b.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"b\.json: expected a JSON object, found a list"):
        parse(f"{tmp_path}/b.json")
    (tmp_path / "huge.toml").write_bytes(b"#" * (9 << 20))
    with pytest.raises(ValueError, match=r"huge\.toml: 9\.0 MiB is too large"):
        parse(f"{tmp_path}/huge.toml")


def test_later_ones_win() -> None:
    assert combine([]) is None
    assert combine(None) is None
    assert combine([{"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}]) == {"a": {"b": 3, "c": 2}}
    with pytest.raises(ValueError, match="a is both a value and a table"):
        combine([{"a": 1}, {"a": {"b": 2}}])


# -- --add-file ------------------------------------------------------------------------------------


def test_added_files(tmp_path: Path) -> None:
    path = tmp_path / "in.dat"
    path.write_bytes(b"\x00\xff")
    binary = {"mode": 33152, "size": 2, "encoding": "base64", "data": "AP8="}
    assert parse_file(str(path)) == ("in.dat", binary)
    assert parse_file(f"x={path}") == ("x", binary)
    assert parse_file(f"x:755={path}") == ("x", {**binary, "mode": 0o100755})
    text = {"mode": 0o100644, "size": 6, "encoding": "utf-8", "data": "a=b\nc\n"}
    assert parse_file("x:0644=a=b\nc\n") == ("x", text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("/no/such", "/no/such: No such file"),
        ("x=/no/such", "/no/such: No such file"),
        ("/", "invalid name ''"),
        ("a/b=/etc/passwd", "invalid name 'a/b'"),
        ("..=/etc/passwd", r"invalid name '\.\.'"),
        ("=a\nb", "invalid name ''"),
        ("x:8=a\nb", "invalid permissions '8' of x"),
        ("x:=a\nb", "invalid permissions ''"),
        ("x:77777=a\nb", "invalid permissions '77777'"),
        ("script=a\nb", "'script' is reserved"),
        ("conf.json=a\nb", r"'conf\.json' is reserved"),
        ("x=" + "a\n" * (5 << 20), r"x: 10\.0 MiB is too large"),
    ],
)
def test_files_that_cannot_be_added(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_file(text)
