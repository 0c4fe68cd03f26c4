"""The tags of arrays (flux-bulksubmit(1)) and of the job shell (flux-submit(1))."""

from __future__ import annotations

import os.path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.formats.templates import TemplateError, expand, expand_shell, has_tags

paths = st.text(st.sampled_from("ab./"), max_size=10)


@pytest.mark.parametrize(
    ("text", "row", "expected"),
    [
        ("{}", ["1"], "1"),
        ("{} {}", ["1"], "1 1"),
        ("{} {}", ["1", "2"], "1 2"),
        ("{1} {0}", ["1", "3"], "3 1"),
        ("x{}y", [""], "xy"),
        ("{.%}", ["/a/b.tar.gz"], "/a/b.tar"),
        ("{./}", ["/a/b.c"], "b.c"),
        ("{.//}", ["/a/b.c"], "/a"),
        ("{./%}", ["/a/b.c"], "b"),
        ("{1.%}-{0./}", ["x/y", "d.e/f"], "d.e/f-y"),
        ("{seq} {seq1}", ["a"], "7 8"),
        ("{cc}", ["a"], ""),
        ("{}", ["{seq}"], "{seq}"),
    ],
)
def test_the_tags_of_bulksubmit(text: str, row: list[str], expected: str) -> None:
    assert expand(text, row=row, seq=7, nseq=10) == expected


@given(paths)
def test_the_methods_are_those_of_os_path(path: str) -> None:
    def one(tag: str) -> str:
        return str(expand(tag, row=[path]))

    assert one("{.%}") == os.path.splitext(path)[0]
    assert one("{./}") == os.path.basename(path)
    assert one("{.//}") == os.path.dirname(path)
    assert one("{./%}") == os.path.basename(os.path.splitext(path)[0])


def test_cc_needs_no_inputs() -> None:
    assert expand("run-{cc}.{seq}", cc=12, seq=3, nseq=5) == "run-12.3"
    assert expand("run-{cc}", cc="12") == "run-12"
    # Without inputs, {} and its kin are text.
    assert expand("find {} {0} {.%} {cc}", cc=1) == "find {} {0} {.%} 1"
    assert expand("{cc} {seq}") == "{cc} {seq}"


@pytest.mark.parametrize(
    "text",
    [
        "{{id}}",
        "{{}}",
        "{{cc}}",
        "{{node.name}}",
        "awk '{print $1}'",
        '{"json": {"a": 1}}',
        "{ }",
        "{-1}",
        "{a.b}",
        "${HOME}",
        "{",
        "}",
        "}{",
        "{seq2}",
        "{cc.%}",
    ],
)
def test_other_braces_are_text(text: str) -> None:
    assert expand(text, row=["x"], cc=1, seq=2) == text
    assert not has_tags(text)


def test_every_string_of_a_jobspec_is_filled_and_the_rest_shared() -> None:
    spec = Jobspec.from_command(
        ["run", "{cc}", "{{id}}"],
        environment={"A": "{cc}", "B": "b"},
        cwd="/tmp/{cc}",
        name="n{cc}",
        options={"output.stdout.path": "out.{cc}.{{taskid}}"},
    ).to_dict()
    member = expand(spec, cc=5, seq=0, nseq=9)
    system = member["attributes"]["system"]
    assert member["tasks"][0]["command"] == ["run", "5", "{{id}}"]
    assert system["environment"] == {"A": "5", "B": "b"}
    assert system["cwd"] == "/tmp/5"
    assert system["job"]["name"] == "n5"
    assert system["shell"]["options"]["output"]["stdout"]["path"] == "out.5.{{taskid}}"
    assert list(member) == list(spec)
    assert list(system) == list(spec["attributes"]["system"])
    assert member["resources"] is spec["resources"]
    assert spec["tasks"][0]["command"][1] == "{cc}", "the template is not changed"
    assert Jobspec.parse(member).name == "n5"
    assert has_tags(spec)
    assert not has_tags(member)


def test_what_has_no_tags_is_not_copied() -> None:
    for obj in ("text", ["a", 1, None], {"a": ["b", {"c": 2.5}]}, 7, None, True):
        assert expand(obj, cc=1) is obj


@pytest.mark.parametrize(
    ("text", "row", "complaint"),
    [
        ("{2}", ["a", "b"], r"\{2\} in '\{2\}': there is no input 2, only 2"),
        ("{} {} {}", ["a", "b"], "there is no input 2"),
        ("{99999999999999999999}", ["a"], "there is no input 99999999999999999999"),
        ("{0}", [], "only 0"),
        ("{.upper}", ["a"], "expected one of % / // /% after the dot"),
        ("{0.}", ["a"], "after the dot"),
    ],
)
def test_tags_that_cannot_be_filled_are_named(text: str, row: list[str], complaint: str) -> None:
    with pytest.raises(TemplateError, match=complaint):
        expand({"a": [text]}, row=row)


SHELL: dict[str, Any] = {
    "jobid": 6731191091817518,
    "name": "app",
    "nnodes": 2,
    "size": 8,
    "nodeid": 1,
    "hostname": "n7",
    "broker_rank": 7,
    "cores": "0-3,8",
    "gpus": "",
    "taskid": 5,
    "localid": 1,
    "tmpdir": "/tmp/x",
}


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("id", "ƒuZZybuNNy"),
        ("jobid", "ƒuZZybuNNy"),
        ("id.f58", "ƒuZZybuNNy"),
        ("id.f58plain", "fuZZybuNNy"),
        ("jobid.dec", "6731191091817518"),
        ("id.hex", "0x17e9fb8df16c2e"),
        ("id.dothex", "0017.e9fb.8df1.6c2e"),
        ("id.words", "reform-remote-galileo--heart-package-academy"),
        ("name", "app"),
        ("nnodes", "2"),
        ("size", "8"),
        ("ntasks", "8"),
        ("node.id", "1"),
        ("node.name", "n7"),
        ("node.broker_rank", "7"),
        ("node.cores", "0-3,8"),
        ("node.gpus", ""),
        ("node.ncores", "5"),
        ("node.ngpus", "0"),
        ("taskid", "5"),
        ("task.id", "5"),
        ("task.rank", "5"),
        ("task.index", "1"),
        ("task.localid", "1"),
        ("tmpdir", "/tmp/x"),
        # Unknown tags stay.
        ("", "{{}}"),
        ("id.", "{{id.}}"),
        ("id.roman", "{{id.roman}}"),
        ("node", "{{node}}"),
        (" id", "{{ id}}"),
        ("task.colour", "{{task.colour}}"),
    ],
)
def test_the_tags_of_the_job_shell(tag: str, value: str) -> None:
    assert expand_shell(f"a-{{{{{tag}}}}}.b", **SHELL) == f"a-{value}.b"


def test_what_is_not_known_yet_stays() -> None:
    # As in Flux: one line for all tasks knows the job but not the task.
    assert expand_shell("out.{{id}}.{{taskid}}", jobid=1) == "out.ƒ2.{{taskid}}"
    assert expand_shell("{{node.ncores}}{{open", jobid=1) == "{{node.ncores}}{{open"
    assert expand_shell("{cc}", **SHELL) == "{cc}"
    assert expand_shell("{{taskid}}{{taskid}}", taskid=0) == "00"


@given(st.text(st.sampled_from("{}c0.% seq"), max_size=20))
def test_any_text_expands_or_says_why(text: str) -> None:
    try:
        new = expand(text, row=["IN"], cc=3, seq=4)
    except TemplateError:
        return
    assert isinstance(new, str)
    assert (new == text) == (not has_tags(text))
