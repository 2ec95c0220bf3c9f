"""How the sandbox's data plane lets callers in and keeps files, seen by the openai package."""

from __future__ import annotations

import io
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest

from drills.sandbox.providers.cognitive_accounts import revoke_key
from tests.dataplane_fixtures import ACCOUNTS, VERSION, Playground, rows


def test_an_uploaded_file_comes_back_byte_for_byte_in_both_dialects(ground: Playground) -> None:
    sent = rows("harbour")
    for client in (ground.classic("swc"), ground.v1("swc")):
        made: Any = client.files.create(file=("train é.jsonl", sent), purpose="fine-tune")
        assert made.status == "pending"
        ground.advance(5)
        found = client.files.retrieve(made.id)
        assert (found.status, found.bytes) == ("processed", len(sent))
        assert found.filename == "train é.jsonl"
        assert client.files.content(made.id).content == sent


def test_statuses_of_creation_and_deletion_differ_between_the_dialects(ground: Playground) -> None:
    upload: Any = {"files": {"file": ("a.jsonl", rows("x"))}, "data": {"purpose": "fine-tune"}}
    key = {"api-key": "swc-key-2"}
    http = ground.http()
    classic = f"{ground.endpoint('swc')}/openai/files"
    made = http.post(f"{classic}?api-version={VERSION}", headers=key, **upload)
    assert made.status_code == 201
    assert made.headers["location"] == f"{classic}/{made.json()['id']}?api-version={VERSION}"
    gone = http.delete(f"{classic}/{made.json()['id']}?api-version={VERSION}", headers=key)
    assert (gone.status_code, gone.content) == (204, b"")
    v1 = f"{ground.endpoint('swc')}/openai/v1/files"
    made = http.post(v1, headers=key, **upload)
    assert (made.status_code, "location" in made.headers) == (200, False)
    gone = http.delete(f"{v1}/{made.json()['id']}", headers=key)
    assert gone.json() == {"id": made.json()["id"], "object": "file", "deleted": True}
    assert gone.headers["apim-request-id"]
    assert gone.headers["x-ms-region"] == "swedencentral"


def test_a_wrong_key_no_key_and_a_disabled_key_are_told_apart(ground: Playground) -> None:
    with pytest.raises(openai.AuthenticationError, match="invalid subscription key"):
        ground.classic("swc", api_key="wrong").files.list()
    bare = ground.http().get(f"{ground.endpoint('swc')}/openai/v1/files")
    assert bare.status_code == 401
    assert "audience is incorrect" in bare.json()["error"]["message"]
    ground.account("keyless", disableLocalAuth=True)
    with pytest.raises(openai.PermissionDeniedError) as refusal:
        ground.classic("keyless").files.list()
    assert refusal.value.code == "AuthenticationTypeDisabled"


def test_a_token_of_the_wrong_audience_is_refused(ground: Playground) -> None:
    client = ground.classic("swc", api_key=None, azure_ad_token=ground.token())
    assert client.files.list().data == []
    wrong = ground.token(audience="https://management.azure.com/")
    with pytest.raises(openai.AuthenticationError, match="audience is incorrect"):
        ground.classic("swc", api_key=None, azure_ad_token=wrong).files.list()


def test_a_role_that_only_reads_may_not_upload(ground: Playground) -> None:
    token = ground.token("reader", role="Cognitive Services OpenAI User")
    client = ground.v1("swc", api_key=token)
    assert client.files.list().data == []
    with pytest.raises(openai.AuthenticationError) as refusal:
        client.files.create(file=("a.jsonl", rows("x")), purpose="fine-tune")
    assert refusal.value.code == "PermissionDenied"
    assert "accounts/OpenAI/files/write" in str(refusal.value)
    token = ground.token("writer", role="Cognitive Services OpenAI Contributor")
    ground.v1("swc", api_key=token).files.create(file=("a.jsonl", rows("x")), purpose="fine-tune")


def test_a_closed_network_refuses_before_the_key_is_looked_at(ground: Playground) -> None:
    shut = ground.account("shut", publicNetworkAccess="Disabled")
    with pytest.raises(openai.PermissionDeniedError, match="Public access is disabled"):
        ground.classic("shut", api_key="wrong").files.list()
    rules = {"defaultAction": "Deny", "ipRules": [{"value": "10.0.0.0/8"}]}
    ground.change(shut, publicNetworkAccess="Enabled", networkAcls=rules)
    with pytest.raises(openai.PermissionDeniedError, match="Firewall"):
        ground.classic("shut").files.list()
    rules = {"defaultAction": "Deny", "ipRules": [{"value": "127.0.0.1"}]}
    ground.change(shut, networkAcls=rules)
    assert ground.classic("shut").files.list().data == []


