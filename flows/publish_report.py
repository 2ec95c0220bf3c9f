"""Make the static site from what is recorded, and keep it where people look."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows.telling import Event, Link, Outcome, Teller, concluded
from flows.turns import passing
from flows.wired import wired
from flows.words import report_markdown
from muster.verbs.report import document, exit_code, make_report
from snapshots.model import JsonObject


@flow(name="publish-report", timeout_seconds=2 * 3600)
def publish_report(
    config: str = "",
    output: str = "",
    to_vault: bool = False,
    use_vault: bool = True,
    fresh: bool = False,
    url: str = "",
) -> State[JsonObject]:
    """Make the static site from what is recorded. No call goes to Azure, but for `fresh`.

    What is recorded and could not be read ends the run as Incomplete.

    Args:
        config: The muster.toml on the worker (empty: MUSTER_CONFIG, or muster.toml where it runs).
        output: The folder that is written (empty: report, beside the configuration).
        to_vault: Keep a copy in the vault, too.
        use_vault: Look into the vault, too; not when it is down.
        fresh: Ask first whether a recovery would work: calls to Azure that only read.
        url: Where people find that folder, for the link in Prefect (empty: the file itself).
    """
    return concluded(
        "report",
        lambda: make_site(config, output, url, to_vault=to_vault, use_vault=use_vault, fresh=fresh),
    )


@task(
    name="make the site",
    retries=2,
    retry_delay_seconds=[30, 120],
    retry_condition_fn=passing,
    cache_policy=NO_CACHE,
)
def make_site(
    config: str, output: str, url: str, *, to_vault: bool, use_vault: bool, fresh: bool
) -> Outcome:
    """Make it once. Idempotent: the same records make the same pages."""
    folder = Path(output).expanduser() if output else None
    with wired(config) as wiring, Teller("report") as tell:
        found = make_report(
            wiring, output=folder, to_vault=to_vault, use_vault=use_vault, fresh=fresh, tell=tell
        )
        shown = document(found)
        link = f"{url.rstrip('/')}/index.html" if url else found.index.as_uri()
        return Outcome(
            "report",
            wiring.settings.estate.name,
            exit_code(found),
            f"{shown['verdict']}: {shown['answer']}",
            shown,
            report_markdown(shown),
            events=[Event("muster.report.published", payload={"verdict": shown["verdict"]})],
            links=[Link("muster-report-site", link, "The report")],
        )
