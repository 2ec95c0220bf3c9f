"""The one way out, against a small HTTPS server with scripted answers."""

from __future__ import annotations

import base64
import json
import logging
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from azure.core.credentials import AccessToken

from snapshots.cloud import (
    Cloud,
    Cursor,
    Limits,
    OperationProgress,
    Place,
    Plane,
    client,
    open_cloud,
)
from snapshots.cloud.faults import WireFault
from snapshots.cloud.wire import fetch_metadata
from snapshots.errors import (
    CloudError,
    ConflictError,
    DamagedAnswerError,
    DeniedError,
    MissingError,
    RefusedError,
    RegionDownError,
    SettingsError,
    ThrottledError,
    UnreachableError,
)

SUB = "/subscriptions/11111111-1111-1111-1111-111111111111"
ARM = Place(Plane.ARM, subscription="11111111-1111-1111-1111-111111111111", region="westeurope")
V = {"api-version": "2025-09-01"}
CANARY = "Canary1234567890CanaryCanary"


@dataclass
class Reply:
    """One scripted answer."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int = 0  # bytes of the body to withhold
    chunked: bool = False
    hang: bool = False  # close without a word
    raw: bytes | None = None
    silent: float = 0.0  # seconds without a byte


@dataclass
class Seen:
    """One request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Server:
    """HTTPS on loopback that answers each path as told: replies in turn, the last one for good."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        self.ca = str(folder / "ca.pem")
        ca.cert_pem.write_to_path(self.ca)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(context)
        self.seen: list[Seen] = []
        self.script: dict[tuple[str, str], list[Reply]] = {}
        self.always: Callable[[Seen], Reply | None] | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

            def handle_any(self) -> None:
                if self.headers.get("transfer-encoding") == "chunked":
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers.get("content-length") or 0))
                lowered = {name.lower(): value for name, value in self.headers.items()}
                request = Seen(self.command, self.path, lowered, body)
                reply = server.answer(request)
                if reply.silent:
                    time.sleep(reply.silent)  # the server's silence, not the test's
                if reply.hang:
                    self.close_connection = True
                    return
                data = reply.raw
                if data is None:
                    data = b"" if reply.body is None else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                elif reply.status != 204:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                shown = data[: len(data) - reply.cut]
                if reply.chunked:
                    for at in range(0, len(shown), 10_000):
                        piece = shown[at : at + 10_000]
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    if not reply.cut:
                        self.wfile.write(b"0\r\n\r\n")
                else:
                    self.wfile.write(shown)
                if reply.cut:
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self._http.socket = context.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://localhost:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def answer(self, request: Seen) -> Reply:
        self.seen.append(request)
        path = request.path.partition("?")[0]
        if path == "/metadata/endpoints":
            login = {"loginEndpoint": self.url, "audiences": ["https://arm.test"]}
            return Reply(
                200, {"name": "Test", "authentication": login, "resourceManager": self.url}
            )
        if self.always is not None and (reply := self.always(request)) is not None:
            return reply
        replies = self.script.get((request.method, path)) or [Reply(404, {"error": {}})]
        return replies.pop(0) if len(replies) > 1 else replies[0]

    def on(self, method: str, path: str, *replies: Reply) -> None:
        self.script[method, path] = list(replies)

    def requests(self, method: str = "") -> list[Seen]:
        return [
            seen
            for seen in self.seen
            if "/metadata/" not in seen.path and (not method or seen.method == method)
        ]

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)


class TestClock:
    """A clock that is moved by sleeping on it."""

    __test__ = False

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.moment += timedelta(seconds=max(0.0, seconds))


class Tokens:
    """A credential that hands out tokens, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], str | None]] = []

    def get_token(self, *scopes: str, claims: str | None = None, **_: Any) -> AccessToken:
        self.asked.append((scopes, claims))
        return AccessToken(f"token-{len(self.asked)}", 4_000_000_000)


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("https"))
    yield server
    server.stop()


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.seen.clear()
    one_server.script.clear()
    one_server.always = None
    return one_server


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def cloud(server: Server, clock: TestClock, tokens: Tokens) -> Iterator[Cloud]:
    with open_cloud(
        environment=server.url,
        ca_file=server.ca,
        clock=clock,
        credential=tokens,
        limits=Limits(connect=2, read=1),
        jitter=random.Random(1),
        version="9.9",
    ) as opened:
        server.seen.clear()
        yield opened


def data_place(server: Server, path: str = "") -> Place:
    return Place(Plane.OPENAI, base=server.url + path, region="westeurope")


# One request ------------------------------------------------------------------------------------


def test_an_answer_is_the_raw_wire_json(server: Server, cloud: Cloud) -> None:
    body = {"name": "a", "properties": {"futureProp": [1, {"x": None}]}, "extra": "é"}
    server.on("GET", f"{SUB}/x", Reply(200, body, {"ETag": '"1"'}))
    answer = cloud.get(ARM, f"{SUB}/x", params=V, kind="account")
    assert answer.body == body
    assert answer.headers["etag"] == '"1"'
    assert cloud.calls.snapshot().by_kind == {"account": 1}
    assert cloud.server_time() is not None


