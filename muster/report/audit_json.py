"""What `muster audit` tells machines; the shape is docs/schemas/audit.schema.json."""

from __future__ import annotations

from snapshots.audit.report_json import report_document
from snapshots.audit.report_model import AuditReport
from snapshots.model import pretty


def write(report: AuditReport) -> str:
    """Give the report as one JSON document with a final newline."""
    return pretty(report_document(report)).decode()
