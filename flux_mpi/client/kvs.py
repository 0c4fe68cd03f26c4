"""The key-value store as a client sees it."""

from __future__ import annotations

import errno
import os

from flux_mpi.message.errors import FluxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from flux_mpi.client.handle import Future, Handle


class KVS:
    """Keys are hierarchical, separated by dots; values are whatever msgpack holds.

    ``namespace`` defaults to ``primary``; in the instance that ``FLUX_URI`` names, to
    ``FLUX_KVS_NAMESPACE``: the part of the store that is a job's own. All methods raise FluxError:
    ENOENT for what is not there, EISDIR and ENOTDIR for the wrong kind.
    """

    def __init__(self, handle: Handle, namespace: str | None = None) -> None:
        self._handle = handle
        if not namespace and handle.uri == os.environ.get("FLUX_URI"):
            namespace = os.environ.get("FLUX_KVS_NAMESPACE")
        self.namespace = namespace or "primary"

    def commit(self, ops: list[list[Any]]) -> int:
        """Applies ``[key, value]``, ``[key, None, "unlink"]``, ``[key, target, "symlink"]``,
        ``[key, value, "append"]`` all or not at all; returns the new version."""
        version: int = self._handle.call("kvs.commit", {"ns": self.namespace, "ops": ops})[
            "version"
        ]
        return version

    def put(self, key: str, value: Any) -> int:
        """Sets one key; returns the new version."""
        return self.commit([[key, value]])

    def update(self, values: dict[str, Any]) -> int:
        """Sets many keys in one commit; returns the new version."""
        return self.commit([[key, value] for key, value in values.items()])

    def unlink(self, key: str) -> int:
        """Removes a key, or a directory with all below it; returns the new version."""
        return self.commit([[key, None, "unlink"]])

    def get(self, key: str, version: int | None = None) -> Any:
        """The value of ``key``."""
        return self.lookup(key, version=version)["value"]

    def exists(self, key: str) -> bool:
        """True for a value or a directory of that name."""
        try:
            self.lookup(key)
        except FluxError as error:
            if error.errno == errno.ENOENT:
                return False
            return error.errno == errno.EISDIR
        return True

    def ls(self, key: str = ".") -> list[str]:
        """The names in a directory, sorted."""
        return sorted(self.dir(key))

    def dir(self, key: str = ".", recursive: bool = False) -> dict[str, Any]:
        """A directory: values by name, subdirectories as dicts (empty unless ``recursive``)."""
        found: dict[str, Any] = self.lookup(key, dir=True, recursive=recursive)["dir"]
        return found

    def lookup(self, key: str, **how: Any) -> dict[str, Any]:
        """The raw ``kvs.lookup`` answer."""
        request = {"ns": self.namespace, "key": key}
        request.update({name: value for name, value in how.items() if value is not None})
        found: dict[str, Any] = self._handle.call("kvs.lookup", request)
        return found

    def watch(self, key: str, *, full: bool = False, waitcreate: bool = False) -> Future:
        """A stream of ``{value, version}``: now and after each change."""
        return self._handle.rpc(
            "kvs.watch",
            {"ns": self.namespace, "key": key, "full": full, "waitcreate": waitcreate},
            streaming=True,
        )

    def watch_values(self, key: str, *, waitcreate: bool = False) -> Iterator[Any]:
        """The values of ``key``, now and after each change."""
        stream = self.watch(key, waitcreate=waitcreate)
        try:
            for change in stream:
                yield change.get("value")
        finally:
            stream.cancel()

    @property
    def version(self) -> int:
        """Commits so far."""
        version: int = self._handle.call("kvs.getroot", {"ns": self.namespace})["version"]
        return version

    def wait_version(self, version: int, timeout: float | None = None) -> None:
        """Returns once the namespace is at ``version`` or later."""
        self._handle.call(
            "kvs.wait-version", {"ns": self.namespace, "version": version}, timeout=timeout
        )
