"""The formats an audit can be written in, each imported when it is asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import assert_never

from snapshots.audit.report_model import AuditReport, Severity
from snapshots.errors import InputError


class ReportFormat(StrEnum):
    """A form of the report; its value is what --format takes."""

    TEXT = "text"
    MARKDOWN = "md"
    HTML = "html"
    JSON = "json"
    SARIF = "sarif"
    JUNIT = "junit"
    CSV = "csv"


EXTENSIONS = {
    ReportFormat.TEXT: ".txt",
    ReportFormat.MARKDOWN: ".md",
    ReportFormat.HTML: ".html",
    ReportFormat.JSON: ".json",
    ReportFormat.SARIF: ".sarif",
    ReportFormat.JUNIT: ".junit.xml",
    ReportFormat.CSV: ".csv",
}


def write(report: AuditReport, format_: ReportFormat, *, least: Severity = Severity.INFO) -> bytes:
    """Give the report in one format, UTF-8.

    `least` is what --fail-on asked for: JUnit lets milder findings pass; the others tell all alike.
    """
    # Imported here, so that a run pays only for the format it asked for.
    match format_:
        case ReportFormat.TEXT:
            from muster.report import audit_plain

            return audit_plain.write(report).encode("utf-8", "backslashreplace")
        case ReportFormat.JSON:
            from muster.report import audit_json

            return audit_json.write(report).encode("utf-8")
        case ReportFormat.HTML:
            from muster.report.audit_html import audit_html

            return audit_html(report)
        case ReportFormat.MARKDOWN:
            from muster.report.audit_markdown import audit_markdown

            return audit_markdown(report)
        case ReportFormat.SARIF:
            from muster.report.audit_sarif import audit_sarif

            return audit_sarif(report)
        case ReportFormat.JUNIT:
            from muster.report.audit_junit import audit_junit

            return audit_junit(report, least)
        case ReportFormat.CSV:
            from muster.report.audit_csv import audit_csv

            return audit_csv(report)
        case _:
            assert_never(format_)


def write_all(
    report: AuditReport,
    formats: Iterable[ReportFormat],
    folder: Path,
    *,
    least: Severity = Severity.INFO,
    stem: str = "audit",
) -> list[Path]:
    """Write several formats beside each other and give their paths: audit.html, audit.md, ….

    Each file appears whole or not at all; an older one of the same name is replaced. Raises
    InputError when the folder cannot be made or written.
    """
    written: list[Path] = []
    for format_ in dict.fromkeys(formats):
        data = write(report, format_, least=least)
        path = folder / f"{stem}{EXTENSIONS[format_]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            keep(path, data)
        except OSError as wrong:
            raise InputError(
                f"the report cannot be written: {wrong.strerror or wrong}",
                where=str(path),
                remedy="name a folder that can be written with --output",
            ) from wrong
        written.append(path)
    return written


def keep(path: Path, data: bytes) -> None:
    """Put a file in its place at once, readable as the user's umask says. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
