"""Environments: what a launcher left behind is removed, what a job gets is added.

A process that finds the variables of somebody else's MPI launch takes itself for a rank of it and
aborts or hangs, so none may reach the initial program, a job or a remote command
(flux-environment(7) lists what Flux unsets).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LAUNCHER_PREFIXES = (
    "PMI_",
    "PMIX_",
    "PALS_",
    "OMPI_",
    "OPAL_",
    "PRTE_",
    "HYDRA_",
    "HYDI_",
    "MPIEXEC_",
    "MPI_LOCAL",
    "SLURM_",
)
"""Families of variables that launchers set for one launch."""

LAUNCHER_NAMES = frozenset(
    {
        "MPICH_INTERFACE_HOSTNAME",
        "MPIR_CVAR_CH3_INTERFACE_HOSTNAME",
        "GFORTRAN_UNBUFFERED_PRECONNECTED",
        "I_MPI_PMI_LIBRARY",
        "FLUX_PMI_LIBRARY_PATH",
        "FLUX_PROXY_REMOTE",
        "FLUX_MPI_SUPERVISOR_FD",
    }
)
"""Single variables of launchers; the rest of MPICH_ and MPIR_CVAR_ is the user's tuning."""

KEPT_PREFIXES = ("OMPI_MCA_", "PRTE_MCA_", "OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT")
"""Settings of the user's that look like a launcher's: Open MPI jobs as root need the last two."""

SURROUNDINGS = ("FLUX_ENCLOSING_ID", "FLUX_PARENT_URI")
"""What tells a program in which job of which other instance its own instance is."""

JOB_NAMES = frozenset(
    {
        "FLUX_JOB_ID",
        "FLUX_JOB_ID_PATH",
        "FLUX_JOB_SIZE",
        "FLUX_JOB_NNODES",
        "FLUX_JOB_TMPDIR",
        "FLUX_TASK_RANK",
        "FLUX_TASK_LOCAL_ID",
        "FLUX_KVS_NAMESPACE",
        *SURROUNDINGS,
    }
)
"""What a job's tasks get; whoever is not a task of this instance must not inherit them."""


def is_launchers(name: str) -> bool:
    """Did a launcher set ``name`` for one launch?"""
    if name.startswith(LAUNCHER_PREFIXES):
        return not name.startswith(KEPT_PREFIXES)
    return name in LAUNCHER_NAMES


def scrub(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without what launchers set."""
    return {name: value for name, value in environ.items() if not is_launchers(name)}


def scrub_job(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without what launchers set, nor an enclosing job: for an initial program."""
    return {name: value for name, value in scrub(environ).items() if name not in JOB_NAMES}


def path_with_us(path: str | None) -> str:
    """A search path on which ``flux-mpi`` is found: ``path`` (None: the default) if it is there."""
    path = os.defpath if path is None else path
    if any(os.access(os.path.join(it, "flux-mpi"), os.X_OK) for it in path.split(os.pathsep)):
        return path
    # Last, so that nothing the user has on PATH changes its meaning.
    return f"{path}{os.pathsep}{os.path.dirname(sys.executable)}"


def encode(text: str) -> bytes:
    """Text for the kernel, the same whatever the locale is."""
    return text.encode("utf-8", "surrogateescape")


def encode_all(environ: Mapping[str, str]) -> dict[bytes, bytes]:
    """An environment for the kernel."""
    return {encode(name): encode(value) for name, value in environ.items()}
