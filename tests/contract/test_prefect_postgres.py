"""Two Prefect servers on one PostgreSQL: one is killed in the middle, and the work goes on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest

from flows.local_stack import Stack, down, up
from muster.prefect_api import Server
from tests.prefect_fixtures import QUICK, ROOT, PrefectSite, eventually

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1500)]


def program(name: str) -> str | None:
    """Where a program of PostgreSQL is: on the path, or where Debian keeps it."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


def as_nobody_special(*words: str) -> list[str]:
    """PostgreSQL refuses to run as root: then it is run by the user that its package made."""
    return ["runuser", "-u", "postgres", "--", *words] if os.geteuid() == 0 else list(words)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL of this module's own, on loopback: its address for Prefect."""
    initdb, server, createdb = program("initdb"), program("postgres"), program("createdb")
    if not (initdb and server and createdb):
        pytest.skip("PostgreSQL is not installed here (Debian: apt-get install postgresql)")
    folder, port = Path(tempfile.mkdtemp(prefix="muster-pg-")), free_port()
    log = folder.with_suffix(".log").open("ab")
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        make = as_nobody_special(initdb, "-D", str(folder / "data"), "-A", "trust", "-U", "prefect")
        subprocess.run(make, cwd="/", check=True, stdout=log, stderr=log)
        run = [server, "-D", str(folder / "data"), "-p", str(port), "-k", str(folder)]
        run += ["-c", "listen_addresses=127.0.0.1"]
        process = subprocess.Popen(as_nobody_special(*run), cwd="/", stdout=log, stderr=log)
        try:
            ask = [createdb, "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect"]
            eventually(
                "PostgreSQL", lambda: subprocess.run(ask, check=False, stderr=log).returncode == 0
            )
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
        finally:
            for child in family(process.pid):  # SIGINT: it ends its clients, and itself
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGINT)
            process.wait(60)
    finally:
        log.close()
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)


class Balancer(ThreadingTCPServer):
    """What stands before the servers: each connection goes to the next one that listens."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.ports: list[int] = []
        self.served: dict[int, int] = {}
        self._turn = count()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def connect(self) -> socket.socket | None:
        turn = next(self._turn)
        for number in range(len(self.ports)):
            port = self.ports[(turn + number) % len(self.ports)]
            with suppress(OSError):
                found = socket.create_connection(("127.0.0.1", port), timeout=5)
                found.settimeout(None)
                self.served[port] = self.served.get(port, 0) + 1
                return found
        return None


class _Connection(BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Balancer)
        behind = self.server.connect()
        if behind is None:
            return
        with behind:
            back = Thread(target=pump, args=(behind, self.request), daemon=True)
            back.start()
            pump(self.request, behind)
            back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def family(pid: int) -> list[int]:
    text = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True).stdout
    parents = {int(a): int(b) for a, b in (line.split() for line in text.decode().splitlines())}
    found, look = [], [pid]
    while look:
        at = look.pop()
        found.append(at)
        look += [child for child, parent in parents.items() if parent == at]
    return found


def lose(pid: int) -> None:
    """Take a process away with all below it, as a machine that is lost takes them."""
    for one in family(pid):
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def test_a_server_that_is_lost_in_the_middle_of_a_snapshot_costs_nothing(
    database: str, tmp_path: Path
) -> None:
    balancer = Balancer()
    Thread(target=balancer.serve_forever, daemon=True).start()
    more = {
        **QUICK,
        "PREFECT_API_URL": f"{balancer.url}/api",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
    }
    stack = Stack(tmp_path / "up", more)
    stack.choose_ports(0)
    first, second = stack.ports()["server"], free_port()
    balancer.ports = [first, second]
    other: subprocess.Popen[bytes] | None = None
    try:
        up(stack, port=0)
        command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start"]
        with (stack.logs / "second.log").open("ab") as log:
            other = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**stack.environment(None), "PREFECT_SERVER_API_PORT": str(second)},
                stdout=log,
                stderr=log,
            )
        eventually("the second server", lambda: Server(f"http://127.0.0.1:{second}/api").version())
        site = PrefectSite(stack, Server(f"{balancer.url}/api"), [], [], tmp_path / "heard")

        azure = site.azure()
        azure.control("POST", "faults", {"kind": "latency", "seconds": 1.0, "plane": "arm"})
        try:
            run = site.start("take-snapshot/snapshots", content=False)
            eventually("a turn at the ledger", lambda: site.slots_taken() or None)
            lose(stack.running()["server"].pid)
        finally:
            azure.control("DELETE", "faults")
        ended = site.ended(run)
        assert ended.state == "Completed", f"{ended.message}\n{site.log(run)}"
        assert site.document(run)["gaps"] == []
        with site.ledger() as ledger:
            [entry] = list(ledger.log())
        assert entry.commit == site.document(run)["snapshot"]
        assert min(balancer.served.get(port, 0) for port in (first, second)) > 0
        eventually("the turn is given back", lambda: site.slots_taken() == 0 or None)

        # The other way round: the first one comes back, the second one goes.
        up(stack, port=0)
        lose(other.pid)
        other.wait(30)
        ended = site.ended(site.start("verify-stores/verification", sample=100))
        assert ended.state == "Completed", f"{ended.message}\n{site.log(ended.id)}"
        assert site.event("muster.stores.whole", ended.id)
        assert "muster" in site.everything()
    finally:
        down(stack)
        if other is not None:
            lose(other.pid)
            other.wait(30)
        balancer.shutdown()
        balancer.server_close()
