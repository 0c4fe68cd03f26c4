"""A member of the search: computes the score of one candidate and puts it into the store.

python candidate.py KEY X Y POWER [SECONDS]
"""

from __future__ import annotations

import sys
import time

from oven import score

import flux_mpi


def main(words: list[str]) -> int:
    key, *numbers = words
    x, y, power, *pause = map(float, numbers)
    found = score((x, y, power))
    time.sleep(sum(pause))
    with flux_mpi.Handle() as handle:
        flux_mpi.KVS(handle, "primary").put(key, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
