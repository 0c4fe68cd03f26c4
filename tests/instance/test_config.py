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


@pytest.mark.parametrize("topo", ["binomial", "mincrit:16"])
def test_a_tree_of_flux_in_a_site_s_file_says_nothing_of_ours(topo: str) -> None:
    assert configuration.fanout({"tbon": {"topo": topo}}, {}, 7) == 7
    with pytest.raises(ConfigError, match=r"^tbon\."):
        configuration.fanout({}, {"tbon.topo": topo}, 7)


@pytest.mark.parametrize("topo", ["kary:x", "kary:", "2"])
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


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"sched": {"bogus": 1}}, "sched.bogus: unknown key, known: kernel, match-policy"),
        ({"sched": {"queue-depth": 4}}, "sched.queue-depth: unknown key, known: "),
        ({"queue-policy": "easy"}, "queue-policy: is not known, sched.queue-policy is"),
        ({"brocker": {}}, "brocker: unknown table, known: broker"),
        ({"overlay": {"dorbell": True}}, "overlay.dorbell: unknown key, known: doorbell"),
        ({"exec": 3}, "exec: a table is required, found 3"),
    ],
)
def test_what_nobody_reads_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=r"^--conf: ") as caught:
        configuration.check(config)
    assert said in str(caught.value)


def test_what_may_be_a_plug_in_s_is_left_alone() -> None:
    configuration.check({"table": {"key": 1}, "sched-mine": {"a": 1}})
    configuration.check({"sched": {"scheduler": "mine:Scheduler", "bogus": 1}})
    configuration.check({"sched": {"bogus": 1}}, {"sched": {"scheduler": "mine:Scheduler"}})
