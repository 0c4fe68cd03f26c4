"""Requests as Fluxion's libjobspec reads them, in YAML and JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flux_mpi.formats.request import (
    MAX_RESOURCES,
    UNBOUNDED,
    MatchJobspec,
    Request,
    RequestError,
    parse_request,
)

YAML = """
version: 9999
resources:
  - type: node
    count: 2
    exclusive: true
    with:
      - {type: slot, count: 1, label: default, with: [{type: core, count: 0x10, unit: "", id: 3}]}
attributes:
  system:
    duration: 1.5e3
    queue: batch
    constraints: {and: [{properties: ["fast", "^old"]}, {hostlist: ["n[1-3]"]}, {ranks: [0-3]}]}
    whatever: [1, 2]
tasks:
  - {command: [app, -v], slot: default, count: {per_slot: 1}}
"""


def spec(resources: Any, **system: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "resources": resources,
        "attributes": {"system": system},
        "tasks": [{"command": ["a"], "slot": "s", "count": {"per_slot": 1}}],
    }


def core(count: Any = 1, **keys: Any) -> dict[str, Any]:
    return {"type": "core", "count": count, **keys}


def parse(resources: Any, **system: Any) -> MatchJobspec:
    """The same from JSON and from YAML, which must agree."""
    text = json.dumps(spec(resources, **system))
    job = parse_request(text)
    assert parse_request(" " + text) == job
    return job


def refused(resources: Any, **system: Any) -> str:
    text = json.dumps(spec(resources, **system))
    with pytest.raises(RequestError) as json_error:
        parse_request(text)
    with pytest.raises(RequestError) as yaml_error:
        parse_request(" " + text)
    assert yaml_error.value.field == json_error.value.field
    assert "\n" not in str(json_error.value) + str(yaml_error.value)
    return str(json_error.value)


def test_yaml() -> None:
    core_16 = Request("core", 16, 16, id="3")
    slot = Request("slot", label="default", children=[core_16])
    assert parse_request(YAML) == MatchJobspec(
        [Request("node", 2, 2, exclusive=True, children=[slot])],
        1500.0,
        "batch",
        {"and": [{"properties": ["fast", "^old"]}, {"hostlist": ["n[1-3]"]}, {"ranks": ["0-3"]}]},
    )


def test_strings_of_a_request_are_plain() -> None:
    job = parse_request(YAML)
    assert job.constraint is not None
    assert {type(job.resources[0].type), type(job.queue)} == {str}
    assert type(job.constraint["and"][1]["hostlist"][0]) is str


def test_defaults() -> None:
    job = parse([core()])
    assert job == MatchJobspec([Request("core", 1, 1, "+", 1, None, "", "", "", [])], 0.0, "", None)


@pytest.mark.parametrize(
    ("count", "bounds"),
    [
        (1, (1, 1, "+", 1)),
        (UNBOUNDED, (UNBOUNDED, UNBOUNDED, "+", 1)),
        ("4", (4, 4, "+", 1)),
        ("0x1F", (31, 31, "+", 1)),
        ("010", (8, 8, "+", 1)),
        ({"min": 3}, (3, UNBOUNDED, "+", 1)),
        ({"min": 2, "max": 9, "operator": "*", "operand": 2}, (2, 9, "*", 2)),
        ({"min": 2, "max": 9, "operator": "^", "operand": 2}, (2, 9, "^", 2)),
        ({"min": 1, "max": 1, "operator": "+", "operand": 1, "more": 0}, (1, 1, "+", 1)),
    ],
)
def test_counts(count: Any, bounds: tuple[int, int, str, int]) -> None:
    (request,) = parse([core(count)]).resources
    assert (request.min, request.max, request.operator, request.operand) == bounds


@pytest.mark.parametrize(
    "count",
    [0, -1, 1 << 32, 1 << 63, 1.0, True, None, [], "", "2-4", "3+", "08", "1_0", "-1", "9" * 5000],
)
def test_counts_that_are_none(count: Any) -> None:
    message = refused([core(count)])
    assert message.startswith("jobspec: resources[0].count: expected ")
    assert len(message) < 200


@pytest.mark.parametrize(
    ("count", "field"),
    [
        ({}, ".min"),
        ({"max": 3}, ".min"),
        ({"min": 0}, ".min"),
        ({"min": -1}, ".min"),
        ({"min": 1 << 63}, ".min"),
        ({"min": 1, "max": 2}, ""),
        ({"min": 1, "operator": "+"}, ""),
        ({"min": 3, "max": 2, "operator": "+", "operand": 1}, ".max"),
        ({"min": 3, "max": 4, "operator": "-", "operand": 1}, ".operator"),
        ({"min": 3, "max": 4, "operator": "+", "operand": 0}, ".operand"),
        ({"min": 3, "max": 4, "operator": "*", "operand": 1}, ".operand"),
        ({"min": 3, "max": 4, "operator": "+", "operand": 1 << 31}, ".operand"),
        ({"min": 1, "max": 4, "operator": "^", "operand": 2}, ".min"),
    ],
)
def test_ranges_that_are_none(count: Any, field: str) -> None:
    assert refused([core(count)]).startswith(f"jobspec: resources[0].count{field}: expected ")


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        ([], "resources: expected at least one"),
        ({}, "resources: expected a list"),
        ([1], "resources[0]: expected a mapping"),
        ([{"count": 1}], "resources[0].type"),
        ([{"type": "core"}], "resources[0].count"),
        ([core(colour="red")], "resources[0].colour"),
        ([{"type": "slot", "count": 1}], "resources[0].label"),
        ([core(exclusive="yes")], "resources[0].exclusive"),
        ([core(exclusive=1)], "resources[0].exclusive"),
        ([core(label=None)], "resources[0].label"),
        ([core(unit=[])], "resources[0].unit"),
        ([core(**{"with": None})], "resources[0].with"),
        ([core(**{"with": [core(), core(0)]})], "resources[0].with[1].count"),
    ],
)
def test_resources_that_are_none(resources: Any, problem: str) -> None:
    assert f"jobspec: {problem}" in refused(resources)


def test_a_type_that_the_graph_does_not_have() -> None:
    text = json.dumps(spec([core()]))
    assert parse_request(text, lambda name: name == "core")
    with pytest.raises(RequestError, match=r"resources\[0\].type: .* found 'core'"):
        parse_request(text, lambda name: name == "node")


def test_exclusive_by_its_text() -> None:
    assert parse([core(exclusive="false")]).resources[0].exclusive is False
    assert parse([core(exclusive=True)]).resources[0].exclusive is True
    with pytest.raises(RequestError, match=r"resources\[0\].exclusive"):
        parse_request(YAML.replace("exclusive: true", "exclusive: True"))


@pytest.mark.parametrize("duration", [0, 1, 0.5, "60", "1e3", 10**15])
def test_durations(duration: Any) -> None:
    assert parse([core()], duration=duration).duration == float(duration)


@pytest.mark.parametrize("duration", [-1, "1h", "", True, None, [], 1e300, 10**400, "nan", ".inf"])
def test_durations_that_are_none(duration: Any) -> None:
    assert "attributes.system.duration" in refused([core()], duration=duration)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_words_that_only_python_calls_json(word: str) -> None:
    text = json.dumps(spec([core()], duration=0)).replace('"duration": 0', f'"duration": {word}')
    with pytest.raises(RequestError, match="duration"):
        parse_request(text)


@pytest.mark.parametrize(
    ("constraint", "problem"),
    [
        ([], "constraints: expected a mapping"),
        ({"and": [], "or": []}, "constraints: expected one operator"),
        ({"colour": []}, "constraints.colour: expected properties"),
        ({"properties": "a"}, "constraints.properties: expected a list"),
        ({"properties": [1]}, "constraints.properties[0]"),
        ({"properties": ["a|b"]}, "constraints.properties[0]"),
        ({"hostlist": ["n[1-"]}, "constraints.hostlist[0]"),
        ({"not": [{"ranks": ["x"]}]}, "constraints.not[0].ranks[0]"),
    ],
)
def test_constraints_that_are_none(constraint: Any, problem: str) -> None:
    assert f"attributes.system.{problem}" in refused([core()], constraints=constraint)


def test_a_property_in_yaml_needs_quotes() -> None:
    with pytest.raises(RequestError, match="in quotes"):
        parse_request(YAML.replace('"fast"', "fast"))


def test_a_constraint_may_be_empty() -> None:
    assert parse([core()], constraints={}).constraint == {}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 0}, "version: expected 1 to 9999"),
        ({"version": 10000}, "version: expected 1 to 9999"),
        ({"version": "one"}, "version: expected an integer"),
        ({"extra": 1}, "extra: expected only"),
        ({"attributes": []}, "attributes: expected a mapping"),
        ({"attributes": {"site": {}}}, "attributes.site"),
        ({"tasks": {}}, "tasks: expected a list"),
        ({"tasks": [{"command": "a", "slot": "s", "count": {"total": 1}}]}, "tasks[0].command"),
        ({"tasks": [{"command": ["a"], "slot": "s"}]}, "tasks[0]: expected command, slot and"),
        ({"tasks": [{"command": ["a"], "slot": "s", "count": {}}]}, "tasks[0].count"),
    ],
)
def test_documents_that_are_none(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(RequestError) as error:
        parse_request(json.dumps(spec([core()]) | change))
    assert f"jobspec: {problem}" in str(error.value)


@pytest.mark.parametrize("key", ["version", "resources", "tasks", "attributes"])
def test_all_keys_must_be_there(key: str) -> None:
    document = spec([core()])
    del document[key]
    with pytest.raises(RequestError, match=f"jobspec: {key}: .*found nothing"):
        parse_request(json.dumps(document))


def test_attributes_and_tasks_may_be_empty() -> None:
    assert parse_request(json.dumps(spec([core()]) | {"attributes": None, "tasks": []}))


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "42", "{", "a: [", "a: b: c", "\t- x", "a: *none", "? [1]\n: 2", "{1: 2"],
)
def test_text_that_is_none(text: str) -> None:
    with pytest.raises(RequestError) as error:
        parse_request(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("text", ["version: 1\x00", "version: \ud800", "{\ud800"])
def test_text_with_odd_characters(text: str) -> None:
    with pytest.raises(RequestError):
        parse_request(text)


def test_duplicate_keys() -> None:
    text = json.dumps(spec([core()]))
    for wrong in (text.replace('"count": 1', '"count": 1, "count": 2'), YAML + "version: 1\n"):
        with pytest.raises(RequestError, match="twice"):
            parse_request(wrong)


def nested(depth: int, inner: str = '{"type": "core", "count": 1}') -> str:
    head = '{"type": "node", "count": 1, "with": ['
    text = json.dumps(spec([])).replace("[]", f"[{head * depth}{inner}{']}' * depth}]", 1)
    assert "core" in text
    return text


@pytest.mark.parametrize("prefix", ["", " "])
def test_depth(prefix: str) -> None:
    assert parse_request(prefix + nested(60))
    for depth in (64, 150, 400, 10_000):
        with pytest.raises(RequestError) as error:
            parse_request(prefix + nested(depth))
        assert len(str(error.value)) < 200


@pytest.mark.parametrize("text", ["[" * 10_000, "- " * 10_000, "{a: " * 10_000, '{"a":' * 10_000])
def test_depth_of_anything(text: str) -> None:
    with pytest.raises(RequestError):
        parse_request(text)


def test_aliases() -> None:
    text = YAML.replace("label: default,", "label: &l default,").replace(
        "slot: default", "slot: *l"
    )
    assert parse_request(text) == parse_request(YAML)


def bomb(head: str, leaf: str, level: str) -> str:
    levels = "".join(level.format(n=n, m=n - 1) for n in range(1, 40))
    return f"x0: &x0 {leaf}\n{levels}{head}"


def test_alias_bombs() -> None:
    level = "x{n}: &x{n} [" + ", ".join(["{{type: a, count: 1, with: *x{m}}}"] * 9) + "]\n"
    head = "version: 1\nresources: *x39\nattributes:\ntasks: []\n"
    text = bomb(head, "[]", level)
    with pytest.raises(RequestError, match="x0"):
        parse_request(text)  # where the levels stand is no place for keys
    hidden = text.replace("attributes:\n", "attributes: {user: 1}\n")
    body = hidden[: hidden.index("version")]
    moved = "attributes:\n  user:\n" + "".join(f"    {line}\n" for line in body.splitlines())
    with pytest.raises(RequestError, match=f"more than {MAX_RESOURCES}"):
        parse_request(moved + "version: 1\nresources: *x39\ntasks: []\n")


def test_a_bomb_of_constraints() -> None:
    lines = ["      x0: &x0 {and: []}"]
    lines += [f"      x{n}: &x{n} {{and: [*x{n - 1}, *x{n - 1}, *x{n - 1}]}}" for n in range(1, 40)]
    text = YAML.replace("attributes:\n", "attributes:\n  user:\n" + "\n".join(lines) + "\n")
    start = text.index("constraints:")
    text = text[:start] + "constraints: *x39\n" + text[text.index("    whatever") :]
    with pytest.raises(RequestError, match=f"more than {MAX_RESOURCES} values"):
        parse_request(text)


def test_a_request_within_itself() -> None:
    text = "version: 1\nattributes:\ntasks: []\nresources: &r [{type: a, count: 1, with: *r}]\n"
    with pytest.raises(RequestError, match="nesting"):
        parse_request(text)


def test_errors_survive_a_pickle() -> None:
    import pickle

    error = RequestError("a", "b", "c")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
