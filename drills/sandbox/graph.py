"""Azure Resource Graph: the part of its query language that recovery tools use.

Tables `resources`, `resourcechanges`, `resourcecontainers` and `authorizationresources`. As in the
real one there are no deployments, content filters, projects or connections of accounts. Anything
that is not played is refused loudly, never answered wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from drills.sandbox.access import ASSIGNMENT
from drills.sandbox.activity import covered
from drills.sandbox.arm import Arm
from drills.sandbox.clock import parse_time
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import World

MAX_ROWS = 1000
Row = dict[str, Any]
Value = Callable[[Row], Any]

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<span>\d+(?:\.\d+)?(?:d|h|m|s)\b)
    | (?P<number>\d+(?:\.\d+)?)
    | (?P<op>=~|!~|==|!=|<=|>=|<|>|\|\||!in~|in~|!in\b|!contains|!has|!startswith|!endswith)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<mark>[()\[\],.|=+\-*/])
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _bad(message: str) -> ArmError:
    return ArmError(
        400,
        "BadRequest",
        "Please provide below info when asking for support: "
        f"the query is invalid or not played by this sandbox: {message}",
        details=[{"code": "InvalidQuery", "message": message}],
    )


def _tokens(text: str) -> list[_Token]:
    text = re.sub(r"//[^\n]*", " ", text)
    found, at = [], 0
    while at < len(text):
        if text[at:].strip() == "":
            break
        match = _TOKEN.match(text, at)
        if match is None:
            raise _bad(f"unexpected {text[at : at + 20].strip()!r} at position {at}")
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
    return found


def _lookup(row: Row, name: str) -> Any:
    if name in row:
        return row[name]
    lower = name.lower()
    return next((v for k, v in row.items() if k.lower() == lower), None)


def _text(value: Any) -> str:
    import orjson

    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


def _when(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value
    try:
        return parse_time(str(value))
    except ValueError:
        return None


def _compare(left: Any, right: Any) -> int | None:
    if isinstance(left, datetime) or isinstance(right, datetime):
        a, b = _when(left), _when(right)
        return None if a is None or b is None else (a > b) - (a < b)
    if isinstance(left, int | float) and isinstance(right, int | float):
        return (left > right) - (left < right)
    a_text, b_text = _text(left), _text(right)
    return (a_text > b_text) - (a_text < b_text)


_SPANS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


class _Query:
    """A parsed query: a table and the steps that follow."""

    def __init__(self, text: str, now: datetime) -> None:
        self.tokens, self.i, self.now = _tokens(text), 0, now
        self.steps: list[Callable[[list[Row]], list[Row]]] = []
        first = self._take("name")
        self.table = first.text.lower()
        if self.table not in (
            "resources",
            "resourcechanges",
            "resourcecontainers",
            "authorizationresources",
        ):
            raise _bad(f"the table '{first.text}' is not known")
        while self._peek() is not None:
            self._take("mark", "|")
            self.steps.append(self._step(self._take("name").text.lower()))

    # -- tokens ---------------------------------------------------------------------------------

    def _peek(self, ahead: int = 0) -> _Token | None:
        return self.tokens[self.i + ahead] if self.i + ahead < len(self.tokens) else None

    def _is(self, *texts: str) -> bool:
        token = self._peek()
        return token is not None and token.kind != "string" and token.text.lower() in texts

    def _take(self, kind: str = "", text: str = "") -> _Token:
        token = self._peek()
        if token is None or (kind and token.kind != kind) or (text and token.text.lower() != text):
            raise _bad(f"expected {text or kind}, found {token.text if token else 'the end'!r}")
        self.i += 1
        return token

    # -- steps ----------------------------------------------------------------------------------

    def _step(self, word: str) -> Callable[[list[Row]], list[Row]]:
        match word:
            case "where":
                test = self._or()
                return lambda rows: [row for row in rows if test(row)]
            case "project":
                columns = self._columns()
                return lambda rows: [{name: value(row) for name, value in columns} for row in rows]
            case "extend":
                columns = self._columns()
                return lambda rows: [
                    {**row, **{name: value(row) for name, value in columns}} for row in rows
                ]
            case "order" | "sort":
                return self._order()
            case "take" | "limit":
                n = int(self._take("number").text)
                return lambda rows: rows[:n]
            case "top":
                n = int(self._take("number").text)
                ordered = self._order()
                return lambda rows: ordered(rows)[:n]
            case "count":
                return lambda rows: [{"Count": len(rows)}]
            case "distinct":
                columns = self._columns()
                return lambda rows: _distinct(
                    [{name: value(row) for name, value in columns} for row in rows]
                )
            case "summarize":
                return self._summarize()
            case _:
                raise _bad(f"the operator '{word}' is not played")

    def _columns(self) -> list[tuple[str, Value]]:
        columns: list[tuple[str, Value]] = []
        while True:
            token, after = self._peek(), self._peek(1)
            if token and token.kind == "name" and after and after.text == "=":
                self.i += 2
                columns.append((token.text, self._value()))
            else:
                start = self.i
                value = self._value()
                name = "_".join(
                    t.text for t in self.tokens[start : self.i] if t.kind in ("name", "number")
                )
                columns.append((name, value))
            if not self._is(","):
                return columns
            self.i += 1

    def _order(self) -> Callable[[list[Row]], list[Row]]:
        self._take("name", "by")
        keys: list[tuple[Value, bool]] = []
        while True:
            value, down = self._value(), True
            if self._is("asc", "desc"):
                down = self._take().text.lower() == "desc"
            keys.append((value, down))
            if not self._is(","):
                break
            self.i += 1

        def run(rows: list[Row]) -> list[Row]:
            out = list(rows)
            for value, down in reversed(keys):
                out.sort(key=partial(_sort_key, value), reverse=down)
            return out

        return run

    def _summarize(self) -> Callable[[list[Row]], list[Row]]:
        name = "count_"
        token, after = self._peek(), self._peek(1)
        if token and token.kind == "name" and after and after.text == "=":
            name = token.text
            self.i += 2
        self._take("name", "count")
        self._take("mark", "(")
        self._take("mark", ")")
        columns: list[tuple[str, Value]] = []
        if self._is("by"):
            self.i += 1
            columns = self._columns()

        def run(rows: list[Row]) -> list[Row]:
            groups: dict[str, Row] = {}
            for row in rows:
                found = {key: value(row) for key, value in columns}
                group = groups.setdefault(_text(found), {**found, name: 0})
                group[name] += 1
            return list(groups.values()) or ([] if columns else [{name: 0}])

        return run

    # -- conditions and values --------------------------------------------------------------------

    def _or(self) -> Callable[[Row], bool]:
        tests = [self._and()]
        while self._is("or"):
            self.i += 1
            tests.append(self._and())
        return lambda row: any(test(row) for test in tests)

    def _and(self) -> Callable[[Row], bool]:
        tests = [self._condition()]
        while self._is("and"):
            self.i += 1
            tests.append(self._condition())
        return lambda row: all(test(row) for test in tests)

    def _condition(self) -> Callable[[Row], bool]:
        if self._is("not"):
            self.i += 1
            self._take("mark", "(")
            test = self._or()
            self._take("mark", ")")
            return lambda row: not test(row)
        if self._is("("):
            start = self.i
            self.i += 1
            try:
                test = self._or()
                self._take("mark", ")")
            except ArmError:
                self.i = start
            else:
                return test
        left = self._value()
        token = self._peek()
        if token is None or token.text in (")", "|") or token.text.lower() in ("and", "or"):
            return lambda row: left(row) is True
        operator = self._take().text.lower()
        if self._is("~"):
            self.i += 1
        if operator in ("in", "!in", "!in~") or operator == "in~":
            return self._among(left, operator)
        right = self._value()
        return _test(left, operator, right)

    def _among(self, left: Value, operator: str) -> Callable[[Row], bool]:
        self._take("mark", "(")
        values = [self._value()]
        while self._is(","):
            self.i += 1
            values.append(self._value())
        self._take("mark", ")")
        fold, negative = operator.endswith("~"), operator.startswith("!")

        def run(row: Row) -> bool:
            mine = _text(left(row))
            others = [_text(value(row)) for value in values]
            if fold:
                mine, others = mine.lower(), [other.lower() for other in others]
            return (mine in others) is not negative

        return run

    def _value(self) -> Value:
        token = self._take()
        if token.kind == "string":
            text = re.sub(r"\\(.)", r"\1", token.text[1:-1])
            return lambda _row: text
        if token.kind == "number":
            number = float(token.text) if "." in token.text else int(token.text)
            return lambda _row: number
        if token.kind == "span":
            seconds = float(token.text[:-1]) * _SPANS[token.text[-1]]
            return lambda _row: timedelta(seconds=seconds)
        if token.kind != "name":
            raise _bad(f"unexpected {token.text!r}")
        lower = token.text.lower()
        if self._is("(") and lower not in ("and", "or"):
            return self._function(lower)
        if lower in ("true", "false", "null"):
            constant = {"true": True, "false": False, "null": None}[lower]
            return lambda _row: constant
        path: list[Any] = [token.text]
        while self._is(".", "["):
            if self._take().text == ".":
                path.append(self._take("name").text)
                continue
            inner = self._take()
            path.append(int(inner.text) if inner.kind == "number" else inner.text[1:-1])
            self._take("mark", "]")

        def get(row: Row) -> Any:
            value: Any = row
            for part in path:
                if isinstance(part, int):
                    value = value[part] if isinstance(value, list) and part < len(value) else None
                else:
                    value = _lookup(value, part) if isinstance(value, dict) else None
            return value

        return get

    def _function(self, name: str) -> Value:
        self._take("mark", "(")
        inner: list[Value] = []
        if name == "datetime":
            start = self.i
            while not self._is(")"):
                self.i += 1
            raw = "".join(t.text for t in self.tokens[start : self.i]).strip("'\"")
            self._take("mark", ")")
            when = _when(raw)
            if when is None:
                raise _bad(f"{raw!r} is not a time")
            return lambda _row: when
        while not self._is(")"):
            inner.append(self._value())
            if self._is(","):
                self.i += 1
        self._take("mark", ")")
        now = self.now
        match name, inner:
            case "ago", [span]:
                return lambda row: now - span(row)
            case "now", []:
                return lambda _row: now
            case (("todatetime" | "datetime"), [value]):
                return lambda row: _when(value(row))
            case "tostring", [value]:
                return lambda row: _text(value(row))
            case "tolower", [value]:
                return lambda row: _text(value(row)).lower()
            case "toupper", [value]:
                return lambda row: _text(value(row)).upper()
            case (("toint" | "tolong"), [value]):
                return lambda row: _number(value(row))
            case "isempty", [value]:
                return lambda row: _text(value(row)) == ""
            case "isnotempty", [value]:
                return lambda row: _text(value(row)) != ""
            case "isnull", [value]:
                return lambda row: value(row) is None
            case "isnotnull", [value]:
                return lambda row: value(row) is not None
            case "array_length", [value]:
                return lambda row: len(found) if isinstance(found := value(row), list) else None
            case "strcat", _:
                return lambda row: "".join(_text(value(row)) for value in inner)
            case _:
                raise _bad(f"the function '{name}' is not played")

    def run(self, rows: list[Row]) -> list[Row]:
        """Apply the steps to a table's rows."""
        for step in self.steps:
            rows = step(rows)
        return rows


