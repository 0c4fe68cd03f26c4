"""RFC 25 and RFC 14: what is accepted, what is refused and how, and what Flux itself prints."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats import jobspec
from flux_mpi.formats.jobspec import Jobspec, JobspecError, Shape


def v1() -> dict[str, Any]:
    """A plain version 1 jobspec to break."""
    return {
        "resources": [
            {
                "type": "node",
                "count": 4,
                "with": [
                    {
                        "type": "slot",
                        "count": 2,
                        "label": "default",
                        "with": [{"type": "core", "count": 2}, {"type": "gpu", "count": 1}],
                    }
                ],
            }
        ],
        "tasks": [{"command": ["app"], "slot": "default", "count": {"per_slot": 1}}],
        "attributes": {
            "system": {
                "duration": 3600.0,
                "cwd": "/home/flux",
                "environment": {"HOME": "/home/flux"},
            }
        },
        "version": 1,
    }


def general(resources: list[dict[str, Any]], count: dict[str, Any] | None = None) -> dict[str, Any]:
    """The skeleton of RFC 14's use cases."""
    return {
        "version": 999,
        "resources": resources,
        "tasks": [{"command": ["app"], "slot": "default", "count": count or {"per_slot": 1}}],
        "attributes": {"system": {"duration": 3600.0, "cwd": "/home/flux", "environment": {}}},
    }


def slot(count: Any, *children: dict[str, Any], label: str = "default") -> dict[str, Any]:
    return {"type": "slot", "count": count, "label": label, "with": list(children)}


