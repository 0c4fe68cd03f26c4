"""Jobspecs in YAML say what the same in JSON does."""

from __future__ import annotations

import json

import pytest

from flux_mpi.formats import yamltext
from flux_mpi.formats.jobspec import Jobspec, JobspecError

YAML = """
version: 9999
resources:
  - type: rack
    count: 1
    with:
      - {type: slot, count: 2, label: task, with: [{type: core, count: 3}]}
tasks:
  - {command: [sleep, "4"], slot: task, count: {per_slot: 1}}
attributes: {system: {duration: 1.5}}
"""


def test_yaml_says_what_json_does() -> None:
    read = yamltext.load(YAML)
    assert read["resources"][0]["with"][0]["count"] == 2
    assert yamltext.load(json.dumps(read)) == read
    assert Jobspec.parse(read).duration == 1.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1, 2\n", "line 2, column 1"),
        ("{", "no JSON"),
        ("[" * 100_000, "document"),
        ("- " * 100_000, "line 1"),
        ("a: &a [x]\nb: [" + "*a, " * 2000 + "]", "at most 1000"),
        ("a: !!python/object/apply:os.system [true]\n", "python/object"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(JobspecError, match="jobspec: ") as caught:
        Jobspec.parse(yamltext.load(text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_mapping_is_refused() -> None:
    with pytest.raises(JobspecError, match="expected a JSON object"):
        Jobspec.parse(yamltext.load("just words"))
