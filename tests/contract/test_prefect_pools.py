"""The recipes for work pools are what the workers take: judged by their own types, no engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# Prefect and its workers are judged in one process of their own: importing them takes seconds, and
# warns. No server is there, and none is asked.
JUDGE = """
import asyncio, json, sys, uuid, warnings
warnings.simplefilter("ignore")
from prefect.client.schemas.objects import FlowRun
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.schema_tools import validate
from prefect_docker.worker import DockerWorker
from prefect_kubernetes.worker import KubernetesWorker
from flows.render_pools import text

workers = {"docker": DockerWorker, "kubernetes": KubernetesWorker}

async def judge(kind, template, variables):
    WorkPoolCreate(name="muster", type=kind, base_job_template=template)
    validate(variables, template["variables"], raise_on_error=True)
    found = await workers[kind].job_configuration.from_template_and_values(template, variables)
    found.prepare_for_flow_run(FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="a-run"))
    return found.model_dump(mode="json")

told = {"rendered": {kind: text(kind) for kind in workers}}
for name, case in json.load(sys.stdin).items():
    try:
        told[name] = asyncio.run(judge(**case))
    except Exception as error:
        told[name] = f"{type(error).__name__}: {error}"
print(json.dumps(told, default=str))
"""


def template(kind: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "deploy" / kind / "work-pool.json").read_text("utf-8")))


def case(kind: str, of: dict[str, Any], **variables: Any) -> dict[str, Any]:
    return {"kind": kind, "template": of, "variables": variables}


@pytest.fixture(scope="module")
def judged() -> dict[str, Any]:
    """What the workers' own types say of each recipe, and of broken copies: a job, or an error."""
    unlisted, unspecified = template("docker"), template("kubernetes")
    unlisted["job_configuration"]["volumes"] = "not-a-list"
    unspecified["job_configuration"]["job_manifest"].pop("spec")
    cases = {
        "docker": case("docker", template("docker"), mem_limit="4g"),
        "kubernetes": case("kubernetes", template("kubernetes"), claim="other-claim"),
        "broken docker": case("docker", unlisted),
        "broken kubernetes": case("kubernetes", unspecified),
        "wrong variable": case("docker", template("docker"), mem_limit=["4g"]),
    }
    done = subprocess.run(
        [sys.executable, "-c", JUDGE],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=ROOT,
        env={**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"},
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def pieces(value: Any) -> Any:
    """Every value inside, at any depth."""
    yield value
    for inner in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from pieces(inner)


def test_the_recipes_are_those_that_the_workers_of_today_give(judged: dict[str, Any]) -> None:
    for kind, text in judged["rendered"].items():
        file = ROOT / "deploy" / kind / "work-pool.json"
        assert file.read_text("utf-8") == text, "next: python -m flows.render_pools"


def test_a_docker_worker_takes_its_recipe(judged: dict[str, Any]) -> None:
    found = judged["docker"]
    assert isinstance(found, dict), found
    assert found["image"] == "muster:latest"
    assert found["mem_limit"] == "4g"
    assert "/etc/muster:/etc/muster:ro" in found["volumes"]
    assert found["env"]["MUSTER_CONFIG"] == "/etc/muster/muster.toml"


def test_a_kubernetes_worker_takes_its_recipe(judged: dict[str, Any]) -> None:
    found = judged["kubernetes"]
    assert isinstance(found, dict), found
    manifest = found["job_manifest"]
    pod = manifest["spec"]["template"]["spec"]
    assert manifest["spec"]["backoffLimit"] == 0
    assert pod["terminationGracePeriodSeconds"] >= 120
    claims = [v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [{"claimName": "other-claim"}]
    assert pod["containers"][0]["image"] == "muster:latest"
    assert not [p for p in pieces(manifest) if isinstance(p, str) and "{{" in p], "not filled in"


@pytest.mark.parametrize("broken", ["broken docker", "broken kubernetes", "wrong variable"])
def test_a_broken_recipe_is_not_taken(judged: dict[str, Any], broken: str) -> None:
    assert isinstance(judged[broken], str), "the judge takes anything"


def test_every_file_for_engines_is_whole_yaml_and_names_our_pool() -> None:
    for file in (
        "deploy/docker/compose.yaml",
        "deploy/kubernetes/worker.yaml",
        "deploy/postgres/compose.yaml",
    ):
        documents = list(yaml.safe_load_all((ROOT / file).read_text("utf-8")))
        assert all(isinstance(d, dict) for d in documents), file
    for file in ("deploy/docker/compose.yaml", "deploy/kubernetes/worker.yaml"):
        assert re.search(r"--pool, muster\b", (ROOT / file).read_text("utf-8")), file


def test_what_kubernetes_is_given_fits_together() -> None:
    """The job of a run mounts and names only what worker.yaml makes."""
    documents = list(
        yaml.safe_load_all((ROOT / "deploy/kubernetes/worker.yaml").read_text("utf-8"))
    )
    made = {(d["kind"], d["metadata"]["name"]) for d in documents}
    variables = template("kubernetes")["variables"]["properties"]
    assert ("PersistentVolumeClaim", variables["claim"]["default"]) in made
    assert ("ConfigMap", variables["config_map"]["default"]) in made
    assert ("ServiceAccount", variables["service_account_name"]["default"]) in made
    assert ("Namespace", variables["namespace"]["default"]) in made
    assert {d["metadata"].get("namespace", "muster") for d in documents} == {"muster"}


def test_an_image_holds_nothing_that_git_leaves_out() -> None:
    """What make and muster leave in a checkout may hold secrets; `COPY . .` takes all it may."""

    def lines(name: str) -> set[str]:
        text = (ROOT / name).read_text("utf-8")
        found = (line.strip().rstrip("/") for line in text.splitlines())
        return {line for line in found if line and not line.startswith("#")}

    ignored = {
        line.removeprefix("/") if line.startswith("/") else f"**/{line}"
        for line in lines(".gitignore")
    }
    assert ignored <= lines(".dockerignore")
    assert ".git" in lines(".dockerignore")
    assert "COPY . ." in (ROOT / "deploy/docker/Dockerfile").read_text("utf-8")
