"""Write docs/commands.md from the commands themselves: `python -m muster.commands.reference`."""

from __future__ import annotations

import sys

import click

from muster.cli import COMMANDS, SECTIONS, front
from muster.invocation import MEANINGS, Command

# Their pages are docs/sandbox.md, docs/quick-start.md, docs/drills.md and docs/site.md.
ELSEWHERE = frozenset({"sandbox", "demo", "drill", "report"})


def text() -> str:
    """Give the whole page."""
    lines = [
        "# Commands",
        "",
        "Written by `python -m muster.commands.reference`; a test fails when it is out of date.",
        "",
        "Every command takes `--config FILE` (or `MUSTER_CONFIG`; else `muster.toml` here or",
        "above), `--format text|json`, `--quiet` and `--no-color` (or `NO_COLOR`), before or after",
        "its name.",
        "Results go to stdout, progress and warnings to stderr. The JSON of a command is described",
        "in `docs/schemas/<command>.schema.json`, that of an error in `error.schema.json`: with",
        "`--format json` stdout has one document at every exit code.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        *(f"| {code.value} | {words} |" for code, words in MEANINGS.items()),
        "",
    ]
    context = click.Context(front, info_name="muster")
    for section in SECTIONS:
        names = [n for n, e in COMMANDS.items() if e.section == section and n not in ELSEWHERE]
        if names:
            lines += [f"## {section}", ""]
        for name in names:
            found = front.get_command(context, name)
            if isinstance(found, Command):
                lines += _command(found, click.Context(found, info_name=name, parent=context))
    lines += [
        "## Elsewhere",
        "",
        "`muster sandbox` is described in [the sandbox](sandbox.md), `muster demo` in the",
        "[quick start](quick-start.md), `muster drill` in [drills](drills.md), `muster report` in",
        "[the report](site.md).",
    ]
    return "\n".join(lines).rstrip() + "\n"


def _command(command: Command, context: click.Context) -> list[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    usage = f"muster {command.name} {usage}".rstrip()
    lines = [f"### muster {command.name}", "", "```", usage, "```", ""]
    paragraphs = (command.help or "").split("\n\n")
    lines += [line for p in paragraphs for line in (" ".join(p.split()), "")]
    options = [
        record
        for parameter in command.params
        if (record := parameter.get_help_record(context)) is not None
    ]
    if options:
        lines += ["| option | |", "|---|---|"]
        lines += [f"| `{_cell(name)}` | {_cell(words)} |" for name, words in options]
        lines.append("")
    if command.examples:
        lines += ["```", *command.examples, "```"]
    codes = ", ".join(f"{code.value} {MEANINGS[code]}" for code in command.exits)
    return [*lines, "", f"Exit codes: {codes}.", ""]


def _cell(words: str) -> str:
    return " ".join(words.replace("|", "\\|").split())


if __name__ == "__main__":
    sys.stdout.write(text())
