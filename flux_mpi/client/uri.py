"""Where an instance is: ``local://PATH`` to a Unix-domain socket, or ``ssh://HOST/PATH`` to one.

Nothing listens on a network: an ``ssh`` URI says on which host the socket is, and works there.
"""

from __future__ import annotations

import errno
import os

from flux_mpi.message.errors import FluxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEME = "local://"
REMOTE = "ssh://"
FORCE_LOCAL = "FLUX_URI_RESOLVE_LOCAL"
"""When set, every ``ssh`` URI is taken for one of this host, as with Flux."""


def instance_uri(uri: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """``uri``, or else what ``FLUX_URI`` says.

    Raises FluxError(ENOENT) when neither names an instance.
    """
    if uri:
        return uri
    found = (os.environ if environ is None else environ).get("FLUX_URI", "")
    if not found:
        raise FluxError(
            errno.ENOENT,
            "FLUX_URI is not set, so there is no instance to talk to: start one with "
            "'flux-mpi start', or set FLUX_URI=local://PATH to that of a running one",
        )
    return found


def split(uri: str) -> tuple[str, str]:
    """(host, path) of a ``local`` or ``ssh`` URI; the host of a local one is ''.

    Raises FluxError(EINVAL) for any other scheme, no host, or no absolute path.
    """
    if uri.startswith(SCHEME):
        path = uri[len(SCHEME) :]
        # '@' introduces a name in Linux's abstract namespace, which has no file.
        if not path.startswith(("/", "@")):
            raise FluxError(errno.EINVAL, f"cannot use the URI {uri!r}: PATH must be absolute")
        return "", path
    if not uri.startswith(REMOTE):
        raise FluxError(
            errno.EINVAL, f"cannot use the URI {uri!r}: expected local://PATH or ssh://HOST/PATH"
        )
    host, slash, path = uri[len(REMOTE) :].partition("/")
    if not host or not path:
        raise FluxError(errno.EINVAL, f"cannot use the URI {uri!r}: expected ssh://HOST/PATH")
    return host, slash + path


def to_local(uri: str) -> str:
    """The ``local`` form of a URI, whatever host it names. Raises FluxError(EINVAL)."""
    return SCHEME + split(uri)[1]


def to_remote(uri: str, host: str = "") -> str:
    """The ``ssh`` form of a URI; a local one is on ``host`` (default: this one).

    Raises FluxError(EINVAL).
    """
    named, path = split(uri)
    return f"{REMOTE}{named or host or os.uname().nodename}{path}"


def is_here(host: str) -> bool:
    """Whether ``host`` (``[USER@]NAME[:PORT]``) is this one, with its domain or without."""
    name = host.rpartition("@")[2].partition(":")[0].lower()
    here = os.uname().nodename.lower()
    if name in (here, "localhost") or os.environ.get(FORCE_LOCAL):
        return True
    short = "." not in name or "." not in here
    return short and name.partition(".")[0] == here.partition(".")[0]


def socket_path(uri: str) -> str:
    """The socket that ``uri`` names.

    Raises FluxError: EINVAL for what is no URI of an instance, EHOSTUNREACH for another host's.
    """
    host, path = split(uri)
    if host and not is_here(host):
        raise FluxError(
            errno.EHOSTUNREACH,
            f"{uri} is on another host, and connections over ssh are not supported: run the "
            f"command there, as in: ssh {host} FLUX_URI={SCHEME}{path} flux-mpi ...",
        )
    return "\0" + path[1:] if path.startswith("@") else path
