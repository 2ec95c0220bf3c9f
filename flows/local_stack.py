"""`make up` and `make down`: Prefect, a worker, the deployments and a sandbox on this machine.

Everything is on loopback and in one folder (.up): Prefect's home with its SQLite, the logs, the
sandbox's state, a configuration for it. Nothing needs the internet, and nothing is sent there. What
is ended is what was started: by recorded id and start time, never by name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from muster.settings import write_private
from snapshots.errors import InputError, LockedError, MusterError, RefusedError

POOL = "muster"
ROOT = Path(__file__).resolve().parent.parent
_PATIENCE = 240.0  # seconds until something must serve
_GRACE = 25.0  # seconds for a clean end; then it is killed
_ORDER = ("sandbox", "server", "worker")


# Those that this very process started: its own children stay zombies until they are asked for.
_STARTED: dict[int, subprocess.Popen[bytes]] = {}


class StackError(MusterError):
    """What was started did not come up, or did not end."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of ours: its id and when it began, which together are never used again."""

    pid: int
    began: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Remember a process that was just started."""
        return cls(pid, _began(pid))

    def lives(self) -> bool:
        """Whether this very process is there: not another one that got its number."""
        return bool(self.began) and _began(self.pid) == self.began


def _began(pid: int) -> str:
    """Say when a process began, "" when there is none or it is a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            fields = stat.read_text("ascii", "replace").rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in {"Z", "X"} else fields[19]
    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return "" if found.startswith("Z") else found.partition(" ")[2].strip()


