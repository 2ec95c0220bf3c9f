"""The one way out to Azure, real or sandbox: identity, paging, retry, budget, long operations.

Importing this costs nothing of the SDK; `open_cloud` brings it in.
"""

from snapshots.cloud.budget import BucketView, Budget, Operation
from snapshots.cloud.calls import CallCounter
from snapshots.cloud.client import Cloud
from snapshots.cloud.environment import ENVIRONMENTS, Environment
from snapshots.cloud.opening import open_cloud
from snapshots.cloud.place import (
    Answer,
    Credential,
    Cursor,
    Identity,
    Limits,
    OperationProgress,
    Permission,
    Place,
    Plane,
)
from snapshots.cloud.regions import RegionGuard, region_name
from snapshots.cloud.scrub import scrub

__all__ = [
    "ENVIRONMENTS",
    "Answer",
    "BucketView",
    "Budget",
    "CallCounter",
    "Cloud",
    "Credential",
    "Cursor",
    "Environment",
    "Identity",
    "Limits",
    "Operation",
    "OperationProgress",
    "Permission",
    "Place",
    "Plane",
    "RegionGuard",
    "open_cloud",
    "region_name",
    "scrub",
]
