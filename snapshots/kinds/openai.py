"""The OpenAI data plane of an account: files, fine-tuning, vector stores, assistants."""

from __future__ import annotations

from collections.abc import Mapping

from snapshots.cloud.place import Cursor, Plane
from snapshots.errors import CloudError
from snapshots.kinds.accounts import openai_endpoint, serves_models
from snapshots.kinds.base import (
    By,
    Comeback,
    Content,
    Flow,
    Fold,
    Kind,
    Location,
    Reference,
    Way,
)
from snapshots.kinds.fields import Default, Fields, Items
from snapshots.model import Json, Recovery, Resource

_V1 = "/openai/v1"
_LIMIT = {"limit": "100"}
# Assistants are in the classic API alone: the v1 description has no such path.
_CLASSIC = {"api-version": "2025-04-01-preview", "limit": "100"}
_DEPLOY = "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-deploy"
_FINE_TUNING = "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning"
_REFERENCE = "https://learn.microsoft.com/azure/ai-foundry/openai/latest"
_AT_REST = "https://learn.microsoft.com/azure/ai-foundry/openai/encrypt-data-at-rest"


def filename(wire: Mapping[str, Json]) -> str:
    """Give the name a file was uploaded under; its id when it has none."""
    return str(wire.get("filename") or wire.get("id") or "")


def name_or_id(wire: Mapping[str, Json]) -> str:
    """Give the name, the id where somebody gave none."""
    return str(wire.get("name") or wire.get("id") or "")


def _id(wire: Mapping[str, Json]) -> str:
    return str(wire.get("id") or "")


def _readable(wire: Mapping[str, Json]) -> bool:
    """Azure answers "Not allowed to download files of purpose: assistants"."""
    return wire.get("purpose") != "assistants" and wire.get("status") not in {
        "error",
        "deleting",
        "deleted",
    }


def withheld(error: CloudError) -> bool:
    """Whether Azure says that files of this purpose are never given back: a rule, no failure.

    `_readable` knows the one purpose that is documented; an answer may name others.
    """
    return error.status in {400, 403} and "not allowed to download" in error.what.lower()


_FILE_AGAIN = Comeback(
    Recovery.RECREATED,
    "Uploaded again from the vault, under a new id. Microsoft keeps training, validation and "
    "result files in the same region as the resource.",
    _AT_REST,
)
_FILE_LOST = Comeback(
    Recovery.LOST,
    "The service does not give the content of this file back (purpose assistants, or a failed "
    "upload): only its name and size are recorded. Keep the original.",
    _REFERENCE,
)


def file_recovery(resource: Resource) -> Comeback:
    """A file comes back when the vault has its bytes."""
    return _FILE_AGAIN if resource.payloads else _FILE_LOST


# A project's own files and stores have the same shapes: `project_data` uses these tables too.
FILE_CONTENT = Content(
    role="content",
    path=_V1 + "/files/{id}/content",
    size="bytes",
    when=_readable,
    withheld=withheld,
)
FILE_FIELDS = Fields(
    volatile=("created_at", "expires_at", "status", "status_details"), read_only=("bytes",)
)

FILE = Kind(
    name="file",
    title="files with content",
    parent="account",
    plane=Plane.OPENAI,
    endpoint=openai_endpoint,
    applies=serves_models,
    location=Location(path=f"{_V1}/files", params=_LIMIT, items="data", cursor=Cursor.OPENAI_AFTER),
    named=filename,
    random_id=True,
    content=FILE_CONTENT,
    fields=FILE_FIELDS,
    way=Way.UPLOAD,
    comeback=_FILE_AGAIN,
    recovery_of=file_recovery,
)


def _has_checkpoints(wire: Mapping[str, Json]) -> bool:
    return wire.get("status") in {"succeeded", "paused"}


FINE_TUNING_JOB = Kind(
    name="fine-tuning-job",
    title="fine-tuning jobs with checkpoints",
    parent="account",
    plane=Plane.OPENAI,
    endpoint=openai_endpoint,
    needs=("file",),
    applies=serves_models,
    location=Location(
        path=f"{_V1}/fine_tuning/jobs", params=_LIMIT, items="data", cursor=Cursor.OPENAI_AFTER
    ),
    named=_id,
    folds=(
        Fold(
            into="checkpoints",
            location=Location(
                path=_V1 + "/fine_tuning/jobs/{id}/checkpoints",
                params=_LIMIT,
                items="data",
                cursor=Cursor.OPENAI_AFTER,
            ),
            when=_has_checkpoints,
        ),
    ),
    fields=Fields(
        volatile=(
            "estimated_finish",
            "organization_id",
            "checkpoints[].object",
            "checkpoints[].fine_tuning_job_id",
        ),
        items=(Items("checkpoints", ("step_number", "id")), Items("result_files")),
        defaults=(
            Default("metadata", {}),
            Default("integrations", []),
            Default("result_files", []),
        ),
    ),
    references=(
        Reference("training_file", "file", By.ID, Flow.IN),
        Reference("validation_file", "file", By.ID, Flow.IN),
        Reference("model", "fine-tuned-model", By.ID, Flow.IN),
        Reference("result_files[]", "file", By.ID, Flow.OUT),
        Reference("fine_tuned_model", "fine-tuned-model", By.ID, Flow.OUT),
        Reference("checkpoints[].fine_tuned_model_checkpoint", "fine-tuned-model", By.ID, Flow.OUT),
    ),
    way=Way.NEVER,
    comeback=Comeback(
        Recovery.RECORDED,
        "A job is history: it is recorded with its files, hyperparameters and seed, so that its "
        "model can be trained again.",
        _FINE_TUNING,
    ),
)


