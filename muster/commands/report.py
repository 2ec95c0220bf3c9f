"""`muster report`: one site that tells how an estate stands, from what is recorded."""

from __future__ import annotations

from pathlib import Path

import click

from muster.invocation import Command, Exit, Invocation, described, safe, shared_options
from muster.via import REPORT, via
from muster.wiring import Wiring

_EPILOG = """\b
Examples:
  muster report
  muster report --output ./site --to-vault
  muster report sign-off thread --owner NAME --reason TEXT

\b
Exit codes:
  0  written
  1  error: bad input, a folder that is not ours
  3  written, and something recorded could not be read
"""


@via(REPORT)
@click.group("report", params=list(shared_options()), invoke_without_command=True, epilog=_EPILOG)
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="The folder to write to.  [default: report, beside muster.toml]",
)
@click.option("--to-vault", is_flag=True, help="Keep a copy in the vault, too.")
@click.option("--fresh", is_flag=True, help="Run `muster ready` first: read-only calls to Azure.")
@click.option("--no-vault", is_flag=True, help="Do not look into the vault (it may be down).")
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@click.pass_context
def command(
    context: click.Context,
    output: Path | None,
    to_vault: bool,
    fresh: bool,
    no_vault: bool,
    show: bool,
) -> int:
    """Write the site: what is recoverable, how fresh, what stands in the way.

    Reads ledger, vault and the registry of replicas, and asks nothing of Azure. What was never
    recorded is told as not known, with the command that records it.
    """
    invocation = context.find_object(Invocation) or Invocation()
    if context.invoked_subcommand is not None:
        return Exit.CLEAN
    if to_vault and no_vault:
        message = "--to-vault and --no-vault exclude each other"
        raise click.UsageError(message, context)
    return _make(
        invocation, output, to_vault=to_vault, use_vault=not no_vault, fresh=fresh, show=show
    )


def _make(
    invocation: Invocation,
    output: Path | None,
    *,
    to_vault: bool,
    use_vault: bool,
    fresh: bool,
    show: bool,
) -> int:
    from muster.report.progress import ProgressLine
    from muster.report.site import summary
    from muster.report.terminal import plural, size
    from muster.verbs.report import document, exit_code, make_report

    with (
        Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring,
        ProgressLine(invocation) as line,
    ):
        found = make_report(
            wiring,
            output=output,
            to_vault=to_vault,
            use_vault=use_vault,
            fresh=fresh,
            tell=line.tell,
        )
    if invocation.json:
        invocation.emit(document(found))
    else:
        invocation.show(*(safe(words) for words in summary(found.site)))
        files = f"{plural(len(found.files), 'file')}, {size(sum(found.files.values()))}"
        invocation.show("", safe(f"{found.index}  ({files})"))
        if found.kept:
            invocation.show(
                safe(f"in the vault: {found.kept}/index.html, and one archive beside it")
            )
        for words in found.site.troubles:
            invocation.warn(words)
    if show:
        import webbrowser

        webbrowser.open(found.index.as_uri())
    return exit_code(found)


@described(
    "muster report sign-off thread --owner maria@contoso.example --reason 'no records are kept'",
    "muster report sign-off lost --owner maria@contoso.example --reason '…' --expires 365d",
    "muster report sign-off file/aoai-prod/handbook.pdf --owner … --reason 'the original is in …'",
)
@click.command("sign-off", cls=Command)
@click.argument("what")
@click.option("--owner", required=True, help="Who answers for it.")
@click.option("--reason", required=True, help="Why it may be lost.")
@click.option("--expires", default=None, metavar="WHEN", help="Until when: 365d or 2027-12-31.")
@click.option("--ticket", default="", help="Where it was decided.")
@click.pass_obj
def sign_off(
    invocation: Invocation, what: str, owner: str, reason: str, expires: str | None, ticket: str
) -> int:
    """Sign for state that would not come back: WHAT is lost, recorded, a kind or a key.

    Kept as a file of signoffs/ on the baseline branch; one on the same replaces the older.
    """
    from muster.commands.deciding import until
    from muster.verbs.report import sign_off as keep

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        ends = until(expires, wiring.clock.now())
        commit, file = keep(wiring, what, owner=owner, reason=reason, ticket=ticket, expires=ends)
    if invocation.json:
        invocation.emit(
            {
                "schema": "muster/report-sign-off/1",
                "what": what.strip(),
                "commit": commit,
                "file": file,
            }
        )
    else:
        invocation.show(safe(f"signed off {what.strip()}: {file} in {commit[:12]} on the baseline"))
    return Exit.CLEAN


command.add_command(sign_off)
