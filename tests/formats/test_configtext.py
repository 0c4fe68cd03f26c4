"""Configuration text: what it is read as, and what is refused."""

from __future__ import annotations

import pytest

from flux_mpi.formats import configtext
from flux_mpi.formats.configtext import ConfigError


def test_documents() -> None:
    assert configtext.parse_toml("[a]\nb = 1\r\n") == {"a": {"b": 1}}
    assert configtext.parse_toml(b"a = '\xc3\xa9'") == {"a": "é"}
    assert configtext.parse_json('{"a": {"b": [1]}}') == {"a": {"b": [1]}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = = 1", "not TOML: .*line 1"),
        (b"\xff", "not TOML: .*utf-8"),
        ("a = " + "[" * 5000 + "]" * 5000, "not TOML: nested too deeply"),
    ],
)
def test_what_is_no_toml(text: str | bytes, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        configtext.parse_toml(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": }', "not JSON: .*line 1"),
        (b"\xff\xff", "not JSON"),
        ("[1]", "expected a JSON object, found a list"),
        ("[" * 100_000, "not JSON: nested too deeply"),
    ],
)
def test_what_is_no_json(text: str | bytes, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        configtext.parse_json(text)


def test_values() -> None:
    assert [configtext.value(text) for text in ("1", "'x'", "easy", "1\nj = 2", "{a = 1}")] == [
        1,
        "x",
        "easy",
        "1\nj = 2",
        {"a": 1},
    ]


def test_keys_and_tables() -> None:
    config = {"a": {"b": 1, "c": {"d": 2}}}
    configtext.set_key(config, "a.c.e", 3)
    configtext.merge(config, {"a": {"b": 4}, "f": {}})
    assert config == {"a": {"b": 4, "c": {"d": 2, "e": 3}}, "f": {}}
    with pytest.raises(ConfigError, match=r"a\.b\.c: b is set to a value already"):
        configtext.set_key(config, "a.b.c", 1)
    with pytest.raises(ConfigError, match=r"a\.b is both a value and a table"):
        configtext.merge(config, {"a": {"b": {"c": 1}}})
    with pytest.raises(ConfigError, match=r"'a\.\.b' is no key"):
        configtext.set_key(config, "a..b", 1)
