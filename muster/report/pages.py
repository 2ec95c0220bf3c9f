"""Self-contained HTML pages: one style sheet, a strict content policy, everything escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

STYLE = "style.css"
ICON = "icon.svg"


def page(template: str, context: Mapping[str, object], styles: Sequence[str] = (STYLE,)) -> bytes:
    """Fill a template of muster/report/templates; it extends base.html.j2.

    The page asks nobody for anything: its policy allows its own style sheet, by hash, and its icon,
    and neither scripts, fonts, frames nor forms. Texts of the context are escaped by the template;
    the context gives no markup. A name that the template misses is an error, never an empty text.
    `styles` are files beside the templates, joined in order.
    """
    style = "".join(_asset(name) for name in styles)
    policy = (
        f"default-src 'none'; style-src 'sha256-{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    icon = "data:image/svg+xml;base64," + base64.b64encode(_asset(ICON).encode()).decode()
    text = (
        _environment()
        .get_template(template)
        .render({**context, "style": style, "policy": policy, "icon": icon})
    )
    return text.encode("utf-8")


def _hash(style: str) -> str:
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


@lru_cache(maxsize=8)
def _asset(name: str) -> str:
    text = (files("muster.report") / "templates" / name).read_text("utf-8")
    return text.replace("\r\n", "\n")  # a browser hashes what it parsed


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("muster.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