def _number(value: Any) -> int | None:
    try:
        return int(float(_text(value)))
    except ValueError:
        return None


def _sortable(value: Any) -> tuple[int, Any]:
    if value is None:
        return (0, "")
    if isinstance(value, bool | int | float):
        return (1, float(value))
    return (2, _text(value).lower())


def _sort_key(value: Value, row: Row) -> tuple[int, Any]:
    return _sortable(value(row))


def _distinct(rows: list[Row]) -> list[Row]:
    seen: dict[str, Row] = {}
    for row in rows:
        seen.setdefault(_text(row), row)
    return list(seen.values())


def _test(left: Value, operator: str, right: Value) -> Callable[[Row], bool]:
    if operator in ("<", "<=", ">", ">="):

        def ordered(row: Row) -> bool:
            result = _compare(left(row), right(row))
            if result is None:
                return False
            return {"<": result < 0, "<=": result <= 0, ">": result > 0, ">=": result >= 0}[
                operator
            ]

        return ordered
    negative = operator.startswith("!")
    word = (
        operator.lstrip("!") if operator not in ("!=", "!~") else {"!=": "==", "!~": "=~"}[operator]
    )

    def test(row: Row) -> bool:
        a, b = left(row), right(row)
        a_text, b_text = _text(a), _text(b)
        folded_a, folded_b = a_text.lower(), b_text.lower()
        match word:
            case "==":
                yes = _compare(a, b) == 0
            case "=~":
                yes = folded_a == folded_b
            case "contains":
                yes = folded_b in folded_a
            case "startswith":
                yes = folded_a.startswith(folded_b)
            case "endswith":
                yes = folded_a.endswith(folded_b)
            case "has":
                yes = re.search(rf"(?<!\w){re.escape(folded_b)}(?!\w)", folded_a) is not None
            case _:
                raise _bad(f"the operator '{operator}' is not played")
        return yes is not negative

    return test