def test_a_request_says_who_asks_and_belongs_to_one_run(server: Server, cloud: Cloud) -> None:
    server.on("GET", f"{SUB}/x", Reply(200, {}))
    cloud.get(ARM, f"{SUB}/x", params=V, kind="k")
    cloud.get(ARM, f"{SUB}/x", params=V, kind="k")
    one, two = server.requests()
    assert "muster/9.9" in one.headers["user-agent"]
    assert one.headers["authorization"].startswith("Bearer token-")
    assert one.headers["x-ms-correlation-request-id"] == two.headers["x-ms-correlation-request-id"]
    assert one.headers["x-ms-client-request-id"] != two.headers["x-ms-client-request-id"]
    assert one.path == f"{SUB}/x?api-version=2025-09-01"


def test_each_plane_asks_for_its_own_audience_once(
    server: Server, cloud: Cloud, tokens: Tokens
) -> None:
    server.always = lambda _: Reply(200, {})
    for _ in range(3):
        cloud.get(ARM, "/x", kind="k")
        cloud.get(data_place(server), "openai/v1/files", kind="k")
        cloud.get(Place(Plane.FOUNDRY, server.url + "/api/projects/p"), "agents", kind="k")
    assert [scopes for scopes, _ in tokens.asked] == [
        ("https://arm.test/.default",),
        ("https://cognitiveservices.azure.com/.default",),
        ("https://ai.azure.com/.default",),
    ]
    assert server.requests()[2].path == "/api/projects/p/agents"


def test_a_token_is_never_sent_to_a_foreign_host(server: Server, cloud: Cloud) -> None:
    for base in ("https://evil.example/", "http://localhost/", ""):
        with pytest.raises(RefusedError):
            cloud.get(Place(Plane.OPENAI, base), "openai/v1/files", kind="k")
    foreign = {"value": [{"n": 1}], "nextLink": "https://evil.example/more"}
    server.on("GET", f"{SUB}/x", Reply(200, foreign))
    with pytest.raises(DamagedAnswerError, match="foreign host"):
        list(cloud.list(ARM, f"{SUB}/x", params=V, kind="k"))


def test_a_claims_challenge_is_answered_and_paid_for(
    server: Server, cloud: Cloud, tokens: Tokens
) -> None:
    claims = base64.b64encode(b'{"access_token":{"nbf":{"essential":true}}}').decode()
    challenge = f'Bearer error="insufficient_claims", claims="{claims}"'
    refused = Reply(401, {"error": {"code": "InvalidAuthenticationToken"}},
                    {"WWW-Authenticate": challenge})  # fmt: skip
    server.on("GET", f"{SUB}/x", refused, Reply(200, {"ok": True}))
    assert cloud.get(ARM, f"{SUB}/x", params=V, kind="k").body == {"ok": True}
    assert tokens.asked[-1][1] == '{"access_token":{"nbf":{"essential":true}}}'
    assert cloud.calls.snapshot().made == 2


def test_many_threads_ask_for_one_token(server: Server, cloud: Cloud, tokens: Tokens) -> None:
    server.always = lambda _: Reply(200, {})
    threads = [
        threading.Thread(target=lambda: cloud.get(data_place(server), "x", kind="k"))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(tokens.asked) == 1
    assert cloud.calls.snapshot().made == 12


# Retry ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        Reply(408),
        Reply(429, {"error": {"code": "TooManyRequests"}}),
        Reply(500, {"error": {"code": "InternalServerError"}}),
        Reply(502, raw=b"<html>bad gateway</html>"),
        Reply(503),
        Reply(504),
        Reply(200, {"value": "x" * 500}, cut=100),
        Reply(200, {"value": "x" * 50_000}, cut=20_000, chunked=True),
        Reply(200, raw=b'{"half": '),
        Reply(hang=True),
    ],
    ids=lambda reply: f"{reply.status}{'cut' if reply.cut else ''}{'hang' if reply.hang else ''}",
)
def test_a_read_survives_passing_trouble(
    server: Server, cloud: Cloud, clock: TestClock, bad: Reply
) -> None:
    server.on("GET", f"{SUB}/x", bad, bad, Reply(200, {"ok": 1}))
    assert cloud.get(ARM, f"{SUB}/x", params=V, kind="k").body == {"ok": 1}
    count = cloud.calls.snapshot()
    assert (count.made, count.retried) == (3, 2)
    assert count.throttled == (2 if bad.status == 429 else 0)
    assert clock.slept, "there is a back-off between tries"


