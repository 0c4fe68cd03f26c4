"""Names of hosts, taken apart as the readers of R and of hwloc do."""

from __future__ import annotations

from flux_mpi.resource.readers.errors import refusal

_MAX_ID = (1 << 63) - 1


def split(format: str, place: str, host: str) -> tuple[str, int]:
    """``("node", 7)`` of ``node007``: what is before the number at the end, and the number.

    Without a number it is -1, and a name that is all digits is its own first part. Raises
    `ReaderError` for a number of more than 63 bits.
    """
    base = host.rstrip("0123456789")
    if base == host:
        return host, -1
    digits = host[len(base) :].lstrip("0") or "0"
    if len(digits) > 19 or int(digits) > _MAX_ID:
        raise refusal(format, place, f"a number of at most {_MAX_ID} at its end", host)
    return base or host, int(digits)
