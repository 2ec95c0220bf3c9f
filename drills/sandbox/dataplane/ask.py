"""One request to a data plane, taken apart, and its errors as the three dialects spell them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from drills.sandbox.arm import Arm, Record
from drills.sandbox.ids import ResourceId, parse_id
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import World

ACCOUNT = "Microsoft.CognitiveServices/accounts"
DEPLOYMENT = f"{ACCOUNT}/deployments"
PROJECT = f"{ACCOUNT}/projects"
OPENAI = f"{ACCOUNT}/OpenAI"  # data actions of the OpenAI paths begin with this
SERVICES = f"{ACCOUNT}/AIServices"  # and those of projects with this


class Dialect(StrEnum):
    """How paths, statuses and errors are spelled."""

    CLASSIC = "classic"  # /openai/…?api-version=
    V1 = "v1"  # /openai/v1/…
    FOUNDRY = "foundry"  # /api/projects/{p}/…?api-version=v1


class DataError(ArmError):
    """An error of a data plane.

    `inner` becomes `innererror` (classic) or `inner_error` (v1); `plain` keeps the body as it is.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        inner: Body | None = None,
        plain: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code, message, headers=headers)
        self.param, self.inner, self.plain = param, inner, plain
        self.dialect = Dialect.CLASSIC

    def answer(self) -> Answer:
        """The error as it goes out, in the dialect of the request."""
        if self.plain is not None:
            return Answer(self.status, self.plain, dict(self.headers))
        error: Body = {"code": self.code, "message": self.message}
        match self.dialect:
            case Dialect.CLASSIC:
                if self.param is not None:
                    error["param"] = self.param
                if self.inner is not None:
                    error["innererror"] = self.inner
            case Dialect.V1:
                error["type"] = "error"
                if self.param is not None:
                    error["param"] = self.param
                if self.inner is not None:
                    error["inner_error"] = self.inner
            case Dialect.FOUNDRY:
                error |= {"param": self.param, "type": "invalid_request_error"}
                error["details"] = []
                error["additionalInfo"] = {"request_id": ""}
        return Answer(self.status, {"error": error}, dict(self.headers))


def invalid(message: str, *, param: str | None = None) -> DataError:
    """The 400 for a request that makes no sense."""
    return DataError(400, "invalidPayload", message, param=param)


def not_found(message: str) -> DataError:
    """The 404 for a thing that is not there."""
    return DataError(404, "notFound", message)


def peek(world: World, id_: str | ResourceId) -> Record | None:
    """An ARM record for reading only: what `Arm.find` answers, without the copy."""
    rid = parse_id(id_) if isinstance(id_, str) else id_
    kept = world.store.get(Arm.space(rid.parent, rid.type), rid.key)
    return Record(**kept) if kept is not None else world.arm.find(rid)


@dataclass(slots=True)
class Ask:
    """A request that was let in: whose data, in which dialect, with which names in the path."""

    world: World
    call: Call
    account: Record  # for reading only
    dialect: Dialect
    project: Record | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def classic(self) -> bool:
        """Whether the classic statuses (201, 204) are due."""
        return self.dialect is Dialect.CLASSIC

    @property
    def now(self) -> float:
        """The sandbox's time, seconds since 1970."""
        return self.call.now.timestamp()

    @property
    def owner(self) -> str:
        """The ARM id whose data this is about: the project when one was addressed."""
        return (self.project or self.account).id

    def space(self, what: str) -> str:
        """Where the owner's things of one sort are kept."""
        return space(self.owner, what)

    def account_space(self, what: str) -> str:
        """Where the account's things of one sort are kept, also when a project was addressed."""
        return space(self.account.id, what)

    def found(self, what: str, id_: str, message: str) -> Body:
        """One of the owner's things. Raises DataError 404 with `message`."""
        item = self.world.store.get(self.space(what), id_)
        if item is None:
            raise not_found(message)
        return item

    def body(self) -> Body:
        """The JSON body. Raises DataError 400 when it is none."""
        try:
            return self.call.json()
        except ArmError as error:
            raise invalid(error.message) from None

    def text(self, body: Body, name: str) -> str:
        """A required, non-empty string of the body. Raises DataError 400."""
        value = body.get(name)
        if not isinstance(value, str) or not value:
            raise invalid(f"Missing required parameter: '{name}'.", param=name)
        return value

    def location(self, id_: str) -> dict[str, str]:
        """The Location header of something just created."""
        version = self.call.parameter("api-version")
        query = f"?api-version={version}" if version else ""
        return {"location": f"{self.call.base}{self.call.path.rstrip('/')}/{id_}{query}"}

    def created(self, shown: Body) -> Answer:
        """The answer to a creation: 201 and Location (classic authoring), else 200."""
        if self.classic:
            return Answer(201, shown, self.location(str(shown["id"])))
        return Answer(200, shown)


