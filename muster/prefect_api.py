"""Prefect's REST API in plain HTTP: what the command line needs of it, without Prefect.

A server that is away is an UnreachableError with a remedy, and stops no verb: only `--via prefect`
and `muster approve-run` ask for it.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO
from urllib.parse import quote, urlsplit

from muster.settings import Environment
from snapshots.errors import (
    CloudError,
    DamagedAnswerError,
    DeniedError,
    InputError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)
from snapshots.model import Json, JsonObject

HERE = "http://127.0.0.1:4200/api"
RESULT = "muster-result"  # the type of the artifact that holds a verb's own JSON document
_PATIENCE = 60.0  # seconds for one answer, as Prefect's own client; a busy SQLite takes its time
PAGE = 200  # lines of a log at once
_FORM_TRIES = 40  # half seconds
_BUSY = frozenset({429, 502, 503})
_PAUSES = (0.3, 0.6, 1.2, 2.4, 4.8)  # seconds between tries
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ENDED = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a flow, as the server knows it."""

    id: str
    name: str
    deployment: str  # id, "" without one
    type: str  # SCHEDULED, PENDING, RUNNING, PAUSED, COMPLETED, …
    state: str  # the state's name: Findings, Incomplete, Late, …
    message: str
    keyset: Mapping[str, str]  # where the form of a paused run is

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.type in ENDED


