"""An audit as plain text, for files."""

from __future__ import annotations

import io

from muster.report.audit_text import lines
from snapshots.audit.report_model import AuditReport


def write(report: AuditReport) -> str:
    """Give the text without colours, 120 columns wide."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(
        file=stream, no_color=True, highlight=False, markup=False, emoji=False, width=120
    )
    for part in lines(report):
        console.print(part)
    return stream.getvalue()
