"""Read a drill's YAML: what is wrong is told with file, line and what to write instead."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

import yaml

from drills.model import (
    ApproveStep,
    CheckDeclaration,
    CheckMaker,
    DeployStep,
    Drill,
    DrillScope,
    DrillStep,
    FaultKind,
    FaultStep,
    Objective,
    ParallelStep,
    Phase,
    RunStep,
    SwitchKind,
    SwitchStep,
    TargetKind,
    Verb,
    VerbStep,
    WaitStep,
)
from snapshots.errors import InputError, NotFoundError
from snapshots.model import Json, JsonObject

LONGEST = 256 * 1024  # bytes of a script
_DEEPEST = 40
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}", re.ASCII)
_WORD = re.compile(r"\$\{([a-z][a-z0-9_]{0,40})\}", re.ASCII)
_RUN_WORDS = frozenset({"drill", "group", "subscription", "primary", "standby", "seed"})
_STEPS = ("verb", "fault", "switch", "deploy", "wait", "approve", "run", "parallel")


@dataclass(frozen=True, slots=True)
class _Node:
    """One value of the file, and where it stands."""

    file: Path
    line: int
    path: str
    value: bool | float | int | str | list[_Node] | dict[str, _Node] | None
    lines: dict[str, int] = field(default_factory=dict)  # of the keys

    def fail(self, what: str, remedy: str, *, line: int = 0) -> InputError:
        where = f"{self.file}:{line or self.line}"
        return InputError(what, where=f"{where} {self.path}".rstrip(), remedy=remedy)

    def plain(self) -> Json:
        """Give it without places."""
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {name: item.plain() for name, item in self.value.items()}
        return self.value


class _Table:
    """A mapping while it is read: hands values out and knows what nobody asked for."""

    def __init__(self, node: _Node, what: str) -> None:
        if not isinstance(node.value, dict):
            raise node.fail(f"{what} is not a mapping", "write lines like `name: value`")
        self.node = node
        self.what = what
        self._values = node.value
        self._asked: list[str] = []

    def has(self, name: str) -> bool:
        return name in self._values

    def take(self, name: str) -> _Node | None:
        self._asked.append(name)
        found = self._values.get(name)
        return None if found is None or found.value is None else found

    def need(self, name: str, example: str) -> _Node:
        found = self.take(name)
        if found is None:
            raise self.node.fail(f"{self.what} needs {name}", f"write {name}: {example}")
        return found

    def text(self, name: str, default: str | None = None, *, example: str = "…") -> str:
        found = self.need(name, example) if default is None else self.take(name)
        if found is None:
            return default or ""
        if not isinstance(found.value, str) or (default is None and not found.value.strip()):
            raise found.fail(f"{name} is not a text", f'write {name}: "{example}"')
        return found.value.strip() if name != "content" else found.value

    def seconds(self, name: str, default: float | None = None) -> float | None:
        found = self.take(name)
        return default if found is None else _duration(found, name)

    def number(self, name: str, default: float) -> float:
        found = self.take(name)
        if found is None:
            return default
        value = found.value
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise found.fail(f"{name} is not a number of zero or more", f"write {name}: 5")
        if not math.isfinite(value):
            raise found.fail(f"{name} is not finite", f"write {name}: 5")
        return float(value)

    def flag(self, name: str) -> bool:
        found = self.take(name)
        if found is None:
            return False
        if not isinstance(found.value, bool):
            raise found.fail(f"{name} is neither true nor false", f"write {name}: true")
        return found.value

    def texts(self, name: str) -> tuple[str, ...]:
        found = self.take(name)
        if found is None:
            return ()
        items = found.value if isinstance(found.value, list) else [found]
        out: list[str] = []
        for item in items:
            if not isinstance(item.value, str) or not item.value.strip():
                raise item.fail(f"{name} holds something that is no text", f'write {name}: ["…"]')
            out.append(item.value)
        return tuple(out)

    def items(self, name: str) -> list[_Node]:
        found = self.take(name)
        if found is None:
            return []
        if not isinstance(found.value, list):
            raise found.fail(f"{name} is not a list", f"write {name}: and lines that begin with -")
        return found.value

    def object(self, name: str) -> JsonObject:
        found = self.take(name)
        if found is None:
            return {}
        plain = found.plain()
        if not isinstance(plain, dict):
            raise found.fail(f"{name} is not a mapping", f"write {name}: {{a: b}}")
        return plain

    def word(self, name: str, words: Iterable[str], default: str | None) -> str:
        known = list(words)
        found = self.need(name, known[0]) if default is None else self.take(name)
        if found is None:
            return default or ""
        if found.value not in known:
            near = difflib.get_close_matches(str(found.value), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"write one of {', '.join(known)}"
            raise found.fail(f"{name} cannot be {found.value!r}", hint)
        return str(found.value)

    def finish(self) -> None:
        """Refuse what nobody asked for: a mistyped word must not be lost in silence."""
        for name in self._values:
            if name not in self._asked:
                near = difflib.get_close_matches(name, self._asked, 1)
                raise self.node.fail(
                    f"{self.what} has no {name!r}",
                    f"did you mean {near[0]}?" if near else f"known: {', '.join(self._asked)}",
                    line=self.node.lines.get(name, 0),
                )


def _duration(node: _Node, name: str) -> float:
    text = str(node.value) if not isinstance(node.value, bool) else ""
    parts = _DURATION.findall(text)
    if not parts or "".join(a + b for a, b in parts) != text:
        raise node.fail(
            f"{name} is not a duration: {node.value!r}", f"write {name}: 90s, 15m or 1h"
        )
    return float(sum(float(amount) * _SECONDS[unit] for amount, unit in parts))


# ------------------------------------------------------------------------------------- the file


def read(
    file: Path, make: CheckMaker | None = None, given: Mapping[str, Json] | None = None
) -> Drill:
    """Read one script and check it. Raises InputError.

    `make` builds the checks once, so that their settings are validated, too. `given` are values of
    the script's parameters; a text becomes what the default is: a number, a list …
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"the script cannot be read: {error.strerror or error}",
            where=str(file),
            remedy="check the path, or see `muster drill list`",
        ) from error
    return parse(data, file, make, given)


