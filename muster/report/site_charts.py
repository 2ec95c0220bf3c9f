"""Charts of the site: drawn by pygal, then taken apart and rebuilt of what is known to be harmless.

Only the elements and attributes of a short list survive: no script, no style, no link, no comment.
Colours come from the page's own style sheet, so that a chart follows light and dark.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from xml.etree import ElementTree as ET

from markupsafe import Markup, escape

from muster.report.site_model import see

WIDTH: Final = 1000
_ELEMENTS: Final = frozenset({"svg", "g", "path", "line", "rect", "circle", "text", "title"})
_ATTRIBUTES: Final = frozenset(
    {"d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "ry", "width", "height"}
    | {"transform", "class", "viewBox"}
)
_VALUE: Final = re.compile(r"[A-Za-z0-9 .,()+eE_-]*")
_COLOUR: Final = re.compile(r"color-(\d+)")
_FLOAT: Final = re.compile(r"-?\d+\.\d{2,}")
_LABEL: Final = 28  # characters of a label on an axis


@dataclass(frozen=True, slots=True)
class Series:
    """One row of numbers; None where nothing was measured."""

    name: str
    tone: str  # a class of the style sheet: good, bad, at-risk, not-known, quiet, main, goal
    values: Sequence[float | None]
    labels: Sequence[str] = ()  # of each value, shown when it is pointed at
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart and what it says to those who do not see it."""

    svg: Markup
    label: str
    caption: str
    legend: tuple[tuple[str, str], ...]  # tone, name
    newest_right: bool = False  # what matters most lies at the right


def _library() -> Any:
    """Import pygal, and take away the import hook that it leaves behind.

    The hook finds plugins of pygal, of which there are none here, and has Python warn at every
    import that follows.
    """
    import pygal  # type: ignore[import-untyped]

    sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "PluginImportFixer"]
    return pygal


