"""A vault in a Blob container of an Azure storage account."""

from __future__ import annotations

import errno
import logging
import re
import secrets
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar

from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential, TokenCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.storage.blob import (
    BlobBlock,
    BlobClient,
    BlobProperties,
    BlobServiceClient,
    ContentSettings,
    ExponentialRetry,
)

from snapshots.clock import Clock
from snapshots.errors import (
    CloudError,
    ConflictError,
    DamagedAnswerError,
    DeniedError,
    MissingError,
    MusterError,
    StoreError,
    ThrottledError,
    UnreachableError,
)
from snapshots.vault.base import (
    BLOCK,
    Block,
    Document,
    Entry,
    StoredVault,
    VaultFacts,
    file_blocks,
    in_blocks,
    in_order,
)
from snapshots.vault.location import BlobKey, BlobPlace, Patience

PARALLEL = 4  # blocks under way at once, over all threads
_SPOOL = 1024 * 1024  # bytes that go into a temporary file at once
_SPOOLED = 4  # times that, on their way there
_LARGE = 2  # payloads of more than one block that are sent at once: this bounds the memory
_MOST_BLOCKS = 50_000  # of one blob: learn.microsoft.com/rest/api/storageservices/put-block
_TORN = "Md5Mismatch"  # what arrived is not what was sent
_TRIES = 3  # for what the network tears
_BYTES = ContentSettings(content_type="application/octet-stream")

# What Azure says where something is already; which of them depends on roles and policies.
_THERE = frozenset(
    {
        "BlobAlreadyExists",
        "BlobImmutableDueToPolicy",
        "ConditionNotMet",
        "InvalidBlockList",  # another writer's commit took our blocks away
        "TargetConditionNotMet",
        "UnauthorizedBlobOverwrite",
    }
)