def is_fine_tuned(model: str) -> bool:
    """Whether a model's id is of a fine-tuned model or checkpoint, not of Microsoft's catalogue."""
    return ".ft-" in model or model.startswith(("ft:", "ftchkpt-", "ftckpt_"))


FINE_TUNED_MODEL = Kind(
    name="fine-tuned-model",
    title="fine-tuned models",
    parent="account",
    plane=Plane.OPENAI,
    endpoint=openai_endpoint,
    needs=("fine-tuning-job",),
    applies=serves_models,
    location=Location(path=f"{_V1}/models", items="data", cursor=Cursor.NONE),
    named=_id,
    keeps=lambda _parent, wire: is_fine_tuned(_id(wire)),
    fields=Fields(
        volatile=(
            "created",
            "created_at",
            "updated_at",
            "status",
            "capabilities",
            "lifecycle_status",
            "deprecation",
        )
    ),
    references=(Reference("fine_tune", "fine-tuning-job", By.ID, Flow.IN),),
    way=Way.NEVER,
    comeback=Comeback(
        Recovery.COPIED,
        'Deployed elsewhere with the source account named ("new region must also support '
        'fine-tuning") or its checkpoint copied, while the source is there; else trained again '
        "from the vault's files: hours, and not the same bits.",
        _DEPLOY,
    ),
)


def _has_files(wire: Mapping[str, Json]) -> bool:
    counts = wire.get("file_counts")
    return not isinstance(counts, dict) or counts.get("total") != 0


STORE_FIELDS = Fields(
    volatile=(
        "created_at",
        "usage_bytes",
        "file_counts",
        "status",
        "expires_at",
        "last_active_at",
        "files[].object",
        "files[].created_at",
        "files[].usage_bytes",
        "files[].vector_store_id",
        "files[].status",
        "files[].last_error",
    ),
    items=(Items("files", ("id",)),),
    defaults=(
        Default("metadata", {}),
        Default("files", []),
        Default("files[].attributes", {}),
    ),
)


def store_files(cursor: Cursor) -> tuple[Fold, ...]:
    """The files of a store are listed by a call of their own."""
    return (
        Fold(
            into="files",
            location=Location(
                path=_V1 + "/vector_stores/{id}/files",
                params=_LIMIT,
                items="data",
                cursor=cursor,
            ),
            when=_has_files,
        ),
    )


VECTOR_STORE = Kind(
    name="vector-store",
    title="vector stores with files",
    parent="account",
    plane=Plane.OPENAI,
    endpoint=openai_endpoint,
    needs=("file",),
    applies=serves_models,
    location=Location(
        path=f"{_V1}/vector_stores", params=_LIMIT, items="data", cursor=Cursor.OPENAI_AFTER
    ),
    named=name_or_id,
    random_id=True,
    folds=store_files(Cursor.OPENAI_AFTER),
    fields=STORE_FIELDS,
    references=(Reference("files[].id", "file", By.ID, Flow.IN),),
    way=Way.POST,
    comeback=Comeback(
        Recovery.RECREATED,
        "Made again under a new id and filled from files that are in the vault; chunks and "
        "embeddings are computed anew.",
        _REFERENCE,
    ),
)

ASSISTANT = Kind(
    name="assistant",
    title="assistants",
    parent="account",
    plane=Plane.OPENAI,
    endpoint=openai_endpoint,
    needs=("deployment", "file", "vector-store"),
    applies=serves_models,
    location=Location(
        path="/openai/assistants", params=_CLASSIC, items="data", cursor=Cursor.OPENAI_AFTER
    ),
    named=name_or_id,
    random_id=True,
    fields=Fields(
        volatile=("created_at",),
        items=(
            Items("tool_resources.file_search.vector_store_ids"),
            Items("tool_resources.code_interpreter.file_ids"),
        ),
        defaults=(
            Default("metadata", {}),
            Default("tools", []),
            Default("tool_resources", {}),
            Default("tool_resources.file_search.vector_store_ids", []),
            Default("tool_resources.code_interpreter.file_ids", []),
        ),
        verbatim=("tools[].function.parameters", "response_format.json_schema"),
    ),
    references=(
        Reference("model", "deployment", By.NAME, Flow.IN),
        Reference("tool_resources.file_search.vector_store_ids[]", "vector-store", By.ID, Flow.IN),
        Reference("tool_resources.code_interpreter.file_ids[]", "file", By.ID, Flow.IN),
    ),
    way=Way.POST,
    comeback=Comeback(
        Recovery.RECREATED,
        "Made again from its definition, under a new id; its threads stay behind.",
        "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/assistant",
    ),
)