def test_a_silent_server_is_a_time_out_and_is_asked_again(server: Server, cloud: Cloud) -> None:
    server.on("GET", f"{SUB}/x", Reply(200, {}, silent=1.5), Reply(200, {"ok": 1}))
    assert cloud.get(ARM, f"{SUB}/x", params=V, kind="k").body == {"ok": 1}
    assert cloud.calls.snapshot().retried == 1


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Reply(429), ThrottledError),
        (Reply(500, {"error": {"code": "X", "message": "broken"}}), CloudError),
        (Reply(200, {"value": "x" * 500}, cut=100), DamagedAnswerError),
        (Reply(200, raw=b"<html>login</html>"), DamagedAnswerError),
        (Reply(hang=True), UnreachableError),
    ],
    ids=["429", "500", "cut", "html", "hang"],
)
def test_patience_ends(
    server: Server, cloud: Cloud, clock: TestClock, bad: Reply, error: type[CloudError]
) -> None:
    server.on("GET", f"{SUB}/x", bad)
    began = clock.now()
    with pytest.raises(error) as caught:
        cloud.get(ARM, f"{SUB}/x", params=V, kind="k")
    assert caught.value.remedy
    assert f"{SUB}/x" in caught.value.where
    assert len(server.requests()) == Limits().attempts
    assert (clock.now() - began).total_seconds() <= Limits().patience


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "2500"}, 2.5),
        ({"x-ms-retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:11 GMT"}, 11.0),
    ],
)
def test_retry_after_is_honoured(
    server: Server, cloud: Cloud, clock: TestClock, headers: dict[str, str], seconds: float
) -> None:
    server.on("GET", f"{SUB}/x", Reply(429, {}, headers), Reply(200, {}))
    cloud.get(ARM, f"{SUB}/x", params=V, kind="k")
    assert seconds <= sum(clock.slept) <= seconds + 0.5


def test_a_retry_after_beyond_our_patience_is_an_error_at_once(
    server: Server, cloud: Cloud, clock: TestClock
) -> None:
    server.on("GET", f"{SUB}/x", Reply(429, {}, {"Retry-After": "4000"}))
    with pytest.raises(ThrottledError, match="throttling") as caught:
        cloud.get(ARM, f"{SUB}/x", params=V, kind="k")
    assert "4000 s" in caught.value.remedy
    with pytest.raises(ThrottledError):  # the bucket is closed: nothing is sent any more
        cloud.get(ARM, f"{SUB}/y", params=V, kind="k")
    assert len(server.requests()) == 1
    assert not clock.slept


@pytest.mark.parametrize("status", [400, 401, 403, 404, 412])
def test_a_refusal_for_good_is_not_repeated(server: Server, cloud: Cloud, status: int) -> None:
    server.on("GET", f"{SUB}/x", Reply(status, {"error": {"code": "No", "message": "no"}}))
    with pytest.raises(CloudError) as caught:
        cloud.get(ARM, f"{SUB}/x", params=V, kind="k")
    assert caught.value.status == status
    assert caught.value.code == "No"
    assert len(server.requests()) == 1


def test_put_and_delete_are_repeated(server: Server, cloud: Cloud) -> None:
    server.on("PUT", f"{SUB}/x", Reply(hang=True), Reply(500), Reply(200, {"ok": 1}))
    assert cloud.put(ARM, f"{SUB}/x", {"a": 1}, params=V, kind="k").body == {"ok": 1}
    assert {seen.body for seen in server.requests("PUT")} == {b'{"a":1}'}
    server.on("DELETE", f"{SUB}/x", Reply(hang=True), Reply(404))
    assert cloud.delete(ARM, f"{SUB}/x", params=V, kind="k").status == 204, "the first try did it"
    server.on("DELETE", f"{SUB}/x", Reply(404))
    with pytest.raises(MissingError):
        cloud.delete(ARM, f"{SUB}/x", params=V, kind="k")


@pytest.mark.parametrize("verb", ["post", "patch"])
def test_post_and_patch_are_repeated_only_when_certainly_not_done(
    server: Server, cloud: Cloud, verb: str
) -> None:
    method = verb.upper()

    def send() -> Any:
        return getattr(cloud, verb)(ARM, f"{SUB}/x", {"a": 1}, params=V, kind="k").body

    for harmless in (Reply(429), Reply(503, {}, {"Retry-After": "1"})):
        server.on(method, f"{SUB}/x", harmless, Reply(200, {"ok": 1}))
        assert send() == {"ok": 1}
    for doubtful in (Reply(500), Reply(503), Reply(hang=True), Reply(200, {"a": "b" * 99}, cut=5)):
        server.seen.clear()
        server.on(method, f"{SUB}/x", doubtful, Reply(200, {"ok": 1}))
        with pytest.raises(CloudError):
            send()
        assert len(server.requests()) == 1


def test_a_post_without_an_answer_says_that_it_may_have_been_done(
    server: Server, cloud: Cloud
) -> None:
    server.on("POST", f"{SUB}/x", Reply(hang=True))
    with pytest.raises(UnreachableError, match="may have been done or not"):
        cloud.post(ARM, f"{SUB}/x", {}, params=V, kind="k")
    server.on("POST", f"{SUB}/x", Reply(hang=True), Reply(200, {"k": 1}))
    assert cloud.post(ARM, f"{SUB}/x", params=V, kind="k", reads=True).body == {"k": 1}


