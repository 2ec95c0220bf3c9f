"""`--via prefect`: start the verb's deployment, follow it, and end as the verb would have ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from muster.invocation import Exit, Invocation, safe_lines
from muster.prefect_api import PAGE, Run, Server, document_of, markdown_of
from snapshots.clock import Clock, SystemClock
from snapshots.errors import MusterError, RefusedError, UnreachableError
from snapshots.model import Json, JsonObject

OPTION: Final = "via"
_SHARED: Final = frozenset({"config", "format", "quiet", "no_color", OPTION})
_C = TypeVar("_C", bound=click.Command)
_LOOK: Final = 1.0  # seconds between two looks at a run
_AWAY: Final = 300.0  # seconds that a server may be away while a run is followed
_UNTAKEN: Final = 900.0  # seconds until somebody must have taken a run
_EXITS: Final = {
    "COMPLETED": Exit.CLEAN,
    "Findings": Exit.FINDINGS,
    "Incomplete": Exit.INCOMPLETE,
    "Interrupted": Exit.INTERRUPTED,
    "CANCELLED": Exit.INTERRUPTED,
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """How an option of a command becomes a parameter of its flow."""

    option: str  # click's name of it
    name: str = ""  # the parameter's, when it is another
    convert: Callable[[object], Json] | None = None
    always: bool = False  # also when it was not given: the command's default is not the flow's


@dataclass(frozen=True, slots=True)
class Deployed:
    """Which deployment does a verb, and what of the command line it takes."""

    name: str  # flow/deployment
    parameters: Sequence[Parameter] = field(default=())
    refused: Mapping[str, str] = field(default_factory=dict)  # option -> what to do instead
    idle: Sequence[str] = ()  # options that say nothing to a flow, and harm nothing
    exclusive: Sequence[tuple[str, str]] = ()  # as the command itself would refuse them
    asks: str = ""  # what is asked before it acts, unless --yes was said


def via(deployed: Deployed) -> Callable[[_C], _C]:
    """Give a command the option --via."""

    def decorate(command: _C) -> _C:
        command.params.append(
            click.Option(
                ["--via", OPTION],
                metavar="prefect[:NAME]",
                expose_value=False,
                callback=_keep,
                help="Let Prefect do it: start the deployment (or the one called NAME), follow it, "
                "end with its exit code.",
            )
        )
        here = command.invoke

        def invoke(ctx: click.Context) -> Any:
            code = _elsewhere(ctx, deployed)
            return here(ctx) if code is None else code

        command.invoke = invoke  # type: ignore[method-assign]
        return command

    return decorate


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> object:
    if value is not None:
        text = str(value)
        if text.partition(":")[0] != "prefect" or text == "prefect:":
            message = f"{text!r} is no way: write prefect, or prefect:NAME for another deployment"
            raise click.BadParameter(message, context, parameter)
        context.meta[OPTION] = text.partition(":")[2]
    return value


def _elsewhere(context: click.Context, deployed: Deployed) -> int | None:
    chosen = context.meta.get(OPTION)
    if chosen is None:
        return None
    invocation = context.ensure_object(Invocation)
    _refuse_what_the_command_refuses(context, deployed)
    _own_formats(context, invocation)
    parameters = _parameters(context, deployed, invocation)
    if deployed.asks and parameters.get("apply") is True:
        yes = context.params.get("yes") is True
        if not invocation.confirm(deployed.asks, yes=yes):
            invocation.warn("nothing was started")
            return Exit.ERROR
    flow, _, own = deployed.name.partition("/")
    server = Server.of(invocation.environment)
    return start_and_follow(
        server, f"{flow}/{chosen or own}", parameters, invocation, SystemClock()
    )


def _refuse_what_the_command_refuses(context: click.Context, deployed: Deployed) -> None:
    for pair in deployed.exclusive:
        if all(context.params.get(name) for name in pair):
            raise click.UsageError(
                " and ".join(_written(context, name) for name in pair) + " exclude each other",
                context,
            )


def _own_formats(context: click.Context, invocation: Invocation) -> None:
    """Heed a command's own --format: text and JSON are shown here, files are written there."""
    chosen = context.params.get("formats")
    if not chosen or context.params.get("output"):
        return
    if chosen == ("json",):
        invocation.format = "json"
    elif chosen != ("text",):
        message = "--format needs --output with --via prefect: files are written by the worker"
        raise click.UsageError(message, context)