class Graph:
    """Answers queries, with paging, a quota per user and only what the caller may read."""

    def __init__(self, world: World) -> None:
        self.world = world

    def register(self, arm: Arm) -> None:
        """Teach the engine the query endpoint."""
        arm.route("POST", "/providers/Microsoft.ResourceGraph/resources", "", self._query)

    def _query(self, world: World, call: Call, names: dict[str, str]) -> Answer:
        body = call.json()
        text = body.get("query")
        if not isinstance(text, str) or not text.strip():
            raise _bad("query is required")
        call.operation = "Microsoft.ResourceGraph/resources/read"
        query = _Query(text, call.now)
        scopes = body.get("subscriptions")
        visible = [
            str(s["subscriptionId"]).lower()
            for _, s in world.store.items("subscriptions")
            if world.access.sees(call, f"/subscriptions/{s['subscriptionId']}")
        ]
        if scopes:
            visible = [s for s in visible if s in {str(x).lower() for x in scopes}]
        rows = query.run(self._rows(call, query.table, set(visible)))
        options = body.get("options") or {}
        top = min(int(options.get("$top") or MAX_ROWS), MAX_ROWS)
        token = options.get("$skipToken")
        try:
            start = int(token) if token else int(options.get("$skip") or 0)
        except (TypeError, ValueError):
            raise _bad("the skip token is not valid") from None
        page = rows[start : start + top]
        shown: list[Any] = [{k: _shown(v) for k, v in row.items()} for row in page]
        answer: Body = {
            "totalRecords": len(rows),
            "count": len(shown),
            "data": shown,
            "facets": [],
            "resultTruncated": "false",
        }
        if options.get("resultFormat") == "table":
            names_ = list(page[0]) if page else []
            answer["data"] = {
                "columns": [{"name": n, "type": "object"} for n in names_],
                "rows": [[_shown(row.get(n)) for n in names_] for row in page],
            }
        if start + top < len(rows):
            answer["$skipToken"] = str(start + top)
        return Answer(
            200,
            answer,
            {"x-ms-user-quota-remaining": "14", "x-ms-user-quota-resets-after": "00:00:05"},
        )

    def _rows(self, call: Call, table: str, visible: set[str]) -> list[Row]:
        world = self.world
        if table == "resourcechanges":
            return [
                row
                for row in world.activity.changes(call.now.timestamp())
                if row["subscriptionId"].lower() in visible
                and world.access.sees(call, row["properties"]["targetResourceId"], "*/read")
            ]
        if table == "resourcecontainers":
            rows: list[Row] = [
                {
                    "id": f"/subscriptions/{s['subscriptionId']}",
                    "name": s["displayName"],
                    "type": "microsoft.resources/subscriptions",
                    "subscriptionId": s["subscriptionId"],
                    "tenantId": world.identity.tenant,
                }
                for _, s in world.store.items("subscriptions")
                if str(s["subscriptionId"]).lower() in visible
            ]
            rows += [
                {
                    "id": g["id"],
                    "name": g["name"],
                    "type": "microsoft.resources/subscriptions/resourcegroups",
                    "location": g["location"],
                    "resourceGroup": g["name"],
                    "subscriptionId": key.partition("/")[0],
                    "tags": g.get("tags") or {},
                    "tenantId": world.identity.tenant,
                }
                for key, g in world.store.items("groups")
                if key.partition("/")[0] in visible
            ]
            return rows
        found = []
        for subscription in visible:
            kind = ASSIGNMENT if table == "authorizationresources" else None
            for record in world.arm.below(f"/subscriptions/{subscription}", kind):
                rid = record.rid
                if table == "resources" and not covered(rid, record.body):
                    continue
                if not world.access.sees(call, record.id, f"{rid.type}/read"):
                    continue
                shown = world.arm.behaviour(rid).view(world, record)
                found.append(
                    {
                        "id": record.id,
                        "name": record.name,
                        "type": rid.type.lower(),
                        "tenantId": world.identity.tenant,
                        "kind": shown.get("kind", ""),
                        "location": str(shown.get("location", "")).replace(" ", "").lower(),
                        "resourceGroup": rid.group.lower(),
                        "subscriptionId": rid.subscription,
                        "managedBy": "",
                        "sku": shown.get("sku"),
                        "plan": None,
                        "properties": shown.get("properties"),
                        "tags": shown.get("tags") or {},
                        "identity": shown.get("identity"),
                        "zones": None,
                        "extendedLocation": None,
                    }
                )
        return found


def _shown(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