def space(owner: str, what: str) -> str:
    """Where an account's or a project's things of one sort are kept."""
    return f"dp:{owner.lower()}:{what}"


Handler: TypeAlias = Callable[[Ask], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """A path of a data plane: `/files/{file}`; `action` is the RBAC data action it asks for."""

    method: str
    template: str
    action: str
    handler: Handler
    dialects: frozenset[Dialect] = frozenset({Dialect.CLASSIC, Dialect.V1})

    def pattern(self) -> re.Pattern[str]:
        """What paths match."""
        body = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.template)
        return re.compile(f"^{body}/?$", re.IGNORECASE)


CLASSIC_ONLY = frozenset({Dialect.CLASSIC})
V1_ONLY = frozenset({Dialect.V1})
FOUNDRY_ONLY = frozenset({Dialect.FOUNDRY})


def whole(ask: Ask, name: str, default: int, low: int, high: int) -> int:
    """A query parameter that is a whole number in [low, high]. Raises DataError 400."""
    text = ask.call.parameter(name)
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise invalid(
            f"Invalid value for '{name}': expected an integer from {low} to {high}, got '{text}'.",
            param=name,
        )
    return value


def cursor_list(
    ask: Ask,
    items: Iterable[Body],
    *,
    default: int = 20,
    most: int = 100,
    order: str = "desc",
    ids: bool = True,
) -> Answer:
    """One page of a list with `after`, `before`, `limit` and `order`; items come oldest first."""
    values = list(items)
    wanted = ask.call.parameter("order") or order
    if wanted not in ("asc", "desc"):
        raise invalid(f"Invalid value for 'order': '{wanted}'.", param="order")
    if wanted == "desc":
        values.reverse()
    limit = whole(ask, "limit", default, 1, most)
    positions = {str(value["id"]): at for at, value in enumerate(values)}
    after, before = ask.call.parameter("after"), ask.call.parameter("before")
    start, end = 0, len(values)
    if after:
        if after not in positions:
            raise invalid(f"Invalid cursor: no item with id '{after}' was found.", param="after")
        start = positions[after] + 1
    if before:
        if before not in positions:
            raise invalid(f"Invalid cursor: no item with id '{before}' was found.", param="before")
        end = positions[before]
    if before and not after:
        page = values[max(start, end - limit) : end]
        more = end - start > limit
    else:
        page = values[start : min(end, start + limit)]
        more = end - start > limit
    body: Body = {"object": "list", "data": page}
    if ids:
        body["first_id"] = page[0]["id"] if page else None
        body["last_id"] = page[-1]["id"] if page else None
    body["has_more"] = more
    return Answer(200, body)


def new_id(world: World, prefix: str, digits: int = 24) -> str:
    """A fresh id such as `file-9f…`; repeatable from the sandbox's seed."""
    return f"{prefix}{world.hex(digits)}"


def checked_metadata(body: Body) -> dict[str, str]:
    """The `metadata` of a body: at most 16 pairs of strings. Raises DataError 400."""
    value: Any = body.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict) or any(not isinstance(v, str) for v in value.values()):
        raise invalid("'metadata' must be an object whose values are strings.", param="metadata")
    if len(value) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in value.items()):
        raise invalid(
            "'metadata' holds at most 16 pairs, keys of 64 and values of 512 characters.",
            param="metadata",
        )
    return {str(k): v for k, v in value.items()}