class Stack:
    """What runs, as the folder knows it. `more` goes into the environment of all of it."""

    def __init__(self, folder: Path, more: Mapping[str, str] | None = None) -> None:
        self.folder = folder.absolute()
        self.more = dict(more or {})

    @property
    def logs(self) -> Path:
        """Where each process writes."""
        return self.folder / "logs"

    @property
    def home(self) -> Path:
        """Prefect's own folder, with its database."""
        return self.folder / "prefect"

    @property
    def config(self) -> Path:
        """The configuration of the sandbox's estate."""
        return self.folder / "muster.toml"

    @property
    def ready(self) -> Path:
        """The sandbox's ready file."""
        return self.folder / "sandbox.json"

    def url(self) -> str:
        """Prefect's address, without /api."""
        return f"http://127.0.0.1:{self.ports()['server']}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let one `make up` or `make down` at a time work here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "lock", timeout=_PATIENCE):
                yield
        except Timeout:
            raise LockedError(
                "another `make up` or `make down` works here", where=str(self.folder)
            ) from None

    def ports(self) -> dict[str, int]:
        """Give the ports, chosen once, so that addresses stay."""
        file = self.folder / "ports.json"
        try:
            found = json.loads(file.read_text("utf-8"))
            return {name: int(found[name]) for name in ("server", "sandbox")}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def choose_ports(self, server: int) -> None:
        """Keep the ports of before, else `server` (0: a free one) and a free one."""
        before = self.ports()
        if before and server in {0, before["server"]}:
            return
        chosen = {"server": server or _free(), "sandbox": before.get("sandbox") or _free()}
        write_private(self.folder / "ports.json", json.dumps(chosen))

    def running(self) -> dict[str, Process]:
        """Give the processes that were started here and live; a stale file gives none."""
        try:
            found = json.loads((self.folder / "processes.json").read_text("utf-8"))
            known = {
                str(name): Process(int(p["pid"]), str(p["began"])) for name, p in found.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return {name: process for name, process in known.items() if process.lives()}

    def remember(self, processes: Mapping[str, Process]) -> None:
        """Write down what runs."""
        document = {n: {"pid": p.pid, "began": p.began} for n, p in processes.items()}
        write_private(self.folder / "processes.json", json.dumps(document, indent=2))

    def environment(self, config: Path | None) -> dict[str, str]:
        """Give the environment of everything of Prefect's: own home, no telemetry, this server."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith("PREFECT_")}
        return {
            **kept,
            "PREFECT_HOME": str(self.home),
            "PREFECT_PROFILES_PATH": str(self.home / "profiles.toml"),
            "PREFECT_API_URL": f"{self.url()}/api",
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.ports()["server"]),
            "PREFECT_SERVER_UI_API_URL": f"{self.url()}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
                "prefect.server.concurrency.lease_storage.filesystem"
            ),
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "3",
            # 2 + 4 + … + 256 seconds: a run outlives a server that is away for eight minutes.
            "PREFECT_CLIENT_MAX_RETRIES": "8",
            "MUSTER_CONFIG": str(config or self.config),
            "NO_PROXY": _unproxied(kept),
            "no_proxy": _unproxied(kept),
            **self.more,
        }


def _unproxied(environment: Mapping[str, str]) -> str:
    """Add this machine to what the user reaches without a proxy."""
    theirs = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    return ",".join(filter(None, (theirs, "127.0.0.1,localhost")))


# ------------------------------------------------------------------------------------------- up


def up(
    stack: Stack,
    *,
    port: int,
    config: Path | None = None,
    notify: Path | None = None,
) -> None:
    """Start what does not run yet, and deploy; without a configuration, also a sandbox.

    `notify` is a file of channels and routes.

    Raises MusterError; what came up stays up.
    """
    sandbox = config is None
    with stack.locked():
        stack.logs.mkdir(parents=True, exist_ok=True)
        stack.home.mkdir(parents=True, exist_ok=True)
        running = stack.running()
        stack.choose_ports(stack.ports()["server"] if "server" in running else port)
        environment = stack.environment(config)
        if sandbox and "sandbox" not in running:
            _start_sandbox(stack, environment)
        if "server" not in running:
            _start_server(stack, environment)
        if sandbox:
            _wait(stack, "sandbox", stack.ready.is_file)
            _configure(stack, environment)
        _wait(stack, "server", lambda: _answers(f"{stack.url()}/api/health"))
        command = [sys.executable, "-m", "flows.prepare_server"]
        command += ["--notify", str(notify.absolute())] if notify is not None else []
        _run(stack, command, environment)
        if "worker" not in stack.running():
            command = [sys.executable, "-m", "flows.keep_worker", "--pool", POOL]
            _start(stack, "worker", [*command, "--name", f"up-{os.getpid()}"], environment)


def restart_server(stack: Stack) -> None:
    """End the server and start it again; runs and workers go on meanwhile."""
    down(stack, ["server"])
    with stack.locked():
        _start_server(stack, stack.environment(None))
        _wait(stack, "server", lambda: _answers(f"{stack.url()}/api/health"))


def _start_server(stack: Stack, environment: Mapping[str, str]) -> None:
    _refuse_taken(stack.ports()["server"])
    command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start"]
    _start(stack, "server", command, environment)


def _start_sandbox(stack: Stack, environment: Mapping[str, str]) -> None:
    stack.ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "muster", "sandbox", "--state", str(stack.folder / "azure")]
    command += ["--ready-file", str(stack.ready), "--port", str(stack.ports()["sandbox"])]
    _start(stack, "sandbox", [*command, "--no-blob"], environment)


def _start(stack: Stack, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
    # A shell that runs make in the background has SIGINT ignored, which a child would inherit, and
    # a worker that cannot hear it never ends.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (stack.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    finally:
        signal.signal(signal.SIGINT, before)
    _STARTED[process.pid] = process
    stack.remember({**stack.running(), name: Process.of(process.pid)})


def _configure(stack: Stack, environment: Mapping[str, str]) -> None:
    """Write a configuration for the sandbox's estate, unless there is one."""
    if stack.config.is_file():
        return
    command = [sys.executable, "-m", "muster", "init", "--sandbox", str(stack.ready)]
    _run(stack, [*command, "--config", str(stack.config), "--name", "sandbox"], environment)


def _run(stack: Stack, command: Sequence[str], environment: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StackError(
            f"`{' '.join(command[2:4])}` does not end", where=str(stack.logs)
        ) from None
    with (stack.logs / "setup.log").open("ab") as log:
        log.write(done.stdout + done.stderr)
    if done.returncode:
        words = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise StackError(
            f"`{' '.join(command[2:4])}` ended with {done.returncode}: {' '.join(words[-3:])}",
            where=str(stack.logs / "setup.log"),
            remedy="look there, then `make up` again",
        )


def _wait(stack: Stack, name: str, serves: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not serves():
        if name not in stack.running() or time.monotonic() > deadline:
            log = stack.logs / f"{name}.log"
            words = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
            raise StackError(
                f"the {name} did not come up: {' '.join(words)[-300:]}",
                where=str(log),
                remedy="look there; `make down` ends what did come up",
            )
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise RefusedError(
                f"something else listens on port {port}",
                where=f"127.0.0.1:{port}",
                remedy="end it, or choose another: make up PORT=4300",
            ) from None


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ----------------------------------------------------------------------------------------- down


def down(stack: Stack, names: Sequence[str] = _ORDER) -> list[str]:
    """End what `up` started here (or some of it), last first, and say what it was.

    Runs that are under way are ended with the worker: drills clean up, restores stop between steps.
    """
    if not stack.folder.is_dir():
        return []
    with stack.locked():
        running, ended = stack.running(), []
        for name in reversed(_ORDER):
            process = running.get(name)
            if process is not None and name in names:
                _end(process)
                ended.append(name)
        stack.remember(stack.running())
    return ended


def _end(process: Process) -> None:
    children = _family(process)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for one in (process, *children):
            if one.lives():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.pid, number)
        deadline = time.monotonic() + _GRACE
        while any(one.lives() for one in (process, *children)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            ours = _STARTED.pop(process.pid, None)
            if ours is not None:
                ours.wait(_GRACE)
            return
    raise StackError(f"process {process.pid} does not end", remedy="see what holds it")


def _family(process: Process) -> list[Process]:
    """Give the descendants of a process, each remembered by its number and its beginning."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False
    ).stdout
    parents = {int(pid): int(parent) for pid, parent in (x.split() for x in listed.splitlines())}
    found, look = [], [process.pid]
    while look:
        parent = look.pop()
        for pid in (p for p, above in parents.items() if above == parent):
            found.append(Process.of(pid))
            look.append(pid)
    return [one for one in found if one.began]


# ------------------------------------------------------------------------------------- the line


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line: up, down or status."""
    reader = argparse.ArgumentParser(prog="python -m flows.local_stack", description=__doc__)
    reader.add_argument("what", choices=("up", "down", "status"))
    reader.add_argument("--folder", type=Path, default=ROOT / ".up")
    reader.add_argument("--port", type=int, default=4200, help="of Prefect; 0: a free one")
    reader.add_argument("--config", type=Path, help="your own muster.toml, instead of a sandbox")
    reader.add_argument("--notify", type=Path, help="a file like deploy/notifications.yaml")
    reader.add_argument("--open", action="store_true", help="open the UI in the browser")
    asked = reader.parse_args(argv)
    stack = Stack(asked.folder)
    try:
        for file in (asked.config, asked.notify):
            if file is not None and not file.is_file():
                raise InputError("there is no such file", where=str(file))
        if asked.what == "up":
            config = asked.config.absolute() if asked.config else None
            up(stack, port=asked.port, config=config, notify=asked.notify)
            _tell_up(stack, config)
            if asked.open:
                import webbrowser

                webbrowser.open(stack.url())
        elif asked.what == "down":
            ended = down(stack)
            print(f"ended: {', '.join(ended)}" if ended else "nothing ran")  # noqa: T201
        else:
            for name in _ORDER:
                process = stack.running().get(name)
                print(f"{name:<8} {process.pid if process else 'does not run'}")  # noqa: T201
    except MusterError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("interrupted: `make down` ends what came up", file=sys.stderr)  # noqa: T201
        return 130
    return 0


def _tell_up(stack: Stack, config: Path | None) -> None:
    lines = [
        f"Prefect    {stack.url()}",
        f"logs       {stack.logs}",
        f"estate     {config or stack.config}",
        "",
        "To use them from this shell:",
        f"  export PREFECT_API_URL={stack.url()}/api MUSTER_CONFIG={config or stack.config}",
        "  muster snapshot --via prefect",
        "",
        "`make down` ends what was started, and keeps what was made.",
    ]
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
