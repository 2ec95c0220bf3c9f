"""The OpenAI-compatible data plane of a Foundry project: its files and its vector stores.

What is known of Azure, and from where (2026-11):

- `{project endpoint}/openai/v1/` is where azure-ai-projects' `get_openai_client()` goes, with a
  token for https://ai.azure.com: read from the client's source.
- Agents search in files and vector stores "in your Foundry project", and "one project can't use
  the data of another project": learn.microsoft.com/azure/foundry/agents/how-to/tools/file-search
  and …/agent-service-disaster-recovery.
- Reading a project's vector stores asks for the data action AIServices/assets/read: answers of
  Azure in public issues (microsoft/microsoft-foundry-for-vscode 247, 447). That files ask for the
  same, and writes for assets/write and assets/delete, is inferred.
- The shapes are those of the account's v1 plane, as both speak OpenAI's API: inferred from the
  client, which is the same. So is the rule that content of purpose assistants is not given back.
- Whether an account's `/openai/v1/files` also lists what its projects hold is not documented. What
  both list, under one id, is kept as the account's (`same_as`), so it is right either way.
"""

from __future__ import annotations

from snapshots.cloud.place import Cursor, Plane
from snapshots.kinds.base import By, Comeback, Flow, Kind, Location, Reference, Way
from snapshots.kinds.openai import (
    FILE_CONTENT,
    FILE_FIELDS,
    STORE_FIELDS,
    filename,
    name_or_id,
    store_files,
)
from snapshots.kinds.projects import project_endpoint
from snapshots.model import Recovery, Resource

_V1 = "/openai/v1"
_LIMIT = {"limit": "100"}
_AGENT_DR = "https://learn.microsoft.com/azure/ai-foundry/how-to/agent-service-disaster-recovery"
# With a standard setup both lie in the storage and the search service that these name.
_SETUP = ("project-connection", "project-capability-host")

_FILE_AGAIN = Comeback(
    Recovery.RECREATED,
    "Uploaded again from the vault, under a new id: \"One project can't use the data of another "
    'project."',
    _AGENT_DR,
)
_FILE_LOST = Comeback(
    Recovery.LOST,
    "The service does not give the content of this file back (purpose assistants, or a failed "
    "upload): only its name and size are recorded, and a project that is deleted takes its files "
    "along. Keep the original.",
    _AGENT_DR,
)


def _recovery(resource: Resource) -> Comeback:
    return _FILE_AGAIN if resource.payloads else _FILE_LOST


PROJECT_FILE = Kind(
    name="project-file",
    title="files of projects",
    parent="project",
    plane=Plane.FOUNDRY,
    endpoint=project_endpoint,
    needs=_SETUP,
    location=Location(
        path=f"{_V1}/files", params=_LIMIT, items="data", cursor=Cursor.FOUNDRY_AFTER
    ),
    named=filename,
    random_id=True,
    same_as="file",
    content=FILE_CONTENT,
    fields=FILE_FIELDS,
    way=Way.UPLOAD,
    comeback=_FILE_AGAIN,
    recovery_of=_recovery,
)

PROJECT_VECTOR_STORE = Kind(
    name="project-vector-store",
    title="vector stores of projects",
    parent="project",
    plane=Plane.FOUNDRY,
    endpoint=project_endpoint,
    needs=("project-file", "file", *_SETUP),
    location=Location(
        path=f"{_V1}/vector_stores", params=_LIMIT, items="data", cursor=Cursor.FOUNDRY_AFTER
    ),
    named=name_or_id,
    random_id=True,
    same_as="vector-store",
    folds=store_files(Cursor.FOUNDRY_AFTER),
    fields=STORE_FIELDS,
    references=(Reference("files[].id", "project-file", By.ID, Flow.IN, or_kinds=("file",)),),
    way=Way.POST,
    comeback=Comeback(
        Recovery.RECREATED,
        "Made again under a new id and filled from files that are in the vault; chunks and "
        "embeddings are computed anew. \"Don't fail over a project's agents if required knowledge "
        "stores and tools don't also fail over.\"",
        _AGENT_DR,
    ),
)
