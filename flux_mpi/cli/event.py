"""``flux-mpi event``: publish and receive events."""

from __future__ import annotations

import json
import sys

from flux_mpi.cli.common import connect
from flux_mpi.cli.options import Arguments, Command, UsageError, flag, integer, value


def publish(args: Arguments) -> int:
    topic, *words = args.operands
    text = " ".join(words)
    payload: object = None
    if words:
        payload = text
        if not args.raw:
            try:
                payload = json.loads(text)
            except ValueError as error:
                raise UsageError(f"flux-event: ERROR: payload is no JSON: {error}", 1) from None
    with connect() as handle:
        events = handle.events(topic) if args.loopback else None
        sequence = handle.publish(topic, payload)
        if events is not None:
            for _, seq, _ in events:
                if seq == sequence:
                    break
        if args.synchronous:
            print(sequence)
    return 0


def subscribe(args: Arguments) -> int:
    left = args.count
    with connect() as handle:
        for topic, _, payload in handle.events(*args.operands):
            shown = "" if payload is None else json.dumps(payload, separators=(",", ":"))
            sys.stdout.write(f"{topic}\t{shown}\n")
            sys.stdout.flush()
            left -= 1
            if left == 0:
                break
    return 0


COMMAND = Command(
    "event",
    "Publish and receive events.",
    subcommands=(
        Command(
            "pub",
            "Publish an event to the whole instance.",
            (
                flag("-r", "--raw", help="The payload is text, not JSON."),
                flag("-s", "--synchronous", help="Print the event's sequence number."),
                flag("-l", "--loopback", help="Wait until it has come back here."),
            ),
            operands="TOPIC [PAYLOAD...]",
            minimum=1,
            posix=True,
            run=publish,
        ),
        Command(
            "sub",
            "Print events whose topic begins with one of TOPIC (default: all).",
            (
                value(
                    "-c",
                    "--count",
                    metavar="N",
                    default=0,
                    convert=integer(1),
                    help="Stop after N events.",
                ),
            ),
            operands="[TOPIC...]",
            run=subscribe,
        ),
    ),
)
