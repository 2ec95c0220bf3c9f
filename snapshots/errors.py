"""Every error that reaches a user, in one tree.

MusterError                 exit 1: what happened, where, what to do next
├── SettingsError           muster.toml, the environment or an option is wrong
├── InputError              a script, rule pack, key or other input is wrong
├── NotFoundError           a snapshot, key or finding that was named does not exist
├── CloudError              Azure did not do what was asked
│   ├── DeniedError         401, 403: the principal lacks a permission
│   ├── MissingError        404, 410
│   ├── ConflictError       409, 412
│   ├── ThrottledError      429 after all patience
│   ├── UnreachableError    no answer: network, time-out, cut connection
│   ├── RegionDownError     the region is declared down; nothing was sent
│   └── DamagedAnswerError  an answer that is not what the protocol says
├── StoreError              ledger or vault
│   ├── LockedError         somebody else is writing
│   ├── DamagedStoreError   an object is missing or does not match its digest
│   └── ConcurrentError     compare-and-swap lost: somebody wrote first
└── RefusedError            muster will not do this, by its own rules
"""

from __future__ import annotations


class MusterError(Exception):
    """What happened, where, and what to do next. `str()` gives all three, a line each.

    No part may hold a secret: callers pass what was scrubbed already.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append(f"  next:  {self.remedy}")
        return "\n".join(lines)


class SettingsError(MusterError):
    """muster.toml, the environment or an option is wrong."""


class InputError(MusterError):
    """A script, rule pack, key or other input is wrong."""


class NotFoundError(MusterError):
    """A snapshot, key or finding that was named does not exist."""


class CloudError(MusterError):
    """Azure did not do what was asked.

    `status` is the HTTP status (None without an answer), `code` Azure's error code.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        remedy: str = "",
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.status = status
        self.code = code


class DeniedError(CloudError):
    """401 or 403: the principal lacks a permission."""


class MissingError(CloudError):
    """404 or 410: it is not there."""


class ConflictError(CloudError):
    """409 or 412: another operation runs, or the state is not what was expected."""


class ThrottledError(CloudError):
    """429 after all patience."""


class UnreachableError(CloudError):
    """No answer: network, time-out, cut connection."""


class RegionDownError(CloudError):
    """The region is declared down; nothing was sent."""


class DamagedAnswerError(CloudError):
    """An answer that is not what the protocol says."""


class StoreError(MusterError):
    """The ledger or the vault did not do what was asked."""


class LockedError(StoreError):
    """Somebody else is writing."""


class DamagedStoreError(StoreError):
    """An object is missing or does not match its digest."""


class ConcurrentError(StoreError):
    """Compare-and-swap lost: somebody wrote first."""


class RefusedError(MusterError):
    """muster will not do this, by its own rules."""
