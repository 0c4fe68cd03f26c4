"""Commands against a fake broker: what they ask, print and exit with."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from typing import Any

import pytest

from flux_mpi.cli.common import id_form, parse_signal, parse_since
from flux_mpi.cli.main import main
from flux_mpi.formats import fluid
from tests.client.fakebroker import FakeBroker, Request, streaming

FIRST = fluid.parse("ƒ8hjSb9Z")
JOBS: list[dict[str, Any]] = [
    {
        "id": FIRST,
        "userid": 0,
        "state": 8,
        "name": "sleep",
        "ntasks": 8,
        "duration": 300.0,
        "urgency": 16,
        "priority": 16,
        "t_submit": 1.0,
    },
    {
        "id": fluid.parse("ƒ8JkdioZ"),
        "userid": 0,
        "state": 8,
        "name": "sleep",
        "ntasks": 8,
        "duration": 0.0,
        "urgency": 0,
        "priority": 0,
        "t_submit": 1.0,
    },
    {
        "id": fluid.parse("ƒ8DZgEbZ"),
        "userid": 0,
        "state": 64,
        "result": 1,
        "name": "true",
        "ntasks": 1,
        "nnodes": 1,
        "t_submit": 1.0,
        "t_run": 10.0,
        "t_cleanup": 10.067,
        "nodelist": "vm",
        "waitstatus": 0,
    },
]


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command; returns (status, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


# -- jobs ------------------------------------------------------------------------------------------


def test_jobs_looks_like_flux(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-list.list"] = streaming({"jobs": JOBS[:2]}, {"jobs": JOBS[2:]})
    assert out("jobs", "-a") == (
        0,
        "       JOBID USER     NAME       ST NTASKS NNODES     TIME INFO\n"
        "    ƒ8hjSb9Z root     sleep       S      8      -       5m \n"
        "    ƒ8JkdioZ root     sleep       S      8      -        - held\n"
        "    ƒ8DZgEbZ root     true       CD      1      1   0.067s vm\n",
        "",
    )
    request = broker.payload("job-list.list")
    assert (request["states"], request["results"], request["max_entries"]) == (126, 0, 1001)
    assert "username" not in request["attrs"]
    assert {"state", "name", "userid", "nodelist"} <= set(request["attrs"])


def test_jobs_filters(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-list.list"] = streaming({"jobs": []})

    def asked(*words: str) -> dict[str, Any]:
        assert out("jobs", *words)[0] == 0
        found: dict[str, Any] = broker.payload("job-list.list")
        return found

    assert asked()["states"] == 62
    assert asked("-f", "failed,running")["states"] == 64 | 48
    assert asked("-f", "failed")["results"] == 2
    assert asked("-c", "0")["max_entries"] == 0
    assert "userid" not in asked("-A")
    assert asked("-u", "12345")["userid"] == 12345
    assert "userid" not in asked("-u", "all")
    assert asked("--name=x", "-i", "0-3")["ranks"] == "0-3"
    since = asked("--since=-1h")
    assert time.time() - 3700 < since["since"] < time.time() - 3500
    assert since["states"] == 126


def test_jobs_truncation_is_told(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-list.list"] = streaming({"jobs": JOBS})
    status, text, err = out("jobs", "-a", "-c2")
    assert (status, text.count("\n")) == (0, 3)
    assert err.startswith("warning: output truncated at 2 jobs.\nUse --count to increase")
    assert out("jobs", "-an", "-c2")[2] == ""


def test_jobs_by_id(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-list.list"] = streaming({"jobs": JOBS[:1]})
    status, text, err = out("jobs", "-no", "{id.f58}", "ƒ8hjSb9Z", "f99")
    assert (status, text, err) == (1, "ƒ8hjSb9Z\n", "JobID ƒ99 unknown\n")
    broker.handlers["job-list.list"] = lambda r: r.error(errno.ENOENT, "no")
    assert out("jobs", "f99") == (1, "", "JobID ƒ99 unknown\n")
    status, _, err = out("jobs", "-q")
    assert status == 2
    status, _, err = out("jobs", "garbage!")
    assert (status, "invalid job id" in err) == (1, True)


def test_jobs_json_and_stats(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-list.list"] = streaming({"jobs": JOBS[:1]})
    found = json.loads(out("jobs", "--json")[1])
    assert found["jobs"][0]["jobid"] == "ƒ8hjSb9Z"
    assert "attrs" not in broker.payload("job-list.list")
    assert json.loads(out("jobs", "--json", "ƒ8hjSb9Z")[1])["state"] == "SCHED"
    broker.handlers["job-list.stats"] = {
        "job_states": {"depend": 1, "sched": 3, "run": 1, "cleanup": 0},
        "successful": 15,
        "failed": 12,
        "canceled": 0,
        "timeout": 1,
        "inactive_purged": 0,
    }
    counts = "1 running, 15 completed, 13 failed, 4 pending, 0 inactive purged\n"
    assert out("jobs", "--stats-only") == (0, counts, "")
    assert out("jobs", "--stats", "-n")[1].startswith(counts)
    broker.handlers["job-list.stats"] = {"job_states": {}}
    assert out("jobs", "--stats-only")[0] == 1
    assert out("jobs", "--stats", "--json")[0] == 1


def test_jobs_formats(broker: FakeBroker, out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.handlers["job-list.list"] = streaming({"jobs": JOBS})
    assert out("jobs", "-o", "{nosuch}") == (
        1,
        "",
        "flux-jobs: ERROR: Error in user format: Unknown format field: nosuch\n",
    )
    assert "expected a name (default, cute, long, deps, endreason, help)" in out("jobs", "-ox")[2]
    assert "endreason    Show why each job ended\n" in out("jobs", "-o", "help")[1]
    for name in ("long", "cute", "deps", "endreason"):
        assert out("jobs", "-o", name)[0] == 0
    lines = out("jobs", "-o", "deps")[1].splitlines()
    assert lines[0] == "       JOBID NAME       URG PRI          STATE    DEPENDENCIES"
    assert lines[2] == "    ƒ8JkdioZ sleep      0   0            SCHED    "
    assert out("jobs", "-no", "{ntasks}", "--sort=-ntasks")[1] == "8\n8\n1\n"
    monkeypatch.setenv("FLUX_JOBS_FORMAT_DEFAULT", "{name}")
    assert out("jobs", "-n")[1] == "sleep\nsleep\ntrue\n"
    assert out("jobs", "-nw4")[1] == "sle+\nsle+\ntrue\n"
    assert "\033[01;32mtrue" in out("jobs", "--color=always")[1]


def test_pgrep_and_pkill(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-list.list"] = streaming({"jobs": JOBS})
    broker.handlers["job-manager.raise"] = {"errors": {}}
    assert out("pgrep", "sl") == (0, "ƒ8hjSb9Z\nƒ8JkdioZ\n", "")
    assert out("pgrep", "f8JkdioZ..f8JkdioZ")[1] == "ƒ8JkdioZ\n"
    assert out("pgrep", "nothing") == (1, "", "")
    assert out("pgrep", "(")[0] == 2
    assert out("pgrep", "-no{name}", "tr")[1] == "true\n"
    assert out("pkill", "-m", "why", "sleep")[0] == 0
    request = broker.payload("job-manager.raise")
    assert (sum(count for _, count in request["ids"]), request["note"]) == (2, "why")


def test_pstree(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-list.list"] = streaming({"jobs": JOBS})
    assert out("pstree", "-a")[1] == ".\n├── 2*[sleep:S]\n└── true:CD\n"
    assert out("pstree", "-aX", "--ascii")[1].splitlines()[3] == "`-- true:CD"
    assert out("pstree", "-x")[1].splitlines()[0].split()[:3] == ["JOBID", "USER", "ST"]


# -- cancel, job -----------------------------------------------------------------------------------


def test_cancel(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-manager.raise"] = {"errors": {}}
    assert out("cancel", "ƒ8hjSb9Z", "-m", "because") == (0, "", "")
    assert broker.payload("job-manager.raise") == {
        "ids": [[FIRST, 1]],
        "type": "cancel",
        "severity": 0,
        "note": "because",
    }
    broker.handlers["job-manager.raise"] = {"errors": {FIRST: "unknown job id"}}
    assert out("cancel", "ƒ8hjSb9Z") == (1, "", "flux-cancel: ERROR: ƒ8hjSb9Z: unknown job id\n")
    status, _, err = out("cancel", "ƒ8hjSb9Z", "because")
    assert (status, "invalid job id: 'because'" in err) == (2, True)
    assert out("cancel")[0] == 1
    assert out("cancel", "--all", "f1")[0] == 1
    broker.handlers["job-manager.raise-all"] = {"count": 5, "errors": 0}
    assert out("cancel", "--all")[2] == "flux-cancel: Canceled 5 jobs (0 errors)\n"
    assert out("cancel", "-S", "pending", "-n")[2] == "flux-cancel: Command matched 5 jobs\n"
    assert broker.payload("job-manager.raise-all")["states"] == 14
    status, _, err = out("cancel", "-S", "nosuch")
    assert (status, "invalid state 'nosuch'" in err) == (2, True)


EVENTS: list[dict[str, Any]] = [
    {"timestamp": 1795323862.215075, "name": "submit", "context": {"userid": 0, "urgency": 16}},
    {"timestamp": 1795323862.25, "name": "start"},
    {"timestamp": 1795323862.3, "name": "finish", "context": {"status": 0}},
]


def test_event_logs(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-info.lookup"] = {
        "eventlog": "".join(json.dumps(event) + "\n" for event in EVENTS)
    }
    assert out("job", "eventlog", "ƒ8hjSb9Z")[1].splitlines() == [
        "1795323862.215075 submit userid=0 urgency=16",
        "1795323862.250000 start",
        "1795323862.300000 finish status=0",
    ]
    human = out("job", "eventlog", "-H", "ƒ8hjSb9Z")[1].splitlines()
    assert human[1] == "[  +0.034925] start"
    assert (
        json.loads(out("job", "eventlog", "-f", "json", "ƒ8hjSb9Z")[1].split("\n")[1]) == EVENTS[1]
    )
    broker.handlers["job-info.eventlog-watch"] = streaming({"events": EVENTS})
    assert len(out("job", "eventlog", "-F", "ƒ8hjSb9Z")[1].splitlines()) == 3
    assert out("job", "eventlog", "-T", "bad", "ƒ8hjSb9Z")[0] == 2


def test_wait_event(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-info.eventlog-watch"] = streaming({"events": EVENTS})
    assert out("job", "wait-event", "f1", "start")[1] == "1795323862.250000 start\n"
    assert out("job", "wait-event", "-q", "f1", "start")[1] == ""
    assert out("job", "wait-event", "-v", "f1", "start")[1].count("\n") == 2
    assert out("job", "wait-event", "-m", "status=0", "f1", "finish")[0] == 0
    assert out("job", "wait-event", "-m", "status=1", "f1", "finish")[0] == 1
    assert out("job", "wait-event", "f1", "nosuch") == (
        1,
        "",
        "flux-job: event 'nosuch' never received\n",
    )
    broker.handlers["job-info.eventlog-watch"] = lambda r: None
    status, _, err = out("job", "wait-event", "-t", "0.01", "f1", "x")
    assert (status, err) == (1, "flux-job: wait-event timeout on event 'x'\n")
    out("job", "wait-event", "-t", "0.01", "f1", "exec.shell.init")
    assert broker.payload("job-info.eventlog-watch")["path"] == "guest.exec.eventlog"


def test_waiting_for_waitable_jobs(broker: FakeBroker, out: Any) -> None:
    answers = [
        {"id": FIRST, "success": True, "status": 0},
        {"id": FIRST, "success": False, "status": 256},
        {
            "id": FIRST,
            "success": False,
            "status": None,
            "exception": {"type": "cancel", "note": "no"},
        },
    ]

    def wait(request: Request) -> None:
        if answers:
            request.respond(answers.pop(0))
        else:
            request.error(errno.ECHILD, "there are no more waitable jobs")

    broker.handlers["job-manager.wait"] = wait
    assert out("job", "wait", "ƒ8hjSb9Z") == (0, "", "")
    assert broker.payload("job-manager.wait") == {"id": FIRST}
    assert out("job", "wait", "--all") == (
        1,
        "",
        "ƒ8hjSb9Z: task(s) exited with exit code 1\nƒ8hjSb9Z: Fatal exception type=cancel no\n",
    )
    assert out("job", "wait")[0] == 2
    assert out("job", "wait", "nonsense!")[0] == 2


def test_status_is_the_worst(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-manager.wait-all"] = streaming(
        {"done": [[FIRST, 0], [FIRST + 1, 2 << 8], [FIRST + 2, None, "cancel: x"]]}
    )
    assert out("job", "status", "f1")[0] == 2
    assert out("job", "status", "-e", "99", "f1")[0] == 99
    assert "exited with exit code 2" in out("job", "status", "-v", "f1")[2]


def test_raise_kill_urgency(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-manager.raise"] = {"errors": {}}
    assert out("job", "raise", "-t", "foo", "-s1", "ƒ8hjSb9Z", "some", "note")[0] == 0
    assert broker.payload("job-manager.raise") == {
        "ids": [[FIRST, 1]],
        "type": "foo",
        "severity": 1,
        "note": "some note",
    }
    broker.handlers["job-manager.raise"] = {"errors": {FIRST: "ƒ8hjSb9Z: unknown job id"}}
    assert out("job", "raise", "ƒ8hjSb9Z")[2] == "flux-job: raise ƒ8hjSb9Z: unknown job id\n"
    broker.handlers["job-manager.kill"] = lambda r: r.error(errno.EINVAL, "job is not running")
    status, _, err = out("job", "kill", "-s", "USR1", "ƒ8hjSb9Z")
    assert (status, err) == (1, "flux-job: kill ƒ8hjSb9Z: job is not running\n")
    assert broker.payload("job-manager.kill") == {"id": FIRST, "signum": 10}
    broker.handlers["job-manager.urgency"] = {"old": 16}
    assert out("job", "urgency", "-v", "ƒ8hjSb9Z", "hold")[2] == "old urgency: default\n"
    assert broker.payload("job-manager.urgency")["urgency"] == 0
    assert "expected 0 to 31, hold" in out("job", "urgency", "ƒ8hjSb9Z", "32")[2]
    broker.handlers["job-manager.raise-all"] = {"count": 2, "errors": 0}
    assert (
        out("job", "raiseall", "mytype")[2] == "flux-job: Command matched 2 jobs (-f to confirm)\n"
    )


def test_ids(out: Any, broker: FakeBroker) -> None:
    assert out("job", "id", "--to=dec", "ƒ8hjSb9Z")[1] == "293215404032\n"
    assert out("job", "id", "--to=kvs", "293215404032")[1] == "job.0000.0044.4500.0000\n"
    status, text, err = out("job", "id", "ƒ8hjSb9Z", "?")
    assert (status, text) == (1, "ƒ8hjSb9Z\n")
    assert "?" in err
    broker.handlers["job-list.list"] = streaming({"jobs": JOBS})
    assert out("job", "last")[1] == "ƒ8hjSb9Z\n"
    assert out("job", "last", "2")[1] == "ƒ8hjSb9Z\nƒ8JkdioZ\n"
    assert out("job", "last", "[::-1]")[1].split()[-1] == "ƒ8hjSb9Z"
    assert out("job", "last", "[-1]")[1] == "ƒ8DZgEbZ\n"
    for bad in ("0", "x", "[::0]", "[1", "[]"):
        assert out("job", "last", bad)[0] == 2
    broker.handlers["job-list.list"] = streaming({"jobs": []})
    assert out("job", "last") == (1, "", "flux-job: job history is empty\n")


def test_timeleft(broker: FakeBroker, out: Any) -> None:
    assert out("job", "timeleft")[1] == "4294967295\n"
    assert out("job", "timeleft", "-H")[1] == "infinity\n"
    record = {"id": FIRST, "state": 16, "expiration": time.time() + 100.5}
    broker.handlers["job-list.list"] = streaming({"jobs": [record]})
    assert out("job", "timeleft", "ƒ8hjSb9Z")[1] in ("99\n", "100\n")
    broker.handlers["job-list.list"] = streaming({"jobs": [{**record, "state": 64}]})
    assert out("job", "timeleft", "ƒ8hjSb9Z")[1] == "0\n"
    broker.handlers["job-list.list"] = streaming({"jobs": [{**record, "state": 8}]})
    assert out("job", "timeleft", "ƒ8hjSb9Z")[0] == 1


def test_taskmap(out: Any) -> None:
    assert out("job", "taskmap", "--to=raw", "[[0,2,2,1]]")[1] == "0-1;2-3\n"
    assert out("job", "taskmap", "--taskids=1", "[[0,2,2,1]]")[1] == "2-3\n"
    assert out("job", "taskmap", "--nodeid=3", "[[0,2,2,1]]")[1] == "1\n"
    assert out("job", "taskmap", "[[0")[0] == 1


def test_info(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-info.lookup"] = {"R": {"version": 1}, "eventlog": "a\nb\n"}
    assert out("job", "info", "f1", "R")[1] == '{"version": 1}\n'
    assert out("job", "info", "f1", "eventlog")[1] == "a\nb\n"
    assert out("job", "info", "--original", "f1", "R")[0] == 0
    assert broker.payload("job-info.lookup")["original"] is True
    assert out("job", "info", "f1") == (
        2,
        "",
        "usage: flux-mpi job info [OPTIONS...] JOBID KEY\n"
        "flux-mpi job info: error: JOBID is missing\n",
    )


# -- resource, queue -------------------------------------------------------------------------------

STATUS = {
    "R": {
        "version": 1,
        "execution": {
            "R_lite": [{"rank": "0-3", "children": {"core": "0-1"}}],
            "starttime": 0.0,
            "expiration": 0.0,
            "nodelist": ["n[0-3]"],
        },
    },
    "allocated": {
        "version": 1,
        "execution": {
            "R_lite": [{"rank": "1", "children": {"core": "0"}}],
            "starttime": 0.0,
            "expiration": 0.0,
            "nodelist": ["n1"],
        },
    },
    "drained": {"1": [1e9, "slow"], "3": [1e9, "bad node"]},
    "online": "0-1,3",
    "offline": "2",
    "exclude": "",
    "expiration": 0.0,
}


def test_resource_views(broker: FakeBroker, out: Any) -> None:
    broker.handlers["resource.status"] = STATUS
    assert out("resource", "list")[1].splitlines() == [
        "     STATE NNODES NCORES NGPUS NODELIST",
        "      free      1      2     0 n0",
        " allocated      1      1     0 n1",
        "      down      3      6     0 n[1-3]",
    ]
    assert (
        out("resource", "list", "-no", "{state} {rlist}", "-s", "up")[1] == "up rank0/core[0-1]\n"
    )
    assert out("resource", "info")[1] == "4 Nodes, 8 Cores, 0 GPUs\n"
    assert out("resource", "info", "-i", "n[0-1]")[1] == "2 Nodes, 4 Cores, 0 GPUs\n"
    assert json.loads(out("resource", "R")[1])["execution"]["nodelist"] == ["n[0-3]"]
    lines = [line.split() for line in out("resource", "status")[1].splitlines()]
    assert lines == [
        ["STATE", "UP", "NNODES", "NODELIST"],
        ["avail", "✔", "1", "n0"],
        ["avail*", "✗", "1", "n2"],
        ["draining", "✔", "1", "n1"],
        ["drained", "✔", "1", "n3"],
    ]
    drained = out("resource", "drain")[1].splitlines()
    assert drained[0] == "TIME         STATE    REASON                         NODELIST"
    assert [line.split()[2:] for line in drained[1:]] == [
        ["draining", "slow", "n1"],
        ["drained", "bad", "node", "n3"],
    ]
    assert out("resource", "list", "-s", "nosuch")[0] == 1
    assert len(json.loads(out("resource", "list", "--json")[1])["resources"]) == 3


def test_draining(broker: FakeBroker, out: Any) -> None:
    broker.handlers["resource.drain"] = lambda r: r.respond()
    broker.handlers["resource.undrain"] = lambda r: r.error(errno.EINVAL, "rank 3 not drained")
    assert out("resource", "drain", "3", "bad", "node") == (0, "", "")
    assert broker.payload("resource.drain") == {"targets": "3", "reason": "bad node"}
    out("resource", "drain", "-ff", "3")
    assert broker.payload("resource.drain")["mode"] == "force-overwrite"
    assert out("resource", "undrain", "3")[2] == "flux-resource: ERROR: rank 3 not drained\n"
    assert out("resource", "drain", "-fu", "3")[0] == 2


def test_the_resource_log(broker: FakeBroker, out: Any) -> None:
    events = [
        {"timestamp": 1.0, "name": "online", "context": {"idset": "0"}},
        {"timestamp": 2.0, "name": "drain", "context": {"idset": "3", "reason": "x"}},
    ]
    broker.handlers["resource.journal"] = streaming({"events": events})
    assert out("resource", "eventlog")[1] == (
        '1.000000 online idset="0"\n2.000000 drain idset="3" reason="x"\n'
    )
    assert out("resource", "eventlog", "-w", "drain")[1].count("\n") == 1
    broker.handlers["resource.status"] = STATUS
    assert out("resource", "eventlog", "-i", "3")[1].count("\n") == 1


def queue_answer(**more: Any) -> dict[str, Any]:
    inf = float("inf")
    return {
        "enable": True,
        "start": True,
        "counts": {"running": 2},
        "policy": "fcfs",
        "requires": [],
        "defaults": {"duration": 0.0},
        "limits": {
            "duration": inf,
            "max": {"nnodes": inf, "ncores": inf, "ngpus": inf},
            "min": {"nnodes": 0, "ncores": 0, "ngpus": 0},
        },
        **more,
    }


def test_queue(broker: FakeBroker, out: Any) -> None:
    answer = queue_answer()
    broker.handlers["job-manager.queue-list"] = {"queues": [], "default": ""}
    broker.handlers["job-manager.queue-status"] = lambda r: r.respond(answer)
    assert out("queue", "status")[1] == "Job submission is enabled\nScheduling is started\n"
    assert out("queue", "status", "-v")[1].splitlines()[-1] == "2 running jobs"
    broker.handlers["job-manager.queue-enable"] = lambda r: r.respond(answer.update(r.payload))
    broker.handlers["job-manager.queue-start"] = lambda r: r.respond(answer.update(r.payload))
    assert out("queue", "stop", "-a")[1] == "Scheduling is stopped\n"
    answer["disable_reason"] = "maint"
    assert out("queue", "disable", "-m", "maint")[1] == "Job submission is disabled: maint\n"
    assert out("queue", "disable", "--quiet") == (0, "", "")
    assert broker.payload("job-manager.queue-enable")["reason"] == "disabled by administrator"
    status, _, err = out("queue", "disable", "--all", "maint")
    assert (status, err) == (1, "flux-queue: ERROR: disable: 'maint' is not a valid queue\n")
    broker.handlers["resource.status"] = STATUS
    lines = out("queue", "list")[1].splitlines()
    assert lines[0].split() == ["EN", "ST", "TDEFAULT", "TLIMIT", "NNODES", "NCORES", "NGPUS"]
    assert lines[1].split() == ["✗", "✗", "inf", "inf", "0-4", "0-8", "0-0"]
    broker.handlers["job-manager.idle"] = lambda r: r.respond({"pending": 3})
    assert out("queue", "idle")[1] == "3 jobs\n"
    assert out("queue", "idle", "--quiet")[1] == "3 jobs\n"
    broker.handlers["job-manager.drain"] = lambda r: None
    status, _, err = out("queue", "drain", "-t", "0.01")
    assert (status, "no answer within 0.01 s" in err) == (1, True)


def test_named_queues(broker: FakeBroker, out: Any) -> None:
    answers = {
        "batch": queue_answer(start=False, stop_reason="later", policy="easy"),
        "fast": queue_answer(
            start=False, blocked="parent", parent="batch", stop_reason="parent queue is stopped"
        ),
    }
    answers["batch"]["limits"]["max"]["nnodes"] = 3
    answers["batch"]["defaults"]["duration"] = 3600.0
    broker.handlers["job-manager.queue-list"] = {"queues": ["batch", "fast"], "default": "batch"}
    broker.handlers["job-manager.queue-status"] = lambda r: r.respond(answers[r.payload["name"]])
    broker.handlers["resource.status"] = STATUS
    lines = [line.split() for line in out("queue", "list")[1].splitlines()]
    assert lines[0][:4] == ["QUEUE", "PARENT", "EN", "ST"]
    assert lines[1] == ["batch*", "✔", "✗", "1h", "inf", "0-3", "0-8", "0-0"]
    assert lines[2][:4] == ["fast", "batch", "✔", "⏸"]
    form = (
        "{queue} {started.ascii} {scheduling} {policy} {limits.max.nnodes} {resources.all.nnodes}"
    )
    assert (
        out("queue", "list", "-q", "fast", "-no", form)[1] == "fast p stopped (parent) fcfs inf 4\n"
    )
    assert out("queue", "list", "-o", "policy")[1].splitlines()[1].split()[-4:] == [
        *("0-3", "0-inf", "0-inf", "easy")
    ]
    assert out("queue", "list", "-q", "nope")[0] == 1
    assert out("queue", "status", "batch")[1] == (
        "batch: Job submission is enabled\nbatch: Scheduling is stopped: later\n"
    )
    assert len(out("queue", "status")[1].splitlines()) == 4
    assert "Specify queues or use --all" in out("queue", "stop")[2]
    assert "Use --all to apply" in out("queue", "enable")[2]
    assert "Conflicting queues" in out("queue", "stop", "-q", "batch", "fast")[2]
    broker.handlers["job-manager.queue-start"] = lambda r: r.respond()
    out("queue", "start", "-q", "batch")
    assert broker.payload("job-manager.queue-start") == {
        "start": True,
        "all": False,
        "name": "batch",
    }
    assert len(out("queue", "start", "--all", "-v")[1].splitlines()) == 5


# -- kvs -------------------------------------------------------------------------------------------


def test_kvs(broker: FakeBroker, out: Any) -> None:
    broker.handlers["kvs.commit"] = {"version": 7}
    assert out("kvs", "put", "-s", "a.b.c=1", "a.d=foo", 'x={"k":1}', "e=", "f=1.50") == (
        0,
        "7\n",
        "",
    )
    assert broker.payload("kvs.commit") == {
        "ns": "primary",
        "ops": [["a.b.c", 1], ["a.d", "foo"], ["x", {"k": 1}], ["e", ""], ["f", "1.50"]],
    }
    assert out("kvs", "put", "novalue")[0] == 2
    broker.handlers["kvs.lookup"] = {"value": {"k": [1, "ä"]}}
    assert out("kvs", "get", "x")[1] == '{"k":[1,"ä"]}\n'
    assert out("kvs", "get", "-l", "x")[1] == 'x={"k":[1,"ä"]}\n'
    broker.handlers["kvs.lookup"] = {"value": "text"}
    assert out("kvs", "get", "-r", "x")[1] == "text"
    broker.handlers["kvs.lookup"] = lambda r: r.error(errno.ENOENT, "No such file or directory")
    assert out("kvs", "get", "nosuchkey") == (
        1,
        "",
        "flux-kvs: nosuchkey: No such file or directory\n",
    )
    broker.handlers["kvs.watch"] = streaming({"value": 1}, {"value": 2}, {"value": 3})
    assert out("kvs", "get", "-w", "-c2", "x")[1] == "1\n2\n"
    assert out("kvs", "watch", "x")[1] == "1\n2\n3\n"
    broker.handlers["kvs.getroot"] = {"version": 326, "owner": 0}
    assert out("kvs", "version")[1] == "326\n"


def test_kvs_directories(broker: FakeBroker, out: Any) -> None:
    flat = {
        "dir": {"b": {}, "d": "foo", "m": {"x": 1}, "l": None},
        "dirs": ["b"],
        "links": {"l": "d"},
    }
    broker.handlers["kvs.lookup"] = flat
    assert out("kvs", "dir", "a")[1] == 'a.b.\na.d = foo\na.l -> d\na.m = {"x":1}\n'
    assert out("kvs", "ls", "-F", "a")[1] == "b.    d     l@    m\n"
    assert out("kvs", "ls", "-1", "a")[1] == "b\nd\nl\nm\n"
    tree = {"dir": {"b": {"c": 1}, "d": "foo"}, "dirs": ["b"], "links": {}}
    broker.handlers["kvs.lookup"] = tree
    assert out("kvs", "dir", "-R", "a")[1] == "a.b.c = 1\na.d = foo\n"
    assert out("kvs", "ls", "-R")[1] == ".:\nb    d\n\nb:\nc\n"
    assert out("kvs", "unlink", "a") == (
        1,
        "",
        "flux-kvs: cannot unlink 'a': Directory not empty\n",
    )
    broker.handlers["kvs.commit"] = {"version": 8}
    assert out("kvs", "unlink", "-R", "a")[0] == 0
    assert broker.payload("kvs.commit")["ops"] == [["a", None, "unlink"]]
    assert out("kvs", "link", "-T", "other", "t", "l")[0] == 0
    assert broker.payload("kvs.commit")["ops"] == [["l", "other::t", "symlink"]]
    broker.handlers["kvs.namespace-list"] = {
        "namespaces": [{"namespace": "primary", "owner": 0, "flags": 0, "version": 1}]
    }
    assert out("kvs", "namespace", "list")[1].splitlines()[1].split() == [
        "primary",
        "0",
        "0x00000000",
    ]


# -- the rest --------------------------------------------------------------------------------------


def test_attributes_events_and_log(broker: FakeBroker, out: Any) -> None:
    broker.handlers["attr.list"] = {"attrs": {"size": "4", "rank": "0"}}
    broker.handlers["attr.set"] = lambda r: r.respond()
    assert out("getattr", "size") == (0, "4\n", "")
    assert "nosuch: no such attribute" in out("getattr", "nosuch")[2]
    assert out("lsattr")[1] == "rank\nsize\n"
    assert out("lsattr", "-v")[1].splitlines()[1].split() == ["size", "4"]
    assert out("setattr", "x", "y")[0] == 0
    assert out("setattr", "x")[0] == 2
    broker.handlers["event.publish"] = {"seq": 9}
    assert out("event", "pub", "-s", "a.b", '{"x":', "1}")[1] == "9\n"
    assert broker.payload("event.publish") == {"topic": "a.b", "payload": {"x": 1}}
    assert out("event", "pub", "a.b", "{")[0] == 1
    broker.handlers["event.subscribe"] = streaming(
        {"topic": "", "seq": 0}, {"topic": "a.b", "seq": 1, "payload": {"x": 1}}
    )
    assert out("event", "sub", "-c1")[1] == 'a.b\t{"x":1}\n'
    broker.handlers["log.append"] = lambda r: r.respond()
    assert out("logger", "-s", "err", "two", "words")[0] == 0
    assert broker.payload("log.append") == {"level": 3, "component": "logger", "text": "two words"}
    broker.handlers["log.dmesg"] = streaming(
        {"entries": [[1795323839.460545, 7, "broker", 0, "hi"], [1795323839.5, 3, "x", 1, "oh"]]}
    )
    assert out("dmesg")[1].splitlines()[0] == "2026-11-22T05:03:59.460545Z broker.debug[0]: hi"
    assert out("dmesg", "-H")[1].splitlines()[1] == "[  +0.039455] x.err[1]: oh"


def test_ping(broker: FakeBroker, out: Any) -> None:
    status, text, _ = out("ping", "-c2", "-i0", "-p", "1k", "0")
    assert status == 0
    assert text.splitlines()[0] == "flux-ping 0!broker"
    assert text.splitlines()[2].startswith("0!broker.ping pad=1024 seq=1 time=")
    status, _, err = out("ping", "-c1", "nosuch")
    assert (status, err) == (1, "flux-ping: any!nosuch.ping: nosuch.ping: no such service\n")
    assert out("ping", "-b", "0")[0] == 2
    assert "expected a number, any or upstream" in out("ping", "x!broker")[2]


TREE = {
    "rank": 0,
    "hostname": "n0",
    "status": "partial",
    "since": 0.0,
    "children": [
        {
            "rank": 1,
            "hostname": "n1",
            "status": "full",
            "since": 0.0,
            "children": [
                {"rank": 3, "hostname": "n3", "status": "full", "since": 0.0, "children": []}
            ],
        },
        {"rank": 2, "hostname": "n2", "status": "offline", "since": 0.0, "children": []},
    ],
}


def test_overlay(broker: FakeBroker, out: Any) -> None:
    broker.handlers["overlay.status"] = TREE
    assert out("overlay", "status")[1] == (
        "0 n0: partial\n├─ 1 n1: full\n│  └─ 3 n3: full\n└─ 2 n2: offline\n"
    )
    assert out("overlay", "status", "--down")[1] == "0 n0: partial\n└─ 2 n2: offline\n"
    assert out("overlay", "status", "--summary")[1] == "partial\n"
    assert " for " in out("overlay", "status", "-v")[1]
    assert out("overlay", "lookup", "0-1")[1] == "n[0-1]\n"
    assert out("overlay", "lookup", "n[2-3]")[1] == "2-3\n"
    assert out("overlay", "lookup", "n9")[0] == 1
    assert out("overlay", "parentof", "3")[1] == "1\n"
    assert out("overlay", "parentof", "9")[0] == 1
    broker.handlers["overlay.errors"] = {"errors": [{"hostname": "n2", "error": "lost"}]}
    assert out("overlay", "errors")[1] == "n2: lost\n"


def test_exec(broker: FakeBroker, out: Any) -> None:
    def run(request: Request) -> None:
        rank = request.message.target
        if rank == 3:
            request.error(errno.ENOENT, "nosuch: No such file or directory")
            return
        request.respond({"pid": 100 + rank})
        request.respond({"stream": 2, "data": b"on %d\n" % rank})
        request.respond({"status": 512 if rank == 1 else 0})
        request.end()

    broker.handlers["rexec.exec"] = run
    broker.handlers["rexec.write"] = lambda r: r.respond({})
    status, _, err = out("exec", "-n", "-r", "0-1", "cmd", "-x")
    assert status == 2
    assert err.endswith("1: Exit 2\n")
    assert broker.payload("rexec.exec")["argv"] == ["cmd", "-x"]
    assert out("exec", "-nq", "-r3", "x")[0] == 127
    status, _, err = out("exec", "-r", "7", "x")
    assert (status, "--rank: 7 is not a rank: the instance has 0-3" in err) == (1, True)
    assert out("exec", "-r", "0", "-x", "0", "x")[0] == 1
    assert out("exec")[0] == 2


def test_uptime_and_version(broker: FakeBroker, out: Any) -> None:
    broker.handlers["broker.info"] = {"uptime": 96.0, "owner": 0, "depth": 0, "size": 4}
    broker.handlers["resource.status"] = STATUS
    broker.handlers["job-manager.queue-list"] = {"enable": False, "start": False}
    lines = out("uptime")[1].splitlines()
    assert lines[0].endswith(" run 1.6m,  owner root,  depth 0,  size 4,  2 drained,  1 offline")
    assert lines[1] == "  submit disabled, scheduler stopped"
    assert "broker:" in out("version")[1]
    assert out("--version")[0] == 0


def test_help_and_unknown_commands(out: Any) -> None:
    status, text, _ = out("help")
    assert (status, "flux-mpi start" in text) == (0, True)
    assert out()[1] == out("--help")[1] == text
    assert out("help", "job", "attach")[1].startswith("Usage: flux-mpi job attach")
    assert out("run", "--help")[0] == 0
    assert out("start", "--help")[1].startswith("Usage: flux-mpi start")
    status, _, err = out("sumbit")
    assert (status, "Did you mean submit" in err) == (1, True)
    assert out("help", "nosuch")[0] == 1


def test_no_instance_is_one_line(out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUX_URI", "local:///nonexistent/socket")
    for words in (("jobs",), ("submit", "true"), ("kvs", "get", "a"), ("uptime",), ("run", "x")):
        status, text, err = out(*words)
        assert (status, text, err.count("\n")) == (1, "", 1)
        assert f"flux-{words[0]}: ERROR: cannot connect to local:///nonexistent/socket" in err


def test_waiting_for_an_array(broker: FakeBroker, out: Any) -> None:
    broker.handlers["job-ingest.submit"] = {"arrays": [[FIRST, 3]]}
    ids = [fluid.nth(FIRST, k) for k in range(3)]
    broker.handlers["job-manager.wait-all"] = streaming(
        {"done": [[ids[0], 0]]}, {"done": [[ids[2], 3 << 8], [ids[1], 0]]}
    )
    status, text, err = out("submit", "--cc=1-3", "--wait", "-v", "x")
    assert (status, text.count("\n")) == (3, 3)
    assert err == f"{fluid.encode(ids[2])}: task(s) exited with exit code 3\n"
    broker.handlers["job-info.eventlog-watch"] = streaming({"events": EVENTS})
    assert out("submit", "--cc=1-3", "--wait-event=start", "x")[0] == 0
    assert out("submit", "--cc=1-3", "--wait-event=nosuch", "x")[0] == 1


def test_logs_of_submission(broker: FakeBroker, out: Any, tmp_path: Any) -> None:
    broker.handlers["job-ingest.submit"] = {"arrays": [[FIRST, 2]]}
    assert out("submit", "--cc=1-2", f"--log={tmp_path}/job{{cc}}.id", "x") == (0, "", "")
    assert (tmp_path / "job1.id").read_text() == "ƒ8hjSb9Z\n"
    assert (tmp_path / "job2.id").read_text() == f"{fluid.encode(fluid.nth(FIRST, 1))}\n"


def test_watch_shows_each_jobs_output(
    broker: FakeBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    second = fluid.nth(FIRST, 1)
    broker.handlers["job-ingest.submit"] = {"arrays": [[FIRST, 2]]}

    def journal(request: Request) -> None:
        request.respond({"events": [[job, 1.0, "start", None] for job in (FIRST, second)]})

    broker.handlers["job-manager.events-journal"] = journal
    broker.handlers["job-info.eventlog-watch"] = streaming(
        {
            "events": [
                {"timestamp": 1.0, "name": "submit"},
                {"timestamp": 1.0, "name": "alloc"},
                {"timestamp": 1.0, "name": "start"},
                {"timestamp": 1.0, "name": "finish", "context": {"status": 256}},
                {"timestamp": 1.0, "name": "clean"},
            ]
        }
    )
    broker.handlers["job-info.lookup"] = {"R": {"execution": {"R_lite": [{"rank": "0"}]}}}
    broker.handlers["exec.output"] = streaming({"entries": [[1.0, 1, 0, b"hello\n"]]})
    assert main(["submit", "--quiet", "--cc=1-2", "--watch", "-l", "x"]) == 1
    lines = sorted(capfd.readouterr().out.splitlines())
    assert lines == sorted(["ƒ8hjSb9Z: 0: hello", f"{fluid.encode(second)}: 0: hello"])


# -- small things ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "form"),
    [
        ({"LC_ALL": "en_US.UTF-8"}, "f58"),
        ({"LC_ALL": "C.utf8"}, "f58"),
        ({"LC_ALL": "C"}, "f58plain"),
        ({"LC_ALL": "en_US.ISO-8859-1"}, "f58plain"),
        ({"LC_ALL": "", "LANG": "de_DE.UTF-8@euro"}, "f58"),
        ({"LC_ALL": "en_US.UTF-8", "FLUX_F58_FORCE_ASCII": "1"}, "f58plain"),
    ],
)
def test_ids_suit_the_locale(
    environ: dict[str, str], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    assert id_form() == form


def test_without_any_locale_ids_are_plain() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "flux_mpi", "job", "id", "ƒ8hjSb9Z"],
        env={"PATH": "/usr/bin"},
        capture_output=True,
        timeout=60,
    )
    assert found.stdout == b"f8hjSb9Z\n", found.stderr


def test_signals_and_times() -> None:
    assert [parse_signal(text) for text in ("TERM", "sigkill", "10")] == [15, 9, 10]
    with pytest.raises(ValueError, match="invalid signal 'x'"):
        parse_signal("x")
    now = time.time()
    assert parse_since("-1h", now) == now - 3600
    assert parse_since("5", now) == 5
    assert now - 86400 * 2 < parse_since("yesterday", now) < now
    assert parse_since("00:00", now) <= now
    with pytest.raises(ValueError, match="future"):
        parse_since("+1h", now)
    with pytest.raises(ValueError, match="invalid datetime"):
        parse_since("soonish", now)