def parse(
    data: bytes,
    file: Path,
    make: CheckMaker | None = None,
    given: Mapping[str, Json] | None = None,
) -> Drill:
    """Check the text of a script that lies (or will lie) in `file`. Raises InputError."""
    if len(data) > LONGEST:
        raise InputError(
            f"the script is longer than {LONGEST} bytes", where=str(file), remedy="split it"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            "the script is not UTF-8", where=f"{file}:{line}", remedy="save it as UTF-8"
        ) from error
    tree, parameters = _with_parameters(_tree(text, file), given or {})
    drill = replace(_drill(_Table(tree, "a drill"), text, file), parameters=parameters)
    if make is not None:
        for declaration in (*drill.gate, *drill.checks):
            try:
                make(declaration)
            except InputError as error:
                raise InputError(
                    error.what, where=f"{file}:{declaration.line}", remedy=error.remedy
                ) from error
    return drill


def _tree(text: str, file: Path) -> _Node:
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            # Before anything is built: the reader's time grows with the square of the depth.
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise InputError(
                    "the script is nested too deeply", where=f"{file}:{line}", remedy="flatten it"
                )
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise InputError(
                    "the script uses an alias (*name)",
                    where=f"{file}:{line}",
                    remedy="write the value out: a script is read by people in a hurry",
                )
        found = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        words = getattr(error, "problem", None) or "it cannot be read"
        raise InputError(
            f"the script is not YAML: {words}",
            where=f"{file}{place}",
            remedy="check the indentation and the quotes in that line",
        ) from error
    except RecursionError as error:
        raise InputError(
            "the script is nested too deeply", where=str(file), remedy="flatten it"
        ) from error
    if found is None:
        raise InputError(
            "the script is empty", where=str(file), remedy="begin with `title: …` (writing-drills)"
        )
    return _node(found, file, "", 0, yaml.SafeLoader(""))


