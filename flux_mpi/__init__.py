"""flux-mpi: an MPI-native workload manager with the ideas and conventions of the Flux framework.

``import flux_mpi`` costs next to nothing; the names below are loaded when first used:

>>> import flux_mpi
>>> with flux_mpi.Handle() as handle:
...     handle.attr_get("size")
>>> ids = flux_mpi.submit(["hostname"], ntasks=2)
>>> flux_mpi.wait(ids[0]).returncode
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flux_mpi.client.aio import AsyncHandle as AsyncHandle
    from flux_mpi.client.batch import batch as batch
    from flux_mpi.client.batch import child_uri as child_uri
    from flux_mpi.client.executor import FluxExecutor as FluxExecutor
    from flux_mpi.client.executor import JobException as JobException
    from flux_mpi.client.groups import GroupChange as GroupChange
    from flux_mpi.client.handle import Handle as Handle
    from flux_mpi.client.jobs import cancel as cancel
    from flux_mpi.client.jobs import jobs as jobs
    from flux_mpi.client.jobs import kill as kill
    from flux_mpi.client.jobs import result as result
    from flux_mpi.client.jobs import submit as submit
    from flux_mpi.client.jobs import wait as wait
    from flux_mpi.client.jobs import wait_all as wait_all
    from flux_mpi.client.kvs import KVS as KVS
    from flux_mpi.client.tree import TreeResult as TreeResult
    from flux_mpi.client.tree import start_tree as start_tree
    from flux_mpi.client.tree import tree as tree
    from flux_mpi.client.workers import Workers as Workers
    from flux_mpi.formats.jobspec import Jobspec as Jobspec
    from flux_mpi.message.errors import FluxError as FluxError

__version__ = "0.1.0"

_HOME = {
    "AsyncHandle": "flux_mpi.client.aio",
    "FluxError": "flux_mpi.message.errors",
    "FluxExecutor": "flux_mpi.client.executor",
    "GroupChange": "flux_mpi.client.groups",
    "Handle": "flux_mpi.client.handle",
    "JobException": "flux_mpi.client.executor",
    "KVS": "flux_mpi.client.kvs",
    "Jobspec": "flux_mpi.formats.jobspec",
    "TreeResult": "flux_mpi.client.tree",
    "Workers": "flux_mpi.client.workers",
    "batch": "flux_mpi.client.batch",
    "cancel": "flux_mpi.client.jobs",
    "child_uri": "flux_mpi.client.batch",
    "jobs": "flux_mpi.client.jobs",
    "kill": "flux_mpi.client.jobs",
    "result": "flux_mpi.client.jobs",
    "submit": "flux_mpi.client.jobs",
    "start_tree": "flux_mpi.client.tree",
    "tree": "flux_mpi.client.tree",
    "wait": "flux_mpi.client.jobs",
    "wait_all": "flux_mpi.client.jobs",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'flux_mpi' has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
