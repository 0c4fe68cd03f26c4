"""hwloc XML: small machines of both versions, what is left of them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from flux_mpi.resource.readers import ReaderError, load
from tests.resource.readers.samples import names, vertex

EVERYTHING = ("node", "group", "numanode", "socket", "core", "pu", "gpu", "storage")


def obj(
    type: str, *below: str, cpus: int | None = None, nodes: int | None = None, **more: Any
) -> str:
    """An object with sets of PUs and memory."""
    sets = ""
    for key, bits in (("cpuset", cpus), ("nodeset", nodes)):
        if bits is not None:
            sets += f' {key}="{bits:#010x}" complete_{key}="{bits:#010x}"'
    attributes = "".join(f' {key}="{value}"' for key, value in more.items())
    return f'<object type="{type}"{sets}{attributes}>{"".join(below)}</object>'


def info(name: str, value: str) -> str:
    return f'<info name="{name}" value="{value}"/>'


def topology(root: str, version: str = "") -> str:
    return f'<!DOCTYPE topology SYSTEM "hwloc.dtd"><topology{version}>{root}</topology>'


def device(name: str, osdev_type: int, *infos: str) -> str:
    """A device behind a bridge and a PCI device."""
    inner = obj("OSDev", *infos, name=name, osdev_type=osdev_type)
    return obj("Bridge", obj("PCIDev", inner, pci_busid="0000:01:00.0"), bridge_type="0-1")


def cores(first: int, count: int, *, each: int = 1) -> list[str]:
    made = []
    for k in range(first, first + count):
        bits = ((1 << each) - 1) << (k * each)
        pus = [obj("PU", cpus=1 << p, nodes=1) for p in range(k * each, (k + 1) * each)]
        made.append(obj("Core", *pus, cpus=bits, nodes=1))
    return made


def v1(*devices: str) -> str:
    """Two NUMA nodes with a socket of two cores each; devices at the second."""
    return topology(
        obj(
            "Machine",
            info("HostName", "host12"),
            obj("NUMANode", obj("Socket", *cores(0, 2), cpus=3, nodes=1), cpus=3, nodes=1),
            obj(
                "NUMANode",
                obj("Socket", *cores(2, 2), cpus=12, nodes=2),
                *devices,
                cpus=12,
                nodes=2,
            ),
            cpus=15,
            nodes=3,
        )
    )


def v2(*devices: str) -> str:
    """The same of version 2: memory beside sockets."""
    return topology(
        obj(
            "Machine",
            info("HostName", "host12"),
            obj("Package", *cores(0, 2), obj("NUMANode", cpus=3, nodes=1), cpus=3, nodes=1),
            obj(
                "Package",
                *cores(2, 2),
                obj("NUMANode", cpus=12, nodes=2),
                *devices,
                cpus=12,
                nodes=2,
            ),
            cpus=15,
            nodes=3,
        ),
        ' version="2.0"',
    )


DEVICES = (
    device("sda", 0, info("Size", "480103981"), info("LinuxDeviceID", "8:0")),
    device("eth0", 2),
    device("dma0", 4),
    device("sdb", 0, info("Size", "999999")),
    device("cuda1", 5),
    device("opencl0d2", 5),
    device("rsmi3", 1),
    device("card0", 1),
    device("ve4", 5),
)


def test_version_one_is_turned_into_version_two() -> None:
    expected = [
        "/cluster0",
        "/cluster0/host12",
        "/cluster0/host12/socket0",
        "/cluster0/host12/socket0/core0",
        "/cluster0/host12/socket0/core0/pu0",
        "/cluster0/host12/socket0/core1",
        "/cluster0/host12/socket0/core1/pu1",
        "/cluster0/host12/socket0/numanode0",
        "/cluster0/host12/socket1",
        "/cluster0/host12/socket1/core2",
        "/cluster0/host12/socket1/core2/pu2",
        "/cluster0/host12/socket1/core3",
        "/cluster0/host12/socket1/core3/pu3",
        "/cluster0/host12/socket1/numanode1",
        # Of the devices that are kept, eth0 has the number 1 and dma0 is none.
        "/cluster0/host12/socket1/storage0",
        "/cluster0/host12/socket1/storage2",
        "/cluster0/host12/socket1/gpu1",
        "/cluster0/host12/socket1/gpu2",
        "/cluster0/host12/socket1/gpu3",
        "/cluster0/host12/socket1/gpu7",
    ]
    for text in (v1(*DEVICES), v2(*DEVICES)):
        assert names(load(text, "hwloc", allowlist=EVERYTHING)) == expected
        assert names(load(text, "hwloc")) == expected
        assert names(load(text, "hwloc", allowlist=())) == expected


def test_vertices() -> None:
    graph = load(v1(*DEVICES), "hwloc", allowlist=("node", "storage"))
    assert [vertex(graph, v)[:10] for v in graph.vertices()] == [
        ("cluster", "cluster", "cluster0", 0, 0, -1, 1, "", 0, {}),
        ("node", "host", "host12", 12, 1, 0, 1, "", 0, {}),
        ("storage", "storage", "storage0", 0, 2, -1, 480, "", 0, {"LinuxDeviceID": "8:0"}),
        ("storage", "storage", "storage2", 2, 3, -1, 0, "", 0, {"LinuxDeviceID": "-1"}),
    ]


def test_what_is_not_allowed_is_passed_over() -> None:
    assert names(load(v1(*DEVICES), "hwloc", allowlist={"core", "gpu"})) == [
        "/cluster0",
        *(f"/cluster0/core{k}" for k in range(4)),
        *(f"/cluster0/gpu{k}" for k in (1, 2, 3, 7)),
    ]


def test_a_rank_is_for_all_but_the_cluster() -> None:
    graph = load(v1(), "hwloc", allowlist=("node", "core"), rank=3)
    assert list(graph.ranks) == [-1, 3, 3, 3, 3, 3]


def test_without_text_there_is_a_cluster() -> None:
    assert names(load("", "hwloc")) == ["/cluster0"]


def test_without_a_host_there_is_no_node() -> None:
    text = v2().replace("HostName", "Hostname")
    assert names(load(text, "hwloc", allowlist=("node", "socket"))) == [
        "/cluster0",
        "/cluster0/socket0",
        "/cluster0/socket1",
    ]


def _cached(*, groups: bool) -> str:
    """Two cores behind an L3, each with an L2 and an L1 of both kinds, and groups around."""
    made = []
    for k in range(2):
        bits = 1 << k
        inner = obj("Core", obj("PU", cpus=bits, nodes=1), cpus=bits, nodes=1)
        for type, depth, size, of in (
            ("L1iCache", 1, 32768, 2),
            ("L1Cache", 1, 65536, 1),
            ("L2Cache", 2, 524288, 0),
        ):
            inner = obj(
                type, inner, cpus=bits, nodes=1, depth=depth, cache_size=size, cache_type=of
            )
        if groups:
            inner = obj("Group", inner, cpus=bits, nodes=1, kind=1)
        made.append(inner)
    l3 = obj("L3Cache", *made, cpus=3, nodes=1, depth=3, cache_size=16777216, cache_type=0)
    memory = obj("NUMANode", cpus=3, nodes=1)
    package = obj("Package", l3, memory, cpus=3, nodes=1)
    machine = obj("Machine", info("HostName", "h"), package, cpus=3, nodes=1)
    return topology(machine, ' version="2.0"')


@pytest.mark.parametrize("groups", [False, True])
def test_levels_that_add_no_structure_go(groups: bool) -> None:
    assert names(load(_cached(groups=groups), "hwloc")) == [
        "/cluster0",
        "/cluster0/h",
        "/cluster0/h/socket0",
        "/cluster0/h/socket0/core0",
        "/cluster0/h/socket0/core0/pu0",
        "/cluster0/h/socket0/core1",
        "/cluster0/h/socket0/core1/pu1",
        "/cluster0/h/socket0/numanode0",
    ]


def test_levels_that_add_structure_stay() -> None:
    text = topology(
        obj(
            "Machine",
            info("HostName", "h1"),
            *(
                obj("Cache", *cores(2 * k, 2), cpus=3 << 2 * k, nodes=1, depth=2, cache_size=2**20)
                for k in range(2)
            ),
            cpus=15,
            nodes=1,
        )
    )
    graph = load(text, "hwloc", allowlist=("L2cache", "core"))
    assert names(graph) == [
        "/cluster0",
        "/cluster0/L2cache0",
        "/cluster0/L2cache0/core0",
        "/cluster0/L2cache0/core1",
        "/cluster0/L2cache1",
        "/cluster0/L2cache1/core2",
        "/cluster0/L2cache1/core3",
    ]
    assert vertex(graph, 1)[:2] == ("cache", "L2cache")
    assert graph.sizes[1] == 1024


def test_memory_is_added_where_there_is_none() -> None:
    text = topology(obj("Machine", obj("Socket", *cores(0, 1), cpus=1), cpus=1)).replace(
        'nodeset="0x00000001" complete_nodeset="0x00000001"', ""
    )
    assert names(load(text, "hwloc"))[-1] == "/cluster0/socket0/numanode0"


def test_what_was_not_allowed_goes() -> None:
    text = topology(
        obj(
            "Machine",
            *cores(0, 4),
            cpus=15,
            nodes=1,
            allowed_cpuset="0x0000000a",
            allowed_nodeset="0x1",
        )
    )
    graph = load(text, "hwloc", allowlist=("core", "pu"))
    assert names(graph) == [
        "/cluster0",
        "/cluster0/core0",
        "/cluster0/core0/pu0",
        "/cluster0/core1",
        "/cluster0/core1/pu1",
    ]


def test_children_go_by_their_first_pu() -> None:
    text = topology(obj("Machine", *reversed(cores(0, 3)), cpus=7, nodes=1))
    assert [
        n for n in names(load(text, "hwloc", allowlist=("core", "pu"))) if n.endswith("pu0")
    ] == ["/cluster0/core0/pu0"]


def test_wide_sets() -> None:
    text = topology(obj("Machine", *cores(0, 2), cpus=3, nodes=1)).replace(
        'cpuset="0x00000003"', 'cpuset="0x0,,0x00000003"'
    )
    assert len(names(load(text, "hwloc", allowlist=("core",)))) == 3
    text = text.replace('cpuset="0x0,,0x00000003"', 'cpuset="0xf...f,0x00000003"')
    assert len(names(load(text, "hwloc", allowlist=("core",)))) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<topology/>", "expected an <object>, found none"),
        ("<graph/>", "expected a <topology>"),
        (topology("<object/>"), "object type: expected one that hwloc has, found nothing"),
        (topology('<object type="Abacus"/>'), "found 'Abacus'"),
        (topology(obj("Machine"), ' version="3.0"'), "version: expected 1 or 2, found '3.0'"),
        (topology(obj("Machine", cpus=0)), "expected a set of PUs"),
        (topology(obj("Machine")), "cpuset: expected a bitmap, found nothing"),
        (topology('<object type="Machine" cpuset="0x1"/>'), "cpuset with complete_cpuset"),
        (topology(obj("Machine", "<cloud/>", cpus=1)), "expected an <object> or <info>"),
        (topology(obj("Machine", cpus=1).replace("0x00000001", "many")), "hexadecimal words"),
        (topology(obj("Machine", cpus=1).replace("0x00000001", "0x-1")), "hexadecimal words"),
        (topology(obj("Machine", obj("Core"), cpus=1)), "cpuset: expected a bitmap"),
        (topology(obj("Machine", obj("OSDev", cpus=1), cpus=1)), "cpuset: expected none"),
        (topology(obj("Machine", obj("OSDev", osdev_type=9), cpus=1)), "0 to 6, found 9"),
        (topology(obj("Machine", obj("Cache", cpus=1, depth=9), cpus=1)), "a cache level, found 9"),
        (topology(obj("Machine", device("x", 0), cpus=1)), "'x': expected an info Size"),
        (
            topology(obj("Machine", device("x", 0, info("Size", "0")), cpus=1)),
            "info Size: expected a size in kB, found '0'",
        ),
        (
            topology(obj("Machine", device("x", 0, info("Size", "9" * 19)), cpus=1)),
            "info Size: expected a size up to",
        ),
        (topology(obj("Machine", device("", 5), cpus=1)), "name: expected a device's name"),
        (topology(obj("Machine", device("opencl7", 5), cpus=1)), "opencl, a number, d, a number"),
        (topology(obj("Machine", device("cuda" + "9" * 12, 5), cpus=1)), "a number of 32 bits"),
        (
            topology(obj("Machine", info("HostName", "h" + "9" * 30), cpus=1)),
            "info HostName: expected a number",
        ),
        (topology(obj("Machine", info("HostName", ""), cpus=1)), "info HostName: expected a name"),
        *(
            (
                topology(
                    obj("Machine", obj(above, below, cpus=cpus, nodes=cpus), cpus=1, nodes=1), v
                ),
                x,
            )
            for v in ("", ' version="2.1"')
            for above, cpus, below, x in (
                ("Bridge", None, obj("Core", cpus=1), "may have one, found 'Bridge'"),
                ("PCIDev", None, obj("PU", cpus=1), "may have one, found 'PCIDev'"),
            )
        ),
        (
            topology(
                obj(
                    "Machine",
                    obj("NUMANode", obj("Core", cpus=1), cpus=1, nodes=1),
                    cpus=1,
                    nodes=1,
                ),
                ' version="2.0"',
            ),
            "object Core: expected a parent that may have one, found 'NUMANode'",
        ),
        (
            topology(
                obj("Machine", obj("Bridge", obj("NUMANode", cpus=1, nodes=1)), cpus=1, nodes=1),
                ' version="2.0"',
            ),
            "object NUMANode: expected a parent that may have one, found 'Bridge'",
        ),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(ReaderError, match=r"^hwloc: ") as refused:
        load(text, "hwloc")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_rank_has_32_bits() -> None:
    with pytest.raises(ReaderError, match="rank"):
        load("", "hwloc", rank=-2)
