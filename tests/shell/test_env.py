from __future__ import annotations

import pytest

from flux_mpi.shell.env import encode_all, scrub, scrub_job


@pytest.mark.parametrize(
    "name",
    [
        "PMI_FD",
        "PMIX_RANK",
        "OMPI_COMM_WORLD_RANK",
        "PRTE_LAUNCHED",
        "HYDI_CONTROL_FD",
        "MPI_LOCALNRANKS",
        "SLURM_PROCID",
        "GFORTRAN_UNBUFFERED_PRECONNECTED",
        "FLUX_MPI_SUPERVISOR_FD",
    ],
)
def test_what_launchers_set_goes(name: str) -> None:
    assert scrub({name: "1", "HOME": "/"}) == {"HOME": "/"}


@pytest.mark.parametrize(
    "name",
    ["OMPI_MCA_btl", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "MPIR_CVAR_CH4_OFI", "MPICH_ASYNC", "PMIX"],
)
def test_what_users_set_stays(name: str) -> None:
    assert scrub({name: "1"}) == {name: "1"}


def test_an_initial_program_is_nobodys_task() -> None:
    env = {"FLUX_JOB_ID": "f1", "FLUX_TASK_RANK": "0", "FLUX_URI": "local:///x", "PATH": "/bin"}
    assert scrub_job(env) == {"FLUX_URI": "local:///x", "PATH": "/bin"}


def test_bytes_do_not_depend_on_the_locale() -> None:
    assert encode_all({"ID": "ƒ1", "RAW": "\udcff"}) == {b"ID": b"\xc6\x921", b"RAW": b"\xff"}
