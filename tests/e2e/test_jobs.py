"""Jobs from submission to history, as the commands show them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    Instance = Any

F58 = re.compile(r"^ƒ[1-9A-HJ-NP-Za-km-z]+$")
EVENTS = ["submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free",
          "clean"]  # fmt: skip


def ids(text: str) -> list[str]:
    found = text.split()
    assert all(F58.match(each) for each in found), text
    return found


def events(flux: Instance, jobid: str) -> list[dict[str, Any]]:
    text = flux.out("job", "eventlog", "--format=json", jobid)
    return [json.loads(line) for line in text.splitlines()]


# -- submitting -----------------------------------------------------------------------------------


def test_submit_prints_the_id_and_nothing_else(flux: Instance) -> None:
    done = flux("submit", "true")
    assert len(ids(done.stdout)) == 1
    assert done.stderr == ""
    assert flux("submit", "--quiet", "true").stdout == ""


def test_one_line_an_id_for_an_array(flux: Instance, tmp_path: Path) -> None:
    done = flux("submit", "--cc=1-20", "--wait", "--output=o.{cc}", "echo", "member {cc}")
    assert len(set(ids(done.stdout))) == 20
    for n in range(1, 21):
        assert (tmp_path / f"o.{n}").read_text() == f"member {n}\n"


def test_cc_takes_any_idset_and_tells_the_job(flux: Instance) -> None:
    done = flux("submit", "--cc=3,7-8", "--watch", "sh", "-c", "echo $FLUX_JOB_CC/{cc}")
    said = [word for word in done.stdout.split() if not F58.match(word)]
    assert sorted(said) == ["3/3", "7/7", "8/8"]


def test_a_large_array_is_submitted_at_once(flux: Instance) -> None:
    flux("submit", "--quiet", "--cc=1-100000", "--urgency=hold", "true")
    assert flux.states()["sched"] == 100_000
    done = flux("cancel", "--all")
    assert done.stderr.strip() == "flux-cancel: Canceled 100000 jobs (0 errors)"
    assert flux.states()["sched"] == 0


def test_the_exit_status_of_wait_is_the_largest(flux: Instance) -> None:
    flux("submit", "--quiet", "--cc=0-3", "--wait", "sh", "-c", "exit {cc}", status=3)


def test_bulksubmit_from_arguments_and_standard_input(flux: Instance) -> None:
    done = flux("bulksubmit", "--watch", "--quiet", "echo", "{1}-{0}", ":::", "a", "b", ":::", "1",
                "2")  # fmt: skip
    assert sorted(done.stdout.split()) == ["1-a", "1-b", "2-a", "2-b"]
    done = flux("bulksubmit", "--watch", "--quiet", "echo", "<{}>", stdin="x y\nz\n")
    assert sorted(done.stdout.splitlines()) == ["<x y>", "<z>"]


def test_bulksubmit_links_files_and_templates(flux: Instance, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("data/one.nc\ndata/two.nc\n")
    done = flux("bulksubmit", "--watch", "--quiet", "--job-name={0./%}-{seq1}",
                "echo", "{0} {0./%} {1}", "::::", "list", ":::+", "x", "y")  # fmt: skip
    assert sorted(done.stdout.splitlines()) == ["data/one.nc one x", "data/two.nc two y"]
    names = flux.out("jobs", "-a", "-n", "-c2", "-o", "{name}").split()
    assert sorted(names) == ["one-1", "two-2"]


def test_bulksubmit_dry_run_shows_each_job(flux: Instance) -> None:
    done = flux("bulksubmit", "--dry-run", "cmd", "{}", ":::", "1", "2", "3")
    assert done.stdout.splitlines() == [
        "bulksubmit: submit cmd 1",
        "bulksubmit: submit cmd 2",
        "bulksubmit: submit cmd 3",
    ]


def test_dry_run_is_a_v1_jobspec(flux: Instance) -> None:
    text = flux.out("run", "--dry-run", "-n2", "-c2", "-t", "5m", "--job-name=foo",
                    "--setattr=foo.bar=1", "-o", "verbose=2", "--env=-*", "--env=A=1",
                    "hostname")  # fmt: skip
    spec = json.loads(text)
    assert spec["version"] == 1
    assert spec["resources"] == [
        {"type": "slot", "count": 2, "with": [{"type": "core", "count": 2}], "label": "task"}
    ]
    assert spec["tasks"] == [{"command": ["hostname"], "slot": "task", "count": {"per_slot": 1}}]
    system = spec["attributes"]["system"]
    assert system["duration"] == 300
    assert system["environment"] == {"A": "1"}
    assert system["job"] == {"name": "foo"}
    assert system["shell"]["options"]["verbose"] == 2
    # Where --setattr puts what has no "system." or "user." before it is Flux's: below system.
    assert {"bar": 1} in (system.get("foo"), spec["attributes"].get("foo"))


def test_what_dry_run_prints_can_be_submitted(flux: Instance) -> None:
    spec = json.loads(flux.out("run", "--dry-run", "-n2", "echo", "again"))
    answer = flux.handle.call("job-ingest.submit", {"entries": [{"jobspec": spec}]})
    jobid = str(answer["arrays"][0][0])
    assert flux.out("job", "attach", jobid) == "again\nagain"


# -- ids ------------------------------------------------------------------------------------------


def test_every_spelling_of_an_id_means_the_same_job(flux: Instance) -> None:
    jobid = flux.out("submit", "--wait", "echo", "found")
    forms = ["dec", "hex", "dothex", "kvs", "words", "f58", "f58plain", "emoji"]
    for form in forms:
        spelling = flux.out("job", "id", f"--to={form}", jobid)
        assert flux.out("job", "attach", spelling) == "found", form
        assert flux.out("job", "id", spelling) == jobid
    assert flux.out("job", "last") == jobid


def test_an_ascii_terminal_gets_an_f(flux: Instance) -> None:
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    text = flux.out("submit", "true", env=ascii_locale)
    assert re.match(r"^f[1-9A-Za-z]+$", text)
    flux("job", "attach", text)


# -- history --------------------------------------------------------------------------------------


def test_the_event_log_tells_the_whole_story(flux: Instance) -> None:
    jobid = flux.out("submit", "--wait", "-n2", "false", status=1)
    log = events(flux, jobid)
    assert [event["name"] for event in log] == EVENTS
    times = [event["timestamp"] for event in log]
    assert times == sorted(times)
    by_name = {event["name"]: event.get("context") for event in log}
    assert by_name["submit"]["urgency"] == 16
    assert by_name["priority"] == {"priority": 16}
    assert re.match(
        r"rank\d/core\[\d-\d\]", by_name["alloc"]["annotations"]["sched"]["resource_summary"]
    )
    assert by_name["finish"] == {"status": 256}
    text = flux.out("job", "eventlog", jobid).splitlines()
    assert re.match(r"^\d+\.\d{6} submit userid=\d+ urgency=16 flags=0 version=1$", text[0])
    assert re.match(r"^\d+\.\d{6} finish status=256$", text[6])


def test_info_has_what_was_asked_for_and_what_was_given(flux: Instance) -> None:
    jobid = flux.out("submit", "--wait", "-n2", "--env=SECRET=1", "true")
    resources = json.loads(flux.out("job", "info", jobid, "R"))
    assert resources["version"] == 1
    (group,) = resources["execution"]["R_lite"]
    assert len(group["rank"]) == 1
    assert re.match(r"^\d-\d$", group["children"]["core"])
    shown = json.loads(flux.out("job", "info", jobid, "jobspec"))
    assert "environment" not in shown["attributes"]["system"]
    original = json.loads(flux.out("job", "info", "--original", jobid, "jobspec"))
    assert original["attributes"]["system"]["environment"]["SECRET"] == "1"
    log = flux.out("job", "info", jobid, "eventlog").splitlines()
    assert [json.loads(line)["name"] for line in log if line] == EVENTS


def test_wait_event_waits(flux: Instance) -> None:
    jobid = flux.out("submit", "sleep", "0.3")
    text = flux.out("job", "wait-event", jobid, "finish")
    assert re.match(r"^\d+\.\d{6} finish status=0$", text)
    flux("submit", "--quiet", "--wait-event=start", "sleep", "60")
    assert flux.states()["run"] == 1


def test_wait_event_that_can_no_longer_come(flux: Instance) -> None:
    jobid = flux.out("submit", "--wait", "true")
    done = flux("job", "wait-event", jobid, "exception", status=1)
    assert done.stderr.startswith("flux-job: ")
    done = flux("job", "wait-event", "-t", "0.2", flux.out("submit", "sleep", "60"), "clean",
                status=1)  # fmt: skip
    assert "timeout" in done.stderr.lower() or "time" in done.stderr.lower()


def test_status_gathers(flux: Instance) -> None:
    good = flux.out("submit", "true")
    bad = flux.out("submit", "sh", "-c", "exit 9")
    flux("job", "status", good)
    flux("job", "status", good, bad, status=9)


def test_waitable_jobs(flux: Instance) -> None:
    flux("submit", "--quiet", "--flags=waitable", "--cc=1-3", "false")
    done = flux("job", "wait", "--all", status=1)
    said = (done.stdout + done.stderr).splitlines()
    assert len(said) == 3
    assert all(re.match(r"^ƒ\w+: task\(s\) exited with exit code 1$", line) for line in said)
    # Each can be waited for once; and what is not waitable, never.
    flux("job", "wait", status=2)
    plain = flux.out("submit", "true")
    assert "waitable" in flux("job", "wait", plain, status=2).stderr


# -- changing one's mind --------------------------------------------------------------------------


def test_cancel_with_a_reason(flux: Instance) -> None:
    jobid = flux.out("submit", "--wait-event=start", "sleep", "60")
    done = flux("cancel", "-m", "because", jobid)
    assert done.stdout == ""
    attached = flux("job", "attach", jobid, status=143)
    assert re.search(
        rf"^\d+\.\d{{3}}s: job\.exception {jobid} type=cancel severity=0 because$",
        attached.stderr,
        re.MULTILINE,
    )
    assert "flux-job: task(s) Terminated" in attached.stderr
    reason = flux.out("jobs", "-n", "-o", "{status_abbrev} {inactive_reason}", jobid)
    assert reason == "CA Canceled: because"


def test_cancel_before_it_ran(flux: Instance) -> None:
    jobid = flux.out("submit", "--urgency=hold", "true")
    flux("cancel", jobid)
    assert flux.out("jobs", "-n", "-o", "{status}", jobid) == "CANCELED"
    assert [e["name"] for e in events(flux, jobid)][-2:] == ["exception", "clean"]


def test_cancel_says_how_many(flux: Instance) -> None:
    flux("submit", "--quiet", "--cc=1-5", "sleep", "60")
    done = flux("cancel", "--dry-run", "--all")
    assert "5 jobs" in done.stderr
    assert flux.states()["inactive"] < flux.states()["total"]
    assert flux("cancel", "--all").stderr == "flux-cancel: Canceled 5 jobs (0 errors)\n"


def test_kill_and_raise(flux: Instance) -> None:
    jobid = flux.out("submit", "--wait-event=start", "sleep", "60")
    flux("job", "kill", "-s", "USR1", jobid)
    flux("job", "attach", jobid, status=128 + 10)
    jobid = flux.out("submit", "--wait-event=start", "sleep", "60")
    flux("job", "raise", "--severity=7", "--type=note", jobid, "just", "so")
    flux("job", "raise", "--severity=0", "--type=foo", jobid, "the", "reason")
    attached = flux("job", "attach", jobid, status=143)
    assert "type=foo severity=0 the reason" in attached.stderr
    log = [e for e in events(flux, jobid) if e["name"] == "exception"]
    assert [e["context"]["severity"] for e in log] == [7, 0]


def test_hold_and_release(flux: Instance) -> None:
    jobid = flux.out("submit", "--urgency=hold", "echo", "released")
    line = flux.out("jobs", "-n", jobid)
    assert re.match(rf"^{jobid} \S+ +echo +S +1 +- +- held$", line)
    assert flux("job", "urgency", "-v", jobid, "default").stderr == "old urgency: hold\n"
    assert flux.out("job", "attach", jobid) == "released"


def test_urgent_jobs_first(flux: Instance) -> None:
    flux("queue", "stop")
    order = {}
    for urgency in (10, 31, 16, 20):
        words = ("submit", f"--urgency={urgency}", "-N4", "-n4", "-x", "true")
        order[flux.out(*words)] = urgency
    flux("queue", "start")
    flux("queue", "drain")
    started = {
        jobid: next(e["timestamp"] for e in events(flux, jobid) if e["name"] == "alloc")
        for jobid in order
    }
    assert [order[jobid] for jobid in sorted(started, key=started.__getitem__)] == [31, 20, 16, 10]


# -- lists ----------------------------------------------------------------------------------------


def test_the_columns_of_jobs(flux: Instance) -> None:
    header = flux("jobs", "-a").stdout.splitlines()[0]
    assert header.split() == ["JOBID", "USER", "NAME", "ST", "NTASKS", "NNODES", "TIME", "INFO"]
    jobid = flux.out("submit", "--wait", "--job-name=seen", "-n2", "true")
    first = flux("jobs", "-a", "-c1").stdout.splitlines()[1]
    assert re.match(rf"^ +{jobid} \S+ +seen +CD +2 +1 +[0-9.]+m?s \S+$", first)
    assert flux("jobs").stdout.splitlines() == [header]


def test_filters_counts_and_formats(flux: Instance) -> None:
    good = flux.out("submit", "--wait", "--job-name=alpha", "true")
    bad = flux.out("submit", "--wait", "--job-name=beta", "false", status=1)
    run = flux.out("submit", "--wait-event=start", "--job-name=gamma", "sleep", "60")
    held = flux.out("submit", "--urgency=hold", "--job-name=delta", "true")

    def listed(*words: str) -> list[str]:
        return flux.out("jobs", "-n", "-o", "{id.f58}", *words).split()

    assert set(listed()) == {run, held}
    assert listed("-f", "running") == [run]
    assert listed("-f", "pending") == [held]
    assert bad in listed("-f", "failed")
    assert good not in listed("-f", "failed")
    assert listed("-a", "-c1", "-f", "completed") == [good]
    assert listed("-a", "--name=alpha")[0] == good
    assert listed(good, run) == [run, good] or listed(good, run) == [good, run]
    assert listed("--sort=id", good, bad, run) == [good, bad, run]
    assert listed("--sort=-id", good, bad, run) == [run, bad, good]
    text = flux.out("jobs", "-n", "-o", "|{name:>8}|{id.dec}|{status}|{returncode}|{ntasks}", bad)
    assert re.match(r"^\|    beta\|\d+\|FAILED\|1\|1$", text)


def test_json_lists(flux: Instance) -> None:
    jobid = flux.out("submit", "--wait", "-n2", "true")
    dec = int(flux.out("job", "id", "--to=dec", jobid))
    found = json.loads(flux.out("jobs", "--json", "-a", "-c1"))
    (job,) = found["jobs"]
    assert job["id"] == dec
    assert job["state"] == "INACTIVE"
    assert job["result"] == "COMPLETED"
    assert job["ntasks"] == 2
    one = json.loads(flux.out("jobs", "--json", jobid))
    assert one.get("id", one.get("jobs", [{}])[0].get("id")) == dec
    raw = json.loads(flux.out("job", "list", "-a", "-c1"))
    assert raw["id"] == dec
    assert raw["state"] == 64
    assert raw["waitstatus"] == 0
    stats = json.loads(flux.out("job", "stats"))
    assert stats["job_states"]["total"] >= 1


def test_stats(flux: Instance) -> None:
    flux("submit", "--quiet", "--wait-event=start", "sleep", "60")
    flux("submit", "--quiet", "--urgency=hold", "true")
    first = flux("jobs", "--stats").stdout.splitlines()[0]
    assert re.match(
        r"^1 running, \d+ completed, \d+ failed, (\d+ canceled, )?1 pending, 0 inactive purged$",
        first,
    ), first
    assert flux.out("jobs", "--stats-only") == first


def test_truncation_is_told(flux: Instance) -> None:
    flux("submit", "--quiet", "--wait", "--cc=1-3", "true")
    done = flux("jobs", "-a", "-c2")
    assert "warning: output truncated at 2 jobs." in done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_named_formats(flux: Instance) -> None:
    flux("submit", "--quiet", "--wait", "false", status=1)
    assert "STATUS" in flux("jobs", "-ao", "long").stdout.splitlines()[0]
    assert "INACTIVE-REASON" in flux("jobs", "-ao", "endreason", "-c1").stdout
    assert "Exit 1" in flux("jobs", "-ao", "endreason", "-c1").stdout
    text = flux("jobs", "-o", "help").stdout
    for name in ("default", "cute", "long", "deps", "endreason"):
        assert re.search(rf"^ *{name}\b", text, re.MULTILINE)


def test_pgrep_and_pkill(flux: Instance) -> None:
    one = flux.out("submit", "--job-name=needle", "--wait-event=start", "sleep", "60")
    flux("submit", "--quiet", "--job-name=straw", "--wait-event=start", "sleep", "60")
    assert flux.out("pgrep", "^need").split() == [one]
    flux("pgrep", "^nothing-of-this-name$", status=1)
    flux("pkill", "needle")
    flux("job", "wait-event", one, "clean")
    assert flux.states()["run"] == 1


# -- the queue ------------------------------------------------------------------------------------


def test_a_disabled_queue_says_why(flux: Instance) -> None:
    assert flux.out("queue", "disable", "-m", "maint") == "Job submission is disabled: maint"
    done = flux("submit", "true", status=1)
    assert "job submission is disabled: maint" in done.stderr
    assert flux.out("queue", "enable") == "Job submission is enabled"
    flux("run", "true")


def test_a_stopped_queue_keeps_jobs_waiting(flux: Instance) -> None:
    assert flux.out("queue", "stop").startswith("Scheduling is stopped")
    jobid = flux.out("submit", "true")
    status = flux.out("queue", "status", "-v").splitlines()
    assert status[0] == "Job submission is enabled"
    assert status[1].startswith("Scheduling is stopped")
    assert flux.out("jobs", "-n", "-o", "{status_abbrev}", jobid) == "S"
    assert flux.out("queue", "idle") in ("", "0 jobs", "1 jobs", "1 job")  # nothing runs
    assert flux.out("queue", "start") == "Scheduling is started"
    flux("queue", "drain")
    assert flux.out("jobs", "-n", "-o", "{status_abbrev}", jobid) == "CD"


def test_queue_list(flux: Instance) -> None:
    header, line = flux.out("queue", "list").splitlines()
    assert header.split() == ["EN", "ST", "TDEFAULT", "TLIMIT", "NNODES", "NCORES", "NGPUS"]
    assert line.split()[2:] == ["inf", "inf", "0-4", "0-16", "0-0"]


def test_what_is_not_supported_is_refused_by_name(flux: Instance) -> None:
    done = flux("submit", "--dependency=afterok:f1", "true", status=1)
    assert done.stderr.startswith("flux-submit: ERROR: ")
    assert "depend" in done.stderr
    assert flux.states()["total"] == flux.states()["inactive"]
