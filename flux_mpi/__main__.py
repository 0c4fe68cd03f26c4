"""``python -m flux_mpi``: the same as the ``flux-mpi`` command."""

import sys

from flux_mpi.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