def test_an_unknown_endpoint_is_no_account(ground: Playground) -> None:
    answer = ground.http().get(f"{ground.endpoint('nobody')}/openai/v1/files")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "EndpointNotFound")


def test_a_region_s_endpoint_finds_the_account_by_its_key(ground: Playground) -> None:
    base = ground.endpoint("swedencentral", "api")
    http = ground.http()
    good = http.get(f"{base}/openai/v1/files", headers={"api-key": "swc-key-1"})
    assert good.status_code == 200
    other = http.get(
        f"{ground.endpoint('eastus2', 'api')}/openai/v1/files", headers={"api-key": "swc-key-1"}
    )
    assert other.status_code == 401


def test_a_classic_path_needs_its_api_version(ground: Playground) -> None:
    url = f"{ground.endpoint('swc')}/openai/files"
    assert ground.http().get(url, headers={"api-key": "swc-key-1"}).status_code == 404


def test_what_is_not_played_is_loud(ground: Playground) -> None:
    url = f"{ground.endpoint('swc')}/openai/v1/holograms"
    answer = ground.http().get(url, headers={"api-key": "swc-key-1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "SandboxUnsupported")


def test_lists_go_page_by_page_and_filter_by_purpose(ground: Playground) -> None:
    client = ground.v1("swc")
    for n in range(5):
        client.files.create(file=(f"{n}.jsonl", rows("x")), purpose="fine-tune")
    client.files.create(file=("notes.txt", b"hello"), purpose="assistants")
    page = client.files.list(limit=2, purpose="fine-tune")
    assert [f.filename for f in page.data] == ["4.jsonl", "3.jsonl"]
    assert page.has_more
    names = [f.filename for f in client.files.list(limit=2, purpose="fine-tune")]
    assert names == ["4.jsonl", "3.jsonl", "2.jsonl", "1.jsonl", "0.jsonl"]
    assert [f.filename for f in client.files.list(purpose="assistants")] == ["notes.txt"]
    assert len(client.files.list(order="asc").data) == 6


def test_a_file_for_assistants_cannot_be_downloaded(ground: Playground) -> None:
    client = ground.v1("swc")
    made = client.files.create(file=("notes.txt", b"hello"), purpose="assistants")
    with pytest.raises(openai.BadRequestError, match="Not allowed to download files of purpose"):
        client.files.content(made.id)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"messages": []}\n' * 10, "'messages' is missing"),
        (b"not json\n" * 10, "line 1 is no valid JSON"),
        (b'{"messages": [{"role": "user", "content": "hi"}]}\n' * 10, "assistant"),
        (rows("x", 9), "minimum is 10"),
    ],
)
def test_a_bad_training_file_ends_as_an_error(
    ground: Playground, content: bytes, problem: str
) -> None:
    client = ground.classic("swc")
    made = client.files.create(file=("bad.jsonl", content), purpose="fine-tune")
    ground.advance(5)
    found = client.files.retrieve(made.id)
    assert found.status == "error"
    assert problem in str(found.status_details)


def test_the_limits_are_those_of_the_account(ground: Playground) -> None:
    limits = [
        {"name": "MaxUserFileCount", "value": "2"},
        {"name": "MaxTrainingFileSize", "value": "4000"},
    ]
    ground.account("small", capabilities=limits)
    client = ground.classic("small")
    with pytest.raises(openai.BadRequestError, match="too large"):
        client.files.create(file=("big.jsonl", rows("x", 30)), purpose="fine-tune")
    for n in range(2):
        client.files.create(file=(f"{n}.jsonl", rows("x", 10)), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError) as refusal:
        client.files.create(file=("3.jsonl", rows("x", 10)), purpose="fine-tune")
    assert refusal.value.code == "quotaExceeded"


