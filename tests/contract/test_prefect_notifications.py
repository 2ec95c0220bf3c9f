"""The file of channels and routes: the one we ship is whole, and a wrong one is told where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from snapshots.audit.report_model import Class, Severity

ROOT = Path(__file__).resolve().parents[2]
# Prefect is asked in one process of its own: importing it takes seconds, and warns.
ASK = """
import json, sys, uuid, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from flows.notifications import automation_of, block_of, read
from snapshots.errors import MusterError

folder, told = Path(sys.argv[1]), {}
for file in sorted(folder.glob("*.yaml")):
    try:
        found = read(file)
        ids = {name: uuid.uuid4() for name in found.channels}
        blocks = {n: type(block_of(c, n, folder)).__name__ for n, c in found.channels.items()}
        automations = [automation_of(r, ids).model_dump(mode="json") for r in found.routes]
        told[file.stem] = {"blocks": blocks, "automations": automations}
    except MusterError as error:
        told[file.stem] = str(error)
print(json.dumps(told))
"""
HOOK = "channels: {a: {kind: webhook, url: 'env:MUSTER_WEBHOOK_URL'}}\n"
WRONG = {
    "no-yaml": "a: [",
    "not-a-mapping": "- a",
    "no-channel": HOOK + "routes: [{name: x, events: [muster.drift.found], to: [b]}]",
    "no-event": HOOK + "routes: [{name: x, events: [drift], to: [a]}]",
    "no-severity": HOOK + "routes: [{name: x, events: [muster.a], to: [a], severity: [awful]}]",
    "a-typo": HOOK + "routes: [{name: x, events: [muster.a], to: [a], severty: [high]}]",
    "two-names": HOOK + "routes: [{name: x, events: [muster.a], to: [a]},"
    " {name: x, events: [muster.b], to: [a]}]",
    "a-secret-inside": "channels: {a: {kind: slack, url: 'https://canary.example/x'}}\nroutes: []",
    "nothing-in-the-environment": "channels: {a: {kind: slack, url: 'env:NO_SUCH'}}\nroutes: []",
    "no-teams-address": "channels: {a: {kind: teams, url: 'env:MUSTER_WEBHOOK_URL'}}\nroutes: []",
    "no-mail-address": "channels: {a: {kind: smtp, host: h, sender: me, recipients: [a@b.example]}}"
    "\nroutes: []",
    "a-user-without-password": "channels: {a: {kind: smtp, host: mail.example, user: canary-user,"
    " sender: a@b.example, recipients: [a@b.example]}}\nroutes: []",
    "no-duration": HOOK + "routes: [{name: x, events: [muster.a], to: [a], silent_for: a while}]",
}
SECRETS = {
    "MUSTER_TEAMS_URL": "https://prod-1.westeurope.logic.azure.com:443/workflows/643e69f83c8944/"
    "triggers/manual/paths/invoke?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0"
    "&sig=canary-signature-of-teams",
    "MUSTER_SLACK_URL": "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/canarycanarycanarycanar",
    "MUSTER_SENDGRID_KEY": "canary-key-of-sendgrid",
    "MUSTER_WEBHOOK_URL": "https://siem.example/canary-of-the-webhook",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What comes of the file we ship, and of wrong ones."""
    folder = tmp_path_factory.mktemp("notifications")
    for name, text in WRONG.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "ours.yaml").write_bytes((ROOT / "deploy" / "notifications.yaml").read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, **SECRETS, "PREFECT_API_URL": "http://127.0.0.1:9/api"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_the_file_we_ship_gives_a_block_for_each_kind_of_channel(told: dict[str, Any]) -> None:
    assert told["ours"]["blocks"] == {
        "on-call": "MicrosoftTeamsWebhook",
        "team": "SlackWebhook",
        "mail": "SendgridEmail",
        "siem": "CustomWebhookNotificationBlock",
    }


def test_routes_become_triggers_by_event_severity_and_class(told: dict[str, Any]) -> None:
    by_name = {a["name"]: a for a in told["ours"]["automations"]}
    drift = by_name["muster: bad drift that nobody is known to have planned"]["trigger"]
    assert drift["expect"] == ["muster.drift.found"]
    assert drift["match"] == {
        "muster.severity": ["high", "critical"],
        "muster.class": ["unplanned", "planned-but-different", "unknown"],
    }
    assert drift["posture"] == "Reactive"
    silence = by_name["muster: no snapshot for three hours"]["trigger"]
    assert (silence["posture"], silence["within"]) == ("Proactive", 3 * 3600.0)
    assert all(len(a["actions"]) >= 1 for a in by_name.values())


def test_no_drift_goes_unheard(told: dict[str, Any]) -> None:
    """Whatever its severity and class, some route of the file we ship takes it."""
    routes = [
        a["trigger"]["match"]
        for a in told["ours"]["automations"]
        if "muster.drift.found" in a["trigger"]["expect"]
    ]
    for severity, class_ in product(Severity, Class):
        asked = {"muster.severity": severity.value, "muster.class": class_.value}
        assert any(
            all(asked[label] in values for label, values in match.items()) for match in routes
        ), asked


def test_every_event_that_is_routed_is_documented(told: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "prefect-notifications.md").read_text("utf-8")
    for automation in told["ours"]["automations"]:
        for event in automation["trigger"]["expect"]:
            last = event.rpartition(".")[2]
            assert event in page or f"`.{last}`" in page or last in {"error", "Crashed"}, event


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_file_is_told_and_no_secret_is_quoted(told: dict[str, Any], name: str) -> None:
    said = told[name]
    assert isinstance(said, str), f"{name} was taken"
    assert "canary" not in said
    assert "where:" in said
