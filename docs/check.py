"""Check the documentation: links resolve, commands and make targets are real and documented.

`python docs/check.py [ROOT]` prints what is wrong, a line each, and ends with 1 if there is any.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`[^`\n]+`")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
TARGET = re.compile(r"^([a-z][a-z-]*):(?!=)", re.MULTILINE)
NOT_OURS = {".venv", ".venv-az", "node_modules", ".git", ".azurite", ".state", ".demo", "samples"}


def pages(root: Path) -> list[Path]:
    """Every Markdown page of ours below `root`, in order."""
    found = (path for path in root.rglob("*.md") if not NOT_OURS & set(path.parts))
    return sorted(path for path in found if not any(p.startswith(".pytest") for p in path.parts))


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get: lower case, words joined by dashes."""
    text = FENCE.sub("", page.read_text("utf-8"))
    found: set[str] = set()
    for heading in HEADING.findall(text):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 1
        unique = slug
        while unique in found:
            unique, number = f"{slug}-{number}", number + 1
        found.add(unique)
    return found


def links(page: Path) -> list[str]:
    """The link targets of a page, outside of code."""
    return LINK.findall(SPAN.sub("", FENCE.sub("", page.read_text("utf-8"))))


def check_links(root: Path, all_pages: list[Path]) -> Iterator[str]:
    """Each link of ours leads to a file, and each anchor to a heading."""
    for page in all_pages:
        for link in links(page):
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue  # an address on the web: not ours to check
            where, _, anchor = unquote(link).partition("#")
            target = (page.parent / where).resolve() if where else page
            name = page.relative_to(root)
            if not target.is_relative_to(root) or not target.exists():
                yield f"{name}: {link} leads nowhere"
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                yield f"{name}: {link} names a heading that is not there"


def check_reachable(root: Path, all_pages: list[Path]) -> Iterator[str]:
    """Each page below docs/ can be reached from docs/index.md."""
    start = root / "docs" / "index.md"
    if not start.exists():
        yield "docs/index.md is missing"
        return
    seen: set[Path] = set()
    to_do = [start]
    while to_do:
        page = to_do.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = (
            (page.parent / unquote(link).partition("#")[0]).resolve() for link in links(page)
        )
        to_do += [t for t in targets if t.suffix == ".md" and t.is_file() and t not in seen]
    for page in all_pages:
        if page.is_relative_to(root / "docs") and page not in seen:
            yield f"{page.relative_to(root)} cannot be reached from docs/index.md"


def commands() -> set[str]:
    """The sub-commands that `muster --help` lists."""
    done = subprocess.run(
        [sys.executable, "-m", "muster", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: set[str] = set()
    section = ""
    for line in done.stdout.splitlines():
        if re.match(r"\S.*:$", line):
            section = line
        elif section != "Options:" and (row := re.match(r"  ([a-z][a-z-]*)(?:  |$)", line)):
            found.add(row[1])
    return found


def shown(page: Path) -> str:
    """What a page shows as code: fenced blocks and spans."""
    text = page.read_text("utf-8")
    fenced = FENCE.findall(text)
    return "\n".join([*fenced, *SPAN.findall(FENCE.sub("", text))])


def check_commands(root: Path, all_pages: list[Path], real: set[str]) -> Iterator[str]:
    """Each command is in docs/commands.md, once there is one; no page shows one that is not."""
    reference = root / "docs" / "commands.md"
    if reference.exists():
        documented = shown(reference)
        for name in sorted(real):
            if not re.search(rf"\bmuster {name}\b", documented):
                yield f"docs/commands.md: muster {name} is not documented"
    for page in all_pages:
        # What a reader would type: a prompt, then the program.
        for name in re.findall(r"^ *\$ (?:\S*/)?muster ([a-z][a-z-]*)", shown(page), re.MULTILINE):
            if name not in real:
                yield f"{page.relative_to(root)}: there is no command muster {name}"


def check_targets(root: Path, all_pages: list[Path]) -> Iterator[str]:
    """Each make target that a page shows is in the Makefile."""
    real = set(TARGET.findall((root / "Makefile").read_text("utf-8")))
    pattern = re.compile(r"(?:^ *\$ |`)make (?:[A-Z]+=\S+ )*([a-z][a-z-]*)", re.MULTILINE)
    for page in all_pages:
        for name in pattern.findall(shown(page)):
            if name not in real:
                yield f"{page.relative_to(root)}: there is no target make {name}"


def main(arguments: list[str]) -> int:
    """Check, say what is wrong, and give the exit code: 0 or 1."""
    root = Path(arguments[0] if arguments else Path(__file__).parents[1]).resolve()
    all_pages = pages(root)
    real = commands()
    problems = [
        *check_links(root, all_pages),
        *check_reachable(root, all_pages),
        *check_commands(root, all_pages, real),
        *check_targets(root, all_pages),
    ]
    for problem in problems:
        print(problem)
    count = sum(len(links(page)) for page in all_pages)
    print(
        f"docs: {len(all_pages)} pages, {count} links, {len(real)} commands: "
        + (f"{len(problems)} wrong" if problems else "all right")
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
