"""Render the base job templates of work pools: python -m flows.render_pools docker|kubernetes.

The worker's own default is the beginning, so that a new version of it brings what is new; what a
recovery tool needs is put on top, and the worker's own types judge the result.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
FILES: Final = {
    "docker": ROOT / "deploy" / "docker" / "work-pool.json",
    "kubernetes": ROOT / "deploy" / "kubernetes" / "work-pool.json",
}
IMAGE: Final = "muster:latest"
# Where the image has things; deploy/docker/Dockerfile says the same.
CONFIG: Final = "/etc/muster/muster.toml"
DATA: Final = "/var/lib/muster"
_ENVIRONMENT: Final = {"MUSTER_CONFIG": CONFIG, "DO_NOT_TRACK": "1"}
# A drill that is cancelled cleans up, and a restore sees the steps in hand through.
_GRACE: Final = 300


def render(kind: str) -> dict[str, Any]:
    """Give the base job template of a pool. Raises ImportError without prefect-docker and so on."""
    match kind:
        case "docker":
            return _docker()
        case "kubernetes":
            return _kubernetes()
        case _:
            message = f"there is no recipe for {kind!r}"
            raise ValueError(message)


def _docker() -> dict[str, Any]:
    from prefect_docker.worker import DockerWorker  # type: ignore[import-untyped]

    template: dict[str, Any] = deepcopy(DockerWorker.get_default_base_job_template())
    _defaults(
        template,
        {
            "image": IMAGE,
            # What is on the machine is what runs: nothing is pulled in a disaster.
            "image_pull_policy": "IfNotPresent",
            "auto_remove": True,
            "env": _ENVIRONMENT,
            "volumes": [
                # muster.toml with its secret files, and ledger, records and vault folder.
                "/etc/muster:/etc/muster:ro",
                "muster-data:/var/lib/muster",
            ],
            "mem_limit": "2g",
            "privileged": False,
            "container_create_kwargs": {
                "stop_signal": "SIGTERM",
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges"],
                "read_only": True,
                "tmpfs": {"/tmp": "size=1g"},  # noqa: S108  the container's own
            },
        },
    )
    return template


def _kubernetes() -> dict[str, Any]:
    from prefect_kubernetes.worker import KubernetesWorker  # type: ignore[import-untyped]

    template: dict[str, Any] = deepcopy(KubernetesWorker.get_default_base_job_template())
    _defaults(
        template,
        {
            "image": IMAGE,
            "image_pull_policy": "IfNotPresent",
            "namespace": "muster",
            "service_account_name": "muster",
            "env": _ENVIRONMENT,
            # A lost run is looked at by a person: a restore must not begin again by itself.
            "backoff_limit": 0,
            "finished_job_ttl": 24 * 3600,
            "pod_watch_timeout_seconds": 600,
            "labels": {"app.kubernetes.io/name": "muster"},
            "memory_request": "512Mi",
            "memory_limit": "2Gi",
            "cpu_request": "250m",
        },
    )
    properties = template["variables"]["properties"]
    properties["config_map"] = _text("Config Map", "muster-config", "Holds muster.toml.")
    properties["secret"] = _text(
        "Secret", "muster-secrets", "Its entries become environment variables, for env:NAME."
    )
    properties["claim"] = _text(
        "Volume Claim", "muster-data", "Keeps ledger, records and, unless it is in Blob, the vault."
    )
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]
    # Azure's workload identity puts a token into pods with this label.
    pod["metadata"] = {"labels": {"azure.workload.identity/use": "true"}}
    spec = pod["spec"]
    spec["terminationGracePeriodSeconds"] = _GRACE
    spec["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec["volumes"] = [
        {"name": "config", "configMap": {"name": "{{ config_map }}"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "{{ claim }}"}},
        {"name": "scratch", "emptyDir": {"sizeLimit": "2Gi"}},
    ]
    container = spec["containers"][0]
    container["envFrom"] = [{"secretRef": {"name": "{{ secret }}", "optional": True}}]
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container["volumeMounts"] = [
        {"name": "config", "mountPath": str(Path(CONFIG).parent), "readOnly": True},
        {"name": "data", "mountPath": DATA},
        {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108  the container's own
    ]
    return template


def _text(title: str, default: str, about: str) -> dict[str, Any]:
    return {"title": title, "type": "string", "default": default, "description": about}


def _defaults(template: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    """Set defaults of variables that the worker has; one it does not know is an error."""
    properties = template["variables"]["properties"]
    for name, value in wanted.items():
        properties[name]["default"] = value


def text(kind: str) -> str:
    """Give the file."""
    return json.dumps(render(kind), indent=2, sort_keys=True) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files that are asked for; with --check, say whether they are as they should be."""
    reader = argparse.ArgumentParser(prog="python -m flows.render_pools", description=__doc__)
    reader.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(FILES)}")
    reader.add_argument("--check", action="store_true")
    asked = reader.parse_args(argv)
    strange = [kind for kind in asked.kinds if kind not in FILES]
    if strange:
        reader.error(f"there is no recipe for {strange[0]!r}: there are {', '.join(FILES)}")
    old = []
    for kind in asked.kinds or FILES:
        file, wanted = FILES[kind], text(kind)
        if asked.check:
            if not file.is_file() or file.read_text("utf-8") != wanted:
                old.append(str(file.relative_to(ROOT)))
        else:
            file.write_text(wanted, "utf-8")
    if old:
        print(f"out of date: {', '.join(old)}; next: python -m flows.render_pools")  # noqa: T201
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
