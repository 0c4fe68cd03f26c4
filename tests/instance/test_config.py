"""What the configuration says about the tree."""

from __future__ import annotations

import pytest

from flux_mpi.instance import config as configuration
from flux_mpi.instance.config import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@pytest.mark.parametrize(
    ("tbon", "attributes", "found"),
    [
        ({}, {}, 7),
        ({"fanout": 2}, {}, 2),
        ({"topo": "kary:3"}, {}, 3),
        ({"topo": "kary:3", "fanout": 2}, {}, 2),
        ({"fanout": 2}, {"tbon.topo": "kary:3"}, 3),
        ({"topo": "kary:2"}, {"tbon.fanout": "3"}, 3),
        ({"fanout": 0}, {}, 0),  # for the tree to refuse
        ({"topo": "kary:0"}, {}, 1 << 20),
    ],
)
def test_the_fan_out(tbon: dict[str, Any], attributes: dict[str, str], found: int) -> None:
    assert configuration.fanout({"tbon": tbon}, attributes, 7) == found
    assert not attributes  # what is left are attributes to be set


@pytest.mark.parametrize("topo", ["binomial", "kary:x", "kary:", "2"])
def test_trees_that_are_not_made_are_refused(topo: str) -> None:
    with pytest.raises(ConfigError, match=r"^tbon\."):
        configuration.fanout({"tbon": {"topo": topo}}, {}, 7)
    with pytest.raises(ConfigError, match=r"^tbon\."):
        configuration.fanout({}, {"tbon.topo": topo}, 7)


def test_a_childs_topology_wins_over_its_parents_fan_out() -> None:
    inherited = {"tbon": {"fanout": 2}}
    config = configuration.merged(inherited, {"tbon": {"topo": "kary:4"}})
    assert configuration.fanout(config, {}, 7) == 4
    assert inherited == {"tbon": {"fanout": 2}}
