"""Golden data sets, what was asked and what is expected: read, written, recorded, kept."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from drills.checks.asking import Question
from drills.checks.scoring import Expect, Expectation
from drills.checks.targets import text_at
from drills.model import CheckContext
from snapshots.errors import InputError, NotFoundError
from snapshots.model import JsonObject, digest

SHIPPED = Path(__file__).resolve().parent.parent / "golden"
BRANCH = "evidence"  # where the ledger keeps golden sets, under golden/
_LEDGER = "ledger:"
LARGEST = 16 * 1024 * 1024  # bytes: a set is read whole
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})\Z")
MARK = "golden"  # the first line says {"golden": 1, …}
NEARNESS = {Expect.SIMILARITY: 0.9, Expect.VECTOR: 0.99}
_ROLES = frozenset({"system", "developer", "user", "assistant"})


@dataclass(frozen=True, slots=True)
class Case:
    """One question and what is expected of its answer.

    `base` is what the base model answered when a fine-tuned model was recorded, "" when nobody
    asked it. Of `repeats` answers the share `tolerance` may miss the expectation.
    """

    id: str
    question: Question
    expect: Expectation
    repeats: int = 1
    tolerance: float = 0.0
    base: str = ""

    @property
    def prompt(self) -> str:
        """The last user turn."""
        return text_at(self.question.messages[-1], "content")


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """Cases for one deployment, known by the digest of the file they came from.

    `seconds` is the median time of an answer when it was recorded, the baseline of latency.
    """

    name: str
    deployment: str
    cases: tuple[Case, ...]
    model: str = ""  # that was recorded, for people
    embeddings: str = ""  # deployment for similarity
    judge: str = ""  # deployment for judge
    dimensions: int | None = None  # of vectors
    seconds: float = 0.0
    temperature: float | None = 0.0
    recorded_at: str = ""
    digest: str = field(default="", compare=False)

    def lines(self) -> bytes:
        """Give it as JSONL: a head, then a case a line."""
        head: JsonObject = {
            MARK: 1,
            "name": self.name,
            "deployment": self.deployment,
            "model": self.model,
            "embeddings": self.embeddings,
            "judge": self.judge,
            "dimensions": self.dimensions,
            "seconds": round(self.seconds, 4),
            "temperature": self.temperature,
            "recorded_at": self.recorded_at,
        }
        kept = [{k: v for k, v in head.items() if v not in ("", None, 0.0) or k == "temperature"}]
        kept += [_line(case) for case in self.cases]
        return b"".join(orjson.dumps(line) + b"\n" for line in kept)


def _line(case: Case) -> JsonObject:
    expect = case.expect.shown()
    if case.expect.schema is not None:
        expect["schema"] = case.expect.schema
    if case.expect.vector:
        expect["vector"] = list(case.expect.vector)
    line: JsonObject = {"id": case.id}
    question = case.question
    if len(question.messages) == 1 and question.messages[0].get("role") == "user":
        line["prompt"] = case.prompt
    else:
        line["messages"] = list(question.messages)
    line["expect"] = expect
    if question.max_tokens != 200:
        line["max_tokens"] = question.max_tokens
    if question.response_format is not None:
        line["response_format"] = question.response_format
    if case.repeats != 1:
        line["repeats"] = case.repeats
    if case.tolerance:
        line["tolerance"] = case.tolerance
    if case.base:
        line["base"] = case.base
    return line


# --------------------------------------------------------------------------------------- reading


@dataclass(slots=True)
class Row:
    """One line of a set, read by name; complaints name file and line (InputError)."""

    found: JsonObject
    where: str

    def wrong(self, what: str) -> InputError:
        """Give the error for this line."""
        return InputError(what, where=self.where, remedy="docs/checks.md shows the format")

    def text(self, name: str, default: str = "") -> str:
        """Give a text."""
        value = self.found.get(name, default)
        if not isinstance(value, str):
            raise self.wrong(f"{name} is a text, not {value!r}")
        return value

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """Give a number within bounds."""
        value = self.found.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(f"{name} is a number, not {value!r}")
        if not least <= value <= most:
            raise self.wrong(f"{name} is a number from {least:g} to {most:g}, not {value:g}")
        return float(value)

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """Give a whole number within bounds."""
        value = self.number(name, default, least, most)
        if value != int(value):
            raise self.wrong(f"{name} is a whole number, not {value:g}")
        return int(value)

    def only(self, *names: str) -> None:
        """Refuse what is not known."""
        unknown = sorted(set(self.found) - set(names))
        if unknown:
            raise self.wrong(f"unknown {unknown[0]!r}; known are {', '.join(sorted(names))}")


def rows_of(data: bytes, where: str) -> list[Row]:
    """Read JSONL. Raises InputError with file and line for what is no JSON object."""
    rows: list[Row] = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(
                f"not JSON: {error}", where=f"{where}:{number}", remedy="one JSON object a line"
            ) from None
        row = Row(found if isinstance(found, dict) else {}, f"{where}:{number}")
        if not isinstance(found, dict):
            raise row.wrong("a line is a JSON object")
        rows.append(row)
    return rows


def parse(data: bytes, where: str) -> GoldenSet:
    """Read a set. Raises InputError with file and line for whatever is wrong with it."""
    rows = rows_of(data, where)
    if not rows or rows[0].found.get(MARK) != 1:
        raise InputError(
            'a golden set begins with {"golden": 1, "name": …, "deployment": …}',
            where=f"{where}:1",
            remedy="docs/checks.md shows the format",
        )
    golden = made_of(rows, Path(where).stem)
    return replace(golden, digest=digest(data))


def made_of(rows: Sequence[Row], name: str) -> GoldenSet:
    """Give the set that a head and its cases describe. Raises InputError with file and line."""
    head = rows[0]
    head.only(
        MARK, "name", "deployment", "model", "embeddings", "judge", "dimensions", "seconds",
        "temperature", "recorded_at",
    )  # fmt: skip
    warm = head.found.get("temperature", 0.0)
    temperature = None if warm is None else head.number("temperature", 0.0, 0.0, 2.0)
    dimensions = head.whole("dimensions", 0, 0, 10_000) or None
    if not head.text("deployment"):
        raise head.wrong("a golden set names its deployment")
    cases = tuple(_case(row, temperature) for row in rows[1:])
    if not cases:
        raise head.wrong("a golden set without cases proves nothing")
    ids = [case.id for case in cases]
    for at, id_ in enumerate(ids):
        if id_ in ids[:at]:
            raise rows[at + 1].wrong(f"two cases have the id {id_!r}")
    return GoldenSet(
        name=head.text("name") or name,
        deployment=head.text("deployment"),
        cases=cases,
        model=head.text("model"),
        embeddings=head.text("embeddings"),
        judge=head.text("judge"),
        dimensions=dimensions,
        seconds=head.number("seconds", 0.0, 0.0, 86_400.0),
        temperature=temperature,
        recorded_at=head.text("recorded_at"),
    )


def _case(row: Row, temperature: float | None) -> Case:
    row.only(
        "id", "prompt", "messages", "expect", "max_tokens", "response_format", "repeats",
        "tolerance", "base",
    )  # fmt: skip
    id_ = row.text("id")
    if not id_:
        raise row.wrong("a case has an id")
    messages = row.found.get("messages")
    if (messages is None) == ("prompt" not in row.found):
        raise row.wrong("a case has either a prompt or messages")
    if messages is None:
        prompt = row.text("prompt")
        given: list[JsonObject] = [{"role": "user", "content": prompt}]
    else:
        items = messages if isinstance(messages, list) else []
        given = [m for m in items if isinstance(m, dict)]
        if not given or len(given) != len(items):
            raise row.wrong("messages is a list of objects")
    for message in given:
        if message.get("role") not in _ROLES or not text_at(message, "content"):
            raise row.wrong("a message has a role and a content that is a text")
    if given[-1].get("role") != "user":
        raise row.wrong("the last message is the user's")
    return Case(
        id=id_,
        question=Question(
            tuple(given),
            row.whole("max_tokens", 200, 1, 100_000),
            temperature,
            response_format=row.found.get("response_format"),
        ),
        expect=_expectation(row),
        repeats=row.whole("repeats", 1, 1, 1000),
        tolerance=row.number("tolerance", 0.0, 0.0, 0.99),
        base=row.text("base"),
    )


def _expectation(row: Row) -> Expectation:
    found = row.found.get("expect")
    if not isinstance(found, dict):
        raise row.wrong("a case says what it expects: an object with a kind")
    inner = Row(found, row.where)
    inner.only("kind", "text", "schema", "threshold", "vector", "side")
    try:
        kind = Expect(inner.text("kind"))
    except ValueError:
        known = ", ".join(Expect)
        raise row.wrong(f"kind is {found.get('kind')!r}; it is one of {known}") from None
    text = inner.text("text")
    if kind in {Expect.EXACT, Expect.PATTERN, Expect.SIMILARITY, Expect.JUDGE} and not text:
        raise row.wrong(f"an expectation of the kind {kind.value} has a text")
    if kind is Expect.PATTERN:
        try:
            re.compile(text)
        except re.error as error:
            raise row.wrong(f"not a regular expression: {error}") from None
    schema = found.get("schema")
    if kind is Expect.JSON_SCHEMA:
        try:
            Draft202012Validator.check_schema(schema if schema is not None else 0)  # type: ignore[arg-type]  # 0 is refused
        except SchemaError as error:
            raise row.wrong(f"not a JSON schema: {error.message}") from None
    raw = found.get("vector", [])
    numbers = raw if isinstance(raw, list) else ["x"]
    vector = tuple(
        float(x)
        for x in numbers
        if isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
    )
    if len(vector) != len(numbers) or (kind is Expect.VECTOR and not any(vector)):
        raise row.wrong("vector is a list of numbers, not all of them 0")
    if inner.text("side") not in {"", "prompt", "completion"}:
        raise row.wrong("side is prompt or completion")
    least = NEARNESS.get(kind, 0.0)
    return Expectation(
        kind, text, schema, inner.number("threshold", least, -1.0, 1.0), vector, inner.text("side")
    )


def load(reference: str, context: CheckContext) -> GoldenSet:
    """Read a set by reference, and keep the version that is used where there is a ledger.

    A path beside the configuration, `sha256:…` in the vault, `ledger:NAME` for the version that was
    used last, or the name of a shipped one (`demo/claims-triage`). Raises NotFoundError,
    InputError, and StoreError when it cannot be kept.
    """
    if reference.startswith(_LEDGER):
        return parse(_kept(reference, context), reference)
    if match := _DIGEST.match(reference):
        if context.vault is None:
            raise NotFoundError(
                f"{reference} is in a vault, and there is none", remedy="configure a vault"
            )
        size = context.vault.size(match[1])
        if size > LARGEST:
            raise _too_large(reference, size)
        return parse(b"".join(bytes(b) for b in context.vault.read(match[1])), reference)
    # What lies beside the configuration comes first, so that a user can replace a shipped set.
    for path in (context.folder / reference, SHIPPED / reference, SHIPPED / f"{reference}.jsonl"):
        try:
            if path.is_file():
                if path.stat().st_size > LARGEST:
                    raise _too_large(reference, path.stat().st_size)
                data = path.read_bytes()
                golden = parse(data, reference)
                _version(context, golden, data)
                return golden
        except OSError as error:
            raise NotFoundError(
                f"the golden set cannot be read: {error.strerror}", where=reference
            ) from None
    raise NotFoundError(
        f"there is no golden set {reference}",
        where=str(context.folder),
        remedy="give a path beside the configuration, a digest sha256:… or a shipped set",
    )


def kept_as(context: CheckContext, name: str) -> bytes | None:
    """Give the version of a set that the ledger has, None when it has none of that name."""
    return _in_ledger(context).get(_path(name))


def _kept(reference: str, context: CheckContext) -> bytes:
    name = reference.removeprefix(_LEDGER)
    found = kept_as(context, name)
    if found is None:
        raise NotFoundError(
            f"the ledger keeps no golden set called {name}",
            where=f"{BRANCH}:golden/",
            remedy="a check that uses a set keeps it there; name its file once",
        )
    return found


def _path(name: str) -> str:
    return f"golden/{re.sub(r'[^A-Za-z0-9._-]', '-', name).lstrip('.')[:100]}.jsonl"


def _in_ledger(context: CheckContext) -> dict[str, bytes]:
    if context.ledger is None:
        return {}
    try:
        return dict(context.ledger.files(BRANCH, "golden/"))
    except NotFoundError:
        return {}  # no drill was run yet: there is no such branch


def _version(context: CheckContext, golden: GoldenSet, data: bytes) -> None:
    """Keep the bytes that are asked about, so that evidence can be read years later."""
    if context.ledger is not None and _in_ledger(context).get(_path(golden.name)) != data:
        _put(context, golden.name, data)


def _put(context: CheckContext, name: str, data: bytes) -> str:
    found = digest(data)
    if context.vault is not None:
        context.vault.keep([data], sha256=found, size=len(data), name="golden")
    if context.ledger is not None:
        message, trailers = f"Keep the golden set {name}", {"Golden-Digest": found}
        context.ledger.put(BRANCH, {_path(name): data}, message, trailers)
    return found


def _too_large(reference: str, size: int) -> InputError:
    return InputError(
        f"the golden set has {size} bytes, the most is {LARGEST}",
        where=reference,
        remedy="split it into several sets",
    )


def keep(context: CheckContext, golden: GoldenSet) -> str:
    """Keep a set in the vault by digest and in the ledger by name; give its digest.

    The ledger's history of `golden/NAME.jsonl` is the set's history.
    """
    return _put(context, golden.name, golden.lines())


def pinned(golden: GoldenSet, wanted: str) -> None:
    """Raise InputError unless the set has the digest that a script asks for ("" asks for none)."""
    if wanted and golden.digest != wanted.removeprefix("sha256:"):
        raise InputError(
            f"the golden set {golden.name} is not the one that was agreed upon",
            where=f"sha256:{golden.digest}",
            remedy=f"bring sha256:{wanted.removeprefix('sha256:')} back, or agree upon the new one",
        )
