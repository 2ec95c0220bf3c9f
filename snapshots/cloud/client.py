"""The one way out to Azure: every request of muster goes through `Cloud`."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Lock
from typing import Protocol, Self
from urllib.parse import parse_qs, quote, urlencode, urljoin, urlsplit

import orjson

from snapshots.clock import Clock
from snapshots.cloud.budget import Budget, Charge, Operation, Ticket
from snapshots.cloud.calls import CallCounter
from snapshots.cloud.environment import Environment
from snapshots.cloud.faults import BUSY, WireFault, WireKind, broken, refusal, retry_after
from snapshots.cloud.operations import Form as OperationForm
from snapshots.cloud.operations import Operation as LongOperation
from snapshots.cloud.operations import failure, look, started
from snapshots.cloud.place import (
    Answer,
    Cursor,
    Limits,
    OperationProgress,
    Permission,
    Place,
    Plane,
)
from snapshots.cloud.regions import RegionGuard
from snapshots.cloud.upload import Form
from snapshots.errors import (
    CloudError,
    DamagedAnswerError,
    MissingError,
    RefusedError,
    ThrottledError,
    UnreachableError,
)
from snapshots.model import Json, JsonObject

Progress = Callable[[OperationProgress], None]

_PERMISSIONS_VERSION = "2022-04-01"
_GRAPH_PATH = "/providers/Microsoft.ResourceGraph/resources"
_GRAPH_VERSION = "2021-03-01"
_IDLE_PAGES = 100  # pages in a row that bring nothing new, before a listing is called damaged
_CURSOR_GONE = frozenset({400, 404})  # what a cursor that names a deleted item is answered
_STEPS_BACK = 3  # items of the page before that may stand in for it
# Rows at once: learn.microsoft.com/azure/governance/resource-graph/concepts/work-with-data
_GRAPH_PAGE = 1000

_RETRY = frozenset({408, 429, 500, 502, 503, 504})
_SUBSCRIPTION = re.compile(r"/subscriptions/([^/?]+)", re.IGNORECASE)
_PROVIDER = re.compile(r"/providers/([^/?]+)", re.IGNORECASE)
_SAFE_PATH = "/%:@!$&'()*+,;=~-._"


class _Answered(Protocol):
    """What the line brought back."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def read(self) -> bytes: ...
    def chunks(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class _Meter(Protocol):
    def before(self) -> None: ...
    def after(self, status: int, headers: Mapping[str, str]) -> None: ...
    def failed(self) -> None: ...


class Line(Protocol):
    """What carries requests: `wire.AzureWire`."""

    def transmit(
        self,
        plane: Plane,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | Iterable[bytes] | None,
        meter: _Meter,
        *,
        stream: bool,
    ) -> _Answered:
        """Send one request once."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


@dataclass(frozen=True, slots=True)
class _Call:
    """One request as it was asked for, before any try."""

    place: Place
    method: str
    url: str
    kind: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Form | None = None
    reads: bool = False

    @property
    def where(self) -> str:
        parts = urlsplit(self.url)
        host = "" if self.place.plane is Plane.ARM else parts.netloc
        return f"{self.method} {host}{parts.path}"

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def idempotent(self) -> bool:
        """Whether doing it twice is doing it once."""
        return self.reads or self.method in ("GET", "HEAD", "PUT", "DELETE")

    @property
    def repeatable(self) -> bool:
        """Whether the body can be sent again."""
        return not isinstance(self.body, Form) or self.body.repeatable

    def charge(self) -> Charge:
        path = urlsplit(self.url).path
        arm = self.place.plane is Plane.ARM
        found = _SUBSCRIPTION.search(path) if arm else None
        place = self.place
        if found and found.group(1).lower() != place.subscription.lower():
            place = Place(place.plane, place.base, found.group(1), place.region)
        providers = _PROVIDER.findall(path) if arm else []
        operation = Operation.WRITE
        if self.reads:
            operation = Operation.READ
        elif self.method == "DELETE":
            operation = Operation.DELETE
        return Charge(
            place,
            operation,
            provider=providers[-1].lower() if providers else "",
            graph=arm and path.lower() == _GRAPH_PATH.lower(),
        )


class _Toll:
    """Pays for the tries of one request: waits for the budget, counts, and tells what came back."""

    def __init__(self, cloud: Cloud, call: _Call, deadline: float) -> None:
        self._cloud = cloud
        self._call = call
        self._charge = call.charge()
        self._deadline = deadline
        self._ticket: Ticket | None = None
        self._sent = 0

    def before(self) -> None:
        cloud, call = self._cloud, self._call
        while True:
            # Asked again after each wait: a region may be declared down meanwhile.
            cloud.regions.check(call.place.region, call.where)
            entered = cloud.budget.enter(self._charge)
            if isinstance(entered, Ticket):
                break
            closed = cloud.budget.closed_for(self._charge)
            if closed and cloud.seconds() + closed > self._deadline:
                raise ThrottledError(
                    f"Azure asks to stay away for {closed:.0f} s, longer than our patience",
                    where=call.where,
                    remedy=f"try again in {closed:.0f} s; other tools under the same identity "
                    "share the budget",
                    status=429,
                )
            cloud.clock.sleep(entered)
        self._ticket = entered
        cloud.calls.sent(call.kind, again=self._sent > 0)
        self._sent += 1

    def after(self, status: int, headers: Mapping[str, str]) -> None:
        cloud = self._cloud
        wait = retry_after(headers, cloud.clock.now())
        if self._ticket is not None:
            cloud.budget.back(self._ticket, status, headers, wait)
            self._ticket = None
        if status == 429:
            cloud.calls.throttled()
        cloud.note_date(headers)

    def failed(self) -> None:
        if self._ticket is not None:
            self._cloud.budget.back(self._ticket, None, {}, None)
            self._ticket = None


class Cloud:
    """The one way out to Azure, real or sandbox.

    Synchronous and thread-safe. Every method raises the error tree of `snapshots.errors`; every
    request is retried, paid from the budget, counted by `kind` and refused for a region that is
    declared down. `path` is a URL path: quote names that may hold "/" or "%" with
    `urllib.parse.quote(name, safe="")`. `params` holds at least the api-version where ARM is asked.
    """

    def __init__(
        self,
        line: Line,
        environment: Environment,
        *,
        clock: Clock,
        limits: Limits,
        jitter: random.Random | None = None,
    ) -> None:
        self.environment = environment
        self.clock = clock
        self.limits = limits
        self.calls = CallCounter()
        self.budget = Budget(clock, limits)
        self.regions = RegionGuard()
        self._line = line
        self._random = jitter if jitter is not None else random.Random()
        self._date: datetime | None = None
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection. No thread and no socket stays."""
        self._line.close()

    def seconds(self) -> float:
        """The clock's moment in seconds, for time-outs."""
        return self.clock.now().timestamp()

    def server_time(self) -> datetime | None:
        """What Azure's clock said in the last answer, or None before the first."""
        with self._lock:
            return self._date

    def note_date(self, headers: Mapping[str, str]) -> None:
        """Remember Azure's clock from an answer."""
        text = headers.get("date", "")
        if not text:
            return
        try:
            when = parsedate_to_datetime(text)
        except ValueError:
            return
        with self._lock:
            self._date = when if when.tzinfo else when.replace(tzinfo=UTC)

    # Reading ------------------------------------------------------------------------------------

    def get(
        self,
        place: Place,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Read one thing. Only a success comes back; MissingError when it is not there."""
        url = self._url(place, path, params)
        return self._exchange(_Call(place, "GET", url, kind, dict(headers or {}), reads=True))

    def list(
        self,
        place: Place,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
        items: str = "value",
        cursor: Cursor = Cursor.NEXT_LINK,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[JsonObject]:
        """The items of all pages, in Azure's order, page by page as they are taken.

        `items` names the list in the answer ("" when the answer is the list itself); cursors of
        the OpenAI form default to "data". A page without its list is a DamagedAnswerError, never
        an empty listing. When the item that such a cursor names is deleted before the next page is
        asked for, the listing goes on after the item before it.
        """
        if cursor in (Cursor.OPENAI_AFTER, Cursor.FOUNDRY_AFTER) and items == "value":
            items = "data"
        url = self._url(place, path, params)
        seen = {url}
        had: set[str | bytes] = set()
        idle = 0
        earlier: list[str] = []  # ids before the cursor, the nearest last
        while url:
            call = _Call(place, "GET", url, kind, dict(headers or {}), reads=True)
            try:
                answer = self._exchange(call)
            except CloudError as error:
                if error.status not in _CURSOR_GONE or not earlier:
                    raise
                url = self._url(place, path, {**(params or {}), "after": earlier.pop()})
                continue
            page = _page(answer.body, items, call)
            # A link that is new each time can lead nowhere for ever.
            before = len(had)
            had.update(_identity(item) for item in page)
            idle = idle + 1 if len(had) == before else 0
            if idle > _IDLE_PAGES:
                raise DamagedAnswerError(
                    f"the listing goes on, and {idle} pages brought nothing new",
                    where=call.where,
                    remedy="try again; if it stays, report it to Azure with the request id",
                )
            yield from page
            match cursor:
                case Cursor.NEXT_LINK:
                    url = self._next_link(call, answer.body, params)
                case Cursor.OPENAI_AFTER | Cursor.FOUNDRY_AFTER:
                    after = _after(answer.body, page, call)
                    url = (
                        self._url(place, path, {**(params or {}), "after": after}) if after else ""
                    )
                    ids = [str(item.get("id")) for item in page if item.get("id") != after]
                    earlier = ids[-_STEPS_BACK:]
                case Cursor.NONE:
                    url = ""
            if url in seen:
                raise DamagedAnswerError(
                    "the listing leads back to a page that was read already",
                    where=call.where,
                    remedy="try again; if it stays, report it to Azure with the request id",
                )
            if url:
                seen.add(url)

    def query(self, query: str, subscriptions: Iterable[str], *, kind: str) -> Iterator[JsonObject]:
        """The rows of a Resource Graph query, all pages."""
        place = Place(Plane.ARM)
        options: JsonObject = {"$top": _GRAPH_PAGE, "resultFormat": "objectArray"}
        scope: list[Json] = [*subscriptions]
        seen: set[str] = set()
        while True:
            body: JsonObject = {"query": query, "subscriptions": scope, "options": options}
            params = {"api-version": _GRAPH_VERSION}
            url = self._url(place, _GRAPH_PATH, params)
            call = _Call(place, "POST", url, kind, _JSON, orjson.dumps(body), reads=True)
            answer = self._exchange(call)
            yield from _page(answer.body, "data", call)
            token = answer.body.get("$skipToken") if isinstance(answer.body, dict) else None
            if not isinstance(token, str) or not token:
                return
            if token in seen:
                raise DamagedAnswerError(
                    "the query leads back to a page that was read already",
                    where=call.where,
                    remedy="try again; if it stays, report it to Azure with the request id",
                )
            seen.add(token)
            options = {**options, "$skipToken": token}

    def stream(
        self,
        place: Place,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
    ) -> Iterator[bytes]:
        """A file's content, piece by piece, never whole in memory.

        Until the first byte it is retried as every read. A body that stops before its end is a
        DamagedAnswerError; it is not begun again silently, for the caller has used the beginning.
        """
        url = self._url(place, path, params)
        asked = {"Accept": "*/*", "Accept-Encoding": "identity"}
        call = _Call(place, "GET", url, kind, asked, reads=True)
        answer = self._attempt(call, self.seconds(), stream=True)[0]
        try:
            yield from answer.chunks()
        except WireFault as fault:
            raise broken(fault, call.where, call.host, mutating=False) from fault
        finally:
            answer.close()

    def permissions(self, scope: str) -> tuple[Permission, ...]:
        """What the signed-in identity may do at an ARM scope ("/subscriptions/…[/…]")."""
        path = f"{scope.rstrip('/')}/providers/Microsoft.Authorization/permissions"
        rows = self.list(
            Place(Plane.ARM),
            path,
            params={"api-version": _PERMISSIONS_VERSION},
            kind="permission",
        )
        return tuple(
            Permission(
                _texts(row, "actions"),
                _texts(row, "notActions"),
                _texts(row, "dataActions"),
                _texts(row, "notDataActions"),
            )
            for row in rows
        )

    # Changing -----------------------------------------------------------------------------------

    def post(
        self,
        place: Place,
        path: str,
        body: Json = None,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
        reads: bool = False,
        wait: bool = True,
        on_progress: Progress | None = None,
        on_started: Callable[[str], None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Do an action. `reads` says that it only reads: then it is retried as a read is.

        Otherwise it is repeated only when it certainly was not done; an UnreachableError says so
        when that cannot be known.
        """
        call = self._mutation("POST", place, path, body, params, kind, headers, None, reads=reads)
        return self._change(call, wait=wait, on_progress=on_progress, on_started=on_started)

    def put(
        self,
        place: Place,
        path: str,
        body: Json,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
        wait: bool = True,
        on_progress: Progress | None = None,
        on_started: Callable[[str], None] | None = None,
        headers: Mapping[str, str] | None = None,
        if_match: str | None = None,
    ) -> Answer:
        """Create or replace, and follow a long operation to its end unless `wait` is false.

        The answer then is the resource as it is at the end. CloudError when the operation failed.
        """
        call = self._mutation("PUT", place, path, body, params, kind, headers, if_match)
        return self._change(call, wait=wait, on_progress=on_progress, on_started=on_started)

    def patch(
        self,
        place: Place,
        path: str,
        body: Json,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
        wait: bool = True,
        on_progress: Progress | None = None,
        on_started: Callable[[str], None] | None = None,
        headers: Mapping[str, str] | None = None,
        if_match: str | None = None,
    ) -> Answer:
        """Change some properties; otherwise as `put`."""
        call = self._mutation("PATCH", place, path, body, params, kind, headers, if_match)
        return self._change(call, wait=wait, on_progress=on_progress, on_started=on_started)

    def delete(
        self,
        place: Place,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
        wait: bool = True,
        on_progress: Progress | None = None,
        on_started: Callable[[str], None] | None = None,
        headers: Mapping[str, str] | None = None,
        if_match: str | None = None,
    ) -> Answer:
        """Delete, and see it through.

        ARM answers 204 for what was not there; so do we when it went between two tries.
        """
        call = self._mutation("DELETE", place, path, None, params, kind, headers, if_match)
        return self._change(call, wait=wait, on_progress=on_progress, on_started=on_started)

    def upload(
        self,
        place: Place,
        path: str,
        *,
        fields: Mapping[str, str],
        file: tuple[str, Path | bytes | Iterable[bytes]],
        params: Mapping[str, str] | None = None,
        kind: str,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a file to a data plane as a form, streamed. `file` is its name and its content.

        Content given as a Path or as bytes can be sent again after Azure said to wait; an iterator
        only once.
        """
        form = Form(fields, *file)
        given = {**_ACCEPT, **(headers or {}), "Content-Type": form.content_type}
        call = _Call(place, "POST", self._url(place, path, params), kind, given, form)
        return self._exchange(call)

    def resume(
        self,
        place: Place,
        operation_url: str,
        *,
        kind: str,
        resource: str = "",
        params: Mapping[str, str] | None = None,
        on_progress: Progress | None = None,
    ) -> Answer:
        """Go on watching a long operation that an earlier run started.

        `operation_url` is what `on_started` was given. With `resource` (a path), the answer is the
        resource after the operation succeeded; otherwise the operation's last answer.
        """
        final = self._url(place, resource, params) if resource else ""
        call = _Call(place, "GET", operation_url, kind, _ACCEPT, reads=True)
        self._trust(_Call(place, "GET", self._url(place, "", None), kind), operation_url)
        operation = LongOperation(OperationForm.UNKNOWN, operation_url, final)
        return self._follow(call, operation, {}, self.seconds(), on_progress)

    # The machinery ------------------------------------------------------------------------------

    def _url(self, place: Place, path: str, params: Mapping[str, str] | None) -> str:
        base = self.environment.resource_manager
        if place.plane is not Plane.ARM:
            base = place.base
            if not self.environment.trusts(base):
                raise RefusedError(
                    f"{base or 'an empty endpoint'} is not an https endpoint of the cloud "
                    f"{self.environment.name}: no token is sent there",
                    where=path,
                    remedy="check the account's endpoint and the cloud in muster.toml",
                )
        url = f"{base.rstrip('/')}/{quote(path.lstrip('/'), safe=_SAFE_PATH)}"
        query = urlencode(params or {}, quote_via=quote, safe="$,:")
        return f"{url}?{query}" if query else url

    def _trust(self, call: _Call, url: str) -> None:
        """Raise unless `url`, named by an answer, is of the same cloud: tokens go nowhere else."""
        own, other = urlsplit(call.url), urlsplit(url)
        same = other.scheme == "https" and other.netloc.lower() == own.netloc.lower()
        if not same and not self.environment.trusts(url):
            raise DamagedAnswerError(
                f"the answer points to a foreign host ({other.netloc}): nothing was sent there",
                where=call.where,
                remedy="check for a proxy that rewrites answers",
            )

    def _next_link(self, call: _Call, body: Json, params: Mapping[str, str] | None) -> str:
        link = body.get("nextLink", body.get("@odata.nextLink")) if isinstance(body, dict) else None
        if link is None or link == "":
            return ""
        if not isinstance(link, str):
            raise DamagedAnswerError(
                "the link to the next page is not a text",
                where=call.where,
                remedy="try again; if it stays, report it to Azure with the request id",
            )
        url = urljoin(call.url, link)
        self._trust(call, url)
        version = (params or {}).get("api-version")
        if version and "api-version" not in parse_qs(urlsplit(url).query.lower()):
            url += ("&" if urlsplit(url).query else "?") + urlencode({"api-version": version})
        return url

    def _mutation(
        self,
        method: str,
        place: Place,
        path: str,
        body: Json,
        params: Mapping[str, str] | None,
        kind: str,
        headers: Mapping[str, str] | None,
        if_match: str | None,
        *,
        reads: bool = False,
    ) -> _Call:
        given = {**_ACCEPT, **(headers or {})}
        if if_match is not None:
            given["If-Match"] = if_match
        content: bytes | None = None
        if body is not None:
            content = orjson.dumps(body)
            given.setdefault("Content-Type", "application/json")
        elif method == "POST":
            content = b""
        return _Call(place, method, self._url(place, path, params), kind, given, content, reads)

    def _change(
        self,
        call: _Call,
        *,
        wait: bool,
        on_progress: Progress | None,
        on_started: Callable[[str], None] | None,
    ) -> Answer:
        begun = self.seconds()
        answer = self._exchange(call)
        operation = started(call.method, call.url, answer.status, answer.headers, answer.body)
        if operation is None:
            return answer
        self._trust(call, operation.url)
        if operation.final:
            self._trust(call, operation.final)
        if on_started is not None:
            on_started(operation.url)
        if not wait:
            return answer
        return self._follow(call, operation, answer.headers, begun, on_progress)

    def _follow(
        self,
        call: _Call,
        operation: LongOperation,
        headers: Mapping[str, str],
        begun: float,
        on_progress: Progress | None,
    ) -> Answer:
        """Look at an operation until it is over."""
        interval = self.limits.poll_first
        absent = 0
        while True:
            asked = retry_after(headers, self.clock.now())
            pause = asked if asked is not None else interval
            if asked is None:
                interval = min(self.limits.poll_cap, interval * 1.5)
            if self.seconds() + pause - begun > self.limits.operation_patience:
                raise UnreachableError(
                    f"the operation still runs after {self.seconds() - begun:.0f} s",
                    where=call.where,
                    remedy="it goes on in Azure: resume later, or raise the patience",
                )
            self.clock.sleep(pause)
            watch = _Call(call.place, "GET", operation.url, call.kind, _ACCEPT, reads=True)
            try:
                answer = self._exchange(watch)
            except MissingError:
                # What is deleted takes its operation's URL along (arm-rpc); what is being created
                # may not show for a moment.
                if call.method == "DELETE" and self._gone(call, operation):
                    return Answer(204, None, {}, self.seconds() - begun)
                absent += 1
                if call.method not in ("PUT", "PATCH") or absent > 5:
                    raise
                headers = {}
                continue
            headers = answer.headers
            found = look(operation, answer.status, answer.body, watch.where)
            if on_progress is not None:
                on_progress(
                    OperationProgress(
                        operation.url,
                        found.state,
                        100.0 if found.done and found.percent is None else found.percent,
                        self.seconds() - begun,
                        call.where,
                    )
                )
            error = failure(found, call.where)
            if error is not None:
                raise error
            if found.done:
                return self._outcome(call, operation, answer, begun)

    def _gone(self, call: _Call, operation: LongOperation) -> bool:
        if operation.form is OperationForm.RESOURCE:
            return True
        try:
            self._exchange(_Call(call.place, "GET", call.url, call.kind, _ACCEPT, reads=True))
        except MissingError:
            return True
        return False

    def _outcome(self, call: _Call, operation: LongOperation, last: Answer, begun: float) -> Answer:
        final = operation.final
        if not final and last.body is None and call.method in ("PUT", "PATCH"):
            final = call.url
        if final:
            last = self._exchange(_Call(call.place, "GET", final, call.kind, _ACCEPT, reads=True))
        return Answer(last.status, last.body, last.headers, self.seconds() - begun)

    def _exchange(self, call: _Call) -> Answer:
        """Send until there is an answer, and read it as JSON."""
        begun = self.seconds()
        answer, body = self._attempt(call, begun, stream=False)
        return Answer(answer.status, body, answer.headers, self.seconds() - begun)

    def _attempt(self, call: _Call, begun: float, *, stream: bool) -> tuple[_Answered, Json]:
        """Try until it succeeds, is refused for good, or patience ends."""
        limits = self.limits
        toll = _Toll(self, call, begun + limits.patience)
        tries = busy = 0
        doubtful = False  # an earlier try may have been done
        while True:
            self.regions.check(call.place.region, call.where)
            tries += 1
            wait: float | None = None
            try:
                answer = self._line.transmit(
                    call.place.plane,
                    call.method,
                    call.url,
                    call.headers,
                    call.body.content() if isinstance(call.body, Form) else call.body,
                    toll,
                    stream=stream,
                )
                if 200 <= answer.status < 300:
                    return answer, None if stream else _parse(answer)
                headers = answer.headers
                content = answer.read()
                answer.close()
            except WireFault as fault:
                doubtful = doubtful or fault.sent
                error = broken(fault, call.where, call.host, mutating=not call.reads)
                again = call.idempotent or not fault.sent
                again = again and fault.kind is not WireKind.TLS
            else:
                if answer.status == 404 and call.method == "DELETE" and doubtful:
                    # The try that got no answer did it.
                    return _Nothing(204, headers), None
                error = refusal(answer.status, headers, content, call.where)
                wait = retry_after(headers, self.clock.now())
                if _is_busy(call, error):
                    busy += 1
                    tries -= 1
                    pause = wait if wait is not None else self._pause(busy, least=0.5)
                    if self.seconds() + pause - begun <= limits.conflict_patience:
                        self.clock.sleep(pause)
                        continue
                    raise error
                again = _again(call, answer.status, wait)
                doubtful = doubtful or answer.status in (408, 500, 502, 504)
            if not again or not call.repeatable or tries >= limits.attempts:
                raise error
            pause = self._pause(tries) if wait is None else wait + self._random.uniform(0, 0.1)
            if self.seconds() + pause - begun > limits.patience:
                raise error
            self.clock.sleep(pause)

    def _pause(self, tries: int, *, least: float = 0.0) -> float:
        """Exponential back-off with full jitter."""
        limits = self.limits
        most = min(limits.backoff_cap, limits.backoff * 2.0 ** min(tries - 1, 20))
        with self._lock:
            return max(least, self._random.uniform(0.0, most))


_ACCEPT: Mapping[str, str] = {"Accept": "application/json"}
_JSON: Mapping[str, str] = {"Accept": "application/json", "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class _Nothing:
    """The answer to a request that had been done by the try before."""

    status: int
    headers: Mapping[str, str]

    def read(self) -> bytes:
        return b""

    def chunks(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        """Nothing is open."""


def _parse(answer: _Answered) -> Json:
    body = answer.read()
    if not body.strip():
        return None
    try:
        parsed: Json = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        form = answer.headers.get("content-type", "").partition(";")[0].strip()
        raise WireFault(WireKind.NOT_JSON, f"{form or 'no type'}, {error}", sent=True) from error
    return parsed


def _is_busy(call: _Call, error: CloudError) -> bool:
    if call.reads or error.status not in (400, 409):
        return False
    return (error.code or "").lower() in BUSY


def _again(call: _Call, status: int, wait: float | None) -> bool:
    if status not in _RETRY:
        return False
    if call.idempotent or status == 429:
        return True
    # A POST or PATCH that may have been done is not done twice.
    return status == 503 and wait is not None


def _page(body: Json, items: str, call: _Call) -> list[JsonObject]:
    found = body
    if items:
        found = body.get(items) if isinstance(body, dict) else None
    if isinstance(found, list) and all(isinstance(item, dict) for item in found):
        return [item for item in found if isinstance(item, dict)]
    raise DamagedAnswerError(
        f"the listing has no list called {items!r}" if items else "the answer is not a list",
        where=call.where,
        remedy="try again; an answer without its list is never taken for an empty one",
    )


def _identity(item: JsonObject) -> str | bytes:
    """What tells an item of a listing from the others."""
    found = item.get("id")
    return found if isinstance(found, str) else orjson.dumps(item, option=orjson.OPT_SORT_KEYS)


def _after(body: Json, page: list[JsonObject], call: _Call) -> str:
    """The cursor of the next page, "" when this was the last."""
    more = body.get("has_more") if isinstance(body, dict) else None
    if more is None or more is False:
        return ""
    if more is not True or not isinstance(body, dict):
        raise DamagedAnswerError(
            "the listing does not say clearly whether there is more",
            where=call.where,
            remedy="try again; if it stays, report it to Azure with the request id",
        )
    last = body.get("last_id")
    if not isinstance(last, str) or not last:
        last = page[-1].get("id") if page else None
    if not isinstance(last, str) or not last:
        raise DamagedAnswerError(
            "the listing says there is more and does not say after what",
            where=call.where,
            remedy="try again; if it stays, report it to Azure with the request id",
        )
    return last


def _texts(row: JsonObject, name: str) -> tuple[str, ...]:
    value = row.get(name)
    return tuple(str(item) for item in value) if isinstance(value, list) else ()
