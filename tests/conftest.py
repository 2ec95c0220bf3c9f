"""Rules for all tests: how many examples, no network but loopback, what may not be skipped."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator
from datetime import timedelta
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, settings

STRESS = os.environ.get("MUSTER_STRESS", "") not in ("", "0")
# Markers whose tests must run: where they are promised, a skip is a failure (.ci/run).
REQUIRED = frozenset(filter(None, os.environ.get("MUSTER_REQUIRE", "").split(",")))

# A shell that runs tests in the background has SIGINT ignored, which children would inherit: those
# that are to be interrupted would never hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "default",
    max_examples=30,
    deadline=None,  # the machine is shared: time is measured in bench/, not here
    derandomize=True,  # the same commit gives the same verdict
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.register_profile(
    "stress",
    max_examples=2_000,
    deadline=timedelta(seconds=60),
    derandomize=False,  # a long run looks at new examples each time
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("stress" if STRESS else "default")


@pytest.fixture(scope="session")
def stress() -> bool:
    """Whether this is a long run (`make stress`, MUSTER_STRESS=1)."""
    return STRESS


@pytest.fixture(scope="session")
def scaled() -> Callable[[int, int], int]:
    """The count for this run: `scaled(few, many)` is `few`, or `many` under stress."""
    return lambda few, many: many if STRESS else few


def _is_local(host: object) -> bool:
    if host is None or host in ("", b"", "localhost", b"localhost"):
        return True
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if text.endswith(".localhost"):
        return True
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _only_loopback(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse a look-up or a connection that would leave this machine."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if not isinstance(address, tuple):
            return  # a Unix socket
        host = address[0]
    else:
        return
    if not _is_local(host):
        raise PermissionError(f"a test must not leave this machine, and asked for {host!r}")


if not os.environ.get("MUSTER_AZURE_VERIFIED"):  # only then may a test reach Azure itself
    sys.addaudithook(_only_loopback)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a skipped test of a required marker as failed."""
    report = yield
    required = sorted(REQUIRED & {mark.name for mark in item.iter_markers()})
    if report.skipped and required and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{', '.join(required)} tests must run here (MUSTER_REQUIRE): {why}"
    return report
