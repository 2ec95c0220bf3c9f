"""The catalogue of models: versions, where and as what they are offered, and until when.

Dates are plausible for 2026 and 2027 (fine-tuned gpt-4o until 2027-10-01, the gpt-4.1 family until
2027-10-14, o4-mini until 2027-10-16, as the published retirement table of October 2026 says).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

US = ("eastus", "eastus2", "northcentralus", "southcentralus", "westus", "westus3")
EU = (
    "swedencentral",
    "westeurope",
    "francecentral",
    "germanywestcentral",
    "norwayeast",
    "switzerlandnorth",
    "polandcentral",
    "spaincentral",
)
REST = (
    "japaneast",
    "australiaeast",
    "southeastasia",
    "koreacentral",
    "southindia",
    "uksouth",
    "canadaeast",
    "brazilsouth",
    "southafricanorth",
    "uaenorth",
)
REGIONS = US + EU + REST
FINE_TUNE_REGIONS = ("eastus2", "northcentralus", "swedencentral")
_CORE = ("eastus", "eastus2", "northcentralus", "swedencentral", "westus3", "japaneast", "uksouth")
_WIDE = (*_CORE, "westus", "francecentral", "australiaeast", "canadaeast", "switzerlandnorth")

STANDARD = "Standard"
PROVISIONED = ("ProvisionedManaged", "GlobalProvisionedManaged", "DataZoneProvisionedManaged")
STANDARD_KINDS = (
    STANDARD,
    "GlobalStandard",
    "DataZoneStandard",
    "GlobalBatch",
    "DataZoneBatch",
    "DeveloperTier",
)
SKUS = (*STANDARD_KINDS, *PROVISIONED)
FINE_TUNED_SKUS = (
    STANDARD,
    "GlobalStandard",
    "DeveloperTier",
    "ProvisionedManaged",
    "GlobalProvisionedManaged",
)


def day(text: str) -> datetime:
    """A date of the table as a moment, UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a model.

    `deprecating`: from then on for existing customers only; `ends`: from then on it answers
    nothing; `default_from`: since when it is the version that is taken when none is named.
    """

    name: str
    version: str
    skus: tuple[str, ...]
    regions: tuple[str, ...]  # of the regional SKUs (Standard, ProvisionedManaged)
    generally: datetime
    deprecating: datetime
    ends: datetime
    default_from: datetime | None = None
    fine_tune_ends: datetime | None = None  # None: cannot be fine-tuned
    context: int = 128000
    output: int = 16384
    capabilities: tuple[str, ...] = ("chatCompletion",)
    replacement: tuple[str, str] | None = None
    format: str = "OpenAI"
    unit: int = 1000  # tokens per minute of one unit of capacity
    quota: int = 1000  # of a Standard kind, per subscription and region
    provisioned: tuple[int, int] = (15, 5)  # smallest, step

    def offered(self, sku: str, region: str) -> bool:
        """Whether a SKU of this version can be had in a region."""
        if sku not in self.skus or region not in REGIONS:
            return False
        if sku in (STANDARD, "ProvisionedManaged"):
            return region in self.regions
        if sku.startswith("DataZone"):
            return region in US or region in EU
        return True

    def tunable(self, sku: str, region: str) -> bool:
        """Whether a fine-tuned model of this version can be deployed as `sku` in a region."""
        if self.fine_tune_ends is None or sku not in FINE_TUNED_SKUS or region not in REGIONS:
            return False
        if sku == STANDARD:
            return region in FINE_TUNE_REGIONS
        if sku == "ProvisionedManaged":
            return region in ("northcentralus", "swedencentral")
        return True


_ALL = ("Standard", "GlobalStandard", "DataZoneStandard", "GlobalBatch", "DataZoneBatch")
_TEXT = (*_ALL, *PROVISIONED)
_GLOBAL = ("GlobalStandard", "DataZoneStandard", "GlobalBatch")
_CHAT = ("chatCompletion", "jsonObjectResponse", "responses", "agentsV2", "assistants")
_REASON = ("chatCompletion", "responses", "agentsV2")

MODELS: tuple[ModelVersion, ...] = (
    ModelVersion(
        "gpt-35-turbo", "0613", ("Standard",), _WIDE,
        day("2023-06-13"), day("2024-06-13"), day("2025-02-13"),
        context=4096, output=4096, capabilities=("completion", "chatCompletion"),
        replacement=("gpt-35-turbo", "0125"), quota=240,
    ),
    ModelVersion(
        "gpt-35-turbo", "0125", ("Standard", "ProvisionedManaged"), _WIDE,
        day("2024-02-01"), day("2026-01-01"), day("2026-09-30"), day("2024-06-01"),
        day("2025-12-31"),
        context=16385, output=4096, capabilities=("completion", "chatCompletion", "assistants"),
        replacement=("gpt-4.1-mini", "2025-04-14"), quota=240,
    ),
    ModelVersion(
        "gpt-4o", "2024-05-13", _TEXT, _WIDE,
        day("2024-05-13"), day("2025-09-30"), day("2026-10-01"),
        output=4096, capabilities=_CHAT, replacement=("gpt-4o", "2024-11-20"),
    ),
    ModelVersion(
        "gpt-4o", "2024-08-06", _TEXT, _WIDE,
        day("2024-08-06"), day("2026-10-01"), day("2027-04-01"), day("2024-11-01"),
        day("2027-04-01"),
        capabilities=_CHAT, replacement=("gpt-4o", "2024-11-20"),
    ),
    ModelVersion(
        "gpt-4o", "2024-11-20", _TEXT, _WIDE,
        day("2024-11-20"), day("2027-04-01"), day("2027-10-01"), day("2027-01-15"),
        capabilities=_CHAT, replacement=("gpt-4.1", "2025-04-14"),
    ),
    ModelVersion(
        "gpt-4o-mini", "2024-07-18", _TEXT, _WIDE,
        day("2024-07-18"), day("2027-04-01"), day("2027-10-01"), day("2024-07-18"),
        day("2027-04-01"),
        capabilities=_CHAT, replacement=("gpt-4.1-mini", "2025-04-14"), quota=2000,
    ),
    ModelVersion(
        "gpt-4.1", "2025-04-14", _TEXT, _CORE,
        day("2025-04-14"), day("2027-04-14"), day("2027-10-14"), day("2025-04-14"),
        day("2027-04-14"),
        context=1047576, output=32768, capabilities=_CHAT, replacement=("gpt-5.1", "2025-11-13"),
    ),
    ModelVersion(
        "gpt-4.1-mini", "2025-04-14", _TEXT, _CORE,
        day("2025-04-14"), day("2027-04-14"), day("2027-10-14"), day("2025-04-14"),
        day("2027-04-14"),
        context=1047576, output=32768, capabilities=_CHAT, quota=2000,
        replacement=("gpt-5-mini", "2025-08-07"),
    ),
    ModelVersion(
        "gpt-4.1-nano", "2025-04-14", _TEXT, _CORE,
        day("2025-04-14"), day("2027-04-14"), day("2027-10-14"), day("2025-04-14"),
        day("2027-04-14"),
        context=1047576, output=32768, capabilities=_CHAT, quota=2000,
    ),
    ModelVersion(
        "o3-mini", "2025-01-31", (*_GLOBAL, "Standard"), ("eastus2", "swedencentral"),
        day("2025-01-31"), day("2026-01-31"), day("2026-12-15"), day("2025-01-31"),
        context=200000, output=100000, capabilities=_REASON, replacement=("o4-mini", "2025-04-16"),
    ),
    ModelVersion(
        "o3", "2025-04-16", (*_GLOBAL, *PROVISIONED), ("eastus2", "swedencentral"),
        day("2025-04-16"), day("2026-12-01"), day("2027-04-16"), day("2025-04-16"),
        context=200000, output=100000, capabilities=_REASON,
    ),
    ModelVersion(
        "o4-mini", "2025-04-16", _TEXT, ("eastus2", "swedencentral", "northcentralus"),
        day("2025-04-16"), day("2027-04-16"), day("2027-10-16"), day("2025-04-16"),
        day("2027-04-16"),
        context=200000, output=100000, capabilities=_REASON,
    ),
    ModelVersion(
        "gpt-5", "2025-08-07", (*_GLOBAL, *PROVISIONED), ("eastus2", "swedencentral"),
        day("2025-08-07"), day("2027-08-07"), day("2028-02-07"), day("2025-08-07"),
        context=400000, output=128000, capabilities=_REASON,
    ),
    ModelVersion(
        "gpt-5-mini", "2025-08-07", (*_GLOBAL, *PROVISIONED), ("eastus2", "swedencentral"),
        day("2025-08-07"), day("2027-08-07"), day("2028-02-07"), day("2025-08-07"),
        context=400000, output=128000, capabilities=_REASON, quota=2000,
    ),
    ModelVersion(
        "gpt-5.1", "2025-11-13", (*_GLOBAL, *PROVISIONED), ("eastus2", "swedencentral"),
        day("2025-11-13"), day("2027-11-13"), day("2028-05-15"), day("2025-11-13"),
        context=400000, output=128000, capabilities=_REASON,
    ),
    ModelVersion(
        "text-embedding-ada-002", "2", ("Standard", "ProvisionedManaged"), _WIDE,
        day("2023-04-03"), day("2026-10-03"), day("2027-04-30"), day("2023-04-03"),
        context=8192, output=0, capabilities=("embeddings",), quota=350,
        replacement=("text-embedding-3-small", "1"),
    ),
    ModelVersion(
        "text-embedding-3-small", "1", ("Standard", "GlobalStandard", "DataZoneStandard"), _WIDE,
        day("2024-02-01"), day("2027-10-30"), day("2028-04-30"), day("2024-02-01"),
        context=8192, output=0, capabilities=("embeddings",), quota=350,
    ),
    ModelVersion(
        "text-embedding-3-large", "1", ("Standard", "GlobalStandard", "DataZoneStandard"), _WIDE,
        day("2024-02-01"), day("2027-10-30"), day("2028-04-30"), day("2024-02-01"),
        context=8192, output=0, capabilities=("embeddings",), quota=350,
    ),
    ModelVersion(
        "dall-e-3", "3.0", ("Standard",), ("eastus", "swedencentral", "australiaeast"),
        day("2024-02-01"), day("2025-09-01"), day("2026-03-04"), day("2024-02-01"),
        context=4000, output=0, capabilities=("imageGenerations",), unit=1, quota=2,
    ),
    ModelVersion(
        "gpt-image-1", "2025-04-15", ("GlobalStandard",), (),
        day("2025-06-01"), day("2027-06-01"), day("2027-12-01"), day("2025-06-01"),
        context=4000, output=0, capabilities=("imageGenerations",), unit=1, quota=9,
    ),
    ModelVersion(
        "whisper", "001", ("Standard",),
        ("eastus2", "northcentralus", "swedencentral", "southindia"),
        day("2023-09-15"), day("2027-03-15"), day("2027-09-15"), day("2023-09-15"),
        context=0, output=0, capabilities=("audioTranscriptions",), unit=1, quota=3,
    ),
    ModelVersion(
        "model-router", "2025-11-18", ("GlobalStandard", "DataZoneStandard"), (),
        day("2025-11-18"), day("2027-05-18"), day("2027-11-18"), day("2025-11-18"),
        capabilities=("chatCompletion", "responses"), quota=250,
    ),
    ModelVersion(
        "DeepSeek-R1", "1", ("GlobalStandard",), (),
        day("2025-02-01"), day("2026-12-31"), day("2027-06-30"), day("2025-02-01"),
        context=128000, output=4096, format="DeepSeek", quota=5000, unit=1000,
    ),
    ModelVersion(
        "Mistral-Large-2411", "2", ("GlobalStandard",), (),
        day("2024-11-18"), day("2026-11-01"), day("2027-03-01"), day("2024-11-18"),
        context=128000, output=4096, format="Mistral AI", quota=400,
    ),
    ModelVersion(
        "Phi-4", "7", ("GlobalStandard",), (),
        day("2025-01-10"), day("2027-01-10"), day("2027-07-10"), day("2025-01-10"),
        context=16384, output=16384, format="Microsoft", quota=1000,
    ),
)  # fmt: skip
