"""One run of the command line: its options, its exit codes, and where its words go."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.runlog import RunLog
from muster.settings import Environment, Settings, find, load

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from snapshots.cloud import BucketView
    from snapshots.model import JsonObject


class Exit(IntEnum):
    """What the exit code says; commands return it and cli.py does the rest."""

    CLEAN = 0  # clean, or done
    ERROR = 1  # bad input, denied, unreachable
    FINDINGS = 2  # findings, damage, or a failed verdict
    INCOMPLETE = 3  # something could not be read
    INTERRUPTED = 130  # Ctrl-C


MEANINGS = {
    Exit.CLEAN: "done, nothing amiss",
    Exit.ERROR: "error: bad input, denied, unreachable",
    Exit.FINDINGS: "findings, damage or a failed verdict",
    Exit.INCOMPLETE: "incomplete: something could not be read",
}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def safe(text: str) -> str:
    """Make a name from outside harmless for a terminal: control characters become visible."""

    def visible(match: re.Match[str]) -> str:
        code = ord(match.group())
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return _CONTROL.sub(visible, text)


@dataclass(slots=True)
class Invocation:
    """The options that every command shares, filled while the command line is read."""

    environment: Environment = field(default_factory=Environment.read)
    config: Path | None = None
    format: str = "text"
    quiet: bool = False
    color: bool = True
    terminal: bool | None = None  # None: whatever stderr is
    log: RunLog = field(default_factory=RunLog)
    emitted: bool = False  # whether stdout has its document already
    _settings: Settings | None = None

    @property
    def json(self) -> bool:
        """Whether a machine reads along."""
        return self.format == "json"

    @property
    def config_file(self) -> Path | None:
        """The configuration that was named, on the line or in the environment."""
        return self.config or self.environment.config

    def settings(self) -> Settings:
        """Read the configuration, once. Raises SettingsError."""
        if self._settings is None:
            self._settings = load(find(self.config_file))
        return self._settings

    def emit(self, document: JsonObject) -> None:
        """Write the one JSON document of this run to stdout."""
        from snapshots.model import pretty

        self.write(pretty(document))

    def write(self, document: str | bytes) -> None:
        """Write the one document of this run to stdout: as UTF-8, whatever the locale says."""
        self.emitted = True
        data = document if isinstance(document, bytes) else document.encode()
        has_bytes = hasattr(sys.stdout, "buffer")
        click.echo(data if has_bytes else data.decode(), nl=False)

    def say(self, text: str) -> None:
        """Tell a person something that is not the result: to stderr, unless --quiet."""
        if not self.quiet:
            click.echo(safe_lines(text), err=True)

    def warn(self, text: str) -> None:
        """Tell a person what they should not miss: to stderr, always."""
        self.log.write("warning", {"text": text}, severity="WARN")
        click.echo(
            click.style("warning: ", fg="yellow") + safe_lines(text),
            err=True,
            color=self._paint(err=True),
        )

    def observe(
        self, verb: str, document: Callable[[], JsonObject], budget: Iterable[BucketView] = ()
    ) -> None:
        """Send a verb's result as metrics and write it to the log, where either is wanted."""
        from muster import metrics

        if not metrics.enabled() and not self.log.target:
            return
        made = document()
        estate = self.settings().estate.name
        facts = {
            f"{m.name}{list(m.of.values())}" if m.of else m.name: m.value
            for m in metrics.measures(verb, made)
        }
        self.log.write("result", {"estate": estate, **facts})
        metrics.record(
            verb,
            made,
            now=datetime.now(UTC),
            estate=estate,
            budget={view.name: view.remaining / max(view.capacity, 1) for view in budget},
            warn=self.warn,
        )

    def _paint(self, *, err: bool = False) -> bool:
        stream = sys.stderr if err else sys.stdout
        return self.color and self.environment.color and stream.isatty()

    def console(self, *, err: bool = False) -> Console:
        """Give the terminal for tables. Names from outside go through `safe` first."""
        from rich.console import Console

        stream = sys.stderr if err else sys.stdout
        return Console(
            file=stream,
            no_color=not (self.color and self.environment.color),
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=not stream.isatty(),
            width=None if stream.isatty() else 160,
        )

    def show(self, *parts: RenderableType) -> None:
        """Print text or tables to stdout."""
        console = self.console()
        for part in parts:
            console.print(part)

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Ask before something is lost. Without a person to ask, the answer is no."""
        if yes:
            return True
        if not sys.stdin.isatty():
            self.warn("nobody is there to ask: say --yes to go on")
            return False
        return click.confirm(safe_lines(question), default=False, err=True)


def safe_lines(text: str) -> str:
    """Like `safe`, but line ends stay."""
    return "\n".join(safe(line) for line in text.split("\n"))


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        if value is not None and value is not False:
            invocation = context.find_object(Invocation)
            if invocation is not None:
                setattr(invocation, name, not value if name == "color" else value)
        return value

    return callback


def shared_options() -> list[click.Option]:
    """Make the options that are accepted before and after the name of every command."""
    return [
        click.Option(
            ["--config"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            expose_value=False,
            callback=_keep("config"),
            help="The configuration (else MUSTER_CONFIG, else muster.toml here or above).",
        ),
        click.Option(
            ["--format"],
            type=click.Choice(["text", "json"]),
            expose_value=False,
            callback=_keep("format"),
            help="text for people (the default), json for machines.",
        ),
        click.Option(
            ["--quiet", "-q"],
            is_flag=True,
            expose_value=False,
            callback=_keep("quiet"),
            help="No progress and no hints; warnings stay.",
        ),
        click.Option(
            ["--no-color"],
            is_flag=True,
            expose_value=False,
            callback=_keep("color"),
            help="No colours (also: NO_COLOR).",
        ),
    ]


class Command(click.Command):
    """A command with the shared options, and with its exit codes and examples in its help.

    A command that declares one of the shared options itself keeps its own.
    """

    examples: tuple[str, ...] = ()
    exits: tuple[Exit, ...] = (Exit.CLEAN, Exit.ERROR)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Add the shared options to the command's own."""
        own = {option for parameter in self.params for option in parameter.opts}
        shared = [o for o in shared_options() if not own.intersection(o.opts)]
        found: list[click.Parameter] = [*self.params, *shared]
        help_option = self.get_help_option(ctx)
        return found if help_option is None else [*found, help_option]

    def format_epilog(
        self,
        ctx: click.Context,  # noqa: ARG002  click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the examples and the exit codes."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code.value), MEANINGS[code]) for code in self.exits])


def described(
    *examples: str, exits: tuple[Exit, ...] = (Exit.CLEAN, Exit.ERROR)
) -> Callable[[Command], Command]:
    """Give a command its examples and its exit codes."""

    def decorate(command: Command) -> Command:
        command.examples = examples
        command.exits = exits
        return command

    return decorate
