"""Where the instance is: a local URI (``local://PATH``) to a Unix-domain socket, and back."""

from __future__ import annotations

import errno
import os

from flux_mpi.message.errors import FluxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEME = "local://"


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


def socket_path(uri: str) -> str:
    """The socket that ``uri`` names.

    Raises FluxError(EINVAL) for any other scheme, or no absolute path.
    """
    if not uri.startswith(SCHEME):
        raise FluxError(errno.EINVAL, f"cannot use the URI {uri!r}: expected local://PATH")
    path = uri[len(SCHEME) :]
    # '@' introduces a name in Linux's abstract namespace, which has no file.
    if not path.startswith(("/", "@")):
        raise FluxError(errno.EINVAL, f"cannot use the URI {uri!r}: PATH must be absolute")
    return "\0" + path[1:] if path.startswith("@") else path