def vertex(kind: str, count: Any = 1, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": kind, "count": count, **more, **({"with": list(children)} if children else {})}


CORE = {"type": "core", "count": 1}


def test_a_version_1_jobspec_says_what_was_asked() -> None:
    spec = Jobspec.parse(v1())
    assert spec.version == 1
    assert spec.command == ["app"]
    assert spec.name == "app"
    assert spec.duration == 3600.0
    assert spec.cwd == "/home/flux"
    assert spec.environment == {"HOME": "/home/flux"}
    assert spec.options == {}
    assert spec.queue is None
    assert spec.dependencies == []
    assert spec.constraints is None
    assert spec.shape == Shape(
        nnodes=4, nslots=8, slots_per_node=2, cores=2, gpus=1, exclusive=False, ntasks=8
    )
    assert [vertex["type"] for vertex, _ in spec.walk()] == ["node", "slot", "core", "gpu"]
    assert spec.to_dict() == v1()
    assert Jobspec.parse(json.dumps(v1())) == spec
    assert Jobspec.parse(json.dumps(v1()).encode()) == spec


# (resources, task count) -> shape, for RFC 25's use cases and its four graphs.
SHAPES = [
    ([vertex("node", 4, slot(1, CORE))], {"per_slot": 1}, (4, 4, 1, 1, 0, False, 4)),
    ([vertex("node", 4, slot(1, CORE))], {"total": 5}, (4, 4, 1, 1, 0, False, 5)),
    ([slot(10, vertex("core", 2))], {"per_slot": 1}, (0, 10, 0, 2, 0, False, 10)),
    ([slot(10, vertex("core", 2), vertex("gpu"))], {"per_slot": 1}, (0, 10, 0, 2, 1, False, 10)),
    ([slot(10, vertex("gpu", 3), vertex("core", 2))], {"total": 7}, (0, 10, 0, 2, 3, False, 7)),
    (
        [vertex("node", 4, slot(4, CORE, vertex("gpu")))],
        {"per_slot": 1},
        (4, 16, 4, 1, 1, False, 16),
    ),
    ([vertex("node", 2, slot(1, CORE), exclusive=True)], {"per_slot": 1}, (2, 2, 1, 1, 0, True, 2)),
]


@pytest.mark.parametrize(("resources", "count", "numbers"), SHAPES)
def test_the_shapes_of_version_1(
    resources: list[dict[str, Any]], count: dict[str, int], numbers: tuple[Any, ...]
) -> None:
    obj = general(resources, count)
    obj["version"] = 1
    shape = Jobspec.parse(obj).shape
    assert shape == Shape(*numbers)
    assert shape.ncores == shape.nslots * shape.cores
    assert shape.ngpus == shape.nslots * shape.gpus
    assert {shape: 1}[Jobspec.parse(copy.deepcopy(obj)).shape] == 1


def test_a_shape_can_be_read_aloud() -> None:
    assert Shape(0, 1, 0, 1, 0, False, 1).text() == "1 slot of 1 core"
    assert Shape(0, 4, 0, 2, 1, False, 4).text() == "4 slots of 2 cores, 1 GPU each"
    assert (
        Shape(2, 8, 4, 1, 2, True, 8).text()
        == "2 exclusive nodes with 4 slots of 1 core, 2 GPUs each"
    )
    assert Shape(1, 1, 1, 1, 0, False, 1, '{"ranks":["0"]}').text() == (
        '1 node with 1 slot of 1 core where {"ranks":["0"]}'
    )


# RFC 14's use cases 1.1 to 2.9: all parse, few fit the bitmap door.
USE_CASES: dict[str, dict[str, Any]] = {
    "1.1": general([slot(4, vertex("node"))]),
    "1.2": general([slot({"min": 3, "max": 30, "operator": "+", "operand": 1}, vertex("node"))]),
    "1.3": general(
        [
            slot(
                4,
                vertex(
                    "node",
                    1,
                    vertex("socket", {"min": 2}, vertex("core", {"min": 4})),
                    exclusive=False,
                ),
            )
        ]
    ),
    "1.4": general([slot(4, vertex("node", 1, vertex("socket", 2, vertex("core", 4))))]),
    "1.5": {
        **general(
            [
                vertex(
                    "cluster",
                    1,
                    slot(
                        2,
                        vertex("node", 1, vertex("memory", 4, unit="GB"), vertex("ib10g")),
                        label="ib",
                    ),
                ),
                vertex("switch", 1, slot(2, vertex("node", 1, vertex("core", 2)), label="bicore")),
            ]
        ),
        "tasks": [
            {"command": ["flux", "start"], "slot": "ib", "count": {"per_slot": 1}},
            {"command": ["flux", "start"], "slot": "bicore", "count": {"per_slot": 1}},
        ],
    },
    "1.6": general(
        [
            vertex(
                "cluster",
                2,
                slot(1, vertex("node", {"min": 1}, vertex("core", 30), exclusive=False)),
            )
        ],
        {"per_resource": {"type": "node", "count": 1}},
    ),
    "1.8": general([slot("4,9,16,25", vertex("node"))]),
    "2.1": general([slot(4, vertex("node"))], {"per_slot": 5}),
    "2.2": general([slot(4, vertex("node"))], {"total": 5}),
    "2.3": general([slot(10, vertex("core", 2))]),
    "2.4": {
        **general(
            [
                vertex(
                    "node",
                    1,
                    slot(10, CORE, vertex("memory", 4, unit="GB"), label="read-db"),
                    slot(1, vertex("core", 6), vertex("memory", 24, unit="GB"), label="db"),
                )
            ]
        ),
        "tasks": [
            {"command": ["read-db"], "slot": "read-db", "count": {"per_slot": 1}},
            {"command": ["db"], "slot": "db", "count": {"per_slot": 1}},
        ],
    },
    "2.5": general([slot(10, vertex("memory", {"min": 2}, unit="GB"), CORE)]),
    "2.6": general(
        [slot(2, vertex("node", 1, vertex("memory", {"min": 4}, unit="GB")))], {"total": 10}
    ),
    "RFC 45": general([slot("2-16:2:*", vertex("core", "3+"))]),
}
USE_CASES["2.7"] = general([slot(1, vertex("node"))])
USE_CASES["2.7"]["tasks"].append(
    {
        "command": ["flux", "start"],
        "slot": "default",
        "count": {"per_slot": 1},
        "attributes": {"environment": {"FOO": None, "BAR": "2"}},
    }
)
USE_CASES["2.8"] = general([slot(1, vertex("node"))])
USE_CASES["2.8"]["attributes"]["system"]["dependencies"] = [
    {"type": "in", "scope": "user", "scheme": "fluid", "value": "hungry-hippo-white-elephant"},
    {"type": "out", "scope": "user", "scheme": "string", "value": "bar"},
]


@pytest.mark.parametrize("case", USE_CASES)
def test_the_general_form_is_accepted(case: str) -> None:
    spec = Jobspec.parse(USE_CASES[case])
    assert spec.to_dict() is USE_CASES[case]
    assert len(list(spec.walk())) > 1
    if case in NO_SHAPE:
        with pytest.raises(JobspecError) as caught:
            _ = spec.shape
        assert caught.value.field == NO_SHAPE[case]
    elif case == "2.3":
        assert spec.shape == Shape(0, 10, 0, 2, 0, False, 10)
    else:
        assert spec.shape.text() == GRAPHS[case]


NO_SHAPE = {
    "1.3": "resources[0].with[0].exclusive",
    "1.5": "tasks",
    "1.6": "resources[0].with[0].with[0].exclusive",
    "2.4": "tasks",
    "2.7": "tasks",
}
GRAPHS = {
    "1.1": "slot=4/node",
    "1.2": "slot=3-30/node",
    "1.4": "slot=4/node/socket=2/core=4",
    "1.8": "slot=4,9,16,25/node",
    "2.1": "slot=4/node",
    "2.2": "slot=4/node",
    "2.5": "slot=10/[memory=2+;core]",
    "2.6": "slot=2/node/memory=4+",
    "2.8": "slot/node",
    "RFC 45": "slot=2-16:2:*/core=3+",
}
"""Those use cases that numbers cannot express, as their shape says them."""


@pytest.mark.parametrize(
    ("resources", "numbers"),
    [
        ([slot(4, vertex("node"))], (4, 4, 1, 0, 0, False, 4)),
        ([slot(4, vertex("gpu"))], (0, 4, 0, 0, 1, False, 4)),
        ([slot(4, CORE, CORE)], (0, 4, 0, 2, 0, False, 4)),
        ([slot(4, CORE, vertex("memory", 2))], (0, 4, 0, 1, 0, False, 4)),
        ([vertex("node", "2-4", slot(3, CORE))], (2, 6, 3, 1, 0, False, 6)),
        ([vertex("node", "2,8", slot(3, CORE))], (2, 6, 3, 1, 0, False, 6)),
        ([vertex("rack", 2, vertex("node", 2, slot(1, CORE)))], (4, 4, 1, 1, 0, False, 4)),
        ([slot(1, CORE), slot(1, CORE, label="b")], (0, 1, 0, 2, 0, False, 1)),
    ],
)
def test_what_numbers_cannot_express_is_a_graph(
    resources: list[dict[str, Any]], numbers: tuple[Any, ...]
) -> None:
    shape = Jobspec.parse(general(resources)).shape
    assert shape.graph
    assert Shape(*numbers, "", shape.graph) == shape
    assert {shape: 1}[Jobspec.parse(copy.deepcopy(general(resources))).shape] == 1


def test_labels_of_slots_and_spellings_of_counts_make_no_other_shape() -> None:
    one = general([vertex("node", "2-4", slot(3, CORE, label="a"))])
    one["tasks"][0]["slot"] = "a"
    other = general([vertex("node", {"min": 2, "max": 4}, slot(3, CORE, label="b"))])
    other["tasks"][0]["slot"] = "b"
    assert Jobspec.parse(one).shape == Jobspec.parse(other).shape
    plain = general([vertex("node", "2", slot({"min": 1, "max": 1}, CORE))])
    assert Jobspec.parse(plain).shape == Shape(2, 2, 1, 1, 0, False, 2)


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        ([slot(4, vertex("core", 1, exclusive=False))], "resources[0].with[0].exclusive"),
        ([{**slot(4, CORE), "exclusive": False}], "resources[0].exclusive"),
        ([vertex("node", 1, slot(1, CORE), id="n3")], "resources[0].id"),
        ([vertex("node", 1 << 30, slot(1 << 30, CORE))], "resources"),
        (
            [vertex("rack", "1,3,5", vertex("node", ",".join(map(str, range(1, 99, 2)))))],
            "resources",
        ),
    ],
)
def test_what_no_scheduler_could_make_sense_of(resources: list[dict[str, Any]], field: str) -> None:
    if field == "resources" and "with" in resources[0]["with"][0]:
        resources[0]["unit"] = "x"  # numbers would do for the rest
    elif resources[0]["type"] == "rack":
        resources[0]["with"][0]["with"] = [slot(1, CORE)]
    spec = Jobspec.parse(general(resources))
    with pytest.raises(JobspecError) as caught:
        _ = spec.shape
    assert caught.value.field == field


