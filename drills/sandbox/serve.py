"""Start the sandbox (state, estate, Azurite, HTTPS, ready file) and stop it cleanly."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from drills.sandbox.app import Sandbox
from drills.sandbox.certificates import Certificates, certificates
from drills.sandbox.clock import SandboxClock
from drills.sandbox.control import keep_clock
from drills.sandbox.estates import EstateError, load_estate
from drills.sandbox.store import StateError, Store
from drills.sandbox.wire import Body
from drills.sandbox.world import World


class StartError(Exception):
    """The sandbox cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to start a sandbox."""

    state: Path
    estate: str = "demo"
    port: int = 0
    seed: int = 1
    time_scale: float | None = None
    ready_file: Path | None = None
    blob: bool = True


class _Protocol(HttpToolsProtocol):
    """Hands the transport to the application, which drops connections on purpose."""

    def on_message_begin(self) -> None:
        """Called by the parser when a request begins."""
        super().on_message_begin()
        extensions: dict[str, object] = {"sandbox.transport": self.transport}
        self.scope["extensions"] = extensions  # type: ignore[typeddict-item]


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again, which would skip the clean end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop serving on SIGINT and SIGTERM, and then let the caller finish."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._leave)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _leave(self) -> None:
        self.should_exit = True


def open_world(options: Options, base: str) -> tuple[World, Sandbox]:
    """The world of a state folder; its estate is loaded when the folder is new.

    Raises StateError or EstateError.
    """
    store = Store(options.state)
    kept = store.meta("clock")
    clock = SandboxClock()
    if kept is not None:
        start = kept["time"] if kept["frozen"] else max(kept["time"], time.time() + kept["ahead"])
        clock = SandboxClock(start, kept["scale"])
        if kept["frozen"]:
            clock.freeze()
    if options.time_scale is not None:
        clock.set_scale(options.time_scale)
    seed = store.meta("seed")
    if seed is None:
        seed = options.seed
        store.set_meta("seed", seed)
    world = World(store, clock, seed=int(seed), base=base)
    sandbox = Sandbox(world)

    def load() -> None:
        store.begin()
        try:
            estate = str(store.meta("estate") or options.estate)
            load_estate(world, estate)
            store.set_meta("estate", estate)
            if store.meta("managed-identity-header") is None:
                store.set_meta("managed-identity-header", secrets.token_hex(16))
        except BaseException:
            store.rollback()
            raise
        store.commit()

    sandbox.control.reload = load
    loaded = store.meta("estate")
    try:
        if loaded is None:
            load()
        elif options.estate not in (loaded, "demo"):
            raise StateError(  # noqa: TRY301  closes the store like any other failure here
                f"{options.state} holds the estate '{loaded}', not '{options.estate}': start with "
                "another --state folder, or leave --estate out to go on with what is there"
            )
    except BaseException:
        store.close()
        raise
    keep_clock(world)
    return world, sandbox


def ready_document(world: World, sandbox: Sandbox, files: Certificates, blob: Body | None) -> Body:
    """What the ready file says."""
    store = world.store
    return {
        "url": world.base,
        "ca": str(files.ca.resolve()),
        "tenant": world.identity.tenant,
        "subscriptions": [
            {"id": s["subscriptionId"], "name": s["displayName"]}
            for _, s in store.items("subscriptions")
        ],
        "principals": [
            {
                "name": p["name"],
                "kind": p["kind"],
                "client_id": p["appid"],
                "secret": p["secret"],
                "object_id": p["oid"],
                "role": p["role"],
                **({"upn": p["upn"]} if p["upn"] else {}),
            }
            for _, p in store.items("principals")
        ],
        "managed_identity": {
            "endpoint": f"{world.base}/msi/token",
            "header": store.meta("managed-identity-header"),
        },
        "blob": blob,
        "control": {"url": f"{world.base}/_sandbox", "token": sandbox.control.token},
        "pid": os.getpid(),
    }


def write_ready(path: Path, document: Body) -> None:
    """Write the ready file whole or not at all, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def _listen(port: int) -> list[socket.socket]:
    """Sockets on 127.0.0.1 and, where there is one, ::1; the same port on both."""
    first = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        first.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        first.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StartError(
            f"cannot listen on 127.0.0.1:{port}: {reason}; "
            "choose another --port, or 0 for a free one"
        ) from None
    sockets = [first]
    if socket.has_ipv6:
        second = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            second.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            second.bind(("::1", first.getsockname()[1]))
            sockets.append(second)
        except OSError:
            second.close()  # a machine without IPv6 loopback: 127.0.0.1 is enough
    for one in sockets:
        # Inherited by what is accepted: head and body of an answer leave without a 40 ms wait.
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.listen(2048)
        one.setblocking(False)
    return sockets


