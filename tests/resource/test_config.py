from __future__ import annotations

from typing import Any

import pytest

from flux_mpi.resource.config import ResourceConfig, parse_config
from flux_mpi.resource.inventory import ResourceError

HOSTS = ["n0", "n1", "n1", "x"]


def test_no_table() -> None:
    assert parse_config(None, HOSTS) == ResourceConfig()


def test_exclude_and_properties() -> None:
    config = parse_config(
        {
            "exclude": "n1",
            "config": [
                {"hosts": "n[0-9]", "properties": ["batch", "amd"]},
                {"hosts": "x,elsewhere", "properties": ["batch"]},
                {"hosts": "elsewhere", "properties": ["far"]},
            ],
        },
        HOSTS,
    )
    assert str(config.exclude) == "1-2"
    assert config.properties is not None
    named = {name: str(ranks) for name, ranks in config.properties.items()}
    assert named == {"batch": "0-3", "amd": "0-2", "far": ""}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([], "resource: need a table"),
        ({"exlude": "0"}, "resource.exlude: unknown key, allowed: config, exclude"),
        ({"exclude": "9"}, "resource.exclude: idset is out of range"),
        ({"exclude": 9}, "resource.exclude"),
        ({"config": {}}, "resource.config: need an array"),
        ({"config": [1]}, "resource.config[0]: need a table"),
        ({"config": [{"properties": ["a"]}]}, "resource.config[0].hosts"),
        ({"config": [{"hosts": "n0", "cores": "0"}]}, "resource.config[0].cores: unknown key"),
        ({"config": [{"hosts": "n0", "properties": "a"}]}, "properties: need an array"),
        ({"config": [{"hosts": "n0", "properties": ["a|b"]}]}, "illegal character '|'"),
    ],
)
def test_mistakes_name_the_key(table: Any, says: str) -> None:
    with pytest.raises(ResourceError) as raised:
        parse_config(table, HOSTS)
    assert says in str(raised.value)
