"""One audit of a living estate, told in every format: the places it names are really there."""

from __future__ import annotations

import csv
import html
import io
import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import unquote

from muster.report.audit_formats import EXTENSIONS, ReportFormat
from snapshots.model import Json
from tests.story_audit_fixtures import Site

SWC = ("rg-ai-prod", "aoai-claims-swc")


def test_every_format_of_a_real_audit_tells_the_same_finding(site: Site, tmp_path: Path) -> None:
    site.approve_all()
    anna = site.person("Anna Lindqvist")
    site.later()
    path = site.id(*SWC, "deployments", "gpt4o-mini")
    body = anna.does("GET", path)
    body["sku"]["capacity"] += 7
    body.setdefault("tags", {})["note"] = "</style><script>alert(1)</script> | `=1+1` @octocat"
    anna.does("PUT", path, {name: body[name] for name in ("sku", "properties", "tags")})
    site.later()

    wanted = [word for format_ in ReportFormat for word in ("--format", format_.value)]
    site.run("audit", *wanted, "--output", str(tmp_path), expect=2)
    told = {f: (tmp_path / f"audit{EXTENSIONS[f]}").read_bytes() for f in ReportFormat}

    (finding,) = json.loads(told[ReportFormat.JSON])["findings"]
    assert finding["who"] == anna.who
    for format_, data in told.items():
        text = html.unescape(data.decode("utf-8"))
        assert finding["id"] in text, format_
        assert anna.who in text, format_
        assert "/sku/capacity" in text, format_
    assert b"<script>alert" not in told[ReportFormat.HTML]

    # SARIF points at the line of the ledger that holds the property, at the commit it names.
    (result,) = json.loads(told[ReportFormat.SARIF])["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    kept = subprocess.run(
        ["git", "show", f"{result['properties']['commit']}:{_path(place)}"],
        cwd=site.ledger().path,
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout.decode()
    line = kept.splitlines()[place["region"]["startLine"] - 1]
    name = finding["paths"][0]["path"].rsplit("/", 1)[1]
    assert line.strip().startswith(f'"{name}":'), line

    failures = list(ET.fromstring(told[ReportFormat.JUNIT]).iter("failure"))  # noqa: S314 - ours
    assert len(failures) == 1
    table = list(csv.DictReader(io.StringIO(told[ReportFormat.CSV].decode(), newline="")))
    assert {row["path"] for row in table if row["row"] == "finding"} == {
        p["path"] for p in finding["paths"]
    }
    assert table[-1]["row"] == "reading"


def _path(place: dict[str, dict[str, Json]]) -> str:
    return unquote(str(place["artifactLocation"]["uri"]))


def test_build_servers_see_green_only_where_everything_was_read(site: Site) -> None:
    site.approve_all()
    clean = ET.fromstring(site.run("audit", "--format", "junit"))  # noqa: S314 - ours
    assert (clean.get("failures"), clean.get("errors")) == ("0", "0")
    site.deny(r".*/deployments")
    unread = ET.fromstring(  # noqa: S314 - ours
        site.run("audit", "--sweep", "--format", "junit", expect=3)
    )
    assert int(unread.get("errors", "0")) > 1
