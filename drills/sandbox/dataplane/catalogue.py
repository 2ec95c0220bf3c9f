"""The base models as the data plane shows them, from the sandbox's one catalogue of models."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from drills.sandbox.providers.cognitive_models import FINE_TUNE_REGIONS, MODELS, ModelVersion
from drills.sandbox.wire import Body

_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
_SHRINKING = ("text-embedding-3-small", "text-embedding-3-large")
_EVERYWHERE = ("globalstandard", "developertier")  # kinds of training that any region offers


@dataclass(frozen=True, slots=True)
class BaseModel:
    """One version of a base model."""

    of: ModelVersion

    @property
    def name(self) -> str:
        """The model's name ("gpt-4o-mini")."""
        return self.of.name

    @property
    def version(self) -> str:
        """The model's version ("2024-07-18")."""
        return self.of.version

    @property
    def id(self) -> str:
        """The model's id in `GET /models`."""
        return f"{self.name}-{self.version}"

    @property
    def dimensions(self) -> int:
        """The length of its embeddings; 0 when it makes none."""
        return _DIMENSIONS.get(self.name, 0)

    @property
    def shrinks(self) -> bool:
        """Whether embeddings may be asked for with fewer dimensions."""
        return self.name in _SHRINKING

    @property
    def chat(self) -> bool:
        """Whether it chats."""
        return "chatCompletion" in self.of.capabilities

    @property
    def completion(self) -> bool:
        """Whether it completes plain text."""
        return "completion" in self.of.capabilities

    def retired(self, now: datetime) -> bool:
        """Whether it answers nothing any more."""
        return now >= self.of.ends

    def tunable(self, region: str, training: str, now: datetime) -> bool:
        """Whether a job may start in a region (`training`: "" or "standard": regional)."""
        if self.of.fine_tune_ends is None or now >= self.of.fine_tune_ends:
            return False
        return training.lower() in _EVERYWHERE or region in FINE_TUNE_REGIONS

    def view(self) -> Body:
        """What `GET /models` shows of it."""
        ends: Body = {"inference": int(self.of.ends.timestamp())}
        if self.of.fine_tune_ends is not None:
            ends["fine_tune"] = int(self.of.fine_tune_ends.timestamp())
        return {
            "status": "succeeded",
            "capabilities": {
                "fine_tune": self.of.fine_tune_ends is not None,
                "inference": True,
                "completion": self.completion,
                "chat_completion": self.chat,
                "embeddings": self.dimensions > 0,
            },
            "lifecycle_status": "generally-available",
            "deprecation": ends,
            "id": self.id,
            "created_at": int(self.of.generally.timestamp()),
            "object": "model",
        }


BASE_MODELS: tuple[BaseModel, ...] = tuple(BaseModel(m) for m in MODELS if m.format == "OpenAI")
_ALL = (*BASE_MODELS, *(BaseModel(m) for m in MODELS if m.format != "OpenAI"))


def base_model(name: str, version: str = "") -> BaseModel | None:
    """A base model by name and version, or by id (`gpt-4o-mini-2024-07-18`); else None.

    Without a version the newest of the name is meant.
    """
    found = None
    for model in _ALL:
        if (model.name == name and version in ("", model.version)) or model.id == name:
            found = model
    return found
