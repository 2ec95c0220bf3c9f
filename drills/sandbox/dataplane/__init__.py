"""The data planes of accounts and projects: files, fine-tuning, models, chat and agents."""

from __future__ import annotations

import re
from dataclasses import dataclass

from drills.sandbox.arm import Record
from drills.sandbox.dataplane import (
    assistants,
    chat,
    copies,
    files,
    finetuning,
    models,
    projects,
    responses,
    vector_stores,
)
from drills.sandbox.dataplane.ask import (
    OPENAI,
    SERVICES,
    Ask,
    DataError,
    Dialect,
    Route,
    peek,
)
from drills.sandbox.dataplane.gate import Gate
from drills.sandbox.ids import region_name
from drills.sandbox.wire import Answer, ArmError, Call
from drills.sandbox.world import World

_V1 = re.compile(r"^/openai/v1(?P<rest>/.*)$", re.IGNORECASE)
_CLASSIC = re.compile(r"^/openai(?P<rest>/.*)$", re.IGNORECASE)
_PROJECT = re.compile(r"^/api/projects/(?P<project>[^/]+)(?P<rest>/.*)$", re.IGNORECASE)
_ROUTES: tuple[Route, ...] = (
    *chat.ROUTES,
    *files.ROUTES,
    *finetuning.ROUTES,
    *copies.ROUTES,
    *models.ROUTES,
    *responses.ROUTES,
    *assistants.ROUTES,
    *vector_stores.ROUTES,
    *projects.ROUTES,
)


@dataclass(frozen=True, slots=True)
class _Place:
    dialect: Dialect
    path: str
    project: str = ""


class DataPlane:
    """Answers what is sent to an account's endpoint."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gate = Gate(world)
        world.on(finetuning.DUE, finetuning.job_due)
        world.on(copies.DUE, copies.copy_due)
        self._table = [(route, route.pattern()) for route in _ROUTES]

    def handle(self, call: Call, name: str, suffix: str, path: str) -> Answer:
        """Answer a call to `https://{name}.{suffix}.azure.com{path}`.

        `name` is an account's custom subdomain, or with suffix "api" a region (the account is then
        the one whose key is sent). Raises ArmError (DataError in the dialect of the path).
        """
        account = self.gate.account(call, name, suffix)
        if account is None:
            if suffix == "api":
                raise DataError(
                    401,
                    "401",
                    "Access denied due to invalid subscription key or wrong API endpoint. Make "
                    "sure to provide a valid key for an active subscription and use a correct "
                    "regional API endpoint for your resource.",
                )
            raise ArmError(
                404,
                "EndpointNotFound",
                f"No such host: {name}.{suffix}.azure.com (no account has this custom subdomain).",
            )
        place = _place(path)
        call.region = region_name(str(account.body.get("location", "")))
        call.target = account.id
        try:
            answer = self._answer(call, account, place)
        except DataError as error:
            error.dialect = place.dialect
            error.headers = {**self._headers(call), **error.headers}
            raise
        answer.headers = {**self._headers(call), **answer.headers}
        return answer

    def _headers(self, call: Call) -> dict[str, str]:
        return {"apim-request-id": call.id, "x-ms-region": call.region}

    def _answer(self, call: Call, account: Record, place: _Place) -> Answer:
        call.caller = self.gate.caller(
            call, account, Dialect.FOUNDRY if place.project else place.dialect
        )
        refused = self.world.throttle.charge_data(call, account.id)
        if refused is not None:
            return refused
        project = None
        if place.project:
            project = peek(self.world, f"{account.id}/projects/{place.project}")
            if project is None:
                raise DataError(404, "not_found", f"Project '{place.project}' was not found.")
        if place.dialect is not Dialect.V1 and not call.parameter("api-version"):
            raise DataError(
                404 if place.dialect is Dialect.CLASSIC else 400,
                "404" if place.dialect is Dialect.CLASSIC else "MissingApiVersionParameter",
                "Resource not found"
                if place.dialect is Dialect.CLASSIC
                else "The api-version query parameter (?api-version=) is required.",
            )
        route, names = self._route(call, place)
        scope = project.id if project is not None else account.id
        action = _project_action(route.action) if project is not None else route.action
        self.gate.permit(call, action, scope)
        return route.handler(Ask(self.world, call, account, place.dialect, project, names))

    def _route(self, call: Call, place: _Place) -> tuple[Route, dict[str, str]]:
        other_method = False
        for route, pattern in self._table:
            if place.dialect not in route.dialects:
                continue
            match = pattern.match(place.path)
            if match is None:
                continue
            if route.method == call.method:
                return route, match.groupdict()
            other_method = True
        if other_method:
            raise DataError(405, "MethodNotAllowed", f"{call.method} is not allowed here.")
        raise DataError(
            501,
            "SandboxUnsupported",
            f"This sandbox does not play {call.method} {call.path} ({place.dialect}).",
        )


def _project_action(action: str) -> str:
    """The data action that a project asks for where an account asks for one of OpenAI.

    Azure's own refusals name AIServices/assets/read for a project's vector stores and
    AIServices/agents/… for its assistants and threads (public issues of 2025 and 2026). That files
    go with the stores, and that writing and deleting are named alike, is a guess.
    """
    verb = action.rsplit("/", 1)[-1]
    if action.startswith((f"{OPENAI}/files/", f"{OPENAI}/assistants/vector_stores/")):
        return f"{SERVICES}/assets/{'write' if verb == 'action' else verb}"
    if action.startswith((f"{OPENAI}/assistants/", f"{OPENAI}/threads/")):
        return f"{SERVICES}/agents/{'write' if verb == 'action' else verb}"
    return action


def _place(path: str) -> _Place:
    project = ""
    if match := _PROJECT.match(path):
        project, path = match["project"], match["rest"]
    if match := _V1.match(path):
        return _Place(Dialect.V1, match["rest"], project)
    if match := _CLASSIC.match(path):
        dialect = Dialect.V1 if project else Dialect.CLASSIC
        return _Place(dialect, match["rest"], project)
    if project:
        return _Place(Dialect.FOUNDRY, path, project)
    return _Place(Dialect.CLASSIC, path)


__all__ = ["DataPlane"]