def test_another_operation_on_the_parent_is_waited_for(
    server: Server, cloud: Cloud, clock: TestClock
) -> None:
    busy = Reply(409, {"error": {"code": "RequestConflict", "message": "Another operation"}})
    early = Reply(400, {"error": {"code": "AccountProvisioningStateInvalid"}})
    server.on("PATCH", f"{SUB}/x", *[busy] * 15, early, Reply(200, {"ok": 1}))
    assert cloud.patch(ARM, f"{SUB}/x", {}, params=V, kind="k").body == {"ok": 1}
    server.on("PUT", f"{SUB}/x", busy)
    began = clock.now()
    with pytest.raises(ConflictError):
        cloud.put(ARM, f"{SUB}/x", {}, params=V, kind="k")
    assert 600 < (clock.now() - began).total_seconds() <= Limits().conflict_patience
    server.seen.clear()
    server.on("PUT", f"{SUB}/x", Reply(409, {"error": {"code": "FlagMustBeSetForRestore"}}))
    with pytest.raises(ConflictError, match="FlagMustBeSetForRestore"):
        cloud.put(ARM, f"{SUB}/x", {}, params=V, kind="k")
    assert len(server.requests()) == 1


def test_a_port_where_nobody_listens_is_unreachable(clock: TestClock, server: Server) -> None:
    with pytest.raises(UnreachableError, match="no answer from localhost:1"):
        open_cloud(environment="https://localhost:1", clock=clock, limits=Limits(connect=1))
    with pytest.raises(UnreachableError) as caught:  # the certificate is not among the usual ones
        open_cloud(environment=server.url, clock=clock)
    assert "ca_file" in caught.value.remedy
    with pytest.raises(SettingsError):
        open_cloud(environment="http://localhost:1", clock=clock)
    with pytest.raises(SettingsError, match="no cloud called"):
        open_cloud(environment="AzureMoon", clock=clock)


# Listings ---------------------------------------------------------------------------------------


def test_pages_are_followed_absolute_relative_empty_and_to_the_end(
    server: Server, cloud: Cloud
) -> None:
    def pages(request: Seen) -> Reply:
        if "page=2" in request.path:
            return Reply(200, {"value": [], "nextLink": f"{SUB}/x?page=3"})
        if "page=3" in request.path:
            return Reply(200, {"value": [{"n": 2}], "nextLink": None})
        link = f"{server.url}{SUB}/x?page=2&%24skiptoken=a%2Fb"
        return Reply(200, {"value": [{"n": 1}], "nextLink": link})

    server.always = pages
    assert [item["n"] for item in cloud.list(ARM, f"{SUB}/x", params=V, kind="k")] == [1, 2]
    paths = [seen.path for seen in server.requests()]
    assert paths[1] == f"{SUB}/x?page=2&%24skiptoken=a%2Fb&api-version=2025-09-01"
    assert paths[2] == f"{SUB}/x?page=3&api-version=2025-09-01"


@pytest.mark.parametrize("cursor", [Cursor.OPENAI_AFTER, Cursor.FOUNDRY_AFTER])
def test_cursors_are_followed(server: Server, cloud: Cloud, cursor: Cursor) -> None:
    def pages(request: Seen) -> Reply:
        if "after=c" in request.path:
            return Reply(200, {"data": [{"id": "d"}], "has_more": False})
        if "after=b" in request.path:
            return Reply(200, {"data": [{"id": "c"}], "has_more": True})  # no last_id
        return Reply(200, {"data": [{"id": "a"}, {"id": "b"}], "has_more": True, "last_id": "b"})

    server.always = pages
    found = cloud.list(data_place(server), "files", params={"limit": "2"}, kind="k", cursor=cursor)
    assert [item["id"] for item in found] == ["a", "b", "c", "d"]
    assert [seen.path for seen in server.requests()] == [
        "/files?limit=2", "/files?limit=2&after=b", "/files?limit=2&after=c",
    ]  # fmt: skip


@pytest.mark.parametrize("status", [400, 404])
def test_a_listing_goes_on_when_the_item_of_its_cursor_is_deleted_meanwhile(
    server: Server, cloud: Cloud, status: int
) -> None:
    gone = {"after=b", "after=c"}

    def pages(request: Seen) -> Reply:
        if any(request.path.endswith(cursor) for cursor in gone):
            return Reply(status, {"error": {"code": "invalid", "message": "no item with that id"}})
        if "after=a" in request.path:  # b and c were deleted since
            return Reply(200, {"data": [{"id": "d"}], "has_more": False})
        first = [{"id": "a"}, {"id": "b"}, {"id": "c"}]
        return Reply(200, {"data": first, "has_more": True, "last_id": "c"})

    server.always = pages
    listing = cloud.list(data_place(server), "f", kind="k", cursor=Cursor.OPENAI_AFTER)
    assert [item["id"] for item in listing] == ["a", "b", "c", "d"]
    assert [seen.path for seen in server.requests()] == [
        "/f", "/f?after=c", "/f?after=b", "/f?after=a",
    ]  # fmt: skip
    # The control: where nothing stands in for it, the refusal is the answer.
    gone.add("after=a")
    with pytest.raises(CloudError) as caught:
        list(cloud.list(data_place(server), "f", kind="k", cursor=Cursor.OPENAI_AFTER))
    assert caught.value.status == status


