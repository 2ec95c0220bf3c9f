"""The world the sandbox plays: its memory, its clock, its chance, and what happens by itself."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drills.sandbox.clock import SandboxClock
from drills.sandbox.store import Store
from drills.sandbox.wire import Body

if TYPE_CHECKING:
    from drills.sandbox.access import Access
    from drills.sandbox.activity import Activity
    from drills.sandbox.arm import Arm
    from drills.sandbox.faults import Faults
    from drills.sandbox.identity import Identity
    from drills.sandbox.throttle import Throttle

Happening = Callable[["World", Body], None]

DEFAULTS: Body = {
    # seconds by the sandbox's clock, unless said otherwise
    "seconds": {
        "account-create": 4.0,
        "account-update": 2.0,
        "deployment-standard": 0.0,
        "deployment-provisioned": 30.0,
        "deployment-finetuned": 60.0,
        "capability-host": 20.0,
        "fine-tune": 600.0,
        "checkpoint-copy": 120.0,
        "purge": 5.0,
        "topic-training": 300.0,
        "vector-file": 1.0,
        "default": 2.0,
    },
    "activity_delay": [180.0, 1200.0],  # an event can be seen after 3 to 20 minutes
    "graph_delay": [5.0, 240.0],  # a resource change within 5 minutes
    "retry_after": 1,  # Retry-After of running operations
    "write_seconds": 0.05,  # real ones that a deployment's write holds its account
    "page_size": 0,  # 0: as the real service (all in one page, mostly)
    "empty_pages": False,  # put an empty page with a nextLink first
    "relative_next": False,  # relative nextLinks
    "shuffle": False,  # answer lists in another order, ids in another case, defaults left out
    "throttle": True,
    "inside_network": False,  # callers of closed accounts sit behind their private endpoints
    "data_bucket": [30, 30.0],  # requests an account's endpoint takes, and a second
    "buckets": {"reads": [250, 25.0], "writes": [200, 10.0], "deletes": [200, 10.0]},
}


class World:
    """Everything the parts of the sandbox share.

    The parts are attributes: `access` (who may), `identity` (who is), `throttle`, `activity`
    (the logs), `faults` (what is broken on purpose), `arm` (the resource engine).
    """

    access: Access
    activity: Activity
    arm: Arm
    faults: Faults
    identity: Identity
    throttle: Throttle

    def __init__(self, store: Store, clock: SandboxClock, *, seed: int, base: str) -> None:
        self.store = store
        self.clock = clock
        self.seed = seed
        self.base = base  # https://localhost:port
        self.blob = ""  # http://127.0.0.1:port of Azurite, once it runs
        self.instant = False  # while an estate is loaded: nothing takes time
        self.held: set[str] = set()  # accounts (ids in lower case) that a write holds just now
        self._happenings: dict[str, Happening] = {}

    # -- settings ---------------------------------------------------------------------------

    def setting(self, name: str) -> Any:
        """A setting: what the control API set, else the default."""
        value = self.store.meta(f"setting-{name}")
        return DEFAULTS.get(name) if value is None else value

    def seconds(self, what: str) -> float:
        """How long `what` takes, by the sandbox's clock."""
        if self.instant:
            return 0.0
        table = {**DEFAULTS["seconds"], **(self.store.meta("setting-seconds") or {})}
        return float(table.get(what, table["default"]))

    # -- chance: repeatable from the seed, and through a restart ------------------------------

    def chance_bytes(self, size: int = 16) -> bytes:
        """The next bytes of the seeded stream."""
        counter = int(self.store.meta("chance") or 0) + 1
        self.store.set_meta("chance", counter)
        out, block = b"", 0
        while len(out) < size:
            out += hashlib.sha256(f"{self.seed}:{counter}:{block}".encode()).digest()
            block += 1
        return out[:size]

    def guid(self) -> str:
        """A new GUID."""
        return str(uuid.UUID(bytes=self.chance_bytes(16), version=4))

    def hex(self, digits: int = 32) -> str:
        """New hex digits."""
        return self.chance_bytes((digits + 1) // 2).hex()[:digits]

    def secret(self, size: int = 32) -> str:
        """A new key as Azure spells them (base64)."""
        return base64.b64encode(self.chance_bytes(size)).decode()

    def between(self, low: float, high: float) -> float:
        """A number in [low, high]."""
        return low + (high - low) * int.from_bytes(self.chance_bytes(8), "big") / 2**64

    def request_id(self) -> str:
        """A new request id; these are not part of the repeatable stream."""
        return str(uuid.uuid4())

    # -- what happens by itself ---------------------------------------------------------------

    def on(self, kind: str, happening: Happening) -> None:
        """Name what a timer of `kind` does."""
        if kind in self._happenings:
            message = f"two happenings are called {kind}"
            raise ValueError(message)
        self._happenings[kind] = happening

    def after(self, seconds: float, kind: str, body: Body) -> int:
        """Have `kind` happen `seconds` from now; returns the timer's id."""
        return self.store.add_timer(self.clock.timestamp() + seconds, kind, body)

    def run_due(self) -> int:
        """Let everything happen whose time has come, in order; returns how many things did."""
        count = 0
        while True:
            now = self.clock.timestamp()
            if self.store.next_due > now:
                return count
            own = not self.store.in_transaction
            if own:
                self.store.begin()
            try:
                due = self.store.pop_timer(now)
                if due is not None:
                    count += 1
                    self._happenings[due[1]](self, {**due[2], "due": due[0]})
            except BaseException:
                if own:
                    self.store.rollback()
                raise
            if own:
                self.store.commit()
