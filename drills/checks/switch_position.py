"""Switch position: a gateway's property, a file or a DNS name points where it should."""

from __future__ import annotations

import re
import socket
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from drills.checks.asked import AskedCheck, Judged, verdict
from drills.checks.settings import Settings
from drills.model import CheckContext
from snapshots.cloud import Place, Plane
from snapshots.errors import InputError, MissingError, UnreachableError
from snapshots.mapping import take_at
from snapshots.model import Json, canonical

_ID = re.compile(r"/subscriptions/([^/]+)(/.*)?\Z", re.IGNORECASE)
_LARGEST = 1024 * 1024  # bytes of a file that holds a switch
_ELSEWHERE = "muster-negative-control"


def names_of(host: str, seconds: float) -> tuple[str, ...]:
    """Give the names and addresses that a host name resolves to, sorted.

    Raises MissingError when there is none, UnreachableError after `seconds`: a resolver that does
    not answer blocks its thread, never us.
    """
    answer: Future[tuple[str, ...]] = Future()

    def resolve() -> None:
        try:
            found = socket.getaddrinfo(
                host, None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME
            )
        except OSError as error:
            answer.set_exception(error)
            return
        names = {str(item[4][0]) for item in found} | {item[3] for item in found if item[3]}
        answer.set_result(tuple(sorted(name.rstrip(".").lower() for name in names)))

    Thread(target=resolve, daemon=True, name=f"resolve {host}").start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise UnreachableError(
            f"no resolver answered for {host} within {seconds:g} s", where=host
        ) from None
    except OSError as error:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            raise UnreachableError(f"no resolver answered for {host}", where=host) from None
        raise MissingError(f"{host} does not resolve", where=host) from None


def judged_position(where: str, expected: Json, observed: Json, *, any_of: bool) -> Judged:
    """Judge a position: equal as JSON, or, with `any_of`, among what was observed."""
    if any_of and isinstance(observed, list):
        ok = expected in observed
    else:
        ok = canonical(observed) == canonical(expected)
    return verdict(ok, expected, observed, f"{where} points to {observed!r}, not to {expected!r}")


class SwitchPositionCheck(AskedCheck):
    """A switch stands where it should.

    `of: property` looks at a property (`path`, an RFC 6901 pointer) of an ARM `resource`, `file`
    at a file beside the configuration, `dns` at a name's addresses and canonical name. Its control
    expects it to point elsewhere.
    """

    KNOWN_AS = "switch"
    ABOUT = "A gateway's property, a file or a DNS name points where it should."

    def read(self, settings: Settings) -> None:
        """Read the settings."""
        self.of = settings.choice("of", ("property", "file", "dns"), "property")
        self.expected = settings.json("expected")
        if self.expected is None:
            raise settings.wrong("expected is missing", "add expected: where it must point")
        self.resource = self.version = self.path = self.host = self.property = ""
        self.seconds = settings.number("max_seconds", 10.0, least=0.1, most=300.0)
        match self.of:
            case "property":
                self.resource = settings.required("resource", "the ARM id of a resource")
                if not _ID.match(self.resource):
                    raise settings.wrong("resource is no ARM id", "it begins with /subscriptions/…")
                self.version = settings.required("api_version", "the version of its API")
                self.property = settings.required("path", "a property, such as /properties/x")
                if not self.property.startswith("/"):
                    raise settings.wrong("path is no pointer", "it begins with /")
            case "file":
                self.path = settings.required("path", "a file beside the configuration")
            case _:
                self.host = settings.required("host", "a DNS name")
        if self.of != "property" and not isinstance(self.expected, str):
            raise settings.wrong("expected is no text", "a file or a name points to a text")

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Look."""
        expected = self.expected
        if broken:
            expected = _ELSEWHERE if expected != _ELSEWHERE else f"{_ELSEWHERE}-2"
        match self.of:
            case "property":
                found = _ID.match(self.resource)
                place = Place(Plane.ARM, subscription=found[1] if found else "")
                params = {"api-version": self.version}
                body = context.cloud.get(place, self.resource, params=params, kind="check:switch")
                observed = take_at(body.body, self.property)
                where = f"{self.resource}{self.property}"
                return judged_position(where, expected, observed, any_of=False)
            case "file":
                text = _content(context.folder, self.path)
                return judged_position(self.path, expected, text, any_of=False)
            case _:
                names = list[Json](names_of(self.host, self.seconds))
                wanted = str(expected).rstrip(".").lower()
                return judged_position(self.host, wanted, names, any_of=True)


def _content(folder: Path, name: str) -> str:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(
            "the file is not beside the configuration", where=name, remedy="move it there"
        )
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"the file is larger than {_LARGEST} bytes", where=name)
        return path.read_text("utf-8").strip()
    except FileNotFoundError:
        raise MissingError("the file is not there", where=name) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the file cannot be read: {error}", where=name) from None