@pytest.mark.parametrize(
    "body",
    [{}, {"value": None}, {"value": {}}, {"value": [1]}, [], None, {"value": [], "nextLink": 5}],
)
def test_an_answer_without_its_list_is_damage_and_never_an_empty_listing(
    server: Server, cloud: Cloud, body: Any
) -> None:
    server.on("GET", f"{SUB}/x", Reply(200, body))
    with pytest.raises(DamagedAnswerError):
        list(cloud.list(ARM, f"{SUB}/x", params=V, kind="k"))


def test_a_listing_that_runs_in_circles_is_damage(server: Server, cloud: Cloud) -> None:
    server.on("GET", f"{SUB}/x", Reply(200, {"value": [{}], "nextLink": f"{SUB}/x?page=2"}))
    with pytest.raises(DamagedAnswerError, match="leads back"):
        list(cloud.list(ARM, f"{SUB}/x", params=V, kind="k"))
    server.always = lambda _: Reply(200, {"data": [{"id": "a"}], "has_more": True, "last_id": "a"})
    with pytest.raises(DamagedAnswerError, match="leads back"):
        list(cloud.list(data_place(server), "f", kind="k", cursor=Cursor.OPENAI_AFTER))


def test_a_sign_in_page_in_azures_place_is_called_so(server: Server, cloud: Cloud) -> None:
    page = Reply(200, raw=b"<html>Sign in, sk-thisisaverysecretkeyindeed123</html>",
                 headers={"Content-Type": "text/html; charset=utf-8"})  # fmt: skip
    server.always = lambda _: page
    with pytest.raises(DamagedAnswerError, match=r"is not JSON \(.*html") as error:
        list(cloud.list(ARM, f"{SUB}/x", params=V, kind="k"))
    assert "sk-" not in str(error.value)