@dataclass(frozen=True, slots=True)
class Server:
    """A Prefect server (or Prefect Cloud) and how to speak to it."""

    url: str
    key: str = ""
    auth: str = ""

    @classmethod
    def of(cls, environment: Environment) -> Server:
        """Give the one that PREFECT_API_URL names, else the one `make up` starts.

        Raises InputError for an address that is none.
        """
        url = (environment.prefect_url or HERE).rstrip("/")
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InputError(
                "this is no address of a Prefect server",
                where="PREFECT_API_URL",
                remedy=f"write it like {HERE}",
            )
        if parts.username is not None or parts.password is not None:
            raise InputError(
                "the address of Prefect's server holds credentials",
                where="PREFECT_API_URL",
                remedy="put them into PREFECT_API_AUTH_STRING, as user:password",
            )
        return cls(url, environment.prefect_key, environment.prefect_auth)

    @property
    def ui(self) -> str:
        """Where a person looks."""
        return self.url.removesuffix("/api")

    def page(self, run: str) -> str:
        """Give the address of a run's page."""
        return f"{self.ui}/runs/flow-run/{run}"

    # ------------------------------------------------------------------------------- questions

    def version(self) -> str:
        """Give the server's version. Raises UnreachableError."""
        found = self._ask("GET", "/admin/version")
        return found if isinstance(found, str) else ""

    def deployment(self, name: str) -> JsonObject:
        """Give a deployment by flow/name. Raises NotFoundError."""
        flow, _, own = name.partition("/")
        try:
            return _object(
                self._ask("GET", f"/deployments/name/{quote(flow, safe='')}/{quote(own, safe='')}")
            )
        except NotFoundError:
            raise NotFoundError(
                f"the server has no deployment {name}",
                where=self.url,
                remedy="make them: `make up` here, or `prefect deploy --all` (docs/schedule.md)",
            ) from None

    def deployments(self) -> list[JsonObject]:
        """Give the deployments with the tag muster."""
        wanted: JsonObject = {"deployments": {"tags": {"all_": ["muster"]}}, "limit": 200}
        return _objects(self._ask("POST", "/deployments/filter", wanted))

    def names(self, deployments: Iterable[JsonObject]) -> set[str]:
        """Give the flow/deployment names of deployments."""
        there = list(deployments)
        ids: list[Json] = [*sorted({str(d.get("flow_id")) for d in there})]
        wanted: JsonObject = {"flows": {"id": {"any_": ids}}, "limit": 200}
        flows = _objects(self._ask("POST", "/flows/filter", wanted)) if ids else []
        by_id = {str(flow.get("id")): str(flow.get("name")) for flow in flows}
        return {f"{by_id.get(str(d.get('flow_id')), '')}/{d.get('name')}" for d in there}

    def pool(self, name: str) -> JsonObject:
        """Give a work pool, with its status. Raises NotFoundError."""
        return _object(self._ask("GET", f"/work_pools/{quote(name, safe='')}"))

    def start(self, deployment: str, parameters: JsonObject) -> Run:
        """Start a run of a deployment, by its id. Raises InputError for a refused parameter."""
        body: JsonObject = {
            "parameters": parameters,
            "tags": ["muster", "command-line"],
            # So that a start whose answer was lost is not made twice.
            "idempotency_key": str(uuid.uuid4()),
        }
        path = f"/deployments/{quote(deployment, safe='')}/create_flow_run"
        return _run(_object(self._ask("POST", path, body)))

    def run(self, id_: str) -> Run:
        """Give a run by its id. Raises NotFoundError."""
        return _run(_object(self._ask("GET", f"/flow_runs/{quote(id_, safe='')}")))

    def waiting(self) -> list[Run]:
        """Give the runs that wait for a decision, oldest first."""
        wanted: JsonObject = {
            "flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}},
            "sort": "START_TIME_ASC",
            "limit": 200,
        }
        return [_run(found) for found in _objects(self._ask("POST", "/flow_runs/filter", wanted))]

    def find(self, text: str) -> Run:
        """Give the run that `text` means. Raises NotFoundError.

        An id; of runs that wait for a decision also their name, or the beginning of their id.
        """
        if _ID.fullmatch(text.lower()):
            return self.run(text.lower())
        there = self.waiting()
        fitting = [r for r in there if r.name == text] or [
            r for r in there if text and r.id.startswith(text.lower())
        ]
        if len(fitting) != 1:
            known = ", ".join(f"{r.id} ({r.name})" for r in there) or "none"
            raise NotFoundError(
                f"{'more than one run' if fitting else 'no run'} that waits is called {text!r}",
                where=self.url,
                remedy=f"waiting: {known}",
            )
        return fitting[0]

    def form(self, run: Run) -> tuple[JsonObject, str]:
        """Give what a paused run asks: the schema of the answer, and the question in Markdown."""
        schema = self._input(run, "schema")
        for _ in range(_FORM_TRIES):  # a run pauses first, and writes its form a moment later
            if schema is not None or not run.keyset:
                break
            time.sleep(0.5)
            schema = self._input(run, "schema")
        question = self._input(run, "description")
        return (
            schema if isinstance(schema, dict) else {},
            question if isinstance(question, str) else "",
        )

    def _input(self, run: Run, what: str) -> Json:
        key = run.keyset.get(what)
        if not key:
            return None
        path = f"/flow_runs/{run.id}/input/{quote(key, safe='')}"
        try:
            return self._ask("GET", path)
        except NotFoundError:
            return None

    def answer(self, run: Run, answer: JsonObject) -> None:
        """Answer a paused run, so that it goes on. Raises RefusedError with the server's reason."""
        found = _object(self._ask("POST", f"/flow_runs/{run.id}/resume", {"run_input": answer}))
        if found.get("status") != "ACCEPT":
            details = found.get("details")
            why = details.get("reason") if isinstance(details, dict) else None
            raise RefusedError(
                f"the answer was not taken: {why or 'the server gives no reason'}",
                where=self.page(run.id),
                remedy="look at the run: it may have gone on or ended already",
            )

    def logs(self, run: str, offset: int) -> list[str]:
        """Give the lines of a run's log after the first `offset`."""
        wanted: JsonObject = {
            "logs": {"flow_run_id": {"any_": [run]}},
            "sort": "TIMESTAMP_ASC",
            "offset": offset,
            "limit": PAGE,
        }
        found = _objects(self._ask("POST", "/logs/filter", wanted))
        return [str(line.get("message", "")) for line in found]

    def artifacts(self, run: str) -> list[JsonObject]:
        """Give what a run showed, newest first."""
        wanted: JsonObject = {
            "artifacts": {"flow_run_id": {"any_": [run]}},
            "sort": "CREATED_DESC",
            "limit": 200,
        }
        return _objects(self._ask("POST", "/artifacts/filter", wanted))

    # --------------------------------------------------------------------------------- the wire

    def _ask(self, method: str, path: str, body: JsonObject | None = None) -> Json:
        headers = {"accept": "application/json", "content-type": "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        elif self.auth:
            basic = base64.b64encode(self.auth.encode()).decode()
            headers["authorization"] = f"Basic {basic}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310  http or https, as `of` saw to
            self.url + path, data, headers, method=method
        )
        try:
            text = _sent(request)
        except urllib.error.HTTPError as error:
            with error:
                raise self._error(error, method, path) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise UnreachableError(
                f"Prefect's server does not answer ({reason})",
                where=self.url,
                remedy="start it with `make up`, set PREFECT_API_URL, or leave out --via prefect: "
                "every verb works without Prefect",
            ) from None
        try:
            found: Json = json.loads(text) if text else None
        except ValueError:
            raise DamagedAnswerError(
                "what answers there is no Prefect server",
                where=self.url,
                remedy="set PREFECT_API_URL to the address that ends in /api",
            ) from None
        return found

    def _error(self, error: urllib.error.HTTPError, method: str, path: str) -> Exception:
        told = _detail(error)
        where = f"{method} {self.url}{path}"
        match error.code:
            case 401 | 403:
                return DeniedError(
                    "Prefect's server does not let us in",
                    where=self.url,
                    remedy="set PREFECT_API_KEY, or PREFECT_API_AUTH_STRING",
                    status=error.code,
                )
            case 404:
                return NotFoundError(
                    f"the server does not know it{told and f': {told}'}",
                    where=where,
                    remedy="see whether PREFECT_API_URL ends in /api and means the right server",
                )
            case 409 | 422:
                return InputError(f"the server refused it: {told}", where=where)
            case 429 | 500 | 502 | 503 | 504:  # it, its database, or what stands before it is away
                return UnreachableError(
                    f"Prefect's server does not do what was asked ({error.code})"
                    f"{told and f': {told}'}",
                    where=where,
                    remedy="wait until it is up, or leave out --via prefect: every verb works "
                    "without Prefect",
                    status=error.code,
                )
            case _:
                return CloudError(
                    f"Prefect's server answered {error.code}{told and f': {told}'}",
                    where=where,
                    remedy="look into its log",
                    status=error.code,
                )