def test_tasks_that_cannot_be_counted() -> None:
    nodes = [vertex("node", 4, slot(1, CORE))]
    for count, field in (
        ({"total": 3}, "tasks[0].count.total"),
        ({"per_resource": {"type": "gpu", "count": 1}}, "tasks[0].count.per_resource.type"),
    ):
        with pytest.raises(JobspecError) as caught:
            _ = Jobspec.parse(general(nodes, count)).shape
        assert caught.value.field == field
    per_core = general(nodes, {"per_resource": {"type": "core", "count": 2}})
    assert Jobspec.parse(per_core).shape.ntasks == 8


# path to change, the value put there ("DELETE" removes), the field the error names
BROKEN: list[tuple[str, Any, str]] = [
    *((key, "DELETE", key) for key in ("version", "resources", "tasks", "attributes")),
    *(("version", bad, "version") for bad in ("1", 1.0, True, 0, -1, None, [])),
    *(("resources", bad, "resources") for bad in ([], {}, None, "slot", 1)),
    ("resources", [slot(1, CORE), slot(1, CORE, label="b")], "resources"),
    ("resources.0", [], "resources[0]"),
    ("resources.0", None, "resources[0]"),
    ("resources.0.colour", "red", "resources[0].colour"),
    ("resources.0.type", "DELETE", "resources[0].type"),
    *(("resources.0.type", bad, "resources[0].type") for bad in ("", 1, None, ["node"])),
    ("resources.0.count", "DELETE", "resources[0].count"),
    *(
        ("resources.0.count", bad, "resources[0].count")
        for bad in (0, -1, True, 1.5, 4.0, "4", None, {"min": 1}, [4])
    ),
    ("resources.0.exclusive", 1, "resources[0].exclusive"),
    ("resources.0.exclusive", "yes", "resources[0].exclusive"),
    ("resources.0.unit", 1, "resources[0].unit"),
    ("resources.0.id", 1, "resources[0].id"),
    ("resources.0.with", "DELETE", "resources"),
    *(("resources.0.with", bad, "resources[0].with") for bad in ([], {}, None, "slot")),
    ("resources.0.with.0.label", "DELETE", "resources[0].with[0].label"),
    ("resources.0.with.0.label", 3, "resources[0].with[0].label"),
    ("resources.0.with.0.with", "DELETE", "resources[0].with[0].with"),
    ("resources.0.with.0.with", [], "resources[0].with[0].with"),
    ("resources.0.with.0.with.0.count", 0, "resources[0].with[0].with[0].count"),
    ("resources.0.with.0.with.1.count", -2, "resources[0].with[0].with[1].count"),
    ("resources.0.with.0.with.0", slot(1, CORE, label="in"), "resources[0].with[0].with[0]"),
    ("resources.0.label", "default", "resources[0].with[0].label"),
    *(("tasks", bad, "tasks") for bad in ([], {}, None, "app")),
    ("tasks", [v1()["tasks"][0]] * 2, "tasks"),
    ("tasks.0", "app", "tasks[0]"),
    ("tasks.0.colour", 1, "tasks[0].colour"),
    ("tasks.0.distribution", "cyclic", "tasks[0].distribution"),
    ("tasks.0.command", "DELETE", "tasks[0].command"),
    *(("tasks.0.command", bad, "tasks[0].command") for bad in ([], "app", None, {})),
    *(("tasks.0.command", ["a", bad], "tasks[0].command[1]") for bad in (1, None, "a\0b", ["b"])),
    ("tasks.0.slot", "DELETE", "tasks[0].slot"),
    ("tasks.0.slot", "other", "tasks[0].slot"),
    ("tasks.0.slot", 1, "tasks[0].slot"),
    ("tasks.0.count", "DELETE", "tasks[0].count"),
    *(
        ("tasks.0.count", bad, "tasks[0].count")
        for bad in ({}, 1, None, {"per_slot": 1, "total": 2}, {"per_node": 1})
    ),
    ("tasks.0.count", {"per_resource": {"type": "core", "count": 1}}, "tasks[0].count"),
    *(("tasks.0.count", {"per_slot": bad}, "tasks[0].count.per_slot") for bad in (0, 2, "1", True)),
    *(
        ("tasks.0.count", {"total": bad}, "tasks[0].count.total")
        for bad in (0, -1, "1", 1.0, False)
    ),
    *(("attributes", bad, "attributes") for bad in ([], None, "x")),
    ("attributes.colour", {}, "attributes.colour"),
    ("attributes.user", [], "attributes.user"),
    ("attributes.system", "DELETE", "attributes.system"),
    ("attributes.system", [], "attributes.system"),
    ("attributes.system.duration", "DELETE", "attributes.system.duration"),
    *(
        ("attributes.system.duration", bad, "attributes.system.duration")
        for bad in (-1, -0.1, "1h", None, True, float("inf"), float("nan"), [])
    ),
    *(("attributes.system.cwd", bad, "attributes.system.cwd") for bad in (1, None, "", "/a\0b")),
    *(
        ("attributes.system.environment", bad, "attributes.system.environment")
        for bad in ([], None, "A=1", {"A=B": "1"}, {"": "1"}, {"A\0": "1"})
    ),
    *(
        ("attributes.system.environment", {"A": bad}, "attributes.system.environment.A")
        for bad in (1, True, ["x"], "a\0b")
    ),
    ("attributes.system.queue", 1, "attributes.system.queue"),
    ("attributes.system.preemptible-after", -1, "attributes.system.preemptible-after"),
    ("attributes.system.job", {"name": 1}, "attributes.system.job.name"),
    ("attributes.system.job", "app", "attributes.system.job"),
    ("attributes.system.shell", [], "attributes.system.shell"),
    ("attributes.system.shell", {"options": []}, "attributes.system.shell.options"),
    (
        "attributes.system.shell",
        {"options": {"per-resource": {"type": "rack"}}},
        "attributes.system.shell.options.per-resource.type",
    ),
    *(
        (
            "attributes.system.shell",
            {"options": {"signal": bad}},
            f"attributes.system.shell.options.signal{field}",
        )
        for bad, field in (
            ("USR1", ""),
            ({"signum": 0}, ".signum"),
            ({"signum": 65}, ".signum"),
            ({"timeleft": "soon"}, ".timeleft"),
            ({"timeleft": -1}, ".timeleft"),
        )
    ),
    ("attributes.system.dependencies", {}, "attributes.system.dependencies"),
    (
        "attributes.system.dependencies",
        [{"scheme": "after"}],
        "attributes.system.dependencies[0].value",
    ),
    ("attributes.system.files", [], "attributes.system.files"),
    ("attributes.user", {"n": 1 << 64}, "attributes.user.n"),
    ("attributes.user", {"n": float("nan")}, "attributes.user.n"),
    ("attributes.user", {"n": [b"raw"]}, "attributes.user.n[0]"),
    ("attributes.user", {"n": "\ud800"}, "attributes.user.n"),
    ("attributes.user", {1: "n"}, "attributes.user"),
    ("colour", "red", "colour"),
]