class BlobService:
    """Azurite beside the sandbox, started in the background; its accounts are the estate's."""

    def __init__(self, world: World, location: Path) -> None:
        self.world = world
        self.location = location
        self._azurite: Any = None
        self._error = ""
        self._thread = threading.Thread(target=self._start, name="azurite", daemon=True)
        # Read here: the store belongs to the thread that serves.
        self._accounts = {
            str(account["name"]): str(account["key"])
            for _, account in world.store.items("storage-keys")
        }

    def begin(self) -> None:
        """Start without waiting."""
        self._thread.start()

    def _start(self) -> None:
        from drills.sandbox.blob.azurite import Azurite, AzuriteError

        accounts = self._accounts or {"devstoreaccount1": "A" * 86 + "=="}
        try:
            self.location.mkdir(parents=True, exist_ok=True)
            self._azurite = Azurite.start(self.location, accounts)
        except AzuriteError as error:
            self._error = str(error)

    def wait(self) -> Body:
        """What the ready file says of it: accounts with endpoints and keys, or the error."""
        self._thread.join(timeout=90)
        if self._azurite is None:
            return {"error": self._error or "Azurite did not start in time", "accounts": []}
        accounts = self._azurite.accounts
        port = self._azurite.port
        self.world.blob = f"http://127.0.0.1:{port}"
        return {
            "endpoint": self.world.blob,
            "accounts": [
                {
                    "name": a.name,
                    "endpoint": a.endpoint,
                    "key": a.key,
                    "connection_string": a.connection_string,
                }
                for a in accounts.values()
            ],
        }

    def stop(self) -> None:
        """End it."""
        self._thread.join(timeout=90)
        if self._azurite is not None:
            self._azurite.stop()


def run(options: Options) -> None:
    """Serve until SIGINT or SIGTERM. Raises StartError, StateError or EstateError."""
    sockets = _listen(options.port)
    if options.ready_file is not None:
        options.ready_file.unlink(missing_ok=True)  # of a sandbox that was killed
    port = sockets[0].getsockname()[1]
    try:
        options.state.mkdir(parents=True, exist_ok=True)
        files = certificates(options.state)
        world, sandbox = open_world(options, f"https://localhost:{port}")
    except OSError as error:
        raise StartError(
            f"cannot use the state folder {options.state}: {error.strerror}; choose another --state"
        ) from None
    service = BlobService(world, options.state / "blob") if options.blob else None
    if service is not None:
        service.begin()
    config = uvicorn.Config(
        sandbox,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        ssl_certfile=str(files.chain),
        ssl_keyfile=str(files.key),
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=30,
        backlog=2048,
    )
    server = _Server(config)
    try:
        asyncio.run(_serve(server, sockets, world, sandbox, files, service, options))
    finally:
        if service is not None:
            service.stop()
        keep_clock(world)
        world.store.close()
        if options.ready_file is not None:
            with contextlib.suppress(OSError):
                options.ready_file.unlink()


async def _serve(
    server: uvicorn.Server,
    sockets: list[socket.socket],
    world: World,
    sandbox: Sandbox,
    files: Certificates,
    service: BlobService | None,
    options: Options,
) -> None:
    loop = asyncio.get_running_loop()
    serving = loop.create_task(server.serve(sockets=sockets))
    while not server.started and not serving.done():  # noqa: ASYNC110  uvicorn has no event
        await asyncio.sleep(0.01)
    blob = None if service is None else await loop.run_in_executor(None, service.wait)
    document = ready_document(world, sandbox, files, blob)
    if options.ready_file is not None:
        write_ready(options.ready_file, document)
    _announce(document, options)
    heart = loop.create_task(_heartbeat(world))
    try:
        await serving
    finally:
        heart.cancel()


async def _heartbeat(world: World) -> None:
    """Let timers run and the clock be written down also while nobody asks."""
    beats = 0
    while True:
        await asyncio.sleep(0.2)
        if not world.store.in_transaction:
            world.run_due()
            beats += 1
            if beats % 25 == 0:
                keep_clock(world)


def _announce(document: Body, options: Options) -> None:
    lines = [
        f"sandbox: {document['url']}  (trust {document['ca']})",
        f"tenant:  {document['tenant']}",
        f"control: {document['control']['url']}",
    ]
    blob = document["blob"]
    if blob is not None:
        lines.append(f"blob:    {blob.get('endpoint') or 'none: ' + blob['error']}")
    if options.ready_file is not None:
        lines.append(f"ready:   {options.ready_file} (principals and their secrets)")
    lines.append("stop with Ctrl-C")
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def parser() -> argparse.ArgumentParser:
    """The options of `python -m drills.sandbox`."""
    out = argparse.ArgumentParser(
        prog="python -m drills.sandbox",
        description="A local Azure on loopback: real HTTPS, tokens, ARM, Cognitive Services.",
    )
    out.add_argument("--state", type=Path, required=True, help="folder that keeps everything")
    out.add_argument("--estate", default="demo", help="demo, empty, or a YAML file")
    out.add_argument("--port", type=int, default=0, help="0 (default): a free one")
    out.add_argument("--seed", type=int, default=1, help="makes ids and chance repeatable")
    out.add_argument(
        "--time-scale", type=float, default=None, help="sandbox seconds per real second"
    )
    out.add_argument("--ready-file", type=Path, default=None, help="JSON written when it serves")
    out.add_argument("--no-blob", action="store_true", help="do not start Azurite beside it")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; 0 after a clean stop, 1 with one clear error."""
    given = parser().parse_args(arguments)
    if given.time_scale is not None and given.time_scale <= 0:
        sys.stderr.write("sandbox: --time-scale must be positive\n")
        return 1
    options = Options(
        state=given.state,
        estate=given.estate,
        port=given.port,
        seed=given.seed,
        time_scale=given.time_scale,
        ready_file=given.ready_file,
        blob=not given.no_blob,
    )
    # Started in the background by a non-interactive shell, SIGINT is inherited as ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(options)
    except (StartError, StateError, EstateError) as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0
