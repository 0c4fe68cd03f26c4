"""One campaign, given to whatever answers requests: the simulated machine or a real instance.

Steps wait for each other where the order of events depends on it, so that the event logs are the
same each time but for their times.
"""

import json
import sys

from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.message.errors import FluxError


def spec(*command, duration=0, **request):
    request.setdefault("nslots", 1)
    return Jobspec.from_command(
        list(command), duration=duration, environment={}, cwd="/", **request
    ).to_dict()


def run_campaign(rpc, stream):
    """Submit, wait, break; returns the event logs without times, in order of submission.

    ``rpc(topic, payload)`` returns the answer, ``stream(topic, payload)`` the payloads of a stream
    until its end.
    """
    jobs = []

    def submit(jobspec, count=1, urgency=16, flags=0):
        payload = {
            "entries": [{"jobspec": jobspec, "count": count}], "urgency": urgency, "flags": flags
        }  # fmt: skip
        [[first, number]] = rpc("job-ingest.submit", payload)["arrays"]
        jobs.extend((first, k) for k in range(number))
        return [[first, number]]

    def wait(ids):
        return [
            done for part in stream("job-manager.wait-all", {"ids": ids}) for done in part["done"]
        ]

    wait(submit(spec("true")))
    wait(submit(spec("true"), count=8))
    wait(submit(spec("false", name="no"), count=3))
    wait(submit(spec("sleep", "0.05", nslots=8)))
    wait(submit(spec("true", nslots=4, nnodes=4)))
    wait(submit(spec("true", nslots=2, nnodes=2, exclusive=True)))
    wait(submit(spec("true", nslots=3, cores_per_task=2)))
    wait(submit(spec("true", nslots=9)))  # more than there is
    wait(submit(spec("sleep", "60", duration=0.2)))  # runs out of time
    held = submit(spec("true"), urgency=0)
    rpc("job-manager.urgency", {"id": held[0][0], "urgency": 20})
    wait(held)
    for state in ("held", "running"):
        doomed = submit(spec("sleep", "60"), urgency=0 if state == "held" else 16)
        if state == "running":
            watch = {"id": doomed[0][0], "path": "eventlog"}
            until_started(stream("job-info.eventlog-watch", watch))
        cancel = {"ids": doomed, "type": "cancel", "severity": 0, "note": f"was {state}"}
        rpc("job-manager.raise", cancel)
        wait(doomed)
    return [event_log(rpc, *job) for job in jobs]


def until_started(parts):
    for part in parts:
        if any(event["name"] == "start" for event in part["events"]):
            return


def event_log(rpc, first, k):
    from flux_mpi.formats import fluid

    text = rpc("job-info.lookup", {"id": fluid.nth(first, k), "keys": ["eventlog"]})["eventlog"]
    events = [json.loads(line) for line in text.splitlines()]
    return [[event["name"], event.get("context")] for event in events]


def main():
    """Run the campaign in the instance that FLUX_URI names; print the logs as JSON."""
    from flux_mpi import Handle

    with Handle() as handle:

        def rpc(topic, payload):
            return handle.rpc(topic, payload).get()

        def stream(topic, payload):
            return iter(handle.rpc(topic, payload, streaming=True))

        try:
            json.dump(run_campaign(rpc, stream), sys.stdout)
        except FluxError as error:
            sys.exit(f"{error.code}: {error}")


if __name__ == "__main__":
    main()