def broken(path: str, value: Any) -> dict[str, Any]:
    obj = v1()
    node: Any = obj
    *parents, last = path.split(".")
    for key in parents:
        node = node[int(key) if key.isdigit() else key]
    if value == "DELETE":
        del node[last]
    else:
        node[int(last) if last.isdigit() else last] = value
    return obj


@pytest.mark.parametrize(("path", "value", "field"), BROKEN)
def test_what_is_wrong_is_named(path: str, value: Any, field: str) -> None:
    with pytest.raises(JobspecError) as caught:
        Jobspec.parse(broken(path, value))
    error = caught.value
    assert error.field == field
    assert error.found
    assert error.allowed
    assert str(error) == f"jobspec: {field}: expected {error.allowed}, found {error.found}"
    assert len(str(error)) < 300
    assert pickle.loads(pickle.dumps(error)).field == field


@pytest.mark.parametrize("document", ["", "{", "null", "[]", "7", '"x"', b"\xff\xfe\xfa", "{}{}"])
def test_what_is_no_json_object_is_refused(document: str | bytes) -> None:
    with pytest.raises(JobspecError) as caught:
        Jobspec.parse(document)
    assert caught.value.field == "document"


def test_deep_nesting_is_an_error_and_not_a_crash() -> None:
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    for path in ("resources", "attributes.user.x", "tasks.0.command"):
        obj = v1()
        obj["attributes"]["user"] = {}
        node: Any = obj
        *parents, last = path.split(".")
        for key in parents:
            node = node[int(key) if key.isdigit() else key]
        node[last] = deep
        with pytest.raises(JobspecError, match="nesting deeper than 64"):
            Jobspec.parse(obj)
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        text = '{"resources":' + opening * 10_000 + "1" + closing * 10_000 + "}"
        with pytest.raises(JobspecError, match="at most 64 levels"):
            Jobspec.parse(text)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(JobspecError, match="nesting"):
        Jobspec.parse({**v1(), "resources": loop})


