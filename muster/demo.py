"""The demo: the story of muster told with its own commands, on a local Azure, in minutes."""

from __future__ import annotations

import json
import shlex
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from muster.cli import main
from snapshots.errors import MusterError
from snapshots.model import JsonObject

PATIENCE = 90.0  # seconds until the sandbox must serve
_API = "api-version=2025-09-01"


class DemoError(MusterError):
    """The story did not go as it should."""


@dataclass(frozen=True, slots=True)
class Azure:
    """The running sandbox, as somebody outside of muster sees it: plain HTTPS."""

    ready: JsonObject
    context: ssl.SSLContext

    def send(self, request: urllib.request.Request) -> JsonObject:
        """One request; the JSON answer. Raises DemoError with the service's words."""
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=30) as answer:  # noqa: S310  loopback, https
                text = answer.read()
        except urllib.error.HTTPError as error:
            words = error.read().decode("utf-8", "replace")[:300]
            what = f"the sandbox answered {error.code} to {request.get_method()}"
            raise DemoError(what, where=request.full_url, remedy=words) from None
        found = json.loads(text) if text else {}
        return found if isinstance(found, dict) else {}

    def _text(self, *names: str) -> str:
        value: object = self.ready
        for name in names:
            value = value[name] if isinstance(value, dict) else ""
        return str(value)

    def token(self, principal: str) -> str:
        """A bearer token for one of the estate's principals."""
        listed = self.ready["principals"]
        found = next(
            p
            for p in (listed if isinstance(listed, list) else [])
            if isinstance(p, dict) and p["name"] == principal
        )
        form = {
            "grant_type": "client_credentials",
            "client_id": str(found["client_id"]),
            "client_secret": str(found["secret"]),
            "scope": "https://management.azure.com/.default",
        }
        url = f"{self._text('url')}/{self._text('tenant')}/oauth2/v2.0/token"
        body = urllib.parse.urlencode(form).encode()
        answer = self.send(urllib.request.Request(url, body, method="POST"))  # noqa: S310  https
        return str(answer["access_token"])

    def call(
        self, principal: str, method: str, path: str, body: JsonObject | None = None
    ) -> JsonObject:
        """A request to Resource Manager in a principal's name."""
        request = urllib.request.Request(  # noqa: S310  https
            f"{self._text('url')}{path}",
            None if body is None else json.dumps(body).encode(),
            {
                "authorization": f"Bearer {self.token(principal)}",
                "content-type": "application/json",
            },
            method=method,
        )
        return self.send(request)

    def control(self, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
        """A request to the sandbox's control API."""
        request = urllib.request.Request(  # noqa: S310  https
            f"{self._text('control', 'url')}/{path}",
            None if body is None else json.dumps(body).encode(),
            {
                "authorization": f"Bearer {self._text('control', 'token')}",
                "content-type": "application/json",
            },
            method=method,
        )
        return self.send(request)

    def accounts(self) -> list[JsonObject]:
        """The AI accounts of the first subscription with any."""
        listed = self.ready["subscriptions"]
        out: list[JsonObject] = []
        for subscription in listed if isinstance(listed, list) else []:
            if isinstance(subscription, dict):
                path = f"/subscriptions/{subscription['id']}/providers"
                path += f"/Microsoft.CognitiveServices/accounts?{_API}"
                found = self.call("pipeline", "GET", path)["value"]
                out += [
                    a for a in (found if isinstance(found, list) else []) if isinstance(a, dict)
                ]
        return out

    def account(self, name: str) -> str:
        """The ARM id of an account."""
        return next(str(a["id"]) for a in self.accounts() if a["name"] == name)


@contextmanager
def sandbox(folder: Path, *, blob: bool) -> Iterator[Azure]:
    """A sandbox with the demo estate, ended with the block. Raises DemoError."""
    ready_file, log = folder / "ready.json", folder / "sandbox.log"
    command = [sys.executable, "-m", "muster", "sandbox", "--state", str(folder / "azure")]
    command += ["--ready-file", str(ready_file), "--blob" if blob else "--no-blob"]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE
        while not ready_file.is_file():
            if process.poll() is not None or time.monotonic() > deadline:
                words = log.read_text("utf-8", "replace").strip()[-500:]
                raise DemoError("the sandbox did not start", where=str(log), remedy=words)
            time.sleep(0.05)
        ready = json.loads(ready_file.read_text("utf-8"))
        yield Azure(ready, ssl.create_default_context(cafile=ready["ca"]))
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


@dataclass(slots=True)
class Story:
    """Tells the chapters: runs each command as a user would type it, and checks how it ends."""

    folder: Path
    config: Path
    begin: float = field(default_factory=time.monotonic)
    told: list[str] = field(default_factory=list)
    chapter_number: int = 0

    def chapter(self, words: str) -> None:
        """Begin a chapter."""
        self.chapter_number += 1
        line = f"{self.chapter_number}. {words}"
        spent = f"[{time.monotonic() - self.begin:5.1f} s]"
        click.echo(f"\n{spent} {line}\n{'-' * (len(spent) + len(line) + 1)}")

    def say(self, words: str) -> None:
        """A sentence between commands."""
        click.echo(words)

    def run(self, *words: str, expect: Sequence[int] = (0,), show: bool = True) -> int:
        """Run `muster WORDS`. Raises DemoError when it ends otherwise than expected."""
        argv = ["--config", str(self.config), *words]
        if show:
            click.echo(f"$ muster {shlex.join(words)}")
        code = main(argv)
        sys.stdout.flush()
        sys.stderr.flush()
        if code not in expect:
            wanted = " or ".join(map(str, expect))
            raise DemoError(
                f"`muster {shlex.join(words)}` ended with {code}, not {wanted}",
                where=f"chapter {self.chapter_number} of the demo",
                remedy=f"what it worked on is kept in {self.folder}",
            )
        return code

    def json(self, *words: str, expect: Sequence[int] = (0,)) -> JsonObject:
        """Run a command quietly for its JSON, in a process of its own."""
        command = [sys.executable, "-m", "muster", "--config", str(self.config), *words]
        done = subprocess.run(
            [*command, "--format", "json", "--quiet"], capture_output=True, text=True, check=False
        )
        if done.returncode not in expect:
            raise DemoError(
                f"`muster {shlex.join(words)}` ended with {done.returncode}",
                where=f"chapter {self.chapter_number} of the demo",
                remedy=done.stderr.strip()[-500:],
            )
        found = json.loads(done.stdout)
        return found if isinstance(found, dict) else {}

    def note(self, words: str) -> None:
        """Keep a line for the summary."""
        self.told.append(words)


def tamper(azure: Azure) -> list[str]:
    """Make the changes that nobody planned, and say what was done."""
    claims = azure.account("aoai-claims-swc")
    policies = azure.call("pipeline", "GET", f"{claims}/raiPolicies?{_API}")["value"]
    policy = next(
        p
        for p in (policies if isinstance(policies, list) else [])
        if isinstance(p, dict) and not str(p["name"]).startswith("Microsoft.")
    )
    properties = policy["properties"]
    if isinstance(properties, dict):
        filters = properties.get("contentFilters")
        for one in filters if isinstance(filters, list) else []:
            if isinstance(one, dict):
                one["blocking"] = False
        sent: JsonObject = {
            k: v
            for k, v in properties.items()
            if k in ("basePolicyName", "mode", "contentFilters", "customBlocklists")
        }
        path = f"{claims}/raiPolicies/{policy['name']}?{_API}"
        azure.call("pipeline", "PUT", path, {"properties": sent})
    care = azure.account("ais-care-swc")  # the claims account is guarded by a delete lock
    deployments = azure.call("pipeline", "GET", f"{care}/deployments?{_API}")["value"]
    deployment = [
        d for d in (deployments if isinstance(deployments, list) else []) if isinstance(d, dict)
    ][-1]
    azure.call("pipeline", "DELETE", f"{care}/deployments/{deployment['name']}?{_API}")
    return [
        f"the content filter {policy['name']} no longer blocks anything",
        f"the deployment {deployment['name']} is gone",
    ]


def tell(*, keep: bool, folder: Path | None, blob: bool) -> int:
    """Tell the whole story. Raises DemoError where it does not go as it should."""
    own = folder is None
    place = Path(tempfile.mkdtemp(prefix="muster-demo-")) if folder is None else folder
    place.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    story = Story(place, place / "muster.toml")
    try:
        with sandbox(place, blob=blob) as azure:
            _chapters(story, azure)
    except BaseException:
        keep = True
        raise
    finally:
        if own and not keep:
            _remove(place)
    click.echo(f"\nIn {time.monotonic() - begin:.0f} seconds:")
    for words in story.told:
        click.echo(f"  - {words}")
    if keep or not own:
        click.echo(f"everything is kept in {place}")
    return 0


def _chapters(story: Story, azure: Azure) -> None:
    story.chapter("A company runs its AI on Azure (a local one, for this demo)")
    accounts = azure.accounts()
    regions = sorted({str(a["location"]).lower() for a in accounts})
    story.say(f"{len(accounts)} accounts in {', '.join(regions)}")
    ready = str(story.folder / "ready.json")
    story.run("init", "--sandbox", ready, "--force")
    story.chapter("May muster do its work, and are its stores in order?")
    story.run("doctor", show=True)
    story.chapter("Keep the estate: configuration in Git, bytes in the vault")
    story.run("snapshot")
    kept = story.json("snapshot")
    story.note(
        f"{kept['resources']} resources and {kept['payloads']} payloads kept with "
        f"{kept['calls']} calls, the least possible being {kept['calls_floor']}"
    )
    story.say("A second snapshot of the same estate has the same tree: nothing was written twice.")
    story.chapter("What is there is what was meant: approve it as the baseline")
    story.run("approve", "--all", "--reason", "first baseline", "--by", "you")
    story.chapter("Somebody changes things that nobody planned")
    for words in tamper(azure):
        story.say(f"pipeline: {words}")
    azure.control("POST", "clock", {"advance": 1300})
    story.say("22 minutes later Azure's log knows of it, and so does the audit:")
    story.run("audit", "--fail-on", "low", expect=(2,))
    report = story.json("audit", expect=(2,))
    findings = report.get("findings")
    found = findings if isinstance(findings, list) else []
    named = sum(1 for f in found if isinstance(f, dict) and f.get("who"))
    story.note(f"{len(found)} findings, {named} of them with who did it, when and from where")
    story.chapter("Undo it, and look again")
    ids = [str(f["id"]) for f in found if isinstance(f, dict)]
    story.run("revert", *ids, "--apply", "--yes", "--reason", "unplanned", "--by", "you")
    story.say("Azure's log is minutes behind, so the second look reads everything:")
    story.run("audit", "--sweep")
    story.note("both undone by one command, and proved by reading again")
    story.chapter("Prove that what was kept can be given back")
    story.run("verify")
    story.note("every payload re-hashed, a snapshot rebuilt from the vault alone and compared")


def _remove(place: Path) -> None:
    import shutil

    shutil.rmtree(place, ignore_errors=True)
