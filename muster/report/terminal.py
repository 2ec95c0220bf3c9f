"""Tables, times, sizes and values as a terminal shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from muster.invocation import safe, safe_lines
from snapshots.model import Change, ChangeType, Gap, Json, Missing, canonical

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_LONGEST_VALUE = 72
_STYLES = {
    ChangeType.ADDED: ("+", "green"),
    ChangeType.REMOVED: ("-", "red"),
    ChangeType.CHANGED: ("~", "yellow"),
    ChangeType.UNKNOWN: ("?", "magenta"),
}


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    right: Sequence[str] = (),
) -> Table:
    """Make a table; every cell is made harmless. `right` names columns of numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=Text(safe(title)) if title else None, title_justify="left", box=box.SIMPLE_HEAD
    )
    for column in columns:
        made.add_column(
            column, justify="right" if column in right else "left", overflow="fold", no_wrap=False
        )
    for row in rows:
        made.add_row(*(Text(safe_lines(cell)) for cell in row))
    return made


def text(words: str, style: str = "") -> Text:
    """Make a line of text, harmless and maybe in colour."""
    from rich.text import Text

    return Text(safe_lines(words), style=style)


def moment(when: datetime) -> str:
    """Write a time as UTC, to the second."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def iso(when: datetime) -> str:
    """Write a time for machines: RFC 3339, UTC."""
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def size(count: int) -> str:
    """Write a number of bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def span(seconds: float) -> str:
    """Write a duration for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return str(timedelta(seconds=round(seconds)))


def value(found: Json | Missing) -> str:
    """Write one value on one line, cut where it is long."""
    if isinstance(found, Missing):
        return "(absent)"
    words = canonical(found).decode()
    return words if len(words) <= _LONGEST_VALUE else words[: _LONGEST_VALUE - 1] + "…"


def plural(count: int, one: str, many: str = "") -> str:
    """Write a number with its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def change_lines(change: Change) -> list[Text]:
    """Write one change: what happened to what, and each property before and after."""
    sign, style = _STYLES[change.type]
    head = f"{sign} {change.key}"
    if change.renamed_from is not None:
        head += f"  (was {change.renamed_from})"
    lines = [text(head, style)]
    if change.gap is not None:
        lines.append(text(f"    unread: {change.gap.reason.value}, {change.gap.detail}"))
    lines += [
        text(f"    {path.path or '/'}: {value(path.before)} -> {value(path.after)}")
        for path in change.paths
    ]
    return lines


def gap_rows(gaps: Iterable[Gap]) -> list[tuple[str, str, str, str]]:
    """Write gaps as rows, those of one kind and reason together: what, how many, why, detail."""
    groups: dict[tuple[str, bool, str], list[Gap]] = {}
    for gap in gaps:
        groups.setdefault((gap.key.kind, gap.listing, gap.reason.value), []).append(gap)
    rows: list[tuple[str, str, str, str]] = []
    for (kind, listing, reason), found in sorted(groups.items()):
        first = gap_name(found[0])
        what = first if len(found) == 1 else f"{kind}: {len(found)} {_unread(listing=listing)}"
        rows.append((what, str(len(found)), reason, found[0].detail))
    return rows


GAP_COLUMNS = ("unread", "gaps", "why", "detail of the first")


def _unread(*, listing: bool) -> str:
    return "listings" if listing else "resources"


def gap_name(gap: Gap) -> str:
    """Name what was unread."""
    return f"all of {gap.key}" if gap.listing else str(gap.key)
