"""Agent smoke run: an agent answers through its project, and uses its tool on the way."""

from __future__ import annotations

import re
from dataclasses import replace

import orjson

from drills.checks.asked import AskedCheck, Judged, not_run, verdict
from drills.checks.asking import Bounds, Said, respond
from drills.checks.golden import together
from drills.checks.settings import Settings
from drills.checks.targets import find, project_place
from drills.model import CheckContext
from snapshots.model import Json, JsonObject, Key

_ROUNDS = 4  # of function calls until the agent must have answered


def judged_run(run: list[Said], tool: str, pattern: str, who: Key) -> Judged:
    """Judge the rounds of one run: the tool was called, and the last answer fits."""
    used = [call.name for said in run for call in said.tools]
    last = run[-1]
    arguments = [call for said in run for call in said.tools if call.arguments]
    readable = all(_is_json(call.arguments) for call in arguments)
    fits = bool(last.text.strip()) and re.search(pattern, last.text) is not None
    called = not tool or tool in used
    words: list[str] = []
    if not called:
        words.append(f"did not call {tool}")
    if not readable:
        words.append("called a tool with arguments that are no JSON")
    if last.filtered:
        words.append(f"was stopped by a filter at the {last.filtered}")
    elif not fits:
        words.append("did not answer" if not last.text.strip() else "answered something else")
    tools: list[Json] = list(used)
    expected: JsonObject = {"agent": str(who), "tool": tool, "answer": pattern or "any"}
    observed: JsonObject = {"tools": tools, "answer": last.text, "rounds": len(run)}
    return verdict(not words, expected, observed, f"{who.name} {' and '.join(words)}")


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


class AgentSmokeCheck(AskedCheck):
    """An agent of a Foundry project answers a question and calls its tool.

    `tool` names a function, or the type of a built-in tool such as file_search; a function's
    result is `tool_output`. Its control is the same run as an agent without tools would give it.
    """

    KNOWN_AS = "agent-smoke"
    ABOUT = "An agent answers through its project, calling its tool on the way."

    def read(self, settings: Settings) -> None:
        """Read the settings."""
        self.agent = settings.text("agent")
        self.prompt = settings.required("prompt", "what the agent is asked")
        self.tool = settings.required("tool", "the tool that must be called (file_search, …)")
        self.pattern = settings.text("expect")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise settings.wrong(
                f"expect is no regular expression: {error}", "escape what is meant literally"
            ) from None
        self.output = settings.text("tool_output", "ok")
        self.max_answer = settings.whole("max_answer_tokens", 400, least=1, most=100_000)
        self.bounds = Bounds.read(settings)

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Run every agent."""
        found = find(context, self.declaration.subject, frozenset({"agent"}), self.agent)
        judged: list[Judged] = []
        if found.missing and not broken:
            judged.append(verdict(False, "agents", None, found.complaint()))
        if found.hidden:
            judged.append(not_run(f"{found.hidden[0].key}: {found.hidden[0].detail}"))
        for agent in found.there:
            run = self._run(context, agent.key)
            if broken:
                run = [replace(said, tools=(), items=()) for said in run[-1:]]
            judged.append(judged_run(run, self.tool, self.pattern, agent.key))
        return together(judged)

    def _run(self, context: CheckContext, agent: Key) -> list[Said]:
        place = project_place(context, agent)
        allowance = self.bounds.allowance()
        asked: JsonObject = {"role": "user", "content": self.prompt}
        items: list[Json] = [asked]
        run: list[Said] = []
        while len(run) < _ROUNDS:
            said = respond(context, place, agent.name, items, allowance, max_tokens=self.max_answer)
            run.append(said)
            waiting = [call for call in said.tools if call.arguments and call.id]
            if not waiting:
                break
            items.extend(said.items)
            for call in waiting:
                result: JsonObject = {"type": "function_call_output", "call_id": call.id}
                items.append({**result, "output": self.output})
        return run
