"""``flux-mpi uptime``: how long the instance has been running, and how it is."""

from __future__ import annotations

import time

from flux_mpi.cli.common import connect
from flux_mpi.cli.options import Arguments, Command
from flux_mpi.client.info import username
from flux_mpi.formats.duration import short
from flux_mpi.formats.idset import IDSet


def run(args: Arguments) -> int:
    with connect() as handle:
        asked = [
            handle.rpc("broker.info", {}, 0),
            handle.rpc("resource.status", {}),
            handle.rpc("job-manager.queue-list", {}),
        ]
        info, resources, queue = (future.get() for future in asked)
    parts = [
        f" {time.strftime('%H:%M:%S')} run {short(info['uptime'])}",
        f"owner {username(info['owner'])}",
        f"depth {info['depth']}",
        f"size {info['size']}",
    ]
    drained = sum(len(IDSet.parse(ranks)) for ranks in resources.get("drained") or {})
    offline = len(IDSet.parse(resources.get("offline") or ""))
    if drained:
        parts.append(f"{drained} drained")
    if offline:
        parts.append(f"{offline} offline")
    print(",  ".join(parts))
    notices = []
    if not queue["enable"]:
        notices.append("submit disabled")
    if not queue["start"]:
        notices.append("scheduler stopped")
    if notices:
        print("  " + ", ".join(notices))
    return 0


COMMAND = Command("uptime", "Say how long the instance has been running, and how it is.", run=run)
