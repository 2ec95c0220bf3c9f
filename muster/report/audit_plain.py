"""An audit as plain text, for files."""

from __future__ import annotations

import io

from muster.report.audit_text import lines
from snapshots.audit.report_model import AuditReport


def write(report: AuditReport) -> str:
    """Give the text without colours, a line for each fact; tables are 120 columns wide."""
    from rich.console import Console
    from rich.text import Text

    stream = io.StringIO()
    console = Console(
        file=stream, no_color=True, highlight=False, markup=False, emoji=False, width=120
    )
    for part in lines(report):
        # A file is searched and pasted from: only tables are laid out in columns.
        console.print(part, soft_wrap=isinstance(part, Text))
    return stream.getvalue()
