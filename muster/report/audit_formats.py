"""The formats an audit can be written in, each imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

from snapshots.audit.report_model import AuditReport

# name -> (module, file name); each module has write(report) -> str.
FORMATS: Final[dict[str, tuple[str, str]]] = {
    "text": ("muster.report.audit_plain", "audit.txt"),
    "json": ("muster.report.audit_json", "audit.json"),
}


def writer(name: str) -> Callable[[AuditReport], str]:
    """Give what writes a format."""
    module = importlib.import_module(FORMATS[name][0])
    found = module.write
    assert callable(found)
    write: Callable[[AuditReport], str] = found
    return write


def file_name(name: str) -> str:
    """Give the name of the file that --output writes."""
    return FORMATS[name][1]