def _written(context: click.Context, name: str) -> str:
    return next((p.opts[-1] for p in context.command.params if p.name == name), name)


def _parameters(context: click.Context, deployed: Deployed, invocation: Invocation) -> JsonObject:
    """Give what was typed as the flow's parameters; refuse what the flow cannot do."""
    given: JsonObject = {}
    if invocation.config is not None:
        given["config"] = str(invocation.config.absolute())
    known = {parameter.option: parameter for parameter in deployed.parameters}
    for name, value in context.params.items():
        typed = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        found = known.get(name)
        if found is None:
            if typed and name not in _SHARED and name not in deployed.idle:
                option, instead = _written(context, name), deployed.refused.get(name, "")
                more = f": {instead}" if instead else ""
                raise click.UsageError(f"{option} does not go with --via prefect{more}", context)
        elif typed or found.always:
            convert = found.convert or _json
            given[found.name or name] = convert(value)
    return given


def _json(value: object) -> Json:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case datetime():
            return value.isoformat()
        case Path():
            return str(value.absolute())
        case list() | tuple():
            return [_json(item) for item in value]
        case _:
            return str(value)


def start_and_follow(
    server: Server,
    name: str,
    parameters: JsonObject,
    invocation: Invocation,
    clock: Clock,
) -> int:
    """Start a deployment, follow its run to its end, and give the exit code of the verb.

    Raises UnreachableError, NotFoundError, InputError, and RefusedError when no worker is there.
    Ctrl-C leaves the run going and says so.
    """
    deployment = server.deployment(name)
    _ask_for_workers(server, deployment)
    run = server.start(str(deployment.get("id", "")), parameters)
    invocation.say(f"started {run.name} ({run.id})\n  see {server.page(run.id)}")
    try:
        ended = _follow(server, run, invocation, clock)
    except KeyboardInterrupt:
        invocation.warn(f"the run goes on without us: {server.page(run.id)}")
        return Exit.INTERRUPTED
    return _conclude(server, ended, invocation)


def _ask_for_workers(server: Server, deployment: JsonObject) -> None:
    pool = str(deployment.get("work_pool_name") or "")
    if not pool:
        return
    found = server.pool(pool)
    if found.get("is_paused") is True:
        raise RefusedError(
            f"the work pool {pool} is paused: nobody would take the run",
            where=server.ui,
            remedy=f"prefect work-pool resume {pool}",
        )
    if found.get("status") == "NOT_READY" and not str(found.get("type", "")).endswith(":push"):
        raise RefusedError(
            f"no worker looks after the work pool {pool}",
            where=server.ui,
            remedy=f"start one: `make up` here, or `prefect worker start --pool {pool}`; without "
            "--via prefect the verb runs on this machine",
        )


def _follow(server: Server, run: Run, invocation: Invocation, clock: Clock) -> Run:
    said = 0
    waited: str | None = None
    taken = False
    begun = heard = clock.now()
    while True:
        try:
            run = server.run(run.id)  # before its log: nothing is logged after the end
            lines = server.logs(run.id, said)
        except UnreachableError as error:
            if (clock.now() - heard).total_seconds() > _AWAY:
                raise UnreachableError(
                    "Prefect's server was lost while the run went on",
                    where=server.page(run.id),
                    remedy="look at the run when the server is back; it was not stopped",
                ) from error
            clock.sleep(_LOOK)
            continue
        heard = clock.now()
        said += len(lines)
        for line in lines:
            invocation.say(f"  {line}")
        if run.ended and not lines:  # a long log comes in pieces
            return run
        if lines and (run.ended or len(lines) >= PAGE):
            continue
        if run.type == "PAUSED" and waited != run.keyset.get("response"):
            waited = run.keyset.get("response")
            invocation.warn(
                f"it waits for a decision: muster approve-run {run.id} --approve|--reject "
                f"--reason TEXT, or {server.page(run.id)}"
            )
        taken = taken or run.type not in {"SCHEDULED", "PENDING"}
        if not taken and (clock.now() - begun).total_seconds() > _UNTAKEN:
            raise RefusedError(
                "no worker took the run",
                where=server.page(run.id),
                remedy="see whether the workers are busy or gone; the run is still scheduled, and "
                f"`prefect flow-run cancel {run.id}` takes it back",
            )
        clock.sleep(_LOOK)


