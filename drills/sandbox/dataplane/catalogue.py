"""The base models whose data planes are played: what they can do and how long they live."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from drills.sandbox.wire import Body


@dataclass(frozen=True, slots=True)
class BaseModel:
    """One version of a base model as the data plane knows it."""

    name: str
    version: str
    chat: bool = False
    completion: bool = False
    dimensions: int = 0  # > 0: an embedding model
    shrinks: bool = False  # whether embeddings may be asked for with fewer dimensions
    fine_tune: frozenset[str] = frozenset()  # regions where it can be fine-tuned
    born: str = "2024-07-18"
    inference_until: str = "2027-10-01"
    fine_tune_until: str = "2027-07-01"
    preview: bool = False

    @property
    def id(self) -> str:
        """The model's id in `GET /models`."""
        return f"{self.name}-{self.version}"

    def view(self) -> Body:
        """What `GET /models` shows of it."""
        ends: Body = {"inference": _seconds(self.inference_until)}
        if self.fine_tune:
            ends["fine_tune"] = _seconds(self.fine_tune_until)
        born = _seconds(self.born)
        return {
            "status": "succeeded",
            "capabilities": {
                "fine_tune": bool(self.fine_tune),
                "inference": True,
                "completion": self.completion,
                "chat_completion": self.chat,
                "embeddings": self.dimensions > 0,
            },
            "lifecycle_status": "preview" if self.preview else "generally-available",
            "deprecation": ends,
            "id": self.id,
            "created_at": born,
            "object": "model",
        }


def _seconds(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


# Regions with supervised fine-tuning (global training opens it in more; fine-tuning-deploy page).
_TUNING = frozenset(
    {
        "eastus2",
        "northcentralus",
        "swedencentral",
        "eastus",
        "westus3",
        "westeurope",
        "francecentral",
        "germanywestcentral",
        "uksouth",
        "switzerlandnorth",
        "japaneast",
        "australiaeast",
    }
)
_STANDARD_TUNING = frozenset({"eastus2", "northcentralus", "swedencentral"})

BASE_MODELS: tuple[BaseModel, ...] = (
    BaseModel("gpt-4o", "2024-05-13", chat=True, born="2024-05-13"),
    BaseModel("gpt-4o", "2024-08-06", chat=True, fine_tune=_TUNING, born="2024-08-06"),
    BaseModel("gpt-4o", "2024-11-20", chat=True, born="2024-11-20"),
    BaseModel("gpt-4o-mini", "2024-07-18", chat=True, fine_tune=_TUNING, born="2024-07-18"),
    BaseModel("gpt-4.1", "2025-04-14", chat=True, fine_tune=_TUNING, born="2025-04-14"),
    BaseModel("gpt-4.1-mini", "2025-04-14", chat=True, fine_tune=_TUNING, born="2025-04-14"),
    BaseModel("gpt-4.1-nano", "2025-04-14", chat=True, fine_tune=_TUNING, born="2025-04-14"),
    BaseModel("o4-mini", "2025-04-16", chat=True, fine_tune=_STANDARD_TUNING, born="2025-04-16"),
    BaseModel("gpt-5", "2025-08-07", chat=True, born="2025-08-07", inference_until="2028-02-01"),
    BaseModel(
        "gpt-5-mini", "2025-08-07", chat=True, born="2025-08-07", inference_until="2028-02-01"
    ),
    BaseModel(
        "gpt-35-turbo",
        "0125",
        chat=True,
        completion=True,
        fine_tune=_STANDARD_TUNING,
        born="2024-01-25",
        inference_until="2027-03-31",
        fine_tune_until="2026-12-31",
    ),
    BaseModel("text-embedding-3-small", "1", dimensions=1536, shrinks=True, born="2024-01-25"),
    BaseModel("text-embedding-3-large", "1", dimensions=3072, shrinks=True, born="2024-01-25"),
    BaseModel("text-embedding-ada-002", "2", dimensions=1536, born="2023-02-02"),
)


def base_model(name: str, version: str = "") -> BaseModel | None:
    """A base model by name and version, or by id (`gpt-4o-mini-2024-07-18`); else None.

    Without a version the newest of the name is meant.
    """
    found = None
    for model in BASE_MODELS:
        if (model.name == name and version in ("", model.version)) or model.id == name:
            found = model
    return found