_SIGNATURE = re.compile(r"sig=[^&\s\"']*")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An answer that its caller expected as one of the possible ones."""

    status: int
    code: str
    request: str = ""


@dataclass(frozen=True, slots=True)
class _Beginning:
    """The first block of an object, with the size and etag of the whole."""

    first: bytes
    size: int
    etag: str


class BlobVault(StoredVault):
    """A vault whose objects are block blobs, each created once with If-None-Match: *.

    A payload whose digest is known ahead goes straight to its place, in blocks of 8 MiB, four at a
    time; nothing can be seen before the block list is committed, and Azure drops uncommitted blocks
    after a week. One whose digest is not known waits in an unnamed local file when it is larger
    than a block: see docs/decisions/0021. Each request carries the MD5 of its bytes, which Azure
    compares with what arrived (learn.microsoft.com/rest/api/storageservices/put-block).
    """

    kind: ClassVar[str] = "blob"

    def __init__(
        self,
        place: BlobPlace,
        key: BlobKey,
        clock: Clock,
        *,
        ca: Path | None = None,
        patience: Patience | None = None,
        fingerprint_file: Path | None = None,
    ) -> None:
        super().__init__(clock, fingerprint_file=fingerprint_file)
        self._place = place
        if key.sas is not None:
            _hush_signatures()
        patience = patience or Patience()
        self._service = BlobServiceClient(
            place.endpoint,
            credential=_credential(place, key),
            retry_policy=ExponentialRetry(
                initial_backoff=patience.backoff,
                increment_base=2,
                retry_total=patience.retries,
                random_jitter_range=min(1, patience.backoff),
            ),
            connection_timeout=patience.connect,
            read_timeout=patience.read,
            max_block_size=BLOCK,
            max_single_put_size=BLOCK,
            max_single_get_size=BLOCK,
            max_chunk_get_size=BLOCK,
            connection_verify=True if ca is None else str(ca),
        )
        self._container = self._service.get_container_client(place.container)
        self._pool = ThreadPoolExecutor(PARALLEL, "vault-block")
        self._large = threading.BoundedSemaphore(_LARGE)

    @property
    def location(self) -> str:
        """The azblob:// address."""
        return self._place.location

    def prepare(self) -> None:
        """Make the container when it is missing."""
        found = self._ask("look at the container", "", self._container.get_container_properties)
        if isinstance(found, _Refusal):
            self._ask("make the container", "", self._container.create_container, bears={409})

    def close(self) -> None:
        """Let go of connections and threads."""
        self._pool.shutdown(cancel_futures=True)
        self._service.close()

    # ---- what doctor wants to know ----

    def facts(self) -> VaultFacts:
        """Say what doctor wants to know; None where the container's rights do not let us see.

        Versioning and the region are of the account's management side; the data plane shows
        versioning only by the version id of a blob. Azurite answers with invented constants (its
        SKU) or 501, so that all of it is "not known" there (observed with 3.37.0).
        """
        try:
            return self._facts()
        except MusterError as error:
            return VaultFacts(
                self.location,
                self.kind,
                reachable=False,
                problem=error.what,
                remedy=error.remedy,
            )

    def _facts(self) -> VaultFacts:
        headers: dict[str, str] = {}

        def hook(answer: Any) -> None:  # the pipeline's answer, of whichever transport
            headers.update(answer.http_response.headers.items())

        found = self._ask(
            "look at the container",
            "",
            lambda: self._container.get_container_properties(raw_response_hook=hook),
            bears=frozenset(),
        )
        assert not isinstance(found, _Refusal)
        told = {name.lower(): value for name, value in headers.items()}
        skew = None
        if "date" in told:
            theirs = parsedate_to_datetime(told["date"])
            # The header has whole seconds: a difference below one says nothing.
            difference = (theirs - self._clock.now()).total_seconds()
            skew = 0.0 if abs(difference) < 1.5 else difference
        if told.get("server", "").startswith("Azurite"):
            return VaultFacts(self.location, self.kind, reachable=True, clock_skew_seconds=skew)
        redundancy = self._redundancy()
        return VaultFacts(
            self.location,
            self.kind,
            reachable=True,
            region_independent=None if redundancy is None else _in_two_regions(redundancy),
            redundancy=redundancy,
            versioning=self._versioning(),
            soft_delete_days=self._soft_delete_days(),
            immutability_policy=bool(
                found.has_immutability_policy
                or getattr(found, "immutable_storage_with_versioning_enabled", False)
            ),
            legal_hold=bool(found.has_legal_hold),
            clock_skew_seconds=skew,
        )

    def _redundancy(self) -> str | None:
        bears = frozenset({400, 401, 403, 404, 409, 501})
        found = self._ask(
            "look at the account", "", self._container.get_account_information, bears=bears
        )
        return None if isinstance(found, _Refusal) else str(found["sku_name"])

    def _soft_delete_days(self) -> int | None:
        bears = frozenset({400, 401, 403, 404, 409, 501})
        found = self._ask(
            "look at the account", "", self._service.get_service_properties, bears=bears
        )
        if isinstance(found, _Refusal):
            return None
        policy = found["delete_retention_policy"]
        return int(policy.days or 0) if policy.enabled else 0

    def _versioning(self) -> bool | None:
        entry = next(self._list(""), None)
        if entry is None:
            return None
        found = self._ask("look", entry.path, self._client(entry.path).get_blob_properties)
        return True if not isinstance(found, _Refusal) and found.version_id else None

    # ---- moving bytes ----

    def _upload(self, chunks: Iterator[Block], path: str | None, seal: Callable[[], str]) -> bool:
        begin: list[Block] = []
        size = 0
        for chunk in chunks:
            begin.append(_still(chunk))
            size += len(chunk)
            if size > BLOCK:
                break
        else:  # the digest is known before anything is sent
            return self._create(seal(), b"".join(begin))
        if path is not None:
            return self._send(in_blocks(chain(begin, chunks)), path, seal)
        # In a file without a name: nothing is left behind by a kill, and what the vault has
        # already is never sent.
        with self._temporary() as file:
            self._spool(chain(begin, chunks), file)
            target = seal()
            if self._stat(target) is not None:
                return False
            return self._send(file_blocks(file), target, lambda: target)

    def _temporary(self) -> IO[bytes]:
        try:
            return tempfile.TemporaryFile(buffering=_SPOOL // 8)
        except OSError as error:
            raise _no_room(error) from None

    def _spool(self, chunks: Iterator[Block], file: IO[bytes]) -> None:
        """Write the chunks into a file and go to its beginning.

        A thread writes while the next ones come and are hashed: both leave Python's lock alone.
        """
        waiting: deque[Future[None]] = deque()
        batch: list[Block] = []
        size = 0
        with ThreadPoolExecutor(1, "vault-spool") as writer:
            for chunk in chunks:  # what the source raises is not ours to translate
                batch.append(_still(chunk))
                size += len(chunk)
                if size >= _SPOOL:
                    if len(waiting) >= _SPOOLED:
                        waiting.popleft().result()
                    waiting.append(writer.submit(_write, file, batch))
                    batch, size = [], 0
            writer.submit(_write, file, batch).result()
            while waiting:
                waiting.popleft().result()
        self._rewind(file)

    def _rewind(self, file: IO[bytes]) -> None:
        try:
            file.seek(0)  # which brings what is buffered into the file
        except OSError as error:
            raise _no_room(error) from None

    def _send(self, blocks: Iterator[Block], path: str, seal: Callable[[], str]) -> bool:
        client = self._client(path)
        # Of one length, as Azure demands of all blocks of a blob, and of this writer alone.
        run = secrets.token_hex(8)
        ids: list[str] = []
        waiting: set[Future[None]] = set()
        with self._large:
            try:
                for block in blocks:
                    if len(waiting) >= PARALLEL:
                        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                        for future in done:
                            future.result()
                    if len(ids) == _MOST_BLOCKS:
                        raise StoreError(
                            f"a payload of more than {_MOST_BLOCKS * BLOCK} bytes does not fit "
                            "into one blob",
                            where=self._where(path),
                            remedy="leave the file out, or split it at its source",
                        )
                    ids.append(f"{run}-{len(ids):05d}")
                    waiting.add(self._pool.submit(self._stage, client, path, ids[-1], block))
                    del block
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            finally:
                for future in waiting:
                    future.cancel()
                wait(waiting)
            seal()
            answer = self._ask(
                "keep",
                path,
                lambda: client.commit_block_list(
                    [BlobBlock(block_id) for block_id in ids],
                    content_settings=_BYTES,
                    match_condition=MatchConditions.IfMissing,
                ),
                bears=frozenset({400, 403, 409, 412}),
            )
        return self._created(answer, path)

    def _stage(self, client: BlobClient, path: str, block_id: str, block: Block) -> None:
        answer = self._ask(
            "keep",
            path,
            lambda: client.stage_block(
                block_id, bytes(block), length=len(block), validate_content=True
            ),
            bears=frozenset({409, 412}),
        )
        if isinstance(answer, _Refusal) and answer.code not in _THERE:
            raise self._error("keep", path, answer.status, answer.code, answer.request)

    def _created(self, answer: object, path: str) -> bool:
        if not isinstance(answer, _Refusal):
            return True
        if answer.code not in _THERE or self._stat(path) is None:
            raise self._error("keep", path, answer.status, answer.code, answer.request)
        return False

    def _create(self, path: str, data: bytes) -> bool:
        answer = self._ask(
            "keep",
            path,
            lambda: self._client(path).upload_blob(
                data,
                overwrite=False,
                content_settings=_BYTES,
                max_concurrency=1,
                validate_content=True,
            ),
            bears=frozenset({403, 409, 412}),
        )
        return self._created(answer, path)

    def _replace(self, path: str, data: bytes, etag: str | None) -> str | None:
        def write() -> Mapping[str, object]:
            client = self._client(path)
            if etag is None:
                return client.upload_blob(
                    data,
                    overwrite=False,
                    content_settings=_BYTES,
                    max_concurrency=1,
                    validate_content=True,
                )
            return client.upload_blob(
                data,
                overwrite=True,
                etag=etag,
                match_condition=MatchConditions.IfNotModified,
                content_settings=_BYTES,
                max_concurrency=1,
                validate_content=True,
            )

        answer = self._ask("replace", path, write, bears={404, 409, 412})
        if isinstance(answer, _Refusal):
            immutable = answer.code == "BlobImmutableDueToPolicy"
            if not immutable and (answer.code in _THERE or answer.status in {404, 412}):
                return None
            raise self._error("replace", path, answer.status, answer.code, answer.request)
        return str(answer["etag"])

    def _open(self, path: str) -> Iterator[bytes] | None:
        found = self._begin(path)
        return None if found is None else self._blocks(path, found)

    def _begin(self, path: str) -> _Beginning | None:
        """Read the first block; None when the object is missing."""
        client = self._client(path)

        def begin() -> _Beginning:
            stream = client.download_blob(offset=0, length=BLOCK, max_concurrency=1)
            # The size that the SDK gives is that of the range; "bytes 0-8388607/9000000" has both.
            total = str(stream.properties.content_range).rpartition("/")[2]
            return _Beginning(stream.readall(), int(total), str(stream.properties.etag))

        while True:
            found = self._ask("read", path, begin, bears={404, 416})
            if not isinstance(found, _Refusal):
                return found
            if found.status == 404:
                return None
            # 416 InvalidRange: an empty blob has not even a first byte. The SDK would ask again
            # without a range, and when the blob is replaced between the two questions it gives the
            # new etag with no bytes (azure-storage-blob 12.31.1): a lost update. So ask by hand.
            seen = self._ask("read", path, client.get_blob_properties)
            if isinstance(seen, _Refusal):
                return None
            if int(seen.size) == 0:
                return _Beginning(b"", 0, str(seen.etag))

    def _blocks(self, path: str, begun: _Beginning) -> Iterator[bytes]:
        client, size = self._client(path), begun.size

        def part(offset: int) -> bytes:
            found = self._ask(
                "read",
                path,
                lambda: client.download_blob(
                    offset=offset,
                    length=min(BLOCK, size - offset),
                    etag=begun.etag,
                    match_condition=MatchConditions.IfNotModified,
                    max_concurrency=1,
                ).readall(),
            )
            if isinstance(found, _Refusal):
                raise self._error("read", path, found.status, found.code, found.request)
            return found

        if begun.first:
            yield begun.first
        yield from in_order(
            (self._pool.submit(part, offset) for offset in range(BLOCK, size, BLOCK)), PARALLEL
        )

    def _get(self, path: str) -> Document | None:
        found = self._begin(path)
        if found is None:
            return None
        return Document(path, b"".join(self._blocks(path, found)), found.etag)

    def _delete(self, path: str, etag: str | None = None) -> bool:
        client = self._client(path)

        def delete() -> None:
            if etag is None:
                client.delete_blob()
            else:
                client.delete_blob(etag=etag, match_condition=MatchConditions.IfNotModified)

        # 409: immutable, on hold or leased; 412: written since, or leased.
        answer = self._ask("delete", path, delete, bears=frozenset({404, 409, 412}))
        return not isinstance(answer, _Refusal) or answer.status == 404

    def _touch(self, path: str) -> bool:
        kept = self._clock.now().astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        answer = self._ask(
            "keep",
            path,
            # The random part makes the metadata, and so the etag, differ at any pace.
            lambda: self._client(path).set_blob_metadata(
                {"muster_kept": f"{kept}-{secrets.token_hex(4)}"}
            ),
            bears=frozenset({404, 409}),
        )
        # 409: immutable or on hold; then nobody can delete it either.
        return not isinstance(answer, _Refusal) or answer.status == 409

    def _stat(self, path: str) -> Entry | None:
        found = self._ask("look", path, self._client(path).get_blob_properties)
        if isinstance(found, _Refusal):
            return None
        return Entry(path, int(found.size), _utc(found.last_modified), _quoted(str(found.etag)))

    def _list(self, prefix: str) -> Iterator[Entry]:
        ours = self._place.prefix
        pages = self._container.list_blobs(
            name_starts_with=f"{ours}{prefix}" or None, results_per_page=5000
        ).by_page()

        def next_page() -> list[BlobProperties] | None:
            page = next(pages, None)
            return None if page is None else list(page)

        while True:
            found = self._ask("list", prefix, next_page, bears=frozenset())
            assert not isinstance(found, _Refusal)
            if found is None:
                return
            for blob in found:
                yield Entry(
                    str(blob.name).removeprefix(ours),
                    int(blob.size),
                    _utc(blob.last_modified),
                    _quoted(str(blob.etag)),
                )

    # ---- asking Azure ----

    def _client(self, path: str) -> BlobClient:
        return self._container.get_blob_client(f"{self._place.prefix}{path}")

    def _where(self, path: str) -> str:
        return f"{self.location}/{path}" if path else self.location

    def _ask(
        self,
        what: str,
        path: str,
        call: Callable[[], T],
        *,
        bears: frozenset[int] | set[int] = frozenset({404}),
    ) -> T | _Refusal:
        """Call Azure; give its refusal where the caller bears it, raise our errors for the rest.

        An error is made of status, code and request id only, and raised outside of `except`: the
        SDK's own message can hold the signature of a SAS, and so could a chained exception.
        """
        found = self._ask_once(what, path, call, bears | {400})
        for _ in range(_TRIES - 1):
            if not isinstance(found, _Refusal) or found.code != _TORN:
                break
            found = self._ask_once(what, path, call, bears | {400})
        if isinstance(found, _Refusal) and found.status not in bears:
            raise self._error(what, path, found.status, found.code, found.request)
        return found

    def _ask_once(
        self, what: str, path: str, call: Callable[[], T], bears: frozenset[int] | set[int]
    ) -> T | _Refusal:
        failure: MusterError
        try:
            return call()
        except ClientAuthenticationError as error:
            status, code, request = _answer(error)
            if status in bears and code:
                return _Refusal(status, code, request)
            failure = self._error(what, path, status or 401, code, request)
        except HttpResponseError as error:
            status, code, request = _answer(error)
            container = code.startswith("Container") and path != ""
            if status in bears and not container:
                return _Refusal(status, code, request)
            failure = self._error(what, path, status, code, request)
        except (ServiceRequestError, ServiceResponseError):
            failure = UnreachableError(
                f"the vault does not answer (to {what})",
                where=f"{self._where(path)} at {self._place.endpoint}",
                remedy="check the network, the name of the account and its firewall; nothing "
                "half-written can be seen, so run this again",
            )
        except AzureError as error:
            failure = DamagedAnswerError(
                f"the vault answered in a way that is not Azure's ({type(error).__name__})",
                where=f"{self._where(path)} at {self._place.endpoint}",
                remedy="check what stands between this machine and the vault, a proxy for example",
            )
        raise failure

    def _error(self, what: str, path: str, status: int, code: str, request: str) -> MusterError:
        where = self._where(path) + (f" (request {request})" if request else "")
        said = f"{status} {code}".strip() if status else "no answer"
        match status:
            case _ if code == "ContainerNotFound":
                return MissingError(
                    "the vault's container does not exist",
                    where=where,
                    remedy="create it (`muster init` does), or correct vault.url",
                    status=status,
                    code=code,
                )
            case _ if code == _TORN:
                return CloudError(
                    f"what arrived in the vault is not what was sent (to {what}: {said})",
                    where=where,
                    remedy="check what stands between this machine and the vault, a proxy or a "
                    "faulty network card for example; nothing damaged was kept, so run this again",
                    status=status,
                    code=code,
                )
            case 401 | 403:
                return DeniedError(
                    f"the vault may not be used by us (to {what}: {said})",
                    where=where,
                    remedy=_DENIED.get(code, _DENIED[""]),
                    status=status,
                    code=code,
                )
            case 404:
                return MissingError(
                    f"cannot {what}: {said}",
                    where=where,
                    remedy="check vault.url",
                    status=status,
                    code=code,
                )
            case 409 | 412:
                return ConflictError(
                    f"cannot {what}: {said}",
                    where=where,
                    remedy=_CONFLICT.get(code, "wait for the other operation and run this again"),
                    status=status,
                    code=code,
                )
            case 429 | 503:
                return ThrottledError(
                    f"the vault is busy (to {what}: {said})",
                    where=where,
                    remedy="run this again later",
                    status=status,
                    code=code,
                )
            case _:
                return CloudError(
                    f"cannot {what}: {said}",
                    where=where,
                    remedy="give the request id to the owner of the storage account",
                    status=status,
                    code=code,
                )


_DENIED = {
    "": "give the principal the role Storage Blob Data Contributor on the container",
    "AuthenticationFailed": "the key or signature is wrong or expired, or this machine's clock is",
    "AuthorizationFailure": "the network rules of the storage account, or its switched-off keys, "
    "keep us out: allow this machine or sign in with Microsoft Entra ID",
    "KeyBasedAuthenticationNotPermitted": "keys are switched off: sign in with Microsoft Entra ID",
    "InvalidAuthenticationInfo": "the token is not for this tenant or cloud: sign in again",
}
_CONFLICT = {
    "BlobArchived": "it is in the archive tier: rehydrate it to hot or cool, then run this again",
    "ContainerBeingDeleted": "the container is being deleted: restore it, or wait and create it",
    "BlobImmutableDueToPolicy": "a policy or a legal hold protects it; documents that grow need "
    "version-level immutability, not that of a whole container (docs/vault.md)",
}


def _credential(
    place: BlobPlace, key: BlobKey
) -> AzureNamedKeyCredential | AzureSasCredential | TokenCredential | None:
    if key.account_key is not None:
        return AzureNamedKeyCredential(place.account, key.account_key)
    if key.sas is not None:
        return AzureSasCredential(key.sas)
    return key.credential


class _NoSignature(logging.Filter):
    """Takes signatures out of what urllib3 says at DEBUG: whole addresses, and a SAS is in one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without its signature."""
        said = record.getMessage()
        if "sig=" in said:
            record.msg, record.args = _SIGNATURE.sub("sig=REDACTED", said), ()
        return True


def _hush_signatures() -> None:
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logger = logging.getLogger(name)
        if not any(isinstance(one, _NoSignature) for one in logger.filters):
            logger.addFilter(_NoSignature())


def _answer(error: HttpResponseError) -> tuple[int, str, str]:
    """Status, Azure's code and request id of an error; none of them can be secret."""
    status = int(error.status_code or 0)
    headers = getattr(error.response, "headers", None) or {}
    code = getattr(error, "error_code", None) or headers.get("x-ms-error-code") or ""
    request = headers.get("x-ms-request-id") or ""
    # Members of an enumeration of strings, or strings.
    return status, str(getattr(code, "value", code))[:80], str(request)[:60]


def _still(chunk: Block) -> bytes:
    """Give bytes that stay as they are, whatever the source does with its buffer."""
    return chunk if isinstance(chunk, bytes) else bytes(chunk)


def _write(file: IO[bytes], batch: list[Block]) -> None:
    try:
        file.writelines(batch)
    except OSError as error:
        raise _no_room(error) from None


def _no_room(error: OSError) -> StoreError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return StoreError(
        f"cannot hold a payload in a temporary file: {error.strerror}",
        where=tempfile.gettempdir(),
        remedy="free space there" if full else "set TMPDIR to a folder with free space",
    )


def _quoted(etag: str) -> str:
    """Listings leave out the quotation marks that conditions need."""
    return etag if etag.startswith('"') else f'"{etag}"'


def _utc(moment: datetime | None) -> datetime:
    return datetime.min.replace(tzinfo=UTC) if moment is None else moment.astimezone(UTC)


def _in_two_regions(sku: str) -> bool:
    """By learn.microsoft.com/azure/storage/common/storage-redundancy: (RA)GRS and (RA)GZRS."""
    return sku.upper().endswith(("GRS", "GZRS"))