def _sent(request: urllib.request.Request) -> bytes:
    """Send a request, again while the server is busy: SQLite lets one write at a time."""
    for pause in (*_PAUSES, None):
        try:
            with _opener().open(request, timeout=_PATIENCE) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if error.code not in _BUSY or pause is None:
                raise
            error.close()
            time.sleep(pause)
    raise AssertionError


class _Unfollowed(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a key must not travel to another host."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        """Give none."""


def _opener() -> urllib.request.OpenerDirector:
    # No proxy for a server on this machine; what the environment says for any other.
    return urllib.request.build_opener(_Unfollowed())


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        found = json.loads(error.read(100_000))
    except (ValueError, OSError):
        return ""
    detail = found.get("detail", found.get("exception_detail")) if isinstance(found, dict) else None
    if isinstance(detail, list):
        detail = "; ".join(str(d.get("msg", "")) for d in detail if isinstance(d, dict))
    return " ".join(str(detail or "").split())[:500]


def _object(found: Json) -> JsonObject:
    return found if isinstance(found, dict) else {}


def _objects(found: Json) -> list[JsonObject]:
    return [v for v in found if isinstance(v, dict)] if isinstance(found, list) else []


def _run(found: JsonObject) -> Run:
    state = _object(found.get("state"))
    keyset = _object(_object(state.get("state_details")).get("run_input_keyset"))
    return Run(
        str(found.get("id", "")),
        str(found.get("name", "")),
        str(found.get("deployment_id") or ""),
        str(state.get("type") or found.get("state_type") or ""),
        str(state.get("name") or found.get("state_name") or ""),
        str(state.get("message") or ""),
        {name: str(value) for name, value in keyset.items()},
    )


def markdown_of(artifacts: Sequence[JsonObject]) -> str:
    """Give the summary among a run's artifacts, "" without one."""
    # A link is Markdown, too, to Prefect; the summary has the shorter key.
    found = [a for a in artifacts if a.get("type") == "markdown"]
    summary = min(found, key=lambda a: len(str(a.get("key"))), default=None)
    return str(summary.get("data", "")) if summary is not None else ""


def document_of(artifacts: Sequence[JsonObject]) -> JsonObject | None:
    """Give the verb's own JSON document among a run's artifacts."""
    for artifact in artifacts:
        data = artifact.get("data")
        if artifact.get("type") == RESULT:
            found = json.loads(data) if isinstance(data, str) else data
            if isinstance(found, dict):
                return found
    return None