def _conclude(server: Server, run: Run, invocation: Invocation) -> int:
    code = _EXITS.get(run.state, _EXITS.get(run.type, Exit.ERROR))
    artifacts = server.artifacts(run.id)
    found = document_of(artifacts)
    if invocation.json and found is not None and "too_large" not in found:
        invocation.emit(found)
    elif not invocation.json:
        from rich.markdown import Markdown

        markdown = safe_lines(markdown_of(artifacts))
        if markdown:
            invocation.show(Markdown(markdown, hyperlinks=False))
    if code == Exit.ERROR or (invocation.json and found is None):
        raise MusterError(
            f"the run ended {run.state.lower() or 'without a state'}: "
            + (run.message.split("\n")[0] or "see its log"),
            where=server.page(run.id),
            remedy=_remedy(run),
        )
    invocation.say(f"{run.state}: {run.message.split(chr(10))[0]}")
    return code


def _remedy(run: Run) -> str:
    for line in run.message.splitlines()[1:]:
        word, _, rest = line.strip().partition("next:")
        if not word and rest:
            return rest.strip()
    return "look at its log there, or run the verb without --via prefect"


def _list(value: object) -> Json:
    return [_json(item) for item in value] if isinstance(value, (list, tuple)) else []


def _percent(value: object) -> Json:
    return value * 100 if isinstance(value, float) else 100.0


def _place(value: object) -> Json:
    return str(Path(str(value)).absolute())


def _not(value: object) -> Json:
    return value is not True


def _mode(value: object) -> Json:
    return "dry-run" if value is True else "real"


_DECIDED: Final = "a person decides in Prefect, or by `muster approve-run`"

SNAPSHOT = Deployed("take-snapshot/snapshots", (Parameter("content"), Parameter("reference")))
AUDIT = Deployed(
    "audit-changes/audits",
    (
        Parameter("scopes", "scope", _list),
        Parameter("since"),
        Parameter("fail_on"),
        Parameter("sweep"),
        Parameter("formats", "formats", _list),
        Parameter("output"),
    ),
)
REPLICATE = Deployed(
    "replicate-models/replication",
    (
        Parameter("pairs", "pair", _list),
        # The deployment's own default is to act, as its schedule does: here it is what was typed.
        Parameter("act", "apply", always=True),
        Parameter("retrain"),
        Parameter("keep_going"),
        Parameter("from_snapshot"),
    ),
    idle=("yes",),
    asks="have Prefect bring every standby that is meant in step?",
)
READY = Deployed(
    "check-readiness/readiness",
    (Parameter("chosen", "pair", _list), Parameter("everything"), Parameter("strict")),
)
VERIFY = Deployed(
    "verify-stores/verification",
    (Parameter("sample", "sample", _percent, always=True), Parameter("seed")),
)
DRILL = Deployed(
    "run-drill/drills",
    (
        Parameter("name", "drill"),
        Parameter("dry_run", "mode", _mode, always=True),
        Parameter("keep"),
        Parameter("snapshot"),
        Parameter("seed"),
        Parameter("sandbox"),
        Parameter("set_", "set", _list),
    ),
    {"approver": _DECIDED, "yes": _DECIDED},
)
RESTORE = Deployed(
    "restore-snapshot/restores",
    (
        Parameter("snapshot"),
        Parameter("to"),
        Parameter("pair"),
        Parameter("only", "only", _list),
        Parameter("prune"),
        Parameter("on_conflict"),
        Parameter("retrain"),
        Parameter("declare_down", "declare_down", _list),
        Parameter("save", "save", _place),
        Parameter("apply_", "apply"),
        Parameter("dry_run", "apply", _not),
    ),
    {"yes": _DECIDED, "approve": _DECIDED},
    exclusive=(("dry_run", "apply_"),),
)
REPORT = Deployed(
    "publish-report/site",
    (
        Parameter("output"),
        Parameter("to_vault"),
        Parameter("no_vault", "use_vault", _not),
        Parameter("fresh"),
    ),
    {"show": "the run has a link to it"},
    exclusive=(("to_vault", "no_vault"),),
)
# By the words of the command.
DEPLOYED: Final[Mapping[str, Deployed]] = {
    "snapshot": SNAPSHOT,
    "audit": AUDIT,
    "replicate": REPLICATE,
    "ready": READY,
    "verify": VERIFY,
    "drill run": DRILL,
    "restore": RESTORE,
    "report": REPORT,
}
# What doctor looks for.
NAMES: Final = tuple(deployed.name for deployed in DEPLOYED.values())