def lines(
    title: str,
    marks: Sequence[str],
    series: Sequence[Series],
    *,
    unit: Callable[[float], str],
    caption: str = "",
    height: int = 260,
) -> Drawn | None:
    """Draw lines over labelled moments; None when there is nothing to draw."""
    pygal = _library()
    if not marks or not any(v is not None for s in series for v in s.values):
        return None
    many = len(marks) > 8
    chart = pygal.Line(
        **_settings(height, unit),
        dots_size=3 if len(marks) < 40 else 1.5,
        show_minor_x_labels=False,
        allow_interruptions=True,
    )
    chart.x_labels = [see(mark, _LABEL) for mark in marks]
    if many:
        step = -(-len(marks) // 6)
        chart.x_labels_major = chart.x_labels[::step]
        # pygal knows a label by its text: those that look alike would all be shown.
        chart.x_labels = _different(chart.x_labels)
        chart.x_labels_major = chart.x_labels[::step]
    else:
        chart.show_minor_x_labels = True
    return replace(_drawn(chart, title, series, caption), newest_right=True)


def stacked(
    title: str,
    marks: Sequence[str],
    series: Sequence[Series],
    *,
    unit: Callable[[float], str],
    caption: str = "",
) -> Drawn | None:
    """Draw one horizontal bar for each mark, made of the series; None when all is nothing."""
    pygal = _library()
    if not marks or not any(s.values and sum(v or 0 for v in s.values) for s in series):
        return None
    shown = [s for s in series if sum(v or 0 for v in s.values)]
    chart = pygal.HorizontalStackedBar(**_settings(50 + 34 * len(marks), unit))
    chart.show_minor_y_labels = True  # the marks, which a horizontal chart has upright
    chart.show_minor_x_labels = False
    # pygal draws the first at the bottom.
    chart.x_labels = _different([see(mark, _LABEL) for mark in reversed(marks)])
    turned = [
        Series(s.name, s.tone, list(reversed(s.values)), list(reversed(s.labels))) for s in shown
    ]
    return _drawn(chart, title, turned, caption)


def bars(
    title: str,
    marks: Sequence[str],
    series: Sequence[Series],
    *,
    unit: Callable[[float], str],
    caption: str = "",
    height: int = 220,
) -> Drawn | None:
    """Draw upright bars; None when there is nothing to draw."""
    pygal = _library()
    if not marks or not any(v for s in series for v in s.values):
        return None
    chart = pygal.Bar(**_settings(height, unit), show_minor_x_labels=len(marks) <= 8, margin_top=6)
    chart.x_labels = _different([see(mark, _LABEL) for mark in marks])
    if len(marks) > 8:
        chart.x_labels_major = chart.x_labels[:: -(-len(marks) // 6)]
    return _drawn(chart, title, series, caption)


def _different(labels: Sequence[str]) -> list[str]:
    """Make labels that look alike different, by spaces that take no room in what is drawn."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for label in labels:
        number = seen.get(label, 0)
        seen[label] = number + 1
        found.append(label + " " * number)
    return found


def _settings(height: int, unit: Callable[[float], str]) -> dict[str, Any]:
    from pygal.style import Style  # type: ignore[import-untyped]

    sizes = {"label_font_size": 13, "major_label_font_size": 13}
    return {
        "js": [],
        "css": [],
        "style": Style(font_family="sans-serif", **sizes),
        "no_prefix": True,
        "explicit_size": False,
        "width": WIDTH,
        "height": height,
        "margin": 4,
        "spacing": 8,
        "show_legend": False,  # the page has its own, which wraps
        "truncate_label": -1,
        "show_y_guides": True,
        "show_x_guides": False,
        "y_labels_major_count": 4,
        "show_minor_y_labels": False,
        "include_x_axis": True,
        "no_data_text": "",
        "value_formatter": unit,
        "formatter": unit,
    }


def _drawn(chart: Any, title: str, series: Sequence[Series], caption: str) -> Drawn:
    for one in series:
        labels = one.labels or [""] * len(one.values)
        chart.add(
            see(one.name, 40),
            [
                # pygal divides by the least power of ten below a value: by nothing, for one that
                # is next to nothing.
                {"value": round(value, 9), "label": see(label, 160)} if value is not None else None
                for value, label in zip(one.values, labels, strict=True)
            ],
            show_dots=not one.dashed,
        )
    root = chart.render_tree()
    tones = [one.tone + (" dashed" if one.dashed else "") for one in series]
    label = see(title, 300)
    text = "".join(_safe(root, tones, label))
    legend = tuple(zip(tones, (see(one.name, 40) for one in series), strict=True))
    return Drawn(Markup(text), label, caption, legend)  # noqa: S704  built by _safe, which escapes


def _safe(root: ET.Element, tones: Sequence[str], label: str) -> Iterator[str]:
    """Write a tree anew: what is not on the lists is left out, texts and values are escaped."""
    box = root.get("viewBox", "")
    if not _VALUE.fullmatch(box):
        box = f"0 0 {WIDTH} 230"
    yield f'<svg class="drawn" viewBox="{box}" role="img" aria-label="{escape(label)}">'
    for child in root:
        yield from _element(child, tones)
    yield "</svg>"


def _element(element: ET.Element, tones: Sequence[str]) -> Iterator[str]:
    tag = _tag(element)
    names = (element.get("class") or "").split()
    if tag not in _ELEMENTS or tag in ("svg", "title") or "tooltip-overlay" in names:
        return
    if tag == "rect" and "background" in names:
        return
    kept = {
        name.rsplit("}", 1)[-1]: value
        for name, value in element.items()
        if name.rsplit("}", 1)[-1] in _ATTRIBUTES and _VALUE.fullmatch(value)
    }
    if "class" in kept:
        kept["class"] = _COLOUR.sub(lambda m: _tone(tones, int(m[1])), kept["class"])
    attributes = "".join(
        f' {name}="{escape(_FLOAT.sub(lambda m: f"{float(m[0]):.1f}", value))}"'
        for name, value in sorted(kept.items())
        if value
    )
    inner = list(_inner(element, tones))
    text = str(escape(element.text.strip())) if tag == "text" and element.text else ""
    if tag in ("g", "text") and not inner and not text:
        return
    yield f"<{tag}{attributes}>{text}{''.join(inner)}</{tag}>"


def _tone(tones: Sequence[str], number: int) -> str:
    return f"tone-{tones[number]}" if number < len(tones) else "tone-quiet"


def _inner(element: ET.Element, tones: Sequence[str]) -> Iterator[str]:
    told = {(d.get("class") or ""): d.text or "" for d in element if _tag(d) == "desc"}
    words = ": ".join(t for t in (told.get("label") or told.get("x_label"), told.get("value")) if t)
    if words:
        yield f"<title>{escape(words.strip())}</title>"
    for child in element:
        yield from _element(child, tones)


def _tag(element: ET.Element) -> str:
    """Give an element's name; a comment's is a function, and so no name."""
    return str(element.tag).rsplit("}", 1)[-1]