def test_long_values_make_short_messages() -> None:
    with pytest.raises(JobspecError) as caught:
        Jobspec.parse(broken("resources.0.type", ["x" * 10**6]))
    assert len(str(caught.value)) < 300
    with pytest.raises(JobspecError) as caught:
        Jobspec.parse({**v1(), "k" * 10**6: 1})
    assert len(str(caught.value)) < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from([path for path, _, _ in BROKEN]), json_values)
def test_any_value_anywhere_is_accepted_or_refused(path: str, value: Any) -> None:
    try:
        spec = Jobspec.parse(broken(path, value))
        _ = spec.shape
    except JobspecError:
        pass
    else:
        assert json.loads(json.dumps(spec.to_dict())) == spec.to_dict()


def test_what_flux_prints_for_run_is_built_exactly() -> None:
    # flux run --dry-run -n2 -c2 -t 5m --job-name=foo --setattr=foo.bar=1 -o verbose=2
    #   --env=-* --env=A=1 hostname
    rlimit = {"cpu": -1, "fsize": -1, "data": -1, "stack": 8388608, "core": 0}
    spec = Jobspec.from_command(
        ["hostname"],
        ntasks=2,
        cores_per_task=2,
        duration=300,
        environment={"A": "1"},
        cwd="/path",
        name="foo",
        options={"rlimit": rlimit, "verbose": 2},
        attributes={"foo.bar": 1},
    )
    assert json.dumps(spec.to_dict()) == (
        '{"resources": [{"type": "slot", "count": 2, "with": [{"type": "core", "count": 2}], '
        '"label": "task"}], "tasks": [{"command": ["hostname"], "slot": "task", '
        '"count": {"per_slot": 1}}], "attributes": {"system": {"duration": 300.0, '
        '"environment": {"A": "1"}, "cwd": "/path", "job": {"name": "foo"}, '
        f'"shell": {{"options": {{"rlimit": {json.dumps(rlimit)}, "verbose": 2}}}}, '
        '"foo": {"bar": 1}}}, "version": 1}'
    )