@pytest.mark.parametrize("value", [[], [{"id": "/a"}]])
def test_a_listing_that_goes_on_for_ever_with_nothing_new_is_damage(
    server: Server, cloud: Cloud, value: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_IDLE_PAGES", 12)
    pages = iter(range(10_000))

    def page(_request: Seen) -> Reply:
        return Reply(200, {"value": value, "nextLink": f"{SUB}/x?page={next(pages)}"})

    server.always = page
    with pytest.raises(DamagedAnswerError, match="nothing new"):
        list(cloud.list(ARM, f"{SUB}/x", params=V, kind="k"))
    assert cloud.calls.snapshot().made == 13 + bool(value)
    # The control: many pages, each with one more, are a long listing.
    numbers = iter(range(30))

    def long(_request: Seen) -> Reply:
        number = next(numbers)
        link = f"{SUB}/x?page={number}" if number < 29 else None
        return Reply(200, {"value": [{"id": f"/{number}"}], "nextLink": link})

    server.always = long
    assert len(list(cloud.list(ARM, f"{SUB}/x", params=V, kind="k"))) == 30


@pytest.mark.parametrize("more", ["true", 1, {}, "no"])
def test_a_listing_that_does_not_say_whether_there_is_more_is_damage(
    server: Server, cloud: Cloud, more: Any
) -> None:
    server.always = lambda _: Reply(200, {"data": [{"id": "a"}], "has_more": more})
    with pytest.raises(DamagedAnswerError, match="whether there is more"):
        list(cloud.list(data_place(server), "f", kind="k", cursor=Cursor.OPENAI_AFTER))


def test_a_page_that_fails_is_asked_again_and_not_the_pages_before(
    server: Server, cloud: Cloud
) -> None:
    more = Reply(200, {"value": [{"n": 1}], "nextLink": f"{SUB}/y"})
    server.on("GET", f"{SUB}/x", more)
    server.on("GET", f"{SUB}/y", Reply(500), Reply(429), Reply(200, {"value": [{"n": 2}]}))
    assert len(list(cloud.list(ARM, f"{SUB}/x", params=V, kind="k"))) == 2
    assert cloud.calls.snapshot().made == 4


def test_resource_graph_is_read_by_skip_token(server: Server, cloud: Cloud) -> None:
    def rows(request: Seen) -> Reply:
        asked = json.loads(request.body)
        if asked["options"].get("$skipToken"):
            return Reply(200, {"data": [{"n": 2}]})
        return Reply(200, {"data": [{"n": 1}], "$skipToken": "t"})

    server.always = rows
    assert [row["n"] for row in cloud.query("resources", ["s"], kind="graph")] == [1, 2]


def test_permissions_are_read_and_know_wildcards(server: Server, cloud: Cloud) -> None:
    entry = {"actions": ["*/read", "Microsoft.CognitiveServices/accounts/*"],
             "notActions": ["Microsoft.CognitiveServices/accounts/listKeys/action"],
             "dataActions": [], "notDataActions": []}  # fmt: skip
    path = f"{SUB}/providers/Microsoft.Authorization/permissions"
    server.on("GET", path, Reply(200, {"value": [entry]}))
    (found,) = cloud.permissions(SUB)
    assert found.allows("microsoft.insights/x/READ")
    assert found.allows("Microsoft.CognitiveServices/accounts/deployments/write")
    assert not found.allows("Microsoft.CognitiveServices/accounts/listkeys/action")
    assert not found.allows("Microsoft.Storage/accounts/write")
    assert not found.allows_data("x/read")


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_comes_piece_by_piece(server: Server, cloud: Cloud, chunked: bool) -> None:
    content = random.Random(3).randbytes(1_500_000)
    server.on("GET", "/f", Reply(500), Reply(200, raw=content, chunked=chunked))
    pieces = list(cloud.stream(data_place(server), "f", kind="file"))
    assert b"".join(pieces) == content
    assert len(pieces) > 3


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_that_stops_early_is_damage_and_is_not_begun_again(
    server: Server, cloud: Cloud, chunked: bool
) -> None:
    server.on("GET", "/f", Reply(200, raw=b"x" * 900_000, cut=300_000, chunked=chunked))
    got = 0
    with pytest.raises(DamagedAnswerError, match="before its end"):  # noqa: PT012  the loop raises
        for piece in cloud.stream(data_place(server), "f", kind="file"):
            got += len(piece)
    assert got <= 600_000
    assert len(server.requests()) == 1


def test_a_file_that_is_not_there_is_missing(server: Server, cloud: Cloud) -> None:
    server.on("GET", "/f", Reply(404, {"error": {"code": "notFound", "message": "gone"}}))
    with pytest.raises(MissingError, match="gone"):
        next(cloud.stream(data_place(server), "f", kind="file"))


def test_a_file_is_uploaded_as_a_form_from_a_path_or_from_pieces(
    server: Server, cloud: Cloud, tmp_path: Path
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"a": 1}\n' * 100_000)
    server.on("POST", "/files", Reply(429), Reply(201, {"id": "file-1"}))
    place = data_place(server)
    answer = cloud.upload(
        place, "files", fields={"purpose": "fine-tune"}, file=("train.jsonl", path), kind="file"
    )
    assert answer.body == {"id": "file-1"}
    first, second = server.requests("POST")
    assert first.body == second.body
    assert int(second.headers["content-length"]) == len(second.body)
    assert "transfer-encoding" not in second.headers
    assert path.read_bytes() in second.body
    assert b'name="purpose"\r\n\r\nfine-tune\r\n' in second.body
    assert b'filename="train.jsonl"' in second.body
    pieces = iter([b"ab", b"", b"cd"])
    cloud.upload(place, "files", fields={}, file=("x", pieces), kind="file")
    assert b"\r\n\r\nabcd\r\n--" in server.requests("POST")[-1].body


def test_pieces_that_were_used_up_are_not_sent_again(server: Server, cloud: Cloud) -> None:
    server.on("POST", "/files", Reply(429), Reply(201, {"id": "file-1"}))
    with pytest.raises(ThrottledError):
        cloud.upload(data_place(server), "files", fields={}, file=("x", iter([b"a"])), kind="file")
    assert len(server.requests()) == 1


# Long operations --------------------------------------------------------------------------------


def test_an_operation_with_a_status_url_is_followed_to_the_resource(
    server: Server, cloud: Cloud, clock: TestClock
) -> None:
    path, op = f"{SUB}/x", f"{SUB}/ops/1"
    done = {"name": "x", "properties": {"provisioningState": "Succeeded"}}
    begun = {"name": "x", "properties": {"provisioningState": "Accepted"}}
    at = {"Azure-AsyncOperation": f"{server.url}{op}?t=1", "Retry-After": "4"}
    server.on("PUT", path, Reply(201, begun, at))
    server.on("GET", op,
              Reply(200, {"status": "Running", "percentComplete": 40}, {"Retry-After": "6"}),
              Reply(503),
              Reply(200, {"status": "Running"}), Reply(200, {"status": "Succeeded"}))  # fmt: skip
    server.on("GET", path, Reply(200, done))
    seen: list[OperationProgress] = []
    urls: list[str] = []
    answer = cloud.put(
        ARM, path, {}, params=V, kind="k", on_progress=seen.append, on_started=urls.append
    )
    assert answer.body == done
    assert urls == [f"{server.url}{op}?t=1"]
    assert [(p.status, p.percent) for p in seen] == [
        ("Running", 40.0), ("Running", None), ("Succeeded", 100.0),
    ]  # fmt: skip
    assert clock.slept[0] == 4.0
    assert clock.slept[1] == 6.0
    assert seen[-1].elapsed > 10


def test_an_operation_shown_by_the_resource_itself_is_followed(
    server: Server, cloud: Cloud, clock: TestClock
) -> None:
    path = f"{SUB}/x"

    def state(word: str) -> dict[str, Any]:
        return {"properties": {"provisioningState": word}}

    server.on("PUT", path, Reply(201, state("Accepted")))
    server.on("GET", path, Reply(404), *[Reply(200, state("Creating"))] * 8,
              Reply(200, state("Succeeded")))  # fmt: skip
    assert cloud.put(ARM, path, {}, params=V, kind="k").body == state("Succeeded")
    assert clock.slept[0] == 2.0
    assert max(clock.slept) == 15.0


def test_a_delete_by_location_is_followed_and_its_url_may_vanish(
    server: Server, cloud: Cloud
) -> None:
    path, op = f"{SUB}/x", f"{SUB}/results/1"
    server.on("DELETE", path, Reply(202, None, {"Location": f"{server.url}{op}"}))
    server.on("GET", op, Reply(202), Reply(202), Reply(204))
    assert cloud.delete(ARM, path, params=V, kind="k").status == 204
    server.on("GET", op, Reply(202), Reply(404))
    server.on("GET", path, Reply(404))
    assert cloud.delete(ARM, path, params=V, kind="k").status == 204


def test_a_post_by_location_brings_its_result(server: Server, cloud: Cloud) -> None:
    server.on("POST", f"{SUB}/x/act", Reply(202, None, {"Location": f"{server.url}/r"}))
    server.on("GET", "/r", Reply(202), Reply(200, {"result": 5}))
    assert cloud.post(ARM, f"{SUB}/x/act", params=V, kind="k").body == {"result": 5}


@pytest.mark.parametrize("ending", ["Failed", "Canceled"])
def test_an_operation_that_ends_badly_is_an_error_with_its_code(
    server: Server, cloud: Cloud, ending: str
) -> None:
    path = f"{SUB}/x"
    server.on("PUT", path, Reply(201, {}, {"Azure-AsyncOperation": f"{server.url}/op"}))
    error = {"code": "InsufficientQuota", "message": f"no quota; api-key: {CANARY}"}
    server.on("GET", "/op", Reply(200, {"status": ending, "error": error}))
    with pytest.raises(CloudError, match="InsufficientQuota: no quota") as caught:
        cloud.put(ARM, path, {}, params=V, kind="k")
    assert caught.value.code == "InsufficientQuota"
    assert CANARY not in str(caught.value)


def test_a_status_without_a_status_is_damage(server: Server, cloud: Cloud) -> None:
    server.on("PUT", f"{SUB}/x", Reply(200, {}, {"Azure-AsyncOperation": f"{server.url}/op"}))
    server.on("GET", "/op", Reply(200, {"name": "op"}))
    with pytest.raises(DamagedAnswerError, match="no status"):
        cloud.put(ARM, f"{SUB}/x", {}, params=V, kind="k")


def test_an_operation_without_end_ends_our_patience(
    server: Server, cloud: Cloud, clock: TestClock
) -> None:
    server.on("PUT", f"{SUB}/x", Reply(201, {}, {"Azure-AsyncOperation": f"{server.url}/op"}))
    server.on("GET", "/op", Reply(200, {"status": "Running"}, {"Retry-After": "600"}))
    began = clock.now()
    with pytest.raises(UnreachableError, match="still runs"):
        cloud.put(ARM, f"{SUB}/x", {}, params=V, kind="k")
    assert (clock.now() - began).total_seconds() <= Limits().operation_patience


def test_an_operation_is_resumed_from_its_url(server: Server, cloud: Cloud) -> None:
    server.on("PUT", f"{SUB}/x", Reply(201, {}, {"Azure-AsyncOperation": f"{server.url}/op?t=1"}))
    urls: list[str] = []
    cloud.put(ARM, f"{SUB}/x", {}, params=V, kind="k", wait=False, on_started=urls.append)
    server.on("GET", "/op", Reply(200, {"status": "Running"}), Reply(200, {"status": "Succeeded"}))
    server.on("GET", f"{SUB}/x", Reply(200, {"name": "x"}))
    answer = cloud.resume(ARM, urls[0], kind="k", resource=f"{SUB}/x", params=V)
    assert answer.body == {"name": "x"}
    with pytest.raises(DamagedAnswerError, match="foreign"):
        cloud.resume(ARM, "https://evil.example/op", kind="k")


# Regions, budget, errors ------------------------------------------------------------------------


def test_nothing_is_sent_to_a_region_that_is_declared_down(server: Server, cloud: Cloud) -> None:
    server.always = lambda _: Reply(200, {"value": [], "data": []})
    cloud.regions.declare_down("West Europe", "drill")
    tries: list[Callable[[], object]] = [
        lambda: cloud.get(ARM, f"{SUB}/x", params=V, kind="k"),
        lambda: list(cloud.list(ARM, f"{SUB}/x", params=V, kind="k")),
        lambda: cloud.put(ARM, f"{SUB}/x", {}, params=V, kind="k"),
        lambda: cloud.delete(ARM, f"{SUB}/x", params=V, kind="k"),
        lambda: list(cloud.stream(data_place(server), "f", kind="k")),
        lambda: cloud.upload(data_place(server), "f", fields={}, file=("x", b"1"), kind="k"),
        lambda: cloud.resume(ARM, f"{server.url}/op", kind="k"),
    ]
    for attempt in tries:
        with pytest.raises(RegionDownError, match="drill"):
            attempt()
    assert server.requests() == []
    assert cloud.calls.snapshot().made == 0
    cloud.get(Place(Plane.ARM, region="eastus2"), f"{SUB}/x", params=V, kind="k")
    cloud.regions.up("westeurope")
    cloud.get(ARM, f"{SUB}/x", params=V, kind="k")
    assert len(server.requests()) == 2


def test_a_region_declared_down_stops_a_listing_and_an_operation_under_way(
    server: Server, cloud: Cloud
) -> None:
    server.on("GET", f"{SUB}/x", Reply(200, {"value": [{}], "nextLink": f"{SUB}/y"}))
    listing = cloud.list(ARM, f"{SUB}/x", params=V, kind="k")
    next(listing)
    cloud.regions.declare_down("westeurope", "drill")
    with pytest.raises(RegionDownError):
        next(listing)
    assert len(server.requests()) == 1


def test_the_floor_stands_beside_the_calls(server: Server, cloud: Cloud) -> None:
    server.on("GET", f"{SUB}/x", Reply(200, {}))
    cloud.calls.expect("account", 3)
    cloud.get(ARM, f"{SUB}/x", params=V, kind="account")
    count = cloud.calls.snapshot()
    assert (count.made, count.floor) == (1, 3)


def test_a_denial_names_the_action_and_a_role(server: Server, cloud: Cloud) -> None:
    message = (
        "The client 'x' with object id 'y' does not have authorization to perform action "
        "'Microsoft.CognitiveServices/accounts/deployments/write' over scope '/subscriptions/1'."
    )
    server.on("PUT", f"{SUB}/x",
              Reply(403, {"error": {"code": "AuthorizationFailed", "message": message}},
                    {"x-ms-request-id": "r-17"}))  # fmt: skip
    with pytest.raises(DeniedError) as caught:
        cloud.put(ARM, f"{SUB}/x", {}, params=V, kind="k")
    assert "Microsoft.CognitiveServices/accounts/deployments/write" in caught.value.remedy
    assert "Cognitive Services Contributor" in caught.value.remedy
    assert "r-17" in caught.value.where


def test_no_secret_is_in_an_error_or_a_log(
    server: Server, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    message = f"bad sig={CANARY}&x=1 AccountKey={CANARY}; Bearer {CANARY}"
    server.on("POST", "/x", Reply(400, {"error": {"code": "Bad", "message": message}}))
    with pytest.raises(CloudError) as caught:
        cloud.post(data_place(server), "x", {"key": CANARY}, params={"k": CANARY}, kind="k")
    assert CANARY not in f"{caught.value} {caught.value.args} {caught.value.where}"
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("urllib3")]
    assert CANARY not in " ".join(ours)
    assert "token-1" not in caplog.text


def test_closing_leaves_no_thread_and_no_connection(server: Server, tokens: Tokens) -> None:
    before = threading.active_count()
    opened = open_cloud(environment=server.url, ca_file=server.ca, credential=tokens)
    server.on("GET", "/x", Reply(200, {}))
    opened.get(Place(Plane.ARM), "/x", kind="k")
    opened.close()
    ours = [t for t in threading.enumerate() if "process_request_thread" not in t.name]
    assert len(ours) <= before


_END, _RESET = struct.pack("ii", 0, 0), struct.pack("ii", 1, 0)  # what SO_LINGER makes of close()


def _unknown(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def _hangs_up(listener: socket.socket, how: bytes) -> None:
    taken, _ = listener.accept()
    taken.recv(1000)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
    taken.close()


@pytest.mark.parametrize(
    ("address", "proxy", "hang_up", "said"),
    [
        ("127.0.0.1:{free}", "", b"", "connection refused"),
        ("a.invalid", "", b"", "its name is not known to DNS"),
        (
            "a.invalid",
            "http://127.0.0.1:{free}",
            b"",
            "the proxy does not answer: connection refused",
        ),
        ("127.0.0.1:{port}", "", _END, "it closed the connection without an answer"),
        ("127.0.0.1:{port}", "", _RESET, "connection reset by peer"),
    ],
    ids=["refused", "unknown", "proxy", "closed", "reset"],
)
def test_a_line_that_breaks_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, address: str, proxy: str, hang_up: bytes, said: str
) -> None:
    with socket.socket() as listener, socket.socket() as free:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        free.bind(("127.0.0.1", 0))  # taken by us, and nobody listens
        ports = {"port": listener.getsockname()[1], "free": free.getsockname()[1]}
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        if proxy:
            monkeypatch.setenv("http_proxy", proxy.format(**ports))
        elif address == "a.invalid":  # what DNS says; no test may ask it
            monkeypatch.setattr(socket, "getaddrinfo", _unknown)
        if hang_up:
            threading.Thread(target=_hangs_up, args=(listener, hang_up), daemon=True).start()
        with pytest.raises(WireFault) as caught:
            fetch_metadata(
                f"http://{address.format(**ports)}/", ca_file=None, limits=Limits(connect=2, read=2)
            )
    assert caught.value.detail == said
