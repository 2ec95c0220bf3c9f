"""The HTML report in a real Chromium: nothing runs, nothing leaves, everything can be read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from muster.report.audit_html import audit_html
from tests.audit_report_fixtures import hostile, realistic

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

# The least contrast (WCAG 2.2) of every text that is shown, with what it belongs to. Grounds are
# stacked from the root inwards, since tinted ones may let the one below shine through.
CONTRAST = """
const parse = (text) => {
  const canvas = parse.canvas ||= document.createElement('canvas').getContext('2d');
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const mix = (top, below, i) => top[i] * top[3] + below[i] * (1 - top[3]);
const over = (top, below) => [0, 1, 2].map((i) => mix(top, below, i)).concat(1);
const light = ([r, g, b]) => {
  const part = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const ground = (element) => {
  const chain = [];
  for (let e = element; e; e = e.parentElement)
    chain.unshift(parse(getComputedStyle(e).backgroundColor));
  return chain.reduce((below, top) => over(top, below), dark() ? [0, 0, 0, 1] : [255, 255, 255, 1]);
};
const dark = () => matchMedia('(prefers-color-scheme: dark)').matches;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let found = [], count = 0;
while (walker.nextNode()) {
  const text = walker.currentNode, element = text.parentElement;
  if (!text.data.trim() || element.closest('title') || !element.checkVisibility()) continue;
  const style = getComputedStyle(element), svg = element instanceof SVGElement;
  const below = ground(element);
  const ink = over(parse(svg ? style.fill : style.color), below);
  const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
  count += 1;
  const name = element.tagName + '.' + element.getAttribute('class');
  found.push([(a + 0.05) / (b + 0.05), name, text.data.trim().slice(0, 40)]);
}
found.sort((x, y) => x[0] - y[0]);
return [count, found.slice(0, 5)];
"""

FOCUSABLE = """
return [...document.querySelectorAll('a[href], summary, input, [tabindex="0"]')]
  .filter((e) => e.checkVisibility({visibilityProperty: true}))
  .map((e, i) => { e.dataset.number = i; return [i, e.tagName, e.name || '']; });
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if BROWSER is None or DRIVER is None:
        missing = "chromium" if BROWSER is None else "chromedriver"
        pytest.skip(f"{missing} is not on the PATH (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_page_load_timeout(60)
        driver.set_script_timeout(60)
        yield driver
    finally:
        driver.quit()


def look(
    browser: webdriver.Chrome, page: Path, *, scheme: str = "light", width: int = 1280
) -> None:
    """Open a page afresh, with a colour scheme and a width, and forget earlier logs."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get("about:blank")
    log(browser, "browser")
    log(browser, "performance")
    browser.get(page.as_uri())


def log(browser: webdriver.Chrome, name: str) -> list[dict[str, Any]]:
    """Give what was logged since it was last given."""
    found: list[dict[str, Any]] = browser.get_log(name)  # type: ignore[no-untyped-call]
    return found


def asked(browser: webdriver.Chrome) -> set[str]:
    """Give the addresses that were asked for since `look`."""
    found: set[str] = set()
    for entry in log(browser, "performance"):
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.requestWillBeSent":
            found.add(event["params"]["request"]["url"].split(",")[0])
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {"realistic": audit_html(realistic()), "hostile": audit_html(hostile())}
    # The same page where somebody forgot to escape, and to keep a policy: what must be seen.
    broken = made["realistic"].replace(b"Content-Security-Policy", b"x-none")
    planted = (
        b"<script>window.pwned=1;console.error('x')</script><img src='http://127.0.0.1:9/x.png'>"
        b"<p><span class='under'>faint</span></p>"
        b"<style>.under{color:#999 !important}</style></main>"
    )
    made["broken"] = broken.replace(b"</main>", planted)
    found: dict[str, Path] = {}
    for name, data in made.items():
        found[name] = folder / f"{name}.html"
        found[name].write_bytes(data)
    return found


def troubles(browser: webdriver.Chrome, page: Path) -> list[str]:
    look(browser, page)
    wrong = [str(entry["message"]) for entry in log(browser, "browser")]
    wrong += [f"asked for {u}" for u in asked(browser) if u not in (page.as_uri(), _ICON)]
    if browser.execute_script("return window.pwned") is not None:
        wrong.append("a script ran")
    return wrong


_ICON = "data:image/svg+xml;base64"


@pytest.mark.parametrize("name", ["realistic", "hostile"])
def test_no_script_runs_nothing_is_asked_for_and_the_console_is_silent(
    browser: webdriver.Chrome, pages: dict[str, Path], name: str
) -> None:
    assert troubles(browser, pages[name]) == []
    browser.find_element(By.TAG_NAME, "h1")
    # What listens is what would run later: no element carries a handler.
    handlers = browser.execute_script(
        "return [...document.querySelectorAll('*')].filter(e => [...e.attributes]"
        ".some(a => a.name.startsWith('on') || /^\\s*javascript:/i.test(a.value) && "
        "['href','src','action','formaction','xlink:href'].includes(a.name))).length"
    )
    assert handlers == 0


def test_a_page_that_runs_scripts_and_fetches_is_seen(
    browser: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    wrong = troubles(browser, pages["broken"])
    assert "a script ran" in wrong
    assert any(found.startswith("asked for http://127.0.0.1:9/") for found in wrong)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(
    browser: webdriver.Chrome, pages: dict[str, Path], scheme: str
) -> None:
    look(browser, pages["realistic"], scheme=scheme)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    count, worst = _contrast(browser)
    assert count > 300
    assert worst[0][0] >= 4.5, worst


def test_a_faint_text_is_seen(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    look(browser, pages["broken"])
    assert _contrast(browser)[1][0][0] < 4.5


def _contrast(browser: webdriver.Chrome) -> tuple[int, list[Any]]:
    count, worst = browser.execute_script(CONTRAST)
    return count, worst


def test_every_interactive_part_is_reached_by_tab_and_shows_that_it_is(
    browser: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    look(browser, pages["realistic"])
    wanted = browser.execute_script(FOCUSABLE)
    # Of a group of radio buttons, Tab reaches one; the arrows reach the others.
    numbers = {number for number, tag, name in wanted if not (tag == "INPUT" and name)}
    assert len(numbers) > 60
    reached: set[int] = set()
    unseen: list[str] = []
    for _ in range(len(wanted) + 20):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        number, outlined = browser.execute_script(
            "const e = document.activeElement; const s = getComputedStyle(e);"
            "const c = e.querySelector('circle'), l = e.labels && e.labels[0];"
            "const seen = s.outlineStyle !== 'none'"
            " || (c && getComputedStyle(c).strokeWidth === '2.5px')"
            " || (l && getComputedStyle(l).outlineStyle !== 'none');"
            "return [e.dataset.number ?? null, seen ? true : e.outerHTML.slice(0, 80)]"
        )
        if number is None:
            break
        reached.add(int(number))
        if outlined is not True:
            unseen.append(outlined)
    assert numbers - reached == set()
    assert unseen == []


def test_a_filter_shows_findings_of_one_severity_without_a_script(
    browser: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    look(browser, pages["realistic"])
    shown = (
        "return [...document.querySelectorAll('details.finding')]"
        ".filter(e => e.checkVisibility()).length"
    )
    everything = browser.execute_script(shown)
    browser.find_element(By.ID, "show-all").send_keys(Keys.ARROW_RIGHT)
    assert browser.find_element(By.ID, "show-critical").is_selected()
    assert browser.execute_script(shown) == 2
    assert everything == 13


def test_a_link_to_a_folded_finding_unfolds_it(
    browser: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    look(browser, pages["realistic"])
    folded = browser.find_elements(By.CSS_SELECTOR, "details.finding:not([open]) > .body")
    anchor = folded[0].get_attribute("id")
    link = browser.find_element(By.CSS_SELECTOR, f"table a[href='#{anchor}']")
    browser.execute_script("arguments[0].focus()", link)
    link.send_keys(Keys.ENTER)
    assert browser.execute_script(f"return document.getElementById('{anchor}').checkVisibility()")


@pytest.mark.parametrize("name", ["realistic", "hostile"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_page_is_wider_than_its_window(
    browser: webdriver.Chrome, pages: dict[str, Path], name: str, width: int
) -> None:
    look(browser, pages[name], width=width)
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width


def test_print_shows_what_is_folded(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    look(browser, pages["realistic"])
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        hidden = browser.execute_script(
            "return [...document.querySelectorAll('.finding > .body')]"
            ".filter(e => !e.checkVisibility({contentVisibilityAuto: true})).length"
        )
        assert hidden == 0
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