def test_what_flux_prints_for_batch_is_built_exactly() -> None:
    # flux batch --dry-run -N2 --wrap sleep 1
    spec = Jobspec.per_resource(
        ["flux", "broker", "{{tmpdir}}/script", "1"],
        nnodes=2,
        exclusive=True,
        options={"per-resource.type": "node", "exit-timeout": "none"},
        name="sleep",
    )
    assert json.dumps(spec.resources) == (
        '[{"type": "node", "count": 2, "exclusive": true, "with": [{"type": "slot", "count": 1, '
        '"with": [{"type": "core", "count": 1}], "label": "task"}]}]'
    )
    assert spec.tasks[0]["count"] == {"per_slot": 1}
    assert spec.system["duration"] == 0
    assert isinstance(spec.system["duration"], int)
    assert spec.options == {"per-resource": {"type": "node"}, "exit-timeout": "none"}
    assert spec.name == "sleep"
    assert spec.shape.ntasks == 2


def test_tasks_are_spread_over_nodes() -> None:
    even = Jobspec.from_command(["a"], ntasks=6, nnodes=3, gpus_per_task=1)
    assert even.shape == Shape(3, 6, 2, 1, 1, False, 6)
    uneven = Jobspec.from_command(["a"], ntasks=5, nnodes=3, cores_per_task=2)
    assert uneven.tasks[0]["count"] == {"total": 5}
    assert uneven.shape == Shape(3, 6, 2, 2, 0, False, 5)
    assert Jobspec.from_command(["a"], nslots=3) == Jobspec.from_command(["a"], ntasks=3)


