"""The demo: the story of muster told with its own commands, on a local Azure, in minutes."""

from __future__ import annotations

import io
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
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import click

from muster.cli import main
from snapshots.errors import MusterError
from snapshots.model import JsonObject

PATIENCE = 90.0  # seconds until the sandbox must serve
PRIMARY, STANDBY = "swedencentral", "eastus2"
QUESTION = "A pipe burst in my kitchen."
_API = "api-version=2025-09-01"
_FASTER = 60  # Azure's own time, while it copies: nobody wants to watch two minutes of it


class DemoError(MusterError):
    """The story did not go as it should."""


@dataclass(frozen=True, slots=True)
class Azure:
    """The running sandbox, as somebody outside of muster sees it: plain HTTPS."""

    ready: JsonObject
    context: ssl.SSLContext

    def send(self, request: urllib.request.Request) -> JsonObject:
        """One request; the JSON answer. Raises DemoError with the service's words."""
        where = request.full_url
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=30) as answer:  # noqa: S310  loopback, https
                text = answer.read()
        except urllib.error.HTTPError as error:
            words = error.read().decode("utf-8", "replace")[:300]
            what = f"the sandbox answered {error.code} to {request.get_method()}"
            raise DemoError(what, where=where, remedy=words) from None
        except (urllib.error.URLError, OSError) as error:
            raise DemoError("the sandbox did not answer", where=where, remedy=str(error)) from None
        found = json.loads(text) if text else {}
        return found if isinstance(found, dict) else {}

    def _text(self, *names: str) -> str:
        value: object = self.ready
        for name in names:
            value = value[name] if isinstance(value, dict) else ""
        return str(value)

    def token(self, principal: str, scope: str = "https://management.azure.com/.default") -> str:
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
            "scope": scope,
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

    def ask(self, account: str, deployment: str, question: str) -> str:
        """What a deployment answers on its account's own endpoint."""
        found = self.call("muster", "GET", f"{account}?{_API}")["properties"]
        endpoint = str(found["endpoint"]) if isinstance(found, dict) else ""
        path = f"openai/deployments/{deployment}/chat/completions?api-version=2024-10-21"
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0}
        token = self.token("muster", "https://cognitiveservices.azure.com/.default")
        request = urllib.request.Request(  # noqa: S310  https
            f"{endpoint.rstrip('/')}/{path}",
            json.dumps(body).encode(),
            {"authorization": f"Bearer {token}", "content-type": "application/json"},
            method="POST",
        )
        choices = self.send(request)["choices"]
        first = choices[0] if isinstance(choices, list) else {}
        message = first.get("message") if isinstance(first, dict) else {}
        return str(message.get("content")) if isinstance(message, dict) else ""

    def requests(self, *, after: int = 0, region: str = "") -> list[JsonObject]:
        """The requests that reached the sandbox since one, of a region or of all."""
        listed = self.control("GET", f"journal?after={after}")["value"]
        rows = [r for r in (listed if isinstance(listed, list) else []) if isinstance(r, dict)]
        return [row for row in rows if not region or row.get("region") == region]

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

    def subscription(self, name: str) -> str:
        """The id of a subscription, by its name."""
        listed = self.call("pipeline", "GET", "/subscriptions?api-version=2022-12-01")["value"]
        return next(
            str(row["subscriptionId"])
            for row in (listed if isinstance(listed, list) else [])
            if isinstance(row, dict) and row["displayName"] == name
        )


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
    chapters: list[tuple[str, float]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def chapter(self, words: str) -> None:
        """Begin a chapter."""
        spent = time.monotonic() - self.begin
        self.chapters.append((words, spent))
        line = f"[{spent:5.1f} s] {len(self.chapters)} of {CHAPTERS}. {words}"
        click.echo(f"\n{line}\n{'-' * len(line)}")

    def say(self, words: str) -> None:
        """A sentence between commands."""
        click.echo(words)

    def run(
        self, *words: str, expect: Sequence[int] = (0,), most: tuple[int, int] | None = None
    ) -> int:
        """Run `muster WORDS`. Raises DemoError when it ends otherwise than expected.

        `most` shows only so many of its first and last lines, and says how many are left out.
        """
        argv = ["--config", str(self.config), *words]
        click.echo(f"$ muster {shlex.join(words)}")
        if most is None:
            code = main(argv)
        else:
            code, text = _held(argv)
            abridge(text, *most)
        sys.stdout.flush()
        sys.stderr.flush()
        self._check(code, expect, words)
        return code

    def json(self, *words: str, expect: Sequence[int] = (0,)) -> JsonObject:
        """Run a command quietly for its JSON."""
        argv = ["--config", str(self.config), *words, "--format", "json", "--quiet"]
        code, text = _held(argv)
        self._check(code, expect, words)
        found = json.loads(text)
        return found if isinstance(found, dict) else {}

    def _check(self, code: int, expect: Sequence[int], words: Sequence[str]) -> None:
        if code in expect:
            return
        wanted = " or ".join(map(str, expect))
        raise DemoError(
            f"`muster {shlex.join(words)}` ended with {code}, not {wanted}",
            where=f"chapter {len(self.chapters)} of the demo",
            remedy=f"what it worked on is kept in {self.folder}",
        )

    def note(self, words: str) -> None:
        """Keep a line for the summary."""
        self.told.append(words)

    def summary(self) -> None:
        """One screen: what was done, how long each chapter took, and what was proved."""
        end = time.monotonic() - self.begin
        ends = [began for _, began in self.chapters[1:]] + [end]
        click.echo(f"\nThe whole story in {end:.0f} seconds")
        for number, ((words, began), ended) in enumerate(zip(self.chapters, ends, strict=True), 1):
            click.echo(f"  {number:2}. {words:<62} {ended - began:5.1f} s")
        click.echo("What it showed")
        for words in self.told:
            click.echo(f"  - {words}")


CHAPTERS = 14


def _held(argv: Sequence[str]) -> tuple[int, str]:
    """Run a command, and hold back what it writes to stdout."""
    raw = io.BytesIO()  # with bytes beneath, as a real one: some commands write bytes
    held = io.TextIOWrapper(raw, "utf-8", write_through=True)
    with redirect_stdout(held):
        code = main(list(argv))
    return code, raw.getvalue().decode("utf-8")


def abridge(text: str, first: int, last: int) -> None:
    """Print the first and last lines of what a command said."""
    lines = text.rstrip("\n").split("\n")
    between = len(lines) - first - last
    if between <= 1:
        click.echo("\n".join(lines))
        return
    shown = lines[:first]
    shown.append(f"    … {between} lines more …")
    click.echo("\n".join([*shown, *(lines[-last:] if last else [])]))


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


def decide(story: Story, azure: Azure) -> None:
    """Do what `ready` asked for: quota from Azure, and what the standby is given instead."""
    quota: JsonObject = {
        "subscription": azure.subscription("Contoso AI Recovery"),
        "region": STANDBY,
        "usage": "OpenAI.Standard.gpt-4o",
        "limit": 200,
    }
    azure.control("PUT", "quota", quota)
    story.say(f"Azure grants the quota of gpt-4o in {STANDBY} that was asked for. The team writes:")
    secret = story.folder / "secrets"
    secret.mkdir(mode=0o700, exist_ok=True)
    for name, value in (
        ("search", "demo-search-key"),
        ("parcels", "demo-parcel-key"),
        ("crm", '{"keys": {"x-api-key": "demo-crm-key", "tenant": "contoso"}}'),
    ):
        (secret / name).write_text(value, "utf-8")
        (secret / name).chmod(0o600)
    text = story.config.read_text("utf-8")
    mark = "# Git keeps the state."
    story.config.write_text(text.replace(mark, f"{DECISIONS}\n{mark}", 1), "utf-8")
    for line in DECISIONS.rstrip("\n").split("\n"):
        story.say(f"    {line}")


DECISIONS = """\
[estate.pair.sku]                                # the standby has no provisioned units left
gpt4o-ptu = { name = "GlobalStandard", capacity = 50 }
[estate.pair.versions]                           # the old one is for its existing customers
"gpt-4o@2024-08-06" = "2024-11-20"
[restore.secrets]                                # where they are: never they themselves
"account-connection/care-search" = "file:secrets/search"
"project-connection/crm-api" = "file:secrets/crm"
"project-connection/parcel-service" = "file:secrets/parcels"
"""


def work_on(azure: Azure) -> list[str]:
    """Make an ordinary working day's changes in the primary, and say what was done."""
    care = azure.account("ais-care-swc")
    found = azure.call("pipeline", "GET", f"{care}/deployments/care-chat?{_API}")
    properties, sku = found["properties"], found["sku"]
    model = properties["model"] if isinstance(properties, dict) else None
    if isinstance(sku, dict) and isinstance(model, dict):
        named: JsonObject = {n: model[n] for n in ("format", "name", "version")}
        body: JsonObject = {
            "sku": {"name": sku["name"], "capacity": 5},
            "properties": {"model": named},
        }
        azure.call("pipeline", "PUT", f"{care}/deployments/care-night-shift?{_API}", body)
    blocklist = f"{care}/raiBlocklists/storm-names?{_API}"
    azure.call("pipeline", "PUT", blocklist, {"properties": {"description": "Named storms"}})
    return [
        "a new deployment, care-night-shift",
        "a new blocklist, storm-names",
    ]


def tell(*, keep: bool, folder: Path | None, blob: bool) -> int:
    """Tell the whole story. Raises DemoError where it does not go as it should."""
    own = folder is None
    place = Path(tempfile.mkdtemp(prefix="muster-demo-")) if folder is None else folder
    place.mkdir(parents=True, exist_ok=True)
    story = Story(place, place / "muster.toml")
    stays = keep or not own
    site = place / "report" if stays else Path(tempfile.mkdtemp(prefix="muster-demo-site-"))
    try:
        with sandbox(place, blob=blob) as azure:
            _keep_and_audit(story, azure)
            _make_ready(story, azure)
            _fail_over(story, azure)
            _rehearse(story, azure, site)
            story.summary()
    except BaseException:
        keep = True
        raise
    finally:
        if own and not keep:
            _remove(place)
    click.echo(f"The site: {(site / 'index.html').as_uri()}")
    if stays:
        click.echo(f"everything is kept in {place}")
    return 0


def _newest(story: Story) -> JsonObject:
    found = story.json("log", "--limit", "1")["snapshots"]
    newest = found[0] if isinstance(found, list) and found else None
    return newest if isinstance(newest, dict) else {}


def _keep_and_audit(story: Story, azure: Azure) -> None:
    story.chapter("A company runs its AI on Azure (a local one, for this demo)")
    accounts = azure.accounts()
    regions = sorted({str(a["location"]).lower() for a in accounts})
    story.say(f"{len(accounts)} accounts in {', '.join(regions)}")
    ready = str(story.folder / "ready.json")
    story.run("init", "--sandbox", ready, "--force")
    story.run("doctor", most=(0, 1))
    story.chapter("Keep the estate: configuration in Git, bytes in the vault")
    story.run("snapshot")
    first = _newest(story)
    again = story.json("snapshot")
    if again["tree"] != first["tree"]:
        raise DemoError(
            "a second snapshot of the same estate has another tree",
            where=f"{first['tree']} and {again['tree']}",
            remedy=f"what it worked on is kept in {story.folder}",
        )
    story.say("A second snapshot of the same estate has the same tree: nothing was written twice.")
    story.note(
        f"{again['resources']} resources and {again['payloads']} payloads kept with "
        f"{first['calls']} calls; looking again took {again['calls']}, the least possible being "
        f"{again['calls_floor']}, and wrote nothing twice"
    )
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
    story.note(
        f"{len(found)} unplanned changes found, {named} with who did it, when and from where"
    )
    story.chapter("Undo it, and look again")
    ids = [str(f["id"]) for f in found if isinstance(f, dict)]
    story.run(
        "revert", *ids, "--apply", "--yes", "--reason", "unplanned", "--by", "you", most=(2, 3)
    )
    story.say("Azure's log is minutes behind, so the second look reads everything:")
    story.run("audit", "--sweep")
    story.note("both undone by one command, and proved by reading again")
    story.chapter("Prove that what was kept can be given back")
    story.run("verify")
    story.note("every payload re-hashed, a snapshot rebuilt from the vault alone and compared")


def _make_ready(story: Story, azure: Azure) -> None:
    pair = ("--pair", f"{PRIMARY}:{STANDBY}")
    story.chapter(f"Could we recover in {STANDBY} right now?")
    story.run("ready", *pair, expect=(2,))
    before = _stopping(story.json("ready", *pair, expect=(2,)))
    story.note(f"ready named {len(before)} things that would stop a failover: {', '.join(before)}")
    story.chapter("Decide what the standby gets instead")
    decide(story, azure)
    story.chapter("Keep the standby in step, fine-tuned models included")
    azure.control("POST", "clock", {"scale": _FASTER})
    story.run("replicate", "--apply", "--yes", most=(4, 5))
    done = story.json("replicate")
    if done["steps"]:
        raise DemoError("the standby is not in step after a replication", where="chapter 9")
    story.note("each fine-tuned model answers in the standby as its source does, prompt by prompt")
    story.run("ready", *pair, expect=(0, 2))
    left = _stopping(story.json("ready", *pair, expect=(0, 2)))
    story.note(f"ready again: {'only ' + ', '.join(left) if left else 'nothing'} left to do")


def _stopping(found: JsonObject) -> list[str]:
    """The names of what is not met or not known."""
    listed = found.get("checks")
    return sorted(
        {
            str(check["name"])
            for check in (listed if isinstance(listed, list) else [])
            if isinstance(check, dict) and check["state"] in {"not met", "not known"}
        }
    )


def _fail_over(story: Story, azure: Azure) -> None:
    story.chapter("A working day goes by, and is kept")
    for words in work_on(azure):
        story.say(f"pipeline: {words}")
    story.run("snapshot")
    source = azure.account("aoai-claims-swc")
    theirs = azure.ask(source, "claims-triage", QUESTION)
    story.chapter(f"{PRIMARY} is gone")
    azure.control("POST", "faults", {"kind": "outage", "region": PRIMARY})
    after = max((int(str(row["seq"])) for row in azure.requests()), default=0)
    try:
        azure.ask(source, "claims-triage", QUESTION)
    except DemoError as error:
        story.say(f"an application that asks claims-triage there: {error.what}")
    else:
        raise DemoError("the outage is none: the primary answers", where="chapter 11")
    knocked = len(azure.requests(after=after, region=PRIMARY))
    if not knocked:
        raise DemoError("the journal does not show the knock", where="chapter 11")
    after = max(int(str(row["seq"])) for row in azure.requests(after=after))
    story.chapter(f"Restore the last snapshot to {STANDBY}, without the primary")
    restore = ("latest", "--to", "standby", "--declare-down", PRIMARY)
    story.run("restore", *restore, "--apply", "--yes", most=(8, 3))
    again = story.json("plan", *restore)
    if again["steps"]:
        raise DemoError("something is left to restore", where="chapter 12")
    story.say("A second plan is empty: the standby, read again, is as the snapshot says.")
    reached = azure.requests(after=after, region=PRIMARY)
    sent = len(azure.requests(after=after))
    if reached:
        raise DemoError(
            f"{len(reached)} requests reached {PRIMARY}",
            where=str(reached[0].get("path")),
            remedy="a restore with the primary declared down sends nothing there",
        )
    story.say(
        f"Azure's journal: {sent} requests, not one to {PRIMARY} (the application's knock before "
        f"is in it: {knocked})."
    )
    ours = azure.ask(azure.account("aoai-claims-eus2"), "claims-triage", QUESTION)
    if ours != theirs:
        raise DemoError("the standby's model answers otherwise", where=ours, remedy=theirs)
    story.say(f"claims-triage in {STANDBY} answers {QUESTION!r} as before: {ours!r}")
    story.note(
        f"region lost: the standby is as the last snapshot, {sent} requests, none to the primary"
    )


def _rehearse(story: Story, azure: Azure, site: Path) -> None:
    story.chapter("Rehearse it: the region is lost again, as a drill")
    azure.control("DELETE", "faults")
    story.say(f"{PRIMARY} is back. A drill takes it away again, asks everything, and cleans up:")
    ready = str(story.folder / "ready.json")
    drill = ("drill", "run", "region-failover", "--sandbox", ready, "--approver", "you", "--yes")
    story.run(*drill, most=(4, 5))
    story.chapter("Would it work today? And what others are shown")
    pair = ("--pair", f"{PRIMARY}:{STANDBY}")
    story.run("ready", *pair)
    verdict = story.json("ready", *pair)["verdict"]
    story.note(f"a drill passed, each of its checks failing on a broken copy; ready: {verdict}")
    story.run("report", "--output", str(site), most=(10, 0))
    if not (site / "index.html").is_file():
        raise DemoError("the site was not written", where=str(site))


def _remove(place: Path) -> None:
    import shutil

    shutil.rmtree(place, ignore_errors=True)