def _node(found: yaml.Node, file: Path, path: str, depth: int, loader: yaml.SafeLoader) -> _Node:
    line = found.start_mark.line + 1 if found.start_mark else 1
    if depth > _DEEPEST:
        raise InputError(
            "the script is nested too deeply", where=f"{file}:{line}", remedy="flatten it"
        )
    if isinstance(found, yaml.SequenceNode):
        items = [
            _node(item, file, f"{path}[{number}]", depth + 1, loader)
            for number, item in enumerate(found.value, 1)
        ]
        return _Node(file, line, path, items)
    if isinstance(found, yaml.MappingNode):
        table: dict[str, _Node] = {}
        lines: dict[str, int] = {}
        for key, value in found.value:
            at = key.start_mark.line + 1
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(name, str) or name in table:
                what = "a name that is no text" if name is None else f"{name!r} twice"
                raise InputError(
                    f"the script has {what}", where=f"{file}:{at}", remedy="take one out"
                )
            lines[name] = at
            inner = f"{path}.{name}" if path else name
            table[name] = _node(value, file, inner, depth + 1, loader)
        return _Node(file, line, path, table, lines)
    try:
        value = loader.construct_object(found)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(
            "a value cannot be read", where=f"{file}:{line} {path}", remedy="put it in quotes"
        ) from error
    if value is not None and not isinstance(value, bool | int | float | str):
        value = str(found.value)  # a date stays what was written
    return _Node(file, line, path, value)


# ------------------------------------------------------------------------------------ parameters


def _with_parameters(tree: _Node, given: Mapping[str, Json]) -> tuple[_Node, JsonObject]:
    """Put the values of parameters where `${name}` stands; what a run knows itself stays."""
    node = tree.value.get("parameters") if isinstance(tree.value, dict) else None
    declared: dict[str, _Node] = {}
    if node is not None and node.value is not None:
        if not isinstance(node.value, dict):
            raise node.fail("parameters is not a mapping", "write lines like `what: agent/*`")
        declared = node.value
    values: dict[str, _Node] = {}
    for name, default in declared.items():
        if not _WORD.fullmatch("${" + name + "}") or name in _RUN_WORDS:
            raise default.fail(
                f"not a name for a parameter: {name!r}",
                f"use a-z, 0-9 and _, and none of {', '.join(sorted(_RUN_WORDS))}",
                line=node.lines.get(name, 0) if node is not None else 0,
            )
        if not _simple(default):
            raise default.fail(
                f"the parameter {name} is neither a value nor a list of values",
                f"write {name}: some text, or a list of texts",
            )
        values[name] = _given(default, name, given[name]) if name in given else default
    for name in given:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, 1)
            known = ", ".join(declared) or "none"
            raise tree.fail(
                f"the script has no parameter {name!r}",
                f"did you mean {near[0]}?" if near else f"known: {known}",
            )
    if not isinstance(tree.value, dict) or node is None:
        return tree, {}
    rest = {name: value for name, value in tree.value.items() if name != "parameters"}
    filled = _filled(replace(tree, value=rest), values)
    return filled, {name: value.plain() for name, value in values.items()}


def _simple(node: _Node) -> bool:
    if isinstance(node.value, list):
        return all(not isinstance(item.value, list | dict) for item in node.value)
    return not isinstance(node.value, dict)


def _given(default: _Node, name: str, value: Json) -> _Node:
    """Read what was given as what the default is. Raises InputError."""
    wanted = default.value
    found: Json = value
    if isinstance(value, str):
        if isinstance(wanted, list):
            found = [part.strip() for part in value.split(",") if part.strip()]
        elif isinstance(wanted, bool):
            found = {"true": True, "false": False}.get(value.lower(), value)
        elif isinstance(wanted, int | float):
            try:
                found = float(value) if "." in value else int(value)
            except ValueError:
                found = value
    if isinstance(found, list):
        items = [_Node(default.file, default.line, default.path, str(item)) for item in found]
        if isinstance(wanted, list):
            return replace(default, value=items)
    number = isinstance(wanted, int | float) and not isinstance(wanted, bool)
    fits = (
        (isinstance(found, int | float) and not isinstance(found, bool))
        if number
        else isinstance(found, bool) == isinstance(wanted, bool) and isinstance(found, bool | str)
    )
    if not fits or isinstance(found, list | dict) or found is None:
        raise default.fail(
            f"{value!r} does not fit the parameter {name}", f"its default is {default.plain()!r}"
        )
    return replace(default, value=found)


