"""What `muster audit` tells machines; the shape is docs/schemas/audit.schema.json."""

from __future__ import annotations

import re

from snapshots.audit.report_json import report_document
from snapshots.audit.report_model import AuditReport
from snapshots.model import pretty

_BEYOND_ASCII = re.compile("[^\x00-\x7e]+")


def write(report: AuditReport) -> str:
    r"""Give the report as one JSON document with a final newline.

    It means what the ledger keeps. Characters that cannot be seen are written as \u202e: people
    read JSON on terminals and in reviews, too.
    """
    return _BEYOND_ASCII.sub(_visible, pretty(report_document(report)).decode())


def _visible(found: re.Match[str]) -> str:
    text = found.group()
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    # JSON's escapes are units of UTF-16: a character beyond the first plane takes two.
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
