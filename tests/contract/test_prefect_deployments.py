"""Every deployment of prefect.yaml is run by a real server and a real worker; people decide."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import pytest
import yaml
from jsonschema import Draft202012Validator

from flows.local_stack import down, restart_server
from muster.demo import tamper
from muster.prefect_api import Run
from snapshots.model import JsonObject
from tests.prefect_fixtures import CANARY, ROOT, PrefectSite, eventually

pytestmark = [pytest.mark.timeout(900)]

DEPLOYMENTS: list[dict[str, object]] = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))[
    "deployments"
]
# What each verb says of the freshly loaded estate, and the artifacts it leaves.
EXPECTED = {
    "take-snapshot/snapshots": ({"Completed"}, "snapshot"),
    "audit-changes/audits": ({"Findings"}, "audit"),  # somebody tampered
    "replicate-models/replication": ({"Failed"}, "replicate"),  # a gate stops it
    "check-readiness/readiness": ({"Findings"}, "ready"),
    "verify-stores/verification": ({"Completed"}, "verify"),
    "publish-report/site": ({"Completed"}, "report"),
}


def full_name(deployment: dict[str, object]) -> str:
    flow = str(deployment["entrypoint"]).rpartition(".")[2].replace("_", "-")
    return f"{flow}/{deployment['name']}"


def valid(verb: str, document: JsonObject) -> None:
    schema = json.loads((ROOT / "docs" / "schemas" / f"{verb}.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(document)


def begun_run(site: PrefectSite, name: str) -> Run | None:
    """The first run that a worker executes: none that waits for one, or for the run before it."""
    fitting = (r for r in site.runs(name) if r.type not in {"SCHEDULED", "PENDING", "CANCELLED"})
    return next(fitting, None)


def some_event(site: PrefectSite, run: str) -> str | None:
    return next((str(event["event"]) for event in site.events("muster.", run)), None)


def notification(site: PrefectSite, event: str) -> dict[str, str] | None:
    return next((m for m in site.notified if event in m["subject"]), None)


def test_prefect_runs_what_is_scheduled_and_people_decide_what_is_not(
    prefect_site: PrefectSite,
    subtests: pytest.Subtests,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One story, since a server, a worker and an estate take their time to come up."""
    site = prefect_site
    # People ask for restores and for a drill while the schedules come.
    scheduled = site.hurry()
    assert scheduled == sorted(full_name(d) for d in DEPLOYMENTS if "schedules" in d)
    rejected, restored = (
        site.start("restore-snapshot/restores", snapshot=site.first, apply=True, decide_minutes=30)
        for _ in range(2)
    )
    eventually("a dry drill", partial(begun_run, site, "run-drill/drills"))
    slow = site.script("slow-look", wait=12)
    drill = site.start("run-drill/drills", drill=slow, mode="real", decide_minutes=30)

    for name, (states, verb) in EXPECTED.items():
        with subtests.test("a scheduled deployment runs and shows what it found", deployment=name):
            run = site.ended(eventually(f"a run of {name}", partial(begun_run, site, name)).id)
            assert run.state in states, f"{run.message}\n{site.log(run.id)}"
            valid(verb, site.document(run.id))
            if verb == "replicate":
                assert site.document(run.id)["applied"] is False
                assert "a gate did not open" in run.message
            assert site.markdown(run.id).startswith("#")
            eventually(f"an event of {name}", partial(some_event, site, run.id))

    with subtests.test("who should hear of it is notified, by severity and class, and nobody else"):
        for name in ("muster.drift.found", "muster.approval.asked"):
            message = eventually(
                f"a notification of {name}",
                partial(notification, site, name),
            )
            assert message["channel"] == "hook"
            assert "severity high" in message["body"] or "severity critical" in message["body"]
        assert {m["channel"] for m in site.notified} == {"hook"}
        mail = eventually("a mail", lambda: site.mailed[0] if site.mailed else None)
        assert mail[0] == ["platform@example.com"] or len(mail[0]) == 2
        assert "muster.drift.found" in mail[1]
        assert "class unplanned" in mail[1] or "class unknown" in mail[1]

    with subtests.test("a dry drill runs by its schedule, and asks nobody"):
        dry = eventually("a dry drill", partial(begun_run, site, "run-drill/drills"))
        run = site.ended(dry.id)
        assert run.state == "Completed", f"{run.message}\n{site.log(run.id)}"
        assert site.document(run.id)["mode"] == "dry-run"
        assert site.decisions(run.id) == []

    with subtests.test("a rejected restore changes nothing, and the no is kept"):
        site.paused(rejected)
        reject = ["approve-run", rejected, "--reject", "--reason", "not today"]
        assert site.with_server(*reject) == 0
        run = site.ended(rejected)
        assert "rejected (not today)" in run.message
        assert site.document(run.id)["applied"] is False
        assert [d["answer"] for d in site.decisions(run.id)] == ["rejected"]

    with subtests.test("an approved restore is done, and says who allowed it"):
        site.paused(restored)
        yes = ["approve-run", restored, "--approve", "--who", "Ada", "--reason", "drift"]
        assert site.with_server(*yes) == 0
        run = site.ended(restored)
        assert run.state == "Completed", f"{run.message}\n{site.log(run.id)}"
        done = site.document(run.id)
        assert done["applied"] is True
        assert done["remaining_changes"] == []
        [decision] = site.decisions(run.id)
        assert (decision["who"], decision["became"]) == ("Ada", done["record"])
        assert decision["subject"]["steps"] == len(done["steps"])

    with subtests.test("--via prefect starts the deployment, follows it and ends as the verb does"):
        capsys.readouterr()
        assert site.with_server("ready", "--via", "prefect", "--format", "json") == 2
        out, err = capsys.readouterr()
        valid("ready", json.loads(out))
        assert "completed successfully" in err, "the log is not followed"

    with subtests.test("a real drill waits for a typed decision, and goes on with it"):
        site.paused(drill)
        approve = ["approve-run", drill, "--approve", "--who", "Ada"]
        assert site.with_server(*approve) == 1, "without a reason nothing is decided"
        assert site.with_server(*approve, "--reason", "rehearsed on Monday") == 0

    with subtests.test("the server is restarted in the middle, and the drill ends clean"):
        site.said(drill, "step 2 of 2")
        restart_server(site.stack)
        run = site.ended(drill)
        assert (run.state, site.document(run.id)["verdict"]) == ("Completed", "passed")
        evidence = site.evidence(site.document(run.id)["evidence"]["id"])
        assert evidence["cleanup"]["state"] == "clean"
        assert evidence["approvals"] == ["Ada approved (rehearsed on Monday): slow-look in sandbox"]
        assert not site.groups()
        assert site.event("muster.drill.passed", run.id)["payload"]["evidence"] == evidence["id"]
        [decision] = site.decisions(run.id)
        assert (decision["who"], decision["answer"]) == ("Ada", "approved")
        assert decision["became"] == evidence["id"]

    with subtests.test("a snapshot's shards are read by runs of their own"):
        # Whatever else was taken, as by the hour's own schedule while the deployments were made.
        cut = [site.shards(run.id) for run in site.runs("take-snapshot/snapshots")]
        [shards] = [found for found in cut if found]
        assert sorted(shards) == [0, 1]
        for begun in shards.values():
            run = site.ended(begun.id)
            assert run.state == "Completed", f"{run.message}\n{site.log(run.id)}"
            assert site.document(run.id)["resources"] > 0
            assert "resources" in site.markdown(run.id)

    with subtests.test("every deployment was run"):
        run_by = {full_name(d): site.runs(full_name(d)) for d in DEPLOYMENTS}
        assert all(run_by.values()), [name for name, runs in run_by.items() if not runs]

    with subtests.test("no log, state or artifact holds a secret"):
        everything = site.everything()
        assert CANARY not in everything
        assert site.secret() not in everything

    with subtests.test("nothing looked or went beyond this machine"):
        assert site.heard.read_text() == ""
        look = "import socket\ntry: socket.getaddrinfo('muster.invalid', 443)\nexcept OSError: pass"
        subprocess.run([sys.executable, "-c", look], env=site.stack.environment(None), check=True)
        assert site.heard.read_text().startswith("muster.invalid by"), "nobody listens"

    with subtests.test("without a server every verb runs, and --via prefect says what to do"):
        down(site.stack, ["worker", "server"])
        tamper(site.azure())
        restore = ["restore", site.first, "--apply", "--yes", "--quiet"]
        code = site.with_server(*restore)
        assert code == 0, capsys.readouterr()
        assert site.with_server("snapshot", "--quiet") == 0
        capsys.readouterr()
        assert site.with_server("snapshot", "--via", "prefect") == 1
        said = capsys.readouterr().err
        assert "does not answer" in said
        assert "make up" in said