def test_uploads_that_make_no_sense_are_refused(ground: Playground) -> None:
    client = ground.v1("swc")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("a.jsonl", rows("x")), purpose="vision")
    with pytest.raises(openai.BadRequestError, match="extension"):
        client.files.create(file=("a.txt", rows("x")), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.files.create(file=("a.jsonl", io.BytesIO(b"")), purpose="fine-tune")
    url = f"{ground.endpoint('swc')}/openai/v1/files"
    broken = ground.http().post(
        url,
        headers={"api-key": "swc-key-1", "content-type": "multipart/form-data; boundary=x"},
        content=b"--y\r\nrubbish",
    )
    assert broken.status_code == 400


def test_an_unknown_file_is_not_found(ground: Playground) -> None:
    client = ground.classic("swc")
    for attempt in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as refusal:
            attempt("file-0000")
        assert refusal.value.code == "notFound"


def test_a_file_that_expires_is_gone_after_its_time(ground: Playground) -> None:
    client = ground.v1("swc")
    made = client.files.create(
        file=("a.jsonl", rows("x")),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 1_209_600},
    )
    ground.advance(1_209_599)
    assert client.files.retrieve(made.id).expires_at == made.created_at + 1_209_600
    ground.advance(2)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_while_the_customer_s_key_is_revoked_nothing_can_be_downloaded(ground: Playground) -> None:
    client = ground.classic("swc")
    made = client.files.create(file=("a.jsonl", rows("x")), purpose="fine-tune")
    ground.advance(5)
    ground.encrypt("swc")
    assert client.files.content(made.id).content
    revoke_key(ground.world, f"{ACCOUNTS}/swc", revoked=True)
    with pytest.raises(openai.PermissionDeniedError, match="customer-managed key"):
        client.files.content(made.id)


def test_base_models_say_what_they_can_and_how_long_they_live(ground: Playground) -> None:
    models = {m.id: m.model_dump() for m in ground.classic("swc").models.list()}
    mini = models["gpt-4o-mini-2024-07-18"]
    assert mini["capabilities"]["fine_tune"]
    assert mini["lifecycle_status"] == "generally-available"
    assert mini["deprecation"]["inference"] > mini["deprecation"]["fine_tune"]
    assert models["text-embedding-3-large-1"]["capabilities"]["embeddings"]
    one = ground.v1("swc").models.retrieve("gpt-4o-mini-2024-07-18")
    assert (one.object, one.owned_by) == ("model", "openai")
    with pytest.raises(openai.NotFoundError):
        ground.v1("swc").models.retrieve("gpt-99")


def test_the_old_list_of_deployments_shows_what_is_deployed(ground: Playground) -> None:
    url = f"{ground.endpoint('swc')}/openai/deployments?api-version=2022-12-01"
    shown = ground.http().get(url, headers={"api-key": "swc-key-1"}).json()["data"]
    assert [(d["id"], d["model"], d["status"]) for d in shown] == [
        ("chat", "gpt-4o-mini", "succeeded")
    ]


def test_a_file_is_imported_from_the_sandbox_s_own_storage_only(
    ground: Playground, tmp_path: Path
) -> None:
    (tmp_path / "blob").mkdir()
    (tmp_path / "blob" / "train.jsonl").write_bytes(rows("blob"))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "blob"))
    url = f"{ground.endpoint('swc')}/openai/files/import?api-version=2024-07-01-preview"
    key = {"api-key": "swc-key-1"}
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as storage:
        thread = threading.Thread(target=storage.serve_forever, daemon=True)
        thread.start()
        base = f"http://127.0.0.1:{storage.server_port}"
        body = {"purpose": "fine-tune", "filename": "a.jsonl"}
        made = []
        for source in (
            f"{base}/train.jsonl",
            f"{base}/nothing.jsonl",
            "https://x.blob.core.windows.net/c/train.jsonl",
        ):
            answer = ground.http().post(url, headers=key, json={**body, "content_url": source})
            assert answer.status_code == 201
            made.append(answer.json()["id"])
        storage.shutdown()
        thread.join(5)
    ground.advance(5)
    found = [ground.classic("swc").files.retrieve(id_) for id_ in made]
    assert [file.status for file in found] == ["processed", "error", "error"]
    assert ground.classic("swc").files.content(made[0]).content == rows("blob")
    assert "404" in str(found[1].status_details)


def test_an_account_answers_thirty_calls_a_second(ground: Playground) -> None:
    ground.world.store.set_meta("setting-throttle", value=True)
    instant = 1_000.0
    ground.world.throttle.now = lambda: instant  # no token comes back while we count
    http, key = ground.http(), {"api-key": "swc-key-1"}
    url = f"{ground.endpoint('swc')}/openai/v1/files"
    answers = [http.get(url, headers=key) for _ in range(31)]
    assert [a.status_code for a in answers] == [200] * 30 + [429]
    assert float(answers[-1].headers["retry-after"]) > 0
