"""What each verb does with one configuration, for the command line and for flows alike.

Nothing here knows how it was asked: no click, no terminal, no Prefect.
"""

from __future__ import annotations

from collections.abc import Callable

# Hears how far something is: words, and the part of it that is done (0 to 1), None when not known.
Tell = Callable[[str, float | None], None]


def untold(_words: str, _part: float | None = None) -> None:
    """Hear nothing."""