def test_tasks_counted_per_resource() -> None:
    def build(**kwargs: Any) -> Jobspec:
        return Jobspec.per_resource(["a"], **kwargs)

    two_each = build(ncores=8, nnodes=4, per_resource_type="node", per_resource_count=2)
    assert two_each.shape == Shape(4, 4, 1, 2, 0, False, 8)
    assert two_each.task_count(4, 8) == 8
    per_core = build(nnodes=2, exclusive=True, per_resource_type="core", per_resource_count=3)
    assert per_core.shape.exclusive
    assert per_core.task_count(2, 16) == 48
    assert build(ncores=5).shape == Shape(0, 5, 0, 1, 0, False, 5)
    assert build(nnodes=2, exclusive=True, gpus_per_node=4).shape.ngpus == 8
    # Without nodes their number is only known after allocation.
    scattered = build(ncores=6, per_resource_type="node", per_resource_count=2)
    assert scattered.shape.ntasks == 6
    assert scattered.task_count(3, 6) == 6


@pytest.mark.parametrize(
    ("kwargs", "field"),
    [
        ({"ntasks": 0}, "ntasks"),
        ({"ntasks": True}, "ntasks"),
        ({"nslots": -1}, "nslots"),
        ({"cores_per_task": 0}, "cores_per_task"),
        ({"gpus_per_task": -1}, "gpus_per_task"),
        ({"nnodes": 0}, "nnodes"),
        ({"nnodes": 2}, "nnodes"),
        ({"exclusive": True}, "exclusive"),
        ({"duration": -1}, "attributes.system.duration"),
        ({"duration": "1h"}, "attributes.system.duration"),
        ({"duration": float("inf")}, "attributes.system.duration"),
        ({"environment": {"A": 1}}, "attributes.system.environment.A"),
        ({"options": {"a": 1, "a.b": 1}}, "a"),
        ({"attributes": {"a..b": 1}}, "system.a..b"),
    ],
)
def test_builders_refuse_nonsense(kwargs: dict[str, Any], field: str) -> None:
    with pytest.raises(JobspecError) as caught:
        Jobspec.from_command(["a"], **kwargs)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("kwargs", "field"),
    [
        ({}, "ncores"),
        ({"nnodes": 2}, "nnodes"),
        ({"ncores": 3, "nnodes": 2}, "ncores"),
        ({"ncores": 1, "nnodes": 2}, "ncores"),
        ({"ncores": 0}, "ncores"),
        ({"ncores": 2, "exclusive": True}, "exclusive"),
        ({"ncores": 2, "gpus_per_node": 1}, "gpus_per_node"),
        ({"ncores": 2, "per_resource_type": "core"}, "per_resource"),
        ({"ncores": 2, "per_resource_type": "rack", "per_resource_count": 1}, "per_resource.type"),
        ({"ncores": 2, "per_resource_type": "core", "per_resource_count": 0}, "per_resource.count"),
    ],
)
def test_the_per_resource_builder_refuses_nonsense(kwargs: dict[str, Any], field: str) -> None:
    with pytest.raises(JobspecError) as caught:
        Jobspec.per_resource(["a"], **kwargs)
    assert caught.value.field == field


def test_a_command_is_not_a_string() -> None:
    with pytest.raises(JobspecError, match="command"):
        Jobspec.from_command("hostname")
    with pytest.raises(JobspecError, match=r"tasks\[0\].command"):
        Jobspec.from_command([])


def test_null_unsets_a_variable() -> None:
    spec = Jobspec.from_command(["a"], attributes={"environment": {"A": "1", "B": None}})
    assert spec.environment == {"A": "1"}


def test_attributes_land_where_flux_puts_them() -> None:
    assert jobspec.attribute_path("foo.bar") == "system.foo.bar"
    assert jobspec.attribute_path("user.x") == "user.x"
    assert jobspec.attribute_path("system.x") == "system.x"
    assert jobspec.attribute_path(".user.x") == "user.x"
    assert jobspec.attribute_path("attributes.system.x") == "system.x"


def test_the_name_is_the_program_s_unless_set() -> None:
    assert Jobspec.from_command(["/usr/bin/env", "x"]).name == "env"
    assert Jobspec.from_command(["/usr/bin/env"], name="").name == ""


def test_commands_do_not_pay_for_the_scheduler_s_part() -> None:
    code = (
        "import sys, flux_mpi.formats.jobspec as j;"
        "j.Jobspec.from_command(['a']).to_dict();"
        "print([m for m in ('dataclasses', 'typing', 'inspect') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
