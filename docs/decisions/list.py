"""Write docs/decisions/README.md, the list of all decisions, from their headings.

python docs/decisions/list.py          writes it
python docs/decisions/list.py --check  says whether it is up to date
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE / "README.md"


def page() -> str:
    """The list as it should be."""
    lines = ["# Decisions", "", "Why things are as they are, each on a page of its own.", ""]
    for path in sorted(HERE.glob("[0-9]*.md")):
        heading = path.read_text("utf-8").splitlines()[0].lstrip("# ").strip()
        title = re.sub(r"^(\d{4})[:.]?\s+", r"\1 ", heading)
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check."""
    wanted = page()
    if "--check" in sys.argv[1:]:
        if PAGE.is_file() and PAGE.read_text("utf-8") == wanted:
            return 0
        print("docs/decisions/README.md is out of date: python docs/decisions/list.py")
        return 1
    PAGE.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