def _filled(node: _Node, values: Mapping[str, _Node]) -> _Node:
    if isinstance(node.value, dict):
        table = {_text(key, node, values): _filled(v, values) for key, v in node.value.items()}
        lines = {_text(key, node, values): line for key, line in node.lines.items()}
        return replace(node, value=table, lines=lines)
    if isinstance(node.value, list):
        items: list[_Node] = []
        for item in node.value:
            filled = _filled(item, values)
            # A list that stands alone in a list is the list.
            spread = isinstance(item.value, str) and isinstance(filled.value, list)
            items += filled.value if spread and isinstance(filled.value, list) else [filled]
        return replace(node, value=items)
    if isinstance(node.value, str):
        whole = _WORD.fullmatch(node.value)
        if whole is not None and whole[1] in values:
            return replace(values[whole[1]], line=node.line, path=node.path)
        return replace(node, value=_text(node.value, node, values))
    return node


def _text(text: str, node: _Node, values: Mapping[str, _Node]) -> str:
    def put(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values:
            near = difflib.get_close_matches(name, [*values, *_RUN_WORDS], 1)
            if name in _RUN_WORDS or not near:
                return found[0]
            raise node.fail(f"there is no parameter {name!r}", f"did you mean {near[0]}?")
        plain = values[name].plain()
        if isinstance(plain, list):
            raise node.fail(f"{name} is a list, and stands within a text", "let it stand alone")
        return "" if plain is None else str(plain)

    return _WORD.sub(put, text)


# --------------------------------------------------------------------------------------- a drill


def _drill(table: _Table, text: str, file: Path) -> Drill:
    name = file.name.removesuffix(".yaml").removesuffix(".yml")
    if not _NAME.fullmatch(name):
        raise InputError(
            f"not a name for a drill: {name!r}",
            where=str(file),
            remedy="call the file like region-failover.yaml: a-z, 0-9 and -",
        )
    node = table.need("objective", "{rto: 15m, rpo: 1h}")
    promised = _Table(node, "objective")
    objective = Objective(promised.seconds("rto"), promised.seconds("rpo"))
    promised.finish()
    scope = DrillScope()
    given = table.take("scope")
    if given is not None:
        limits = _Table(given, "scope")
        scope = DrillScope(
            limits.texts("only"), limits.text("primary", ""), limits.text("standby", "")
        )
        limits.finish()
    target = TargetKind(table.word("target", TargetKind, None))
    drill = Drill(
        name=name,
        title=table.text("title", example="Restore one resource"),
        about=table.text("about", ""),
        text=text,
        file=file,
        objective=objective,
        scope=scope,
        target=target,
        limit=table.seconds("limit", 3600.0) or 3600.0,
        blast_radius=table.text("blast_radius", example="one resource group of its own"),
        cost_ceiling=table.number("cost_ceiling", 0.0),
        approvers=table.texts("approvers"),
        forced=table.flag("forced"),
        keep=table.flag("keep"),
        gate=tuple(_check(item) for item in table.items("gate")),
        steps=tuple(_step(item) for item in table.items("steps")),
        checks=tuple(_check(item) for item in table.items("checks")),
        clean_up=tuple(_step(item) for item in table.items("clean_up")),
    )
    table.finish()
    _whole(drill, table.node)
    return drill


def _whole(drill: Drill, node: _Node) -> None:
    if not drill.steps and not drill.checks:
        raise node.fail("the drill does nothing", "write steps: or checks:")
    if drill.target is TargetKind.SAME and not drill.approvers:
        raise node.fail(
            "a drill on the primary itself needs approvers", "write approvers: [who may say yes]"
        )
    elsewhere = drill.target in (TargetKind.STANDBY, TargetKind.SAME)
    if drill.keep and not elsewhere:
        raise node.fail(
            f"nothing stays of a drill whose target is {drill.target}",
            "take keep: out, or write target: standby; --keep lets you look at one run",
            line=node.lines.get("keep", 0),
        )
    seen: set[str] = set()
    for step in walk((*drill.steps, *drill.clean_up)):
        if isinstance(step, VerbStep):
            _fits(step, drill, node)
        if step.name in seen:
            raise node.fail(
                f"two steps are called {step.name!r}", "give one of them a name:", line=step.line
            )
        seen.add(step.name)
        isolated = isinstance(step, DeployStep) or (
            isinstance(step, FaultStep) and step.fault is FaultKind.DELETE
        )
        if isolated and drill.target is not TargetKind.ISOLATED:
            raise node.fail(
                f"{step.name}: a drill deploys and deletes only in a target of its own",
                "write target: isolated",
                line=step.line,
            )


def _fits(step: VerbStep, drill: Drill, node: _Node) -> None:
    elsewhere = drill.target in (TargetKind.STANDBY, TargetKind.SAME)
    if step.keep and not elsewhere:
        raise node.fail(
            f"{step.name}: nothing stays of a drill whose target is {drill.target}",
            "take keep: out, or write target: standby",
            line=step.line,
        )
    if step.verb is Verb.REPLICATE and drill.target is not TargetKind.STANDBY:
        raise node.fail(
            f"{step.name}: a replication goes to the standby",
            "write target: standby",
            line=step.line,
        )
    if step.verb in (Verb.RESTORE, Verb.PLAN) and drill.target is TargetKind.NONE:
        raise node.fail(
            f"{step.name}: there is no target to restore into",
            "write target: isolated, standby or same",
            line=step.line,
        )
    if step.back and (drill.target is not TargetKind.SAME or step.verb not in _BACK):
        raise node.fail(
            f"{step.name}: back: leads from the standby to the primary",
            "write it with verb: plan or restore, and target: same",
            line=step.line,
        )


_BACK = (Verb.RESTORE, Verb.PLAN)


def walk(steps: Iterable[DrillStep]) -> Iterable[DrillStep]:
    """Give every step, those of parallel groups after their group."""
    for step in steps:
        yield step
        if isinstance(step, ParallelStep):
            yield from walk(step.steps)


def _check(node: _Node) -> CheckDeclaration:
    table = _Table(node, "a check")
    check = table.text("check", example="state")
    found = CheckDeclaration(
        check,
        table.text("name", ""),
        table.text("subject", ""),
        table.object("with"),
        node.line,
    )
    table.finish()
    return found


def _step(node: _Node) -> DrillStep:
    table = _Table(node, "a step")
    kinds = [kind for kind in _STEPS if table.has(kind)]
    if len(kinds) != 1:
        what = "two kinds at once" if kinds else "none of the known kinds"
        raise node.fail(f"a step is of {what}", f"begin it with one of {', '.join(_STEPS)}")
    kind = kinds[0]
    word = _Node.plain(table.take(kind) or node)
    default = f"{kind} {word}" if isinstance(word, str) else kind
    name = table.text("name", default)
    phase_text = table.word("phase", Phase, "") if kind != "parallel" else ""
    phase = Phase(phase_text) if phase_text else None
    step = _BUILDERS[kind](table, name[:120], phase)
    table.finish()
    return step


def _verb(table: _Table, name: str, phase: Phase | None) -> DrillStep:
    verb = Verb(table.word("verb", Verb, None))
    if phase is None and verb in (Verb.RESTORE, Verb.RECOVER, Verb.REPLICATE, Verb.RECONSTRUCT):
        phase = Phase.RESTORED
    return VerbStep(
        name=name,
        verb=verb,
        phase=phase,
        only=table.texts("only"),
        snapshot=table.text("snapshot", ""),
        kinds=table.texts("kinds"),
        prune=table.flag("prune"),
        keep=table.flag("keep"),
        back=table.flag("back"),
        changes=_changes(table),
        fails=table.text("fails", ""),
        if_sandbox=table.flag("if_sandbox"),
        line=table.node.line,
    )


def _changes(table: _Table) -> JsonObject:
    """Read what a step changes in the Mapping. Raises InputError."""
    node = table.take("map")
    if node is None:
        return {}
    inner = _Table(node, "map")
    found: JsonObject = {}
    for name in ("versions", "hosts", "keys", "resources", "regions"):
        if inner.has(name):
            found[name] = inner.object(name)
    if inner.has("accounts"):
        found["accounts"] = _places(inner)
    if inner.has("units"):
        units = inner.number("units", 1)
        if units < 1 or units != int(units):
            raise inner.node.fail("units is not a number of one or more", "write units: 1")
        found["units"] = int(units)
    if inner.has("skus"):
        items = inner.items("skus")
        rows: list[Json] = []
        for item in items:
            row = _Table(item, "a sku")
            capacity = row.number("capacity", 0)
            rows.append(
                {
                    "of": row.text("of", example="gpt4o"),
                    "name": row.text("name", ""),
                    "capacity": int(capacity) or None,
                }
            )
            row.finish()
        found["skus"] = rows
    inner.finish()
    return found


def _places(table: _Table) -> JsonObject:
    """Read under which other names accounts shall be. Raises InputError."""
    node = table.need("accounts", "{aoai-prod: {name: aoai-prod-2}}")
    if not isinstance(node.value, dict):
        raise node.fail("accounts is not a mapping", "write accounts: {aoai-prod: {name: other}}")
    found: JsonObject = {}
    for account, inner in node.value.items():
        place = _Table(inner, "a place")
        name = place.text("name", example="aoai-prod-2")
        found[account] = {"name": name, "subdomain": place.text("subdomain", name)}
        place.finish()
    return found


def _fault(table: _Table, name: str, phase: Phase | None) -> DrillStep:
    step = FaultStep(
        name=name,
        fault=FaultKind(table.word("fault", FaultKind, None)),
        phase=phase,
        only=table.texts("only"),
        region=table.text("region", ""),
        seconds=table.seconds("seconds", 0.0) or 0.0,
        if_sandbox=table.flag("if_sandbox"),
        rule=table.object("rule"),
        call=table.text("call", ""),
        body=table.object("body"),
        undo=table.object("undo"),
        line=table.node.line,
    )
    needs = {
        FaultKind.DELETE: ("only", bool(step.only), '["account/**"]'),
        FaultKind.REGION_DOWN: ("region", bool(step.region), "swedencentral"),
        FaultKind.RULE: ("rule", bool(step.rule), "{kind: error, status: 500}"),
        FaultKind.CLOCK: ("seconds", step.seconds > 0, "48h"),
        FaultKind.CONTROL: ("call and undo", bool(step.call and step.undo), "PUT quota"),
    }
    if step.if_sandbox and step.fault is FaultKind.DELETE:
        raise table.node.fail("fault delete works everywhere", "take if_sandbox: out")
    wanted, there, example = needs[step.fault]
    if not there:
        raise table.node.fail(f"fault {step.fault} needs {wanted}", f"write {wanted}: {example}")
    if step.call and not re.fullmatch(r"(PUT|POST) (quota|capacity|account|settings)", step.call):
        raise table.node.fail(
            f"the sandbox has no {step.call!r}",
            "write call: PUT quota, PUT capacity, POST account or PUT settings",
        )
    return step


def _switch(table: _Table, name: str, phase: Phase | None) -> DrillStep:
    step = SwitchStep(
        name=name,
        switch=SwitchKind(table.word("switch", SwitchKind, None)),
        phase=phase or Phase.SWITCHED,
        resource=table.text("resource", ""),
        api_version=table.text("api_version", ""),
        body=table.object("body"),
        url=table.text("url", ""),
        path=table.text("path", ""),
        content=table.text("content", ""),
        keep=table.flag("keep"),
        line=table.node.line,
    )
    lack: list[str] = []
    match step.switch:
        case SwitchKind.PATCH:
            lack = [n for n in ("resource", "api_version", "body") if not getattr(step, n)]
        case SwitchKind.WEBHOOK:
            lack = [] if step.url else ["url"]
            if step.url and not step.url.startswith("https://"):
                raise table.node.fail("a webhook is not https", "write url: https://…")
        case SwitchKind.FILE:
            lack = [] if step.path else ["path"]
            parts = Path(step.path).parts
            if Path(step.path).is_absolute() or ".." in parts:
                raise table.node.fail(
                    "path leads out of the folder", "name a file below the configuration's folder"
                )
    if lack:
        raise table.node.fail(f"switch {step.switch} needs {lack[0]}", f"write {lack[0]}: …")
    return step


def _deploy(table: _Table, name: str, phase: Phase | None) -> DrillStep:
    return DeployStep(
        name=name,
        path=table.text("deploy", example="providers/…/accounts/probe-${drill}").strip("/"),
        api_version=table.text("api_version", example="2025-09-01"),
        body=table.object("body"),
        phase=phase or Phase.RESTORED,
        line=table.node.line,
    )


def _wait(table: _Table, name: str, phase: Phase | None) -> DrillStep:
    seconds = table.seconds("wait") or 0.0
    return WaitStep(name=name, seconds=seconds, phase=phase, line=table.node.line)


def _approve(table: _Table, name: str, phase: Phase | None) -> DrillStep:
    question = table.text("approve", example="Go on?")
    people = table.number("people", 1)
    if people < 1 or people != int(people):
        raise table.node.fail("people is not a number of one or more", "write people: 2")
    within = table.seconds("within", 0.0) or 0.0
    if people > 1 and not within:
        raise table.node.fail("several people approve only with a deadline", "write within: 15m")
    return ApproveStep(
        name=name,
        question=question,
        people=int(people),
        within=within,
        phase=phase or Phase.DECIDED,
        line=table.node.line,
    )


def _run(table: _Table, name: str, phase: Phase | None) -> DrillStep:
    command = table.texts("run")
    if not command:
        raise table.node.fail("run names no command", 'write run: ["program", "argument"]')
    return RunStep(
        name=name,
        command=command,
        limit=table.seconds("limit", 60.0) or 60.0,
        phase=phase,
        undo=table.texts("undo"),
        read_only=table.flag("read_only"),
        line=table.node.line,
    )


def _parallel(table: _Table, name: str, phase: Phase | None) -> DrillStep:
    steps = tuple(_step(item) for item in table.items("parallel"))
    if not steps:
        raise table.node.fail("a parallel group is empty", "write steps below parallel:")
    for step in steps:
        if isinstance(step, ApproveStep):
            raise table.node.fail(
                "an approval stands in a parallel group", "ask before it", line=step.line
            )
    return ParallelStep(name=name, steps=steps, phase=phase, line=table.node.line)


_BUILDERS: dict[str, Callable[[_Table, str, Phase | None], DrillStep]] = {
    "verb": _verb,
    "fault": _fault,
    "switch": _switch,
    "deploy": _deploy,
    "wait": _wait,
    "approve": _approve,
    "run": _run,
    "parallel": _parallel,
}


# -------------------------------------------------------------------------------------- shipped


def shipped() -> dict[str, Path]:
    """Give the scripts that come with muster, by name."""
    folder = Path(str(files("drills").joinpath("scripts")))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def available(own: Path | None) -> dict[str, Path]:
    """Give every script by name; one of the user's own folder goes before a shipped one."""
    found = shipped()
    if own is not None and own.is_dir():
        found.update({file.stem: file for file in sorted(own.glob("*.yaml"))})
    return found


def find(name: str, own: Path | None) -> Path:
    """Say which file a name (or a path to a file) means. Raises NotFoundError."""
    known = available(own)
    if name in known:
        return known[name]
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return Path(name)
    near = difflib.get_close_matches(name, known, 1)
    raise NotFoundError(
        f"there is no drill called {name!r}",
        where=str(own) if own is not None else "",
        remedy=f"did you mean {near[0]}?" if near else "see `muster drill list`",
    )
