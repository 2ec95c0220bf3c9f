"""The command line: one sub-command per verb, and the one place that turns errors into words."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import itertools
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

import click

from muster import __version__
from muster.invocation import Exit, Invocation, safe_lines, shared_options
from muster.runlog import RunLog
from snapshots.errors import MusterError

if TYPE_CHECKING:
    from snapshots.model import Json, JsonObject


class Entry(NamedTuple):
    """Where a sub-command lives, and what it does in a few words."""

    target: str  # module:attribute, imported when it is asked for
    help: str
    section: str


# The words are here, and not taken from the commands, so that `muster --help` imports none of them.
COMMANDS: dict[str, Entry] = {
    "init": Entry(
        "muster.commands.init:command", "Write a configuration from what is there.", "Begin"
    ),
    "doctor": Entry(
        "muster.commands.doctor:command", "Check access, permissions, tools and stores.", "Begin"
    ),
    "demo": Entry(
        "muster.commands.demo:command", "Tell the whole story in minutes, without Azure.", "Begin"
    ),
    "sandbox": Entry(
        "muster.commands.sandbox:command", "Serve a local Azure to try things in.", "Begin"
    ),
    "snapshot": Entry(
        "muster.commands.snapshot:command", "Take the estate's state and keep it.", "Keep"
    ),
    "verify": Entry("muster.commands.verify:command", "Prove that what was kept is whole.", "Keep"),
    "prune": Entry(
        "muster.commands.prune:command", "Let old snapshots go (dry by default).", "Keep"
    ),
    "log": Entry("muster.commands.log:command", "List the snapshots.", "Look"),
    "show": Entry(
        "muster.commands.show:command", "Show a snapshot, or one resource of it.", "Look"
    ),
    "asof": Entry("muster.commands.asof:command", "Show what was there at a moment.", "Look"),
    "diff": Entry(
        "muster.commands.diff:command", "Say what differs between two snapshots.", "Look"
    ),
    "lineage": Entry(
        "muster.commands.lineage:command", "What a resource came from and what it reached.", "Look"
    ),
    "coverage": Entry(
        "muster.commands.coverage:command",
        "How each kind would come back, and what was unread.",
        "Look",
    ),
    "audit": Entry(
        "muster.commands.audit:command",
        "What differs from the baseline: who, when, how bad.",
        "Decide",
    ),
    "approve": Entry(
        "muster.commands.approve:command", "Take findings into the baseline.", "Decide"
    ),
    "ignore": Entry(
        "muster.commands.ignore:command", "Leave findings alone for a while.", "Decide"
    ),
    "revert": Entry("muster.commands.revert:command", "Undo findings (dry by default).", "Decide"),
    "history": Entry(
        "muster.commands.history:command", "Every change of one resource, with its author.", "Look"
    ),
    "blame": Entry(
        "muster.commands.blame:command", "Who set each property of a resource last.", "Look"
    ),
    "replicate": Entry(
        "muster.commands.replicate:command",
        "Keep the standby in step with the primary.",
        "Recover",
    ),
    "ready": Entry(
        "muster.commands.ready:command", "Could we recover right now? Touches nothing.", "Recover"
    ),
    "plan": Entry(
        "muster.commands.restore:plan",
        "Show what a restore would do, and change nothing.",
        "Recover",
    ),
    "restore": Entry(
        "muster.commands.restore:command",
        "Bring a snapshot back, in place or elsewhere (dry by default).",
        "Recover",
    ),
    "resume": Entry(
        "muster.commands.resume:command", "Go on after a crash, a stop or a repair.", "Recover"
    ),
    "undo": Entry(
        "muster.commands.resume:undo", "Take back what was applied (dry by default).", "Recover"
    ),
    "approve-run": Entry(
        "muster.commands.approve_run:command",
        "Decide about a restore or a drill that waits in Prefect.",
        "Recover",
    ),
    "drill": Entry(
        "muster.commands.drill:command",
        "Rehearse failover and restore, and keep the evidence.",
        "Rehearse",
    ),
    "report": Entry(
        "muster.commands.report:command",
        "Write the site: what is recoverable, and what is not.",
        "Rehearse",
    ),
}
# How loud the log says that a command ended.
_SEVERITY: Final[Mapping[int, str]] = {Exit.CLEAN: "INFO", Exit.ERROR: "ERROR"}
SECTIONS = ("Begin", "Keep", "Look", "Decide", "Recover", "Rehearse")


class Front(click.Group):
    """The group of all sub-commands: imports one only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Name the sub-commands."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002  click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import a sub-command, or None when there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, click.Command):
            message = f"{entry.target} is no command"
            raise TypeError(message)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the sub-command, or suggest one."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, 2, 0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "see `muster --help`"
            ctx.fail(f"there is no command {name!r}: {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002  click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """List the sub-commands by section, without importing any."""
        for section in SECTIONS:
            rows = [(name, e.help) for name, e in COMMANDS.items() if e.section == section]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)


@click.command(
    cls=Front,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=list(shared_options()),
    no_args_is_help=True,
    epilog="Exit codes: 0 clean or done, 1 error, 2 findings or a failed verdict, 3 incomplete, "
    "130 interrupted.",
)
@click.version_option(
    __version__, "-V", "--version", prog_name="muster", message="%(prog)s %(version)s"
)
def front() -> None:
    """Keep AI workloads on Azure recoverable, and prove it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit code. No exception leaves, SystemExit included."""
    invocation = Invocation()
    with contextlib.suppress(ValueError, AttributeError):  # no such signal, or not the main thread
        signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show is no error
        sys.stdout.reconfigure(errors="backslashreplace")
    if not (invocation.environment.debug or logging.getLogger().handlers):
        # Without a handler Python prints the libraries' warnings, a line for each of our retries;
        # what they are about is told once, as our error.
        logging.getLogger().addHandler(logging.NullHandler())
    arguments = list(sys.argv[1:] if argv is None else argv)
    log = invocation.log = RunLog(
        invocation.environment.log,
        lambda text: _scrub(text, invocation),
        command=next((word for word in arguments if word in COMMANDS), ""),
    )
    log.write("started", {"version": __version__})
    began = time.monotonic()
    told = _Told(invocation, arguments, log.command)
    code = _run(arguments, told)
    seconds = round(time.monotonic() - began, 3)
    log.write(
        "ended", {"exit_code": int(code), "seconds": seconds}, severity=_SEVERITY.get(code, "WARN")
    )
    if log.trouble:
        _complain(f"warning: the log {log.target} was not written: {log.trouble}")
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
    except OSError as full:
        _drop_stdout()
        if code != Exit.ERROR:  # else one was told already
            _complain(f"error: what was to be shown was not written: {full.strerror}")
        return Exit.ERROR
    return code


def _run(argv: list[str], told: _Told) -> int:
    invocation = told.invocation
    try:
        result = front.main(args=argv, prog_name="muster", standalone_mode=False, obj=invocation)
    except click.exceptions.Exit as done:
        return done.exit_code
    except (click.Abort, KeyboardInterrupt):
        what = "interrupted: what was finished is kept, nothing is half done; run it again"
        return told.end(Exit.INTERRUPTED, "interrupted", what, prefix="")
    except click.UsageError as error:
        remedy = f"see `{error.ctx.command_path} --help`" if error.ctx is not None else ""
        return told.end(Exit.ERROR, "usage", error.format_message(), remedy=remedy)
    except click.ClickException as error:
        return told.end(Exit.ERROR, "usage", error.format_message())
    except MusterError as error:
        code = told.end(
            Exit.ERROR, kind_of(error), error.what, where=error.where, remedy=error.remedy
        )
        _debug_log(error, invocation)
        return code
    except BrokenPipeError:
        _drop_stdout()
        return Exit.CLEAN  # who reads has seen enough
    except SystemExit as done:  # click's own answer to a closed pipe
        _drop_stdout()
        return done.code if isinstance(done.code, int) else Exit.ERROR
    except Exception as error:  # noqa: BLE001  the last boundary: no traceback reaches a user
        return _unexpected(error, told)
    return int(result) if isinstance(result, int) else Exit.CLEAN


@dataclass(frozen=True, slots=True)
class _Told:
    """How a run that ends with an error tells it: to people, to the log, and to machines."""

    invocation: Invocation
    arguments: Sequence[str]
    command: str

    @property
    def json(self) -> bool:
        """Whether JSON was asked for; a line that is wrong may never have been read as a whole."""
        words = [*self.arguments]
        words = words[: words.index("--")] if "--" in words else words
        asked = "--format=json" in words or ("--format", "json") in itertools.pairwise(words)
        return asked or self.invocation.json

    def end(
        self,
        code: Exit,
        kind: str,
        what: str,
        *,
        where: str = "",
        remedy: str = "",
        prefix: str = "error: ",
    ) -> Exit:
        """Say it once, scrubbed: on stderr, in the log, and as the document that was asked for."""
        what, where, remedy = (_scrub(part, self.invocation) for part in (what, where, remedy))
        _complain(prefix + str(MusterError(what, where=where, remedy=remedy)))
        if code is not Exit.INTERRUPTED:
            facts: dict[str, Json] = {"what": what, "where": where, "remedy": remedy}
            self.invocation.log.write("error", facts, severity="ERROR")
        if self.json and not self.invocation.emitted:
            document: JsonObject = {
                "schema": "muster/error/1",
                "command": self.command,
                "exit_code": int(code),
                "kind": kind,
                "what": safe_lines(what),
                "where": safe_lines(where),
                "remedy": safe_lines(remedy),
            }
            try:
                self.invocation.emit(document)
            except BrokenPipeError:
                _drop_stdout()
            except OSError as full:
                _complain(f"warning: the answer was not written: {full.strerror}")
        return code


def kind_of(error: MusterError) -> str:
    """Name an error of the tree in snapshots/errors.py as machines read it: not-found, denied."""
    for each in type(error).__mro__:
        if each.__module__ == MusterError.__module__ and each is not MusterError:
            return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", each.__name__.removesuffix("Error")).lower()
    return "error"


def _unexpected(error: Exception, told: _Told) -> Exit:
    """Tell what no command foresaw: the machine's own limits, or a mistake of muster's."""
    if isinstance(error, MemoryError):
        what, remedy = "this machine has no memory left", "lower [snapshot] concurrency"
        return told.end(Exit.ERROR, "system", what, remedy=remedy)
    if isinstance(error, OSError) and error.strerror:
        where = str(error.filename) if error.filename else ""
        remedy = "check the path, its permissions and the space left"
        return told.end(Exit.ERROR, "system", error.strerror.lower(), where=where, remedy=remedy)
    log = _debug_log(error, told.invocation)
    first = str(error).split("\n", maxsplit=1)[0][:200]
    what = f"internal error {type(error).__name__}: {first}"
    remedy = f"details are in {log}" if log else "set MUSTER_DEBUG=1 to get details in a file"
    return told.end(Exit.ERROR, "internal", what, remedy=remedy, prefix="")


def _debug_log(error: Exception, invocation: Invocation) -> Path | None:
    """Write the traceback, scrubbed, to a file of ours, and say where; only under MUSTER_DEBUG."""
    if not invocation.environment.debug:
        return None
    import traceback

    text = _scrub("".join(traceback.format_exception(error)), invocation)
    try:
        descriptor, name = tempfile.mkstemp(prefix="muster-debug-", suffix=".log", text=True)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError:
        return None
    return Path(name)


def _scrub(text: str, invocation: Invocation) -> str:
    """Take out what looks like a secret, and the secrets that the environment is known to hold."""
    from snapshots.cloud.scrub import scrub  # only when there is something to tell

    for value in sorted(invocation.environment.secrets, key=len, reverse=True):
        text = text.replace(value, "[secret]").replace(quote(value, safe=""), "[secret]")
    return scrub(text)


def _complain(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        click.echo(safe_lines(text), err=True)


def _drop_stdout() -> None:
    """Send what is left for a closed pipe nowhere: the interpreter flushes once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
