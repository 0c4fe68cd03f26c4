"""Who may know whom: the house plan of ``docs/architecture.md`` as a test.

What a room may import is written once, below; an exception is a line with its reason.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "flux_mpi"

ROOMS: dict[str, set[str]] = {
    "formats": set(),
    "message": {"formats"},
    "reactor": set(),
    "overlay": {"message", "reactor"},
    "broker": {"overlay"},
    "kvs": {"broker"},
    "resource": {"formats"},
    "sched": {"resource"},
    "job": {"sched", "kvs"},
    "shell": {"formats"},
    "ensemble": {"message"},
    "instance": {"overlay", "broker", "kvs", "resource", "sched", "job", "shell", "ensemble"},
    "client": {"message", "formats"},
    "view": {"client"},
    "cli": {"client", "view"},
    "compat": {"client"},
    "sim": {"instance", "job", "sched", "overlay"},
}
"""Each room with those it builds on; it may use what they build on as well."""

THIRD_PARTY: dict[str, set[str]] = {
    "formats": {"mnemonicode", "tomli", "yaml"},
    "message": {"msgpack"},
    "overlay": {"msgpack"},
    "resource": {"numpy"},
    "sched": {"numpy", "numba"},
    "job": {"numpy"},
    "instance": {"mpi4py"},
    "client": {"msgpack"},
    "sim": {"numpy"},
}
"""What a room may import that is neither ours nor Python's."""

EXCEPTIONS: dict[str, set[str]] = {
    # A room's service.py is its thin shell towards the broker; its cores know nothing of one.
    "resource/service.py": {"broker"},
    "shell/service.py": {"broker"},
    "ensemble/service.py": {"broker"},
    "shell/link.py": {"reactor"},
    "shell/branch.py": {"reactor"},
    # The one place besides instance/ that speaks MPI.
    "overlay/mpi.py": {"mpi4py"},
    # "flux-mpi start" is a command like the others, and the door to the instance; "flux-mpi pty"
    # is what alloc has run on a job's node.
    "cli/main.py": {"instance", "shell"},
    "cli/start.py": {"instance"},
    # "flux-mpi resource-query" is no client: it matches by itself, without an instance.
    "cli/rq_session.py": {"resource", "sched"},
    "cli/rq_graph.py": {"resource"},
}
"""Single files that may import more, and why."""

HEAVY = ("mpi4py", "numpy", "numba")


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path


@cache
def reach(room: str) -> frozenset[str]:
    """The rooms that ``room`` may import, itself among them."""
    below = {room}
    for other in ROOMS[room]:
        below |= reach(other)
    return frozenset(below)


def imported(path: Path) -> set[str]:
    """Full names of the modules that ``path`` imports, wherever in it."""
    here = ["flux_mpi", *path.relative_to(PACKAGE).parts[:-1]]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.add(module)
            if module == "flux_mpi":
                names.update(f"flux_mpi.{alias.name}" for alias in node.names)
    return names


def test_the_plan_has_no_circles() -> None:
    for room in ROOMS:
        for other in ROOMS[room]:
            assert room not in reach(other), f"{room} and {other} need each other"


def test_each_folder_is_a_room_of_the_plan() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(ROOMS), "a new room needs a line in ROOMS and in docs/architecture.md"


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    wrong = []
    for name, path in modules():
        if not name.startswith(f"{room}/"):
            continue
        extra = EXCEPTIONS.get(name, set())
        rooms = set(reach(room)).union(*(reach(other) for other in extra if other in ROOMS))
        others = THIRD_PARTY.get(room, set()) | extra
        for module in imported(path):
            top, _, rest = module.partition(".")
            if top == "flux_mpi":
                # The package itself offers only what loads lazily, such as __version__.
                fine = not rest or rest.partition(".")[0] in rooms | {"__version__"}
            else:
                fine = top in sys.stdlib_module_names or top in others
            if not fine:
                wrong.append(f"{name} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_only_two_places_speak_mpi() -> None:
    speakers = {
        name
        for name, path in modules()
        if any(module.partition(".")[0] == "mpi4py" for module in imported(path))
    }
    assert speakers <= {"overlay/mpi.py"} | {n for n in speakers if n.startswith("instance/")}


def test_exceptions_are_still_needed() -> None:
    for name, extra in EXCEPTIONS.items():
        used = {part for module in imported(PACKAGE / name) for part in module.split(".")[:2]}
        assert extra <= used, f"{name} no longer imports {extra - used}"


def names_of(*rooms: str) -> list[str]:
    """The importable names of all modules of ``rooms``."""
    return [
        f"flux_mpi.{name[: -len('.py')].replace('/', '.')}".removesuffix(".__init__")
        for name, _ in modules()
        if name.partition("/")[0] in rooms and not name.endswith("__main__.py")
    ]


def imports_none_of(banned: tuple[str, ...], names: list[str]) -> None:
    """Import ``names`` in a new interpreter; none may bring in a module of ``banned``."""
    code = (
        "import importlib, sys\n"
        "banned = sys.argv[1].split(',')\n"
        "for name in sys.argv[2:]:\n"
        "    importlib.import_module(name)\n"
        "    for module in banned:\n"
        "        if module in sys.modules:\n"
        "            sys.exit(f'{name} brings in {module}')\n"
    )
    # mpi4py may be loaded here, but MPI must not start in a test.
    environ = {**os.environ, "MPI4PY_RC_INITIALIZE": "0"}
    environ["PYTHONPATH"] = str(PACKAGE.parent)
    done = subprocess.run(
        [sys.executable, "-c", code, ",".join(banned), *names],
        capture_output=True,
        text=True,
        timeout=60,
        env=environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr.strip()[-2000:]


def test_commands_and_clients_stay_light() -> None:
    imports_none_of(HEAVY, ["flux_mpi", *names_of("client", "cli", "view")])


def test_a_leaf_broker_stays_light() -> None:
    # All that a rank other than 0 may load; job/ and sched/ are for rank 0.
    leaf = names_of(
        "formats", "message", "reactor", "overlay", "broker", "kvs", "resource", "shell"
    )
    imports_none_of(("numpy", "numba"), leaf)


def test_starting_an_instance_loads_nothing_heavy() -> None:
    # What heavy parts instance/ needs it must import where it needs them, on rank 0.
    imports_none_of(("numpy", "numba"), names_of("instance"))


def test_the_scheduler_is_loaded_without_numba() -> None:
    # Rank 0 serves its first job before kernels are compiled.
    imports_none_of(("numba",), names_of("sched", "job"))


STANDARD_ONLY = [
    "shell/supervisor.py",
    "shell/spawner.py",
    "shell/followers.py",
    "shell/wire.py",
    "shell/standin.py",
    "shell/ptyhost.py",
    "formats/ptystream.py",
    "shell/system.py",
    "resource/discovery.py",
]


@pytest.mark.parametrize("name", STANDARD_ONLY)
def test_what_every_process_of_an_instance_loads_needs_only_python(name: str) -> None:
    path = PACKAGE / name
    if not path.exists():
        pytest.fail(f"{name} is gone: take it off the list")
    ours = {f"flux_mpi.{other[:-3].replace('/', '.')}" for other in STANDARD_ONLY}
    for module in imported(path):
        top = module.partition(".")[0]
        assert module in ours | {"flux_mpi.shell"} or top in sys.stdlib_module_names, module
