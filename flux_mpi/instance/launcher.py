"""Who started this process: the traces that launchers leave in the environment.

Standard library only: supervisors read it before anything else is loaded.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Variables that give a rank and a size, by launcher; the first that is complete wins.
_RANKS = (
    ("pmi", "PMI_RANK", "PMI_SIZE"),
    ("ompi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("pmix", "PMIX_RANK", "PMIX_SIZE"),
    ("slurm", "SLURM_PROCID", "SLURM_NTASKS"),
)

# Open MPI's launcher refuses root, and more ranks than cores, unless told otherwise.
OPENMPI_PERMISSIONS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    # Ranks divide the node's cores among themselves: a launcher's binding would hide them.
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


class Launch:
    """What the environment says about this process."""

    def __init__(self, launcher: str | None, rank: int, size: int) -> None:
        self.launcher = launcher
        """``pmi``, ``ompi``, ``pmix``, ``slurm``, or None: not started by a launcher."""
        self.rank = rank
        self.size = size


def detect(environ: Mapping[str, str] | None = None) -> Launch:
    """The launch that ``environ`` describes."""
    env = os.environ if environ is None else environ
    for launcher, rank_var, size_var in _RANKS:
        rank, size = env.get(rank_var, ""), env.get(size_var, "")
        if launcher == "pmix" and rank.isdigit() and not size:
            size = "2"  # PMIx tells the size only through its library: MPI_Init will know
        if launcher == "slurm" and not _is_step(env):
            continue
        if rank.isdigit() and size.isdigit():
            return Launch(launcher, int(rank), int(size))
    return Launch(None, 0, 1)


def _is_step(env: Mapping[str, str]) -> bool:
    """Whether srun started this very process (a batch script has SLURM_PROCID=0 as well)."""
    step = env.get("SLURM_STEP_ID", "")
    return step.isdigit() and int(step) < 0xFFFFFFF0


def find_mpiexec() -> str | None:
    """The mpiexec to use: the one installed beside this Python, else the one on PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), "mpiexec")
    if os.access(beside, os.X_OK):
        return beside
    import shutil  # only who launches needs it; every rank loads this module

    return shutil.which("mpiexec")


def mpiexec_command(mpiexec: str, size: int, words: list[str]) -> list[str]:
    """The command that starts ``size`` ranks of ``flux-mpi start WORDS`` on this machine."""
    # Open MPI's ends all ranks when one is killed, unless told that the others can go on.
    going_on = ["--continuous"] if is_open_mpi(mpiexec) else []
    ranks = ["-n", str(size), sys.executable, "-m", "flux_mpi", "start", *words]
    return [mpiexec, *going_on, *ranks]


def is_open_mpi(mpiexec: str) -> bool:
    """Whether ``mpiexec`` is Open MPI's: by its name, or else by what lies beside it."""
    real = os.path.realpath(mpiexec)
    name = os.path.basename(real)
    if "openmpi" in name or "prterun" in name or "orterun" in name:
        return True
    if "hydra" in name or "mpich" in name:
        return False
    return os.path.exists(os.path.join(os.path.dirname(real), "ompi_info"))


def singleton_trap(launch: Launch, mpi_size: int) -> str | None:
    """What to tell the user when the launcher started several ranks but MPI sees one.

    The classic cause is ``srun`` without a PMI that this MPI speaks.
    """
    if launch.size <= 1 or mpi_size == launch.size or launch.launcher == "pmix":
        return None
    if launch.launcher == "slurm":
        advice = "start it with 'srun --mpi=pmi2 flux-mpi start ...' or with mpiexec"
    else:
        advice = "use the mpiexec that belongs to the MPI library mpi4py uses"
    return (
        f"the launcher started {launch.size} ranks but MPI sees {mpi_size}: they cannot find each "
        f"other; {advice}"
    )
