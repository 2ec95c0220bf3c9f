"""Settings into Cloud, Ledger, Vault, Clock and Fingerprints: the only place that constructs them.

Heavy things are imported when they are asked for: `muster log` needs no Azure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from muster import __version__
from muster.settings import (
    CredentialKind,
    Environment,
    PairSettings,
    Settings,
    read_account_key,
    read_answer,
    read_fingerprint_key,
    read_secret,
)
from snapshots.clock import Clock, SystemClock
from snapshots.errors import NotFoundError

if TYPE_CHECKING:
    from snapshots.busy import Busy
    from snapshots.cloud import Cloud
    from snapshots.cloud.place import Credential
    from snapshots.ledger import Ledger, Retention
    from snapshots.records import Records
    from snapshots.restore import Tools
    from snapshots.secrets import Fingerprints
    from snapshots.steps import Mapping as Places
    from snapshots.take import Progress, Scope, TakeOptions
    from snapshots.vault import Vault


class Wiring:
    """Everything one configuration names, each opened once, on demand; closed together."""

    def __init__(
        self,
        settings: Settings,
        environment: Environment,
        *,
        clock: Clock | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.settings = settings
        self.environment = environment
        self.clock: Clock = clock or SystemClock()
        self._tell = tell  # of what was done unasked: a lost ledger that was made again
        self._open = ExitStack()
        self._cloud: Cloud | None = None
        self._clouds: dict[str, Cloud] = {}  # of other tenants
        self._down: dict[str, str] = {}  # regions declared down, and why
        self._ledger: Ledger | None = None
        self._vault: Vault | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened, last first."""
        self._open.close()
        self._cloud = self._ledger = self._vault = None
        self._clouds.clear()

    def cloud(self) -> Cloud:
        """The one way out to Azure, real or sandbox."""
        if self._cloud is None:
            self._cloud = self._opened(self._credential()[0])
        return self._cloud

    def cloud_of(self, tenant: str) -> Cloud:
        """The way out to another tenant, signed in there as the same principal; "" is our own."""
        if not tenant or tenant.lower() == self._credential()[0].lower():
            return self.cloud()
        if tenant not in self._clouds:
            self._clouds[tenant] = self._opened(tenant)
        return self._clouds[tenant]

    def declare_down(self, region: str, why: str) -> None:
        """Have nothing sent to a region, in whichever tenant."""
        self._down[region] = why
        for cloud in (self.cloud(), *self._clouds.values()):
            cloud.regions.declare_down(region, why)

    def _opened(self, tenant: str) -> Cloud:
        from snapshots.cloud import Limits, open_cloud

        estate = self.settings.estate
        timeout = self.settings.snapshot.timeout.total_seconds()
        made = open_cloud(
            environment=estate.cloud,
            tenant=tenant,
            credential=self._credential()[1],
            ca_file=str(estate.ca_file) if estate.ca_file else None,
            clock=self.clock,
            version=__version__,
            limits=Limits(
                connect=min(timeout, Limits().connect),
                read=timeout,
                patience=self.settings.snapshot.patience.total_seconds(),
            ),
        )
        self._open.callback(made.close)
        for region, why in self._down.items():
            made.regions.declare_down(region, why)
        return made

    def bearer(self) -> str:
        """A token of Resource Manager of our own tenant, for a request to another one."""
        from snapshots.cloud.place import Plane
        from snapshots.cloud.wire import sign_in

        where, estate = self.cloud().environment, self.settings.estate
        tenant, credential = self._credential()
        ca_file = str(estate.ca_file) if estate.ca_file else None
        signed_in = sign_in(credential, where, tenant=tenant, ca_file=ca_file)
        return signed_in.get_token(where.scope(Plane.ARM), tenant_id=tenant or None).token

    def _credential(self) -> tuple[str, Credential]:
        from snapshots.cloud.place import Credential, Identity

        chosen, tenant = self.settings.credential, self.settings.estate.tenant
        if chosen.secret_file is not None:
            secret = read_secret(chosen.secret_file)
            return secret.tenant or tenant, Credential(
                Identity.ENVIRONMENT, secret.client_id, secret.client_secret
            )
        identity = {
            CredentialKind.DEFAULT: Identity.DEFAULT,
            CredentialKind.ENVIRONMENT: Identity.ENVIRONMENT,
            CredentialKind.MANAGED_IDENTITY: Identity.MANAGED,
            CredentialKind.CLI: Identity.CLI,
        }[chosen.kind]
        return tenant, Credential(identity, chosen.client_id)

    def ledger(self, *, create: bool = False) -> Ledger:
        """The Git repository; one that is lost is made again from the vault.

        With `create`, an empty one is made when the vault has none either.
        """
        if self._ledger is None:
            from snapshots.ledger import Ledger

            chosen = self.settings.ledger
            if chosen.path.is_symlink() and not chosen.path.exists():
                raise NotFoundError(
                    "the ledger is a link that leads nowhere",
                    where=str(chosen.path),
                    remedy="mend or remove the link, or correct [ledger] path",
                )
            made = None if chosen.path.exists() else self._ledger_again(create=create)
            if made is None:
                self._ledger = Ledger.open(
                    chosen.path,
                    remote=chosen.remote,
                    clock=self.clock,
                    version=__version__,
                    create=create,
                )
            else:
                self._ledger = made
            self._open.callback(self._ledger.close)
        return self._ledger

    def _ledger_again(self, *, create: bool) -> Ledger | None:
        """Make a lost ledger again from the vault's bundles: in a disaster it is the first to go.

        Nothing is made, None given, where the vault has none of this estate and `create` is said.
        """
        from snapshots.bundles import ledger_from
        from snapshots.errors import MissingError, MusterError
        from snapshots.ledger import Ledger

        chosen, estate = self.settings.ledger, self.settings.estate.name
        why = f"the vault {self.settings.vault.url} has no bundle of it either"
        try:
            name = ledger_from(
                self.vault(),
                chosen.path,
                estate=estate,
                remote=chosen.remote,
                clock=self.clock,
                version=__version__,
            )
        except MissingError:  # no container yet: nothing was kept
            name = ""
        except MusterError as error:
            if create:
                raise
            name, why = "", f"the vault could not be asked for it: {error.what} ({error.where})"
        if name:
            if self._tell is not None:
                self._tell(f"there is no ledger here: it was made again from {name} of the vault")
            return Ledger.open(
                chosen.path, remote=chosen.remote, clock=self.clock, version=__version__
            )
        if create:
            return None
        raise NotFoundError(
            f"there is no ledger yet, and {why}",
            where=str(chosen.path),
            remedy="take a snapshot first: `muster snapshot`; or correct [ledger] path, "
            f"[vault] url or the name of the estate, which is {estate!r}",
        )

    def vault(self) -> Vault:
        """The Blob container or folder."""
        if self._vault is None:
            from snapshots.vault import open_vault

            chosen, key_file = self.settings.vault, self.settings.secrets.fingerprint_key_file
            if key_file is not None:
                read_fingerprint_key(key_file)  # guards its permissions before anybody reads it
            if not chosen.url.startswith("azblob:"):
                self._vault = open_vault(chosen.url, clock=self.clock, fingerprint_file=key_file)
            else:
                self._vault = self._blob_vault(key_file)
            self._open.callback(self._vault.close)
        return self._vault

    def _blob_vault(self, key_file: Path | None) -> Vault:
        from snapshots.vault import Access, open_vault

        chosen, environment = self.settings.vault, self.environment
        suffix, ca_file = "core.windows.net", self.settings.estate.ca_file
        if chosen.secret_file is not None:
            access = Access(account_key=read_account_key(chosen.secret_file))
        elif environment.storage_connection_string:
            access = Access(connection_string=environment.storage_connection_string)
        elif environment.storage_key:
            access = Access(account_key=environment.storage_key)
        elif environment.storage_sas:
            access = Access(sas=environment.storage_sas)
        else:
            from snapshots.cloud.wire import sign_in

            where = self.cloud().environment
            tenant, credential = self._credential()
            suffix = where.storage_suffix
            access = Access(
                credential=sign_in(
                    credential, where, tenant=tenant, ca_file=str(ca_file) if ca_file else None
                )
            )
        return open_vault(
            chosen.url,
            access=access,
            clock=self.clock,
            suffix=suffix,
            ca=ca_file,
            fingerprint_file=key_file,
        )

    def fingerprints(self) -> Fingerprints:
        """What stands for secrets in the ledger; its key lies in the vault or in a file."""
        from snapshots.secrets import Fingerprints

        return Fingerprints(self.vault().fingerprint_key())

    def scopes(self) -> tuple[Scope, ...]:
        """What is looked at."""
        from snapshots.take import Scope

        return tuple(
            Scope(scope.subscription, scope.resource_groups, scope.accounts)
            for scope in self.settings.estate.scopes
        )

    def take_options(self) -> TakeOptions:
        """How a snapshot is taken."""
        from snapshots.take import TakeOptions

        chosen = self.settings.snapshot
        return TakeOptions(
            threads=chosen.concurrency,
            conversations=chosen.threads_data,
            reference=chosen.reference,
            payloads=chosen.content,
            reference_regions=tuple(sorted({pair.standby for pair in self.settings.estate.pairs})),
        )

    def records(self) -> Records:
        """What was applied: beside the ledger, with copies in the vault."""
        from snapshots.records import Records

        ledger = self.settings.ledger.path
        folder = ledger.with_name(f"{ledger.name}-records")
        return Records(folder, clock=self.clock, vault=self.vault())

    def busy(self) -> Busy:
        """Markers of drills and failovers that run: beside the ledger, with a copy in the vault."""
        from snapshots.busy import Busy

        ledger = self.settings.ledger.path
        folder = ledger.with_name(f"{ledger.name}-busy")
        return Busy(folder, clock=self.clock, vault=self.vault())

    def secret(self, reference: str) -> str:
        """Give the secret that a reference of [restore.secrets] points to. Raises MusterError."""
        if not reference.startswith("keyvault:"):
            return read_answer(reference, self.settings)
        from snapshots.cloud.place import Place, Plane

        base, _, path = reference.removeprefix("keyvault:").partition("/secrets/")
        answer = self.cloud().get(
            Place(Plane.KEY_VAULT, base),
            f"/secrets/{path}",
            params={"api-version": "7.4"},
            kind="key-vault-secret",
        )
        value = answer.body.get("value") if isinstance(answer.body, dict) else None
        if not isinstance(value, str) or not value:
            raise NotFoundError("the secret has no value", where=reference, remedy="set it")
        return value

    def restore_tools(self, progress: Callable[[Progress], None] | None = None) -> Tools:
        """What a restore, revert or replication works with."""
        from snapshots.restore import Tools

        return Tools(
            self.cloud(),
            self.vault(),
            self.fingerprints(),
            self.clock,
            __version__,
            self.secret,
            progress,
            vouched=self.settings.restore.vouched_vaults,
        )

    def retention(self) -> Retention:
        """How many snapshots are kept."""
        from snapshots.ledger import Retention

        kept = self.settings.retention
        return Retention(kept.hourly, kept.daily, kept.weekly, kept.monthly)


def mapping_of(pair: PairSettings) -> Places:
    """Say how the primary of a pair becomes its standby."""
    from snapshots.steps import AccountPlace, SkuRule
    from snapshots.steps import Mapping as Places

    return Places(
        regions={pair.primary: pair.standby},
        resource_groups=dict(pair.resource_groups),
        accounts={
            name: AccountPlace(to.name, to.resource_group, to.subscription, to.subdomain)
            for name, to in pair.accounts.items()
        },
        skus=tuple(SkuRule(of, to.name, to.capacity) for of, to in pair.sku.items()),
        versions=dict(pair.versions),
        hosts=dict(pair.hosts),
        keys=dict(pair.keys),
        resources=dict(pair.resources),
    )


def list_identity(kind: str) -> Mapping[str, tuple[str, ...]]:
    """Give the lists of a kind whose order means nothing, and what tells their items apart."""
    from snapshots.kinds import BY_NAME

    found = BY_NAME.get(kind)
    if found is None:
        return {}
    return {f"{items.path}[]": items.by for items in found.fields.items}
